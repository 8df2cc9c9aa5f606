"""`fit_service`: an engine's constants from a measured run, by simulating it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from roofline.deployment import Deployment
from roofline.deployment.spelling import checks_keywords
from roofline.engines import Engine, load_engine
from roofline.errors import CalibrationError, InvalidValueError, quoted
from roofline.fitting.solve import SCALE, optimizers
from roofline.names import unknown_name
from roofline.records import CalibrationRecord, FittedConstant
from roofline.requests import RequestTimes, Workload
from roofline.serving.rules import Rules, check_options, rules_of
from roofline.serving.simulation.fleet import Fleet, Run
from roofline.serving.simulation.members import Member
from roofline.serving.steps.beyond import CONSTANTS, add_to_ranks, add_to_steps
from roofline.serving.steps.load import Load
from roofline.serving.steps.seconds import compiled
from roofline.serving.steps.service_fit import Basis, ServiceFit, errors_of
from roofline.serving.steps.timing import timing_of
from roofline.step.beyond import STEP, beyond_s
from roofline.units import show_time, whole_number

LEAST = 4
"""Requests that a fit needs for every constant that it finds [-]."""

_POOR = 0.1  # mean deviation of a time, relative to its request's, beyond which a fit is called poor
_WIDER = 2.0  # intervals: the schedule, which follows the constants, is not in the derivatives; so chosen on simulated runs
_Simulate = Callable[[Mapping[str, float]], Run]


@checks_keywords
def fit_service(
    times: RequestTimes | Any,
    deployment: Deployment,
    *,
    requests: int | Sequence[int] | None = None,
    constants: Sequence[str] = ("step_s", "sequence_s", "token_s"),
    engine: str | Engine = "vllm",
    rules: Rules | None = None,
    basis: Basis = "floor",
    calibration: CalibrationRecord | str | Path | None = None,
    acceptance: float | Sequence[float] | None = None,
    **options: Any,
) -> ServiceFit:
    r"""Find an engine's constants in a measured run: those with which a simulation of the run gives the measured times.

    A step takes :math:`t_{basis}` + step_s + sequence_s · sequences + context_s · tokens in the cache of decodes + token_s · tokens of
    prompts + pair_s · pairs of a prompt's token and a position that it sees, none of which is negative. So no step is faster than its floor.

    Parameters
    ----------
    times : RequestTimes or anything that :meth:`RequestTimes.from_records` takes
        The run of one replica: prompts and answers, when each request was sent, had its first token and ended [-].
    deployment : Deployment
        What ran [-].
    requests : int or sequence of int, optional
        How many of the requests sent first are fitted, or the indices of those that are; of all others only lengths and the times at
        which they were sent are used. All if not given [-].
    constants : sequence of str, optional
        Which are found, of ``step_s``, ``sequence_s``, ``context_s``, ``token_s``, ``pair_s`` and ``request_s``, the last being the time
        until the engine knows a request; the others are 0 [-].
    engine : str or Engine, optional
        The engine that ran [-].
    rules : Rules, optional
        How it scheduled, in place of what :func:`rules_of` finds with `engine` and `options` [-].
    basis : {"floor", "roofline", "estimate"}, optional
        Beyond which time of a step the constants count [-].
    calibration : CalibrationRecord, str or Path, optional
        What an estimate rests on; the engine's record of the machine if there is one, else the machine's default [-].
    acceptance : float or sequence of float, optional
        Where steps verified drafts, the probability that one was accepted if those before it were; one for all, or one for each position [-].
    **options : optional
        Options of :func:`rules_of`: ``kv_blocks`` above all, which the engine logs when it starts, ``step_tokens``, ``sequences``,
        ``prefix_caching`` [-].

    Returns
    -------
    ServiceFit
        The constants with intervals of 80 %, and how far the simulation is from the run [-].

    Raises
    ------
    CalibrationError
        If there are too few requests, some have no times, or the run is faster than its floor.
    RooflineError
        If an option is unknown or impossible, or a request can never have been served.

    Notes
    -----
    The time to the first token and the rest of the answer of each request, both relative to the request's whole time, are fitted by least squares
    with a soft-L1 loss. How a time depends on a constant is taken from the steps that it consists of, as they are scheduled:
    the derivative with respect to token_s is the sum of their tokens of prompts. Each trial is one simulation; a fit takes about thirty.

    Intervals are those of a sandwich estimator that sums what requests say over blocks of :math:`\sqrt n` neighbours, since these share their
    steps. They are taken twice as wide, because these derivatives leave out what a constant changes in the schedule: so widened,
    they held the constants of 28 simulated runs whose steps scattered by 10 % in 68 of 84 cases. They say how well the requests determine the constants, not how
    well the form suits the engine. step_s and sequence_s are hard to tell apart in a run whose steps all hold about as many sequences.

    References
    ----------
    H. R. Künsch, The jackknife and the bootstrap for general stationary observations, Annals of Statistics 17 (1989), doi:10.1214/aos/1176347265.
    """
    measured = as_sent(times if isinstance(times, RequestTimes) else RequestTimes.from_records(times))
    if not isinstance(deployment, Deployment):
        raise InvalidValueError(f"deployment is {quoted(deployment)}; it is a Deployment(model, hardware, ...).")
    names = _check_names(constants)
    check_options("fit_service", options)
    if rules is not None and options:
        raise InvalidValueError(f"give either rules or {', '.join(options)}, not both.")
    if not isinstance(rules, Rules | None):
        raise InvalidValueError(f"rules is {quoted(rules)}; it is what rules_of(deployment) returns, or Rules(...).")
    rules = rules_of(deployment, engine=engine, **options) if rules is None else rules
    which = _check_times(measured, requests, len(names))
    time = timing_of(deployment, {"basis": basis, "calibration": calibration}, load_engine(rules.engine))
    base: Any = compiled(time, rules)
    add: Any = add_to_ranks if deployment.parallel.data > 1 else add_to_steps

    def simulate(found: Mapping[str, float]) -> Run:
        member = Member(deployment, rules, add(base, found), acceptance)
        fleet = Fleet((member,), host_s=found.get("request_s", 0.0))
        return fleet.serve(measured.workload, steps=True, token_times=False)

    trials = _Trials(simulate, measured, which, names)
    trials.check_floor(basis)
    solution = trials.solve()
    off = float(np.abs(trials.at(solution)[0]).mean())
    bounds = zip(names, *((each * trials.scale).tolist() for each in (solution, *trials.intervals(solution))), strict=True)
    found = {name: FittedConstant(value=value, low=low, high=high, unit=CONSTANTS[name]) for name, value, low, high in bounds}
    run = simulate({name: constant.value for name, constant in found.items()})
    notes = [f"{name} is 0: the run has nothing of it beyond {basis}" for name, constant in found.items() if not constant.value]
    if off > _POOR:
        notes.append(
            f"a poor fit: times are off by {off:.0%} of their request's on average; are kv_blocks and the other limits those that the engine logged?"
        )
    errors = errors_of(run.times, measured, which)
    return ServiceFit(deployment, rules, basis, time.calibration, found, which.size, len(measured), errors, (*rules.notes, *notes))


def _check_names(constants: Any) -> tuple[str, ...]:
    names = (constants,) if isinstance(constants, str) or not isinstance(constants, Iterable) else tuple(constants)
    for name in names:
        if not isinstance(name, str) or name not in CONSTANTS:
            raise unknown_name("constant of a service", str(name), CONSTANTS)
    if not names or len(set(names)) != len(names):
        raise InvalidValueError(f"constants are {quoted(names)}; name each that is to be found once.")
    return names


def as_sent(times: RequestTimes) -> RequestTimes:
    """Return a run in the order in which its requests were sent, each arriving when it was."""
    order = np.argsort(times.sent_s, kind="stable")
    asked = times.workload
    if np.unique(times.replica).size > 1:
        raise CalibrationError(f"the requests are of {np.unique(times.replica).size} replicas; a fit is of those of one.")
    if np.isnan(times.sent_s).any():
        raise CalibrationError(f"{int(np.isnan(times.sent_s).sum())} of {len(times)} requests do not say when they were sent.")
    workload = Workload(
        prompt=asked.prompt[order],
        output=asked.output[order],
        arrival_s=times.sent_s[order] - times.sent_s[order[0]],
        blocks=None if asked.blocks is None else tuple(asked.blocks[i] for i in order.tolist()),
        block_tokens=asked.block_tokens,
        priority=None if asked.priority is None else asked.priority[order],
        source=asked.source,
    )
    moments = {name: getattr(times, name)[order] - times.sent_s[order[0]] for name in ("sent_s", "start_s", "first_token_s", "finish_s")}
    counts = {name: getattr(times, name)[order] for name in ("cached", "preemptions", "replica")}
    return RequestTimes(workload, **moments, **counts)


def _check_times(times: RequestTimes, requests: Any, constants: int) -> np.ndarray:
    """Return the indices of the requests that are fitted."""
    if requests is None:
        which = np.arange(len(times))
    elif isinstance(requests, Iterable):
        which = np.unique([whole_number("requests", index) for index in requests]).astype(int)
        if which.size and which[-1] >= len(times):
            raise InvalidValueError(f"requests contains {which[-1]}; there are {len(times)} requests, counted from 0.")
    else:
        which = np.arange(min(whole_number("requests", requests, minimum=1), len(times)))
    if which.size < LEAST * constants:
        raise CalibrationError(f"{which.size} requests are too few for {constants} constants; at least {LEAST * constants} are needed.")
    first, last, sent = (getattr(times, name)[which] for name in ("first_token_s", "finish_s", "sent_s"))
    if (bad := np.flatnonzero(np.isnan(first) | np.isnan(last))).size:
        raise CalibrationError(
            f"{bad.size} of {which.size} requests have no first or no last token, request {which[bad[0]]} among them; leave them out by requests=."
        )
    if (bad := np.flatnonzero((last <= first) & (times.workload.output[which] > 1))).size:
        raise CalibrationError(f"the answer of request {which[bad[0]]} takes no time after its first token; is finish_s that of its last?")
    if (bad := np.flatnonzero(first <= sent)).size:
        raise CalibrationError(f"request {which[bad[0]]} had its first token when it was sent; is first_token_s right?")
    return which


@dataclass(slots=True, eq=False)
class _Trials:
    """Simulations of a run with some constants, and how far each is from it."""

    simulate: _Simulate
    measured: RequestTimes
    which: np.ndarray
    names: tuple[str, ...]
    scale: np.ndarray = field(init=False)  # of each constant: what takes as long as the bound, on average
    _last: tuple[bytes, np.ndarray, np.ndarray] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        run = self.simulate({})
        self._floor = run.times
        loads, begins, ends = _steps(run)
        typical_s = float((ends - begins).mean())
        amounts = np.array([1.0 if name == "request_s" else _amount(loads, name).mean() for name in self.names])
        self.scale = typical_s / np.maximum(amounts, 1e-9)

    _floor: RequestTimes = field(init=False)

    def check_floor(self, basis: str) -> None:
        """Raise if the run is faster than steps without constants allow."""
        fastest, took = float(self._floor.e2e_s[self.which].mean()), float(self.measured.e2e_s[self.which].mean())
        if took >= fastest:
            return
        told = f"the run is faster than its {basis}: requests took {show_time(took)} on average, and {show_time(fastest)} in a simulation without constants"
        if basis != "floor":
            raise CalibrationError(f"{told}; take basis='floor'.")
        raise CalibrationError(
            f"{told}; is it another model, machine or number format, are there more devices, drafts or prefix hits, or are kv_blocks or sequences larger?"
        )

    def at(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return residuals and their derivatives at constants in units of `scale`."""
        key = x.tobytes()
        if self._last is None or self._last[0] != key:
            constants = dict(zip(self.names, (x * self.scale).tolist(), strict=True))
            self._last = key, *self._compare(self.simulate(constants), constants)
        return self._last[1:]

    def _compare(self, run: Run, constants: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Return time to first token and the rest of every answer, less what was measured, and derivatives at the same schedule."""
        which, times, measured = self.which, run.times, self.measured
        weight = np.tile(measured.e2e_s[which], 2)
        taken, wanted = (
            np.concatenate([told.ttft_s[which], told.finish_s[which] - told.first_token_s[which]]) for told in (times, measured)
        )
        loads, begins, ends = _steps(run)
        own = {name: constants.get(name, 0.0) for name in STEP}
        longest = beyond_s(*loads[:5], **own).argmax(axis=1)
        clock = np.stack([begins, ends], axis=1).ravel()
        known = times.sent_s[which] + constants.get("request_s", 0.0)
        columns = []
        for name, scale in zip(self.names, self.scale.tolist(), strict=True):
            if name == "request_s":
                next_step = np.append(begins, np.inf)[np.searchsorted(begins, known)]
                columns.append(np.concatenate([times.start_s[which] <= next_step, np.zeros(which.size)]) * scale)
                continue
            each = np.take_along_axis(_amount(loads, name), longest[:, None], axis=1)[:, 0]
            sums = np.concatenate([[0.0], np.cumsum(each)])
            at_clock = np.stack([sums[:-1], sums[1:]], axis=1).ravel()
            at_known, at_first, at_last = (
                np.interp(moment, clock, at_clock) for moment in (known, times.first_token_s[which], times.finish_s[which])
            )
            columns.append(np.concatenate([at_first - at_known, at_last - at_first]) * scale)
        return (taken - wanted) / weight, np.stack(columns, axis=1) / weight[:, None]

    def solve(self) -> np.ndarray:
        """Return the constants that fit best, in units of `scale`, from the better two of some starting points."""
        count = len(self.names)
        starts = [np.full(count, 0.5 / count), *(0.1 + 0.4 * np.eye(count))]
        starts.sort(key=lambda start: float(np.sqrt(1 + (self.at(start)[0] / SCALE) ** 2).sum()))
        return min((self._search(start) for start in starts[:2]), key=lambda found: float(found.cost)).x  # type: ignore[no-any-return]

    def _search(self, start: np.ndarray) -> Any:
        found = optimizers().least_squares(
            lambda x: self.at(x)[0],
            start,
            jac=lambda x: self.at(x)[1],
            bounds=(0.0, np.inf),
            loss="soft_l1",
            f_scale=SCALE,
            xtol=1e-3,
            ftol=1e-4,
            max_nfev=30,
        )
        found.x = np.where(found.x > 1e-3, found.x, 0.0)  # the solver stays inside of its bounds
        return found

    def intervals(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the constants' intervals, in units of `scale`, by a sandwich estimator with blocks of neighbours."""
        residuals, derivatives = self.at(x)
        count = self.which.size
        weight = (1 + (residuals / SCALE) ** 2) ** -0.5  # with it squares have the slope of the loss
        scores = (derivatives * (weight * residuals)[:, None]).reshape(2, count, -1).sum(axis=0)
        block = round(count**0.5)
        sums = np.concatenate([np.zeros((1, x.size)), np.cumsum(scores - scores.mean(axis=0), axis=0)])
        blocks = sums[block:] - sums[:-block]
        inverse = np.linalg.pinv(derivatives.T @ (weight[:, None] * derivatives))
        variance = inverse @ (blocks.T @ blocks * count / (block * len(blocks))) @ inverse
        half = _WIDER * NormalDist().inv_cdf(0.9) * np.sqrt(np.diag(variance))
        return np.maximum(0.0, x - half), x + half


def _steps(run: Run) -> tuple[Load, np.ndarray, np.ndarray]:
    """Return the loads of all steps, in arrays of steps × ranks, and when these began and ended."""
    assert run.steps is not None
    begins, ends, loads = zip(*run.steps[0], strict=True)
    amounts = np.array(loads, dtype=float).reshape(len(loads), -1, len(Load._fields))
    return Load(*np.moveaxis(amounts, -1, 0)), np.array(begins), np.array(ends)


def _amount(loads: Load, name: str) -> np.ndarray:
    """Return of what a constant is the price, for each step and rank."""
    return np.broadcast_to(beyond_s(*loads[:5], **{name: 1.0}), np.shape(loads.decodes))
