"""`rules_of`: the rules by which an engine schedules a deployment, unless it is told otherwise."""

from collections.abc import Collection, Mapping
from typing import Any

from roofline.deployment import Deployment
from roofline.deployment.options import OWN
from roofline.deployment.spelling import checks_keywords, refused_option
from roofline.engines import ENGINES, Engine, Limits, load_engine
from roofline.errors import InvalidValueError, quoted
from roofline.model import Experts
from roofline.serving.rules.cache_memory import LENGTH, Blocks, beyond_memory, blocks_in
from roofline.serving.rules.rules import Chunking, Policy, Reserve, Rules, one_of
from roofline.units import check_flag, show_bytes, whole_number

_ONLY = {
    "ratio": "sglang",
    "least_ratio": "sglang",
    "chunking": "trtllm",
    "batch_wait_steps": "trtllm",
    "batch_wait_ratio": "trtllm",
    "rank_wait_steps": "trtllm",
    "rank_gather_steps": "trtllm",
    "async_scheduling": "vllm",
}
"""Options that only one engine has."""

LOGGED = {"vllm": (19, 4e8, 2.2e9), "sglang": (4, 2.9e9, 5.9e9)}
"""Of each engine how many logged caches derived ones were held against, and by how much memory these are off at the median and at most
(``tests/data/kv_blocks.csv``) [B]."""


@checks_keywords
def rules_of(
    deployment: Deployment,
    *,
    engine: str | Engine = "vllm",
    kv_blocks: int | None = None,
    step_tokens: int | None = None,
    sequences: int | None = None,
    page: int | None = None,
    prefix_caching: bool | None = None,
    admission: Reserve | None = None,
    watermark: float = 0.0,
    policy: Policy = "fcfs",
    chunked: bool | None = None,
    long_prompt_tokens: int = 0,
    drafts: int | None = None,
    max_model_len: int | None = None,
    graph_sequences: int | None = None,
    graph_tokens: int | None = None,
    answer_tokens: int | None = None,
    mixed: bool | None = None,
    ratio: float | None = None,
    least_ratio: float | None = None,
    receive_interval: int | None = None,
    chunking: Chunking | None = None,
    batch_wait_steps: int | None = None,
    batch_wait_ratio: float | None = None,
    rank_wait_steps: int | None = None,
    rank_gather_steps: int | None = None,
    async_scheduling: bool | None = None,
    length: int | None = None,
) -> Rules:
    """Return how an engine schedules a deployment: what is not given is what the engine does unless it is told otherwise.

    Parameters
    ----------
    deployment : Deployment
        Model and machine; of its options, `utilization`, `reserve`, `page`, `activation_tokens` and `mtp` count too [-].
    engine : str or Engine, optional
        The engine's name, or a profile of one's own [-].
    kv_blocks : int, optional
        Blocks of the cache as the engine's log counts them, of each data-parallel rank. Of vLLM's, one is left out, which no sequence gets.
        Derived from the memory if not given, which may be off by some per cent: see `Rules.notes` [-].
    step_tokens : int, optional
        Most tokens of a step of one data-parallel rank, or of its prompts where these run apart. SGLang divides what it does by default, and its
        flag, among the ranks [token].
    sequences : int, optional
        Most sequences that run at a time [-].
    page : int, optional
        Tokens of a block [token].
    prefix_caching : bool, optional
        Whether full blocks that are in the cache are found again [-].
    admission : {"prompt", "chunk", "ratio", "whole", "batch"}, optional
        What must be free when a request begins, as in :class:`Rules` [-].
    watermark : float, optional
        Share of the blocks that stays free when a request begins beside others [-].
    policy : {"fcfs", "priority", "lpm", "lof"}, optional
        Which waiting request is first [-].
    chunked : bool, optional
        Whether a prompt is cut to what a step has room for [-].
    long_prompt_tokens : int, optional
        Most tokens of a prompt in a step that holds other requests too, 0 for no such limit [token].
    drafts : int, optional
        Draft tokens that a decode verifies; those that the deployment's own modules draft if not given [token].
    max_model_len : int, optional
        Most tokens of a request, prompt and answer together; what the model's configuration says if not given [token].
    graph_sequences : int, optional
        Largest batch of decodes that runs as a graph; 0 for any [-].
    graph_tokens : int, optional
        Most tokens of a step with prompts that runs as a graph [token].
    answer_tokens : int, optional
        Tokens that every client allows its answer, where an engine reserves them; each allows what it gets if not given [token].
    mixed : bool, optional
        Whether prompts run in one step with answers, not alone and first, which only SGLang can be told; what the engine does if not given [-].
    ratio, least_ratio : float, optional
        SGLang: share of the answers to come that is reserved, at the beginning and at the least [-].
    receive_interval : int, optional
        SGLang: every how many steps without prompts requests are received; 1 for other engines [-].
    chunking : {"fcfs", "equal"}, optional
        TensorRT-LLM: whether prompts are cut so that the first are done first, or that all advance alike [-].
    batch_wait_steps : int, optional
        TensorRT-LLM: for how many steps prompts wait for others while answers run [-].
    batch_wait_ratio : float, optional
        TensorRT-LLM: from which share of `step_tokens` on they do not wait [-].
    rank_wait_steps : int, optional
        TensorRT-LLM: every how many steps prompts of a data-parallel rank run that wait until all ranks have some; 0 if ranks do not wait for
        each other [-].
    rank_gather_steps : int, optional
        TensorRT-LLM: for how many steps they wait for more when all ranks have some [-].
    async_scheduling : bool, optional
        vLLM, in a pipeline: whether a step more than there are stages is scheduled before the first of them is awaited; it is unless told otherwise [-].
    length : int, optional
        Tokens of a sequence, on average, over which its windows and state are spread; 2,048 if not given. It counts only where a model has
        some and `kv_blocks` is derived [token].

    Returns
    -------
    Rules
        The limits, and in `notes` how far off they may be [-].

    Raises
    ------
    RooflineError
        One sentence if a limit cannot be, the engine is not known, or nothing is left for a cache.

    Notes
    -----
    vLLM measures what is left of its share of the memory in a trial run; sampling takes most of it, some 38.5 B for each sequence and word of the
    vocabulary. SGLang leaves what a formula says, and runs ``tokens of the cache / max_model_len · 512`` sequences, 2,048 to 4,096.
    TensorRT-LLM takes a share of what is free.

    Where only some layers keep all positions, a block is `page` tokens in these, and bears a part of the windows and the state of a sequence of
    `length` tokens. Where no layer does, a block is the state of a sequence.

    Examples
    --------
    The log of vLLM 0.19 on an RTX 4090 has 2,588 blocks, one of them the null block.

    >>> from roofline import Deployment
    >>> rules = rules_of(Deployment("llama-3.1-8b", "rtx-4090"), kv_blocks=2588)
    >>> rules.step_tokens, rules.sequences, rules.kv_blocks, rules.page
    (2048, 256, 2587, 16)
    """
    if not isinstance(deployment, Deployment):
        raise InvalidValueError(f"rules_of takes a Deployment, not {quoted(deployment)}: Deployment(model, hardware, ...).")
    profile, model = load_engine(engine), deployment.model
    given: dict[str, Any] = {
        "answer_tokens": answer_tokens,
        "mixed_chunk": _mixed(profile, mixed),
        "graph_tokens": graph_tokens,
        "receive_interval": checked_interval(receive_interval, profile),
        "ratio": ratio,
        "least_ratio": least_ratio,
        "chunking": chunking,
        "batch_wait_steps": batch_wait_steps,
        "batch_wait_ratio": batch_wait_ratio,
        "rank_wait_steps": rank_wait_steps,
        "rank_gather_steps": rank_gather_steps,
        "async_scheduling": async_scheduling,
    }
    for name in _ONLY:
        checked_option(name, given[name], profile)
    limits = _limits(deployment, profile)
    step = limits.step_tokens if step_tokens is None else whole_number("step_tokens", step_tokens, minimum=1)
    if step is None:
        raise InvalidValueError(f"the profile of {profile.name} has no limit of tokens; give step_tokens.")
    whole_step = step  # for which SGLang leaves memory
    if profile.id == "sglang" and step_tokens is None:
        step = max(1, step // ranks_together(deployment))
    size = whole_number("page", page, minimum=1) if page is not None else _page(deployment, profile)
    longest = model.max_positions or 0 if max_model_len is None else whole_number("max_model_len", max_model_len, minimum=1)
    most = limits.sequences and min(limits.sequences, step) if sequences is None else whole_number("sequences", sequences, minimum=1)
    begins = profile.admission.reserve if admission is None else one_of("admission", admission, Reserve)
    if profile.id == "vllm" and begins not in ("prompt", "chunk"):
        raise InvalidValueError(
            f"admission is {begins!r}; vLLM lets a request begin when its prompt fits, 'prompt', or the first chunk of it, 'chunk'."
        )
    if profile.id == "vllm" and most is not None and most > step:
        raise InvalidValueError(f"sequences is {most} but step_tokens is {step}: vLLM needs a token of a step for each sequence.")
    wide = limits.graph_sequences_parallel if deployment.parallel.tensor >= 4 else None
    graphs = wide or limits.graph_sequences or 0 if graph_sequences is None else whole_number("graph_sequences", graph_sequences)
    given_blocks = None if kv_blocks is None else whole_number("kv_blocks", kv_blocks, minimum=1 + (profile.id == "vllm"))
    notes = notes_on_limits(deployment, profile, kv_blocks=given_blocks, max_model_len=max_model_len, page=size)
    asked = {"page": size, "step_tokens": whole_step, "sequences": most or 1, "graphs": graphs}
    blocks, size, more = _blocks(deployment, profile, given_blocks, length, asked)
    notes += more
    if most is None:
        most = max(1, min(_sglang_sequences(blocks * size, longest), blocks * size // 2))
    given |= {name: value for name, value in _waiting(profile, ranks_together(deployment)).items() if given.get(name) is None}
    return Rules(
        profile.id,  # type: ignore[arg-type] # which Rules checks, as all others
        step,
        most,
        blocks,
        size,
        bool(profile.cache.prefix_caching) if prefix_caching is None else prefix_caching,
        begins,
        watermark,
        policy,
        profile.scheduling.chunked if chunked is None else chunked,
        long_prompt_tokens,
        deployment.mtp if drafts is None else drafts,
        longest,
        graphs,
        **{name: value for name, value in given.items() if value is not None},
        notes=tuple(notes),
    )


def check_options(question: str, options: Collection[str]) -> None:
    """Raise if one of a question's options is none of :func:`rules_of`."""
    takes = [name for name in OWN["rules_of"] if name not in ("deployment", "engine")]
    for name in options:
        if name not in takes:
            raise refused_option(question, name, takes)


def ranks_together(deployment: Deployment) -> int:
    """Return how many data-parallel ranks step together: those of a dense model share nothing, and each steps on its own.

    References
    ----------
    vLLM, ``v1/engine/core.py``, ``EngineCoreProc.run_engine_core``: ranks are coordinated only if the model is a mixture of experts.
    """
    shared = any(isinstance(group.feed_forward, Experts) for group in deployment.model.layers)
    return deployment.parallel.data if shared else 1


def _blocks(
    deployment: Deployment, engine: Engine, given: int | None, length: int | None, asked: Mapping[str, int]
) -> tuple[int, int, list[str]]:
    """Return how many blocks sequences can have, of how many tokens, and what to say of a derived number."""
    if given is None:
        spread = LENGTH if length is None else whole_number("length", length, minimum=1)
        found = blocks_in(deployment, engine, **asked, length=spread)
        blocks, size, notes = found.count, found.page, _notes(engine, found, spread)
    else:
        blocks, size, notes = given, asked["page"] * deployment.parallel.context, []
    blocks -= engine.id == "vllm"  # its null block
    if blocks < 1:
        model = deployment.model.name
        raise InvalidValueError(
            f"{model} leaves no room for a block of {size} tokens on a device; more devices or narrower weights make some."
        )
    return blocks, size, notes


def checked_option(name: str, value: Any, engine: Engine) -> Any:
    """Return the value of an option that only one engine has, or raise where it is given to another."""
    if value is not None and engine.id != _ONLY[name]:
        raise InvalidValueError(f"{name} is of {ENGINES[_ONLY[name]]}, and engine is {engine.id}.")
    return value


def checked_interval(receive_interval: Any, engine: Engine) -> int | None:
    """Return every how many steps an engine is told to receive requests, or raise where it always looks at each; None if it is not told."""
    if receive_interval is None:
        return None
    interval = whole_number("receive_interval", receive_interval, minimum=1)
    if interval > 1 and engine.scheduling.receive_interval is None:
        raise InvalidValueError(f"receive_interval is {interval}, but {engine.name} looks for requests at every step.")
    return interval


def _mixed(engine: Engine, mixed: bool | None) -> bool | None:
    """Return whether SGLang's prompts run in one step with answers; None for engines that have no such rule."""
    mixes = engine.scheduling.policy == "mixed"
    told = mixes if mixed is None else check_flag("mixed", mixed)
    if engine.id == "sglang":
        return told
    if told is not mixes:
        raise InvalidValueError(f"mixed is {told}, but {engine.name} runs prompts and answers in one step at all times.")
    return None


def _waiting(engine: Engine, ranks: int) -> dict[str, Any]:
    """Return what an engine's profile says of how requests wait; SGLang reserves less with data-parallel ranks (`schedule_conservativeness` 0.3)."""
    admission, scheduling = engine.admission, engine.scheduling
    cautious = 0.3 if engine.id == "sglang" and ranks > 1 else 1.0
    ratios = {name: getattr(admission, name) for name in ("ratio", "least_ratio")}
    return {
        **{name: None if ratio is None else ratio * cautious for name, ratio in ratios.items()},
        "ratio_steps": admission.ratio_steps,
        "longest_answer": admission.longest_answer,
        "receive_interval": scheduling.receive_interval,
        "batch_wait_steps": scheduling.batch_wait_steps,
    }


def _page(deployment: Deployment, engine: Engine) -> int:
    """Return the tokens of a block on one device."""
    size: int = deployment.options.get("page", engine.cache.page or 1)
    return size


def notes_on_limits(
    deployment: Deployment, engine: Engine, *, kv_blocks: int | None = None, max_model_len: int | None = None, page: int | None = None
) -> list[str]:
    """Return what to say of limits that an engine would not take: a cache that no device has room for, lengths beyond a model's positions."""
    notes, positions = [], deployment.model.max_positions
    if kv_blocks is not None and (beyond := beyond_memory(deployment, kv_blocks, page or _page(deployment, engine))):
        notes.append(f"kv_blocks: {beyond}")
    if max_model_len is not None and positions and max_model_len > positions:
        notes.append(f"max_model_len is {max_model_len:,}, but {deployment.model.name} was made for {positions:,} positions")
    return notes


def _limits(deployment: Deployment, engine: Engine) -> Limits:
    """Return an engine's limits on the deployment's device; those of the smallest where its memory is not known."""
    memory, machine = deployment.memory_capacity, deployment.hardware
    return engine.limits[-1] if memory is None else engine.limits_on(memory, "" if machine is None else f"{machine.id} {machine.name}")


def _sglang_sequences(tokens: int, longest: int) -> int:
    """Return how many sequences SGLang runs (wheel 0.5.23, srt/mem_cache/kv_cache_configurator.py, resolve_max_num_reqs)."""
    return max(2048, min(4096, tokens * 512 // longest)) if longest else 4096


def _notes(engine: Engine, found: Blocks, length: int) -> list[str]:
    """Return what to say of a derived number of blocks."""
    how = f"no log of {engine.name} was held against such a number"
    if engine.id in LOGGED:
        logs, median, most = LOGGED[engine.id]
        how = (
            f"in {logs} logs of {engine.name} the cache has {show_bytes(median)} more or less at the median and {show_bytes(most)} at most"
        )
        how += f", which would be {median / found.room_bytes:.0%} and {most / found.room_bytes:.0%} here"
    notes = [f"{found.count:,} blocks of {found.page:,} tokens are derived from the memory: {how}; kv_blocks= takes the number of a log"]
    if found.spread_bytes:
        spread = f"{show_bytes(found.spread_bytes)} of windows and state of a sequence are spread over the blocks of {length:,} tokens"
        notes.append(f"{spread}; length= takes another number")
    return notes
