"""Which machine a device is, and which record a run may resume."""

from dataclasses import replace

import pytest

from pretended import BANDWIDTH, DEVICE, FULL, POINTS, Measure, bare, start
from roofline import CalibrationError, Hardware, decode_estimate
from roofline.hardware.recognition import recognize
from roofline.records import load_record

pytestmark = pytest.mark.usefixtures("remember_fits")


def test_the_machine_is_recognized_by_the_name_that_the_device_bears():
    assert recognize("NVIDIA H200").id == "h200-sxm"
    assert recognize("NVIDIA H100 80GB HBM3").id == "h100-sxm"
    assert recognize("AMD EPYC") is None
    assert recognize("CPU/of.json") is None


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
    with pytest.raises(CalibrationError, match="cannot resume") as error:
        start(output, **options)
    assert word in str(error.value)
    assert "--fresh" in str(error.value)
    assert output.read_bytes() == before
    start(output, **options, resume=False).run()  # which is what --fresh is for


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 99}', "[1]", '{"schema_version": 2, "id": "x"}'])
def test_a_file_that_is_no_record_is_not_overwritten(output, text):
    output.write_text(text)
    with pytest.raises(CalibrationError, match=r"record\.json.*Name another file, or replace the record with resume=False \(--fresh\)\.$"):
        start(output)
    assert output.read_text() == text


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
    assert tuple(c.text for c in record.conditions if c.code == "not recognized") == told
    if told:
        estimate = decode_estimate("llama-3.1-8b", machine, calibration=record)
        assert set(told) <= set(estimate.notes)


def test_a_spec_of_one_s_own_may_say_how_the_device_calls_itself(output):
    spec = bare(name="slowbox")
    stranger = start(output.with_name("one.json"), hardware=spec).run()
    assert any(str(c).startswith("not recognized: the device is Pretended CPU, no known name of slowbox") for c in stranger.conditions)
    named = start(output, hardware=spec.but(aliases=("pretended cpu",))).run()
    assert not any(c.code == "not recognized" for c in named.conditions)


def test_a_run_goes_on_with_the_machine_that_it_began_with(output):
    with pytest.raises(KeyboardInterrupt):
        start(output, hardware=bare(name="slowbox"), measure=Measure({8: KeyboardInterrupt()})).run()
    record = start(output).run()  # --hardware is forgotten
    assert (record.hardware, record.rates.origin, record.rates.memory_bandwidth) == ("slowbox", "datasheet", BANDWIDTH)
    assert sum(c.code == "not recognized" for c in record.conditions) == 1


def test_a_corrected_datasheet_is_fitted_to_without_measuring_again(output):
    first = start(output, FULL, hardware=bare(BANDWIDTH / 4, name="box")).run()
    assert any(c.code == "faster than datasheet" for c in first.conditions)
    measure = Measure()
    record = start(output, FULL, measure=measure, hardware=bare(name="box")).run()
    assert measure.done == []
    assert not any(c.code == "faster than datasheet" for c in record.conditions)
    assert record.rates.memory_bandwidth == BANDWIDTH
    assert load_record(output) == record


def test_an_unfinished_record_makes_no_machine_and_says_so(output):
    with pytest.raises(KeyboardInterrupt):
        start(output, measure=Measure({8: KeyboardInterrupt()})).run()
    with pytest.raises(
        CalibrationError,
        match=rf"is unfinished: only 8 of {len(POINTS)} points of the plan are measured, .*run 'roofline calibrate' with this file again",
    ):
        Hardware.from_record(output)
