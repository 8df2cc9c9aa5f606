"""Telemetry against a pretended NVML, whose every query can fail, and a pretended /proc."""

import inspect
import os
import re
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from pretended_nvml import CHANGES, UUID, FakeNvml, NvmlError, counted
from roofline.records import Flag
from roofline.telemetry import gpm, nvml, nvml_queries, open_telemeter, processors
from roofline.telemetry.processors import CpuTelemeter

SOURCE = "".join(map(inspect.getsource, (gpm, nvml, nvml_queries)))


@pytest.fixture
def use(monkeypatch):
    """Pretend that this is pynvml, and look ten times as often as usual."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvml, "_EVERY_S", nvml._EVERY_S / 10)
    monkeypatch.setattr(gpm, "_WINDOW_S", gpm._WINDOW_S / 10)

    def install(fake):
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install


QUERIES = sorted(name for name in FakeNvml().answers if not re.search(r"Init|Shutdown|GetHandle|GetCount", name))


def test_the_device_describes_itself(use):
    processes = [SimpleNamespace(pid=os.getpid(), usedGpuMemory=10**9), SimpleNamespace(pid=77, usedGpuMemory=10**8)]
    use(FakeNvml(nvmlDeviceGetComputeRunningProcesses=processes))
    telemeter = open_telemeter("cuda", 0, uuid=UUID)
    told = telemeter.properties
    assert telemeter.software == {"driver": "575.57.08", "driver CUDA": "12.9"}
    assert told["sm_clock_hz"] == 1755e6
    assert told["sm_clock_max_hz"] == 1980e6
    assert told["memory_clock_hz"] == 3201e6
    assert told["memory_bus_bits"] == 6144
    assert told["power_limit_w"] == 700
    assert (told["ecc"], told["mig"], told["persistence_mode"]) == (True, False, True)
    assert told["temperature_c"] == 61
    assert (told["memory_used_at_start_bytes"], told["memory_used_by_others_bytes"]) == (10**9, 10**8)
    assert telemeter.conditions == ()


def test_who_holds_the_memory_is_unknown_where_processes_bear_other_numbers(use):
    """As in a container: one of them is this process, which is no other."""
    use(FakeNvml(nvmlDeviceGetComputeRunningProcesses=[SimpleNamespace(pid=1234567, usedGpuMemory=10**8)]))
    assert open_telemeter("cuda").properties["memory_used_by_others_bytes"] is None


def test_a_slice_of_a_gpu_is_found_by_the_uuid_that_cuda_tells(use):
    def find(uuid):
        if uuid != "MIG-1111":
            raise NvmlError("Not Found")
        return "slice"

    fake = use(FakeNvml(nvmlDeviceGetHandleByUUID=find, nvmlDeviceGetMigMode=NvmlError("Invalid Argument"), nvmlDeviceIsMigDeviceHandle=1))
    telemeter = open_telemeter("cuda", uuid="1111")
    assert telemeter.conditions == ()
    assert telemeter.properties["mig"] is True
    with pytest.raises(NvmlError):
        nvml.find_device(fake, 0, "2222")


def test_the_uuid_is_told_only_as_a_hash(use):
    use(FakeNvml())
    first = open_telemeter("cuda").properties
    use(FakeNvml(nvmlDeviceGetUUID=UUID.replace("1111", "9999")))
    second = open_telemeter("cuda").properties
    assert UUID not in repr(first)
    assert UUID[4:12] not in repr(first)
    assert first["uuid_hash"] != second["uuid_hash"]


def test_clocks_and_power_are_seen_while_the_work_runs(use):
    power = iter([100_000, 600_000, 610_000, 620_000, *[600_000] * 100])
    use(FakeNvml(nvmlDeviceGetPowerUsage=lambda device: next(power)))
    result, reading = open_telemeter("cuda").watch(lambda: time.sleep(0.06) or "done")
    assert result == "done"
    assert reading.flags == ()
    seen = reading.telemetry
    assert (seen.sm_clock_hz, seen.memory_clock_hz, seen.temperature_c) == (1755e6, 3201e6, 61)
    assert 590 <= seen.power_w <= 620
    assert (seen.tensor_active, seen.dram_active) == (0.83, 0.41)


def test_work_shorter_than_the_first_look_is_looked_at_once(use, monkeypatch):
    monkeypatch.setattr(gpm, "_WINDOW_S", 3600.0)  # so that no pause of this machine is longer
    fake = use(FakeNvml())
    _, reading = open_telemeter("cuda").watch(lambda: None)
    assert reading.telemetry.sm_clock_hz == 1755e6
    assert reading.telemetry.tensor_active is None  # two samples need a window between them
    assert "nvmlGpmMetricsGet" not in fake.calls


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("how", ["not supported", "absent from the binding"])
def test_one_query_that_fails_costs_only_its_own_answer(use, query, how):
    whole = described(use(FakeNvml()))
    failing = use(FakeNvml(absent=[query]) if how != "not supported" else FakeNvml(**{query: NvmlError("Not Supported")}))
    part = described(failing)
    assert part.keys() <= whole.keys()
    lost = {name for name in whole if part.get(name) != whole[name]}
    assert len(lost) <= 4, f"{query} alone took {lost}"
    assert all(part.get(name) in (None, False) for name in lost)
    may_be_silent = {"nvmlGpmSampleFree", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetCurrentClocksEventReasons"}
    assert lost or query in may_be_silent


def described(fake):
    telemeter = open_telemeter("cuda")
    _, reading = telemeter.watch(lambda: time.sleep(0.04))
    return {**telemeter.properties, **telemeter.software, **{f"sample {k}": v for k, v in reading.telemetry.model_dump().items()}}


def test_drivers_before_535_name_the_reasons_otherwise(use):
    use(FakeNvml(absent=["nvmlDeviceGetCurrentClocksEventReasons"], nvmlDeviceGetCurrentClocksThrottleReasons=0x4))
    assert open_telemeter("cuda").watch(lambda: None)[1].flags == (Flag(code="throttled", detail="SwPowerCap"),)


@pytest.mark.parametrize(
    ("bits", "word"),
    [(0x4, "SwPowerCap"), (0x8, "HwSlowdown"), (0x20, "SwThermal"), (0x40, "HwThermal"), (0x80, "HwPowerBrake")],
)
def test_throttled_clocks_are_flagged(use, bits, word):
    use(FakeNvml(nvmlDeviceGetCurrentClocksEventReasons=bits | 0x1))
    reading = open_telemeter("cuda").watch(lambda: None)[1]
    assert len(reading.flags) == 1
    assert reading.flags[0].code == "throttled"
    assert reading.flags[0].detail.startswith(word)
    assert reading.telemetry.throttle_reasons[0].startswith(word)


def test_a_short_spell_of_throttling_is_seen(use):
    reasons = iter([0, 0, 0x40, *[0] * 100])
    use(FakeNvml(nvmlDeviceGetCurrentClocksEventReasons=lambda device: next(reasons)))
    assert open_telemeter("cuda").watch(lambda: time.sleep(0.05))[1].flags == (Flag(code="throttled", detail="HwThermalSlowdown"),)


@pytest.mark.parametrize("bits", [0x0, 0x1, 0x2])
def test_idle_and_chosen_clocks_are_no_throttling(use, bits):
    use(FakeNvml(nvmlDeviceGetCurrentClocksEventReasons=bits))
    assert open_telemeter("cuda").watch(lambda: None)[1].flags == ()


@pytest.mark.parametrize(("processes", "flags"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_other_compute_processes_are_flagged(use, processes, flags):
    # in a container this process bears another number than its own, so that it can only be counted
    use(FakeNvml(nvmlDeviceGetComputeRunningProcesses=[SimpleNamespace(pid=9000 + i, usedGpuMemory=None) for i in range(processes)]))
    found = open_telemeter("cuda").watch(lambda: None)[1].flags
    assert len(found) == flags
    assert all(str(flag).startswith(f"device shared: {processes - 1} other compute process") for flag in found)


def test_a_device_that_is_busy_before_the_start_is_a_condition(use):
    use(FakeNvml(nvmlDeviceGetUtilizationRates=SimpleNamespace(gpu=97, memory=3)))
    (condition,) = open_telemeter("cuda").conditions
    assert (condition.code, condition.recomputed) == ("device busy", False)
    assert "97 %" in condition.text


def test_a_counter_that_fails_by_itself_is_none(use):
    def half(query):
        query = counted(query)
        next(m for m in query.metrics if m.metricId == 5).nvmlReturn = 3
        return query

    use(FakeNvml(nvmlGpmMetricsGet=half))
    seen = open_telemeter("cuda").watch(lambda: time.sleep(0.04))[1].telemetry
    assert (seen.tensor_active, seen.dram_active) == (None, 0.41)


def test_a_counter_of_nothing_is_none(use):
    use(FakeNvml(nvmlGpmMetricsGet=lambda query: counted(query, tensor=float("nan"))))
    assert open_telemeter("cuda").watch(lambda: time.sleep(0.04))[1].telemetry.tensor_active is None


def test_without_the_package_there_is_no_telemetry(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    telemeter = open_telemeter("cuda")
    assert str(telemeter.conditions[0]).startswith("no telemetry: the package nvidia-ml-py is not installed")
    result, reading = telemeter.watch(lambda: 7)
    assert (result, reading.telemetry, reading.flags) == (7, None, ())


@pytest.mark.parametrize("query", ["nvmlInit", "nvmlDeviceGetHandleByIndex"])
def test_without_library_or_device_there_is_no_telemetry(use, query):
    fake = use(FakeNvml(**{query: NvmlError("Driver Not Loaded")}))
    telemeter = open_telemeter("cuda")
    assert telemeter.conditions[0].code == "no telemetry"
    assert "Driver Not Loaded" in telemeter.conditions[0].text
    assert ("nvmlShutdown" in fake.calls) == (query != "nvmlInit")


@pytest.mark.parametrize(
    ("index", "uuid", "visible", "device"),
    [
        (1, None, None, "device 1"),
        (0, None, "3,5", "device 3"),
        (1, None, "3, 5", "device 5"),
        (0, None, UUID, f"device {UUID}"),
        (0, UUID.removeprefix("GPU-"), "3", f"device {UUID}"),
        (0, "MIG-1", None, "device MIG-1"),
    ],
)
def test_the_device_is_the_one_that_torch_means(use, monkeypatch, index, uuid, visible, device):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert nvml.find_device(use(FakeNvml()), index, uuid) == device


def test_work_that_fails_leaves_no_thread_behind(use):
    use(FakeNvml())
    with pytest.raises(ZeroDivisionError):
        open_telemeter("cuda").watch(lambda: 1 / 0)
    assert not [t for t in threading.enumerate() if t.name == "roofline-telemetry"]


def test_nothing_of_the_device_is_ever_changed(use):
    fake = use(FakeNvml())
    telemeter = open_telemeter("cuda", uuid=UUID)
    telemeter.watch(lambda: time.sleep(0.04))
    telemeter.close()
    assert len(set(fake.calls)) > 20
    assert not [call for call in fake.calls if CHANGES.match(call)]
    named = set(re.findall(r"nvml[A-Z]\w+", SOURCE))
    assert named >= set(fake.calls) - {"nvmlInit"}
    assert not [name for name in named if CHANGES.match(name)]


def test_the_pattern_of_changes_knows_the_changing_calls_of_the_real_binding():
    pynvml = pytest.importorskip("pynvml")
    changes = {name for name in dir(pynvml) if name.startswith("nvml") and CHANGES.match(name)}
    assert {"nvmlDeviceSetPowerManagementLimit", "nvmlDeviceSetMigMode", "nvmlDeviceResetGpuLockedClocks"} <= changes
    assert not changes & set(FakeNvml().answers)


def test_every_query_is_one_of_the_real_binding():
    pynvml = pytest.importorskip("pynvml")
    named = set(re.findall(r"(?:nvml[A-Z]|NVML_[A-Z]|c_nvml)\w+", SOURCE)) - {"NVML_CLOCKS_EVENT_REASONS", "nvmlReturn"}
    assert not [name for name in named if not hasattr(pynvml, name)]


STAT = "cpu  {user} 0 {system} {idle} 0 0 0 {steal} 0 0\ncpu0 1 2 3\n"


@pytest.fixture
def proc(monkeypatch):
    """Pretend what /proc holds; a list is read from the front."""

    def install(**files):
        def read(name):
            text = files.get(name, "")
            return text.pop(0) if isinstance(text, list) else text

        monkeypatch.setattr(processors, "_read", read)

    return install


def ticks(user=0, system=0, idle=0, steal=0):
    return STAT.format(user=user, system=system, idle=idle, steal=steal)


def test_who_else_uses_the_processors_is_flagged(proc):
    proc(stat=[ticks(), ticks(user=300, idle=700)])
    reading = CpuTelemeter().watch(lambda: time.sleep(0.25))[1]
    assert reading.flags == (Flag(code="cpu shared", detail="others used 30% of it"),)
    assert reading.telemetry is None


def test_own_work_is_nobody_elses(proc):
    def work():
        ends = time.process_time() + 0.25
        while time.process_time() < ends:
            pass

    proc(stat=[ticks(), ticks(user=26, idle=26)])
    assert CpuTelemeter().watch(work)[1].flags == ()


def test_time_given_to_other_guests_is_flagged(proc):
    proc(stat=[ticks(), ticks(idle=900, steal=100)])
    assert CpuTelemeter().watch(lambda: time.sleep(0.25))[1].flags == (
        Flag(code="cpu shared", detail="10% of it was given to other guests"),
    )


@pytest.mark.parametrize("stat", ["", "cpu 1 2 3\n", "intr 0 0 0 0 0 0 0 0 0\n"])
def test_where_proc_says_nothing_nothing_is_flagged(proc, stat):
    proc(stat=stat, cpuinfo="")
    telemeter = CpuTelemeter()
    assert telemeter.watch(lambda: time.sleep(0.25))[1].flags == ()
    assert telemeter.properties["cpu_model"] is None
    assert telemeter.properties["cpu_clock_hz"] is None


def test_model_and_clock_are_read(proc):
    proc(
        cpuinfo="processor : 0\nmodel name\t: Some CPU\ncpu MHz\t\t: 2000.5\n\nprocessor : 1\nmodel name\t: Some CPU\ncpu MHz\t\t: 3000.5\n"
    )
    assert CpuTelemeter().properties["cpu_model"] == "Some CPU"
    assert CpuTelemeter().properties["cpu_clock_hz"] == 2500.5e6


@pytest.mark.parametrize(("load", "told"), [(0.0, False), (3.5, True), (None, False)])
def test_a_busy_host_is_a_condition(monkeypatch, load, told):
    monkeypatch.setattr(processors, "_load", lambda: load)
    monkeypatch.setattr(processors.os, "cpu_count", lambda: 4)
    conditions = CpuTelemeter().conditions
    assert bool(conditions) == told
    assert not told or "load 3.50 on 4 cores" in conditions[0].text


def test_telemetry_needs_neither_torch_nor_scipy():
    script = "import roofline.telemetry, sys; print(*sorted({'torch', 'scipy', 'pynvml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "\n"
