"""LFM2: short convolutions, attention in the layers between them; from 8B-A1B on with experts. LFM3 has windows, too."""

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, attention, build_model
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of
from roofline.huggingface.patterns import FULL, SLIDING, layer_kinds, layer_norms, mixers_of
from roofline.huggingface.recurrent import kinds_of
from roofline.huggingface.registry import reads
from roofline.model import DenseFeedForward, FeedForward, Mixer, Model, ShortConvolution

_RENAMES = {
    "self_attn.o_proj": "self_attn.out_proj",
    "mlp.gate": "feed_forward.gate",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.": "feed_forward.",
}


@reads("lfm2")
def lfm2(config: Config) -> Model:
    """LFM2: a gated feed-forward, whose width follows from `intermediate_size` as in Llama 1 unless told otherwise."""
    return _lfm2(config, [DenseFeedForward(intermediate=_adjusted(config))] * config.size("num_hidden_layers"))


@reads("lfm2_moe")
def lfm2_moe(config: Config) -> Model:
    """LFM2 with experts after the first layers."""
    count, first = config.size("num_hidden_layers"), config.size("num_dense_layers", default=2, least=0)
    config.free("use_expert_bias")  # a correction of scores, no parameter in Lfm2MoeSparseMoeBlock
    wide, experts = DenseFeedForward(intermediate=config.size("intermediate_size")), experts_of(config)
    return _lfm2(config, [wide if i < first else experts for i in range(count)])


def _adjusted(config: Config) -> int:
    """Return the width of the feed-forward: two thirds, times a factor, rounded up, as in Lfm2MLP."""
    width = config.size("block_ff_dim", "intermediate_size", default=12_288)
    config.only("intermediate_size", width, means="another width than 'block_ff_dim' says")
    unit, times = config.size("block_multiple_of", default=256), config.data.get("block_ffn_dim_multiplier", 1.0)
    config.free("block_ffn_dim_multiplier")
    if not config.flag("block_auto_adjust_ff_dim", default=True):
        return width
    width = 2 * width // 3
    if times is None:
        return width
    if isinstance(times, bool) or not isinstance(times, (int, float)) or not 0 < times < 1000:
        raise ConfigError(f"{config.where}: 'block_ffn_dim_multiplier' must be a positive number.")
    return unit * -(-int(times * width) // unit)


def _lfm2(config: Config, blocks: list[FeedForward]) -> Model:
    config.free(
        "block_use_swiglu", "block_use_xavier_init", "use_pos_enc", "conv_use_xavier_init", "block_norm_eps", "block_mlp_init_scale"
    )
    config.free("block_out_init_scale", "conv_dim_out", "theta", "full_attn_idxs")
    hidden, bias = config.size("hidden_size"), config.flag("conv_bias", default=False)
    for synonym in ("block_dim", "conv_dim"):
        config.only(synonym, hidden, means="a width that disagrees with 'hidden_size'")
    config.only("num_heads", config.size("num_attention_heads"), means="heads that disagree with 'num_attention_heads'")
    mixers: dict[str, Mixer] = {
        "conv": ShortConvolution(
            width=hidden, conv_kernel=config.size("conv_L_cache", default=3), conv_bias=bias, projection_bias=bias, prefix="conv"
        ),
        "full": attention(config, qk_norm=True),
    }
    count = len(blocks)
    kinds = kinds_of(config, count, {"conv": "conv", "full_attention": "full"}, "layer_types")
    if kinds is None:
        attends = config.items("full_attn_idxs") or range(count)  # Lfm2Config
        kinds = ["full" if i in attends else "conv" for i in range(count)]
    norms = layer_norms(config, ("operator_norm", "ffn_norm"))
    layers = [Layer(mixers[kind], block, norms) for kind, block in zip(kinds, blocks, strict=True)]
    tied = config.flag("tie_embedding", default=True)
    return build_model(config, layers, tied=tied, renames=_RENAMES)


@reads("lfm3")
def lfm3(config: Config) -> Model:
    """LFM3: windows on every second layer of attention, a gate for every head, norms on both sides of each block."""
    hidden, count, bias = config.size("hidden_size"), config.size("num_hidden_layers"), config.flag("attention_bias", default=False)
    shift = config.flag("conv_bias", default=False)
    usual = ["conv" if i % 2 or not i else FULL if i % 4 else SLIDING for i in range(count)]  # Lfm3Config
    kinds = layer_kinds(config, usual, known=("conv", FULL, SLIDING))
    gate = config.flag("use_attention_gate", default=True)
    window = config.size("sliding_window", default=256)
    found = mixers_of(config, window, qkv_bias=bias, output_bias=bias, qk_norm=True)
    mixers: dict[str, Mixer] = {kind: mixer.but(head_gate=gate) for kind, mixer in found.items()}
    taps = config.size("conv_L_cache", default=7)
    mixers["conv"] = ShortConvolution(width=hidden, conv_kernel=taps, conv_bias=shift, projection_bias=shift, prefix="conv")
    after = ("post_operator_norm", "post_ffn_norm") if config.flag("use_sandwich_norm", default=True) else ()
    norms, block = (
        layer_norms(config, ("operator_norm", "ffn_norm", *after)),
        DenseFeedForward(intermediate=config.size("intermediate_size")),
    )
    return build_model(config, [Layer(mixers[kind], block, norms) for kind in kinds], tied=True, renames=_RENAMES)
