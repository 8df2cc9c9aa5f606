"""Recordings: a monitor's JSON lines, or the CSV that vendors' tools write, read back and summed up."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import fmean, median
from typing import Any

from roofline.calls import checks_call
from roofline.deployment import Deployment
from roofline.errors import InvalidValueError, quoted
from roofline.hardware import Hardware
from roofline.monitor.advice import Recommendation, recommend
from roofline.monitor.bottleneck import GPU_UTIL, Bottleneck, Thresholds, Verdict, check_thresholds, judge
from roofline.monitor.reachable import reachable_bandwidth
from roofline.monitor.vendor_csv import read_csv
from roofline.results import Result
from roofline.telemetry.nvml_queries import SLOWING
from roofline.telemetry.samples import QUANTITIES, DeviceSample, is_number, is_quantity
from roofline.validation import read_text

SCHEMA = "roofline monitor 1"
_FIELDS = tuple(DeviceSample.__dataclass_fields__)


def line_of(sample: DeviceSample, verdict: Verdict) -> str:
    """Return a sample as one line of JSON, with what binds; what is None is left out."""
    told = {name: value for name in _FIELDS if (value := getattr(sample, name)) is not None and name != "missing"}
    missing = {"missing": dict(sample.missing)} if sample.missing else {}
    return json.dumps({"schema": SCHEMA, **told, "bottleneck": verdict.bottleneck, **missing}, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class DeviceSummary:
    """What a device did over a recording.

    Parameters
    ----------
    device, name : str
        Its name in the recording, and what it calls itself [-].
    samples : int
        How many there are [-].
    seconds : float
        From the first to the last, pauses left out; not a number without times [s].
    means : mapping of str to float
        Mean of every quantity that was told, in the unit of its name [SI].
    shares : mapping of str to float
        Share of the samples by what bound the device [-].
    throttled : mapping of str to float
        Share of the samples in which clocks were lowered, by NVML's name of the reason [-].
    energy_j : float
        Power over time, pauses left out; not a number where either is not told [J].
    unanswered : int
        Samples in which nothing could be read [-].
    """

    device: str
    name: str | None
    samples: int
    seconds: float
    means: Mapping[str, float]
    shares: Mapping[Bottleneck, float]
    throttled: Mapping[str, float]
    energy_j: float
    unanswered: int

    @property
    def bottleneck(self) -> Bottleneck:
        """What bound it in most samples [-]."""
        return max(self.shares, key=self.shares.__getitem__)

    @property
    def verdict(self) -> Verdict:
        """What bound it in most samples, and in how many [-]."""
        return Verdict(self.bottleneck, f"in {self.shares[self.bottleneck]:.0%} of {_samples(self.samples)}")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Recording(Result):
    """What a monitor, nvidia-smi or amd-smi wrote down, by device.

    Parameters
    ----------
    source : str
        What wrote it [-].
    path : str
        Where it was read [-].
    samples : tuple of DeviceSample
        In the order of the file [-].
    verdicts : tuple of Verdict
        What bound the device of each sample, by the thresholds asked for [-].
    notes : tuple of str
        What a reader must know [-].
    """

    source: str
    path: str
    samples: tuple[DeviceSample, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def devices(self) -> tuple[DeviceSummary, ...]:
        """What each device did [-]."""
        pairs = sorted(zip(self.samples, self.verdicts, strict=True), key=lambda pair: pair[0].device)  # stable: in time within each
        return tuple(_summed(list(group)) for _, group in groupby(pairs, key=lambda pair: pair[0].device))

    def values(self) -> dict[str, Any]:
        """Return the numbers of the whole: samples and the seconds that they span [-], [s]."""
        times = [summary.seconds for summary in self.devices if not math.isnan(summary.seconds)]
        return {"samples": len(self.samples), "seconds": max(times, default=math.nan)}

    def context(self) -> dict[str, Any]:
        """Return where it comes from and what to know of it [-]."""
        return {"source": self.source, "path": self.path, "notes": self.notes}

    def table(self) -> Sequence[Mapping[str, Any]]:
        """Return a row for each device [-]."""
        return [
            {
                "device": found.device,
                "name": found.name,
                "samples": found.samples,
                "seconds": found.seconds,
                "bottleneck": found.bottleneck,
                "shares": dict(found.shares),
                "throttled": dict(found.throttled),
                "means": dict(found.means),
                "energy_j": found.energy_j,
                "unanswered": found.unanswered,
            }
            for found in self.devices
        ]

    def _columns(self) -> dict[str, list[Any]]:
        columns = {name: [getattr(sample, name) for sample in self.samples] for name in _FIELDS if name != "missing"}
        return columns | {"bottleneck": [verdict.bottleneck for verdict in self.verdicts]}

    def recommend_optimization(
        self, deployment: Deployment | None = None, *, batch: int = 1, context: int = 0, prompt: int | None = None
    ) -> Mapping[str, Recommendation]:
        """Return what would help each device against what bound it in most samples.

        Parameters
        ----------
        deployment : Deployment, optional
            What ran on it [-].
        batch, context : int, optional
            Sequences of a decode step, and cached tokens of each [-], [token].
        prompt : int, optional
            Tokens of each prompt, for a prefill instead [token].

        Returns
        -------
        mapping of str to Recommendation
            By device [-].

        Raises
        ------
        RooflineError
            As :func:`roofline.optimizations.levers` does.
        """
        found = {summary.device: summary.verdict for summary in self.devices}
        return {device: recommend(verdict, deployment, batch=batch, context=context, prompt=prompt) for device, verdict in found.items()}

    def summary(self) -> list[str]:
        """Return the lines of the text: each device, what bound it, and the means that say so [-]."""
        devices = self.devices
        lines = [f"{self.source}: {_samples(len(self.samples))} of {len(devices)} device{'s' if len(devices) > 1 else ''}"]
        for found in devices:
            shares = ", ".join(f"{name.replace('_', '-')} {share:.0%}" for name, share in found.shares.items())
            times = "times not told" if math.isnan(found.seconds) else f"{found.seconds:.4g} s"
            lines.append(f"  {found.device} ({found.name or 'not named'}), {times}: {shares}")
            means = [f"{_SHOWN[name]} {mean:.0%}" for name, mean in found.means.items() if name in _SHOWN]
            power = [f"power {found.means['power_w']:.0f} W"] if "power_w" in found.means else []
            lines += [f"    mean {', '.join([*means, *power])}"] if means or power else []
            lines += [f"    clocks lowered by {name} in {share:.0%} of the samples" for name, share in found.throttled.items()]
            lines += [f"    it did not answer in {_samples(found.unanswered)}"] if found.unanswered else []
        return [*lines, *(f"  note: {note}" for note in self.notes)]


_SHOWN = {"busy": "busy", "memory_busy": "memory busy", "tensor_active": "tensor cores active", "dram_active": "memory bandwidth"}


_PAUSE = 10  # times the usual interval; a sample that took long comes sooner


def _samples(count: int) -> str:
    return f"{count} sample{'s' * (count != 1)}"


def _summed(pairs: Sequence[tuple[DeviceSample, Verdict]]) -> DeviceSummary:
    samples = [sample for sample, _ in pairs]
    told = {name: [v for s in samples if (v := getattr(s, name)) is not None] for name in QUANTITIES}
    sessions = _sessions(_times(samples))
    classes = [verdict.bottleneck for _, verdict in pairs]
    return DeviceSummary(
        device=samples[0].device,
        name=next((s.name for s in samples if s.name), None),
        samples=len(samples),
        seconds=math.fsum(session[-1][0] - session[0][0] for session in sessions) if sessions else math.nan,
        means={name: fmean(values) for name, values in told.items() if values},
        shares={name: classes.count(name) / len(classes) for name in dict.fromkeys(classes)},
        throttled={name: share for name in SLOWING if (share := fmean(name in (s.throttle_reasons or ()) for s in samples))},
        energy_j=_energy(samples),
        unanswered=sum(s.silent for s in samples),
    )


def _sessions(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Return points in time, divided where nothing was recorded for long and where a clock went back."""
    steps = [after - before for (before, _), (after, _) in pairwise(points)]
    longest = _PAUSE * median([step for step in steps if step > 0] or [math.inf])
    sessions = [[point] for point in points[:1]]
    for step, point in zip(steps, points[1:], strict=True):
        if 0 <= step <= longest:
            sessions[-1].append(point)
        else:
            sessions.append([point])
    return sessions


def _times(samples: Iterable[DeviceSample]) -> list[tuple[float, float]]:
    return [(s.time_s, 0.0) for s in samples if s.time_s is not None]


def _energy(samples: Iterable[DeviceSample]) -> float:
    """Return the integral of power over time by the trapezoidal rule, in each session [J]."""
    powers = [(s.time_s, s.power_w) for s in samples if s.time_s is not None and s.power_w is not None]
    pairs = [pair for session in _sessions(powers) for pair in pairwise(session)]
    return math.fsum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs) if pairs else math.nan


def _pauses(samples: Iterable[DeviceSample]) -> Iterator[str]:
    """Yield what to say of devices that were recorded in several sessions, or by a clock that went back."""
    by_device: dict[str, list[DeviceSample]] = defaultdict(list)
    for sample in samples:
        by_device[sample.device].append(sample)
    for device, own in by_device.items():
        times = _times(own)
        if (pauses := len(_sessions(times)) - 1) > 0:
            yield f"{device} was recorded with {pauses} pause{'s' * (pauses > 1)}; their time and energy are not counted"
        if any(after < before for before, after in pairwise(times)):
            yield f"times of {device} go back, as when recordings are joined or a clock is set"


@checks_call
def read_recording(
    path: str | os.PathLike[str], *, thresholds: Thresholds | None = None, hardware: Hardware | str | None = None
) -> Recording:
    """Read what `roofline monitor --record`, ``nvidia-smi --query-gpu=… --format=csv`` or ``amd-smi metric --csv`` wrote.

    Parameters
    ----------
    path : str or path
        The file [-].
    thresholds : Thresholds, optional
        Where classes begin [-].
    hardware : Hardware or str, optional
        The machine whose records say what bandwidth is reachable; by default the one with the device's name, where there is one [-].

    Returns
    -------
    Recording
        Its samples, classified, and a summary of each device [-].

    Raises
    ------
    InvalidValueError
        If the file cannot be read, is empty, or is no such recording.
    UnknownNameError
        If there is no such machine.
    """
    text = read_text(path)  # PowerShell writes UTF-16 when output is sent to a file
    first = text.lstrip()[:1]
    if not first:
        raise InvalidValueError(f"{path}: the recording is empty.")
    source, samples, notes = _read_lines(text, path) if first == "{" else read_csv(text, path)
    machine = None if hardware is None else Hardware.load(hardware)
    verdicts = tuple(_judged(samples, check_thresholds(thresholds), machine))
    notes = [*notes, *_pauses(samples)]
    if any(s.kind == "nvidia" and s.busy is not None for s in samples):
        notes = [*notes, f"{GPU_UTIL}: it is shown as busy"]
    return Recording(source, str(path), tuple(samples), verdicts, tuple(notes))


def _judged(samples: Iterable[DeviceSample], thresholds: Thresholds, machine: Hardware | None) -> Iterator[Verdict]:
    previous: dict[str, Verdict] = {}
    known: dict[Any, Any] = {}
    for sample in samples:
        key = machine or sample.name
        if key not in known:
            known[key] = reachable_bandwidth(key)
        previous[sample.device] = judge(sample, thresholds, known[key], previous.get(sample.device))
        yield previous[sample.device]


def _read_lines(text: str, path: Any) -> tuple[str, list[DeviceSample], list[str]]:
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    samples: list[DeviceSample] = []
    notes: list[str] = []
    for number, line in lines:
        try:
            data = json.loads(line)
        except ValueError:
            if number == lines[-1][0] and samples:
                notes.append("the last line is cut off, as when a monitor is killed while it writes, and is left out")
                break
            raise InvalidValueError(f"{path}, line {number}: no JSON: {quoted(line)}.") from None
        samples.append(_sample(data, f"{path}, line {number}"))
    return "roofline monitor", samples, notes


def _sample(data: Any, where: str) -> DeviceSample:
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise InvalidValueError(f"{where}: no line of a recording, whose schema is {SCHEMA!r}.")
    fields = {name: data[name] for name in _FIELDS if name in data}
    wrong = next((name for name in ("device", "kind") if name not in fields), None)
    wrong = wrong or next((name for name, value in fields.items() if not _can_be(name, value)), None)
    if wrong is not None:
        raise InvalidValueError(f"{where}: {wrong} is {quoted(fields.get(wrong))}, which no sample has.")
    return DeviceSample(**fields | ({"throttle_reasons": tuple(fields["throttle_reasons"])} if "throttle_reasons" in fields else {}))


def _can_be(name: str, value: Any) -> bool:
    """Return whether a field of a line can have a value."""
    match name:
        case "device" | "name":
            return isinstance(value, str)
        case "kind":
            return value in ("nvidia", "amd", "cpu")
        case "time_s":
            return is_number(value)
        case "throttle_reasons":
            return isinstance(value, list) and all(isinstance(reason, str) for reason in value)
        case "missing":
            return isinstance(value, dict) and all(isinstance(reason, str) for reason in value.values())
    return is_quantity(name, value)
