"""`Saturation`: whether a service keeps up with what it is sent; if not, its percentiles say how long the run was, and nothing else."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

_WINDOWS = 10
_T = 3.25  # Student's t of 9 degrees of freedom at 0.995, of the mean of ten windows
_LEAST_GROWTH = 0.01  # share of the requests, above which too many stay behind
_SURELY_STABLE = 0.02  # the same, below which the upper end of the interval shows that few do
_SHORT_WAIT = 0.1  # of a request's lifetime, below which hardly anybody waits
_POISSON = 3.0  # standard deviations
_SHORTEST = 4.0  # lifetimes of a request that a run has to last


@dataclass(frozen=True, slots=True)
class Saturation:
    """Whether a service keeps up with its requests.

    Parameters
    ----------
    label : {"stable", "overloaded", "unclear", "closed"}
        It keeps up; it does not; the run is too short to tell; or clients wait for their answers, so that they cannot send too much [-].
    offered_rate, served_rate : float
        Requests that were sent in the second half of the time in which requests are sent; and that ended from its beginning until the last of all
        requests began, as long as there were some to serve [request/s].
    growth : float
        By what share of those sent in that time the requests under way became more [-].
    text : str
        The same in a sentence [-].
    """

    label: Literal["stable", "overloaded", "unclear", "closed"]
    offered_rate: float
    served_rate: float
    growth: float
    text: str


def find_saturation(sent_s: np.ndarray, start_s: np.ndarray, finish_s: np.ndarray, *, closed: bool = False) -> Saturation:
    """Return whether requests under way became more and more.

    The second half of the time in which requests are sent is cut into ten windows. What the requests under way grow by in each is taken as
    independent, which it is at the edge of stability (below it, growth is followed by decline). A service is overloaded if the lower end of a
    99 % interval of the growth is above 1 % of the requests sent, and stable if the upper end is below 2 %. It is stable too if hardly
    anybody waits, and the growth is within what the number under way varies by then (Poisson, three standard deviations of a difference).
    """
    first, last = float(sent_s.min()), float(sent_s.max())
    span = last - first
    ends = np.sort(finish_s)
    begun = np.sort(sent_s)
    edges = np.linspace(first + span / 2, last, _WINDOWS + 1)
    arrived, left = np.searchsorted(begun, edges, "right"), np.searchsorted(ends, edges, "right")
    under_way = arrived - left
    half = span / 2
    sent, queued_until = int(arrived[-1] - arrived[0]), max(last, float(start_s.max()))
    served = int(((finish_s > edges[0]) & (finish_s <= queued_until)).sum())
    if closed or half <= 0 or sent == 0:
        total = float(ends[-1] - first)
        rate = len(ends) / total if total > 0 else float("nan")
        text = (
            f"clients wait for their answers: {rate:.4g} requests are served per second"
            if closed
            else ("all requests come at once: how the service is while they keep coming cannot be told")
        )
        return Saturation("closed" if closed else "unclear", rate if closed else float("inf"), rate, 0.0, text)
    offered_rate, served_rate, grown = sent / half, served / float(queued_until - edges[0]), int(under_way[-1] - under_way[0])
    growth = grown / sent
    error = float(np.diff(under_way).std(ddof=1)) * _WINDOWS**0.5
    early = sent_s <= np.quantile(sent_s, 0.05)
    lifetime = float(np.median((finish_s - start_s)[early]))
    rates = f"{offered_rate:.4g} requests come per second"
    waited = float(np.mean((start_s - sent_s)[sent_s >= edges[0]]))
    if span < _SHORTEST * lifetime and waited < lifetime:  # what grows may just be how many are served at a time
        text = f"requests come for {span:.4g} s and one takes {lifetime:.4g} s: too short to tell whether the service keeps up"
        return Saturation("unclear", offered_rate, served_rate, growth, text)
    if (grown - _T * error) / sent > _LEAST_GROWTH:
        text = f"{rates} and {served_rate:.4g} are served: the queue grows as long as they come, so times say how long the run was"
        return Saturation("overloaded", offered_rate, served_rate, growth, text)
    unhurried = waited <= _SHORT_WAIT * lifetime and grown <= _POISSON * (2 * max(float(under_way.mean()), 1.0)) ** 0.5
    if unhurried or (grown + _T * error) / sent < _SURELY_STABLE:
        return Saturation("stable", offered_rate, served_rate, growth, f"{rates}, and the service keeps up with them")
    text = f"{rates} and {served_rate:.4g} are served: too few requests to tell whether the queue would go on growing"
    return Saturation("unclear", offered_rate, served_rate, growth, text)
