"""`roofline serve-estimate`: a service by closed forms, at some loads, or the largest rate that keeps promises."""

from collections.abc import Mapping, Sequence
from math import inf, isnan
from typing import Annotated, Any

import numpy as np

from roofline.cli import options as given
from roofline.cli import serving
from roofline.cli.machines import find_machine
from roofline.cli.printing import Column, show, show_table
from roofline.cli.wording import in_our_words
from roofline.deployment import Deployment
from roofline.deployment.options import ALL
from roofline.errors import InvalidValueError
from roofline.serving import MaxRate, ServingEstimate, max_rate, serving_estimate
from roofline.serving.closed_forms.options import SERVICE
from roofline.units import show_time

_LENGTHS = Column("prompt"), Column("output")
_TIMES = (
    *(Column("TTFT"), Column("TPOT"), Column("end to end", rank=2), Column("requests/s", rank=1), Column("tokens/s", rank=3)),
    *(Column("running", rank=4), Column("cache", rank=5), Column("binds", right=False, rank=1)),
)
_RATES = (
    Column("requests/s"),
    Column("per device", rank=1),
    Column("tokens/s", rank=2),
    Column("binds", right=False),
    Column("why not", right=False),
)
_OWN = tuple(name for name in SERVICE if name not in ("prefill", "prefill_replicas", "cuda_graph", "calibration", "fit"))


@given.takes_deployment(ALL)
@given.takes(SERVICE, _OWN)
def serve_estimate(
    model: given.ModelName,
    hardware: given.HardwareName = None,
    *,
    prompt: Annotated[tuple[int, ...], given.listed("Mean tokens of prompts")],
    output: Annotated[tuple[int, ...], given.listed("Mean tokens of answers")],
    rate: Annotated[tuple[float, ...] | None, given.listed("Requests a second that arrive at random")] = None,
    concurrency: Annotated[tuple[int, ...] | None, given.listed("Clients, each with one request at a time")] = None,
    ttft: serving.Ttft = None,
    tpot: serving.Tpot = None,
    itl: serving.Itl = None,
    e2e: serving.E2e = None,
    percentile: serving.Percentile = 0.99,
    prefill_hardware: serving.PrefillHardware = None,
    prefill_tensor_parallel: serving.PrefillTp = None,
    prefill_replicas: serving.PrefillReplicas = None,
    calibration: given.Calibration = None,
    eager: given.Eager = False,
    json: given.Json = False,
    csv: given.Csv = False,
    **options: Any,
) -> None:
    """Print what requests of a service wait and take by closed forms, or the largest rate that keeps promises.

    Give --rate or --concurrency; or promises such as --ttft 1s --tpot 50ms, and the largest rate that keeps them is found. Lists of lengths and loads
    are combined, each combination a row.
    """
    deployment = _deployment(model, hardware, options)
    pool = serving.pool_for_prompts(deployment, prefill_hardware, prefill_tensor_parallel, prefill_replicas)
    service = {name: options[name] for name in _OWN if options[name] != SERVICE[name].default}
    service |= {**pool, "calibration": calibration, "cuda_graph": not eager}
    slo = serving.promises(ttft, tpot, itl, e2e, percentile)
    loads = {name: value for name, value in (("rate", rate), ("concurrency", concurrency)) if value is not None}
    if len(loads) + (slo is not None) != 1:
        raise InvalidValueError("give one of --rate, --concurrency, and promises such as --ttft 1s --tpot 50ms.")
    axes = _grid({"prompt": prompt, "output": output, **loads})
    result: Any = serving_estimate(deployment, **axes, **service) if slo is None else max_rate(deployment, slo=slo, **axes, **service)
    if json or csv or not np.ndim(axes["prompt"]):
        given.print_result(result, json=json, csv=csv)
    else:
        _show_rows(result, axes)


def _deployment(model: str, hardware: str | None, options: Mapping[str, Any]) -> Deployment:
    machine = None if hardware is None else find_machine(hardware)
    return Deployment(model, machine, **{name: options[name] for name in ALL})


def _grid(axes: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return every combination as arrays of one length; numbers where there is only one."""
    if all(len(values) == 1 for values in axes.values()):
        return {name: values[0] for name, values in axes.items()}
    crossed = np.meshgrid(*(np.asarray(values) for values in axes.values()), indexing="ij")
    return {name: array.ravel() for name, array in zip(axes, crossed, strict=True)}


def _show_rows(result: ServingEstimate | MaxRate, axes: Mapping[str, np.ndarray]) -> None:
    """Print a line for each combination, and under them what they rest on."""
    estimate = result.estimate if isinstance(result, MaxRate) else result
    head, *_ = estimate.summary()
    show(in_our_words(head.partition(": ")[0]) if isinstance(result, ServingEstimate) else in_our_words(result.summary()[0]))
    show()
    lengths = [[f"{value:g}" for value in axis] for axis in axes.values()]
    columns = (*_LENGTHS, *(Column(name) for name in axes if name not in ("prompt", "output")))
    rows = result.to_records()
    cells = [_rate(row) for row in rows] if isinstance(result, MaxRate) else [_times(row) for row in rows]
    shown = [(*axis, *cell) for axis, cell in zip(zip(*lengths, strict=True), cells, strict=True)]
    show_table((*columns, *(_RATES if isinstance(result, MaxRate) else _TIMES)), shown)
    for note in estimate.notes:
        show(f"  note: {in_our_words(note)}")


def _times(row: Mapping[str, Any]) -> tuple[str, ...]:
    if not row["fits"]:
        return (*[""] * 7, "does not fit")
    times = [_time(row[name]) for name in ("ttft_s", "tpot_s", "e2e_s")]
    figures = (f"{row['requests_per_s']:.4g}", f"{row['tokens_per_s']:.4g}", f"{row['running']:.3g}", f"{row['cache_share']:.0%}")
    return (*times, *figures, "saturated" if row["saturated"] else row["binds"])


def _time(seconds: float) -> str:
    """Write a time; where more is sent than is served it grows without end, and answers of one token have no time per token."""
    return "grows" if seconds == inf else "" if isnan(seconds) else show_time(seconds)


def _rate(row: Mapping[str, Any]) -> tuple[str, ...]:
    figures = (f"{row['rate']:.4g}", f"{row['rate_per_device']:.4g}", f"{row['tokens_per_s']:.4g}")
    return (*figures, row["binds"], in_our_words(row["reason"]))
