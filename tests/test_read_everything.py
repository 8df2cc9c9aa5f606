"""benchmarks/read_everything.py: every file of a folder is read rightly or refused in a sentence, and what is wrong is said to be."""

import json
import os
import sys

import pytest

from reference_counts import FOLDER, NAMES, load_counts
from roofline import Hardware, load_record


@pytest.fixture(scope="module")
def reading(import_benchmark):
    return import_benchmark("read_everything")


def run(reading, monkeypatch, capsys, folder):
    monkeypatch.setattr(sys, "argv", ["read_everything.py", str(folder)])
    status = reading.main()
    return status, capsys.readouterr().out.splitlines()


def test_the_configurations_of_the_tests_are_read_rightly_or_refused(reading, monkeypatch, capsys):
    status, lines = run(reading, monkeypatch, capsys, FOLDER.parent)
    assert status == 0
    assert all(": read: " in line or ": refused: " in line for line in lines[:-1])
    assert sum(line.startswith("cases/") and line.endswith(", as known") for line in lines) >= 12


def test_every_reference_configuration_has_the_known_parameters(reading, monkeypatch, capsys, tmp_path):
    for name in NAMES:
        (tmp_path / f"{name}.json").write_text(json.dumps(load_counts(name)["config"]))
    status, lines = run(reading, monkeypatch, capsys, tmp_path)
    assert status == 0
    assert lines[-1] == f"{len(NAMES)} files: {len(NAMES)} read"
    assert all(line.endswith(", as known") for line in lines[:-1])


def test_a_line_says_what_happened(reading, monkeypatch, capsys, tmp_path):
    llama = load_counts("llama-2-7b")["config"]
    (tmp_path / "config.json").write_text(json.dumps(llama))
    (tmp_path / "machine.json").write_text(json.dumps(Hardware.load("h100-sxm").to_dict()))
    (tmp_path / "record.json").write_text(json.dumps(load_record("generic").model_dump(mode="json")))
    (tmp_path / "gemm.csv").write_text("m,n,k,dtype,time_us\n16,4096,4096,bf16,12\n")
    (tmp_path / "cut.json").write_text(json.dumps(llama)[:-9])
    (tmp_path / "latency.json").write_text('{"avg_latency": 1.5, "latencies": []}')
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "run.jsonl").write_text('{"elapsed_time": 2.0, "num_requests": 4, "total_num_tokens": 80, "tokens_per_second": 40.0}\n' * 2)
    os.mkfifo(tmp_path / "pipe.json")
    status, lines = run(reading, monkeypatch, capsys, tmp_path)
    assert status == 0
    for start, end in (
        ("config.json: read: a configuration: 6,738,415,616 parameters", ""),
        ("cut.json: refused: not valid JSON, cut short", "."),
        ("gemm.csv: read: a table of kernels: 1 rows", ""),
        ("latency.json: refused: latency.json is of no known format: it has 'avg_latency', 'latencies'; what is read: results of", "."),
        ("machine.json: read: a machine: H100 SXM5 80GB", ""),
        ("notes.txt: refused: notes.txt is of no known format", "."),
        ("run.jsonl: read: 2 runs of vllm bench throughput: no times; 1 notes", ""),
        ("pipe.json: refused: cannot read pipe.json: it is a device, a pipe or a socket", ""),
        ("record.json: read: a calibration record: generic", ""),
    ):
        assert any(line.startswith(start) and line.endswith(end) for line in lines), (start, lines)
    assert lines[-1] == "9 files: 5 read, 4 refused"


def test_a_wrong_value_is_reported(reading, monkeypatch, capsys, tmp_path):
    (tmp_path / "llama-2-7b.json").write_text(json.dumps(load_counts("llama-2-7b")["config"] | {"num_hidden_layers": 31}))
    status, lines = run(reading, monkeypatch, capsys, tmp_path)
    assert status == 1
    assert lines[0].startswith("llama-2-7b.json: WRONG: parameters is 6,536,032,256, known to be 6,738,415,616")  # Llama-2-7B: 6.74 billion


def test_an_error_that_is_not_ours_is_a_defect(reading, monkeypatch, capsys, tmp_path):
    (tmp_path / "gemm.csv").write_text("m,n,k\n")

    def broken(file):
        raise KeyError("inside")

    monkeypatch.setattr(reading, "_KINDS", {".csv": broken})
    status, lines = run(reading, monkeypatch, capsys, tmp_path)
    assert status == 1
    assert lines[0].startswith("gemm.csv: DEFECT: KeyError: 'inside' (test_read_everything.py:")
