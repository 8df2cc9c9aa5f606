"""Applying what a checkpoint says about its number formats: `quantization_config`, and ModelOpt's hf_quant_config.json.

Formats are settled matrix by matrix and layer by layer. Modules left alone come first, then formats by name, then the format of the
method for every matrix that quantization usually converts: not routers, embedding or norms, and the head only where a method says so.
"""

import json
import marshal
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from roofline.errors import ConfigError, UnsupportedModelError, quoted
from roofline.huggingface import schemes_transformers, schemes_weight_only  # noqa: F401
from roofline.huggingface.config import QUANTIZATION_KEYS, Config
from roofline.huggingface.module_names import Kind, Naming, Patterns
from roofline.huggingface.schemes import METHODS, Scheme
from roofline.huggingface.schemes_by_module import modelopt

*_KEYS, _SIBLING = QUANTIZATION_KEYS
_MLX = "quantization"
"""Where MLX describes number formats, and it alone; it repeats them where others do."""
_CACHE_KEYS = ("kv_cache_quant_algo", "kv_cache_scheme")


def _scheme_of(found: dict[str, Any], config: Config) -> Scheme:
    """Return the scheme of what a configuration says about its number formats."""
    level: Config | None = config
    while level is not None:
        level.free("expert_dtype")
        if "expert_dtype" in level:
            found.setdefault("expert_dtype", level.data["expert_dtype"])
        level = level.outer
    if any(found.get(key) for key in _KEYS) and _SIBLING in found:
        # config.json is the newer place and names formats per module; of the file beside it only the cache is wanted
        inside = found[_SIBLING].get("quantization")
        kept = {key: inside[key] for key in _CACHE_KEYS if key in inside} if isinstance(inside, Mapping) else {}
        found[_SIBLING] = {"quantization": {**kept, "quantized_layers": {}}}
    return _scheme(_packed(found, config.where), config.where)


def _packed(found: dict[str, Any], where: str) -> bytes:
    """Return what was found as bytes that are equal for equal content: version 2 depends on nothing else, and is quick."""
    try:
        return marshal.dumps(found, 2)
    except ValueError:
        pass
    try:
        return marshal.dumps(json.loads(json.dumps(found, default=dict)), 2)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: 'quantization_config' holds something that JSON does not know.") from None


@lru_cache(maxsize=256)
def _scheme(packed: bytes, where: str) -> Scheme:
    found: dict[str, Any] = marshal.loads(packed)
    own = next((key for key in _KEYS if found.get(key)), None)
    if own not in (None, _MLX) and found.get(_MLX, found[own]) != found[own]:
        raise ConfigError(f"{where}: {own!r} and {_MLX!r} say different things about the formats of the weights.")
    beside = found.get(_SIBLING)
    scheme = Scheme()
    if own is not None:
        scheme = _read(Config(found[own], f"{where}, {own!r}"), found.get("expert_dtype"))
    if beside:
        outer = Config(beside, f"{where}, hf_quant_config.json")
        outer.free("producer", "quant_method")
        inner = outer.nested("quantization")
        other = Scheme() if inner is None else modelopt(inner)
        outer.refuse_unread()
        scheme = other if own is None else scheme._replace(kv=scheme.kv or other.kv)
    return scheme


def _read(config: Config, expert_dtype: Any) -> Scheme:
    method = config.text("quant_method", default="modelopt" if "quant_algo" in config else "").lower().replace("_", "-")
    if not method and "bits" in config and "group_size" in config:
        method = "mlx"  # which writes no name
    if not method:
        raise ConfigError(
            f"{config.where} names no 'quant_method', and the keys there ({', '.join(map(str, config.data))[:80] or 'none'}) are no known "
            "tool's; what it does to the bytes of every weight is not known."
        )
    if method not in METHODS:
        raise UnsupportedModelError(
            f"{config.where}: quant_method {quoted(method)} is not modelled; it would change the bytes of every weight. "
            f"Supported: {', '.join(METHODS)}."
        )
    scheme = METHODS[method](config)
    if method == "fp8" and "quantized_layers" in config:
        # ModelOpt's re-quantized experts over a native fp8 checkpoint: its ignore list is about its own format only
        mixed = modelopt(config)
        scheme = scheme._replace(named=mixed.named, kv=mixed.kv)
    expert_dtype = expert_dtype or config.data.get("expert_dtype")
    config.free("expert_dtype")
    if expert_dtype is not None:
        if expert_dtype not in ("fp4", "fp8"):
            raise UnsupportedModelError(f"{config.where}: 'expert_dtype' is {quoted(expert_dtype)}; supported: 'fp4', 'fp8'.")
        # DeepSeek-V4: e2m1 with one ue8m0 scale per 32, multiplied with rows in fp8 (its inference code; vLLM DeepseekV4FP8Config)
        scheme = scheme._replace(experts="mxfp4_afp8" if expert_dtype == "fp4" else None)
    config.refuse_unread()
    return scheme


Formats = tuple[tuple[str, str], ...]
_Parts = tuple[tuple[str, bool], ...]


class Stack(NamedTuple):
    """The formats of a whole model."""

    layers: list[Formats]  # component and format of every layer
    mtp: list[Formats]
    outside: Formats  # component and format outside the layers
    kv: str | None  # format of the cache
    static: bool | None  # whether the scales of rows are stored
    dtype: str | None  # format of the rest, where the method fixes it
    unknown: tuple[str, ...]  # modules that are said to be left alone and that the description does not have
    left_out: tuple[str, ...]  # what is stored besides and not counted

    @property
    def quantizes(self) -> bool:
        """Whether anything in the layers is quantized."""
        return any(self.layers)


class Plan:
    """One scheme under the module names of one family.

    Parameters
    ----------
    scheme : Scheme
        The scheme [-].
    naming : Naming
        The names [-].
    """

    def __init__(self, scheme: Scheme, naming: Naming) -> None:
        self.scheme, self.naming = scheme, naming
        self.ignore = Patterns(scheme.ignore, naming, exact=scheme.exact)
        self.named = [(format, Patterns(modules, naming, exact=scheme.exact)) for format, modules in scheme.named]
        self._kinds: dict[_Parts, Kind] = {}
        self._memo: dict[object, Formats] = {}
        self._checked: dict[object, tuple[str, ...]] = {}

    def stack(self, layers: Sequence[_Parts], mtp: Sequence[_Parts], *, tied: bool, where: str) -> Stack:
        """Return the formats of a model."""
        inside = [self._layer(number, parts) for number, parts in enumerate(layers)]
        drafts, depth = [], 0
        for parts in mtp:
            aliases = (f"mtp.layers.{depth}", f"mtp.{depth}", "mtp")
            drafts.append(self._layer(len(layers) + depth, parts, aliases))
            depth += len(parts) > 1
        scheme, outside = self.scheme, self._outside(tied=tied)
        unknown = self._unknown((*set(layers), *set(mtp)), where)  # after all that the lists may name
        return Stack(inside, drafts, outside, scheme.kv, scheme.static, scheme.dtype, unknown, scheme.left_out)

    def _layer(self, number: int, parts: _Parts, aliases: tuple[str, ...] = ()) -> Formats:
        key = (number, parts, aliases)
        if key not in self._memo:
            if parts not in self._kinds:
                self._kinds[parts] = self.naming.kind(tuple(name for name, _ in parts))
            kind = self._kinds[parts]
            ignored = self.ignore.hits(number, kind, aliases)
            named = [(format, patterns.hits(number, kind, aliases)) for format, patterns in self.named]
            formats = []
            for name, usual in parts:
                format = next((f for f, hits in named if name in hits), None)
                if format is None and (usual or self.scheme.everything):
                    format = self._usual(name)
                if format is not None and name not in ignored:
                    formats.append((name, format))
            self._memo[key] = tuple(formats)
        return self._memo[key]

    def _usual(self, name: str) -> str | None:
        scheme, expert = self.scheme, name.startswith("mlp.experts.")
        if expert and scheme.experts is not None:
            return scheme.experts
        return scheme.default if expert or not scheme.only_experts else None

    def _outside(self, *, tied: bool) -> Formats:
        kind = self.naming.kind(_OUTSIDE)
        ignored = self.ignore.outside(kind)
        usual = _OUTSIDE if self.scheme.everything else ("lm_head",) if self.scheme.covers_head else ()
        formats = dict.fromkeys(usual, self.scheme.default)
        for format, patterns in reversed(self.named):
            formats |= dict.fromkeys(patterns.outside(kind), format)
        if tied:  # one tensor, stored as an embedding is
            formats = dict.fromkeys(_OUTSIDE, formats.get("embed_tokens") if "embed_tokens" not in ignored else None)
        return tuple((n, f) for n in _OUTSIDE if (f := formats.get(n)) and (tied or n not in ignored))

    def _unknown(self, kinds: tuple[_Parts, ...], where: str) -> tuple[str, ...]:
        key = frozenset(kinds)
        if key not in self._checked:
            for format, patterns in self.named:
                strange = [p for p in patterns.unused() if not _BESIDE.search(p)]
                if strange:
                    raise UnsupportedModelError(
                        f"{where}: 'quantization_config' gives {quoted(strange[0])} the format {format}, but no such module is known here; "
                        "its bytes would be counted wrongly."
                    )
            self._checked[key] = tuple(p for p in self.ignore.unused() if not _BESIDE.search(p))
        return self._checked[key]


_OUTSIDE = ("embed_tokens", "lm_head")

_BESIDE = re.compile(
    r"(^|[._*])(vision|visual|audio|video|image|mm_|multi_modal|patch|mtp|nextn|embed|draft|mlp1)|projector|norm|bias|conv|rotary|^(router|gate)\*?$"
)
"""Modules beside the text model, and those without matrices: that a list names them changes nothing here."""


@lru_cache(maxsize=256)
def _plan(scheme: Scheme, path: str, renames: tuple[tuple[str, str], ...]) -> Plan:
    return Plan(scheme, Naming(path, renames))


def plan_of(found: dict[str, Any], config: Config, path: str, renames: Mapping[str, str]) -> Plan:
    """Return the plan for what a configuration says about its number formats."""
    return _plan(_scheme_of(found, config), path, tuple(renames.items()))
