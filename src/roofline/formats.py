"""Number formats: how many bits an element takes, scales included, and which matrix-unit format multiplies it.

Two things are kept apart. A *storage* format says how many bytes a weight, an activation or a cache entry costs; an
*operand* format (``fp32 tf32 bf16 fp16 fp8 int8 fp4 int4``) names the matrix-unit mode, and so the peak, that a product
runs at. Weight-only quantization changes the first and not the second.

Scales per tensor or per output row are not counted: 32 bits for a whole row of K elements, 0.1 % of an 8-bit matrix with
K = 4096, are less than what the other conventions leave open.

References
----------
OCP Microscaling Formats v1.0 (mxfp4, mxfp8: one 8-bit scale per 32 elements); NVIDIA NVFP4 (one 8-bit scale per 16
elements); DeepSeek-V3 technical report, arXiv 2412.19437 §3.3 (fp8 with 128×128 weight blocks, one fp32 scale each);
QLoRA, arXiv 2305.14314 §3 (nf4: blocks of 64 with fp32 scales, which double quantization stores in 8 bits, in blocks of
256); ggml, ``ggml-common.h`` (GGUF tensor types); llama.cpp, ``tools/quantize/README.md`` (GGUF file types).
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

from roofline.calls import checks_methods, listed
from roofline.errors import InvalidValueError, UnknownNameError, quoted
from roofline.frozen import FrozenDict, sealed
from roofline.names import normalize_name, unknown_name
from roofline.units import whole_number

__all__ = ["FORMATS", "OPERANDS", "Format"]

OPERANDS: dict[str, int] = {"fp64": 64, "fp32": 32, "tf32": 19, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp4": 4, "int4": 4}
"""Operand formats of matrix units and the bits of one element [bit]."""
OPERANDS = FrozenDict(OPERANDS)

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


@checks_methods
@sealed
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
    whole_file : bool, optional
        Whether `bits` is an average over all of a file, embedding, head and norms included [-].
    """

    name: str
    bits: Fraction
    operand: str
    activations: str
    whole_file: bool = False

    @property
    def has_packed_scales(self) -> bool:
        """Whether it is one of ggml's K-quants, whose scales and minima are packed in 6 or 4 bits: reading a weight takes several operations [-].

        Examples
        --------
        >>> Format.load("q4_k_m").has_packed_scales, Format.load("q4_0").has_packed_scales
        (True, False)
        """
        return _K_QUANT.match(self.name) is not None

    @property
    def bytes_per_element(self) -> int | float:
        """Bytes per element [B]: an int where it is whole, so that counts in this format stay exact."""
        size = self.bits / 8
        return size.numerator if size.denominator == 1 else float(size)

    @property
    def weights_only(self) -> bool:
        """Whether only weights are stored like this, and rows of more bits are multiplied by them [-]."""
        return self.bits < OPERANDS[self.operand] or self.whole_file or Format.load(self.activations).operand != self.operand

    @classmethod
    def load(cls, name: Any) -> "Format":
        """Return a format by name.

        Parameters
        ----------
        name : str, dtype or Format
            A name of :data:`FORMATS`, in any case and punctuation, or what others call it (``float8_e4m3fn``, ``w4a16``,
            ``awq``); a parametrised name, see :meth:`grouped` and :meth:`blocks`; either of them followed by ``_a16``, ``_afp8``,
            ``_aint8`` … for other activations than the format's own; a dtype of torch or NumPy; or a format [-].

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
        >>> Format.load("nvfp4_a16").activations
        'bf16'
        """
        if isinstance(name, Format):
            return name
        if not isinstance(name, str):
            name = _dtype_name(name)
        return FORMATS[name] if name in FORMATS else _parsed(name)

    @classmethod
    def grouped(cls, operand: str, *, group: int, scale_bits: int = 16, zero_bits: int = 0, activations: str = "bf16") -> "Format":
        """Return a format with a scale per group: ``bits + (scale_bits + zero_bits)/group``.

        Its name is ``<operand>_g<group>``, then ``_s<bits>`` for scales of other than 16 bits, then ``_zp`` for zero points of
        16 bits or ``_zp<bits>`` for others, then ``_a<format>`` for activations other than the rows' own 16-bit format. Every such
        name can be loaded. Elements of 2, 3, 5, 6, 7 bits (``int3_g128``) map to the next wider operand.

        Parameters
        ----------
        operand : str
            The element's own format: one of :data:`OPERANDS`, or ``int2`` … ``int8`` [-].
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

        Raises
        ------
        InvalidValueError
            If there is no such operand, or the group is empty.

        Examples
        --------
        >>> float(Format.grouped("int4", group=128, zero_bits=16).bits)
        4.25
        >>> Format.load("int4_g128_zp4").bits == 4 + Fraction(16 + 4, 128)
        True
        """
        group, scale_bits, zero_bits = (
            whole_number("group", group),
            whole_number("scale_bits", scale_bits),
            whole_number("zero_bits", zero_bits),
        )
        element = _ELEMENTS.get(operand) if isinstance(operand, str) else None
        if group < 1 or element is None:
            raise InvalidValueError(
                f"a grouped format needs an operand of {', '.join(_ELEMENTS)} and a group of at least 1, not {quoted(operand)}, {group}."
            )
        name = f"{operand}_g{group}" + (f"_s{scale_bits}" if scale_bits != 16 else "")
        name += "" if not zero_bits else "_zp" if zero_bits == 16 else f"_zp{zero_bits}"
        bits, unit = element
        return _with_activations(cls(name, bits + Fraction(scale_bits + zero_bits, group), unit, "bf16"), activations)

    @classmethod
    def blocks(cls, rows: int, columns: int, *, scale_bits: int = 32) -> "Format":
        """Return fp8 with one scale per block of the matrix: ``8 + scale_bits/(rows · columns)``.

        Its name is ``fp8_block<rows>x<columns>``, one number for a square, then ``_ue8m0`` for 8-bit scales.

        Parameters
        ----------
        rows, columns : int
            Size of a block [-].
        scale_bits : int, optional
            32 for fp32 scales, 8 for powers of two (ue8m0) [bit].

        Returns
        -------
        Format
            The format; both operands are quantized [-].

        Raises
        ------
        InvalidValueError
            If the block is empty, or the scale is neither of the two.

        Examples
        --------
        >>> float(Format.blocks(128, 128).bits)
        8.001953125
        >>> Format.blocks(128, 128, scale_bits=8).name
        'fp8_block128_ue8m0'
        """
        rows, columns = whole_number("rows", rows, minimum=1), whole_number("columns", columns, minimum=1)
        if (scale_bits := whole_number("scale_bits", scale_bits)) not in (8, 32):
            raise InvalidValueError(f"scale_bits is {quoted(scale_bits)}; scales of fp8 blocks have 8 or 32 bits.")
        name = f"fp8_block{rows}" + (f"x{columns}" if columns != rows else "") + ("_ue8m0" if scale_bits == 8 else "")
        return cls(name, 8 + Fraction(scale_bits, rows * columns), "fp8", "fp8")


_ELEMENTS: dict[str, tuple[int, str]] = {name: (bits, name) for name, bits in OPERANDS.items() if name != "tf32"} | {
    f"int{bits}": (bits, "int4" if bits <= 4 else "int8") for bits in range(2, 9)
}
"""Element formats of groups: bits of one element, and the operand format that it maps to."""

_UNSCALED = ("fp4", "float4", "e2m1", "fp4e2m1", "f4e2m1", "float4e2m1", "float4e2m1fn", "float4e2m1fnx2")
_GROUPED = re.compile(r"(?P<operand>[a-z]+\d+)_g(?P<group>\d+)(_s(?P<scale>\d+))?(?P<zp>_zp(?P<zero>\d*))?")
_AVERAGES = re.compile(r"(?P<tool>aqlm|exl2|exl3|gguf)_(?P<bits>\d+(\.\d+)?)")
_K_QUANT = re.compile(r"q\d_k(_|$)")
_BLOCKS = re.compile(r"fp8_block(?P<rows>\d+)(x(?P<columns>\d+))?(?P<ue8m0>_ue8m0)?")
_ACTIVATIONS = {"16": "bf16", "bf16": "bf16", "fp16": "bf16", **{name: name for name in ("fp8", "int8", "int4", "nvfp4", "mxfp4")}}


def _dtype_name(given: Any) -> str:
    """Return the name of a dtype of torch, NumPy or JAX, none of which is imported for it."""
    kind = type(given)
    if kind.__name__ == "dtype" and kind.__module__ == "torch":
        return str(given)
    # numpy.float16 and jax.numpy.bfloat16 are classes, numpy.dtype("float16") is an object with a name
    name = given.__name__ if isinstance(given, type) else getattr(given, "name", None)
    if not isinstance(name, str) or name not in _DTYPES:
        raise InvalidValueError(f"a number format is given by name or as a dtype, not as {quoted(given)}; known: {listed(tuple(FORMATS))}.")
    return name


def _with_activations(format: Format, activations: str) -> Format:
    """Return a format with other activations, and their name at the end of its own."""
    if isinstance(activations, str) and activations == format.activations:
        return format
    if not isinstance(activations, str):
        raise InvalidValueError(f"activations is {quoted(activations)}; they are given by name.")
    suffix = "16" if activations == "bf16" else activations
    return replace(format, name=f"{format.name}_a{suffix}", activations=activations)


@lru_cache(maxsize=1024)
def _parsed(name: str) -> Format:
    """Return the format of a name that is not spelled as in the table."""
    text = name.strip().lower().replace("-", "_").removeprefix("torch.")
    found = _BY_KEY.get(normalize_name(text))
    if found is not None:
        return FORMATS[found] if found in FORMATS else _parsed(found)
    stem, mark, rows = text.rpartition("_a")
    if mark and rows in _ACTIVATIONS:
        return _with_activations(Format.load(stem), _ACTIVATIONS[rows])
    if match := _GROUPED.fullmatch(text):
        zero = int(match["zero"] or 16) if match["zp"] else 0
        return Format.grouped(match["operand"], group=int(match["group"]), scale_bits=int(match["scale"] or 16), zero_bits=zero)
    if (match := _AVERAGES.fullmatch(text)) and 1 <= Fraction(match["bits"]) <= (16 if match["tool"] == "gguf" else 8):
        bits = Fraction(match["bits"])
        return Format(
            f"{match['tool']}_{float(bits):.6g}", bits, "int4" if bits <= 4 else "int8", "int8" if match["tool"] == "gguf" else "bf16"
        )
    if match := _BLOCKS.fullmatch(text):
        return Format.blocks(int(match["rows"]), int(match["columns"] or match["rows"]), scale_bits=8 if match["ue8m0"] else 32)
    if normalize_name(text) in _UNSCALED:
        raise unknown_name(
            "number format", name, ("nvfp4", "mxfp4"), like="fp4", hint="Elements of 4 bits have scales, and these differ in theirs"
        )
    raise unknown_name("number format", name, FORMATS, hint="Others are built by rule, such as int4_g64_zp4 and fp8_block64")


def _plain(name: str, activations: str | None = None) -> Format:
    return Format(name, Fraction(32 if name == "tf32" else OPERANDS[name]), name, activations or name)


_GGUF_BLOCKS: dict[str, tuple[int, int, str]] = {
    # bytes and elements of one block, from the struct of that name in ggml-common.h; the narrowest operand that holds an element
    "q8_0": (34, 32, "int8"),
    "q6_k": (210, 256, "int8"),
    "q5_0": (22, 32, "int8"),
    "q5_1": (24, 32, "int8"),
    "q5_k": (176, 256, "int8"),
    "q4_0": (18, 32, "int4"),
    "q4_1": (20, 32, "int4"),
    "q4_k": (144, 256, "int4"),
    "q3_k": (110, 256, "int4"),
    "q2_k": (84, 256, "int4"),
    "iq4_nl": (18, 32, "int8"),
    "iq4_xs": (136, 256, "int8"),
    "iq3_s": (110, 256, "int8"),
    "iq3_xxs": (98, 256, "int8"),
    "iq2_s": (82, 256, "int8"),
    "iq2_xs": (74, 256, "int8"),
    "iq2_xxs": (66, 256, "int8"),
    "iq1_m": (56, 256, "int8"),
    "iq1_s": (50, 256, "int8"),
}

_GGUF_FILES: dict[str, str] = {
    # bits per weight of Llama-3.1-8B files, llama.cpp tools/quantize/README.md (commit 311c2c9); q3_k_m is not in that table: it
    # is the 3.74 GiB of tools/quantize/quantize.cpp over 8.03e9 parameters
    "q6_k_file": "6.5633",
    "q5_k_m": "5.7036",
    "q5_k_s": "5.5704",
    "q4_k_m": "4.8944",
    "q4_k_s": "4.6672",
    "iq4_nl_file": "4.6818",
    "iq4_xs_file": "4.4597",
    "q3_k_l": "4.2979",
    "q3_k_m": "4.0005",
    "q3_k_s": "3.6429",
    "iq3_m": "3.7628",
    "iq3_xs": "3.4977",
    "q2_k_file": "3.1593",
    "q2_k_s": "2.9697",
    "iq2_m": "2.9294",
}

FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        _plain("fp64"),
        _plain("fp32"),
        _plain("tf32"),
        _plain("bf16"),
        _plain("fp16"),
        _plain("fp8"),
        Format("fp8_a16", Fraction(8), "fp8", "bf16"),
        Format("fp8_block128", 8 + Fraction(32, 128 * 128), "fp8", "fp8"),
        Format("fp8_block128_ue8m0", 8 + Fraction(8, 128 * 128), "fp8", "fp8"),
        Format("mxfp8", 8 + Fraction(8, 32), "fp8", "fp8"),
        _plain("int8"),
        Format("int8_a16", Fraction(8), "int8", "bf16"),
        Format("int4", 4 + Fraction(32, 128), "int4", "bf16"),
        Format("int4_sym", 4 + Fraction(16, 128), "int4", "bf16"),
        Format("int4_channel", Fraction(4), "int4", "bf16"),
        Format("ternary", Fraction(2), "int4", "int8"),
        Format("nvfp4", 4 + Fraction(8, 16), "fp4", "nvfp4"),
        Format("nvfp4_a16", 4 + Fraction(8, 16), "fp4", "bf16"),
        Format("mxfp4", 4 + Fraction(8, 32), "fp4", "bf16"),
        Format("mxfp4_afp8", 4 + Fraction(8, 32), "fp4", "fp8"),
        Format("nf4", 4 + Fraction(32, 64), "fp4", "bf16"),
        Format("nf4_dq", 4 + Fraction(8, 64) + Fraction(32, 64 * 256), "fp4", "bf16"),
        *(Format(name, Fraction(8 * size, elements), operand, "int8") for name, (size, elements, operand) in _GGUF_BLOCKS.items()),
        *(Format(name, Fraction(bits), "int8", "int8", whole_file=True) for name, bits in _GGUF_FILES.items()),
    )
}
"""Storage formats by name. ``int4`` is group-128 with a 16-bit scale and zero point, ``int4_sym`` without the zero point.

GGUF tensor types (``q4_k``) have the bits of their block. GGUF file types (``q4_k_m``) mix several of them; their bits are the
published average over a whole Llama-3.1-8B file, embedding and head included, and other models' files differ a little. Where a file
type is called like a tensor type, its name here ends in ``_file``. ggml multiplies both kinds by rows quantized to 8 bits.
"""
FORMATS = FrozenDict(FORMATS)

_DTYPES = {
    "float64": "fp64",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float8_e4m3fn": "fp8",
    "float8_e4m3fnuz": "fp8",
    "float8_e4m3": "fp8",
    "float8_e5m2": "fp8",
    "float8_e5m2fnuz": "fp8",
    "int8": "int8",
    "int4": "int4_channel",
}
"""Names of dtypes in torch, NumPy, ml_dtypes and JAX."""

_SCHEMES = {
    # compressed-tensors 0.12, quant_scheme.py PRESET_SCHEMES: integers by row, or in symmetric groups of 128
    "w8a8": "int8",
    "w8a16": "int8_a16",
    "w4a16": "int4_sym",
    "w4a16asym": "int4",
    "w4a8": "int4_sym_aint8",
    "w4afp8": "int4_sym_afp8",
    "w4a4": "int4_channel_aint4",
    "fp8dynamic": "fp8",
    "fp8block": "fp8_block128",
    "nvfp4a16": "nvfp4_a16",
    "mxfp4a16": "mxfp4",
    # a number of bits says no more than the integers of so many bits that are usual
    "4bit": "int4",
    "8bit": "int8",
    "16bit": "bf16",
    "bnb4bit": "nf4",
    "awq": "int4",
    "gptq": "int4",
}
"""Schemes by the names of quantization tools."""

_BY_KEY = (
    {normalize_name(name): format for name, format in _DTYPES.items() if name != "int4"}
    | {"float": "fp32", "single": "fp32", "half": "fp16", "float8": "fp8"}  # C's float has 32 bits
    # an encoding of fp8 alone, in an engine's flag (fp8_e5m2) and in the header of a safetensors file (F8_E4M3, F16, I8)
    | {f"{prefix}{kind}{end}": "fp8" for prefix in ("", "f8", "fp8") for kind in ("e4m3", "e5m2") for end in ("", "fn", "fnuz")}
    | {"f64": "fp64", "f32": "fp32", "f16": "fp16", "i8": "int8"}
    | {"fp8channel": "fp8", "int8channel": "int8"}
    | _SCHEMES
    | {normalize_name(name): name for name in FORMATS}
)


def named_format(name: str) -> Format | None:
    """Return the format of a name, or None if there is none.

    Examples
    --------
    >>> named_format("fp8") == Format.load("fp8"), named_format("fp7")
    (True, None)
    """
    try:
        return Format.load(name)
    except UnknownNameError:
        return None


def product_operand(weights: Format, activations: Format) -> str:
    """Return the operand format in which a matrix product of two storage formats runs.

    The narrower operand is converted to the wider one's format; of two equally wide ones the activations decide.

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

    Examples
    --------
    >>> convertible("fp8")
    ('bf16', 'fp16', 'fp32')
    """
    return _CONVERSIONS[operand]
