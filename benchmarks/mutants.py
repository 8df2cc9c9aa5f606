"""How many small faults in the formulas the tests find.

One operator, comparison, condition, number or function at a time is changed (``min`` for ``max``, ``<=`` for ``<``, ``*`` for ``/``), and the tests
that run the line are run until one fails. What none of them notices is printed, and how many of how many were found::

    python benchmarks/mutants.py --sample 400 --seed 1      # of all rooms of formulas
    python benchmarks/mutants.py ops/linear.py              # every fault in one module
    python benchmarks/mutants.py ops/linear.py:40           # in one line

Which tests run which line is recorded first, in one run of the fast tests of formulas, and kept in the file ``--lines``. Text is not changed: messages,
annotations and decorators stay as they are, and so do the bounds between which constants are fitted. A test that takes ten times as long as it should has noticed.
Run it with ``HYPOTHESIS_PROFILE=few``.
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "roofline"
ROOMS = ("ops", "bounds.py", "forward", "capacity", "parallel", "kernels", "estimate")
TESTS = (
    *(
        "capacity",
        "conditions",
        "deployment",
        "efficiency",
        "estimates",
        "floors",
        "formulas",
        "journey",
        "kernels_attention",
        "kernels_experts",
    ),
    *("kernels_floor", "kernels_forms", "kernels_roofs", "levers", "models", "models_experts", "models_latent", "models_recurrent", "ops"),
    *("parallel", "program", "properties", "quantization", "routing", "step", "step_time", "sweeps", "truth"),
)
HEAVY = ("numpy", "pydantic", "hypothesis", "scipy.optimize", "torch.utils.flop_counter", "transformers")

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
FUNCTIONS = {"min": "max", "minimum": "maximum", "ceil": "floor", "any": "all"}
FUNCTIONS |= {after: before for before, after in FUNCTIONS.items()}


@dataclass(frozen=True)
class Mutant:
    """One fault: the module with it, and what was changed where."""

    file: Path
    line: int
    change: str
    tree: ast.Module

    def __str__(self) -> str:
        return f"{self.file.relative_to(SOURCE)}:{self.line}: {self.change}"


def mutants_of(file: Path) -> Iterator[Mutant]:
    """Yield every fault of a module."""
    count = len(list(_places(ast.parse(file.read_text()))))
    for index in range(count):
        tree = ast.parse(file.read_text())
        node = list(_places(tree))[index]
        before = ast.unparse(node)
        _change(node)
        yield Mutant(file, node.lineno, f"{before}  →  {ast.unparse(node)}", ast.fix_missing_locations(tree))


def _places(node: ast.AST) -> Iterator[ast.expr]:
    """Yield what can be changed in formulas, outside text, annotations and decorators."""
    if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Assert)) or (isinstance(node, ast.Call) and ast.unparse(node.func) == "Constant"):
        return
    if isinstance(node, ast.expr) and _changed(node) is not None:
        yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list", "keywords") or (name == "keywords" and isinstance(node, ast.Call)):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _places(child)


def _changed(node: ast.expr) -> dict[str, object] | None:
    """Return the fields of a node that a fault changes."""
    match node:
        case ast.BinOp(left, ast.Add() | ast.Mod(), right) if any(
            isinstance(s, (ast.JoinedStr, ast.List, ast.Tuple)) for s in (left, right)
        ):
            return None
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in OPERATORS:
            return {"op": OPERATORS[type(op)]()}
        case ast.Compare(ops=[op, *others]) if type(op) in OPERATORS:
            return {"ops": [OPERATORS[type(op)](), *others]}
        case ast.Constant(value=bool(value)):
            return {"value": not value}
        case ast.Constant(value=int(value) | float(value)):
            return {"value": value + 1}
        case ast.Call(func=ast.Name(id=name)) if name in FUNCTIONS:
            return {"func": ast.Name(FUNCTIONS[name], ast.Load())}
        case ast.Call(func=ast.Attribute(value, attr)) if attr in FUNCTIONS:
            return {"func": ast.Attribute(value, FUNCTIONS[attr], ast.Load())}
        case ast.UnaryOp(op=ast.Not()):
            return {"op": ast.Not(), "operand": ast.UnaryOp(ast.Not(), node.operand)}
        case _:
            return None


def _change(node: ast.expr) -> None:
    for name, value in (_changed(node) or {}).items():
        setattr(node, name, copy.deepcopy(value))


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """What imports one module with its fault."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        parts = mutant.file.relative_to(SOURCE.parent).with_suffix("").parts
        self.name = ".".join(parts).removesuffix(".__init__")

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, self.mutant.file, loader=self) if name == self.name else None

    def exec_module(self, module) -> None:
        exec(compile(self.mutant.tree, str(self.mutant.file), "exec"), module.__dict__)


def record_lines(target: Path, tests: list[str]) -> None:
    """Run fast tests once and write which of them run which line, and how long they take."""
    import coverage
    import pytest

    cover = coverage.Coverage(data_file=None, source_pkgs=["roofline"])
    seconds: dict[str, float] = defaultdict(float)

    class Recorder:
        def pytest_runtest_logstart(self, nodeid):
            cover.switch_context(nodeid.partition("[")[0])

        def pytest_runtest_logreport(self, report):
            seconds[report.nodeid.partition("[")[0]] += report.duration

    cover.start()
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-m", "not slow", *tests], plugins=[Recorder()])
    cover.stop()
    if status:
        sys.exit("the tests must pass before faults are put in")
    data = cover.get_data()
    lines = {
        str(Path(file).relative_to(SOURCE)): {line: [c for c in contexts if c] for line, contexts in data.contexts_by_lineno(file).items()}
        for file in data.measured_files()
    }
    target.write_text(json.dumps({"seconds": seconds, "lines": lines}))


def tests_of(mutant: Mutant, found: dict) -> list[str]:
    """Return the tests that run a line, the quickest first; of a line that runs at import, those of its module."""
    lines = found["lines"].get(str(mutant.file.relative_to(SOURCE)), {})
    tests = lines.get(str(mutant.line)) or sorted({test for some in lines.values() for test in some})
    return sorted(tests, key=lambda test: found["seconds"].get(test, 0))


def notices(mutant: Mutant, tests: list[str], limit_s: float) -> bool:
    """Whether one of the tests fails, in a process of its own."""
    child = os.fork()
    if not child:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        sys.meta_path.insert(0, _Finder(mutant))
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", *(str(ROOT / test) for test in tests)])))
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def survives(mutant: Mutant, found: dict, always: list[str]) -> bool:
    """Whether no test notices a fault: first the quick ones, then all that run its line."""
    tests = tests_of(mutant, found)
    seconds, quick = 0.0, []
    for test in tests[:40]:
        seconds += found["seconds"].get(test, 0)
        if seconds > 10 and quick:
            break
        quick.append(test)
    rest = always + tests[len(quick) :]
    longer = sum(found["seconds"].get(test, 1) for test in rest)
    return not (quick and notices(mutant, quick, 60 + 10 * seconds)) and not (rest and notices(mutant, rest, 60 + 10 * longer))


def chosen(paths: list[str]) -> list[Mutant]:
    """Return every fault of files, folders, or single lines, relative to the package."""
    found = []
    for path in paths:
        name, _, line = path.partition(":")
        place = SOURCE / name
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        found += [m for file in files for m in mutants_of(file) if not line or m.line == int(line)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=ROOMS, help="files, folders or FILE:LINE below src/roofline")
    parser.add_argument("--sample", type=int, help="how many, drawn at random; all if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lines", type=Path, default=ROOT / ".mutants.json", help="which tests run which line; made if it is not there")
    parser.add_argument("--also", nargs="*", default=[], metavar="TEST", help="tests that are newer than that file")
    given = parser.parse_args()
    os.chdir(ROOT)
    if not given.lines.exists():
        child = os.fork()  # nothing of the package may be imported here
        if not child:
            record_lines(given.lines, [str(ROOT / "tests" / f"test_{name}.py") for name in TESTS])
            os._exit(0)
        os.waitpid(child, 0)
    found = json.loads(given.lines.read_text())
    for name in HEAVY:
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    everything = chosen(list(given.paths))
    drawn = everything if given.sample is None else random.Random(given.seed).sample(everything, min(given.sample, len(everything)))
    alive = 0
    for number, mutant in enumerate(drawn, start=1):
        if survives(mutant, found, given.also):
            alive += 1
            print(f"{number}: {mutant}", flush=True)
    print(f"{len(drawn) - alive} of {len(drawn)} noticed ({1 - alive / max(len(drawn), 1):.1%}); {len(everything)} faults in all")


if __name__ == "__main__":
    main()
