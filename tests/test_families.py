"""Families of transformers, read by us and counted on their classes: a sample of benchmarks/families.py."""

import gzip
import json
from pathlib import Path

import pytest

from roofline import Model

COUNTED = Path(__file__).parent / "data" / "families" / "counted.jsonl.gz"
"""Small configurations, and what benchmarks/families.py counted on their classes (transformers 5.24, torch 2.15)."""
SAMPLE = {
    # one of each kind: mapping, model_type
    "dense": ("causal", "llama"),
    "windows": ("causal", "gemma3_text"),
    "shared experts": ("causal", "qwen2_moe"),
    "experts with biases": ("causal", "gpt_oss"),
    "latents": ("causal", "deepseek_v3"),
    "convolutions": ("causal", "lfm2"),
    "a tower": ("image-text", "llava"),
    "two stacks": ("seq2seq", "t5"),
    "an encoder": ("masked", "modernbert"),
}
SLOW = {
    "states": ("causal", "mamba2"),
    "states and attention": ("causal", "jamba"),
    "linear attention": ("causal", "qwen3_next"),
}


with gzip.open(COUNTED, "rt", encoding="utf-8") as lines:
    ROWS = {f"{row['mapping']} {row['model_type']}": row for row in map(json.loads, lines)}


@pytest.mark.parametrize("name", ROWS)
def test_what_a_reader_reads_is_what_the_class_counted(import_benchmark, name):
    described = import_benchmark("families_described")
    counted = described.Counts(**ROWS[name]["class"])
    ours = described.of_model(Model.load(ROWS[name]["config"]))
    differ = {
        field: (getattr(ours, field), right)
        for field in described.Counts.FIELDS
        if None not in (right := getattr(counted, field), getattr(ours, field)) and getattr(ours, field) != right
    }
    assert not differ


@pytest.fixture(scope="module")
def families(import_benchmark):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return import_benchmark("families")


@pytest.mark.parametrize("kind", [*SAMPLE, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)])
def test_what_is_read_is_what_the_class_counts(families, kind):
    mapping, model_type = (SAMPLE | SLOW)[kind]
    row = families.examine(families.Row(mapping, model_type, "varied"))
    assert (row.built, row.run, row.wrong) == ("", "", ())
    assert "reader" in row.counted
    assert "code" in row.counted


def test_a_figure_that_differs_is_named(families):
    right = {"parameters": 10, "linear_flops": 20.0, "kv_bytes": 4.0, "state_bytes": 0}
    row = families.Row("causal", "llama", "varied", counted={"class": right, "reader": right | {"kv_bytes": 8}, "code": right})
    assert row.verdict == "wrong"
    assert row.wrong == ("kv_bytes of the reader",)
    assert not families.Row("causal", "llama", "varied", counted={"class": right, "reader": right}).wrong


def test_two_readings_are_compared_where_the_class_cannot_be_run(families):
    alone = {"parameters": 10, "linear_flops": None, "kv_bytes": None, "state_bytes": None}
    one = {"parameters": 10, "linear_flops": 20, "kv_bytes": 4, "state_bytes": 0}
    row = families.Row("causal", "llama", "varied", counted={"class": alone, "reader": one, "code": one | {"linear_flops": 22}})
    assert row.wrong == ("linear_flops: the two readings differ",)


def test_what_takes_the_process_down_is_a_line_of_the_table(families, monkeypatch):
    monkeypatch.setattr(families, "examine", lambda row: families.os._exit(3))
    row = families.apart(families.Row("causal", "llama", "varied"))
    assert (row.verdict, row.built) == ("no class", "took the process down")
