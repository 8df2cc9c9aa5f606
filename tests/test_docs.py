"""README, docs and examples: they show the public surface and nothing behind it."""

import ast
import doctest
import importlib.util
import re

import pytest

SHOWN = re.compile(r"^```(?:python|\{code-cell\} ipython3)\n(?!:tags: \[remove-input\])(.*?)^```", re.MULTILINE | re.DOTALL)
FOR_CONTRIBUTORS = "\n## Adding an architecture\n"


def pages(repository):
    """Every page and example for users, by its path: not what is for those who change the library itself."""
    files = [repository / "README.md", *sorted((repository / "docs").glob("*.md")), *sorted((repository / "examples").rglob("*.py"))]
    for file in files:
        if file.name != "architecture.md":
            yield file.relative_to(repository).as_posix(), file.read_text(encoding="utf-8").split(FOR_CONTRIBUTORS)[0]


def imports(code):
    """Every module of roofline that some code imports, with the names it takes from it."""
    if ">>> " in code:
        code = "".join(example.source for example in doctest.DocTestParser().get_examples(code))
    # magics and options of notebook cells are no Python
    lines = [line for line in code.splitlines() if not line.startswith((":", "%"))]
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "roofline":
            yield node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names if alias.name.split(".")[0] == "roofline")


def private(module, names):
    """Which of some imported names are not public; a room itself is."""
    if module.count(".") > 1:
        return [f"{module}.{name}" for name in names] or [module]
    public = set(importlib.import_module(module).__all__)
    return [f"{module}.{name}" for name in names if name not in public and not (module == "roofline" and _is_room(name))]


def _is_room(name):
    return importlib.util.find_spec(f"roofline.{name}") is not None and hasattr(importlib.import_module(f"roofline.{name}"), "__all__")


def test_pages_import_public_names_only(repository):
    found, wrong = set(), {}
    for page, text in pages(repository):
        for code in SHOWN.findall(text) if page.endswith(".md") else (text,):
            for module, names in imports(code):
                found |= {f"{module}.{name}" for name in names}
                if bad := private(module, names):
                    wrong.setdefault(page, []).extend(bad)
    assert wrong == {}
    assert "roofline.decode_floor" in found
    assert "roofline.records.CalibrationRecord" in found


@pytest.mark.parametrize(
    ("module", "names", "bad"),
    [
        ("roofline", ["decode_floor", "Step"], []),
        ("roofline", ["ops"], []),
        ("roofline", ["no_such_name"], ["roofline.no_such_name"]),
        ("roofline.ops", ["linear"], []),
        ("roofline.ops", ["Number"], ["roofline.ops.Number"]),
        ("roofline.forward.symbols", ["TOKENS"], ["roofline.forward.symbols.TOKENS"]),
    ],
)
def test_a_private_import_is_seen(module, names, bad):
    assert private(module, names) == bad
