"""One call of an operator as torch's profiler records it: shapes, types and constants of its inputs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from roofline.frozen import FrozenDict


class Element(NamedTuple):
    """What the elements of a tensor are.

    Parameters
    ----------
    name : str
        The format, such as ``"bf16"`` or ``"int64"`` [-].
    size : int
        What one takes; of packed formats one holds two numbers [B].
    kind : str
        ``"float"``, ``"integer"`` or ``"bool"`` [-].
    """

    name: str
    size: int
    kind: str


ELEMENTS = FrozenDict(
    {
        "double": Element("fp64", 8, "float"),
        "float": Element("fp32", 4, "float"),
        "c10::Half": Element("fp16", 2, "float"),
        "c10::BFloat16": Element("bf16", 2, "float"),
        **{f"c10::Float8_{kind}": Element("fp8", 1, "float") for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")},
        "c10::Float4_e2m1fn_x2": Element("fp4", 1, "float"),
        "c10::complex<float>": Element("complex64", 8, "float"),
        "c10::complex<double>": Element("complex128", 16, "float"),
        "long int": Element("int64", 8, "integer"),
        "long": Element("int64", 8, "integer"),
        "long long": Element("int64", 8, "integer"),
        "int": Element("int32", 4, "integer"),
        "short": Element("int16", 2, "integer"),
        "short int": Element("int16", 2, "integer"),
        "signed char": Element("int8", 1, "integer"),
        "unsigned char": Element("uint8", 1, "integer"),
        "bool": Element("bool", 1, "bool"),
    }
)
"""Elements by the name that torch's traces give their type in C++."""

_DTYPES = dict(enumerate(("unsigned char", "signed char", "short int", "int", "long int", "c10::Half", "float", "double")))
_DTYPES |= {9: "c10::complex<float>", 10: "c10::complex<double>", 11: "bool", 15: "c10::BFloat16"}
"""Types by the number that stands for a dtype among an operator's constants (c10/core/ScalarType.h)."""

_KINDS = ("bool", "integer", "float")


class Tensor(NamedTuple):
    """A tensor among the inputs, or one that comes out.

    Parameters
    ----------
    dims : tuple of int
        Its sizes [-].
    element : Element
        What its elements are [-].
    stored : int
        Elements in memory: fewer than the dims say where it is expanded [-].
    """

    dims: tuple[int, ...]
    element: Element
    stored: int

    @property
    def elements(self) -> int:
        """Its elements, by its dims [-]."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """What it takes in memory [B]."""
        return self.stored * self.element.size


@dataclass(frozen=True, slots=True)
class Call:
    """The inputs of one call.

    Parameters
    ----------
    name : str
        The operator, such as ``"aten::mm"`` [-].
    dims : sequence
        ``"Input Dims"`` of the trace: sizes of each input, a list of them for a list of tensors [-].
    types : sequence of str
        ``"Input type"``: C++ type of the elements, ``"Scalar"``, ``"TensorList"`` … [-].
    constants : sequence of str
        ``"Concrete Inputs"``: numbers and flags, empty for tensors [-].
    strides : sequence, optional
        ``"Input Strides"`` [-].
    listed : str, optional
        Type of the elements of lists of tensors, which a trace does not name [-].
    """

    name: str
    dims: Sequence[Any]
    types: Sequence[str]
    constants: Sequence[str]
    strides: Sequence[Any] = ()
    listed: str = ""

    @classmethod
    def read(cls, name: str, args: Mapping[str, Any], listed: str = "") -> "Call | None":
        """Return the call that an event describes.

        Parameters
        ----------
        name : str
            The operator [-].
        args : mapping
            The event's ``args`` [-].
        listed : str, optional
            Type of the elements of lists of tensors [-].

        Returns
        -------
        Call or None
            None where shapes were not recorded [-].
        """
        if "Input Dims" not in args:
            return None
        types, constants, strides = (tuple(args.get(key) or ()) for key in ("Input type", "Concrete Inputs", "Input Strides"))
        return cls(name, args["Input Dims"], types, constants, strides, listed)

    def tensor(self, place: int) -> Tensor | None:
        """Return one input if it is a tensor of a type that is known.

        Parameters
        ----------
        place : int
            Its number, from 0 [-].

        Returns
        -------
        Tensor or None
            Its dims and elements [-].
        """
        if place >= len(self.types) or self.types[place] not in ELEMENTS:
            return None
        strides = self.strides[place] if place < len(self.strides) else ()
        return _tensor(self.dims[place], self.types[place], strides)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All inputs that are tensors, those of lists included."""
        found = [tensor for place in range(len(self.types)) if (tensor := self.tensor(place))]
        return (*found, *self.members)

    @property
    def members(self) -> tuple[Tensor, ...]:
        """The tensors of lists among the inputs; none where their type is not known."""
        lists = [place for place, kind in enumerate(self.types) if kind == "TensorList"]
        if self.listed not in ELEMENTS:
            return ()
        strides = {place: self.strides[place] if place < len(self.strides) else () for place in lists}
        return tuple(
            _tensor(dims, self.listed, strides[place][i] if i < len(strides[place]) else ())
            for place in lists
            for i, dims in enumerate(self.dims[place])
        )

    def constant(self, place: int) -> str:
        """Return a constant as it is written.

        Parameters
        ----------
        place : int
            The number of the input, from 0 [-].

        Returns
        -------
        str
            Empty where there is none [-].
        """
        return self.constants[place] if place < len(self.constants) else ""

    def flag(self, place: int) -> bool | None:
        """Return a constant that is True or False.

        Parameters
        ----------
        place : int
            The number of the input, from 0 [-].

        Returns
        -------
        bool or None
            None where it is not recorded [-].
        """
        return {"True": True, "False": False}.get(self.constant(place))

    def numbers(self, place: int) -> tuple[int, ...] | None:
        """Return a constant that is a whole number or a list of them.

        Parameters
        ----------
        place : int
            The number of the input, from 0 [-].

        Returns
        -------
        tuple of int or None
            Empty where there is none, None where it is something else [-].
        """
        try:
            return tuple(int(part) for part in self.constant(place).strip("[]").replace(" ", "").split(",") if part)
        except ValueError:
            return None

    def dtype(self, place: int) -> Element | None:
        """Return the elements that a constant names.

        Parameters
        ----------
        place : int
            The number of the input, from 0 [-].

        Returns
        -------
        Element or None
            None where it is not recorded [-].
        """
        number = self.numbers(place)
        return ELEMENTS.get(_DTYPES.get(number[0], "")) if number else None

    @property
    def shapes(self) -> str:
        """The shapes of its tensors, as a text."""
        kinds = (*ELEMENTS, "TensorList")
        return " ".join(str(dims).replace(" ", "") for dims, kind in zip(self.dims, self.types, strict=False) if kind in kinds)


def _tensor(dims: Sequence[int], kind: str, strides: Sequence[int] = ()) -> Tensor:
    kept = [size for size, stride in zip(dims, strides, strict=True) if stride] if len(strides) == len(dims) else dims
    return Tensor(tuple(dims), ELEMENTS[kind], math.prod(kept) if all(dims) else 0)


def dense(dims: Sequence[int], element: Element) -> Tensor:
    """Return a tensor whose elements all lie in memory."""
    return Tensor(tuple(dims), element, math.prod(dims))


def promoted(tensors: Sequence[Tensor]) -> Element:
    """Return the elements of what comes of an element-wise operator: the widest of the highest kind, numbers without dims last.

    Examples
    --------
    >>> bf16, fp16 = (dense((2,), ELEMENTS[f"c10::{name}"]) for name in ("BFloat16", "Half"))
    >>> promoted([bf16, dense((), ELEMENTS["float"])]).name, promoted([bf16, fp16]).name
    ('bf16', 'fp32')
    """
    highest = max(_KINDS.index(t.element.kind) for t in tensors)
    alike = [t for t in tensors if _KINDS.index(t.element.kind) == highest]
    elements = {t.element for t in alike if t.dims} or {t.element for t in alike}
    widest = max(elements, key=lambda element: element.size)
    return ELEMENTS["float"] if {"fp16", "bf16"} <= {e.name for e in elements} and widest.size == 2 else widest


def broadcast(tensors: Sequence[Tensor]) -> tuple[int, ...] | None:
    """Return the dims that tensors have together; None if they do not go together.

    Examples
    --------
    >>> broadcast([dense((4, 1, 8), ELEMENTS["float"]), dense((3, 1), ELEMENTS["float"])])
    (4, 3, 8)
    """
    longest = max(len(t.dims) for t in tensors)
    columns = zip(*((1,) * (longest - len(t.dims)) + t.dims for t in tensors), strict=True)
    out = []
    for column in columns:
        sizes = {size for size in column if size != 1}
        if len(sizes) > 1:
            return None
        out.append(sizes.pop() if sizes else 1)
    return tuple(out)
