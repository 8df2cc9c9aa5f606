"""Hostile and mistaken input: exactly one of our errors, with a message that helps; never a traceback from inside."""

import json
import math
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from roofline import (
    CalibrationError,
    ConfigError,
    Hardware,
    InvalidValueError,
    MissingDependencyError,
    Model,
    RooflineError,
    SpecError,
    Step,
    UnknownNameError,
    UnsupportedModelError,
    decode_floor,
    levers,
    list_models,
    load_record,
    prefill_floor,
    step_floor,
)
from roofline.catalog import _data
from roofline.forward import forward

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
RATES = {"memory_bandwidth": 3e12}


@pytest.mark.parametrize(
    ("ours", "builtin"),
    [
        (InvalidValueError, ValueError),
        (UnknownNameError, LookupError),
        (SpecError, ValueError),
        (ConfigError, ValueError),
        (UnsupportedModelError, ConfigError),
        (MissingDependencyError, ImportError),
    ],
)
def test_exception_hierarchy(ours, builtin):
    assert issubclass(ours, RooflineError)
    assert issubclass(ours, builtin)


# ---------------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        # names
        ({"model": "lama-3-70b"}, UnknownNameError, "unknown model 'lama-3-70b'; nearest:.*70b"),
        ({"hardware": "h100-smx"}, UnknownNameError, "unknown machine 'h100-smx'; nearest:.*h100-sxm"),
        ({"weights": "fp9"}, UnknownNameError, "unknown number format 'fp9'; nearest:.*fp8"),
        ({"kv": "bf15"}, UnknownNameError, "unknown number format 'bf15'; nearest:.*bf16"),
        ({"activations": "int5"}, UnknownNameError, "unknown number format 'int5'; nearest:.*int"),
        ({"weights": {"mlp.up_prj": "fp8"}}, UnknownNameError, "unknown component .*'mlp.up_prj'; nearest: mlp.up_proj"),
        ({"weights": {"*": "fp9"}}, UnknownNameError, "unknown number format 'fp9'"),
        # sizes
        ({"batch": 0}, InvalidValueError, "batch is 0; it must be a whole number of at least 1"),
        ({"batch": -3}, InvalidValueError, "batch is -3"),
        ({"batch": math.nan}, InvalidValueError, "batch is nan"),
        ({"batch": [1, math.inf]}, InvalidValueError, "batch contains inf"),
        ({"context": -1}, InvalidValueError, "context is -1"),
        ({"context": 0.5}, InvalidValueError, "context is 0.5"),
        ({"context": "8k"}, InvalidValueError, "context is '8k'"),
        ({"batch": [1, 2], "context": [1, 2, 3]}, InvalidValueError, "do not broadcast"),
        ({"batch": 10**400}, InvalidValueError, "batch"),
        ({"context": 10**400}, InvalidValueError, "context"),
        # options
        ({"weights": ["fp8"]}, InvalidValueError, r"a number format is given by name or as a dtype, not as \['fp8'\]"),
        ({"weights": {"*": ["fp8"]}}, InvalidValueError, "format|weights"),
        ({"weights": {"*": 3}}, InvalidValueError, "number format"),
        ({"weights": {3: "fp8"}}, UnknownNameError, "component"),
        ({"weights": 8}, InvalidValueError, "number format"),
        ({"activations": {}}, InvalidValueError, "a number format is given by name or as a dtype, not as {}"),
        ({"kv": {}}, InvalidValueError, "a number format is given by name or as a dtype, not as {}"),
        ({"kv": 3}, InvalidValueError, "number format is given by name or as a dtype, not as 3"),
        ({"kv": ["fp8"]}, InvalidValueError, "kv|format"),
        ({"kv": False}, InvalidValueError, "number format"),
        ({"fusion": "x"}, InvalidValueError, "fusion is 'x'; it must be one of none, attention, full"),
        ({"fusion": None}, InvalidValueError, "fusion is None"),
        ({"fusion": ["full"]}, InvalidValueError, "fusion"),
        # models
        ({"model": None}, ConfigError, "a model is a name, a path"),
        ({"model": [LLAMA]}, ConfigError, "not list"),
        ({"model": ""}, UnknownNameError, "unknown model ''"),
        ({"model": 0}, InvalidValueError, "parameters is 0"),
        ({"model": -7e9}, InvalidValueError, "parameters"),
        ({"model": 10**400}, InvalidValueError, "parameters"),
        ({"model": "1e400"}, InvalidValueError, "1e400"),
        # machines
        ({"hardware": 3.35e12}, InvalidValueError, "from_rates"),
        ({"hardware": ["h100"]}, InvalidValueError, "machine"),
        ({"hardware": "no/such.toml"}, SpecError, "no/such.toml"),
    ],
    ids=lambda x: str(x)[:60] if isinstance(x, dict) else "",
)
def test_one_wrong_argument(arguments, error, message):
    given = {"model": LLAMA, "hardware": "h100-sxm"} | arguments
    with pytest.raises(RooflineError, match=message) as caught:
        decode_floor(given.pop("model"), given.pop("hardware"), **given)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"memory_bandwidth": 3350}, "memory_bandwidth is 3350 B/s.*did you mean 3350 GB/s"),
        ({"memory_bandwidth": 3.35}, "memory_bandwidth is 3.35 B/s.*TB/s"),
        ({"memory_bandwidth": 3e12, "peak_flops_per_s": 989}, "peak_flops_per_s is 989 FLOP/s: did you mean 989 TFLOP/s"),
        ({"memory_bandwidth": 3e12, "memory_capacity": 80}, "memory_capacity is 80 B.*did you mean 80 GB"),
        ({"memory_bandwidth": 0}, "memory_bandwidth is 0"),
        ({"memory_bandwidth": -3e12}, "memory_bandwidth is -3"),
        ({"memory_bandwidth": math.nan}, "memory_bandwidth is nan"),
        ({"memory_bandwidth": math.inf}, "memory_bandwidth is inf"),
        ({"memory_bandwidth": "3e12"}, "memory_bandwidth is '3e12'"),
        ({"memory_bandwidth": [3e12]}, "memory_bandwidth is .*single number"),
        ({"memory_bandwidth": 3e12, "peak_flops_per_s": [1e15]}, "peak_flops_per_s"),
        ({"memory_bandwidth": np.array([3e12, 2e12])}, "memory_bandwidth is .*single number"),
        ({"memory_bandwidth": 10**400}, "memory_bandwidth"),
        ({}, "no machine: name one"),
        ({"peak_flops_per_s": 1e15}, "no machine: .*memory_bandwidth in B/s beside peak_flops_per_s"),
        ({"hardware": "h100", "memory_bandwidth": 3e12}, r"either a machine \('h100-sxm'\) or bare rates \(memory_bandwidth\), not both"),
        ({"hardware": "h100", "memory_capacity": 80e9}, "memory_capacity.*not both"),
    ],
    ids=lambda x: str(x)[:60] if isinstance(x, dict) else "",
)
def test_wrong_rates(rates, message):
    for call in (lambda: decode_floor("70B", **rates), lambda: prefill_floor("70B", prompt=8, **rates)):
        with pytest.raises(InvalidValueError, match=message):
            call()


@pytest.mark.parametrize("step", ["decode", None, 3, Step], ids=repr)
def test_invalid_step_raises(step):
    with pytest.raises(InvalidValueError, match="step"):
        step_floor(LLAMA, None, step, **RATES)
    with pytest.raises(InvalidValueError, match="step"):
        forward(Model.load(LLAMA), step)


def test_model_is_usable_after_a_failed_call():
    model = Model.load(LLAMA)
    with pytest.raises(RooflineError):
        decode_floor(model, **RATES, weights="fp9")
    with pytest.raises(RooflineError):
        decode_floor(model, **RATES, weights="fp9")
    assert decode_floor(model, **RATES).time_s > 0


def test_a_machine_without_a_peak_and_a_model_within_its_cache(tmp_path):
    """Nothing bounds the step, so its floor is zero: there is no throughput to give, and no ZeroDivisionError either."""
    spec = tmp_path / "mine.toml"
    spec.write_text(
        'schema_version = 1\nid = "mine"\nname = "Mine"\n[memory]\nbandwidth_bytes_per_s = 1e12\n[cache]\nl2_bytes = 50000000\n'
    )
    floor = decode_floor(10**6, spec)
    assert floor.time_s == 0
    assert not math.isfinite(floor.tokens_per_s)
    assert json.loads(floor.to_json())["tokens_per_s"] is None
    assert "Mine" in str(floor)
    assert not np.isfinite(decode_floor(10**6, spec, batch=[1, 2]).tokens_per_s).any()


# -------------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (json.dumps(LLAMA).encode()[:-20], "not valid JSON, cut short"),
        (b"{'model_type': 'llama'}", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1, 2]", "holds a JSON list"),
        (b"null", "holds a JSON NoneType"),
        (b'"llama"', "holds a JSON str"),
        (b"{}", "has no 'model_type'"),
        (b'{"model_type": 3}', "'model_type' is 3; it must be text"),
        (json.dumps(LLAMA | {"hidden_size": math.nan}).encode(), "'hidden_size' is nan"),  # a bare NaN, as some published files have
        (json.dumps(LLAMA).replace("64", "1e999").encode(), "'hidden_size' is inf"),
    ],
    ids=lambda x: repr(x)[:30],
)
def test_a_broken_config_file(tmp_path, content, message):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    for source in (file, tmp_path, str(file)):
        with pytest.raises(ConfigError, match=message) as caught:
            Model.load(source)
        assert tmp_path.name in str(caught.value)  # which of many files it was


READERS = {  # by the name of a file: what reads it, and how it refuses
    "config.json": (Model.load, ConfigError),
    "spec.toml": (Hardware.load, SpecError),
    "spec.json": (Hardware.load, SpecError),
    "record.json": (load_record, CalibrationError),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_at_once(tmp_path, name):
    """Nobody writes into it, so that reading it would never end."""
    read, error = READERS[name]
    os.mkfifo(tmp_path / name)
    for source in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(error, match="it is a device, a pipe or a socket, and only regular files are read"):
            read(source)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused_at_once(tmp_path, device):
    """A name that ends as a file's does, so that nothing else tells the device from one."""
    for name, (read, error) in READERS.items():
        (tmp_path / name).symlink_to(device)
        with pytest.raises(error, match="it is a device"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", [name for name in READERS if name.endswith(".json")])
def test_a_key_that_stands_twice_is_refused_by_name(tmp_path, name):
    read, error = READERS[name]
    contents = {
        "config.json": LLAMA,
        "spec.json": Hardware.load("h100-sxm").to_dict(),
        "record.json": load_record("generic").model_dump(mode="json"),
    }
    text = json.dumps(contents[name])
    file = tmp_path / name
    file.write_text(text)
    read(file)
    file.write_text('{"hidden": {"size": 1, "size": 2}, ' + text[1:])
    with pytest.raises(error, match=rf"{name}: the key 'size' stands twice in one object; which of the two is meant"):
        read(file)


def test_a_toml_key_of_many_parts_is_refused_before_it_costs_memory(tmp_path):
    file = tmp_path / "deep.toml"
    for text in (".".join(["a"] * 20_000) + " = 1", f"[{' . '.join(['a'] * 20_000)}]", f"a = {{{'b.' * 20_000}c = 1}}"):
        file.write_text(text)
        started = time.process_time()
        with pytest.raises(SpecError, match="a key has a hundred parts or more, joined by dots"):
            Hardware.load(file)
        assert time.process_time() - started < 1


def test_dots_in_a_text_are_no_parts_of_a_key(tmp_path):
    file = tmp_path / "dots.toml"
    file.write_text(f'note = "{"a." * 300}b"\n')
    with pytest.raises(SpecError, match="note is not a known key"):
        Hardware.load(file)


def test_a_giant_file_is_no_configuration(tmp_path):
    file = tmp_path / "config.json"
    with file.open("wb") as stream:
        stream.truncate(10**9)  # sparse: it takes no room
    with pytest.raises(ConfigError, match=r"has 1000 MB: a config\.json has kilobytes, so it is something else"):
        Model.load(file)


GIANT = "x" * 300_000


@pytest.mark.parametrize(
    "ask",
    [
        lambda folder: Model.load(GIANT),
        lambda folder: Model.load(f"{GIANT}/{GIANT}"),
        lambda folder: Model.load(LLAMA | {"model_type": GIANT}),
        lambda folder: Model.load(LLAMA | {GIANT: 1}),
        lambda folder: Model.load(LLAMA | {"num_experts": [GIANT]}),
        lambda folder: Model.load(LLAMA | {"torch_dtype": GIANT}),
        lambda folder: Model.load(LLAMA | {"hidden_size": GIANT}),
        lambda folder: Model.load(json.dumps(LLAMA | {GIANT: 1})),
        lambda folder: Hardware.load(GIANT),
        lambda folder: Hardware.load(_written(folder / "spec.json", {GIANT: 1})),
        lambda folder: Hardware.load(_written(folder / "spec.json", {"schema_version": 1, "id": "a", "name": "A", "memory": {GIANT: 1}})),
        lambda folder: Hardware.load(_written(folder / "spec.json", {"schema_version": 1, "id": GIANT, "name": 3, "memory": 3})),
        lambda folder: load_record(GIANT),
        lambda folder: load_record({GIANT: 1}),
        lambda folder: load_record({"schema_version": 2, "id": GIANT}),
        lambda folder: load_record(_written(folder / "record.json", {GIANT: 1, "schema_version": GIANT})),
        lambda folder: load_record(_written(folder / "record.json", [GIANT])),
        lambda folder: decode_floor(LLAMA, "h100-sxm", weights=GIANT),
    ],
)
def test_a_message_quotes_at_most_a_line(tmp_path, ask):
    with pytest.raises(RooflineError) as caught:
        ask(tmp_path)
    message = str(caught.value)
    assert len(message) < 1000


def _written(file, data):
    file.write_text(json.dumps(data))
    return file


def test_a_folder_without_config(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*config\.json: No such file"):
        Model.load(tmp_path)


@pytest.mark.parametrize("name", ["a/\0", "a\0.json", "a/" + "x" * 5000, "x" * 5000 + ".json", "/", "."])
def test_impossible_model_paths_raise(name):
    with pytest.raises(RooflineError):
        Model.load(name)


@pytest.mark.parametrize("name", ["a/\0", "a\0.toml", "a/" + "x" * 5000, "x" * 5000])
def test_impossible_spec_paths_raise(name):
    with pytest.raises(RooflineError):
        Hardware.load(name)


# --------------------------------------------------------------------------------------------------------------- dictionaries


def changed(**keys):
    return {k: v for k, v in (LLAMA | keys).items() if v is not ...}


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({}, ConfigError, "no 'model_type'"),
        (changed(model_type=...), ConfigError, "no 'model_type', so its architecture is not known; supported_model_types"),
        (changed(model_type="lama"), UnsupportedModelError, "model_type 'lama' is not modelled.*Nearest:.*llama"),
        (changed(model_type="reformer"), UnsupportedModelError, "model_type 'reformer' is not modelled"),
        (changed(model_type=["llama"]), ConfigError, "'model_type' is"),
        # a known architecture with a key that changes the cost
        (changed(num_experts=8), UnsupportedModelError, "'num_experts' = 8 is not understood; it might mean experts"),
        (changed(sliding_window_size=128), UnsupportedModelError, "'sliding_window_size' = 128 .*window"),
        (changed(kv_lora_rank=512), UnsupportedModelError, "'kv_lora_rank' = 512 .*low-rank"),
        (changed(conv_kernel=4), UnsupportedModelError, "'conv_kernel' = 4 .*convolution"),
        (changed(surprise=1), UnsupportedModelError, "'surprise' = 1"),
        # missing keys
        (changed(hidden_size=...), ConfigError, "config lacks 'hidden_size'"),
        (changed(hidden_size=None), ConfigError, "config lacks 'hidden_size'"),
        (changed(hidden_size=..., hiden_size=64), ConfigError, "lacks 'hidden_size'.*nearest key there: 'hiden_size'"),
        (changed(intermediate_size=...), ConfigError, "lacks 'intermediate_size'"),
        (changed(num_hidden_layers=...), ConfigError, "lacks 'num_hidden_layers'"),
        (changed(num_attention_heads=...), ConfigError, "lacks 'num_attention_heads'"),
        (changed(vocab_size=...), ConfigError, "lacks 'vocab_size'"),
        # wrong types and values
        (changed(hidden_size="64"), ConfigError, "'hidden_size' is '64'; it must be a whole number"),
        (changed(hidden_size=64.5), ConfigError, "'hidden_size' is 64.5"),
        (changed(hidden_size=True), ConfigError, "'hidden_size' is True"),
        (changed(hidden_size=[64]), ConfigError, r"'hidden_size' is \[64\]"),
        (changed(hidden_size=0), ConfigError, "'hidden_size' is 0"),
        (changed(hidden_size=-64), ConfigError, "'hidden_size' is -64"),
        (changed(hidden_size=math.nan), ConfigError, "'hidden_size' is nan"),
        (changed(hidden_size=10**400), ConfigError, "'hidden_size' is a number of 401 digits"),
        (changed(hidden_size=66), ConfigError, "66 is not a multiple of 4"),
        (changed(num_key_value_heads=3), ConfigError, "4 attention heads are not a multiple of 3"),
        (changed(tie_word_embeddings="no"), ConfigError, "'tie_word_embeddings' is 'no'; it must be true or false"),
        (changed(attention_bias=1), ConfigError, "'attention_bias' is 1"),
        (changed(torch_dtype="int7"), ConfigError, "dtype is 'int7'"),
        (changed(torch_dtype=16), ConfigError, "dtype' is 16"),
        (changed(num_hidden_layers=10**6), ConfigError, "layers|count"),
        (changed(model_type="gemma3", text_config=[1]), ConfigError, "'text_config' is"),
        (changed(model_type="qwen3", layer_types=["full_attention"]), ConfigError, "'layer_types' has 1 items for 2 layers"),
        (changed(model_type="qwen3", layer_types=["full_attention", "half"]), ConfigError, "half"),
        (changed(model_type="qwen3", layer_types=["full_attention", ["x"]]), ConfigError, "layer_types"),
        (changed(model_type="qwen3", layer_types="full"), ConfigError, "'layer_types' is 'full'; it must be a list"),
    ],
    ids=lambda x: str(x)[-60:] if isinstance(x, dict) else "",
)
def test_a_wrong_configuration(config, error, message):
    with pytest.raises(RooflineError, match=message) as caught:
        Model.load(config)
    assert type(caught.value) is error
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("returned", [None, 3, [LLAMA], "llama"])
def test_a_config_object_that_returns_nonsense(returned):
    class Config:
        def to_dict(self):
            return returned

    with pytest.raises(ConfigError):
        Model.load(Config())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel": True}, "tensor_parallel is True; it must be a single whole number"),
        ({"tensor_parallel": [1, 2]}, r"tensor_parallel is \[1, 2\]; it must be a single whole number of at least 1: call once for each"),
        ({"mtp": range(3)}, "mtp is .*; it must be a single whole number"),
        ({"mtp": [1]}, "mtp is .*; it must be a single whole number"),
        ({"kv": [1]}, r"a number format is given by name or as a dtype, not as \[1\]"),
        ({"routing": 10**400}, "routing is a number of 401 digits; it must be 'uniform'"),
    ],
)
def test_options_of_the_wrong_kind_are_named(options, message):
    with pytest.raises(InvalidValueError, match=message):
        decode_floor("mixtral-8x7b", "h100-sxm", **options)


def test_numpy_numbers_are_numbers():
    plain, numpy = (decode_floor("llama-3-70b", "h100-sxm", tensor_parallel=t, batch=t) for t in (8, np.int64(8)))
    assert plain.time_s == numpy.time_s
    assert type(numpy.work.program.parallel.tensor) is int


def test_logits_are_named():
    with pytest.raises(InvalidValueError, match=r'logits is .*; it must be "last", "all" or "none"'):
        prefill_floor("llama-3-8b", "h100-sxm", prompt=4, logits=np.array([1, 2]))


def test_levers_take_machines_and_one_step():
    with pytest.raises(InvalidValueError, match="machines is 5"):
        levers("llama-3-8b", "h100-sxm", machines=5)
    with pytest.raises(InvalidValueError, match="prompt cannot be given for a decode"):
        levers("llama-3-8b", "h100-sxm", prompt=np.array([1, 2]))


def test_path_in_the_home_of_an_unknown_user_is_a_missing_file():
    with pytest.raises(SpecError, match=r"~nobody-of-that-name/x\.toml: cannot be read"):
        Hardware.load("~nobody-of-that-name/x.toml")
    with pytest.raises(CalibrationError, match=r"~nobody-of-that-name/x\.json: cannot be read"):
        load_record("~nobody-of-that-name/x.json")


@pytest.mark.parametrize("model_type", ["llama", "gemma2"])
def test_absurdly_many_layers_are_refused_before_they_are_listed(model_type):
    """2^31 − 1 layers as a list would be 17 GB: the refusal must come first. In a process of its own, with 2 GB."""
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from roofline import ConfigError, Model
try:
    Model.load({changed(model_type=model_type, num_hidden_layers=2**31 - 1)!r})
except ConfigError as error:
    print("refused" if "layers" in str(error) else "other", error)
"""
    pytest.importorskip("resource")
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    try:
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail("still listing layers after two minutes")
    assert result.stdout.startswith("refused"), result.stderr[-300:]


# --------------------------------------------------------------------------------------------------------------------- fuzz

ABSURD = [
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 10**5, 2**32, 2**63, 10**30, 1.0, 0.5, -0.0, 1e300, math.nan, math.inf, "", "64", "llama", "x" * 999,
    [], [1], [None], [[]], {}, {"a": 1}, (), b"x", 1j, object(), set(), lambda: 1,
]  # fmt: skip
DENSE = sorted(
    name
    for name in list_models()
    if not any(word in key for key in _data(name)["config"] for word in ("expert", "moe", "mamba", "lora", "linear_", "conv"))
)


def mutated(rng):
    """A published dense configuration with one to three keys dropped, changed, doubled or added."""
    config = json.loads(json.dumps(_data(rng.choice(DENSE))["config"]))
    for _ in range(rng.randint(1, 3)):
        level = config["text_config"] if isinstance(config.get("text_config"), dict) and rng.random() < 0.7 else config
        if not level:
            continue
        key = rng.choice(sorted(level, key=str))
        action = rng.random()
        if action < 0.25:
            del level[key]
        elif action < 0.75:
            level[key] = rng.choice(ABSURD)
        elif action < 0.85 and isinstance(level[key], int):
            level[key] = level[key] * rng.choice((2, 3, 1000)) + rng.choice((-1, 0, 1))
        elif action < 0.95:
            other = rng.choice(sorted(level, key=str))
            level[key], level[other] = level[other], level[key]
        else:
            level[rng.choice(("num_experts", "sliding_window", "head_dim", "layer_types", "quantization_config", 3, ""))] = rng.choice(
                ABSURD
            )
    return config


def counted(config):
    """Everything that a model is good for, as numbers."""
    model = Model.load(config)
    floor = prefill_floor(model, prompt=8, **RATES, peak_flops_per_s=1e15, weights="bf16")
    assert model.kv_bytes_per_token() >= 0
    assert str(floor)
    return model.parameters, model.active_parameters, floor.time_s, floor.flops, floor.weight_bytes, floor.resident_bytes


def test_fuzzed_configurations():
    outcomes = {"model": 0, "error": 0}
    for seed in range(500):
        config = mutated(random.Random(seed))
        try:
            numbers = counted(config)
        except RooflineError as error:
            outcomes["error"] += 1
            message = str(error)
        except Exception as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}; config {config}")
        else:
            outcomes["model"] += 1
            message = "a model"
            assert all(math.isfinite(n) and n > 0 for n in numbers), (seed, config)
        assert message, seed
    assert min(outcomes.values()) > 50, outcomes  # the fuzz reaches both sides


def test_empty_step_raises():
    with pytest.raises(InvalidValueError, match="at least one group"):
        Step(())
