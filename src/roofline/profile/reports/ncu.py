"""Reports of Nsight Compute: ``ncu --csv``, a row for each metric, and ``--page raw``, a row for each kernel with units in the second line."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from roofline.errors import InvalidValueError
from roofline.profile.reports.report import ReportedKernel
from roofline.profile.reports.values import decimal_sign, factor_of, number
from roofline.profile.traces.kernels_by_name import class_of

Table = Sequence[Mapping[str, str]]
Metrics = Mapping[str, float | str]
_BESIDE = frozenset(
    ("ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream", "Block Size", "Grid Size", "Device", "CC")
)
_SASS = "smsp__sass_thread_inst_executed_op_{}_pred_on.sum"
_LENGTH = ("gpu__time_duration.sum", "gpu__time_duration.avg", "gpu__time_duration", "Duration")
_BANDWIDTH = ("dram__bytes.sum.per_second", "DRAM Bandwidth", "Memory Workload Analysis: Memory Throughput")


def read_details(rows: Table) -> tuple[ReportedKernel, ...]:
    """Return the kernels of a report with a row for each metric, launches one by one."""
    decimal = decimal_sign(row.get("Metric Value", "") for row in rows)
    metrics: dict[tuple[str, str], dict[str, float | str]] = defaultdict(dict)
    advice: dict[tuple[str, str], list[str]] = defaultdict(list)
    names: dict[tuple[str, str], str] = {}
    for row in rows:
        launch = row.get("Process ID", ""), row["ID"]
        names[launch] = row["Kernel Name"]
        if row.get("Metric Name"):
            place = ", ".join(filter(None, (row.get("Section Name", ""), row.get("Body Item Label", ""))))
            value = _value(row.get("Metric Value", ""), row.get("Metric Unit", ""), decimal)
            if value is not None:
                _put(metrics[launch], f"{place}: {row['Metric Name']}" if place else row["Metric Name"], value, row.get("Metric Unit", ""))
        elif row.get("Rule Description"):
            advice[launch].append(" ".join(row["Rule Description"].split()))
    return tuple(_kernel(name, metrics[launch], tuple(advice[launch])) for launch, name in names.items())


def _put(into: dict[str, float | str], key: str, value: float | str, unit: str) -> None:
    """Keep a metric; of two of the same name the one in per cent is apart."""
    into[f"{key} [{unit}]" if key in into else key] = value


def read_raw(rows: Table) -> tuple[ReportedKernel, ...]:
    """Return the kernels of a report with a row for each kernel, launches one by one; the first row has the units."""
    units, *launches = rows
    if units.get("ID"):
        raise InvalidValueError("its second line has no units: it is a raw page without them (--page raw --csv writes them).")
    columns = [name for name in units if name not in _BESIDE]
    decimal = decimal_sign(row[name] for row in launches for name in columns)
    kernels = []
    for row in launches:
        values = {name: value for name in columns if (value := _value(row[name], units[name], decimal)) is not None}
        kernels.append(_kernel(row["Kernel Name"], values, ()))
    return tuple(kernels)


def _value(text: str, unit: str, decimal: str) -> float | str | None:
    """Return a metric in SI units; None for one that was not measured."""
    text = text.strip()
    if text.lower() in ("", "n/a", "nan", "(n/a)"):
        return None
    found = number(text, decimal)
    return text if found is None else found * factor_of(unit)


def _kernel(name: str, metrics: Metrics, advice: tuple[str, ...]) -> ReportedKernel:
    """Return a kernel with what follows from its metrics."""

    def find(*names: str) -> float | None:
        return next((value for wanted in names for key, value in metrics.items() if _is(key, wanted) and isinstance(value, float)), None)

    time = find(*_LENGTH)
    read, written = find("dram__bytes_read.sum"), find("dram__bytes_write.sum")
    moved = find("dram__bytes.sum") if read is None or written is None else read + written
    bandwidth = moved / time if moved is not None and time else find(*_BANDWIDTH)
    flops, vector = _flops(metrics, find)
    rate = vector / time if vector is not None and time else _charted(find)
    clock, dram = find("SM Frequency"), find("DRAM Frequency")
    reach, operations = find("Theoretical DRAM Bytes Accessible"), find("Theoretical Predicated-On FFMA Operations")
    share = find("dram__throughput.avg.pct_of_peak_sustained_elapsed", "DRAM Throughput")
    peak = reach * dram if reach is not None and dram is not None else None
    return ReportedKernel(
        name=name,
        kind=class_of(name),
        count=1,
        time_s=time,
        dram_bytes=moved,
        dram_bytes_per_s=bandwidth,
        flops=flops,
        vector_flops=vector,
        vector_flops_per_s=rate,
        peak_bytes_per_s=peak if peak is not None else bandwidth / share if bandwidth and share else None,
        peak_vector_flops_per_s=operations * clock if operations is not None and clock is not None else None,
        of_compute=find("sm__throughput.avg.pct_of_peak_sustained_elapsed", "Compute (SM) Throughput"),
        of_memory=find(
            "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed", "GPU Speed Of Light Throughput: Memory Throughput"
        ),
        metrics=metrics,
        advice=advice,
    )


def _is(key: str, wanted: str) -> bool:
    return key == wanted or key.endswith(f": {wanted}")


def _flops(metrics: Metrics, find: Callable[..., float | None]) -> tuple[float | None, float | None]:
    """Return the operations of matrix units and of general units; a counter of 0 matrix operations says nothing where general units were not counted.

    A product of a single row runs on general units, and its matrix units count 0.
    """
    kinds = [[find(_SASS.format(f"{kind}{op}")) for op in ("add", "mul", "fma")] for kind in ("h", "f", "d")]
    known = [value for ops in kinds for value in ops if value is not None]
    vector = sum((add or 0.0) + (mul or 0.0) + 2 * (fma or 0.0) for add, mul, fma in kinds) if known else None
    matrix = [
        value for key, value in metrics.items() if "sm__ops_path_tensor_src_" in key and key.endswith(".sum") and isinstance(value, float)
    ]
    flops = sum(matrix) if matrix and (sum(matrix) or vector is not None) else None
    return flops, vector


def _charted(find: Callable[..., float | None]) -> float | None:
    """Return the rate of fp32 on general units that the roofline chart has: operations of each cycle times the clock [FLOP/s]."""
    names = (
        "Predicated-On FFMA Operations Per Cycle",
        "Predicated-On FADD Thread Instructions Executed Per Cycle",
        "Predicated-On FMUL Thread Instructions Executed Per Cycle",
    )
    each, clock = [find(name) for name in names], find("SM Frequency")
    return None if clock is None or None in each else sum(value or 0.0 for value in each) * clock
