"""Trinity and Laguna: windows on three layers of four, a gate on the result of attention, experts after the first layers."""

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, attention, build_model, dense
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, sparse_layers
from roofline.huggingface.patterns import FULL, PRE_NORMS, SLIDING, full_every, layer_kinds, layer_norms
from roofline.huggingface.registry import reads
from roofline.model import Attention, DenseFeedForward, Model


@reads("afmoe")
def afmoe(config: Config) -> Model:
    """Arcee Trinity: norms on both sides of each block, a gate on every element, rotation only under windows."""
    config.assume(head_dim=128, sliding_window=1024)  # AfmoeConfig
    config.free("mup_enabled", "route_scale", "route_norm", "score_func", "load_balance_coeff")  # factors, choices, training
    config.free("use_grouped_mm", "num_limited_groups", "num_expert_groups")
    config.only("attention_bias", False, means="biases on all projections of attention but the gate's")
    count = config.size("num_hidden_layers")
    whole = attention(config, qk_norm=True).but(gate=True, rotary=False)
    mixers = {FULL: whole, SLIDING: whole.but(rotary=True, visible="window", span=config.size("sliding_window"))}
    kinds = layer_kinds(config, full_every(count, config.size("global_attn_every_n_layers", default=4)))
    first = config.size("num_dense_layers", default=1, least=0)
    plain, experts = dense(config), experts_of(config, correction_bias=True)
    norms = layer_norms(config, (*PRE_NORMS, "pre_mlp_layernorm", "post_mlp_layernorm"))
    layers = [Layer(mixers[kind], plain if i < first else experts, norms) for i, kind in enumerate(kinds)]
    return build_model(config, layers, tied=False, renames={"mlp.gate": "mlp.router.gate"})


@reads("laguna")
def laguna(config: Config) -> Model:
    """Laguna: every layer may have query heads of its own number; a gate per head, or on every element."""
    config.assume(head_dim=128, sliding_window=512)  # LagunaConfig
    config.free("moe_routed_scaling_factor", "moe_router_logit_softcapping", "moe_router_use_sigmoid", "swa_rope_parameters")
    config.only("moe_apply_router_weight_on_input", False, means="experts whose input is scaled")
    count, bias = config.size("num_hidden_layers"), config.flag("attention_bias", default=False)
    config.free("gating")
    per_head = config.data.get("gating", True) in (True, "per-head")
    if not per_head:
        config.only("attention_bias", False, means="biases on all projections of attention but the gate's")
    whole = attention(config, qk_norm=True, qkv_bias=bias, output_bias=bias).but(gate=not per_head, head_gate=per_head)
    kinds, heads = layer_kinds(config, [FULL] * count), _heads(config, whole, count)
    limits = {FULL: {}, SLIDING: {"visible": "window", "span": config.size("sliding_window")}}
    mixers = {(kind, n): whole.but(heads=n, **limits[kind]) for kind, n in set(zip(kinds, heads, strict=True))}
    shared = DenseFeedForward(intermediate=config.size("shared_expert_intermediate_size", default=512))
    # the correction of the scores is a parameter in LagunaTopKRouter
    experts, plain, norms = experts_of(config, shared=shared, correction_bias=True), dense(config), layer_norms(config)
    sparse = sparse_layers(config, count, first=1)
    layers = [
        Layer(mixers[key], experts if here else plain, norms) for key, here in zip(zip(kinds, heads, strict=True), sparse, strict=True)
    ]
    return build_model(config, layers, tied=False)


def _heads(config: Config, mixer: Attention, count: int) -> list[int]:
    """Return the query heads of every layer."""
    listed = config.items("num_attention_heads_per_layer", length=count) or [mixer.heads] * count
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 or n % mixer.kv_heads for n in listed):
        raise ConfigError(f"{config.where}: 'num_attention_heads_per_layer' must hold multiples of {mixer.kv_heads} key-value heads.")
    return listed
