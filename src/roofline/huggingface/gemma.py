"""Gemma: wide heads, tied embeddings, from the second generation on windows and norms on both sides of each block."""

from collections.abc import Sequence
from typing import Any

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, attention, build_model, dense, norm, text_level
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of
from roofline.huggingface.patterns import (
    FULL,
    SANDWICH_NORMS,
    SLIDING,
    full_every,
    layer_kinds,
    layer_norms,
    mixers_of,
    overrides,
    patterned,
)
from roofline.huggingface.per_layer import PATH, gate, own_caches, table, without_cache
from roofline.huggingface.registry import reads
from roofline.model import Attention, DenseFeedForward, Experts, Model, Projection


@reads("gemma")
def gemma(config: Config) -> Model:
    """Gemma 1: wide heads, tied embeddings."""
    config.only("use_bidirectional_attention", False, means="attention to later positions")
    config.assume(head_dim=256)  # GemmaConfig
    config.free("num_image_tokens")  # of PaliGemma, around it
    bias = config.flag("attention_bias", default=False)
    layer = Layer(attention(config, qkv_bias=bias, output_bias=bias), dense(config), layer_norms(config))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=True)


@reads("gemma2")
def gemma2(config: Config) -> Model:
    """Gemma 2: norms on both sides of each block; layers 0, 2, 4 … see a window."""
    return _gemma2(config, SANDWICH_NORMS)


def _gemma2(config: Config, norms: tuple[str, ...]) -> Model:
    bias = config.flag("attention_bias", default=False)
    config.assume(head_dim=256)  # Gemma2Config
    window = config.size("sliding_window", default=4096)
    config.free("num_image_tokens", "sliding_window_size", "use_bidirectional_attention")
    count = config.size("num_hidden_layers")
    kinds = layer_kinds(config, full_every(count, 2))
    mixers = mixers_of(config, window, qkv_bias=bias, output_bias=bias)
    layers = patterned(config, kinds, mixers, layer_norms(config, norms), dense(config))
    return build_model(config, layers, tied=True)


@reads("vaultgemma")
def vaultgemma(config: Config) -> Model:
    """VaultGemma: Gemma 2 without norms after the blocks."""
    return _gemma2(config, ("input_layernorm", "pre_feedforward_layernorm"))


@reads("gemma3_text", "gemma3")
def gemma3(config: Config) -> Model:
    """Gemma 3: Gemma 2 with norms on query and key heads; every sixth layer sees everything, the others a window."""
    text, left_out = text_level(config, tied_by="wrapper")
    text.assume(**_GEMMA3_DEFAULTS)
    bias = text.flag("attention_bias", default=False)
    count = text.size("num_hidden_layers")
    kinds = layer_kinds(text, full_every(count, text.size("sliding_window_pattern", "_sliding_window_pattern", default=6)))
    text.only("use_bidirectional_attention", False, means="attention to later positions")
    mixers = mixers_of(text, text.size("sliding_window"), qkv_bias=bias, output_bias=bias, qk_norm=True)
    layers = patterned(text, kinds, mixers, layer_norms(text, SANDWICH_NORMS), dense(text))
    path = "language_model.model.layers.{layer}.{component}" if text is not config else "model.layers.{layer}.{component}"
    return build_model(text, layers, tied=True, path=path, not_modelled=left_out)


_GEMMA3_DEFAULTS = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 4096,
    "max_position_embeddings": 131_072,
}
"""What published Gemma-3 files leave to the class defaults of transformers 4.50–5 (`Gemma3TextConfig`)."""


@reads("gemma4_text", "gemma4", "gemma4_unified", "gemma4_unified_text")
def gemma4(config: Config) -> Model:
    """Gemma 4: full layers have heads of their own size; experts beside the dense block; E2B and E4B have an embedding per layer."""
    text, left_out = text_level(config, tied_by="wrapper")
    if text.text("model_type", default="").startswith("gemma4_unified"):
        text.assume(hidden_size_per_layer_input=0, sliding_window=1024)  # no embedding per layer; Gemma4UnifiedTextConfig
    text.assume(**_GEMMA4_DEFAULTS)
    text.only("use_bidirectional_attention", False, "vision", means="attention to later positions")
    text.free("vocab_size_per_layer_input")  # says nothing without embeddings per layer
    kinds = layer_kinds(text, full_every(text.size("num_hidden_layers"), 6))
    kinds[-1] = FULL  # Gemma4TextConfig: the last layer always is
    own = {SLIDING: _gemma4_window(text), FULL: _gemma4_full(text, kinds)}
    shared = {kind: without_cache(mixer) for kind, mixer in own.items()}
    block, first = dense(text), own_caches(text, kinds)
    wider = block.but(intermediate=2 * block.intermediate) if text.flag("use_double_wide_mlp", default=False) else block
    sparse = text.flag("enable_moe_block", default=False)
    blocks = [_gemma4_experts(text, which) if sparse else which for which in (block, wider)]
    names = (*SANDWICH_NORMS, *(_GEMMA4_NORMS if sparse else ()))
    build: dict[str, Any] = {"path": PATH, "renames": _GEMMA4_RENAMES if sparse else {}, "not_modelled": left_out}
    further: tuple[Projection, ...] = ()
    if text.size("hidden_size_per_layer_input", least=0):
        names, further = (*names, "post_per_layer_input_norm"), gate(text)
        build["per_layer"] = table(text)
    norms = layer_norms(text, names)
    layers = [
        Layer(own[kind], blocks[0], norms, further=further) if i < first else Layer(shared[kind], blocks[1], norms, further=further)
        for i, kind in enumerate(kinds)
    ]
    return build_model(text, layers, tied=True, **build)


_GEMMA4_NORMS = ("post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2")


def _gemma4_experts(text: Config, block: DenseFeedForward) -> Experts:
    """Return experts beside a dense block; the router scales its input, every element of it, and the weight of every expert."""
    experts = experts_of(text, parallel=block)
    return experts.but(extra=text.size("hidden_size") + experts.count)


def _gemma4_window(text: Config) -> Attention:
    bias = text.flag("attention_bias", default=False)
    return attention(text, window=text.size("sliding_window"), qk_norm=True, qkv_bias=bias, output_bias=bias)


def _gemma4_full(text: Config, kinds: Sequence[str]) -> Attention:
    """Attention to everything: wider heads, fewer keys, which may serve as values, too."""
    mixer, shared = _gemma4_window(text), text.flag("attention_k_eq_v", default=False)
    own = overrides(text, kinds, FULL)
    if own is None:
        width, fewer = text.size("global_head_dim", default=512), text.size("num_global_key_value_heads", default=mixer.kv_heads)
        fewer = fewer if shared else mixer.kv_heads  # Gemma4TextConfig
    else:
        width, fewer = own.size("head_dim", default=mixer.head_dim), own.size("num_key_value_heads", default=mixer.kv_heads)
        text.only("global_head_dim", width, means="another width than 'per_layer_config' says")
        text.only("num_global_key_value_heads", fewer, means="other key-value heads than 'per_layer_config' says")
    if mixer.heads % fewer:
        raise ConfigError(f"{text.where}: {mixer.heads} attention heads are not a multiple of {fewer} key-value heads.")
    changed = {
        "visible": "causal",
        "span": 0,
        "head_dim": width,
        "kv_heads": fewer,
        "value_from_key": shared,
        "query_norm": norm("self_attn.q_norm", width),
        "key_norm": norm("self_attn.k_norm", width),
    }
    return mixer.but(**changed)


_GEMMA4_RENAMES = {"mlp.gate": "router.proj", "mlp.experts.": "experts."}

_GEMMA4_DEFAULTS = {
    "hidden_size_per_layer_input": 256,
    "vocab_size": 262_144,
    "sliding_window": 512,
    "head_dim": 256,
}
"""Class defaults of `Gemma4TextConfig` that a file may leave out."""
