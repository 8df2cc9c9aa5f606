"""What of a trace is needed, collected in one pass: kernels, what launched them, annotations, operators with their shapes."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from roofline.errors import InvalidValueError
from roofline.profile.traces.events import Events

_MICRO = 1e-6
_NONE = -1


class Range(NamedTuple):
    """A named span of time: an annotation.

    Parameters
    ----------
    name : str
        What it says [-].
    start_s, end_s : float
        From the first event that is read [s].
    gpu : bool
        Whether it is on the device's clockwork, around the kernels that were launched in it [-].
    """

    name: str
    start_s: float
    end_s: float
    gpu: bool


class Operator(NamedTuple):
    """An operator of torch as a trace describes it.

    Parameters
    ----------
    name : str
        Such as ``"aten::mm"`` [-].
    shapes, types, values : tuple
        Of each argument: dimensions, type, and the value of those that are no tensors [-].
    """

    name: str
    shapes: tuple[Any, ...]
    types: tuple[str, ...]
    values: tuple[str, ...]


class Call(NamedTuple):
    """A call of an operator on the host.

    Parameters
    ----------
    operator : int
        Which, an index of ``Contents.operators`` [-].
    start_s, end_s : float
        From the first event that is read [s].
    thread : int
        Which thread it ran in [-].
    id : int
        External id, which its kernels name; negative without one [-].
    """

    operator: int
    start_s: float
    end_s: float
    thread: int
    id: int


class Collective(NamedTuple):
    """A kernel that exchanges data with other ranks.

    Parameters
    ----------
    name : str
        Of the exchange where the trace says it, such as ``"allreduce"``, else of the kernel [-].
    group : str
        Of the ranks that take part; empty where the trace does not say it [-].
    start_s, time_s : float
        From the first event that is read; its duration [s].
    """

    name: str
    group: str
    start_s: float
    time_s: float


@dataclass(slots=True)
class Contents:
    """The contents of one trace.

    Parameters
    ----------
    path : Path
        The file [-].
    beside : mapping
        What stands beside the events [-].
    cut : bool
        Whether the file ends in the middle [-].
    start_s, time_s, name, correlation, operator, device, stream : numpy.ndarray
        Of each kernel and copy, in the order of their start: when, how long, an index of `names`, the number that it shares with its launch,
        the External id of its operator (-1 without one), and where it ran [s].
    names : list of str
        Names of kernels [-].
    launched_s : mapping of int to float
        When each correlation was launched on the host [s].
    ranges : list of Range
        The annotations, in the order of their start [-].
    operators : list of Operator
        Each once [-].
    calls : list of Call
        Calls of operators [-].
    collectives : mapping of int to (str, str)
        Name of the exchange and of its group, by the index of the kernel, where the trace says them [-].
    """

    path: Path
    beside: Mapping[str, Any] = field(default_factory=dict)
    cut: bool = False
    start_s: Any = field(default_factory=lambda: array("d"))
    time_s: Any = field(default_factory=lambda: array("d"))
    name: Any = field(default_factory=lambda: array("l"))
    correlation: Any = field(default_factory=lambda: array("q"))
    operator: Any = field(default_factory=lambda: array("q"))
    device: Any = field(default_factory=lambda: array("l"))
    names: list[str] = field(default_factory=list)
    launched_s: dict[int, float] = field(default_factory=dict)
    ranges: list[Range] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    collectives: dict[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def end_s(self) -> Any:
        """When each kernel ends [s]."""
        return self.start_s + self.time_s

    @property
    def rank(self) -> int | None:
        """Of the process among those of its job, where the trace says it [-]."""
        rank = _mapping(self.beside.get("distributedInfo")).get("rank")
        return rank if isinstance(rank, int) else None

    @property
    def world_size(self) -> int | None:
        """Processes of the job, where the trace says it [-]."""
        size = _mapping(self.beside.get("distributedInfo")).get("world_size")
        return size if isinstance(size, int) else None

    @property
    def device_name(self) -> str:
        """The device as the trace calls it, empty where it does not."""
        listed = self.beside.get("deviceProperties")
        names = [str(_mapping(device).get("name") or "") for device in listed] if isinstance(listed, list) else []
        return next((name for name in names if name), "")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


class _Collector:
    """Sorts events into contents."""

    def __init__(self, contents: Contents) -> None:
        self.into = contents
        self.first: float | None = None  # when the first of them starts [µs]
        self.names: dict[str, int] = {}
        self.operators: dict[str, int] = {}
        self.threads: dict[Any, int] = {}
        self.devices: dict[Any, int] = {}
        self.takes = {
            **dict.fromkeys(("kernel", "gpu_memcpy", "gpu_memset", "Kernel", "Memcpy", "Memset"), self._kernel),
            **dict.fromkeys(("cpu_op", "Operator"), self._call),
            **dict.fromkeys(("cuda_runtime", "cuda_driver", "Runtime"), self._launch),
            **dict.fromkeys(("user_annotation", "gpu_user_annotation"), self._annotation),
        }

    def take(self, event: Mapping[str, Any]) -> None:
        kind = event.get("cat")
        take = self.takes.get(kind) if isinstance(kind, str) else None
        if take is None:
            return
        start, time, args = event.get("ts"), event.get("dur"), event.get("args")
        if isinstance(start, (int, float)) and isinstance(time, (int, float)):
            if self.first is None:
                self.first = start
            take(event, (start - self.first) * _MICRO, max(time, 0.0) * _MICRO, args if isinstance(args, dict) else {})

    def _kernel(self, event: Mapping[str, Any], start_s: float, time_s: float, args: Mapping[str, Any]) -> None:
        into, name = self.into, str(event.get("name"))
        if isinstance(exchange := args.get("Collective name"), str):
            group = args.get("Process Group Name", args.get("Process Group Description", ""))
            into.collectives[len(into.start_s)] = (exchange, str(group))
        into.start_s.append(start_s)
        into.time_s.append(time_s)
        into.name.append(self.names.setdefault(name, len(self.names)))
        into.correlation.append(_number(args.get("correlation")))
        into.operator.append(_number(args.get("External id", args.get("external id"))))
        into.device.append(self.devices.setdefault(str(args.get("device", event.get("pid"))), len(self.devices)))

    def _call(self, event: Mapping[str, Any], start_s: float, time_s: float, args: Mapping[str, Any]) -> None:
        into = self.into
        shapes, types, values = args.get("Input Dims"), args.get("Input type"), args.get("Concrete Inputs")
        key = f"{event.get('name')}{shapes}{types}{values}"
        if (index := self.operators.get(key)) is None:
            index = self.operators[key] = len(into.operators)
            lists = (value if isinstance(value, list) else [] for value in (shapes, types, values))
            into.operators.append(Operator(str(event.get("name")), *map(_frozen, lists)))
        thread = self.threads.setdefault(str(event.get("tid")), len(self.threads))
        number = _number(args.get("External id", args.get("external id")))
        into.calls.append(Call(index, start_s, start_s + time_s, thread, number))

    def _launch(self, event: Mapping[str, Any], start_s: float, time_s: float, args: Mapping[str, Any]) -> None:
        if isinstance(number := args.get("correlation"), int):
            self.into.launched_s.setdefault(number, start_s)

    def _annotation(self, event: Mapping[str, Any], start_s: float, time_s: float, args: Mapping[str, Any]) -> None:
        self.into.ranges.append(Range(str(event.get("name")), start_s, start_s + time_s, event.get("cat") == "gpu_user_annotation"))


def _number(value: Any) -> int:
    return value if isinstance(value, int) else _NONE


def _frozen(value: list[Any]) -> tuple[Any, ...]:
    return tuple(_frozen(part) if isinstance(part, list) else part for part in value)


def read_contents(path: str | Path) -> Contents:
    """Return what is needed of a trace of ``torch.profiler``, all times from its first event.

    Parameters
    ----------
    path : str or Path
        The trace, plain or gzipped [-].

    Returns
    -------
    Contents
        Kernels, launches, annotations and operators [-].

    Raises
    ------
    InvalidValueError
        If the file cannot be read, or has none of them.
    """
    events = Events(path)
    contents = Contents(events.path)
    collector = _Collector(contents)
    for event in events:
        if isinstance(event, dict):
            collector.take(event)
    contents.beside, contents.cut = events.beside, events.cut
    contents.names = list(collector.names)
    if not contents.start_s and not contents.calls:
        raise InvalidValueError(f"{events.path} has no kernels and no operators: it is no trace of torch.profiler.")
    order = np.argsort(np.asarray(contents.start_s), kind="stable")
    place = {int(old): new for new, old in enumerate(order)} if contents.collectives else {}
    contents.collectives = {place[old]: said for old, said in contents.collectives.items()}
    for name in ("start_s", "time_s", "name", "correlation", "operator", "device"):
        setattr(contents, name, np.asarray(getattr(contents, name))[order])
    contents.ranges.sort(key=lambda span: (span.start_s, -span.end_s))
    return contents
