"""`simulate`: requests through the schedulers of a fleet, step by step."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from roofline.deployment.spelling import checks_keywords
from roofline.engines import Engine, load_engine
from roofline.errors import InvalidValueError, quoted
from roofline.records import CalibrationRecord
from roofline.requests import Workload, mean_interval
from roofline.requests.checking import positive, share
from roofline.serving.inputs import question_of
from roofline.serving.rules import Rules, check_options
from roofline.serving.simulation.fleet import Fleet, Run
from roofline.serving.simulation.members import Deployments, Member, Seconds, members_of
from roofline.serving.simulation.result import Simulation
from roofline.serving.simulation.routing import Choose, check_router
from roofline.serving.steps.service_fit import ServiceFit
from roofline.serving.steps.timing import host_request_s
from roofline.units import check_flag, check_rate, whole_number

Requests = Workload | Callable[[int], Workload]

_FEWEST_RUNS = 10  # before a half-width is looked at (Law, section 9.4.1)
_TAIL = 0.99


@checks_keywords
def simulate(
    deployment: Deployments,
    workload: Requests,
    *,
    replicas: int | Sequence[int] = 1,
    router: str | Choose = "round robin",
    staleness_s: float = 0.0,
    prefill: Deployments = None,
    prefill_replicas: int | Sequence[int] | None = None,
    prefill_router: str | Choose = "round robin",
    link_bandwidth: float | str | None = None,
    link_latency_s: float = 0.0,
    engine: str | Engine = "vllm",
    rules: Rules | None = None,
    prefill_rules: Rules | None = None,
    acceptance: float | Sequence[float] | None = None,
    basis: Literal["estimate", "roofline", "floor"] = "estimate",
    calibration: CalibrationRecord | str | Path | None = None,
    quantile: float | None = None,
    fit: ServiceFit | None = None,
    step_s: Seconds | None = None,
    prefill_step_s: Seconds | None = None,
    request_s: float | None = None,
    seed: int = 0,
    replications: int = 1,
    half_width: float | None = None,
    most_replications: int = 100,
    warm_up_s: float | None = None,
    confidence: float = 0.9,
    token_times: bool = True,
    steps: bool = False,
    **options: Any,
) -> Simulation:
    """Serve requests by the engine's own rules, step by step, and return what became of each.

    Parameters
    ----------
    deployment : Deployment or sequence of Deployment, optional
        What serves the requests; several where replicas differ. None where `rules` and `step_s` say all [-].
    workload : Workload or callable
        The requests; or a function that returns those of a seed, for `replications` [-].
    replicas : int or sequence of int, optional
        How many replicas there are, of each deployment; each data-parallel rank of a dense model is one, as these do not step together [-].
    router : {"round robin", "random", "least loaded", "power of two", "prefix", "vllm"} or callable, optional
        What chooses a replica: one after another; any; the one with the fewest requests; the better of two that chance picks; the one that was sent most of the
        prompt's first blocks, the one with the fewest requests where the workload has no blocks; the one with the smallest 4 · waiting + running. Or a function of a request's index and of what is seen of each replica
        (``waiting``, ``running``, ``sent`` since then), which returns an index [-].
    staleness_s : float, optional
        Routers read the state of the replicas at the multiples of this; at every request if 0 [s].
    prefill : Deployment or sequence of Deployment, optional
        What computes the prompts, if that is a pool of its own; that of `deployment` where only `prefill_replicas` is given [-].
    prefill_replicas : int or sequence of int, optional
        How many replicas compute prompts only, of each deployment [-].
    prefill_router : str or callable, optional
        What chooses among these [-].
    link_bandwidth : float or str, optional
        Rate of each device, in one direction, at which caches go from pool to pool; that of the machine's network if not given [B/s].
    link_latency_s : float, optional
        What a transfer takes besides [s].
    engine : str or Engine, optional
        The engine whose rules are followed [-].
    rules, prefill_rules : Rules, optional
        How replicas schedule, in place of what :func:`rules_of` finds with `engine` and `options` [-].
    acceptance : float or sequence of float, optional
        Where a step verifies drafts, the probability that one is accepted if those before it were; one for all, or one for each position. What vLLM logs by
        position is the product of these up to there [-].
    basis : {"estimate", "roofline", "floor"}, optional
        Which time a step takes [-].
    calibration : CalibrationRecord, str or Path, optional
        What an estimate rests on [-].
    quantile : float, optional
        Level of probability of an estimate [-].
    fit : ServiceFit, optional
        Constants of the same engine and model from a measured run, in place of `basis`, `calibration` and the profile's `request_s`. Limits
        such as ``kv_blocks`` are asked for as without it; ``rules=fit.rules`` are those of the run [-].
    step_s, prefill_step_s : callable, optional
        How long a step takes, from its :class:`Load` (from those of all data-parallel ranks, where there are several), in place of the deployment's times; the
        former counts for both pools if only it is given [s].
    request_s : float, optional
        From the sending of a request until the engine knows it; if not given that of the fit, or of the engine's profile beside estimates, 0 beside
        floors, roofline times and `step_s` [s].
    seed : int, optional
        What routers that choose by chance begin with, and what `workload` is called with if it is a function; each further run has the next number [-].
    replications : int, optional
        Runs, each with requests of its own [-].
    half_width : float, optional
        Relative half-width of the intervals of the 99th percentiles of time to first token and time per output token until which runs are added [-].
    most_replications : int, optional
        Runs at most then [-].
    warm_up_s : float, optional
        Until when requests that end are left out of the figures; found by MSER-5 if not given, at most a tenth of the requests, none where clients wait
        for answers [s].
    confidence : float, optional
        How often intervals shall hold the figure of an endless run [-].
    token_times : bool, optional
        Whether the time of every token is kept, from which gaps between tokens follow [-].
    steps : bool, optional
        Whether begin, end and load of every step are kept, for a timeline [-].
    **options : optional
        Options of :func:`rules_of`, such as ``kv_blocks``, ``step_tokens``, ``sequences`` and ``prefix_caching``, for all replicas [-].

    Returns
    -------
    Simulation
        Times of each request, their figures with intervals, and what held requests up [-].

    Raises
    ------
    RooflineError
        One sentence if something cannot be: a request that never fits, a machine without a network between two pools, replications of fixed requests.

    Notes
    -----
    With two pools, a request's first token comes from the replica that computes its prompt; its cache then goes over that replica's link, one cache after another,
    and the other replica goes on with the second token. The blocks of the first replica are free as soon as the prompt is computed.

    Examples
    --------
    A prompt in 20 ms and nine more tokens in 8 ms each:

    >>> import numpy as np
    >>> one = Workload(prompt=np.array([100]), output=np.array([10]), arrival_s=np.array([0.0]))
    >>> found = simulate(None, one, rules=Rules("vllm", 2048, 256, 1000), step_s=lambda load: 0.020 if load.prompts else 0.008)
    >>> float(found.times.ttft_s[0]), round(float(found.times.e2e_s[0]), 9)
    (0.02, 0.092)
    """
    asked = dict(locals())
    if not isinstance(workload, Workload) and not callable(workload):
        raise InvalidValueError(f"workload is {quoted(workload)}; it is a Workload, or a function that returns one for a seed.")
    if not callable(workload) and (replications > 1 or half_width is not None):
        raise InvalidValueError(
            "several runs of the same requests tell nothing new: give workload as a function of a seed, which returns a Workload."
        )
    if fit is not None and (deployment is None or step_s is not None or prefill_step_s is not None):
        raise InvalidValueError("fit is of a deployment's steps: give deployment, and leave step_s and prefill_step_s out.")
    check_options("simulate", options)
    if step_s is not None and (basis != "estimate" or calibration is not None or quantile is not None):
        raise InvalidValueError("step_s takes the place of the times of deployments: leave basis, calibration and quantile out.")
    step_s, prefill_step_s = _timed("step_s", step_s), _timed("prefill_step_s", prefill_step_s)
    if isinstance(rules, Rules) and load_engine(engine).id != rules.engine:
        if engine != "vllm":
            raise InvalidValueError(f"rules are of {rules.engine}, and engine is {load_engine(engine).id}; leave engine out.")
        engine = rules.engine
    if prefill is None and prefill_replicas is None:
        ours: dict[str, Any] = {"prefill_rules": prefill_rules, "prefill_step_s": prefill_step_s, "link_bandwidth": link_bandwidth}
        ours |= {"link_latency_s": link_latency_s or None, "prefill_router": None if prefill_router == "round robin" else prefill_router}
        if wrong := next((name for name, value in ours.items() if value is not None), None):
            raise InvalidValueError(f"{wrong} is of two pools; prefill= or prefill_replicas= says what computes prompts.")
    timing = {"basis": basis, "calibration": calibration, "quantile": quantile, "fit": fit}
    ways: dict[str, Any] = {
        "engine": engine,
        "timing": timing,
        "acceptance": acceptance,
        "options": options,
    }
    decode = members_of(deployment, replicas, rules, step_s, **ways)
    of_prompts: tuple[Member, ...] = ()
    if prefill is not None or prefill_replicas is not None:
        machines, own = (deployment, rules) if prefill is None else (prefill, None)
        number = 1 if prefill_replicas is None else prefill_replicas
        of_prompts = members_of(machines, number, own if prefill_rules is None else prefill_rules, prefill_step_s or step_s, **ways)
    if request_s is None:
        served = decode[0].deployment
        request_s = 0.0 if step_s is not None or served is None else host_request_s(timing, load_engine(engine), served.model)
    fleet = Fleet(
        decode,
        check_router(router),
        of_prompts,
        check_router(prefill_router),
        _time("staleness_s", staleness_s),
        _time("request_s", request_s),
        link_rate(link_bandwidth, decode, of_prompts) if of_prompts else None,
        _time("link_latency_s", link_latency_s),
    )
    keep = {
        "warm_up_s": None if warm_up_s is None else _time("warm_up_s", warm_up_s),
        "steps": check_flag("steps", steps),
        "token_times": check_flag("token_times", token_times),
    }
    repeated = _Repeated(fleet, workload, whole_number("seed", seed), keep, share("confidence", confidence))
    members = (*decode, *of_prompts)
    notes = list(dict.fromkeys(note for member in members for note in member.notes))
    if fit is not None:
        notes += fit.notes_on(*(one.deployment for one in members if one.deployment is not None), rules=decode[0].rules)
    if half_width is None:
        repeated.run(whole_number("replications", replications, minimum=1))
    elif not repeated.narrow(
        share("half_width", half_width), replications, whole_number("most_replications", most_replications, minimum=1)
    ):
        notes.append(f"after {len(repeated.runs)} runs intervals are still wider than ±{half_width:.2%}")
    return Simulation(fleet, tuple(repeated.runs), confidence, tuple(notes), question_of(simulate, asked | asked.pop("options")))


class _Repeated:
    """Runs of a fleet, each with requests of its own, and their 99th percentiles."""

    def __init__(self, fleet: Fleet, workload: Requests, seed: int, keep: dict[str, Any], confidence: float) -> None:
        self.runs: list[Run] = []
        self._fleet, self._workload, self._seed, self._keep, self._confidence = fleet, workload, seed, keep, confidence
        self._tails: dict[str, list[float]] = {"ttft_s": [], "tpot_s": []}

    def run(self, wanted: int) -> None:
        """Add runs until there are so many."""
        while len(self.runs) < wanted:
            number = self._seed + len(self.runs)
            requests = self._workload if isinstance(self._workload, Workload) else self._workload(number)
            if not isinstance(requests, Workload):
                raise InvalidValueError(f"workload({number}) returned {quoted(requests)}; it must return a Workload.")
            self.runs.append(self._fleet.serve(requests, number, **self._keep))

    def narrow(self, half_width: float, fewest: int, most: int) -> bool:
        """Add runs until intervals are as narrow as asked, or there are too many; return whether they are."""
        self.run(min(max(fewest, _FEWEST_RUNS), most))
        while not self._is_narrow(half_width):
            if len(self.runs) >= most:
                return False
            self.run(len(self.runs) + 1)
        return True

    def _is_narrow(self, half_width: float) -> bool:
        for name, tails in self._tails.items():
            for run in self.runs[len(tails) :]:
                values = getattr(run.steady, name)
                tails.append(float(np.nanquantile(values, _TAIL)) if not np.isnan(values).all() else 0.0)
            if any(tails) and not mean_interval(tails, confidence=self._confidence, correlated=False).half_width <= half_width:
                return False
        return True


def checked_link(given: float | str) -> float:
    """Return the rate of a link between pools as a number, or raise [B/s]."""
    return check_rate("link_bandwidth", given, "B/s", least=1e6, most=1e15)


def link_rate(given: float | str | None, decode: tuple[Member, ...], prefill: tuple[Member, ...]) -> float | None:
    """Return the rate of a device's link to the other pool [B/s]."""
    if given is not None:
        return checked_link(given)
    rates = []
    for member in {id(one): one for one in (*decode, *prefill)}.values():
        if member.deployment is None:
            continue
        ceiling = member.deployment.machine.network_ceiling
        if ceiling is None:
            raise InvalidValueError(f"{member.deployment.machine.name} has no known network to the other pool: give link_bandwidth in B/s.")
        rates.append(ceiling.value)
    return min(rates, default=None)


class _Timed(NamedTuple):
    """A caller's function of the time of a step, which is checked to return one."""

    name: str
    given: Seconds

    def __call__(self, load: Any) -> float:
        taken = self.given(load)
        if type(taken) is float and 0 < taken < np.inf:
            return taken
        return positive(f"what {self.name} returns", taken, "s")


def _timed(name: str, given: Any) -> Any:
    if given is not None and not callable(given):
        raise InvalidValueError(f"{name} is {quoted(given)}; it must be a function of a step's Load that returns seconds.")
    return None if given is None else _Timed(name, given)


def _time(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < np.inf:
        raise InvalidValueError(f"{name} is {quoted(value)}; it must be a time of at least 0 s.")
    return float(value)
