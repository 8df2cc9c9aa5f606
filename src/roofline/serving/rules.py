"""`Rules`: what a scheduler is told once: limits, pages, and what must be free before a request may begin."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Rules:
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
        Blocks of the cache that sequences can have, vLLM's null block left out [-].
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
    """

    engine: Literal["vllm", "sglang", "trtllm"]
    step_tokens: int
    sequences: int
    kv_blocks: int
    page: int = 16
    prefix_caching: bool = False
    reserve: Literal["prompt", "chunk", "ratio", "whole", "batch"] = "prompt"
    watermark: float = 0.0
    policy: Literal["fcfs", "priority", "lpm", "lof"] = "fcfs"
    chunked: bool = True
    long_prompt_tokens: int = 0
    answer_tokens: int = 0
    mixed_chunk: bool = False
    ratio: float = 0.7
    least_ratio: float = 0.7 * 0.14
    ratio_steps: int = 600
    longest_answer: int = 4096
    receive_interval: int = 1
    chunking: Literal["fcfs", "equal"] = "fcfs"
    batch_wait_steps: int = 0
    batch_wait_ratio: float = 0.0
