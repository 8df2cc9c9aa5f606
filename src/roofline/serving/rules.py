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
    reserve : {"prompt", "chunk", "ratio", "whole"}
        What must be free when a request begins: its whole prompt, its first chunk, prompt and a share of answers to come, or prompt and longest answer [-].
    watermark : float
        Share of the blocks that stays free when a request begins beside others [-].
    policy : {"fcfs", "priority"}
        Which waiting request is first [-].
    chunked : bool
        Whether a prompt is cut to what a step has room for [-].
    long_prompt_tokens : int
        Most tokens of a prompt in a step that holds other requests too, 0 for no such limit (vLLM: long_prefill_token_threshold) [token].
    drafts : int
        Draft tokens that each decode of a step verifies, for which it has slots and rows besides its own [token].
    """

    engine: Literal["vllm", "sglang", "trtllm"]
    step_tokens: int
    sequences: int
    kv_blocks: int
    page: int = 16
    prefix_caching: bool = False
    reserve: Literal["prompt", "chunk", "ratio", "whole"] = "prompt"
    watermark: float = 0.0
    policy: Literal["fcfs", "priority"] = "fcfs"
    chunked: bool = True
    long_prompt_tokens: int = 0
    drafts: int = 0
