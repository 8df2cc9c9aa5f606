"""Records put together: classes of kernels of one record in another, of the same machine."""

import math
from collections.abc import Sequence
from typing import Any

from roofline.calls import checks_call
from roofline.errors import CalibrationError, InvalidValueError, quoted
from roofline.names import unknown_name
from roofline.records.conditions import Condition
from roofline.records.schema import CalibrationRecord, KernelClass, Rates
from roofline.records.store import load_record

_SAME = 0.01  # rates that differ by less are the same figure, rounded

_MEANING = {"family": "family of kernels", "stored": "stored format"}


@checks_call
def with_classes(
    record: Any, other: Any, *, family: str | Sequence[str], stored: str | Sequence[str] = (), id: str | None = None
) -> CalibrationRecord:
    """Return a record with some classes of kernels of another record of the same machine, in place of its own or besides.

    Every class that was taken says whose it is, in `taken_from` and its note, and so does every estimate that uses it. The other record's
    conditions are added, but for those about the fit of classes that were not taken.

    Parameters
    ----------
    record, other : CalibrationRecord, path, mapping or str
        What is completed, and what classes are taken from; as :func:`load_record` takes them. The record of a sister chip is first
        made this machine's by ``Hardware.calibrated(..., sister=True).calibration`` [-].
    family : str or sequence of str
        Families of the classes to take [-].
    stored : str or sequence of str, optional
        Formats stored of the classes to take; by default all [-].
    id : str, optional
        Id of the new record; by default both ids joined by ``+`` [-].

    Returns
    -------
    CalibrationRecord
        The new record, validated; neither of the two is changed [-].

    Raises
    ------
    CalibrationError
        If the two are of different machines or their shares of different rates, or a record cannot be read.
    UnknownNameError
        If the other record has no such classes with constants, or a record's id is not known.
    InvalidValueError
        If an argument is of another type.

    Examples
    --------
    >>> both = with_classes("h100-sxm-vllm-0.24.0", "h100-sxm-sglang-0.5.14", family="latent_attention")
    >>> [(c.stored, c.taken_from) for c in both.classes if c.family == "latent_attention"]
    [('bf16', 'h100-sxm-sglang-0.5.14'), ('fp8', 'h100-sxm-sglang-0.5.14')]
    """
    mine, theirs = load_record(record), load_record(other)
    rates = _same_rates(mine, theirs)
    wanted = [c for c in theirs.classes if c.constants]
    for field, value in (("family", family), ("stored", stored)):
        names = _names(field, value)
        known = dict.fromkeys(str(getattr(c, field)) for c in wanted)
        for name in names:
            if name not in known:
                raise unknown_name(f"{_MEANING[field]} in {theirs.id}", name, list(known))
        wanted = [c for c in wanted if not names or getattr(c, field) in names]
    taken = tuple(c.model_copy(update={"taken_from": c.taken_from or theirs.id, "note": _note(c, theirs)}) for c in wanted)
    replaced = {_key(c) for c in taken}
    about = (c for c in theirs.conditions if c.code != "poor fit" or any(name in c.text for name in {k.family for k in taken}))
    conditions = (Condition(code=c.code, text=f"{theirs.id}: {c.text}", point=c.point) for c in about)
    return CalibrationRecord(
        id=f"{mine.id}+{theirs.id}" if id is None else id,
        hardware=mine.hardware,
        date=max(mine.date, theirs.date),
        source=f"{mine.source}; {', '.join(dict.fromkeys(c.family for c in taken))} of {theirs.id}: {theirs.source}",
        environment=mine.environment,
        rates=rates,
        classes=(*(c for c in mine.classes if _key(c) not in replaced), *taken),
        overheads=mine.overheads,
        conditions=(*mine.conditions, *conditions),
        complete=mine.complete and theirs.complete,
        plan=mine.plan,
    )


def _names(argument: str, value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InvalidValueError(f"{argument} is {quoted(value)}; it must be a name or several.")
    if argument == "family" and not names:
        raise InvalidValueError("family names no family; with_classes takes the classes of at least one.")
    return tuple(names)


def _key(c: KernelClass) -> tuple[object, ...]:
    return c.family, c.stored, c.operand, c.fixed_sizes.get("kernel"), c.fixed_sizes.get("links"), c.static_scales


def _note(c: KernelClass, owner: CalibrationRecord) -> str:
    software = ", ".join(f"{name} {version}" for name, version in owner.environment.software.items())
    return "; ".join(text for text in (f"of {owner.id}, {owner.date}" + (f" ({software})" if software else ""), c.note) if text)


def _same_rates(mine: CalibrationRecord, theirs: CalibrationRecord) -> Rates:
    """Return the rates of both, after checking that they are of one machine and agree."""
    if mine.hardware != theirs.hardware or not mine.hardware:
        owners = [record.hardware or "a machine without a spec" for record in (mine, theirs)]
        raise CalibrationError(
            f"{theirs.id} is of {owners[1]}, {mine.id} of {owners[0]}; classes are taken from records of the same machine. "
            "Hardware.calibrated(..., sister=True).calibration is a sister chip's record with shares of this machine's rates."
        )
    one, two = mine.rates, theirs.rates
    rates = [{"memory": r.memory_bandwidth, "links": r.link_bandwidth, **r.peak_flops_per_s} for r in (one, two)]
    pairs = ((name, rate, rates[1].get(name)) for name, rate in rates[0].items())
    apart = [name for name, a, b in pairs if a and b and not math.isclose(a, b, rel_tol=_SAME)]
    if one.origin != two.origin or apart:
        why = f"rates of {', '.join(apart)} differ" if apart else f"one has shares of {one.origin} rates, the other of {two.origin} ones"
        raise CalibrationError(f"classes of {theirs.id} cannot be used in {mine.id}: {why}.")
    return one.model_copy(update={"peak_flops_per_s": type(one.peak_flops_per_s)({**two.peak_flops_per_s, **one.peak_flops_per_s})})
