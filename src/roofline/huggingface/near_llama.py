"""Dense decoders that are Llama but for a detail: Arcee, Apertus, Helium, Hunyuan, Nemotron, EXAONE 3, OLMo 1, InternLM and others."""

from typing import Any

from roofline.huggingface.build import Layer, attention, build_model, dense, norm
from roofline.huggingface.config import Config
from roofline.huggingface.patterns import FULL, PRE_NORMS, SLIDING, layer_kinds, layer_norms, mixers_of, patterned
from roofline.huggingface.registry import reads
from roofline.model import DenseFeedForward, Model, Norm


def _alike(
    config: Config, norms: tuple[Norm, ...], block: DenseFeedForward, *, tied: bool = False, qk_norm: bool = False, **build: Any
) -> Model:
    """Return a model of equal layers, one switch for the biases of attention."""
    bias = config.flag("attention_bias", default=False)
    layer = Layer(attention(config, qkv_bias=bias, output_bias=bias, qk_norm=qk_norm), block, norms)
    return build_model(config, [layer] * config.size("num_hidden_layers", "num_layers"), tied=tied, **build)


@reads("arcee")
def arcee(config: Config) -> Model:
    """Arcee AFM: Llama with a feed-forward without gate."""
    config.only("hidden_act", "relu2", means="another activation, perhaps one with a gate")
    return _alike(config, layer_norms(config), dense(config, gated=False, bias=config.flag("mlp_bias", default=False)))


@reads("apertus", "apertus1p5_text")
def apertus(config: Config) -> Model:
    """Apertus: norms on query and key heads; no gate, but an activation with two learned numbers per layer."""
    config.only("qk_norm", True, means="no norms on query and key heads")
    config.only("post_norm", False, means="norms after each block")
    config.only("mlp_bias", False, means="biases on the feed-forward")
    learned = 2 if config.text("hidden_act", default="xielu") == "xielu" else 0  # XIELUActivation
    norms = layer_norms(config, ("attention_layernorm", "feedforward_layernorm"))
    return _alike(config, norms, dense(config, gated=False).but(activation_parameters=learned), qk_norm=True)


@reads("helium")
def helium(config: Config) -> Model:
    """Helium: Llama, whose output projection has no bias."""
    config.assume(head_dim=128)  # HeliumConfig
    config.only(
        "head_dim", config.size("hidden_size") // config.size("num_attention_heads"), means="heads that are not as wide as the stream"
    )
    layer = Layer(
        attention(config, qkv_bias=config.flag("attention_bias", default=False)),
        dense(config, bias=config.flag("mlp_bias", default=False)),
        layer_norms(config),
    )
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False)


@reads("nemotron")
def nemotron(config: Config) -> Model:
    """Nemotron 4 and Minitron: LayerNorm with shifts, a feed-forward without gate."""
    config.only("hidden_act", "relu2", means="another activation, perhaps one with a gate")
    block = dense(config, gated=False, bias=config.flag("mlp_bias", default=False))
    return _alike(config, layer_norms(config, bias=True), block, norm_bias=True)


@reads("exaone")
def exaone(config: Config) -> Model:
    """EXAONE 3 and 3.5: Llama under names of its own."""
    return _alike(
        config, layer_norms(config), dense(config, bias=config.flag("mlp_bias", default=False)), path=_EXAONE_PATH, renames=_EXAONE
    )


_EXAONE_PATH = "transformer.h.{layer}.{component}"
_EXAONE = {
    "self_attn.": "attn.attention.",
    "self_attn.o_proj": "attn.attention.out_proj",
    "mlp.gate_proj": "mlp.c_fc_0",
    "mlp.up_proj": "mlp.c_fc_1",
    "mlp.down_proj": "mlp.c_proj",
}


@reads("minicpm")
def minicpm(config: Config) -> Model:
    """MiniCPM 1, 2 and 4: Llama with scales on embedding, residuals and logits."""
    config.only("sparse_config", means="attention to selected blocks")
    config.free("scale_emb", "scale_depth", "dim_model_base", "mup_denominator")  # factors
    return _alike(config, layer_norms(config), dense(config), tied=True)


@reads("olmo")
def olmo(config: Config) -> Model:
    """OLMo 1: norms without parameters."""
    config.free("clip_qkv")  # a clamp
    norms = tuple(Norm(name=name, width=config.size("hidden_size"), parameters=0) for name in PRE_NORMS)
    model = _alike(config, norms, dense(config))
    return model.but(final_norm=Norm(name="norm", width=model.hidden_size, parameters=0))


@reads("hunyuan_v1_dense")
def hunyuan(config: Config) -> Model:
    """Hunyuan, dense: Llama with norms on query and key heads."""
    hunyuan_switches(config)
    return _alike(config, layer_norms(config), dense(config, bias=config.flag("mlp_bias", default=False)), qk_norm=True)


def hunyuan_switches(config: Config) -> None:
    """Refuse what the family's switches could change."""
    config.only("use_qk_norm", True, means="no norms on query and key heads")
    config.only("qk_norm", True, means="no norms on query and key heads")
    config.only("use_cla", False, means="layers that share their keys and values")
    config.only("use_mla", False, means="latent attention")
    config.only("norm_type", "rms", means="norms with shifts")
    config.only("add_classification_head", False, means="a head for classes")
    config.only("attention_head_dim", attention(config).head_dim, means="another head size")
    config.free("org_vocab_size", "cla_share_factor", "class_num", "pool_type", "num_media_embeds", "use_rotary_pos_emb", "dense_list")
    config.free("mask_init_id", "pad_id", *(f"{what}_{end}_id" for what in ("im", "text") for end in ("start", "end", "newline")))
    config.free(
        "eod_token_id", "position_embedding_xdrope", "kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"
    )


@reads("internlm2", "internlm3")
def internlm(config: Config) -> Model:
    """InternLM 2, 2.5 and 3: Llama, two of whose switches for biases have names of their own."""
    bias = config.flag("attention_bias", "bias", default=False)
    config.only("bias", bias, means="other biases than 'attention_bias' says")
    mixer = attention(config, qkv_bias=config.flag("qkv_bias", default=bias), output_bias=bias)
    layer = Layer(mixer, dense(config, bias=config.flag("mlp_bias", default=bias)), layer_norms(config))
    return build_model(config, [layer] * config.size("num_hidden_layers"), tied=False)


@reads("cwm")
def cwm(config: Config) -> Model:
    """CWM: Llama with windows on three layers of four."""
    count = config.size("num_hidden_layers")
    kinds = layer_kinds(config, [SLIDING if i % 4 else FULL for i in range(count)])
    mixers = mixers_of(config, config.size("sliding_window", default=8192))
    block = dense(config, bias=config.flag("mlp_bias", default=False))
    return build_model(config, patterned(config, kinds, mixers, layer_norms(config), block), tied=False)


@reads("jais2")
def jais2(config: Config) -> Model:
    """Jais 2: LayerNorm with shifts, biases, a feed-forward without gate."""
    config.assume(attention_bias=True, mlp_bias=True)  # Jais2Config
    block = dense(config, gated=False, bias=config.flag("mlp_bias", default=True))
    return _alike(config, layer_norms(config, bias=True), block, norm_bias=True)


@reads("hyperclovax")
def hyperclovax(config: Config) -> Model:
    """HyperCLOVA X SEED: Granite, with norms after each block as well."""
    after = ("post_norm1", "post_norm2") if config.flag("use_post_norm", default=True) else ()
    block = dense(config, bias=config.flag("mlp_bias", default=False))
    return _alike(config, layer_norms(config, (*PRE_NORMS, *after)), block)


@reads("bitnet")
def bitnet(config: Config) -> Model:
    """BitNet b1.58: Llama with norms before the projections back."""
    inner = (norm("self_attn.attn_sub_norm", config.size("hidden_size")), norm("mlp.ffn_sub_norm", config.size("intermediate_size")))
    return _alike(config, (*layer_norms(config), *inner), dense(config))


@reads("nanochat")
def nanochat(config: Config) -> Model:
    """nanochat: norms without parameters, on query and key heads too and on the embedding, a feed-forward without gate."""
    bias, hidden = config.flag("attention_bias", default=False), config.size("hidden_size")
    mixer = attention(config, qkv_bias=bias, output_bias=bias)
    bare = {f"{name}_norm": Norm(name=f"self_attn.{name[0]}_norm", width=mixer.head_dim, parameters=0) for name in ("query", "key")}
    plain = [Norm(name=name, width=hidden, parameters=0) for name in (*PRE_NORMS, "norm", "embed_norm")]
    layer = Layer(mixer.but(**bare), dense(config, gated=False), tuple(plain[:2]))
    model = build_model(config, [layer] * config.size("num_hidden_layers"), tied=False, embedding_norm=plain[3])
    return model.but(final_norm=plain[2])
