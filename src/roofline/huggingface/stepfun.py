"""Step 3.5 and 3.7 Flash: windows on three layers of four, a gate per head, and a mixture of experts with a shared one."""

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, attention, build_model, dense, text_level
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, joining_layer, sparse_layers
from roofline.huggingface.patterns import FULL, SLIDING, layer_kinds, layer_norms, overrides
from roofline.huggingface.registry import reads
from roofline.model import Attention, DenseFeedForward, Model

_RENAMES = {
    "mlp.gate": "moe.gate",
    "mlp.experts.": "moe.",
    "mlp.shared_experts.": "share_expert.",
}


@reads("step3p7", "step3p5")
def step(config: Config) -> Model:
    """Step 3.5 and 3.7 Flash; layers that `layer_types` names beyond the last are those of multi-token prediction."""
    text, left_out = text_level(config, tied_by="wrapper")
    _fixed(text)
    count = text.size("num_hidden_layers")
    kinds, later = _kinds(text, count)
    mixers = {FULL: _mixer(text), SLIDING: _windowed(text, _mixer(text), kinds, later)}
    shared = DenseFeedForward(intermediate=text.size("share_expert_dim", "share_expert_dims", default=1280))  # Step3p7TextConfig
    text.only("n_shared_experts", 1, means="several shared experts")
    experts, wide, norms = experts_of(text, shared=shared), dense(text), layer_norms(text)
    sparse = _sparse(text, count)
    layers = [Layer(mixers[kind], experts if mixture else wide, norms) for kind, mixture in zip(kinds, sparse, strict=True)]
    drafts = [
        part
        for kind, mixture in zip(later, _sparse_drafts(text, len(later)), strict=True)
        for part in (joining_layer(text), Layer(mixers[kind], experts if mixture else wide, norms))
    ]
    if SLIDING in kinds and not any(key in text for key in ("num_sliding_attention_heads", "attention_other_setting", "per_layer_config")):
        left_out = (*left_out, "query heads of the windowed layers, if they are not num_attention_heads: no key names them")
    return build_model(text, layers, tied=False, mtp=drafts, renames=_RENAMES, not_modelled=left_out)


def _fixed(text: Config) -> None:
    """Refuse what the family's switches could change, and pass over what does not change the cost."""
    text.assume(head_dim=128)
    text.only("att_impl_type", "GQA", means="another attention")
    text.only("use_head_wise_attn_gate", True, means="no gate per head")
    text.only("use_moe", True, means="no experts")
    text.only("moe_every_n_layer", 1, means="experts in every n-th layer")
    text.only("attention_bias", False, means="biases on the projections")
    text.only("mlp_bias", False, means="biases on the feed-forward")
    text.free("use_moe_router_bias", "need_fp32_gate", "moe_router_activation", "norm_expert_weight", "zero_centered")
    text.free("swiglu_limits", "swiglu_limits_shared", "yarn_only_types", "use_rope_layers", "partial_rotary_factors", "max_seq_len")
    text.free("use_qk_norm")  # Step3p7Attention always has both norms


def _kinds(text: Config, count: int) -> tuple[list[str], list[str]]:
    """Return the attention of each layer, and of each multi-token-prediction layer."""
    listed = text.items("layer_types")
    further = text.size("num_nextn_predict_layers", default=0, least=0)
    if listed is not None and len(listed) == count + further:
        kinds = layer_kinds(text, [FULL] * len(listed))
        return kinds[:count], kinds[count:]
    usual = [SLIDING] * further  # the next three of a pattern that begins with full attention
    return layer_kinds(text, [FULL] * count), layer_kinds(text, usual, key="mtp_layer_types")


def _sparse_drafts(text: Config, further: int) -> list[bool]:
    """Return which multi-token-prediction layers are mixtures: none, unless transformers 5 wrote otherwise."""
    kinds = layer_kinds(text, ["dense"] * further, known=("dense", "sparse"), key="mtp_mlp_layer_types")
    return [kind == "sparse" for kind in kinds]


def _mixer(text: Config) -> Attention:
    groups = text.size("num_key_value_heads", "num_attention_groups")
    text.assume(num_key_value_heads=groups)
    return attention(text, qk_norm=True).but(head_gate=True)


def _windowed(text: Config, whole: Attention, kinds: list[str], later: list[str]) -> Attention:
    """Attention of windowed layers, which may have more query heads."""
    if SLIDING not in (*kinds, *later):
        text.free("num_sliding_attention_heads", "attention_other_setting", "sliding_window")
        return whole  # which no layer asks for
    own, other = overrides(text, kinds, SLIDING), text.nested("attention_other_setting")
    heads = text.size("num_sliding_attention_heads", default=0, least=0) or whole.heads
    if own is not None:
        heads = own.size("num_attention_heads", default=whole.heads)
        text.only("num_sliding_attention_heads", heads, means="other heads than 'per_layer_config' says")
    if other is not None:
        heads = other.size("num_attention_heads", default=heads)
        other.only("num_attention_groups", whole.kv_heads, means="other key-value heads in windowed layers")
        other.only("head_dim", whole.head_dim, means="another head size in windowed layers")
        other.only("attention_type", SLIDING, means="settings of other layers")
        other.free("true_head_dim")
    return whole.but(heads=heads, visible="window", span=text.size("sliding_window"))


def _sparse(text: Config, count: int) -> list[bool]:
    if "first_k_dense_replace" in text or "mlp_layer_types" in text:
        return sparse_layers(text, count)
    listed = text.data.get("moe_layers_enum")
    numbers = text.text("moe_layers_enum", default="").split(",") if isinstance(listed, str) else text.items("moe_layers_enum")
    try:
        mixtures = set(range(3, count)) if numbers is None else {int(n) for n in numbers}  # Step3p7TextConfig: from the fourth on
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{text.where}: 'moe_layers_enum' must hold numbers of layers.") from None
    return [i in mixtures for i in range(count)]
