"""Encoders: every token sees every other, nothing is cached."""

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, build_model, norm
from roofline.huggingface.config import Config
from roofline.huggingface.registry import reads
from roofline.model import Attention, DenseFeedForward, Model


@reads("bert")
def bert(config: Config) -> Model:
    """BERT with its masked-language-model head (a dense transform before the tied projection)."""
    config.only("position_embedding_type", "absolute", means="relative positions, with tables in every layer")
    config.only("is_decoder", False, means="causal attention with a cache")
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    if hidden % heads:
        raise ConfigError(f"{config.where}: hidden size {hidden} is not a multiple of {heads} attention heads.")
    mixer = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        visible="bidirectional",
        query_bias=True,
        key_bias=True,
        value_bias=True,
        output_bias=True,
        rotary=False,
    )
    block = DenseFeedForward(intermediate=config.size("intermediate_size"), gated=False, bias=True)
    norms = (norm("attention_layernorm", hidden, bias=True), norm("output_layernorm", hidden, bias=True))
    return build_model(
        config,
        [Layer(mixer, block, norms)] * config.size("num_hidden_layers"),
        tied=True,
        final_norm=False,
        head_bias=True,
        head_transform=True,
        positions=config.size("max_position_embeddings"),
        token_types=config.size("type_vocab_size", default=2),
        embedding_norm=norm("embed_norm", hidden, bias=True),
    )
