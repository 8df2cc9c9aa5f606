"""`BottleneckMonitor`: the devices of this machine, sampled and classified."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from roofline.calls import checks_methods
from roofline.deployment import Deployment
from roofline.errors import InvalidValueError, UnknownNameError, quoted
from roofline.hardware import Hardware
from roofline.monitor.advice import Recommendation, recommend
from roofline.monitor.bottleneck import Thresholds, Verdict, check_thresholds, judge
from roofline.monitor.reachable import Reachable, reachable_bandwidth
from roofline.telemetry.opening import find_samplers
from roofline.telemetry.processors import CpuSampler
from roofline.telemetry.samples import DeviceSample, Sampler, is_number

SHORTEST_S = 0.2
"""Least time between two samples: NVML's counters need more than 0.1 s, /proc counts hundredths [s]."""


@checks_methods
class BottleneckMonitor:
    """Watches devices through their vendor's library, and says what binds each. It only reads: nothing of a device or its programs is changed.

    Parameters
    ----------
    devices : str, int, or iterable of them, optional
        ``"all"`` GPUs, ``"cpu"`` for the host's processors, or numbers or names as :attr:`devices` has them: ``"0"``, ``"gpu0"``,
        ``"gpu0/mig1"``. Numbers are NVML's, as in nvidia-smi, not those of CUDA_VISIBLE_DEVICES [-].
    thresholds : Thresholds, optional
        Where classes begin [-].
    hardware : Hardware or str, optional
        The machine whose records say what bandwidth is reachable; by default the one with the device's name, where there is one [-].

    Raises
    ------
    InvalidValueError
        If there is no GPU; the sentence says why none is seen.
    UnknownNameError
        If there is no such device or machine.

    Examples
    --------
    >>> with BottleneckMonitor("cpu") as monitor:
    ...     sample = monitor.sample_metrics()["cpu"]
    >>> sample.kind, sample.tensor_active
    ('cpu', None)
    """

    def __init__(
        self,
        devices: str | int | Iterable[str | int] = "all",
        *,
        thresholds: Thresholds | None = None,
        hardware: Hardware | str | None = None,
    ) -> None:
        machine = None if hardware is None else Hardware.load(hardware)
        self._thresholds = check_thresholds(thresholds)
        self._samplers, self._close = _choose(devices)
        known = {s.device: machine or s.name for s in self._samplers if s.device != "cpu"}
        found = {name: reachable_bandwidth(name) for name in set(known.values())}
        self._reachable: dict[str, Reachable | None] = {device: found[name] for device, name in known.items()}
        self._verdicts: dict[str, Verdict] = {}

    @property
    def devices(self) -> Mapping[str, str | None]:
        """What each device calls itself, by its name here [-]."""
        return {sampler.device: sampler.name for sampler in self._samplers}

    def sample_metrics(self) -> Mapping[str, DeviceSample]:
        """Read every device once. Counters are of the time since the sample before; the first call waits until there is such a time.

        Returns
        -------
        mapping of str to DeviceSample
            By device; one that does not answer has a sample of which every quantity is None, with the reason [-].
        """
        samples = {sampler.device: sampler.sample() for sampler in self._samplers}
        for device, sample in samples.items():
            self._verdicts[device] = judge(sample, self._thresholds, self._reachable.get(device), self._verdicts.get(device))
        return samples

    def classify_bottleneck(self) -> Mapping[str, Verdict]:
        """Return what binds each device, by the last sample and, for the hysteresis, those before; takes one if there is none.

        Returns
        -------
        mapping of str to Verdict
            By device [-].
        """
        if not self._verdicts:
            self.sample_metrics()
        return dict(self._verdicts)

    def recommend_optimization(
        self, deployment: Deployment | None = None, *, batch: int = 1, context: int = 0, prompt: int | None = None
    ) -> Mapping[str, Recommendation]:
        """Return what would help each device.

        Parameters
        ----------
        deployment : Deployment, optional
            What runs on it: then the levers of its step are evaluated; without it they are those that usually help against what binds [-].
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
        found = self.classify_bottleneck().items()
        return {device: recommend(verdict, deployment, batch=batch, context=context, prompt=prompt) for device, verdict in found}

    def watch(self, interval_s: float = 1.0, seconds: float | None = None) -> Iterator[Mapping[str, DeviceSample]]:
        """Sample every device again and again.

        Parameters
        ----------
        interval_s : float, optional
            From one sample to the next; at least 0.2 [s].
        seconds : float, optional
            For how long; for ever if not given [s].

        Yields
        ------
        mapping of str to DeviceSample
            As :meth:`sample_metrics` [-].

        Raises
        ------
        InvalidValueError
            If the interval is too short, or the time is not positive.
        """
        check_times(interval_s, seconds)
        return self._watch(interval_s, seconds)

    def _watch(self, interval_s: float, seconds: float | None) -> Iterator[Mapping[str, DeviceSample]]:
        begun = time.monotonic()
        taken = 0
        while True:
            yield self.sample_metrics()
            taken = max(taken + 1, math.ceil((time.monotonic() - begun) / interval_s))  # what took too long is left out, not caught up with
            due = begun + taken * interval_s
            if seconds is not None and due > begun + seconds:
                return
            time.sleep(max(due - time.monotonic(), 0.0))

    def close(self) -> None:
        """Stop reading."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def check_times(interval_s: Any, seconds: Any) -> None:
    """Raise if samples are to be taken too often, or for no time."""
    if not is_number(interval_s) or interval_s < SHORTEST_S:
        raise InvalidValueError(f"interval_s is {quoted(interval_s)}; it must be at least {SHORTEST_S:g} s, as counters need that long.")
    if seconds is not None and not (is_number(seconds) and seconds > 0):
        raise InvalidValueError(f"seconds is {quoted(seconds)}; it must be a positive number of seconds.")


def _choose(devices: str | int | Iterable[str | int]) -> tuple[Sequence[Sampler], Callable[[], None]]:
    """Return the samplers of devices, and what closes them."""
    alone = isinstance(devices, (str, int))
    names = [str(name) for name in ([devices] if alone or not isinstance(devices, Iterable) else devices)]
    if not names:
        raise InvalidValueError("devices is empty; name some, or 'all'.")
    chosen: list[Sampler] = [CpuSampler()] if "cpu" in names else []
    asked = [name for name in dict.fromkeys(names) if name != "cpu"]
    if not asked:
        return chosen, lambda: None
    found, reasons, close = find_samplers()
    try:
        return [*_named(asked, found, reasons), *chosen], close
    except (InvalidValueError, UnknownNameError):
        close()
        raise


def _named(asked: Sequence[str], found: Sequence[Sampler], reasons: Mapping[str, str]) -> Sequence[Sampler]:
    if not found:
        why = "; ".join(f"{vendor}: {reason}" for vendor, reason in reasons.items()) or "the drivers list no device"
        raise InvalidValueError(f"no GPU is seen here ({why}); devices='cpu' watches the host's processors.")
    if "all" in asked:
        return found
    by_name = {sampler.device: sampler for sampler in found}
    wanted = [f"gpu{name}" if name[:1].isdigit() else name.replace("cuda:", "gpu") for name in asked]
    for name, word in zip(wanted, asked, strict=True):
        if name not in by_name:
            raise UnknownNameError(f"unknown device {quoted(word)}; there are {', '.join(by_name)}, and cpu.")
    return [by_name[name] for name in wanted]
