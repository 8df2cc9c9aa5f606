"""`levers`: the same floor again, with one thing changed at a time."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from roofline.errors import InvalidValueError, RooflineError
from roofline.floors import Floor, decode_floor, machine, prefill_floor, step_floor
from roofline.formats import Format
from roofline.forward import Fusion, WeightFormats
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.optimizations.menu import Options, Proposal, expected_tokens, menu
from roofline.optimizations.result import Lever, Levers, order
from roofline.optimizations.words import NOTICEABLE, ratio, reason
from roofline.step import Step
from roofline.units import check_count, show_bytes, show_time

_FLOORS: dict[str, Callable[..., Floor]] = {"decode": decode_floor, "prefill": prefill_floor, "step": step_floor}
_SHAPE = ("batch", "context", "prompt", "cached")
_DEGREES = ("tensor_parallel", "pipeline_parallel", "expert_parallel", "data_parallel", "context_parallel")


def _floor(kind: str, arguments: Mapping[str, Any], change: Mapping[str, Any]) -> Floor:
    given = {**arguments, **change}
    if "step" in change:
        kind, given = "step", {name: value for name, value in given.items() if name not in _SHAPE}
    return _FLOORS[kind](**given)


def _devices(arguments: Mapping[str, Any]) -> int:
    return math.prod(int(arguments.get(name, 1)) for name in _DEGREES)


def levers(
    model: Any,
    hardware: Hardware | str | Path | None = None,
    step: Step | Literal["decode", "prefill"] = "decode",
    *,
    batch: int = 1,
    context: int = 0,
    prompt: int | None = None,
    cached: int = 0,
    weights: WeightFormats = None,
    activations: str | Format | None = None,
    kv: str | Format | None = None,
    fusion: Fusion = "attention",
    routing: Any = "uniform",
    mtp: int = 0,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    expert_parallel: int = 1,
    data_parallel: int = 1,
    context_parallel: int = 1,
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
    drafts: int = 3,
    acceptance: float = 0.7,
    draft: Any = None,
    hit: float = 0.5,
    machines: Iterable[Hardware | str | Path] = (),
) -> Levers:
    """Evaluate every known optimization of one step, each alone, and rank them by what they gain.

    Parameters
    ----------
    model : str, Path, mapping, object, int, float or Model
        What :meth:`Model.load` takes [-].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; None with bare rates [-].
    step : {"decode", "prefill"} or Step, optional
        Which floor to start from, or any step [-].
    batch : int, optional
        Sequences; for a decode or prefill [-].
    context : int, optional
        Tokens of each already in the cache; for a decode [token].
    prompt : int, optional
        Tokens of each prompt; for a prefill, which needs it [token].
    cached : int, optional
        Tokens of each prompt found in the prefix cache already; for a prefill [token].
    weights, activations, kv : str, optional
        Number formats; by default what the model stores [-].
    fusion : {"none", "attention", "full"}, optional
        What stays on chip between operators, for the roofline time only [-].
    routing : str or array_like, optional
        How tokens spread over experts, as in :func:`~roofline.floors.decode_floor` [-].
    mtp : int, optional
        Multi-token-prediction modules that run in the step [-].
    tensor_parallel, pipeline_parallel, expert_parallel, data_parallel, context_parallel : int, optional
        Degrees of parallelism [-].
    memory_bandwidth, peak_flops_per_s, memory_capacity : float, optional
        Bare rates of a machine without a name [B/s], [FLOP/s], [B].
    drafts : int, optional
        Draft tokens that speculative decoding verifies at once [token].
    acceptance : float, optional
        Probability that a draft is accepted, given that those before it were: an assumption, so say your own [-].
    draft : str, Path, mapping, object, int, float or Model, optional
        The model that drafts, in the formats it is stored in. If not given, the model's own multi-token-prediction modules, or where
        it has none a look-up that costs nothing (n-grams of the prompt) [-].
    hit : float, optional
        Share of the prompt that a prefix cache would find, 0 … 1 [-].
    machines : iterable of Hardware, str or Path, optional
        Other machines to try [-].

    Returns
    -------
    Levers
        The levers, those that gain most first, the useless ones with the reason [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible about the step as it is, or about an array in place of a
        number: levers are evaluated for one step. A lever that is impossible is no error: it says why.

    Notes
    -----
    Gains do not multiply: each lever is evaluated alone, and after one of them something else may bind.

    Examples
    --------
    >>> found = levers("llama-3-70b", "h200", context=1024)
    >>> found.base.bound
    'memory'
    >>> round(found["weights fp8_a16"].gain, 2), found["twice the FLOP/s"].gain
    (1.97, 1.0)
    """
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    arguments: dict[str, Any] = {"model": Model.load(model), "hardware": target, "weights": weights, "activations": activations, "kv": kv}
    arguments |= {"fusion": fusion, "routing": routing, "mtp": mtp}
    degrees = (tensor_parallel, pipeline_parallel, expert_parallel, data_parallel, context_parallel)
    arguments |= {name: degree for name, degree in zip(_DEGREES, degrees, strict=True) if type(degree) is not int or degree != 1}
    kind, shape = _shape(step, batch, context, prompt, cached)
    arguments |= shape
    options = _options(drafts, acceptance, draft, hit, machines)
    base = _floor(kind, arguments, {})
    if base.work.step.shape:
        raise InvalidValueError(f"levers are evaluated for one step, not for {base.work.step.shape} of them: call it for one point.")
    roofline_s = float(base.roofline_s)
    rows = [_lever(kind, arguments, base, roofline_s, proposal) for proposal in menu(kind, arguments, base, options)]
    return Levers(base, roofline_s, tuple(sorted(rows, key=order)), _assumptions(options, rows))


def _shape(step: Any, batch: Any, context: Any, prompt: Any, cached: Any) -> tuple[str, dict[str, Any]]:
    """Return which floor is meant, and its arguments that say how large the step is."""
    given = {"batch": batch, "context": context, "prompt": prompt, "cached": cached}
    names: tuple[str, ...]
    unused = {"batch": 1, "context": 0, "prompt": None, "cached": 0}
    takes = {"decode": ("batch", "context"), "prefill": ("batch", "prompt", "cached")}
    if isinstance(step, Step):
        kind, names = "step", ()
    elif isinstance(step, str) and step in takes:
        kind, names = step, takes[step]
    else:
        raise InvalidValueError(f"step is {step!r}; it must be 'decode', 'prefill' or a Step.")
    stray = [name for name, value in given.items() if name not in names and not _is(value, unused[name])]
    if stray:
        raise InvalidValueError(
            f"{', '.join(stray)} cannot be given for {'a Step: it says all itself' if kind == 'step' else f'a {kind}'}."
        )
    if kind == "prefill" and prompt is None:
        raise InvalidValueError("a prefill needs prompt, the number of its tokens.")
    return kind, {"step": step} if kind == "step" else {name: _one(name, given[name]) for name in names}


def _is(value: Any, default: Any) -> bool:
    return value is default or (np.ndim(value) == 0 and bool(value == default))


def _one(name: str, value: Any) -> int:
    count = check_count(name, value, minimum=1 if name in ("batch", "prompt") else 0)
    if not isinstance(count, int):
        raise InvalidValueError(f"{name} is an array; levers are evaluated for one step, so call it for one point.")
    return count


def _options(drafts: Any, acceptance: Any, draft: Any, hit: Any, machines: Any) -> Options:
    if _one("drafts", drafts) < 1:
        raise InvalidValueError(f"drafts is {drafts}; speculative decoding verifies at least 1.")
    expected_tokens(drafts, acceptance)
    if isinstance(hit, bool) or not isinstance(hit, (int, float)) or not 0 <= hit <= 1:
        raise InvalidValueError(f"hit is {hit!r}; it must be a share of the prompt, 0 … 1.")
    if not isinstance(machines, (Hardware, str, Path, Iterable)):
        raise InvalidValueError(f"machines is {machines!r}; it is a machine, or several: names, spec files or Hardware.")
    names = (machines,) if isinstance(machines, (Hardware, str, Path)) else tuple(machines)
    found = tuple(dict.fromkeys(Hardware.load(name) for name in names))
    return Options(_one("drafts", drafts), float(acceptance), None if draft is None else Model.load(draft), float(hit), found)


def _assumptions(options: Options, rows: Iterable[Lever]) -> tuple[str, ...]:
    notes = ["each lever alone: gains do not multiply, and after one of them something else may bind"]
    applied = {row.name: row for row in rows if row.applicable}
    if "speculative decoding" in applied:
        notes.append(
            f"speculative decoding: {applied['speculative decoding'].how}, "
            f"{applied['speculative decoding'].tokens:.3g} tokens per verification"
        )
    if "prefix cache" in applied:
        notes.append(f"prefix cache: {options.hit:.0%} of every prompt is found in it")
    if "latent KV cache" in applied:
        notes.append("latent KV cache: a latent of 4 head widths and a rotated key of half of one, as in DeepSeek-V2 (arXiv 2405.04434)")
    return tuple(notes)


def _lever(kind: str, arguments: Mapping[str, Any], base: Floor, roofline_s: float, proposal: Proposal) -> Lever:
    if proposal.refusal:
        return _refused(proposal, proposal.refusal, _devices(arguments))
    try:
        floor = _floor(kind, arguments, proposal.change)
        draft = None if proposal.draft is None else decode_floor(**proposal.draft)
    except RooflineError as error:  # what a lever asks for may be impossible: the message says why
        return _refused(proposal, str(error).rstrip("."), _devices({**arguments, **proposal.change}))
    time_s, after_s, resident = float(floor.time_s), float(floor.roofline_s), float(floor.resident_bytes)
    fits, bound = floor.fits, str(floor.bound)
    if draft is not None:
        time_s += proposal.repeats * float(draft.time_s)
        after_s += proposal.repeats * float(draft.roofline_s)
        resident += float(draft.resident_bytes)
        if fits is not None and floor.hardware.memory_capacity is not None:
            fits = fits and draft.fits is not False and resident <= floor.hardware.memory_capacity
            bound = bound if fits else "capacity"
    gain = ratio(base.time_s, time_s) * proposal.tokens
    roofline_gain = ratio(roofline_s, after_s) * proposal.tokens
    unlocks = base.fits is False and fits is True
    why = _why(base, floor, proposal, gain, roofline_gain, unlocks)
    if draft is not None:
        why += f"; {proposal.repeats} draft steps take {show_time(time_s - float(floor.time_s))} of {show_time(time_s)}"
    devices = _devices({**arguments, **proposal.change})
    return Lever(
        proposal.name,
        proposal.group,
        proposal.how,
        proposal.change,
        proposal.per,
        gain,
        roofline_gain,
        time_s,
        after_s,
        proposal.tokens,
        bound,
        None if fits is None else bool(fits),
        unlocks,
        resident,
        devices,
        _cost(proposal, float(base.resident_bytes), resident, devices, _devices(arguments), gain),
        why,
        True,
        floor,
    )


def _why(base: Floor, floor: Floor, proposal: Proposal, gain: float, roofline_gain: float, unlocks: bool) -> str:
    if proposal.name == "twice the memory capacity" and not unlocks:
        return (
            "capacity is not what binds: the step fits already, and capacity buys a larger batch"
            if base.fits
            else "not even that makes it fit"
        )
    same = (floor.compute_s, floor.memory_s) == (base.compute_s, base.memory_s)
    if same and proposal.group in ("weights", "activations"):
        only = "weights" not in proposal.change
        return "no weights are that narrow, or they multiply so already" if only else "the weights are stored and multiplied so already"
    why = reason(base, floor.roofs, gain=gain, roofline_gain=roofline_gain, tokens=proposal.tokens)
    known = {note for operand, _ in base.work.program.operands if (note := base.hardware.peak(operand).note)}
    notes = {note: None for operand, _ in floor.work.program.operands if (note := floor.hardware.peak(operand).note) and note not in known}
    return "; ".join([why, *notes])


def _refused(proposal: Proposal, why: str, devices: int) -> Lever:
    nan = math.nan
    return Lever(
        proposal.name,
        proposal.group,
        proposal.how,
        proposal.change,
        proposal.per,
        nan,
        nan,
        nan,
        nan,
        proposal.tokens,
        "",
        None,
        False,
        nan,
        devices,
        proposal.caveat,
        why,
        False,
        None,
    )


def _cost(proposal: Proposal, before: float, after: float, devices: int, devices_before: int, gain: float) -> str:
    parts = []
    if devices != devices_before:
        share = gain * devices_before / devices
        parts.append(f"{devices} devices instead of {devices_before} ({share:.2f}× per device)")
    if abs(after - before) > NOTICEABLE * before:
        parts.append(f"{show_bytes(after)} resident per device instead of {show_bytes(before)}")
    return "; ".join([*parts, *([proposal.caveat] if proposal.caveat else [])])
