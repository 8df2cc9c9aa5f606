"""The result of a step's floor: the value, what binds, where it goes, and what it rests on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from roofline.arithmetic import Number, quotient
from roofline.bounds import OpTime, Roofs, network_assumption, roofline_times, surviving_bytes
from roofline.capacity.fit import fit_advice, fits, tight_note
from roofline.deployment.deployment import Deployment
from roofline.deployment.inputs import deployment_inputs, step_input
from roofline.deployment.options import STEP
from roofline.formats import Format
from roofline.forward import Work
from roofline.hardware import Ceiling, Hardware
from roofline.model import Attention, Experts, Model
from roofline.ops.routing import routing_note
from roofline.results import Question, Result, show_ceilings, show_points, show_span
from roofline.units import show_bytes, show_flops, show_time

UNKNOWN_LINKS = "traffic between devices: no rate of links is known"
"""What results for several devices leave out where a machine's spec has no links [-]."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Floor(Result):
    """The floor of one step, or of an array of steps: the value, what binds, where it goes, and what it rests on.

    Parameters
    ----------
    kind : str
        ``"decode"``, ``"prefill"`` or ``"step"`` [-].
    deployment : Deployment
        The model and the machine, and how the one runs on the other [-].
    work : Work
        The work of the step [-].
    roofs : Roofs
        Time under each roof [s].
    """

    kind: str
    deployment: Deployment
    work: Work
    roofs: Roofs

    @property
    def model(self) -> Model:
        """The model."""
        return self.deployment.model

    @property
    def hardware(self) -> Hardware:
        """The machine."""
        return self.deployment.machine

    def _whole(self, value: Number) -> Number:
        """Give a number the step's shape: what does not depend on an argument is the same for all its values."""
        shape = self.work.shape
        return np.broadcast_to(value, shape) if shape and np.shape(value) != shape else value

    @property
    def time_s(self) -> Number:
        """The floor: no implementation on this machine is faster [s]."""
        return self._whole(self.roofs.time_s)

    @property
    def compute_s(self) -> Number:
        """Time of the matrix products at peak; 0 where no peak is known [s]."""
        return self._whole(self.roofs.compute_s)

    @property
    def memory_s(self) -> Number:
        """Time of the compulsory bytes at full bandwidth, less what the cache may still hold [s]."""
        return self._whole(self.roofs.memory_s)

    @property
    def network_s(self) -> Number:
        """Time on the links between devices; 0 on one device [s]."""
        return self._whole(self.roofs.network_s)

    @property
    def roof(self) -> Number:
        """The roof that attains the floor: ``"compute"``, ``"memory"`` or ``"network"``."""
        return self._whole(self.roofs.binding)

    @property
    def bound(self) -> Number:
        """What binds: the roof, or ``"capacity"`` where the step does not fit into memory at all."""
        fit = self.fits
        bound = np.where(True if fit is None else fit, self.roof, "capacity")
        return bound if bound.ndim else str(bound)

    @property
    def fits(self) -> Number | None:
        """Whether weights and cache fit into the memory that may be used, beside the reserve; None where the capacity is not known."""
        fit = fits(self.work, self.deployment)
        return None if fit is None else self._whole(fit)

    @property
    def flops(self) -> Number:
        """Operations of matrix products [FLOP]."""
        return self._whole(self.work.total("flops"))

    @property
    def weight_bytes(self) -> Number:
        """Parameters read: every matrix once, one embedding row per token [B]."""
        return self._whole(self.work.total("weight_bytes"))

    @property
    def kv_read_bytes(self) -> Number:
        """Cache read [B]."""
        return self._whole(self.work.total("kv_read_bytes"))

    @property
    def kv_write_bytes(self) -> Number:
        """Cache written [B]."""
        return self._whole(self.work.total("kv_write_bytes"))

    @property
    def link_bytes(self) -> Number:
        """Bytes that leave the busiest device over its links, one direction [B]."""
        return self._whole(self.work.total("link_bytes"))

    @property
    def surviving_bytes(self) -> Number:
        """Bytes that need not cross the memory bus because last-level caches hold them from the step before [B]."""
        return surviving_bytes(self.work, self.hardware)

    @property
    def devices(self) -> int:
        """Devices that share the model [-]."""
        return self.work.program.parallel.devices

    @property
    def state_bytes(self) -> Number:
        """Recurrent state read and written [B]."""
        return self._whole(self.work.total("state_bytes"))

    @property
    def total_bytes(self) -> Number:
        """Compulsory bytes: weights, cache and state [B]."""
        return self._whole(self.work.compulsory_bytes)

    @property
    def resident_bytes(self) -> Number:
        """Bytes in memory after the step: every parameter, and the cache [B]."""
        return self._whole(self.work.resident_bytes)

    @property
    def intensity(self) -> Number:
        """FLOP per compulsory byte [FLOP/B]."""
        return self.flops / self.total_bytes

    @property
    def ridge(self) -> Number:
        """Intensity at which arithmetic would take as long as the bytes, for this mix of formats [FLOP/B]."""
        return quotient(self.flops, self.compute_s * self.hardware.memory_bandwidth)

    @property
    def tokens_per_s(self) -> Number:
        """Token rows per second at the floor, all devices together and a step in flight in every pipeline stage.

        Not a number where the step does not fit [token/s].
        """
        rate = quotient(self.work.step.tokens * self.work.program.parallel.pipeline, self.time_s)
        fit = self.fits
        return np.where(True if fit is None else fit, rate, np.nan)[()]

    @property
    def roofline_s(self) -> Number:
        """Operators one after another, each at its own roof, with activation traffic: never below the floor [s]."""
        return self._whole(sum((row.time_s for row in self.by_op()), start=0.0))

    def by_op(self) -> tuple[OpTime, ...]:
        """Return every operator with its cost and its own roof, identical layers summed.

        Returns
        -------
        tuple of OpTime
            In the order of execution; their times add up to `roofline_s`. What makes and encodes a source has no row where none is new [s].
        """
        rows = roofline_times(self.work, self.hardware)
        if not self.model.encodes:
            return rows
        return tuple(row for row in rows if any(np.any(amount) for amount in row.op.amounts().values()))

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        """The rates used, each with where it comes from."""
        h = self.hardware
        peaks = {c.name: c for c in (h.ceiling(operand) for operand, _ in self.work.program.operands)}
        cache = (h.cache_ceiling,) if h.last_level_cache else ()
        links = [c for c in h.exit_ceilings if c is not None] if self.devices > 1 else []
        return (h.memory_ceiling, *peaks.values(), *cache, *links)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the floor takes for granted."""
        bound = ["perfect overlap and fusion: the longest roof, compulsory bytes only"]
        if self.devices > 1:
            bound.append(network_assumption(self.hardware))
        if np.any(self.surviving_bytes):
            bound.append(f"up to {show_span(self.surviving_bytes, show_bytes)} may survive in the cache from the step before")
        premises = self._premises(self.hardware.ceiling)
        return (*premises[:1], *bound, *self.hardware.measured_notes, *premises[1:])

    @property
    def premises(self) -> tuple[str, ...]:
        """What an estimate of this step takes for granted: its products refer to the peaks of the data sheet."""
        return self._premises(self.hardware.peak)

    def _premises(self, rate: Callable[[str], Ceiling]) -> tuple[str, ...]:
        """Return what any time of this step takes for granted, be it a floor or an estimate, with the notes of the rates it refers to."""
        work, precision = self.work, self.work.program.precision
        operands = [operand for operand, _ in work.program.operands]
        weights = "as stored" if precision.weights is None else precision.weights.name
        notes = [
            f"weights {weights}{''.join(f', {n} {f.name}' for n, f in precision.components)}; activations {precision.stream.name} in memory; "
            f"KV cache {precision.kv.name}; products in {', '.join(operands)}"
        ]
        if wide := self._wide_matrices():
            notes.append(wide)
        if self.devices > 1:
            shape = work.program.parallel
            named = {f.name: getattr(shape, f.name) for f in fields(shape)}
            degrees = ", ".join(f"{name} parallel {degree}" for name, degree in named.items() if degree > 1)
            split = "; every pipeline stage has the same number of layers, or one more" if shape.pipeline > 1 else ""
            notes.append(f"{self.devices} devices ({degrees}); amounts are the busiest device's{split}")
        if any(isinstance(group.feed_forward, Experts) for group in self.model.layers):
            notes.append(routing_note(work.program.routing, work.program.parallel.expert))
        if precision.activations is not None and precision.activations.operand not in operands:
            notes.append(
                f"activations {precision.activations.name} change nothing: no weights are that narrow, so products run in {', '.join(operands)}"
            )
        notes += dict.fromkeys(c.note for c in map(rate, operands) if c.note)
        notes += self.deployment.notes
        notes += self.beyond_positions
        if tight := tight_note(work.resident_bytes, self.deployment):
            notes.append(tight)
        if self.kind == "decode" and not self.model.is_anonymous and not any(np.any(g.cached) for g in work.step.groups):
            encoder = any(isinstance(group.mixer, Attention) and group.mixer.visible == "bidirectional" for group in self.model.layers)
            source = ", whose source is encoded in the same step" if self.model.encodes else ""
            notes.append(
                "an encoder generates nothing: this is a pass of one token for each sequence; a prefill is what it does"
                if encoder
                else f"context 0: the first token of an empty sequence{source}; context= says how many tokens are in the cache"
            )
        return tuple(notes)

    @property
    def beyond_positions(self) -> tuple[str, ...]:
        """That the longest sequence is longer than the model was made for, if it is."""
        limit, longest = self.model.max_positions, np.max(self.work.step.longest)
        if limit is None or longest <= limit:
            return ()
        return (f"the longest sequence, {longest:.0f} tokens, exceeds the {limit} positions the model was made for",)

    def _wide_matrices(self) -> str:
        """Say which matrices are taken as 16 bits or more, where others are narrower; another file of the model may store them otherwise."""
        stored = {
            op.name: op.stored for op in self.work.ops if op.kind in ("contraction", "gather") and np.any(op.weight_bytes) and op.stored
        }
        wide = [name for name, format in stored.items() if Format.load(format).bits >= 16]
        narrow = dict.fromkeys(format for name, format in stored.items() if name not in wide)
        return f"in 16 bits or more: {', '.join(wide)}; the other matrices in {', '.join(narrow)}" if wide and narrow else ""

    @property
    def not_modelled(self) -> tuple[str, ...]:
        """What the floor leaves out."""
        out = [*self.model.not_modelled, "general (vector) units, kernel launches, host, sampling: they only add time"]
        if any(np.isinf(self.hardware.peak(o).value) for o, _ in self.work.program.operands):
            out.append("arithmetic: no compute peak was given")
        if self.devices > 1 and self.hardware.link_ceiling is None:
            out.append(UNKNOWN_LINKS)
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

    @property
    def asked(self) -> dict[str, Any]:
        """The arguments that say how large the step is: batch and context, prompt and cached, or a whole step."""
        group = self.work.step.groups[0]
        if self.kind == "decode":
            return {"batch": group.count, "context": group.cached}
        if self.kind == "prefill":
            asked = {"prompt": group.new + group.cached, "batch": group.count, "cached": group.cached}
            last = isinstance(group.sampled, int) and group.sampled == 1
            return asked if last else asked | {"logits": "all" if np.any(group.sampled) else "none"}
        return {"step": step_input(self.work.step)}

    def question(self) -> Question:
        """Return the question that this answers [-]."""
        return Question(f"{self.kind}_floor", deployment_inputs(self.deployment, STEP, **self.asked))

    def values(self) -> dict[str, Any]:
        """Return every number by name, scalars or arrays [SI]."""
        names = (
            "time_s compute_s memory_s network_s bound roof roofline_s flops weight_bytes kv_read_bytes kv_write_bytes state_bytes link_bytes "
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
        lines += self.fit_lines()
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

    def fit_lines(self) -> list[str]:
        """Return what the text says of a step that does not fit, and nothing of one that does [-]."""
        advice = fit_advice(self.work, self.deployment)
        if not advice:
            return []
        which = show_points(~np.asarray(self.fits, dtype=bool), self.asked) if self.work.shape else ""
        return [f"  DOES NOT FIT: {which}{advice}; no throughput is given for what does not fit"]

    def __repr__(self) -> str:
        return f"<{self.summary()[0]}>"
