"""Counts taken on the reference implementations: tests/data/truth, one file per model (the README there says how they were taken)."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data" / "truth"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


@cache
def load_counts(name: str) -> dict[str, Any]:
    """What the reference implementation counts for a model, with the configuration it was built from."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) | {"name": name}
