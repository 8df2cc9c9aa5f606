"""`roofline calibrate`, and what `roofline estimate` says of records that make no machine."""

import io
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

from pretended import BANDWIDTH, DEVICE, FULL, OTHERS, POINTS, Measure, bare, start
from roofline.calibration import plan, starting
from roofline.calibration.collectives import SIZES
from roofline.calibration.measure import OutOfMemory
from roofline.calibration.session import CalibrationSession
from roofline.records import load_record
from roofline.records.samples import list_samples
from roofline.telemetry.reading import SilentTelemeter
from shell import invoke

pytestmark = pytest.mark.usefixtures("remember_fits")


@pytest.fixture
def command(monkeypatch):
    """The command with a pretended device and pretended kernels."""

    def run(*arguments, measure=None, device=DEVICE):
        monkeypatch.setattr(starting, "open_device", lambda name: device)
        monkeypatch.setattr(starting, "open_telemeter", lambda *_, **__: SilentTelemeter("pretended"))
        monkeypatch.setattr(starting, "CalibrationSession", partial(CalibrationSession, measure=measure or Measure()))
        monkeypatch.setitem(plan.PLANS, "quick", plan.Plan(lambda device: POINTS + OTHERS, 1.0))
        return invoke("calibrate", *arguments)

    return run


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
    assert first.stdout.splitlines()[-1] == "Run the same command again to retry the skipped points."
    second = command("--output", output)
    assert "skipped" not in second.stdout
    assert "Nothing was left" not in second.stdout
    assert command("--output", output).stdout.splitlines()[-1] == "Nothing was left to measure; --fresh measures again."


def test_the_command_compares_with_the_datasheet(command, output):
    h200 = replace(DEVICE, name="NVIDIA H200")
    result = command("--output", output, device=h200)
    assert "(h200-sxm)" in result.stdout
    assert f"{BANDWIDTH / 4.8e12:.0%} of the datasheet's 4.8" in result.stdout


def test_a_terminal_sees_how_far_it_is(command, output, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr("roofline.cli.calibrate.sys", SimpleNamespace(stderr=shown))
    assert command("--output", output).exit_code == 0
    states = shown.getvalue().split("\r\x1b[K")
    assert states[1].startswith(f"0/{len(POINTS) + 3} matmul fp32, 0 s")
    assert any("left" in state for state in states)
    assert states[-1] == ""  # the line is gone when the summary is printed


def test_a_record_is_fitted_to_tables(tmp_path, output):
    rows = [
        (m, n, k, 5e-6 + 2 * m * n * k / 5e14 + 2 * n * k / 2e12)
        for m in (1, 16, 256, 4096)
        for n in (1024, 4096, 8192)
        for k in (1024, 4096, 8192)
    ]
    table = tmp_path / "products.csv"
    table.write_text("m,n,k,dtype,latency_s\n" + "".join(f"{m},{n},{k},bf16,{t}\n" for m, n, k, t in rows))
    result = invoke("calibrate", "--output", output, "--tables", table, "--hardware", "h100-sxm", "--source", "made up")
    assert result.exit_code == 0, result.output
    record = load_record(output)
    assert (record.id, record.hardware, record.source) == ("record", "h100-sxm", "made up")
    assert result.stdout.startswith(f"H100 SXM5 80GB (h100-sxm): {sum(len(c.samples.seconds) for c in record.classes)} points measured")
    assert "calibration: record" in invoke("estimate", "llama-3-8b", output).stdout


def test_a_finished_plan_is_said_to_be_finished(command, output):
    assert "--fresh" not in command("--output", output).stdout
    assert "--fresh measures again" in command("--output", output).stdout
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
    assert "run the same command again without --fresh to resume" in late.stderr
    assert len(list_samples(load_record(output).classes)) == 4


def test_errors_are_one_line_and_status_2(command, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    for arguments in (["--output", tmp_path], ["--output", tmp_path / "broken.json"], ["--output", tmp_path / "x.json", "--plan", "slow"]):
        result = command(*arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith("roofline: ")
        assert len(result.stderr.splitlines()) == 1


def test_ctrl_c_over_another_record_claims_nothing_of_it(command, output):
    command("--output", output)
    before = output.read_bytes()
    wrong = {0: OutOfMemory("x"), 1: OutOfMemory("x"), 2: KeyboardInterrupt()}  # begun, but nothing measured
    result = command("--output", output, "--fresh", measure=Measure(wrong))
    assert result.stderr == f"roofline: interrupted; nothing was measured yet, and {output} is unchanged.\n"
    assert output.read_bytes() == before


def test_ctrl_c_before_the_file_is_read_claims_nothing_of_it(command, output, monkeypatch):
    from roofline.cli import calibrate as module

    def stop(*_, **__):
        raise KeyboardInterrupt

    output.write_text("no record")
    monkeypatch.setattr(module, "measure_device", stop)
    assert command("--output", output).stderr == f"roofline: interrupted; nothing was measured yet, and {output} is unchanged.\n"


def test_all_reduces_added_to_a_complete_record_are_no_nothing(command, output, pretend_all_reduces):
    command("--output", output)
    processes = pretend_all_reduces()
    result = command("--output", output, "--ranks", 2)
    assert result.exit_code == 0, result.output
    assert len(processes.asked) == 1
    assert f"{len(FULL) + len(SIZES)} points measured" in result.stdout
    assert "Nothing was left" not in result.stdout
    assert "Nothing was left" in command("--output", output, "--ranks", 2).stdout


def estimate_of(*arguments):
    return invoke("estimate", "llama-3.1-8b", *arguments)


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
