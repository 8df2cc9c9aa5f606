"""The monitor against a pretended NVML and AMD SMI: what it samples, what it concludes, what it writes and reads back."""

import inspect
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from types import SimpleNamespace

import pytest

from pretended_nvml import CHANGES, FakeNvml, NvmlError, counted
from roofline import Deployment, Hardware, InvalidValueError, UnknownNameError
from roofline.monitor import BottleneckMonitor, DeviceSample, Thresholds, classify_bottleneck, read_recording, serve_metrics, watching
from roofline.monitor.bottleneck import GPU_UTIL, judge
from roofline.monitor.recording import SCHEMA, line_of
from roofline.telemetry import gpm, nvidia, nvml_queries
from roofline.telemetry.samples import QUANTITIES
from shell import invoke


class Clock:
    """A clock that only moves when somebody sleeps."""

    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """The clock by which the monitor watches."""
    monkeypatch.setattr(watching, "time", Clock())
    return watching.time


@pytest.fixture
def use(monkeypatch, clock):
    """Pretend that this is pynvml, or amdsmi; without the other one, and with short windows."""
    monkeypatch.setattr(gpm, "_WINDOW_S", 0.001)

    def install(nvml=None, amdsmi=None):
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        monkeypatch.setitem(sys.modules, "amdsmi", amdsmi)
        return nvml or amdsmi

    return install


def sampled(devices="all", **options):
    with BottleneckMonitor(devices, **options) as monitor:
        return monitor.sample_metrics()


# ------------------------------------------------------------------------------------------------------------------- classes


@pytest.mark.parametrize(
    ("compute", "memory", "expected"),
    [
        (0.81, 0.49, "compute_bound"),
        (0.49, 0.81, "memory_bound"),
        (0.71, 0.71, "balanced"),
        (0.90, 0.60, "underutilized"),  # of neither rule: memory is no longer idle, and not in use either
        (0.10, 0.20, "underutilized"),
        (0.80, 0.49, "underutilized"),  # above means above
        (0.81, 0.50, "underutilized"),
        (0.70, 0.90, "underutilized"),
        (1.0, 1.0, "balanced"),
        (0, 0, "underutilized"),
    ],
)
def test_classes_are_those_of_the_usual_rule(compute, memory, expected):
    """Above 80 % with the other below 50 %, both above 70 %, else under-utilized."""
    assert classify_bottleneck(compute, memory) == expected


def test_thresholds_are_arguments():
    assert classify_bottleneck(0.65, 0.3) == "underutilized"
    assert classify_bottleneck(0.65, 0.3, Thresholds(high=0.6, low=0.4, both=0.5)) == "compute_bound"


def test_a_class_stays_until_its_threshold_is_passed_by_the_hysteresis():
    shares = [0.70, 0.82, 0.79, 0.76, 0.74, 0.79, 0.82]
    without = [classify_bottleneck(share, 0.3) for share in shares]
    seen = [None]
    for share in shares:
        seen.append(classify_bottleneck(share, 0.3, previous=seen[-1]))
    short = {"compute_bound": "C", "underutilized": "u"}
    assert "".join(short[name] for name in without) == "uCuuuuC"
    assert "".join(short[name] for name in seen[1:]) == "uCCCuuC"


def test_no_two_classes_hold_at_once_whatever_the_hysteresis():
    steps = [i / 100 for i in range(101)]
    for compute, memory in itertools.product(steps, steps):
        fresh = classify_bottleneck(compute, memory)
        for previous in ("compute_bound", "memory_bound", "balanced"):
            found = classify_bottleneck(compute, memory, previous=previous)
            assert found in (previous, fresh)
            if fresh != "underutilized":
                assert found == fresh


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"high": 80}, r"high is 80; it must be a share from 0 to 1, such as 0.8"),
        ({"low": -0.1}, "low is -0.1"),
        ({"low": 0.9}, "low is 0.9, both 0.7 and high 0.8; low must not be above both, nor both above high"),
        ({"hysteresis": 0.2}, "at most"),
        ({"both": float("nan")}, "both is nan"),
        ({"both": True}, "both is True"),
    ],
)
def test_thresholds_that_cannot_be(options, said):
    with pytest.raises(InvalidValueError, match=said):
        Thresholds(**options)


@pytest.mark.parametrize("share", [80, -0.1, float("nan"), "0.8", None])
def test_shares_that_cannot_be(share):
    with pytest.raises(InvalidValueError, match=r"compute is .*; it must be a share from 0 to 1"):
        classify_bottleneck(share, 0.5)


def test_words_that_are_no_thresholds_and_no_class():
    with pytest.raises(InvalidValueError, match=r"thresholds is 0.8; it must be Thresholds\("):
        classify_bottleneck(0.9, 0.1, 0.8)
    with pytest.raises(InvalidValueError, match="thresholds is"):
        BottleneckMonitor("cpu", thresholds={"high": 0.8})
    with pytest.raises(UnknownNameError, match="nearest: compute_bound"):
        classify_bottleneck(0.9, 0.1, previous="compute-bound")


# ------------------------------------------------------------------------------------------------------------------- NVIDIA


def test_a_gpu_shows_its_counters_in_si_units(use):
    use(FakeNvml(nvmlDeviceGetUtilizationRates=SimpleNamespace(gpu=100, memory=38)))
    sample = sampled()["gpu0"]
    assert (sample.device, sample.kind, sample.name) == ("gpu0", "nvidia", "NVIDIA H200")
    assert (sample.busy, sample.memory_busy) == (1.0, 0.38)
    assert (sample.tensor_active, sample.dram_active, sample.sm_active, sample.sm_occupancy) == (0.83, 0.41, 0.97, 0.24)
    assert (sample.power_w, sample.temperature_c, sample.clock_hz, sample.memory_clock_hz) == (512.345, 61, 1755e6, 3201e6)
    assert (sample.memory_used_bytes, sample.memory_total_bytes) == (1e9, 141e9)
    assert (sample.pcie_out_bytes_per_s, sample.pcie_in_bytes_per_s) == (3 * 2**20, 5 * 2**20)
    assert (sample.link_in_bytes_per_s, sample.link_out_bytes_per_s) == (7 * 2**20, 11 * 2**20)
    assert (sample.throttle_reasons, sample.missing) == ((), {})


def test_bandwidth_is_judged_by_what_the_machines_record_reaches(use):
    """A calibration of an H200 read its memory at 4.5 of 4.8 TB/s: 0.77 of the maximum is 0.82 of what can be had."""
    use(FakeNvml(nvmlGpmMetricsGet=lambda query: counted(query, tensor=6.0, memory=77.0)))
    with BottleneckMonitor() as monitor:
        verdict = monitor.classify_bottleneck()["gpu0"]
    assert verdict.bottleneck == "memory_bound"
    assert re.search(r"77% of the 9\d% that h200-sxm-torch-\S+ reaches", verdict.reason)
    use(FakeNvml(nvmlGpmMetricsGet=lambda query: counted(query, tensor=6.0, memory=77.0), nvmlDeviceGetName="A GPU of tomorrow"))
    with BottleneckMonitor() as monitor:
        verdict = monitor.classify_bottleneck()["gpu0"]
    assert (verdict.bottleneck, verdict.memory) == ("underutilized", 0.77)
    assert "77% of the theoretical maximum" in verdict.reason


@pytest.mark.parametrize("calibration", ["h100-sxm-torch-20261127-1126", "vllm", None])
def test_the_machine_that_is_named_says_what_is_reachable(use, calibration):
    """Its own record goes first; one that has not read the memory, as vLLM's, leaves it to the shipped ones."""
    use(FakeNvml(nvmlDeviceGetName="A GPU of tomorrow"))
    machine = Hardware.load("h100-sxm")
    with BottleneckMonitor(hardware=machine.calibrated(calibration) if calibration else "h100-sxm") as monitor:
        reason = monitor.classify_bottleneck()["gpu0"].reason
    assert "of the 91% that h100-sxm-torch-20261127-1126 reaches" in reason


FAILURES = ("Not Supported", "Insufficient Permissions", "Insufficient Resources")
ASKED = [
    "nvmlDeviceGetName",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetMigMode",
    "nvmlGpmQueryDeviceSupport",
    "nvmlGpmSampleAlloc",
    "nvmlGpmSampleGet",
    "nvmlGpmMetricsGet",
    "nvmlGpmSampleFree",
]


@pytest.mark.parametrize("query", ASKED)
@pytest.mark.parametrize("reason", [*FAILURES, None])
def test_a_query_that_fails_costs_only_its_own_answer_and_says_why(use, query, reason):
    use(FakeNvml())
    whole = sampled()["gpu0"]
    use(FakeNvml(absent=[query]) if reason is None else FakeNvml(**{query: NvmlError(reason)}))
    part = sampled()["gpu0"]
    lost = {name for name in (*QUANTITIES, "throttle_reasons") if getattr(part, name) != getattr(whole, name)}
    assert lost == set(part.missing)
    counters = {*gpm.SHARES, *gpm.RATES}
    assert lost <= counters if "Gpm" in query else len(lost) <= 2
    told = reason or "the library is older than the query"
    assert set(part.missing.values()) <= {told, nvidia._WITHOUT_GPM}
    assert lost or query in ("nvmlDeviceGetName", "nvmlDeviceGetMigMode", "nvmlGpmSampleFree")


def test_every_query_is_asked_and_none_changes_anything(use):
    fake = use(FakeNvml(nvmlDeviceGetMigMode=[1, 1], nvmlDeviceGetMaxMigDeviceCount=1, nvmlDeviceGetMigDeviceHandleByIndex="s"))
    sampled()
    assert set(ASKED) <= set(fake.calls)
    assert not [call for call in fake.calls if CHANGES.match(call)]
    pynvml = pytest.importorskip("pynvml")
    source = "".join(map(inspect.getsource, (gpm, nvidia, nvml_queries)))
    named = set(re.findall(r"(?:nvml[A-Z]|NVML_[A-Z]|c_nvml)\w+", source)) - {"NVML_CLOCKS_EVENT_REASONS", "nvmlReturn"}
    assert not [name for name in named if not hasattr(pynvml, name)]


def test_a_gpu_that_falls_off_the_bus_is_reported_and_the_others_go_on(use):
    fine, lost = counted, set()

    def ask(answer):
        def asked(device, *rest):
            if device in lost:
                raise NvmlError("GPU is lost")
            return answer(device, *rest) if callable(answer) else answer

        return asked

    fake = FakeNvml(nvmlDeviceGetCount=2)
    for name, answer in fake.answers.items():
        if re.match(r"nvmlDeviceGet(?!Count|Handle)|nvmlGpmSampleGet", name):
            fake.answers[name] = ask(answer)
    use(fake)
    with BottleneckMonitor() as monitor:
        assert not any(sample.silent for sample in monitor.sample_metrics().values())
        lost.add("device 1")
        fake.answers["nvmlGpmMetricsGet"] = fine
        samples = monitor.sample_metrics()
        assert samples["gpu1"].silent
        assert set(samples["gpu1"].missing.values()) == {"GPU is lost"}
        assert not samples["gpu0"].silent
        verdicts = monitor.classify_bottleneck()
        assert (verdicts["gpu1"].bottleneck, verdicts["gpu1"].reason) == ("unknown", "it does not answer: GPU is lost")
        assert verdicts["gpu0"].bottleneck == "compute_bound"


@pytest.mark.parametrize("reason", ["Insufficient Permissions", "GPU is lost"])
def test_a_gpu_that_cannot_be_opened_is_reported_beside_the_others(use, reason):
    def handle(index):
        if index == 0:
            raise NvmlError(reason)
        return f"device {index}"

    use(FakeNvml(nvmlDeviceGetCount=2, nvmlDeviceGetHandleByIndex=handle))
    samples = sampled()
    assert samples["gpu0"].silent
    assert samples["gpu0"].missing == {"device": reason}
    assert samples["gpu1"].busy == 0


def test_slices_of_a_gpu_are_counted_by_their_instance(use):
    def slice_at(device, index):
        if index == 1:
            raise NvmlError("Not Found")
        return f"slice {index}"

    def utilization(device):
        if device.startswith("slice"):
            raise NvmlError("Not Supported")  # as NVML answers for MIG devices
        return SimpleNamespace(gpu=0, memory=0)

    taken = []
    use(
        FakeNvml(
            nvmlDeviceGetMigMode=[1, 1],
            nvmlDeviceGetMaxMigDeviceCount=3,
            nvmlDeviceGetMigDeviceHandleByIndex=slice_at,
            nvmlDeviceGetGpuInstanceId=lambda handle: 10 + int(handle[-1]),
            nvmlDeviceGetUtilizationRates=utilization,
            nvmlGpmMigSampleGet=lambda device, instance, sample: taken.append((device, instance)),
        )
    )
    samples = sampled()
    assert list(samples) == ["gpu0", "gpu0/mig0", "gpu0/mig2"]
    assert set(taken) == {("device 0", 10), ("device 0", 12)}
    assert samples["gpu0/mig2"].tensor_active == 0.83
    assert samples["gpu0/mig2"].missing == {"busy": "Not Supported", "memory_busy": "Not Supported"}
    assert list(sampled("0/mig2")) == ["gpu0/mig2"]


def test_a_counter_of_nothing_and_one_that_fails_are_missing(use):
    def half(query):
        query = counted(query, memory=float("nan"))
        query.metrics[0].nvmlReturn = 3
        return query

    use(FakeNvml(nvmlGpmMetricsGet=half))
    sample = sampled()["gpu0"]
    assert (sample.tensor_active, sample.dram_active, sample.sm_active) == (None, None, 0.97)
    assert sample.missing == {"tensor_active": "3", "dram_active": "nothing was counted"}


def test_counters_are_read_through_the_structures_of_the_real_binding(use):
    pynvml = pytest.importorskip("pynvml")

    def one_fails(query):
        query = counted(query)
        query.metrics[1].nvmlReturn = pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES
        return query

    fake = FakeNvml(nvmlGpmSampleAlloc=pynvml.c_nvmlGpmSample_t, nvmlGpmMetricsGet=one_fails)
    fake.NVMLError, fake.c_nvmlGpmMetricsGet_t = pynvml.NVMLError, pynvml.c_nvmlGpmMetricsGet_t
    fake.answers["nvmlDeviceGetPowerUsage"] = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    fake.answers["nvmlDeviceGetMigMode"] = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    use(fake)
    sample = sampled()["gpu0"]
    assert (sample.tensor_active, sample.sm_active, sample.link_out_bytes_per_s) == (0.83, 0.97, 11 * 2**20)
    assert sample.missing["power_w"] == "GPU is lost"
    assert set(sample.missing) == {"power_w", "dram_active"}


# ------------------------------------------------------------------------------------------------------------ coarse counters


def coarse(busy, kind="nvidia"):
    return DeviceSample("gpu0", kind, "NVIDIA A100-SXM4-80GB", 0.0, busy=busy, memory_busy=0.3)


def test_gpu_util_alone_never_means_compute_bound():
    verdict = judge(coarse(1.0), Thresholds(), None)
    assert verdict.bottleneck == "unknown"
    assert verdict.compute is None
    assert GPU_UTIL in verdict.reason


def test_a_gpu_on_which_nothing_runs_is_underutilized_by_any_counter():
    verdict = judge(coarse(0.35), Thresholds(), None)
    assert verdict.bottleneck == "underutilized"
    assert "kernels ran in 35% of the time" in verdict.reason
    assert judge(coarse(0.72), Thresholds(), None).bottleneck == "unknown"
    assert judge(coarse(0.72), Thresholds(), None, verdict).bottleneck == "underutilized"  # hysteresis


def test_before_hopper_the_missing_counters_are_named(use):
    use(FakeNvml(nvmlGpmQueryDeviceSupport=SimpleNamespace(isSupportedDevice=0)))
    sample = sampled()["gpu0"]
    assert "Hopper" in sample.missing["tensor_active"]
    assert sample.busy == 0


# --------------------------------------------------------------------------------------------------------------- AMD, host


class FakeAmdSmi:
    """Answers as AMD SMI's Python API reference describes, or raises."""

    class AmdSmiException(Exception):
        pass

    AmdSmiTemperatureType = SimpleNamespace(HOTSPOT=1)
    AmdSmiTemperatureMetric = SimpleNamespace(CURRENT=0)
    AmdSmiClkType = SimpleNamespace(GFX=0, MEM=4)

    def __init__(self, **answers):
        self.answers = {
            "amdsmi_init": None,
            "amdsmi_shut_down": None,
            "amdsmi_get_processor_handles": ["a", "b"],
            "amdsmi_get_gpu_asic_info": {"market_name": "AMD Instinct MI300X"},
            "amdsmi_get_gpu_activity": {"gfx_activity": 98, "umc_activity": 41, "mm_activity": "N/A"},
            "amdsmi_get_gpu_vram_usage": {"vram_total": 196592, "vram_used": 1024},
            "amdsmi_get_power_info": {"current_socket_power": 612, "average_socket_power": "N/A"},
            "amdsmi_get_temp_metric": 71,
            "amdsmi_get_clock_info": lambda device, kind: {"clk": {0: 2100, 4: 1300}[kind], "min_clk": 500},
            **answers,
        }

    def __getattr__(self, name):
        if name not in self.answers:
            raise AttributeError(name)

        def call(*arguments):
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer(*arguments) if callable(answer) else answer

        return call


def test_amd_gpus_are_read_through_amd_smi(use):
    use(amdsmi=FakeAmdSmi())
    samples = sampled()
    assert list(samples) == ["gpu0", "gpu1"]
    sample = samples["gpu1"]
    assert (sample.kind, sample.name) == ("amd", "AMD Instinct MI300X")
    assert (sample.busy, sample.memory_busy) == (0.98, 0.41)
    assert (sample.power_w, sample.temperature_c, sample.clock_hz, sample.memory_clock_hz) == (612, 71, 2.1e9, 1.3e9)
    assert (sample.memory_used_bytes, sample.memory_total_bytes) == (2**30, 196592 * 2**20)
    assert sample.missing == {}


@pytest.mark.parametrize(
    ("query", "answer", "lost", "why"),
    [
        ("amdsmi_get_gpu_activity", {"gfx_activity": "N/A", "umc_activity": 0xFFFF}, {"busy", "memory_busy"}, "not told"),
        ("amdsmi_get_power_info", FakeAmdSmi.AmdSmiException("not supported"), {"power_w"}, "not supported"),
        ("amdsmi_get_power_info", lambda: None, {"power_w"}, "positional argument"),
        ("amdsmi_get_temp_metric", "N/A", {"temperature_c"}, "not told"),
    ],
)
def test_what_an_amd_gpu_does_not_tell_is_missing(use, query, answer, lost, why):
    use(amdsmi=FakeAmdSmi(**{query: answer}))
    sample = sampled()["gpu0"]
    assert set(sample.missing) == lost
    assert all(why in reason for reason in sample.missing.values())


def test_older_bindings_call_the_clock_otherwise(use):
    use(amdsmi=FakeAmdSmi(amdsmi_get_clock_info={"cur_clk": 1700}))
    assert sampled()["gpu0"].clock_hz == 1.7e9


def test_gpus_of_two_vendors_are_numbered_through(use):
    use(FakeNvml(), FakeAmdSmi())
    assert [sample.kind for sample in sampled().values()] == ["nvidia", "amd", "amd"]
    assert list(sampled(["2", "gpu0", "cpu"])) == ["gpu2", "gpu0", "cpu"]


def test_without_any_gpu_the_sentence_says_why_and_what_else_there_is(use):
    use()
    with pytest.raises(InvalidValueError, match=r"no GPU is seen here \(NVIDIA: .*not installed.*AMD: .*amdsmi.*devices='cpu'"):
        BottleneckMonitor()
    use(FakeNvml(nvmlInit=NvmlError("Driver Not Loaded")), FakeAmdSmi(amdsmi_init=FakeAmdSmi.AmdSmiException("no driver")))
    with pytest.raises(InvalidValueError, match=r"Driver Not Loaded.*no driver"):
        BottleneckMonitor("all")


def test_an_unknown_device_is_named_with_those_that_there_are(use):
    fake = use(FakeNvml(nvmlDeviceGetCount=2))
    with pytest.raises(UnknownNameError, match="unknown device '7'; there are gpu0, gpu1, and cpu"):
        BottleneckMonitor("7")
    assert fake.calls[-1] == "nvmlShutdown"
    with pytest.raises(InvalidValueError, match="devices is empty"):
        BottleneckMonitor([])
    with pytest.raises(UnknownNameError, match="unknown device 'None'"):
        BottleneckMonitor(None)
    assert list(sampled(1)) == list(sampled([1])) == list(sampled("cuda:1")) == ["gpu1"]


def test_a_library_that_lists_nothing_is_said(use):
    use(FakeNvml(nvmlDeviceGetCount=0), FakeAmdSmi(amdsmi_get_processor_handles=FakeAmdSmi.AmdSmiException("busy")))
    with pytest.raises(InvalidValueError, match=r"NVIDIA: NVML lists no device; AMD: AMD SMI does not list the devices \(busy\)"):
        BottleneckMonitor()
    use(FakeNvml(nvmlDeviceGetCount=NvmlError("Unknown Error")))
    with pytest.raises(InvalidValueError, match=r"NVML does not list the devices \(Unknown Error\)"):
        BottleneckMonitor()


def test_the_processors_of_the_host_are_a_device():
    sample = sampled("cpu")["cpu"]
    assert sample.kind == "cpu"
    assert 0 <= sample.busy <= 1
    assert 0 < sample.memory_used_bytes < sample.memory_total_bytes


@pytest.mark.parametrize(("interval_s", "seconds"), [(0.01, None), ("1", None), (float("inf"), None), (1, 0), (1, -1), (1, "2")])
def test_times_that_cannot_be(interval_s, seconds):
    with BottleneckMonitor("cpu") as monitor, pytest.raises(InvalidValueError, match=r"(interval_s|seconds) is"):
        monitor.watch(interval_s, seconds)


def test_watching_ends_after_its_time(use, clock):
    use(FakeNvml())
    with BottleneckMonitor() as monitor:
        assert [round(clock.now, 9) for _ in monitor.watch(0.2, 0.45)] == [0, 0.2, 0.4]


def test_what_took_too_long_is_left_out_and_not_caught_up_with(use, clock):
    seen = []

    def slow(device):
        seen.append(round(clock.now, 9))
        clock.sleep(2.5 if len(seen) == 2 else 0.0)
        return 512_345

    use(FakeNvml(nvmlDeviceGetPowerUsage=slow))
    with BottleneckMonitor() as monitor:
        list(monitor.watch(1.0, 6))
    assert seen == [0, 1, 4, 5, 6]  # the second ended at 3.5 s


# ------------------------------------------------------------------------------------------------------------------- advice


def test_usual_advice_is_that_of_the_concepts_page(repository):
    page = (repository / "docs" / "concepts.md").read_text(encoding="utf-8")
    rows = {cells[1].split(":")[0].strip(): cells for line in page.splitlines() if len(cells := line.split("|")) == 5}
    from roofline.monitor.advice import _USUAL

    for bottleneck, row in (("compute_bound", "compute"), ("memory_bound", "memory"), ("underutilized", "overhead")):
        helps, not_ = _USUAL[bottleneck]
        assert [text for text in helps if text not in rows[row][2]] == (["a larger batch"] if row == "overhead" else [])
        assert row == "overhead" or all(text in rows[row][3] for text in not_)


def test_without_a_model_the_usual_helps(use):
    use(FakeNvml(nvmlGpmMetricsGet=lambda query: counted(query, tensor=5.0, memory=90.0)))
    with BottleneckMonitor() as monitor:
        advice = monitor.recommend_optimization()["gpu0"]
    assert advice.bottleneck == "memory_bound"
    assert "batching" in advice.helps
    assert advice.does_not_help == ("more FLOP/s",)
    assert json.loads(advice.to_json())["helps"] == list(advice.helps)


def test_with_a_model_its_levers_are_evaluated(use):
    use(FakeNvml(nvmlGpmMetricsGet=lambda query: counted(query, tensor=5.0, memory=90.0)))
    deployment = Deployment("llama-3.1-8b", "h200-sxm")
    with BottleneckMonitor() as monitor:
        advice = monitor.recommend_optimization(deployment, batch=8, context=2048)["gpu0"]
        prefill = monitor.recommend_optimization(deployment, prompt=4096)["gpu0"]
    assert advice.found.base.bound == "memory"
    assert advice.helps[0].startswith(advice.found.best.name)
    assert "twice the FLOP/s" in advice.does_not_help
    assert advice.notes == ()
    assert "the counters say memory, the floor of this step is compute-bound" in prefill.notes[0]


def test_an_idle_device_is_to_be_kept_busy_first(use):
    use(FakeNvml(nvmlGpmMetricsGet=lambda query: counted(query, tensor=5.0, memory=20.0)))
    with BottleneckMonitor() as monitor:
        advice = monitor.recommend_optimization(Deployment("llama-3.1-8b", "h200-sxm"), batch=8, context=2048)["gpu0"]
    assert advice.helps[:3] == ("CUDA graphs", "fusion", "asynchronous scheduling")
    assert "the device waits" in advice.notes[0]


# ---------------------------------------------------------------------------------------------------------------- recordings


def recorded(path, monitor, times=3):
    with path.open("w", encoding="utf-8") as file:
        for _ in range(times):
            samples = monitor.sample_metrics()
            for device, sample in samples.items():
                file.write(line_of(sample, monitor.classify_bottleneck()[device]) + "\n")
                yield sample


def test_a_recording_is_read_back_as_it_was_taken(use, tmp_path):
    use(FakeNvml(nvmlDeviceGetCount=2, nvmlDeviceGetTemperature=NvmlError("Not Supported")))
    path = tmp_path / "run.jsonl"
    with BottleneckMonitor() as monitor:
        taken = tuple(recorded(path, monitor))
    found = read_recording(path)
    assert found.samples == taken
    assert [summary.device for summary in found.devices] == ["gpu0", "gpu1"]
    summary = found.devices[0]
    assert (summary.samples, summary.bottleneck, summary.unanswered) == (3, "compute_bound", 0)
    assert summary.means["power_w"] == pytest.approx(512.345)
    assert "temperature_c" not in summary.means
    assert summary.energy_j == pytest.approx(512.345 * summary.seconds)
    assert len(found.to_records()) == 6
    assert any(GPU_UTIL in note for note in found.notes)
    assert json.loads(found.to_json())["ops"][1]["device"] == "gpu1"


def test_the_line_that_a_killed_monitor_did_not_finish_is_left_out_and_said(use, tmp_path):
    use(FakeNvml())
    path = tmp_path / "run.jsonl"
    with BottleneckMonitor() as monitor:
        list(recorded(path, monitor))
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:-30], encoding="utf-8")
    found = read_recording(path)
    assert len(found.samples) == 2
    assert "cut off" in found.notes[0]


def at(*times):
    """Return the lines of a recording of one GPU that draws 700 W."""
    sample = {"schema": SCHEMA, "device": "gpu0", "kind": "nvidia", "busy": 1.0, "power_w": 700.0}
    return "".join(json.dumps(sample | ({} if time_s is None else {"time_s": time_s})) + "\n" for time_s in times)


@pytest.mark.parametrize(
    ("times", "seconds", "said"),
    [
        ((0, 1, 2, 86_400, 86_401, 86_402), 4, ["gpu0 was recorded with 1 pause; their time and energy are not counted"]),
        ((10, 11, 12, 13, 5, 6), 4, ["gpu0 was recorded with 1 pause; their time and energy are not counted", "times of gpu0 go back"]),
        ((0, 1, 3, 4), 4, []),  # one sample came late
    ],
)
def test_time_and_energy_are_not_counted_across_pauses_or_backwards(tmp_path, times, seconds, said):
    found = read_recording(write(tmp_path / "run.jsonl", at(*times)))
    assert found.values()["seconds"] == found.devices[0].seconds == seconds
    assert found.devices[0].energy_j == 700 * seconds
    assert len(found.notes) == len(said) + 1  # that busy is no efficiency
    assert all(any(sentence in note for note in found.notes) for sentence in said)


def test_a_single_sample_without_a_time_is_said_in_words(tmp_path):
    text = str(read_recording(write(tmp_path / "run.jsonl", at(None))))
    assert "1 sample of 1 device" in text
    assert "times not told" in text
    assert "nan" not in text


NVIDIA = """timestamp, index, name, utilization.gpu [%], utilization.memory [%], memory.used [MiB], power.draw [W], clocks.current.sm [MHz]
2026/09/11 04:19:41.500, 0, NVIDIA A100-SXM4-80GB, 100 %, 26 %, 2048 MiB, 300.00 W, 1410 MHz
2026/09/11 04:19:41.500, 1, NVIDIA A100-SXM4-80GB, 0 %, 0 %, 0 MiB, [N/A], 210 MHz
2026/09/11 04:19:42.500, 0, NVIDIA A100-SXM4-80GB, 50 %, 20 %, 2048 MiB, 100.00 W, [Not Supported]
2026/09/11 04:19:42.500, 1, NVIDIA A100-SXM4-80GB, 0 %, 0 %, 0 MiB, 60.00 W, 210 MHz
"""
"""The layout of nvidia-smi --query-gpu=… --format=csv; the values are made up."""


def write(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return path


def test_what_nvidia_smi_writes_is_read(tmp_path):
    found = read_recording(write(tmp_path / "gpu.csv", NVIDIA))
    first, other, later, _ = found.samples
    assert (first.device, first.busy, first.memory_busy, first.memory_used_bytes) == ("gpu0", 1.0, 0.26, 2**31)
    assert (first.power_w, first.clock_hz) == (300, 1.41e9)
    assert other.missing == {"power_w": "N/A"}
    assert later.missing == {"clock_hz": "Not Supported"}
    assert later.time_s - first.time_s == 1.0
    assert found.devices[0].energy_j == 200  # of 300 W falling to 100 W within a second
    assert found.devices[1].shares == {"underutilized": 1.0}
    assert any("without their zone" in note for note in found.notes)


@pytest.mark.parametrize(
    "how",
    ["nounits", "windows", "powershell", "message before", "other order", "restarted"],
)
def test_the_same_file_in_other_forms_says_the_same(tmp_path, how):
    text, encoding = NVIDIA, "utf-8"
    if how == "nounits":  # the header keeps the units
        header, _, body = text.partition("\n")
        text = header + "\n" + re.sub(r" (%|MiB|W|MHz)(?=,|\n)", "", body)
    elif how == "windows":
        text = text.replace("\n", "\r\n")
    elif how == "powershell":
        encoding = "utf-16"
    elif how == "message before":
        text = f"Warning: persistence mode is disabled\n{text}"
    elif how == "other order":
        text = "\n".join(", ".join(reversed(line.split(", "))) for line in text.splitlines())
    elif how == "restarted":
        lines = text.splitlines()
        text = "\n".join([*lines[:3], lines[0], *lines[3:]])
    expected = read_recording(write(tmp_path / "a.csv", NVIDIA))
    found = read_recording(write(tmp_path / "b.csv", text, encoding))
    assert found.samples == expected.samples


def test_a_message_among_the_rows_is_left_out_and_quoted(tmp_path):
    message = "Unable to determine the device handle for GPU0000:41:00.0: GPU is lost. Reboot the system to recover this GPU"
    found = read_recording(write(tmp_path / "gpu.csv", NVIDIA + message + "\n"))
    assert len(found.samples) == 4
    assert "Unable to determine the device handle" in found.notes[1]


def test_what_a_file_does_not_have_is_said(tmp_path):
    found = read_recording(write(tmp_path / "gpu.csv", "utilization.gpu [%], power.draw [W]\n100 %, 592.74 W\n90 %, 580 W\n"))
    assert (found.samples[0].busy, found.samples[0].time_s) == (1.0, None)
    assert found.devices[0].energy_j != found.devices[0].energy_j  # not a number
    assert [note for note in found.notes if "no timestamp" in note]
    assert [note for note in found.notes if "no column index" in note]
    assert json.loads(found.to_json())["seconds"] is None


AMD = """timestamp,gpu,gfx_activity,umc_activity,mm_activity,vcn_activity,socket_power,gfx_0_clk,mem_0_clk,edge,hotspot,mem
1789515524,0,95,80,N/A,"['N/A', 'N/A']",1180,2100,2000,N/A,78,60

1789515525,0,0,0,N/A,"[0, 0]",290,N/A,2000,39,N/A,24
"""
"""The layout of amd-smi metric --csv with a watch, quoted lists and blank lines included; the values are made up."""


def test_what_amd_smi_writes_is_read(tmp_path):
    found = read_recording(write(tmp_path / "gpu.csv", AMD))
    first, second = found.samples
    assert (first.kind, first.busy, first.memory_busy, first.power_w) == ("amd", 0.95, 0.8, 1180)
    assert (first.temperature_c, first.clock_hz, first.memory_clock_hz) == (78, 2.1e9, 2e9)
    assert second.missing == {"clock_hz": "N/A"}
    assert (found.source, found.devices[0].seconds) == ("amd-smi", 1)


def test_a_real_file_of_amd_smi_is_read(repository):
    """An excerpt of a published run, eight GPUs that wait: 114 columns, lists in quotes, a blank line between samples. Values as its rows have them."""
    found = read_recording(repository / "tests" / "data" / "results" / "amd_smi_metric.csv")
    assert [(s.device, s.time_s, s.power_w, s.temperature_c) for s in found.samples] == [
        ("gpu0", 1786553852, 238, 37),
        ("gpu1", 1786553852, 242, 41),
        ("gpu0", 1786553853, 239, 37),
        ("gpu1", 1786553853, 242, 41),
    ]
    first = found.samples[0]
    assert (first.busy, first.memory_busy, first.clock_hz, first.memory_clock_hz) == (0, 0, 95e6, 2e9)
    assert found.devices[0].energy_j == 238.5
    assert found.devices[0].shares == {"underutilized": 1.0}


def test_an_edge_temperature_counts_where_there_is_no_hotspot(tmp_path):
    text = "timestamp,gpu,gfx_activity,edge,hotspot\n1772939616,0,0,38,N/A\n1772939617,0,0,38,41\n"
    found = read_recording(write(tmp_path / "gpu.csv", text))
    assert [(s.temperature_c, s.missing) for s in found.samples] == [(38, {}), (41, {})]


def test_a_file_of_power_alone_is_read_and_says_that_no_use_is_told(tmp_path):
    text = "timestamp, power.draw [W]\n2024/10/30 18:42:33.189, 22.89 W\n2024/10/30 18:42:33.239, 22.73 W\n"
    found = read_recording(write(tmp_path / "gpu.csv", text))
    assert found.devices[0].energy_j == pytest.approx(0.05 * (22.89 + 22.73) / 2, rel=1e-4)  # seconds since 1970 are exact to some 0.2 µs
    assert found.verdicts[0].reason == "no counter of its use: not told"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "timestamp,gpu_index,temperature_C,utilization_gpu_percent,power_W\n2025-09-24T03:48:33.493Z,0, 38, 100, 387.26\n",
            "no recording that",
        ),
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("hello\n", "no recording that can be read"),
        ("2026/09/11 04:19:41.500, 100 %, 26 %\n", "not noheader"),
        ("# gpu   pwr  gtemp  mtemp    sm   mem\n    0   76   30    -     0     0\n", "no recording that can be read"),
        (NVIDIA.splitlines()[0], "no sample follows the header of nvidia-smi"),
        (NVIDIA.replace("100 %", "lots"), r"line 2: utilization.gpu is 'lots'"),
        (NVIDIA.replace("2026/09/11 04:19:41.500, 0", "yesterday, 0"), r"line 2: timestamp is 'yesterday'"),
        (NVIDIA.replace("[MiB]", "[furlong]").replace("2048 MiB", "2048"), "is in 'furlong'"),
        ("index, utilization.gpu [%], utilization.gpu [%]\n0, 1 %, 2 %\n", "'utilization.gpu' is there twice"),
        ('{"schema": "roofline monitor 1", "device": "gpu0"}\n', "line 1: kind is None"),
        ('{"schema": "roofline monitor 1", "device": "gpu0", "kind": "nvidia", "busy": "1"}\n', "line 1: busy is '1'"),
        (NVIDIA.replace("100 %", "250 %"), "line 2: utilization.gpu is '250 %', which it cannot be"),
        (NVIDIA.replace("300.00 W", "-300.00 W"), "line 2: power.draw is '-300.00 W'"),
        *(
            (f'{{"schema": "roofline monitor 1", "device": "gpu0", "kind": "nvidia", {field}}}\n', f"line 1: {field[1:5]}")
            for field in (
                '"busy": 100',
                '"busy": NaN',
                '"busy": true',
                '"power_w": -1',
                '"time_s": Infinity',
                '"name": 3',
                '"missing": 5',
                '"missing": {"busy": 1}',
                '"throttle_reasons": "none"',
            )
        ),
        ('["roofline monitor 1"]\n', "no recording that can be read"),
        ('{"duration": 3}\n', "line 1: no line of a recording"),
        ("{nonsense\n", "line 1: no JSON"),
    ],
)
def test_what_is_no_recording_is_refused_in_a_sentence(tmp_path, text, said):
    path = write(tmp_path / "file", text)
    with pytest.raises(InvalidValueError, match=said) as refused:
        read_recording(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(InvalidValueError, match="cannot be read: No such file"):
        read_recording(tmp_path / "absent")
    (tmp_path / "binary").write_bytes(b"\x80\x81\x82\x83")
    with pytest.raises(InvalidValueError, match="cannot be read: it is neither text"):
        read_recording(tmp_path / "binary")


# ---------------------------------------------------------------------------------------------------------------- Prometheus


def scraped(port):
    parser = pytest.importorskip("prometheus_client.parser")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        return {family.name: family for family in parser.text_string_to_metric_families(page.read().decode())}


def test_gauges_are_scraped_in_base_units(use):
    use(FakeNvml(nvmlDeviceGetCount=2, nvmlDeviceGetTemperature=NvmlError("Not Supported")))
    server = serve_metrics()
    try:
        with BottleneckMonitor() as monitor:
            server.show(monitor.sample_metrics(), monitor.classify_bottleneck())
        found = scraped(server.port)
    finally:
        server.close()
    assert all(name.startswith("roofline_device_") and family.type == "gauge" for name, family in found.items())
    assert not [name for name in found if ":" in name or name.endswith("_total")]
    power = found["roofline_device_power_watts"].samples
    assert [(s.labels, s.value) for s in power] == [
        ({"device": f"gpu{i}", "kind": "nvidia", "name": "NVIDIA H200"}, 512.345) for i in (0, 1)
    ]
    assert found["roofline_device_tensor_active_ratio"].samples[0].value == 0.83
    assert found["roofline_device_clock_hertz"].samples[0].value == 1755e6
    assert "roofline_device_temperature_celsius" not in found  # what is not told is absent, not 0
    bound = {s.labels["bottleneck"]: s.value for s in found["roofline_device_bottleneck"].samples if s.labels["device"] == "gpu0"}
    assert [name for name, value in bound.items() if value] == ["compute_bound"]
    assert len(bound) == 5
    assert "not an efficiency" in found["roofline_device_busy_ratio"].documentation


def test_a_device_that_is_lost_is_down_and_has_no_numbers():
    server = serve_metrics(0)
    try:
        sample = DeviceSample("gpu0", "nvidia", missing={"device": "GPU is lost"})
        server.show({"gpu0": sample}, {"gpu0": judge(sample, Thresholds(), None)})
        found = scraped(server.port)
    finally:
        server.close()
    assert found["roofline_device_up"].samples[0].value == 0
    assert set(found) == {"roofline_device_up", "roofline_device_bottleneck"}


@pytest.mark.parametrize("where", ["abc", "70000", "host:", "-1", ""])
def test_ports_that_cannot_be(where):
    with pytest.raises(InvalidValueError, match="is no port to serve metrics at"):
        serve_metrics(where)


def test_a_port_that_is_taken_is_said():
    server = serve_metrics()
    try:
        with pytest.raises(InvalidValueError, match=f"nothing can listen at 127.0.0.1:{server.port}"):
            serve_metrics(server.port)
    finally:
        server.close()
    assert not [t for t in threading.enumerate() if t.is_alive() and "serve_forever" in t.name]


# -------------------------------------------------------------------------------------------------------------- command line


def test_piped_output_is_a_line_for_each_sample_without_control_characters(use):
    use(FakeNvml(nvmlDeviceGetCount=2))
    done = invoke("monitor", "--seconds", 0.25, "--interval", 0.2)
    assert done.exit_code == 0
    samples, _, advice = done.stdout.partition("\n\n")
    lines = samples.splitlines()
    assert [line.split()[0] for line in lines] == ["gpu0", "gpu1"] * 2
    assert "tensor 83 %" in lines[0]
    assert "compute-bound: tensor cores active 83%" in lines[0]
    assert "gpu1 compute-bound" in advice
    assert "narrower products (fp8, int8)" in advice
    assert "\x1b" not in done.output
    assert done.stderr == f"roofline: {GPU_UTIL}; it is shown as busy.\n"


def test_json_lines_are_a_recording(use, tmp_path):
    use(FakeNvml())
    record = tmp_path / "run.jsonl"
    done = invoke("monitor", "--seconds", 0.25, "--interval", 0.2, "--json", "--record", record)
    assert done.exit_code == 0, done.output
    assert record.read_text(encoding="utf-8") == done.stdout
    assert len(read_recording(record).samples) == 2
    assert "2 samples of 1 device" in invoke("monitor", record).stdout
    assert json.loads(invoke("monitor", record, "--json").stdout)["samples"] == 2


def test_at_a_terminal_a_table_is_drawn_anew(use):
    pytest.importorskip("rich")
    use(FakeNvml())
    done = invoke("monitor", "--seconds", 0.25, "--interval", 0.2, columns=100)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("what binds") >= 2
    assert "compute-bound" in done.stdout
    assert GPU_UTIL in " ".join(done.stdout.split())


def test_without_rich_a_terminal_gets_lines(use, monkeypatch):
    use(FakeNvml())
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delitem(sys.modules, "roofline.cli.live_view", raising=False)
    done = invoke("monitor", "--seconds", 0.25, "--interval", 0.2, columns=100)
    assert done.exit_code == 0
    assert "without the package rich every sample is a line" in done.stderr
    assert "tensor 83 %" in done.stdout


def test_ctrl_c_ends_watching_cleanly(use, tmp_path):
    looks = itertools.count()

    def power(device):
        if next(looks) == 1:
            raise KeyboardInterrupt
        return 512_345

    fake = use(FakeNvml(nvmlDeviceGetPowerUsage=power))
    record = tmp_path / "run.jsonl"
    done = invoke("monitor", "--interval", 0.2, "--record", record)
    assert done.exit_code == 0
    assert fake.calls[-1] == "nvmlShutdown"
    assert fake.calls.count("nvmlGpmSampleFree") == fake.calls.count("nvmlGpmSampleAlloc") == 2
    assert len(read_recording(record).samples) == 1


def test_metrics_are_served_while_it_watches(use):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    seen = []

    def power(device):
        seen.append(scraped(port))
        return 512_345

    use(FakeNvml(nvmlDeviceGetPowerUsage=power))
    done = invoke("monitor", "--seconds", 0.25, "--interval", 0.2, "--prometheus", port)
    assert done.exit_code == 0, done.output
    assert f"serving metrics at port {port}" in done.stderr
    before, after = seen
    assert not before["roofline_device_up"].samples
    assert after["roofline_device_power_watts"].samples[0].value == 512.345
    with pytest.raises(OSError, match="refused"):
        scraped(port)


def test_levers_of_what_runs_are_told_at_the_end(use, tmp_path):
    use(FakeNvml(nvmlGpmMetricsGet=lambda query: counted(query, tensor=5.0, memory=90.0), nvmlDeviceGetCurrentClocksEventReasons=0x4))
    record, model = tmp_path / "run.jsonl", ["--model", "llama-3.1-8b", "--batch", 8, "--context", 2048]
    done = invoke("monitor", "--seconds", 0.1, "--record", record, *model, "--devices", "all,cpu")
    assert done.exit_code == 0, done.output
    assert "clocks lowered by SwPowerCap" in done.stdout
    assert re.search(r"gpu0 memory-bound: .*\n  helps: .*×\).*\n  does not help: .*twice the FLOP/s", done.stdout)
    assert done.stdout.count("helps:") == 1  # the host's processors are not what runs
    again = invoke("monitor", record, *model)
    assert "clocks lowered by SwPowerCap in 100% of the samples" in again.stdout
    assert "memory-bound: in 100% of 1 sample" in again.stdout
    data = json.loads(invoke("monitor", record, *model, "--json").stdout)
    assert data["advice"]["gpu0"]["levers"]["base_bound"] == "memory"


def test_a_device_of_no_known_name_needs_its_machine(use):
    use(FakeNvml(nvmlDeviceGetName="A GPU of tomorrow"))
    done = invoke("monitor", "--seconds", 0.1, "--model", "llama-3.1-8b")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--model needs --hardware" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--interval", "0.01"], "--interval is 0.01; it must be at least 0.2 s"),
        (["--interval", "soon"], "--interval is 'soon'"),
        (["--high", "80"], "--high is 80.0; it must be a share from 0 to 1, such as 0.8"),
        (["--devices", "7"], "unknown device '7'; there are gpu0, and cpu"),
        (["--prometheus", "99999"], "'99999' is no port to serve metrics at; it must be a number up to 65535"),
        (["--hardware", "h100-sx"], "h100-sxm"),
        (["--tp", "2"], "--tensor-parallel goes with --model"),
        (["--model", "llama-3.1-8b", "--json"], "--model goes with text"),
        (["--model", "llama-3.1-9b"], "llama-3.1-8b"),
        (["absent.jsonl"], "absent.jsonl' cannot be read: No such file"),
        (["absent.jsonl", "--record", "x"], "--record goes with watching"),
        (["absent.jsonl", "--devices", "cpu"], "--devices goes with watching"),
        (["absent.jsonl", "--seconds", "2"], "--seconds goes with watching"),
        (["absent.jsonl", "--interval", "2"], "--interval goes with watching"),
        (["--record", "/nowhere/x"], "--record '/nowhere/x' cannot be written: No such file or directory"),
        (["--record", "."], "--record '.' cannot be written: Is a directory"),
    ],
)
def test_wrong_words_are_answered_in_a_sentence(use, words, said):
    use(FakeNvml())
    done = invoke("monitor", *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_monitor_needs_neither_torch_nor_scipy_nor_rich():
    script = "import roofline.monitor, sys; print(*sorted({'torch', 'scipy', 'rich', 'prometheus_client', 'pynvml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "\n"
