"""Quantization methods that transformers applies by a class of its own: torchao, FP-Quant, Four Over Six, Quanto, EETQ, HIGGS, Metal.

All leave the head alone unless told otherwise (``get_modules_to_not_convert``), and have a scale of 16 bits per group where they have groups.
"""

from collections.abc import Mapping

from roofline.errors import ConfigError, UnsupportedModelError, quoted
from roofline.formats import Format
from roofline.huggingface.config import Config
from roofline.huggingface.schemes import Scheme, by_format, group_size, integers, method, names_in


@method("torchao")
def torchao(config: Config) -> Scheme:
    """Read torchao: one of its configurations for all linear layers, or one for each name (``FqnToConfig``)."""
    config.only("untie_embedding_weights", False, means="a head of its own beside a tied embedding")
    config.free("quant_type_kwargs")
    ignore = names_in(config, "modules_to_not_convert")
    kind = config.nested("quant_type")
    if kind is None:
        raise ConfigError(f"{config.where} lacks 'quant_type', which says what the weights are in.")
    level = kind.nested("default") or kind
    found = str(level.data.get("_type"))
    if found in ("ModuleFqnToConfig", "FqnToConfig"):
        level.free(*level.data)
        inner = level.nested("_data")
        table = inner and (inner.nested("module_fqn_to_config") or inner.nested("fqn_to_config"))
        if inner is None or table is None:
            raise ConfigError(f"{level.where}: {found} without the formats by name.")
        inner.free(*inner.data)
        formats = {name: None if table.data[name] is None else _torchao(table.nested(name), table.where) for name in table.data}
        default = formats.pop("_default", None)
        ignore += tuple(name for name, format in formats.items() if format is None)
        return Scheme(default=default, named=by_format({n: f for n, f in formats.items() if f is not None}), ignore=ignore, exact=True)
    default = _torchao(level, kind.where)
    ends = ("embed_tokens", "lm_head") if config.flag("include_input_output_embeddings", default=False) else ()
    return Scheme(default=default, named=((default, ends),) if ends else (), ignore=ignore)


def _torchao(config: Config | None, where: str) -> str:
    """Return the format of one configuration, as ``torchao.core.config.config_to_dict`` writes it."""
    if config is None:
        raise ConfigError(f"{where}: no configuration of torchao.")
    config.free("_version", "_data")
    name, data = config.text("_type", default=""), config.nested("_data")
    values: Mapping[str, object] = {} if data is None else data.data
    if data is not None:
        data.free(*values)
    if "sparse" in str(values.get("layout", "")).lower() or "sparse" in name.lower():
        raise UnsupportedModelError(
            f"{where}: sparse weights, stored without their zeros and multiplied at the sparse rate, are not modelled; bytes and peaks here are dense."
        )
    if name in _PLAIN:
        return _PLAIN[name]
    rows = {"Int8DynamicActivation": "int8", "Float8DynamicActivation": "fp8"}
    activations = next((format for start, format in rows.items() if name.startswith(start)), "bf16")
    if name in _INTEGERS:
        bits, group, zero = _INTEGERS[name]
        if data is not None and "group_size" in data:
            group = group_size(data, "group_size")
    elif name in ("IntxWeightOnlyConfig", "Int8DynamicActivationIntxWeightConfig"):
        bits, group, zero = _intx(values, where)
    elif name == "MXDynamicActivationMXWeightConfig":
        return "mxfp4_amxfp4" if "float4" in str(values.get("weight_dtype")) else "mxfp8"
    else:
        raise UnsupportedModelError(
            f"{where}: {quoted(name)} of torchao is not modelled; it would change the bytes of every weight. "
            f"Supported: {', '.join((*_PLAIN, *_INTEGERS))}, IntxWeightOnlyConfig, Int8DynamicActivationIntxWeightConfig."
        )
    if not group:
        return Format.load(f"{'int8' if bits == 8 else 'int4_channel'}_a{'16' if activations == 'bf16' else activations}").name
    return Format.grouped(f"int{bits}", group=group, zero_bits=zero, activations=activations).name


_PLAIN = {
    "Int8DynamicActivationInt8WeightConfig": "int8",
    "Float8WeightOnlyConfig": "fp8_a16",
    "Float8DynamicActivationFloat8WeightConfig": "fp8",
    "Float8StaticActivationFloat8WeightConfig": "fp8",
    "NVFP4InferenceConfig": "nvfp4",
    "NVFP4DynamicActivationNVFP4WeightConfig": "nvfp4",
    "NVFP4WeightOnlyConfig": "nvfp4_a16",
}
_INTEGERS = {
    # bits, group unless another is said (0 is a row), bits of a zero point: torchao.quantization.quant_api
    "Int4WeightOnlyConfig": (4, 128, 16),
    "Int8WeightOnlyConfig": (8, 0, 0),
    "Int8DynamicActivationInt4WeightConfig": (4, 32, 0),
    "Float8DynamicActivationInt4WeightConfig": (4, 128, 0),
}


def _intx(values: Mapping[str, object], where: str) -> tuple[int, int, int]:
    """Return bits, group and zero point of torchao's integers of any width: in groups of 32 unless told otherwise."""
    kind = values.get("weight_dtype", "int8")
    kind = str(kind.get("_data")) if isinstance(kind, Mapping) else str(kind)
    grain = values.get("weight_granularity", values.get("granularity"))
    inner = grain.get("_data") if isinstance(grain, Mapping) else None
    group = inner.get("group_size", 0) if isinstance(inner, Mapping) else 32 if grain is None else 0
    digits = kind.removeprefix("torch.").removeprefix("int")
    if not digits.isdigit() or not isinstance(group, int) or not 2 <= int(digits) <= 8 or (not group and digits not in ("4", "8")):
        raise UnsupportedModelError(f"{where}: weights in {quoted(kind)} in groups of {quoted(group)} are not modelled.")
    return int(digits), group, 8 if str(values.get("weight_mapping_type", values.get("mapping_type", ""))).endswith("ASYMMETRIC") else 0


@method("fp-quant")
def fp_quant(config: Config) -> Scheme:
    """Read FP-Quant: mxfp4 or nvfp4 on both sides, behind small Hadamard transforms, which are not counted."""
    config.only("store_master_weights", False, means="16-bit weights beside those in 4 bits")
    config.only("pseudoquantization", False, means="4-bit values that are multiplied in 16 bits")
    config.free("forward_method", "backward_dtype", "hadamard_group_size", "transform_init")
    return Scheme(default=_four_bits(config, "forward_dtype"), ignore=names_in(config, "modules_to_not_convert"))


@method("fouroversix")
def four_over_six(config: Config) -> Scheme:
    """Read Four Over Six: nvfp4 or mxfp4 on both sides, with scales chosen block by block."""
    config.only("keep_master_weights", False, means="16-bit weights beside those in 4 bits")
    config.only("weight_scale_2d", False, means="scales of square blocks")
    config.free("scale_rule", "weight_scale_rule", "activation_scale_rule", "gradient_dtype", "gradient_scale_rule")
    config.free("matmul_backend", "quantize_backend", "output_dtype", "dtype")
    for key in ("weight_dtype", "activation_dtype"):
        config.only(key, config.data.get("dtype", "nvfp4"), means="another format on one side")
    config.only("module_config_overrides", {}, means="formats by module")
    return Scheme(default=_four_bits(config, "dtype"), ignore=names_in(config, "modules_to_not_convert"))


def _four_bits(config: Config, key: str) -> str:
    name = config.text(key, default="nvfp4")
    found = {"nvfp4": "nvfp4", "mxfp4": "mxfp4_amxfp4"}.get(name)
    if found is None:
        raise UnsupportedModelError(f"{config.where}: {key!r} is {quoted(name)}; supported: 'nvfp4', 'mxfp4'.")
    return found


@method("quanto")
def quanto(config: Config) -> Scheme:
    """Read Quanto: 8 bits by row, or fewer in groups of 128 with a scale and a shift."""
    weights, rows = config.text("weights", default="int8"), config.text("activations", default="")
    formats = {"float8": "fp8", "int8": "int8", "int4": "int4_g128_zp", "int2": "int2_g128_zp"}
    known_rows = {"": "16", "int8": "int8", "float8": "fp8"}
    if weights not in formats or rows not in known_rows:
        raise UnsupportedModelError(
            f"{config.where}: weights in {quoted(weights)} and activations in {quoted(rows)} are not modelled; "
            f"weights may be in {', '.join(formats)}, activations in int8, float8 or not quantized."
        )
    return Scheme(default=Format.load(f"{formats[weights]}_a{known_rows[rows]}").name, ignore=names_in(config, "modules_to_not_convert"))


@method("eetq")
def eetq(config: Config) -> Scheme:
    """Read EETQ: int8 by row, rows left alone."""
    config.only("weights", "int8", means="another format")
    return Scheme(default="int8_a16", ignore=names_in(config, "modules_to_not_convert"))


@method("higgs")
def higgs(config: Config) -> Scheme:
    """Read HIGGS: codes of a grid in groups with one scale, behind Hadamard transforms without weights."""
    config.free("p", "hadamard_size", "tune_metadata")
    bits, group = config.size("bits", default=4), config.size("group_size", default=256)
    return Scheme(default=integers(config, bits, group, zero=False), ignore=names_in(config, "modules_to_not_convert"))


@method("metal")
def metal(config: Config) -> Scheme:
    """Read transformers' kernels for Metal: what MLX has, in linear layers alone."""
    config.only("dequantize", False, means="weights that become 16 bits as they are loaded")
    bits, group = config.size("bits", default=4), config.size("group_size", default=64)
    return Scheme(default=Format.grouped(f"int{bits}", group=group, zero_bits=16).name, ignore=names_in(config, "modules_to_not_convert"))
