"""All-reduces as the last points of a plan, and the processes that run them."""

import errno
import multiprocessing
import os

import numpy as np
import pytest

from pretended import DEVICE, POINTS, Measure, reduced, start
from roofline import CalibrationError, InvalidValueError
from roofline.calibration import session, starting
from roofline.calibration.collectives import SIZES, measure_all_reduce
from roofline.calibration.devices import open_device
from roofline.fitting.conditions import check_rates
from roofline.records import Rates, load_record
from roofline.records.samples import list_samples
from roofline.units import show_rate

pytestmark = pytest.mark.usefixtures("remember_fits")


def test_all_reduces_are_the_last_points_of_the_plan(output, pretend_all_reduces):
    processes, told = pretend_all_reduces(), []
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
def test_all_reduces_go_on_where_they_stopped(output, pretend_all_reduces, stop):
    pretend_all_reduces({3: stop})
    with pytest.raises(type(stop)):
        start(output, ranks=2).run()
    kept = load_record(output)
    assert not kept.complete
    assert f"only {len(POINTS) + 3} of {len(POINTS) + len(SIZES)} points of the plan are measured" in kept.conditions[0].text
    assert [s.sizes["bytes"] for s in reduced(kept)] == list(SIZES[:3])
    processes = pretend_all_reduces()
    record = start(output, ranks=2).run()
    assert [sizes for _, sizes, _, _ in processes.asked] == [SIZES[3:]]
    assert [s.sizes["bytes"] for s in reduced(record)] == list(SIZES)
    assert record.complete


def test_all_reduces_have_a_part_of_the_plan_s_time(output, pretend_all_reduces, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])

    def measure(point, device, *, budget_s):
        clock[0] += 2 * budget_s  # every point takes twice the time it is given
        return Measure()(point, device, budget_s=budget_s)

    processes = pretend_all_reduces()
    start(output, ranks=2, measure=measure).run(limit_s=30.0)
    ((_, _, timeout_s, size_s),) = processes.asked
    assert clock[0] + timeout_s <= 30.0
    assert timeout_s >= 15.0  # processes need a while to start
    assert size_s * len(SIZES) <= max(timeout_s - 15.0, 0.1 * len(SIZES))


def test_a_plan_keeps_its_time_on_a_slow_machine(output, pretend_all_reduces, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])

    def measure(point, device, *, budget_s):
        clock[0] += 4.0
        return Measure()(point, device, budget_s=budget_s)

    processes = pretend_all_reduces()
    record = start(output, ranks=2, measure=measure).run(limit_s=30.0)
    assert len(record.classes[0].samples.seconds) == 4  # 30 s less what processes need to start, and one that had begun
    assert any(str(condition).startswith("skipped, the plan's time was over: matmul") for condition in record.conditions)
    assert clock[0] + processes.asked[0][2] <= 30.0
    again = start(output, ranks=2, measure=measure).run()
    assert len(again.classes[0].samples.seconds) == len(POINTS)
    assert not any(condition.code == "skipped" for condition in again.conditions)


def test_all_reduces_that_fail_are_named_and_tried_again(output, pretend_all_reduces):
    pretend_all_reduces({2: CalibrationError("the processes of an all-reduce ended without a result.")})
    record = start(output, ranks=2).run()
    assert record.complete
    assert len(reduced(record)) == 2
    (skipped,) = (condition for condition in record.conditions if condition.code == "skipped")
    assert "ended without a result: all_reduce fp32/fp32" in skipped.text
    assert f"and {len(SIZES) - 2 - 3} more" in skipped.text
    pretend_all_reduces()
    again = start(output, ranks=2).run()
    assert len(reduced(again)) == len(SIZES)
    assert not any(condition.code == "skipped" for condition in again.conditions)


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


def test_a_disk_that_is_full_during_an_all_reduce_ends_the_run(output, pretend_all_reduces, monkeypatch):
    pretend_all_reduces()
    real, full = session.save_record, []

    def save(record, path):
        if full or any(c.family == "all_reduce" for c in record.classes):
            full.append(True)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(record, path)

    monkeypatch.setattr(session, "save_record", save)
    with pytest.raises(CalibrationError, match=r"cannot be written: No space left .* run again to resume"):
        start(output, ranks=2).run()
    assert len(full) == 1
    assert len(list_samples(load_record(output).classes)) == len(POINTS)


def test_one_device_adds_nothing_up(output, monkeypatch):
    monkeypatch.setattr(session, "measure_all_reduce", lambda *_, **__: pytest.fail("asked for all-reduces"))
    assert all(c.family != "all_reduce" for c in start(output).run().classes)


def test_links_faster_than_the_datasheet_are_named_too(output, pretend_all_reduces):
    pretend_all_reduces()  # at 1 GB/s, less 20 µs each
    samples = reduced(start(output, ranks=2).run())
    rates = Rates(origin="datasheet", link_bandwidth=2.5e8)
    (told,) = check_rates(samples, rates, cache_bytes=0, machine="slow")
    reached = SIZES[-1] / (2e-5 + SIZES[-1] / 1e9)
    assert told.text.startswith(f"faster than the datasheet: links at {show_rate(reached, 'B/s')}, 4 times the 250 MB/s of slow")


@pytest.mark.parametrize("ranks", [np.int64(2), np.float32(2), 2.0])
def test_numbers_of_numpy_are_counts(output, pretend_all_reduces, ranks):
    processes = pretend_all_reduces()
    start(output, ranks=ranks).run()
    assert type(processes.asked[0][0]) is int
    assert processes.asked[0][0] == 2
    assert [starting._count_ranks(DEVICE, n) for n in (np.int64(2), 2.0)] == [2, 2]


@pytest.mark.parametrize("ranks", ["2", [2, 2], 0, None, 1.5])
def test_a_session_refuses_ranks_that_are_no_count(output, ranks):
    with pytest.raises(InvalidValueError, match=r"ranks is .*whole number"):
        start(output, ranks=ranks)
