"""How long a prompt would take on an engine that has nothing else to do."""

from collections.abc import Iterable

from roofline.serving.rules import Rules
from roofline.serving.steps.load import Load, StepSeconds


def prompt_alone_s(prompt: int, cached: int, rules: Rules, seconds: StepSeconds) -> float:
    """Return the time of the steps that compute a prompt, of which some tokens are in the cache, and nothing else.

    Examples
    --------
    Two steps of 8 tokens and one of 4, at 1 ms for each token:

    >>> rules = Rules("vllm", step_tokens=8, sequences=1, kv_blocks=10)
    >>> prompt_alone_s(20, 0, rules, lambda load: load.tokens / 1000)
    0.02
    """
    most = rules.step_tokens if rules.chunked else prompt
    total, done = 0.0, cached
    while done < prompt:
        new = min(most, prompt - done)
        total += seconds(Load(0, 0, 1, new, new * done + new * (new + 1) // 2, int(done + new == prompt)))
        done += new
    return total


def prompts_alone_s(asked: Iterable[tuple[int, int]], rules: Rules, seconds: StepSeconds) -> list[float]:
    """Return the times of many prompts, each with its tokens in the cache."""
    known: dict[tuple[int, int], float] = {}
    times = []
    for pair in asked:
        if pair not in known:
            known[pair] = prompt_alone_s(*pair, rules, seconds)
        times.append(known[pair])
    return times
