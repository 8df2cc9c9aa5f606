"""`Watch`: what a simulation under way proves of promises, so that one that breaks them need not be run to its end."""

from math import inf

import numpy as np

from roofline.requests import SLO
from roofline.requests.slo import longer_allowed
from roofline.serving.schedulers.reach import Reach
from roofline.serving.simulation.events import Service
from roofline.serving.simulation.warm_up import most_left_out


class Broken(Exception):
    """A promise can no longer be kept, whatever becomes of the requests that have not ended.

    Parameters
    ----------
    reached : dict of str to float
        By promise, what the time that the promised share of requests does not exceed will be at least [s].
    """

    def __init__(self, reached: dict[str, float]) -> None:
        super().__init__(reached)
        self.reached = reached


class Watch:
    """Looks at a run from time to time, and ends it with `Broken` once a promise is.

    Parameters
    ----------
    slo : SLO
        What is promised [-].
    """

    def __init__(self, slo: SLO) -> None:
        self._slo = slo
        self._service: Service | None = None
        self.broken = False
        """Whether a promise was [-]."""

    def __call__(self, service: Service) -> None:
        """Look."""
        self._service = service
        reached = at_least(self._slo, service)
        if any(reached[name] > seconds for name, seconds in self._slo.promises.items()):
            self.broken = True
            raise Broken(reached)

    def reaches(self) -> tuple[tuple[Reach | None, ...], ...]:
        """Return how near the replicas of each pool came to their limits."""
        if self._service is None:
            return ()
        pools = (self._service.decode, self._service.prefill)
        return tuple(tuple(replica.scheduler.reach for replica in pool.replicas) for pool in pools if pool is not None)


def at_least(slo: SLO, service: Service) -> dict[str, float]:
    """Return what the promised share of requests will not keep below, by promise: 0 where nothing is known yet.

    So many requests may take longer than what the promised share does not exceed, and fewer where fewer count. Of those that are known to have
    taken longest one more is therefore no longer than that time. Of these, the warm-up may leave out those that end first: so many as it may
    leave out at most, none of which ends after as many others have ended.
    """
    workload, ledger = service.workload, service.ledger
    left_out = most_left_out(workload)
    sent, first, finish = (np.array(column) for column in (ledger.sent_s, ledger.first_token_s, ledger.finish_s))
    ended = ~np.isnan(finish)
    edge = inf if left_out else -inf
    if service.prefill is None and np.count_nonzero(ended) > left_out > 0:  # of two pools, the first one's ends are not the last
        edge = np.partition(finish[ended], left_out)[left_out]
    counts = np.where(ended, finish, sent) >= edge
    lasted = {"ttft_s": first - sent, "e2e_s": finish - sent, "tpot_s": (finish - first) / np.maximum(workload.output - 1.0, 1.0)}
    longer = longer_allowed(len(workload), slo.percentile)
    found = {}
    for name in slo.promises:
        known = np.fmax(lasted.get(name, np.zeros(0)), 0.0)
        found[name] = max(_longest(known[counts] if known.size else known, longer), _longest(known, longer + left_out))
    return found


def _longest(values: np.ndarray, place: int) -> float:
    """Return the longest time but so many; 0 where there are no more."""
    at = values.size - 1 - place
    return float(np.partition(values, at)[at]) if at >= 0 else 0.0
