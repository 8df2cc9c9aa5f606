"""`levers`: the same floor again, with one thing changed at a time."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from roofline.deployment import Deployment
from roofline.deployment.deployment import deploy
from roofline.deployment.inputs import step_input
from roofline.deployment.machine import Machine
from roofline.deployment.options import STEP, StepOptions, asks
from roofline.errors import InvalidValueError, RooflineError, quoted
from roofline.explanation import NOTICEABLE, ratio
from roofline.floors import Floor, decode_floor
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.optimizations.menu import Asked, Options, Proposal, menu
from roofline.optimizations.reasons import reason
from roofline.optimizations.result import Lever, Levers, order
from roofline.step import Step, expected_tokens
from roofline.units import check_count, show_bytes, show_time


@asks(STEP)
def levers(
    model: Any,
    hardware: Machine = None,
    step: Step | Literal["decode", "prefill"] = "decode",
    *,
    batch: int = 1,
    context: int = 0,
    prompt: int | None = None,
    cached: int = 0,
    drafts: int = 3,
    acceptance: float = 0.7,
    draft: Any = None,
    hit: float = 0.5,
    machines: Iterable[Hardware | str | Path] = (),
    **options: Unpack[StepOptions],
) -> Levers:
    """Evaluate every known optimization of one step, each alone, and rank them by what they gain.

    Parameters
    ----------
    {model}
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
    {options}

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
    asked = _asked(step, batch, context, prompt, cached, deploy("levers", STEP, model, hardware, options))
    chosen = _options(drafts, acceptance, draft, hit, machines)
    base = asked.floor({})
    if base.work.step.shape:
        raise InvalidValueError(f"levers are evaluated for one step, not for {base.work.step.shape} of them: call it for one point.")
    roofline_s = float(base.roofline_s)
    rows = [_lever(asked, base, roofline_s, proposal) for proposal in menu(asked, base, chosen)]
    step_asked = {"step": step_input(step)} if isinstance(step, Step) else {"step": asked.kind, **asked.shape}
    return Levers(base, roofline_s, tuple(sorted(rows, key=order)), _assumptions(chosen, rows), step_asked | chosen.inputs())


def _asked(step: Any, batch: Any, context: Any, prompt: Any, cached: Any, deployment: Deployment) -> Asked:
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
        raise InvalidValueError(f"step is {quoted(step)}; it must be 'decode', 'prefill' or a Step.")
    stray = [name for name, value in given.items() if name not in names and not _is(value, unused[name])]
    if stray:
        raise InvalidValueError(
            f"{', '.join(stray)} cannot be given for {'a Step: it says all itself' if kind == 'step' else f'a {kind}'}."
        )
    if kind == "prefill" and prompt is None:
        raise InvalidValueError("a prefill needs prompt, the number of its tokens.")
    return Asked(kind, deployment, {"step": step} if kind == "step" else {name: _one(name, given[name]) for name in names})


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
        raise InvalidValueError(f"hit is {quoted(hit)}; it must be a share of the prompt, 0 … 1.")
    if not isinstance(machines, (Hardware, str, Path, Iterable)):
        raise InvalidValueError(f"machines is {quoted(machines)}; it is a machine, or several: names, spec files or Hardware.")
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


def _lever(asked: Asked, base: Floor, roofline_s: float, proposal: Proposal) -> Lever:
    if proposal.refusal:
        return _refused(proposal, proposal.refusal, base.devices)
    try:
        floor = asked.floor(proposal.change)
        draft = None if proposal.draft is None else decode_floor(asked.deployment.but(**proposal.draft), **asked.shape)
    except RooflineError as error:  # what a lever asks for may be impossible: the message says why
        return _refused(proposal, str(error).rstrip("."), base.devices)
    time_s, after_s, resident = float(floor.time_s), float(floor.roofline_s), float(floor.resident_bytes)
    fits, bound = floor.fits, str(floor.bound)
    if draft is not None:
        time_s += proposal.repeats * float(draft.time_s)
        after_s += proposal.repeats * float(draft.roofline_s)
        resident += float(draft.resident_bytes)
        usable = floor.deployment.usable_bytes
        if fits is not None and usable is not None:
            fits = fits and draft.fits is not False and resident + floor.deployment.reserve <= usable
            bound = bound if fits else "capacity"
    gain = ratio(base.time_s, time_s) * proposal.tokens
    roofline_gain = ratio(roofline_s, after_s) * proposal.tokens
    unlocks = base.fits is False and fits is True
    why = _why(base, floor, proposal, gain, roofline_gain, unlocks)
    if draft is not None:
        why += f"; {proposal.repeats} draft steps take {show_time(time_s - float(floor.time_s))} of {show_time(time_s)}"
    return Lever(
        **_described(proposal),
        gain=gain,
        roofline_gain=roofline_gain,
        time_s=time_s,
        roofline_s=after_s,
        bound=bound,
        fits=None if fits is None else bool(fits),
        unlocks=unlocks,
        resident_bytes=resident,
        devices=floor.devices,
        cost=_cost(proposal, float(base.resident_bytes), resident, floor.devices, base.devices, gain),
        reason=why,
        applicable=True,
        floor=floor,
    )


def _described(proposal: Proposal) -> dict[str, Any]:
    return {name: getattr(proposal, name) for name in ("name", "group", "how", "change", "per", "tokens")}


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
    unknown: dict[str, Any] = dict.fromkeys(("gain", "roofline_gain", "time_s", "roofline_s", "resident_bytes"), math.nan)
    return Lever(
        **_described(proposal),
        **unknown,
        bound="",
        fits=None,
        unlocks=False,
        devices=devices,
        cost=proposal.caveat,
        reason=why,
        applicable=False,
        floor=None,
    )


def _cost(proposal: Proposal, before: float, after: float, devices: int, devices_before: int, gain: float) -> str:
    parts = []
    if devices != devices_before:
        share = gain * devices_before / devices
        parts.append(f"{devices} devices instead of {devices_before} ({share:.2f}× per device)")
    if abs(after - before) > NOTICEABLE * before:
        parts.append(f"{show_bytes(after)} resident per device instead of {show_bytes(before)}")
    return "; ".join([*parts, *([proposal.caveat] if proposal.caveat else [])])
