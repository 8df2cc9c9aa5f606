"""The number formats that a label in a table of kernels stands for."""

from collections.abc import Mapping

from roofline.formats import FORMATS, Format
from roofline.names import normalize_name, unknown_name

MATMULS: dict[str, dict[str, str]] = {
    "bfloat16": {"format": "bf16", "weights": "bf16"},
    "fp8": {"format": "fp8", "weights": "fp8"},
    "fp8_block": {"format": "fp8", "weights": "fp8_block128"},
    "nvfp4": {"format": "nvfp4", "weights": "nvfp4"},
    "sq": {"format": "int8", "weights": "int8"},
    "int8_wo": {"format": "bf16", "weights": "int8"},
    "int4_wo": {"format": "bf16", "weights": "int4_channel"},
}
"""Label of a matrix product → formats, chosen so that the fewest bytes are compulsory: rows arrive quantized, although some
kernels read 16 bits and quantize them first; the scales of activations and of whole channels are not counted. Results
are bf16. ``sq`` is SmoothQuant, ``wo`` weight-only."""

EXPERTS: dict[str, dict[str, str]] = {
    **{label: MATMULS[label] for label in ("bfloat16", "fp8", "fp8_block", "nvfp4")},
    "int4_wo": {"format": "bf16", "weights": "int4_sym"},
    "w4afp8": {"format": "fp8", "weights": "int4_sym"},
    "w4a16_mxfp4": {"format": "bf16", "weights": "mxfp4"},
    "w4a8_mxfp4_mxfp8": {"format": "mxfp8", "weights": "mxfp4"},
}
"""Label of a mixture of experts → formats."""


def read_format(label: str) -> str:
    """Return the name of the storage format that a label stands for.

    Examples
    --------
    >>> read_format("torch.bfloat16"), read_format("fe4m3:row"), read_format("f8_r")
    ('bf16', 'fp8', 'fp8')
    """
    name = label.strip().removeprefix("torch.").partition(":")[0].removesuffix("_r")
    return Format.load(_LIBRARIES.get(name.lower(), name)).name


_LIBRARIES = {
    **dict.fromkeys(("f8", "fe4m3", "fe5m2", "e4m3", "e5m2"), "fp8"),
    "f16": "fp16",
    "f32": "fp32",
    "f64": "fp64",
    "s8": "int8",
    "i8": "int8",
}
"""Formats as hipBLASLt and CUTLASS print them, the ends ``_r`` and ``:column`` apart, where :class:`Format` knows no such name."""


def read_label(label: str, known: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the formats that a label of a whole kernel stands for: that of the weights, and that of the rows.

    Examples
    --------
    >>> read_label("fp8_block", MATMULS)
    {'format': 'fp8', 'weights': 'fp8_block128'}
    >>> read_label("int4", MATMULS)
    {'format': 'bf16', 'weights': 'int4'}
    """
    by_key = {normalize_name(name): formats for name, formats in known.items()}
    if found := by_key.get(normalize_name(label)):
        return dict(found)
    try:
        stored = Format.load(read_format(label))
    except LookupError:
        raise unknown_name("format label", label, [*FORMATS, *known]) from None
    return {"format": stored.activations, "weights": stored.name}
