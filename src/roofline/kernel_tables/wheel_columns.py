"""Columns of the tables in the package ``aiconfigurator-core``, each checked where it is read."""

from collections.abc import Iterator, Mapping

import numpy as np

from roofline.errors import InvalidValueError
from roofline.kernel_tables.columns import Columns, numbers, texts
from roofline.names import nearest_names

ELEMENT_LABELS = ("dtype", "nccl_dtype", "allreduce_dtype")
"""What different tables call the label of a collective's elements."""

_WORDS = {
    *ELEMENT_LABELS,
    *("gemm_dtype", "moe_dtype", "attn_dtype", "mla_dtype", "kv_cache_dtype", "quant_dtype"),
    *("op_name", "distribution", "kernel_source", "phase", "framework", "version"),
}
"""Columns of text; every other that is read holds whole numbers, but for ``latency``."""

_MAY_BE_ZERO = {"step", "window_size"}


class WheelColumns(Mapping[str, np.ndarray]):
    """Columns of a table of the layout, each checked when it is first read, so that no reader has to.

    Parameters
    ----------
    table : str
        The table's name [-].
    columns : mapping of str to numpy.ndarray
        Its columns as they were found [-].

    Examples
    --------
    >>> WheelColumns("gemm", {"m": np.array([1, 2])})["m"]
    array([1, 2])
    """

    def __init__(self, table: str, columns: Columns) -> None:
        self._table, self._found, self._checked = table, columns, dict[str, np.ndarray]()

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column: text as it stands, sizes as whole numbers, times as positive ones."""
        if name not in self._found:
            near = nearest_names(name, [n for n in self._found if len(n) > 1], most=2)
            raise InvalidValueError(
                f"the table {self._table} of aiconfigurator-core has no column {name!r}; "
                f"{'nearest' if near else 'it has'}: {', '.join(near or list(self._found)[:12])}."
            )
        if name not in self._checked:
            column = self._found[name]
            if name in _WORDS:
                self._checked[name] = np.array(texts(column), dtype=object)
            elif name == "latency":
                self._checked[name] = numbers(name, column)
            else:
                self._checked[name] = numbers(name, column, least=0 if name in _MAY_BE_ZERO else 1).astype(np.int64)
        return self._checked[name]

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)
