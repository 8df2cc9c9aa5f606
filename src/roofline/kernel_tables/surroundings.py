"""What a table says of its measurements besides sizes and formats: on which machine, of how many calls, dense or sparse."""

import re
from dataclasses import replace

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.hardware import Hardware
from roofline.hardware.load import known_name, name_keys, namesakes, spec_files
from roofline.kernel_tables.columns import Columns, text_values
from roofline.kernel_tables.lookup import Names
from roofline.kernel_tables.table import KernelTable
from roofline.kernel_tables.times import is_total
from roofline.kernels.kind import words

CALLS = words(
    "calls call_count n_calls num_calls number_of_calls ofcalls count iters n_iters num_iters iterations n_iterations num_iterations "
    "repeat repeats n_repeats num_repeats reps n_reps num_reps repetitions instances launches invocations runs n_runs num_runs"
)
"""Names of the column of how many calls a total is of; ``ofcalls`` is the "# of Calls" of PyTorch's profiler."""

MACHINE = words(
    "gpu gpu_name gpu_model gpu_type device device_name device_type machine machine_name hardware accelerator accelerator_name chip"
)
"""Names of the column of the machine that a kernel ran on."""

SPARSITY = words("sparsity sparse is_sparse sparsity_type sparse_type structured_sparsity weight_sparsity")
"""Names of the column of whether products are sparse."""

_HANDLE = re.compile(r"((cuda|gpu|cpu|hip|rocm|xpu|mps|device)\W*)?[\d.]*", re.IGNORECASE)
"""What names no machine but one's place in it, such as "cuda:0"."""

_DENSE = ("", "dense", "none", "no", "false", "off", "0", "0.0", "0%", "1:1")


def calls_column(names: Names, time: str) -> str | None:
    """Return the column of how many calls each time is the total of, None for the time of one call.

    Examples
    --------
    >>> calls_column(Names(["m", "calls"]), "total_ms"), calls_column(Names(["m", "calls"]), "mean_ms")
    ('calls', None)
    """
    return names.find_one("calls", CALLS) if is_total(time) else None


def machine_column(names: Names, columns: Columns) -> str | None:
    """Return the column of names of machines, None if it holds only places such as "cuda:0".

    Examples
    --------
    >>> columns = {"gpu": np.array(["H100"]), "device": np.array(["cuda:0"])}
    >>> machine_column(Names(columns), columns)
    'gpu'
    """
    found = [n for n in names.find(MACHINE) if not all(_HANDLE.fullmatch(text) for text in text_values(columns[n]))]
    return Names(found).find_one("machine", MACHINE)


def check_dense(name: str, column: np.ndarray, rows: np.ndarray) -> None:
    """Raise InvalidValueError if some of the marked rows are of sparse products, which no floor here is of."""
    texts = text_values(column)
    for row in np.flatnonzero(rows).tolist():
        if texts[row].lower() not in _DENSE:
            raise InvalidValueError(
                f"column {quoted(name)} says {quoted(texts[row])} in row {row + 1}: floors are of dense products, of which sparse ones skip "
                f"a part; leave such rows out."
            )


def check_machine(table: KernelTable, hardware: Hardware) -> KernelTable:
    """Return a table with what was assumed of names that no machine has; raise InvalidValueError if some rows ran on another machine."""
    column = next((name for name, what in table.reading.read.items() if what == "machine"), None) if table.reading is not None else None
    if table.reading is None or column is None:
        return table
    named: dict[str, int] = {}
    for group in table:
        if text := group.origin.get("machine"):
            named[text] = min(named.get(text, int(group.rows[0])), int(group.rows[0]))
    unknown = []
    for text, row in named.items():
        if _is_name(text, hardware):
            continue
        other = known_name(text)
        if other is not None and hardware.id in spec_files():
            raise InvalidValueError(
                f"column {quoted(column)} says {quoted(text)} in row {row + 1}, which is {other}, and the machine asked about is {hardware.id}: "
                f"give the rows of one machine at a time, or ignore=[{quoted(column)}] if they ran on this one."
            )
        unknown.append(f"machine {quoted(text)} is {hardware.id}")
    return replace(table, reading=replace(table.reading, assumed=(*table.reading.assumed, *unknown)))


def _is_name(text: str, hardware: Hardware) -> bool:
    """Return whether a text is a name of a machine, or one that it shares with others of its family."""
    if name_keys(text)[-1] in {name_keys(name)[-1] for name in (hardware.id, hardware.name, *hardware.aliases)}:
        return True
    other = known_name(text)
    if other is None:
        return False
    alias = next((a for a in Hardware.load(other).aliases if name_keys(a)[-1] == name_keys(text)[-1]), "")
    return bool(alias) and hardware.id in namesakes(alias, other)
