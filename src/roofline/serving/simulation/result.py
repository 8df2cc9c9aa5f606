"""`Simulation`: what became of the requests that a fleet served, over one run or several."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from os import PathLike
from typing import Any

import numpy as np

from roofline.deployment.inputs import deployment_inputs
from roofline.deployment.options import ALL
from roofline.frozen import freeze
from roofline.requests import SLO, Goodput, Interval, RequestTimes, Statistics, mean_interval
from roofline.requests.slo import as_slo
from roofline.results import Question, Result, plain, show_notes
from roofline.serving.simulation.fleet import Fleet, ReplicaUse, Run
from roofline.serving.simulation.saturation import Saturation, find_saturation
from roofline.serving.simulation.timeline import write_timeline
from roofline.units import show_time

_MEASURES = {
    "ttft_s": "time to first token",
    "tpot_s": "time per output token",
    "itl_s": "gap between tokens",
    "e2e_s": "end to end",
    "queue_s": "until the first step",
}
_FIGURES = ("mean", "median", "p90", "p95", "p99")
_SHOWN = ("mean", "median", "p90", "p99")
_OF_THE_RUN = ("ttft_s", "e2e_s", "queue_s")  # what only says how long the run was, where requests come faster than they are served
_PARTS = ("host", "queue", "prefill", "interference")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Simulation(Result):
    """What became of the requests that a fleet served.

    Parameters
    ----------
    fleet : Fleet
        What served them [-].
    runs : tuple of Run
        Each run; its requests, seeds and chances are its own [-].
    confidence : float
        How often an interval shall hold the figure of an endless run [-].
    notes : tuple of str
        What a reader must know [-].
    asked : Question, optional
        The question; None where no data says it, because a function was given [-].

    Notes
    -----
    The time to the first token has four parts. Host: until the engine knows the request. Queue: from then until the first step that holds a
    part of its prompt begins. Prefill: what the steps of its prompt, less what the prefix cache has of it, take on a replica that has
    nothing else to do. Interference: the rest, which is what others in the same steps cost it, steps that it had to wait for, and what was
    computed again after it had been stopped.
    """

    fleet: Fleet
    runs: tuple[Run, ...]
    confidence: float
    notes: tuple[str, ...] = ()
    asked: Question | None = None

    @property
    def times(self) -> RequestTimes:
        """What happened to each request of the first run [-]."""
        return self.runs[0].times

    @property
    def steady(self) -> tuple[RequestTimes, ...]:
        """What happened to the requests of each run that ended after its warm-up [-]."""
        return tuple(run.steady for run in self.runs)

    @property
    def saturation(self) -> Saturation:
        """Whether the fleet keeps up, in the first run [-]."""
        times = self.times
        closed = times.workload.clients is not None or (times.workload.after is not None and bool((times.workload.after >= 0).any()))
        return find_saturation(times.sent_s, times.start_s, times.finish_s, closed=closed)

    def statistics(self) -> tuple[Statistics, ...]:
        """Return mean, percentiles and extremes of each time, with intervals.

        Of one run intervals are by batches, as in :meth:`RequestTimes.statistics`. Of several runs, a figure is the mean of theirs, and the
        interval is Student's t of their number. Where requests come faster than they are served, times that would grow with the length of
        the run are left out.

        Returns
        -------
        tuple of Statistics
            One for each time [-].
        """
        rows = [times.statistics(confidence=self.confidence) for times in self.steady]
        left_out = _OF_THE_RUN if self.saturation.label == "overloaded" else ()
        by_measure = [{row.measure: row for row in of_run} for of_run in rows]
        known = [name for name in by_measure[0] if all(name in found for found in by_measure)]
        merged = rows[0] if len(rows) == 1 else [self._merged([found[name] for found in by_measure]) for name in known]
        return tuple(row for row in merged if row.measure not in left_out)

    def _merged(self, rows: list[Statistics]) -> Statistics:
        figures = {
            name: mean_interval([getattr(row, name).value for row in rows], confidence=self.confidence, correlated=False)
            for name in _FIGURES
        }
        size = sum(row.size for row in rows)
        return Statistics(rows[0].measure, size, **figures, least=min(row.least for row in rows), most=max(row.most for row in rows))

    def goodput(self, slo: SLO | Mapping[str, float]) -> Goodput:
        """Return what came of promises after the warm-up; of several runs, the mean of theirs, as of :meth:`statistics`.

        Parameters
        ----------
        slo : SLO or mapping
            What is promised; a mapping of what SLO takes will do [-].

        Returns
        -------
        Goodput
            Share and rates of requests that kept all promises [-].
        """
        promised = as_slo(slo)
        each = [times.goodput(promised) for times in self.steady]
        rates = {name: float(np.mean([getattr(one, name) for one in each])) for name in ("share", "requests_per_s", "output_tokens_per_s")}
        reached = {name: float(np.mean([one.reached[name] for one in each])) for name in promised.promises}
        met = all(limit >= reached[name] for name, limit in promised.promises.items())
        return Goodput(**rates, reached=freeze(reached), met=met)

    def ttft_parts(self) -> dict[str, np.ndarray]:
        """Return the parts of the time to the first token of each request of the first run.

        Returns
        -------
        dict of str to numpy.ndarray
            ``host_s``, ``queue_s``, ``prefill_s`` and ``interference_s``, which add up to the time to the first token [s].
        """
        run, times = self.runs[0], self.times
        host = np.full(len(times), self.fleet.host_s)
        queue = times.start_s - times.sent_s - host
        alone = self.fleet.alone_s(run)
        rest = times.first_token_s - times.start_s - alone
        return {"host_s": host, "queue_s": queue, "prefill_s": alone, "interference_s": rest}

    @property
    def replicas(self) -> tuple[ReplicaUse, ...]:
        """What each replica did in the first run [-]."""
        return self.runs[0].replicas

    @property
    def preemptions(self) -> int:
        """How often requests of the first run were stopped and begun again [-]."""
        return int(self.times.preemptions.sum())

    @property
    def held_up(self) -> dict[str, float]:
        """In which share of all steps of the first run a request waited, by what it lacked: tokens of the step, sequences, or blocks [-]."""
        steps = sum(one.steps for one in self.replicas)
        return {
            name: sum(one.held_up[name] * one.steps for one in self.replicas) / steps if steps else 0.0 for name in self.replicas[0].held_up
        }

    def to_chrome_trace(self, path: "str | PathLike[str]", *, most_events: int = 100_000) -> int:
        """Write the first run as a timeline that Perfetto and Chrome's tracing page show.

        Each replica is a process: requests that run are slices in lanes, their numbers are counters, and steps are slices of a lane of their own if they were kept.

        Parameters
        ----------
        path : str or path
            Where to; gzipped if it ends in ``.gz`` [-].
        most_events : int, optional
            Events that are written at most, the first ones in time; the file says how many were left out [-].

        Returns
        -------
        int
            Events that were left out [-].
        """
        return write_timeline(self.runs[0], path, most_events=most_events)

    # as a result

    def question(self) -> Question | None:
        """Return the question that this answers; None where no data says it, because a function was given [-]."""
        return self.asked

    def values(self) -> dict[str, Any]:
        """Return rates of the first run, what held requests up, and what was stopped [SI]."""
        times = self.times
        rates = {name: getattr(times, name) for name in ("duration_s", "requests_per_s", "output_tokens_per_s", "total_tokens_per_s")}
        return {
            "requests": len(times),
            "devices": self.fleet.devices,
            **rates,
            "saturation": self.saturation.label,
            "preemptions": self.preemptions,
        }

    def context(self) -> dict[str, Any]:
        """Return the statistics, what each replica did, and what the numbers rest on [-]."""
        rows = [
            {name: value._asdict() if isinstance(value, Interval) else value for name, value in row._asdict().items()}
            for row in self.statistics()
        ]
        members = (*self.fleet.decode, *self.fleet.prefill)
        described = [
            {
                "deployment": None if member.deployment is None else deployment_inputs(member.deployment, ALL),
                "rules": {name: value for name, value in asdict(member.rules).items() if name != "notes"},
                **plain(asdict(replace(use, held_up=dict(use.held_up)))),
            }
            for member, use in zip(members, self.replicas, strict=True)
        ]
        parts = {name: float(part.mean()) for name, part in self.ttft_parts().items()}
        return {
            "kind": "simulation",
            "source": self.times.workload.source,
            "statistics": rows,
            "ttft_parts": parts,
            "held_up": self.held_up,
            "saturation_text": self.saturation.text,
            "replicas": described,
            "runs": len(self.runs),
            "seeds": [run.seed for run in self.runs],
            "warm_up_s": [run.warm_up_s for run in self.runs],
            "notes": self.notes,
        }

    def _columns(self) -> dict[str, list[Any]]:
        """Return a record of each request of every run."""
        columns: dict[str, list[Any]] = {}
        for index, run in enumerate(self.runs):
            one = replace(self, runs=(run,))
            parts = {f"ttft_{name}": part for name, part in one.ttft_parts().items()}
            extra = {} if run.prefilled_by is None else {"prefilled_by": run.prefilled_by, "cache_s": run.cache_s}
            steady = run.times.finish_s >= run.warm_up_s
            for name, values in {"run": np.full(len(run.times), index), **run.times.values(), **extra, **parts, "steady": steady}.items():
                columns.setdefault(name, []).extend(np.asarray(values).tolist())
        return columns

    def summary(self) -> list[str]:
        """Return the short text: rates, whether the fleet keeps up, each time with its percentiles, and what held requests up [-]."""
        lines = [self._headline(), f"  {self.saturation.text}"]
        for row in self.statistics():
            figures = [f"{name} {_shown(getattr(row, name))}" for name in _SHOWN]
            lines.append(f"  {_MEASURES[row.measure]}: {', '.join(figures)}")
        if self.saturation.label != "overloaded":
            parts = self.ttft_parts()
            shown = [f"{name} {show_time(float(parts[name + '_s'].mean()))}" for name in _PARTS]
            lines.append(f"  time to first token, on average: {', '.join(shown)}")
        busy = [one.busy for one in self.replicas]
        held = ", ".join(f"{name} {share:.0%}" for name, share in self.held_up.items())
        stopped = f"; {self.preemptions:,} preemptions" if self.preemptions else ""
        lines.append(f"  replicas are busy {_range(busy)} of the time; a request waits in so many steps for want of: {held}{stopped}")
        if self.runs[0].link_busy:
            lines.append(
                f"  links to the other pool are busy {_range(self.runs[0].link_busy)}; a cache waits {show_time(self.runs[0].link_wait_s)} on average"
            )
        return lines + show_notes(self.notes)

    def _headline(self) -> str:
        times, fleet = self.times, self.fleet
        one = fleet.decode[0]
        served = one.rules.engine if one.deployment is None else f"{one.deployment.model.name}, {one.rules.engine}"
        count = f"{len(fleet.decode)} replica{'s' if len(fleet.decode) > 1 else ''}"
        pools = f"{len(fleet.prefill)} prefill + {len(fleet.decode)} decode replicas" if fleet.prefill else count
        repeated = f", {len(self.runs)} runs" if len(self.runs) > 1 else ""
        rates = f"{times.requests_per_s:.4g} requests/s, {times.output_tokens_per_s:,.4g} output tokens/s"
        return f"{len(times):,} requests in {show_time(times.duration_s)} on {pools} ({served}){repeated}: {rates}"


def _shown(figure: Interval) -> str:
    known = np.isfinite([figure.low, figure.high]).all()
    return f"{show_time(figure.value)} ({show_time(max(figure.low, 0.0))} … {show_time(figure.high)})" if known else show_time(figure.value)


def _range(shares: Any) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} … {high}"
