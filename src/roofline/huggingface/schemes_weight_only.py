"""Quantization methods of single tools that store weights narrowly and leave rows alone: AutoRound, HQQ, MLX, AQLM, EXL2 and EXL3, BitNet."""

from collections.abc import Mapping
from typing import Any

from roofline.errors import ConfigError, UnsupportedModelError, quoted
from roofline.formats import Format
from roofline.huggingface.config import Config
from roofline.huggingface.schemes import Scheme, by_format, group_size, integers, method, names_in


@method("auto-round", "intel/auto-round")
def auto_round(config: Config) -> Scheme:
    """Read AutoRound: integers in groups as GPTQ has them, some modules in other sizes or, at 16 bits, left alone."""
    config.free(*_AUTO_ROUND_FREE)
    _only_weights(config)
    zero = not config.flag("sym", default=True)
    bits, group = config.size("bits"), group_size(config, "group_size")
    ignore, named = [], {}
    modules = config.nested("extra_config")
    for name in {} if modules is None else modules.data:
        level = modules.nested(name) if modules is not None else None
        if level is None:
            continue
        level.free(*_AUTO_ROUND_FREE)
        _only_weights(level)
        own = level.size("bits", default=bits)
        zero_here = not level.flag("sym", default=not zero)
        if own >= 16:
            ignore.append(name)
        else:
            named[name] = integers(level, own, group_size(level, "group_size", group), zero=zero_here)
    head = config.flag("quant_lm_head", default=False)
    return Scheme(
        default=integers(config, bits, group, zero=zero), covers_head=head, named=by_format(named), ignore=tuple(ignore), exact=True
    )


# fmt: off
_AUTO_ROUND_FREE = (
    "autoround_version", "packing_format", "backend", "iters", "lr", "minmax_lr", "nsamples", "seqlen", "batch_size", "dataset", "amp",
    "block_name_to_quantize", "to_quant_block_names", "low_gpu_mem_usage", "gradient_accumulate_steps", "enable_minmax_tuning",
    "enable_norm_bias_tuning", "enable_quanted_input", "enable_torch_compile", "scale_dtype", "not_use_best_mse", "sampler", "device",
    "act_dynamic", "act_group_size", "act_sym", "act_data_type", "damp_percent", "desc_act", "true_sequential", "provider", "tokenizer",
)
# fmt: on


def _only_weights(config: Config) -> None:
    config.only("data_type", "int", means="another kind of element")
    config.only("act_bits", 16, 32, means="quantized activations")
    config.only("super_bits", means="scales that are quantized themselves")
    config.only("super_group_size", means="scales that are quantized themselves")


@method("hqq")
def hqq(config: Config) -> Scheme:
    """Read HQQ: integers in groups, with a scale and a zero point of 16 bits, or quantized themselves (transformers' `HqqConfig`)."""
    config.free("quant_method")
    inner = config.nested("quant_config")
    if inner is None:
        raise ConfigError(f"{config.where} lacks 'quant_config', which says how wide the weights are.")
    ignore = names_in(config, "skip_modules")
    if "weight_quant_params" in inner or not any(isinstance(value, Mapping) for value in inner.data.values()):
        return Scheme(default=_half_quadratic(inner), ignore=ignore)
    named = {name: _half_quadratic(level) for name in inner.data if (level := inner.nested(name)) is not None}
    return Scheme(named=by_format(named), ignore=ignore)


def _half_quadratic(config: Config) -> str:
    config.free("offload_meta")
    weights = config.nested("weight_quant_params")
    if weights is None:
        raise ConfigError(f"{config.where} lacks 'weight_quant_params'.")
    weights.free("axis", "channel_wise", "optimize", "round_zero", "view_as_float")
    wide = []
    for key in ("scale_quant_params", "zero_quant_params"):
        level = config.nested(key)
        wide.append(16 if level is None else level.size("nbits"))
        if level is not None:
            level.free(*level.data)  # scales of scales: 32 bits for some ten thousand weights
    bits, group = weights.size("nbits"), group_size(weights, "group_size", 0)
    if not group:
        return integers(weights, bits, 0, zero=True)
    return Format.grouped(f"int{bits}", group=group, scale_bits=wide[0], zero_bits=wide[1]).name


@method("mlx")
def mlx(config: Config) -> Scheme:
    """Read what MLX writes: every linear layer and the embedding in groups with a 16-bit scale and bias, some modules otherwise."""
    default = _mlx_format(config, {})
    ignore, named = [], {}
    for name, value in config.data.items():
        module = name.replace(".switch_mlp.", ".experts.")  # its name for all experts together
        if value is False:
            ignore.append(module)
        elif isinstance(value, Mapping):
            level = Config(value, f"{config.where}, {quoted(name)}")
            named[module] = _mlx_format(level, config.data)
            level.refuse_unread()
        elif value is not True:
            continue
        config.free(name)
    return Scheme(default=default, everything=True, named=by_format(named), ignore=tuple(ignore), exact=True)


def _mlx_format(config: Config, otherwise: Mapping[str, Any]) -> str:
    config.free("quant_method", "linear_class", "quantization_mode")
    mode = config.text("mode", default=str(otherwise.get("mode", "affine")))
    bits = config.size("bits", default=otherwise.get("bits", 4))
    group = config.size("group_size", default=otherwise.get("group_size", 64))
    if mode == "affine":
        return Format.grouped(f"int{bits}", group=group, zero_bits=16).name
    known = {("mxfp4", 4, 32): "mxfp4", ("nvfp4", 4, 16): "nvfp4_a16", ("mxfp8", 8, 32): "mxfp8_a16"}
    if (mode, bits, group) not in known:
        raise UnsupportedModelError(f"{config.where}: mode {quoted(mode)} with {bits} bits in groups of {group} is not modelled.")
    return known[mode, bits, group]


@method("aqlm")
def aqlm(config: Config) -> Scheme:
    """Read AQLM: a code of `nbits_per_codebook` from each codebook for every group of weights (transformers' `AqlmConfig`)."""
    books, bits = config.size("num_codebooks", default=1), config.size("nbits_per_codebook", default=16)
    size = config.size("in_group_size", default=8) * config.size("out_group_size", default=1)
    skipped = names_in(config, "linear_weights_not_to_quantize")
    book = books * 2**bits * size * 2
    return Scheme(
        default=Format.load(f"aqlm_{books * bits / size:.6g}").name,
        ignore=tuple(name.removesuffix(".weight") for name in skipped),
        left_out=(f"the codebooks of AQLM, {book:,} B for every quantized matrix",),
    )


@method("exl2", "exl3")
def exllama(config: Config) -> Scheme:
    """Read EXL2 and EXL3: an average number of bits for the layers, and one for the head."""
    tool = config.text("quant_method", default="")
    config.free("version", "calibration", "tensor_storage", "out_scales", "codebook")
    named = {"lm_head": _average(config, tool, "head_bits", 6)}
    return Scheme(default=_average(config, tool, "bits"), named=by_format(named))


def _average(config: Config, tool: str, key: str, otherwise: float = 0) -> str:
    config.free(key)
    bits = config.data.get(key) or otherwise
    if isinstance(bits, bool) or not isinstance(bits, (int, float)) or not 1 <= bits <= 8:
        raise ConfigError(f"{config.where}: {key!r} is {str(config.data.get(key))[:60]}; it must be a number of 1 … 8.")
    return Format.load(f"{tool}_{bits:.6g}").name


@method("bitnet")
def bitnet(config: Config) -> Scheme:
    """Read BitNet: ternary weights, four to a byte, and rows in 8 bits (transformers' `BitNetQuantConfig`)."""
    config.free("linear_class", "use_rms_norm", "rms_norm_eps")
    config.only("quantization_mode", "offline", means="weights that are stored in 16 bits and become ternary when they are multiplied")
    return Scheme(default="ternary", ignore=names_in(config, "modules_to_not_convert"))
