"""Decoders of recurrent layers alone, or with windowed or full attention among them: Mamba, RecurrentGemma, MiniMax-Text."""

from roofline.errors import ConfigError, quoted
from roofline.huggingface.build import Layer, attention, build_model, head_dim, window_of
from roofline.huggingface.config import Config
from roofline.huggingface.mixtures import experts_of
from roofline.huggingface.patterns import PRE_NORMS, layer_norms
from roofline.huggingface.registry import reads
from roofline.model import RGLRU, DenseFeedForward, LightningAttention, Mamba1, Mamba2, Mixer, Model

BACKBONE = "backbone.layers.{layer}.{component}"
"""How checkpoints of the Mamba families call the modules of a layer."""

_FORMATS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def state_format(config: Config, *keys: str) -> str:
    """Return the format that the recurrent state is kept in: 32 bits unless a key says otherwise."""
    name = config.text(*keys, default="float32")
    if name not in _FORMATS:
        raise ConfigError(f"{config.where}: {keys[0]!r} is {quoted(name)}; it must be one of {', '.join(_FORMATS)}.")
    return _FORMATS[name]


def time_step_rank(config: Config, key: str) -> int:
    """Return the rank of Mamba's time-step projection: a sixteenth of the hidden size, rounded up, if "auto" or absent."""
    usual = -(-config.size("hidden_size") // 16)
    if config.data.get(key) == "auto":
        config.free(key)
        return usual
    return config.size(key, default=usual)


def free_of_time_steps(config: Config) -> None:
    """Note keys of the state-space families that are limits, initial values, or a choice between equal computations."""
    config.free(*(f"time_step_{which}" for which in ("min", "max", "floor", "limit", "scale", "init_scheme")))
    config.free("chunk_size", "mamba_chunk_size", "use_mamba_kernels", "use_mambapy", "use_associative_scan", "num_logits_to_keep")


def check_multiple(config: Config, number: int, what: str, of: int, whose: str) -> None:
    """Refuse a number that does not divide evenly."""
    if number % of:
        raise ConfigError(f"{config.where}: {number} {what} are not a multiple of {of} {whose}.")


def kinds_of(config: Config, count: int, known: dict[str, str], *keys: str) -> list[str] | None:
    """Return the kind of every layer from a list in the configuration, or None if there is none."""
    items = config.items(*keys, length=count)
    unknown = [item for item in items or () if not isinstance(item, str) or item not in known]
    if unknown:
        raise ConfigError(f"{config.where}: {keys[0]!r} names {quoted(unknown[0])}; known: {', '.join(known)}.")
    return None if items is None else [known[item] for item in items]


def _mamba_bookkeeping(config: Config, inner: int) -> None:
    """Read what files of the Mamba families say twice, or about kernels."""
    free_of_time_steps(config)
    config.free("fused_add_norm", "norm_before_gate", "mixer_rms_eps", "use_falcon_mambapy", "pad_vocab_size_multiple", "expand")
    for synonym, value in (("d_model", config.size("hidden_size")), ("n_layer", config.size("num_hidden_layers")), ("d_inner", inner)):
        config.only(synonym, value, means="a size that disagrees with its synonym")
    config.only("rms_norm", True, means="LayerNorm with shifts")


@reads("mamba", "falcon_mamba")
def mamba(config: Config) -> Model:
    """Mamba, and Falcon-Mamba, whose norms inside the mixer have no weights."""
    inner = config.size("intermediate_size", default=config.size("expand", default=2) * config.size("hidden_size"))
    _mamba_bookkeeping(config, inner)
    mixer = Mamba1(
        inner=inner,
        state=config.size("state_size"),
        dt_rank=time_step_rank(config, "time_step_rank"),
        conv_kernel=config.size("conv_kernel"),
        conv_bias=config.flag("use_conv_bias", default=True),
        projection_bias=config.flag("use_bias", default=False),
    )
    layers = [Layer(mixer, None, layer_norms(config, ("input_layernorm",)))] * config.size("num_hidden_layers")
    return build_model(config, layers, tied=True, path=BACKBONE, renames={"input_layernorm": "norm"})


@reads("mamba2")
def mamba2(config: Config) -> Model:
    """Mamba-2."""
    heads, width = config.size("num_heads"), config.size("head_dim")
    inner = config.size("intermediate_size", default=config.size("expand", default=2) * config.size("hidden_size"))
    if heads * width != inner:
        raise ConfigError(f"{config.where}: {heads} heads of {width} are not the {inner} channels that the expansion asks for.")
    check_multiple(config, heads, "heads", config.size("n_groups"), "groups")
    _mamba_bookkeeping(config, inner)
    config.free("time_step_rank")
    mixer = Mamba2(
        heads=heads,
        head_dim=width,
        state=config.size("state_size"),
        groups=config.size("n_groups"),
        conv_kernel=config.size("conv_kernel"),
        conv_bias=config.flag("use_conv_bias", default=True),
        projection_bias=config.flag("use_bias", default=False),
    )
    layers = [Layer(mixer, None, layer_norms(config, ("input_layernorm",)))] * config.size("num_hidden_layers")
    return build_model(config, layers, tied=False, path=BACKBONE, renames={"input_layernorm": "norm"})


@reads("recurrent_gemma")
def recurrent_gemma(config: Config) -> Model:
    """RecurrentGemma (Griffin): two recurrent layers, then one of windowed attention; biases in all but queries, keys, values."""
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    config.free("embeddings_scale_by_sqrt_dim", "w_init_variance_scale", "final_w_init_variance_scale")
    if head_dim(config, heads) * heads != hidden:
        raise ConfigError(f"{config.where}: 'head_dim' is {config.data['head_dim']}, but this family splits the hidden size among heads.")
    bias = config.flag("attention_bias", default=False)
    window = config.size("attention_window_size", "sliding_window", default=2048)
    width = config.size("lru_width", default=hidden)
    check_multiple(config, width, "channels of the recurrence", heads, "heads")
    taps = config.size("conv1d_width", default=4)
    recurrent = RGLRU(
        width=width, heads=heads, conv_kernel=taps, conv_state_width=taps - 1, conv_bias=True, prefix="temporal_block"
    )  # RecurrentGemmaRecurrentBlock keeps one column fewer than the other families
    mixers: dict[str, Mixer] = {"recurrent": recurrent, "attention": attention(config, window=window, qkv_bias=bias, output_bias=True)}
    pattern = config.items("block_types", "_block_types") or ["recurrent", "recurrent", "attention"]
    if any(not isinstance(kind, str) or kind not in mixers for kind in pattern):
        raise ConfigError(f"{config.where}: 'block_types' is {quoted(pattern)}; known: recurrent, attention.")
    # RecurrentGemmaMlp halves the configured size
    block = DenseFeedForward(intermediate=config.size("intermediate_size", least=2) // 2, bias=True)
    norms = layer_norms(config, ("temporal_pre_norm", "channel_pre_norm"))
    layers = [Layer(mixers[pattern[i % len(pattern)]], block, norms) for i in range(config.size("num_hidden_layers"))]
    return build_model(config, layers, tied=True, renames={"self_attn.": "temporal_block.", "mlp.": "mlp_block."})


@reads("minimax")
def minimax(config: Config) -> Model:
    """MiniMax-Text-01: lightning attention, every eighth layer softmax attention, experts everywhere."""
    count, heads = config.size("num_hidden_layers"), config.size("num_attention_heads")
    config.free("block_size", *(f"{what}_{which}_factor" for what in ("full_attn", "linear_attn", "mlp") for which in ("alpha", "beta")))
    mixers: dict[str, Mixer] = {
        "linear": LightningAttention(heads=heads, head_dim=head_dim(config, heads), prefix="self_attn", state_format="bf16"),
        "full": attention(config, window=window_of(config)),
    }
    kinds = kinds_of(config, count, {"linear_attention": "linear", "full_attention": "full"}, "layer_types")
    if kinds is None:
        kinds = ["linear" if i % 2 else "full" for i in range(count)]  # default of MiniMaxConfig
    experts = experts_of(config, intermediate=config.size("intermediate_size"))
    layers = [Layer(mixers[kind], experts, layer_norms(config, PRE_NORMS)) for kind in kinds]
    return build_model(config, layers, tied=False, renames={"mlp.": "block_sparse_moe."})
