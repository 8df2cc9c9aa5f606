"""A sample of benchmarks/fuzz_configs.py: published configurations that somebody broke end in a sensible model or one of our errors."""

from collections import Counter

import pytest

from roofline import Hardware

SAMPLE = 1500


@pytest.fixture(scope="module")
def fuzz(import_benchmark):
    return import_benchmark("fuzz_configs")


@pytest.fixture(scope="module")
def mutator(fuzz):
    """Only the catalogue to start from: it is everywhere, so the seeds mean the same everywhere."""
    return fuzz.Mutator(fuzz.catalogue())


def test_fuzzed_configuration_gives_a_model_or_an_error(fuzz, mutator):
    machine = Hardware.load("h200-sxm")
    outcomes = [fuzz.outcome(mutator, seed, machine) for seed in range(SAMPLE)]
    wrong = [str(one) for one in outcomes if not one.good]
    assert not wrong, "\n".join(wrong[:10])
    kinds = Counter(one.kind for one in outcomes)
    assert min(kinds["model"], kinds["error"]) > SAMPLE / 5, kinds  # the fuzz reaches both sides


def test_a_seed_is_a_configuration(mutator):
    assert repr(mutator(7)) == repr(mutator(7))
    assert len({repr(mutator(seed)) for seed in range(100)}) == 100


def test_the_configurations_it_starts_from_are_left_alone(fuzz, mutator):
    fresh = fuzz.catalogue()
    for seed in range(300):
        mutator(seed)
    assert repr(mutator.configs) == repr(fresh)


def test_fuzzer_reports_wrong_models(fuzz, monkeypatch):
    machine = Hardware.load("h200-sxm")
    assert fuzz.wrong_numbers({"model_type": "llama", **SMALL}, machine) == []
    monkeypatch.setattr(fuzz.Model, "active_parameters", -1)
    assert fuzz.wrong_numbers({"model_type": "llama", **SMALL}, machine) == ["active parameters is -1"]


SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
