"""`roofline records`: the calibration records that are shipped, and what is in one."""

from collections.abc import Sequence
from typing import Annotated

from roofline.cli import options as given
from roofline.cli.printing import Column, show, show_csv, show_json, show_table
from roofline.cli.reading import Given
from roofline.fitting.classes import name_class
from roofline.records import CalibrationRecord, list_records, load_record
from roofline.units import show_time

_COLUMNS = (
    Column("id", right=False),
    Column("hardware", right=False, rank=2),
    Column("date", right=False, rank=3),
    Column("kernels", rank=1),
)


def records(
    name: Annotated[str | None, Given("Sum up this record: the id of a shipped one, or a file.", positional=True)] = None,
    json: given.Json = False,
    csv: given.Csv = False,
) -> None:
    """List the calibration records that are shipped, or sum up one."""
    if name is not None and not csv:
        record = load_record(name)
        if json:
            show_json(record.model_dump(mode="json"))
        else:
            show(summarize(record))
            show(f"  {record.date[:10]}: {record.source}")
        return
    found = [load_record(known) for known in (list_records() if name is None else [name])]
    rows = [{"id": r.id, "hardware": r.hardware, "date": r.date, "kernels": _points(r), "source": r.source} for r in found]
    if json:
        show_json(rows)
    elif csv:
        show_csv(rows)
    else:
        show_table(_COLUMNS, [(str(r["id"]), str(r["hardware"]) or "any", str(r["date"])[:10], str(r["kernels"])) for r in rows])


def _points(record: CalibrationRecord) -> int:
    return sum(len(c.samples.seconds) for c in record.classes)


def summarize(record: CalibrationRecord, where: str = "", best: Sequence[str] = ()) -> str:
    """Sum up a record: what it is of, the best rates measured if there are any, overheads, errors of the fit, and conditions."""
    of = f" ({record.hardware})" if record.hardware else ""
    lines = [f"{record.environment.device}{of}: {_points(record)} points measured, record {record.id}{f' in {where}' if where else ''}"]
    lines += best
    lines += [f"  {name.removesuffix('_s').replace('_', ' ')}: {show_time(constant.value)}" for name, constant in record.overheads.items()]
    fitted = dict.fromkeys((name_class(c), c.error) for c in record.classes if c.constants)
    lines += [f"  fit of {name}: {error:.0%} mean error on samples held out" for name, error in fitted if error is not None]
    return "\n".join([*lines, *(f"  ! {condition}" for condition in record.conditions)])
