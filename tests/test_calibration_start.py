"""`calibrate`: what it checks before a device is opened, and a small run on this CPU."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pretended import DEVICE
from roofline import CalibrationError, InvalidValueError, UnknownNameError
from roofline.calibration import plan, session, starting
from roofline.calibration.plan import Point
from roofline.calibration.starting import calibrate
from roofline.errors import MissingDependencyError
from roofline.records import load_record

pytestmark = pytest.mark.usefixtures("remember_fits")


@pytest.fixture
def no_device(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the device was opened before the file was tried")

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


def full(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


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


@pytest.mark.usefixtures("no_device")
def test_a_full_disk_is_found_out_before_measuring(output, monkeypatch):
    monkeypatch.setattr(starting.os, "fsync", full(errno.ENOSPC))
    with pytest.raises(CalibrationError, match="No space left on device"):
        calibrate("cpu", output)
    assert os.listdir(output.parent) == []


@pytest.mark.usefixtures("no_device")
def test_unknown_plans_and_machines_are_named(output):
    with pytest.raises(UnknownNameError, match="thorough"):
        calibrate("cpu", output, plan="thoroug")
    with pytest.raises(UnknownNameError, match="h100-sxm"):
        calibrate("cpu", output, hardware="h100-sx")


@pytest.mark.usefixtures("no_device")
def test_without_scipy_nothing_is_begun(output, monkeypatch):
    monkeypatch.setattr(starting, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[calibrate\]' in a checkout"):
        calibrate("cpu", output)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:1", "", 3])
def test_a_device_that_is_not_there_is_named(output, device):
    if device == "cuda:99":
        pytest.importorskip("torch")  # without it, that is what the error is about
    with pytest.raises((CalibrationError, InvalidValueError), match="cpu"):
        calibrate(device, output)


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
    with pytest.raises(CalibrationError, match="ranks is 3, and there are 2 GPUs; the all-reduce benchmark can have at most 2\\."):
        starting._count_ranks(gpu, 3)
    assert [starting._count_ranks(DEVICE, ranks) for ranks in (None, 1, 2)] == [1, 1, 2]
    with pytest.raises(CalibrationError, match="ranks is 3, and there are 2 cores; the all-reduce benchmark can have at most 2\\."):
        starting._count_ranks(DEVICE, 3)


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
    assert text["schema_version"] == 2
