"""The result of a serving estimate: what requests wait and take, how many a second, and what limits that."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.arithmetic import Number
from roofline.deployment.inputs import deployment_inputs
from roofline.deployment.options import ALL
from roofline.errors import InvalidValueError
from roofline.results import Question, Result, show_notes, show_span
from roofline.serving.closed_forms.operation import Operation
from roofline.serving.closed_forms.queueing import check_percentile
from roofline.serving.closed_forms.service import Service
from roofline.serving.inputs import service_input
from roofline.units import show_time


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class ServingEstimate(Result):
    """What requests of a service wait and take, on average, at some loads: numbers, or arrays of the question's shape.

    Parameters
    ----------
    operation : Operation
        Where the service is at these loads [-].
    asked : mapping
        Lengths and load, as they were asked about [-].
    shape : tuple of int
        Shape of the numbers; () for one [-].
    interval : float, optional
        Probability with which the low and high times hold those of steps that were measured; None where they are no estimate [-].
    """

    operation: Operation
    asked: Mapping[str, Any]
    shape: tuple[int, ...]
    interval: float | None

    def __post_init__(self) -> None:
        """Freeze nothing: what it holds is frozen."""

    def _shaped(self, flat: np.ndarray) -> Number:
        return flat.reshape(self.shape) if self.shape else flat[0].item()

    @property
    def service(self) -> Service:
        """Deployments, engine and times of steps [-]."""
        return self.operation.service

    @property
    def lengths_asked(self) -> dict[str, Any]:
        """Lengths of prompts and answers, as they were asked about [-]."""
        return {name: self.asked[name] for name in ("prompt", "output")}

    @property
    def ttft_s(self) -> Number:
        """Time to the first token: `host_s` + `queue_s` + `prompt_s`; infinite where more is sent than can be served [s]."""
        return self._shaped(self.operation.ttft_s)

    @property
    def tpot_s(self) -> Number:
        """Time of each token after the first; not a number where answers have one token [s]."""
        return self._shaped(self.operation.tpot_s)

    @property
    def e2e_s(self) -> Number:
        """Time from sending a request to its last token [s]."""
        return self._shaped(self.operation.ttft_s + self.operation.point.decoding_s)

    @property
    def host_s(self) -> float:
        """What the engine's host takes of each request outside of steps [s]."""
        return self.service.request_s

    @property
    def queue_s(self) -> Number:
        """Time from sending a request to the first step of its prompt, without `host_s` [s]."""
        return self._shaped(self.operation.point.queue_s)

    @property
    def prompt_s(self) -> Number:
        """Time of the steps that its prompt is in, those who decode beside it included [s]."""
        return self._shaped(self.operation.point.prompt_s)

    @property
    def step_s(self) -> Number:
        """Time of a decode step with no prompt beside it: most of the gaps between tokens [s]."""
        return self._shaped(self.operation.point.phases.decode)

    @property
    def stall_s(self) -> Number:
        """The gap between two tokens while a prompt of another request runs [s]."""
        return self._shaped(self.operation.point.phases.stall)

    @property
    def requests_per_s(self) -> Number:
        """Requests that are answered, all replicas together; not more than `most_per_s` [-]."""
        return self._shaped(self.operation.rate)

    @property
    def most_per_s(self) -> Number:
        """Requests a second that the service can answer, however many are sent [-]."""
        return self._shaped(np.where(self.operation.loads.fits, self.operation.loads.most, 0.0) * self.operation.loads.lanes)

    @property
    def tokens_per_s(self) -> Number:
        """Tokens of answers, all replicas together [token/s]."""
        return self._shaped(self.operation.rate * self.operation.lengths.output)

    @property
    def tokens_per_s_per_device(self) -> Number:
        """The same over all devices of all pools."""
        return self.tokens_per_s / self.service.devices

    @property
    def prompt_tokens_per_s(self) -> Number:
        """Tokens of prompts, prefix hits included [token/s]."""
        lengths = self.operation.lengths
        return self._shaped(self.operation.rate * (lengths.prompt + lengths.cached))

    @property
    def batch(self) -> Number:
        """Sequences that a sequence sees in its decode steps on its data-parallel rank, itself included [-]."""
        return self._shaped(self.operation.point.batch)

    @property
    def running(self) -> Number:
        """Requests in the batches of all replicas, on average [-]."""
        return self._shaped(self.operation.running)

    @property
    def waiting(self) -> Number:
        """Requests that wait, on average; infinite where more is sent than can be served [-]."""
        rate = self.operation.rate
        return self._shaped(np.where(rate > 0, rate, 1.0) * self.operation.point.queue_s)

    @property
    def load(self) -> Number:
        """Requests a second that are sent (or, of clients, answered) over the most that the service can answer [-]."""
        return self._shaped(self.operation.load)

    @property
    def saturated(self) -> Number:
        """Whether more is sent than can be served, so that times grow as long as that lasts."""
        sent = self.operation.sent
        return self._shaped(np.zeros(self.operation.rate.shape, dtype=bool) if sent is None else sent >= self.operation.point.most)

    @property
    def fits(self) -> Number:
        """Whether at least one request fits into the memory beside the weights."""
        return self._shaped(self.operation.loads.fits)

    @property
    def cache_share(self) -> Number:
        """Share of the cache that running requests hold [-]."""
        return self._shaped(self.operation.cache_share)

    @property
    def binds(self) -> Number:
        """What limits the load that is served: ``"capacity"`` of the cache, ``"sequences"``, ``"prompts"`` that fill every step, or the ``"link"``.

        Where none does, what decode steps are bound by: ``"memory"``, ``"compute"``, ``"network"`` or ``"host"``.
        """
        return self._shaped(self.operation.binds)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the deployment, the record and the engine, and which requests never fit."""
        fits = self.operation.loads.fits
        never = () if fits.all() else (self.service.shortage(self.operation.lengths.at(np.flatnonzero(~fits))),)
        return (*never, *self.service.notes)

    def percentile(self, share: float) -> dict[str, Number]:
        """Return the times that a share of the requests does not exceed, roughly, where they arrive at random.

        Parameters
        ----------
        share : float
            Share of the requests, such as 0.99 [-].

        Returns
        -------
        dict
            ``ttft_s``, ``tpot_s``, ``itl_s``, of all gaps between tokens, and ``e2e_s`` [s].

        Raises
        ------
        InvalidValueError
            If `share` is none, or the load is one of clients: their requests do not come at random.
        """
        share = check_percentile(share, "share")
        if self.operation.sent is None:
            raise InvalidValueError("percentiles are of requests that arrive at random, rate=; those of clients are means.")
        return {name: self._shaped(value) for name, value in self.operation.percentiles(share)._asdict().items()}

    def _ends(self) -> dict[str, Number]:
        """Return both ends of the interval of each time."""
        if self.interval is None:
            return {}
        at, names = self.operation, ("tpot_low_s", "tpot_high_s", "ttft_low_s", "ttft_high_s")
        low, low_prompt, high, high_prompt = at.scales(self.interval)
        own = at.ttft_s - self.host_s
        ends = (at.tpot_s * low, at.tpot_s * high, self.host_s + own * low_prompt, self.host_s + own * high_prompt)
        return {name: self._shaped(end) for name, end in zip(names, ends, strict=True)}

    def question(self) -> Question:
        """Return the question that this answers [-]."""
        return Question("serving_estimate", service_inputs(self.service, {**self.asked, "interval": self.interval}))

    def basis(self) -> dict[str, Any]:
        """Return which times steps have, and the record of an estimate [-]."""
        time = self.service.server.time
        record = {} if time.calibration is None else {"calibration": time.calibration.id, "constants": time.constants}
        fit = {} if self.service.fit is None else {"beyond": ", ".join(self.service.fit.constants)}
        return {"basis": time.basis, **record, **fit}

    def values(self) -> dict[str, Any]:
        """Return every number by name, scalars or arrays [SI]."""
        names = (
            "ttft_s tpot_s e2e_s host_s queue_s prompt_s step_s stall_s requests_per_s most_per_s tokens_per_s tokens_per_s_per_device "
            "prompt_tokens_per_s batch running waiting load saturated fits cache_share binds"
        )
        return {name: getattr(self, name) for name in names.split()} | self._ends()

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: deployment, engine, limits, record [-]."""
        return {"kind": "serving estimate", "interval": self.interval, **self.service.describe()}

    def summary(self) -> list[str]:
        """Return the short text: times in the first line, then what they consist of, throughput, and what binds [-]."""
        service, ends = self.service, self._ends()

        def spans(name: str) -> str:
            span = show_span(getattr(self, f"{name}_s"), show_time)
            both = [show_span(ends[f"{name}_{end}_s"], show_time) for end in ("low", "high")] if ends else []
            return f"{span} ({self.interval:.0%}: {' – '.join(both)})" if both and not self.shape else span

        pools = (
            "" if service.prefill is None else f" beside {service.prefill_replicas} × {service.prefill.time.deployment.devices} for prompts"
        )
        machine = f"{service.replicas} × {service.deployment.devices} {service.deployment.machine.name}{pools}"
        verdict = "DOES NOT FIT: " if not np.all(self.fits) else "SATURATED: " if np.any(self.saturated) else ""
        shown, head = (
            "{:.3g}".format,
            f"serving {service.deployment.model.name} on {machine}, {service.engine.name} ({service.basis}): {verdict}",
        )
        if not np.any(self.fits):
            return [head + self.notes[0], *show_notes(self.notes[1:])]
        return [
            f"{head}TTFT {spans('ttft')}, TPOT {spans('tpot')}",
            f"  first token: queue {show_span(self.queue_s, show_time)}, prompt {show_span(self.prompt_s, show_time)}, host {show_time(self.host_s)}",
            f"  end to end: {show_span(self.e2e_s, show_time)}; a decode step {show_span(self.step_s, show_time)}, with a prompt in it "
            f"{show_span(self.stall_s, show_time)}",
            f"  served: {show_span(self.requests_per_s, shown)} of at most {show_span(self.most_per_s, shown)} requests/s, "
            f"{show_span(self.tokens_per_s, shown)} tokens/s",
            f"  running {show_span(self.running, shown)}, waiting {show_span(self.waiting, shown)}, cache {show_span(self.cache_share, '{:.0%}'.format)}; "
            f"binds: {', '.join(dict.fromkeys(np.ravel(self.binds).tolist()))}",
            *show_notes(self.notes),
        ]


def service_inputs(service: Service, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a question about a service."""
    varying = ("cached", "prompt_cv", "output_cv")
    given = {name: _points(value) if name in varying else service_input(value) for name, value in service.given.items()}
    return deployment_inputs(service.deployment, ALL, **{name: _points(value) for name, value in own.items()}, **given)


def _points(value: Any) -> Any:
    """Return several numbers as an array, which a table has one by one."""
    return np.asarray(value) if isinstance(value, (list, tuple)) else value
