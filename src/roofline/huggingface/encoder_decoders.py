"""Encoder-decoders: an encoder that runs once for every sequence, and a decoder whose layers also attend to what it made."""

from itertools import groupby
from typing import Any, NamedTuple

from roofline.errors import ConfigError, UnsupportedModelError, quoted
from roofline.huggingface.build import Layer, build_model, dense, norm
from roofline.huggingface.config import Config
from roofline.huggingface.encoders import bidirectional
from roofline.huggingface.patterns import full_every, layer_kinds, layer_norms, mixers_of
from roofline.huggingface.registry import reads
from roofline.model import (
    Attention,
    CountedMixer,
    CrossAttention,
    DenseFeedForward,
    Encoder,
    FeedForward,
    LayerGroup,
    Model,
    Norm,
    Projection,
)
from roofline.model.spec import OF_SOURCE


def assumed_source(positions: int, what: str) -> str:
    """Say that a number of positions is assumed, which `Model.with_source` changes."""
    return f"{OF_SOURCE} than {positions} positions, {what}; Model.with_source says another"


def _named_class(config: Config) -> str:
    """Return the class that `architectures` names, one that has both stacks, or the encoder alone."""
    named = config.items("architectures") or ["ForConditionalGeneration"]
    name = str(named[0])
    if not name.endswith(("ForConditionalGeneration", "Model")):
        raise UnsupportedModelError(
            f"{config.where}: 'architectures' names {quoted(name)}; of this family the models that generate from a source are modelled."
        )
    return name


def _stored_as_said(config: Config) -> tuple[str, ...]:
    """Return what is left out of a checkpoint's files, whose tensors of two stacks are not told apart."""
    if config.quantization():
        raise UnsupportedModelError(
            f"{config.where}: quantized checkpoints of encoder-decoders are not modelled; weights= gives a floor a format."
        )
    found, config.files = config.files, None
    return () if found is None else ("the formats in the files, taken to be what the configuration says",)


# --------------------------------------------------------------------------------------------------------------------- T5


@reads("mt5", "t5", "umt5")
def t5(config: Config) -> Model:
    """T5, mT5 and UMT5: no biases, positions as learned biases by distance, which all but UMT5 keep in the first layer of each stack; or the encoder alone."""
    named, stored = _named_class(config), _stored_as_said(config)
    config.assume(hidden_size=config.size("d_model"))
    hidden, heads, width = config.size("hidden_size"), config.size("num_heads"), config.size("d_kv")
    buckets = config.size("relative_attention_num_buckets", default=32)
    form = config.text("feed_forward_proj", default="relu")
    block = DenseFeedForward(intermediate=config.size("d_ff"), gated=form.startswith("gated-"))
    config.free("relative_attention_max_distance", "initializer_factor", "dense_act_fn", "is_gated_act")
    config.free("feed_forward_proj", "output_past", "dropout_rate")
    if not config.flag("scale_decoder_outputs", default=True):
        config.data = {
            **config.data,
            "tie_word_embeddings": False,
        }  # how transformers 5 writes a head of its own, beside a key that says tied
    encoders = config.size("num_layers")
    decoders = config.size("num_decoder_layers", default=encoders)
    config.free("num_hidden_layers", "num_attention_heads", "head_dim")  # other names of the same
    every = config.text("model_type", default="") == "umt5"
    positions = config.size("n_positions", default=512)

    def own(visible: Any, first: bool) -> Attention:
        table = buckets * heads * (first or every)
        return Attention(heads=heads, kv_heads=heads, head_dim=width, visible=visible, rotary=False, bias_table=table)

    def cross(first: bool) -> CrossAttention:
        return CrossAttention(source=positions, heads=heads, kv_heads=heads, head_dim=width, own=own("causal", first))

    norms = tuple(norm(name, hidden) for name in ("self_attn_layer_norm", "cross_attn_layer_norm", "final_layer_norm"))
    around = (norms[0], norms[2])
    config.free("max_position_embeddings")
    model = build_model(
        config,
        [Layer(cross(first=True), block, norms), *[Layer(cross(first=False), block, norms)] * (decoders - 1)],
        tied=True,
        not_modelled=(*stored, assumed_source(positions, "the length it was trained with")),
    )
    first = LayerGroup(count=1, mixer=own("bidirectional", True), feed_forward=block, norms=around)
    others = (first.but(count=encoders - 1, mixer=own("bidirectional", False)),) if encoders > 1 else ()
    if named.endswith("EncoderModel"):
        return model.but(layers=(first, *others), head=None, not_modelled=stored, max_positions=None)
    encoder = Encoder(layers=(first, *others), final_norm=norm("norm", hidden))
    return model.but(encoder=encoder, max_positions=None)


@reads("t5gemma")
def t5gemma(config: Config) -> Model:
    """T5Gemma: Gemma 2 on either side, each with a token table of its own; every second layer sees a window, in the encoder on both sides."""
    stored = _stored_as_said(config)
    _named_class(config)
    encodes, decodes = config.nested("encoder"), config.nested("decoder")
    if encodes is None or decodes is None:
        raise ConfigError(f"{config.where} lacks 'encoder' or 'decoder', the objects that describe its stacks.")
    config.free("dropout_rate", "classifier_dropout_rate", "vocab_size")
    hidden = decodes.size("hidden_size")
    for level in (encodes, decodes):
        level.assume(head_dim=256)  # T5GemmaModuleConfig
        level.only("hidden_size", hidden, means="stacks of two widths")
        level.free("cross_attention_hidden_size", "dropout_rate", "query_pre_attn_scalar")
        level.data = {key: value for key, value in level.data.items() if key != "tie_word_embeddings"}  # the outer level says it
    positions = encodes.size("max_position_embeddings", default=8192)
    layers = [
        Layer(_crossing(decodes, own, positions), dense(decodes), layer_norms(decodes, (*_GEMMA_SELF, *_GEMMA_CROSS, *_GEMMA_BLOCK)))
        for own in _gemma_mixers(decodes)
    ]
    left_out = (*stored, assumed_source(positions, "the longest"))
    model = build_model(decodes, layers, tied=True, not_modelled=left_out)
    block, norms = dense(encodes), layer_norms(encodes, (*_GEMMA_SELF, *_GEMMA_BLOCK))
    # the window of an encoder is that wide on either side (sliding_window_bidirectional_overlay of transformers)
    seen = [own.but(visible="bidirectional") for own in _gemma_mixers(encodes)]
    groups = tuple(LayerGroup(count=len(list(run)), mixer=mixer, feed_forward=block, norms=norms) for mixer, run in groupby(seen))
    encoder = Encoder(layers=groups, rows=encodes.size("vocab_size"), final_norm=norm("norm", hidden))
    return model.but(encoder=encoder)


_GEMMA_SELF = ("pre_self_attn_layernorm", "post_self_attn_layernorm")
_GEMMA_CROSS = ("pre_cross_attn_layernorm", "post_cross_attn_layernorm")
_GEMMA_BLOCK = ("pre_feedforward_layernorm", "post_feedforward_layernorm")


def _gemma_mixers(level: Config) -> list[Attention]:
    """Return the attention of every layer to its own sequence: windows on layers 0, 2, 4 … unless told otherwise."""
    bias = level.flag("attention_bias", default=False)
    mixers = mixers_of(level, level.size("sliding_window", default=4096), qkv_bias=bias, output_bias=bias)
    return [mixers[kind] for kind in layer_kinds(level, full_every(level.size("num_hidden_layers"), 2))]


def _crossing(level: Config, own: Attention, source: int) -> CrossAttention:
    """Return attention to the source, with heads like those of the sequence's own."""
    bias = level.flag("attention_bias", default=False)
    biases: dict[str, Any] = dict.fromkeys(("query_bias", "key_bias", "value_bias", "output_bias"), bias)
    return CrossAttention(source=source, heads=own.heads, kv_heads=own.kv_heads, head_dim=own.head_dim, own=own, **biases)


# ------------------------------------------------------------------------------------------------------------ BART, Whisper


def _stacks(config: Config, *, key_bias: bool, source: int) -> tuple[list[Layer], LayerGroup]:
    """Return the layers of the decoder, and those of the encoder, by the keys that BART made common."""
    _named_class(config)
    hidden = config.size("d_model")
    config.assume(hidden_size=hidden)
    config.free("init_std", "encoder_layerdrop", "decoder_layerdrop", "scale_embedding", "num_hidden_layers", "num_attention_heads")
    heads = config.size("decoder_attention_heads")
    if hidden % heads:
        raise ConfigError(f"{config.where}: hidden size {hidden} is not a multiple of {heads} attention heads.")
    biases = {"query_bias": True, "key_bias": key_bias, "value_bias": True, "output_bias": True}
    shape: dict[str, Any] = {"heads": heads, "kv_heads": heads, "head_dim": hidden // heads, **biases}
    mixer = CrossAttention(source=source, own=Attention(rotary=False, **shape), **shape)
    blocks: list[FeedForward] = [
        DenseFeedForward(intermediate=config.size(key), gated=False, bias=True) for key in ("encoder_ffn_dim", "decoder_ffn_dim")
    ]
    names = ("self_attn_layer_norm", "cross_attn_layer_norm", "final_layer_norm")
    norms: tuple[Norm, ...] = tuple(norm(name, hidden, bias=True) for name in names)
    encoder = LayerGroup(
        count=config.size("encoder_layers"),
        mixer=bidirectional(config, hidden, config.size("encoder_attention_heads")).but(key_bias=key_bias),
        feed_forward=blocks[0],
        norms=(norms[0], norms[2]),
    )
    return [Layer(mixer, blocks[1], norms)] * config.size("decoder_layers"), encoder


class _Stack(NamedTuple):
    """In what families of BART's keys differ, in both stacks."""

    last: bool  # whether norms stand before the blocks, and one at the end
    embedded: bool  # whether there is a norm on the embedding
    spare: int | None  # rows of the table of positions beyond the longest sequence, None where positions are computed


_KIN = {
    "bart": _Stack(last=False, embedded=True, spare=2),
    "blenderbot": _Stack(last=True, embedded=False, spare=0),
    "blenderbot-small": _Stack(last=False, embedded=True, spare=0),
    "m2m_100": _Stack(last=True, embedded=False, spare=None),
    "marian": _Stack(last=False, embedded=False, spare=0),
    "mbart": _Stack(last=True, embedded=True, spare=2),
    "mvp": _Stack(last=False, embedded=True, spare=2),
    "nllb-moe": _Stack(last=True, embedded=False, spare=None),
    "pegasus": _Stack(last=True, embedded=False, spare=0),
    "plbart": _Stack(last=False, embedded=True, spare=2),
}


@reads(*(kin for kin in _KIN if kin != "nllb-moe"))
def bart(config: Config) -> Model:
    """BART and its kin, which differ in their norms and tables of positions: mBART, M2M-100 and NLLB, Marian, Pegasus, BlenderBot."""
    stored = _stored_as_said(config)
    kin = _KIN[config.text("model_type", default="")]
    longest = config.size("max_position_embeddings", default=1024)
    layers, encoder = _stacks(config, key_bias=True, source=longest)
    tied = config.flag("tie_word_embeddings", default=True)
    config.only("share_encoder_decoder_embeddings", True, means="a token table of its own for each stack")
    config.only("decoder_vocab_size", config.size("vocab_size"), means="another vocabulary of the decoder")
    config.only("use_prompt", False, means="prompts with weights of their own")
    config.only("add_final_layer_norm", kin.last, means="other norms at the end of each stack")
    config.only("normalize_before", kin.last, means="norms in other places")
    config.only("normalize_embedding", kin.embedded, means="other norms on the embedding")
    config.only("add_bias_logits", False, means="a bias of the logits")
    config.free("static_position_embeddings", "extra_pos_embeddings")  # transformers' classes leave them aside
    config.free("classif_dropout", "output_past", "force_bos_token_to_be_generated", "save_step", "prompt_length", "prompt_mid_dim")
    hidden, rows = config.size("hidden_size"), 0 if kin.spare is None else longest + kin.spare
    embedded = norm("layernorm_embedding", hidden, bias=True) if kin.embedded else None
    model = build_model(
        config,
        layers,
        tied=tied,
        final_norm=kin.last,
        norm_bias=True,
        positions=rows,
        embedding_norm=embedded,
        not_modelled=(*stored, assumed_source(longest, "the longest")),
    )
    final = norm("layer_norm", hidden, bias=True) if kin.last else None
    first = Encoder(layers=(encoder,), positions=rows, norm=embedded, final_norm=final)
    return model.but(encoder=first) if tied else four_tables(model.but(encoder=first))


def four_tables(model: Model) -> Model:
    """Return a model whose tables are not one: those of each stack, of the head, and one that nothing looks up."""
    if model.encoder is None or model.embedding is None:
        return model
    tokens = model.embedding.vocabulary
    idle = tokens * model.hidden_size
    unread = LayerGroup(count=1, mixer=CountedMixer(projections=(), idle=idle), feed_forward=None)
    notes = (*model.not_modelled, f"the use of {idle:,} parameters of a fourth token table, which the class has and never reads")
    return model.but(encoder=model.encoder.but(rows=tokens), layers=(*model.layers, unread), not_modelled=notes)


@reads("whisper")
def whisper(config: Config) -> Model:
    """Whisper: two convolutions make one position of every two frames, 1500 of thirty seconds whatever is said in them."""
    stored = _stored_as_said(config)
    source, targets = config.size("max_source_positions", default=1500), config.size("max_target_positions", default=448)
    layers, encoder = _stacks(config, key_bias=False, source=source)
    config.free("use_weighted_layer_sum", "classifier_proj_size", "apply_spec_augment", "median_filter_width", "alignment_heads")
    config.free("lang_to_id", "task_to_id", "forced_decoder_ids", "no_timestamps_token_id", "is_multilingual")
    config.free(*(f"mask_{what}_{key}" for what in ("time", "feature") for key in ("prob", "length", "min_masks")))  # of training
    config.assume(max_position_embeddings=targets)
    hidden, taps = config.size("hidden_size"), 3
    # the first convolution makes two rows of every position, with the same weights; the second one of every two
    convolutions = tuple(
        LayerGroup(count=rows, distinct=1, mixer=None, feed_forward=Projection(name=name, inputs=taps * wide, outputs=hidden, bias=hidden))
        for name, rows, wide in (("conv1", 2, config.size("num_mel_bins", default=80)), ("conv2", 1, hidden))
    )
    model = build_model(config, layers, tied=True, norm_bias=True, positions=targets, not_modelled=stored)
    return model.but(
        encoder=Encoder(layers=(*convolutions, encoder), tokens=False, positions=source, final_norm=norm("layer_norm", hidden, bias=True))
    )
