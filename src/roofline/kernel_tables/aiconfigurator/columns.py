"""Columns of the tables in the package ``aiconfigurator-core``, each checked where it is read."""

from collections.abc import Iterator, Mapping

import numpy as np

from roofline.errors import InvalidValueError
from roofline.kernel_tables.columns import Columns, number_values, text_values
from roofline.names import nearest_names

ELEMENT_LABELS = ("dtype", "nccl_dtype", "allreduce_dtype")
"""Names that different tables have for the format of a collective's elements."""

_TEXT = {
    *ELEMENT_LABELS,
    *("gemm_dtype", "moe_dtype", "attn_dtype", "mla_dtype", "kv_cache_dtype", "quant_dtype"),
    *("op_name", "distribution", "kernel_source", "phase", "framework", "version", "device"),
}
"""Columns of text; all others hold whole numbers, except times: ``latency``, and names that end in ``_us``."""

_MAY_BE_ZERO = {"step", "window_size"}


class CheckedColumns(Mapping[str, np.ndarray]):
    """Columns of a table, each checked when it is first read.

    Parameters
    ----------
    table : str
        The table's name [-].
    columns : mapping of str to numpy.ndarray
        Its columns, unchecked [-].

    Examples
    --------
    >>> CheckedColumns("gemm", {"m": np.array([1, 2])})["m"]
    array([1., 2.])
    """

    def __init__(self, table: str, columns: Columns) -> None:
        self._table, self._found, self._checked = table, columns, dict[str, np.ndarray]()

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column: text, whole numbers, or positive numbers for the latency."""
        if name not in self._found:
            near = nearest_names(name, [n for n in self._found if len(n) > 1], most=2)
            raise InvalidValueError(
                f"the table {self._table} of aiconfigurator-core has no column {name!r}; "
                f"{'nearest' if near else 'it has'}: {', '.join(near or list(self._found)[:12])}."
            )
        if name not in self._checked:
            column = self._found[name]
            if name in _TEXT:
                self._checked[name] = np.array(text_values(column), dtype=object)
            elif name == "latency" or name.endswith("_us"):
                self._checked[name] = number_values(name, column)
            else:
                self._checked[name] = number_values(name, column, least=0 if name in _MAY_BE_ZERO else 1)
        return self._checked[name]

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)
