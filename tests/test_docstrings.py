"""Docstrings of the public surface: complete, true to the signatures, and with a unit on every number."""

import enum
import importlib
import inspect
import pkgutil
import re
from typing import Literal, get_args, get_origin

import pytest
from numpydoc.docscrape import NumpyDocString

import roofline

# A public method without parameters may say all in one line, as a property does: """Return the lines of the text [-]."""
UNIT = re.compile(r"\[[^\]\n]+\]")
NUMERIC = re.compile(r"\b(int|float|Number|ndarray|Fraction)\b")


def public_modules():
    for found in pkgutil.walk_packages(roofline.__path__, "roofline."):
        if any(part.startswith("_") for part in found.name.split(".")):
            continue
        try:
            yield importlib.import_module(found.name)
        except roofline.RooflineError:  # an optional package is missing
            continue


def public_callables():
    """Every function and class in an ``__all__``, once, and the public methods and properties of the classes."""
    found = {}
    for module in (roofline, *public_modules()):
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if not (inspect.isclass(thing) or inspect.isfunction(thing)) or not thing.__module__.startswith("roofline"):
                continue
            found[f"{thing.__module__}.{thing.__qualname__}"] = thing
            if inspect.isclass(thing):
                foreign = [base for base in thing.__mro__ if not base.__module__.startswith("roofline")]
                for key, member in list(vars(thing).items()):
                    member = getattr(member, "__func__", member)
                    hook = key.startswith("_") or any(hasattr(base, key) for base in foreign)
                    if not hook and (inspect.isfunction(member) or isinstance(member, property)):
                        found[f"{thing.__module__}.{thing.__qualname__}.{key}"] = member
    return found


CALLABLES = public_callables()


def signature_names(thing):
    """The parameters a docstring has to describe, in order, or None where there are none to speak of."""
    if inspect.isclass(thing) and (issubclass(thing, (BaseException, enum.Enum)) or getattr(thing, "_is_protocol", False)):
        return None
    names = list(inspect.signature(thing).parameters)
    return [n for n in names if n not in ("self", "cls") and not n.startswith("_")]


def own_fields(model):
    """The fields a pydantic model adds to its bases, less the tag that only tells it from other models."""
    inherited = {n for base in model.__mro__[1:] for n in getattr(base, "model_fields", {})}
    tags = {n for n, f in model.model_fields.items() if get_origin(f.annotation) is Literal and len(get_args(f.annotation)) == 1}
    return set(model.model_fields) - tags - inherited


def documented(entries):
    """Numpydoc entries as (names, description)."""
    return [([n.strip().lstrip("*") for n in e.name.split(",")], " ".join(e.desc)) for e in entries]


def describe(thing):
    return NumpyDocString(inspect.getdoc(thing) or "")


def parametrized(*, functions=True, classes=True, properties=False):
    wanted = {
        name: thing
        for name, thing in CALLABLES.items()
        if (properties and isinstance(thing, property)) or (classes and inspect.isclass(thing)) or (functions and inspect.isfunction(thing))
    }
    return pytest.mark.parametrize("thing", wanted.values(), ids=wanted.keys())


def test_the_surface_is_found():
    assert "roofline.units.show_bytes" in CALLABLES
    assert "roofline.formats.Format.load" in CALLABLES
    assert len(CALLABLES) > 30


@parametrized(properties=True)
def test_has_a_docstring(thing):
    text = inspect.getdoc(thing.fget if isinstance(thing, property) else thing)
    assert text, "no docstring"
    assert text.splitlines()[0].rstrip().endswith((".", ":", "?")) or "[" in text.splitlines()[0], "the summary is one sentence on one line"


@parametrized()
def test_documented_parameters_are_the_signature(thing):
    written = [n for group, _ in documented(describe(thing)["Parameters"]) for n in group]
    if hasattr(thing, "model_fields"):  # given by keyword, so their order is free
        assert own_fields(thing) <= set(written) <= set(thing.model_fields)
    elif (names := signature_names(thing)) is not None:
        assert written == names


@parametrized()
def test_every_parameter_has_a_unit(thing):
    missing = [group for group, text in documented(describe(thing)["Parameters"]) if not UNIT.search(text)]
    assert not missing, f"no unit in brackets, [-] if it has none: {missing}"


@parametrized(classes=False)
def test_every_return_value_has_a_unit(thing):
    text = describe(thing)
    entries = text["Returns"] or text["Yields"]
    is_method = "." in thing.__qualname__
    if inspect.signature(thing).return_annotation in (None, "None"):
        assert not entries
        return
    if is_method and not signature_names(thing) and not entries:
        assert UNIT.search(inspect.getdoc(thing) or ""), "neither a Returns section nor a unit in the summary, [-] if it has none"
        return
    if inspect.signature(thing).return_annotation in (None, "None"):
        assert not entries
        return
    assert entries, "no Returns section"
    missing = [e.type for e in entries if not UNIT.search(" ".join(e.desc))]
    assert not missing, f"no unit in brackets, [-] if it has none: {missing}"


@parametrized(functions=False, classes=False, properties=True)
def test_numeric_properties_have_a_unit(thing):
    annotation = inspect.formatannotation(inspect.signature(thing.fget).return_annotation)
    if NUMERIC.search(annotation):
        assert UNIT.search(inspect.getdoc(thing.fget) or ""), "no unit in brackets, [-] if it has none"


def test_every_public_module_is_in_the_reference(repository):
    text = (repository / "docs" / "reference.md").read_text(encoding="utf-8")
    named = [m.__name__ for m in public_modules() if m.__name__.count(".") == 1 and m.__name__ != "roofline.cli"]
    assert [n for n in named if f"automodule:: {n}\n" not in text] == []
