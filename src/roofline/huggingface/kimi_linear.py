"""Kimi Linear, Kimi K3 and Ling 3: Kimi delta attention, every so many layers latent attention, experts after the first layers."""

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, build_model, dense, norm, text_level
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, sparse_layers
from roofline.huggingface.patterns import layer_norms
from roofline.huggingface.recurrent import kinds_of
from roofline.huggingface.registry import reads
from roofline.model import FeedForward, KimiDeltaAttention, LatentAttention, Mixer, Model, Norm

_RENAMES = {
    "mlp.experts.": "block_sparse_moe.experts.",
    "mlp.shared_experts.": "block_sparse_moe.shared_experts.",
    "mlp.fc1_latent_proj": "block_sparse_moe.routed_expert_down_proj",
    "mlp.fc2_latent_proj": "block_sparse_moe.routed_expert_up_proj",
    "mlp.latent_norm": "block_sparse_moe.routed_expert_norm",
}


@reads("kimi_linear", "kimi_k3")
def kimi_linear(config: Config) -> Model:
    """Kimi Linear; and Kimi K3, with experts in a latent space, full-rank gates and attention over earlier blocks' residuals."""
    text, left_out = text_level(config)
    count = text.size("num_hidden_layers")
    if "mlp_layer_types" not in text:
        text.assume(first_k_dense_replace=1)  # default of KimiLinearConfig
    text.free("head_dim", "mla_use_nope", "activation_situ_beta", "activation_situ_linear_beta")  # MLA has head sizes of its own
    text.only("num_nextn_predict_layers", 0, means="multi-token-prediction layers")
    text.only("tie_word_embeddings", False, means="a head that is the embedding, which no class of the family has")
    text.only("num_key_value_heads", text.size("num_attention_heads"), means="grouped heads in latent attention")
    wide = text.size("qk_nope_head_dim") + text.size("qk_rope_head_dim")
    text.only("qk_head_dim", wide, means="query heads of another width than qk_nope_head_dim + qk_rope_head_dim")
    own = text.nested("linear_attn_config")
    mixers: dict[str, Mixer] = {"linear": _delta(text, own), "full": _latent(text)}
    kinds, sparse = _kinds(text, own, count), sparse_layers(text, count)
    latent = text.size("routed_expert_hidden_size", default=0) or None
    normed = text.flag("latent_moe_use_norm", default=False) and latent is not None
    # checkpoints keep the projections into the latent space in 16 bits, though their list of what is not quantized lacks them
    spread = {"latent": latent, "latent_norm": normed, "latent_quantizable": False}
    blocks: dict[bool, FeedForward] = {here: experts_of(text, **spread) if here else dense(text) for here in set(sparse)}
    norms, last = _norms(text)
    layers = [Layer(mixers[kind], blocks[here], norms) for kind, here in zip(kinds, sparse, strict=True)]
    layers[-1] = layers[-1]._replace(norms=norms + last)
    path = "model.layers.{layer}.{component}" if text.outer is None else "language_model.model.layers.{layer}.{component}"
    return build_model(text, layers, tied=False, path=path, renames=_RENAMES, not_modelled=left_out)


def _delta(text: Config, own: Config | None) -> KimiDeltaAttention:
    """Return the recurrent mixer, from a level of its own (checkpoints) or from keys named linear_… (transformers, beside it)."""
    heads, width, taps = names = ("num_heads", "head_dim", "short_conv_kernel_size") if own else _LINEAR_KEYS
    level = own or text
    if own:
        own.free("gate_lower_bound")
        for key, name in zip(_LINEAR_KEYS, names, strict=True):
            text.only(key, own.size(name, default=4), means=f"another size than {name!r} in 'linear_attn_config'")
    return KimiDeltaAttention(
        heads=level.size(heads),
        head_dim=level.size(width),
        conv_kernel=level.size(taps, default=4),
        full_rank_gate=level.flag("use_full_rank_gate", default=False),
        prefix="self_attn",
    )


_LINEAR_KEYS = ("linear_num_heads", "linear_head_dim", "linear_conv_kernel_dim")


def _latent(text: Config) -> LatentAttention:
    return LatentAttention(
        heads=text.size("num_attention_heads"),
        q_lora_rank=text.size("q_lora_rank", default=0) or None,
        kv_lora_rank=text.size("kv_lora_rank"),
        nope_dim=text.size("qk_nope_head_dim"),
        rope_dim=text.size("qk_rope_head_dim"),
        v_head_dim=text.size("v_head_dim"),
        bias=text.flag("attention_bias", default=False),
        output_gate=text.flag("mla_use_output_gate", default=False),
    )


def _kinds(text: Config, own: Config | None, count: int) -> list[str]:
    """Return the kind of every layer; checkpoints number layers from 1."""
    kinds = kinds_of(text, count, {"linear_attention": "linear", "full_attention": "full"}, "layer_types")
    full = own.items("full_attn_layers") if own else None
    linear = own.items("kda_layers") if own else None
    if full is None or linear is None:
        if kinds is None:
            raise ConfigError(f"{text.where} lacks 'layer_types', and lists of layers in 'linear_attn_config'.")
        return kinds
    if {type(i) for i in (*full, *linear)} != {int} or sorted((*full, *linear)) != list(range(1, count + 1)):
        raise ConfigError(f"{text.where}: 'full_attn_layers' and 'kda_layers' must together number the layers 1 … {count}, each once.")
    numbered = ["full" if i in full else "linear" for i in range(1, count + 1)]
    if kinds not in (None, numbered):
        raise ConfigError(f"{text.where}: 'layer_types' and the lists in 'linear_attn_config' name different layers.")
    return numbered


def _norms(text: Config) -> tuple[tuple[Norm, ...], tuple[Norm, ...]]:
    """Return the norms of a layer, and what the last one has besides.

    Attention residuals (arXiv 2603.15031): before each of its two parts a layer weighs the sums of earlier blocks of layers by a
    learned query, a norm and a vector as wide as the stream, and so does the model before its final norm. The weighing is
    done row by row: counted like a second norm, whose parameters the query's are.
    """
    norms = layer_norms(text)
    if not text.size("attn_res_block_size", default=0, least=0):
        return norms, ()
    hidden = text.size("hidden_size")
    names = [f"{where}_res_{what}" for where in ("self_attention", "mlp", "output_attn") for what in ("norm", "proj")]
    extra = tuple(norm(name, hidden) for name in names)
    return norms + extra[:4], extra[4:]


@reads("bailing_hybrid")
def bailing_hybrid(config: Config) -> Model:
    """Ling 3: full matrices for gate and decay of Kimi delta attention, latent attention with a gate for every head."""
    config.free("kda_safe_gate", "kda_lower_bound", "mtp_loss_scaling_factor", "head_dim")
    config.assume(max_position_embeddings=config.size("model_max_length", default=None))
    config.only("tie_word_embeddings", False, means="a head that is the embedding, which no class of the family has")
    config.only("num_nextn_predict_layers", 0, 1, means="several multi-token-prediction layers")
    count, heads, every = config.size("num_hidden_layers"), config.size("num_attention_heads"), config.size("layer_group_size", default=6)
    config.only("num_key_value_heads", heads, means="grouped heads in latent attention")
    config.only("qk_head_dim", config.size("qk_nope_head_dim") + config.size("qk_rope_head_dim"), means="query heads of another width")
    config.only("linear_num_heads", heads, means="other heads than 'num_attention_heads' says")
    taps = config.size("short_conv_kernel_size", "linear_conv_kernel_dim")
    config.only("linear_conv_kernel_dim", taps, means="another convolution than 'short_conv_kernel_size' says")
    # transformers writes the width of rotated keys as 'head_dim', and that of the recurrent heads beside it
    width = config.size("linear_head_dim", "head_dim")
    delta = KimiDeltaAttention(heads=heads, head_dim=width, conv_kernel=taps, full_rank_gate=True, full_rank_decay=True, prefix="self_attn")
    mixers: dict[str, Mixer] = {"linear": delta, "full": _latent(config).but(head_gate=True)}
    kinds = kinds_of(config, count, {"linear_attention": "linear", "full_attention": "full"}, "layer_types")
    if kinds is None:
        kinds = ["linear" if (i + 1) % every else "full" for i in range(count)]
    if "mlp_layer_types" not in config:
        config.assume(first_k_dense_replace=2)  # BailingHybridConfig
    experts, block, norms = experts_of(config), dense(config), layer_norms(config)
    sparse = sparse_layers(config, count)
    layers = [Layer(mixers[kind], experts if here else block, norms) for kind, here in zip(kinds, sparse, strict=True)]
    drafts = config.size("num_nextn_predict_layers", default=0, least=0)
    left_out = ("the multi-token-prediction layer",) if drafts else ()
    return build_model(config, layers, tied=False, not_modelled=left_out)
