"""Why a time is below its floor: labels that would explain it, each evaluated as a floor."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from roofline.bounds import Roofs
from roofline.deployment import Deployment
from roofline.errors import RooflineError
from roofline.floors import Floor
from roofline.model import Matrix
from roofline.model.storage import tensors

_WIDE = 16  # bits of what is not quantized
_NARROW = 8.0
_LONGER = ((1e3, "1000 times longer (s read as ms, or ms as µs)"), (1e6, "a million times longer (s read as µs)"))
_SHORTER = ((1e3, "1000 times shorter (ms read as s, or µs as ms)"), (1e6, "a million times shorter (µs read as s)"))
_PLAUSIBLE = 50.0  # times the floor, up to which a time is that of some real step
_MOST_ACCEPTED = 10.0  # tokens that a step yields under speculation; published runs stay below
Least = Callable[[Deployment, Mapping[str, Any]], float]
"""Returns the least time of a deployment at the measured point with some of its numbers changed [s]."""


@dataclass(frozen=True, slots=True)
class Label:
    """Something that may be other than it was said, and the floor if it is.

    Parameters
    ----------
    name : str
        What would be other, in words [-].
    change : mapping of str to object
        The keywords of :func:`compare` that say so; empty where none does [-].
    floor_s : float
        The floor then [s].
    over_floor : float
        The measured time over it [-].
    lifts : bool
        Whether the measured time is then possible [-].
    """

    name: str
    change: Mapping[str, Any]
    floor_s: float
    over_floor: float
    lifts: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python.

        Returns
        -------
        dict
            By name [SI].
        """
        return {name: getattr(self, name) for name in self.__slots__}


def find_labels(floor: Floor, least: Least, measured_s: float, *, drafts: bool, given: Mapping[str, Any]) -> tuple[Label, ...]:
    """Return what would explain a time below the least possible; those that lift the contradiction first.

    ``floor`` is that of the step which takes most of that time, ``drafts`` whether unknown drafts would explain it, ``given`` the numbers of the point.
    """
    as_said = least(floor.deployment, {})
    found = [
        Label(f"another unit: a time {words}", {}, as_said, over, True)
        for factor, words in _LONGER
        if measured_s < as_said / _MOST_ACCEPTED and 1 <= (over := measured_s * factor / as_said) <= _PLAUSIBLE
    ]
    for name, change, lowered in _candidates(floor, least, measured_s, as_said, drafts=drafts, given=given):
        if lowered < as_said * (1 - 1e-6):
            found.append(Label(name, change, lowered, measured_s / lowered, lowered <= measured_s))
    return tuple(sorted(found, key=lambda label: not label.lifts))


def too_long(name: str, over_floor: float) -> str:
    """Return a sentence if a time is so far above its floor that its unit is likely another; empty otherwise."""
    for factor, words in _SHORTER:
        if 1 <= over_floor / factor <= _PLAUSIBLE:
            return f"{name} is {over_floor:.3g} × the floor; a time {words} would be {over_floor / factor:.3g} ×: check its unit"
    return ""


def _candidates(
    floor: Floor, least: Least, measured_s: float, as_said: float, *, drafts: bool, given: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any], float]]:
    """Yield what may be other, and the least time then, from what is most often wrong to what seldom is."""
    deployment = floor.deployment
    for name, change in (*_formats(floor), *_degrees(deployment)):
        try:
            lowered = least(deployment.but(**change), {})
        except RooflineError:  # not for this model: heads that do not divide, a format that it does not take
            continue
        yield name, change, lowered
        if "tensor_parallel" in change and lowered <= measured_s:
            break  # the fewest devices that would explain it
    for name, change in _points(given):
        yield name, change, least(deployment, change)
    if drafts and (ratio := as_said / measured_s) <= _MOST_ACCEPTED:
        yield f"speculation: steps that yield {ratio:.3g} tokens or more", {"accepted": ratio}, measured_s
    if floor.roof == "compute":
        share = as_said / float(floor.time_s)
        sparse = Roofs(floor.compute_s / 2, floor.memory_s, floor.network_s)
        yield "a peak with structured sparsity, which is twice as high", {}, share * float(sparse.time_s)
        if not all(ceiling.proven for ceiling in floor.ceilings):
            without = Roofs(0.0, floor.memory_s, floor.network_s)
            yield "a device that runs above the clock of its peak", {}, share * float(without.time_s)


def _formats(floor: Floor) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield narrower formats of what is stored wide, part by part, and of everything."""
    deployment, precision = floor.deployment, floor.work.program.precision
    chosen = deployment.options.get("weights")
    base: dict[str, Any] = dict(chosen) if isinstance(chosen, Mapping) else {} if chosen is None else {"*": chosen}
    wide: dict[str, dict[str, str]] = {"lm_head": {}, "attention": {}, "rest": {}}
    narrow = False
    for tensor, group, _ in tensors(deployment.model):
        if not isinstance(tensor, Matrix) or not (tensor.quantizable or group is None):
            continue
        if float(precision.stored(tensor, group).bits) < _WIDE:
            narrow = True
            continue
        part = "lm_head" if group is None else "rest" if tensor.name.startswith("mlp") else "attention"
        wide[part][tensor.name] = "int8"
    if narrow:  # a mixture of formats: its wide parts may be narrower than said
        head, attention = wide["lm_head"], wide["attention"]
        both = head | attention if head and attention else {}
        for words, names in (("the head", head), ("attention", attention), ("attention and the head", both)):
            if names:
                yield f"{words} stored in 8 bits", {"weights": {**base, **names}}
        for format in ("fp8", "nvfp4") if floor.roof == "compute" else ():
            yield f"products in {format}", {"activations": format}
    else:
        for format in ("fp8", "int4", "nvfp4") if floor.roof == "compute" else ("fp8", "int4"):
            yield f"weights in {format}", {"weights": {**base, "*": format} if base.keys() - {"*"} else format}
    if float(precision.kv.bits) > _NARROW and float(floor.kv_read_bytes) > 0:
        yield "a KV cache of 8 bits", {"kv": "fp8"}
        if narrow and wide["lm_head"] and wide["attention"]:
            yield (
                "attention, the head and the KV cache in 8 bits",
                {"weights": {**base, **wide["lm_head"], **wide["attention"]}, "kv": "fp8"},
            )


def _degrees(deployment: Deployment) -> Iterator[tuple[str, Mapping[str, Any]]]:
    degree = deployment.parallel.tensor
    for more in (2, 4, 8):
        yield f"{degree * more} devices under tensor parallelism instead of {degree}", {"tensor_parallel": degree * more}


def _points(given: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield smaller steps: fewer sequences, less context, less prompt."""
    if given.get("batch", 1) > 1:
        yield "fewer sequences in a step than counted: one", {"batch": 1}
    if given.get("context", 0) > 0:
        yield "no context: much shorter requests than said", {"context": 0}
    if given.get("prompt", 1) > 1:
        yield "a prompt that the prefix cache had but for one token", {"cached": int(given["prompt"]) - 1}
