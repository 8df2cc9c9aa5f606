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
Floors = Callable[[Deployment, Mapping[str, Any]], Floor]
"""Returns the floor of a deployment, at the measured point with some of its numbers changed."""


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


def find_labels(
    floor: Floor, floors: Floors, measured_s: float, *, tokens: float, per_token: bool, given: Mapping[str, Any]
) -> tuple[Label, ...]:
    """Return what would explain a time below its floor; those that lift the contradiction first.

    ``tokens`` is what a step yields for a sequence, by which the floor of a step is divided for a time per token.
    """
    found = []
    for name, change, least in _candidates(floor, floors, measured_s, tokens, per_token=per_token, given=given):
        lowered = least / (tokens if per_token else 1.0)
        found.append(Label(name, change, lowered, measured_s / lowered, lowered <= measured_s))
    changed = [label for label in found if label.floor_s < float(floor.time_s) / (tokens if per_token else 1.0) * (1 - 1e-6)]
    return tuple(sorted(changed, key=lambda label: not label.lifts))


def _candidates(
    floor: Floor, floors: Floors, measured_s: float, tokens: float, *, per_token: bool, given: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any], float]]:
    """Yield what may be other, and the floor of a step then, from what is most often wrong to what seldom is."""
    deployment = floor.deployment
    for name, change in (*_formats(floor), *_degrees(deployment)):
        try:
            yield name, change, float(floors(deployment.but(**change), {}).time_s)
        except RooflineError:  # not for this model: heads that do not divide, a format that it does not take
            continue
    for name, change in _points(given):
        yield name, change, float(floors(deployment, change).time_s)
    if per_token and tokens == 1:
        ratio = float(floor.time_s) / measured_s
        yield f"speculation: steps that yield {ratio:.3g} tokens or more", {"accepted": ratio}, measured_s
    if floor.roof == "compute":
        sparse = Roofs(floor.compute_s / 2, floor.memory_s, floor.network_s)
        yield "a peak with structured sparsity, which is twice as high", {}, float(sparse.time_s)
        if not all(ceiling.proven for ceiling in floor.ceilings):
            yield "a device that runs above the clock of its peak", {}, float(Roofs(0.0, floor.memory_s, floor.network_s).time_s)


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
        for words, names in (("the head", head), ("attention", attention), ("attention and the head", head | attention)):
            if names:
                yield f"{words} stored in 8 bits", {"weights": {**base, **names}}
    else:
        for format in ("fp8", "int8", "int4"):
            yield f"weights in {format}", {"weights": {**base, "*": format} if base.keys() - {"*"} else format}
    if float(precision.kv.bits) > _NARROW and float(floor.kv_read_bytes) > 0:
        yield "a KV cache of 8 bits", {"kv": "fp8"}
        if narrow and (wide["lm_head"] | wide["attention"]):
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
