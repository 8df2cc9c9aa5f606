"""Read every file of a folder and print what happened to each: ``python benchmarks/read_everything.py DIRECTORY``.

A line for each file: read, and as what; refused, and why; or wrong, where the right value is known (of a configuration whose file has
the name of one in tests/data/truth or tests/data/cases/right.csv). An error that is not the library's own, or a warning, is a
defect. The command ends with status 1 if anything is wrong or a defect.
"""

import argparse
import csv
import json
import math
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from roofline import Hardware, InvalidValueError, Model, RooflineError, load_record, prefill_floor
from roofline.huggingface import read_json
from roofline.kernel_tables import read_table
from roofline.measured import read_measurements

READ, REFUSED, WRONG, DEFECT = "read", "refused", "WRONG", "DEFECT"
ROUNDED = 2e-3
"""How far a stored size may be from one that is published with three or four digits [-]."""
_DATA = Path(__file__).resolve().parents[1] / "tests" / "data"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one file."""

    file: Path
    what: str
    text: str

    @property
    def good(self) -> bool:
        """Whether the file was read rightly, or refused in a sentence."""
        return self.what in (READ, REFUSED)


@cache
def right_values() -> Mapping[str, Mapping[str, float]]:
    """Return the right values that are known, by the name of a configuration's file."""
    values = {
        file.stem: {"parameters": json.loads(file.read_text(encoding="utf-8"))["params"]["total"]}
        for file in (_DATA / "truth").glob("*.json")
    }
    with (_DATA / "cases" / "right.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            values.setdefault(row["file"], {})[row["quantity"]] = float(row["value"])
    return values


def _wrong(name: str, model: Model) -> list[str]:
    """Return what of a model is not as it is known to be."""
    ours: dict[str, Callable[[], float]] = {
        "parameters": lambda: model.parameters,
        "kv_bytes_per_token": model.kv_bytes_per_token,
        "stored_bytes": model.stored_bytes,
    }
    return [
        f"{quantity} is {ours[quantity]():,.0f}, known to be {value:,.0f}"
        for quantity, value in right_values().get(name, {}).items()
        if not math.isclose(ours[quantity](), value, rel_tol=ROUNDED if quantity == "stored_bytes" else 0)
    ]


def _model(file: Path) -> tuple[str, str]:
    model = Model.load(file)
    floor = prefill_floor(model, "h200-sxm", prompt=1, **({} if model.dtype else {"weights": "bf16"}))
    if not 0 < floor.time_s < math.inf:
        return WRONG, f"the floor of a prefill is {floor.time_s} s"
    wrong = _wrong(file.stem, model)
    if wrong:
        return WRONG, "; ".join(wrong)
    kept = f"{model.kv_bytes_per_token():,.0f} B of KV cache per token in bf16"
    known = ", as known" if file.stem in right_values() else ""
    return READ, f"a configuration: {model.parameters:,} parameters, {model.active_parameters:,} active, {kept}{known}"


def _record(file: Path) -> tuple[str, str]:
    record = load_record(file)
    return READ, f"a calibration record: {record.id}, {len(record.classes)} classes of kernels"


def _machine(file: Path) -> tuple[str, str]:
    machine = Hardware.load(file)
    return READ, f"a machine: {machine.name}"


def _table(file: Path) -> tuple[str, str]:
    table = read_table(file)
    return READ, f"a table of kernels: {sum(len(group.seconds) for group in table):,} rows"


def _json(file: Path) -> tuple[str, str]:
    keys = read_json(file).keys()
    if keys & {"model_type", "architectures", "text_config", "llm_config"} or {"dim", "n_layers"} <= keys:
        return _model(file)
    if {"environment", "rates"} <= keys:
        return _record(file)
    if {"id", "name", "memory"} <= keys:
        return _machine(file)
    return _measurements(file)


def _measurements(file: Path) -> tuple[str, str]:
    runs = read_measurements(file)
    known = sorted({name for run in runs for name in run.latencies()})
    notes = {note for run in runs for note in run.notes}
    several = f"{len(runs)} runs" if len(runs) > 1 else "a run"
    return READ, f"{several} of {runs[0].source}: {', '.join(known) or 'no times'}; {len(notes)} notes"


def _csv(file: Path) -> tuple[str, str]:
    try:
        return _measurements(file)
    except InvalidValueError:
        return _table(file)


_KINDS: Mapping[str, Callable[[Path], tuple[str, str]]] = {".json": _json, ".toml": _machine, ".csv": _csv, ".parquet": _table}


def outcome(file: Path) -> Outcome:
    """Return what happens to one file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return Outcome(file, *_KINDS.get(file.suffix.lower(), _measurements)(file))
    except RooflineError as error:
        text = str(error)
        return Outcome(file, REFUSED if 10 < len(text) < 1000 else DEFECT, text.removeprefix(f"{file}: "))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Outcome(file, DEFECT, f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})")


def main() -> int:
    """Read the folder that was asked for, and print a line for every file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="a folder of configurations, tables and result files, read with all folders in it")
    folder = parser.parse_args().directory
    files = sorted(file for file in folder.rglob("*") if not file.is_dir())
    outcomes = [outcome(file) for file in files]
    for one in outcomes:
        print(f"{one.file.relative_to(folder)}: {one.what}: {one.text.replace(f'{folder}/', '')}")
    print(f"{len(files)} files: {', '.join(f'{count} {what}' for what, count in Counter(one.what for one in outcomes).most_common())}")
    return 0 if all(one.good for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
