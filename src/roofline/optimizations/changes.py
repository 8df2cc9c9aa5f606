"""Changed machines and changed models: the specs that levers evaluate in place of the given ones."""

from collections.abc import Callable
from typing import Any

from roofline.errors import InvalidValueError, quoted
from roofline.hardware import Hardware
from roofline.model import Attention, BlockSparseAttention, CrossAttention, LatentAttention, LayerGroup, Model

_FMA = ("vector_fma_per_clock_per_unit", "matrix_fma_per_clock_per_unit")


def scaled(hardware: Hardware, what: str, factor: float = 2) -> Hardware:
    """Return a machine with one of its figures multiplied, and nothing else changed.

    Examples
    --------
    >>> scaled(Hardware.load("h100-sxm"), "FLOP/s").ridge("bf16") / Hardware.load("h100-sxm").ridge("bf16")
    2.0
    """
    parts = {
        "memory bandwidth": ("memory", ("bandwidth_bytes_per_s",)),
        "FLOP/s": (
            "compute",
            ("vector_flops_per_s", "fp64_vector_flops_per_s", "matrix_flops_per_s", "matrix_flops_per_s_fp16_accumulate"),
        ),
        "memory capacity": ("memory", ("capacity_bytes", "labelled_bytes")),
        "link bandwidth": ("scale_up", ("bandwidth_bytes_per_s", "pair_bandwidth_bytes_per_s")),
    }
    if what not in parts:
        raise InvalidValueError(f"what is {quoted(what)}; it must be one of {', '.join(parts)}.")
    section, names = parts[what]
    part: Any = getattr(hardware, section)
    changed = {name: _times(getattr(part, name), factor) for name in names} if part is not None else {}
    if not any(_known(value) for value in changed.values()):
        raise InvalidValueError(f"{hardware.id}: its spec gives no {what}.")
    note = f"{factor:g} × the figure of {hardware.id}"
    changed |= {"evidence": "U", "source": f"{note}: {part.source}"}
    label = f"{factor:g} × the {what}"
    named: dict[str, Any] = {"id": f"{hardware.id} with {label}", "name": f"{hardware.name} with {label}", "aliases": ()}
    if what == "FLOP/s" and hardware.units is not None:  # the peak also follows from the units
        fma = {name: _times(getattr(hardware.units, name), factor) for name in _FMA}
        named["units"] = hardware.units.but(**fma)
    return hardware.but(**{section: part.but(**changed)}, **named)


def _times(value: Any, factor: float) -> Any:
    if value is None:
        return None
    if isinstance(value, int):
        return int(value * factor)
    if isinstance(value, float):
        return value * factor
    return value.but(**{name: _times(rate, factor) for name, rate in value.to_dict().items()})


def _known(value: Any) -> bool:
    return isinstance(value, (int, float)) or (value is not None and any(v is not None for v in value.to_dict().values()))


def _with_mixers(model: Model, name: str, change: Callable[[LayerGroup], LayerGroup], refusal: str) -> Model:
    layers = tuple(change(group) for group in model.layers)
    if layers == model.layers:
        raise InvalidValueError(f"{model.name}: {refusal}.")
    return model.but(name=f"{model.name} {name}", source=f"{model.source}, changed", layers=layers)


def _of_mixers(change: Callable[[Any], Any]) -> Callable[[LayerGroup], LayerGroup]:
    """Return the change of a layer that changes its mixer, and the attention to the sequence itself beside that to a source."""

    def of_layer(group: LayerGroup) -> LayerGroup:
        mixer: Any = group.mixer
        if isinstance(mixer, CrossAttention):
            mixer = mixer.but(own=change(mixer.own))
        return group.but(mixer=change(mixer))

    return of_layer


def half_kv_heads(model: Model) -> Model:
    """Return a model with half the key-value heads in every attention layer that has an even number of them.

    References
    ----------
    Ainslie et al., "GQA", arXiv 2305.13245, section 2.2.
    """

    def change(mixer: Any) -> Any:
        if not isinstance(mixer, (Attention, BlockSparseAttention, CrossAttention)) or not mixer.keeps() or mixer.kv_heads % 2:
            return mixer
        return mixer.but(kv_heads=mixer.kv_heads // 2)

    return _with_mixers(model, "with half the KV heads", _of_mixers(change), "no layer caches an even number of KV heads")


def latent_cache(model: Model) -> Model:
    """Return a model whose full attention caches one latent row per token, sized as DeepSeek-V2 sizes it, where that is smaller.

    The latent has 4 head widths and the rotated key half a head width, shared by all heads.

    References
    ----------
    DeepSeek-V2, arXiv 2405.04434, section 2.1; the two sizes are those of its comparison of caches, table 1.
    """

    def change(group: LayerGroup) -> LayerGroup:
        old = group.mixer
        if not isinstance(old, Attention) or old.visible != "causal" or old.head_dim < 2 or old.routed:
            return group
        new = LatentAttention(
            heads=old.heads,
            q_lora_rank=None,
            kv_lora_rank=4 * old.head_dim,
            nope_dim=old.head_dim,
            rope_dim=old.head_dim // 2,
            v_head_dim=old.value_dim,
        )
        if new.cache_elements_per_token >= old.cache_elements_per_token:
            return group
        stored = dict(group.formats)
        own = stored.get("self_attn.k_proj")
        names = ("self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj")
        formats = tuple((stored | dict.fromkeys(names, own)).items()) if own else group.formats
        return group.but(mixer=new, formats=formats)

    return _with_mixers(
        model, "with a latent KV cache", change, "no layer of self-attention alone has a cache that would be smaller as a latent"
    )


def windowed(model: Model, window: int) -> Model:
    """Return a model whose full attention sees a sliding window only."""

    def change(mixer: Any) -> Any:
        if not isinstance(mixer, Attention) or mixer.visible != "causal":
            return mixer
        return mixer.but(visible="window", span=window)

    return _with_mixers(model, f"with a window of {window}", _of_mixers(change), "no layer has full attention over keys and values")
