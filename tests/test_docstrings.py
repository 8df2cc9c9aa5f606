"""Docstrings of the public surface: complete, true to the signatures, and with a unit on every number."""

import enum
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from numpydoc.docscrape import NumpyDocString

import roofline
from roofline.cli.app import find_command
from roofline.description import Description

# A public method without parameters, or with those of a base's method alone, may say all in one line, as a property does: """Return the lines of the text [-]."""
UNIT = re.compile(r"\[([^\]\n]+)\]")
NUMERIC = re.compile(r"\b(int|float|Number|ndarray|Fraction)\b")
UNITS = {
    "-",
    "B",
    "FLOP",
    "s",
    "B/s",
    "FLOP/s",
    "FLOP/B",
    "token",
    "token/s",
    "bit",
    "Hz",
    "W",
    "J",
    "degC",
    "SI",
    "unit",
    "request/s",
    "currency",
}
"""SI: of a mapping, each value in its SI unit. unit: the one that a field of the same object names. currency: that of the price given."""
ENDINGS = {
    "_flops_per_s": "FLOP/s",
    "_bytes_per_s": "B/s",
    "tokens_per_s": "token/s",
    "requests_per_s": "request/s",
    "_s": "s",
    "_bytes": "B",
    "_flops": "FLOP",
}


def rooms():
    """The package itself, and every module or package directly in it that has an ``__all__``: what it names is public, all else is not."""
    yield roofline
    for found in pkgutil.iter_modules(roofline.__path__, "roofline."):
        if found.name.rpartition(".")[2].startswith("_"):
            continue
        try:
            module = importlib.import_module(found.name)
        except roofline.RooflineError:  # an optional package is missing
            continue
        if hasattr(module, "__all__"):
            yield module


def public_callables():
    """Every function and class that a room names, once, and the public methods and properties of the classes."""
    found = {}
    for module in rooms():
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


def told_by_bases(thing):
    """The parameters that public methods of a method's bases document; one that takes no others need not repeat them."""
    owner = CALLABLES.get(f"{thing.__module__}.{thing.__qualname__}".rpartition(".")[0])
    methods = [CALLABLES.get(f"{b.__module__}.{b.__qualname__}.{key}") for b in (owner.__mro__[1:] if owner else ()) for key in vars(b)]
    return {n for method in methods if inspect.isfunction(method) for group, _ in documented(describe(method)["Parameters"]) for n in group}


def own_fields(model):
    """The fields that a description or pydantic model adds to its bases, less the tag that only tells it from others."""
    inherited = {n for base in model.__mro__[1:] for n in field_types(base)}
    tags = {n for n, kind in field_types(model).items() if get_origin(kind) is Literal and len(get_args(kind)) == 1}
    return set(field_types(model)) - tags - inherited


def field_types(model):
    """The type of every field of a description or pydantic model, by name; nothing of other classes."""
    if issubclass(model, Description):
        return model._fields
    return {n: field.annotation for n, field in getattr(model, "model_fields", {}).items()}


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


def units_of(text):
    """The bracketed units at the end of a description, such as "… [B/s], [FLOP/s], [B]."; empty if it does not end in one."""
    tail = re.search(r"((?:\[[^\]\n]+\](?:, )?)+)\.?$", text.strip())
    return UNIT.findall(tail.group(1)) if tail else []


def wrong_units(names, text):
    """What is wrong with the units of one numpydoc entry."""
    units = units_of(text)
    wrong = [f"{', '.join(names)}: no unit at the end, [-] if it has none"] if not units else []
    wrong += [f"{', '.join(names)}: [{unit}] is none of {sorted(UNITS)}" for unit in units if unit not in UNITS]
    for position, name in enumerate(names):
        ending = next((e for e in ENDINGS if name.endswith(e)), None)
        unit = units[min(position, len(units) - 1)] if units else None
        if ending and unit not in (ENDINGS[ending], None):
            wrong.append(f"{name} is in [{unit}], but is called {ending}")
    return wrong


def test_every_name_of_the_surface_is_documented_by_its_room():
    homes = {thing.__module__.split(".")[1] for name in roofline.__all__ if callable(thing := getattr(roofline, name))}
    assert homes >= {"floors", "estimate", "capacity", "hardware", "model", "step"}
    for room in sorted(homes):
        named = set(importlib.import_module(f"roofline.{room}").__all__)
        wanted = {n for n in roofline.__all__ if getattr(getattr(roofline, n), "__module__", "").split(".")[1:2] == [room]}
        assert wanted <= named, f"{room}/__init__.py does not name {sorted(wanted - named)}"


def test_inner_modules_declare_no_surface(repository):
    """What is public is said once, by the room: a second list in an inner module would be a second truth."""
    inner = [p for p in (repository / "src" / "roofline").glob("*/**/*.py") if p.name != "__init__.py"]
    assert [str(p) for p in inner if "\n__all__" in p.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize(("text", "units"), [("Rates [B/s], [FLOP/s], [B].", ["B/s", "FLOP/s", "B"]), ("Popularity p[0] of each.", [])])
def test_units_are_read_from_the_end(text, units):
    assert units_of(text) == units


@pytest.mark.parametrize(
    ("names", "text"), [(["time_s"], "Time [-]."), (["bytes"], "Bytes."), (["load"], "Load [0]."), (["peak_flops_per_s"], "Peak [FLOP].")]
)
def test_a_wrong_unit_is_seen(names, text):
    assert wrong_units(names, text)


@parametrized(properties=True)
def test_has_a_docstring(thing):
    text = inspect.getdoc(thing.fget if isinstance(thing, property) else thing)
    assert text, "no docstring"
    assert text.splitlines()[0].rstrip().endswith((".", ":", "?")) or "[" in text.splitlines()[0], "the summary is one sentence on one line"


@parametrized()
def test_documented_parameters_are_the_signature(thing):
    written = [n for group, _ in documented(describe(thing)["Parameters"]) for n in group]
    if inspect.isclass(thing) and field_types(thing):  # given by keyword, so their order is free
        assert own_fields(thing) <= set(written) <= set(field_types(thing))
    elif (names := signature_names(thing)) is not None:
        assert written == names or (not written and set(names) <= told_by_bases(thing))


@parametrized()
def test_every_parameter_has_a_unit(thing):
    assert [wrong for group, text in documented(describe(thing)["Parameters"]) for wrong in wrong_units(group, text)] == []


@parametrized(classes=False)
def test_every_return_value_has_a_unit(thing):
    text = describe(thing)
    entries = text["Returns"] or text["Yields"]
    if inspect.signature(thing).return_annotation in (None, "None"):
        assert not entries
    elif "." in thing.__qualname__ and set(signature_names(thing)) <= told_by_bases(thing) and not entries:
        assert UNIT.search(inspect.getdoc(thing) or ""), "neither a Returns section nor a unit in the summary, [-] if it has none"
    else:
        assert entries, "no Returns section"
        assert [wrong for e in entries for wrong in wrong_units([thing.__name__ if e.type == "float" else ""], " ".join(e.desc))] == []


@parametrized(functions=False, classes=False, properties=True)
def test_numeric_properties_have_a_unit(thing):
    annotation = inspect.formatannotation(inspect.signature(thing.fget).return_annotation)
    if NUMERIC.search(annotation):
        units = UNIT.findall(inspect.getdoc(thing.fget) or "")
        assert units, "no unit in brackets, [-] if it has none"
        assert wrong_units([thing.fget.__name__], f"[{units[0]}]") == []


def test_every_public_module_is_in_the_reference(repository):
    text = (repository / "docs" / "reference.md").read_text(encoding="utf-8")
    named = [m.__name__ for m in rooms() if m.__name__ not in ("roofline", "roofline.cli")]
    assert [n for n in named if f"automodule:: {n}\n" not in text] == []


STRIPPED = """
import ast, importlib.machinery, inspect, json, sys

class Stripping(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, *, _optimization=-1):
        tree = ast.parse(data)
        for node in ast.walk(tree):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and (doc := ast.get_docstring(node, clean=True)) is not None:
                node.body[0].value.value = doc
        return compile(tree, path, "exec", dont_inherit=True)
    def get_code(self, name):  # not from __pycache__
        return self.source_to_code(self.get_data(self.path), self.path)

def hook(path):
    if "roofline" not in path:
        raise ImportError
    return importlib.machinery.FileFinder(path, (Stripping, [".py"]))

sys.path_hooks.insert(0, hook)
sys.path_importer_cache.clear()
import roofline
from roofline.cli import kernel
from roofline.cli.app import COMMANDS, find_command
assert inspect.cleandoc(roofline.Hardware.__doc__) == roofline.Hardware.__doc__
texts = {name: inspect.getdoc(getattr(roofline, name)) for name in roofline.__all__ if callable(getattr(roofline, name))}
commands = [[name] for name in COMMANDS] + [["kernel", kind] for kind in kernel.kinds()]
help = {" ".join(words): find_command(words)[0].help(80) for words in commands}
print(json.dumps([roofline.Hardware.json_schema(), texts, help]))
"""


def test_docstrings_without_their_indentation_say_the_same():
    """Python 3.13 strips the indentation of docstrings when it compiles; here they are stripped by hand."""
    environment = {**os.environ, "PYTHONPATH": str(Path(roofline.__file__).parents[1]), "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", STRIPPED], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    schema, texts, shown = json.loads(done.stdout)
    assert schema == roofline.Hardware.json_schema()
    assert texts == {name: inspect.getdoc(getattr(roofline, name)) for name in roofline.__all__ if callable(getattr(roofline, name))}
    assert not [name for name, text in texts.items() if "{options}" in text or "{model}" in text]
    assert "usage: roofline floor MODEL" in shown["floor"]
    assert shown == {words: find_command(words.split())[0].help(80) for words in shown}
