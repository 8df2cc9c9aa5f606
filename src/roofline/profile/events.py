"""From events of torch's profiler, as a Chrome trace has them, to the rows of a profile.

Operators nest. The outermost one whose cost is known counts, with all that runs inside it; others pass their calls on and keep the time that
they take themselves. On a GPU time is that of kernels, which belong to the operator that launched them.
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from sys import intern
from typing import Any

from roofline.hardware import Hardware
from roofline.ops import Op
from roofline.profile.call import ELEMENTS, Call
from roofline.profile.operators import Cost, count_call, moves_nothing
from roofline.profile.result import Profile
from roofline.profile.rows import OperatorTime, time_operator

WINDOW, PHASE, MODULE = "roofline profile", "roofline phase: ", "roofline module: "
"""Annotations that a live run leaves in its trace: what is profiled, and before the names of phases and the paths of modules."""

INPUTS = ("Input Dims", "Input type", "Concrete Inputs", "Input Strides")
"""What a trace tells of the inputs of a call."""

_HOST = ("cpu_op", "user_annotation")
_KERNELS = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What events of alike calls share."""

    args: Mapping[str, Any]
    tensors: tuple[tuple[int, str], ...]  # elements and type of each
    lists: tuple[int, ...]  # elements of each tensor of lists, whose types a trace does not name


@dataclass(slots=True)
class _Span:
    """An operator or an annotation on a thread of the host."""

    start: float  # [µs]
    end: float
    name: str
    inputs: _Inputs | None  # None for annotations
    id: int | None  # its External id
    module: str = ""
    op: Op | None = None
    shapes: str = ""
    owner: "_Span | None" = None  # the outermost operator around it whose cost is known; itself if there is none
    time: float = 0.0  # what it is charged with [µs]


@dataclass(slots=True)
class _Kernel:
    name: str
    start: float  # [µs]
    end: float
    launcher: int | None  # the External id of the operator


@dataclass
class EventReader:
    """Takes events one by one, keeps what a profile needs of them, and makes it.

    Parameters
    ----------
    hardware : Hardware, optional
        The machine whose roofs operators are put beside [-].
    fp32_products : str, optional
        What products of fp32 run in: ``"tf32"`` where torch was told so, which a trace does not say [-].
    operators : mapping of str to callable, optional
        Cost functions of more operators, or other ones, by name; each takes a :class:`Call` [-].
    """

    hardware: Hardware | None = None
    fp32_products: str = "fp32"
    operators: Mapping[str, Cost] = field(default_factory=dict)
    _threads: dict[Any, list[_Span]] = field(default_factory=lambda: defaultdict(list))
    _kernels: list[_Kernel] = field(default_factory=list)
    _inputs: dict[tuple[str, ...], _Inputs] = field(default_factory=dict)
    _known: dict[tuple[str, int, str], tuple[Op | None, str]] = field(default_factory=dict)

    def add(self, event: Mapping[str, Any]) -> None:
        """Keep one event if it is an operator, an annotation or a kernel.

        Parameters
        ----------
        event : mapping
            As the trace has it [-].
        """
        kind = event.get("cat")
        if event.get("ph") != "X" or (kind not in _HOST and kind not in _KERNELS):
            return
        start, args, name = float(event["ts"]), event.get("args") or {}, intern(str(event["name"]))
        end, mark = start + float(event.get("dur", 0)), args.get("External id")
        if kind in _KERNELS:
            self._kernels.append(_Kernel(name, start, end, mark))
        else:
            inputs = None if kind == "user_annotation" or name.startswith(MODULE) else self._shared(name, args)
            self._threads[event.get("pid"), event.get("tid")].append(_Span(start, end, name, inputs, mark))

    def _passes(self, name: str) -> bool:
        """Return whether an operator has no cost of its own."""
        return name not in self.operators and moves_nothing(name)

    def _shared(self, name: str, args: Mapping[str, Any]) -> _Inputs:
        """Return the inputs of a call, one object for all that are alike."""
        told = ("Input Dims", "Input type") if self._passes(name) else INPUTS
        key = tuple(map(repr, map(args.get, told)))
        if key not in self._inputs:
            dims = list(zip(args.get("Input Dims", ()), args.get("Input type", ()), strict=False))
            tensors = tuple((_elements(sizes), intern(kind)) for sizes, kind in dims if kind in ELEMENTS)
            lists = tuple(_elements(sizes) for several, kind in dims if kind == "TensorList" for sizes in several)
            self._inputs[key] = _Inputs({name: args[name] for name in told if name in args}, tensors, lists)
        return self._inputs[key]

    def profile(self, source: str, device: str, notes: tuple[str, ...] = ()) -> Profile:
        """Return the profile of all events so far.

        Parameters
        ----------
        source, device : str
            Where they are from, and what ran [-].
        notes : tuple of str, optional
            What a reader must know [-].

        Returns
        -------
        Profile
            One row for calls of the same name, module, phase, shapes and format [-].
        """
        spans = [span for thread in self._threads.values() for span in thread]
        for thread in self._threads.values():
            self._nest(thread)
        operators = [span for span in spans if span.inputs]
        annotations = [span for span in spans if span.inputs is None]
        phases = sorted((s.start, s.end, s.name.removeprefix(PHASE)) for s in annotations if s.name.startswith(PHASE))
        strays = self._charge_kernels(operators)
        ends = [(s.start, s.end) for s in annotations if s.name == WINDOW]
        ends = ends or [*((s.start, s.end) for s in operators), *((k.start, k.end) for k in self._kernels)]
        walls: dict[str, float] = defaultdict(float)
        for start, end, phase in phases:
            walls[phase] += (end - start) * 1e-6
        forwards: dict[str, int] = defaultdict(int)
        for span in annotations:
            if span.name == MODULE:
                forwards[_phase_at(span.start, phases) or ""] += 1
        return Profile(
            self._rows(operators, strays, phases),
            (max(end for _, end in ends) - min(start for start, _ in ends)) * 1e-6 if ends else 0.0,
            source,
            device,
            self.hardware,
            dict(walls),
            dict(forwards),
            notes,
        )

    def _nest(self, spans: list[_Span]) -> None:
        """Find modules and owners of one thread's operators, and charge each with its time on the host."""
        seen: dict[int, str] = {}
        stack: list[_Span] = []
        for span in sorted(spans, key=lambda s: (s.start, -s.end)):
            while stack and stack[-1].end <= span.start:
                stack.pop()
            span.module = stack[-1].module if stack else ""
            if span.inputs is not None:
                self._place(span, next((s for s in reversed(stack) if s.inputs), None), seen)
            elif span.name.startswith(MODULE):
                span.module = span.name.removeprefix(MODULE)
            stack.append(span)

    def _place(self, span: _Span, parent: _Span | None, seen: dict[int, str]) -> None:
        """Find what an operator costs, or who counts it."""
        inputs = span.inputs or _Inputs({}, (), ())
        seen.update(inputs.tensors)
        span.time = span.end - span.start
        owner = parent.owner if parent else None
        if owner is not None and owner.op is not None and not self._passes(owner.name):
            span.owner, span.time = owner, 0.0
            return
        if parent is not None:
            parent.time -= span.time
        span.owner = span
        # a trace does not name the type of tensors in lists: that which a tensor of as many elements had last
        listed = next((seen[count] for count in inputs.lists if count in seen), "")
        key = (span.name, id(inputs), listed)
        if key not in self._known:
            self._known[key] = self._count(span.name, inputs.args, listed)
        span.op, span.shapes = self._known[key]
        if span.op is not None and span.op.kind == "contraction" and span.op.operand == "fp32":
            span.op = span.op.having(operand=self.fp32_products)

    def _count(self, name: str, args: Mapping[str, Any], listed: str) -> tuple[Op | None, str]:
        """Return what a call costs, and its shapes."""
        if self._passes(name):
            return Op(name, "element-wise"), ""
        call = Call.read(name, args, listed)
        return (self.operators.get(name, count_call)(call), call.shapes) if call else (None, "")

    def _charge_kernels(self, operators: list[_Span]) -> list[_Kernel]:
        """Charge operators with their kernels instead of the host's time, if there are any; return those that no operator launched."""
        if not self._kernels:
            return []
        launchers = {}
        for span in operators:
            span.time = 0.0
            launchers[span.id] = span
        strays = []
        for kernel in self._kernels:
            launcher = launchers.get(kernel.launcher) if kernel.launcher is not None else None
            if launcher is None or launcher.owner is None or kernel.name.startswith(("Memcpy HtoD", "Memcpy DtoH")):
                strays.append(kernel)  # the rows of copies from and to the host are no operators of the device
            else:
                launcher.owner.time += kernel.end - kernel.start
        return strays

    def _rows(self, operators: list[_Span], strays: list[_Kernel], phases: list[tuple[float, float, str]]) -> tuple[OperatorTime, ...]:
        """Return one row for calls that are alike."""
        calls: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        costs: dict[tuple[Any, ...], Op | None] = {}
        for span in operators:
            if span.owner is not span or (self._kernels and not span.time):
                continue
            key = (span.name, span.module, _phase_at(span.start, phases), span.shapes, _format(span.op))
            calls[key].append(span.time * 1e-6)
            costs[key] = span.op
        for kernel in strays:
            key = (kernel.name, "", _phase_at(kernel.start, phases), "", None)
            calls[key].append((kernel.end - kernel.start) * 1e-6)
            costs[key] = None
        return tuple(
            time_operator(
                name, costs[key], self.hardware, calls=len(times), time_s=sum(times), module=module, phase=phase, shapes=shapes, format=form
            )
            for key, times in calls.items()
            for name, module, phase, shapes, form in (key,)
        )


def _elements(dims: Any) -> int:
    return math.prod(size for size in dims if isinstance(size, int))


def _format(op: Op | None) -> str | None:
    if op is None or not (op.flops or op.activation_bytes or op.compulsory_bytes):
        return None
    return op.operand if op.kind == "contraction" else op.stored


def _phase_at(time: float, phases: list[tuple[float, float, str]]) -> str | None:
    """Return the phase that a time lies in; phases do not nest."""
    place = bisect_right(phases, time, key=itemgetter(0)) - 1
    return phases[place][2] if place >= 0 and time < phases[place][1] else None
