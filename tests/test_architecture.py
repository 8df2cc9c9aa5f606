"""The page on the architecture names the rooms that there are, and a new part is asked for all that it needs."""

import pkgutil
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

import roofline
from roofline import Model, list_models
from roofline.arithmetic import LinearForm
from roofline.forward import compile_model
from roofline.forward.lowering import LOWERED
from roofline.model import CountedMixer, FeedForward, LayerGroup, Mixer
from roofline.parallel.sharding import _RULES

CASES = Path(__file__).parent / "data" / "cases"
COUNTED = [CountedMixer(projections=(), heads=4, qk_dim=8, v_dim=8, row=64, state=128, columns=16)]
MODELS = [
    *(Model.load(name) for name in list_models()),
    *(Model.load(CASES / f"{name}.json") for name in ("lfm2-8b-a1b", "gemma-3n-e4b")),  # parts that no model of the catalogue has
    Model.anonymous("8B", kv_bytes_per_token=131_072),
    *(Model.load("llama-3-8b").but(layers=(LayerGroup(count=1, mixer=mixer, feed_forward=None),)) for mixer in COUNTED),
]


@pytest.fixture
def contract(repository):
    """The layers of the import contract from high to low, each the names of its modules; planned ones apart."""
    layers = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]["layers"]
    rooms = [re.split(r"\s*[|:]\s*", layer) for layer in layers]
    standing = [[name for name in names if not name.startswith("(")] for names in rooms]
    return [names for names in standing if names], {name.strip("()") for names in rooms for name in names if name.startswith("(")}


def test_the_table_of_layers_is_the_contract(repository, contract):
    page = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| layer | modules |")[2].partition("\n\n")[0]
    listed = [re.findall(r"`(\w+)`", re.split(r"(?<!\\)\|", row.replace("\\|", ","))[2]) for row in table.splitlines()[2:]]
    assert listed[1:] == contract[0]  # the first row is roofline itself


def test_rooms_that_are_absent_are_named(repository, contract):
    absent = (repository / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## What is still absent")[2]
    assert {name for name in contract[1] if f"`{name}`" not in absent} == set()
    assert not contract[1] & {found.name for found in pkgutil.iter_modules(roofline.__path__)}


# ------------------------------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("part", [*get_args(Mixer), *get_args(FeedForward)], ids=lambda part: part.__name__)
def test_every_part_has_operators_and_a_rule_for_sharing(part):
    assert part in LOWERED, "write a function in roofline.forward, registered by @lowers, in a module that forward/__init__ imports"
    assert part in _RULES, "write a rule in roofline.parallel.sharding"


@pytest.mark.parametrize("mixer", get_args(Mixer), ids=lambda part: part.__name__)
def test_what_a_mixer_keeps_its_operators_read_and_write(mixer):
    """A cache or state that is in memory and in no operator would make the floor too low in silence."""
    found = [(model, group) for model in MODELS for group in model.layers if type(group.mixer) is mixer]
    assert found, "no model has such a mixer: add one to MODELS"
    model, group = found[0]
    ops = compile_model(model.but(layers=(group.but(count=1, distinct=None),), mtp=()), weights="bf16").ops
    amounts = {name for op in ops for name, form in op.amounts().items() if LinearForm.coerce(form).terms}
    held = [held for held in group.mixer.keeps() if held.elements]
    assert {"kv_read_bytes", "kv_write_bytes"} <= amounts or not any(h.rows.cached for h in held)
    assert "state_bytes" in amounts or all(h.rows.cached for h in held)
