"""The plainest mixtures of experts: Mixtral, OLMoE, Phi-3.5-MoE, Granite, GLM-4.5, ERNIE 4.5, MiniMax-M2."""

from roofline.errors import UnsupportedModelError
from roofline.huggingface.build import Layer, attention, build_model, dense, window_of
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, mtp_layers, sparse_layers
from roofline.huggingface.patterns import POST_NORMS, layer_norms, whole_norms
from roofline.huggingface.registry import reads
from roofline.model import DenseFeedForward, Model


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
    config.only("shared_intermediate_size", 0, means="a shared block")
    return _granitemoe(config)


@reads("granitemoeshared")
def granitemoeshared(config: Config) -> Model:
    """Granite 3 MoE with a shared block of a width of its own."""
    return _granitemoe(config)


def _granitemoe(config: Config) -> Model:
    bias, width = config.flag("attention_bias", default=False), config.size("shared_intermediate_size", default=0, least=0)
    shared = DenseFeedForward(intermediate=width) if width else None
    experts = experts_of(config, intermediate=config.size("intermediate_size"), shared=shared)
    layer = Layer(attention(config, qkv_bias=bias, output_bias=bias), experts, layer_norms(config))
    renames = {"mlp.gate": "block_sparse_moe.router.layer", "mlp.shared_experts.": "shared_mlp.", "mlp.": "block_sparse_moe."}
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False, renames=renames)


@reads("flex_olmo")
def flex_olmo(config: Config) -> Model:
    """FlexOlmo: OLMoE with norms after each block."""
    bias = config.flag("attention_bias", default=False)
    experts = experts_of(config, intermediate=config.size("intermediate_size"))
    layer = Layer(whole_norms(attention(config, qkv_bias=bias, output_bias=bias)), experts, layer_norms(config, POST_NORMS))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False)


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
    config.assume(moe_num_shared_experts=2)  # Ernie4_5_MoeConfig
    count, start = config.size("num_hidden_layers"), config.size("moe_layer_start_index", default=1, least=0)
    end = config.size("moe_layer_end_index", default=-1, least=-1)
    end = count - 1 if end == -1 else end
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
