"""The classic misdiagnoses, each checked with the numbers of the input, and only where it has them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from roofline.diagnose.of_comparison import decode_step
from roofline.diagnose.phase import Phase
from roofline.diagnose.seen import Seen, processors_of
from roofline.estimate import step_estimate
from roofline.floors import step_floor
from roofline.measured import Comparison
from roofline.monitor import Recording, classify_bottleneck
from roofline.step import Step
from roofline.units import show_time

_ALWAYS = 0.8  # GPU-Util from which a device looks fully used
_MEMORY = ("memory_bound", "compute_bound")
_TRAFFIC = 1.5  # ratio of counted and needed use of the memory, from which they contradict each other
_APART = 0.1  # relative difference of two times, from which one cannot stand for the other
_SPARSE = 2.0  # peak with 2:4 structured sparsity over the dense one (NVIDIA A100 whitepaper, 2020, table 1)


@dataclass(frozen=True, slots=True)
class Misdiagnosis:
    """A wrong conclusion that is often drawn, held against the numbers of the input.

    Parameters
    ----------
    name : str
        The wrong conclusion [-].
    misleads : bool
        Whether it would be wrong here [-].
    text : str
        The numbers, and what they say [-].
    numbers : mapping of str to float
        The same numbers by name [SI].
    """

    name: str
    misleads: bool
    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)


def of_service(comparison: Comparison, phases: tuple[Phase, ...], seen: Seen, serving_batch: int | None) -> tuple[Misdiagnosis, ...]:
    """Return the misdiagnoses that a measured service has the numbers for."""
    found = [*of_phases(phases, seen), *_averaged(comparison), *_itl(comparison)]
    if serving_batch is not None and comparison.point.batch is not None and comparison.point.context is not None:
        found.append(_batch(comparison, serving_batch))
    return tuple(found)


def of_phases(phases: tuple[Phase, ...], seen: Seen) -> tuple[Misdiagnosis, ...]:
    """Return the misdiagnoses that phases and counters have the numbers for."""
    return (*_busy(phases, seen), *_traffic(phases, seen), *_judged(phases), *_sparse(phases))


def of_devices(recording: Recording) -> tuple[Misdiagnosis, ...]:
    """Return the misdiagnoses that counters alone have the numbers for."""
    found: list[Misdiagnosis] = []
    hosts = processors_of(recording)
    for device in (one for one in recording.devices if one.device not in hosts):
        mean = device.means
        seen = Seen(mean.get("busy"), mean.get("tensor_active"), mean.get("dram_active"), device.device)
        found += [*_busy((), seen), *_mixed(device.device, seen, device.shares)]
    return tuple(found)


def of_counters(seen: Seen) -> tuple[Misdiagnosis, ...]:
    """Return the misdiagnoses that one page of counters has the numbers for."""
    return tuple(_busy((), seen))


def _busy(phases: tuple[Phase, ...], seen: Seen) -> Iterator[Misdiagnosis]:
    """Yield what GPU-Util near 100 % says: that a kernel ran, and not what it used."""
    if seen.busy is None or seen.busy < _ALWAYS:
        return
    numbers = {"busy": seen.busy}
    said = []
    for name, what in (("tensor_active", "tensor cores are active in {:.0%}"), ("dram_active", "{:.0%} of the bandwidth is in use")):
        if (share := getattr(seen, name)) is not None:
            numbers[name] = share
            said.append(what.format(share))
    for phase in phases:
        if phase.mfu is not None:
            numbers[f"{phase.name}_mfu"] = phase.mfu
            said.append(f"{phase.name} has an MFU of {phase.mfu:.0%}" + (f", its floor is {phase.roof}-bound" if phase.roof else ""))
    shares = [numbers[name] for name in numbers if name not in ("busy", "dram_active")]
    wrong = not shares or min(shares) < _ALWAYS
    said = said or ["it does not tell arithmetic from memory"]
    text = f"a kernel ran in {seen.busy:.0%} of the time ({seen.source}), which is all that GPU-Util says; {', '.join(said)}"
    yield Misdiagnosis("GPU-Util of 100 % taken for compute-bound", wrong, text, numbers)


def _traffic(phases: tuple[Phase, ...], seen: Seen) -> Iterator[Misdiagnosis]:
    """Yield the counted activity of the memory beside the MBU of decode, which counts only bytes that a step must move."""
    for phase in phases:
        if phase.name != "decode" or phase.mbu is None or seen.dram_active is None:
            continue
        counted, used = seen.dram_active, phase.mbu
        if max(counted, used) < _TRAFFIC * min(counted, used):
            continue
        if counted > used:
            why = "the others move bytes that no step has to (read twice, activations, prompts between), or the counters are of another run"
        else:
            why = "so few bytes cannot be all of them: the counters are of other devices, or of time without requests too"
        text = f"the counters have the memory active in {counted:.0%} of the time, and the steps of decode need {used:.0%} of the bandwidth; {why}"
        yield Misdiagnosis("activity of the memory taken for bandwidth that is used", True, text, {"dram_active": counted, "mbu": used})


def _mixed(device: str, seen: Seen, shares: Mapping[Any, float]) -> Iterator[Misdiagnosis]:
    """Yield what means over samples of several phases say: nothing of any."""
    kinds = {name: share for name, share in shares.items() if name in _MEMORY and share > _APART}
    if seen.tensor_active is None or seen.dram_active is None or len(kinds) < 2:
        return
    of_means = classify_bottleneck(seen.tensor_active, min(seen.dram_active, 1.0))
    apart = " and ".join(f"{name.replace('_', '-')} in {share:.0%}" for name, share in kinds.items())
    text = (
        f"{device}: tensor cores active {seen.tensor_active:.0%} and bandwidth {seen.dram_active:.0%} on average, which would be {of_means}; "
        f"its samples are {apart}"
    )
    numbers = {"tensor_active": seen.tensor_active, "dram_active": seen.dram_active, **kinds}
    yield Misdiagnosis("phases averaged", of_means not in kinds, text, numbers)


def _averaged(comparison: Comparison) -> Iterator[Misdiagnosis]:
    """Yield the mean intensity of a request beside those of its phases."""
    point = comparison.point
    if point.prompt is None or not point.output or point.batch is None or point.context is None:
        return
    prompt = max(round(point.prompt), 1)
    first = step_floor(comparison.deployment, step=Step.prefill(prompt, cached=min(round(point.cached), prompt - 1)))
    token = step_floor(comparison.deployment, step=decode_step(comparison))
    steps = max(point.output - 1, 0.0) / point.accepted / point.batch
    bytes_moved = float(first.total_bytes) + steps * float(token.total_bytes)
    ridge = float(token.ridge)
    if not bytes_moved or not ridge > 0 or not steps:
        return
    mean = (float(first.flops) + steps * float(token.flops)) / bytes_moved
    numbers = {"mean": mean, "prefill": float(first.intensity), "decode": float(token.intensity), "balance": ridge}
    text = (
        f"averaged over a request there are {mean:.3g} FLOP/B; its prompt has {numbers['prefill']:.3g} ({first.bound}-bound), its tokens "
        f"{numbers['decode']:.3g} ({token.bound}-bound), and the machine balances at {ridge:.3g}"
    )
    yield Misdiagnosis("phases averaged", first.bound != token.bound, text, numbers)


def _batch(comparison: Comparison, serving: int) -> Misdiagnosis:
    """Return a step at the benchmark's batch beside one at the service's."""
    point, deployment = comparison.point, comparison.deployment
    numbers: dict[str, float] = {}
    said = []
    bounds = []
    for who, batch in (("benchmark", point.batch or 1), ("service", serving)):
        step = Step.verify(point.drafts, batch=batch, context=point.context)
        floor = step_floor(deployment, step=step)
        seconds, word = float(floor.time_s), "floor"
        if comparison.record is not None:
            seconds, word = float(step_estimate(deployment, step=step, calibration=comparison.record).time_s), "estimate"
        numbers |= {f"{who}_batch": batch, f"{who}_step_s": seconds, f"{who}_tokens_per_s": batch * point.accepted / seconds}
        bounds.append(str(floor.bound))
        said.append(
            f"batch {batch}: a step of {show_time(seconds)} ({word}), {batch * point.accepted / seconds:,.0f} tokens/s, {floor.bound}-bound"
        )
    differ = bounds[0] != bounds[1] or abs(numbers["service_step_s"] / numbers["benchmark_step_s"] - 1) > _APART
    return Misdiagnosis("benchmark batch taken for serving batch", differ, f"{'; '.join(said)}; context {point.context:,}", numbers)


def _judged(phases: tuple[Phase, ...]) -> Iterator[Misdiagnosis]:
    """Yield the MFU of decode beside the largest that it can have."""
    for phase in phases:
        if phase.name.startswith("decode") and phase.roof == "memory" and phase.mfu is not None and phase.best_mfu is not None:
            numbers = {"mfu": phase.mfu, "best_mfu": phase.best_mfu} | ({} if phase.mbu is None else {"mbu": phase.mbu})
            used = "" if phase.mbu is None else f"; its MBU is {phase.mbu:.0%}"
            text = f"the MFU of decode is {phase.mfu:.1%}, and no implementation reaches more than {phase.best_mfu:.1%}, since bytes bind{used}"
            yield Misdiagnosis("decode judged by MFU", True, text, numbers)


def _sparse(phases: tuple[Phase, ...]) -> Iterator[Misdiagnosis]:
    """Yield the MFU against the dense peak beside that against one with structured sparsity."""
    for phase in phases:
        if phase.roof == "compute" and phase.mfu is not None:
            numbers = {"mfu": phase.mfu, "mfu_of_sparse_peak": phase.mfu / _SPARSE}
            sparse = f"held against one with structured sparsity it would read {phase.mfu / _SPARSE:.0%}"
            text = f"the MFU of {phase.name} is {phase.mfu:.0%} of the dense peak; {sparse}"
            yield Misdiagnosis("peak with sparsity as reference", True, text, numbers)


def _itl(comparison: Comparison) -> Iterator[Misdiagnosis]:
    """Yield the gap between chunks beside the time per token."""
    measured, point = comparison.measurement, comparison.point
    itl = measured.latencies().get("itl")
    if itl is None or itl.typical_s is None:
        return
    numbers = {f"itl_{name}_s": value for name in ("mean", "median") if (value := getattr(itl, f"{name}_s")) is not None}
    gap = itl.median_s or itl.typical_s
    tpot = comparison["tpot"].measured_s if "tpot" in comparison else None
    said = f"ITL is {show_time(gap)} ({'median' if itl.median_s else itl.quantile} of {itl.definition}, a value for each {itl.weight})"
    if tpot is not None:
        numbers["tpot_s"] = tpot
        said += f", TPOT {show_time(tpot)} ({comparison['tpot'].what}): {gap / tpot:.2f} of it"
        differ = abs(gap / tpot - 1) > _APART
        said += f"; a user gets {1 / tpot:.3g} tokens/s, and not {1 / gap:.3g}" if differ else ""
        yield Misdiagnosis("ITL taken for TPOT", differ, said, numbers)
    elif point.accepted > 1 and itl.definition in ("gap of chunks", "step"):
        numbers["accepted"] = point.accepted
        text = f"{said}, and each holds {point.accepted:.3g} tokens: {show_time(gap / point.accepted)} a token"
        yield Misdiagnosis("ITL taken for TPOT", True, text, numbers)


def of_trace_modes(phases: tuple[Phase, ...]) -> tuple[Misdiagnosis, ...]:
    """Return what an average over the phases of a trace or a profile would say."""
    known = [phase for phase in phases if phase.intensity is not None and phase.ridge is not None and phase.floor_s]
    if len(known) < 2 or len({phase.roof for phase in known}) < 2:
        return ()
    mean = float(np.average([phase.intensity or 0.0 for phase in known], weights=[phase.measured_s for phase in known]))
    apart = ", ".join(f"{phase.name} {phase.intensity:.3g} FLOP/B ({phase.roof}-bound)" for phase in known)
    return (Misdiagnosis("phases averaged", True, f"averaged over the time there are {mean:.3g} FLOP/B; apart: {apart}", {"mean": mean}),)
