"""Families of transformers, read by us and counted on their classes: a sample of benchmarks/families.py."""

import pytest

SAMPLE = {
    # one of each kind: mapping, model_type
    "dense": ("causal", "llama"),
    "windows": ("causal", "gemma3_text"),
    "shared experts": ("causal", "qwen2_moe"),
    "experts with biases": ("causal", "gpt_oss"),
    "latents": ("causal", "deepseek_v3"),
    "an index of latents": ("causal", "deepseek_v32"),
    "states": ("causal", "mamba2"),
    "states and attention": ("causal", "jamba"),
    "linear attention": ("causal", "qwen3_next"),
    "convolutions": ("causal", "lfm2"),
    "a tower": ("image-text", "qwen2_5_vl"),
    "two stacks": ("seq2seq", "t5"),
    "frames": ("speech", "whisper"),
    "an encoder": ("masked", "modernbert"),
}


@pytest.fixture(scope="module")
def families(import_benchmark):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return import_benchmark("families")


@pytest.mark.parametrize("kind", SAMPLE)
def test_what_is_read_is_what_the_class_counts(families, kind):
    mapping, model_type = SAMPLE[kind]
    row = families.examine(families.Row(mapping, model_type, "varied"))
    assert (row.built, row.run, row.refused, row.wrong) == ("", "", {}, ())
    assert "reader" in row.counted


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
