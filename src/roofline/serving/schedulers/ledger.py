"""`Ledger`: the books of one simulation, written by its schedulers, request by request."""

from array import array
from struct import Struct

import numpy as np

from roofline.requests import RequestTimes, Workload

_NEVER = float("nan")
_SEGMENT = Struct("5q")


class Ledger:
    """What is known of each request, by its index in the workload; times are not a number until they are known.

    Parameters
    ----------
    workload : Workload
        The requests [-].

    Notes
    -----
    When tokens were there is kept as segments: some successive steps of a series of steps, each of which gave a request so many tokens. A
    series is the list of the times at which its steps ended, so that the tokens of an answer are a slice of it.
    """

    def __init__(self, workload: Workload) -> None:
        requests = len(workload)
        self.prompt: list[int] = workload.prompt.tolist()
        self.output: list[int] = workload.output.tolist()
        self.blocks = workload.blocks
        self.block_tokens = workload.block_tokens
        self.priority: list[float] = [0] * requests if workload.priority is None else workload.priority.tolist()
        self.sent_s, self.start_s, self.first_token_s, self.finish_s = (array("d", [_NEVER]) * requests for _ in range(4))
        self.cached = [0] * requests
        self.preemptions = [0] * requests
        self.replica = [-1] * requests
        self._series: list[list[float]] = []
        self._segments = array("q")  # request, series, first step, steps, tokens of each

    def series(self) -> tuple[int, list[float]]:
        """Return the number of a new series of steps, and its list, to which the end of each step is appended."""
        self._series.append([])
        return len(self._series) - 1, self._series[-1]

    def send(self, request: int, replica: int, at_s: float) -> None:
        """Note which replica a request is at, and when it was first sent to any."""
        self.replica[request] = replica
        if self.sent_s[request] != self.sent_s[request]:
            self.sent_s[request] = at_s

    def segment(self, request: int, series: int, first: int, steps: int, each: int = 1) -> None:
        """Note that so many steps of a series, from `first` on, gave a request `each` tokens."""
        self._segments.frombytes(_SEGMENT.pack(request, series, first, steps, each))  # extend() takes three times as long

    def times(self, workload: Workload, *, tokens: bool = True) -> RequestTimes:
        """Return what happened to each request; when each token was there too, unless it is not asked for."""
        return RequestTimes(
            workload,
            sent_s=np.array(self.sent_s),
            start_s=np.array(self.start_s),
            first_token_s=np.array(self.first_token_s),
            finish_s=np.array(self.finish_s),
            cached=np.array(self.cached),
            preemptions=np.array(self.preemptions),
            replica=np.array(self.replica),
            token_s=self._tokens() if tokens else None,
        )

    def _tokens(self) -> tuple[np.ndarray, ...]:
        """Return the times of each request's tokens, slices of the series where one segment has them all."""
        series = [np.array(ends) for ends in self._series]
        parts: list[list[np.ndarray]] = [[] for _ in self.prompt]
        for request, number, first, steps, each in np.array(self._segments).reshape(-1, 5).tolist():
            ends = series[number][first : first + steps]
            parts[request].append(ends if each == 1 else np.repeat(ends, each))
        return tuple(found[0] if len(found) == 1 else np.concatenate([np.empty(0), *found]) for found in parts)
