"""Encoder-decoders of which some layers have experts instead of a dense block: NLLB-MoE and Switch Transformers."""

from collections.abc import Sequence
from itertools import groupby

from roofline.huggingface.config import Config
from roofline.huggingface.encoder_decoders import bart, four_tables, t5
from roofline.huggingface.registry import reads
from roofline.model import DenseFeedForward, Experts, LayerGroup, Model


@reads("nllb-moe")
def nllb_moe(config: Config) -> Model:
    """NLLB-MoE: M2M-100 with experts in every fourth layer of each stack, two for a token (arXiv 2207.04672, section 6.1)."""
    steps = [config.size(f"{stack}_sparse_step", default=4, least=0) for stack in ("encoder", "decoder")]
    config.only("second_expert_policy", "all", means="a second expert for some tokens only")
    config.free("normalize_router_prob_before_dropping", "batch_prioritized_routing", "moe_eval_capacity_token_fraction")
    return _with_experts(bart(config), config, top_k=2, sparse=[(max(step, 1), step - 1) for step in steps])


@reads("switch_transformers")
def switch_transformers(config: Config) -> Model:
    """Switch Transformers: T5 with experts in every second layer or so of each stack, one for a token (arXiv 2101.03961)."""
    encoders = config.size("num_layers")
    steps = []
    for stack, layers in (("encoder", encoders), ("decoder", config.size("num_decoder_layers", default=encoders))):
        experts = config.size(f"num_sparse_{stack}_layers", default=3, least=0)
        steps.append(config.size(f"{stack}_sparse_step", default=layers // experts if experts else layers, least=0))
    config.only("feed_forward_proj", "relu", means="another block")
    config.free("add_router_probs")
    model = t5(config)
    model = model if model.head is None or model.head.tied else four_tables(model)
    return _with_experts(model, config, top_k=1, sparse=[(step, 1 % step) if step else (1, -1) for step in steps])


def _with_experts(model: Model, config: Config, *, top_k: int, sparse: Sequence[tuple[int, int]]) -> Model:
    """Return a model of dense layers with experts as wide as its blocks in some of each stack: `sparse` says of how many layers which one, from 0."""
    count, bias = config.size("num_experts"), config.flag("router_bias", default=False)
    config.free("expert_capacity", "router_dtype", "router_ignore_padding_tokens")

    def mixed(groups: Sequence[LayerGroup], every: int, place: int) -> tuple[LayerGroup, ...]:
        layers = [group.but(count=1) for group in groups for _ in range(group.count)]
        for i, layer in enumerate(layers):
            block = layer.feed_forward
            if isinstance(block, DenseFeedForward) and i % every == place:
                experts = Experts(
                    count=count, top_k=top_k, intermediate=block.intermediate, gated=block.gated, bias=block.bias, router_bias=bias
                )
                layers[i] = layer.but(feed_forward=experts)
        return tuple(layer.but(count=len(list(run))) for layer, run in groupby(layers))

    encodes, decodes = sparse
    encoder = model.encoder and model.encoder.but(layers=mixed(model.encoder.layers, *encodes))
    return model.but(layers=mixed(model.layers, *decodes), encoder=encoder)
