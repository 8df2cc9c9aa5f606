"""The catalogue: every entry loads, says where it comes from, is found by its names only, and nothing is fetched."""

import importlib.util
import re
import socket
from importlib import resources
from pathlib import Path

import pytest

from roofline import Model, UnknownNameError, decode_floor, list_models
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
    assert len(ENTRIES) >= 100


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
    assert model.parameters >= model.active_parameters > 10**8
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


@pytest.mark.parametrize("name", ["llama-3-71b", "deepseek-v5", "qwen/qwen3", "meta-llama", "gpt-oss-120b-base"])
def test_near_miss_of_a_model_name_raises(name):
    with pytest.raises(UnknownNameError, match="unknown model") if "/" not in name else pytest.raises(ValueError, match="cannot read"):
        Model.load(name)


@pytest.mark.parametrize(("name", "file"), sorted(PAIRS))
def test_an_entry_is_what_was_published(name, file):
    """Entries leave out keys that do not change the cost, so nothing that costs may differ from the whole configuration."""
    entry, whole = Model.load(name), Model.load(next(f for f in SHIPPED.values() if f.name == file))
    ours, theirs = ({f: getattr(m, f) for f in Model._fields if f not in ("name", "source")} for m in (entry, whole))
    assert {f: (ours[f], theirs[f]) for f in ours if ours[f] != theirs[f]} == {}


@pytest.mark.skipif(not SHIPPED, reason="aiconfigurator-core is not installed")
def test_most_published_configurations_are_entries():
    assert len(PAIRS) >= 85
