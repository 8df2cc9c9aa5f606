"""What the tensors of one module are stored in: a type of the file itself, or weights packed into wider elements with scales beside them."""

import re
from math import ceil

from roofline.checkpoints import StoredTensor
from roofline.formats import Format, named_format

_NEAR = 0.01  # scales of rows, indices and codebooks add so much to the bits of a format

PLAIN = {"f64": "fp64", "f32": "fp32", "f16": "fp16", "bf16": "bf16"}
"""Types of files that are formats by themselves, and what they are called here."""
_GGML = {"mxfp4": "mxfp4_aint8", "nvfp4": "nvfp4_aint8"}  # ggml multiplies them by rows in 8 bits, like all its types

_WEIGHTS = {"weight", "qweight", "q_weight", "weight_packed", "W_q", "blocks", "trellis", "codes"}
_SCALES = {"weight_scale", "weight_scale_inv", "scales", "scale", "weight.absmax", "q_scale"}
_ZEROS = {"qzeros", "weight_zero_point", "biases", "zero"}
_ROLES = (
    _WEIGHTS
    | _SCALES
    | _ZEROS
    | {"bias", "g_idx", "codebooks", "meta", "SCB", "suh", "svh", "su", "sv", "k_scale", "v_scale", "q_perm", "q_invperm", "q_groups"}
    | {"q_group_map", "q_scale_max", "input_scale", "input_global_scale"}
)
_SUFFIX = re.compile(r"(.+proj)_(blocks|scales|bias)")


def role_of(name: str) -> tuple[str, str]:
    """Return the module of a tensor, and what of it the tensor is."""
    parts = name.split(".")
    for i in range(1, len(parts)):
        if parts[i] in _ROLES or parts[i].startswith("weight_"):
            return ".".join(parts[:i]), ".".join(parts[i:])
    match = _SUFFIX.fullmatch(name)
    return (match[1], match[2]) if match else (name, "weight")


def format_of(held: list[tuple[str, StoredTensor]], count: int, said: str | None) -> tuple[str | None, int | None]:
    """Return the format of the tensors of a module and the number of its weights; None for either that they do not tell."""
    weights = [tensor for role, tensor in held if role in _WEIGHTS]
    size, stored = sum(tensor.bytes for _, tensor in held), sum(tensor.elements for tensor in weights)
    kinds = {tensor.kind for tensor in weights}
    known = {PLAIN.get(kind) or _GGML.get(kind) or kind for kind in kinds}
    if not kinds & _PACKED and kinds:
        # two tensors of a GGUF file that are one matrix here may have two types
        name = known.pop() if len(known) == 1 else f"gguf_{8 * size / count:.6g}"
        return (name if named_format(name) else None), stored
    claim = None if said is None else named_format(said)
    # of symmetric groups GPTQ stores zero points all the same, and the group of every row; no kernel reads them
    unread = [sum(t.bytes for role, t in held if role in roles) for roles in ({"g_idx"}, {"g_idx", *_ZEROS})]
    likely = (size, *(size - part for part in unread))
    near = claim is not None and any(abs(each - count * claim.bytes_per_element) <= _NEAR * each for each in likely)
    payload = 8 * sum(tensor.bytes for tensor in weights) / count
    bits = round(payload)
    whole = bits >= 1 and abs(payload - bits) < _NEAR * payload
    found = round(8 * sum(tensor.bytes for tensor in weights) / bits) if whole else None
    if near:
        return said, found
    if said is not None and said.startswith(("aqlm", "exl2", "exl3")):  # averages: the exact one of this module
        return f"{said[:4]}_{8 * size / count:.6g}", found
    return (_inferred(held, weights, count, bits) if whole else None), found


_PACKED = frozenset(
    (
        *("bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f4", "f6_e2m3", "f6_e3m2"),
        *("f8_e4m3", "f8_e5m2", "f8_e8m0", "f8_e4m3fnuz", "f8_e5m2fnuz"),
    )
)
"""Types of safetensors that are no format by themselves: they have scales beside them, or hold several weights in one element."""


def _inferred(held: list[tuple[str, StoredTensor]], weights: list[StoredTensor], count: int, bits: int) -> str | None:
    """Return the format that packed weights of so many bits have, by the number and the type of their scales."""
    scales = [tensor for role, tensor in held if role in _SCALES]
    many = sum(tensor.elements for tensor in scales)
    kind = weights[0].kind
    if kind.startswith("f8"):
        rows, columns = _block(weights[0], scales[0]) if scales else (0, 0)
        if rows * columns <= 1 or rows >= weights[0].shape[0] or columns >= weights[0].shape[-1]:
            return "fp8"
        wide = 8 * scales[0].bytes // scales[0].elements
        if rows == 1:
            return "mxfp8" if (wide, columns) == (8, 32) else Format.grouped("fp8", group=columns, scale_bits=wide).name
        return Format.blocks(rows, columns, scale_bits=8 if wide == 8 else 32).name
    if kind == "i8" and bits == 8:
        return "int8"
    if not many or not 2 <= bits <= 8:
        return None
    group, wide = round(count / many), round(8 * sum(tensor.bytes for tensor in scales) / many)
    if (bits, wide, group) in _FP4 and scales[0].kind != "f16":
        return _FP4[bits, wide, group]
    zero = round(8 * sum(tensor.bytes for role, tensor in held if role in _ZEROS) / many)
    if group >= weights[0].shape[-1] and group > 256:
        return {4: "int4_channel", 8: "int8_a16"}.get(bits)
    return Format.grouped(f"int{bits}", group=group, scale_bits=wide, zero_bits=zero).name


_FP4 = {(4, 8, 16): "nvfp4", (4, 8, 32): "mxfp4"}


def _block(weight: StoredTensor, scale: StoredTensor) -> tuple[int, int]:
    """Return the rows and columns of a block with one scale."""
    if len(weight.shape) < 2 or len(scale.shape) < 2:
        return 0, 0
    rows, columns = (1 << (ceil(n / s) - 1).bit_length() if s else 0 for n, s in zip(weight.shape[-2:], scale.shape[-2:], strict=True))
    return rows, columns
