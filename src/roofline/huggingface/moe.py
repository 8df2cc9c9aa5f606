"""Mixtures of experts: the keys that families share, under all their synonyms, and the readers of the plainest ones."""

from typing import Any

from roofline.errors import ConfigError, UnsupportedModelError
from roofline.huggingface.build import Layer, attention, build_model, dense, norm, window_of
from roofline.huggingface.config import Config
from roofline.huggingface.llama import layer_norms, whole_norms
from roofline.huggingface.registry import reads
from roofline.model import DenseFeedForward, Experts, Model, Projection

_COUNT = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_k", "top_k_experts", "moe_top_k", "moe_topk")
_WIDTH = ("moe_intermediate_size", "expert_intermediate_size")
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")


def _agreed(config: Config, keys: tuple[str, ...], **limits: int) -> int:
    """Return the size under the first of several synonyms, and refuse others that say something else."""
    for key in keys:
        if key in config and config.size(key, **limits) != config.size(*keys, **limits):
            raise ConfigError(f"{config.where}: {key!r} is {config.data[key]}, but a synonym of it is {config.size(*keys, **limits)}.")
    return config.size(*keys, **limits)


def experts_of(config: Config, *, intermediate: int | None = None, **options: Any) -> Experts:
    """Return a mixture of experts from the keys that families share.

    Read are the number of experts (``num_experts``, ``num_local_experts``, ``n_routed_experts``, ``moe_num_experts``), of visits
    (``num_experts_per_tok``, ``num_experts_per_token``, ``experts_per_token``, ``moe_k``, ``top_k_experts``, ``moe_top_k``,
    ``moe_topk``), the width of an expert (``moe_intermediate_size``, ``expert_intermediate_size``) and the number of shared experts
    (``n_shared_experts``, ``num_shared_experts``, ``moe_num_shared_experts``), which become one block of so many times that width.
    Scoring, grouping and scaling of the router are free keys. The correction of the scores per expert (`correction_bias`) is a buffer in most reference
    implementations, so it is no parameter unless the reader says so.
    """
    width = intermediate or _agreed(config, _WIDTH)
    if "shared" not in options:
        shared = _agreed(config, _SHARED, default=0, least=0)
        block = DenseFeedForward(intermediate=shared * width, gated=options.get("gated", True)) if shared else None
        options["shared"] = block
    return Experts(count=_agreed(config, _COUNT), top_k=_agreed(config, _TOP_K), intermediate=width, **options)


def sparse_layers(config: Config, count: int, *, first: int = 0) -> list[bool]:
    """Return which layers are mixtures: all from ``first_k_dense_replace`` on, of those every ``moe_layer_freq``-th.

    ``moe_layer_freq`` may also be a list with 0 (dense) or 1 per layer, and ``mlp_layer_types`` (transformers 5) one of
    ``dense`` and ``sparse`` per layer; a list wins, and must agree with ``first_k_dense_replace`` where both stand.
    """
    first = config.size("first_k_dense_replace", default=first, least=0)
    listed: list[bool] | None = None
    for key, no, yes in (("moe_layer_freq", 0, 1), ("mlp_layer_types", "dense", "sparse")):
        if isinstance(config.data.get(key), list):
            items = config.items(key, length=count) or []
            if any(item not in (no, yes) for item in items):
                raise ConfigError(f"{config.where}: {key!r} must hold {no!r} or {yes!r} for each layer.")
            here = [item == yes for item in items]
            if listed not in (None, here):
                raise ConfigError(f"{config.where}: 'moe_layer_freq' and 'mlp_layer_types' name different layers.")
            listed = here
    if listed is None:
        every = config.size("moe_layer_freq", default=1)
        return [i >= first and i % every == 0 for i in range(count)]
    if "first_k_dense_replace" in config and listed != [i >= first for i in range(count)]:
        raise ConfigError(f"{config.where}: 'first_k_dense_replace' is {first}, but the list per layer says otherwise.")
    return listed


def joining_layer(config: Config, *, name: str = "eh_proj", head_norm: bool = True) -> Layer:
    """Return the layer that joins an embedded token with a hidden state before a multi-token-prediction layer.

    Two norms, one for each, then a matrix 2·hidden → hidden, as in arXiv 2412.19437, section 2.2. The head is the model's own.
    """
    hidden = config.size("hidden_size")
    names = ("enorm", "hnorm", "shared_head.norm") if head_norm else ("enorm", "hnorm")
    norms = tuple(norm(which, hidden) for which in names)
    return Layer(None, Projection(name=name, inputs=2 * hidden, outputs=hidden), norms)


def mtp_layers(config: Config, block: Layer, *keys: str, **options: Any) -> list[Layer]:
    """Return multi-token-prediction layers: for each a joining layer, and a layer like those of the model."""
    return [joining_layer(config, **options), block] * config.size(*(keys or ("num_nextn_predict_layers",)), default=0, least=0)


@reads("mixtral")
def mixtral(config: Config) -> Model:
    """Mixtral: Mistral with experts in every layer."""
    experts = experts_of(config, intermediate=config.size("intermediate_size"))
    layer = Layer(attention(config, window=window_of(config)), experts, layer_norms(config))
    renames = {"mlp.": "block_sparse_moe."}
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False, renames=renames)


@reads("olmoe")
def olmoe(config: Config) -> Model:
    """OLMoE: norms over whole queries and keys, experts in every layer."""
    config.free("clip_qkv")  # a clamp
    bias = config.flag("attention_bias", default=False)
    experts = experts_of(config, intermediate=config.size("intermediate_size"))
    layer = Layer(whole_norms(attention(config, qkv_bias=bias, output_bias=bias)), experts, layer_norms(config))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False)


@reads("phimoe")
def phimoe(config: Config) -> Model:
    """Phi-3.5-MoE: LayerNorm with shifts, biases on attention and head."""
    bias = config.flag("attention_bias", default=False)
    experts = experts_of(config, intermediate=config.size("intermediate_size"))
    mixer = attention(config, window=window_of(config), qkv_bias=bias, output_bias=bias)
    layers = [Layer(mixer, experts, layer_norms(config, bias=True))] * config.size("num_hidden_layers")
    head_bias = config.flag("lm_head_bias", default=False)
    return build_model(config, layers, tied=False, norm_bias=True, head_bias=head_bias, renames={"mlp.": "block_sparse_moe."})


@reads("granitemoe")
def granitemoe(config: Config) -> Model:
    """Granite 3 MoE: Granite with experts in every layer."""
    bias = config.flag("attention_bias", default=False)
    experts = experts_of(config, intermediate=config.size("intermediate_size"))
    layer = Layer(attention(config, qkv_bias=bias, output_bias=bias), experts, layer_norms(config))
    renames = {"mlp.gate": "block_sparse_moe.router.layer", "mlp.": "block_sparse_moe."}
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False, renames=renames)


@reads("glm4_moe")
def glm4_moe(config: Config) -> Model:
    """GLM-4.5 and 4.6: the first layers dense, shared experts, biases on queries, keys and values."""
    qk_norm = config.flag("use_qk_norm", default=False)
    mixer = attention(config, qk_norm=qk_norm, qkv_bias=config.flag("attention_bias", default=False))
    sparse = sparse_layers(config, config.size("num_hidden_layers"), first=1)  # Glm4MoeConfig
    norms = layer_norms(config)
    block, plain = Layer(mixer, experts_of(config), norms), Layer(mixer, dense(config), norms)
    layers = [block if mixture else plain for mixture in sparse]
    return build_model(config, layers, tied=False, mtp=mtp_layers(config, block))


@reads("ernie4_5_moe")
def ernie_moe(config: Config) -> Model:
    """ERNIE 4.5 with experts in a range of layers; the correction of the router's scores is a parameter."""
    config.only("use_bias", False, means="biases everywhere")
    config.free("moe_capacity", "moe_gate", "moe_use_aux_free")  # training
    count, start = config.size("num_hidden_layers"), config.size("moe_layer_start_index", default=1, least=0)
    end = config.size("moe_layer_end_index", default=-1, least=-1) % count  # -1 is the last
    step = config.size("moe_layer_interval", default=1)
    mixer, norms = attention(config), layer_norms(config)
    block, plain = Layer(mixer, experts_of(config, correction_bias=True), norms), Layer(mixer, dense(config), norms)
    layers = [block if start <= i <= end and (i + 1) % step == 0 else plain for i in range(count)]
    # dense, and without a norm before the head: ErnieMultiTokenPredictorLayer of vLLM
    drafts = mtp_layers(config, plain, name="mtp_linear_proj", head_norm=False)
    return build_model(config, layers, tied=True, mtp=drafts)


@reads("minimax_m2")
def minimax_m2(config: Config) -> Model:
    """MiniMax-M2: norms over whole queries and keys, experts in every layer."""
    config.only("use_qk_norm", True, means="no norms on queries and keys")
    config.only("qk_norm_type", "per_layer", means="norms on something else than whole queries and keys")
    config.only("shared_intermediate_size", 0, means="a shared expert")
    config.only("mtp_transformer_layers", 1, means="multi-token-prediction modules of several layers")
    config.free("use_routing_bias")  # a correction of scores, no parameter in MiniMaxM2SparseMoeBlock
    # left over from MiniMax-Text-01: factors on residuals, and a dense width that no layer has
    config.free("layernorm_full_attention_beta", "layernorm_linear_attention_beta", "layernorm_mlp_beta")
    config.free("mlp_intermediate_size", "shared_moe_mode")
    count = config.size("num_hidden_layers")
    if any(kind != 1 for kind in config.items("attn_type_list", length=count) or ()):
        raise UnsupportedModelError(f"{config.where}: 'attn_type_list' has layers of another kind than 1, softmax attention.")
    mixer = whole_norms(attention(config))
    block = Layer(mixer, experts_of(config, intermediate=config.size("intermediate_size")), layer_norms(config))
    drafts = mtp_layers(config, block, "num_mtp_modules")
    mtp = drafts if config.flag("use_mtp", default=False) else []
    return build_model(config, [block] * count, tied=False, mtp=mtp, renames={"mlp.": "block_sparse_moe."})
