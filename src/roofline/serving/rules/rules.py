"""`Rules`: what a scheduler is told once: limits, pages, and what must be free before a request may begin."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from roofline.calls import checks_methods
from roofline.errors import InvalidValueError, quoted
from roofline.names import unknown_name
from roofline.results import Input
from roofline.step import expected_tokens
from roofline.units import check_flag, whole_number

Engines = Literal["vllm", "sglang", "trtllm"]
Reserve = Literal["prompt", "chunk", "ratio", "whole", "batch"]
Policy = Literal["fcfs", "priority", "lpm", "lof"]
Chunking = Literal["fcfs", "equal"]

_POLICIES = {"vllm": ("fcfs", "priority"), "sglang": get_args(Policy), "trtllm": ("fcfs",)}
_LEAST = {
    "step_tokens": 1,
    "sequences": 1,
    "kv_blocks": 1,
    "page": 1,
    "long_prompt_tokens": 0,
    "drafts": 0,
    "max_model_len": 0,
    "graph_sequences": 0,
    "answer_tokens": 0,
    "ratio_steps": 1,
    "longest_answer": 0,
    "receive_interval": 1,
    "batch_wait_steps": 0,
    "rank_wait_steps": 0,
    "rank_gather_steps": 0,
}


@checks_methods
@dataclass(frozen=True, slots=True)
class Rules(Input):
    """How one replica schedules; of each data-parallel rank, where attention is split by sequences.

    Parameters
    ----------
    engine : {"vllm", "sglang", "trtllm"}
        Whose rules [-].
    step_tokens : int
        Most tokens of a step (vLLM: max_num_batched_tokens), or of its prompts where these run apart [token].
    sequences : int
        Most sequences that run at a time [-].
    kv_blocks : int
        Blocks of the cache that sequences can have: without vLLM's null block, which ``kv_blocks=`` of :func:`rules_of` counts as vLLM's log does [-].
    page : int
        Tokens of a block [token].
    prefix_caching : bool
        Whether full blocks that are in the cache are found again [-].
    reserve : {"prompt", "chunk", "ratio", "whole", "batch"}
        What must be free when a request begins: its whole prompt, its first chunk, prompt and a share of answers to come, prompt and longest
        answer, or that and nobody else runs [-].
    watermark : float
        Share of the blocks that stays free when a request begins beside others [-].
    policy : {"fcfs", "priority", "lpm", "lof"}
        Which waiting request is first: the one that came first, by priority, with the longest prefix in the cache, with the longest answer [-].
    chunked : bool
        Whether a prompt is cut to what a step has room for [-].
    long_prompt_tokens : int
        Most tokens of a prompt in a step that holds other requests too, 0 for no such limit (vLLM: long_prefill_token_threshold) [token].
    drafts : int
        Draft tokens that each decode of a step verifies, for which it has slots and rows besides its own [token].
    max_model_len : int
        Most tokens of a request, prompt and answer together; 0 for no limit [token].
    graph_sequences : int
        Largest batch of decodes that the host launches as a graph, in vLLM counted in rows; 0 for any batch [-].
    graph_tokens : int or None
        Most tokens of a step with prompts whose layers the host launches as a graph; None for what the engine's profile says [token].
    answer_tokens : int
        Tokens that every client allows its answer, where an engine reserves them; 0 if each allows no more than it gets [token].
    mixed_chunk : bool
        SGLang: whether a step with prompts holds answers too (enable_mixed_chunk) [-].
    ratio, least_ratio : float
        SGLang: share of the answers to come that is reserved, at the beginning and at the least [-].
    ratio_steps : int
        SGLang: in how many steps without prompts the share falls from one to the other [-].
    longest_answer : int
        SGLang: most tokens of an answer that are reserved for it [token].
    receive_interval : int
        SGLang: every how many steps without prompts requests are received (scheduler_recv_interval) [-].
    chunking : {"fcfs", "equal"}
        TensorRT-LLM: whether prompts are cut so that the first are done first, or that all advance alike [-].
    batch_wait_steps : int
        TensorRT-LLM: for how many steps prompts wait for others while answers run (batch_wait_timeout_iters) [-].
    batch_wait_ratio : float
        TensorRT-LLM: from which share of `step_tokens` on they do not wait (batch_wait_max_tokens_ratio) [-].
    rank_wait_steps : int
        TensorRT-LLM: every how many steps prompts of a data-parallel rank run that wait until all ranks have some (enable_balance and
        timeout_iters of attention_dp_config); 0 if ranks do not wait for each other [-].
    rank_gather_steps : int
        TensorRT-LLM: for how many steps they wait for more when all ranks have some (batching_wait_iters) [-].
    async_scheduling : bool
        vLLM, in a pipeline: whether a step more than there are stages is scheduled before the first of them is awaited (async_scheduling) [-].
    notes : tuple of str
        How far off derived limits may be, and what a block is where it is not obvious [-].
    """

    engine: Engines
    step_tokens: int
    sequences: int
    kv_blocks: int
    page: int = 16
    prefix_caching: bool = False
    reserve: Reserve = "prompt"
    watermark: float = 0.0
    policy: Policy = "fcfs"
    chunked: bool = True
    long_prompt_tokens: int = 0
    drafts: int = 0
    max_model_len: int = 0
    graph_sequences: int = 0
    graph_tokens: int | None = None
    answer_tokens: int = 0
    mixed_chunk: bool = False
    ratio: float = 0.7
    least_ratio: float = 0.7 * 0.14
    ratio_steps: int = 600
    longest_answer: int = 4096
    receive_interval: int = 1
    chunking: Chunking = "fcfs"
    batch_wait_steps: int = 0
    batch_wait_ratio: float = 0.0
    rank_wait_steps: int = 0
    rank_gather_steps: int = 0
    async_scheduling: bool = True
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name, choices in (("engine", Engines), ("reserve", Reserve), ("policy", Policy), ("chunking", Chunking)):
            one_of(name, getattr(self, name), choices)
        if self.graph_tokens is not None:
            object.__setattr__(self, "graph_tokens", whole_number("graph_tokens", self.graph_tokens))
        for name, least in _LEAST.items():
            object.__setattr__(self, name, whole_number(name, getattr(self, name), minimum=least))
        for name in ("prefix_caching", "chunked", "mixed_chunk", "async_scheduling"):
            object.__setattr__(self, name, check_flag(name, getattr(self, name)))
        object.__setattr__(self, "notes", tuple(self.notes))
        for name in ("watermark", "ratio", "least_ratio", "batch_wait_ratio"):
            _check_share(name, getattr(self, name))
        self._check_engine()

    def _check_engine(self) -> None:
        """Raise if the engine does not know what it is told."""
        if self.policy not in _POLICIES[self.engine]:
            raise InvalidValueError(f"policy is {self.policy!r}; {self.engine} knows {', '.join(_POLICIES[self.engine])}.")
        for name in ("watermark", "long_prompt_tokens"):
            if getattr(self, name) and self.engine != "vllm":
                raise InvalidValueError(f"{name} is of vLLM, and engine is {self.engine}.")
        if self.rank_gather_steps and not self.rank_wait_steps:
            raise InvalidValueError(
                f"rank_gather_steps is {self.rank_gather_steps}, but ranks do not wait for each other: rank_wait_steps says how long they do."
            )


def check_acceptance(drafts: int, acceptance: Any) -> None:
    """Raise if it is not known how many of the drafts of a step are accepted."""
    if drafts and acceptance is None:
        raise InvalidValueError(f"{drafts} drafts are verified in each step; acceptance= says how many are accepted, such as 0.7.")
    if not drafts and acceptance is not None:
        raise InvalidValueError("acceptance is of drafts, and there are none; drafts= says how many.")
    expected_tokens(drafts, 0.0 if acceptance is None else acceptance)


def _check_share(name: str, value: Any) -> None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not known or not (0 <= value < 1 or (value == 1 and name != "watermark")):
        raise InvalidValueError(f"{name} is {quoted(value)}; it is a share: at least 0, {'below' if name == 'watermark' else 'at most'} 1.")


def one_of(name: str, value: Any, choices: Any) -> Any:
    """Return a name if it is one of those that a type allows, or raise."""
    allowed = get_args(choices)
    if not isinstance(value, str):
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be one of {', '.join(allowed)}.")
    if value not in allowed:
        raise unknown_name(name, value, allowed)
    return value
