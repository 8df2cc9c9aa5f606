"""Qwen3-Next, Qwen3.5 and OLMo Hybrid: gated delta nets, every fourth layer softmax attention."""

from roofline.errors import ConfigError, quoted
from roofline.huggingface.build import Layer, attention, build_model, dense, text_level
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, joining_layer
from roofline.huggingface.patterns import POST_NORMS, layer_norms, whole_norms
from roofline.huggingface.recurrent import check_multiple, kinds_of, state_format
from roofline.huggingface.registry import reads
from roofline.model import DenseFeedForward, Experts, FeedForward, GatedDeltaNet, Model

_RENAMES = {"mlp.shared_experts.": "mlp.shared_expert."}
_PLAIN = "model.layers.{layer}.{component}"
_NESTED = "model.language_model.layers.{layer}.{component}"


@reads("qwen3_next")
def qwen3_next(config: Config) -> Model:
    """Qwen3-Next: experts in all layers but those of `mlp_only_layers`; one projection for queries, keys, values and gate."""
    count = config.size("num_hidden_layers")
    every, without = config.size("decoder_sparse_step", default=1), config.items("mlp_only_layers") or []
    if any(isinstance(i, bool) or i not in range(count) for i in without):
        raise ConfigError(f"{config.where}: 'mlp_only_layers' is {quoted(without)}; it must number layers, 0 … {count - 1}.")
    config.free("intermediate_size")
    sparse = [i not in without and (i + 1) % every == 0 for i in range(count)]
    blocks: list[FeedForward] = [_experts(config) if here else dense(config) for here in sparse]
    return _model(config, blocks, fused=True)


@reads("qwen3_5", "qwen3_5_text")
def qwen3_5(config: Config) -> Model:
    """Qwen3.5 and 3.6, dense."""
    text, left_out = text_level(config, tied_by="wrapper")
    return _model(text, [dense(text)] * text.size("num_hidden_layers"), left_out=left_out)


@reads("qwen3_5_moe", "qwen3_5_moe_text")
def qwen3_5_moe(config: Config) -> Model:
    """Qwen3.5 and 3.6 with experts in all layers."""
    text, left_out = text_level(config, tied_by="wrapper")
    return _model(text, [_experts(text)] * text.size("num_hidden_layers"), left_out=left_out)


@reads("olmo_hybrid")
def olmo_hybrid(config: Config) -> Model:
    """OLMo Hybrid: OLMo 2 whose attention is a gated delta net in three layers of four, with norms before it."""
    config.free(*(f"linear_{what}" for what in ("a_log_max", "a_log_min", "dt_init_floor", "dt_max", "dt_min", "allow_neg_eigval")))
    count, bias, heads = config.size("num_hidden_layers"), config.flag("attention_bias", default=False), config.size("num_attention_heads")
    keys = config.size("linear_num_key_heads", default=heads)
    width = config.size("linear_key_head_dim", default=3 * config.size("hidden_size") // (4 * keys))
    values = config.size("linear_num_value_heads", default=heads)
    check_multiple(config, values, "value heads", keys, "key heads")
    delta = GatedDeltaNet(
        key_heads=keys,
        value_heads=values,
        key_dim=width,
        value_dim=config.size("linear_value_head_dim", default=2 * width),
        conv_kernel=config.size("linear_conv_kernel_dim", default=4),
        prefix="linear_attn",
    )
    whole, block = whole_norms(attention(config, qkv_bias=bias, output_bias=bias)), dense(config)
    kinds = kinds_of(config, count, {"linear_attention": "linear", "full_attention": "full"}, "layer_types")
    if kinds is None:
        kinds = ["linear" if (i + 1) % 4 else "full" for i in range(count)]
        kinds[-1] = kinds[-1] if "full" in kinds else "full"  # OlmoHybridConfig
    made = {"linear": Layer(delta, block, layer_norms(config)), "full": Layer(whole, block, layer_norms(config, POST_NORMS))}
    return build_model(config, [made[kind] for kind in kinds], tied=False)


def _experts(config: Config) -> Experts:
    shared = DenseFeedForward(intermediate=config.size("shared_expert_intermediate_size"))
    return experts_of(config, shared=shared, shared_gate=True)


def _model(config: Config, blocks: list[FeedForward], *, fused: bool = False, left_out: tuple[str, ...] = ()) -> Model:
    config.assume(head_dim=256)  # default of the three configuration classes
    config.free("output_gate_type")  # the activation on a gate
    config.only("attn_output_gate", True, means="attention without a gate on its output")
    config.only("mtp_use_dedicated_embeddings", False, means="embeddings of their own for multi-token prediction")
    config.only("sliding_window", means="a window on attention")
    count, bias = config.size("num_hidden_layers"), config.flag("attention_bias", default=False)
    check_multiple(config, config.size("linear_num_value_heads"), "value heads", config.size("linear_num_key_heads"), "key heads")
    delta = GatedDeltaNet(
        key_heads=config.size("linear_num_key_heads"),
        value_heads=config.size("linear_num_value_heads"),
        key_dim=config.size("linear_key_head_dim"),
        value_dim=config.size("linear_value_head_dim"),
        conv_kernel=config.size("linear_conv_kernel_dim", default=4),
        state_format=state_format(config, "mamba_ssm_dtype"),
        fused=fused,
        prefix="linear_attn",
    )
    gated = attention(config, qkv_bias=bias, output_bias=bias, qk_norm=True).but(gate=True)
    every = config.size("full_attention_interval", default=4)
    kinds = kinds_of(config, count, {"linear_attention": "linear", "full_attention": "full"}, "layer_types")
    if kinds is None:
        kinds = ["linear" if (i + 1) % every else "full" for i in range(count)]
    norms = layer_norms(config)
    layers = [Layer(delta if kind == "linear" else gated, block, norms) for kind, block in zip(kinds, blocks, strict=True)]
    drafts = config.size("mtp_num_hidden_layers", "num_nextn_predict_layers", default=0, least=0)
    mtp = [joining_layer(config, name="fc"), *[Layer(gated, blocks[-1], norms)] * drafts] if drafts else []
    path = _PLAIN if config.outer is None else _NESTED
    return build_model(config, layers, tied=False, mtp=mtp, path=path, renames=_RENAMES, not_modelled=left_out)
