"""Calibration records: files that come back as they were, writes that cannot lose any, and machines that carry one."""

import copy
import errno
import json
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from roofline import ask_again, decode_estimate, decode_floor
from roofline.errors import CalibrationError, InvalidValueError, RooflineError, SpecError, UnknownNameError
from roofline.formats import OPERANDS
from roofline.hardware import Hardware
from roofline.records import (
    CalibrationRecord,
    Condition,
    Environment,
    FittedConstant,
    Flag,
    KernelClass,
    Rates,
    Samples,
    Telemetry,
    list_records,
    load_record,
    save_record,
    store,
)
from roofline.records.conditions import WRONG
from roofline.records.schema import PERCENTILES
from roofline.records.store import shipped_records
from roofline.records.writing import write_json

H100 = Hardware.load("h100-sxm")


def share(value):
    return FittedConstant(value=value, low=0.9 * value, high=min(1, 1.1 * value), unit="-")


def kernel_class(**changed):
    samples = Samples(
        sizes={"m": (1, 16, 4096), "n": (8192, 8192, 262144), "k": (8192, 28672, 8192)},
        seconds=(4.512345e-5, 1.6e-4, 0.02512345),
        low_s=(4.5e-5, 1.5e-4, 0.025),
        high_s=(4.6e-5, 1.7e-4, 0.026),
        moved_bytes=(134250496, 470646784, 6510608384),  # more than 7 digits, and kept
        flags={1: (Flag(code="throttled", detail="SwPowerCap"), WRONG)},
        telemetry=(Telemetry(sm_clock_hz=1.755e9, power_w=512.3, throttle_reasons=("SwPowerCap",)), None, Telemetry()),
    )
    fit = {"compute_share": share(0.76), "fixed_s": FittedConstant(value=4e-6, low=3.3333333333333333e-6, high=5e-6, unit="s")}
    fields = {"family": "matmul", "stored": "bf16", "operand": "bf16", "fixed_sizes": {"bias": False, "out": "bf16", "ranks": 1}}
    fields |= {"samples": samples, "constants": fit, "residual_quantiles": tuple(p / 1000 - 0.05 for p in PERCENTILES), "error": 0.04}
    return KernelClass(**fields | changed)


def record(**changed):
    fields = {
        "id": "h100-sxm-lab",
        "hardware": "h100-sxm",
        "date": "2026-11-30T12:00:00+00:00",
        "source": 'measured by hand: "quoted", µs, ×',
        "environment": Environment(device="NVIDIA H100 80GB HBM3", software={"torch": "2.13.0"}, properties={"ecc": True, "mig": None}),
        "rates": Rates(origin="datasheet", peak_flops_per_s={"bf16": 989.4e12}, memory_bandwidth=3.352e12, link_bandwidth=450e9),
        "classes": (kernel_class(), kernel_class(stored="fp8", operand="fp8")),
        "overheads": {"launch_s": FittedConstant(value=2.3e-6, low=2e-6, high=3e-6, unit="s")},
        "conditions": (Condition(code="device busy", text="device busy: kernels were running"),),
        "plan": "quick",
    }
    return CalibrationRecord(**fields | changed)


def measured(**changed):
    """A record of a device that has no spec."""
    rates = Rates(origin="measured", peak_flops_per_s={"fp32": 6e11, "int8": 4e8}, memory_bandwidth=4e10)
    environment = Environment(device="8-core CPU", properties={"memory_bytes": 64 * 10**9, "cache_bytes": 32 * 2**20})
    return record(**{"id": "my-cpu", "hardware": "", "environment": environment, "rates": rates, "classes": ()} | changed)


# --------------------------------------------------------------------------------------------------------------- round trips


def test_a_record_comes_back_as_it_was(tmp_path):
    path = tmp_path / "lab.json"
    assert save_record(record(), path) == path
    again = load_record(path)
    assert again == record()
    assert type(again.classes[0].fixed_sizes["bias"]) is bool
    assert type(again.classes[0].fixed_sizes["ranks"]) is int
    assert load_record(str(path)) == again
    assert load_record(again) is again
    assert load_record(json.loads(path.read_text())) == again
    assert load_record(again.model_dump()) == again  # tuples, integer keys and all


def test_samples_are_rounded_to_seven_digits_and_nothing_else_is(tmp_path):
    exact = 1 / 3
    samples = Samples(sizes={"m": (123456789, exact)}, seconds=(exact, 3.0))
    constants = {"bandwidth_share": FittedConstant(value=exact, low=exact, high=exact, unit="-")}
    rates = Rates(origin="measured", memory_bandwidth=exact * 1e12)
    save_record(record(classes=(kernel_class(samples=samples, constants=constants),), rates=rates), tmp_path / "a.json")
    again = load_record(tmp_path / "a.json")
    assert again.classes[0].samples.sizes["m"] == (123456789, 0.3333333)
    assert again.classes[0].samples.seconds == (0.3333333, 3)
    assert again.classes[0].constants["bandwidth_share"].value == exact
    assert again.rates.memory_bandwidth == exact * 1e12
    save_record(again, tmp_path / "b.json")  # and rounding once is enough
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_one_column_stands_on_one_line(tmp_path):
    lines = save_record(record(), tmp_path / "lab.json").read_text().splitlines()
    assert '     "m": [1,16,4096],' in lines
    assert '    "seconds": [4.512345e-05,0.00016,0.02512345],' in lines
    assert lines[1] == ' "schema_version": 2,'
    assert "µs, ×" in "".join(lines)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = save_record(record(), tmp_path / "lab.json")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_record(path) == record()


def test_a_text_that_names_a_file_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_record(record(), "lab")
    assert load_record("lab") == record()


def test_records_are_frozen():
    with pytest.raises(AttributeError, match="a CalibrationRecord is frozen: id cannot be set"):
        record().id = "other"


def test_importing_the_room_builds_no_validator():
    script = "from roofline.records import CalibrationRecord; print(CalibrationRecord.__pydantic_complete__)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


# -------------------------------------------------------------------------------------------------------------------- writing


def failing(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch, call, code):
    path = save_record(record(), tmp_path / "lab.json")
    before = path.read_bytes()
    monkeypatch.setattr(os, call, failing(OSError(code, os.strerror(code))))
    with pytest.raises(CalibrationError, match=rf"lab\.json: cannot be written: {os.strerror(code)}") as caught:
        save_record(record(plan="thorough"), path)
    monkeypatch.undo()
    assert isinstance(caught.value, ValueError)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]  # no draft is left behind


def test_an_interrupt_keeps_what_was_there(tmp_path, monkeypatch):
    path = save_record(record(), tmp_path / "lab.json")
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        save_record(record(plan="thorough"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_that_dies_while_writing_keeps_what_was_there(tmp_path):
    path = save_record(record(), tmp_path / "lab.json")
    script = f"""
import os
from roofline.records import load_record, save_record
record = load_record({str(path)!r})
os.fsync = lambda handle: os._exit(9)
save_record(record.model_copy(update={{"plan": "thorough"}}), {str(path)!r})
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert load_record(path) == record()


def test_a_full_disk_is_said(tmp_path):
    pytest.importorskip("resource")
    path = save_record(record(), tmp_path / "lab.json")
    script = f"""
import resource, signal
from roofline.records import load_record, save_record
record = load_record({str(path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))  # no file may grow beyond this
save_record(record.model_copy(update={{"plan": "thorough"}}), {str(path)!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "CalibrationError" in done.stderr.splitlines()[-1]
    assert "cannot be written: File too large" in done.stderr
    assert load_record(path) == record()
    assert list(tmp_path.iterdir()) == [path]


def test_where_a_record_cannot_be_written(tmp_path):
    with pytest.raises(CalibrationError, match=r"there is no folder .*absent"):
        save_record(record(), tmp_path / "absent" / "lab.json")
    with pytest.raises(CalibrationError, match="it is a folder"):
        save_record(record(), tmp_path)
    with pytest.raises(CalibrationError, match="cannot be written: a path has no null bytes"):
        save_record(record(), "lab\0.json")
    with pytest.raises(CalibrationError, match="it is no plain file"):
        save_record(record(), os.devnull)
    assert not os.path.isfile(os.devnull)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="an administrator may write anywhere")
def test_a_folder_without_permission_is_said(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CalibrationError, match="cannot be written: Permission denied"):
        save_record(record(), tmp_path / "lab.json")


def test_a_link_is_followed(tmp_path):
    target, link = tmp_path / "lab.json", tmp_path / "latest.json"
    save_record(record(), target)
    link.symlink_to(target)
    save_record(record(plan="thorough"), link)
    assert link.is_symlink()
    assert load_record(target).plan == "thorough"


# ------------------------------------------------------------------------------------------------------------- broken records


def plain():
    return json.loads(store._as_json(record().model_dump()))


def at(data, *path):
    for key in path:
        data = data[key]
    return data


SAMPLES = ("classes", 0, "samples")
FIT = ("classes", 0, "constants")


@pytest.mark.parametrize(
    ("path", "key", "value", "message"),
    [
        ((), "schema_version", 3, "schema_version is 3: it was written by a newer roofline; this one reads version 2: upgrade roofline"),
        ((), "schema_version", 1, "schema_version is 1: it was written by an older roofline, .*reads version 2: measure or fit it again"),
        ((), "schema_version", "2", "schema_version is '2'; it should be 2"),
        ((), "conditions", ["slow"], "conditions.0 is 'slow'"),
        ((), "conditions", [{"code": "slow", "text": "x"}], "conditions.0.code is 'slow'; it should be 'unfinished', "),
        ((), "conditions", [{"code": "note", "text": "x", "texts": ""}], "conditions.0.texts is not a known key; nearest: text"),
        ((), "overhead", {}, "overhead is not a known key; nearest: overheads"),
        ((), "id", "", "id is ''"),
        ((), "date", "30.11.2026", "date is '30.11.2026'; it must be in ISO 8601"),
        ((), "classes", {}, r"classes is \{\}; it should be a valid array"),
        (("environment",), "softwares", {}, "environment.softwares is not a known key; nearest: software"),
        (("environment",), "properties", {"clocks": [1]}, r"environment.properties.clocks is \[1\]; it must be a text, a finite number"),
        (("environment",), "properties", {"clock": math.inf}, "environment.properties.clock is inf"),
        (("rates",), "origin", "guessed", "rates.origin is 'guessed'; it should be 'datasheet', 'measured' or 'fraction'"),
        (("rates",), "memory_bandwith", 3e12, "rates.memory_bandwith is not a known key; nearest: memory_bandwidth"),
        (("rates",), "memory_bandwidth", 3352, "rates.memory_bandwidth is 3352; it must be a rate in B/s"),
        (("rates",), "memory_bandwidth", "3.352e12", "rates.memory_bandwidth is '3.352e12'; it should be a valid number"),
        (("rates",), "memory_bandwidth", math.nan, "rates.memory_bandwidth is nan; it should be a finite number"),
        (("rates", "peak_flops_per_s"), "bf16", -1, "rates.peak_flops_per_s.bf16 is -1"),
        (("rates", "peak_flops_per_s"), "bfloat16", 1e15, "rates.peak_flops_per_s has an unknown operand format 'bfloat16'; nearest: bf16"),
        (("classes", 0), "operand", "bf-16", "classes.0.operand is an unknown operand format 'bf-16'; nearest: bf16"),
        (("classes", 0), "family", "", "classes.0.family is ''"),
        (("classes", 0), "sample", {}, "classes.0.sample is not a known key; nearest: samples"),
        (("classes", 0), "error", -0.1, "classes.0.error is -0.1; it should be greater than or equal to 0"),
        (("classes", 0), "fixed_sizes", {"head_dim": None, "ranks": [2]}, r"classes.0.fixed_sizes.ranks is \[2\]"),
        (("classes", 1), "residual_quantiles", [0.1] * 12, "classes.1.residual_quantiles has 12 values; it must have 13"),
        (("classes", 1), "residual_quantiles", [*range(12), 5], "residual_quantiles falls from 11 to 5 at place 12; it must be sorted"),
        (("classes", 1), "residual_quantiles", [math.nan] * 13, "classes.1.residual_quantiles.0 is nan; it should be a finite"),
        (
            ("classes", 1),
            "step_quantiles",
            {"decoding": [0.1] * 13},
            "step_quantiles has an unknown kind of step 'decoding'; nearest: decode",
        ),
        (("classes", 1), "step_quantiles", {"prefill": []}, "step_quantiles.prefill is empty; it has 13 values, or is left out"),
        (SAMPLES, "second", [], "classes.0.samples.second is not a known key; nearest: seconds"),
        (SAMPLES, "seconds", [1e-3, math.nan, 1e-3], "classes.0.samples.seconds.1 is nan; it should be a finite number"),
        (SAMPLES, "seconds", [1e-3, 1e-3, math.inf], "classes.0.samples.seconds.2 is inf; it should be a finite number"),
        (SAMPLES, "seconds", [0.02, -1e-3, 0.02], "classes.0.samples.seconds.1 is -0.001; a time must be positive"),
        (SAMPLES, "seconds", [0, 1e-3, 0.02], "classes.0.samples.seconds.0 is 0; a time must be positive"),
        (SAMPLES, "seconds", [1e-3, True, 1], "classes.0.samples.seconds.1 is True"),
        (SAMPLES, "seconds", [1e-3], "classes.0.samples.sizes.m has 3 values, but seconds has 1; every column"),
        ((*SAMPLES, "sizes"), "k", [1, 2], "classes.0.samples.sizes.k has 2 values, but seconds has 3"),
        ((*SAMPLES, "sizes"), "k", [1, -2, 3], "classes.0.samples.sizes.k.1 is -2; it must not be negative"),
        (SAMPLES, "low_s", [1], "classes.0.samples.low_s has 1 value, but seconds has 3"),
        (SAMPLES, "telemetry", [None], "classes.0.samples.telemetry has 1 value, but seconds has 3"),
        (SAMPLES, "low_s", [4.5e-5, 1, 0.025], "classes.0.samples.low_s.1 is 1, above seconds.1"),
        (SAMPLES, "high_s", [4.6e-5, 1.7e-4, 0.02], "classes.0.samples.seconds.2 is 0.0251.*, above high_s.2, 0.02"),
        (SAMPLES, "moved_bytes", [1, 2, -3], "classes.0.samples.moved_bytes.2 is -3; it must not be negative"),
        (SAMPLES, "flags", {"3": [{"code": "throttled"}]}, "classes.0.samples.flags.3 is of no sample; there are 3"),
        ((*SAMPLES, "telemetry", 0), "clock", 1, "classes.0.samples.telemetry.0.clock is not a known key; nearest: .*_clock_hz"),
        ((*SAMPLES, "telemetry", 0), "power_w", -1, "telemetry.0.power_w is -1; it should be greater than or equal to 0"),
        ((*FIT, "compute_share"), "low", 0.8, "classes.0.constants.compute_share.value is 0.76; it must lie in its own interval, low 0.8"),
        ((*FIT, "compute_share"), "high", 0.7, "compute_share.value is 0.76; it must lie in its own interval"),
        ((*FIT, "compute_share"), "high", 1.2, r"constants.compute_share is 0.76 \(0.684 to 1.2\); a share of a rate must be .* at most 1"),
        ((*FIT, "compute_share"), "low", 0, "constants.compute_share is 0.76.*must be above 0"),
        ((*FIT, "compute_share"), "unit", "", "compute_share.unit is ''"),
        ((*FIT, "compute_share"), "values", 1, "classes.0.constants.compute_share.values is not a known key; nearest: value"),
        ((*FIT, "fixed_s"), "low", -1e-6, "classes.0.constants.fixed_s is 4e-06 s.*a time must not be negative"),
        (("overheads", "launch_s"), "unit", "us", "overheads.launch_s is in 'us'; it must be in 's'"),
        (("overheads", "launch_s"), "low", -1, "overheads.launch_s is 2.3e-06 s.*a time must not be negative"),
    ],
)
def test_a_bad_record_gives_one_error_that_names_file_and_key(tmp_path, path, key, value, message):
    data = plain()
    at(data, *path)[key] = value
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(data))
    with pytest.raises(CalibrationError, match=message) as caught:
        load_record(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert str(caught.value).count("\n") == 0
    assert "pydantic" not in str(caught.value)
    assert caught.value.__suppress_context__
    with pytest.raises(CalibrationError, match=message):
        load_record(data)


def test_two_classes_of_the_same_kernels_are_refused():
    twice = plain() | {"classes": [plain()["classes"][0]] * 2}
    with pytest.raises(
        CalibrationError, match=r"classes\.1 is of the same family 'matmul', stored 'bf16' and operand 'bf16' as classes\.0"
    ):
        load_record(twice)
    twice["classes"][1] = twice["classes"][1] | {"fixed_sizes": {"ranks": 2}}
    assert len(load_record(twice).classes) == 2


@pytest.mark.parametrize("key", ["schema_version", "id", "date", "source", "environment", "rates"])
def test_a_missing_key_is_named(key):
    data = plain()
    del data[key]
    with pytest.raises(CalibrationError, match=f"the record: {key} is missing"):
        load_record(data)


def test_a_newer_record_is_said_to_be_newer_whatever_else_it_holds():
    with pytest.raises(CalibrationError, match=r"schema_version is 7: it was written by a newer roofline") as caught:
        load_record({"schema_version": 7, "kernels": []})
    assert "kernels" not in str(caught.value)


def test_a_file_cut_short_anywhere_is_said_to_be(tmp_path):
    text = save_record(record(), tmp_path / "lab.json").read_bytes()
    file = tmp_path / "cut.json"
    for length in range(0, len(text) - 2, 97):
        file.write_bytes(text[:length])
        with pytest.raises(CalibrationError, match=r"cut\.json: not valid JSON, cut short or corrupted: "):
            load_record(file)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"\xff\xfe", b"[" * 100_000, b"[1, 2]", b"null", b'"text"', b'{"schema_version": 1e400}', b'{"id": "\xff"}', b"NaN"],
)
def test_other_broken_files(tmp_path, content):
    file = tmp_path / "bad.json"
    file.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"bad\.json: "):
        load_record(file)


def test_many_faults_are_counted_not_listed():
    data = plain()
    data["classes"][0]["samples"]["seconds"] = [math.nan] * 1000
    with pytest.raises(CalibrationError, match="and 995 more") as caught:
        load_record(data)
    assert len(str(caught.value)) < 1000


def test_only_records_are_saved_and_only_under_paths(tmp_path):
    with pytest.raises(InvalidValueError, match="is a CalibrationRecord, not NoneType"):
        save_record(None, tmp_path / "x.json")
    with pytest.raises(InvalidValueError, match="saved under a path, not under None"):
        save_record(record(), None)


def test_overheads_and_residuals_must_be_some():
    data = json.loads(record().model_dump_json())
    with pytest.raises(CalibrationError, match="overheads has an unknown overhead 'lunch_s'; nearest: launch_s"):
        load_record(data | {"overheads": {"lunch_s": {"value": 1e-6, "low": 1e-6, "high": 1e-6, "unit": "s"}}})
    far = {"family": "matmul", "stored": "bf16", "operand": "bf16", "residual_quantiles": [0.0] * 12 + [1e3]}
    with pytest.raises(CalibrationError, match="logarithms of measured / fitted lie within"):
        load_record(data | {"classes": [far]})


def test_what_is_no_record():
    with pytest.raises(CalibrationError, match="cannot be read: No such file"):
        load_record("absent.json")
    with pytest.raises(CalibrationError, match="cannot be read"):
        load_record("no/such/file")
    with pytest.raises(InvalidValueError, match="not 7"):
        load_record(7)
    with pytest.raises(InvalidValueError, match="not None"):
        load_record(None)
    with pytest.raises(CalibrationError, match="what JSON cannot"):
        load_record({"id": object()})


# ------------------------------------------------------------------------------------------------------------ shipped records


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Ship the records given, and those alone, for the length of a test."""

    def clear():
        for cached in (store._record_files, store._opened, store._shipped):
            cached.cache_clear()

    def ship(*records):
        for one in records:
            save_record(one, tmp_path / "_hardware_specs" / "measured" / f"{one.id}.json")
        clear()

    (tmp_path / "_hardware_specs" / "measured").mkdir(parents=True)
    monkeypatch.setattr(store, "spec_folder", lambda: tmp_path / "_hardware_specs")
    clear()
    yield ship
    monkeypatch.undo()
    clear()


def test_the_preferred_record_is_finished_then_of_the_first_engine_then_new(shipped):
    shipped(
        record(id="h100-sxm-vllm-2", complete=False, date="2027-01-01"),
        record(id="h100-sxm-other", date="2026-05-01"),
        record(id="h100-sxm-trtllm-1", date="2026-03-01"),
        record(id="h100-sxm-vllm-0", date="2026-02-01"),
        record(id="h100-sxm-vllm-1", date="2026-01-01"),
        record(id="h100-sxm-nvl", hardware="h100-sxm-nvl"),  # another machine, whose id begins alike
        record(id="generic", hardware="", rates=Rates(origin="fraction")),
    )
    order = ["vllm-0", "vllm-1", "trtllm-1", "other", "vllm-2"]
    assert shipped_records("h100-sxm") == [f"h100-sxm-{name}" for name in order]
    assert shipped_records("a100") == []
    assert shipped_records("h100-sxm", "trtllm") == ["h100-sxm-trtllm-1"]
    assert shipped_records("h100-sxm", "sglang") == []
    assert list_records() == ["generic", "h100-sxm-nvl", *sorted(f"h100-sxm-{name}" for name in order)]
    assert Hardware.load("H100").calibrated().calibration is load_record("H100 SXM vLLM-0")
    assert Hardware.load("l4").calibrated("generic").calibration.id == "generic"
    assert H100.calibrated("TensorRT-LLM").calibration.id == H100.calibrated("trtllm").calibration.id == "h100-sxm-trtllm-1"
    with pytest.raises(CalibrationError, match="no calibration record of SGLang on h100-sxm is shipped; there are those of no machine"):
        H100.calibrated("sglang")
    with pytest.raises(CalibrationError, match=r"no calibration record of vLLM on l4 is shipped; there are those of h100-sxm\."):
        Hardware.load("l4").calibrated("vllm")
    with pytest.raises(UnknownNameError, match=r"unknown calibration record 'v'.* of an engine, by its name: vllm, trtllm, sglang"):
        H100.calibrated("v")


def test_a_record_that_is_not_shipped(shipped):
    with pytest.raises(UnknownNameError, match=r"unknown calibration record 'h100-sxm-lab'.*none is shipped.*its path"):
        load_record("h100-sxm-lab")
    with pytest.raises(CalibrationError, match=r"no calibration record of h100-sxm is shipped; there are those of no machine"):
        H100.calibrated()
    shipped(record())
    with pytest.raises(UnknownNameError, match="unknown calibration record 'h100-lab'; nearest: h100-sxm-lab"):
        load_record("h100-lab")
    with pytest.raises(CalibrationError, match=r"no calibration record of l4 is shipped; there are those of h100-sxm\."):
        Hardware.load("l4").calibrated()


def test_a_broken_shipped_record_is_named(shipped, tmp_path):
    (tmp_path / "_hardware_specs" / "measured" / "h100-sxm-lab.json").write_text("{")
    with pytest.raises(CalibrationError, match=r"h100-sxm-lab\.json: not valid JSON"):
        load_record("h100-sxm-lab")


@pytest.mark.parametrize("name", list_records())
def test_every_shipped_record_is_of_its_machine(name):
    shipped = load_record(name)
    assert shipped.id == name
    assert not store._is_path(name)
    assert shipped.complete
    if shipped.rates.origin != "fraction":
        assert name.startswith(shipped.hardware)
        assert Hardware.load(shipped.hardware).calibrated(name).calibration is shipped
        assert name in shipped_records(shipped.hardware)


# --------------------------------------------------------------------------------------------------------- calibrated machines


def ceilings(machine):
    named = ("memory_ceiling", "capacity_ceiling", "cache_ceiling", "link_ceiling", "network_ceiling", "host_ceiling", "vector_peak")
    return [*(machine.peak(operand) for operand in OPERANDS), *(getattr(machine, name) for name in named)]


def test_a_calibration_leaves_every_datasheet_figure(tmp_path):
    path = save_record(record(), tmp_path / "lab.json")
    for source in (record(), path, str(path), plain()):
        machine = H100.calibrated(source)
        assert machine.calibration == record()
        assert machine.to_dict() == H100.to_dict()
        assert ceilings(machine) == ceilings(H100)
    assert H100.calibration is None
    assert decode_floor("70B", machine).time_s == decode_floor("70B", H100).time_s


def test_calibrated_machines_compare_by_their_record():
    one, same, other = H100.calibrated(record()), H100.calibrated(record()), H100.calibrated(record(plan="thorough"))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != H100
    assert one != H100
    assert Hardware.load(one) is one
    assert repr(one) == "<Hardware h100-sxm, calibrated by h100-sxm-lab>"
    assert str(one) == f"{H100}, calibrated by h100-sxm-lab"


def test_a_calibrated_machine_keeps_the_name_it_was_asked_for():
    assert Hardware.load("H100").calibrated(record()).alias_note == Hardware.load("H100").alias_note != ""


@pytest.mark.parametrize("again", [lambda m: pickle.loads(pickle.dumps(m)), copy.copy, copy.deepcopy])
def test_copies_keep_the_calibration(again):
    machine = H100.calibrated(record())
    machine.peak("bf16")
    assert again(machine) == machine
    assert again(machine).calibration == record()
    assert again(machine).peak("fp8") == machine.peak("fp8")


def test_the_record_of_another_machine_is_refused():
    message = r"calibration record h100-sxm-lab cannot be used for h200-sxm; it was measured on h100-sxm \(NVIDIA H100 80GB HBM3\)"
    with pytest.raises(CalibrationError, match=message):
        Hardware.load("h200-sxm").calibrated(record())
    with pytest.raises(CalibrationError, match=r"my-cpu cannot be used for h100-sxm; it was measured on 8-core CPU.*from_record"):
        H100.calibrated(measured())
    anywhere = record(hardware="", rates=Rates(origin="fraction"))
    assert Hardware.load("h200-sxm").calibrated(anywhere).calibration is anywhere


def test_a_sister_chip_takes_the_shares_of_a_record_of_its_own_rates():
    """H800 is H100's die with fewer links (DeepSeek-V3, arXiv 2412.19437), H200 the same with 4.8 TB/s of memory."""
    with pytest.raises(CalibrationError, match=r"measured on h100-sxm .*, a sister chip: calibrated\(…, sister=True\) takes its shares"):
        Hardware.load("h800-sxm").calibrated(record())
    h200 = Hardware.load("h200-sxm").calibrated(record(), sister=True)
    kept = h200.calibration
    assert (kept.id, kept.hardware, kept.rates.memory_bandwidth, kept.rates.link_bandwidth) == ("h100-sxm-lab", "h200-sxm", 4.8e12, 450e9)
    assert kept.classes == record().classes
    assert str(kept.conditions[-1]).startswith("measured on h100-sxm, a sister chip (Hopper GH100)")
    assert Hardware.load("h800-sxm").calibrated(record(), sister=True).calibration.rates.link_bandwidth == 200e9
    assert H100.calibrated(record(), sister=True).calibration == record()  # its own is none
    with pytest.raises(CalibrationError, match=r"cannot be used for a100-sxm-80gb; it was measured on h100-sxm \([^)]*\)\.$"):
        Hardware.load("a100").calibrated(record(), sister=True)


def test_shares_of_peaks_are_larger_where_a_sister_chip_is_sold_at_half_the_rate():
    """AD102 does 512 FLOP of bf16 per SM and clock in an RTX 4090, 165.2 TFLOP/s of 128 SMs at 2.52 GHz, and 1,012 in an L40S (NVIDIA's data sheets)."""
    shipped, sister = load_record("l40s-vllm-0.24.0"), Hardware.load("rtx-4090").calibrated(sister=True).calibration
    ratio = (362.05 / (142 * 2.52)) / (165.2 / (128 * 2.52))
    for theirs, mine in zip(shipped.classes, sister.classes, strict=True):
        shares = [one.constants["compute_share"].value for one in (theirs, mine) if "compute_share" in one.constants]
        assert not shares or shares[1] == pytest.approx(min(1.0, ratio * shares[0]), rel=0.01)
        if shares and theirs.shapes is not None:
            columns = [np.array(one.shapes.constants["compute_share"]) for one in (theirs, mine)]
            assert columns[1] == pytest.approx(np.minimum(1.0, ratio * columns[0]), rel=0.01)
    assert "do 1/1.98 of its arithmetic per clock" in str(sister.conditions[-1])
    estimate = decode_estimate("llama-3-8b", "rtx-4090", batch=4, context=512)
    assert ask_again(estimate.to_dict()).time_s == estimate.time_s
    assert Hardware.load("rtx-6000-ada").calibrated(sister=True).calibration.classes == shipped.classes  # 1,024: L40S's


def test_the_record_of_a_sister_is_found_by_engine_or_by_default():
    for engine in (None, "vllm"):
        assert Hardware.load("h800-sxm").calibrated(engine, sister=True).calibration.id.startswith("h100-sxm-vllm")
    assert Hardware.load("h200-sxm").calibrated(sister=True).calibration.id.startswith("h200-sxm")  # its own comes first
    with pytest.raises(CalibrationError, match="no calibration record of l4 is shipped"):
        Hardware.load("l4").calibrated(sister=True)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"memory_bandwidth": 3e12}, r"shares of 3 TB/s memory bandwidth, but this h100-sxm has 3\.352 TB/s"),
        ({"peak_flops_per_s": {"fp8": 989.4e12}}, r"shares of 989\.4 TFLOP/s fp8 peak, but this h100-sxm has 1\.979 PFLOP/s"),
    ],
)
def test_shares_of_other_rates_than_the_spec_has_are_refused(rates, message):
    with pytest.raises(CalibrationError, match=message):
        H100.calibrated(record(rates=Rates(origin="datasheet", **rates)))
    assert H100.calibrated(record(rates=Rates(origin="measured", **rates))).calibration.rates.origin == "measured"


# ------------------------------------------------------------------------------------------------------ machines made of a record


def test_a_machine_made_of_a_record():
    machine = Hardware.from_record(measured())
    assert (machine.id, machine.name, machine.memory_bandwidth, machine.memory_capacity) == ("my-cpu", "8-core CPU", 4e10, 64 * 10**9)
    assert machine.last_level_cache == 32 * 2**20
    assert machine.peak("fp32").value == 6e11
    assert machine.peak("int8").value == 6e11  # its own 0.4 GFLOP/s is no mode worth having
    assert machine.calibration == measured()
    assert machine.notes == ("device busy: kernels were running",)
    for ceiling in (machine.peak("fp32"), machine.memory_ceiling, machine.capacity_ceiling, machine.cache_ceiling):
        assert ceiling.evidence == "M"
        assert ceiling.source.startswith("calibration record my-cpu, 2026-11-30")
    assert machine.link_ceiling is None
    assert machine == Hardware.from_record(measured())
    assert machine.calibrated(measured()) == machine
    assert pickle.loads(pickle.dumps(machine)) == machine


def test_floors_on_a_measured_machine_say_so():
    floor = decode_floor("llama-2-7b", Hardware.from_record(measured()))
    assert {c.evidence for c in floor.ceilings if math.isfinite(c.value)} == {"M"}
    read = 2 * (6_738_415_616 - 32_000 * 4096) - 32 * 2**20  # bf16 weights less the embedding table, less what stays in the cache
    assert floor.time_s == pytest.approx(read / 4e10, rel=1e-3)


def test_what_was_not_measured_is_unknown():
    bare = measured(environment=Environment(device="thing"), rates=Rates(origin="measured", memory_bandwidth=4e10, link_bandwidth=2e9))
    machine = Hardware.from_record(bare)
    assert machine.memory_capacity is None
    assert machine.last_level_cache == 0
    assert machine.peak("bf16").value == math.inf
    assert (machine.link_ceiling.value, machine.link_ceiling.evidence) == (2e9, "M")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rates": Rates(origin="fraction")}, "are not measured .origin 'fraction'.*load a machine"),
        ({"rates": record().rates, "hardware": "h100-sxm"}, r"are not measured .origin 'datasheet'.*load\('h100-sxm'\).calibrated"),
        ({"rates": Rates(origin="measured", peak_flops_per_s={"fp32": 6e11})}, "has no memory bandwidth"),
        ({"environment": Environment(device="x", properties={"memory_bytes": "lots"})}, "my-cpu: memory.capacity_bytes is 'lots'"),
        ({"environment": Environment(device="x", properties={"memory_bytes": 64})}, "memory.capacity_bytes is 64 B.*64 GB"),
        ({"rates": Rates(origin="measured", memory_bandwidth=4e8)}, "memory.bandwidth_bytes_per_s is 4e.08"),
    ],
)
def test_records_that_make_no_machine(changed, message):
    with pytest.raises((CalibrationError, SpecError), match=message) as caught:
        Hardware.from_record(measured(**changed))
    assert isinstance(caught.value, RooflineError)


def test_a_measured_machine_can_be_kept_as_a_spec(tmp_path):
    machine = Hardware.from_record(measured())
    (tmp_path / "mine.json").write_text(json.dumps(machine.to_dict()))
    again = Hardware.load(tmp_path / "mine.json")
    assert ceilings(again) == ceilings(machine)
    assert again.calibration is None


def test_shipped_records_are_laid_out_as_records_are_written():
    """Else a refit would change every line of a file, not only those whose figures changed."""
    for name in list_records():
        text = store._record_files()[name].read_text(encoding="utf-8")
        assert text == write_json(load_record(name)), name
