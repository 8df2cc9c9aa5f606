"""Encoders: every token sees every other, or those on either side, and nothing is cached."""

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, attention, build_model, dense, norm
from roofline.huggingface.config import Config
from roofline.huggingface.patterns import FULL, SLIDING, layer_kinds, layer_norms
from roofline.huggingface.registry import reads
from roofline.model import Attention, DenseFeedForward, Head, Model, Norm, Projection

_TO_LOGITS = ("ForMaskedLM", "ForPreTraining", "ForCausalLM", "LMHeadModel")
"""How the names of classes end that predict tokens."""


def bidirectional(config: Config, hidden: int, heads: int, *, bias: bool = True, rotary: bool = False, span: int = 0) -> Attention:
    """Return the attention of an encoder, with as many key-value heads as heads."""
    if hidden % heads:
        raise ConfigError(f"{config.where}: hidden size {hidden} is not a multiple of {heads} attention heads.")
    return Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        visible="bidirectional",
        span=span,
        query_bias=bias,
        key_bias=bias,
        value_bias=bias,
        output_bias=bias,
        rotary=rotary,
    )


def _headed(config: Config, model: Model, *, pooler: bool, otherwise: str) -> Model:
    """Return an encoder with the head of the class that `architectures` names: logits, a pooler or nothing."""
    named = config.items("architectures") or [otherwise]
    name = str(named[0])
    if name.endswith(_TO_LOGITS):
        return model
    hidden = model.hidden_size
    head = Head(outputs=hidden, tied=False, bias=True, name="pooler") if pooler and name.endswith("Model") else None
    left_out = () if name.endswith("Model") else (f"the head of {name[:80]}",)
    return model.but(head=head, not_modelled=(*model.not_modelled, *left_out))


def _bert_kin(
    config: Config,
    *,
    token_types: int = 0,
    pooler: bool = True,
    first: bool = False,
    embedded: bool = True,
    rotary: bool = False,
    plain: bool = False,
) -> Model:
    """Return an encoder as BERT's: learned positions, biases everywhere, norms on the embedding and after the blocks.

    Variants have norms `first`, and one at the end; none on what is `embedded`; `rotary` positions; no biases and a gate (`plain`).
    """
    config.only(
        "position_embedding_type", "absolute", *(("rotary",) if rotary else ()), means="relative positions, with tables in every layer"
    )
    config.only("is_decoder", False, means="causal attention with a cache")
    config.only("add_cross_attention", False, means="attention to an encoder")
    hidden = config.size("hidden_size")
    mixer = bidirectional(config, hidden, config.size("num_attention_heads"), bias=not plain, rotary=rotary)
    config.only("head_dim", mixer.head_dim, means="heads of another width")
    block = DenseFeedForward(intermediate=config.size("intermediate_size"), gated=plain, bias=not plain)
    norms = (norm("attention_layernorm", hidden, bias=True), norm("output_layernorm", hidden, bias=True))
    model = build_model(
        config,
        [Layer(mixer, block, norms)] * config.size("num_hidden_layers"),
        tied=True,
        final_norm=first,
        norm_bias=True,
        head_bias=True,
        head_transform=True,
        positions=0 if rotary else config.size("max_position_embeddings"),
        token_types=token_types,
        embedding_norm=norm("embed_norm", hidden, bias=True) if embedded else None,
    )
    return _headed(config, model, pooler=pooler, otherwise="ForMaskedLM")


def _token_types(config: Config, default: int = 2) -> int:
    return config.size("type_vocab_size", default=default, least=0)


@reads("bert", "camembert", "data2vec-text", "ernie", "roberta", "xlm-roberta")
def bert(config: Config) -> Model:
    """BERT and RoBERTa: with the head that predicts masked tokens, or with the pooler alone if `architectures` names the bare model."""
    config.only("use_task_id", False, means="a table of tasks")
    config.free("task_type_vocab_size", "directionality", "output_past")
    config.free(
        "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type"
    )  # of TensorFlow
    return _bert_kin(config, token_types=_token_types(config))


@reads("megatron-bert", "roberta-prelayernorm", "xlm-roberta-xl")
def norms_first(config: Config) -> Model:
    """BERT with norms before its blocks and one after the last layer, as XLM-RoBERTa-XL."""
    embedded = config.text("model_type", default="") == "roberta-prelayernorm"
    return _bert_kin(config, token_types=_token_types(config), first=True, embedded=embedded)


@reads("jina_embeddings_v3", "nomic_bert")
def rotary_bert(config: Config) -> Model:
    """BERT with rotary positions; of Nomic, also with a gate and without biases."""
    plain = config.text("model_type", default="") == "nomic_bert"
    return _bert_kin(config, token_types=_token_types(config), rotary=True, plain=plain)


@reads("mpnet")
def mpnet(config: Config) -> Model:
    """MPNet: BERT without token types, with learned biases by distance that all layers share."""
    buckets = config.size("relative_attention_num_buckets", default=32)
    model = _bert_kin(config)
    (layer,) = model.layers
    table = layer.mixer.heads * buckets  # type: ignore[union-attr]
    first = layer.but(count=1, mixer=layer.mixer.but(bias_table=table))  # type: ignore[union-attr]
    return model.but(layers=(first, layer.but(count=layer.count - 1)) if layer.count > 1 else (first,))


@reads("eurobert")
def eurobert(config: Config) -> Model:
    """EuroBERT: Llama whose tokens see every other."""
    bias, wide = config.flag("attention_bias", default=False), config.flag("mlp_bias", default=False)
    mixer = attention(config, qkv_bias=bias, output_bias=bias).but(visible="bidirectional")
    layer = Layer(mixer, dense(config, bias=wide), layer_norms(config))
    config.free("classifier_pooling")
    model = build_model(config, [layer] * config.size("num_hidden_layers"), tied=False, head_bias=wide)
    return _headed(config, model, pooler=False, otherwise="Model")


@reads("distilbert")
def distilbert(config: Config) -> Model:
    """DistilBERT: BERT without token types and pooler, with key names of its own."""
    names = {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers", "intermediate_size": "hidden_dim"}
    config.assume(**{ours: config.size(theirs, ours) for ours, theirs in names.items()})
    config.free("sinusoidal_pos_embds", "activation", "tie_weights_")  # the first is how the table of positions begins
    return _bert_kin(config, pooler=False)


@reads("electra")
def electra(config: Config) -> Model:
    """ELECTRA: BERT whose embedding may be narrower than its layers; of the discriminator, the encoder alone."""
    named = config.items("architectures")
    if named and str(named[0]).endswith("ForPreTraining"):
        config.data = {**config.data, "architectures": ["ElectraForPreTraining, the discriminator"]}
    config.free("summary_last_dropout")
    model = _bert_kin(config, token_types=_token_types(config), pooler=False)
    return _narrowed(config, model)


def _narrowed(config: Config, model: Model) -> Model:
    """Return an encoder whose embedding, and the rows of its head, may be narrower than its layers."""
    narrow, hidden = config.size("embedding_size", default=128), model.hidden_size
    if narrow == hidden or model.embedding is None:
        return model
    widen = Projection(name="embeddings_project", inputs=narrow, outputs=hidden, bias=hidden)
    to_logits = model.head is not None and model.head.transform
    return model.but(
        embedding=model.embedding.but(width=narrow, norm=norm("embed_norm", narrow, bias=True), projections=(widen,)),
        head=model.head.but(inner=narrow) if to_logits and model.head else model.head,
    )


@reads("albert")
def albert(config: Config) -> Model:
    """ALBERT: BERT whose layers all have the same weights, and whose embedding is narrower."""
    config.only("num_hidden_groups", 1, means="several groups of layers that share weights")
    config.only("inner_group_num", 1, means="groups of several layers")
    config.free("down_scale_factor", "gap_size", "net_structure_type", "num_memory_blocks")  # of no class
    model = _narrowed(config, _bert_kin(config, token_types=_token_types(config)))
    return model.but(layers=tuple(layer.but(distinct=1) for layer in model.layers))


_BOOKKEEPING = """
    global_rope_theta local_rope_theta initializer_cutoff_factor deterministic_flash_attn sparse_prediction sparse_pred_ignore_index
    position_embedding_type classifier_pooling classifier_activation repad_logits_with_grad reference_compile
"""
"""Keys of ModernBERT: rotary, training, and how its classes are run."""


@reads("modernbert", "modernbert-decoder")
def modernbert(config: Config) -> Model:
    """ModernBERT: rotary positions, layers that see a window on either side, gated feed-forward; an embedding model unless a head is named."""
    hidden, count = config.size("hidden_size"), config.size("num_hidden_layers")
    decodes = config.text("model_type", default="") == "modernbert-decoder"
    every = config.size("global_attn_every_n_layers", default=3)
    kinds = layer_kinds(config, [SLIDING if i % every else FULL for i in range(count)])
    beside = config.size("local_attention", default=128) // 2
    config.only("sliding_window", beside, means="another window than 'local_attention' says")
    bias, shift = config.flag("attention_bias", default=False), config.flag("norm_bias", default=False)
    full = bidirectional(config, hidden, config.size("num_attention_heads"), bias=bias, rotary=True)
    mixers = {FULL: full, SLIDING: full.but(span=beside)}
    if decodes:  # sees as far back, and nothing ahead
        mixers = {FULL: full.but(visible="causal"), SLIDING: full.but(visible="window", span=beside)}
    block = DenseFeedForward(intermediate=config.size("intermediate_size"), bias=config.flag("mlp_bias", default=False))
    after: tuple[Norm, ...] = (norm("mlp_norm", hidden, bias=shift),)
    both = (norm("attn_norm", hidden, bias=shift), *after)
    config.free(*_BOOKKEEPING.split())
    model = build_model(
        config,
        # the norm before the first layer is that of the embedding
        [Layer(mixers[kind], block, both if i else after) for i, kind in enumerate(kinds)],
        tied=True,
        norm_bias=shift,
        head_bias=config.flag("decoder_bias", default=True),
        head_transform=True,
        embedding_norm=norm("embed_norm", hidden, bias=shift),
    )
    head = model.head and model.head.but(transform_bias=config.flag("classifier_bias", default=False), norm_bias=shift)
    return _headed(config, model.but(head=head), pooler=False, otherwise="ForCausalLM" if decodes else "Model")
