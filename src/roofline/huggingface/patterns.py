"""What readers share about the layers of a model: the norms around blocks, and patterns of full and windowed attention."""

from collections.abc import Mapping, Sequence

from roofline.errors import ConfigError
from roofline.huggingface.build import Layer, attention, norm
from roofline.huggingface.config import Config
from roofline.model import Attention, FeedForward, Norm

PRE_NORMS = ("input_layernorm", "post_attention_layernorm")
POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
SANDWICH_NORMS = (*PRE_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")


def layer_norms(config: Config, names: tuple[str, ...] = PRE_NORMS, *, bias: bool = False) -> tuple[Norm, ...]:
    """Return norms over the residual stream."""
    hidden = config.size("hidden_size")
    return tuple(norm(name, hidden, bias=bias) for name in names)


def whole_norms(mixer: Attention) -> Attention:
    """Return the mixer with norms over all queries together and over all keys together."""
    widths = {"query_norm": ("q", mixer.heads), "key_norm": ("k", mixer.kv_heads)}
    return mixer.but(**{field: norm(f"self_attn.{letter}_norm", heads * mixer.head_dim) for field, (letter, heads) in widths.items()})


FULL, SLIDING = "full_attention", "sliding_attention"


def layer_kinds(config: Config, otherwise: Sequence[str], *, known: tuple[str, ...] = (FULL, SLIDING)) -> list[str]:
    """Return the kind of attention of every layer."""
    kinds = [str(kind) for kind in config.items("layer_types", length=len(otherwise)) or otherwise]
    unknown = sorted(set(kinds) - set(known))
    if unknown:
        raise ConfigError(f"{config.where}: 'layer_types' names {', '.join(unknown)}; known: {', '.join(known)}.")
    return kinds


def full_every(count: int, step: int) -> list[str]:
    """Return the kinds of layers of which every `step`-th has full attention, the others a window."""
    return [SLIDING if (i + 1) % step else FULL for i in range(count)]


def mixers_of(config: Config, window: int, **options: bool) -> dict[str, Attention]:
    """Return attention by kind of layer: full, and sliding if there is a window."""
    full = {FULL: attention(config, **options)}
    return full | {SLIDING: attention(config, window=window, **options)} if window else full


def patterned(
    config: Config, kinds: Sequence[str], mixers: Mapping[str, Attention], norms: tuple[Norm, ...], block: FeedForward
) -> list[Layer]:
    """Return layers that differ in their attention only."""
    missing = sorted(set(kinds) - set(mixers))
    if missing:
        raise ConfigError(f"{config.where}: there are layers of {', '.join(missing)}, but no window is in force.")
    return [Layer(mixers[kind], block, norms) for kind in kinds]
