"""How long a prompt would take on an engine that has nothing else to do."""

from collections.abc import Iterable

from roofline.serving.rules import Rules
from roofline.serving.simulation.pipelined import Stages
from roofline.serving.steps.load import Load
from roofline.serving.steps.stages import StageSeconds


def prompt_alone_s(prompt: int, cached: int, rules: Rules, seconds: StageSeconds, stages: int = 1) -> float:
    """Return the time of the steps that compute a prompt, of which some tokens are in the cache, and nothing else.

    Examples
    --------
    Two steps of 8 tokens and one of 4, at 1 ms for each token:

    >>> rules = Rules("vllm", step_tokens=8, sequences=1, kv_blocks=10)
    >>> prompt_alone_s(20, 0, rules, lambda load: [load.tokens / 1000])
    0.02

    In two stages, which take half of that each, the second one works on a step while the first one has the next:

    >>> prompt_alone_s(20, 0, rules, lambda load: [load.tokens / 2000] * 2, stages=2)
    0.014
    """
    most = rules.step_tokens if rules.chunked else prompt
    pipeline, end_s, done = Stages(stages), 0.0, cached
    while done < prompt:
        new = min(most, prompt - done)
        end_s = pipeline.run(0.0, seconds(Load(0, 0, 1, new, new * done + new * (new + 1) // 2, int(done + new == prompt))))
        done += new
    return end_s


def prompts_alone_s(asked: Iterable[tuple[int, int]], rules: Rules, seconds: StageSeconds, stages: int = 1) -> list[float]:
    """Return the times of many prompts, each with its tokens in the cache."""
    known: dict[tuple[int, int], float] = {}
    times = []
    for pair in asked:
        if pair not in known:
            known[pair] = prompt_alone_s(*pair, rules, seconds, stages)
        times.append(known[pair])
    return times
