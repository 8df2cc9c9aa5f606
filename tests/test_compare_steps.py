"""A table of measured steps beside their estimates and floors: columns by many names, each row as if asked alone, rows that cannot be read."""

import csv
from pathlib import Path

import numpy as np
import pytest

from roofline import Deployment, InvalidValueError, UnknownNameError, decode_estimate, decode_floor, prefill_floor
from roofline.measured import StepComparison, compare, compare_steps

ROWS = {
    "model": ["llama-3.1-8b", "llama-3.1-8b", "llama-3.3-70b"],
    "gpu": ["h100-sxm", "h100-sxm", "h200-sxm"],
    "tp": [1, 2, 4],
    "batch_size": [1, 16, 8],
    "ctx_len": [1024, 2048, 853],
    "step_ms": [7.2, 6.0, 13.64],
}


def test_every_row_is_as_if_asked_alone():
    found = compare_steps(ROWS)
    for i in range(3):
        deployment = Deployment(ROWS["model"][i], ROWS["gpu"][i], tensor_parallel=ROWS["tp"][i])
        step = {"batch": ROWS["batch_size"][i], "context": ROWS["ctx_len"][i]}
        assert found.measured_s[i] == pytest.approx(ROWS["step_ms"][i] / 1e3)
        assert found.floor_s[i] == pytest.approx(decode_floor(deployment, **step).time_s)
        assert found.estimate_s[i] == pytest.approx(decode_estimate(deployment, **step, calibration="vllm").time_s)
    assert found.over_floor.tolist() == (found.measured_s / found.floor_s).tolist()


def test_a_floor_by_hand():
    """70e9 parameters of 2 B over 3 TB/s take 46.67 ms; measured twice that."""
    found = compare_steps({"batch": [1], "context": [0], "seconds": [2 * 140e9 / 3e12]}, "70B", memory_bandwidth=3e12)
    assert found.over_floor.tolist() == pytest.approx([2.0])
    assert np.isnan(found.estimate_s).all()


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("ms", 1e3),
        ("seconds", 1),
        ("time_us", 1e6),
        ("latency_ms", 1e3),
        ("tpot_ms", 1e3),
        ("decode_step_us", 1e6),
        ("Median ITL (ms)", 1e3),
    ],
)
def test_units_are_in_the_name_of_the_column(name, scale):
    found = compare_steps({"batch": [8], "context": [1024], name: [0.009 * scale]}, "llama-3.1-8b", "h100-sxm")
    assert found.measured_s.tolist() == pytest.approx([0.009])


def test_tokens_a_second_are_of_all_sequences_of_the_step():
    """64 sequences at 8,000 tokens a second are steps of 8 ms; a prompt of 4,096 at 16,384 a second takes 0.25 s."""
    found = compare_steps({"batch": [64], "context": [1024], "tok/s": [8000.0]}, "llama-3.1-8b", "h100-sxm")
    assert found.measured_s.tolist() == [0.008]
    found = compare_steps({"prompt": [4096], "prefill_tokens_per_s": [16384.0]}, "llama-3.1-8b", "h100-sxm")
    assert found.measured_s.tolist() == [0.25]


@pytest.mark.slow
def test_published_runs_of_llama_cpp_are_above_their_floors():
    """145 published rates of llama.cpp on 29 kinds of machines, from an empty context on."""
    with (Path(__file__).parents[1] / "benchmarks" / "measurements" / "llama_cpp.csv").open() as file:
        rows = [{**row, "prompt": 0} for row in csv.DictReader(file)]
    found = compare_steps(rows, columns={"generated": "output"}, ignore=["system", "source", "date"])
    assert found.measured_s.size == 145
    assert not found.below_floor.any()
    assert 1.2 < np.median(found.over_floor) < 2.2


def test_lists_frames_and_files_are_read_alike(tmp_path):
    rows = [dict(zip(ROWS, cells, strict=True)) for cells in zip(*ROWS.values(), strict=True)]
    file = tmp_path / "steps.csv"
    file.write_text("\n".join([",".join(ROWS), *(",".join(map(str, row.values())) for row in rows)]))
    expected = compare(ROWS)
    assert isinstance(expected, StepComparison)
    for table in (rows, file, str(file), pytest.importorskip("pandas").DataFrame(ROWS)):
        assert compare(table).to_records() == expected.to_records()


def test_prompts_are_prefills_and_answers_say_the_context():
    found = compare_steps(
        [
            {"isl": 1024, "ttft_ms": 25.0, "batch": 2},
        ],
        "llama-3.1-8b",
        "h100-sxm",
    )
    assert found.floor_s[0] == prefill_floor("llama-3.1-8b", "h100-sxm", prompt=1024, batch=2).time_s
    tokens = compare_steps(
        {"isl": [1000], "osl": [200], "conc": [4], "tpot_ms": [8.0]}, "llama-3.1-8b", "h100-sxm", columns={"conc": "batch"}
    )
    assert tokens.floor_s[0] == decode_floor("llama-3.1-8b", "h100-sxm", batch=4, context=1100).time_s


def test_a_column_says_the_phase_where_lengths_do_not():
    both = {"phase": ["decode", "prefill"], "batch": [4, 4], "context": [1000, 0], "prompt": [500, 500], "ms": [8.0, 60.0]}
    found = compare_steps(both, "llama-3.1-8b", "h100-sxm")
    assert found.rows.decode.tolist() == [True, False]
    del both["phase"]
    with pytest.raises(InvalidValueError, match=r"row 1 has a context \('context'\) and a prompt \('prompt'\)"):
        compare_steps(both, "llama-3.1-8b", "h100-sxm")


def test_empty_cells_are_what_is_not_said_and_rows_without_a_time_are_left_out():
    table = {"batch": [1, 8, 8], "context": [512, 512, 512], "tp": ["", "2", "2"], "ms": [7.0, "OOM", 5.0]}
    found = compare_steps(table, "llama-3.1-8b", "h100-sxm")
    assert [deployment.devices for deployment in found.deployments] == [1, 2]
    assert found.values()["row"].tolist() == [1, 3]
    assert any("without a time" in note for note in found.notes)


def test_worst_rows_and_spread():
    found = compare_steps({"batch": [1] * 4, "context": [512] * 4, "ms": [7.0, 21.0, 7.1, 14.0]}, "llama-3.1-8b", "h100-sxm")
    assert found.worst(2).tolist() == [1, 3]
    (spread,) = found.table()
    assert spread["over_floor_low"] < spread["over_floor_median"] < spread["over_floor_high"]
    assert str(found).splitlines()[1].startswith("  row 2:")


def test_rows_below_the_floor_are_explained():
    """llama-bench on a Ryzen AI Max+ 395: 12.53 ms, with attention and head in q8_0 and not as the checkpoint stores them."""
    found = compare_steps({"batch": [1, 1], "context": [64, 64], "ms": [25.0, 12.53]}, "gpt-oss-20b", "strix-halo")
    assert found.below_floor.tolist() == [False, True]
    assert next(label.name for label in found.labels[1] if label.lifts) == "the head stored in 8 bits"
    assert "BELOW THE FLOOR: 1 of 2 rows" in str(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_ms": [7.2, -1, 5]}, r"column 'step_ms' must hold positive .* row 2 \(-1"),
        ({"batch_size": [1, 2, "many"]}, r"column 'batch_size' must hold whole numbers of at least 1; .* row 3 \('many'\)"),
        ({"tp": [1, 1.5, 4]}, r"column 'tp' is read as tensor_parallel, a whole number; not so in row 2 \(1.5\)"),
        ({"tp": [1, 3, 4]}, r"row 2 of the table \('model', 'gpu', 'tp'\): .*cannot be split 3 ways"),
        ({"ctx_len": [1024, None, 853]}, r"row 2 is .* has no"),
        ({"max_model_len": [4096] * 3}, r"column 'max_model_len' is a limit"),
        ({"seq_len": [1, 2, 3]}, r"columns 'ctx_len' and 'seq_len' are both read as context"),
        ({"total_ms": [1, 2, 3]}, r"choose one with time='step_ms'"),
        ({"tpot": [1, 2, 3], "step_ms": [None] * 3}, "column 'step_ms' has no time in any row"),
        ({"step_ms": ["OOM"] * 3}, r"column 'step_ms' has no time in any row"),
    ],
)
def test_what_cannot_be_read_is_named_by_row_and_column(change, message):
    with pytest.raises(InvalidValueError, match=message):
        compare_steps({**ROWS, **change})


def test_what_lacks_is_asked_for():
    with pytest.raises(InvalidValueError, match="no model is named: add a column model, or give model="):
        compare_steps({"batch": [1], "context": [1], "ms": [1]})
    with pytest.raises(InvalidValueError, match="no machine is named"):
        compare_steps({"batch": [1], "context": [1], "ms": [1]}, "llama-3.1-8b")
    with pytest.raises(InvalidValueError, match=r"no column of times"):
        compare_steps({"batch": [1], "context": [1]}, "llama-3.1-8b", "h100-sxm")
    with pytest.raises(InvalidValueError, match="has no unit: call it latency_ms"):
        compare_steps({"batch": [1], "context": [1], "latency": [3]}, "llama-3.1-8b", "h100-sxm")
    with pytest.raises(UnknownNameError, match=r"row 1 of the table \('model'\).*nearest"):
        compare_steps({"model": ["lama-3.1-8b"], "batch": [1], "context": [1], "ms": [1]}, hardware="h100-sxm")
    with pytest.raises(InvalidValueError, match="leave out batch"):
        compare(ROWS, batch=4)
    with pytest.raises(InvalidValueError, match="leave out run, busy"):
        compare(ROWS, run=0, busy=0.5)


def test_columns_that_are_not_understood_are_named():
    found = compare_steps({**ROWS, "operator": ["me", "me", "you"]})
    assert any("operator" in note for note in found.notes)
    assert not compare_steps({**ROWS, "operator": ["me", "me", "you"]}, ignore="operator").notes


LLAMA = ("llama-3.1-8b", "h100-sxm")
TWO = {"context": [1024, 1024], "step_ms": [7.2, 7.2]}


def noted(table, **options):
    return " | ".join(compare(table, *LLAMA, **options).notes)


def test_steps_that_memory_cannot_hold_are_named():
    """Llama 3.1 8B keeps 128 KiB a token: 256 sequences of 8192 tokens are 275 GB, beside 16 GB of weights."""
    assert "does not fit: in row 2 a step needs up to 291 GB on each device" in noted({**TWO, "batch": [1, 256], "context": [8192, 8192]})
    assert "fit" not in noted({**TWO, "batch": [1, 2]})


def test_a_table_without_batch_says_so_or_asks_which_column_it_is():
    assert compare(TWO, *LLAMA).assumed[0] == "batch 1, since there is no column of it"
    with pytest.raises(InvalidValueError, match="no column is read as batch, and 'nb' is not understood"):
        compare({**TWO, "nb": [4, 8]}, *LLAMA)
    assert compare_steps({**TWO, "nb": [4, 8]}, *LLAMA, ignore="nb").rows.batch.tolist() == [1, 1]
    assert compare_steps({**TWO, "nb": [4, 8]}, *LLAMA, columns={"nb": "batch"}).rows.batch.tolist() == [4, 8]
    assert compare({**TWO, "nseqs": [4, 8]}, *LLAMA).rows.batch.tolist() == [4, 8]


def test_what_a_table_does_not_say_is_assumed_aloud():
    assumed = compare({**TWO, "batch": [4, 8]}, *LLAMA).assumed
    assert [each.split()[0] for each in assumed] == ["rules", "one", "weights", "a"]
    assert not compare({**TWO, "batch": [4, 8], "tp": [1, 1]}, *LLAMA, engine="vllm", weights="bf16", kv="bf16").assumed


def test_a_rate_beside_a_time_is_checked_against_it():
    """8 tokens in 7.2 ms are 1,111 a second, 139 for each sequence."""
    table = {**TWO, "batch": [8, 8]}
    assert not noted({**table, "tokens_per_s": [1111, 1110]})
    wrong = noted({**table, "tokens_per_s": [1111, 999]})
    assert "'tokens_per_s' and 'step_ms' contradict each other in row 2: 8 tokens in 7.2 ms are 1,111 a second, not 999" in wrong
    assert "'tps' is of one sequence: times the batch it agrees with 'step_ms'" in noted({**table, "tps": [139, 139]})


@pytest.mark.parametrize(
    ("table", "note"),
    [
        ({"batch": [8], "context": [1024], "tps": [1000]}, "'tps' is read as tokens a second of all sequences together"),
        ({"concurrency": [8], "context": [1024], "ms": [9]}, "'concurrency' is read as sequences of a step"),
        ({"batch": [8], "context": [1024], "latency_ms": [9]}, "'latency_ms' is read as the time of a step, not of a request"),
        (
            {"batch": [8], "context": [1024], "step_s": [7.2]},
            "column 'step_s', time in s, is 1.51e+03 × the floor; a time 1000 times shorter",
        ),
        (
            {"batch": [8], "context": [1024], "ms": [9], "gpu": ["l40s"]},
            "'gpu' says 'l40s', and hardware= says 'h100-sxm'; the column is used",
        ),
        ({"batch": [8], "context": [1024], "ms": [9], "model": ["qwen3-8b"]}, "'model' says 'qwen3-8b', and model= says 'llama-3.1-8b'"),
    ],
)
def test_readings_that_may_be_others_are_said(table, note):
    assert note in noted(table)


def test_a_column_that_says_what_a_keyword_says_needs_no_word():
    assert not noted({**TWO, "batch": [8, 8], "gpu": ["H100-SXM"] * 2, "tp": [2, 2]}, tensor_parallel=2)
    assert "'tp' says 2, and tensor_parallel= says 4" in noted({**TWO, "batch": [8, 8], "tp": [2, 2]}, tensor_parallel=4)


def test_a_file_of_steps_whose_time_has_no_unit_is_asked_for_it(tmp_path):
    file = tmp_path / "steps.csv"
    file.write_text("batch,context,step\n8,1024,9\n")
    with pytest.raises(InvalidValueError, match="column 'step' has no unit: call it step_ms"):
        compare(file, *LLAMA)


def test_thousands_of_rows_are_one_question_for_each_deployment():
    count = 20_000
    table = {
        "batch": np.arange(count) % 64 + 1,
        "context": np.arange(count) % 4096,
        "tp": np.arange(count) % 2 + 1,
        "ms": np.full(count, 20.0),
    }
    found = compare_steps(table, "llama-3.1-8b", "h100-sxm")
    assert len(found.deployments) == 2
    assert found.floor_s.size == count
