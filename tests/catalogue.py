"""Names of the catalogue as parameters of tests that take long for each: one model of every family always, the others as slow tests."""

import json
from importlib import resources

import pytest

from roofline import list_models


def _family(name: str) -> str:
    config = json.loads((resources.files("roofline") / "_models" / f"{name}.json").read_text(encoding="utf-8"))["config"]
    return str(config.get("model_type"))


def every_model() -> list[object]:
    """Return the names, those whose family has been before marked slow."""
    before: set[str] = set()
    parameters: list[object] = []
    for name in list_models():
        family = _family(name)
        parameters.append(pytest.param(name, marks=pytest.mark.slow) if family in before else name)
        before.add(family)
    return parameters
