"""What readers share: the attention and feed-forward that most families spell alike, and putting a model together."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from roofline.errors import ConfigError, UnsupportedModelError, quoted
from roofline.huggingface.config import Config
from roofline.model import Attention, DenseFeedForward, Embedding, FeedForward, Head, LayerGroup, Mixer, Model, Norm, Projection

if TYPE_CHECKING:
    from roofline.huggingface.quantization import Formats, Stack

_DTYPES = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float": "fp32",
    "half": "fp16",
    "fp32": "fp32",
    "fp16": "fp16",
    "bf16": "bf16",
}


class Layer(NamedTuple):
    """One layer, as readers list them; equal neighbours become one group."""

    mixer: Mixer | None  # the part that mixes tokens
    feed_forward: FeedForward | None  # the part that works token by token
    norms: tuple[Norm, ...]  # the norms on the residual stream
    reused: bool = False  # whether its weights are those of an earlier layer
    side_by_side: bool = False  # whether mixer and feed-forward read the same rows
    further: tuple[Projection, ...] = ()  # small matrices besides


def dtype_of(config: Config) -> str | None:
    """Return the number format that a configuration says its weights are in, or None if it does not say."""
    level: Config | None = config
    while level is not None:
        name = level.text("dtype", "torch_dtype", default="").removeprefix("torch.")
        if name and name != "auto":
            if name not in _DTYPES:
                raise ConfigError(f"{level.where}: dtype is {quoted(name)}; it must be one of {', '.join(_DTYPES)}.")
            return _DTYPES[name]
        level = level.outer
    return None


def head_dim(config: Config, heads: int, *keys: str) -> int:
    """Return the width of a head: the key where there is one, else hidden size over heads."""
    found = config.size(*(keys or ("head_dim",)), default=0)
    if found:
        return found
    hidden = config.size("hidden_size", "n_embd")
    if hidden % heads:
        raise ConfigError(f"{config.where}: hidden size {hidden} is not a multiple of {heads} attention heads, and there is no 'head_dim'.")
    return hidden // heads


def norm(name: str, width: int, *, bias: bool = False) -> Norm:
    """Return a norm with a scale, and a shift if `bias`."""
    return Norm(name=name, width=width, parameters=width * (1 + bias))


def window_of(config: Config) -> int:
    """Return the sliding window that is in force, 0 for none [token]."""
    window = config.size("sliding_window", default=0, least=0)
    return window if config.flag("use_sliding_window", default=True) else 0


def attention(config: Config, *, window: int = 0, qk_norm: bool = False, qkv_bias: bool = False, output_bias: bool = False) -> Attention:
    """Return attention with the keys that the Llama family made common."""
    heads = config.size("num_attention_heads")
    kv_heads = config.size("num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise ConfigError(f"{config.where}: {heads} attention heads are not a multiple of {kv_heads} key-value heads.")
    width = head_dim(config, heads)
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=width,
        visible="window" if window else "causal",
        span=window,
        query_bias=qkv_bias,
        key_bias=qkv_bias,
        value_bias=qkv_bias,
        output_bias=output_bias,
        query_norm=norm("self_attn.q_norm", width) if qk_norm else None,
        key_norm=norm("self_attn.k_norm", width) if qk_norm else None,
    )


def dense(config: Config, *, bias: bool = False, gated: bool = True) -> DenseFeedForward:
    """Return a feed-forward block with the keys that the Llama family made common."""
    return DenseFeedForward(intermediate=config.size("intermediate_size"), gated=gated, bias=bias)


def text_level(config: Config, *, tied_by: str = "", key: str = "text_config") -> tuple[Config, tuple[str, ...]]:
    """Return the level that describes the text model, and what a multimodal configuration has beside it.

    Both levels may say whether embedding and head are tied. Where they disagree the family decides: `tied_by` is ``"wrapper"``,
    ``"text"``, or ``"either"`` of them; where that is not known, the configuration is refused.
    """
    inner = config.nested(key)
    if inner is not None:
        config.free("dtype", "torch_dtype", "tie_word_embeddings")  # asked for where the text level does not say it itself
        if _TIED in config and _TIED in inner and config.flag(_TIED, default=False) != inner.flag(_TIED, default=False):
            if not tied_by:
                raise UnsupportedModelError(
                    f"{config.where}: {_TIED!r} is {config.data[_TIED]}, but {inner.data[_TIED]} in {key!r}; which of the two "
                    "the family obeys is not known, and a head of its own has as many parameters as the embedding."
                )
            if tied_by != "text":
                inner.data = {**inner.data, _TIED: tied_by == "either" or config.data[_TIED]}
    return inner or config, tuple(text for key, text in BESIDE.items() if key in config)


BESIDE = {"vision_config": "the vision tower and its projector", "audio_config": "the audio tower and its projector"}
"""What a multimodal configuration has beside its text model, by key."""

_TOWERED = {
    "vision_config": """
        apertus1p5 aria aya_vision blip-2 cohere2_vision cosmos3_omni deepseek_vl deepseek_vl_hybrid ernie4_5_vl_moe exaone4_5 fast_vlm
        florence2 gemma3 gemma3n glm46v glm4v glm4v_moe glm_ocr glmga got_ocr2 granite4_vision granite_docling hunyuan_vl
        hyperclovax_vision_v2 idefics2 idefics3 instructblip instructblipvideo internvl internvl_chat janus kimi_k25 kimi_vl lfm2_vl lfm3_vl
        lighton_ocr llama4 llava llava_next llava_next_video llava_onevision minicpm_ocr minicpmv4_6 minicpmv4_7 minimax_m3 minimax_m3_vl
        mistral3 mistral_large4 mllama molmo2 nemotron_h_omni ovis2 paddleocr_vl paligemma perception_lm phi4_multimodal pp_chart2table
        qianfan_ocr qwen2_5_omni qwen2_5_omni_thinker qwen2_5_vl qwen2_vl qwen3_5 qwen3_5_moe qwen3_omni_moe qwen3_omni_moe_thinker qwen3_vl
        qwen3_vl_moe shieldgemma2 smolvlm step3p7 video_llama_3 video_llava vipllava
        """,
    "audio_config": """
        apertus1p5 audioflamingo3 fun_asr_nano gemma3n glmasr moss_transcribe_diarize musicflamingo omniasr phi4_multimodal qwen2_5_omni
        qwen2_5_omni_thinker qwen2_audio qwen3_asr qwen3_omni_moe qwen3_omni_moe_thinker voxtral voxtral_realtime
        """,
}
TOWERED = {key: frozenset(families.split()) for key, families in _TOWERED.items()}
"""Families that have such a tower whether or not their configuration describes it, as their classes in transformers 5.24 have a default one."""

_TIED = "tie_word_embeddings"
_SHOWN = 5


def _grouped(layers: Sequence[Layer], formats: "Sequence[Formats] | None" = None) -> tuple[LayerGroup, ...]:
    made: dict[tuple[object, ...], LayerGroup] = {}  # patterns repeat: equal runs of the same parts are one object

    def group(layer: Layer, stored: "Formats", count: int) -> LayerGroup:
        key = (*(id(part) for part in layer), stored, count)
        if key not in made:
            made[key] = LayerGroup(
                count=count,
                distinct=0 if layer.reused else None,
                mixer=layer.mixer,
                feed_forward=layer.feed_forward,
                norms=layer.norms,
                formats=stored,
                side_by_side=layer.side_by_side,
                further=layer.further,
            )
        return made[key]

    runs = groupby(zip(layers, formats or [()] * len(layers), strict=True))
    return tuple(group(layer, stored, len(list(run))) for (layer, stored), run in runs)


def _stack(
    config: Config, layers: Sequence[Layer], mtp: Sequence[Layer], hidden: int, *, tied: bool, path: str, renames: Mapping[str, str]
) -> "Stack | None":
    """Return the stored formats of all matrices, or None if the checkpoint is not quantized."""
    found = config.quantization()
    if not found:
        return None
    from roofline.huggingface.quantization import plan_of  # most checkpoints are not quantized

    plan = plan_of(found, config, path, renames)
    known: dict[tuple[int, int, int], tuple[tuple[str, bool], ...]] = {}

    def parts(layer: Layer) -> tuple[tuple[str, bool], ...]:
        key = (id(layer.mixer), id(layer.feed_forward), id(layer.further))
        if key not in known:
            known[key] = tuple(
                (matrix.name, matrix.quantizable)
                for part in (layer.mixer, layer.feed_forward, *layer.further)
                if part is not None
                for matrix in part.matrices(hidden)
            )
        return known[key]

    return plan.stack([parts(layer) for layer in layers], [parts(layer) for layer in mtp], tied=tied, where=config.where)


def _ends_in_rows(config: Config) -> bool:
    """Return whether `architectures` names a class without a head, as models that embed do: MistralModel, but not GPT2LMHeadModel."""
    name = str((config.items("architectures") or [""])[0])
    return name.endswith("Model") and not name.endswith(("HeadModel", "HeadsModel", "MTModel"))


def build_model(
    config: Config,
    layers: Sequence[Layer],
    *,
    tied: bool,
    norm_bias: bool = False,
    final_norm: bool = True,
    head_bias: bool = False,
    head_transform: bool = False,
    positions: int = 0,
    token_types: int = 0,
    embedding_norm: Norm | None = None,
    per_layer: Mapping[str, Any] | None = None,
    vocabulary: Callable[[], int] | None = None,
    spare_rows: int = 0,
    mtp: Sequence[Layer] = (),
    path: str = "model.layers.{layer}.{component}",
    renames: Mapping[str, str] | None = None,
    not_modelled: Sequence[str] = (),
) -> Model:
    """Put a model together from its layers and what surrounds them."""
    hidden = config.size("hidden_size", "n_embd")
    tokens = vocabulary() if vocabulary else config.size("vocab_size")
    level: Config | None = config
    while level is not None:
        if _TIED in level:
            tied = level.flag(_TIED, default=tied)
            break
        level.seen.add(_TIED)
        level = level.outer
    longest = config.size("max_position_embeddings", "n_positions", "n_ctx", default=0)
    config.free("max_position_embeddings", "n_positions", "n_ctx")
    options: dict[str, Any] = {"final_norm": norm("norm", hidden, bias=norm_bias)} if final_norm else {}
    files = config.files
    dtype, left_out = dtype_of(config) or (files.base if files is not None else None), tuple(not_modelled)
    stack = _stack(config, layers, mtp, hidden, tied=tied, path=path, renames=renames or {})
    if stack is not None:
        if dtype is None and stack.dtype is None and stack.quantizes:
            left_out += ("the dtype of what is not quantized: the configuration names none, and bf16, of 16 bits, is assumed",)
        dtype = dtype or stack.dtype or ("bf16" if stack.quantizes else None)
        options |= {"formats": stack.outside, "kv_format": stack.kv, "static_scales": stack.static}
        left_out += stack.left_out
        if stack.unknown:
            shown = ", ".join(map(quoted, stack.unknown[:_SHOWN])) + (
                f" and {len(stack.unknown) - _SHOWN} more" if len(stack.unknown) > _SHOWN else ""
            )
            left_out += (f"modules said to be left unquantized, of which this description has none: {shown}",)
    model = Model(
        name=config.where,
        source=config.where,
        hidden_size=hidden,
        dtype=dtype,
        layers=_grouped(layers, stack and stack.layers),
        mtp=_grouped(mtp, stack and stack.mtp),
        embedding=Embedding(
            vocabulary=tokens + spare_rows,
            width=hidden,
            positions=positions,
            token_types=token_types,
            norm=embedding_norm,
            **per_layer or {},
        ),
        head=None if _ends_in_rows(config) else Head(outputs=tokens, tied=tied, bias=head_bias, transform=head_transform),
        max_positions=longest or None,
        not_modelled=left_out,
        **options,
    )
    if files is not None:
        numbered = config.size("num_hidden_layers", "n_layer", "num_layers", "n_layers", default=len(layers))
        files.named_by(path, renames or {}, len(layers) // numbered if len(layers) % numbered == 0 else 1)
    return model
