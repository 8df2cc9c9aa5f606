"""`roofline monitor`: the devices of this machine while they work, and what binds each."""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

from roofline.cli import options as given
from roofline.cli.machines import find_machine
from roofline.cli.printing import complain, show, show_json, terminal_width, write
from roofline.cli.reading import Given
from roofline.cli.wording import in_our_words
from roofline.deployment import Deployment
from roofline.deployment.options import OPTIONS
from roofline.errors import InvalidValueError, quoted
from roofline.hardware import Hardware
from roofline.hardware.recognition import recognize
from roofline.monitor import BottleneckMonitor, DeviceSample, Recommendation, Verdict, read_recording, serve_metrics
from roofline.monitor.bottleneck import GPU_UTIL, Thresholds
from roofline.monitor.recording import line_of
from roofline.monitor.watching import check_times
from roofline.telemetry.nvml_queries import SLOWING

_USUAL = Thresholds()
_ALL = ("all",)
_EACH_S = 1.0
_OF_MODELS = ("tensor_parallel", "weights", "kv")
Shower = Callable[[Mapping[str, DeviceSample], Mapping[str, Verdict]], None]


@given.takes_deployment(_OF_MODELS)
def monitor(
    recording: Annotated[
        str | None,
        Given("Watch nothing: sum up what --record, nvidia-smi --query-gpu or amd-smi metric --csv wrote to this file.", positional=True),
    ] = None,
    *,
    devices: Annotated[
        tuple[str, ...], Given("all GPUs, cpu, or numbers as nvidia-smi has them, joined by commas; 0/mig1 is a slice.", several=True)
    ] = _ALL,
    interval: Annotated[float, Given("Seconds from one sample to the next, at least 0.2.")] = _EACH_S,
    seconds: Annotated[float | None, Given("For how long. Default: until Ctrl-C.")] = None,
    record: Annotated[str | None, Given("Also append every sample to this file, a line of JSON each.")] = None,
    prometheus: Annotated[str | None, Given("Also serve the last samples at this port, or ADDRESS:PORT, for Prometheus.")] = None,
    hardware: Annotated[
        str | None, Given("Machine whose records say what bandwidth is reachable. Default: recognized by the device's name.")
    ] = None,
    high: Annotated[float, Given("Share of use above which arithmetic or memory binds.")] = _USUAL.high,
    low: Annotated[float, Given("Share below which the other one does not.")] = _USUAL.low,
    both: Annotated[float, Given("Share above which the two are balanced.")] = _USUAL.both,
    hysteresis: Annotated[float, Given("How far a share may fall back over a threshold before the class changes.")] = _USUAL.hysteresis,
    model: Annotated[str | None, Given("What runs there, to evaluate its levers: a catalogue name or the path of a config.json.")] = None,
    batch: given.Batch = 1,
    context: given.Context = 0,
    prompt: given.Prompt = None,
    json: given.Json = False,
    **options: Any,
) -> int:
    """Watch the devices of this machine while they work: their counters, and what binds each.

    It only reads. GPU-Util, shown as busy, is the share of the time in which any kernel ran, not an efficiency; on Hopper and later GPUs the
    activity of tensor cores and memory says what binds. At the end it says what would help. With --json every sample is a line, as in a
    recording.
    """
    thresholds, machine = Thresholds(high, low, both, hysteresis), None if hardware is None else find_machine(hardware)
    runs = _Runs(model, machine, {"batch": batch, "context": context, "prompt": prompt}, options)
    if recording is not None:
        usual = {"devices": _ALL, "interval": _EACH_S, "seconds": None, "record": None, "prometheus": None}
        told = {"devices": devices, "interval": interval, "seconds": seconds, "record": record, "prometheus": prometheus}
        stray = next((name for name, value in told.items() if value != usual[name]), None)
        if stray is not None:
            raise InvalidValueError(f"--{stray} goes with watching, not with a recording.")
        found = read_recording(recording, thresholds=thresholds, hardware=machine)
        advice = runs.advice(found.recommend_optimization, [summary.name for summary in found.devices])
        if json:
            show_json(found.to_dict() | {"advice": {device: told.to_dict() for device, told in advice.items()}})
        else:
            show(in_our_words(str(found)))
            _advise(advice)
        return 0
    check_times(interval, seconds)
    if json and model is not None:
        raise InvalidValueError("--json while watching is lines of a recording; --model goes with text, or with a recording.")
    with ExitStack() as stack:
        watched = stack.enter_context(BottleneckMonitor(devices, thresholds=thresholds, hardware=machine))
        runs.deployment(watched.devices.values())  # what is wrong with it is said before anything is watched
        with ExitStack() as shown, suppress(KeyboardInterrupt):  # the usual end of watching
            showers = list(_showers(shown, record=record, prometheus=prometheus, json=json))
            for samples in watched.watch(interval, seconds):
                for each in showers:
                    each(samples, watched.classify_bottleneck())
        if not json:
            _advise(runs.advice(watched.recommend_optimization, watched.devices.values()))
    return 0


class _Runs:
    """What runs on the devices, where somebody says it, and what would help it."""

    def __init__(self, model: str | None, machine: Hardware | None, step: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        unused = {"batch": 1, "context": 0, "prompt": None} | {name: OPTIONS[name].default for name in options}
        stray = next((name for name, value in {**step, **options}.items() if value != unused[name]), None)
        if model is None and stray is not None:
            raise InvalidValueError(f"--{stray.replace('_', '-')} goes with --model.")
        self._model, self._machine, self._step, self._options = model, machine, step, options

    def deployment(self, names: Iterable[str | None]) -> Deployment | None:
        """Return the deployment: on the machine that is named, or that one of the devices is."""
        if self._model is None:
            return None
        machine = self._machine or next((found for name in names if name and (found := recognize(name))), None)
        if machine is None:
            raise InvalidValueError("--model needs --hardware: no device here is a machine that is known by its name.")
        return Deployment(self._model, machine, **self._options)

    def advice(self, ask: Callable[..., Mapping[str, Recommendation]], names: Iterable[str | None]) -> dict[str, Recommendation]:
        """Return what would help each device; the host's processors only where they are what runs."""
        told = ask(self.deployment(names), **self._step)
        return {device: advice for device, advice in told.items() if advice.helps and (device != "cpu" or len(told) == 1)}


def _advise(advice: Mapping[str, Recommendation]) -> None:
    """Print what would help, once for devices that it is the same for."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for device, told in advice.items():
        first, *rest = told.summary()
        alike.setdefault(tuple(rest), []).append(f"{device} {first}")
    for rest_of_them, firsts in alike.items():
        show()
        show(in_our_words("\n".join([*firsts, *rest_of_them])))


def _showers(stack: ExitStack, *, record: str | None, prometheus: str | None, json: bool) -> Iterator[Shower]:
    """Yield what takes the samples: a file, a page for Prometheus, and what shows them."""
    if record is not None:
        yield _recorder(stack, record)
    if prometheus is not None:
        server = serve_metrics(prometheus)
        stack.callback(server.close)
        complain(f"serving metrics at port {server.port}.")
        yield server.show
    yield _view(stack, json)


def _recorder(stack: ExitStack, record: str) -> Shower:
    try:
        file = stack.enter_context(Path(record).expanduser().open("a", encoding="utf-8"))
    except OSError as error:
        raise InvalidValueError(f"--record {quoted(record)} cannot be written: {error.strerror or error}.") from None

    def shower(samples: Mapping[str, DeviceSample], verdicts: Mapping[str, Verdict]) -> None:
        for device, sample in samples.items():
            file.write(f"{line_of(sample, verdicts[device])}\n")
        file.flush()

    return shower


def _view(stack: ExitStack, json: bool) -> Shower:
    """Return what shows samples: lines of JSON, a table that is drawn anew at a terminal, else a line for each sample."""
    if json:
        return _json_lines
    if terminal_width(sys.stdout) is not None:
        try:
            from roofline.cli.live_view import LiveView
        except ImportError:
            complain("without the package rich every sample is a line.")
        else:
            return stack.enter_context(LiveView(sys.stdout))
    return _Lines()


def _json_lines(samples: Mapping[str, DeviceSample], verdicts: Mapping[str, Verdict]) -> None:
    write("\n".join(line_of(sample, verdicts[device]) for device, sample in samples.items()))


class _Lines:
    """A line for each sample, and what devices do not tell, whenever that changes."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, samples: Mapping[str, DeviceSample], verdicts: Mapping[str, Verdict]) -> None:
        for device, sample in samples.items():
            told = [f"{heading} {cell}" for heading, cell in cells_of(sample).items() if cell != NOT_TOLD]
            write("  ".join([device, *told, said(verdicts[device], sample)]))
        for line in lacking(samples.values()):
            if line not in self._told:
                self._told.add(line)
                complain(line)


def said(verdict: Verdict, sample: DeviceSample) -> str:
    """Return what binds and why, and what lowers the clocks, in one line."""
    slowing = [name for name in sample.throttle_reasons or () if name in SLOWING]
    lowered = f"; clocks lowered by {', '.join(slowing)}" if slowing else ""
    return f"{verdict.bottleneck.replace('_', '-')}: {verdict.reason}{lowered}"


def lacking(samples: Collection[DeviceSample]) -> list[str]:
    """Return what devices do not tell, a line for each reason and those that it holds for."""
    devices: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for sample in samples:
        for reason in dict.fromkeys(sample.missing.values()):
            names = tuple(name for name, why in sample.missing.items() if why == reason)
            devices.setdefault((reason, names), []).append(sample.device)
    warned = [f"{GPU_UTIL}; it is shown as busy."] if any(s.kind == "nvidia" and s.busy is not None for s in samples) else []
    return [*warned, *(f"{', '.join(who)}: not told: {', '.join(names)} ({reason})." for (reason, names), who in devices.items())]


NOT_TOLD = "–"
_CELLS: dict[str, tuple[str, float, str]] = {
    "busy": ("busy", 100, "%"),
    "tensor_active": ("tensor", 100, "%"),
    "dram_active": ("bandwidth", 100, "%"),
    "memory_used_bytes": ("memory", 1e-9, "GB"),
    "power_w": ("power", 1, "W"),
    "temperature_c": ("temp", 1, "°C"),
    "clock_hz": ("clock", 1e-6, "MHz"),
}


def cells_of(sample: DeviceSample) -> dict[str, str]:
    """Return the numbers that are shown of a sample, by heading; a dash for what is not told."""
    return {heading: _cell(getattr(sample, name), factor, unit) for name, (heading, factor, unit) in _CELLS.items()}


def _cell(value: float | None, factor: float, unit: str) -> str:
    return NOT_TOLD if value is None else f"{value * factor:.0f} {unit}" if unit != "GB" else f"{value * factor:.1f} GB"
