"""Samples as a page for Prometheus: gauges in base units, one time series per device."""

from collections.abc import Iterable, Iterator, Mapping
from threading import Lock
from typing import Any

from roofline.calls import checks_call
from roofline.errors import InvalidValueError, MissingDependencyError, install, quoted
from roofline.monitor.bottleneck import CLASSES, GPU_UTIL, Verdict
from roofline.telemetry.samples import DeviceSample

_GAUGES = {
    "busy": ("roofline_device_busy_ratio", f"Share of the time in which anything ran at all. {GPU_UTIL}."),
    "memory_busy": ("roofline_device_memory_busy_ratio", "Share of the time in which memory was used at all; not a bandwidth."),
    "sm_active": ("roofline_device_multiprocessors_active_ratio", "Mean share of the multiprocessors that had work."),
    "sm_occupancy": ("roofline_device_occupancy_ratio", "Warps that were resident, of those that the multiprocessors could hold."),
    "tensor_active": ("roofline_device_tensor_active_ratio", "Share of the time in which tensor cores worked; a time, not a rate."),
    "dram_active": ("roofline_device_dram_active_ratio", "Bandwidth of the memory over its theoretical maximum."),
    "memory_used_bytes": ("roofline_device_memory_used_bytes", "Memory in use."),
    "memory_total_bytes": ("roofline_device_memory_total_bytes", "Memory of the device."),
    "power_w": ("roofline_device_power_watts", "Power drawn."),
    "temperature_c": ("roofline_device_temperature_celsius", "Temperature."),
    "clock_hz": ("roofline_device_clock_hertz", "Clock of what computes."),
    "memory_clock_hz": ("roofline_device_memory_clock_hertz", "Clock of the memory."),
    "pcie_in_bytes_per_s": ("roofline_device_pcie_in_bytes_per_second", "From the host over PCIe."),
    "pcie_out_bytes_per_s": ("roofline_device_pcie_out_bytes_per_second", "To the host over PCIe."),
    "link_in_bytes_per_s": ("roofline_device_link_in_bytes_per_second", "From other devices over NVLink."),
    "link_out_bytes_per_s": ("roofline_device_link_out_bytes_per_second", "To other devices over NVLink."),
}


class MetricsServer:
    """Serves the last samples to whoever scrapes them, at a port of this machine.

    Parameters
    ----------
    address : str
        Where it listens [-].
    port : int
        The port; a free one is chosen for 0 [-].

    Raises
    ------
    InvalidValueError
        If nothing can listen there.
    MissingDependencyError
        If prometheus-client is not installed.
    """

    def __init__(self, address: str, port: int) -> None:
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ImportError:
            raise MissingDependencyError(f"a page for Prometheus needs prometheus-client: {install('monitor')}.") from None
        self._last: tuple[Mapping[str, DeviceSample], Mapping[str, Verdict]] = ({}, {})
        self._lock = Lock()
        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(port, address, registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidValueError(f"nothing can listen at {address}:{port}: {reason}.") from None
        self.port = int(self._server.server_port)

    def show(self, samples: Mapping[str, DeviceSample], verdicts: Mapping[str, Verdict]) -> None:
        """Take new samples for the next scrape.

        Parameters
        ----------
        samples, verdicts : mapping
            By device, as :class:`BottleneckMonitor` gives them [-].
        """
        with self._lock:
            self._last = (samples, verdicts)

    def collect(self) -> Iterable[Any]:
        """Return the gauges, for prometheus-client.

        Returns
        -------
        iterable
            Families of metrics [SI].
        """
        with self._lock:
            samples, verdicts = self._last
        return list(_families(samples, verdicts))

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _families(samples: Mapping[str, DeviceSample], verdicts: Mapping[str, Verdict]) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily

    labels = {device: [device, sample.kind, sample.name or ""] for device, sample in samples.items()}
    up = GaugeMetricFamily("roofline_device_up", "Whether the device answers.", labels=["device", "kind", "name"])
    for device, sample in samples.items():
        up.add_metric(labels[device], 0.0 if sample.silent else 1.0)
    yield up
    for quantity, (name, text) in _GAUGES.items():
        family = GaugeMetricFamily(name, text, labels=["device", "kind", "name"])
        for device, sample in samples.items():
            value = getattr(sample, quantity)
            if value is not None:  # what is not told is absent, not 0
                family.add_metric(labels[device], value)
        if family.samples:
            yield family
    bound = GaugeMetricFamily("roofline_device_bottleneck", "1 for what binds the device, 0 for the rest.", labels=["device", "bottleneck"])
    for device, verdict in verdicts.items():
        for name in CLASSES:
            bound.add_metric([device, name], float(name == verdict.bottleneck))
    yield bound


@checks_call
def serve_metrics(where: str | int = "127.0.0.1:0") -> MetricsServer:
    """Start a page for Prometheus, of gauges named ``roofline_device_…``.

    Parameters
    ----------
    where : str or int, optional
        A port, or an address and a port such as ``"0.0.0.0:9500"``; without an address only this machine can scrape it [-].

    Returns
    -------
    MetricsServer
        Whose ``show`` takes the samples, and whose ``close`` ends it [-].

    Raises
    ------
    InvalidValueError
        If that is no port, or nothing can listen there.
    MissingDependencyError
        If prometheus-client is not installed.
    """
    address, _, port = str(where).rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        known = "a number up to 65535, or an address and a port such as 0.0.0.0:9500"
        raise InvalidValueError(f"{quoted(where)} is no port to serve metrics at; it must be {known}.")
    return MetricsServer(address.strip("[]") or "127.0.0.1", int(port))
