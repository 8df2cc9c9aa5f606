"""`Fleet`: what serves requests, and one run of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from roofline.capacity import resident
from roofline.deployment import Deployment
from roofline.errors import InvalidValueError
from roofline.frozen import freeze
from roofline.requests import RequestTimes, Workload
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.simulation.alone import prompts_alone_s
from roofline.serving.simulation.events import Service
from roofline.serving.simulation.members import Log, Member, replica_of, seconds_of_one
from roofline.serving.simulation.pipelined import PipelinedReplica
from roofline.serving.simulation.pools import Link, Pool
from roofline.serving.simulation.replica import Replica
from roofline.serving.simulation.routing import Choose, make_router
from roofline.serving.simulation.warm_up import warm_up_end_s


@dataclass(frozen=True, slots=True)
class ReplicaUse:
    """What a replica did in a run.

    Parameters
    ----------
    number : int
        Its number, as in the times of requests; those that only compute prompts come after the others [-].
    pool : {"all", "decode", "prefill"}
        What it serves: whole requests, what follows their first tokens, or their prompts [-].
    busy_s : float
        How long its steps took, all together [s].
    busy : float
        The same, as a share of the time from the first request sent to the last token [-].
    steps : int
        Steps that it ran [-].
    held_up : mapping
        In which share of the steps a request waited, by what it lacked: tokens of the step, sequences, or blocks of the cache [-].
    """

    number: int
    pool: str
    busy_s: float
    busy: float
    steps: int
    held_up: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run of a fleet.

    Parameters
    ----------
    seed : int
        Its seed [-].
    times : RequestTimes
        What happened to each request [-].
    warm_up_s : float
        Until when requests that end are left out of the figures [s].
    replicas : tuple of ReplicaUse
        What each replica did [-].
    prefilled_by : numpy.ndarray, optional
        Which replica computed each prompt, where another one continues [-].
    cache_s : numpy.ndarray, optional
        When each cache had come to the replica that continues; not a number where the answer is a single token [s].
    link_busy : tuple of float
        Share of the time in which each replica that computes prompts sent caches [-].
    link_wait_s : float
        How long a cache waited for others to be sent, on average [s].
    steps : tuple of list, optional
        Begin, end and load of each step, for each replica [-].
    """

    seed: int
    times: RequestTimes
    warm_up_s: float
    replicas: tuple[ReplicaUse, ...]
    prefilled_by: np.ndarray | None = None
    cache_s: np.ndarray | None = None
    link_busy: tuple[float, ...] = ()
    link_wait_s: float = 0.0
    steps: tuple[Log, ...] | None = field(default=None, repr=False)

    @property
    def steady(self) -> RequestTimes:
        """What happened to the requests that ended after the warm-up [-]."""
        return self.times.between(self.warm_up_s, float(np.nextafter(self.times.finish_s.max(), np.inf))) if self.warm_up_s else self.times


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """Replicas behind a router, in one pool or in two.

    Parameters
    ----------
    decode : tuple of Member
        What serves requests, or only what follows their first tokens [-].
    router : str or callable
        What chooses among them [-].
    prefill : tuple of Member, optional
        What computes prompts, where those are other replicas [-].
    prefill_router : str or callable, optional
        What chooses among those [-].
    staleness_s : float, optional
        How old what a router knows may be [s].
    host_s : float, optional
        From the sending of a request until its replica knows it [s].
    link_bandwidth : float, optional
        Rate at which a device sends or receives a cache; transfers take no time but the latency without it [B/s].
    link_latency_s : float, optional
        What a transfer takes besides [s].
    """

    decode: tuple[Member, ...]
    router: str | Choose = "round robin"
    prefill: tuple[Member, ...] = ()
    prefill_router: str | Choose = "round robin"
    staleness_s: float = 0.0
    host_s: float = 0.0
    link_bandwidth: float | None = None
    link_latency_s: float = 0.0

    @property
    def devices(self) -> int:
        """Devices of all replicas [-]."""
        return sum(member.devices for member in (*self.decode, *self.prefill))

    def serve(
        self,
        workload: Workload,
        seed: int = 0,
        *,
        warm_up_s: float | None = None,
        steps: bool = False,
        token_times: bool = True,
        watch: Callable[[Service], None] | None = None,
    ) -> Run:
        """Return one run.

        Parameters
        ----------
        workload : Workload
            The requests [-].
        seed : int, optional
            Of the routers' choices [-].
        warm_up_s : float, optional
            Until when requests that end are left out of the figures; found if not given, as in :func:`simulate` [s].
        steps : bool, optional
            Whether every step is kept [-].
        token_times : bool, optional
            Whether the time of every token is kept [-].
        watch : callable, optional
            Is called with the service each time that a twentieth of the requests has been sent; what it raises ends the run [-].

        Returns
        -------
        Run
            What happened [-].
        """
        ledger = Ledger(workload)
        logs: list[Log] = [[] for _ in (*self.decode, *self.prefill)]

        def pool(members: tuple[Member, ...], router: str | Choose, first: int, tokens: int | None) -> Pool:
            replicas = [
                replica_of(member, ledger, number, logs[number] if steps else None, seed)
                for number, member in enumerate(members, start=first)
            ]
            return Pool(replicas, make_router(router, workload, len(members), seed), self.staleness_s, tokens)

        decode = pool(self.decode, self.router, 0, None)
        prefill = pool(self.prefill, self.prefill_router, len(self.decode), 1) if self.prefill else None
        link = Link(self.transfers_s(workload.prompt), len(self.prefill)) if self.prefill else None
        service = Service(workload, ledger, decode, prefill, link, self.host_s, watch)
        service.run()
        times = ledger.times(workload, tokens=token_times)
        if warm_up_s is not None and warm_up_s > (end_s := float(times.finish_s.max())):
            raise InvalidValueError(f"warm_up_s is {warm_up_s:g}, but the last request ends at {end_s:.4g} s.")
        span_s = times.duration_s or float("nan")
        uses = [_use(replica, "decode" if prefill else "all", span_s) for replica in decode.replicas]
        uses += [_use(replica, "prefill", span_s) for replica in prefill.replicas] if prefill else []
        return Run(
            seed,
            times,
            warm_up_end_s(times) if warm_up_s is None else warm_up_s,
            tuple(uses),
            None if prefill is None else freeze(np.array(service.prefilled_by)),
            None if prefill is None else freeze(np.array(service.cache_s)),
            () if link is None else tuple(busy_s / span_s for busy_s in link.busy_s),
            0.0 if link is None or not link.sent else link.waited_s / link.sent,
            tuple(logs) if steps else None,
        )

    def alone_s(self, run: Run) -> np.ndarray:
        """Return what the steps of each prompt of a run would take on its replica if that had nothing else to do.

        Parameters
        ----------
        run : Run
            A run of this fleet [-].

        Returns
        -------
        numpy.ndarray
            A time for each request; tokens that the prefix cache had are not computed [s].
        """
        times = run.times
        by = times.replica if run.prefilled_by is None else run.prefilled_by
        alone = np.zeros(len(times))
        members = (*self.decode, *self.prefill)
        for number in np.unique(by).tolist():
            mine = np.flatnonzero(by == number)
            asked = zip(times.workload.prompt[mine].tolist(), times.cached[mine].tolist(), strict=True)
            member = members[number]
            alone[mine] = prompts_alone_s(asked, member.rules, seconds_of_one(member), member.stages if member.pipelined else 1)
        return alone

    def transfers_s(self, prompts: np.ndarray) -> list[float]:
        r"""Return how long the caches of prompts take from one pool to the other, each on its own.

        All devices of a replica send, and all of the other receive, their shares side by side, so that the larger share takes the time:
        latency + max(bytes per sending device, bytes per receiving device) / bandwidth.

        Parameters
        ----------
        prompts : numpy.ndarray
            Tokens of each [token].

        Returns
        -------
        list of float
            A time for each [s].
        """
        if self.link_bandwidth is None:
            return [self.link_latency_s] * len(prompts)
        lengths, where = np.unique(prompts, return_inverse=True)
        shares = [_cache_bytes(member.deployment, lengths) for member in (self.decode[0], self.prefill[0]) if member.deployment]
        return (self.link_latency_s + np.max(shares, axis=0) / self.link_bandwidth)[where].tolist()  # type: ignore[no-any-return]


def _cache_bytes(deployment: Deployment, lengths: np.ndarray) -> Any:
    """Return what the fullest device keeps of a sequence [B]."""
    found = resident(deployment, batch=1, context=lengths)
    return found.kv_bytes + found.state_bytes


def _use(replica: Replica | PipelinedReplica, pool: str, span_s: float) -> ReplicaUse:
    steps = replica.scheduler.steps
    held_up = {name: count / steps if steps else 0.0 for name, count in replica.scheduler.held_up.items()}
    return ReplicaUse(replica.number, pool, replica.busy_s, replica.busy_s / span_s, steps, freeze(held_up))
