"""The largest rate of requests that keeps what is promised of their times."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from roofline.arithmetic import Number
from roofline.deployment.deployment import deploy
from roofline.deployment.machine import Machine
from roofline.deployment.options import ALL, asks
from roofline.errors import InvalidValueError, quoted
from roofline.requests import SLO
from roofline.results import Question, Result, show_span
from roofline.serving.closed_forms.estimate_result import ServingEstimate, service_inputs
from roofline.serving.closed_forms.operation import CAUSES, Loads, Operation
from roofline.serving.closed_forms.options import SERVICE, ServiceOptions, serves
from roofline.serving.closed_forms.service import Service, lengths_of
from roofline.units import show_time

_FULL = 0.999  # of the most that can be served: beyond, waits say nothing
_IDLE = 1e-9
_HALVINGS = 40
_MOST_CUTS, _POINTS = 31, 1024
_ROUNDING = 1e-9
_NAMES = {"ttft_s": "time to the first token", "tpot_s": "time per token", "itl_s": "gap between tokens", "e2e_s": "time to the last token"}


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class MaxRate(Result):
    """The largest rate of requests that keeps promises, for some lengths: numbers, or arrays of the question's shape.

    Parameters
    ----------
    estimate : ServingEstimate
        The service at that rate; where promises cannot be kept, at hardly any load [-].
    promises : mapping of str to float
        Seconds of ``ttft_s``, ``tpot_s``, ``itl_s`` and ``e2e_s``, those that are promised [s].
    share : float
        Of the requests, for which they hold [-].
    rates : numpy.ndarray
        The rates, flat; 0 where promises cannot be kept [-].
    limited_by : numpy.ndarray of str
        What a larger rate would break, flat: a promise, or what limits the service [-].
    reasons : numpy.ndarray of str
        Why promises cannot be kept, flat; empty where they can [-].
    """

    estimate: ServingEstimate
    promises: Mapping[str, float]
    share: float
    rates: np.ndarray
    limited_by: np.ndarray
    reasons: np.ndarray

    def _shaped(self, flat: np.ndarray) -> Number:
        return flat.reshape(self.estimate.shape) if self.estimate.shape else flat[0].item()

    @property
    def rate(self) -> Number:
        """Requests a second of all replicas together; 0 where the promises cannot be kept [-]."""
        return self._shaped(self.rates)

    @property
    def rate_per_device(self) -> Number:
        """The same over all devices [-]."""
        return self.rate / self.estimate.service.devices

    @property
    def tokens_per_s(self) -> Number:
        """Tokens of answers at that rate [token/s]."""
        return self._shaped(self.rates * self.estimate.operation.lengths.output)

    @property
    def kept(self) -> Number:
        """Whether the promises can be kept at all."""
        return self._shaped(self.reasons == "")

    @property
    def binds(self) -> Number:
        """What a larger rate would break: ``"ttft_s"``, ``"tpot_s"``, ``"itl_s"``, ``"e2e_s"``; or what limits the service, as of an estimate."""
        return self._shaped(self.limited_by)

    @property
    def reason(self) -> Number:
        """Why the promises cannot be kept, and by what floor; empty where they can."""
        return self._shaped(self.reasons)

    def question(self) -> Question:
        """Return the question that this answers [-]."""
        promises = {"slo": {**self.promises, "percentile": self.share}}
        return Question("max_rate", service_inputs(self.estimate.service, promises | self.estimate.lengths_asked))

    def basis(self) -> dict[str, Any]:
        """Return which times steps have, and the record of an estimate [-]."""
        return self.estimate.basis()

    def values(self) -> dict[str, Any]:
        """Return every number by name, scalars or arrays [SI]."""
        return {name: getattr(self, name) for name in ("rate", "rate_per_device", "tokens_per_s", "kept", "binds", "reason")}

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: promises, deployment, engine, record [-]."""
        return {**self.estimate.context(), "kind": "max rate", "promises": dict(self.promises), "percentile": self.share}

    def summary(self) -> list[str]:
        """Return the short text: the rate in the first line, then what binds, and the service at that rate [-]."""
        promised = ", ".join(f"{_NAMES[name]} ≤ {show_time(value)}" for name, value in self.promises.items())
        bound = ", ".join(dict.fromkeys(text for text in self.limited_by.tolist() if text))
        reasons = dict.fromkeys(text for text in self.reasons.tolist() if text)
        shown = "{:.4g}".format
        lines = [
            f"{show_span(self.rate, shown)} requests/s keep {promised} for {self.share:.4g} of the requests"
            + (f"; binds: {bound}" if bound else "")
        ]
        return [*lines, *(f"  cannot be kept: {text}" for text in reasons), *(f"  {line}" for line in self.estimate.summary())]


def _promised(slo: Any) -> SLO:
    """Return promises, given as such or as a mapping."""
    if isinstance(slo, Mapping) and all(isinstance(name, str) for name in slo):
        return SLO(**slo)
    if not isinstance(slo, SLO):
        raise InvalidValueError(f"slo is {quoted(slo)}; it must be an SLO, such as SLO(ttft_s=1, tpot_s=0.05).")
    return slo


@asks(ALL)
@serves
def max_rate(
    model: Any,
    hardware: Machine = None,
    *,
    slo: Any,
    prompt: Any,
    output: Any,
    **options: Unpack[ServiceOptions],
) -> MaxRate:
    r"""Return the largest rate of requests, arriving at random, that keeps promises of their times.

    Parameters
    ----------
    {model}
    slo : SLO or mapping
        What is promised, and for which share of the requests; each promise is kept for that share [-].
    prompt, output : float or array_like
        Mean lengths of prompts, prefix hits included, and of answers [token].
    {service}
    {options}

    Returns
    -------
    MaxRate
        Numbers of the shape that lengths broadcast to. Promises that cannot be kept have rate 0 and a reason [-].

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Notes
    -----
    Found by sections of :meth:`ServingEstimate.percentile`, at most at 99.9 % of what the service can answer. `itl_s` is kept for that share of
    all gaps, as :meth:`SLO.reached` counts; the goodput of a simulation counts the requests that have no longer gap at all.

    Examples
    --------
    >>> found = max_rate("llama-3.1-8b", "h100-sxm", slo={"ttft_s": 0.5, "tpot_s": 0.02}, prompt=1024, output=256)
    >>> found.kept, found.binds
    (True, 'tpot_s')
    """
    given = {name: options.pop(name) for name in SERVICE if name in options}  # type: ignore[misc]
    deployment = deploy("max_rate", ALL, model, hardware, options)
    service = Service.of(deployment, given)
    promised = _promised(slo)
    promises, share = promised.promises, promised.percentile
    if service.static or "rounds" in service.given:
        raise InvalidValueError("a rate of requests is not of static batches, or of clients in rounds: leave static and rounds out.")
    lengths, _, shape = lengths_of(prompt, output, given)
    loads = Loads(service, lengths)
    low, high = _IDLE * loads.most, _FULL * loads.most
    possible, full, rate = largest_load(loads, low, high, lambda some, rate: _kept(some, rate, promises, share))
    at = Operation(loads, loads.open_loop(rate), sent=rate)
    estimate = ServingEstimate(at, {"prompt": prompt, "output": output, "rate": _as_asked(rate * loads.lanes, shape)}, shape, None)
    limited = np.where(full, [CAUSES[int(code)] for code in causes(loads)], tightest(at, promises, share))
    reasons = np.where(possible, "", reasons_against(at, promises, share)) if not possible.all() else np.full(rate.shape, "")
    return MaxRate(estimate, promises, share, np.where(possible, rate * loads.lanes, 0.0), np.where(possible, limited, ""), reasons)


def largest_load(
    loads: Loads, low: np.ndarray, high: np.ndarray, keeps: Callable[[Loads, np.ndarray], np.ndarray], *, halvings: int = _HALVINGS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return whether the least load of each request keeps promises, whether the largest does, and the largest one that does, else the least.

    Each range is cut into sections again and again, into many at a time where requests are few, so that arrays are worth their calls.
    """
    possible, full = keeps(loads, low), keeps(loads, high)
    cuts = max(1, min(_MOST_CUTS, _POINTS // low.size))
    several, places, every = loads.each(cuts), np.arange(1, cuts + 1) / (cuts + 1), np.arange(low.size)
    below, above = low, high
    for _ in range(math.ceil(halvings / math.log2(cuts + 1))):
        between = below[:, None] * (above / below)[:, None] ** places
        good = keeps(several, between.ravel()).reshape(between.shape)
        kept = np.where(good.all(axis=1), cuts, np.argmin(good, axis=1))
        ends = np.concatenate([below[:, None], between, above[:, None]], axis=1)
        below, above = ends[every, kept], ends[every, kept + 1]
    return possible, full, np.where(possible, np.where(full, high, below), low)


def _as_asked(flat: np.ndarray, shape: tuple[int, ...]) -> Any:
    return flat.reshape(shape) if shape else flat[0].item()


def causes(loads: Loads) -> np.ndarray:
    """Return what limits the service."""
    return loads.curves.limit.cause[loads.row] if loads.service.prefill is None else loads.pools.cause


def _values(at: Operation, share: float) -> Mapping[str, np.ndarray]:
    return at.percentiles(share)._asdict()


def _kept(loads: Loads, rate: np.ndarray, promises: Mapping[str, float], share: float) -> np.ndarray:
    """Return whether a rate keeps all promises; what an answer of one token has none of is kept."""
    found = _values(Operation(loads, loads.open_loop(rate), sent=rate), share)
    kept = [~(found[name] > seconds * (1 + _ROUNDING)) for name, seconds in promises.items()]
    return np.asarray(np.logical_and.reduce(kept))


def tightest(at: Operation, promises: Mapping[str, float], share: float) -> np.ndarray:
    """Return the promise that is nearest to being broken."""
    found, names = _values(at, share), list(promises)
    over = np.stack([np.nan_to_num(found[name] / promises[name], nan=0.0) for name in names])
    return np.asarray(np.array(names)[np.argmax(over, axis=0)])


def reasons_against(at: Operation, promises: Mapping[str, float], share: float) -> np.ndarray:
    """Return what forbids promises that even a single request breaks: the floor, or the times that steps have here."""
    service, here = at.service, _values(at, share)
    given = {name: value for name, value in service.given.items() if name not in ("basis", "calibration", "quantile", "fit")}
    floors = Loads(Service.of(service.deployment, {**given, "basis": "floor"}), at.lengths)
    lowest = _values(Operation(floors, floors.open_loop(at.point.rate), sent=at.point.rate), share)
    found = np.where(at.loads.fits, "", service.never()).astype(object)
    for name, seconds in promises.items():
        for i in np.flatnonzero(at.loads.fits & (here[name] > seconds * (1 + _ROUNDING))):
            below, basis = lowest[name][i], service.server.time.basis if service.fit is None else "fit"
            said = f"a single request has a {_NAMES[name]} of {show_time(here[name][i])} ({basis}, {share:.4g} of the requests)"
            floor = f"its floor is {show_time(below)}" + (", above the promise" if below > seconds else "")
            found[i] = "; ".join(filter(None, [found[i], f"{name} of {show_time(seconds)}: {said}, {floor}"]))
    return found.astype(str)
