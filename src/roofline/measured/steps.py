"""`compare_steps`: a user's own table of steps, each beside its estimate and its floor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from roofline.deployment import Deployment
from roofline.deployment.deployment import deploy
from roofline.deployment.machine import Machine
from roofline.deployment.options import ALL, DeploymentOptions, asks
from roofline.errors import InvalidValueError, RooflineError, quoted
from roofline.estimate import step_estimate
from roofline.floors import step_floor
from roofline.kernel_tables.columns import rows_by_value, show_names
from roofline.measured.labels import Label, find_labels, too_long
from roofline.measured.step_columns import StepRows, read_steps
from roofline.measured.step_notes import overridden, rows_named
from roofline.measured.subject import DEFAULT_ENGINE, assumed_of, find_record
from roofline.measured.times import is_below, unfit_note
from roofline.records import CalibrationRecord
from roofline.results import Result, show_notes
from roofline.step import Step
from roofline.units import show_time

_SHOWN = 5


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class StepComparison(Result):
    """Measured steps beside their estimates and floors, a row for each.

    Parameters
    ----------
    rows : StepRows
        What was measured [-].
    deployments : tuple of Deployment
        What ran [-].
    group : numpy.ndarray of int
        Which of them each row is of [-].
    floor_s, estimate_s : numpy.ndarray
        Of each row; not a number where there is no estimate [s].
    records : tuple of str
        The calibration record of the estimates of each deployment, empty where there are none [-].
    labels : mapping of int to tuple of Label
        Of each deployment's row that is furthest below its floor, what would explain it, by the index of the row [-].
    assumed : tuple of str
        What neither the table nor the caller says, and what is taken instead [-].
    notes : tuple of str
        What a reader must know [-].
    """

    rows: StepRows
    deployments: tuple[Deployment, ...]
    group: np.ndarray
    floor_s: np.ndarray
    estimate_s: np.ndarray
    records: tuple[str, ...]
    labels: Mapping[int, tuple[Label, ...]]
    assumed: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def measured_s(self) -> np.ndarray:
        """Measured times [s]."""
        return self.rows.measured_s

    @property
    def over_floor(self) -> np.ndarray:
        """Measured over floor [-]."""
        return np.asarray(self.measured_s / self.floor_s)

    @property
    def over_estimate(self) -> np.ndarray:
        """Measured over estimate [-]."""
        return np.asarray(self.measured_s / self.estimate_s)

    @property
    def below_floor(self) -> np.ndarray:
        """Which rows are shorter than possible [-]."""
        return np.asarray(is_below(self.measured_s, self.floor_s))

    def worst(self, most: int = _SHOWN) -> np.ndarray:
        """Return the rows furthest above what is expected of them, worst first.

        Parameters
        ----------
        most : int, optional
            How many [-].

        Returns
        -------
        numpy.ndarray of int
            Indices of rows, from 0 [-].
        """
        ratio = np.where(np.isnan(self.over_estimate), self.over_floor, self.over_estimate)
        return np.argsort(-ratio, kind="stable")[:most]

    def values(self) -> dict[str, Any]:
        """Return every column by name [SI]."""
        rows = self.rows
        names = np.array([[d.model.name, d.machine.id, d.devices] for d in self.deployments], dtype=object)[self.group]
        return {
            "row": rows.places + 1,
            "model": names[:, 0],
            "hardware": names[:, 1],
            "devices": names[:, 2].astype(int),
            "phase": np.where(rows.decode, "decode", "prefill"),
            **{name: getattr(rows, name).astype(np.int64) for name in ("batch", "context", "prompt", "cached")},
            **{name: getattr(self, name) for name in ("measured_s", "floor_s", "estimate_s", "over_floor", "over_estimate", "below_floor")},
        }

    def table(self) -> list[Mapping[str, Any]]:
        """Return the spread of each deployment's rows: median and both ends of 80 % of the ratios [-]."""
        found: list[Mapping[str, Any]] = []
        for i, deployment in enumerate(self.deployments):
            own = self.group == i
            row: dict[str, Any] = {"deployment": repr(deployment), "rows": int(own.sum()), "calibration": self.records[i]}
            for name in ("over_floor", "over_estimate"):
                ratios = getattr(self, name)[own]
                low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9)) if not np.isnan(ratios).any() else (np.nan,) * 3
                row |= {f"{name}_median": float(middle), f"{name}_low": float(low), f"{name}_high": float(high)}
            found.append(row)
        return found

    def context(self) -> dict[str, Any]:
        """Return how each column was read, what was left out, labels [-]."""
        labels = {str(self.rows.places[row] + 1): [label.to_dict() for label in found] for row, found in self.labels.items()}
        return {
            "kind": "comparison of steps",
            "read": dict(self.rows.read),
            "ignored": self.rows.ignored,
            "labels": labels,
            "assumed": self.assumed,
            "notes": self.notes,
        }

    def summary(self) -> list[str]:
        """Return the short text: the spread, the worst rows, and rows below their floors [-]."""
        count, below = self.measured_s.size, int(self.below_floor.sum())
        some = f"{len(self.deployments)} deployment{'s' * (len(self.deployments) > 1)}"
        lines = [f"{count} step{'s' * (count > 1)} of {some}: measured is {_spread(self.over_floor)} × the floor"]
        if not np.isnan(self.estimate_s).all():
            lines[0] += f", {_spread(self.over_estimate)} × the estimate"
        lines += [f"  row {self.rows.places[i] + 1}: {self._line(i)}" for i in self.worst(min(_SHOWN, count)).tolist()]
        if below:
            lines.append(f"  BELOW THE FLOOR: {below} of {count} rows, so something is not as it was said")
        for row, labels in self.labels.items():
            lifts = ", ".join(f"{label.name} ({label.over_floor:.3g} × that floor)" for label in labels if label.lifts)
            lines.append(
                f"  row {self.rows.places[row] + 1}: {self._line(row)}; explained by: {lifts or 'no single label: check machine, model, batch and unit'}"
            )
        lines += [f"  assumed: {text}" for text in self.assumed]
        return [*lines, *show_notes(self.notes)]

    def _line(self, i: int) -> str:
        rows, deployment = self.rows, self.deployments[int(self.group[i])]
        held = f"context {rows.context[i]:.0f}" if rows.decode[i] else f"prompt {rows.prompt[i]:.0f}"
        estimate = "" if np.isnan(self.estimate_s[i]) else f", {self.over_estimate[i]:.3g} × the estimate"
        return (
            f"{deployment.model.name} on {deployment.devices} × {deployment.machine.name}, batch {rows.batch[i]:.0f}, {held}: "
            f"{show_time(float(self.measured_s[i]))}, {self.over_floor[i]:.3g} × the floor{estimate}"
        )


def _spread(ratios: np.ndarray) -> str:
    low, middle, high = np.nanquantile(ratios, (0.1, 0.5, 0.9))
    return f"{middle:.3g}" if ratios.size == 1 else f"{middle:.3g} (80%: {low:.3g} – {high:.3g})"


@asks(ALL)
def compare_steps(
    table: Any,
    model: Any = None,
    hardware: Machine = None,
    *,
    time: str | None = None,
    unit: str | None = None,
    columns: Mapping[str, str] | None = None,
    ignore: str | Sequence[str] = (),
    engine: str | None = None,
    calibration: CalibrationRecord | str | Path | None = None,
    cuda_graph: bool = True,
    **options: Unpack[DeploymentOptions],
) -> StepComparison:
    """Return the steps of a table beside their estimates and floors, a row for each.

    Parameters
    ----------
    table : path, data frame, mapping of columns, or list of rows
        A row for each step: ``batch``; ``context`` of a decode step (or ``prompt`` and ``output``, whose mean context is prompt + output / 2) or ``prompt`` of a
        prefill; the time, in a column whose name ends in its unit (``ms``, ``tpot_ms``, ``step_us``, ``seconds``), or ``tokens_per_s`` of all sequences
        together; and perhaps ``model``, ``hardware`` and
        options of a deployment (``tensor_parallel``, ``weights``, ``kv`` …), by the names that engines have for them too. A column ``phase`` says decode or
        prefill where lengths do not [-].
    model : str, Path, mapping, object, int, float, Model or Deployment, optional
        Of all rows, where there is no column of it [-].
    hardware : Hardware, str or Path, optional
        Of all rows, where there is no column of it [-].
    time : str, optional
        The column of times, if there are several [-].
    unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times, if not the one in the column's name [-].
    columns : mapping of str to str, optional
        Column → what it is, where its name does not tell [-].
    ignore : str or sequence of str, optional
        Columns to leave out [-].
    engine : str, optional
        Whose record of the machine estimates rest on; vLLM's if not given [-].
    calibration : CalibrationRecord, str or Path, optional
        What estimates rest on; the engine's record if there is one, else the machine's default, if not given [-].
    cuda_graph : bool, optional
        Whether an estimate's decode steps are launched as one graph [-].
    {options}

    Returns
    -------
    StepComparison
        Measured, floor and estimate of each row, worst rows, spread [-].

    Raises
    ------
    RooflineError
        If a cell cannot be read, naming row and column; one clear error for whatever is unknown, malformed or impossible.

    Examples
    --------
    >>> steps = {"model": ["llama-3-8b"] * 2, "gpu": ["h100-sxm"] * 2, "batch": [1, 64], "context": [1024, 1024], "ms": [7.2, 9.1]}
    >>> compare_steps(steps).over_floor.round(2).tolist()
    [1.6, 1.29]
    """
    rows = read_steps(table, time=time, unit=unit, columns=columns, ignore=ignore)
    count = rows.measured_s.size
    group, floor_s, estimate_s = np.zeros(count, dtype=int), np.full(count, np.nan), np.full(count, np.nan)
    deployments: list[Deployment] = []
    records: list[str] = []
    labels: dict[int, tuple[Label, ...]] = {}
    assumed = [] if engine else [f"rules and kernels of {DEFAULT_ENGINE} (engine= names another)"]
    notes: list[str] = []
    groups = rows_by_value(rows.options, list(rows.options)) if rows.options else [({}, np.arange(count))]
    for own, places in groups:
        first = int(rows.places[places[0]]) + 1
        try:
            deployment = _deployment(own, model, hardware, options)
            record = find_record(deployment, engine or DEFAULT_ENGINE, calibration, cuda_graph=cuda_graph)
            group[places] = len(deployments)
            for decode in (True, False):
                if (at := places[rows.decode[places] == decode]).size:
                    floor_s[at], estimate_s[at], unfit = _times(deployment, record, rows, at, decode=decode, cuda_graph=cuda_graph)
                    notes += unfit
            notes += overridden(own, rows.read, (model, hardware), options, deployment)
        except RooflineError as error:
            told = [name for name, what in rows.read.items() if what in rows.options]
            raise type(error)(f"row {first} of the table{f' ({show_names(told)})' if told else ''}: {error}") from None
        deployments.append(deployment)
        if not isinstance(model, Deployment):
            assumed += assumed_of(deployment, {**options, **{name: value for name, value in own.items() if value is not None}})
        records.append("" if record is None else record.id)
        low = places[np.argmin(rows.measured_s[places] / floor_s[places])]
        if is_below(rows.measured_s[low], floor_s[low]):
            labels[int(low)] = _labels(deployment, rows, int(low))
    return StepComparison(
        rows, tuple(deployments), group, floor_s, estimate_s, tuple(records), labels,
        tuple(dict.fromkeys([*rows.assumed, *assumed])), tuple(dict.fromkeys([*notes, *_notes(rows, deployments, floor_s)])),
    )  # fmt: skip


def _notes(rows: StepRows, deployments: Sequence[Deployment], floor_s: np.ndarray) -> Iterator[str]:
    """Yield what a reader must know of the table as a whole."""
    timed = next(name for name, what in rows.read.items() if what.startswith(("time in", "tokens per second")))
    if text := too_long(f"column {quoted(timed)}, {rows.read[timed]},", float(np.median(rows.measured_s / floor_s))):
        yield text
    for deployment in deployments:
        yield from deployment.notes
    yield from rows.notes
    if rows.timeless:
        yield f"{rows.timeless} row{'s' * (rows.timeless > 1)} without a time {'were' if rows.timeless > 1 else 'was'} left out"
    if rows.ignored:
        yield f"columns that are not understood were left out: {', '.join(rows.ignored)}"


def _deployment(own: Mapping[str, Any], model: Any, hardware: Any, options: Mapping[str, Any]) -> Deployment:
    """Return what a group of rows ran on: its cells, and what is said of all rows."""
    said = {name: value for name, value in own.items() if value is not None}
    named, machine = said.pop("model", model), said.pop("hardware", hardware)
    if named is None:
        raise InvalidValueError("no model is named: add a column model, or give model=.")
    if isinstance(named, Deployment):
        return deploy("compare_steps", ALL, named, machine, {**options, **said})
    if machine is None and options.get("memory_bandwidth") is None and "memory_bandwidth" not in said:
        raise InvalidValueError("no machine is named: add a column hardware, or give hardware=.")
    return deploy("compare_steps", ALL, named, machine, {**options, **said})


def _step(rows: StepRows, at: Any, change: Mapping[str, Any], *, decode: bool) -> Step:
    held = {
        name: np.asarray(change.get(name, getattr(rows, name)[at])).astype(np.int64) for name in ("batch", "context", "prompt", "cached")
    }
    scalar = {name: int(value) if value.ndim == 0 else value for name, value in held.items()}
    if decode:
        return Step.decode(batch=scalar["batch"], context=scalar["context"])
    return Step.prefill(scalar["prompt"], batch=scalar["batch"], cached=scalar["cached"])


def _times(
    deployment: Deployment, record: CalibrationRecord | None, rows: StepRows, at: np.ndarray, *, decode: bool, cuda_graph: bool
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return floors and estimates of some rows of a deployment, and a sentence on those that memory cannot hold."""
    step = _step(rows, at, {}, decode=decode)
    floor = step_floor(deployment, step=step)
    unfit = unfit_note(floor, lambda fits: rows_named(rows.places[at[~fits]]))
    floor_s = np.asarray(floor.time_s)
    if record is None:
        return floor_s, np.full(at.shape, np.nan), unfit
    return floor_s, np.asarray(step_estimate(deployment, step=step, calibration=record, cuda_graph=cuda_graph).time_s), unfit


def _labels(deployment: Deployment, rows: StepRows, at: int) -> tuple[Label, ...]:
    """Return what would explain a row below its floor."""
    decode = bool(rows.decode[at])

    def least(changed: Deployment, change: Mapping[str, Any]) -> float:
        return float(step_floor(changed, step=_step(rows, at, change, decode=decode)).time_s)

    floor = step_floor(deployment, step=_step(rows, at, {}, decode=decode))
    names = ("batch", "context") if decode else ("batch", "prompt")
    given = {name: int(getattr(rows, name)[at]) for name in names}
    return find_labels(floor, least, float(rows.measured_s[at]), drafts=decode, given=given)
