"""Readers are found by the table of families; tests/test_models.py holds each against a count that is not ours."""

import importlib
import pkgutil

from roofline import huggingface
from roofline.huggingface.registry import _MODULES, _READERS


def test_the_table_of_families_names_every_reader():
    for found in pkgutil.iter_modules(huggingface.__path__, "roofline.huggingface."):
        importlib.import_module(found.name)
    ours = {t: reader for t, reader in _READERS.items() if reader.__module__.startswith("roofline.")}
    assert {t: f"roofline.huggingface.{module}" for t, module in _MODULES.items()} == {t: r.__module__ for t, r in ours.items()}
