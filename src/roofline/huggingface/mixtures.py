"""What readers share about mixtures of experts: their keys under all synonyms, which layers have them, draft layers."""

from typing import Any

from roofline.errors import ConfigError, quoted
from roofline.huggingface.build import Layer, norm
from roofline.huggingface.config import Config
from roofline.model import DenseFeedForward, Experts, Projection

_COUNT = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_k", "top_k_experts", "moe_top_k", "moe_topk")
_WIDTH = ("moe_intermediate_size", "expert_intermediate_size")
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")


def _agreed(config: Config, keys: tuple[str, ...], **limits: int) -> int:
    """Return the size under the first of several synonyms, and refuse others that say something else."""
    for key in keys:
        if key in config and config.size(key, **limits) != config.size(*keys, **limits):
            raise ConfigError(
                f"{config.where}: {key!r} is {quoted(config.data[key])}, but a synonym of it is {config.size(*keys, **limits)}."
            )
    return config.size(*keys, **limits)


def experts_of(config: Config, *, intermediate: int | None = None, **options: Any) -> Experts:
    """Return a mixture of experts from the keys that families share.

    Read are the number of experts (``num_experts``, ``num_local_experts``, ``n_routed_experts``, ``moe_num_experts``), of visits
    (``num_experts_per_tok``, ``num_experts_per_token``, ``experts_per_token``, ``moe_k``, ``top_k_experts``, ``moe_top_k``,
    ``moe_topk``), the width of an expert (``moe_intermediate_size``, ``expert_intermediate_size``) and the number of shared experts
    (``n_shared_experts``, ``num_shared_experts``, ``moe_num_shared_experts``), which become one block of so many times that width.
    Scoring, grouping and scaling of the router are free keys. The correction of the scores per expert (`correction_bias`) is a buffer in most reference
    implementations, so it is no parameter unless the reader says so.
    """
    width = intermediate or _agreed(config, _WIDTH)
    if "shared" not in options:
        shared = _agreed(config, _SHARED, default=0, least=0)
        block = DenseFeedForward(intermediate=shared * width, gated=options.get("gated", True)) if shared else None
        options["shared"] = block
    return Experts(count=_agreed(config, _COUNT), top_k=_agreed(config, _TOP_K), intermediate=width, **options)


def sparse_layers(config: Config, count: int, *, first: int = 0) -> list[bool]:
    """Return which layers are mixtures: all from ``first_k_dense_replace`` on, of those every ``moe_layer_freq``-th.

    ``moe_layer_freq`` may also be a list with 0 (dense) or 1 per layer, and ``mlp_layer_types`` (transformers 5) one of
    ``dense`` and ``sparse`` per layer; a list wins, and must agree with ``first_k_dense_replace`` where both stand.
    """
    first = config.size("first_k_dense_replace", default=first, least=0)
    listed: list[bool] | None = None
    for key, no, yes in (("moe_layer_freq", 0, 1), ("mlp_layer_types", "dense", "sparse")):
        if isinstance(config.data.get(key), list):
            items = config.items(key, length=count) or []
            if any(item not in (no, yes) for item in items):
                raise ConfigError(f"{config.where}: {key!r} must hold {no!r} or {yes!r} for each layer.")
            here = [item == yes for item in items]
            if listed not in (None, here):
                raise ConfigError(f"{config.where}: 'moe_layer_freq' and 'mlp_layer_types' name different layers.")
            listed = here
    if listed is None:
        every = config.size("moe_layer_freq", default=1)
        return [i >= first and i % every == 0 for i in range(count)]
    if not isinstance(config.data.get("moe_layer_freq"), list):
        config.only("moe_layer_freq", 1, means="other layers than 'mlp_layer_types' names")
    if "first_k_dense_replace" in config and listed != [i >= first for i in range(count)]:
        raise ConfigError(f"{config.where}: 'first_k_dense_replace' is {first}, but the list per layer says otherwise.")
    return listed


def joining_layer(config: Config, *, name: str = "eh_proj", head_norm: bool = True) -> Layer:
    """Return the layer that joins an embedded token with a hidden state before a multi-token-prediction layer.

    Two norms, one for each, then a matrix 2·hidden → hidden, as in arXiv 2412.19437, section 2.2. The head is the model's own.
    """
    hidden = config.size("hidden_size")
    names = ("enorm", "hnorm", "shared_head.norm") if head_norm else ("enorm", "hnorm")
    norms = tuple(norm(which, hidden) for which in names)
    return Layer(None, Projection(name=name, inputs=2 * hidden, outputs=hidden), norms)


def mtp_layers(config: Config, block: Layer, *keys: str, **options: Any) -> list[Layer]:
    """Return multi-token-prediction layers: for each a joining layer, and a layer like those of the model."""
    return [joining_layer(config, **options), block] * config.size(*(keys or ("num_nextn_predict_layers",)), default=0, least=0)
