"""What an operator costs, whatever the machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from roofline.arithmetic import Number

Kind = Literal["contraction", "normalization", "element-wise", "gather", "collective"]
"""The classes of arXiv 2007.00072, reading rows of a table, and traffic between devices."""

AMOUNTS = (
    "flops",
    "vector_flops",
    "weight_bytes",
    "kv_read_bytes",
    "kv_write_bytes",
    "state_bytes",
    "input_bytes",
    "output_bytes",
    "link_bytes",
    "nic_bytes",
    "hops",
    "rows",
    "sequences",
)
"""What an operator is counted in: the fields of :class:`Op` that add up over operators."""


@dataclass(frozen=True)
class Op:
    """The cost of one operator, or of `count` alike.

    Parameters
    ----------
    name : str
        What it is called in every breakdown [-].
    kind : {"contraction", "normalization", "element-wise", "gather", "collective"}
        Its class [-].
    operand : str, optional
        Operand format its matrix product runs in [-].
    flops : int, float or numpy.ndarray, optional
        Operations of matrix products, a multiply-accumulate being two [FLOP].
    vector_flops : int, float or numpy.ndarray, optional
        Operations of general units: norms, softmax, activation functions, residuals [FLOP].
    weight_bytes : int, float or numpy.ndarray, optional
        Parameters read, scales and zero points included [B].
    kv_read_bytes, kv_write_bytes : int, float or numpy.ndarray, optional
        Cache read and written [B].
    state_bytes : int, float or numpy.ndarray, optional
        Recurrent state read and written [B].
    input_bytes, output_bytes : int, float or numpy.ndarray, optional
        Activations in and out; traffic that perfect fusion would keep on chip [B].
    link_bytes : int, float or numpy.ndarray, optional
        Bytes that leave the device over its links, one direction [B].
    nic_bytes : int, float or numpy.ndarray, optional
        Those among them that leave its scale-up domain [B].
    hops : int, optional
        Messages that wait for each other, from one device to another [-].
    rows : int, float or numpy.ndarray, optional
        Token rows that pass through [token].
    sequences : int, float or numpy.ndarray, optional
        Sequences that its tokens belong to; counted for attention only, which treats every one by itself [-].
    count : int, optional
        How many alike operators the amounts sum over: kernels, if each is one [-].
    family : str, optional
        What kind of kernel runs it, a key of :data:`roofline.kernels.FAMILIES`; empty where nothing runs [-].
    stored : str, optional
        Name of the format that its weights or its cache are stored in [-].
    sizes : mapping of str to int, optional
        Sizes of one of the `count` kernels that its time depends on besides the amounts: inner and outer dimension,
        heads, ranks [-].
    adds_residual : bool, optional
        Whether it adds a block's result to the residual stream, which engines fuse into the next norm [-].
    """

    name: str
    kind: Kind
    operand: str = "fp32"
    flops: Number = 0
    vector_flops: Number = 0
    weight_bytes: Number = 0
    kv_read_bytes: Number = 0
    kv_write_bytes: Number = 0
    state_bytes: Number = 0
    input_bytes: Number = 0
    output_bytes: Number = 0
    link_bytes: Number = 0
    nic_bytes: Number = 0
    hops: Number = 0
    rows: Number = 0
    sequences: Number = 0
    count: int = 1
    family: str = ""
    stored: str = ""
    sizes: Mapping[str, Number] = field(default_factory=dict)
    adds_residual: bool = False

    @property
    def compulsory_bytes(self) -> Number:
        """Bytes that no fusion avoids: weights, cache, state [B]."""
        return self.weight_bytes + self.kv_read_bytes + self.kv_write_bytes + self.state_bytes

    @property
    def activation_bytes(self) -> Number:
        """Activations in and out [B]."""
        return self.input_bytes + self.output_bytes

    def times(self, layers: int, *, stored: int | None = None) -> "Op":
        """Return the cost of this operator in so many identical layers.

        Parameters
        ----------
        layers : int
            How many [-].
        stored : int, optional
            How many of them have weights of their own, which are read once however often they are used [-].

        Returns
        -------
        Op
            Every amount multiplied [-].
        """
        amounts = {a: form * layers for a, form in self.amounts().items() if not isinstance(form, int) or form}
        if stored is not None:
            amounts["weight_bytes"] = self.weight_bytes * stored
        return self.having(count=self.count * layers, **amounts)

    def having(self, **fields: Any) -> "Op":
        """Return a copy with some fields changed, at a tenth of what ``dataclasses.replace`` costs.

        Parameters
        ----------
        **fields : optional
            New values by field name; the names are not checked [-].

        Returns
        -------
        Op
            The copy [-].
        """
        new = object.__new__(Op)
        new.__dict__.update(self.__dict__, **fields)
        return new

    def amounts(self) -> dict[str, Number]:
        """Return every amount by name [SI]."""
        fields = self.__dict__
        return {a: fields[a] for a in AMOUNTS}
