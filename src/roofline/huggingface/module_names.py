"""What checkpoints call the matrices of a model, and which of them a list of names, wildcards or regular expressions means."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from roofline.errors import ConfigError

_OUTER = frozenset(["model", "language_model", "text_model", "backbone", "transformer", "gpt_neox", "decoder", "module", "llm"])
"""Names of the modules that a text model may be wrapped in: a pattern means the same with them and without."""

FUSED: dict[str, tuple[str, ...]] = {
    # modules that some implementations make of several, and the spellings of others, by the last part of our name
    "q_proj": ("qkv_proj",),
    "k_proj": ("qkv_proj",),
    "v_proj": ("qkv_proj",),
    "gate_proj": ("gate_up_proj", "w1"),
    "up_proj": ("gate_up_proj", "w3"),
    "down_proj": ("w2",),
    "q_a_proj": ("fused_qkv_a_proj", "fused_qkv_a_proj_with_mqa"),
    "kv_a_proj_with_mqa": ("fused_qkv_a_proj", "fused_qkv_a_proj_with_mqa"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_qkv": ("in_proj_qkvz",),
    "in_proj_z": ("in_proj_qkvz",),
    "lm_head": ("head",),
}
_SPELLINGS = (
    ("shared_experts", "shared_expert"),
    ("indexer.weights_proj", "indexers_proj"),
    ("indexer.q_proj", "index_q_proj"),
    ("indexer.k_proj", "index_k_proj"),
)
_EXPERT = re.compile(r"(experts\.)(?!\d)")


class Kind(NamedTuple):
    """The matrices of one kind of layer."""

    components: tuple[str, ...]  # our names
    own: tuple[str, ...]  # of each, what checkpoints of its family call it inside its layer, the first of several experts
    # of each, fused modules that it is part of, and what other implementations call it; they count for patterns that mean nothing by the
    # names above
    other: tuple[tuple[str, ...], ...]


class Naming:
    """How the checkpoints of one family name modules.

    Parameters
    ----------
    path : str
        Name of a module, with ``{layer}`` and ``{component}`` [-].
    renames : tuple of (str, str)
        Prefix of our component name to prefix of theirs, whole parts only [-].
    """

    def __init__(self, path: str, renames: tuple[tuple[str, str], ...]) -> None:
        before, _, after = path.partition("{layer}.")
        self.inner = after.removesuffix("{component}")
        outer, _, last = before.rstrip(".").rpartition(".")
        self.outer = f"{outer}." if outer else ""
        self.stem = f"{last}."
        self.renames = sorted(renames, key=lambda pair: -len(pair[0]))
        self._numbered = re.compile(rf"(?:([\w.]+)\.)?{re.escape(self.stem)}(\d+)(\*?)(?:\.(.*))?")

    def _renamed(self, component: str) -> str:
        for ours, theirs in self.renames:
            if component == ours or (component.startswith(ours) and (ours.endswith(".") or component[len(ours)] == ".")):
                return theirs + component[len(ours) :]
        return component

    def kind(self, components: tuple[str, ...]) -> Kind:
        """Return the names that the matrices of a layer have in checkpoints."""
        names = [self._names(c) for c in components]
        return Kind(components, tuple(own for own, *_ in names), tuple(tuple(other) for _, *other in names))

    def _names(self, component: str) -> tuple[str, ...]:
        name = self._renamed(component)
        parent, _, last = name.rpartition(".")
        spelled = [name, *(f"{parent}.{other}".lstrip(".") for other in FUSED.get(last, ()))]
        for here, there in _SPELLINGS:
            spelled += [s.replace(here, there) for s in spelled if here in s]
        if _EXPERT.search(f"{name}"):
            # one expert stands for all; the parent is the module where implementations keep all of them in one tensor
            spelled = [*(_EXPERT.sub(r"\g<1>0.", s) for s in spelled), *spelled, parent]
        return tuple(dict.fromkeys(self.inner + s for s in spelled))

    def split(self, pattern: str) -> tuple[str, bool, str] | None:
        """Return the layer of a pattern that names one, whether a wildcard follows its number, and the pattern inside the layer."""
        match = self._numbered.fullmatch(pattern)
        if match is None or not _OUTER.issuperset((match[1] or "model").split(".")):
            return None
        return match[2], bool(match[3]), match[4] or ""


def without_outer(pattern: str) -> str:
    """Return the name of a module without those that the text model may be wrapped in."""
    parts = pattern.split(".")
    while len(parts) > 1 and parts[0] in _OUTER:
        parts.pop(0)
    return ".".join(parts)


_NONE: frozenset[str] = frozenset()


@lru_cache(maxsize=4096)
def _wildcard(pattern: str) -> re.Pattern[str]:
    """Compile a shell-style pattern; what it names it names with everything below."""
    return re.compile(fnmatch.translate(pattern)[: -len(r"\Z")] + r"(\..*)?")


@lru_cache(maxsize=4096)
def _regex(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"'quantization_config' names modules by {pattern[:80]!r}, which is no regular expression: {error}.") from None


def _is_wildcard(pattern: str) -> bool:
    return not _WILD.isdisjoint(pattern)


_WILD = frozenset("*?[")


class Patterns:
    """A list of module names, wildcards (``*``) and regular expressions (``re:…``), sorted for quick answers.

    Parameters
    ----------
    patterns : iterable of str
        The list as published [-].
    naming : Naming
        How the family names modules [-].
    exact : bool, optional
        Whether a plain name means that module only, not everything below it [-].
    """

    def __init__(self, patterns: Iterable[str], naming: Naming, *, exact: bool = False) -> None:
        self.naming, self.exact = naming, exact
        by_layer: dict[int, set[str]] = {}
        self.starting: list[tuple[str, str]] = []
        self.general: list[str] = []
        for pattern in dict.fromkeys(patterns):
            inside = naming.split(pattern)
            if inside is None:
                regex = pattern.startswith("re:") or "\\" in pattern  # transformers reads its lists as expressions without a mark
                self.general.append(f"re:{pattern.removeprefix('re:')}" if regex else without_outer(pattern))
            elif inside[1]:
                self.starting.append((inside[0], inside[2] or "*"))
            else:
                by_layer.setdefault(int(inside[0]), set()).add(inside[2])
        self.varies = [p for p in self.general if self._varies(p)]
        self.constant = [p for p in self.general if not self._varies(p)]
        self.by_layer = {layer: frozenset(inside) for layer, inside in by_layer.items()}
        self.used: set[str] = set()
        self._memo: dict[object, frozenset[str]] = {}

    def _varies(self, pattern: str) -> bool:
        """Whether a pattern may name a module in one layer and not in another."""
        stem = self.naming.stem.rstrip(".")
        return re.search(r"[0-9\[?]|\\d", pattern) is not None or (pattern.startswith("re:") and stem in pattern)

    def hits(self, layer: int, kind: Kind, aliases: Sequence[str] = ()) -> frozenset[str]:
        """Return the components of a layer that the list names."""
        starting = {rest for digits, rest in self.starting if str(layer).startswith(digits)}
        local = frozenset(self.by_layer.get(layer, _NONE) | starting) if starting else self.by_layer.get(layer, _NONE)
        found = self._local(local, kind) if local else frozenset()
        for patterns, number in ((self.constant, 0 if not aliases else layer), (self.varies, layer)):
            if patterns:
                key = (id(patterns), number, kind.components, *aliases)
                if key not in self._memo:
                    self._memo[key] = self._anywhere(patterns, layer, kind, aliases)
                found |= self._memo[key]
        return found

    def _local(self, patterns: frozenset[str], kind: Kind) -> frozenset[str]:
        key = (patterns, kind.components)
        if key not in self._memo:
            self._memo[key] = self._select(patterns, kind, self._inside)
        return self._memo[key]

    def _select(self, patterns: Iterable[str], kind: Kind, means: Callable[[str, str], bool]) -> frozenset[str]:
        found: set[str] = set()
        for pattern in patterns:
            named = {c for c, name in zip(kind.components, kind.own, strict=True) if means(pattern, name)}
            named = named or {c for c, names in zip(kind.components, kind.other, strict=True) if any(means(pattern, n) for n in names)}
            if named:
                self.used.add(pattern)
            found |= named
        return frozenset(found)

    def _inside(self, pattern: str, name: str) -> bool:
        if _is_wildcard(pattern):
            return _wildcard(pattern).fullmatch(name) is not None
        return name == pattern or (not self.exact and (not pattern or name.startswith(f"{pattern}.")))

    def _anywhere(self, patterns: list[str], layer: int, kind: Kind, aliases: Sequence[str]) -> frozenset[str]:
        prefixes = (f"{self.naming.stem}{layer}", *aliases)
        return self._select(patterns, kind, lambda pattern, name: any(self._names(pattern, f"{prefix}.{name}") for prefix in prefixes))

    def _names(self, pattern: str, name: str) -> bool:
        """Whether a pattern that names no layer of its own means a module, whose name is without the modules around the text model."""
        if pattern.startswith("re:"):
            outers = ("model.language_model.", "language_model.model.") if "language_model" in pattern else ("", self.naming.outer)
            return any(_regex(pattern[3:]).match(outer + name) for outer in outers)
        if _is_wildcard(pattern):
            return _wildcard(pattern).fullmatch(name) is not None
        return pattern == name if self.exact else f".{pattern}." in f".{name}."

    def outside(self, kind: Kind) -> frozenset[str]:
        """Return the components outside the layers that the list names."""
        return self._select(self.general, kind, self._names)

    def unused(self) -> list[str]:
        """Return the patterns that have named nothing so far."""
        everything = [*self.general, *(p for some in self.by_layer.values() for p in some), *(rest for _, rest in self.starting)]
        return [p for p in dict.fromkeys(everything) if p not in self.used]
