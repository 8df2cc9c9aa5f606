"""The time of a step from two runs of a static batch that differ in nothing but their outputs."""

from dataclasses import replace

from roofline.calls import checks_call
from roofline.errors import InvalidValueError
from roofline.measured.measurement import Latency, ServingMeasurement

_NEEDED = ("batch", "prompt", "output")


@checks_call
def step_of_two_runs(shorter: ServingMeasurement, longer: ServingMeasurement) -> ServingMeasurement:
    r"""Return the decode step and the prefill of a static batch, from two runs of different outputs.

    :math:`t_\mathrm{step} = (T_2 - T_1) / (o_2 - o_1)`: what both runs have in common, the prefill and the first steps, cancels.

    Parameters
    ----------
    shorter, longer : ServingMeasurement
        Two runs with a time from end to end, of one batch and one prompt; what a file does not say, `but` adds: ``but(batch=8, prompt=32, output=128)`` [-].

    Returns
    -------
    ServingMeasurement
        The longer run with ``step`` and ``prefill_s``; ``cached_context`` is that of the steps that only it has [-].

    Raises
    ------
    InvalidValueError
        If batch, prompt or output of a run is not known, they do not fit together, or the longer run took less time.

    Examples
    --------
    >>> times = [Latency("end to end", "request", seconds) for seconds in (1.5, 7.5)]
    >>> short, long = (ServingMeasurement("vllm bench latency", batch=8, prompt=32, output=o, e2e=t) for o, t in zip((28, 128), times))
    >>> found = step_of_two_runs(short, long)
    >>> print(found.step.mean_s, found.cached_context)
    0.06 110.0
    """
    for which, run in (("shorter", shorter), ("longer", longer)):
        missing = [f"{name}=…" for name in _NEEDED if getattr(run, name) is None]
        if missing:
            raise InvalidValueError(f"the {which} run does not say {', '.join(missing)}; but({', '.join(missing)}) adds it.")
        if run.e2e is None or run.e2e.typical_s is None:
            raise InvalidValueError(f"the {which} run has no time from end to end.")
    for name in ("batch", "prompt"):
        if getattr(shorter, name) != getattr(longer, name):
            raise InvalidValueError(
                f"{name} is {getattr(shorter, name):g} in the shorter run and {getattr(longer, name):g} in the longer; only the outputs may differ."
            )
    first, last = float(shorter.output or 0), float(longer.output or 0)
    begin, end = _time(shorter), _time(longer)
    if not 1 <= first < last or begin >= end:
        raise InvalidValueError(
            f"the shorter run has {first:g} tokens in {begin:.4g} s and the longer {last:g} in {end:.4g} s; the longer must have more of both."
        )
    step = (end - begin) / (last - first)
    return replace(
        longer,
        step=Latency("step", "step", step, key="(T₂ − T₁) / (o₂ − o₁)"),
        prefill_s=max(begin - (first - 1) * step, 0.0),
        cached_context=float(longer.prompt or 0) + (first + last) / 2,
    )


def _time(run: ServingMeasurement) -> float:
    return (run.e2e and run.e2e.typical_s) or 0.0
