"""The examples that put our step times behind other simulators, held against those simulators' interfaces as published (data/interfaces)."""

import importlib.util
import json
import math
import pickle
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from roofline import Deployment, StepTime

HERE = Path(__file__).parent
SERVED = Deployment("llama-3.1-8b", "h100-sxm")
TIME = StepTime(SERVED)


def interface(name):
    return json.loads((HERE / "data" / "interfaces" / f"{name}.json").read_text())


def example(name, monkeypatch):
    """Import an example under its own name, so that what it defines can be pickled."""
    spec = importlib.util.spec_from_file_location(name, HERE.parent / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


SGLANG = interface("sglang_simulator")


@pytest.fixture
def sglang(monkeypatch):
    """The example beside a simulator that has the published names and nothing else."""
    published = SGLANG["predictor"]

    def init(self, *given):
        vars(self).update(zip(published["init"], given, strict=True))

    package, module = types.ModuleType("sglang_simulator"), types.ModuleType(SGLANG["module"])
    setattr(module, published["class"], type(published["class"], (), {"__init__": init}))
    monkeypatch.setitem(sys.modules, "sglang_simulator", package)
    monkeypatch.setitem(sys.modules, SGLANG["module"], module)
    return example("sglang_predictor", monkeypatch)


def batch(*sizes):
    requests = [types.SimpleNamespace(**dict(zip(SGLANG["request"], size, strict=True))) for size in sizes]
    return types.SimpleNamespace(**{SGLANG["batch"]: requests})


def features(*sizes):
    """Compute the published features of a batch."""
    new, past = (np.array(column, dtype=float) for column in zip(*sizes, strict=True))
    said = {
        "n": len(new), "e": new, "p": past, "ep": new * past, "ee": new**2, "pp": past**2, "log1p": math.log1p, "sum": np.sum,
        "max": np.max, "min": np.min, "all": lambda flags: int(np.all(flags)), "any": lambda flags: int(np.any(flags)),
    }  # fmt: skip
    formulas = (formula.replace("e(p+e/2)", "e*(p+e/2)") for formula in SGLANG["ml"]["features"].values())
    return [float(eval(formula, {"__builtins__": {}}, said)) for formula in formulas]


BATCHES = {
    "decodes": [(1, 99), (1, 200), (1, 4000)],
    "prompts": [(512, 0), (300, 1024)],
    "mixed": [(1, 900), (1, 1500), (2048, 0)],
    "one token": [(1, 0)],
}


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES)
def test_sglang_predictor_takes_a_batch_and_returns_seconds(sglang, sizes):
    published = SGLANG["predictor"]
    predictor = sglang.RooflineTimePredictor("model", "hw", "config", SERVED)
    assert (predictor.model, predictor.hw, predictor.config) == ("model", "hw", "config")
    assert isinstance(predictor, getattr(sys.modules[SGLANG["module"]], published["class"]))
    new, past = np.array(sizes).T
    found = getattr(predictor, published["method"])(batch(*sizes))
    assert found == pytest.approx(float(TIME(np.ones(len(new)), new, past)), rel=0.02)  # what compile_steps promises


def test_sglang_predictor_has_nothing_to_say_of_an_empty_batch(sglang):
    assert sglang.RooflineTimePredictor(None, None, None, SERVED).predict_infer_time(batch()) == 0


def test_sglang_model_is_what_the_predictor_ml_loads(sglang, monkeypatch, tmp_path):
    def dump(bundle, path):
        Path(path).write_bytes(pickle.dumps(bundle))

    monkeypatch.setitem(sys.modules, "joblib", types.SimpleNamespace(dump=dump))
    sglang.write_model(tmp_path / "roofline.pkl", SERVED)
    bundle = pickle.loads((tmp_path / "roofline.pkl").read_bytes())
    assert list(bundle) == SGLANG["ml"]["bundle"]
    assert bundle["features"] == list(SGLANG["ml"]["features"])
    for sizes in (BATCHES["decodes"], BATCHES["prompts"]):
        (found,) = bundle["model"].predict([features(*sizes)])
        direct = sglang.RooflineTimePredictor(None, None, None, SERVED).predict_infer_time(batch(*sizes))
        assert found == pytest.approx(direct, rel=1e-12)


BLIS = interface("blis")


def looked_up(table, described, *at):
    """Read a table as BLIS does: linearly, the nearest value outside."""
    values = np.array(table["latency_us"])
    for axis, position in zip(described["axes"], at, strict=True):
        values = np.apply_along_axis(lambda column, nodes=table[axis], x=position: np.interp(x, nodes, column), 0, values)
    return float(values)


def step_us(profile, gamma, prompts=(), contexts=()):
    """Compute a step by the published formula of kernel-lookup."""
    at = {"tokens": sum(prompts) + len(contexts)}
    tables, terms = BLIS["kernel_profile"]["tables"], {}
    calls = {"num_layers": profile["num_layers"], "2 num_dense_layers + num_moe_layers": 2 * profile["num_dense_layers"]}
    where = {
        "gemm": (at["tokens"],),
        "context_attention": (float(np.mean(prompts)), len(prompts)) if prompts else None,
        "generation_attention": (float(np.mean(contexts)), len(contexts)) if contexts else None,
        "allreduce": (at["tokens"],),
    }
    for name, described in tables.items():
        if where[name] is not None:
            terms[name] = looked_up(profile[name], described, *where[name]) * calls[described["calls"]]
    terms |= {"us per layer": profile["num_layers"], "us per request": len(prompts) + len(contexts), "us per step": 1}
    return sum(factor * terms.get(name, 0) for factor, name in zip(gamma, BLIS["kernel_profile"]["gamma"], strict=True))


@pytest.fixture(scope="module")
def blis():
    with pytest.MonkeyPatch.context() as patch:
        yield example("blis", patch)


@pytest.fixture(scope="module")
def profile(blis):
    return json.loads(json.dumps(blis.kernel_profile(SERVED)))


def test_blis_table_has_the_published_fields_in_ascending_order(profile):
    described = BLIS["kernel_profile"]
    assert list(profile) == [*described["fields"], *described["tables"]]
    for name, table in described["tables"].items():
        assert list(profile[name]) == [*reversed(table["axes"]), "latency_us"]
        assert np.shape(profile[name]["latency_us"]) == tuple(len(profile[name][axis]) for axis in table["axes"])
        assert all(np.all(np.diff(profile[name][axis]) > 0) for axis in table["axes"])
        assert np.min(profile[name]["latency_us"]) >= 0


@pytest.mark.parametrize(
    ("prompts", "contexts"),
    [((), [1000]), ((), [700] * 32), ((), [3000] * 100), ([512], ()), ([4096], ()), ([2000, 2000], ())],
    ids=["a decode", "32 decodes", "100 decodes", "a prompt", "a long prompt", "two prompts"],
)
def test_blis_reads_our_times_from_the_table(blis, profile, prompts, contexts):
    ours = float(TIME(np.ones(len(prompts) + len(contexts)), [*prompts, *(1 for _ in contexts)], [*(0 for _ in prompts), *contexts]))
    assert step_us(profile, blis.GAMMA, prompts, contexts) == pytest.approx(1e6 * ours, rel=0.03)  # interpolated between nodes


def test_blis_entry_has_the_published_fields(blis):
    entry = blis.hardware_entry(SERVED)
    assert list(entry) == list(BLIS["hardware_config"])
    assert entry["TFlopsPeak"] == pytest.approx(989.4, abs=0.2)  # datasheet of the H100 SXM, dense bf16
    assert 0.5 < entry["BwPeakTBs"] / 3.35 < 1  # an estimate is slower than the datasheet's 3.35 TB/s
    assert 0 < entry["mfuPrefill"] < 1


LLM_D = interface("llm_d")


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(\w+)", text).groups()
    return float(number) * dict(zip(LLM_D["units"], (1e-9, 1e-6, 1e-3, 1), strict=True))[unit]


def test_llm_d_profile_has_the_published_parameters_and_gives_our_times(monkeypatch, tmp_path):
    llm_d = example("llm_d", monkeypatch)
    profile = llm_d.latency_profile(SERVED, sequences=64, context=2048, link_bandwidth=40e9)
    assert set(profile) == {*LLM_D["durations"], *LLM_D["other"]}
    assert profile["latency-calculator"] == LLM_D["calculator"]
    token, overhead, prefill, transfer = (seconds(profile[name]) for name in LLM_D["durations"])
    assert overhead + 2048 * prefill == pytest.approx(float(TIME([1], [2048], [0])), rel=1e-4)
    assert token == pytest.approx(float(TIME.decode(1, 2048)), rel=1e-4)
    assert profile["time-factor-under-load"] * token == pytest.approx(float(TIME.decode(64, 64 * 2048)), rel=1e-3)
    # the simulator's documentation counts about 3 us for the 128 KB of a token of Llama-3.1-8B over InfiniBand NDR at 40 GB/s
    assert transfer == pytest.approx(131072 / 40e9, abs=1e-9)
    llm_d.write_profile(tmp_path / "llm-d.yaml", profile)
    assert (tmp_path / "llm-d.yaml").read_text().splitlines()[0] == "engine: vllm"
