"""The older decoders, each with key names of its own: GPT-2, GPT-J, GPT-NeoX, OPT, BLOOM, Falcon, StarCoder, MPT, Phi, XGLM, GPT."""

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, build_model, norm
from roofline.huggingface.config import Config
from roofline.huggingface.registry import reads
from roofline.model import Attention, DenseFeedForward, Model, Norm


def _mixer(
    config: Config, hidden: int, heads: int, kv_heads: int | None = None, *, qkv_bias: bool, output_bias: bool, rotary: bool
) -> Attention:
    if hidden % heads:
        raise ConfigError(f"{config.where}: hidden size {hidden} is not a multiple of {heads} attention heads.")
    return Attention(
        heads=heads,
        kv_heads=kv_heads or heads,
        head_dim=hidden // heads,
        query_bias=qkv_bias,
        key_bias=qkv_bias,
        value_bias=qkv_bias,
        output_bias=output_bias,
        rotary=rotary,
    )


def _norms(hidden: int, *names: str) -> tuple[Norm, ...]:
    return tuple(norm(name, hidden, bias=True) for name in names or ("input_layernorm", "post_attention_layernorm"))


@reads("gpt2", "gpt-sw3", "gpt_bigcode")
def gpt2(config: Config) -> Model:
    """GPT-2, and StarCoder, which is GPT-2 with one key-value head for all (MQA). Learned positions, biases everywhere."""
    config.only("add_cross_attention", False, means="attention to an encoder")
    hidden, heads = config.size("n_embd"), config.size("n_head")
    one = config.flag("multi_query", default=config.text("model_type", default="") == "gpt_bigcode")
    mixer = _mixer(config, hidden, heads, 1 if one else None, qkv_bias=True, output_bias=True, rotary=False)
    config.only("num_key_value_heads", mixer.kv_heads, means="other key-value heads than 'multi_query' says")
    block = DenseFeedForward(intermediate=config.size("n_inner", default=4 * hidden), gated=False, bias=True)
    layers = [Layer(mixer, block, _norms(hidden))] * config.size("n_layer")
    return build_model(config, layers, tied=True, norm_bias=True, positions=config.size("n_positions", default=1024))


@reads("gptj", "codegen")
def gptj(config: Config) -> Model:
    """GPT-J and CodeGen: attention and feed-forward side by side behind one norm; biases in the feed-forward and the head only."""
    hidden, heads = config.size("n_embd"), config.size("n_head")
    config.free("rotary")
    mixer = _mixer(config, hidden, heads, qkv_bias=False, output_bias=False, rotary=True)
    block = DenseFeedForward(intermediate=config.size("n_inner", default=4 * hidden), gated=False, bias=True)
    layers = [Layer(mixer, block, _norms(hidden, "input_layernorm"), side_by_side=True)] * config.size("n_layer")
    return build_model(config, layers, tied=False, norm_bias=True, head_bias=True)


@reads("gpt_neox")
def gpt_neox(config: Config) -> Model:
    """GPT-NeoX and Pythia: two norms, whether side by side or one after the other; biases everywhere but in the head."""
    hidden = config.size("hidden_size")
    parallel = config.flag("use_parallel_residual", default=True)
    bias = config.flag("attention_bias", default=True)
    mixer = _mixer(config, hidden, config.size("num_attention_heads"), qkv_bias=bias, output_bias=bias, rotary=True)
    block = DenseFeedForward(intermediate=config.size("intermediate_size"), gated=False, bias=True)
    layers = [Layer(mixer, block, _norms(hidden), side_by_side=parallel)] * config.size("num_hidden_layers")
    return build_model(config, layers, tied=False, norm_bias=True)


@reads("gpt_neo")
def gpt_neo(config: Config) -> Model:
    """GPT-Neo: learned positions; every second layer, or whichever `attention_types` names, sees a window."""
    hidden, count = config.size("hidden_size"), config.size("num_layers", "num_hidden_layers")
    whole = _mixer(config, hidden, config.size("num_heads", "num_attention_heads"), qkv_bias=False, output_bias=True, rotary=False)
    mixers = {"global": whole, "local": whole.but(visible="window", span=config.size("window_size", default=256))}
    types = config.items("attention_types") or [[["global", "local"], count // 2]]
    try:
        kinds = [kind for names, times in types for kind in names * times]
        layers = [mixers[kind] for kind in config.items("attention_layers") or kinds]
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"{config.where}: 'attention_types' must hold lists of 'global' and 'local', each with how often it repeats."
        ) from None
    if len(layers) != count:
        raise ConfigError(f"{config.where}: 'attention_types' names {len(layers)} layers, not {count}.")
    block = DenseFeedForward(intermediate=config.size("intermediate_size", default=4 * hidden), gated=False, bias=True)
    positions = config.size("max_position_embeddings", default=2048)
    return build_model(config, [Layer(mixer, block, _norms(hidden)) for mixer in layers], tied=True, norm_bias=True, positions=positions)


@reads("persimmon")
def persimmon(config: Config) -> Model:
    """Persimmon: norms with shifts, on query and key heads too, biases everywhere but in the head, no gate."""
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    config.only("num_key_value_heads", heads, means="heads that share keys and values")  # PersimmonAttention has none
    mixer = _mixer(config, hidden, heads, qkv_bias=True, output_bias=True, rotary=True)
    if config.flag("qk_layernorm", default=True):
        mixer = _with_head_norms(mixer)
    block = DenseFeedForward(intermediate=config.size("intermediate_size"), gated=False, bias=True)
    layers = [Layer(mixer, block, _norms(hidden))] * config.size("num_hidden_layers")
    return build_model(config, layers, tied=False, norm_bias=True)


def _with_head_norms(mixer: Attention) -> Attention:
    """Return attention with LayerNorm on query and key heads."""
    widths = {f"{which}_norm": norm(f"self_attn.{which[0]}_layernorm", mixer.head_dim, bias=True) for which in ("query", "key")}
    return mixer.but(**widths)


@reads("opt")
def opt(config: Config) -> Model:
    """OPT: learned positions with two rows to spare, biases everywhere but in the head."""
    hidden = config.size("hidden_size")
    config.only("word_embed_proj_dim", hidden, means="projections between a narrow embedding and the layers (OPT-350m)")
    config.only("do_layer_norm_before", True, means="norms after each block and none at the end (OPT-350m)")
    config.only("_remove_final_layer_norm", False, means="no final norm")
    config.only("layer_norm_elementwise_affine", True, means="norms without parameters")
    config.free("init_std", "layerdrop")  # the first weights, and layers that training leaves out
    bias = config.flag("enable_bias", default=True)
    mixer = _mixer(config, hidden, config.size("num_attention_heads"), qkv_bias=bias, output_bias=bias, rotary=False)
    block = DenseFeedForward(intermediate=config.size("ffn_dim"), gated=False, bias=bias)
    layers = [Layer(mixer, block, _norms(hidden))] * config.size("num_hidden_layers")
    spare_rows = 2  # OPTLearnedPositionalEmbedding offsets every position by 2
    return build_model(config, layers, tied=True, norm_bias=True, positions=config.size("max_position_embeddings") + spare_rows)


@reads("bloom")
def bloom(config: Config) -> Model:
    """BLOOM: ALiBi instead of positions, a norm on the embedding, biases everywhere but in the head."""
    hidden = config.size("hidden_size", "n_embed")
    mixer = _mixer(config, hidden, config.size("n_head", "num_attention_heads"), qkv_bias=True, output_bias=True, rotary=False)
    block = DenseFeedForward(intermediate=4 * hidden, gated=False, bias=True)
    layers = [Layer(mixer, block, _norms(hidden))] * config.size("n_layer", "num_hidden_layers")
    return build_model(config, layers, tied=True, norm_bias=True, embedding_norm=norm("embed_norm", hidden, bias=True))


@reads("falcon")
def falcon(config: Config) -> Model:
    """Falcon 7B (one key-value head, one norm) and 40B/180B (`new_decoder_architecture`: grouped heads, two norms)."""
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads", "n_head")
    new = config.flag("new_decoder_architecture", default=False)
    parallel = config.flag("parallel_attn", default=True)
    several = config.size("num_kv_heads", default=heads)
    one = config.flag("multi_query", default=True)  # says nothing of the new architecture, as in FalconAttention
    kv_heads = several if new or not one else 1
    config.only("activation", "gelu", means="another activation, perhaps one with a gate")
    bias = config.flag("bias", default=False)
    mixer = _mixer(config, hidden, heads, kv_heads, qkv_bias=bias, output_bias=bias, rotary=not config.flag("alibi", default=False))
    wide = config.size("ffn_hidden_size", default=4 * hidden)
    block = DenseFeedForward(intermediate=wide, gated=False, bias=bias)
    two = config.size("num_ln_in_parallel_attn", default=2 if new else 1) == 2 or not parallel
    layers = [Layer(mixer, block, _norms(hidden) if two else _norms(hidden, "input_layernorm"), side_by_side=parallel)] * config.size(
        "num_hidden_layers", "n_layer"
    )
    return build_model(config, layers, tied=True, norm_bias=True)


@reads("mpt")
def mpt(config: Config) -> Model:
    """MPT: ALiBi, whatever `learned_pos_emb` says, no biases anywhere."""
    hidden = config.size("d_model", "hidden_size")
    config.assume(hidden_size=hidden, max_position_embeddings=config.size("max_seq_len", default=None))
    config.only("no_bias", True, means="biases everywhere")
    config.only("expansion_ratio", 4, means="another width of the feed-forward")  # MptMLP does not look at it
    config.free(
        "learned_pos_emb", "norm_type", "embedding_fraction", "logit_scale", "init_device", "init_config", "verbose", "tokenizer_name"
    )
    inner = config.nested("attn_config")
    if inner is not None:
        inner.only("attn_type", "multihead_attention", means="one key-value head for all")
        inner.only("qk_ln", False, means="norms on queries and keys")
        inner.only("prefix_lm", False, means="attention to later positions of a prefix")
        inner.only("alibi", True, means="learned positions")
        inner.free("alibi_bias_max", "attn_impl", "attn_pdrop", "attn_uses_sequence_id", "clip_qkv", "softmax_scale")
    heads = config.size("n_heads", "num_attention_heads")
    mixer = _mixer(config, hidden, heads, qkv_bias=False, output_bias=False, rotary=False)
    block = DenseFeedForward(intermediate=4 * hidden, gated=False)
    layers = [Layer(mixer, block, (norm("norm_1", hidden), norm("norm_2", hidden)))] * config.size("n_layers", "num_hidden_layers")
    return build_model(config, layers, tied=True, path="transformer.blocks.{layer}.{component}", renames=_MPT)


_MPT = {"self_attn.o_proj": "attn.out_proj", "self_attn.": "attn.", "mlp.": "ffn."}


@reads("phi")
def phi(config: Config) -> Model:
    """Phi-1, 1.5 and 2: attention and feed-forward side by side behind one norm, biases everywhere, in the head too."""
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    kv_heads = config.size("num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise ConfigError(f"{config.where}: {heads} attention heads are not a multiple of {kv_heads} key-value heads.")
    mixer = _mixer(config, hidden, heads, kv_heads, qkv_bias=True, output_bias=True, rotary=True)
    if config.flag("qk_layernorm", default=False):
        mixer = _with_head_norms(mixer)
    block = DenseFeedForward(intermediate=config.size("intermediate_size", default=4 * hidden), gated=False, bias=True)
    layers = [Layer(mixer, block, _norms(hidden, "input_layernorm"), side_by_side=True)] * config.size("num_hidden_layers")
    return build_model(config, layers, tied=False, norm_bias=True, head_bias=True, renames=_PHI)


_PHI = {"self_attn.o_proj": "self_attn.dense", "mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"}


@reads("xglm")
def xglm(config: Config) -> Model:
    """XGLM: computed positions, biases everywhere but in the head."""
    hidden = config.size("d_model", "hidden_size")
    config.assume(hidden_size=hidden)
    config.only("add_cross_attention", False, means="attention to an encoder")
    config.free("init_std", "layerdrop", "scale_embedding")
    mixer = _mixer(config, hidden, config.size("attention_heads", "num_attention_heads"), qkv_bias=True, output_bias=True, rotary=False)
    block = DenseFeedForward(intermediate=config.size("ffn_dim"), gated=False, bias=True)
    layers = [Layer(mixer, block, _norms(hidden))] * config.size("num_layers", "num_hidden_layers")
    return build_model(config, layers, tied=True, norm_bias=True)


@reads("biogpt")
def biogpt(config: Config) -> Model:
    """BioGPT: learned positions with two rows to spare, biases everywhere but in the head."""
    config.free("layerdrop", "scale_embedding")
    hidden, spare_rows = config.size("hidden_size"), 2
    mixer = _mixer(config, hidden, config.size("num_attention_heads"), qkv_bias=True, output_bias=True, rotary=False)
    block = DenseFeedForward(intermediate=config.size("intermediate_size"), gated=False, bias=True)
    layers = [Layer(mixer, block, _norms(hidden))] * config.size("num_hidden_layers")
    return build_model(config, layers, tied=True, norm_bias=True, positions=config.size("max_position_embeddings") + spare_rows)


@reads("gpt_neox_japanese")
def gpt_neox_japanese(config: Config) -> Model:
    """GPT-NeoX Japanese: no biases but one, on the output of the last layer's attention."""
    hidden, count = config.size("hidden_size"), config.size("num_hidden_layers")
    mixer = _mixer(config, hidden, config.size("num_attention_heads"), qkv_bias=False, output_bias=False, rotary=True)
    block = DenseFeedForward(intermediate=config.size("intermediate_multiple_size", default=4) * hidden, gated=False)
    layer = Layer(mixer, block, _norms(hidden))
    layers = [*[layer] * (count - 1), layer._replace(mixer=mixer.but(output_bias=True))]
    return build_model(config, layers, tied=True, norm_bias=True)


@reads("openai-gpt")
def openai_gpt(config: Config) -> Model:
    """GPT: learned positions, norms after each block and none at the end, biases everywhere but in the head."""
    config.free("afn")  # the activation
    hidden = config.size("n_embd")
    mixer = _mixer(config, hidden, config.size("n_head"), qkv_bias=True, output_bias=True, rotary=False)
    block = DenseFeedForward(intermediate=4 * hidden, gated=False, bias=True)
    layers = [Layer(mixer, block, _norms(hidden))] * config.size("n_layer")
    return build_model(config, layers, tied=True, final_norm=False, positions=config.size("n_positions", default=512))


@reads("ctrl")
def ctrl(config: Config) -> Model:
    """CTRL: computed positions, biases everywhere, in the head too."""
    hidden = config.size("n_embd")
    mixer = _mixer(config, hidden, config.size("n_head"), qkv_bias=True, output_bias=True, rotary=False)
    block = DenseFeedForward(intermediate=config.size("dff"), gated=False, bias=True)
    layers = [Layer(mixer, block, _norms(hidden))] * config.size("n_layer")
    return build_model(config, layers, tied=True, norm_bias=True, head_bias=True)
