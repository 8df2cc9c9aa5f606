"""Where a service is at some load, and what is asked of that only sometimes: intervals, percentiles, what binds."""

from copy import copy
from dataclasses import replace
from functools import cached_property
from statistics import NormalDist
from typing import Any, NamedTuple, Self

import numpy as np

from roofline.arithmetic import Number, quotient
from roofline.estimate import decode_estimate
from roofline.floors import decode_floor
from roofline.serving.closed_forms.curves import Curves
from roofline.serving.closed_forms.forms import (
    CAPACITY,
    NOTHING,
    PROMPTS,
    SEQUENCES,
    TRANSFER,
    Limit,
    Point,
    closed_loop,
    decode_steps,
    most_decoding,
    shared_prompts,
    static_batches,
    step_met,
    steps_if_ranks,
)
from roofline.serving.closed_forms.gaps import usual_gap
from roofline.serving.closed_forms.phases import Lengths, Phases, Server, phases
from roofline.serving.closed_forms.service import Service
from roofline.serving.closed_forms.two_pools import Pools
from roofline.step_time import StepTime

_STEEPEST = 0.8  # elasticity of the time of decoding
_OF_AN_ANSWER = 2 / 3  # of the variance of a batch, where it is averaged over an answer
CAUSES = {CAPACITY: "capacity", SEQUENCES: "sequences", PROMPTS: "prompts", TRANSFER: "link"}


class Percentiles(NamedTuple):
    """Times that a share of the requests does not exceed; an array each [s]."""

    ttft_s: np.ndarray
    tpot_s: np.ndarray
    itl_s: np.ndarray
    e2e_s: np.ndarray


class Loads:
    """A service and the lengths of its requests: curves of each different length, up to the limits."""

    def __init__(self, service: Service, lengths: Lengths) -> None:
        service.check_length(lengths)
        self.service, self.lengths = service, lengths
        columns = np.stack([getattr(lengths, name) for name in Lengths.__slots__])
        different, self.row = np.unique(columns, axis=1, return_inverse=True)
        self.row = self.row.ravel()
        self.different = Lengths(*different)

    def each(self, times: int) -> Self:
        """Return the same with every request so many times in a row, for as many loads."""
        several, same = copy(self), np.repeat(np.arange(self.row.size), times)
        for name in ("fits", "pools", "most"):  # one for each request, and not computed again for each different length
            several.__dict__.pop(name, None)
        several.row, several.lengths = self.row[same], self.lengths.at(same)
        return several

    @cached_property
    def limit(self) -> Limit:
        """Most sequences of a lane, of all different lengths; less than 1 where not one fits."""
        return self.service.limit(self.different)

    @cached_property
    def fits(self) -> np.ndarray:
        """Whether at least one request fits into the memory."""
        return (self.limit.most >= 1)[self.row]

    @cached_property
    def curves(self) -> Curves:
        """Phases of all different lengths."""
        return Curves.of(self.service.server, self.different, self.limit, apart=self.service.prefill is not None).searchable()

    @cached_property
    def _pools(self) -> Pools:
        """Both pools, where there are two, of all different lengths."""
        return Pools.of(self.service, self.curves)

    @cached_property
    def pools(self) -> Pools:
        """Both pools, where there are two."""
        return self._pools.at(self.row)

    @property
    def lanes(self) -> Number:
        """Lanes of all replicas."""
        return self.service.replicas * self.service.server.lanes

    @cached_property
    def most(self) -> np.ndarray:
        """Requests a second of a lane that can be served, if at least one fits."""
        return self.curves.most[self.row] if self.service.prefill is None else self.pools.most

    def open_loop(self, rate: np.ndarray) -> Point:
        """Return where a lane is if its share of requests arrives at random at a rate."""
        if self.service.prefill is not None:
            return self.pools.open_loop(rate)
        return self.curves.open_loop(self.row, rate)

    def closed_loop(self, clients: np.ndarray) -> Point:
        """Return where a lane is with its share of clients."""
        service, server, how = (
            self.service,
            self.service.server.at(self.row),
            {"rounds": self.service.rounds, "outside_s": self.service.request_s},
        )
        if service.prefill is not None:
            return self.pools.closed_loop(clients, **how)
        limit = Limit(np.maximum(self.limit.most, 1.0)[self.row], self.limit.cause[self.row])
        if service.static:
            return static_batches(replace(server, mixed=False), self.lengths, clients, limit)
        return closed_loop(server, self.lengths, clients, limit, **how)


class Operation:
    """Loads at one point each."""

    def __init__(self, loads: Loads, point: Point, *, sent: np.ndarray | None = None) -> None:
        self.loads = loads
        self.point = point if loads.fits.all() else _unserved(point, ~loads.fits)
        self.sent = sent  # requests a second of a lane that arrive at random; None where clients send them
        self.service, self.lengths = loads.service, loads.lengths

    @cached_property
    def ttft_s(self) -> np.ndarray:
        """Mean time to the first token."""
        return np.asarray(self.service.request_s + self.point.queue_s + self.point.prompt_s)

    @cached_property
    def tpot_s(self) -> np.ndarray:
        """Mean time of each token after the first; not a number for answers of one token."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.lengths.output > 1, self.point.decoding_s / (self.lengths.output - 1), np.nan)

    @cached_property
    def rate(self) -> np.ndarray:
        """Requests a second of all lanes."""
        return np.asarray(self.point.rate * self.loads.lanes)

    @cached_property
    def load(self) -> np.ndarray:
        """Requests a second that are sent, or that clients have answered, over the most that could be."""
        sent, most = (self.point.rate, self.loads.most) if self.sent is None else (self.sent, self.point.most)
        return np.asarray(quotient(sent, np.maximum(most, self.point.rate)))

    @cached_property
    def running(self) -> np.ndarray:
        """Sequences in all lanes, on average (Little)."""
        return np.asarray(self.rate * (self.point.prompt_s + self.point.decoding_s))

    @cached_property
    def cache_share(self) -> np.ndarray:
        """Share of the cache that they hold."""
        return np.asarray(np.minimum(self.running / (self.loads.lanes * np.maximum(self.service.fitting(self.lengths), 1e-9)), 1.0))

    def scales(self, interval: float) -> tuple[np.ndarray, ...]:
        """Return both ends of an interval over the mean, of decode steps and of prompts."""
        found = []
        for level in (0.5 - interval / 2, 0.5 + interval / 2):
            decode, prompt = (self._phases(server, level) for server in (self.service.server, self.service.prefill or self.service.server))
            found += [decode.decode / self.point.phases.decode, prompt.alone / self._prompt.alone]
        return tuple(found)

    @cached_property
    def _prompt(self) -> Phases:
        return self._phases(self.service.prefill or self.service.server, None)

    def _phases(self, server: Server, level: float | None) -> Phases:
        time = server.time
        if level is not None:
            how: dict[str, Any] = {
                "calibration": time.calibration,
                "cuda_graph": time.cuda_graph,
                "graph_tokens": time.graph_tokens,
                "engine": time.engine,
                "beyond": time.beyond,
            }
            time = StepTime(time.deployment, quantile=level, **how)
        return phases(replace(server, time=time), self.lengths, self.point.batch)

    @cached_property
    def binds(self) -> np.ndarray:
        """What limits the load that is served; where nothing does, what decode steps are bound by."""
        found = np.array([CAUSES.get(int(code), "") for code in self.point.cause], dtype=object)
        free = self.point.cause == NOTHING
        if free.any():
            deployment = self.service.deployment
            step = {
                "batch": np.maximum(np.rint(self.point.batch[free]), 1).astype(int) * self.service.server.ranks,
                "context": np.rint(self.lengths.context[free]).astype(int),
            }
            if self.service.server.time.basis != "estimate":
                found[free] = decode_floor(deployment, **step).bound
            else:
                time = self.service.server.time
                step_estimate = decode_estimate(deployment, **step, calibration=time.calibration, cuda_graph=time.cuda_graph)
                host = np.asarray(step_estimate.overhead_s) > np.asarray(step_estimate.kernels_s)
                found[free] = np.where(host, "host", step_estimate.bound)
        return found.astype(str)

    def percentiles(self, share: float, *, gaps: bool = True) -> Percentiles:
        """Return what a share of requests that arrive at random does not exceed; the gap between tokens, which takes longest, only if it is asked for.

        The wait has an exponential tail, a sequence sees a batch that varies as that of a queue with places for all, in each step or averaged over
        its answer, prompts of others come at random, each with those that come while it runs (gamma), and lengths are log-normal.
        """
        point, lengths, normal = self.point, self.lengths, NormalDist().inv_cdf(share)
        load = np.clip(self.load, 1e-9, 1.0)
        half = point.phases.period / 2 * point.phases.busy(point.batch) * (self.service.prefill is None)
        if ranked := steps_if_ranks(point.phases, point.rate):
            met = step_met(point.phases, ranked[0]) / 2 * point.phases.busy(point.batch)
            half = np.where(point.phases.ranks > 1, np.minimum(met, point.queue_s), half)
        wait = np.maximum(point.queue_s - half, 0.0) / load * np.maximum(np.log(load / (1 - share)), 0.0)
        first = self.service.request_s + 2 * half + wait + point.prompt_s * _spread(lengths.prompt_cv, normal)
        decoding = self._slow_decoding(normal)
        with np.errstate(invalid="ignore", divide="ignore"):
            tpot = np.where(self._steps > 0, decoding / (lengths.output - 1), np.nan)
            gap = np.full_like(tpot, np.nan)
            if gaps:
                often = self._met * point.phases.parts / self._steps
                usual, within = usual_gap(point.phases, point.rate, often, share, lengths.prompt_cv)
                gap = np.where(self._steps > 0, usual + self._varied(_normal(within), 1.0)[1], np.nan)
        return Percentiles(first, tpot, gap, first + decoding * _spread(lengths.output_cv, normal))

    @cached_property
    def _steps(self) -> np.ndarray:
        return decode_steps(self.service.server, self.lengths)

    @cached_property
    def _met(self) -> np.ndarray:
        """Prompts of others that run while a request decodes."""
        beside = np.maximum(self.point.decoding_s - self._steps * self.point.phases.decode, 0.0)
        return np.where(np.isfinite(beside), beside / np.maximum(self.point.phases.added, 1e-300), 0.0)

    def _varied(self, normal: Number, spread: float) -> tuple[np.ndarray, np.ndarray]:
        """Return a quantile of the batch, given as one of the standard normal distribution, and by how much longer a decode step of it takes.

        Of those beside a sequence as many come and go as of a queue with places for all: their variance is their mean, or a share of it.
        """
        row, curves, batch = self.loads.row, self.loads.curves, self.point.batch
        others = normal * np.sqrt(spread * self.point.phases.others(batch))
        varied = np.clip(batch + others, np.minimum(batch, 1 / self.point.phases.ranks), np.maximum(curves.limit.most[row], batch))
        return varied, curves.decode_at(row, varied) - self.point.phases.decode

    def _slow_decoding(self, normal: float) -> np.ndarray:
        """Return a quantile of the time of decoding, given as one of the standard normal distribution.

        Who takes longer meets more others, by which steps take longer: what is added is divided by one less the elasticity of a step.
        """
        point, steps, decode = self.point, self._steps, self.point.phases.decode
        batch, more_s = self._varied(max(normal, 0.0), _OF_AN_ANSWER)
        longer = np.maximum(more_s / decode, 0.0)
        elasticity = np.minimum(longer * point.phases.others(point.batch) / np.maximum(batch - point.batch, 1e-9), _STEEPEST)
        added = shared_prompts(point.phases, point.rate) if point.added is None else point.added
        left = np.maximum(1 - point.rate * added, 1e-3)
        spread = (1 + self.lengths.prompt_cv**2) * (1 + self.lengths.output_cv**2)  # short answers meet few prompts
        alone, ranks = (
            point.phases.ranks == 1,
            point.phases.ranks,
        )  # of several, whose steps hold as many prompts as come, none of which waits for another
        shape = np.maximum(self._met, 1e-9) * np.where(alone, left**2, ranks) / spread
        more = self._met * np.maximum(_gamma(shape, normal) - 1, 0.0)
        found = point.decoding_s + (steps * decode * longer / left + more * point.phases.added) / (1 - elasticity)
        ceiling = most_decoding(point.phases, steps, mixed=self.service.server.mixed)
        return np.asarray(np.minimum(found, np.maximum(ceiling, point.decoding_s)))


def _unserved(point: Point, which: np.ndarray) -> Point:
    """Return a point where some requests do not fit into the memory and wait for ever."""
    found = {"queue_s": np.inf, "decoding_s": np.nan, "rate": 0.0, "most": 0.0, "cause": CAPACITY}
    unserved: dict[str, Any] = {name: np.where(which, value, getattr(point, name)) for name, value in found.items()}
    return replace(point, **unserved)


def _normal(share: np.ndarray) -> np.ndarray:
    """Return a quantile of the standard normal distribution, to 0.0005 (Abramowitz and Stegun, 26.2.23)."""
    tail = np.clip(np.minimum(share, 1 - share), 1e-3, 0.5)  # no farther than a thousandth
    t = np.sqrt(-2 * np.log(tail))
    found = t - (2.515517 + 0.802853 * t + 0.010328 * t**2) / (1 + 1.432788 * t + 0.189269 * t**2 + 0.001308 * t**3)
    return np.asarray(np.where(share < 0.5, -found, found))


def _gamma(shape: np.ndarray, normal: float) -> np.ndarray:
    """Return a quantile of a gamma distribution over its mean (Wilson and Hilferty)."""
    ninth = 1 / (9 * shape)
    return np.asarray(np.maximum(1 - ninth + normal * np.sqrt(ninth), 0.0) ** 3)


def _spread(cv: np.ndarray, normal: float) -> np.ndarray:
    """Return a quantile of log-normal lengths over their mean."""
    variance = np.log1p(cv**2)
    return np.asarray(np.exp(np.sqrt(variance) * normal - variance / 2))
