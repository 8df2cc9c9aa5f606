"""`Service`: what serves, checked once: deployments, an engine's rules, the times of steps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline.capacity import max_batch, resident
from roofline.deployment import Deployment
from roofline.engines import Engine, load_engine
from roofline.errors import CalibrationError, InvalidValueError, quoted
from roofline.estimate.constants import describe_record, generic_mark, record_notes
from roofline.estimate.overheads import engine_of
from roofline.hardware.sections import check_bandwidth
from roofline.serving.forms import CAPACITY, SEQUENCES, Limit
from roofline.serving.options import SERVICE
from roofline.serving.phases import Lengths, Server
from roofline.step import expected_tokens
from roofline.step_time import StepTime
from roofline.units import check_amount, check_broadcast, check_flag, check_rate, check_unmasked, whole_number

_ADMISSIONS = ("prompt", "ratio", "whole")


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """Deployments, an engine's rules and the times of steps."""

    engine: Engine
    server: Server  # of the pool that decodes
    replicas: int
    prefill: Server | None  # of the pool that computes prompts, where there is one
    prefill_replicas: int
    link: float  # bytes a second of one device
    static: bool
    rounds: float
    sequences: float  # of each data-parallel rank
    kv_blocks: int | None
    whole: bool  # whether the cache of the answer is reserved
    given: Mapping[str, Any]  # options, where they were given

    @classmethod
    def of(cls, deployment: Deployment, given: Mapping[str, Any]) -> "Service":
        """Check the options of a service."""
        asked = {name: given.get(name, option.default) for name, option in SERVICE.items()}
        engine = load_engine(asked["engine"])
        prefill = asked["prefill"]
        if prefill is not None and not isinstance(prefill, Deployment):
            raise InvalidValueError(f"prefill is {quoted(prefill)}; it must be the Deployment that computes prompts.")
        if prefill is not None and prefill.model.name != deployment.model.name:
            raise InvalidValueError(
                f"prefill computes prompts of {prefill.model.name}, and {deployment.model.name} decodes; both are of one model."
            )
        static = check_flag("static", asked["static"])
        if static and prefill is not None:
            raise InvalidValueError("static and prefill cannot be given together: a pool for prompts is for continuous batches.")
        admission = asked["admission"] or engine.admission.reserve
        if admission not in _ADMISSIONS:
            raise InvalidValueError(f"admission is {quoted(admission)}; it must be one of {', '.join(_ADMISSIONS)}.")
        limits = engine.limits_on(deployment.memory_capacity or 1e8, "" if deployment.hardware is None else deployment.hardware.id)
        sequences = _limit("sequences", asked["sequences"], limits.sequences)
        return cls(
            engine=engine,
            server=_server(deployment, asked, engine),
            replicas=whole_number("replicas", asked["replicas"], minimum=1),
            prefill=None if prefill is None else _server(prefill, asked, engine),
            prefill_replicas=whole_number("prefill_replicas", asked["prefill_replicas"], minimum=1),
            link=_link(asked["link"], deployment, prefill),
            static=static,
            rounds=_rounds(asked["rounds"]),
            sequences=sequences / deployment.parallel.pipeline,
            kv_blocks=None if asked["kv_blocks"] is None else whole_number("kv_blocks", asked["kv_blocks"], minimum=1),
            whole=admission == "whole",
            given=given,
        )

    @property
    def deployment(self) -> Deployment:
        """What decodes."""
        return self.server.time.deployment

    @property
    def devices(self) -> int:
        """Devices of all pools and replicas."""
        own = self.deployment.devices * self.replicas
        return own if self.prefill is None else own + self.prefill.time.deployment.devices * self.prefill_replicas

    @property
    def request_s(self) -> float:
        """What the engine's host takes of each request outside of steps [s]."""
        record = (self.prefill or self.server).time.calibration
        host = None if record is None or "step_s" in record.overheads else engine_of(record)
        return 0.0 if host is None else host.host.request_s or 0.0

    def fitting(self, lengths: Lengths) -> np.ndarray:
        """Return how many sequences of a lane the cache holds; infinite where no memory is known [-]."""
        held = np.ceil(lengths.cached + lengths.prompt + lengths.output if self.whole else lengths.context)
        asked, deployment = self.deployment, self.memory
        if self.kv_blocks is not None:
            return np.floor(self.kv_blocks / np.ceil(held / asked.page)) / asked.parallel.pipeline
        if deployment.usable_bytes is None:
            return np.full(held.shape, np.inf)
        return np.asarray(max_batch(deployment, context=held), dtype=float) / asked.parallel.data

    def limit(self, lengths: Lengths) -> Limit:
        """Return the most sequences of a lane, by the engine's limit and by memory."""
        fitting = self.fitting(lengths)
        return Limit(np.minimum(fitting, self.sequences), np.where(fitting < self.sequences, CAPACITY, SEQUENCES))

    @property
    def memory(self) -> Deployment:
        """The deployment with as much memory as the engine takes, where it does not say itself."""
        asked, cache = self.deployment, self.engine.cache
        if self.kv_blocks is not None or asked.memory_capacity is None or {"utilization", "reserve"} & set(asked.options):
            return asked
        tokens = {} if "activation_tokens" in asked.options else {"activation_tokens": int(self.server.step_tokens)}
        if cache.share_of == "free" and cache.share is not None:
            taken = asked.memory_capacity - resident(asked.but(**tokens), batch=0).total_bytes
            return asked.but(**tokens, reserve=max(1e6, (1 - cache.share) * taken))
        return asked.but(**tokens, **({"reserve": cache.reserve_bytes} if cache.share is None else {"utilization": cache.share}))

    def transfer_s(self, lengths: Lengths) -> np.ndarray:
        """Return how long the cache of a prompt is on its way from one pool to the other [s]."""
        if self.prefill is None:
            return np.zeros(lengths.prompt.shape)
        tokens = np.ceil(lengths.prompt)  # what the decoding pool has of the prefix it need not get
        pools = (self.prefill.time.deployment, self.deployment)
        kept = (resident(pool.but(page=1), batch=1, context=tokens) for pool in pools)
        most = np.maximum(*(np.asarray(each.kv_bytes + each.state_bytes, dtype=float) for each in kept))
        return most / self.link

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: of the deployment, the record, and the engine's defaults."""
        time = self.server.time
        record = () if time.calibration is None else record_notes(time.calibration, self.deployment.machine)
        pipeline = ("the stages of a pipeline are taken to be full all the time",) if self.deployment.parallel.pipeline > 1 else ()
        memory = (
            () if self.memory.usable_bytes is not None or self.kv_blocks is not None else ("no memory is known, so none limits the batch",)
        )
        return (*self.deployment.notes, *record, *pipeline, *memory)

    @property
    def basis(self) -> str:
        """Which times steps have, in words."""
        time = self.server.time
        mark = "" if time.calibration is None else generic_mark(time.calibration)
        return f"{time.basis}{mark}" + ("" if time.quantile is None else f" at {time.quantile:g}")

    def describe(self) -> dict[str, Any]:
        """Return engine, limits and what the times rest on, as plain data."""
        time = self.server.time
        limits = {
            "step_tokens": self.server.step_tokens,
            "sequences": self.sequences,
            "mixed": self.server.mixed,
            "chunked": self.server.chunked,
        }
        return {
            "model": self.deployment.model.name,
            "hardware": self.deployment.machine.id,
            "engine": {"id": self.engine.id, "version": self.engine.version, **limits, "request_s": self.request_s},
            "devices": self.devices,
            "times": time.basis,
            **({} if time.calibration is None else {"calibration": describe_record(time.calibration) | {"constants": time.constants}}),
            "notes": self.notes,
        }


def _server(deployment: Deployment, asked: Mapping[str, Any], engine: Engine) -> Server:
    """Return what runs the steps of a deployment by an engine's rules."""
    limits = engine.limits_on(deployment.memory_capacity or 1e8, "" if deployment.hardware is None else deployment.hardware.id)
    drafts = whole_number("drafts", deployment.mtp if asked["drafts"] is None else asked["drafts"])
    if drafts and asked["acceptance"] is None:
        raise InvalidValueError(
            f"{drafts} drafts are verified in each step; acceptance must say how many of them are accepted, such as 0.7."
        )
    if not drafts and asked["acceptance"] is not None:
        raise InvalidValueError("acceptance is of drafts, and there are none; drafts= says how many.")
    chunked, mixed = asked["chunked"], asked["mixed"]
    return Server(
        time=_time(deployment, asked, engine),
        step_tokens=_limit("step_tokens", asked["step_tokens"], limits.step_tokens),
        chunked=engine.scheduling.chunked if chunked is None else check_flag("chunked", chunked),
        mixed=engine.scheduling.policy == "mixed" if mixed is None else check_flag("mixed", mixed),
        verified=1 + drafts,
        tokens=expected_tokens(drafts, asked["acceptance"]) if drafts else 1.0,
    )


def _time(deployment: Deployment, asked: Mapping[str, Any], engine: Engine) -> StepTime:
    basis, calibration, quantile = (asked[name] for name in ("basis", "calibration", "quantile"))
    if calibration is None and basis == "estimate":
        try:
            calibration = deployment.machine.calibrated(engine.id, sister=True).calibration
        except CalibrationError:  # another engine's record, or the generic one, then: the result names it
            calibration = None
    return StepTime(deployment, basis, quantile=quantile, calibration=calibration, cuda_graph=asked["cuda_graph"])


def _limit(name: str, given: Any, default: int | None) -> float:
    """Return a limit: the one given, else the engine's, else none."""
    if given is not None:
        return float(whole_number(name, given, minimum=1))
    return math.inf if default is None else float(default)


def _rounds(given: Any) -> float:
    if given is None:
        return math.inf
    return check_rate("rounds", given, "requests", least=1, most=1e9)


def _link(given: Any, deployment: Deployment, prefill: Deployment | None) -> float:
    """Return what one device sends or receives of a cache [B/s]."""
    if prefill is None:
        if given is not None:
            raise InvalidValueError("link is between two pools; prefill= names the one that computes prompts.")
        return math.inf
    if given is not None:
        return check_bandwidth("link", given) if not isinstance(given, str) else check_rate("link", given, "B/s", least=1e8, most=1e15)
    rates = [pool.machine.scale_out.bandwidth_bytes_per_s for pool in (deployment, prefill) if pool.machine.scale_out is not None]
    if len(rates) < 2:
        raise InvalidValueError(
            "link is not given, and no network between servers is known of these machines; give its B/s for one device."
        )
    return float(min(rates))


def lengths_of(prompt: Any, output: Any, given: Mapping[str, Any], **load: Any) -> tuple[Lengths, dict[str, np.ndarray], tuple[int, ...]]:
    """Return the lengths of requests and their load as flat arrays, and their common shape."""
    cached, prompt_cv, output_cv = (given.get(name, SERVICE[name].default) for name in ("cached", "prompt_cv", "output_cv"))
    found = {"prompt": _positive("prompt", prompt, 1.0, "token"), "output": _positive("output", output, 1.0, "token")}
    found |= {"cached": np.asarray(check_amount("cached", cached, "token"), dtype=float)}
    found |= {
        name: np.asarray(check_amount(name, value, "-"), dtype=float)
        for name, value in (("prompt_cv", prompt_cv), ("output_cv", output_cv))
    }
    found |= {name: _positive(name, value, float(name == "concurrency"), unit) for name, (value, unit) in load.items()}
    check_broadcast(**found)
    shape = np.broadcast_shapes(*(value.shape for value in found.values()))
    flat = {name: np.broadcast_to(value, shape).ravel() for name, value in found.items()}
    computed = flat["prompt"] - flat["cached"]
    if np.any(computed < 1):
        at = int(np.argmax(computed < 1))
        raise InvalidValueError(
            f"cached is {flat['cached'][at]:g} of a prompt of {flat['prompt'][at]:g} tokens; at least one token of each is computed."
        )
    lengths = Lengths(computed, flat["cached"], flat["output"], flat["prompt_cv"], flat["output_cv"])
    return lengths, {name: flat[name] for name in load}, shape


def _positive(name: str, value: Any, least: float, unit: str) -> np.ndarray:
    """Return mean lengths or loads as an array, or raise."""
    check_unmasked(name, value)
    try:
        array = np.asarray(value)
        known = array.dtype.kind in "iuf" and array.size > 0
        array = array.astype(float) if known else array
    except (TypeError, ValueError):
        known, array = False, np.zeros(0)
    bad = ~((array >= least) & (array > 0) & (array < 1e15)) if known else True
    if np.any(bad):
        shown = quoted(value) if not known or array.ndim == 0 else f"an array with {array[bad].flat[0]:g}"
        allowed = f"a number of at least {least:g}" if least else "a number above 0"
        raise InvalidValueError(f"{name} is {shown}; it must be {allowed} [{unit}], or an array of such.")
    return array
