"""Decoders of which some layers see only a window, or only their own chunk of the sequence."""

from collections.abc import Sequence

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, attention, build_model, dense, text_level, window_of
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, mtp_layers, sparse_layers
from roofline.huggingface.patterns import FULL, POST_NORMS, SLIDING, full_every, layer_kinds, layer_norms, mixers_of, patterned, whole_norms
from roofline.huggingface.registry import reads
from roofline.model import Attention, DenseFeedForward, Model, Norm


@reads("olmo3")
def olmo3(config: Config) -> Model:
    """OLMo 3: OLMo 2 with windows on three layers of four."""
    bias, window = config.flag("attention_bias", default=False), config.size("sliding_window", default=4096)
    kinds = layer_kinds(config, full_every(config.size("num_hidden_layers"), 4))
    mixers = mixers_of(config, window, qkv_bias=bias, output_bias=bias)
    whole = {kind: whole_norms(mixer) for kind, mixer in mixers.items()}
    return build_model(config, patterned(config, kinds, whole, layer_norms(config, POST_NORMS), dense(config)), tied=False)


@reads("exaone4")
def exaone4(config: Config) -> Model:
    """EXAONE 4: norms after each block and on query and key heads; the 32B has windows on three layers of four."""
    count, window = config.size("num_hidden_layers"), window_of(config)
    pattern = config.data.get("sliding_window_pattern")
    if isinstance(pattern, str):  # LLLG: local, local, local, global
        config.only("sliding_window_pattern", "L" * (len(pattern) - 1) + "G", means="another pattern of windows")
    step = len(pattern) if isinstance(pattern, str) else config.size("sliding_window_pattern", default=4, least=1 if window else 0)
    kinds = layer_kinds(config, full_every(count, step) if window else [FULL] * count)
    mixers = mixers_of(config, window, qk_norm=True)
    return build_model(config, patterned(config, kinds, mixers, layer_norms(config, POST_NORMS), dense(config)), tied=False)


@reads("cohere2")
def cohere2(config: Config) -> Model:
    """Command R7B and A: Command R with windows on three layers of four, and rotation only there."""
    bias, window = config.flag("attention_bias", default=False), config.size("sliding_window", default=4096)
    config.only("use_qk_norm", False, means="norms on queries and keys")
    config.only("use_parallel_block", True, means="attention and feed-forward one after the other")
    config.only("use_gated_activation", True, means="a feed-forward without gate")
    config.only("use_embedding_sharing", True, means="a head of its own")
    config.free("order_of_interleaved_layers", "rotary_pct", "position_embedding_type")
    count, step = config.size("num_hidden_layers"), config.size("sliding_window_pattern", default=4)
    mixers = mixers_of(config, window, qkv_bias=bias, output_bias=bias)
    mixers[FULL] = mixers[FULL].but(rotary=False)
    kinds, norms = layer_kinds(config, full_every(count, step)), layer_norms(config, ("input_layernorm",))
    layers = patterned(config, kinds, mixers, norms, dense(config))
    return build_model(config, layers, tied=True)


@reads("gpt_oss")
def gpt_oss(config: Config) -> Model:
    """gpt-oss: every second layer sees a window, every head has a sink, everything but the head a bias."""
    bias = config.flag("attention_bias", default=True)
    experts = experts_of(config, intermediate=config.size("intermediate_size"), bias=True, router_bias=True)
    window = config.size("sliding_window", default=128)  # GptOssConfig
    kinds = layer_kinds(config, full_every(config.size("num_hidden_layers"), 2))
    mixers = mixers_of(config, window, qkv_bias=bias, output_bias=bias)
    with_sinks = {kind: mixer.but(sinks=True) for kind, mixer in mixers.items()}
    layers = patterned(config, kinds, with_sinks, layer_norms(config), experts)
    return build_model(config, layers, tied=False, renames={"mlp.gate": "mlp.router"})


CHUNKED = "chunked_attention"


@reads("llama4", "llama4_text")
def llama4(config: Config) -> Model:
    """Llama 4: three layers of four see their own chunk and are rotated; mixtures alternate with dense layers, or not."""
    text, left_out = text_level(config)
    text.free("attn_temperature_tuning", "floor_scale", "attn_scale")  # a factor on queries that are not rotated
    count, bias = text.size("num_hidden_layers"), text.flag("attention_bias", default=False)
    kinds = layer_kinds(text, _rotated_are_chunked(text, count), known=(CHUNKED, FULL))
    whole = attention(text, qkv_bias=bias, output_bias=bias).but(rotary=False)
    mixers = {FULL: whole, CHUNKED: _chunked(text, whole)}
    # an expert, and the shared one, is narrower than the feed-forward of a dense layer: Llama4TextMoe, Llama4TextDecoderLayer
    narrow = text.size("intermediate_size")
    experts = experts_of(text, intermediate=narrow, shared=DenseFeedForward(intermediate=narrow))
    step = text.size("interleave_moe_layer_step", default=1)
    listed = text.items("moe_layers")
    if any(isinstance(i, bool) or i not in range(count) for i in listed or ()):
        raise ConfigError(f"{text.where}: 'moe_layers' must hold numbers of layers, 0 … {count - 1}.")
    sparse = {i for i in range(count) if (i + 1) % step == 0} if listed is None else set(listed)
    plain = DenseFeedForward(intermediate=text.size("intermediate_size_mlp")) if len(sparse) < count else experts
    text.free("intermediate_size_mlp")  # of the dense layers, if there are any
    norms = layer_norms(text)
    layers = [Layer(mixers[kind], experts if i in sparse else plain, norms) for i, kind in enumerate(kinds)]
    path = "language_model.model.layers.{layer}.{component}"
    return build_model(text, layers, tied=False, path=path, renames=_LLAMA4_RENAMES, not_modelled=left_out)


_LLAMA4_RENAMES = {
    "mlp.gate": "feed_forward.router",
    "mlp.shared_experts.": "feed_forward.shared_expert.",
    "mlp.": "feed_forward.",
}


def _rotated_are_chunked(text: Config, count: int) -> list[str]:
    """Return the kinds that `no_rope_layers` (1 for a layer that is rotated) or its interval imply."""
    step = text.size("no_rope_layer_interval", default=4)
    rotated: Sequence[object] = text.items("no_rope_layers", length=count if text.data.get("no_rope_layers") else None) or [
        int((i + 1) % step != 0) for i in range(count)
    ]
    return [CHUNKED if flag else FULL for flag in rotated]


def _chunked(text: Config, whole: Attention) -> Attention:
    chunk = text.size("attention_chunk_size", default=0)
    limits = {"visible": "chunk", "span": chunk} if chunk else {}
    width = whole.head_dim
    scaled = {f"{n}_norm": Norm(name=f"self_attn.{n[0]}_norm", width=width, parameters=0) for n in ("query", "key")}
    return whole.but(rotary=True, **limits, **scaled if text.flag("use_qk_norm", default=True) else {})


@reads("mimo_v2_flash")
def mimo_v2_flash(config: Config) -> Model:
    """MiMo-V2-Flash: windowed layers have twice the key-value heads, and sinks; values are narrower than keys."""
    count, bias = config.size("num_hidden_layers"), config.flag("attention_bias", default=False)
    config.free("attention_value_scale", "attention_chunk_size")  # a factor on values; the window once more, of no effect
    whole = attention(config, qkv_bias=bias).but(
        v_head_dim=config.size("v_head_dim"), sinks=config.flag("add_full_attention_sink_bias", default=False)
    )
    mixers = {FULL: whole, SLIDING: _mimo_window(config, whole)}
    kinds, norms = layer_kinds(config, _hybrid_pattern(config, count)), layer_norms(config)
    experts, wide = experts_of(config), dense(config)
    sparse = sparse_layers(config, count, first=1)  # MiMoV2FlashConfig
    layers = [Layer(mixers[kind], experts if mixture else wide, norms) for kind, mixture in zip(kinds, sparse, strict=True)]
    drafts = mtp_layers(config, Layer(mixers[SLIDING], wide, norms))  # windowed and dense: arXiv 2601.02780
    return build_model(config, layers, tied=False, mtp=drafts)


def _hybrid_pattern(config: Config, count: int) -> list[str]:
    flags = config.items("hybrid_layer_pattern", length=count)
    if flags is None:
        return [FULL if i == 0 or (i + 1) % 6 == 0 else SLIDING for i in range(count)]  # MiMoV2FlashConfig
    if any(flag not in (0, 1) for flag in flags):
        raise ConfigError(f"{config.where}: 'hybrid_layer_pattern' must hold 0 (full attention) or 1 (a window) for each layer.")
    return [SLIDING if flag else FULL for flag in flags]


def _mimo_window(config: Config, whole: Attention) -> Attention:
    # so many positions before the token, as MiMoV2FlashConfig reads its key; `sliding_window` is the window itself
    before = config.size("sliding_window_size", default=0, least=0)
    window = before + 1 if before else config.size("sliding_window", default=129)
    config.free("sliding_window")
    heads = config.size("swa_num_attention_heads", default=whole.heads)
    kv_heads = config.size("swa_num_key_value_heads", default=2 * whole.kv_heads)  # MiMoV2FlashAttention
    if heads % kv_heads:
        raise ConfigError(f"{config.where}: {heads} attention heads of windowed layers are not a multiple of {kv_heads} key-value heads.")
    changed = {
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": config.size("swa_head_dim", default=whole.head_dim),
        "v_head_dim": config.size("swa_v_head_dim", default=whole.value_dim),
        "visible": "window",
        "span": window,
        "sinks": config.flag("add_swa_attention_sink_bias", default=True),
    }
    return whole.but(**changed)


@reads("mimo")
def mimo(config: Config) -> Model:
    """MiMo-7B: Qwen2 with multi-token-prediction layers."""
    config.only("use_sliding_window", False, means="sliding windows on some layers")
    config.free("sliding_window", "max_window_layers")  # say nothing while their switch is off
    mixer = attention(config, qkv_bias=config.flag("attention_bias", default=True))
    layer = Layer(mixer, dense(config), layer_norms(config))
    drafts = mtp_layers(config, layer, name="input_proj")
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False, mtp=drafts)
