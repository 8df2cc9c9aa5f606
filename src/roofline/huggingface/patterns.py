"""What readers share about the layers of a model: the norms around blocks, and patterns of full and windowed attention."""

from collections.abc import Mapping, Sequence

from roofline.errors import ConfigError, UnsupportedModelError, quoted
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


def layer_kinds(
    config: Config, otherwise: Sequence[str], *, known: tuple[str, ...] = (FULL, SLIDING), key: str = "layer_types"
) -> list[str]:
    """Return the kind of every layer, by default that of its attention."""
    kinds = [str(kind) for kind in config.items(key, length=len(otherwise)) or otherwise]
    unknown = sorted(set(kinds) - set(known))
    if unknown:
        raise ConfigError(f"{config.where}: {key!r} names {quoted(unknown[0])}; known: {', '.join(known)}.")
    return kinds


def full_every(count: int, step: int) -> list[str]:
    """Return the kinds of layers of which every `step`-th has full attention, the others a window."""
    return [SLIDING if (i + 1) % step else FULL for i in range(count)]


def overrides(config: Config, kinds: Sequence[str], kind: str) -> Config | None:
    """Return what `per_layer_config` says the layers of a kind have of their own, or None if there is no such key.

    transformers 5 writes there, by the number of the layer, what differs from the keys beside it.
    """
    table = config.nested("per_layer_config")
    if table is None or not table.data:
        return table
    layers = {str(i) for i, this in enumerate(kinds) if this == kind}
    own = list(table.data.values())
    if {str(key).lstrip("0") or "0" for key in table.data} != layers or any(values != own[0] for values in own):
        raise UnsupportedModelError(f"{table.where} does not say one and the same of every layer of {kind}, and of no other.")
    table.free(*table.data)
    return table.nested(next(iter(table.data)))


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
