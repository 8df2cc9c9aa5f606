"""The first pass: every candidate by closed forms, as arrays."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from roofline.deployment import Deployment
from roofline.engines import Engine, load_engine
from roofline.errors import RooflineError
from roofline.planner.candidates import Candidate
from roofline.planner.demand import Demand
from roofline.requests import SLO
from roofline.serving.closed_forms.forms import CAPACITY, SEQUENCES, Limit
from roofline.serving.closed_forms.largest_rate import causes, largest_load, reasons_against, tightest
from roofline.serving.closed_forms.operation import CAUSES, Loads, Operation
from roofline.serving.closed_forms.phases import Lengths
from roofline.serving.closed_forms.service import Service

_IDLE, _FULL = 1e-9, 0.999  # of the most that can be served
_HALVINGS = 16  # of the logarithm of that range: loads to 0.03 %
_MANY = 1_000_000  # replicas of the other pool, so that it limits nothing
_MOST_CLIENTS = 2.0**20
_ROUNDING = 1e-9
_SURELY = 1.05  # times a promise, beyond which a prompt that comes alone breaks it in a simulation too
_PROMISES = {"all": ("ttft_s", "tpot_s", "itl_s", "e2e_s"), "decode": ("tpot_s", "itl_s", "e2e_s"), "prefill": ("ttft_s",)}


@dataclass(frozen=True)
class Case:
    """What a plan is asked, without the workload and the promises."""

    deployments: Sequence[Deployment]
    asked_engine: str | Engine
    step_tokens: Sequence[int | None]
    sequences: Sequence[int | None]
    prefix_caching: bool | None
    link_bandwidth: float | str | None
    timing: Mapping[str, Any]  # basis, calibration, quantile, fit

    @property
    def engine(self) -> Engine:
        """The engine's profile."""
        return load_engine(self.asked_engine)

    @property
    def finds_prefixes(self) -> bool:
        """Whether a prefix cache is on."""
        return bool(self.engine.cache.prefix_caching if self.prefix_caching is None else self.prefix_caching)

    def lengths(self, demand: Demand, count: int) -> Lengths:
        """Return the lengths of a demand, as many times."""
        cached = demand.repeated if self.finds_prefixes else 0.0
        each = (max(demand.prompt - cached, 1.0), cached, demand.output, demand.prompt_cv, demand.output_cv)
        return Lengths(*(np.full(count, value) for value in each))


class _Limited(Loads):
    """One service at several limits of sequences."""

    def __init__(self, service: Service, lengths: Lengths, sequences: Sequence[int | None]) -> None:
        service.check_length(lengths)
        self.service, self.lengths, self.different, self.row = service, lengths, lengths, np.arange(len(sequences))
        own = service.rules.sequences
        most = np.array([own if limit is None else limit for limit in sequences], dtype=float) / service.deployment.parallel.pipeline
        fitting = service.fitting(lengths)
        self.limit = Limit(np.minimum(fitting, most), np.where(fitting < most, CAPACITY, SEQUENCES))


@dataclass
class Role:
    """What replicas of some kind can do in one role, a row for each deployment and its limits."""

    deployment: list[int] = field(default_factory=list)
    step_tokens: list[int | None] = field(default_factory=list)
    sequences: list[int | None] = field(default_factory=list)
    load: list[float] = field(default_factory=list)  # the largest of a replica that keeps the promises; 0 if none does
    ttft_s: list[float] = field(default_factory=list)  # mean, at the load that a replica has
    tpot_s: list[float] = field(default_factory=list)
    binds: list[str] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)

    def counts(self, demand: Demand) -> np.ndarray:
        """Return how many replicas it takes; infinite where none suffices."""
        load = np.asarray(self.load)
        with np.errstate(divide="ignore"):
            return np.where(load > 0, np.maximum(np.ceil(demand.load / load - 1e-9), 1.0), np.inf)

    def add(self, at: int, step_tokens: int | None, limits: Sequence[int | None], columns: Mapping[str, Sequence[Any]]) -> None:
        """Add the rows of a deployment."""
        self.deployment += [at] * len(limits)
        self.step_tokens += [step_tokens] * len(limits)
        self.sequences += limits
        for name, values in columns.items():
            getattr(self, name).extend(values)


def capacities(case: Case, role: str, demand: Demand, slo: SLO, longest: float) -> Role:
    """Return what each deployment can do in a role; `longest` is what the promised share of prompts does not exceed, of which each comes alone at best."""
    found = Role()
    budgets = case.step_tokens if role != "decode" else case.step_tokens[:1]
    limits = list(case.sequences) if role != "prefill" else [None]
    for at, deployment in enumerate(case.deployments):
        for budget in budgets:
            try:
                columns = _capacity(case, deployment, role, budget, limits, demand, slo, longest)
            except RooflineError as error:
                nothing = [math.nan] * len(limits)
                columns = {
                    "load": [0.0] * len(limits),
                    "ttft_s": nothing,
                    "tpot_s": nothing,
                    "binds": [""] * len(limits),
                    "reason": [str(error)] * len(limits),
                }
            found.add(at, budget, limits, columns)
    return found


def _capacity(
    case: Case,
    deployment: Deployment,
    role: str,
    step_tokens: int | None,
    limits: Sequence[int | None],
    demand: Demand,
    slo: SLO,
    longest: float,
) -> dict[str, list[Any]]:
    asked: dict[str, Any] = {"engine": case.engine, "step_tokens": step_tokens, **case.timing}
    if role != "all":
        asked |= {
            "prefill": deployment,
            "link_bandwidth": case.link_bandwidth,
            "prefill_replicas" if role == "decode" else "replicas": _MANY,
        }
    service = Service.of(deployment, asked)
    loads = _Limited(service, case.lengths(demand, len(limits)), limits)
    promises = {name: seconds for name, seconds in slo.promises.items() if name in _PROMISES[role]}
    share = slo.percentile

    def operation(some: Loads, load: np.ndarray) -> Operation:
        """Return where a service is, per lane."""
        sent = load / some.lanes
        return Operation(some, some.closed_loop(sent)) if demand.closed else Operation(some, some.open_loop(sent), sent=sent)

    def keeps(some: Loads, load: np.ndarray) -> np.ndarray:
        times = _times(operation(some, load), share, demand)
        kept = [~(times[name] > seconds * (1 + _ROUNDING)) for name, seconds in promises.items()]
        return np.asarray(np.logical_and.reduce([some.fits, *kept]))

    if demand.closed:
        low, high = np.ones(len(limits)), np.full(len(limits), _MOST_CLIENTS)
    else:
        low, high = _IDLE * loads.most * loads.lanes, _FULL * loads.most * loads.lanes
    possible, full, load = largest_load(loads, low, high, keeps, halvings=_HALVINGS)
    edge = operation(loads, load)
    binds = np.where(full, [CAUSES.get(int(code), "") for code in causes(loads)], tightest_of(edge, promises, share, demand))
    reasons = np.full(load.shape, "", dtype=object)
    if not possible.all():
        idle = Operation(loads, loads.open_loop(_IDLE * loads.most), sent=_IDLE * loads.most)
        reasons = np.where(possible, "", reasons_against(idle, promises, share))
    if possible.any() and "ttft_s" in promises:
        long = longest_alone(service, case.lengths(demand, 1), longest)
        first = {"ttft_s": promises["ttft_s"]}
        if long.percentiles(share).ttft_s[0] > _SURELY * first["ttft_s"]:
            reasons = np.where(possible, reasons_against(long, first, share)[0], reasons)
            possible = np.zeros_like(possible)
    load = np.where(possible, load, 0.0)
    # a replica of those that it takes has less than it could keep
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(possible, demand.load / np.maximum(np.ceil(demand.load / load - 1e-9), 1), low)
    if demand.closed:
        own = np.maximum(own, 1.0)
    now = operation(loads, own)
    return {
        "load": load.tolist(),
        "ttft_s": now.ttft_s.tolist(),
        "tpot_s": now.tpot_s.tolist(),
        "binds": [str(one) for one in binds],
        "reason": [str(one) for one in reasons],
    }


def longest_alone(service: Service, lengths: Lengths, longest: float) -> Operation:
    """Return a service that hardly anybody asks, with prompts of which so many tokens are computed."""
    none = np.zeros_like(lengths.prompt)
    loads = Loads(service, replace(lengths, prompt=np.maximum(longest, lengths.prompt), prompt_cv=none, output_cv=none))
    return Operation(loads, loads.open_loop(_IDLE * loads.most), sent=_IDLE * loads.most)


def _times(at: Operation, share: float, demand: Demand) -> Mapping[str, np.ndarray]:
    """Return the times that promises are about; of clients who wait for answers, the means."""
    if not demand.closed:
        return at.percentiles(share)._asdict()
    return {"ttft_s": at.ttft_s, "tpot_s": at.tpot_s, "itl_s": at.point.phases.stall, "e2e_s": at.ttft_s + at.point.decoding_s}


def tightest_of(at: Operation, promises: Mapping[str, float], share: float, demand: Demand) -> np.ndarray:
    """Return the promise that is nearest to being broken, "" where none is made."""
    if not promises:
        return np.full(at.rate.shape, "")
    if not demand.closed:
        return tightest(at, promises, share)
    times = _times(at, share, demand)
    over = np.stack([np.nan_to_num(times[name] / seconds, nan=0.0) for name, seconds in promises.items()])
    return np.asarray(np.array(list(promises))[np.argmax(over, axis=0)])


@dataclass(frozen=True)
class Table:
    """All candidates: those of one pool, then all pairs of two pools."""

    case: Case
    demand: Demand
    price: np.ndarray  # of a replica of each deployment, for an hour; devices where no prices are given
    spare: int
    whole: Role | None
    decode: Role | None
    prompts: Role | None

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of both pools, of all pairs whose caches are alike."""
        if self.decode is None or self.prompts is None:
            return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
        kinds = {kind: number for number, kind in enumerate(dict.fromkeys(map(_cache_kind, self.case.deployments)))}
        kind = np.array([kinds[_cache_kind(one)] for one in self.case.deployments])
        alike = kind[np.array(self.decode.deployment)][:, None] == kind[np.array(self.prompts.deployment)]
        decode, prompts = np.nonzero(alike)
        return decode, prompts

    @cached_property
    def _own(self) -> int:
        return 0 if self.whole is None else len(self.whole.load)

    def __len__(self) -> int:
        return self._own + self.pairs[0].size

    def _columns(self, role: Role | None, rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return replicas, spare ones included, and devices and price of one."""
        if role is None:
            return (np.zeros(0),) * 3
        kind = np.asarray(role.deployment)[rows]
        devices = np.array([one.devices for one in self.case.deployments], dtype=float)[kind]
        return (role.counts(self.demand) + self.spare)[rows], devices, self.price[kind]

    @cached_property
    def _priced(self) -> tuple[np.ndarray, np.ndarray]:
        parts = [
            self._columns(self.whole, slice(None)),
            self._columns(self.decode, self.pairs[0]),
            self._columns(self.prompts, self.pairs[1]),
        ]
        sums = [(count * devices, count * price) for count, devices, price in parts]
        return tuple(np.concatenate([sums[0][at], sums[1][at] + sums[2][at]]) for at in (0, 1))  # type: ignore[return-value]

    @property
    def devices(self) -> np.ndarray:
        """Devices of each candidate; infinite where promises are not kept."""
        return self._priced[0]

    @property
    def cost(self) -> np.ndarray:
        """What each candidate costs for an hour, or its devices where no prices are given."""
        return self._priced[1]

    @cached_property
    def tpot_s(self) -> np.ndarray:
        """Mean time per token after the first."""
        parts = [] if self.whole is None else [np.asarray(self.whole.tpot_s)]
        parts += [] if self.decode is None else [np.asarray(self.decode.tpot_s)[self.pairs[0]]]
        return np.concatenate(parts)

    def candidate(self, at: int) -> Candidate:
        """Return a candidate with as many replicas as it takes by the closed forms, 1 where none suffice."""
        one = self._row(at)
        role, row = one["decode"]
        count = role.counts(self.demand)[row] if np.isfinite(role.load[row]) else 1
        prefill: dict[str, Any] = {}
        step_tokens = role.step_tokens[row]
        if "prompts" in one:
            other, place = one["prompts"]
            step_tokens = other.step_tokens[place]
            count_of_prompts = other.counts(self.demand)[place]
            prefill = {"prefill": self.case.deployments[other.deployment[place]], "prefill_replicas": _count(count_of_prompts)}
        deployment = self.case.deployments[role.deployment[row]]
        return Candidate(deployment, _count(count), self.case.asked_engine, step_tokens, role.sequences[row], **prefill)

    def __getitem__(self, at: int) -> Candidate:
        """Return a candidate, as `candidate` does."""
        if not -len(self) <= at < len(self):
            raise IndexError(f"there are {len(self)} candidates; {at} is none of them.")
        return self.candidate(at % len(self))

    def kind(self, at: int) -> tuple[int, ...]:
        """Return which deployments a candidate has, whatever its limits."""
        return tuple(role.deployment[row] for role, row in self._row(at).values())

    def _row(self, at: int) -> dict[str, tuple[Role, int]]:
        if at < self._own:
            assert self.whole is not None
            return {"decode": (self.whole, at)}
        decode, prompts = self.pairs[0][at - self._own], self.pairs[1][at - self._own]
        assert self.decode is not None
        assert self.prompts is not None
        return {"decode": (self.decode, int(decode)), "prompts": (self.prompts, int(prompts))}

    def said(self, at: int, name: str) -> str:
        """Return what binds a candidate, or why it cannot keep the promises."""
        return "; ".join(dict.fromkeys(text for role, row in self._row(at).values() if (text := getattr(role, name)[row])))


def _count(replicas: float) -> int:
    return int(replicas) if math.isfinite(replicas) else 1


def _cache_kind(deployment: Deployment) -> tuple[str, ...]:
    """Return what two pools must have in common: engines send caches of one format between machines of one kind."""
    return (deployment.machine.id, *(str(deployment.options.get(name)) for name in ("kv", "dtype", "kv_bytes_per_token")))
