"""A session against pretended kernels: what it keeps, what it refuses, and that it resumes where it stopped."""

import errno
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pretended import BANDWIDTH, MADE, OTHERS, PEAK, POINTS, Measure, made, start
from roofline import CalibrationError, Hardware, InvalidValueError
from roofline.calibration import measure as measuring
from roofline.calibration import session
from roofline.calibration.devices import open_device
from roofline.calibration.measure import DeviceLost, OutOfMemory
from roofline.calibration.plan import Point
from roofline.errors import MissingDependencyError
from roofline.records import Condition, load_record
from roofline.records.conditions import WRONG
from roofline.records.schema import PERCENTILES
from roofline.telemetry.reading import SilentTelemeter

pytestmark = pytest.mark.usefixtures("remember_fits")


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
    assert record.conditions == (Condition(code="no telemetry", text="no telemetry: pretended"),)


def test_with_a_machine_shares_refer_to_its_datasheet(output):
    machine = Hardware.from_rates(memory_bandwidth=BANDWIDTH, peak_flops_per_s=PEAK, name="bare")
    record = start(output, hardware=machine).run()
    assert record.rates.origin == "datasheet"
    assert record.rates.peak_flops_per_s["fp32"] == PEAK
    found = record.classes[0].constants
    for name, value in MADE.items():
        assert found[name].value == pytest.approx(value, rel=0.1)


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


def test_ctrl_c_keeps_what_was_measured_and_a_rerun_goes_on(output):
    first = Measure({8: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        start(output, measure=first).run()
    partial = load_record(output)
    assert not partial.complete
    assert partial.conditions[0].code == "unfinished"
    assert f"8 of {len(POINTS)} points" in partial.conditions[0].text
    second = Measure()
    record = start(output, measure=second).run()
    assert second.done == [p.key for p in POINTS[8:]]
    assert record.complete
    assert record.id == partial.id
    assert record.date == partial.date
    assert not any(condition.code == "unfinished" for condition in record.conditions)
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


KILLED = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {folder!r})
    import pretended as t

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
    skipped = [c for c in record.conditions if c.code == "skipped"]
    assert len(skipped) == 1
    assert word in skipped[0].text
    assert skipped[0].text.count(POINTS[3].key) == 1
    again = Measure()
    record = start(output, measure=again).run()
    assert again.done == [POINTS[3].key]
    assert not [c for c in record.conditions if c.code == "skipped"]


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


def test_a_wrong_result_is_kept_but_not_fitted(output):
    wrong = {"seconds": 1e-9, "low_s": 1e-9, "flags": (WRONG,)}
    right = start(output.with_name("right.json"), POINTS[:6] + POINTS[7:]).run()
    record = start(output, measure=Measure({6: wrong})).run()
    assert record.classes[0].samples.flags == {6: (WRONG,)}
    assert record.classes[0].samples.seconds[6] == 1e-9
    assert record.classes[0].constants == right.classes[0].constants
    assert record.rates == right.rates


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


def test_a_lost_device_ends_the_run_and_its_point_comes_last_in_the_next(output):
    lost = Measure({2: DeviceLost(f"{POINTS[2].key} does not run on cuda:0: CUDA error: an illegal memory access was encountered.")})
    record = start(output, measure=lost).run()
    assert lost.done == [point.key for point in POINTS[:3]]
    text = f"device lost: {POINTS[2].key}: does not run on cuda:0: CUDA error: an illegal memory access was encountered"
    assert Condition(code="device lost", text=text, point=POINTS[2].key) in record.conditions
    assert any(str(condition).startswith("skipped, the device was lost: ") for condition in record.conditions)
    again = Measure()
    record = start(output, measure=again).run()
    assert again.done == [point.key for point in (*POINTS[3:], POINTS[2])]
    assert not any(condition.code == "device lost" for condition in record.conditions)


def test_a_device_that_computes_no_more_is_told_from_a_kernel_that_does_not_run(monkeypatch):
    torch = pytest.importorskip("torch")
    device, point = open_device("cpu"), Point("matmul", "fp32", "fp32", {"m": 1, "n": 8, "k": 8})

    def fail(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(measuring, "prepare", fail)
    with pytest.raises(CalibrationError, match="does not run on cpu: CUDA error: an illegal") as told:
        measuring.measure(point, device)
    assert not isinstance(told.value, DeviceLost)
    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(DeviceLost, match="does not run on cpu"):
        measuring.measure(point, device)


class Loaded(SilentTelemeter):
    """On a machine whose load is told."""

    def __init__(self, load):
        super().__init__("")
        self.conditions, self.properties = (), {"load_average_at_start": load}


def test_a_record_keeps_the_environment_that_it_began_in(output):
    with pytest.raises(KeyboardInterrupt):
        start(output, telemeter=Loaded(0.5), measure=Measure({8: KeyboardInterrupt()})).run()
    record = start(output, telemeter=Loaded(9.5)).run()
    assert record.complete
    assert record.environment.properties["load_average_at_start"] == 0.5


def test_with_nothing_left_to_measure_the_file_is_not_written(output):
    first = start(output, telemeter=Loaded(0.5)).run()
    before, stamp = output.read_bytes(), output.stat()
    told = []
    again = start(output, telemeter=Loaded(9.5)).run(lambda *now: told.append(now))
    assert again == first
    assert output.read_bytes() == before
    assert (output.stat().st_ino, output.stat().st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)
    assert told == []  # nor is anything fitted


def test_ctrl_c_before_anything_new_leaves_the_file_as_it_was(output):
    complete = start(output, measure=Measure({2: OutOfMemory("x")})).run()
    before = output.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        start(output, measure=Measure({0: KeyboardInterrupt()})).run()
    assert output.read_bytes() == before
    assert load_record(output) == complete


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


# ------------------------------------------------------------------------------------------------------------- two runs on one file


def test_a_second_run_on_one_file_is_refused_and_nothing_is_lost(output):
    refused = []

    class Disturbed(Measure):
        """Kernels between which somebody starts a second run on the same file."""

        def __call__(self, point, device, **options):
            if len(self.budgets) == 5:
                with pytest.raises(CalibrationError, match=rf"{output.name}: another run is writing this record; wait for it") as caught:
                    start(output).run()
                refused.append(caught.value)
            return super().__call__(point, device, **options)

    record = start(output, measure=Disturbed()).run()
    assert len(refused) == 1
    assert record.complete
    assert len(record.classes[0].samples.seconds) == len(POINTS)
    assert sorted(file.name for file in output.parent.iterdir()) == [output.name]  # no lock is left behind


def test_a_run_that_was_prepared_before_another_finished_does_not_overwrite_it(output):
    late = start(output, POINTS[:4])
    finished = start(output).run()
    with pytest.raises(CalibrationError, match="another run has written this record meanwhile; start again to resume it"):
        late.run()
    assert load_record(output) == finished


def test_the_lock_of_a_run_that_was_killed_does_not_stop_the_next(output):
    output.with_name(f".{output.name}.lock").touch()
    assert start(output).run().complete


def test_a_record_that_is_removed_during_a_run_is_written_again(output):
    class Removed(Measure):
        def __call__(self, point, device, **options):
            output.unlink(missing_ok=True)
            return super().__call__(point, device, **options)

    assert start(output, measure=Removed()).run().complete
