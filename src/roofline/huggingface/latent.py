"""Decoders of latent attention (MLA), dense or made sparse by an indexer: DeepSeek V2 to V3.2, Kimi K2, Mistral 4, GLM-5, LongCat-Flash."""

from typing import Any

from roofline.errors import ConfigError, UnsupportedModelError
from roofline.huggingface.build import Layer, build_model, dense, norm, text_level
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, joining_layer, sparse_layers
from roofline.huggingface.patterns import layer_norms
from roofline.huggingface.registry import reads
from roofline.model import DenseFeedForward, Indexer, LatentAttention, Model, Norm

_PATH = "model.layers.{layer}.{component}"


def _latent(config: Config, indexer: Indexer | None = None) -> LatentAttention:
    """Return latent attention with the keys that DeepSeek made common."""
    heads = config.size("num_attention_heads")
    nope, rope = config.size("qk_nope_head_dim"), config.size("qk_rope_head_dim")
    config.only("num_key_value_heads", heads, means="heads that share keys and values on top of the latent")
    config.only("qk_head_dim", nope + rope, means="query heads of another width than qk_nope_head_dim + qk_rope_head_dim")
    config.free("head_dim")  # every class of these families overwrites it, and published files hold anything
    # null is full rank; where nothing stands, the class defaults of transformers hold
    usual: dict[str, Any] = {} if indexer else {"default": None if "q_lora_rank" in config.data else 1536}
    return LatentAttention(
        heads=heads,
        q_lora_rank=config.size("q_lora_rank", **usual),
        kv_lora_rank=config.size("kv_lora_rank"),
        nope_dim=nope,
        rope_dim=rope,
        v_head_dim=config.size("v_head_dim"),
        bias=config.flag("attention_bias", default=False),
        indexer=indexer,
    )


def _decoder(
    config: Config, mixers: list[LatentAttention], *, path: str = _PATH, after: tuple[str, ...] = (), not_modelled: tuple[str, ...] = ()
) -> Model:
    """Return a model of dense layers, then mixtures, with a norm `after` each, then multi-token-prediction layers like the mixtures."""
    config.only("mlp_bias", False, means="biases in the feed-forward")
    config.only("moe_layer_freq", 1, means="experts in every so many layers only")
    norms, block, experts = layer_norms(config), dense(config), experts_of(config)
    sparse = sparse_layers(config, len(mixers))
    beside = (*norms, *layer_norms(config, after))
    layers = [Layer(mixer, experts, beside) if mixed else Layer(mixer, block, norms) for mixer, mixed in zip(mixers, sparse, strict=True)]
    drafts = config.size("num_nextn_predict_layers", "num_mtp_layers", default=0, least=0)
    mtp = [joining_layer(config), Layer(mixers[0], experts, norms)] * drafts  # the first layer's mixer has an indexer of its own
    return build_model(config, layers, tied=False, mtp=mtp, path=path, not_modelled=not_modelled)


@reads("deepseek_v2", "deepseek_v3", "kimi_k2")
def deepseek(config: Config) -> Model:
    """DeepSeek-V2, V3, R1 and Kimi K2: latent attention, experts after the first layers."""
    return _decoder(config, [_latent(config)] * config.size("num_hidden_layers"))


@reads("mistral4")
def mistral4(config: Config) -> Model:
    """Mistral 4: DeepSeek-V3 under Mistral's name."""
    return deepseek(config)


@reads("glm4_moe_lite")
def glm4_moe_lite(config: Config) -> Model:
    """GLM-4.7 Flash: DeepSeek-V3, the first layer dense."""
    if "mlp_layer_types" not in config:
        config.assume(first_k_dense_replace=1)  # Glm4MoeLiteConfig
    return deepseek(config)


@reads("axk1")
def axk1(config: Config) -> Model:
    """A.X K1: DeepSeek-V3 with a norm after each mixture, the first layer dense."""
    if "mlp_layer_types" not in config:
        config.assume(first_k_dense_replace=1)  # AXK1Config
    return _decoder(config, [_latent(config)] * config.size("num_hidden_layers"), after=("mlp.post_mlp_layernorm",))


@reads("sarvam_mla")
def sarvam_mla(config: Config) -> Model:
    """Sarvam 105B: DeepSeek-V3 with queries of full rank, the first layer dense."""
    config.assume(first_k_dense_replace=1)  # SarvamMLAConfig
    config.data = {"q_lora_rank": None, **config.data}
    return deepseek(config)


@reads("youtu")
def youtu(config: Config) -> Model:
    """Youtu-LLM: latent attention, dense."""
    config.free("embedding_initializer_range")
    config.only("mlp_bias", False, means="biases in the feed-forward")
    return build_model(config, [Layer(_latent(config), dense(config), layer_norms(config))] * config.size("num_hidden_layers"), tied=True)


@reads("minicpm3")
def minicpm3(config: Config) -> Model:
    """MiniCPM 3: latent attention, dense."""
    config.free("scale_emb", "scale_depth", "dim_model_base")  # factors
    config.assume(q_lora_rank=768, v_head_dim=config.size("hidden_size") // config.size("num_attention_heads"))  # MiniCPM3Config
    layer = Layer(_latent(config), dense(config, bias=config.flag("mlp_bias", default=False)), layer_norms(config))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=True)


@reads("kimi_k25")
def kimi_k25(config: Config) -> Model:
    """Kimi K2.5 and later: Kimi K2 beside a vision tower."""
    text, left_out = text_level(config)
    text.only("model_type", "deepseek_v3", "kimi_k2", means="another text model")
    config.free("use_unified_vision_chunk", "projection_hidden_size", "projection_layer_norm_eps")  # of the vision tower and its projector
    mixers = [_latent(text)] * text.size("num_hidden_layers")
    return _decoder(text, mixers, path="language_model." + _PATH, not_modelled=left_out)


def _indexer(config: Config) -> Indexer:
    return Indexer(heads=config.size("index_n_heads"), head_dim=config.size("index_head_dim"), top_k=config.size("index_topk"))


def _all_sparse(config: Config, count: int) -> None:
    """Refuse `layer_types` other than what transformers 5 and engines call a layer with an indexer."""
    kinds = config.items("layer_types", length=count) or ()
    if any(kind not in ("indexed_attention", "deepseek_sparse_attention") for kind in kinds):
        raise ConfigError(f"{config.where}: 'layer_types' must hold 'indexed_attention' for each layer.")


@reads("deepseek_v32")
def deepseek_v32(config: Config) -> Model:
    """DeepSeek-V3.2: V3 with an indexer in every layer."""
    count = config.size("num_hidden_layers")
    _all_sparse(config, count)
    return _decoder(config, [_latent(config, _indexer(config))] * count)


@reads("glm_moe_dsa")
def glm_moe_dsa(config: Config) -> Model:
    """GLM-5: DeepSeek-V3.2; from 5.2 on most layers reuse the selection of an earlier one."""
    count = config.size("num_hidden_layers")
    _all_sparse(config, count)
    config.free("index_share_for_mtp_iteration")  # repeated use of one multi-token-prediction layer; its first use selects
    own = _latent(config, _indexer(config))
    shared = own.but(indexer=_indexer(config).but(shared=True))
    return _decoder(config, [own if selects else shared for selects in _selecting(config, count)])


def _selecting(config: Config, count: int) -> list[bool]:
    """Return which layers select for themselves: `indexer_types`, or a pattern, or every so many after the first ones."""
    kinds = config.items("indexer_types", length=count)
    every, first = config.size("index_topk_freq", default=1, least=0), config.size("index_skip_topk_offset", default=2, least=0)
    pattern = config.data.get("index_topk_pattern")
    config.free("index_topk_pattern")
    if kinds is None and pattern is not None:
        items = pattern if isinstance(pattern, (str, list)) else [pattern]
        kinds = ["full" if c in ("F", "full") else "shared" if c in ("S", "shared") else c for c in items]
    if kinds is None:  # the schedule of GlmMoeDsaConfig
        kinds = ["shared" if max(i - first + 1, 0) % max(every, 1) else "full" for i in range(count)]
    if len(kinds) != count or any(kind not in ("full", "shared") for kind in kinds) or kinds[0] != "full":
        raise ConfigError(f"{config.where}: the indexers of {count} layers must each be 'full' or 'shared', the first one 'full'.")
    return [kind == "full" for kind in kinds]


@reads("mistral_large4", "mistral_large4_text")
def mistral_large4(config: Config) -> Model:
    """Mistral Large 4: queries of full rank, an indexer in every layer, every fourth layer without rotation; scales by position are learned."""
    text, left_out = text_level(config, tied_by="wrapper")
    config.free("spatial_merge_size")  # of the vision tower
    count = text.size("num_hidden_layers")
    _all_sparse(text, count)
    text.free("no_rope_layer_interval")
    if any(source != i for i, source in enumerate(text.items("kv_source_layers", length=count) or range(count))):
        raise UnsupportedModelError(f"{text.where}: 'kv_source_layers' names layers that use another one's cache; that is not modelled.")
    text.data = {"q_lora_rank": None, **text.data}
    if "mlp_layer_types" not in text:
        text.assume(first_k_dense_replace=1)  # MistralLarge4TextConfig
    selects = _latent(text).but(indexer=_indexer(text))
    mixers = {(rotates, own): _large4_mixer(selects, rotates=rotates, own=own) for rotates in (True, False) for own in (True, False)}
    every = text.size("no_rope_layer_interval", default=4)
    rotated = text.items("no_rope_layers", length=count) or [(i + 1) % every for i in range(count)]
    hidden, experts, block = text.size("hidden_size"), experts_of(text), dense(text)
    scaled = _scales("self_attn.softmax_scaling", selects.heads)
    index = _scales("self_attn.indexer.softmax_scaling", _indexer(text).heads)
    plain = (*layer_norms(text), scaled)
    norms = {False: plain, True: (*plain, norm("self_attn.indexer.q_input_norm", hidden, bias=True), index)}
    sparse, own = sparse_layers(text, count), _selecting(text, count)
    layers = [
        Layer(mixers[bool(turns), selecting], experts if mixed else block, norms[selecting])
        for turns, selecting, mixed in zip(rotated, own, sparse, strict=True)
    ]
    # one number for each frequency of the rotation, in the model once
    once = Norm(name="rotary_emb.alpha", width=selects.rope_dim // 2, parameters=selects.rope_dim // 2)
    layers[0] = layers[0]._replace(norms=(*layers[0].norms, once))
    path = "language_model." + _PATH if text is not config else _PATH
    return build_model(text, layers, tied=False, path=path, not_modelled=left_out)


def _large4_mixer(selects: LatentAttention, *, rotates: bool, own: bool) -> LatentAttention:
    """Return attention with or without rotation, that selects by itself or as an earlier layer did."""
    mixer = selects if rotates else selects.but(nope_dim=selects.nope_dim + selects.rope_dim, rope_dim=0)
    return mixer if own or mixer.indexer is None else mixer.but(indexer=mixer.indexer.but(shared=True))


def _scales(name: str, heads: int) -> Norm:
    """Return two learned numbers for each head, by which the position scales queries."""
    return Norm(name=name, width=heads, parameters=2 * heads)


@reads("longcat_flash")
def longcat_flash(config: Config) -> Model:
    """LongCat-Flash: each layer is two of latent attention and dense feed-forward, with experts beside the first; some experts do nothing."""
    config.only("attention_method", "MLA", means="another attention")
    config.only("zero_expert_type", "identity", means="experts without matrices that are not the identity")
    config.free("mla_scale_q_lora", "mla_scale_kv_lora")  # factors
    count = config.size("num_layers")
    config.only("num_hidden_layers", count, 2 * count, means="another number of layers")
    block = DenseFeedForward(intermediate=config.size("ffn_hidden_size", "intermediate_size"))
    experts = experts_of(
        config,
        intermediate=config.size("expert_ffn_hidden_size", "moe_intermediate_size"),
        zero_experts=config.size("zero_expert_num", default=0, least=0),
        router_bias=config.flag("router_bias", default=False),
        shared=None,
        parallel=block,
    )
    mixer, norms = _latent(config), layer_norms(config)
    drafts = config.size("num_nextn_predict_layers", default=0, least=0)
    return build_model(
        config,
        [Layer(mixer, experts, norms), Layer(mixer, block, norms)] * count,
        tied=False,
        renames={"mlp.gate": "mlp.router.classifier"},
        not_modelled=("the multi-token-prediction layer",) if drafts else (),
    )
