"""`Member`: what a replica of a fleet is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from operator import mul
from typing import Any

from roofline.deployment import Deployment
from roofline.engines import Engine, load_engine
from roofline.errors import InvalidValueError, quoted
from roofline.serving.rules import Rules, check_acceptance, ranks_together, rules_of
from roofline.serving.schedulers import (
    BalancedRanks,
    PipelinedSglang,
    PipelinedTrtllm,
    PipelinedVllm,
    Ranks,
    Scheduler,
    SglangScheduler,
    TrtllmScheduler,
    VllmScheduler,
)
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.simulation.pipelined import Pipelined, PipelinedReplica
from roofline.serving.simulation.replica import Replica
from roofline.serving.steps.load import Load, RankSeconds, StepSeconds
from roofline.serving.steps.seconds import compiled
from roofline.serving.steps.stages import StageSeconds, compile_stages, evenly
from roofline.serving.steps.timing import timing_of
from roofline.step_time import StepTime
from roofline.units import whole_number

Deployments = Deployment | Sequence[Deployment] | None
Seconds = StepSeconds | RankSeconds

Log = list[tuple[float, float, Load | tuple[Load, ...]]]
"""Begin, end and load of each step; of data-parallel ranks, the loads of all."""

_SCHEDULERS: dict[str, Callable[..., Scheduler]] = {"vllm": VllmScheduler, "sglang": SglangScheduler, "trtllm": TrtllmScheduler}
_PIPELINED: dict[str, Callable[..., Pipelined]] = {"vllm": PipelinedVllm, "sglang": PipelinedSglang, "trtllm": PipelinedTrtllm}
_APART = 1_000_003  # seeds of the ranks' drafts


class Asked:
    """Seconds of a member's steps as they were asked for: the tables are made with the first step, and again after pickling."""

    def __init__(self, deployment: Deployment, rules: Rules, timing: Mapping[str, Any], engine: Engine) -> None:
        self._asked = deployment, rules, timing, engine

    @cached_property
    def made(self) -> Seconds:
        """What looks them up."""
        return compiled(self._time, self._asked[1])

    @cached_property
    def staged(self) -> StageSeconds:
        """What looks them up for each stage of a pipeline."""
        return compile_stages(self._time, self._asked[1])

    @cached_property
    def _time(self) -> StepTime:
        deployment, _, timing, engine = self._asked
        return timing_of(deployment, timing, engine)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the seconds must know [-]."""
        return self._time.notes

    def __call__(self, load: Any) -> float:
        """Return how long a step takes."""
        return self.made(load)

    def __reduce__(self) -> tuple[Any, ...]:
        return Asked, self._asked


@dataclass(frozen=True, slots=True)
class Member:
    """What a replica is.

    Parameters
    ----------
    deployment : Deployment or None
        Model, machine and degrees, where they are known [-].
    rules : Rules
        How it schedules [-].
    seconds : callable
        How long its steps take; of data-parallel ranks, from the loads of all [s].
    acceptance : float or sequence of float, optional
        Where steps verify drafts, the probability that one is accepted if those before it were; one for all, or one for each position [-].
    asked : optional
        How `seconds` were asked for, from which they are made again after pickling [-].

    Raises
    ------
    InvalidValueError
        If it is not known how many of the drafts are accepted that a step verifies.
    """

    deployment: Deployment | None
    rules: Rules
    seconds: Seconds
    acceptance: float | Sequence[float] | None = None
    asked: Asked | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what makes it again, without the tables of its seconds."""
        return Member, (self.deployment, self.rules, self.asked or self.seconds, self.acceptance, self.asked)

    def __post_init__(self) -> None:
        """Check that ranks step together, and that it is known how many drafts are accepted."""
        if self.deployment is not None and self.ranks > ranks_together(self.deployment):
            raise InvalidValueError(
                f"data_parallel is {self.ranks}, but {self.deployment.model.name} is dense: its ranks do not step together, and each is a replica of its own."
            )
        check_acceptance(self.rules.drafts, self.acceptance)

    @property
    def accepted(self) -> tuple[float, ...]:
        """Share of the steps in which the first draft is accepted, the first two, and so on [-]."""
        given = self.acceptance
        return tuple(accumulate(given if isinstance(given, Sequence) else (given or 0.0,) * self.rules.drafts, mul))

    @property
    def devices(self) -> int:
        """Devices of the replica [-]."""
        return 1 if self.deployment is None else self.deployment.parallel.devices

    @property
    def ranks(self) -> int:
        """Data-parallel ranks that step together [-]."""
        return 1 if self.deployment is None else self.deployment.parallel.data

    @property
    def stages(self) -> int:
        """Stages of its pipeline [-]."""
        return 1 if self.deployment is None else self.deployment.parallel.pipeline

    @property
    def pipelined(self) -> bool:
        """Whether several steps go through its stages at a time; not where ranks step together, nor with drafts [-]."""
        return self.stages > 1 and self.ranks == 1 and not self.rules.drafts

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of it [-]."""
        why = "where ranks step together" if self.ranks > 1 else "with drafts"
        one = f"one step at a time goes through the {self.stages} pipeline stages, as several are not simulated {why}: an engine serves more than this"
        times = () if self.asked is None else self.asked.notes
        return (*times, *self.rules.notes, *([one] if self.stages > 1 and not self.pipelined else []))


def members_of(
    deployments: Deployments,
    replicas: int | Sequence[int],
    rules: Rules | None,
    step_s: Seconds | None,
    *,
    engine: str | Engine,
    timing: Mapping[str, Any],
    acceptance: float | Sequence[float] | None,
    options: Mapping[str, Any],
) -> tuple[Member, ...]:
    """Return what each replica of a pool is."""
    kinds, counts = _several(deployments), _several(replicas)
    counts *= len(kinds) if not isinstance(replicas, Sequence) else 1
    if len(counts) != len(kinds):
        raise InvalidValueError(f"there are {len(kinds)} deployments and {len(counts)} numbers of replicas.")
    if not isinstance(rules, Rules | None):
        raise InvalidValueError(f"rules is {quoted(rules)}; it must be Rules(...), such as rules_of(deployment) returns.")
    if rules is not None and options:
        raise InvalidValueError(f"give either rules or {', '.join(options)}, not both.")
    if not kinds:
        raise InvalidValueError("there is no deployment; give one, or several.")
    members: list[Member] = []
    for kind, count in zip(kinds, counts, strict=True):
        if not isinstance(kind, Deployment | None):
            raise InvalidValueError(f"deployment is {quoted(kind)}; it is a Deployment(model, hardware, ...), or several.")
        number = whole_number("replicas", count, minimum=1)
        if kind is not None and ranks_together(kind) < kind.parallel.data:
            kind, number = kind.but(data_parallel=1), number * kind.parallel.data
        own = rules if rules is not None or kind is None else rules_of(kind, engine=engine, **options)
        asked = None
        if step_s is None and kind is not None and own is not None:
            profile = load_engine(engine)
            asked = Asked(kind, own, timing, profile if profile.id == own.engine else load_engine(own.engine))
        seconds = step_s if asked is None else asked.made
        if own is None or seconds is None:
            raise InvalidValueError("no deployment: give one, or both rules= and step_s=.")
        members += [Member(kind, own, seconds, acceptance, asked)] * number
    return tuple(members)


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def replica_of(member: Member, ledger: Ledger, number: int, log: Log | None, seed: int) -> Replica | PipelinedReplica:
    """Return a replica at its beginning."""
    if member.pipelined:
        scheduler = _PIPELINED[member.rules.engine](member.rules, ledger, member.stages)
        return PipelinedReplica(scheduler, seconds_of_one(member), member.stages, number, log)
    ranks = []
    for rank in range(member.ranks):
        drafts = {"accepted": member.accepted, "seed": seed + _APART * (number * member.ranks + rank)} if member.rules.drafts else {}
        ranks.append(_SCHEDULERS[member.rules.engine](member.rules, ledger, **drafts))
    if member.ranks == 1:
        return Replica(ranks[0], member.seconds, number, log)
    together: Callable[..., Ranks] = BalancedRanks if member.rules.engine == "trtllm" and member.rules.rank_wait_steps else Ranks
    return Replica(together(ranks), member.seconds, number, log)


def seconds_of_one(member: Member) -> StageSeconds:
    """Return how long a step takes in which only one rank has something to do: in each stage where several steps go through them, or in all."""
    seconds: StepSeconds = member.seconds  # type: ignore[assignment]
    if member.pipelined:
        return evenly(seconds, member.stages) if member.asked is None else member.asked.staged
    if member.ranks == 1:
        return lambda load: (seconds(load),)
    others = (Load(0, 0),) * (member.ranks - 1)
    return lambda load: (member.seconds((load, *others)),)  # type: ignore[arg-type]
