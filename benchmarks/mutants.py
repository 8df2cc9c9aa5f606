"""How many small faults in the formulas the tests find.

One operator, comparison, condition, number or function at a time is changed (``min`` for ``max``, ``<=`` for ``<``, ``*`` for ``/``) in a function
of the rooms of formulas, and the tests that call the function are run until one fails. What none of them notices is printed::

    HYPOTHESIS_PROFILE=few python benchmarks/mutants.py --sample 400 --seed 1      # of all rooms
    HYPOTHESIS_PROFILE=few python benchmarks/mutants.py ops/linear.py              # every fault in a file or folder
    HYPOTHESIS_PROFILE=few python benchmarks/mutants.py ops/linear.py:40           # in one line

The tests are collected once. Which of them calls which function is found by one run of them, and kept in the file ``--calls``; a fault is then put
into the running code of a process of its own, so that nothing is imported again. Text is left as it is: messages, annotations and
decorators. So is what runs when a module is imported. A test that takes much longer than it should has noticed.
"""

import argparse
import ast
import copy
import functools
import gc
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
from types import CodeType, FunctionType

import pytest

from roofline.deployment import deployment

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "roofline"
ROOMS = ("ops", "bounds.py", "forward", "capacity", "parallel", "kernels", "estimate")
TESTS = (
    *("formulas", "counts", "ops", "step", "parallel", "program", "routing", "capacity", "kernels_floor", "kernels_forms", "kernels_roofs"),
    *("kernels_attention", "kernels_experts", "estimates", "floors", "levers", "journey", "truth", "quantization", "deployment"),
    *("models", "models_latent", "models_experts", "models_recurrent", "properties", "step_time"),
)
CASES = 4
"""Of a test with many cases, the first so many are run."""

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
    """One fault in a function."""

    file: Path
    line: int
    change: str
    function: str  # qualified name
    code: CodeType  # of the function, with the fault

    def __str__(self) -> str:
        return f"{self.file.relative_to(SOURCE)}:{self.line}: {self.change}"


def mutants_of(file: Path) -> Iterator[Mutant]:
    """Yield every fault in the functions of a module."""
    tree = ast.parse(file.read_text())
    for name, function in _functions(tree, ""):
        for index in range(len(list(_places(function.body)))):
            changed = copy.deepcopy(tree)
            place = list(_places(dict(_functions(changed, ""))[name].body))[index]
            before = ast.unparse(place)
            for field, value in (_changed(place) or {}).items():
                setattr(place, field, value)
            code = next(c for c in _codes(compile(ast.fix_missing_locations(changed), str(file), "exec")) if c.co_qualname == name)
            yield Mutant(file, place.lineno, f"{before}  →  {ast.unparse(place)}", name, code)


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the functions and methods of a module by qualified name; those inside them belong to them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _places(node: ast.AST | list) -> Iterator[ast.expr]:
    """Yield what can be changed, outside text and annotations."""
    if isinstance(node, list):
        for child in node:
            yield from _places(child)
    elif isinstance(node, ast.keyword) and node.arg == "strict":
        return  # of zip: a check of ours
    elif isinstance(node, ast.AST) and not isinstance(node, (ast.Raise, ast.JoinedStr, ast.Assert)):
        if isinstance(node, ast.expr) and _changed(node) is not None:
            yield node
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns", "decorator_list"):
                yield from _places(value)


def _changed(node: ast.expr) -> dict[str, object] | None:
    """Return the fields of an expression that a fault changes."""
    match node:
        case ast.BinOp(op=ast.Add() | ast.Mod()) if any(
            isinstance(s, (ast.JoinedStr, ast.List, ast.Tuple)) for s in (node.left, node.right)
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
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return {"operand": ast.UnaryOp(ast.Not(), operand)}
        case _:
            return None


def chosen(paths: list[str]) -> list[Mutant]:
    """Return every fault of files, folders, or single lines, relative to the package."""
    found = []
    for path in paths:
        name, _, line = path.partition(":")
        place = SOURCE / name
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        found += [m for file in files for m in mutants_of(file) if not line or m.line == int(line)]
    return found


def caches() -> list:
    """Return what clears everything that the package has computed and kept."""
    clear = []
    for thing in gc.get_objects():
        if isinstance(thing, functools._lru_cache_wrapper) and str(thing.__module__).startswith("roofline"):
            clear.append(thing.cache_clear)
        elif type(thing).__name__ == "Model" and isinstance(getattr(thing, "memo", None), dict):
            clear.append(thing.memo.clear)
    return [*clear, deployment._recent.clear]


def forget(kept: list) -> None:
    for clear in kept:
        clear()


class Trial:
    """What runs the collected tests again and again, once for every fault."""

    def __init__(self, mutants: list[Mutant], calls: Path, limit_s: float) -> None:
        self.mutants, self.calls, self.limit_s = mutants, calls, limit_s
        self.alive: list[Mutant] = []
        self.failing = False
        self.seconds = 0.0

    def pytest_runtest_logreport(self, report) -> None:
        self.seconds += report.duration
        if report.failed and self.failing:
            os._exit(1)

    def pytest_runtestloop(self, session) -> bool:
        """Replace pytest's own loop."""
        cases: dict[str, int] = defaultdict(int)
        for item in session.items:
            cases[item.nodeid.partition("[")[0]] += 1
            item.case = cases[item.nodeid.partition("[")[0]]
        session.items = [item for item in session.items if item.case <= CASES or "test_formulas" in item.nodeid]
        if not self.calls.exists():
            self._in_child(lambda: self._record(session), 1e9)
        called = json.loads(self.calls.read_text())
        items = {item.nodeid: item for item in session.items}
        recorded = {test for tests in called.values() for test in tests}
        new = [item for name, item in items.items() if name not in recorded]
        for number, mutant in enumerate(self.mutants, start=1):
            tests = called.get(f"{mutant.file.relative_to(SOURCE)} {mutant.function}", {})
            known = [items[test] for test in sorted(tests, key=tests.get) if test in items]
            if number == 1 and self._in_child(lambda run=new + known: self._try(None, run), 1e9):
                sys.exit("the tests fail without a fault")
            budget = 4 * self.limit_s
            if not self._in_child(lambda m=mutant, run=new + known: self._try(m, run), budget):
                self.alive.append(mutant)
                print(f"{number}: {mutant}{'' if known else '   (no test calls it)'}", flush=True)
            elif number % 50 == 0:
                print(f"{number}: {len(self.alive)} alive", flush=True)
        return True

    def _record(self, session) -> None:
        """Write which test calls which function of the package, and how long the test takes."""
        called: dict[str, dict[str, float]] = defaultdict(dict)
        root = str(SOURCE) + os.sep
        seen: set[CodeType] = set()

        def profile(frame, event, argument) -> None:
            if event == "call":
                seen.add(frame.f_code)

        kept = caches()
        for item, after in zip(session.items, [*session.items[1:], None], strict=True):
            seen.clear()
            forget(kept)
            self.seconds = 0.0
            sys.setprofile(profile)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            sys.setprofile(None)
            for code in seen:
                if code.co_filename.startswith(root):
                    name = code.co_qualname.partition(".<locals>")[0]
                    called[f"{Path(code.co_filename).relative_to(SOURCE)} {name}"][item.nodeid] = self.seconds
        self.calls.write_text(json.dumps(called))

    def _try(self, mutant: Mutant | None, items: list) -> None:
        """Put a fault into the running code, and exit with 1 when a test fails."""
        for thing in gc.get_objects() if mutant else ():
            if isinstance(thing, FunctionType) and thing.__code__.co_filename == str(mutant.file):
                code = thing.__code__
                if (code.co_qualname, code.co_firstlineno) == (mutant.function, mutant.code.co_firstlineno):
                    thing.__code__ = mutant.code
        forget(caches())
        self.failing = True
        end = time.monotonic() + self.limit_s
        for item, after in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if time.monotonic() > end:
                break

    @staticmethod
    def _in_child(work, limit_s: float) -> bool:
        """Whether a process of its own fails, or does not end."""
        child = os.fork()
        if not child:
            os.setsid()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            try:
                work()
            except BaseException:
                os._exit(1)
            os._exit(0)
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status != 0
            time.sleep(0.005)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=ROOMS, help="files, folders or FILE:LINE below src/roofline")
    parser.add_argument("--sample", type=int, help="how many, drawn at random; all if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the sample to try again")
    parser.add_argument(
        "--calls", type=Path, default=ROOT / ".mutants.json", help="which test calls which function; made if it is not there"
    )
    parser.add_argument("--limit", type=float, default=20, help="seconds of tests for each fault")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="names of test files")
    given = parser.parse_args()
    os.chdir(ROOT)
    everything = chosen(list(given.paths))
    drawn = everything if given.sample is None else random.Random(given.seed).sample(everything, min(given.sample, len(everything)))
    drawn = drawn if given.only is None else [drawn[number - 1] for number in given.only]
    trial = Trial(drawn, given.calls.resolve(), given.limit)
    files = [f"tests/test_{name}.py" for name in given.tests]
    pytest.main(["-q", "-s", "-p", "no:cacheprovider", "-m", "not slow", *files], plugins=[trial])
    noticed = len(drawn) - len(trial.alive)
    print(f"{noticed} of {len(drawn)} noticed ({noticed / max(len(drawn), 1):.1%}); {len(everything)} faults in all")


if __name__ == "__main__":
    main()
