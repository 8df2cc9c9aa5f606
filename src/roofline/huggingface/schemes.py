"""Quantization methods that treat all layers alike: fp8, mxfp4, GPTQ, AWQ, bitsandbytes.

Each has a function that turns its keys into a `Scheme`. Where published files leave something open, the reading of the implementation
named there is taken.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from roofline.errors import ConfigError, UnsupportedModelError, quoted
from roofline.formats import Format
from roofline.huggingface.config import Config


class Scheme(NamedTuple):
    """What a checkpoint says about the formats of its tensors."""

    default: str | None = None  # format of the matrices in layers that quantization usually converts
    experts: str | None = None  # format of routed experts, if another
    only_experts: bool = False  # whether the default is for routed experts only
    covers_head: bool = False  # whether the default is for the head as well
    everything: bool = False  # whether the default is for every matrix: routers, head and embedding as well
    named: tuple[tuple[str, tuple[str, ...]], ...] = ()  # formats, each with the modules that have it
    ignore: tuple[str, ...] = ()  # modules that are left alone
    exact: bool = False  # whether a plain name in these lists means that module only, not everything below it
    kv: str | None = None  # format of the cache
    static: bool | None = None  # whether the scales of rows are stored; None where it is not said, or rows are left alone
    dtype: str | None = None  # format of what is left alone, where the method fixes it
    left_out: tuple[str, ...] = ()  # what the method stores besides and is not counted


METHODS: dict[str, Callable[[Config], Scheme]] = {}
"""How each `quant_method` is read."""

_Method = Callable[[Config], Scheme]


def method(*names: str) -> Callable[[_Method], _Method]:
    """Register the function that reads one or several values of `quant_method`."""

    def register(function: _Method) -> _Method:
        for name in names:
            METHODS[name] = function
        return function

    return register


def names_in(config: Config, *keys: str) -> tuple[str, ...]:
    """Return a list of module names."""
    items = config.items(*keys) or []
    if not all(isinstance(item, str) for item in items):
        raise ConfigError(f"{config.where}: {keys[0]!r} must hold names of modules.")
    return tuple(items)


def by_format(pairs: Mapping[str, str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Turn format by module into modules by format."""
    modules: dict[str, list[str]] = {}
    for name, format in pairs.items():
        modules.setdefault(format, []).append(name)
    return tuple((format, tuple(names)) for format, names in modules.items())


@method("fp8")
def fp8(config: Config) -> Scheme:
    """Read fp8 as DeepSeek-V3 has it (transformers' `FineGrainedFP8Config`); without blocks one scale per tensor or row (vLLM)."""
    config.only("fmt", "e4m3", "float8_e4m3fn", means="another 8-bit format")
    config.only("activation_scheme", "dynamic", "static", means="unquantized activations")
    config.only("scale_fmt", "float", "ue8m0", means="other scales")
    config.only("modules_to_convert", [], means="quantized embedding tables")
    config.free("dequantize")
    block = config.items("weight_block_size", length=2)
    default = "fp8"
    if block:
        default = Format.blocks(*block_size(config, block), scale_bits=8 if config.text("scale_fmt", default="") == "ue8m0" else 32).name
    ignore = names_in(config, "modules_to_not_convert", "ignored_layers")
    return Scheme(default=default, ignore=ignore, static=config.text("activation_scheme", default="dynamic") == "static")


def block_size(config: Config, block: list[Any]) -> tuple[int, int]:
    """Return rows and columns of a block, checked."""
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in block):
        raise ConfigError(f"{config.where}: 'weight_block_size' is {quoted(block)}; it must be two whole numbers of at least 1.")
    return block[0], block[1]


@method("fbgemm-fp8")
def fbgemm_fp8(config: Config) -> Scheme:
    """Read fp8 with a scale per row (transformers' `FbgemmFp8Config`, Llama-3.1-405B-FP8)."""
    config.free("activation_scale_ub")
    return Scheme(default="fp8", ignore=names_in(config, "modules_to_not_convert"), static=False)


@method("mxfp4")
def mxfp4(config: Config) -> Scheme:
    """Read mxfp4 as gpt-oss has it: routed experts only, everything else in bf16 (transformers' `Mxfp4Config`)."""
    config.free("dequantize")
    return Scheme(default="mxfp4", only_experts=True, ignore=names_in(config, "modules_to_not_convert"), dtype="bf16")


@method("gptq")
def gptq(config: Config) -> Scheme:
    """Read GPTQ: 16-bit scales; zero points of asymmetric groups packed like weights."""
    # files hold zero points of symmetric groups too, all alike; no kernel reads them
    config.free(*_GPTQ_FREE)
    zero = not config.flag("sym", default=True)
    bits, group = config.size("bits"), group_size(config, "group_size")
    default = integers(config, bits, group, zero=zero)
    ignore, named = [], {}
    changes = config.nested("dynamic")
    for pattern, change in ({} if changes is None else changes.data).items():
        # GPTQModel's overrides: "-:regex" leaves modules alone, "+:regex" gives them other sizes
        regex = f"re:{str(pattern)[2:]}" if str(pattern)[:2] in ("-:", "+:") else f"re:{pattern}"
        if str(pattern).startswith("-:"):
            ignore.append(regex)
            continue
        if not isinstance(change, Mapping):
            raise ConfigError(f"{config.where}: 'dynamic' gives {quoted(pattern)} {quoted(change)}; it must be an object.")
        level = Config(change, f"{config.where}, 'dynamic' {quoted(pattern)}")
        level.free(*_GPTQ_FREE)
        zero_here = not level.flag("sym", default=not zero)
        named[regex] = integers(level, level.size("bits", default=bits), group_size(level, "group_size", group), zero=zero_here)
        level.refuse_unread()
    if changes is not None:
        changes.free(*changes.data)
    blocks = config.items("modules_in_block_to_quantize") or []
    if blocks:
        inside = [name for block in blocks for name in (block if isinstance(block, list) else [block])]
        return Scheme(named=by_format(dict.fromkeys(map(str, inside), default) | named), ignore=tuple(ignore))
    return Scheme(default=default, named=by_format(named), ignore=tuple(ignore), covers_head=config.flag("lm_head", default=False))


# fmt: off
_GPTQ_FREE = (
    "damp_percent", "damp_auto_increment", "desc_act", "act_group_aware", "static_groups", "true_sequential", "model_name_or_path",
    "model_file_base_name", "format", "checkpoint_format", "tokenizer", "dataset", "backend", "batch_size", "block_name_to_quantize",
    "cache_block_outputs", "exllama_config", "max_input_length", "model_seqlen", "module_name_preceding_first_block", "pad_token_id",
    "use_cuda_fp16", "use_exllama", "disable_exllama", "meta", "quantizer", "uri", "version", "mse", "pack_dtype", "is_marlin_format",
)
# fmt: on
"""Keys of GPTQ about calibration, kernels and bookkeeping."""


@method("awq")
def awq(config: Config) -> Scheme:
    """Read AWQ: 16-bit scales, zero points packed like weights."""
    config.free("backend", "do_fuse", "exllama_config", "fuse_max_seq_len", "modules_to_fuse", "version", "format", "checkpoint_format")
    bits, group = config.size("bits", "w_bit", default=4), group_size(config, "group_size", "q_group_size")
    return Scheme(
        default=integers(config, bits, group, zero=config.flag("zero_point", default=True)),
        ignore=names_in(config, "modules_to_not_convert"),
    )


def group_size(config: Config, *keys: str | int) -> int:
    """Return the size of a group, 0 for a whole row."""
    names = [key for key in keys if isinstance(key, str)]
    fallback = next((key for key in keys if isinstance(key, int)), 128)
    return max(config.size(*names, default=fallback, least=-1), 0)


def integers(config: Config, bits: int, group: int, *, zero: bool) -> str:
    """Return the format of integer weights in groups, or by row if `group` is 0."""
    if not 2 <= bits <= 8:
        raise ConfigError(f"{config.where}: {bits} bits; integer weights have 2 to 8.")
    if group:
        return Format.grouped(f"int{bits}", group=group, zero_bits=bits if zero else 0).name
    if bits not in (4, 8):
        raise UnsupportedModelError(f"{config.where}: {bits}-bit weights with a scale per row are not modelled; 4 and 8 bits are.")
    return {4: "int4_channel", 8: "int8_a16"}[bits]


@method("bitsandbytes")
def bitsandbytes(config: Config) -> Scheme:
    """Read bitsandbytes: nf4 or fp4 in blocks of 64, or int8 with a scale per row (transformers' `BitsAndBytesConfig`)."""
    config.free(
        *("llm_int8_threshold", "llm_int8_enable_fp32_cpu_offload", "llm_int8_has_fp16_weight", "bnb_4bit_compute_dtype"),
        *("bnb_4bit_quant_storage", "bnb_4bit_blocksize"),
    )
    ignore = names_in(config, "llm_int8_skip_modules")
    four = config.flag("load_in_4bit", "_load_in_4bit", default=False)
    eight = config.flag("load_in_8bit", "_load_in_8bit", default=False)
    config.free("_load_in_4bit", "_load_in_8bit")
    if four == eight:
        raise ConfigError(f"{config.where}: exactly one of 'load_in_4bit' and 'load_in_8bit' must be true.")
    config.only("bnb_4bit_quant_type", "nf4", "fp4", means="another table of 4-bit values")
    double = config.flag("bnb_4bit_use_double_quant", default=False)
    return Scheme(default="int8" if eight else "nf4_dq" if double else "nf4", ignore=ignore)
