"""`Candidate`: one way to serve; and all deployments that a plan chooses from, with the reason where one cannot be."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from roofline.deployment import Deployment
from roofline.deployment.inputs import option_input
from roofline.engines import Engine
from roofline.errors import InvalidValueError, RooflineError, quoted
from roofline.hardware import Hardware
from roofline.model import Experts, Model
from roofline.serving.rules import Reserve
from roofline.units import whole_number

_SIZES = (1, 2, 4, 8)
LIMITS = ("step_tokens", "sequences", "kv_blocks", "admission", "max_model_len", "receive_interval", "graph_tokens", "rank_wait_steps")
"""What an engine is told of a candidate beside its deployment."""

DEGREES = {"tensor_parallel": "tp", "pipeline_parallel": "pp", "expert_parallel": "ep", "data_parallel": "dp", "context_parallel": "cp"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to serve: replicas of a deployment, and of another one for prompts where these have a pool of their own.

    Parameters
    ----------
    deployment : Deployment
        Model, machine, formats and degrees of a replica [-].
    replicas : int, optional
        How many there are [-].
    engine : str or Engine, optional
        The engine [-].
    step_tokens, sequences : int, optional
        Most tokens of a step, and most sequences that run at a time; the engine's default if None [token], [-].
    prefill : Deployment, optional
        A replica of the pool that computes prompts [-].
    prefill_replicas : int, optional
        How many of these there are [-].
    kv_blocks, admission, max_model_len, receive_interval, graph_tokens, rank_wait_steps : optional
        Blocks of the cache, what must be free of it when a request begins, most tokens of a request, every how many steps requests are received, most
        tokens of a step with prompts that runs as a graph, and for how many steps data-parallel ranks wait for each other's prompts, as of
        :func:`roofline.rules_of`; what the engine does if None [-].
    """

    deployment: Deployment
    replicas: int = 1
    engine: str | Engine = "vllm"
    step_tokens: int | None = None
    sequences: int | None = None
    prefill: Deployment | None = None
    prefill_replicas: int = 0
    kv_blocks: int | None = None
    admission: Reserve | None = None
    max_model_len: int | None = None
    receive_interval: int | None = None
    graph_tokens: int | None = None
    rank_wait_steps: int | None = None

    @property
    def devices(self) -> int:
        """Devices of all replicas [-]."""
        return sum(self.by_machine.values())

    @property
    def by_machine(self) -> dict[str, int]:
        """Devices of all replicas, by the id of the machine [-]."""
        found = {self.deployment.machine.id: self.replicas * self.deployment.devices}
        if self.prefill is not None:
            found[self.prefill.machine.id] = found.get(self.prefill.machine.id, 0) + self.prefill_replicas * self.prefill.devices
        return found

    @property
    def ratio(self) -> float | None:
        """Devices that compute prompts for each that decodes; None of one pool [-]."""
        return None if self.prefill is None else self.prefill_replicas * self.prefill.devices / (self.replicas * self.deployment.devices)

    @property
    def limits(self) -> dict[str, Any]:
        """What the engine is told beside the deployment, where it is not its default: `step_tokens`, `sequences` and so on [-]."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}

    @property
    def name(self) -> str:
        """Machine, degrees, formats and limits, which tell candidates of one plan apart; without replicas [-]."""
        limits = [f"{name} {value}" for name, value in self.limits.items()]
        pools = (
            [describe(self.deployment)]
            if self.prefill is None
            else [f"prompts on {describe(self.prefill)}", f"answers on {describe(self.deployment)}"]
        )
        return ", ".join([*pools, *limits])

    def __str__(self) -> str:
        counts = f"{self.replicas} ×" if self.prefill is None else f"{self.prefill_replicas} + {self.replicas} ×"
        return f"{counts} {self.name}"


class Excluded(NamedTuple):
    """What cannot be a candidate.

    Parameters
    ----------
    name : str
        Machine, degrees and formats [-].
    reason : str
        Why not [-].
    """

    name: str
    reason: str


def describe(deployment: Deployment) -> str:
    """Return a short name of a deployment: machine, degrees, formats, whatever else was asked for.

    Examples
    --------
    >>> describe(Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel=4, weights="fp8"))
    'h100-sxm tp4 weights=fp8'
    """
    return _named(deployment.machine, deployment.options)


def _named(machine: Hardware, options: Mapping[str, Any]) -> str:
    degrees = [f"{short}{options[name]}" for name, short in DEGREES.items() if options.get(name, 1) != 1]
    rest = [f"{name}={option_input(value)}" for name, value in options.items() if name not in DEGREES]
    return " ".join([machine.id, *degrees, *rest])


def usual_degrees(model: Model) -> tuple[Mapping[str, int], ...]:
    """Return tensor parallelism over 1 … 8 devices; of mixtures also whole experts on each, with heads or with sequences divided."""
    dense = [{"tensor_parallel": n} for n in _SIZES]
    if not any(isinstance(group.feed_forward, Experts) for group in model.layers):
        return tuple(dense)
    several = _SIZES[1:]
    return (*dense, *({name: n, "expert_parallel": n} for name in ("tensor_parallel", "data_parallel") for n in several))


def choices(name: str, key: str, given: Any) -> tuple[Mapping[str, Any], ...]:
    """Return options of deployments to choose from; what is no mapping is the value of one of them."""
    several = given if isinstance(given, Iterable) and not isinstance(given, (str, Mapping)) else [given]
    found = tuple(one if isinstance(one, Mapping) else {} if one is None else {key: one} for one in several)
    if not found:
        raise InvalidValueError(f"{name} is empty; give at least one choice.")
    return found


def degrees_of(given: Any) -> tuple[Mapping[str, Any], ...]:
    """Return degrees to choose from, of which tensor parallelism may stand without its name."""
    found = choices("degrees", "tensor_parallel", given)
    for one in found:
        if "tensor_parallel" in one:
            whole_number("degrees", one["tensor_parallel"], minimum=1)
    return found


def machines_of(given: Any) -> tuple[Hardware, ...]:
    """Return the machines to choose from."""
    several: Sequence[Any] = (
        [given] if isinstance(given, (str, Path, Hardware)) else list(given) if isinstance(given, Iterable) else [given]
    )
    found = tuple(dict.fromkeys(one if isinstance(one, Hardware) else Hardware.load(one) for one in several))
    if not found:
        raise InvalidValueError(f"machines is {quoted(given)}; name at least one machine.")
    return found


def deployments_of(
    model: Model,
    machines: Sequence[Hardware],
    degrees: Sequence[Mapping[str, Any]],
    formats: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
) -> tuple[list[Deployment], list[Excluded]]:
    """Return every deployment that can be, and what cannot."""
    found: dict[Deployment, None] = {}
    excluded: dict[Excluded, None] = {}
    for machine in machines:
        for degree in degrees:
            for narrow in formats:
                asked = {**options, **narrow, **degree}
                try:
                    found[Deployment(model, machine, **asked)] = None
                except RooflineError as error:
                    excluded[Excluded(_named(machine, asked), str(error))] = None
    if not found:
        raise InvalidValueError(f"not one candidate can be: {next(iter(excluded)).reason}")
    return list(found), list(excluded)
