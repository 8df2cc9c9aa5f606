"""A session against pretended kernels: what it keeps, what it refuses, and that it goes on where it stopped."""

import errno
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roofline import CalibrationError, Hardware, InvalidValueError, UnknownNameError, decode_estimate
from roofline.calibration import classes, plan, session, starting
from roofline.calibration import measure as measuring
from roofline.calibration.classes import Sample, fit_classes, group_samples, list_samples, measured_rates, overheads
from roofline.calibration.collectives import SIZES, measure_all_reduce
from roofline.calibration.conditions import list_contradictions
from roofline.calibration.devices import Device, open_device
from roofline.calibration.measure import DeviceLost, Measurement, OutOfMemory
from roofline.calibration.plan import Point
from roofline.calibration.provenance import recognize
from roofline.calibration.reading import Reading, SilentTelemeter
from roofline.calibration.session import CalibrationSession
from roofline.calibration.starting import calibrate
from roofline.errors import MissingDependencyError
from roofline.kernels import FAMILIES
from roofline.records import PERCENTILES, Rates, Telemetry, load_record
from roofline.units import show_rate

PEAK, BANDWIDTH = 4e11, 2e10
MADE = {"compute_share": 0.8, "bandwidth_share": 0.7, "fixed_s": 5e-6}
DEVICE = Device(
    "cpu", "Pretended CPU", 0, {"torch": "2.9.0", "python": "3.12", "threads": 2, "cores": 2}, ("fp32",), ("fp32",), 2**20, 2**33
)
SHAPES = [(m, n, k) for n, k in ((256, 512), (1024, 1024), (4096, 2048)) for m in (1, 16, 256, 2048)]
POINTS = tuple(Point("matmul", "fp32", "fp32", {"m": m, "n": n, "k": k}) for m, n, k in SHAPES)
OTHERS = (
    Point("launch", "fp32", "fp32", {"elements": 1}),
    Point("read", "fp32", "fp32", {"bytes": 2**26}),
    Point("read", "fp32", "fp32", {"bytes": 2**18}),
)


def made(point):
    """Seconds by the very form that is fitted, with constants of our own."""
    if point.family == "launch":
        return 3e-6
    if point.family == "read":
        return point.sizes["bytes"] / (BANDWIDTH if point.sizes["bytes"] > 2**20 else 50 * BANDWIDTH)
    family = FAMILIES["matmul"]
    x = family.features(classes.kernel_op(point.family, point.stored, point.operand, point.sizes))
    constants = {c.name: c.start for c in family.constants} | MADE
    return float(family.seconds(x, constants, peak_flops_per_s=PEAK, bandwidth=BANDWIDTH))


class Measure:
    """Stands in for measuring: knows what each point takes, and what goes wrong."""

    def __init__(self, wrong=None):
        self.done, self.budgets, self.wrong = [], [], wrong or {}

    def __call__(self, point, device, *, budget_s):
        self.budgets.append(budget_s)
        what = self.wrong.get(len(self.done), 0)
        self.done.append(point.key)
        if isinstance(what, BaseException):
            raise what
        seconds = made(point)
        moved = float(point.sizes.get("bytes", 0))
        fine = Measurement(seconds, seconds * 0.95, seconds * 1.1, 5, moved, 1.0, 0.0)
        return replace(fine, **what) if what else fine


@pytest.fixture(autouse=True)
def remember_fits(monkeypatch):
    """Fit the same samples once for all tests."""
    real = classes.fitted_fields

    def remembered(family, features, seconds, **rates):
        key = (family.name, seconds.tobytes(), *(c.tobytes() for c in features.values()), *rates.values())
        if key not in FITS:
            FITS[key] = real(family, features, seconds, **rates)
        return dict(FITS[key])

    monkeypatch.setattr(classes, "fitted_fields", remembered)


FITS = {}


@pytest.fixture
def output(tmp_path):
    return tmp_path / "record.json"


def start(output, points=POINTS, *, measure=None, telemeter=None, **options):
    options = {"plan": "quick", "device": DEVICE, **options}
    device = options.pop("device")
    return CalibrationSession(device, points, telemeter or SilentTelemeter("pretended"), output, measure=measure or Measure(), **options)


# --- what a finished record says ---


def test_the_record_holds_samples_fit_rates_and_overheads(output):
    record = start(output, POINTS + OTHERS).run()
    assert record == load_record(output)
    assert record.complete
    assert record.plan == "quick"
    assert record.environment.device == "Pretended CPU"
    assert record.environment.software["torch"] == "2.9.0"
    assert record.rates.origin == "measured"
    assert record.rates.memory_bandwidth == pytest.approx(BANDWIDTH / 0.95)  # the 10 % quantile of the larger array, not the cache's rate
    assert record.overheads["launch_s"].value == pytest.approx(3e-6)
    assert (record.overheads["launch_s"].low, record.overheads["launch_s"].high) == pytest.approx((2.85e-6, 3.3e-6))
    matmul = record.classes[0]
    assert len(matmul.samples.seconds) == len(POINTS)
    assert matmul.samples.seconds[5] == pytest.approx(made(POINTS[5]), rel=1e-6)
    assert len(matmul.residual_quantiles) == len(PERCENTILES)
    assert matmul.error < 0.05
    assert record.conditions == ("no telemetry: pretended",)


def test_with_a_machine_shares_refer_to_its_datasheet(output):
    machine = Hardware.from_rates(memory_bandwidth=BANDWIDTH, peak_flops_per_s=PEAK, name="bare")
    record = start(output, hardware=machine).run()
    assert record.rates.origin == "datasheet"
    assert record.rates.peak_flops_per_s["fp32"] == PEAK
    found = record.classes[0].constants
    for name, value in MADE.items():
        assert found[name].value == pytest.approx(value, rel=0.1)


def test_the_machine_is_recognized_by_the_name_that_the_device_bears():
    assert recognize("NVIDIA H200").id == "h200-sxm"
    assert recognize("NVIDIA H100 80GB HBM3").id == "h100-sxm"
    assert recognize("AMD EPYC") is None
    assert recognize("CPU/of.json") is None


def test_progress_tells_every_point_and_the_end(output):
    seen = []
    start(output, POINTS[:4]).run(lambda done, points, point: seen.append((done, points, point)))
    assert seen == [(i, 4, p) for i, p in enumerate(POINTS[:4])] + [(4, 4, None)]


def test_points_share_the_time_that_there_is(output):
    measure = Measure()
    start(output, measure=measure).run(limit_s=2.4)
    assert all(0.1 <= budget <= 0.6 for budget in measure.budgets)
    assert measure.budgets[0] == pytest.approx(0.2, rel=0.01)
    assert measure.budgets[-1] == 0.6  # nothing took any time, so that much is left for the last


# --- interrupted and resumed ---


def test_ctrl_c_keeps_what_was_measured_and_a_rerun_goes_on(output):
    first = Measure({8: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        start(output, measure=first).run()
    partial = load_record(output)
    assert not partial.complete
    assert f"8 of {len(POINTS)} points" in partial.conditions[0]
    second = Measure()
    record = start(output, measure=second).run()
    assert second.done == [p.key for p in POINTS[8:]]
    assert record.complete
    assert record.id == partial.id
    assert record.date == partial.date
    assert not any("unfinished" in condition for condition in record.conditions)
    uninterrupted = start(output.with_name("other.json")).run()
    assert record.classes[0].samples == uninterrupted.classes[0].samples
    assert record.rates.peak_flops_per_s == pytest.approx(uninterrupted.rates.peak_flops_per_s, rel=1e-6)
    assert record.classes[0].error == pytest.approx(uninterrupted.classes[0].error, abs=0.01)


def test_a_finished_record_is_not_measured_again_unless_asked(output):
    start(output).run()
    again, anew = Measure(), Measure()
    start(output, measure=again).run()
    assert again.done == []
    start(output, measure=anew, resume=False).run()
    assert len(anew.done) == len(POINTS)


def test_a_longer_plan_goes_on_from_the_same_points(output):
    start(output, POINTS[:7]).run()
    measure = Measure()
    record = start(output, POINTS, measure=measure).run()
    assert measure.done == [p.key for p in POINTS[7:]]
    assert len(record.classes[0].samples.seconds) == len(POINTS)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"device": replace(DEVICE, name="Other CPU")}, "Pretended CPU there, Other CPU now"),
        ({"device": replace(DEVICE, properties={**DEVICE.properties, "torch": "3.0"})}, "torch 2.9.0 there, 3.0 now"),
        ({"device": replace(DEVICE, properties={**DEVICE.properties, "threads": 8})}, "threads 2 there, 8 now"),
        ({"plan": "thorough"}, "plan quick there, thorough now"),
    ],
)
def test_a_record_of_something_else_is_not_gone_on_with(output, options, word):
    start(output, POINTS[:7]).run()
    before = output.read_bytes()
    with pytest.raises(CalibrationError, match="cannot go on with") as error:
        start(output, **options)
    assert word in str(error.value)
    assert "--fresh" in str(error.value)
    assert output.read_bytes() == before
    start(output, **options, resume=False).run()  # which is what --fresh is for


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 99}', "[1]", '{"schema_version": 1, "id": "x"}'])
def test_a_file_that_is_no_record_is_not_overwritten(output, text):
    output.write_text(text)
    with pytest.raises(CalibrationError, match=r"record\.json.*Name another file, or start anew with resume=False \(--fresh\)\.$"):
        start(output)
    assert output.read_text() == text


KILLED = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {folder!r})
    import test_calibration_session as t

    class Slow(t.Measure):
        def __call__(self, point, device, *, budget_s):
            print(len(self.done), flush=True)
            time.sleep(0.01)
            return super().__call__(point, device, budget_s=budget_s)

    t.start(Path({output!r}), measure=Slow()).run()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("begun", [1, 9])
def test_a_kill_in_mid_run_loses_at_most_one_sample(output, begun):
    script = textwrap.dedent(KILLED).format(folder=str(Path(__file__).parent), output=str(output))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        last = -1
        for line in process.stdout:
            last = int(line)
            if last == begun:
                process.kill()
                break
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    kept = len(load_record(output).classes[0].samples.seconds)
    assert begun <= kept <= begun + 1  # all that were done when the last one began
    measure = Measure()
    record = start(output, measure=measure).run()
    assert measure.done == [p.key for p in POINTS[kept:]]
    assert record.complete
    assert not [name for name in os.listdir(output.parent) if name != output.name and "tmp" not in name]


# --- points that fail ---


@pytest.mark.parametrize(
    ("what", "word"),
    [
        (OutOfMemory("too large"), "out of memory"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("CUDA error: an illegal memory access was encountered.\nCompile with …"), "an illegal memory access"),
        (CalibrationError(f"{POINTS[3].key} does not run on cpu: no kernel."), "does not run on cpu: no kernel"),
        ({"seconds": math.nan}, "its time was nan"),
        ({"seconds": 0.0}, "its time was 0.0"),
        ({"seconds": -1e-6}, "its time was -1e-06"),
        ({"seconds": math.inf}, "its time was inf"),
    ],
)
def test_a_point_that_fails_is_left_out_and_named(output, what, word):
    measure = Measure({3: what})
    record = start(output, measure=measure).run()
    assert len(measure.done) == len(POINTS)
    assert len(record.classes[0].samples.seconds) == len(POINTS) - 1
    assert record.classes[0].constants
    skipped = [c for c in record.conditions if c.startswith("skipped")]
    assert len(skipped) == 1
    assert word in skipped[0]
    assert skipped[0].count(POINTS[3].key) == 1
    again = Measure()
    record = start(output, measure=again).run()
    assert again.done == [POINTS[3].key]
    assert not [c for c in record.conditions if c.startswith("skipped")]


def test_many_failures_of_one_kind_are_one_condition(output):
    record = start(output, measure=Measure({i: OutOfMemory("x") for i in range(2, 8)})).run()
    told = [c for c in record.conditions if "out of memory" in c]
    assert len(told) == 1
    assert told[0].endswith("and 3 more")


def test_if_nothing_can_be_measured_it_is_an_error_and_there_is_no_record(output):
    with pytest.raises(CalibrationError, match="no point of the plan could be measured: skipped, out of memory"):
        start(output, measure=Measure({i: OutOfMemory("x") for i in range(len(POINTS))})).run()
    assert not output.exists()


def test_a_missing_package_is_an_error_of_its_own(output):
    with pytest.raises(MissingDependencyError):
        start(output, measure=Measure({0: MissingDependencyError("needs torch")})).run()


def test_quantiles_that_are_no_numbers_are_the_median(output):
    record = start(output, measure=Measure({0: {"low_s": math.nan, "high_s": math.nan}, 1: {"low_s": 1.0}})).run()
    first = record.classes[0].samples
    assert first.low_s[0] == first.seconds[0] == first.high_s[0]
    assert first.low_s[1] == first.seconds[1]


@pytest.mark.parametrize("points", [1, 3, 4])
def test_too_few_points_are_kept_and_said_not_to_be_fitted(output, points):
    record = start(output, POINTS[:points]).run()
    assert len(record.classes[0].samples.seconds) == points
    assert not record.classes[0].constants
    assert "too few" in record.classes[0].note


# --- flags ---


class Flagging(SilentTelemeter):
    """Sees throttled clocks beside every third sample."""

    def __init__(self):
        super().__init__("")
        self.conditions, self.seen = ("device busy: 50 %",), 0

    def beside(self, work):
        self.seen += 1
        flags = ("throttled: SwPowerCap",) if self.seen % 3 == 0 else ()
        return work(), Reading(Telemetry(power_w=700, throttle_reasons=("SwPowerCap",) if flags else ()), flags)


def test_flags_stand_beside_the_sample_and_in_the_conditions(output):
    record = start(output, telemeter=Flagging()).run()
    samples = record.classes[0].samples
    assert samples.flags == dict.fromkeys(range(2, len(POINTS), 3), "throttled: SwPowerCap")
    assert samples.telemetry[0].power_w == 700
    assert f"flagged: 4 of {len(POINTS)} samples throttled (SwPowerCap)" in record.conditions
    # nothing is measured any more: what was seen then is still told, and nothing of today
    assert start(output).run().conditions == record.conditions


def test_a_wrong_result_is_kept_but_not_fitted(output):
    wrong = {"seconds": 1e-9, "low_s": 1e-9, "flags": ("result wrong",)}
    right = start(output.with_name("right.json"), POINTS[:6] + POINTS[7:]).run()
    record = start(output, measure=Measure({6: wrong})).run()
    assert record.classes[0].samples.flags == {6: "result wrong"}
    assert record.classes[0].samples.seconds[6] == 1e-9
    assert record.classes[0].constants == right.classes[0].constants
    assert record.rates == right.rates


# --- the file ---


def refuse(*_, **__):
    raise AssertionError("the device was opened before the file was tried")


@pytest.fixture
def no_device(monkeypatch):
    monkeypatch.setattr(starting, "open_device", refuse)


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("{folder}", "it is a folder"),
        ("{folder}/nowhere/record.json", "there is no folder"),
        ("{folder}/file/record.json", "there is no folder"),
        ("/proc/record.json", "cannot be written"),
        ("{folder}/\0.json", "is no path"),
    ],
)
def test_a_file_that_cannot_be_written_is_found_out_before_measuring(tmp_path, path, word):
    if path.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationError, match=word):
        calibrate("cpu", path.format(folder=tmp_path))


@pytest.mark.usefixtures("no_device")
def test_a_read_only_record_or_folder_is_found_out_before_measuring(tmp_path, monkeypatch):
    record = tmp_path / "record.json"
    record.write_text("{}")
    monkeypatch.setattr(starting.os, "access", lambda path, mode: mode != os.W_OK)  # a superuser may write anywhere
    with pytest.raises(CalibrationError, match="read-only"):
        calibrate("cpu", record)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starting, "TemporaryFile", full(errno.EROFS))
        with pytest.raises(CalibrationError, match=r"new\.json: cannot be written: Read-only file system"):
            calibrate("cpu", tmp_path / "new.json")


def full(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.usefixtures("no_device")
def test_a_full_disk_is_found_out_before_measuring(output, monkeypatch):
    monkeypatch.setattr(starting.os, "fsync", full(errno.ENOSPC))
    with pytest.raises(CalibrationError, match="No space left on device"):
        calibrate("cpu", output)
    assert os.listdir(output.parent) == []


def test_a_disk_that_fills_up_costs_one_sample(output, monkeypatch):
    real, written = session.save_record, []

    def save(record, path):
        if len(written) == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(record)
        return real(record, path)

    with monkeypatch.context() as patch:
        patch.setattr(session, "save_record", save)
        with pytest.raises(CalibrationError, match=r"No space left on device.*run again"):
            start(output).run()
    assert len(load_record(output).classes[0].samples.seconds) == 6
    measure = Measure()
    start(output, measure=measure).run()
    assert measure.done == [p.key for p in POINTS[6:]]


@pytest.mark.usefixtures("no_device")
def test_unknown_plans_and_machines_are_named(output):
    with pytest.raises(UnknownNameError, match="thorough"):
        calibrate("cpu", output, plan="thoroug")
    with pytest.raises(UnknownNameError, match="h100-sxm"):
        calibrate("cpu", output, hardware="h100-sx")


@pytest.mark.usefixtures("no_device")
def test_without_scipy_nothing_is_begun(output, monkeypatch):
    monkeypatch.setattr(starting, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"roofline\[calibrate\]"):
        calibrate("cpu", output)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:1", "", 3])
def test_a_device_that_is_not_there_is_named(output, device):
    with pytest.raises((CalibrationError, InvalidValueError), match="cpu"):
        calibrate(device, output)


# --- rates and classes ---


def sample(family, seconds, *, moved=0.0, operand="fp32", flags=(), **sizes):
    return Sample(family, operand, operand, sizes, {}, seconds, seconds * 0.9, seconds * 1.1, moved, flags)


def test_samples_survive_their_grouping():
    samples = [sample("matmul", i + 1.0, m=i, n=2, k=3, flags=("a", "b") if i == 1 else ()) for i in range(1, 4)]
    samples += [sample("read", 1.0, bytes=64, moved=64.0)]
    assert list_samples(group_samples(samples)) == samples


def test_the_peak_is_that_of_the_best_right_sample():
    samples = [sample("matmul", 1.0, m=1000, n=1000, k=1000), sample("matmul", 1.5, m=2000, n=1000, k=1000)]
    samples += [sample("matmul", 1e-6, m=2000, n=1000, k=1000, flags=("result wrong",))]
    rates, _ = measured_rates(samples, cache_bytes=1)
    assert rates.peak_flops_per_s == {"fp32": pytest.approx(4e9 / (0.9 * 1.5))}


def test_a_rate_out_of_the_cache_is_never_the_memorys():
    samples = [sample("read", 1e-3, bytes=2**22, moved=2.0**22), sample("copy", 0.1, bytes=2**29, moved=2.0**30)]
    rates, notes = measured_rates(samples, cache_bytes=2**22)
    assert rates.memory_bandwidth == pytest.approx(2**30 / 0.09)
    assert notes == ()
    _, notes = measured_rates(samples[:1], cache_bytes=2**22)
    assert "may be the cache's" in notes[0]


def test_weights_read_faster_than_a_plain_array_raise_the_bandwidth():
    samples = [sample("read", 0.1, bytes=1e9, moved=1e9), sample("matmul", 0.05, moved=1e9, m=1, n=16384, k=16384)]
    assert measured_rates(samples, cache_bytes=1e6)[0].memory_bandwidth == pytest.approx(1e9 / 0.045)


def test_classes_of_one_family_and_format_share_a_fit():
    def with_heads(heads, batch, context):
        sizes = {"batch": batch, "context": context, "new": 1}
        fixed = {"heads": heads, "kv_heads": heads, "head_dim": 128}
        seconds = 1e-5 + 2 * batch * context * heads * 128 * 4 / (0.5 * BANDWIDTH)
        return Sample("attention", "fp32", "fp32", sizes, fixed, seconds, seconds, seconds, 0.0)

    samples = [with_heads(heads, batch, context) for heads in (8, 32) for batch in (1, 4) for context in (255, 1023, 4095)]
    few, many = fit_classes(group_samples(samples), Rates(origin="measured", peak_flops_per_s={"fp32": PEAK}, memory_bandwidth=BANDWIDTH))
    assert few.constants
    assert few.constants == many.constants
    assert (few.fixed_sizes["heads"], many.fixed_sizes["heads"]) == (8, 32)


def test_norms_and_residuals_are_fitted_apart():
    made_of = {
        "norm": {"bandwidth_share": 0.1, "fixed_s": 2e-5, "sharpness": 1.5},
        "residual": {"bandwidth_share": 0.8, "fixed_s": 2e-6, "sharpness": 1.5},
    }

    def rowwise(kernel, rows, width=2048):
        moved = 4 * width * (2 * rows + 1 if kernel == "norm" else 3 * rows)  # in, out and the scales; two in, one out
        seconds = float(FAMILIES["rowwise"].seconds({"bytes": moved}, made_of[kernel], peak_flops_per_s=math.inf, bandwidth=BANDWIDTH))
        return Sample("rowwise", "fp32", "fp32", {"rows": rows, "width": width}, {"kernel": kernel}, seconds, seconds, seconds, 0.0)

    samples = [rowwise(kernel, rows) for rows in (1, 2, 8, 64, 256, 2048, 4096) for kernel in made_of]
    fitted = fit_classes(group_samples(samples), Rates(origin="measured", memory_bandwidth=BANDWIDTH))
    assert [(c.fixed_sizes["kernel"], classes.name_class(c)) for c in fitted] == [
        ("norm", "rowwise norm fp32"),
        ("residual", "rowwise residual fp32"),
    ]
    for c in fitted:
        for name, value in made_of[c.fixed_sizes["kernel"]].items():
            assert c.constants[name].value == pytest.approx(value, rel=0.02)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("points", [plan.quick_plan, plan.thorough_plan])
def test_plans_have_enough_of_every_class_for_a_fit(kind, points):
    device = replace(DEVICE, kind=kind, native=("fp32", "bf16", "fp8") if kind == "cuda" else ("fp32",), memory_bytes=2**36)
    samples = [Sample(p.family, p.stored, p.operand, p.sizes, p.fixed, 1.0, 1.0, 1.0, 0.0) for p in points(device)]
    pools = {}
    for c in group_samples(samples):
        if c.family in FAMILIES:
            name = classes.name_class(c)
            pools[name] = pools.get(name, 0) + len(c.samples.seconds)
    main = "bf16" if kind == "cuda" else "fp32"  # other formats have but one large product in the quick plan
    least = 5  # two constants need four, and every fifth is held out
    assert all(pools[f"{name} {main}"] >= least for name in ("matmul", "attention"))
    for kernel in ("rowwise norm", "rowwise residual"):
        assert max(count for name, count in pools.items() if name.startswith(kernel)) >= least


# what torch computes, counted by hand: the bytes that have to move, the FLOP of products
COUNTS = [
    (Point("matmul", "bf16", "bf16", {"m": 3, "n": 5, "k": 7}), 2 * (5 * 7 + 3 * 7 + 3 * 5), 2 * 3 * 5 * 7),
    (Point("matmul", "fp8", "fp8", {"m": 3, "n": 5, "k": 7}), 5 * 7 + 3 * 7 + 2 * 3 * 5, 2 * 3 * 5 * 7),  # the result is bf16
    (Point("matmul", "int8", "int8", {"m": 3, "n": 5, "k": 7}), 5 * 7 + 3 * 7 + 4 * 3 * 5, 2 * 3 * 5 * 7),  # the result is int32
    (Point("rowwise", "fp32", "fp32", {"rows": 3, "width": 5}, {"kernel": "norm"}), 4 * (3 * 5 + 5 + 3 * 5), 0),
    (Point("rowwise", "fp32", "fp32", {"rows": 3, "width": 5}, {"kernel": "residual"}), 4 * 3 * 3 * 5, 0),
    (Point("all_reduce", "fp32", "fp32", {"ranks": 4, "bytes": 1024}), 0, 0),
]


@pytest.mark.parametrize(("point", "moved", "flops"), COUNTS, ids=[point.key for point, _, _ in COUNTS])
def test_a_point_costs_what_it_asks_for(point, moved, flops):
    op = classes.kernel_op(point.family, point.stored, point.operand, {**point.fixed, **point.sizes})
    assert (op.compulsory_bytes + op.activation_bytes, op.flops) == (moved, flops)
    assert op.family == point.family


def test_what_has_no_form_is_refused_by_name():
    with pytest.raises(CalibrationError, match="family 'launch' have no form to be fitted; those of matmul, "):
        classes.kernel_op("launch", "fp32", "fp32", {"elements": 1})
    with pytest.raises(InvalidValueError, match="matmul kernels need m, n, k; k is missing"):
        classes.kernel_op("matmul", "fp32", "fp32", {"m": 1, "n": 1})


def test_the_error_is_of_samples_that_the_fit_has_not_seen():
    rng = np.random.default_rng(7)
    samples = [
        Sample("matmul", "fp32", "fp32", p.sizes, {}, t, t, t, 0.0)
        for p in (
            Point("matmul", "fp32", "fp32", {"m": m, "n": n, "k": 2048}) for m in (1, 8, 64, 512, 2048) for n in (512, 1024, 2048, 4096)
        )
        for t in [made(p) * float(np.exp(rng.normal(0, 0.1)))]
    ]
    rates = Rates(origin="datasheet", peak_flops_per_s={"fp32": PEAK}, memory_bandwidth=BANDWIDTH)
    (fitted,) = fit_classes(group_samples(samples), rates)
    mean_deviation = 0.1 * math.sqrt(2 / math.pi)
    assert 0.7 * mean_deviation < fitted.error < 3 * mean_deviation
    low, high = (fitted.residual_quantiles[PERCENTILES.index(p)] for p in (10, 90))
    assert 0.7 * 2 * 1.28 * 0.1 < high - low < 3 * 2 * 1.28 * 0.1


def test_few_samples_free_few_constants():
    samples = list_samples(
        group_samples(Sample("matmul", "fp32", "fp32", p.sizes, {}, made(p), made(p), made(p), 0.0) for p in POINTS[::2])
    )
    (fitted,) = fit_classes(group_samples(samples), Rates(origin="datasheet", peak_flops_per_s={"fp32": PEAK}, memory_bandwidth=BANDWIDTH))
    held = [c for c in FAMILIES["matmul"].constants if c.name in fitted.note]
    assert 0 < len(held) < len(FAMILIES["matmul"].constants)
    assert all(fitted.constants[c.name].value in (c.start, c.neutral) for c in held)
    assert fitted.error is not None


def test_overheads_leave_out_what_is_wrong():
    found = overheads(
        [sample("launch", 4e-6), sample("launch", 6e-6), sample("launch", 9.0, flags=("result wrong",)), sample("step_sync", 1e-4)]
    )
    assert {name: constant.value for name, constant in found.items()} == {"launch_s": pytest.approx(5e-6), "sync_s": pytest.approx(1e-4)}


# --- the real thing, small ---


def test_a_tiny_plan_runs_on_this_cpu(output, monkeypatch):
    pytest.importorskip("torch")
    shapes = [(m, n, 128) for m in (1, 16, 128) for n in (128, 256)]
    points = (
        *(Point("matmul", "fp32", "fp32", {"m": m, "n": n, "k": k}) for m, n, k in shapes),
        Point("launch", "fp32", "fp32", {"elements": 1}),
    )
    monkeypatch.setitem(plan.PLANS, "quick", plan.Plan(lambda device: points, 30.0))
    monkeypatch.setattr(session, "_MOST_BUDGET_S", 0.1)
    record = calibrate("cpu", output)
    assert record == load_record(output)
    assert record.complete
    assert record.classes[0].constants
    assert record.overheads["launch_s"].value > 0
    assert record.environment.software["torch"]
    assert record.rates.peak_flops_per_s["fp32"] > 1e8
    text = json.loads(output.read_text())
    assert text["schema_version"] == 1


# --- the command ---


@pytest.fixture
def command(monkeypatch):
    """The command with a pretended device and pretended kernels."""
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from roofline.cli import app

    def run(*arguments, measure=None, device=DEVICE):
        monkeypatch.setattr(starting, "open_device", lambda name: device)
        monkeypatch.setattr(starting, "open_telemeter", lambda *_, **__: SilentTelemeter("pretended"))
        monkeypatch.setattr(session.CalibrationSession.__init__, "__kwdefaults__", {**DEFAULTS, "measure": measure or Measure()})
        monkeypatch.setitem(plan.PLANS, "quick", plan.Plan(lambda device: POINTS + OTHERS, 1.0))
        return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])

    return run


DEFAULTS = dict(CalibrationSession.__init__.__kwdefaults__)


def test_the_command_sums_up_what_was_found(command, output):
    result = command("--device", "cpu", "--output", output)
    assert result.exit_code == 0, result.output
    record = load_record(output)
    assert result.stdout.splitlines()[0].startswith(f"Pretended CPU: {len(POINTS) + 3} points measured, record {record.id}")
    assert "memory, read: 20 GB/s" in result.stdout
    assert "datasheet" not in result.stdout
    assert "launch: 3" in result.stdout
    assert "! no telemetry: pretended" in result.stdout
    assert result.stderr == ""


def test_the_command_says_how_to_get_what_was_skipped(command, output):
    first = command("--output", output, measure=Measure({2: OutOfMemory("x")}))
    assert "! skipped, out of memory: " in first.stdout
    assert first.stdout.splitlines()[-1] == "The same command tries again what was skipped."
    second = command("--output", output)
    assert "skipped" not in second.stdout
    assert "Nothing was left" not in second.stdout
    assert command("--output", output).stdout.splitlines()[-1] == "Nothing was left to measure; --fresh measures anew."


def test_the_command_compares_with_the_datasheet(command, output):
    h200 = replace(DEVICE, name="NVIDIA H200")
    result = command("--output", output, device=h200)
    assert "(h200-sxm)" in result.stdout
    assert f"{BANDWIDTH / 4.8e12:.0%} of the datasheet's 4.8" in result.stdout


def test_a_finished_plan_is_said_to_be_finished(command, output):
    assert "--fresh" not in command("--output", output).stdout
    assert "--fresh measures anew" in command("--output", output).stdout
    measure = Measure()
    command("--output", output, "--fresh", measure=measure)
    assert len(measure.done) == len(POINTS) + 3


@pytest.mark.parametrize(("place", "word"), [(5, "run the same command again"), (0, "nothing was measured yet")])
def test_ctrl_c_is_status_130_and_says_how_to_go_on(command, output, place, word):
    result = command("--output", output, measure=Measure({place: KeyboardInterrupt()}))
    assert result.exit_code == 130
    assert word in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert output.exists() == bool(place)
    assert command("--output", output).exit_code == 0


def test_ctrl_c_of_a_fresh_start_does_not_say_to_start_afresh_again(command, output):
    assert command("--output", output).exit_code == 0
    before = output.read_text()
    early = command("--output", output, "--fresh", measure=Measure({0: KeyboardInterrupt()}))
    assert "nothing was measured yet" in early.stderr
    assert output.read_text() == before
    late = command("--output", output, "--fresh", measure=Measure({4: KeyboardInterrupt()}))
    assert "run the same command again without --fresh to go on" in late.stderr
    assert len(list_samples(load_record(output).classes)) == 4


def test_errors_are_one_line_and_status_2(command, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    for arguments in (["--output", tmp_path], ["--output", tmp_path / "broken.json"], ["--output", tmp_path / "x.json", "--plan", "slow"]):
        result = command(*arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith("roofline: ")
        assert len(result.stderr.splitlines()) == 1


# ------------------------------------------------------------------------------------------------------------- all-reduce


class Sums:
    """Stands in for the processes: sums in 20 µs and at 1 GB/s, one after the other, until something goes wrong."""

    def __init__(self, wrong=None):
        self.asked, self.wrong = [], wrong or {}

    def __call__(self, device, *, ranks, sizes, timeout_s, size_s, report):
        self.asked.append((ranks, tuple(sizes), timeout_s, size_s))
        for i, size in enumerate(sizes):
            if i in self.wrong:
                raise self.wrong[i]
            seconds = 2e-5 + size / 1e9
            found = Measurement(seconds, seconds, seconds, 5, float(size), 0.0, 0.0)
            report(Point("all_reduce", "fp32", "fp32", {"ranks": ranks, "bytes": size}), found)


@pytest.fixture
def add_up(monkeypatch):
    def use(wrong=None):
        found = Sums(wrong)
        monkeypatch.setattr(session, "measure_all_reduce", found)
        return found

    return use


def reduced(record):
    return [s for s in list_samples(record.classes) if s.family == "all_reduce"]


def test_all_reduces_are_the_last_points_of_the_plan(output, add_up):
    processes, told = add_up(), []
    record = start(output, ranks=4).run(lambda done, points, point: told.append((done, points, point and point.family)))
    total = len(POINTS) + len(SIZES)
    assert [done for done, _, _ in told] == list(range(total + 1))
    assert {points for _, points, _ in told} == {total}
    assert [family for _, _, family in told] == ["matmul"] * len(POINTS) + ["all_reduce"] * len(SIZES) + [None]
    assert [(ranks, sizes) for ranks, sizes, _, _ in processes.asked] == [(4, SIZES)]
    assert {s.sizes["ranks"] for s in reduced(record)} == {4}
    assert record.rates.link_bandwidth == pytest.approx(1e9, rel=0.01)
    (kernels,) = (c for c in record.classes if c.family == "all_reduce")
    assert kernels.constants["fixed_s"].value == pytest.approx(2e-5, rel=0.5)
    again = start(output, ranks=4).run()
    assert [c.samples for c in again.classes] == [c.samples for c in record.classes]
    assert len(processes.asked) == 1


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), MemoryError()])
def test_all_reduces_go_on_where_they_stopped(output, add_up, stop):
    add_up({3: stop})
    with pytest.raises(type(stop)):
        start(output, ranks=2).run()
    kept = load_record(output)
    assert not kept.complete
    assert f"unfinished plan: {len(POINTS) + 3} of {len(POINTS) + len(SIZES)} points measured" in kept.conditions[0]
    assert [s.sizes["bytes"] for s in reduced(kept)] == list(SIZES[:3])
    processes = add_up()
    record = start(output, ranks=2).run()
    assert [sizes for _, sizes, _, _ in processes.asked] == [SIZES[3:]]
    assert [s.sizes["bytes"] for s in reduced(record)] == list(SIZES)
    assert record.complete


def test_all_reduces_have_a_part_of_the_plan_s_time(output, add_up, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])

    def measure(point, device, *, budget_s):
        clock[0] += 2 * budget_s  # every point takes twice the time it is given
        return Measure()(point, device, budget_s=budget_s)

    processes = add_up()
    start(output, ranks=2, measure=measure).run(limit_s=30.0)
    ((_, _, timeout_s, size_s),) = processes.asked
    assert clock[0] + timeout_s <= 30.0
    assert timeout_s >= 15.0  # processes need a while to start
    assert size_s * len(SIZES) <= max(timeout_s - 15.0, 0.1 * len(SIZES))


def test_a_plan_keeps_its_time_on_a_slow_machine(output, add_up, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])

    def measure(point, device, *, budget_s):
        clock[0] += 4.0
        return Measure()(point, device, budget_s=budget_s)

    processes = add_up()
    record = start(output, ranks=2, measure=measure).run(limit_s=30.0)
    assert len(record.classes[0].samples.seconds) == 4  # 30 s less what processes need to start, and one that had begun
    assert any(condition.startswith("skipped, the plan's time was over: matmul") for condition in record.conditions)
    assert clock[0] + processes.asked[0][2] <= 30.0
    again = start(output, ranks=2, measure=measure).run()
    assert len(again.classes[0].samples.seconds) == len(POINTS)
    assert not any("skipped" in condition for condition in again.conditions)


def test_all_reduces_that_fail_are_named_and_tried_again(output, add_up):
    add_up({2: CalibrationError("the processes of an all-reduce ended without a result.")})
    record = start(output, ranks=2).run()
    assert record.complete
    assert len(reduced(record)) == 2
    (skipped,) = (condition for condition in record.conditions if condition.startswith("skipped"))
    assert "ended without a result: all_reduce fp32/fp32" in skipped
    assert f"and {len(SIZES) - 2 - 3} more" in skipped
    add_up()
    again = start(output, ranks=2).run()
    assert len(reduced(again)) == len(SIZES)
    assert not any("skipped" in condition for condition in again.conditions)


@pytest.mark.slow
def test_real_processes_tell_every_sum_as_soon_as_it_is_done():
    pytest.importorskip("torch")
    device, told = open_device("cpu"), []
    found = measure_all_reduce(device, sizes=(4096, 65536), size_s=0.05, report=lambda *done: told.append(done))
    assert tuple(told) == found

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_all_reduce(device, sizes=(4096, 65536), size_s=0.05, report=stop)
    assert not multiprocessing.active_children()


def test_a_disk_that_is_full_during_an_all_reduce_ends_the_run(output, add_up, monkeypatch):
    add_up()
    real, full = session.save_record, []

    def save(record, path):
        if full or any(c.family == "all_reduce" for c in record.classes):
            full.append(True)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(record, path)

    monkeypatch.setattr(session, "save_record", save)
    with pytest.raises(CalibrationError, match=r"cannot be written: No space left .* run again to go on"):
        start(output, ranks=2).run()
    assert len(full) == 1
    assert len(list_samples(load_record(output).classes)) == len(POINTS)


@pytest.mark.parametrize("ranks", [0, -1, 1.5, True, "two"])
def test_ranks_that_are_no_count_are_refused_before_anything_is_measured(output, monkeypatch, ranks):
    monkeypatch.setattr(starting, "open_device", lambda name: pytest.fail("opened the device"))
    with pytest.raises(InvalidValueError, match=r"ranks is .*whole number of at least 1"):
        calibrate("cpu", output, ranks=ranks)


def test_more_ranks_than_gpus_or_cores_are_refused(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpu = replace(DEVICE, kind="cuda")
    assert [starting._count_ranks(gpu, ranks) for ranks in (None, 1, 2)] == [2, 1, 2]
    with pytest.raises(CalibrationError, match="ranks is 3, and there are 2 GPUs; at most 2 "):
        starting._count_ranks(gpu, 3)
    assert [starting._count_ranks(DEVICE, ranks) for ranks in (None, 1, 2)] == [1, 1, 2]
    with pytest.raises(CalibrationError, match="ranks is 3, and there are 2 cores; at most 2 "):
        starting._count_ranks(DEVICE, 3)


def test_one_device_adds_nothing_up(output, monkeypatch):
    monkeypatch.setattr(session, "measure_all_reduce", lambda *_, **__: pytest.fail("asked for all-reduces"))
    assert all(c.family != "all_reduce" for c in start(output).run().classes)


# --- a device that is lost ---


def test_a_lost_device_ends_the_run_and_its_point_comes_last_in_the_next(output):
    lost = Measure({2: DeviceLost(f"{POINTS[2].key} does not run on cuda:0: CUDA error: an illegal memory access was encountered.")})
    record = start(output, measure=lost).run()
    assert lost.done == [point.key for point in POINTS[:3]]
    assert (
        f"device lost: {POINTS[2].key}: does not run on cuda:0: CUDA error: an illegal memory access was encountered" in record.conditions
    )
    assert any(condition.startswith("skipped, the device was lost: ") for condition in record.conditions)
    again = Measure()
    record = start(output, measure=again).run()
    assert again.done == [point.key for point in (*POINTS[3:], POINTS[2])]
    assert not any("lost" in condition for condition in record.conditions)


def test_a_device_that_computes_no_more_is_told_from_a_kernel_that_does_not_run(monkeypatch):
    device, point = open_device("cpu"), Point("matmul", "fp32", "fp32", {"m": 1, "n": 8, "k": 8})

    def fail(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(measuring, "prepare", fail)
    with pytest.raises(CalibrationError, match="does not run on cpu: CUDA error: an illegal") as told:
        measuring.measure(point, device)
    assert not isinstance(told.value, DeviceLost)
    monkeypatch.setattr(pytest.importorskip("torch"), "ones", fail)
    with pytest.raises(DeviceLost, match="does not run on cpu"):
        measuring.measure(point, device)


# --- what a data sheet and a measurement say of each other ---

FULL = POINTS + OTHERS


def bare(bandwidth=BANDWIDTH, peak=PEAK, name="bare"):
    return Hardware.from_rates(memory_bandwidth=bandwidth, peak_flops_per_s=peak, name=name)


def best_rate():
    """FLOP/s of the fastest product, by hand."""
    return max(2 * p.sizes["m"] * p.sizes["n"] * p.sizes["k"] / made(p) for p in POINTS)


def test_rates_above_the_datasheet_are_errors_that_the_record_names(output):
    record = start(output, FULL, hardware=bare(BANDWIDTH / 4, best_rate() / 10, "slowbox")).run()
    told = [c for c in record.conditions if c.startswith("faster than the datasheet")]
    # of the 2**26 bytes that are read, 2**20 may come from the cache; what fits into it says nothing
    assert told == [
        f"faster than the datasheet: fp32 products at {show_rate(best_rate(), 'FLOP/s')}, 10 times the {show_rate(best_rate() / 10, 'FLOP/s')} "
        "of slowbox: an error of measurement, units or spec",
        f"faster than the datasheet: memory at {show_rate(BANDWIDTH * 63 / 64, 'B/s')}, 3.94 times the {show_rate(BANDWIDTH / 4, 'B/s')} "
        "of slowbox: an error of measurement, units or spec",
    ]
    assert load_record(output).conditions == record.conditions
    assert record.rates.memory_bandwidth == BANDWIDTH / 4  # a measurement never overwrites a data sheet


def test_links_faster_than_the_datasheet_are_named_too(output, add_up):
    add_up()  # at 1 GB/s, less 20 µs each
    samples = reduced(start(output, ranks=2).run())
    rates = Rates(origin="datasheet", link_bandwidth=2.5e8)
    (told,) = list_contradictions(samples, rates, cache_bytes=0, machine="slow")
    reached = SIZES[-1] / (2e-5 + SIZES[-1] / 1e9)
    assert told.startswith(f"faster than the datasheet: links at {show_rate(reached, 'B/s')}, 4 times the 250 MB/s of slow")


@pytest.mark.parametrize("share", [0.93, 1.0, 2.0])
def test_what_repetitions_do_not_bear_out_is_noise(output, share):
    # the 90 % quantile of the pretended times is 10 % above the median, so a sheet 7 % below the best rate may be right
    record = start(output, FULL, hardware=bare(BANDWIDTH * share, best_rate() * share)).run()
    assert not [c for c in record.conditions if "faster" in c]


def test_wrong_results_are_no_evidence_against_a_datasheet(output):
    wrong = {"seconds": 1e-9, "low_s": 1e-9, "high_s": 1e-9, "flags": ("result wrong",)}
    record = start(output, FULL, measure=Measure({6: wrong}), hardware=bare()).run()
    assert not [c for c in record.conditions if "faster" in c]


def test_a_corrected_datasheet_is_fitted_to_without_measuring_again(output):
    first = start(output, FULL, hardware=bare(BANDWIDTH / 4, name="box")).run()
    assert any("faster" in c for c in first.conditions)
    measure = Measure()
    record = start(output, FULL, measure=measure, hardware=bare(name="box")).run()
    assert measure.done == []
    assert not any("faster" in c for c in record.conditions)
    assert record.rates.memory_bandwidth == BANDWIDTH
    assert load_record(output) == record


@pytest.mark.parametrize(
    ("device", "machine", "told"),
    [
        (
            "AMD EPYC",
            "h100-sxm",
            ("not recognized: the device is AMD EPYC, no known name of h100-sxm, whose datasheet its shares refer to",),
        ),
        (
            "NVIDIA H200",
            "h100-sxm",
            ("not recognized: the device is NVIDIA H200, which is h200-sxm and not h100-sxm, whose datasheet its shares refer to",),
        ),
        ("NVIDIA H100 80GB HBM3", "h100-sxm", ()),
        ("nvidia h100 sxm", "h100-sxm", ()),
    ],
)
def test_a_device_that_is_not_known_as_the_machine_given_is_a_condition(output, device, machine, told):
    record = start(output, hardware=Hardware.load(machine), device=replace(DEVICE, name=device)).run()
    assert tuple(c for c in record.conditions if c.startswith("not recognized")) == told
    if told:
        estimate = decode_estimate("llama-3.1-8b", machine, calibration=record)
        assert set(told) <= set(estimate.notes)


def test_a_spec_of_one_s_own_may_say_how_the_device_calls_itself(output):
    spec = bare(name="slowbox")
    stranger = start(output.with_name("one.json"), hardware=spec).run()
    assert any(c.startswith("not recognized: the device is Pretended CPU, no known name of slowbox") for c in stranger.conditions)
    named = start(output, hardware=spec.but(aliases=("pretended cpu",))).run()
    assert not any("recognized" in c for c in named.conditions)


def test_a_run_goes_on_with_the_machine_that_it_began_with(output):
    with pytest.raises(KeyboardInterrupt):
        start(output, hardware=bare(name="slowbox"), measure=Measure({8: KeyboardInterrupt()})).run()
    record = start(output).run()  # --hardware is forgotten
    assert (record.hardware, record.rates.origin, record.rates.memory_bandwidth) == ("slowbox", "datasheet", BANDWIDTH)
    assert sum(c.startswith("not recognized") for c in record.conditions) == 1


# --- what a rerun leaves alone ---


class Loaded(SilentTelemeter):
    """On a machine whose load is told."""

    def __init__(self, load):
        super().__init__("")
        self.conditions, self.properties = (), {"load_average_at_start": load}


def test_with_nothing_left_to_measure_the_file_is_not_written(output):
    first = start(output, telemeter=Loaded(0.5)).run()
    before, stamp = output.read_bytes(), output.stat()
    told = []
    again = start(output, telemeter=Loaded(9.5)).run(lambda *now: told.append(now))
    assert again == first
    assert output.read_bytes() == before
    assert (output.stat().st_ino, output.stat().st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)
    assert told == []  # nor is anything fitted


def test_a_record_keeps_the_environment_that_it_began_in(output):
    with pytest.raises(KeyboardInterrupt):
        start(output, telemeter=Loaded(0.5), measure=Measure({8: KeyboardInterrupt()})).run()
    record = start(output, telemeter=Loaded(9.5)).run()
    assert record.complete
    assert record.environment.properties["load_average_at_start"] == 0.5


def test_ctrl_c_before_anything_new_leaves_the_file_as_it_was(output):
    complete = start(output, measure=Measure({2: OutOfMemory("x")})).run()
    before = output.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        start(output, measure=Measure({0: KeyboardInterrupt()})).run()
    assert output.read_bytes() == before
    assert load_record(output) == complete


# --- rates that no record can hold ---


def test_a_rate_too_slow_for_a_record_costs_no_sample(output):
    slow = Point("matmul", "int8", "int8", {"m": 1, "n": 64, "k": 64})
    seconds = 2 * 64 * 64 / 1e6  # 1 MFLOP/s
    measure = Measure({len(POINTS): {"seconds": seconds, "low_s": seconds, "high_s": seconds}})
    record = start(output, (*POINTS, slow), measure=measure).run()
    assert record.complete
    assert [s.operand for s in list_samples(record.classes)].count("int8") == 1
    assert set(record.rates.peak_flops_per_s) == {"fp32"}
    assert "too slow for a rate: int8 products at 1 MFLOP/s, below 10 MFLOP/s, left out" in record.conditions


def test_memory_too_slow_for_a_record_costs_no_sample(output):
    crawling = {"seconds": 2**26 / 1e6, "low_s": 2**26 / 1e6, "high_s": 2**26 / 1e6}
    points = (*POINTS, Point("read", "fp32", "fp32", {"bytes": 2**26}))
    record = start(output, points, measure=Measure({len(POINTS): crawling})).run()
    assert record.rates.memory_bandwidth is None
    assert record.rates.peak_flops_per_s
    assert any(c.startswith("too slow for a rate: memory at 1 MB/s") for c in record.conditions)
    assert len(list_samples(record.classes)) == len(points)


# --- arguments ---


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"plan": []}, r"unknown plan '\[\]'.*quick"),
        ({"plan": None}, "unknown plan 'None'"),
        ({"progress": 5}, r"progress is 5; it must be called as progress\(done, points, point\)"),
        ({"ranks": "2"}, "ranks is '2'; it must be a whole number"),
        ({"ranks": [2, 2]}, r"ranks is \[2, 2\]; it must be one whole number"),
    ],
)
def test_arguments_are_checked_before_the_device_is_opened(output, options, word):
    with pytest.raises((InvalidValueError, UnknownNameError), match=word):
        calibrate("cpu", output, **options)


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(("path", "word"), [("~nouser/x.json", r"directory\.$"), (5, "5 is no path"), ("", "output is empty")])
def test_a_path_that_is_none_is_said_in_one_sentence(path, word):
    with pytest.raises(CalibrationError, match=word) as error:
        calibrate("cpu", path)
    assert ".." not in str(error.value)


@pytest.mark.parametrize("ranks", ["2", [2, 2], 0, None, 1.5])
def test_a_session_refuses_ranks_that_are_no_count(output, ranks):
    with pytest.raises(InvalidValueError, match=r"ranks is .*whole number"):
        start(output, ranks=ranks)


@pytest.mark.parametrize("ranks", [np.int64(2), np.float32(2), 2.0])
def test_numbers_of_numpy_are_counts(output, add_up, ranks):
    processes = add_up()
    start(output, ranks=ranks).run()
    assert type(processes.asked[0][0]) is int
    assert processes.asked[0][0] == 2
    assert [starting._count_ranks(DEVICE, n) for n in (np.int64(2), 2.0)] == [2, 2]


def test_a_session_takes_a_path_as_text(output):
    assert start(str(output), POINTS[:4]).run() == load_record(output)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"plan": None}, "plan is None; it must be a plan's name"), ({"plan": []}, r"plan is \[\]"), ({"path": 5}, "5 is no path")],
)
def test_a_session_refuses_what_is_no_name_and_no_path(output, options, word):
    with pytest.raises((InvalidValueError, CalibrationError), match=word):
        start(options.pop("path", output), **options)


def test_progress_that_cannot_be_called_is_refused_before_the_first_point(output):
    measure = Measure()
    with pytest.raises(InvalidValueError, match="progress is 5"):
        start(output, measure=measure).run(5)
    assert measure.done == []


# --- the command, interrupted or with nothing to do ---


def test_ctrl_c_over_another_record_claims_nothing_of_it(command, output):
    command("--output", output)
    before = output.read_bytes()
    wrong = {0: OutOfMemory("x"), 1: OutOfMemory("x"), 2: KeyboardInterrupt()}  # begun, but nothing measured
    result = command("--output", output, "--fresh", measure=Measure(wrong))
    assert result.stderr == f"roofline: interrupted; nothing was measured yet, and {output} is as it was.\n"
    assert output.read_bytes() == before


def test_ctrl_c_before_the_file_is_read_claims_nothing_of_it(command, output, monkeypatch):
    from roofline.cli import calibrate as module

    def stop(*_, **__):
        raise KeyboardInterrupt

    output.write_text("no record")
    monkeypatch.setattr(module, "measure_device", stop)
    assert command("--output", output).stderr == f"roofline: interrupted; nothing was measured yet, and {output} is as it was.\n"


def test_all_reduces_added_to_a_complete_record_are_no_nothing(command, output, add_up):
    command("--output", output)
    processes = add_up()
    result = command("--output", output, "--ranks", 2)
    assert result.exit_code == 0, result.output
    assert len(processes.asked) == 1
    assert f"{len(FULL) + len(SIZES)} points measured" in result.stdout
    assert "Nothing was left" not in result.stdout
    assert "Nothing was left" in command("--output", output, "--ranks", 2).stdout


# --- records that make no machine ---


def estimate_of(*arguments):
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from roofline.cli import app

    return CliRunner().invoke(app, ["estimate", "llama-3.1-8b", *map(str, arguments)])


def test_an_unfinished_record_makes_no_machine_and_says_so(output):
    with pytest.raises(KeyboardInterrupt):
        start(output, measure=Measure({8: KeyboardInterrupt()})).run()
    with pytest.raises(CalibrationError, match=rf"is unfinished: 8 of {len(POINTS)} points measured, .*same command again"):
        Hardware.from_record(output)


def test_a_record_with_a_spec_of_one_s_own_asks_for_the_file(output):
    start(output, FULL, hardware=bare(name="slowbox")).run()
    result = estimate_of("--calibration", output)
    assert result.exit_code == 2
    assert "was measured on slowbox, which is no shipped machine" in result.stderr
    assert f"roofline estimate MODEL SPEC.toml --calibration {output}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "word"), [("generic", "is of no machine in particular"), ("vllm", "is an engine"), ("TensorRT-LLM", "is an engine")]
)
def test_records_of_no_one_machine_need_a_machine(source, word):
    result = estimate_of("--calibration", source)
    assert result.exit_code == 2
    assert word in result.stderr
    assert f"roofline estimate MODEL MACHINE --calibration {source}" in result.stderr
    assert "calibrated(" not in result.stderr
