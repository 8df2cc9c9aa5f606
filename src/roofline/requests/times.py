"""`RequestTimes`: what happened to each request, simulated or measured."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from typing import Any, Self

import numpy as np

from roofline.errors import InvalidValueError
from roofline.frozen import freeze
from roofline.requests.checking import column, kind, positive, share, span
from roofline.requests.figures import Cost, Energy, Goodput, Statistics
from roofline.requests.records import read_times
from roofline.requests.slo import SLO, as_slo
from roofline.requests.statistics import Interval, mean_interval, percentile_intervals
from roofline.requests.workload import Workload
from roofline.results import Result, show_notes
from roofline.units import show_time, whole_number

_MEASURES = {
    "ttft_s": "time to first token",
    "tpot_s": "time per output token",
    "itl_s": "gap between tokens",
    "e2e_s": "end to end",
    "queue_s": "queue",
}


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class RequestTimes(Result):
    """When each request of a workload was sent, began, answered and ended; not a number where it did not.

    Parameters
    ----------
    workload : Workload
        The requests [-].
    sent_s : array_like
        When each was sent: its arrival, or later if its client had to wait for others [s].
    start_s : array_like
        When the first step that holds a part of its prompt began [s].
    first_token_s, finish_s : array_like
        When its first and its last token were there [s].
    cached : array_like of int
        Tokens of its prompt that a prefix cache had, at its first admission [token].
    preemptions : array_like of int
        How often it was stopped and begun again [-].
    replica : array_like of int
        Which replica served it [-].
    token_s : sequence of numpy.ndarray, optional
        When each token of each answer was there [s].
    begin_s, end_s : float, optional
        What was observed, if it is not from the first request sent to the last token [s].
    notes : tuple of str, optional
        What a reader must know [-].

    Raises
    ------
    InvalidValueError
        If an array does not have one number for each request, or a token was there before its request was sent.

    Notes
    -----
    Definitions are those of benchmark clients. Time to first token: first_token − sent. Time per output token: (finish − first_token) / (output − 1), which
    leaves the first token out; not a number for answers of one. So do ``mean_tpot_ms`` of vLLM and SGLang and ``inter_token_latency`` of GenAI-Perf and
    AIPerf; guidellm's ``time_per_output_token`` is (finish − sent) / output instead. Gap between tokens (ITL): one value for each token but the first. vLLM's
    client has one for each chunk that arrives, which holds several tokens under speculative decoding. End to end: finish − sent. A rate is of requests that
    ended, over the time observed. Percentiles are those of ``numpy.percentile``.
    """

    workload: Workload
    sent_s: np.ndarray
    start_s: np.ndarray
    first_token_s: np.ndarray
    finish_s: np.ndarray
    cached: np.ndarray
    preemptions: np.ndarray
    replica: np.ndarray
    token_s: Sequence[np.ndarray] | None = None
    begin_s: float | None = None
    end_s: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every field, and that nothing is there before it was asked for."""
        count = len(kind("workload", self.workload, Workload))
        for name in ("sent_s", "start_s", "first_token_s", "finish_s"):
            object.__setattr__(self, name, freeze(column(name, getattr(self, name), count, unknown=True)))
        for name in ("cached", "preemptions", "replica"):
            object.__setattr__(self, name, freeze(column(name, getattr(self, name), count).astype(np.int64)))
        for earlier, later in (("sent_s", "first_token_s"), ("first_token_s", "finish_s")):
            if (wrong := np.flatnonzero(getattr(self, later) < getattr(self, earlier))).size:
                i = int(wrong[0])
                before, after = float(getattr(self, earlier)[i]), float(getattr(self, later)[i])
                raise InvalidValueError(
                    f"{later} of request {i} is {after:.9g} and {earlier} is {before:.9g}: are these times of one clock?"
                )
        tokens = count if self.token_s is None else len(self.token_s) if hasattr(self.token_s, "__len__") else 0
        if tokens != count:
            raise InvalidValueError(f"token_s has the tokens of {tokens} requests; there are {count}.")
        for name in ("begin_s", "end_s"):
            if (moment := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(column(name, [moment], 1, unknown=True)[0]))

    @classmethod
    def from_records(
        cls, source: "str | os.PathLike[str] | Mapping[str, Any] | Iterable[Mapping[str, Any]]", *, columns: Mapping[str, str] | None = None
    ) -> Self:
        """Return what happened to measured requests, from one record of each.

        Parameters
        ----------
        source : str or path or mapping or iterable of mapping
            A file or what it holds, as for :meth:`Workload.from_trace` [-].
        columns : mapping of str to str, optional
            Which column is which, where its name does not say it: of ``prompt``, ``output``, ``arrival_s``, ``sent_s``, ``start_s``, ``first_token_s``,
            ``finish_s``, ``ttft_s``, ``e2e_s``, ``gaps_s``, ``cached``, ``preemptions`` and ``replica`` [-].

        Returns
        -------
        RequestTimes
            Times from the first arrival on, requests in the order of their arrivals [-].

        Raises
        ------
        InvalidValueError
            If the file cannot be read, or does not say when requests were sent, answered and ended.

        Notes
        -----
        Moments are ``sent_s``, ``first_token_s`` and ``finish_s``, of one clock; in their place stand ``ttft_s``, ``e2e_s`` and ``gaps_s``, counted from sent.
        If a request was sent before it arrived, the two are of different clocks, as in vLLM's own records (arrival_time, queued_ts), and the least
        difference is taken as that of the clocks. Failed requests are left out.
        """
        read = read_times(source, columns)
        count = read.sent_s.size
        none = np.zeros(count)
        return cls(
            workload=Workload(prompt=read.prompt, output=read.output, arrival_s=read.arrival_s, source=read.source),
            sent_s=read.sent_s,
            start_s=np.full(count, nan) if read.start_s is None else read.start_s,
            first_token_s=read.first_token_s,
            finish_s=read.finish_s,
            token_s=read.token_s,
            begin_s=read.begin_s,
            end_s=read.end_s,
            notes=read.notes,
            **{name: read.counts.get(name, none) for name in ("cached", "preemptions", "replica")},
        )

    def __len__(self) -> int:
        return len(self.workload)

    @property
    def ended(self) -> np.ndarray:
        """Whether each request ended [-]."""
        return np.asarray(~np.isnan(self.finish_s))

    @property
    def ttft_s(self) -> np.ndarray:
        """Time to the first token [s]."""
        return np.asarray(self.first_token_s - self.sent_s)

    @property
    def tpot_s(self) -> np.ndarray:
        """Time per output token after the first; not a number for answers of one token [s]."""
        rest = np.where(self.workload.output > 1, self.workload.output - 1.0, nan)
        return np.asarray((self.finish_s - self.first_token_s) / rest)

    @property
    def e2e_s(self) -> np.ndarray:
        """Time to the last token [s]."""
        return np.asarray(self.finish_s - self.sent_s)

    @property
    def queue_s(self) -> np.ndarray:
        """Time until the first step that holds a part of the prompt [s]."""
        return np.asarray(self.start_s - self.sent_s)

    @property
    def itl_s(self) -> np.ndarray:
        """Gaps between tokens, of all answers one after the other [s]."""
        return np.concatenate([*self.gaps(), np.zeros(0)])

    def gaps(self) -> list[np.ndarray]:
        """Return the gaps between the tokens of each answer.

        Returns
        -------
        list of numpy.ndarray
            An array for each request [s].

        Raises
        ------
        InvalidValueError
            If these times hold no time of every token.
        """
        if self.token_s is None:
            raise InvalidValueError(
                "these times do not say when each token was there, so there are no gaps between tokens; tpot_s needs none."
            )
        return [np.diff(moments) for moments in self.token_s]

    @property
    def duration_s(self) -> float:
        """Time observed: from the first request sent to the last token, or as stated [s]."""
        begin = float(np.nanmin(self.sent_s, initial=inf)) if self.begin_s is None else self.begin_s
        end = float(np.nanmax(self.finish_s, initial=-inf)) if self.end_s is None else self.end_s
        return max(end - begin, 0.0) if begin < inf and end > -inf else nan

    def _per_second(self, amount: float) -> float:
        return amount / self.duration_s if self.duration_s > 0 else nan

    @property
    def requests_per_s(self) -> float:
        """Requests that ended, per second [request/s]."""
        return self._per_second(float(self.ended.sum()))

    @property
    def input_tokens(self) -> int:
        """Tokens of the prompts of requests that ended [token]."""
        return int(self.workload.prompt[self.ended].sum())

    @property
    def output_tokens(self) -> int:
        """Tokens of the answers of requests that ended [token]."""
        return int(self.workload.output[self.ended].sum())

    @property
    def output_tokens_per_s(self) -> float:
        """Tokens of answers per second [token/s]."""
        return self._per_second(self.output_tokens)

    @property
    def total_tokens_per_s(self) -> float:
        """Tokens of prompts and answers per second [token/s]."""
        return self._per_second(self.input_tokens + self.output_tokens)

    def statistics(self, *, confidence: float = 0.9) -> tuple[Statistics, ...]:
        """Return mean, percentiles and extremes of each time, with intervals.

        Intervals are of :func:`mean_interval` and :func:`percentile_interval`: of values that depend on their neighbours, in the order of requests.

        Parameters
        ----------
        confidence : float, optional
            How often an interval shall hold the figure of an endless run [-].

        Returns
        -------
        tuple of Statistics
            One for each time that is known [-].

        Raises
        ------
        InvalidValueError
            If confidence is not between 0 and 1.
        """
        share("confidence", confidence)
        rows = []
        for measure in _MEASURES:
            if measure == "itl_s" and self.token_s is None:
                continue
            values = getattr(self, measure)
            values = values[~np.isnan(values)]
            if values.size:
                mean = mean_interval(values, confidence=confidence)
                median, p90, p95, p99 = percentile_intervals(values, (0.5, 0.9, 0.95, 0.99), confidence)
                rows.append(Statistics(measure, values.size, mean, median, p90, p95, p99, float(values.min()), float(values.max())))
        return tuple(rows)

    def goodput(self, slo: SLO | Mapping[str, float]) -> Goodput:
        """Return what came of promises: the requests that kept all of them, and whether each is kept for its share.

        Parameters
        ----------
        slo : SLO or mapping
            What is promised; a mapping of what SLO takes will do [-].

        Returns
        -------
        Goodput
            Share and rates of requests that kept all promises; one that did not end kept none [-].

        Raises
        ------
        InvalidValueError
            If gaps are promised, and these times do not say when each token was there.
        """
        promised = as_slo(slo)
        kept, reached = promised.kept(self), promised.reached(self)
        return Goodput(
            share=float(kept.mean()),
            requests_per_s=self._per_second(float(kept.sum())),
            output_tokens_per_s=self._per_second(float(self.workload.output[kept].sum())),
            reached=freeze(reached),
            met=all(limit >= reached[name] for name, limit in promised.promises.items()),
        )

    def gpu_seconds(self, devices: int) -> float:
        """Return for how long devices were occupied, all together.

        Parameters
        ----------
        devices : int
            How many [-].

        Returns
        -------
        float
            Devices × time observed [s].

        Raises
        ------
        InvalidValueError
            If it is no whole number of at least 1.
        """
        return whole_number("devices", devices, minimum=1) * self.duration_s

    def cost(self, *, price_per_device_hour: float, devices: int, prompt_share: float | None = None) -> Cost:
        """Return what the requests cost that ended.

        Parameters
        ----------
        price_per_device_hour : float
            What a device costs for an hour [currency].
        devices : int
            How many are paid for, busy or not [-].
        prompt_share : float, optional
            Share of the cost that prompts bear, as their share of the devices' busy time; if None prompts and answers each bear all of it, so that the
            figures of the two do not add up [-].

        Returns
        -------
        Cost
            Of all, of one, and of a million tokens [-].

        Raises
        ------
        InvalidValueError
            If a value is not what is described.
        """
        total = positive("price_per_device_hour", price_per_device_hour, "the currency") * self.gpu_seconds(devices) / 3600
        prompts = 1.0 if prompt_share is None else share("prompt_share", prompt_share)
        answers = 1.0 if prompt_share is None else 1 - prompts
        million = 1e6 * total
        return Cost(
            total,
            _each(total, int(self.ended.sum())),
            _each(million * prompts, self.input_tokens),
            _each(million * answers, self.output_tokens),
            _each(million, self.input_tokens + self.output_tokens),
        )

    def energy(self, *, power_w: float, devices: int) -> Energy:
        """Return what energy the requests took that ended.

        Parameters
        ----------
        power_w : float
            Mean power of a device over the time observed, with its share of the host and of cooling if these count [W].
        devices : int
            How many [-].

        Returns
        -------
        Energy
            Of all, of one, and of a token [-].

        Raises
        ------
        InvalidValueError
            If a value is not what is described.
        """
        total = positive("power_w", power_w, "W") * self.gpu_seconds(devices)
        tokens = self.input_tokens + self.output_tokens
        return Energy(total, _each(total, int(self.ended.sum())), _each(total, self.output_tokens), _each(total, tokens))

    def between(self, start_s: float, end_s: float) -> Self:
        """Return the requests that ended in an interval, and rates over that interval.

        Parameters
        ----------
        start_s, end_s : float
            The interval, its end not included [s].

        Returns
        -------
        RequestTimes
            These requests; a note says which were left out [-].

        Raises
        ------
        InvalidValueError
            If none ended in it.
        """
        start, end = span(start_s, end_s)
        inside = (self.finish_s >= start) & (self.finish_s < end)
        if not inside.any():
            raise InvalidValueError(f"no request ended from {start:g} s to {end:g} s.")
        index = np.flatnonzero(inside)
        arrays = ("sent_s", "start_s", "first_token_s", "finish_s", "cached", "preemptions", "replica")
        return replace(
            self,
            workload=self.workload.take(index),
            **{name: getattr(self, name)[index] for name in arrays},
            token_s=None if self.token_s is None else [self.token_s[i] for i in index.tolist()],
            begin_s=start,
            end_s=end,
            notes=(*self.notes, f"{index.size:,} of {len(self):,} requests: those that ended from {start:.4g} s to {end:.4g} s"),
        )

    def warm(self, *, first: float = 0.1, last: float = 0.1) -> Self:
        """Return the requests that ended in the middle of the run, without its ramp-up and ramp-down.

        Parameters
        ----------
        first, last : float, optional
            Shares of the time observed that are left out at the beginning and at the end [-].

        Returns
        -------
        RequestTimes
            These requests; a note says which were left out [-].

        Raises
        ------
        InvalidValueError
            If a share is negative, nothing would be left, or no request ended in the middle.
        """
        begin_share, end_share = positive("first", first, "", or_zero=True), positive("last", last, "", or_zero=True)
        if begin_share + end_share >= 1:
            raise InvalidValueError(f"first is {first:g} and last is {last:g}; together they must be less than 1.")
        begin = float(np.nanmin(self.sent_s)) if self.begin_s is None else self.begin_s
        end = np.nextafter(begin + self.duration_s, inf)
        return self.between(begin + begin_share * self.duration_s, float(end - end_share * self.duration_s))

    def values(self) -> dict[str, Any]:
        """Return what happened to each request, an array for each column [SI]."""
        asked = {
            "request": np.arange(len(self)),
            "prompt": self.workload.prompt,
            "output": self.workload.output,
            "arrival_s": self.workload.arrival_s,
        }
        moments = {name: getattr(self, name) for name in ("sent_s", "start_s", "first_token_s", "finish_s")}
        lasted = {name: getattr(self, name) for name in _MEASURES if name != "itl_s"}
        return asked | moments | lasted | {name: getattr(self, name) for name in ("cached", "preemptions", "replica")}

    def context(self) -> dict[str, Any]:
        """Return the statistics, and what the numbers rest on [-]."""
        rates = {name: getattr(self, name) for name in ("duration_s", "requests_per_s", "output_tokens_per_s", "total_tokens_per_s")}
        statistics = [
            {name: value._asdict() if isinstance(value, Interval) else value for name, value in row._asdict().items()}
            for row in self.statistics()
        ]
        return {"kind": "request times", "source": self.workload.source, **rates, "statistics": statistics, "notes": self.notes}

    def summary(self) -> list[str]:
        """Return the short text: rates, then each time with its percentiles and intervals [-]."""
        lines = [self._headline()]
        for row in self.statistics():
            figures = [f"{name} {_shown(getattr(row, name))}" for name in ("mean", "median", "p90", "p95", "p99")]
            lines.append(f"  {_MEASURES[row.measure]}: {', '.join(figures)}, least {show_time(row.least)}, most {show_time(row.most)}")
        return lines + show_notes(self.notes)

    def _headline(self) -> str:
        ended = int(self.ended.sum())
        count = f"{ended:,} requests" if ended == len(self) else f"{ended:,} of {len(self):,} requests ended"
        rates = f"{self.requests_per_s:.4g} requests/s, {self.output_tokens_per_s:,.4g} output tokens/s"
        return f"{count} in {show_time(self.duration_s)}: {rates}"

    def __repr__(self) -> str:
        return f"<{self._headline()}>"


def _each(amount: float, count: int) -> float:
    return amount / count if count else nan


def _shown(figure: Interval) -> str:
    half = (figure.high - figure.low) / 2
    return show_time(figure.value) + (f" ± {show_time(half)}" if half >= 0 else "")
