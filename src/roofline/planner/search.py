"""The first pass: every candidate by closed forms, as arrays."""

import math
from collections.abc import Iterable, Mapping, Sequence
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
from roofline.serving.closed_forms.curves import Curves, reached
from roofline.serving.closed_forms.forms import CAPACITY, SEQUENCES, Limit
from roofline.serving.closed_forms.largest_rate import causes, largest_load, reasons_against
from roofline.serving.closed_forms.operation import CAUSES, Loads, Operation
from roofline.serving.closed_forms.phases import Lengths, Server, phases
from roofline.serving.closed_forms.service import Service
from roofline.serving.closed_forms.two_pools import Pools
from roofline.step_time import StepTime

_IDLE, _FULL = 1e-9, 0.999  # of the most that can be served
_LIKELY = 1 / 32  # of the most, above which nearly all largest loads are
_HALVINGS = 12, 16  # of the logarithm of the range from there, and of that of clients: loads to 0.1 %
_MANY = 1_000_000  # replicas of the other pool, so that it limits nothing
_MOST_CLIENTS = 2.0**20
_ROUNDING = 1e-9
_SURELY = 1.05  # times a promise, beyond which a prompt that comes alone breaks it in a simulation too
_NOTHING = {"load": 0.0, "ttft_s": math.nan, "tpot_s": math.nan, "binds": ""}  # of what cannot be
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
    limits: Mapping[str, Any] = field(default_factory=dict)  # what all candidates are told, by the names of `LIMITS`, where it is given

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
    """Services of one deployment that differ in the tokens of a step, each at several limits of sequences; limits that come to the same are one."""

    def __init__(self, services: Sequence[Service], lengths: Lengths, sequences: Sequence[int | None]) -> None:
        first, number = services[0], len(services)
        each = np.repeat(np.arange(number), len(sequences))
        fitting, lengths = np.concatenate([one.fitting(lengths) for one in services])[each], lengths.at(np.zeros_like(each))
        most = np.array([one.rules.sequences if limit is None else limit for one in services for limit in sequences], dtype=float)
        most /= first.sharing
        limit = Limit(np.minimum(fitting, most), np.where(fitting < most, CAPACITY, SEQUENCES))
        server, apart = _of_budgets(services), first.prefill is not None
        found = reached(server.at(each), lengths, limit, apart=apart)
        same = np.stack([each, found.most, found.cause, limit.most >= 1])
        _, kept, asked = np.unique(same, axis=1, return_index=True, return_inverse=True)
        self.asked = asked.reshape(number, -1)  # rows of each service and limit
        line, self.limit = each[kept], Limit(limit.most[kept], limit.cause[kept])
        self.lengths = self.different = lengths.at(kept)
        self.curves = Curves.of(server.at(line), self.lengths, self.limit, apart=apart, line=line)
        prefill = _of_budgets(services, prompts=True).at(line) if apart else None
        self.service = replace(first, server=server.at(line), prefill=prefill)
        self.row = np.arange(kept.size)


def _of_budgets(services: Sequence[Service], *, prompts: bool = False) -> Server:
    """Return what runs the steps of services of one deployment, or those of their prompts, one budget for each."""
    servers = [(one.prefill if prompts else None) or one.server for one in services]
    return replace(servers[0], step_tokens=np.array([one.step_tokens for one in servers]))


class _Joined(Loads):
    """Services of one engine, whose requests take the same of its host, as one."""

    def __init__(self, several: Sequence[_Limited]) -> None:
        self.service, self.curves = several[0].service, Curves.joined([one.curves for one in several]).searchable()
        self.lengths = self.different = self.curves.lengths
        self.row = np.arange(self.lengths.prompt.size)
        self.limit = Limit(*(np.concatenate([getattr(one.limit, name) for one in several]) for name in ("most", "cause")))
        self._of_each = np.concatenate([np.full(one.row.size, one.lanes) for one in several])
        if self.service.prefill is not None:
            self._pools = Pools.joined([Pools.of(one.service, one.curves) for one in several], self.curves)

    @property
    def lanes(self) -> np.ndarray:
        """Lanes of all replicas of each service."""
        return self._of_each[self.row]


@dataclass
class Role:
    """What replicas of some kind can do in one role, a row for each deployment and its limits."""

    name: str
    deployment: list[int] = field(default_factory=list)
    step_tokens: list[int | None] = field(default_factory=list)
    sequences: list[int | None] = field(default_factory=list)
    load: list[float] = field(default_factory=list)  # the largest of a replica that keeps the promises; 0 if none does
    ttft_s: list[float] = field(default_factory=list)  # mean, at the load that a replica has
    tpot_s: list[float] = field(default_factory=list)
    binds: list[str] = field(default_factory=list)
    reasons: dict[tuple[int, int | None], str] = field(
        default_factory=dict
    )  # why deployments with some budget cannot be, or, once asked, keep nothing

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


@dataclass(frozen=True)
class Aims:
    """What replicas of some role have to keep."""

    demand: Demand
    promises: Mapping[str, float]
    share: float  # of requests
    longest: float  # what that share of prompts does not exceed, in tokens that are computed

    @classmethod
    def of(cls, role: str, demand: Demand, slo: SLO, longest: float) -> "Aims":
        """Return which promises a role has to keep."""
        return cls(demand, {name: seconds for name, seconds in slo.promises.items() if name in _PROMISES[role]}, slo.percentile, longest)

    def long(self, lengths: Lengths) -> Lengths:
        """Return long prompts, all of one length, in place of some lengths."""
        none = np.zeros_like(lengths.prompt)
        return replace(lengths, prompt=np.maximum(self.longest, lengths.prompt), prompt_cv=none, output_cv=none)

    def operation(self, loads: Loads, load: np.ndarray) -> Operation:
        """Return where services are, per lane."""
        sent = load / loads.lanes
        return Operation(loads, loads.closed_loop(sent)) if self.demand.closed else Operation(loads, loads.open_loop(sent), sent=sent)

    def times(self, at: Operation) -> Mapping[str, np.ndarray]:
        """Return the times that promises are about; of clients who wait for answers, the means."""
        if not self.demand.closed:
            return at.percentiles(self.share, gaps="itl_s" in self.promises)._asdict()
        return {"ttft_s": at.ttft_s, "tpot_s": at.tpot_s, "itl_s": at.point.phases.stall, "e2e_s": at.ttft_s + at.point.decoding_s}

    def keeps(self, loads: Loads, load: np.ndarray) -> np.ndarray:
        """Return whether loads keep the promises."""
        times = self.times(self.operation(loads, load))
        kept = [~(times[name] > seconds * (1 + _ROUNDING)) for name, seconds in self.promises.items()]
        return np.asarray(np.logical_and.reduce([loads.fits, *kept]))

    def tightest(self, at: Operation) -> np.ndarray:
        """Return the promise that is nearest to being broken, "" where none is made."""
        if not self.promises:
            return np.full(at.rate.shape, "")
        times = self.times(at)
        over = np.stack([np.nan_to_num(times[name] / seconds, nan=0.0) for name, seconds in self.promises.items()])
        return np.asarray(np.array(list(self.promises))[np.argmax(over, axis=0)])


def capacities(case: Case, role: str, demand: Demand, slo: SLO, longest: float) -> Role:
    """Return what each deployment can do in a role; `longest` is what the promised share of prompts does not exceed, of which each comes alone at best."""
    aims, budgets = Aims.of(role, demand, slo, longest), case.step_tokens if role != "decode" else case.step_tokens[:1]
    limits = list(case.sequences) if role != "prefill" else [None]
    lengths, found = case.lengths(demand, 1), Role(role)
    several: list[tuple[_Limited, np.ndarray]] = []
    places: dict[tuple[int, int | None], tuple[int, int]] = {}
    for at, deployment in enumerate(case.deployments):
        if services := _services(case, deployment, aims, found, at, budgets):
            places.update({(at, budget): (len(several), row) for row, budget in enumerate(services)})
            several.append((_Limited(list(services.values()), lengths, limits), _first_alone_s(list(services.values()), lengths, aims)))
    columns = _capacities(several, aims)
    nothing = {name: [value] * len(limits) for name, value in _NOTHING.items()}
    for at in range(len(case.deployments)):
        for budget in budgets:
            here = places.get((at, budget))
            found.add(at, budget, limits, nothing if here is None else {name: v[here[0]][here[1]].tolist() for name, v in columns.items()})
    return found


def _services(
    case: Case, deployment: Deployment, aims: Aims, role: Role, at: int, budgets: Sequence[int | None]
) -> dict[int | None, Service]:
    """Return the services of a deployment by the most tokens of a step, and note why others cannot be."""
    found: dict[int | None, Service] = {}
    lengths, time = case.lengths(aims.demand, 1), None
    for budget in budgets:
        try:
            service = _service(case, deployment, role.name, budget, time)
            for each in (lengths, aims.long(lengths)):
                service.check_length(each)
                service.fitting(each)
        except RooflineError as error:
            role.reasons[at, budget] = str(error)
            continue
        found[budget], time = service, service.server.time
    return found


def _service(case: Case, deployment: Deployment, role: str, step_tokens: int | None, time: StepTime | None = None) -> Service:
    """Return a replica in some role, beside so many of the other one that these limit nothing."""
    asked: dict[str, Any] = {"engine": case.engine, "step_tokens": step_tokens, **case.limits, **case.timing}
    if role != "all":
        asked |= {
            "prefill": deployment,
            "link_bandwidth": case.link_bandwidth,
            "prefill_replicas" if role == "decode" else "replicas": _MANY,
        }
    return Service.of(deployment, asked, time)


def _first_alone_s(services: Sequence[Service], lengths: Lengths, aims: Aims) -> np.ndarray:
    """Return the time to the first token of long prompts that come alone, of each service; infinite where none fits."""
    if "ttft_s" not in aims.promises:
        return np.zeros(len(services))
    long, one = aims.long(lengths), np.zeros(len(services), dtype=int)
    found = phases(_of_budgets(services, prompts=True), long.at(one), np.ones(len(services)))
    fits = np.array([each.fitting(long)[0] >= 1 for each in services])
    return np.where(fits, services[0].request_s + (found.prompt if services[0].prefill is None else found.alone), np.inf)


def _capacities(several: Sequence[tuple[_Limited, np.ndarray]], aims: Aims) -> dict[str, list[np.ndarray]]:
    """Return the columns of services at their limits, deployment by deployment.

    All are searched at once, but where clients wait for answers: then steps are those of each deployment.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in _NOTHING}
    groups = [[one] for one in several] if aims.demand.closed else [several] if several else []
    for group in groups:
        in_time = np.concatenate([_in_time(one, first_s, aims) for one, first_s in group])
        columns, begin = _searched(_Joined([one for one, _ in group]), aims, in_time), 0
        for one, _ in group:
            for name, values in columns.items():
                found[name].append(values[begin + one.asked])
            begin += one.row.size
    return found


def _in_time(loads: _Limited, first_s: np.ndarray, aims: Aims) -> np.ndarray:
    """Return of each row whether long prompts keep what is promised of the first token, or nearly do."""
    found = np.ones(loads.row.size, dtype=bool)
    found[loads.asked] = (first_s <= _SURELY * aims.promises.get("ttft_s", math.inf))[:, None]
    return found


def _searched(loads: Loads, aims: Aims, in_time: np.ndarray) -> dict[str, np.ndarray]:
    """Return the largest loads that keep promises, what binds there, and times at the load that a replica has of those that it takes."""
    demand = aims.demand
    if demand.closed:
        low, high = np.ones(loads.row.size), np.full(loads.row.size, _MOST_CLIENTS)
    else:
        low, high = (share * loads.most * loads.lanes for share in (_IDLE, _FULL))
        low = np.where(aims.keeps(loads, _LIKELY * high), _LIKELY * high, low)
    possible, full, load = largest_load(loads, low, high, aims.keeps, halvings=_HALVINGS[demand.closed])
    names = np.array([CAUSES.get(code, "") for code in range(max(CAUSES) + 1)])
    binds = np.where(full, names[causes(loads)], aims.tightest(aims.operation(loads, load)))
    possible &= in_time
    load = np.where(possible, load, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.where(possible, demand.load / np.maximum(np.ceil(demand.load / load - 1e-9), 1), low)
    now = aims.operation(loads, np.maximum(own, 1.0) if demand.closed else own)
    return {"load": load, "ttft_s": now.ttft_s, "tpot_s": now.tpot_s, "binds": binds}


def reason_against(case: Case, role: Role, row: int, aims: Aims) -> str:
    """Return why a row cannot keep its promises, "" where it can."""
    at, budget = role.deployment[row], role.step_tokens[row]
    if role.load[row] > 0:
        return ""
    if (at, budget) not in role.reasons:
        service, lengths = _service(case, case.deployments[at], role.name, budget), case.lengths(aims.demand, 1)
        loads = _Limited([service], lengths, [role.sequences[row]])
        loads.curves = loads.curves.searchable()
        found = reasons_against(idle(loads), aims.promises, aims.share)[0]
        if not found and "ttft_s" in aims.promises:
            promise = {"ttft_s": aims.promises["ttft_s"]}
            found = reasons_against(idle(Loads(service, aims.long(lengths))), promise, aims.share)[0]
        role.reasons[at, budget] = str(found)
    return role.reasons[at, budget]


def idle(loads: Loads) -> Operation:
    """Return services that hardly anybody asks."""
    return Operation(loads, loads.open_loop(_IDLE * loads.most), sent=_IDLE * loads.most)


@dataclass(frozen=True)
class Table:
    """All candidates: those of one pool, then all pairs of two pools."""

    case: Case
    demand: Demand
    price: np.ndarray  # of a replica of each deployment, for an hour; devices where no prices are given
    spare: int
    slo: SLO
    longest: float
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
        return Candidate(deployment, _count(count), self.case.asked_engine, step_tokens, role.sequences[row], **prefill, **self.case.limits)

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

    def binds(self, at: int) -> str:
        """Return what binds a candidate."""
        return _once(role.binds[row] for role, row in self._row(at).values())

    def reason(self, at: int) -> str:
        """Return why a candidate cannot keep the promises, "" where it can."""
        return _once(
            reason_against(self.case, role, row, Aims.of(role.name, self.demand, self.slo, self.longest))
            for role, row in self._row(at).values()
        )


def _once(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, texts)))


def _count(replicas: float) -> int:
    return int(replicas) if math.isfinite(replicas) else 1


def _cache_kind(deployment: Deployment) -> tuple[str, ...]:
    """Return what two pools must have in common: engines send caches of one format between machines of one kind."""
    return (deployment.machine.id, *(str(deployment.options.get(name)) for name in ("kv", "dtype", "kv_bytes_per_token")))
