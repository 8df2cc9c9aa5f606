"""What Gemma 3n and Gemma 4 E2B and E4B share: an embedding that has a part for every layer, and layers that use earlier ones' caches."""

from collections.abc import Sequence
from typing import Any

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, build_model, norm, text_level
from roofline.huggingface.config import Config
from roofline.huggingface.patterns import SANDWICH_NORMS, full_every, layer_kinds, layer_norms, mixers_of
from roofline.huggingface.registry import reads
from roofline.model import Attention, DenseFeedForward, Model, Projection

PATH = "model.language_model.layers.{layer}.{component}"


def without_cache(mixer: Attention) -> Attention:
    """Return attention that reads the keys and values of an earlier layer."""
    return mixer.but(shared_cache=True, key_norm=None)


def own_caches(config: Config, kinds: Sequence[str]) -> int:
    """Return how many layers keep keys and values; the `num_kv_shared_layers` last ones read those of the last of their kind before."""
    shared = config.size("num_kv_shared_layers", default=0, least=0)
    first = len(kinds) - shared
    if first < 0 or (shared and set(kinds) != set(kinds[:first])):
        raise ConfigError(
            f"{config.where}: {shared} of {len(kinds)} layers share a cache, but no layer before them keeps one of their kind."
        )
    return first


def table(config: Config, *further: Projection) -> dict[str, Any]:
    """Return what stands beside the token table: a second one with a part for every layer, and the projection added to it."""
    width = config.size("hidden_size_per_layer_input")
    wide = config.size("num_hidden_layers") * width
    projection = Projection(name="per_layer_model_projection", inputs=config.size("hidden_size"), outputs=wide)
    return {
        "layer_rows": config.size("vocab_size_per_layer_input", default=262_144),
        "layer_width": wide,
        "projections": (projection, *further),
        "projection_norm": norm("per_layer_projection_norm", width),
    }


def gate(config: Config) -> tuple[Projection, Projection]:
    """Return the two matrices that bring a layer's part of the embedding into the residual stream."""
    hidden, width = config.size("hidden_size"), config.size("hidden_size_per_layer_input")
    return (
        Projection(name="per_layer_input_gate", inputs=hidden, outputs=width, quantizable=True),
        Projection(name="per_layer_projection", inputs=width, outputs=hidden, quantizable=True),
    )


_DEFAULTS = {
    "hidden_size_per_layer_input": 256,
    "vocab_size": 262_400,
    "hidden_size": 2048,
    "intermediate_size": 16_384,
    "num_hidden_layers": 35,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "sliding_window": 512,
    "num_kv_shared_layers": 15,
    "max_position_embeddings": 32_768,
}
"""Class defaults of `Gemma3nTextConfig` that a file may leave out."""


@reads("gemma3n_text", "gemma3n")
def gemma3n(config: Config) -> Model:
    """Gemma 3n: four residual streams, of which one passes the layers (AltUp), an embedding per layer, caches that layers share."""
    text, left_out = text_level(config, tied_by="wrapper")
    text.assume(**_DEFAULTS)
    text.only("use_bidirectional_attention", False, means="attention to later positions")
    text.free("activation_sparsity_pattern", "altup_active_idx", "altup_coef_clip", "altup_correct_scale", "altup_lr_multiplier")
    count, bias = text.size("num_hidden_layers"), text.flag("attention_bias", default=False)
    kinds = layer_kinds(text, full_every(count, 5))
    mixers = mixers_of(text, text.size("sliding_window"), qkv_bias=bias, output_bias=bias, qk_norm=True)
    first, further, streams = own_caches(text, kinds), (*gate(text), *_beside(text)), text.size("altup_num_inputs", default=4)
    shared = {kind: without_cache(mixer) for kind, mixer in mixers.items()}
    norms = layer_norms(text, (*SANDWICH_NORMS, "altup.router_norm", "laurel.post_laurel_norm", "post_per_layer_input_norm"))
    norms = (*norms, norm("altup.correct_output_scale", text.size("hidden_size")))
    blocks = [DenseFeedForward(intermediate=wide) for wide in _widths(text, count)]
    layers = [Layer((mixers if i < first else shared)[kind], blocks[i], norms, further=further) for i, kind in enumerate(kinds)]
    hidden = text.size("hidden_size")
    ends = [
        Projection(name=f"altup_{where}projections", inputs=hidden, outputs=hidden * (streams - 1))
        for where in ("", "unembed_")
        if streams > 1
    ]
    left_out = (*left_out, "sums over the residual streams (AltUp)")
    return build_model(text, layers, tied=True, per_layer=table(text, *ends), path=PATH, not_modelled=left_out)


def _widths(text: Config, count: int) -> list[int]:
    """Return the width of every layer's feed-forward: one for all, or a list."""
    if not isinstance(text.data.get("intermediate_size"), list):
        return [text.size("intermediate_size")] * count
    widths = text.items("intermediate_size", length=count) or []
    return [Config({"intermediate_size": width}, text.where).size("intermediate_size") for width in widths]


def _beside(text: Config) -> tuple[Projection, ...]:
    """Return the low-rank residual of a layer (Laurel), and the products that mix its residual streams (AltUp).

    The router of the streams is asked before and after the layer: Gemma3nTextAltUp.predict and .correct.
    """
    hidden, rank, streams = text.size("hidden_size"), text.size("laurel_rank", default=64), text.size("altup_num_inputs", default=4)
    return (
        Projection(name="laurel.linear_left", inputs=hidden, outputs=rank, quantizable=True),
        Projection(name="laurel.linear_right", inputs=rank, outputs=hidden, quantizable=True),
        Projection(name="altup.modality_router", inputs=hidden, outputs=streams, uses=2),
        Projection(name="altup.prediction_coefs", inputs=streams, outputs=streams**2),
        Projection(name="altup.correction_coefs", inputs=streams, outputs=streams),
    )
