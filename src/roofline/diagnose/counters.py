"""Diagnoses of counters alone: a recording of a monitor, a page of dcgm-exporter, what a profiler says of kernels."""

from collections.abc import Mapping, Sequence
from typing import Any

from roofline.deployment import Deployment
from roofline.diagnose.misdiagnoses import of_counters as checks_of_counters
from roofline.diagnose.misdiagnoses import of_devices
from roofline.diagnose.result import Diagnosis
from roofline.diagnose.seen import of_counters, processors_of
from roofline.monitor import DeviceSample, Recording, classify_bottleneck
from roofline.profile import KernelReport, ReportedKernel
from roofline.units import show_time

_UNTOLD = ("measured times beside floor and estimate: counters have none; give them beside a benchmark (monitor=)",)
_COARSE = "arithmetic or memory: the counters say only whether a kernel ran; tensor and memory activity would tell (GPM on Hopper and later, DCGM_FI_PROF_*)"

_KERNELS = 8  # of a report, in the text


def diagnose_recording(recording: Recording, deployment: Deployment | None, step: Mapping[str, Any]) -> Diagnosis:
    """Diagnose a recording: what bound each device, and what would help it."""
    advice = recording.recommend_optimization(deployment, **{name: int(value) for name, value in step.items()})
    findings = [line.strip() for line in recording.summary()[1:] if not line.lstrip().startswith("note:")]
    for device, told in advice.items():
        findings.append(f"{device} is {told.bottleneck.replace('_', '-')} {told.reason}")
        findings += [f"{device}: helps: {'; '.join(told.helps)}"] if told.helps else []
        findings += [f"{device}: does not help: {'; '.join(told.does_not_help)}"] if told.does_not_help else []
    hosts = processors_of(recording)
    coarse = any(device.means.get("tensor_active") is None for device in recording.devices if device.device not in hosts)
    notes = dict.fromkeys((*recording.notes, *(note for told in advice.values() for note in told.notes)))
    unknown = (*_UNTOLD, *((_COARSE,) if coarse else ()))
    return Diagnosis(
        "recording", recording.summary()[0], (), of_devices(recording), tuple(findings), unknown, recording, notes=tuple(notes)
    )


def diagnose_report(report: KernelReport) -> Diagnosis:
    """Diagnose what a vendor's profiler says of single kernels."""
    kernels = sorted(report.kernels, key=lambda kernel: -(kernel.time_s or 0.0))
    findings = [text for kernel in kernels[:_KERNELS] if (text := _of_kernel(kernel, report.time_s))]
    if len(report.kernels) > 1 and report.time_s:
        findings.insert(
            0, f"kernels by name: {', '.join(f'{kind} {seconds / report.time_s:.0%}' for kind, seconds in report.by_class().items())}"
        )
    unknown = ["phases, and the time between kernels: the report has kernels alone"]
    if all(kernel.of_bandwidth is None and kernel.of_memory is None for kernel in kernels):
        unknown.append("what binds kernels: the report has times, and neither bytes nor FLOP")
    return Diagnosis("report", report.summary()[0], (), (), tuple(findings), tuple(unknown), report, notes=report.notes)


def _of_kernel(kernel: ReportedKernel, whole_s: float | None) -> str:
    words = [] if kernel.time_s is None else [show_time(kernel.time_s)]
    if kernel.time_s is not None and whole_s and kernel.time_s < whole_s:
        words.append(f"{kernel.time_s / whole_s:.0%} of the time")
    memory = kernel.of_bandwidth if kernel.of_bandwidth is not None else kernel.of_memory
    if memory is not None:
        words.append(f"{memory:.0%} of the {'bandwidth' if kernel.of_bandwidth is not None else 'memory system'}")
    if kernel.of_compute is not None:
        words.append(f"busiest unit of the multiprocessors {kernel.of_compute:.0%}")
    if memory is not None and kernel.of_compute is not None:
        words.append(classify_bottleneck(min(kernel.of_compute, 1.0), min(memory, 1.0)).replace("_", "-"))
    return f"{kernel.name[:60]} ({kernel.kind}): {', '.join(words) or 'nothing but its name'}"


def diagnose_counters(devices: Sequence[DeviceSample]) -> Diagnosis:
    """Diagnose one page of dcgm-exporter."""
    findings = [_of_device(device) for device in devices]
    coarse = any(device.tensor_active is None or device.dram_active is None for device in devices)
    subject = f"dcgm-exporter: {len(devices)} device{'s' * (len(devices) > 1)} at one moment"
    unknown = (*_UNTOLD, "prefill and decode apart: a page is one moment", *((_COARSE,) if coarse else ()))
    return Diagnosis("devices", subject, (), checks_of_counters(of_counters(devices)), tuple(findings), unknown, None)


def _of_device(device: DeviceSample) -> str:
    names = {"busy": "a kernel runs", "tensor_active": "tensor cores active", "dram_active": "memory active"}
    shares = [f"{what} {share:.0%}" for name, what in names.items() if (share := getattr(device, name)) is not None]
    head = f"{device.device}{f' ({device.name})' if device.name else ''}: {', '.join(shares) or 'no shares of use'}"
    if device.tensor_active is None or device.dram_active is None:
        return head
    return f"{head}: {classify_bottleneck(device.tensor_active, device.dram_active).replace('_', '-')}"
