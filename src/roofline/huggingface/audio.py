"""Audio towers: Whisper's encoder, its kin, and the projectors around them."""

from typing import Any

from roofline.huggingface.config import Config
from roofline.huggingface.encoders import bidirectional
from roofline.huggingface.towers import tower
from roofline.huggingface.vision import layer_norm, linear, norms
from roofline.model import DenseFeedForward, LayerGroup, Projection, Tower

_TAPS = 3
_FREE = "activation_function scale_embedding encoder_layerdrop layerdrop dropout init_std"


def _layers(
    level: Config, *, block: int = 0, width: int = 1280, heads: int = 20, wide: int = 5120, layers: int = 32
) -> tuple[int, LayerGroup]:
    """Return the width and the layers by the keys of Whisper, with the defaults of its large models: keys without a bias, norms before each block."""
    level.free(*_FREE.split())
    width = level.size("d_model", "hidden_size", default=width)
    seen: dict[str, Any] = {"visible": "block", "span": block} if block else {}
    mixer = bidirectional(level, width, level.size("encoder_attention_heads", "num_attention_heads", default=heads)).but(
        key_bias=False, **seen
    )
    feed_forward = DenseFeedForward(intermediate=level.size("encoder_ffn_dim", "intermediate_size", default=wide), gated=False, bias=True)
    around = (layer_norm("self_attn_layer_norm", width), layer_norm("final_layer_norm", width))
    count = level.size("encoder_layers", "num_hidden_layers", default=layers)
    level.free("encoder_layers", "num_hidden_layers", "num_attention_heads", "intermediate_size")  # some configurations have both names
    return width, LayerGroup(count=count, mixer=mixer, feed_forward=feed_forward, norms=around)


def _convolutions(level: Config, width: int) -> tuple[LayerGroup, ...]:
    """Return Whisper's two: the first makes two rows of every position, the second one of every two."""
    mels = level.size("num_mel_bins", default=128)
    return tuple(
        LayerGroup(count=rows, distinct=1, mixer=None, feed_forward=Projection(name=name, inputs=_TAPS * wide, outputs=width, bias=width))
        for name, rows, wide in (("conv1", 2, mels), ("conv2", 1, width))
    )


def _audio(width: int, embedding: tuple[LayerGroup, ...], layers: LayerGroup, **fields: Any) -> Tower:
    last = norms(layer_norm("layer_norm", width))
    return Tower(senses="audio", model_type="", hidden_size=width, embedding=embedding, layers=(layers, last), **fields)


@tower("audio", "audioflamingo3", "musicflamingo", "qwen2_audio", "voxtral")
def thirty_seconds(outer: Config, level: Config, hidden: int) -> Tower:
    """Whisper's encoder with its table of positions: Qwen2-Audio, Voxtral, Audio Flamingo 3; two positions are averaged, or four merged, into a row."""
    width, layers = _layers(level)
    positions = level.size("max_source_positions", default=1500)
    level.free("vocab_size")
    family = outer.text("model_type", default="")
    if family == "voxtral":
        wide = level.size("encoder_ffn_dim", "intermediate_size", default=5120)
        merged = wide // width
        projector: tuple[LayerGroup, ...] = (linear("linear_1", wide, hidden, bias=False), linear("linear_2", hidden, hidden, bias=False))
    else:
        further = () if family == "qwen2_audio" else (linear("linear_2", hidden, hidden),)
        merged, projector = 2, (linear("linear", width, hidden), *further)
    tables = (("embed_positions", positions * width),)
    return _audio(width, _convolutions(level, width), layers, projector=projector, positions=positions, merged=merged, tables=tables)


@tower("audio", "qwen2_5_omni", "qwen2_5_omni_thinker")
def qwen2_5_omni(outer: Config, level: Config, hidden: int) -> Tower:
    """Qwen2.5-Omni: Whisper's encoder, whose positions see those of their own two seconds; two are averaged and pass one matrix."""
    width, layers = _layers(level, block=level.size("n_window", default=100))
    outputs = level.size("output_dim", default=3584)
    level.free("max_source_positions")
    marks = (("audio_bos_eos_token", 2 * outputs),)
    return _audio(width, _convolutions(level, width), layers, projector=(linear("proj", width, outputs),), merged=2, tables=marks)


@tower("audio", "qwen3_asr", "qwen3_omni_moe", "qwen3_omni_moe_thinker")
def qwen3_omni(outer: Config, level: Config, hidden: int) -> Tower:
    """Qwen3-Omni and Qwen3-ASR: three convolutions over time and pitch make a position of eight frames; positions see those of their own eight seconds."""
    frames, seen = 2 * level.size("n_window", default=50), level.size("n_window_infer", default=800)
    window = -(-frames // 8)  # each convolution has a stride of two
    asr = outer.text("model_type", default="") == "qwen3_asr"
    smaller = {"width": 1024, "heads": 16, "wide": 4096, "layers": 24} if asr else {}
    width, layers = _layers(level, block=max(window * (seen // frames), 1), **smaller)
    layers = layers.but(mixer=layers.mixer.but(key_bias=True))  # type: ignore[union-attr]
    channels, outputs = level.size("downsample_hidden_size", default=480), level.size("output_dim", default=3584)
    pitches, inputs, made = level.size("num_mel_bins", default=128), _TAPS**2, list[LayerGroup]()
    for number in (1, 2, 3):
        pitches, frames = -(-pitches // 2), -(-frames // 2)
        matrix = Projection(name=f"conv2d{number}", inputs=inputs, outputs=channels, bias=channels)
        made.append(LayerGroup(count=frames * pitches, distinct=1, mixer=None, feed_forward=matrix))
        inputs = _TAPS**2 * channels
    last = Projection(name="conv_out", inputs=channels * pitches, outputs=width)
    made.append(LayerGroup(count=window, distinct=1, mixer=None, feed_forward=last))
    level.free("max_source_positions", "max_position_embeddings", "conv_chunksize", "num_key_value_heads")
    projector = (linear("proj1", width, width), linear("proj2", width, outputs))
    return _audio(width, tuple(made), layers, projector=projector, window=window)
