"""The floor of a step: the time that no implementation on a machine can beat, and what it consists of."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from roofline.arithmetic import Number
from roofline.bounds import OpTime, Roofs, floor_roofs, roofline_times
from roofline.capacity import fit_advice, fits
from roofline.errors import InvalidValueError
from roofline.formats import Format
from roofline.forward import Fusion, WeightFormats, Work, compile_model
from roofline.hardware import Ceiling, Hardware
from roofline.model import Model
from roofline.results import Result, show_ceilings, show_span
from roofline.step import Step
from roofline.units import show_bytes, show_flops, show_time

__all__ = ["Floor", "decode_floor", "machine", "prefill_floor", "step_floor"]


@lru_cache(maxsize=256)
def _bare(memory_bandwidth: float, peak_flops_per_s: float | None, memory_capacity: float | None) -> Hardware:
    return Hardware.from_rates(memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)


def machine(
    hardware: "Hardware | str | Path | None" = None,
    *,
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> Hardware:
    """Return the machine meant by a name, a spec file, or bare rates.

    Parameters
    ----------
    hardware : Hardware, str or Path, optional
        A machine, its name, or the path of its spec file [-].
    memory_bandwidth : float, optional
        W, if no `hardware` is named [B/s].
    peak_flops_per_s : float, optional
        P for every format; without it arithmetic never binds, and the result says so [FLOP/s].
    memory_capacity : float, optional
        M; without it nothing is said about what fits [B].

    Returns
    -------
    Hardware
        The machine [-].

    Raises
    ------
    InvalidValueError
        If both or neither are given, or a rate is not plausible in SI units.
    UnknownNameError
        If the name is not known.
    """
    rates = {"memory_bandwidth": memory_bandwidth, "peak_flops_per_s": peak_flops_per_s, "memory_capacity": memory_capacity}
    given = [name for name, rate in rates.items() if rate is not None]
    if hardware is not None:
        if given:
            raise InvalidValueError(f"give either a machine ({hardware!r}) or bare rates ({', '.join(given)}), not both.")
        return hardware if isinstance(hardware, Hardware) else Hardware.load(hardware)
    if memory_bandwidth is None:
        raise InvalidValueError(
            "no machine: name one (see Hardware.list()), give the path of a spec file, or memory_bandwidth in B/s"
            + (f" beside {', '.join(given)}." if given else ".")
        )
    try:
        return _bare(memory_bandwidth, peak_flops_per_s, memory_capacity)
    except TypeError:
        raise InvalidValueError(
            f"memory_bandwidth is {memory_bandwidth!r}; bare rates are single numbers: call once for each machine."
        ) from None


@dataclass(frozen=True, slots=True, repr=False)
class Floor(Result):
    """The floor of one step, or of an array of steps: the value, what binds, where it goes, and what it rests on.

    Parameters
    ----------
    kind : str
        ``"decode"``, ``"prefill"`` or ``"step"`` [-].
    model : Model
        The model [-].
    hardware : Hardware
        The machine [-].
    work : Work
        The work of the step [-].
    roofs : Roofs
        Time under each roof [s].
    """

    kind: str
    model: Model
    hardware: Hardware
    work: Work
    roofs: Roofs

    @property
    def time_s(self) -> Number:
        """The floor: no implementation on this machine is faster [s]."""
        return self.roofs.time_s

    @property
    def compute_s(self) -> Number:
        """Time of the matrix products at peak; 0 where no peak is known [s]."""
        return self.roofs.compute_s

    @property
    def memory_s(self) -> Number:
        """Time of the compulsory bytes at full bandwidth, less what the cache may still hold [s]."""
        return self.roofs.memory_s

    @property
    def network_s(self) -> Number:
        """Time on the links between devices; 0 on one device [s]."""
        return self.roofs.network_s

    @property
    def roof(self) -> Number:
        """The roof that attains the floor: ``"compute"``, ``"memory"`` or ``"network"``."""
        return self.roofs.binding

    @property
    def bound(self) -> Number:
        """What binds: the roof, or ``"capacity"`` where the step does not fit into memory at all."""
        fit = self.fits
        if isinstance(fit, np.ndarray):
            return np.where(fit, self.roof, "capacity")
        if fit is None or fit:
            return self.roof
        return np.full_like(self.roof, "capacity", dtype="<U8") if isinstance(self.roof, np.ndarray) else "capacity"

    @property
    def fits(self) -> Number | None:
        """Whether weights and cache fit into memory; None where the capacity is not known."""
        return fits(self.work, self.hardware)

    @property
    def flops(self) -> Number:
        """Operations of matrix products [FLOP]."""
        return self.work.total("flops")

    @property
    def weight_bytes(self) -> Number:
        """Parameters read: every matrix once, one embedding row per token [B]."""
        return self.work.total("weight_bytes")

    @property
    def kv_read_bytes(self) -> Number:
        """Cache read [B]."""
        return self.work.total("kv_read_bytes")

    @property
    def kv_write_bytes(self) -> Number:
        """Cache written [B]."""
        return self.work.total("kv_write_bytes")

    @property
    def state_bytes(self) -> Number:
        """Recurrent state read and written [B]."""
        return self.work.total("state_bytes")

    @property
    def total_bytes(self) -> Number:
        """Compulsory bytes: weights, cache and state [B]."""
        return self.work.compulsory_bytes

    @property
    def resident_bytes(self) -> Number:
        """Bytes in memory after the step: every parameter, and the cache [B]."""
        return self.work.resident_bytes

    @property
    def intensity(self) -> Number:
        """FLOP per compulsory byte [FLOP/B]."""
        return self.flops / self.total_bytes

    @property
    def ridge(self) -> Number:
        """Intensity at which arithmetic would take as long as the bytes, for this mix of formats [FLOP/B]."""
        with np.errstate(divide="ignore"):
            return np.divide(self.flops, self.compute_s * self.hardware.memory_bandwidth)[()]

    @property
    def tokens_per_s(self) -> Number:
        """Token rows per second at the floor; not a number where the step does not fit [token/s]."""
        fit = self.fits
        rate = self.work.step.tokens / self.time_s
        if isinstance(fit, np.ndarray):
            return np.where(fit, rate, np.nan)
        return rate if fit is None or fit else rate * np.nan

    @property
    def roofline_s(self) -> Number:
        """Operators one after another, each at its own roof, with activation traffic: never below the floor [s]."""
        return sum((row.time_s for row in self.by_op()), start=0.0)

    def by_op(self) -> tuple[OpTime, ...]:
        """Return every operator with its cost and its own roof, identical layers summed.

        Returns
        -------
        tuple of OpTime
            In the order of execution; their times add up to `roofline_s` [s].
        """
        return roofline_times(self.work, self.hardware)

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        """The rates used, each with where it comes from."""
        h = self.hardware
        peaks = {c.name: c for c in (h.peak(operand) for operand, _ in self.work.program.operands)}
        cache = (h.cache_ceiling,) if h.last_level_cache else ()
        return (h.memory_ceiling, *peaks.values(), *cache)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the floor takes for granted."""
        work, precision = self.work, self.work.program.precision
        operands = [operand for operand, _ in work.program.operands]
        weights = "as stored" if precision.weights is None else precision.weights.name
        notes = [
            f"weights {weights}{''.join(f', {n} {f.name}' for n, f in precision.components)}; activations {precision.stream.name} in memory; "
            f"KV cache {precision.kv.name}; products in {', '.join(operands)}",
            "perfect overlap and fusion: the longest roof, compulsory bytes only",
        ]
        notes += [c.note for c in (self.hardware.peak(o) for o in operands) if c.note]
        if self.hardware.last_level_cache:
            notes.append(f"up to {show_bytes(self.hardware.last_level_cache)} may survive in the cache from the step before")
        if self.hardware.alias_note:
            notes.append(self.hardware.alias_note)
        limit = self.model.max_positions
        if limit is not None and np.max(work.step.longest) > limit:
            notes.append(
                f"the longest sequence, {np.max(work.step.longest):.0f} tokens, exceeds the {limit} positions the model was made for"
            )
        return tuple(notes)

    @property
    def not_modelled(self) -> tuple[str, ...]:
        """What the floor leaves out."""
        out = [*self.model.not_modelled, "general (vector) units, kernel launches, host, sampling: they only add time"]
        if any(np.isinf(self.hardware.peak(o).value) for o, _ in self.work.program.operands):
            out.append("arithmetic: no compute peak was given")
        return tuple(out)

    def table(self) -> list[Mapping[str, Any]]:
        """Return :meth:`by_op` as plain rows.

        Returns
        -------
        list of mapping
            One row per operator, SI units [-].
        """
        return [
            {
                "name": row.op.name,
                "kind": row.op.kind,
                "count": row.op.count,
                "operand": row.op.operand,
                **row.op.amounts(),
                "compute_s": row.compute_s,
                "memory_s": row.memory_s,
                "time_s": row.time_s,
                "bound": row.bound,
            }
            for row in self.by_op()
        ]

    def values(self) -> dict[str, Any]:
        """Return every number by name, scalars or arrays [SI]."""
        names = (
            "time_s compute_s memory_s network_s bound roof roofline_s flops weight_bytes kv_read_bytes kv_write_bytes state_bytes "
            "total_bytes resident_bytes intensity ridge tokens_per_s fits"
        )
        return {name: getattr(self, name) for name in names.split()}

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: names, ceilings with sources, assumptions, omissions [-]."""
        return {
            "kind": f"{self.kind} floor",
            "model": self.model.name,
            "model_source": self.model.source,
            "hardware": self.hardware.id,
            "ceilings": [{f: getattr(c, f) for f in ("name", "value", "unit", "source", "evidence", "note")} for c in self.ceilings],
            "assumptions": self.assumptions,
            "not_modelled": self.not_modelled,
        }

    def summary(self) -> list[str]:
        """Return the short text: the floor in the first line, then its roofs, work, ceilings and assumptions [-]."""
        bounds = ", ".join(sorted(set(np.ravel(self.bound).tolist())))
        lines = [f"{self.kind} floor of {self.model.name} on {self.hardware.name}: {show_span(self.time_s, show_time)} ({bounds}-bound)"]
        advice = fit_advice(self.model, self.work, self.hardware)
        if advice:
            lines.append(f"  DOES NOT FIT: {advice}; no throughput is given for what does not fit")
        lines += [
            f"  roofs: memory {show_span(self.memory_s, show_time)}, compute {show_span(self.compute_s, show_time)}, network {show_span(self.network_s, show_time)}"
            f"; operators one after another: {show_span(self.roofline_s, show_time)}",
            f"  work: {show_span(self.flops, show_flops)}; {show_span(self.total_bytes, show_bytes)} = weights {show_span(self.weight_bytes, show_bytes)}"
            f" + KV read {show_span(self.kv_read_bytes, show_bytes)} + KV written {show_span(self.kv_write_bytes, show_bytes)}"
            + (f" + state {show_span(self.state_bytes, show_bytes)}" if np.any(self.state_bytes) else ""),
            f"  intensity: {show_span(self.intensity, '{:.4g}'.format)} FLOP/B"
            + (f"; ridge {show_span(self.ridge, '{:.4g}'.format)} FLOP/B" if np.all(np.isfinite(self.ridge)) else ""),
        ]
        if not np.all(np.isnan(self.tokens_per_s)):
            lines.append(f"  throughput at the floor: {show_span(self.tokens_per_s, '{:.5g}'.format)} tokens/s")
        lines.append(f"  ceilings: {show_ceilings(self.ceilings)}")
        lines += [f"  assumed: {note}" for note in self.assumptions]
        lines += [f"  left out: {note}" for note in self.not_modelled]
        return lines

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"


def _floor(
    kind: str,
    model: Any,
    hardware: Hardware,
    step: Step,
    weights: WeightFormats,
    activations: str | Format | None,
    kv: str | Format | None,
    fusion: Fusion,
) -> Floor:
    loaded = model if type(model) is Model else Model.load(model)
    program = compile_model(loaded, weights=weights, activations=activations, kv=kv, fusion=fusion)
    work = Work(program, step, program.values(step))
    return Floor(kind, loaded, hardware, work, floor_roofs(work, hardware))


def step_floor(
    model: Any,
    hardware: Hardware | str | Path | None,
    step: Step,
    *,
    weights: WeightFormats = None,
    activations: str | Format | None = None,
    kv: str | Format | None = None,
    fusion: Fusion = "attention",
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> Floor:
    r"""Return the floor of any step: :math:`\max(\sum_d F_d/P_d, \max(0, B - C)/W)`.

    Parameters
    ----------
    model : str, Path, mapping, object, int, float or Model
        What :meth:`Model.load` takes: a name, a config.json, a number of parameters [-].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; None with bare rates [-].
    step : Step
        What the forward pass is asked to do [-].
    weights, activations, kv : str, optional
        Number formats; by default what the model stores [-].
    fusion : {"none", "attention", "full"}, optional
        What stays on chip between operators, for the roofline time only [-].
    memory_bandwidth, peak_flops_per_s, memory_capacity : float, optional
        Bare rates of a machine without a name [B/s], [FLOP/s], [B].

    Returns
    -------
    Floor
        Numbers of the step's shape: scalars in, scalars out; arrays in, arrays out [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Examples
    --------
    >>> step = Step.decode(batch=8) + Step.prefill(512)
    >>> step_floor("70B", None, step, memory_bandwidth=3e12, peak_flops_per_s=1e15).bound
    'compute'
    """
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    return _floor("step", model, target, step, weights, activations, kv, fusion)


def decode_floor(
    model: Any,
    hardware: Hardware | str | Path | None = None,
    *,
    batch: Any = 1,
    context: Any = 0,
    weights: WeightFormats = None,
    activations: str | Format | None = None,
    kv: str | Format | None = None,
    fusion: Fusion = "attention",
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> Floor:
    """Return the floor of one decode step: one new token for each of `batch` sequences with `context` tokens cached.

    Parameters
    ----------
    model : str, Path, mapping, object, int, float or Model
        What :meth:`Model.load` takes: a name, a config.json, a number of parameters [-].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; None with bare rates [-].
    batch : int or array_like, optional
        Sequences [-].
    context : int or array_like, optional
        Tokens of each already in the cache [token].
    weights, activations, kv : str, optional
        Number formats; by default what the model stores [-].
    fusion : {"none", "attention", "full"}, optional
        What stays on chip between operators, for the roofline time only [-].
    memory_bandwidth, peak_flops_per_s, memory_capacity : float, optional
        Bare rates of a machine without a name [B/s], [FLOP/s], [B].

    Returns
    -------
    Floor
        Numbers of the shape that `batch` and `context` broadcast to [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Examples
    --------
    >>> round(decode_floor("70B", memory_bandwidth=3e12).time_s * 1e3, 2)
    46.67
    """
    target = (
        hardware
        if type(hardware) is Hardware and memory_bandwidth is peak_flops_per_s is memory_capacity is None
        else machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    )
    return _floor("decode", model, target, Step.decode(batch=batch, context=context), weights, activations, kv, fusion)


def prefill_floor(
    model: Any,
    hardware: Hardware | str | Path | None = None,
    *,
    prompt: Any,
    batch: Any = 1,
    cached: Any = 0,
    logits: Literal["last", "all", "none"] = "last",
    weights: WeightFormats = None,
    activations: str | Format | None = None,
    kv: str | Format | None = None,
    fusion: Fusion = "attention",
    memory_bandwidth: float | None = None,
    peak_flops_per_s: float | None = None,
    memory_capacity: float | None = None,
) -> Floor:
    """Return the floor of one prefill: whole prompts, of which `cached` tokens may come from a prefix cache.

    Parameters
    ----------
    model : str, Path, mapping, object, int, float or Model
        What :meth:`Model.load` takes: a name, a config.json, a number of parameters [-].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; None with bare rates [-].
    prompt : int or array_like
        Tokens of each prompt, the cached ones included [token].
    batch : int or array_like, optional
        Sequences [-].
    cached : int or array_like, optional
        Tokens of each prompt found in the prefix cache [token].
    logits : {"last", "all", "none"}, optional
        Which rows reach the LM head [-].
    weights, activations, kv : str, optional
        Number formats; by default what the model stores [-].
    fusion : {"none", "attention", "full"}, optional
        What stays on chip between operators, for the roofline time only [-].
    memory_bandwidth, peak_flops_per_s, memory_capacity : float, optional
        Bare rates of a machine without a name [B/s], [FLOP/s], [B].

    Returns
    -------
    Floor
        Numbers of the shape that the arguments broadcast to [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Examples
    --------
    >>> prefill_floor("70B", prompt=2048, memory_bandwidth=3e12, peak_flops_per_s=1e15).bound
    'compute'
    """
    target = machine(hardware, memory_bandwidth=memory_bandwidth, peak_flops_per_s=peak_flops_per_s, memory_capacity=memory_capacity)
    step = Step.prefill(prompt, batch=batch, cached=cached, logits=logits)
    return _floor("prefill", model, target, step, weights, activations, kv, fusion)
