"""What a record says is doubtful: flags, rates above the datasheet, rates that no record holds."""

import subprocess
import sys

import pytest

from pretended import BANDWIDTH, FULL, POINTS, Measure, bare, best_rate, start
from roofline import decode_estimate
from roofline.calibration.measure import OutOfMemory
from roofline.calibration.plan import Point
from roofline.records import Condition, Flag, Telemetry, load_record, save_record
from roofline.records.conditions import WRONG
from roofline.records.samples import list_samples
from roofline.telemetry.reading import Reading, SilentTelemeter
from roofline.units import show_rate

pytestmark = pytest.mark.usefixtures("remember_fits")


class Flagging(SilentTelemeter):
    """Sees throttled clocks beside every third sample."""

    def __init__(self):
        super().__init__("")
        self.conditions, self.seen = (Condition(code="device busy", text="device busy: 50 %"),), 0

    def watch(self, work):
        self.seen += 1
        flags = (Flag(code="throttled", detail="SwPowerCap"),) if self.seen % 3 == 0 else ()
        return work(), Reading(Telemetry(power_w=700, throttle_reasons=("SwPowerCap",) if flags else ()), flags)


def test_flags_stand_beside_the_sample_and_in_the_conditions(output):
    record = start(output, telemeter=Flagging()).run()
    samples = record.classes[0].samples
    assert samples.flags == dict.fromkeys(range(2, len(POINTS), 3), (Flag(code="throttled", detail="SwPowerCap"),))
    assert samples.telemetry[0].power_w == 700
    assert f"flagged: 4 of {len(POINTS)} samples throttled (SwPowerCap)" in map(str, record.conditions)
    # nothing is measured any more: what was seen then is still told, and nothing of today
    assert start(output).run().conditions == record.conditions


def test_many_failures_of_one_kind_are_one_condition(output):
    record = start(output, measure=Measure({i: OutOfMemory("x") for i in range(2, 8)})).run()
    told = [c.text for c in record.conditions if c.code == "skipped"]
    assert len(told) == 1
    assert told[0].endswith("and 3 more")


def test_rates_above_the_datasheet_are_errors_that_the_record_names(output):
    record = start(output, FULL, hardware=bare(BANDWIDTH / 4, best_rate() / 10, "slowbox")).run()
    told = [c.text for c in record.conditions if c.code == "faster than datasheet"]
    # of the 2**26 bytes that are read, 2**20 may come from the cache; what fits into it says nothing
    assert told == [
        f"faster than the datasheet: fp32 products at {show_rate(best_rate(), 'FLOP/s')}, 10 times the {show_rate(best_rate() / 10, 'FLOP/s')} "
        "of slowbox: an error of measurement, units or spec",
        f"faster than the datasheet: memory at {show_rate(BANDWIDTH * 63 / 64, 'B/s')}, 3.94 times the {show_rate(BANDWIDTH / 4, 'B/s')} "
        "of slowbox: an error of measurement, units or spec",
    ]
    assert load_record(output).conditions == record.conditions
    assert record.rates.memory_bandwidth == BANDWIDTH / 4  # a measurement never overwrites a data sheet


@pytest.mark.parametrize("share", [0.93, 1.0, 2.0])
def test_what_repetitions_do_not_bear_out_is_noise(output, share):
    # the 90 % quantile of the pretended times is 10 % above the median, so a sheet 7 % below the best rate may be right
    record = start(output, FULL, hardware=bare(BANDWIDTH * share, best_rate() * share)).run()
    assert not [c for c in record.conditions if c.code == "faster than datasheet"]


def test_wrong_results_are_no_evidence_against_a_datasheet(output):
    wrong = {"seconds": 1e-9, "low_s": 1e-9, "high_s": 1e-9, "flags": (WRONG,)}
    record = start(output, FULL, measure=Measure({6: wrong}), hardware=bare()).run()
    assert not [c for c in record.conditions if c.code == "faster than datasheet"]


def test_a_rate_too_slow_for_a_record_costs_no_sample(output):
    slow = Point("matmul", "int8", "int8", {"m": 1, "n": 64, "k": 64})
    seconds = 2 * 64 * 64 / 1e6  # 1 MFLOP/s
    measure = Measure({len(POINTS): {"seconds": seconds, "low_s": seconds, "high_s": seconds}})
    record = start(output, (*POINTS, slow), measure=measure).run()
    assert record.complete
    assert [s.operand for s in list_samples(record.classes)].count("int8") == 1
    assert set(record.rates.peak_flops_per_s) == {"fp32"}
    assert "too slow for a rate: int8 products at 1 MFLOP/s, below 10 MFLOP/s, left out" in map(str, record.conditions)


def test_memory_too_slow_for_a_record_costs_no_sample(output):
    crawling = {"seconds": 2**26 / 1e6, "low_s": 2**26 / 1e6, "high_s": 2**26 / 1e6}
    points = (*POINTS, Point("read", "fp32", "fp32", {"bytes": 2**26}))
    record = start(output, points, measure=Measure({len(POINTS): crawling})).run()
    assert record.rates.memory_bandwidth is None
    assert record.rates.peak_flops_per_s
    assert any(str(c).startswith("too slow for a rate: memory at 1 MB/s") for c in record.conditions)
    assert len(list_samples(record.classes)) == len(points)


def test_a_resumed_run_keeps_what_was_observed_and_recomputes_the_rest(output):
    first = start(output, telemeter=Flagging(), measure=Measure({3: OutOfMemory("x")})).run()
    note = Condition(code="note", text="measured at night: nobody else was there")
    save_record(first.model_copy(update={"conditions": (*first.conditions, note)}), output)
    assert {c.code: c.recomputed for c in first.conditions} == {"device busy": False, "skipped": True, "flagged": True}
    record = start(output).run()
    assert [(c.code, c.text) for c in record.conditions] == [
        ("device busy", "device busy: 50 %"),
        ("note", note.text),
        ("no telemetry", "no telemetry: pretended"),
        ("flagged", f"flagged: 4 of {len(POINTS)} samples throttled (SwPowerCap)"),
    ]


def test_estimates_repeat_the_text_of_conditions():
    note = Condition(code="note", text="measured at night")
    record = load_record("h100-sxm-vllm-0.24.0").model_copy(update={"conditions": (note,)})
    assert "measured at night" in decode_estimate("llama-3.1-8b", "h100-sxm", calibration=record).notes


def test_fitting_needs_no_torch_and_scipy_only_for_a_fit():
    script = "import roofline.fitting, sys; print(*sorted({'torch', 'scipy', 'pynvml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "\n"
