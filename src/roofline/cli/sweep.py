"""`roofline sweep`: floors and estimates for lists of machines, batches, contexts, formats and degrees."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

import numpy as np

from roofline.cli import options as given
from roofline.cli.beside import TIMES, beside, times
from roofline.cli.machines import find_machine
from roofline.cli.printing import Column, show, show_csv, show_json, show_table
from roofline.cli.wording import in_our_words
from roofline.deployment import Deployment
from roofline.deployment.options import OPTIONS, STEP
from roofline.errors import RooflineError
from roofline.estimate import decode_estimate, prefill_estimate
from roofline.floors import decode_floor, prefill_floor
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.results import SCHEMA_VERSION
from roofline.units import check_count


@given.takes_deployment(STEP, several=True)
def sweep(
    model: given.ModelName,
    hardware: given.HardwareNames = None,
    batch: Annotated[tuple[int, ...], given.listed("Sequences")] = (1,),
    context: Annotated[tuple[int, ...], given.listed("Tokens of each already in the cache")] = (0,),
    prompt: Annotated[tuple[int, ...] | None, given.listed("Prefills of so many tokens instead of decode steps")] = None,
    cached: given.Cached = 0,
    calibration: given.Calibration = None,
    eager: given.Eager = False,
    interval: given.Interval = 0.8,
    json: given.Json = False,
    csv: given.Csv = False,
    **options: Any,
) -> None:
    """Print floors and estimates side by side, for lists of machines, batches, contexts, formats and degrees.

    Every option takes a list: --batch 1,8,64 --tp 1,2,4 --weights bf16,fp8. Every combination is one row.
    """
    loaded = Model.load(model)
    machines = [None] if hardware is None else [find_machine(name) for name in hardware]
    step: dict[str, Any] = {"batch": _axis("batch", batch, 1)[:, None], "context": _axis("context", context, 0), "cached": cached}
    step["prompt"] = None if prompt is None else _axis("prompt", prompt, 1)
    estimates = {"calibration": calibration, "cuda_graph": not eager, "interval": interval}
    found = _Grid([], [], {})
    for machine, values in product(machines, product(*options.values())):
        found.add(loaded, machine, dict(zip(options, values, strict=True)), step, estimates)
    if not found.rows:
        raise next(iter(found.refused))
    if json:
        show_json({"schema_version": SCHEMA_VERSION, "rows": found.rows, "notes": [*found.notes, *found.not_evaluated()]})
    elif csv:
        show_csv(found.rows)
    else:
        found.print(loaded, {name: values for name, values in options.items() if len(values) > 1})


def _axis(name: str, values: Any, least: int) -> np.ndarray:
    """Return the values of an axis, each checked by itself, so that a message quotes one of them."""
    return np.array([check_count(name, value, minimum=least) for value in values])


@dataclass(slots=True)
class _Grid:
    """The rows found so far, and what was not."""

    rows: list[dict[str, Any]]
    notes: list[str]
    refused: dict[RooflineError, str]  # the deployment that each is about

    def add(
        self, model: Model, machine: Hardware | None, options: Mapping[str, Any], step: Mapping[str, Any], estimates: Mapping[str, Any]
    ) -> None:
        """Evaluate one deployment: all batches and contexts at once. What cannot be deployed is kept with the reason."""
        named = ", ".join(
            ([] if machine is None else [machine.id]) + [f"{_short(n)} {v}" for n, v in options.items() if v != OPTIONS[n].default]
        )
        try:
            deployment = Deployment(model, machine, **options)
            floor = given.ask(decode_floor, prefill_floor, deployment, **step)
        except RooflineError as error:
            self.refused[error] = named
            return
        try:
            estimate = given.ask(decode_estimate, prefill_estimate, deployment, **step, **estimates).to_records()
        except RooflineError as error:
            note = f"no estimate: {in_our_words(str(error))}"
            self.notes += [] if note in self.notes else [note]
            estimate = None
        self.notes += [note for note in map(in_our_words, deployment.notes) if note not in self.notes]
        points = product(step["batch"].ravel().tolist(), (step["context"] if step["prompt"] is None else step["prompt"]).tolist())
        length = "context" if step["prompt"] is None else "prompt"
        for row, (batch, tokens) in zip(beside(floor.to_records(), estimate), points, strict=True):
            axes = {"model": row["model"], "hardware": floor.hardware.id, **options, "batch": batch, length: tokens}
            self.rows.append({**axes, **{name: value for name, value in row.items() if name not in axes}})

    def print(self, model: Model, varied: Mapping[str, Any]) -> None:
        """Print a table, and under it what every number rests on."""
        length = "prompt" if "prompt" in self.rows[0] and "context" not in self.rows[0] else "context"
        several = len({row["hardware"] for row in self.rows}) > 1
        axes = [*(["hardware"] if several else []), *varied, "batch", length]
        mixed = len({row.get("calibration") == "generic" for row in self.rows}) > 1  # a generic row beside a calibrated one
        figures = Column("tokens/s", rank=2), *([Column("constants", right=False)] if mixed else [])
        estimated = any("estimate_tokens_per_s" in row for row in self.rows)
        table = [
            (
                *(_cell(row, axis) for axis in axes),
                *times(row),
                _rate(row, estimated),
                *([str(row.get("constants") or "").partition(":")[0]] if mixed else []),
            )
            for row in self.rows
        ]
        what = "prefill" if length == "prompt" else "decode"
        show(f"{what} of {model.name}{'' if several else ' on ' + str(self.rows[0]['hardware'])}")
        show()
        show_table(
            [*(Column(_short(axis), right=axis not in ("hardware", "weights", "activations", "kv")) for axis in axes), *TIMES, *figures],
            table,
        )
        for note in [*self._records(), *self.notes, *self.not_evaluated()]:
            show(f"  {note}")

    def _records(self) -> Iterator[str]:
        """Say which calibration each machine's estimates rest on."""
        for machine, record, constants in dict.fromkeys(
            (row["hardware"], row.get("calibration"), row.get("constants")) for row in self.rows
        ):
            if record is not None:
                yield f"estimates of {machine}: record {record}" + (
                    f", {constants}" if constants != record else ", of no machine in particular"
                )

    def not_evaluated(self) -> Iterator[str]:
        """Say which deployments there cannot be, those with the same reason together."""
        reasons = [in_our_words(str(error)) for error in self.refused]
        for reason in dict.fromkeys(reasons):
            named = [name for name, why in zip(self.refused.values(), reasons, strict=True) if why == reason]
            more = f" and {len(named) - 2} more" if len(named) > 2 else ""
            yield f"not evaluated: {'; '.join(named[:2])}{more}: {reason}"


def _short(option: str) -> str:
    flag = OPTIONS[option].flag if option in OPTIONS else ""
    return flag.lstrip("-") or option.replace("_", " ")


def _cell(row: Mapping[str, Any], axis: str) -> str:
    value = row[axis]
    return "as stored" if value is None else str(value)


def _rate(row: Mapping[str, Any], estimated: bool) -> str:
    """Return the throughput of the estimate, or of the floor where no row has one: a column has numbers of one kind."""
    rate = row.get("estimate_tokens_per_s" if estimated else "tokens_per_s")
    return "" if rate is None or row["fits"] is False else f"{rate:.5g}"
