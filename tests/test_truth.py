"""Every reader is held against a count that is not ours: in docs/truth.md, or in a test that asks the reference implementation."""

import ast
import importlib
import json
import pkgutil
import re
from pathlib import Path

import pytest

from roofline import huggingface
from roofline.huggingface.registry import _MODULES, _READERS, find_reader, supported_model_types

CATALOGUE = Path(huggingface.__file__).parents[1] / "_models"
COUNTED_IN = {
    # a test that compares with the reference implementation's own tensors, or with a published size: the model types it does so for
    "test_models_experts.py::test_small_configuration_equals_transformers_class": (
        "cohere2 ernie4_5 exaone4 glm4 granite granitemoe minimax_m2 ministral mistral3 olmo2 olmo3 qwen3_vl qwen3_vl_moe step3p7"
    ),
    "test_models_latent.py::test_components_are_transformers": "deepseek_v4 glm_moe_dsa kimi_k25 longcat_flash minimax_m3_vl",
    "test_models_recurrent.py::test_parameters_are_those_that_transformers_makes": "mamba2 qwen3_5_text",
    "test_models_experts.py::test_published_sizes": "nemotron-nas",
    "test_models_experts.py::test_mimo_is_qwen2_with_layers_for_drafting": "mimo",
}


def in_truth(repository):
    """The model types of the rows of docs/truth.md, whose models are in the catalogue."""
    rows = re.findall(r"^\| ([\w.-]+) \| [\d,]+ \|", (repository / "docs" / "truth.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(rows) >= 50
    return {json.loads((CATALOGUE / f"{name}.json").read_text(encoding="utf-8"))["config"]["model_type"] for name in rows}


def test_every_reader_has_a_count_that_is_not_ours(repository):
    counted = in_truth(repository) | {t for types in COUNTED_IN.values() for t in types.split()}
    held = {find_reader(model_type) for model_type in counted}
    assert [t for t in supported_model_types() if find_reader(t) not in held] == []


@pytest.mark.parametrize("where", COUNTED_IN)
def test_the_tests_that_count_exist(where):
    file, _, name = where.partition("::")
    tree = ast.parse((Path(__file__).parent / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_table_of_families_names_every_reader():
    for found in pkgutil.iter_modules(huggingface.__path__, "roofline.huggingface."):
        importlib.import_module(found.name)
    ours = {t: reader for t, reader in _READERS.items() if reader.__module__.startswith("roofline.")}
    assert {t: f"roofline.huggingface.{module}" for t, module in _MODULES.items()} == {t: r.__module__ for t, r in ours.items()}
