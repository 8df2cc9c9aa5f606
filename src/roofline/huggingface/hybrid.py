"""Hybrids of Mamba layers and attention: Jamba, Bamba, Granite 4, Falcon-H1, Nemotron-H, Zamba."""

from typing import Any

from roofline.errors import ConfigError, quoted
from roofline.huggingface.build import Layer, attention, build_model, dense, norm
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, joining_layer
from roofline.huggingface.patterns import layer_norms
from roofline.huggingface.recurrent import BACKBONE, check_multiple, free_of_time_steps, kinds_of, state_format, time_step_rank
from roofline.huggingface.registry import reads
from roofline.model import Attention, DenseFeedForward, Experts, Mamba1, Mamba2, Mixer, Model, Norm, Projection, Projections

_BLOCK_NORMS = ("input_layernorm", "pre_ff_layernorm")
_FEED_FORWARD = {"mlp.gate_proj": "feed_forward.gate_proj", "mlp.gate": "feed_forward.router", "mlp.": "feed_forward."}


@reads("jamba")
def jamba(config: Config) -> Model:
    """Jamba: Mamba with norms inside, attention every `attn_layer_period` layers, experts every `expert_layer_period`."""
    free_of_time_steps(config)
    config.free("calc_logits_for_entire_prompt")
    config.only("sliding_window", means="a window on attention")
    config.only("mamba_inner_layernorms", True, means="no norms inside the Mamba layers")
    mamba = Mamba1(
        inner=config.size("mamba_expand", default=2) * config.size("hidden_size"),
        state=config.size("mamba_d_state", default=16),
        dt_rank=time_step_rank(config, "mamba_dt_rank"),
        conv_kernel=config.size("mamba_d_conv", default=4),
        conv_bias=config.flag("mamba_conv_bias", default=True),
        projection_bias=config.flag("mamba_proj_bias", default=False),
        inner_norms=True,
        prefix="mamba",
    )
    softmax = attention(config).but(rotary=False)
    block = dense(config)
    sparse = experts_of(config, intermediate=block.intermediate) if config.size("num_experts") > 1 else block
    attends, routes = _every(config, "attn_layer", 8, 4), _every(config, "expert_layer", 2, 1)
    norms = layer_norms(config, _BLOCK_NORMS)
    layers = [
        Layer(softmax if i in attends else mamba, sparse if i in routes else block, norms) for i in range(config.size("num_hidden_layers"))
    ]
    return build_model(config, layers, tied=False, renames=_FEED_FORWARD)


def _every(config: Config, what: str, period: int, offset: int) -> range:
    """Return the layers that a period and an offset name."""
    step, first = config.size(f"{what}_period", default=period), config.size(f"{what}_offset", default=offset, least=0)
    if first >= step:
        raise ConfigError(f"{config.where}: '{what}_offset' is {first}; it must be below '{what}_period' {step}.")
    return range(first, config.size("num_hidden_layers"), step)


@reads("bamba")
def bamba(config: Config) -> Model:
    """Bamba: Mamba-2, attention in the layers of `attn_layer_indices`, a gated feed-forward in all."""
    free_of_time_steps(config)
    config.free("z_loss_coefficient")
    inner = config.size("mamba_expand", default=2) * config.size("hidden_size")
    mamba = _mamba2(config, inner, config.size("mamba_d_state"))
    bias = config.flag("attention_bias", default=False)
    softmax = attention(config, qkv_bias=bias, output_bias=bias)
    block, norms = dense(config, bias=config.flag("mlp_bias", default=False)), layer_norms(config, _BLOCK_NORMS)
    count = config.size("num_hidden_layers")
    attends = config.items("attn_layer_indices") or []
    if any(isinstance(i, bool) or i not in range(count) for i in attends):
        raise ConfigError(f"{config.where}: 'attn_layer_indices' is {quoted(attends)}; it must number layers, 0 … {count - 1}.")
    layers = [Layer(softmax if i in attends else mamba, block, norms) for i in range(count)]
    return build_model(config, layers, tied=False, renames=_FEED_FORWARD)


def _mamba2(config: Config, inner: int, state: int, **options: Any) -> Mamba2:
    """Return Mamba-2 with the keys that Bamba made common."""
    heads = config.size("mamba_n_heads", default=128)
    config.free("mamba_d_head")
    width = inner // heads if config.data.get("mamba_d_head") == "auto" else config.size("mamba_d_head", default=inner // heads)
    if heads * width != inner:
        raise ConfigError(f"{config.where}: {heads} Mamba heads of {width} are not the {inner} channels that the expansion asks for.")
    return Mamba2(
        heads=heads,
        head_dim=width,
        state=state,
        groups=config.size("mamba_n_groups", default=1),
        conv_kernel=config.size("mamba_d_conv", default=4),
        conv_bias=config.flag("mamba_conv_bias", default=True),
        projection_bias=config.flag("mamba_proj_bias", default=False),
        prefix="mamba",
        **options,
    )


@reads("granitemoehybrid")
def granitemoehybrid(config: Config) -> Model:
    """Granite 4: Mamba-2 and attention without rotation, or attention alone; a shared block, with experts beside it or alone."""
    free_of_time_steps(config)
    config.free("normalization_function", "init_method")
    count, bias = config.size("num_hidden_layers"), config.flag("attention_bias", default=False)
    rotary = config.text("position_embedding_type", default="rope") == "rope"
    known = {"mamba": "mamba", "linear_attention": "mamba", "attention": "attention", "full_attention": "attention"}
    kinds = kinds_of(config, count, known, "layer_types", "layers_block_type") or ["mamba"] * count  # GraniteMoeHybridConfig
    mixers: dict[str, Mixer] = {"attention": attention(config, qkv_bias=bias, output_bias=bias).but(rotary=rotary)}
    if "mamba" in kinds:
        inner = config.size("mamba_expand", default=2) * config.size("hidden_size")
        mixers["mamba"] = _mamba2(config, inner, config.size("mamba_d_state", default=256))
    else:
        config.free(*(f"mamba_{what}" for what in ("chunk_size", "conv_bias", "d_conv", "d_head", "d_state", "expand")))
        config.free("mamba_n_groups", "mamba_n_heads", "mamba_proj_bias")  # of layers that there are none of
    block: DenseFeedForward | Experts = DenseFeedForward(intermediate=config.size("shared_intermediate_size", default=1024))
    if config.size("num_local_experts", default=8, least=0):
        config.assume(num_local_experts=8, num_experts_per_tok=2)
        block = experts_of(config, intermediate=config.size("intermediate_size"), shared=block)
    else:
        config.free("num_experts_per_tok", "intermediate_size")  # of experts that there are none of
    norms = layer_norms(config)
    layers = [Layer(mixers[kind], block, norms) for kind in kinds]
    return build_model(config, layers, tied=False, renames=_GRANITE if isinstance(block, Experts) else {"mlp.": "shared_mlp."})


_GRANITE = {"mlp.gate": "block_sparse_moe.router.layer", "mlp.shared_experts.": "shared_mlp.", "mlp.": "block_sparse_moe."}


@reads("falcon_h1")
def falcon_h1(config: Config) -> Model:
    """Falcon-H1: every layer has Mamba-2 and attention beside it, behind one norm; here they stand one after the other, as two layers."""
    free_of_time_steps(config)
    factors = ("attention_in", "attention_out", "embedding", "key", "lm_head", "ssm_in", "ssm_out")
    config.free(*(f"{what}_multiplier" for what in factors), "mlp_multipliers", "ssm_multipliers", "mamba_norm_before_gate")
    config.free("attn_layer_indices", "mlp_expansion_factor", "mamba_use_mlp")
    bias, state = config.flag("attention_bias", default=False), config.size("mamba_d_state", default=256)
    config.only("projectors_bias", config.flag("mamba_proj_bias", default=False), means="a bias on one projection of the Mamba block alone")
    inner = config.size("mamba_d_ssm", default=config.size("mamba_expand", default=2) * config.size("hidden_size"))
    config.free("mamba_expand")  # says nothing where 'mamba_d_ssm' does
    mamba = _mamba2(config, inner, state, gated_norm=config.flag("mamba_rms_norm", default=False))
    count, (first, second) = config.size("num_hidden_layers"), layer_norms(config, _BLOCK_NORMS)
    if any(kind != "hybrid" for kind in config.items("layer_types", "layers_block_type", length=count) or ()):
        raise ConfigError(f"{config.where}: 'layer_types' must hold 'hybrid' for each layer.")
    softmax = attention(config, qkv_bias=bias, output_bias=bias)
    block = dense(config, bias=config.flag("mlp_bias", default=False))
    layers = [Layer(mamba, None, (first,)), Layer(softmax, block, (second,))] * count
    return build_model(config, layers, tied=False, renames={"mlp.": "feed_forward."})


_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_NAMES = {
    "mamba": "mamba",
    "linear_attention": "mamba",
    "attention": "attention",
    "full_attention": "attention",
    "mlp": "mlp",
    "moe": "moe",
}


def _pattern(config: Config, letters: str, *lists: str, default: str = "") -> list[str]:
    """Return the kinds that a pattern of letters, or a list of names, gives layers; where both stand they must agree."""
    text = config.text(letters, default="")
    if set(text) - set(_LETTERS):
        raise ConfigError(f"{config.where}: {letters!r} is {quoted(text)}; it must consist of the letters {' '.join(_LETTERS)}.")
    spelled = [_LETTERS[letter] for letter in text]
    listed = config.items(*lists)
    named = None if listed is None else kinds_of(config, len(listed), _NAMES, *lists)
    if named and spelled and named != spelled:
        raise ConfigError(f"{config.where}: {letters!r} and {lists[0]!r} name different layers.")
    return named or spelled or [_LETTERS[letter] for letter in default]


_NEMOTRON_EXPERTS = (
    *("n_routed_experts", "num_experts_per_tok", "n_shared_experts"),
    *("moe_intermediate_size", "moe_shared_expert_intermediate_size", "moe_latent_size"),
)


@reads("nemotron_h")
def nemotron_h(config: Config) -> Model:
    """Nemotron-H and Nemotron 3: one mixer per layer, Mamba-2, attention without rotation, or a feed-forward without gate."""
    free_of_time_steps(config)
    config.free("time_step_rank", "expand", "mamba_hidden_act", "mlp_hidden_act", "moe_shared_expert_overlap")
    config.only("sliding_window", means="a window on attention")
    for key in ("attention_bias", "mamba_proj_bias"):  # NemotronHAttention and NemotronHMamba2Mixer do not look at them
        config.only(key, False, means="biases on the projections")
    kinds = _pattern(config, "hybrid_override_pattern", "layers_block_type", "layer_types")
    if len(kinds) != config.size("num_hidden_layers", default=len(kinds)) or not kinds:
        raise ConfigError(f"{config.where}: 'hybrid_override_pattern' or 'layers_block_type' names {len(kinds)} layers, not all there are.")
    draft = _pattern(config, "mtp_hybrid_override_pattern", "mtp_layers_block_type", default="*E")
    config.only("num_nextn_predict_layers", 0, 1, means="several multi-token-prediction layers")
    drafts = config.size("num_nextn_predict_layers", default=0, least=0)
    norms = layer_norms(config, ("input_layernorm",))
    made = {kind: _nemotron_block(config, kind) for kind in {*kinds, *(draft if drafts else ())}}
    config.free("intermediate_size", *_NEMOTRON_EXPERTS)  # transformers writes the sizes of blocks that the pattern does not have
    renames = {"input_layernorm": "norm", "self_attn.": "mixer.", "mlp.": "mixer."}
    mtp = [joining_layer(config), *(Layer(*made[kind], norms) for kind in draft)] if drafts else []
    return build_model(config, [Layer(*made[kind], norms) for kind in kinds], tied=False, mtp=mtp, path=BACKBONE, renames=renames)


def _nemotron_block(config: Config, kind: str) -> tuple[Mixer | None, DenseFeedForward | Experts | None]:
    if kind == "mamba":
        return _nemotron_mamba(config), None
    if kind == "attention":
        config.assume(head_dim=config.size("attention_head_dim", default=128))  # default of NemotronHConfig
        return attention(config).but(rotary=False), None
    bias = config.flag("mlp_bias", default=False)
    if kind == "mlp":
        return None, dense(config, gated=False, bias=bias)
    config.only("n_shared_experts", 1, means="no, or several, shared experts")
    config.only("mlp_bias", False, means="biases on the projections around the experts")
    shared = DenseFeedForward(intermediate=config.size("moe_shared_expert_intermediate_size"), gated=False)
    return None, experts_of(config, gated=False, shared=shared, latent=config.size("moe_latent_size", default=0) or None)


def _nemotron_mamba(config: Config) -> Mamba2:
    return Mamba2(
        heads=config.size("mamba_num_heads"),
        head_dim=config.size("mamba_head_dim"),
        state=config.size("ssm_state_size"),
        groups=config.size("n_groups"),
        conv_kernel=config.size("conv_kernel", default=4),
        conv_bias=config.flag("use_conv_bias", default=True),
        projection_bias=config.flag("use_bias", default=False),
        state_format=state_format(config, "mamba_ssm_cache_dtype"),
    )


@reads("zamba2")
def zamba2(config: Config) -> Model:
    """Zamba2: Mamba-2, and before every "hybrid" layer one of a few shared transformer blocks, with adapters for each use."""
    count, hidden = config.size("num_hidden_layers"), config.size("hidden_size")
    known = {"mamba": "mamba", "linear_attention": "mamba", "hybrid": "hybrid"}
    kinds = kinds_of(config, count, known, "layers_block_type", "layer_types")
    if kinds is None:
        raise ConfigError(f"{config.where} lacks 'layers_block_type', which says where the shared blocks stand.")
    blocks, mamba, block = config.size("num_mem_blocks", default=1), _zamba_mamba(config), _zamba_block(config)
    adapters, norms = _zamba_adapters(config, block), layer_norms(config, ("input_layernorm",))
    _zamba_bookkeeping(config, kinds)
    layers, uses = [], 0
    for kind in kinds:
        if kind == "hybrid":
            layers.append(Layer(*block, _zamba_norms(hidden), reused=uses >= blocks))
            uses += 1
        layers.append(Layer(mamba, adapters if kind == "hybrid" else None, norms))
    return build_model(config, layers, tied=True)


def _zamba_mamba(config: Config) -> Mamba2:
    inner, heads = config.size("mamba_expand", default=2) * config.size("hidden_size"), config.size("n_mamba_heads")
    check_multiple(config, inner, "Mamba channels", heads, "heads")
    return Mamba2(
        heads=heads,
        head_dim=inner // heads,
        state=config.size("mamba_d_state"),
        groups=config.size("mamba_ngroups", default=1),
        conv_kernel=config.size("mamba_d_conv", default=4),
        conv_bias=True,  # Zamba2MambaMixer has one whatever 'use_conv_bias' says
        projection_bias=config.flag("add_bias_linear", default=False),
        prefix="mamba",
    )


def _zamba_block(config: Config) -> tuple[Attention, DenseFeedForward]:
    """Return the shared block; its attention sees the residual stream beside the embedded token, twice the hidden size."""
    wide = 2 * config.size("hidden_size")
    heads = config.size("num_attention_heads")
    kv_heads = config.size("num_key_value_heads", default=heads)
    check_multiple(config, heads, "attention heads", kv_heads, "key-value heads")
    check_multiple(config, wide, "columns of the shared block's input", heads, "attention heads")
    mixer = Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=wide // heads,
        input_width=wide,
        rotary=config.flag("use_mem_rope", default=False),
    )
    bias = config.flag("add_bias_linear", default=False)
    return mixer, DenseFeedForward(intermediate=config.size("intermediate_size", default=2 * wide), bias=bias)


def _zamba_norms(hidden: int) -> tuple[Norm, ...]:
    return norm("shared_transformer.input_layernorm", 2 * hidden), norm("shared_transformer.pre_ff_layernorm", hidden)


def _zamba_adapters(config: Config, block: tuple[Attention, DenseFeedForward]) -> Projections:
    """Return what every use of a shared block has of its own: low-rank adapters, and the way back into the residual stream."""
    hidden, rank = config.size("hidden_size"), config.size("adapter_rank", default=128)
    spots = [("mlp.gate_up_proj_adapter", hidden, 2 * block[1].intermediate)]
    if config.flag("use_shared_attention_adapter", default=False):
        spots += [(f"self_attn.{which}_adapter", 2 * hidden, 2 * hidden) for which in "qkv"]
    adapters = [
        Projection(name=f"{name}.{i}", inputs=inputs, outputs=outputs)
        for name, wide, out in spots
        for i, (inputs, outputs) in enumerate(((wide, rank), (rank, out)))
    ]
    return Projections(parts=(*adapters, Projection(name="linear", inputs=hidden, outputs=hidden)))


def _zamba_bookkeeping(config: Config, kinds: list[str]) -> None:
    """Read what follows from other keys, and refuse it where it does not."""
    free_of_time_steps(config)
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    config.free("use_mem_eff_path", "use_long_context", "use_conv_bias", "num_query_groups")
    config.only("gated_linear_unit", True, means="a feed-forward without gate")
    mamba = _zamba_mamba(config)
    derived = {
        "ffn_hidden_size": config.size("intermediate_size", default=4 * hidden),
        "kv_channels": hidden // heads,
        "attention_hidden_size": 2 * hidden,
        "attention_head_dim": 2 * hidden // heads,
        "mamba_headdim": mamba.head_dim,
        "hybrid_layer_ids": [i for i, kind in enumerate(kinds) if kind == "hybrid"],
    }
    for key, value in derived.items():
        config.only(key, value, means="a size that does not follow from the others")


@reads("zamba")
def zamba(config: Config) -> Model:
    """Zamba: Mamba, and before every "hybrid" layer the same shared transformer block, with a way back of its own for each use."""
    free_of_time_steps(config)
    count, hidden = config.size("num_hidden_layers"), config.size("hidden_size")
    first, every = config.size("attn_layer_offset", default=4, least=0), config.size("attn_layer_period", default=6)
    known = {"mamba": "mamba", "linear_attention": "mamba", "hybrid": "hybrid"}
    kinds = kinds_of(config, count, known, "layers_block_type", "layer_types")
    if kinds is None:  # ZambaConfig
        kinds = ["hybrid" if i == 2 or (i > 2 and (i - 3) % every == first) else "mamba" for i in range(count)]
    inner = config.size("mamba_expand", default=2) * hidden
    # the products of several heads are those of one, side by side
    check_multiple(config, inner, "Mamba channels", config.size("n_mamba_heads", default=2), "heads")
    mamba = Mamba1(
        inner=inner,
        state=config.size("mamba_d_state", default=16),
        dt_rank=time_step_rank(config, "mamba_dt_rank"),
        conv_kernel=config.size("mamba_d_conv", default=4),
        conv_bias=config.flag("mamba_conv_bias", default=True),
        projection_bias=config.flag("mamba_proj_bias", default=False),
        prefix="mamba",
    )
    config.free("hidden_mamba_act")
    heads = config.size("num_attention_heads")
    check_multiple(config, 2 * hidden, "columns of the shared block's input", heads, "attention heads")
    width = config.size("attention_head_dim", default=2 * hidden // heads)
    config.only("attention_hidden_size", 2 * hidden, means="another input of the shared block than twice the hidden size")
    softmax = Attention(
        heads=heads, kv_heads=config.size("num_key_value_heads", default=heads), head_dim=width, input_width=2 * hidden, rotary=False
    )
    block, norms = dense(config), layer_norms(config, ("input_layernorm",))
    back, layers = Projection(name="linear", inputs=hidden, outputs=hidden), []
    shared = config.flag("tie_word_embeddings", default=True)  # ZambaForCausalLM has blocks of their own for all uses where nothing is tied
    for i, kind in enumerate(kinds):
        if kind == "hybrid":
            layers.append(Layer(softmax, block, _zamba_norms(hidden), reused=shared and "hybrid" in kinds[:i]))
        layers.append(Layer(mamba, back if kind == "hybrid" else None, norms))
    return build_model(config, layers, tied=True)
