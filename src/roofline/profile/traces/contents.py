"""What of a trace is needed, collected in one pass: kernels, what launched them, annotations, operators with their shapes."""

import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from roofline.errors import InvalidValueError
from roofline.profile.events import INPUTS, EventReader
from roofline.profile.traces.events import Events

_SINGLE = ("LaunchKernel", "LaunchKernelExC", "LaunchKernelEx", "LaunchCooperativeKernel", "MemcpyAsync", "MemsetAsync")  # not of a graph
_KEPT = (*_SINGLE, "BeginCapture", "EndCapture")
_MICRO = 1e-6
_NONE = -1
_ENDLESS = 1e18  # thirty thousand years; infinite and not a number fail the comparison too [µs]


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


class Launch(NamedTuple):
    """A call of the device's runtime on the host.

    Parameters
    ----------
    name : str
        Of the call, such as ``"hipLaunchKernel"`` [-].
    at_s : float
        From the first event that is read [s].
    operator : int
        External id of the operator that made it; negative without one [-].
    kernel : str
        What it launches, where the trace says it; empty else [-].
    correlation : int
        The number that it shares with what it launches; negative without one [-].
    """

    name: str
    at_s: float
    operator: int
    kernel: str
    correlation: int


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
    first_us : float
        When the first event that is read starts, on the trace's own clock [µs].
    start_s, time_s, name, correlation, operator, device : numpy.ndarray
        Of each kernel and copy, in the order of their start: when, how long, an index of `names`, the number that it shares with its launch,
        the External id of its operator or of its launch (-1 without one), and where it ran [s].
    names : list of str
        Names of kernels [-].
    launched_s : mapping of int to float
        When each correlation was launched on the host [s].
    launches : list of Launch
        The runtime's calls [-].
    ranges : list of Range
        The annotations, in the order of their start [-].
    reader : EventReader
        Has the operators and the annotations of the host, and waits for kernels [-].
    shapes : bool
        Whether shapes of operators were recorded [-].
    collectives : mapping of int to (str, str)
        Name of the exchange and of its group, by the index of the kernel, where the trace says them [-].
    """

    path: Path
    beside: Mapping[str, Any] = field(default_factory=dict)
    cut: bool = False
    first_us: float = 0.0
    start_s: Any = field(default_factory=lambda: array("d"))
    time_s: Any = field(default_factory=lambda: array("d"))
    name: Any = field(default_factory=lambda: array("l"))
    correlation: Any = field(default_factory=lambda: array("q"))
    operator: Any = field(default_factory=lambda: array("q"))
    device: Any = field(default_factory=lambda: array("l"))
    names: list[str] = field(default_factory=list)
    launched_s: dict[int, float] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)
    ranges: list[Range] = field(default_factory=list)
    reader: EventReader = field(default_factory=EventReader)
    shapes: bool = False
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
    def devices(self) -> list[Mapping[str, Any]]:
        """The devices as the trace describes them."""
        listed = self.beside.get("deviceProperties")
        return [device for device in listed if isinstance(device, dict)] if isinstance(listed, list) else []

    @property
    def device_name(self) -> str:
        """The device as the trace calls it, empty where it does not."""
        return next((str(name) for device in self.devices if (name := device.get("name"))), "")

    def event(self, index: int, *, operator: int | None = None) -> dict[str, Any]:
        """Return a kernel as an event that a profile takes, of another operator if one is given."""
        launcher = int(self.operator[index]) if operator is None else operator
        return {
            "ph": "X",
            "cat": "kernel",
            "name": self.names[self.name[index]],
            "ts": self.first_us + float(self.start_s[index]) / _MICRO,
            "dur": float(self.time_s[index]) / _MICRO,
            "args": {} if launcher < 0 else {"External id": launcher},
        }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


class _Collector:
    """Sorts events into contents."""

    def __init__(self, contents: Contents) -> None:
        self.into = contents
        self.first: float | None = None  # when the first of them starts [µs]
        self.names: dict[str, int] = {}
        self.any_operator = False
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
        if isinstance(start, (int, float)) and isinstance(time, (int, float)) and abs(start) < _ENDLESS and abs(time) < _ENDLESS:
            if self.first is None:
                self.first = self.into.first_us = start
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
        self.any_operator = True
        told = {key: args[key] for key in INPUTS if isinstance(args.get(key), list)}
        self.into.shapes = self.into.shapes or "Input Dims" in told
        number = _number(args.get("External id", args.get("external id")))
        self._host(event, "cpu_op", {**told, "External id": None if number == _NONE else number})

    def _launch(self, event: Mapping[str, Any], start_s: float, time_s: float, args: Mapping[str, Any]) -> None:
        name, operator = str(event.get("name")), _number(args.get("External id", args.get("external id")))
        if isinstance(number := args.get("correlation"), int):
            self.into.launched_s.setdefault(number, start_s)
        if name.endswith(_KEPT):
            kernel = args.get("kernel", "")
            self.into.launches.append(Launch(sys.intern(name), start_s, operator, sys.intern(str(kernel)), _number(number)))

    def _annotation(self, event: Mapping[str, Any], start_s: float, time_s: float, args: Mapping[str, Any]) -> None:
        gpu = event.get("cat") == "gpu_user_annotation"
        name = str(event.get("name"))
        self.into.ranges.append(Range(name, start_s, start_s + time_s, gpu))
        if not gpu:
            self._host(event, "user_annotation", {})

    def _host(self, event: Mapping[str, Any], kind: str, args: Mapping[str, Any]) -> None:
        """Give an event of the host to the profile."""
        where = {key: str(event.get(key)) for key in ("pid", "tid", "name")}
        self.into.reader.add({"ph": "X", "cat": kind, "ts": event["ts"], "dur": event["dur"], "args": args, **where})


def _number(value: Any) -> int:
    return value if isinstance(value, int) else _NONE


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
    if not contents.start_s and not collector.any_operator:
        raise InvalidValueError(f"{events.path} has no kernels and no operators: it is no trace of torch.profiler.")
    order = np.argsort(np.asarray(contents.start_s), kind="stable")
    place = {int(old): new for new, old in enumerate(order)} if contents.collectives else {}
    contents.collectives = {place[old]: said for old, said in contents.collectives.items()}
    for name in ("start_s", "time_s", "name", "correlation", "operator", "device"):
        setattr(contents, name, np.asarray(getattr(contents, name))[order])
    operators = {
        launch.correlation: launch.operator for launch in contents.launches if launch.correlation >= 0 and launch.name.endswith(_SINGLE)
    }
    unnamed = np.flatnonzero(contents.operator < 0)
    contents.operator[unnamed] = [operators.get(int(number), _NONE) for number in contents.correlation[unnamed]]
    contents.ranges.sort(key=lambda span: (span.start_s, -span.end_s))
    return contents
