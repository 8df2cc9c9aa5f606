"""`read_report`: a file of a vendor's profiler, told apart by its columns."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.names import local_path
from roofline.profile.reports.ncu import read_details, read_raw
from roofline.profile.reports.report import KernelReport, ReportedKernel
from roofline.profile.reports.summaries import read_nsys, read_rocprof_stats, read_rocprof_trace
from roofline.validation import read_text

_Reader = Callable[[Sequence[Mapping[str, str]]], tuple[ReportedKernel, ...]]
# what the columns of each report contain, in the order in which they are asked
_REPORTS: tuple[tuple[str, frozenset[str], _Reader], ...] = (
    ("Nsight Compute, details", frozenset({"ID", "Kernel Name", "Metric Name", "Metric Value"}), read_details),
    ("Nsight Compute, raw page", frozenset({"ID", "Kernel Name"}), read_raw),
    ("Nsight Systems, kernel summary", frozenset({"Instances", "Name"}), read_nsys),
    ("rocprof, kernel stats", frozenset({"Name", "Calls", "TotalDurationNs"}), read_rocprof_stats),
    ("rocprofv3, kernel trace", frozenset({"Kernel_Name", "Start_Timestamp", "End_Timestamp"}), read_rocprof_trace),
)
_KNOWN = "ncu --csv (details and raw pages), nsys stats --report cuda_gpu_kern_sum --format csv, and kernel_stats.csv and kernel_trace.csv of rocprofv3"


@checks_call
def read_report(path: str | Path) -> KernelReport:
    """Read what a vendor's profiler wrote about kernels: Nsight Compute, Nsight Systems or rocprofv3.

    Parameters
    ----------
    path : str or Path
        The file, plain or gzipped; lines of the program or of the profiler may stand before the table [-].

    Returns
    -------
    KernelReport
        Kernels with time, and bytes and FLOP where the report has them [-].

    Raises
    ------
    InvalidValueError
        If the file cannot be read, is none of these reports, or has numbers that can be read in two ways.

    Notes
    -----
    Units are read row by row, since one report has ``Mbyte`` beside ``byte``. Which sign stands before decimals follows from all numbers together. FLOP that
    were not counted are None: a counter of 0 on the matrix units says nothing of a kernel that works on general units.
    """
    file = local_path(path)
    text = read_text(file, errors="replace")
    if not text.strip():
        raise InvalidValueError(f"{file} is empty.")
    try:
        lines = list(csv.reader(text.splitlines(keepends=True), skipinitialspace=True))
    except csv.Error:  # a field without an end: no table
        lines = []
    found = next(((start, report) for start, row in enumerate(lines) for report in _REPORTS if report[1] <= set(row)), None)
    if found is None:
        raise InvalidValueError(f"{file} is none of the reports that can be read ({_KNOWN}); it starts with {quoted(text.lstrip()[:40])}.")
    start, (tool, _, reader) = found
    rows = list(_rows([name.strip() for name in lines[start]], lines[start + 1 :]))
    if not rows:
        raise InvalidValueError(f"{file} has the columns of {tool}, but no kernels.")
    try:
        kernels = reader(rows)
    except InvalidValueError as error:
        raise InvalidValueError(f"{file}: {error}") from None
    if not kernels:
        raise InvalidValueError(f"{file} has the columns of {tool}, but no kernels.")
    return KernelReport(str(path), tool, kernels, tuple(_notes(tool, kernels)))


def _rows(header: list[str], lines: list[list[str]]) -> Iterator[dict[str, str]]:
    """Yield the lines of a table by column; those of programs and of the profiler between them are left out."""
    for line in lines:
        if len(line) > 2 and line != header:  # the end of a line may be missing: rows without a rule have no columns of it
            yield {name: line[place] if place < len(line) else "" for place, name in enumerate(header)}


def _notes(tool: str, kernels: Sequence[ReportedKernel]) -> Iterator[str]:
    """Yield what a reader must know."""
    if tool.startswith("Nsight Compute"):
        yield "kernels were run again for each group of counters, at the profiler's clock and by default with cold caches: times are no times of a run"
        if all(kernel.flops is kernel.vector_flops is kernel.vector_flops_per_s is None for kernel in kernels):
            yield "FLOP were not counted; those of general units are in --section SpeedOfLight_RooflineChart"
