"""The catalogue: every entry loads, says where it comes from, is found by its names only, and nothing is fetched."""

import importlib.util
import json
import re
import socket
from importlib import resources
from pathlib import Path

import pytest

from roofline import ConfigError, Model, UnknownNameError, decode_estimate, decode_floor, list_models, resident
from roofline.huggingface import read_json
from roofline.names import normalize_name

ENTRIES = {
    file.name.removesuffix(".json"): read_json(Path(str(file)))
    for file in sorted((resources.files("roofline") / "_models").iterdir(), key=lambda f: f.name)
    if file.name.endswith(".json")
}


def _shipped():
    """Configurations as published, from the wheel of aiconfigurator-core, by the normalized name of their repository."""
    spec = importlib.util.find_spec("aiconfigurator_core")
    folder = Path(spec.origin).parent / "model_configs" if spec and spec.origin else None
    files = sorted(folder.glob("*_config.json")) if folder else []
    names = {f: f.name.removesuffix("_config.json").replace("--", "/") for f in files if not f.name.endswith("hf_quant_config.json")}
    return {normalize_name(name): f for f, name in names.items()}


SHIPPED = _shipped()
PAIRS = {
    (name, SHIPPED[key].name) for name, entry in ENTRIES.items() for key in map(normalize_name, (name, *entry["aliases"])) if key in SHIPPED
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Fail at the first socket, whoever opens it."""

    def refuse(*args, **kwargs):
        raise AssertionError("a model was looked for on the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_list_models_equals_the_shipped_files():
    assert list_models() == sorted(ENTRIES)
    assert len(ENTRIES) >= 400


@pytest.mark.parametrize("name", ENTRIES)
def test_catalogue_entry_has_source_and_config(name):
    entry = ENTRIES[name]
    assert set(entry) == {"aliases", "source", "config"}
    assert re.fullmatch(r"[a-z0-9.-]+", name)
    assert len(entry["source"]) > 20
    assert entry["source"] == entry["source"].strip()
    assert all(isinstance(alias, str) and normalize_name(alias) for alias in entry["aliases"])
    assert any("/" in alias for alias in entry["aliases"]), "the repository that publishes it is not among the aliases"
    model = Model.load(name)
    assert model.name == name
    assert model.source == entry["source"]
    assert model.parameters >= model.active_parameters > 10**7
    assert model.num_layers > 0
    assert decode_floor(model, "h200-sxm").weight_bytes > 0  # every entry says, or lets one conclude, what it is stored in


def test_catalogue_names_and_aliases_are_unique():
    owners = {}
    for name, entry in ENTRIES.items():
        for spelling in (name, *entry["aliases"]):
            owners.setdefault(normalize_name(spelling), []).append(name)
    assert {key: names for key, names in owners.items() if len(names) > 1} == {}


@pytest.mark.parametrize("name", ENTRIES)
def test_case_and_punctuation_do_not_matter(name):
    model = Model.load(name)
    for spelling in (name, *ENTRIES[name]["aliases"]):
        for typed in (spelling, spelling.upper(), f" {spelling.replace('-', ' ')} ", re.sub(r"[-_.]", "_", spelling).title()):
            assert Model.load(typed) is model, typed


@pytest.mark.parametrize("name", ["llama-3-71b", "deepseek-v5", "qwen/qwen3", "meta-llama", "gpt-oss-120b-awq"])
def test_near_miss_of_a_model_name_raises(name):
    with pytest.raises(UnknownNameError, match="unknown model"):
        Model.load(name)


USUAL_IDS = [
    # as people paste them: the entry, and whether a note says that it is a variant's
    ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b", False),
    ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b", True),
    ("meta-llama/Llama-3.1-70B-Instruct", "llama-3.1-70b", False),
    ("meta-llama/Meta-Llama-3.1-70B-Instruct", "llama-3.1-70b", True),
    ("meta-llama/Llama-3.1-405B-Instruct", "llama-3.1-405b", True),
    ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.3-70b", False),
    ("meta-llama/Llama-3.2-1B-Instruct", "llama-3.2-1b", False),
    ("meta-llama/Llama-3.2-3B-Instruct", "llama-3.2-3b", False),
    ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-8b", True),
    ("meta-llama/Meta-Llama-3-70B-Instruct", "llama-3-70b", True),
    ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b", False),
    ("meta-llama/Llama-2-13b-chat-hf", "llama-2-13b", False),
    ("meta-llama/Llama-2-70b-chat-hf", "llama-2-70b", False),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama-4-scout", False),
    ("unsloth/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b", True),
    ("Llama-3.1-8B-Instruct", "llama-3.1-8b", True),
    ("mistralai/Mistral-7B-Instruct-v0.1", "mistral-7b-v0.1", False),
    ("mistralai/Mistral-7B-Instruct-v0.2", "mistral-7b-v0.2", False),
    ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b-v0.3", True),
    ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b", True),
    ("mistralai/Mixtral-8x22B-Instruct-v0.1", "mixtral-8x22b-v0.1", True),
    ("mistralai/Mistral-Nemo-Instruct-2407", "mistral-nemo-12b", False),
    ("mistralai/Mistral-Small-24B-Instruct-2501", "mistral-small-24b", False),
    ("mistralai/Mistral-Large-Instruct-2407", "mistral-large-123b", False),
    ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b", False),
    ("Qwen/Qwen2.5-1.5B-Instruct", "qwen2.5-1.5b", False),
    ("Qwen/Qwen2.5-3B-Instruct", "qwen2.5-3b", False),
    ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b", False),
    ("Qwen/Qwen2.5-14B-Instruct", "qwen2.5-14b", False),
    ("Qwen/Qwen2.5-32B-Instruct", "qwen2.5-32b", False),
    ("Qwen/Qwen2.5-72B-Instruct", "qwen2.5-72b", False),
    ("Qwen/Qwen2.5-Coder-32B-Instruct", "qwen2.5-coder-32b", False),
    ("Qwen/QwQ-32B", "qwq-32b", False),
    ("Qwen/Qwen3-4B-Instruct-2507", "qwen3-4b", True),
    ("Qwen/Qwen3-8B-Base", "qwen3-8b", True),
    ("Qwen/Qwen3-14B", "qwen3-14b", False),
    ("Qwen/Qwen3-32B", "qwen3-32b", False),
    ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b", True),
    ("Qwen/Qwen3-235B-A22B-Thinking-2507", "qwen3-235b-a22b", True),
    ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3-coder-30b-a3b", False),
    ("Qwen/Qwen3-Next-80B-A3B-Instruct", "qwen3-next-80b-a3b", False),
    ("google/gemma-2-9b-it", "gemma-2-9b-it", False),
    ("google/gemma-2-27b-it", "gemma-2-27b-it", False),
    ("google/gemma-3-12b-it", "gemma-3-12b", False),
    ("google/gemma-3-27b-it", "gemma-3-27b", False),
    ("google/gemma-7b-it", "gemma-7b", True),
    ("microsoft/phi-4", "phi-4", False),
    ("microsoft/Phi-4-mini-instruct", "phi-4-mini", False),
    ("microsoft/Phi-3-mini-4k-instruct", "phi-3-mini-4k", False),
    ("deepseek-ai/DeepSeek-V3-0324", "deepseek-v3", True),
    ("deepseek-ai/DeepSeek-R1-0528", "deepseek-r1", True),
    ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "deepseek-r1-distill-llama-70b", False),
    ("openai/gpt-oss-120b", "gpt-oss-120b", False),
    ("moonshotai/Kimi-K2-Instruct-0905", "kimi-k2-instruct", True),
    ("moonshotai/Kimi-K2-Base", "kimi-k2-instruct", False),
    ("deepseek-ai/DeepSeek-V3-Base", "deepseek-v3", False),
    ("Qwen/Qwen3-235B-A22B-Thinking-2507-FP8", "qwen3-235b-a22b-fp8", True),
    ("zai-org/GLM-4.5-Air", "glm-4.5-air", False),
    ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tinyllama-1.1b", False),
    ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "smollm2-1.7b", False),
    ("tiiuae/falcon-7b-instruct", "falcon-7b", True),
    ("codellama/CodeLlama-34b-Instruct-hf", "codellama-34b", True),
]


@pytest.mark.parametrize(("name", "entry", "noted"), USUAL_IDS)
def test_a_usual_id_is_an_entry_or_read_as_one_with_a_note(name, entry, noted):
    model = Model.load(name)
    assert model.name == entry
    assert model.layers == Model.load(entry).layers
    assert model.alias_note == (f"{name!r} is read as {entry}, whose architecture and formats it is taken to have" if noted else "")


STORED = {
    # 594 GB on Hugging Face: simonwillison.net/2025/Nov/6/kimi-k2-thinking. Gemma 2: 4 or 2 bytes for each published parameter, as the base
    # models are reported to be in float32 and the -it models' cards say bfloat16
    "moonshotai/Kimi-K2-Thinking": (594e9, 1e-3),
    "google/gemma-2-9b": (4 * 9_241_705_984, 0),
    "google/gemma-2-9b-it": (2 * 9_241_705_984, 0),
    "google/gemma-2-27b": (4 * 27_227_128_320, 0),
    "google/gemma-2-27b-it": (2 * 27_227_128_320, 0),
}


@pytest.mark.parametrize("name", STORED)
def test_a_variant_has_the_bytes_of_its_own_checkpoint(name):
    size, tolerance = STORED[name]
    assert resident(name).weight_bytes == pytest.approx(size, rel=tolerance)
    assert not Model.load(name).alias_note


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        # its model card: FP8 mixed; that of DeepSeek-V4-Flash: FP4 + FP8 mixed
        ("deepseek-ai/DeepSeek-V4-Flash-Base", "deepseek-v4-flash"),
        ("my-lab/gpt-oss-20b-base", "gpt-oss-20b"),
        ("my-lab/gpt-j-6b-instruct", "gpt-j-6b"),
    ],
)
def test_a_variant_of_what_is_not_in_16_bits_is_not_read_as_it(name, entry):
    with pytest.raises(UnknownNameError, match=f"; {entry} is tuned otherwise, and its files may be in another format: say weights="):
        Model.load(name)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("Qwen/Qwen3-8B-AWQ", "name qwen3-8b and say weights='awq'."),
        ("nvidia/Llama-3.1-8B-Instruct-NVFP4", "name llama-3.1-8b and say weights='nvfp4'."),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8", "name llama-3.1-8b and say weights='fp8'."),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "name qwen2.5-7b and say weights=."),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", "name qwen2.5-7b and say weights=."),
        ("mlx-community/Qwen3-8B-4bit", "name qwen3-8b and say weights=."),
        ("unsloth/gpt-oss-20b-BF16", "name gpt-oss-20b and say weights='bf16'."),
    ],
)
def test_an_id_that_ends_with_a_format_is_not_read_as_a_model_in_another(name, instead):
    with pytest.raises(UnknownNameError, match=re.escape(instead)):
        Model.load(name)


def test_the_note_stands_in_every_result():
    name = "Qwen/Qwen3-8B-Base"
    for result in (decode_floor(name, "h100-sxm"), decode_estimate(name, "h100-sxm")):
        assert "'Qwen/Qwen3-8B-Base' is read as qwen3-8b" in str(result)
        assert any("is read as qwen3-8b" in note for note in result.to_dict()["assumptions"])


PUBLISHED = {
    # parameters of the checkpoints as the Hub shows them, and of the transformers classes on the meta device, which agree; the text
    # models of Gemma 3 are the class's language model, and GLM-4.5-Air comes without its draft module
    "codellama-34b": 33_743_970_304,
    "gemma-2-27b": 27_227_128_320,
    "gemma-2-2b": 2_614_341_888,
    "gemma-3-12b": 11_766_034_176,
    "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 3_880_263_168,
    "glm-4.5-air": 106_852_245_504,
    "llama-2-13b": 13_015_864_320,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b-v0.1": 7_241_732_096,
    "mistral-7b-v0.2": 7_241_732_096,
    "mistral-large-123b": 122_610_069_504,
    "mistral-nemo-12b": 12_247_782_400,
    "mistral-small-24b": 23_572_403_200,
    "phi-3.5-mini": 3_821_079_552,
    "phi-4-mini": 3_836_021_760,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-72b": 72_706_203_648,
    "qwen2.5-coder-32b": 32_763_876_352,
    "qwen3-14b": 14_768_307_200,
    "qwen3-4b": 4_022_468_096,
    "qwen3-coder-30b-a3b": 30_532_122_624,
    "qwq-32b": 32_763_876_352,
    "smollm2-1.7b": 1_711_376_384,
    "tinyllama-1.1b": 1_100_048_384,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_entry_has_the_published_parameters(name):
    assert Model.load(name).parameters == PUBLISHED[name]


# ----------------------------------------------------------------------------------------------------------------- the Hub's cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the Hub, and a function that puts a configuration there as huggingface_hub does."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))

    def put(name, revision, *, main=False, layers=2):
        folder = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        file = folder / "snapshots" / revision / "config.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(ENTRIES["llama-2-7b"]["config"] | {"num_hidden_layers": layers}))
        if main:
            (folder / "refs").mkdir(exist_ok=True)
            (folder / "refs" / "main").write_text(revision)
        return file

    return put


def test_an_id_in_the_local_cache_is_read_from_there(cache):
    file = cache("my-lab/my-llama", "1a2b", main=True)
    model = Model.load("my-lab/my-llama")
    assert (model.name, model.source, model.num_layers) == ("my-lab/my-llama", str(file), 2)
    assert model.alias_note == ""


def test_of_several_snapshots_the_one_of_main_is_read(cache):
    cache("my-lab/my-llama", "old", main=True, layers=3)
    cache("my-lab/my-llama", "new", layers=4)
    assert Model.load("my-lab/my-llama").num_layers == 3


def test_a_cached_configuration_goes_before_a_guess(cache):
    cache("my-lab/Llama-2-7b-chat", "1a2b", layers=5)
    assert Model.load("my-lab/Llama-2-7b-chat").num_layers == 5
    assert Model.load("other-lab/Llama-2-7b-chat").name == "llama-2-7b"


def test_the_cache_is_where_the_environment_says(cache, tmp_path, monkeypatch):
    cache("my-lab/my-llama", "1a2b")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HOME", "/nowhere")
    assert Model.load("my-lab/my-llama").num_layers == 2


def test_an_unknown_id_says_how_to_get_its_configuration(cache):
    with pytest.raises(UnknownNameError) as caught:
        Model.load("my-lab/Qwen3-8C")
    assert "unknown model 'my-lab/Qwen3-8C'; nearest: qwen3-8b" in str(caught.value)
    assert "`hf download my-lab/Qwen3-8C config.json`" in str(caught.value)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B-AWQ", "nvidia/Llama-3.1-8B-Instruct-FP8", "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit"])
def test_a_number_format_in_an_id_is_never_left_out(cache, name):
    with pytest.raises(UnknownNameError, match="nearest"):
        Model.load(name)


# ------------------------------------------------------------------------------------------------------------- given by mistake


@pytest.mark.parametrize("name", ["h100-sxm", "H100 SXM", "MI300X"])
def test_a_machine_given_as_a_model_is_said_to_be_one(name):
    with pytest.raises(UnknownNameError, match=r"is a machine \(.*\), not a model: the model is given first, then the machine"):
        decode_floor(name, "llama-3-8b")


@pytest.mark.parametrize("name", ["llama-3-8b", "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B-Base"])
def test_a_model_given_as_a_machine_is_said_to_be_one(name):
    with pytest.raises(UnknownNameError, match="is a model, not a machine: the model is given first, then the machine"):
        decode_floor("llama-3-8b", name)


@pytest.mark.parametrize("name", ["llama-2-7b.onnx", "/models/model-00001-of-00004.safetensors", "model.safetensors"])
def test_weights_are_said_to_be_no_configuration(tmp_path, name):
    (tmp_path / Path(name).name).write_bytes(b"GGUF\0\0\0\3")
    for source in (name, tmp_path / Path(name).name, str(tmp_path / Path(name).name)):
        with pytest.raises(ConfigError, match="is a file of weights, which are not read: "):
            Model.load(source)


def test_a_gguf_file_leads_to_model_and_format():
    with pytest.raises(ConfigError, match=r"weights='q4_k_m'"):
        Model.load("llama-2-7b.Q4_K_M.gguf")


def test_json_text_is_said_to_be_no_name():
    with pytest.raises(ConfigError, match=r"is the content of a configuration, not a name or a path: Model\.load\(json\.loads\(text\)\)"):
        Model.load(json.dumps(ENTRIES["llama-2-7b"]["config"]))


@pytest.mark.parametrize(("name", "file"), sorted(PAIRS))
def test_an_entry_is_what_was_published(name, file):
    """Entries leave out keys that do not change the cost, so nothing that costs may differ from the whole configuration."""
    entry, whole = Model.load(name), Model.load(next(f for f in SHIPPED.values() if f.name == file))
    if not whole.towers:  # a file of the wheel that leaves out the tower
        entry, whole = entry.without_towers(), whole.without_towers()
    ours, theirs = ({f: getattr(m, f) for f in Model._fields if f not in ("name", "source")} for m in (entry, whole))
    assert {f: (ours[f], theirs[f]) for f in ours if ours[f] != theirs[f]} == {}


@pytest.mark.skipif(not SHIPPED, reason="aiconfigurator-core is not installed")
def test_most_published_configurations_are_entries():
    assert len(PAIRS) >= 85


@pytest.mark.parametrize("text", ["70e9", "7e+10", "70_000_000_000", "70B", "0.07t"])
def test_a_number_of_parameters_may_be_written_in_any_usual_way(text):
    assert Model.load(text).parameters == 70 * 10**9
