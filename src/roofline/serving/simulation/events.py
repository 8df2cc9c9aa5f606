"""The course of a simulation: who sends what and when, and which replica is next."""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf, isnan, nan, nextafter

from roofline.errors import InvalidValueError
from roofline.requests import Workload
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.simulation.pipelined import PipelinedReplica
from roofline.serving.simulation.pools import Link, Pool
from roofline.serving.simulation.replica import Replica


class Service:
    """Pools of replicas, and what happens between them and their clients.

    Parameters
    ----------
    workload : Workload
        The requests [-].
    ledger : Ledger
        Their books [-].
    decode : Pool
        Replicas that serve requests, or only what follows their first tokens [-].
    prefill : Pool, optional
        Replicas that compute the prompts, where those are others [-].
    link : Link, optional
        How caches come from one pool to the other [-].
    host_s : float, optional
        From the sending of a request until its replica knows it [s].
    watch : callable, optional
        Is called with the service each time that a twentieth of the requests has been sent; what it raises ends the run [-].
    """

    def __init__(
        self,
        workload: Workload,
        ledger: Ledger,
        decode: Pool,
        prefill: Pool | None = None,
        link: Link | None = None,
        host_s: float = 0.0,
        watch: "Callable[[Service], None] | None" = None,
    ) -> None:
        self.workload = workload
        self.ledger, self.decode, self.prefill, self.link, self.host_s = ledger, decode, prefill, link, host_s
        self._watch, self._every, self._sent = watch, max(1, len(workload) // _LOOKS), 0
        self.prefilled_by = [-1] * len(workload)
        """Which replica computed each prompt, where another one continues [-]."""
        self.cache_s = [nan] * len(workload)
        """When each cache had come to the replica that continues [s]."""

    def run(self) -> None:
        """Serve all requests."""
        if self.workload.clients is None and self.workload.after is None:
            self._run_open()
        else:
            _Coupled(self, self.workload).run()
        left = next((i for i, finish in enumerate(self.ledger.finish_s) if isnan(finish)), None)
        if left is not None:
            raise InvalidValueError(f"request {left} is never served: its replica has nothing that it can run.")

    def _run_open(self) -> None:
        """Serve requests that do not wait for others: one pool after the other."""
        ledger, host_s = self.ledger, self.host_s
        first = self.prefill or self.decode
        for request, sent_s in enumerate(self.workload.arrival_s.tolist()):
            ledger.sent_s[request] = sent_s
            first.send(request, sent_s + host_s)
            self.sent()
        first.advance(inf)
        if self.prefill is None or self.link is None:
            return
        self.prefilled_by[:] = ledger.replica
        for ready_s, request in sorted(zip(ledger.first_token_s, range(len(ledger.prompt)), strict=True)):
            if ledger.output[request] > 1:
                self.transfer(request, ready_s)
        for there_s, request in sorted((there_s, i) for i, there_s in enumerate(self.cache_s) if not isnan(there_s)):
            self.decode.send(request, there_s, ledger.prompt[request])
            self.sent()
        self.decode.advance(inf)

    def sent(self) -> None:
        """Let who watches look, from time to time, when a request has been sent."""
        self._sent += 1
        if self._watch is not None and not self._sent % self._every:
            self._watch(self)

    def transfer(self, request: int, ready_s: float) -> float:
        """Send a request's cache, and return when it is there."""
        assert self.prefill is not None
        assert self.link is not None
        sender = self.prefilled_by[request] - self.prefill.replicas[0].number
        self.cache_s[request] = there_s = self.link.send(request, ready_s, sender)
        return there_s


class _Coupled:
    """Serving of requests of which some are sent only when others have ended: all replicas advance side by side."""

    def __init__(self, service: Service, workload: Workload) -> None:
        self._service, self._ledger, self._decode, self._host_s = service, service.ledger, service.decode, service.host_s
        self._first = service.prefill or service.decode
        self._pools = [service.decode] if service.prefill is None else [service.prefill, service.decode]
        self._arrival_s: list[float] = workload.arrival_s.tolist()
        self._think_s: list[float] = [0.0] * len(workload) if workload.think_s is None else workload.think_s.tolist()
        self._slots = inf if workload.clients is None else workload.clients
        self._queued: deque[int] = deque()  # requests whose time has come, but all clients are busy
        self._followers: dict[int, list[int]] = {}
        self._events: list[tuple[float, int, int]] = []  # time, request, what happens: see _happens
        after = [-1] * len(workload) if workload.after is None else workload.after.tolist()
        for request, before in enumerate(after):
            if before < 0:
                self._events.append((self._arrival_s[request], request, _READY))
            else:
                self._followers.setdefault(before, []).append(request)
        self._events.sort()

    def run(self) -> None:
        """Let what is next happen, until nothing is left: ends of steps before requests that come at the same time, those before other steps."""
        self._replicas = [(replica, pool) for pool in self._pools for replica in pool.replicas]
        times = [replica.next_s for replica, _ in self._replicas]
        while True:
            event_s = min(self._events[0][0] if self._events else inf, *(pool.read_s for pool in self._pools))
            next_s = min(times)
            if next_s < event_s and self._advance(times, next_s, event_s):
                continue
            if next_s == inf and not self._events:
                return
            now_s = min(next_s, event_s)
            at = [i for i, time_s in enumerate(times) if time_s == now_s]
            ended = [self._until(times, i, now_s) for i in at]
            if any(ended):
                continue  # what follows from it may come before all else
            if event_s > now_s:
                for i in at:
                    self._until(times, i, nextafter(now_s, inf))
                continue
            self._happens(now_s)
            times = [replica.next_s for replica, _ in self._replicas]

    def _advance(self, times: list[float], next_s: float, event_s: float) -> bool:
        """Let the replica that is next run until another one is, or an event; return whether it could."""
        i = times.index(next_s)
        times[i] = inf
        until_s = min(event_s, *times)
        times[i] = next_s
        if until_s > next_s:
            self._until(times, i, until_s)
        return until_s > next_s

    def _until(self, times: list[float], i: int, until_s: float) -> bool:
        """Let a replica run until a time, or until a request ends; return whether one did."""
        replica, pool = self._replicas[i]
        ended = replica.advance(until_s, stop_at_end=True)
        times[i] = replica.next_s
        for request in sorted(ended):
            self._ended(request, replica, pool)
        return bool(ended)

    def _happens(self, now_s: float) -> None:
        """Let what comes at a time happen: routers read first."""
        reading = [pool for pool in self._pools if pool.read_s == now_s]
        for pool in reading:
            pool.read_at(now_s)
        if reading:
            return
        _, request, what = heappop(self._events)
        if what == _CACHE:
            self._decode.send(request, now_s, self._ledger.prompt[request])
        elif what == _ARRIVES:
            self._first.send(request, now_s)
        elif self._slots > 0:
            self._slots -= 1
            self._send(request, now_s)
        else:
            self._queued.append(request)

    def _send(self, request: int, now_s: float) -> None:
        self._ledger.sent_s[request] = now_s
        self._service.sent()
        heappush(self._events, (now_s + self._host_s, request, _ARRIVES))

    def _ended(self, request: int, replica: Replica | PipelinedReplica, pool: Pool) -> None:
        """Let what follows from the end of a request in a pool come."""
        now_s = replica.now_s
        if pool is not self._decode:
            self._service.prefilled_by[request] = replica.number
            if self._ledger.output[request] > 1:
                heappush(self._events, (self._service.transfer(request, now_s), request, _CACHE))
                return
        for follower in self._followers.get(request, ()):
            ready_s = max(self._arrival_s[follower], now_s + self._think_s[follower])
            heappush(self._events, (ready_s, follower, _READY))
        if self._queued:
            self._send(self._queued.popleft(), now_s)
        else:
            self._slots += 1


_READY, _ARRIVES, _CACHE = range(3)
_LOOKS = 20  # of who watches, while requests are sent
