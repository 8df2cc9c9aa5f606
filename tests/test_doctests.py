"""Every example in every docstring of the installed package runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import roofline
from roofline.errors import MissingDependencyError

MODULES = ["roofline", *(m.name for m in pkgutil.walk_packages(roofline.__path__, "roofline.") if not m.name.endswith("__main__"))]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name, monkeypatch, tmp_path):
    try:
        module = importlib.import_module(name)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)  # an example that writes a file writes it there
    try:
        doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, raise_on_error=True)
    except doctest.DocTestFailure as failure:
        pytest.fail(f"{failure.test.name}: {failure.example.source}gives {failure.got}and not {failure.example.want}")
    except doctest.UnexpectedException as failure:
        if isinstance(failure.exc_info[1], MissingDependencyError):
            pytest.skip(str(failure.exc_info[1]))
        raise failure.exc_info[1] from None


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [e for t in finder.find(importlib.import_module("roofline.units")) for e in t.examples]
    assert examples
