"""Tables with a row for each name of kernels, or for each launch: ``nsys stats`` and rocprofv3."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from roofline.errors import InvalidValueError, quoted
from roofline.profile.reports.report import ReportedKernel
from roofline.profile.reports.values import decimal_sign, factor_of, number
from roofline.profile.traces.kernels_by_name import class_of

Table = Sequence[Mapping[str, str]]
_TOTAL = re.compile(r"Total Time \((\w+)\)")
_HOST = re.compile(
    r"(hip|hsa|cuda?)[A-Z_]\w*$|__hip\w+$|(KERNEL_DISPATCH|MEMORY_(COPY|ALLOCATION)\w*|SCRATCH_MEMORY|(HIP|HSA|MARKER)_\w*)$"
)


def read_nsys(rows: Table) -> tuple[ReportedKernel, ...]:
    """Return the kernels of ``nsys stats --report cuda_gpu_kern_sum --format csv``: sums over names; one stands twice where sizes of grids are apart."""
    column = next(name for name in rows[0] if _TOTAL.fullmatch(name))
    unit = factor_of(_TOTAL.fullmatch(column)[1])  # type: ignore[index] # the column was found by it
    return _summed(rows, "Name", "Instances", column, unit)


def read_rocprof_stats(rows: Table) -> tuple[ReportedKernel, ...]:
    """Return the kernels of rocprofv3's ``kernel_stats.csv``, or of ``rocprof --stats``: sums over names; raise for the same table of the host's calls."""
    if all(_HOST.match(row["Name"]) for row in rows):
        raise InvalidValueError(
            f"it has times of {quoted(rows[0]['Name'])} and other calls of the host, not of kernels; kernel_stats.csv has those."
        )
    return _summed(rows, "Name", "Calls", "TotalDurationNs", 1e-9)


def _summed(rows: Table, name: str, count: str, time: str, unit: float) -> tuple[ReportedKernel, ...]:
    decimal = decimal_sign(row[column] for row in rows for column in (time, count))
    kernels = []
    for row in rows:
        seconds, launches = number(row[time], decimal), number(row[count], decimal)
        if seconds is None or launches is None:
            raise InvalidValueError(
                f"{count} and {time} of {quoted(row[name])} are {quoted(row[count])} and {quoted(row[time])}; both have to be numbers."
            )
        kernels.append(ReportedKernel(row[name], class_of(row[name]), round(launches), seconds * unit))
    return tuple(kernels)


def read_rocprof_trace(rows: Table) -> tuple[ReportedKernel, ...]:
    """Return the kernels of rocprofv3's ``kernel_trace.csv``: sums over names, the longest first."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        start, end = (number(row[name], ".") for name in ("Start_Timestamp", "End_Timestamp"))
        if start is None or end is None or end < start:
            raise InvalidValueError(
                f"{quoted(row['Kernel_Name'])} starts at {quoted(row['Start_Timestamp'])} and ends at {quoted(row['End_Timestamp'])}; both have to be times."
            )
        seconds[row["Kernel_Name"]].append((end - start) * 1e-9)
    kernels = [ReportedKernel(name, class_of(name), len(times), sum(times)) for name, times in seconds.items()]
    return tuple(sorted(kernels, key=lambda kernel: -(kernel.time_s or 0.0)))
