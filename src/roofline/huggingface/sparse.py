"""Decoders whose attention sees compressed entries or selected blocks: DeepSeek-V4, MiniMax-M3."""

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, attention, build_model, norm, text_level
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, sparse_layers
from roofline.huggingface.patterns import layer_norms
from roofline.huggingface.registry import reads
from roofline.model import Attention, BlockSparseAttention, CompressedAttention, DenseFeedForward, Indexer, LayerGroup, Model, Projection

_SLIDING, _SPARSE, _HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
_KIND_OF_RATIO = {0: _SLIDING, 4: _SPARSE, 128: _HEAVY}  # DeepseekV4Config: other ratios have no meaning there

_MOST_STREAMS = 64  # published models have 4

_V4_NAMES = {
    # from transformers' conversion of the published checkpoints
    "self_attn.q_a_proj": "attn.wq_a",
    "self_attn.q_b_proj": "attn.wq_b",
    "self_attn.kv_proj": "attn.wkv",
    "self_attn.o_a_proj": "attn.wo_a",
    "self_attn.o_b_proj": "attn.wo_b",
    "self_attn.compressor.kv_proj": "attn.compressor.wkv",
    "self_attn.compressor.gate_proj": "attn.compressor.wgate",
    "self_attn.compressor.indexer.kv_proj": "attn.indexer.compressor.wkv",
    "self_attn.compressor.indexer.gate_proj": "attn.indexer.compressor.wgate",
    "self_attn.compressor.indexer.q_b_proj": "attn.indexer.wq_b",
    "self_attn.compressor.indexer.scorer.weights_proj": "attn.indexer.weights_proj",
    "mlp.shared_experts.gate_proj": "ffn.shared_experts.w1",
    "mlp.shared_experts.down_proj": "ffn.shared_experts.w2",
    "mlp.shared_experts.up_proj": "ffn.shared_experts.w3",
    "mlp.": "ffn.",
    "attn_hc": "hc_attn_fn",
    "ffn_hc": "hc_ffn_fn",
}

_M3_NAMES = {
    "mlp.experts.": "block_sparse_moe.experts.",
    "mlp.shared_experts.": "block_sparse_moe.shared_experts.",
    "mlp.gate": "block_sparse_moe.gate",
    "mlp.gate_proj": "mlp.gate_proj",
    "self_attn.indexer.q_": "self_attn.index_q_",
    "self_attn.indexer.k_": "self_attn.index_k_",
}


@reads("deepseek_v4", "deepseek_ref")
def deepseek_v4(config: Config) -> Model:
    """DeepSeek-V4: windows and compressed entries, selected or all, experts in every layer, several residual streams."""
    count, streams = config.size("num_hidden_layers"), config.size("hc_mult")
    if streams > _MOST_STREAMS:
        raise ConfigError(f"{config.where}: 'hc_mult' is {streams}; it must be a whole number of 1 … {_MOST_STREAMS}.")
    config.free("hc_eps", "hc_sinkhorn_iters")  # iterations over a matrix of hc_mult × hc_mult per token
    config.only("num_key_value_heads", 1, means="more than one row per position")
    config.only("attention_bias", False, means="biases on the projections")
    config.only("mlp_bias", False, means="biases in the feed-forward")
    config.only("n_shared_experts", 1, means="another width of the shared expert")
    hashed = _hashed_layers(config, count)
    drafts = config.size("num_nextn_predict_layers", default=0, least=0)
    kinds, draft_kinds = _kinds(config, count, drafts)
    mixers = {kind: _compressed(config, kind) for kind in {*kinds, *draft_kinds}}
    norms, experts = layer_norms(config), experts_of(config)
    model = build_model(
        config,
        [Layer(mixers[kind], experts, norms) for kind in kinds],
        tied=False,
        mtp=[layer for kind in draft_kinds for layer in _draft(config, streams, Layer(mixers[kind], experts, norms))],
        path="layers.{layer}.{component}",
        renames=_V4_NAMES,
        not_modelled=("the tables from token to experts of layers that route by hash",) if hashed else (),
    )
    head = model.head.but(streams=streams) if model.head else None
    return model.but(layers=_streamed(model.layers, streams), mtp=_streamed(model.mtp, streams), head=head)


def _streamed(groups: tuple[LayerGroup, ...], streams: int) -> tuple[LayerGroup, ...]:
    """Return the layers with hyper-connections, all but those that are a single projection."""
    return tuple(group if group.mixer is None else group.but(streams=streams) for group in groups)


def _draft(config: Config, streams: int, layer: Layer) -> list[Layer]:
    """Return a multi-token-prediction layer: the token and every stream each pass a matrix, and the streams become one at the end.

    All matrices stand before the layer, as those that join do: the order changes no cost.
    """
    hidden = config.size("hidden_size")
    joining = Layer(None, Projection(name="h_proj", inputs=hidden, outputs=hidden), (norm("hnorm", hidden),))
    return [
        Layer(None, Projection(name="e_proj", inputs=hidden, outputs=hidden), (norm("enorm", hidden),)),
        joining,
        *[joining._replace(reused=True)] * (streams - 1),
        Layer(None, Projection(name="hc_head", inputs=streams * hidden, outputs=streams, bias=streams + 1), (norm("norm", hidden),)),
        layer,
    ]


def _hashed_layers(config: Config, count: int) -> int:
    """Return how many layers look experts up by token; they have the same matrices, and use as many experts."""
    kinds = config.items("mlp_layer_types", length=count)
    listed = config.size("num_hash_layers", default=0 if kinds is not None else 3, least=0)  # 3: DeepseekV4Config
    if kinds is None:
        return listed
    if any(kind not in ("hash_moe", "moe") for kind in kinds):
        raise ConfigError(f"{config.where}: 'mlp_layer_types' must hold 'hash_moe' or 'moe' for each layer.")
    return kinds.count("hash_moe")


def _kinds(config: Config, count: int, drafts: int) -> tuple[list[str], list[str]]:
    """Return the kind of attention of every layer, and of every multi-token-prediction layer."""
    kinds = config.items("layer_types", length=count)
    if kinds is not None:
        config.free("compress_ratios")
        if any(kind not in (_SLIDING, _SPARSE, _HEAVY) for kind in kinds):
            raise ConfigError(f"{config.where}: 'layer_types' must hold {', '.join(_KIND_OF_RATIO.values())}.")
        return kinds, [_SLIDING] * drafts
    ratios = config.items("compress_ratios")
    if ratios is None or len(ratios) not in (count, count + drafts) or any(ratio not in (0, 4, 128) for ratio in ratios):
        raise ConfigError(
            f"{config.where}: 'compress_ratios' must hold 0, 4 or 128 for each of {count} layers and {drafts} multi-token-prediction layers."
        )
    kinds = [_KIND_OF_RATIO[ratio] for ratio in ratios]
    return kinds[:count], (kinds[count:] or [_SLIDING] * drafts)


def _compressed(config: Config, kind: str) -> CompressedAttention:
    rates = config.nested("compress_rates") or Config({}, config.where)
    ratio = {_SLIDING: 0} | {kind: rates.size(kind, default=ratio) for ratio, kind in _KIND_OF_RATIO.items() if ratio}
    selects = kind == _SPARSE
    indexer = Indexer(heads=config.size("index_n_heads"), head_dim=config.size("index_head_dim"), top_k=config.size("index_topk"))
    head_dim = config.size("head_dim")
    return CompressedAttention(
        heads=config.size("num_attention_heads"),
        head_dim=head_dim,
        rope_dim=config.size("qk_rope_head_dim", default=head_dim // 8),  # an eighth: DeepseekV4Config.default_partial_rotary_factor
        q_lora_rank=config.size("q_lora_rank"),
        o_groups=config.size("o_groups"),
        o_lora_rank=config.size("o_lora_rank"),
        window=config.size("sliding_window"),
        ratio=ratio[kind],
        overlapping=selects,
        indexer=indexer if selects else None,
    )


@reads("minimax_m3", "minimax_m3_vl", "minimax_m3_vl_text")
def minimax_m3(config: Config) -> Model:
    """MiniMax-M3: grouped-query attention, to selected blocks after the first layers; experts there as well."""
    text, left_out = text_level(config)
    # of the vision tower and its projector
    config.free("img_token_compression_config", "process_image_mode", "merged_hidden_size", "spatial_merge_size", "temporal_patch_size")
    config.only("num_reward_heads", 0, means="a reward head")
    text.only("model_type", "minimax_m3", "minimax_m3_vl", "minimax_m3_vl_text", means="another text model")
    text.only("attention_output_gate", False, means="a gate on the output of attention")
    text.only("use_qk_norm", True, means="no norms on query and key heads")
    text.only("qk_norm_type", "per_head", means="norms over whole projections")
    text.only("n_shared_experts", 1, means="another width of the shared expert")
    text.free("use_gemma_norm", "use_routing_bias")  # a norm's offset, and a buffer that is added to scores
    count = text.size("num_hidden_layers")
    full, norms, nested = attention(text, qk_norm=True), layer_norms(text), text.nested("sparse_attention_config")
    selects = _block_sparse(text, nested, count)
    sparse = _blocks(text, nested, full) if any(selects) else full
    text.free(*(f"index_{what}" for what in ("block_size", "head_dim", "local_blocks", "n_heads", "topk_blocks")))  # of layers that select
    block = DenseFeedForward(intermediate=text.size("dense_intermediate_size"))
    width = text.size("intermediate_size")
    text.only("moe_intermediate_size", width, means="experts of another width than intermediate_size")
    experts = experts_of(text, intermediate=width, shared=DenseFeedForward(intermediate=text.size("shared_intermediate_size")))
    if text.size("num_mtp_modules", "num_nextn_predict_layers", default=0, least=0):
        left_out += ("the multi-token-prediction modules, of which no description is public",)
    return build_model(
        text,
        [
            Layer(sparse if selected else full, experts if mixed else block, norms)
            for selected, mixed in zip(selects, sparse_layers(text, count), strict=True)
        ],
        tied=False,
        path="model.layers.{layer}.{component}" if text is config else "language_model.model.layers.{layer}.{component}",
        renames=_M3_NAMES,
        not_modelled=left_out,
    )


def _block_sparse(config: Config, nested: Config | None, count: int) -> list[bool]:
    """Return which layers select blocks."""
    kinds = config.items("layer_types", length=count)
    if kinds is None and nested is not None and nested.flag("use_sparse_attention", default=True):
        listed = nested.items("sparse_attention_freq", length=count) or [0] * count
        kinds = ["minimax_m3_sparse" if sparse else "full_attention" for sparse in listed]
        values = nested.items("sparse_disable_index_value", length=count) or [1] * count
        if any(sparse and not disabled for sparse, disabled in zip(listed, values, strict=True)):
            raise ConfigError(f"{config.where}: 'sparse_disable_index_value' switches index values on; that is not modelled.")
    kinds = kinds or ["full_attention"] * count
    if any(kind not in ("minimax_m3_sparse", "full_attention") for kind in kinds):
        raise ConfigError(f"{config.where}: 'layer_types' must hold 'minimax_m3_sparse' or 'full_attention'.")
    return [kind == "minimax_m3_sparse" for kind in kinds]


def _blocks(config: Config, nested: Config | None, full: Attention) -> BlockSparseAttention:
    """Return attention to selected blocks, with the keys of published files (nested) or of transformers 5."""

    def size(flat: str, published: str) -> int:
        return config.size(flat) if nested is None else nested.size(published)

    if nested is not None:
        nested.only("sparse_score_type", "max", means="another score of a block than its best position's")
        nested.only("sparse_init_block", 0, means="blocks at the start that are always attended to")
        nested.free("use_sparse_attention", "sparse_attention_freq", "sparse_disable_index_value")  # what `layer_types` says wins
    size("index_local_blocks", "sparse_local_block")  # at least 1: a token's own block is among the selected
    return BlockSparseAttention(
        heads=full.heads,
        kv_heads=full.kv_heads,
        head_dim=full.head_dim,
        index_heads=size("index_n_heads", "sparse_num_index_heads"),
        index_dim=size("index_head_dim", "sparse_index_dim"),
        block=size("index_block_size", "sparse_block_size"),
        top_k=size("index_topk_blocks", "sparse_topk_blocks"),
    )
