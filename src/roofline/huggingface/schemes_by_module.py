"""Quantization methods that give every module a format of its own: compressed-tensors, NVIDIA ModelOpt and AMD Quark."""

from collections.abc import Mapping

from roofline.errors import ConfigError, UnsupportedModelError, quoted
from roofline.formats import Format
from roofline.huggingface.config import Config
from roofline.huggingface.schemes import Scheme, block_size, by_format, group_size, integers, method, names_in


@method("compressed-tensors")
def compressed_tensors(config: Config) -> Scheme:
    """Read compressed-tensors: formats by group of modules. A plain name means that module only; ``Linear`` the head as well."""
    config.free("quantization_status", "global_compression_ratio", "version")
    config.only("format", *_PACKINGS, means="a packing with another size, such as 2:4 sparsity")
    sparsity = config.nested("sparsity_config")
    if sparsity is not None:
        sparsity.only(
            "format",
            "dense",
            means="sparse weights, stored without their zeros and multiplied at the sparse rate, while bytes and peaks here are dense",
        )
        sparsity.free(*sparsity.data)
    default: str | None = None
    named: dict[str, str] = {}
    scales: set[bool] = set()
    groups = config.nested("config_groups")
    for key in [] if groups is None else groups.data:
        group = groups.nested(key) if groups is not None else None
        if group is None:
            continue
        group.only("format", *_PACKINGS, means="a packing with another size, such as 2:4 sparsity")
        group.only("output_activations", means="quantized outputs")
        weights, rows = group.nested("weights"), group.nested("input_activations")
        if weights is None:
            raise UnsupportedModelError(f"{group.where}: a group without 'weights' is not modelled.")
        if rows is not None:
            scales.add(rows.data.get("dynamic") is not True)  # "local": of a tensor stored, of its blocks computed
        format = _activated(_weights(weights), None if rows is None else _rows(rows))
        for target in names_in(group, "targets") or ("Linear",):
            if target == "Linear":
                if default not in (None, format):
                    raise UnsupportedModelError(f"{config.where}: two groups give 'Linear' different formats.")
                default = format
            elif "." in target or ":" in target or target.islower() or "_" in target:
                named[target] = format
            else:
                raise UnsupportedModelError(
                    f"{group.where}: target class {quoted(target)} is not modelled; 'Linear' and names of modules are."
                )
    return Scheme(
        default=default,
        covers_head=True,
        named=by_format(named),
        ignore=names_in(config, "ignore"),
        exact=True,
        kv=_cache(config, "kv_cache_scheme"),
        static=all(scales) if scales else None,
    )


_PACKINGS = (
    *("dense", "naive-quantized", "float-quantized", "int-quantized", "pack-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized"),
    *("mxfp8-quantized", "mixed-precision"),
)
_ARGUMENTS = ("dynamic", "actorder", "observer", "observer_kwargs", "zp_dtype", "symmetric", "scale_dtype", "block_structure", "strategy")


def _weights(args: Config) -> str:
    bits, kind, group = args.size("num_bits", default=8), args.text("type", default="int"), group_size(args, "group_size", 0)
    args.free(*_ARGUMENTS)
    strategy = args.text("strategy", default="group" if group else "tensor")
    bytes_for_scales = args.text("scale_dtype", default="").endswith(("uint8", "e8m0fnu"))
    if strategy not in ("tensor", "channel", "block", "group", "tensor_group"):
        raise UnsupportedModelError(f"{args.where}: strategy {quoted(strategy)} is not modelled; tensor, channel, block and group are.")
    if kind == "float" and (bits, strategy) in ((8, "tensor"), (8, "channel")):
        return "fp8"
    if kind == "float" and (bits, strategy) == (8, "block"):
        return Format.blocks(*block_size(args, args.items("block_structure", length=2) or [128, 128])).name
    if kind == "float" and bits == 8 and group:
        return "mxfp8" if bytes_for_scales and group == 32 else Format.grouped("fp8", group=group).name
    if kind == "float" and (bits, group) == (4, 16):
        return "nvfp4"
    if kind == "float" and (bits, group) == (4, 32):
        return "mxfp4"
    if kind == "int" and strategy in ("tensor", "channel", "group"):
        if strategy != "group" and bits == 8:
            return "int8"
        return integers(args, bits, group if strategy == "group" else 0, zero=not args.flag("symmetric", default=True))
    raise UnsupportedModelError(f"{args.where}: {bits}-bit {quoted(kind)} weights by {strategy} of {group or 'all'} are not modelled.")


def _rows(args: Config) -> str | None:
    bits, kind = args.size("num_bits", default=8), args.text("type", default="int")
    group = group_size(args, "group_size", 0)
    args.free(*_ARGUMENTS)
    found = {(8, "float"): "fp8", (8, "int"): "int8", (4, "float"): "nvfp4" if group in (0, 16) else "mxfp4"}.get((bits, kind))
    if found is None and bits < 16:
        raise UnsupportedModelError(f"{args.where}: {bits}-bit {quoted(kind)} activations are not modelled.")
    return found


_ALGORITHMS = {
    # NVIDIA ModelOpt, torch/export/model_config.py, in the spelling of hf_quant_config.json
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "FP8_PC_PT": "fp8",
    "FP8_PB_REAL": "fp8_block128",
    "FP8_PB_WO": "fp8_block128_a16",
    "MXFP8": "mxfp8",
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "W4A16_NVFP4": "nvfp4_a16",
    "W4A8_NVFP4_FP8": "nvfp4_afp8",
    "MXFP4": "mxfp4_amxfp4",
    "W4A8_MXFP4_FP8": "mxfp4_afp8",
    "INT8_SQ": "int8",
    "W8A8_SQ_PER_CHANNEL": "int8",
    "INT8_WO": "int8_a16",
    "W8A16": "int8_a16",
    "INT4_AWQ": "int4",
    "W4A16_AWQ": "int4",
    "W4A8_AWQ": "int4",
}
_BLOCK = {"NVFP4": 16, "NVFP4_AWQ": 16, "W4A16_NVFP4": 16, "W4A8_NVFP4_FP8": 16, "MXFP4": 32, "MXFP8": 32, "W4A8_MXFP4_FP8": 32}


@method("modelopt", "modelopt-fp4", "modelopt-mixed")
def modelopt(config: Config) -> Scheme:
    """Read ModelOpt: one algorithm for all but the excluded modules, or one per module. The head only where it is named."""
    config.free("producer", "quant_method", "config_groups", "moe_quant_algo", "has_zero_point", "pre_quant_scale")
    kv = _cache(config, "kv_cache_scheme", "kv_cache_quant_algo")
    ignore = names_in(config, "exclude_modules", "ignore")
    config.free("exclude_modules", "ignore", "kv_cache_scheme", "kv_cache_quant_algo")
    layers = config.nested("quantized_layers")
    if layers is not None:
        config.free("quant_algo", "group_size")
        named, algorithms = by_format(_per_module(layers)), {_spelt(layer) for layer in layers.data.values()}
        return Scheme(named=named, ignore=ignore, kv=kv, static=bool(algorithms) and algorithms <= _STATIC)
    return Scheme(default=_algorithm(config), ignore=ignore, kv=kv, static=_spelt(config.data) in _STATIC)


_STATIC = {"FP8", "NVFP4", "NVFP4_AWQ"}
"""Algorithms that calibrate the scale of each tensor of rows and store it, as ``input_scale``."""


def _spelt(layer: Mapping[str, object]) -> str:
    return str(layer.get("quant_algo", "")).upper()


def _per_module(layers: Config) -> dict[str, str]:
    seen: dict[tuple[str, str], str] = {}
    found: dict[str, str] = {}
    for name, value in layers.data.items():
        if not isinstance(value, Mapping):
            raise ConfigError(f"{layers.where}: {quoted(name)} is {quoted(value)}; it must be an object.")
        key = (str(value.get("quant_algo")), str(value.get("group_size")))
        if key not in seen or len(value) != ("quant_algo" in value) + ("group_size" in value):
            level = Config(value, f"{layers.where}, {quoted(name)}")
            seen[key] = _algorithm(level)
            level.refuse_unread()
        format = seen[key]
        # one expert stands for all of its layer
        head, mark, rest = name.partition(".experts.")
        if mark and rest[:1].isdigit():
            name = f"{head}.experts.0{rest[len(rest.partition('.')[0]) :]}"
        if found.setdefault(name, format) != format:
            raise UnsupportedModelError(f"{layers.where}: the experts of {quoted(head)} have different formats; that is not modelled.")
    layers.free(*layers.data)
    return found


def _algorithm(config: Config) -> str:
    name = config.text("quant_algo", default="").upper()
    group = group_size(config, "group_size", 0)
    if name not in _ALGORITHMS:
        raise UnsupportedModelError(
            f"{config.where}: quant_algo {quoted(name)} is not modelled; it would change the bytes of every weight. "
            f"Supported: {', '.join(_ALGORITHMS)}, and MIXED_PRECISION with 'quantized_layers'."
        )
    if group and name in _BLOCK and group != _BLOCK[name]:
        raise UnsupportedModelError(f"{config.where}: {name} in groups of {group} is not modelled; it has {_BLOCK[name]}.")
    if _ALGORITHMS[name] == "int4":
        return Format.grouped("int4", group=group or 128, activations="fp8" if "A8" in name else "bf16").name
    return _ALGORITHMS[name]


def _cache(config: Config, *keys: str) -> str | None:
    """Return the format of the cache: an algorithm by name, or arguments in the words of compressed-tensors."""
    for key in keys:
        value = config.data.get(key)
        if isinstance(value, Mapping):
            level = config.nested(key)
            return None if level is None else _rows(level)
        if value is not None:
            name = config.text(key, default="").upper()
            if name not in _CACHES:
                raise UnsupportedModelError(f"{config.where}: {key!r} is {quoted(value)}; supported: {', '.join(_CACHES)}.")
            return _CACHES[name]
        config.free(key)
    return None


_CACHES = {"FP8": "fp8", "INT8": "int8", "NVFP4": "nvfp4"}


def _activated(format: str, activations: str | None) -> str:
    """Return the name of a format whose rows are in another: None for those of the model, unquantized."""
    loaded = Format.load(format)
    wanted = "bf16" if activations is None else activations
    return loaded.name if loaded.activations == wanted else Format.load(f"{loaded.name}_a{'16' if wanted == 'bf16' else wanted}").name


@method("quark")
def quark(config: Config) -> Scheme:
    """Read Quark: one pair of formats for all linear layers but the excluded, others by module (vLLM's `QuarkConfig`)."""
    config.free("quant_mode", "version", "export", "algo_config", "kv_cache_post_rope", "layer_type_quant_config")
    if config.data.get("layer_type_quant_config"):
        raise UnsupportedModelError(f"{config.where}: 'layer_type_quant_config', formats by class of layer, is not modelled.")
    general = config.nested("global_quant_config")
    if general is None:
        raise ConfigError(f"{config.where} lacks 'global_quant_config', which says what the weights are in.")
    named, caches = {}, set()
    for key in ("layer_quant_config", "kv_cache_quant_config"):
        modules = config.nested(key)
        for name in {} if modules is None else modules.data:
            level = modules.nested(name) if modules is not None else None
            if level is None:
                continue
            cache = _quark_tensor(level, "output_tensors")  # of the projections of keys and values
            if cache is not None:
                caches.add(cache)
            if key == "layer_quant_config":
                named[name] = _quark_format(level)
            level.free(*level.data)
    if len(caches) > 1:
        raise UnsupportedModelError(f"{config.where}: keys and values in different formats ({', '.join(sorted(caches))}) are not modelled.")
    config.only("softmax_quant_spec", means="attention weights that are quantized")
    return Scheme(
        default=_quark_format(general),
        covers_head=True,
        named=by_format(named),
        ignore=names_in(config, "exclude"),
        kv=caches.pop() if caches else None,
    )


def _quark_format(config: Config) -> str:
    config.free("output_tensors", "bias", "target_device")
    weights, rows = _quark_tensor(config, "weight"), _quark_tensor(config, "input_tensors")
    if weights is None:
        raise UnsupportedModelError(f"{config.where}: no 'weight' in a narrower format is not modelled.")
    operand = {"fp8": "fp8", "int8": "int8", "mxfp4": "mxfp4", "mxfp8": "fp8"}
    if rows is not None and rows not in operand:
        raise UnsupportedModelError(f"{config.where}: rows in {rows} are not modelled.")
    return _activated(weights, None if rows is None else operand[rows])


def _quark_tensor(config: Config, key: str) -> str | None:
    """Return the format of weights, rows in or rows out, None if they are not quantized."""
    level = config.nested(key)
    if level is None:
        return None
    kind, scheme = level.text("dtype", default="").lower(), level.text("qscheme", default="per_tensor")
    group = group_size(level, "group_size", 0) if scheme == "per_group" else 0
    level.free(*level.data)
    if kind in ("fp8_e4m3", "fp8_e5m2") and scheme in ("per_tensor", "per_channel"):
        return "fp8"
    if kind in ("int8", "uint8") and scheme in ("per_tensor", "per_channel"):
        return "int8"
    if kind in ("fp4", "fp8_e4m3") and group == 32 and level.text("scale_format", default="") == "e8m0":
        return "mxfp4" if kind == "fp4" else "mxfp8"
    if kind in ("int4", "uint4") and group:
        return Format.grouped("int4", group=group, zero_bits=4 if kind == "uint4" else 0).name
    raise UnsupportedModelError(f"{level.where}: {kind or 'no dtype'} {scheme} is not modelled.")
