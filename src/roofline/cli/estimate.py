"""`roofline estimate`: the time to expect of one decode step or prefill."""

from typing import TYPE_CHECKING, Annotated, Any

from roofline.cli import options as given
from roofline.cli.app import Given
from roofline.errors import CalibrationError, InvalidValueError, SpecError, UnknownNameError
from roofline.estimate import Estimate, decode_estimate, prefill_estimate
from roofline.hardware import Hardware
from roofline.hardware.measured import find_engine
from roofline.records import load_record
from roofline.units import show_time

if TYPE_CHECKING:
    from rich.table import Table


def _breakdown(estimate: Estimate) -> "Table":
    from rich.table import Table

    table = Table(title="by operator, one after another")
    for heading in ("operator", "kernels", "timed as", "time", "interval"):
        table.add_column(heading, justify="left" if heading in ("operator", "timed as") else "right", overflow="fold")
    for row in estimate.by_op():
        span = f"{show_time(row.low_s)} – {show_time(row.high_s)}"
        table.add_row(row.name, str(row.count), row.family, show_time(row.time_s), span)
    return table


def _machine_of(source: str) -> Hardware:
    """Return the machine that a record was measured on: that of its spec, or one made of what was measured."""
    instead = f"roofline estimate MODEL MACHINE --calibration {source}"
    if find_engine(source):
        raise CalibrationError(f"{source} is an engine, with records of several machines; name the machine as well: {instead}.")
    record = load_record(source)
    if record.rates.origin == "fraction":
        raise CalibrationError(f"calibration record {record.id} is of no machine in particular; name the machine as well: {instead}.")
    if not record.hardware:
        return Hardware.from_record(record)
    try:
        machine = Hardware.load(record.hardware)
    except (UnknownNameError, SpecError):  # SpecError: an id that looks like a path
        raise CalibrationError(
            f"calibration record {record.id} was measured on {record.hardware}, which is no shipped machine; give its spec file: "
            f"roofline estimate MODEL SPEC.toml --calibration {source}."
        ) from None
    return machine.calibrated(record)


@given.takes_deployment
def estimate(
    model: given.ModelName,
    hardware: Annotated[
        str | None,
        Given("A machine's name or the path of its spec file; by default the one that the record was measured on.", positional=True),
    ] = None,
    calibration: Annotated[
        str | None,
        Given("A record's file, the id of a shipped one, an engine (vllm, trtllm, sglang), or generic; by default the machine's own."),
    ] = None,
    eager: Annotated[bool, Given("The host launches every kernel, without a CUDA graph.")] = False,
    interval: Annotated[float, Given("Probability that the interval is meant to hold.")] = 0.8,
    batch: given.Batch = 1,
    context: given.Context = 0,
    prompt: given.Prompt = None,
    cached: given.Cached = 0,
    ops: given.Ops = False,
    json: given.Json = False,
    **options: Any,
) -> None:
    """Print the time to expect of one decode step, or of a prefill with --prompt."""
    if hardware is None and calibration is None:
        raise InvalidValueError("name a machine, or give --calibration a record, which knows its own.")
    machine = Hardware.load(hardware) if hardware is not None else _machine_of(str(calibration))
    options |= {
        "calibration": calibration if hardware is not None else machine.calibration,
        "cuda_graph": not eager,
        "interval": interval,
    }
    phase: dict[str, Any] = {"batch": batch, "context": context, "prompt": prompt, "cached": cached}
    result = given.ask(decode_estimate, prefill_estimate, model, machine, **phase, **options)
    given.print_result(result, json=json, breakdown=_breakdown if ops else None)
