"""Number formats: how many bits an element takes, scales included, and which matrix-unit format multiplies it.

Two things are kept apart. A *storage* format says how many bytes a weight, an activation or a cache entry costs; an
*operand* format (``fp32 tf32 bf16 fp16 fp8 int8 fp4 int4``) names the matrix-unit mode, and so the peak, that a product
runs at. Weight-only quantization changes the first and not the second.

References
----------
OCP Microscaling Formats v1.0 (mxfp4, mxfp8: one 8-bit scale per 32 elements); NVIDIA NVFP4 (one 8-bit scale per 16
elements); DeepSeek-V3 technical report, arXiv 2412.19437 §3.3 (fp8 with 128×128 weight blocks, one fp32 scale each).
"""

from dataclasses import dataclass
from fractions import Fraction

from roofline.errors import InvalidValueError
from roofline.names import normalize_name, unknown_name

__all__ = ["FORMATS", "OPERANDS", "Format", "convertible", "product_operand"]

OPERANDS: dict[str, int] = {"fp64": 64, "fp32": 32, "tf32": 19, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp4": 4, "int4": 4}
"""Operand formats of matrix units and the bits of one element [bit]."""

_CONVERSIONS: dict[str, tuple[str, ...]] = {
    "fp4": ("fp8", "bf16", "fp16", "fp32"),
    "int4": ("int8", "bf16", "fp16", "fp32"),
    "fp8": ("bf16", "fp16", "fp32"),
    "int8": ("bf16", "fp16", "fp32"),
    "bf16": ("fp16", "tf32", "fp32"),
    "fp16": ("bf16", "tf32", "fp32"),
    "tf32": ("fp32",),
    "fp32": ("fp64",),
    "fp64": (),
}


@dataclass(frozen=True, slots=True)
class Format:
    """A storage format.

    Parameters
    ----------
    name : str
        Its name in the field [-].
    bits : fractions.Fraction
        Bits per element, block scales and zero points included [bit].
    operand : str
        The matrix-unit format its elements map to, one of :data:`OPERANDS` [-].
    activations : str
        The activation format that goes with it when only the weight format is given: itself where the usual kernels
        quantize both operands, ``"bf16"`` where they quantize weights only [-].
    """

    name: str
    bits: Fraction
    operand: str
    activations: str

    @property
    def bytes_per_element(self) -> int | float:
        """Bytes per element [B]: an int where it is whole, so that counts in this format stay exact."""
        size = self.bits / 8
        return size.numerator if size.denominator == 1 else float(size)

    @classmethod
    def load(cls, name: "str | Format") -> "Format":
        """Return a format by name.

        Parameters
        ----------
        name : str or Format
            A name of :data:`FORMATS`, in any case and punctuation, or a format [-].

        Returns
        -------
        Format
            The format [-].

        Raises
        ------
        UnknownNameError
            If there is no such format; the message lists the nearest.

        Examples
        --------
        >>> Format.load("FP8").bytes_per_element
        1
        >>> Format.load("mxfp4").bytes_per_element
        0.53125
        """
        if isinstance(name, Format):
            return name
        if name in FORMATS:
            return FORMATS[name]
        if not isinstance(name, str):
            raise InvalidValueError(f"a number format is given by name, not as {name!r}; known: {', '.join(FORMATS)}.")
        found = _BY_KEY.get(normalize_name(name))
        if found is None:
            raise unknown_name("number format", name, FORMATS, hint=f"Known formats: {', '.join(FORMATS)}")
        return FORMATS[found]

    @classmethod
    def grouped(cls, operand: str, *, group: int, scale_bits: int = 16, zero_bits: int = 0, activations: str = "bf16") -> "Format":
        """Return a block-scaled format: ``bits + (scale_bits + zero_bits)/group``.

        Parameters
        ----------
        operand : str
            The element's own format, one of :data:`OPERANDS` [-].
        group : int
            Elements that share one scale [-].
        scale_bits, zero_bits : int, optional
            Size of the scale and of the zero point [bit].
        activations : str, optional
            The activation format used with it [-].

        Returns
        -------
        Format
            A format named after its group [-].

        Examples
        --------
        >>> float(Format.grouped("int4", group=128, zero_bits=16).bits)
        4.25
        """
        if group < 1 or operand not in OPERANDS:
            raise InvalidValueError(
                f"a grouped format needs an operand of {', '.join(OPERANDS)} and a group of at least 1, not {operand!r}, {group}."
            )
        bits = OPERANDS[operand] + Fraction(scale_bits + zero_bits, group)
        return cls(f"{operand}_g{group}" + ("_zp" if zero_bits else ""), bits, operand, activations)


def _plain(name: str, activations: str | None = None) -> Format:
    return Format(name, Fraction(32 if name == "tf32" else OPERANDS[name]), name, activations or name)


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        _plain("fp64"),
        _plain("fp32"),
        _plain("tf32"),
        _plain("bf16"),
        _plain("fp16"),
        _plain("fp8"),
        Format("fp8_block128", 8 + Fraction(32, 128 * 128), "fp8", "fp8"),
        Format("mxfp8", 8 + Fraction(8, 32), "fp8", "fp8"),
        _plain("int8"),
        Format("int4", 4 + Fraction(32, 128), "int4", "bf16"),
        Format("int4_sym", 4 + Fraction(16, 128), "int4", "bf16"),
        Format("nvfp4", 4 + Fraction(8, 16), "fp4", "nvfp4"),
        Format("mxfp4", 4 + Fraction(8, 32), "fp4", "bf16"),
    )
}
"""Storage formats by name. ``int4`` is group-128 with a 16-bit scale and zero point, ``int4_sym`` without the zero point."""

_BY_KEY = {normalize_name(n): n for n in FORMATS} | {
    "float32": "fp32",
    "float": "fp32",
    "single": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "float64": "fp64",
    "float8": "fp8",
    "fp8e4m3": "fp8",
    "fp8e5m2": "fp8",
    "float8e4m3fn": "fp8",
    "fp8block": "fp8_block128",
    "awq": "int4",
    "gptq": "int4",
}


def product_operand(weights: Format, activations: Format) -> str:
    """Return the operand format in which a matrix product of two storage formats runs.

    The narrower operand is converted to the wider one's format; of two equally wide ones the activations decide.

    Parameters
    ----------
    weights, activations : Format
        Storage formats of the two operands [-].

    Returns
    -------
    str
        One of :data:`OPERANDS` [-].

    Examples
    --------
    >>> product_operand(FORMATS["int4"], FORMATS["bf16"])
    'bf16'
    >>> product_operand(FORMATS["fp8"], FORMATS["fp8"])
    'fp8'
    """
    wider = OPERANDS[weights.operand] > OPERANDS[activations.operand]
    return weights.operand if wider else activations.operand


def convertible(operand: str) -> tuple[str, ...]:
    """Return the operand formats that a machine without `operand` would convert it to, in order of preference.

    Parameters
    ----------
    operand : str
        One of :data:`OPERANDS` [-].

    Returns
    -------
    tuple of str
        Wider (or equally wide) formats, nearest first [-].

    Examples
    --------
    >>> convertible("fp8")
    ('bf16', 'fp16', 'fp32')
    """
    return _CONVERSIONS[operand]
