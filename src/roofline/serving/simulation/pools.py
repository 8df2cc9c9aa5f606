"""`Pool`: replicas behind a router; `Link`: the way of a cache from the pool that computed it to the one that uses it."""

from collections.abc import Sequence
from math import inf

from roofline.serving.simulation.pipelined import PipelinedReplica
from roofline.serving.simulation.replica import Replica
from roofline.serving.simulation.routing import Router, Seen


class Pool:
    """Replicas behind a router.

    Parameters
    ----------
    replicas : sequence of Replica or PipelinedReplica
        The replicas [-].
    router : Router
        What chooses among them [-].
    staleness_s : float, optional
        The router reads the replicas' state at the multiples of this, so what it knows is at most so old; at every request if 0 [s].
    tokens : int, optional
        Tokens of an answer until which a request stays here: 1 in a pool that only computes prompts; all of them if not given [token].
    """

    def __init__(
        self, replicas: Sequence[Replica | PipelinedReplica], router: Router, staleness_s: float = 0.0, tokens: int | None = None
    ) -> None:
        self.replicas = list(replicas)
        self.router = router
        self.tokens = tokens
        self._every_s = staleness_s
        self.read_s = 0.0 if router.looks and staleness_s else inf
        """When the state is read next; infinite where it is read at every request, or never [s]."""
        self._seen = [Seen() for _ in self.replicas]

    def advance(self, until_s: float) -> None:
        """Let all replicas run until a time."""
        for replica in self.replicas:
            if replica.next_s <= until_s:
                replica.advance(until_s)

    def read(self) -> None:
        """Read the state of all replicas, which have been advanced until now."""
        for seen, replica in zip(self._seen, self.replicas, strict=True):
            seen.waiting, seen.running, seen.sent = replica.scheduler.waiting, replica.scheduler.running, 0

    def read_at(self, at_s: float) -> None:
        """Read the state as of the last time, until now, at which it is read; all replicas have been advanced until then, or less."""
        last = round(at_s / self._every_s)
        last -= last * self._every_s > at_s
        self.advance(last * self._every_s)
        self.read()
        self.read_s = (last + 1) * self._every_s

    def send(self, request: int, at_s: float, held: int = 0) -> None:
        """Route a request, sent no earlier than all before it, after advancing what has to be advanced for that."""
        if self.router.looks and not self._every_s:
            self.advance(at_s)
            self.read()
        elif at_s >= self.read_s:
            self.read_at(at_s)
        chosen = self.router.choose(request, self._seen)
        self._seen[chosen].sent += 1
        replica = self.replicas[chosen]
        if replica.next_s < at_s:
            replica.advance(at_s)
        replica.add(request, at_s, held, self.tokens)


class Link:
    """Transfers of caches, one after another from each replica that sends.

    Parameters
    ----------
    seconds : sequence of float
        How long each request's cache takes, without waiting [s].
    senders : int
        Replicas that send, each over a link of its own [-].
    """

    def __init__(self, seconds: Sequence[float], senders: int) -> None:
        self.seconds = seconds
        self.busy_s = [0.0] * senders
        """How long each sender has sent, all together [s]."""
        self.waited_s = 0.0
        """How long caches have waited for their senders' links, all together [s]."""
        self.sent = 0
        """Caches sent [-]."""
        self._free_s = [0.0] * senders

    def send(self, request: int, ready_s: float, sender: int) -> float:
        """Return when a request's cache is there that is ready at a time, not earlier than those before it [s]."""
        begin_s = max(ready_s, self._free_s[sender])
        self.sent += 1
        self.waited_s += begin_s - ready_s
        self.busy_s[sender] += self.seconds[request]
        self._free_s[sender] = begin_s + self.seconds[request]
        return self._free_s[sender]
