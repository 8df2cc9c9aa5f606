"""Mixtures of experts of which most layers see a window: Command A+, Granite with windows, Mellum 2, Kolibri, Flint, Lara."""

from collections.abc import Mapping, Sequence
from typing import Any

from roofline.huggingface.build import Layer, build_model, dense
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of, sparse_layers
from roofline.huggingface.patterns import FULL, PRE_NORMS, SLIDING, full_every, layer_kinds, layer_norms, mixers_of
from roofline.huggingface.qwen import sparse_steps
from roofline.huggingface.recurrent import check_multiple
from roofline.huggingface.registry import reads
from roofline.model import DenseFeedForward, Experts, FeedForward, GatedDeltaNet, Mixer, Model


def _layers(
    config: Config, kinds: Sequence[str], mixers: Mapping[str, Mixer], blocks: Sequence[FeedForward], names: tuple[str, ...] = PRE_NORMS
) -> list[Layer]:
    """Return layers, each with the mixer of its kind and a block of its own."""
    norms = layer_norms(config, names)
    return [Layer(mixers[kind], block, norms) for kind, block in zip(kinds, blocks, strict=True)]


def _mixers(config: Config, *, window: int, **options: bool) -> dict[str, Mixer]:
    bias = config.flag("attention_bias", default=False)
    found = mixers_of(config, config.size("sliding_window", default=window), qkv_bias=bias, output_bias=bias, **options)
    return dict(found)


@reads("cohere2_moe")
def cohere2_moe(config: Config) -> Model:
    """Command A+: Command A with experts, the first layers dense and of a width of their own; one norm before both blocks."""
    config.free("expert_selection_fn", "shared_expert_combination_strategy")
    count, step = config.size("num_hidden_layers"), config.size("sliding_window_pattern", default=4)
    first, own = config.size("first_k_dense_replace", default=0, least=0), config.size("prefix_dense_sliding_window_pattern", default=1)
    kinds = layer_kinds(config, [*full_every(first, own), *full_every(count - first, step)])
    sparse = sparse_layers(config, count)
    experts = experts_of(config, intermediate=config.size("intermediate_size"))
    config.assume(num_shared_experts=0, head_dim=128)  # Cohere2MoeConfig
    wide = config.size("prefix_dense_intermediate_size", default=0, least=0)
    blocks = [experts if here else DenseFeedForward(intermediate=wide) for here in sparse]
    layers = [layer._replace(side_by_side=True) for layer in _layers(config, kinds, _mixers(config, window=4096), blocks, PRE_NORMS[:1])]
    return build_model(config, layers, tied=True)


@reads("granite_swa", "granitemoe_swa")
def granite_swa(config: Config) -> Model:
    """Granite with windows on three layers of four and a sink for every head; dense, or with experts beside a shared block."""
    config.free("layer_rope_theta")
    count = config.size("num_hidden_layers")
    kinds = layer_kinds(config, [SLIDING if i % 4 else FULL for i in range(count)])
    mixers: dict[str, Mixer] = {kind: mixer.but(sinks=True) for kind, mixer in _mixers(config, window=128).items()}
    if config.text("model_type", default="") == "granite_swa":
        return build_model(
            config, _layers(config, kinds, mixers, [dense(config, bias=config.flag("mlp_bias", default=False))] * count), tied=True
        )
    width = config.size("shared_intermediate_size", default=0, least=0)
    experts = experts_of(
        config, intermediate=config.size("intermediate_size"), shared=DenseFeedForward(intermediate=width) if width else None
    )
    renames = {"mlp.gate": "block_sparse_moe.router.layer", "mlp.shared_experts.": "shared_mlp.", "mlp.": "block_sparse_moe."}
    return build_model(config, _layers(config, kinds, mixers, [experts] * count), tied=False, renames=renames)


@reads("mellum")
def mellum(config: Config) -> Model:
    """Mellum 2: Qwen3-MoE with windows on the layers that `layer_types` names."""
    config.only("num_nextn_predict_layers", 0, means="multi-token-prediction layers")
    config.only("num_mtp_layers", 0, means="multi-token-prediction layers")
    count = config.size("num_hidden_layers")
    kinds, sparse = layer_kinds(config, [FULL] * count), sparse_layers(config, count)
    experts = experts_of(config)
    blocks: list[FeedForward] = [experts if here else dense(config) for here in sparse]
    config.free("intermediate_size")  # of the dense layers, if there are any
    return build_model(config, _layers(config, kinds, _mixers(config, window=1024, qk_norm=True), blocks), tied=False)


@reads("kolibri1")
def kolibri1(config: Config) -> Model:
    """Kolibri 1: norms on both sides of each block and on query and key heads, a shared expert, windows on four layers of five."""
    config.only("attention_bias", False, means="biases on the projections")
    count = config.size("num_hidden_layers")
    kinds = layer_kinds(config, full_every(count, 5))
    shared = DenseFeedForward(intermediate=config.size("shared_expert_intermediate_size"))
    names = ("input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm")
    layers = _layers(config, kinds, _mixers(config, window=513, qk_norm=True), [experts_of(config, shared=shared)] * count, names)
    return build_model(config, layers, tied=False)


def _beside_shared(config: Config) -> Experts:
    """Return experts beside a shared one of a width of its own, without a gate."""
    return experts_of(config, shared=DenseFeedForward(intermediate=config.size("shared_expert_intermediate_size")))


_SHARED: dict[str, Any] = {"renames": {"mlp.shared_experts.": "mlp.shared_expert."}}


@reads("flint")
def flint(config: Config) -> Model:
    """Flint: sinks and norms on query and key heads, windows on three layers of four, a shared expert after the first layers."""
    count = config.size("num_hidden_layers")
    kinds = layer_kinds(config, [FULL if i < 2 or i % 4 == 1 or i == count - 1 else SLIDING for i in range(count)])
    config.assume(mlp_only_layers=[0, 1])  # FlintConfig
    experts, plain = _beside_shared(config), dense(config)
    mixers: dict[str, Mixer] = {kind: mixer.but(sinks=True) for kind, mixer in _mixers(config, window=513, qk_norm=True).items()}
    blocks: list[FeedForward] = [experts if here else plain for here in sparse_steps(config, count)]
    return build_model(config, _layers(config, kinds, mixers, blocks), tied=False, **_SHARED)


@reads("lara_mini")
def lara_mini(config: Config) -> Model:
    """Lara 4 Mini: gated delta nets, windows and full attention without rotation; experts beside a shared one in every layer."""
    count, linear = config.size("num_hidden_layers"), "linear_attention"
    usual = (linear, SLIDING, linear, FULL, SLIDING)
    kinds = layer_kinds(config, [usual[i % len(usual)] for i in range(count)], known=(FULL, SLIDING, linear))
    keys, values = config.size("linear_num_key_heads"), config.size("linear_num_value_heads")
    check_multiple(config, values, "value heads", keys, "key heads")
    mixers = _mixers(config, window=512, qk_norm=True)
    mixers[FULL] = mixers[FULL].but(rotary=False)
    mixers[linear] = GatedDeltaNet(
        key_heads=keys,
        value_heads=values,
        key_dim=config.size("linear_key_head_dim"),
        value_dim=config.size("linear_value_head_dim"),
        conv_kernel=config.size("linear_conv_kernel_dim", default=4),
        prefix="linear_attn",
    )
    return build_model(config, _layers(config, kinds, mixers, [_beside_shared(config)] * count), tied=True, **_SHARED)
