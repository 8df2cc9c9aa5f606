"""Further mixtures of experts: dots.llm1, GLM-4.5V, Hunyuan, Ling and Ring, Solar Open, K-EXAONE, Sarvam, DBRX, JetMoE."""

from typing import Any

from roofline.errors import ConfigError, UnsupportedModelError, quoted
from roofline.huggingface.build import Layer, attention, build_model, dense, norm, text_level, window_of
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, mtp_layers, sparse_layers
from roofline.huggingface.near_llama import hunyuan_switches
from roofline.huggingface.patterns import FULL, SLIDING, full_every, layer_kinds, layer_norms, mixers_of
from roofline.huggingface.registry import reads
from roofline.model import Attention, DenseFeedForward, Experts, Model


def _after_dense(config: Config, mixer: Attention, experts: Experts, sparse: list[bool], **build: Any) -> Model:
    """Return a model of dense layers and mixtures that have all else in common, and draft layers like the mixtures."""
    norms = layer_norms(config)
    mixture, plain = Layer(mixer, experts, norms), Layer(mixer, dense(config), norms) if not all(sparse) else None
    config.free("intermediate_size")  # of the dense layers, if there are any
    layers = [mixture if here or plain is None else plain for here in sparse]
    return build_model(config, layers, tied=False, mtp=mtp_layers(config, mixture), **build)


@reads("dots1")
def dots1(config: Config) -> Model:
    """dots.llm1: norms on query and key heads, shared experts, the first layers dense."""
    bias, count = config.flag("attention_bias", default=False), config.size("num_hidden_layers")
    window, first = config.size("sliding_window", default=0, least=0), config.size("max_window_layers", default=count, least=0)
    kinds = layer_kinds(config, [SLIDING if window and i >= first else FULL for i in range(count)])
    if set(kinds) != {FULL}:
        raise UnsupportedModelError(
            f"{config.where}: it has windows on some layers, which no published dots.llm1 has; that is not modelled."
        )
    mixer = attention(config, qk_norm=True, qkv_bias=bias, output_bias=bias)
    return _after_dense(config, mixer, experts_of(config), sparse_layers(config, count))


@reads("glm4v_moe", "glm4v_moe_text")
def glm4v_moe(config: Config) -> Model:
    """GLM-4.5V: the text model is GLM-4.5, without norms on query and key heads."""
    text, left_out = text_level(config, tied_by="wrapper")
    text.only("use_qk_norm", False, means="norms on query and key heads")
    mixer = attention(text, qkv_bias=text.flag("attention_bias", default=True))  # Glm4vMoeTextConfig
    sparse = sparse_layers(text, text.size("num_hidden_layers"), first=1)
    return _after_dense(
        text, mixer, experts_of(text), sparse, path="model.language_model.layers.{layer}.{component}", not_modelled=left_out
    )


@reads("solar_open")
def solar_open(config: Config) -> Model:
    """Solar Open: GLM-4.5 without dense layers and biases."""
    config.assume(head_dim=128, n_shared_experts=1)  # SolarOpenConfig
    config.only("attention_bias", False, means="biases on the projections")
    config.only("first_k_dense_replace", 0, means="dense layers at the start")
    config.only("use_qk_norm", False, means="norms on query and key heads")
    return _after_dense(config, attention(config), experts_of(config), [True] * config.size("num_hidden_layers"))


def _same(config: Config, key: str, *, default: int) -> int:
    """Return a size that may stand once for all layers, or once for each."""
    value = config.data.get(key)
    if not isinstance(value, list):
        return config.size(key, default=default, least=0)
    items = config.items(key, length=config.size("num_hidden_layers")) or [default]
    if items[0] is None or any(item != items[0] for item in items):
        raise UnsupportedModelError(f"{config.where}: {key!r} is {quoted(value)}: layers that differ in it are not modelled.")
    return Config({key: items[0]}, config.where).size(key, least=0)


@reads("hunyuan_v1_moe")
def hunyuan_moe(config: Config) -> Model:
    """Hunyuan A13B: norms on query and key heads, experts in every layer beside a shared one."""
    hunyuan_switches(config)
    config.only("moe_layer_num_skipped", 0, means="dense layers at the start")
    config.only("use_mixed_mlp_moe", True, means="no shared expert")
    config.free("moe_drop_tokens", "moe_random_routing_dropped_token", "group_limited_greedy", "capacity_factor")
    bias, width = config.flag("attention_bias", default=False), config.size("intermediate_size")
    shared = DenseFeedForward(intermediate=width * _same(config, "num_shared_expert", default=1))
    config.data = {**config.data, "moe_topk": _same(config, "moe_topk", default=1)}
    experts = experts_of(config, intermediate=_same(config, "moe_intermediate_size", default=width), shared=shared)
    layer = Layer(attention(config, qk_norm=True, qkv_bias=bias, output_bias=bias), experts, layer_norms(config))
    renames = {"mlp.gate": "mlp.gate.wg", "mlp.shared_experts.": "mlp.shared_mlp."}
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False, renames=renames)


@reads("bailing_moe", "bailing_moe_v2")
def bailing_moe(config: Config) -> Model:
    """Ling and Ring, 1 and 2: shared experts, after the first layers; from 2 on norms on query and key heads."""
    config.free(
        "score_function", "router_dtype", "moe_router_enable_expert_bias", "norm_head", "norm_softmax", "using_split_qkv_in_self_attention"
    )
    config.only("use_rmsnorm", True, means="norms with shifts")
    config.only("multi_gate", False, means="several routers")
    width = config.size("moe_intermediate_size")
    config.only("moe_shared_expert_intermediate_size", width, means="shared experts of another width")
    mixer = attention(
        config,
        qk_norm=config.flag("use_qk_norm", default=False),
        qkv_bias=config.flag("use_qkv_bias", default=False),
        output_bias=config.flag("use_bias", default=False),
    )
    renames = {"self_attn.": "attention.", "self_attn.o_proj": "attention.dense"}
    return _after_dense(config, mixer, experts_of(config), sparse_layers(config, config.size("num_hidden_layers")), renames=renames)


@reads("exaone_moe")
def exaone_moe(config: Config) -> Model:
    """K-EXAONE: EXAONE 4 with norms before each block and experts after the first layers."""
    count, window = config.size("num_hidden_layers"), window_of(config)
    step = config.size("sliding_window_pattern", default=4)
    kinds = layer_kinds(config, full_every(count, step) if window else [FULL] * count)
    mixers = mixers_of(config, window, qk_norm=True)
    sparse, norms = sparse_layers(config, count, first=1), layer_norms(config)
    experts, plain = experts_of(config), dense(config)
    layers = [Layer(mixers[kind], experts if mixture else plain, norms) for kind, mixture in zip(kinds, sparse, strict=True)]
    return build_model(config, layers, tied=False, mtp=mtp_layers(config, layers[-1]))


@reads("hy_v3")
def hy_v3(config: Config) -> Model:
    """Hunyuan 3: norms on query and key heads, a shared expert, the first layers dense."""
    config.free("router_scaling_factor", "enable_moe_fp32_combine")
    config.only("mlp_bias", False, means="biases in the feed-forward")
    bias = config.flag("attention_bias", default=False)
    mixer = attention(config, qk_norm=True, qkv_bias=bias, output_bias=bias)
    sparse = sparse_layers(config, config.size("num_hidden_layers"), first=1)
    return _after_dense(config, mixer, experts_of(config), sparse)


@reads("sarvam_moe")
def sarvam_moe(config: Config) -> Model:
    """Sarvam: norms on query and key heads, shared experts, the first layers dense; biases, if any, on queries, keys and values only."""
    bias = config.flag("attention_bias", default=False)
    mixer = attention(config, qk_norm=config.flag("use_qk_norm", default=True), qkv_bias=bias)
    return _after_dense(config, mixer, experts_of(config), sparse_layers(config, config.size("num_hidden_layers"), first=1))


@reads("dbrx")
def dbrx(config: Config) -> Model:
    """DBRX: LayerNorm without shifts, experts in every layer; its sizes stand in objects of their own."""
    inner, ffn = config.nested("attn_config"), config.nested("ffn_config")
    if inner is None or ffn is None:
        raise ConfigError(f"{config.where} lacks 'attn_config' or 'ffn_config', which hold the key-value heads and the experts.")
    hidden = config.size("d_model", "hidden_size")
    config.assume(hidden_size=hidden, max_position_embeddings=config.size("max_seq_len", default=None))
    kv_heads = inner.size("kv_n_heads", default=1)
    config.only("num_key_value_heads", kv_heads, means="key-value heads that disagree with 'kv_n_heads' of 'attn_config'")
    config.assume(num_attention_heads=config.size("n_heads"), num_key_value_heads=kv_heads)
    inner.free("attn_pdrop", "clip_qkv", "dtype", "rope_theta")
    ffn.free("dtype", "moe_jitter_eps", "moe_loss_weight", "moe_normalize_expert_weights", "uniform_expert_assignment")
    ffn.only("hidden_size", hidden, means="experts of rows of another width")
    activation = ffn.nested("ffn_act_fn")
    if activation is not None:
        activation.free("name")
    experts = experts_of(ffn, intermediate=ffn.size("ffn_hidden_size"), shared=None)
    layer = Layer(attention(config), experts, (norm("norm_attn_norm.norm_1", hidden), norm("norm_attn_norm.norm_2", hidden)))
    config.free("n_layers")
    return build_model(
        config,
        [layer] * config.size("n_layers", "num_hidden_layers"),
        tied=False,
        path="transformer.blocks.{layer}.{component}",
        renames={"self_attn.": "norm_attn_norm.attn.", "mlp.gate": "ffn.router.layer", "mlp.experts.": "ffn.experts.mlp."},
    )


@reads("jetmoe")
def jetmoe(config: Config) -> Model:
    """JetMoE: queries and the output of attention are made by experts, too, which share keys and values.

    What a token's experts make are further query heads of the same keys and values. The two products of those experts stand as a
    mixture of their own: to as many columns as keys have, and back.
    """
    hidden, kv_heads, width = config.size("hidden_size"), config.size("num_key_value_heads"), config.size("kv_channels")
    config.free("aux_loss_coef")
    inner = experts_of(config, intermediate=kv_heads * width, gated=False, extra=hidden, shared=None)  # a bias on the sum of experts
    config.only("num_attention_heads", kv_heads * inner.top_k, means="other query heads than every visited expert makes")
    mixer = Attention(heads=kv_heads * inner.top_k, kv_heads=kv_heads, head_dim=width, routed=True)
    outer = inner.but(intermediate=config.size("intermediate_size"), gated=True)
    first, second = layer_norms(config)
    layers = [Layer(mixer, inner, (first,), side_by_side=True), Layer(None, outer, (second,))] * config.size("num_hidden_layers")
    return build_model(config, layers, tied=True)
