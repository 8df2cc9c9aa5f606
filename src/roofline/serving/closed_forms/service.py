"""`Service`: what serves, checked once: deployments, an engine's rules, the times of steps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from roofline.capacity import resident
from roofline.deployment import Deployment
from roofline.engines import Engine, load_engine
from roofline.errors import InvalidValueError, quoted
from roofline.estimate.constants import describe_record, generic_mark
from roofline.hardware.sections import check_bandwidth
from roofline.requests.checking import positive
from roofline.serving.closed_forms.forms import CAPACITY, SEQUENCES, Limit
from roofline.serving.closed_forms.options import SERVICE
from roofline.serving.closed_forms.phases import Lengths, Server
from roofline.serving.rules import Rules, check_acceptance, ranks_together, rules_of
from roofline.serving.rules.cache_memory import depend_on_length
from roofline.serving.steps.service_fit import ServiceFit
from roofline.serving.steps.timing import host_request_s, timing_of
from roofline.step import expected_tokens
from roofline.step_time import StepTime
from roofline.units import check_broadcast, check_flag, check_unmasked, whole_number

_MOST = 1e9  # clients, requests a second or blocks: more are a mistake
_LONGEST = 1e7  # tokens: as many positions as any model has
_LENGTHS = 16  # of sequences, at which blocks are counted where they depend on it
_RULES = (
    "kv_blocks",
    "step_tokens",
    "sequences",
    "admission",
    "chunked",
    "drafts",
    "max_model_len",
    "receive_interval",
    "rank_wait_steps",
)


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """Deployments, an engine's rules and the times of steps."""

    engine: Engine
    rules: Rules  # of the pool that decodes
    server: Server  # of the same
    replicas: int
    prefill: Server | None  # of the pool that computes prompts, where there is one
    prefill_replicas: int
    link: float  # bytes a second of one device
    static: bool
    rounds: float
    given: Mapping[str, Any]  # options, where they were given
    _known: dict[int, float] = field(default_factory=dict)  # blocks by the length of sequences, which are counted once

    @classmethod
    def of(cls, deployment: Deployment, options: Mapping[str, Any], time: StepTime | None = None) -> "Service":
        """Check the options of a service; the `time` of its deployment's steps may be known, as other limits do not change it."""
        given = {name: value for name, value in options.items() if value is not SERVICE[name].default}
        asked = {name: given.get(name, option.default) for name, option in SERVICE.items()}
        engine, prefill, static = load_engine(asked["engine"]), asked["prefill"], check_flag("static", asked["static"])
        if prefill is not None:
            _check_pools(deployment, prefill, static)
        if prefill is None and "prefill_replicas" in given:
            raise InvalidValueError("prefill_replicas is of the pool that computes prompts; prefill= names its deployment.")
        rules = _rules(deployment, asked, engine)
        return cls(
            engine=engine,
            rules=rules,
            server=_server(deployment, asked, engine, rules, time),
            replicas=whole_number("replicas", asked["replicas"], minimum=1),
            prefill=None
            if prefill is None
            else _server(
                prefill, asked, engine, _rules(prefill, {**asked, "kv_blocks": None}, engine), time if prefill is deployment else None
            ),
            prefill_replicas=whole_number("prefill_replicas", asked["prefill_replicas"], minimum=1),
            link=_link(asked["link_bandwidth"], deployment, prefill),
            static=static,
            rounds=_rounds(asked["rounds"]),
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
    def fit(self) -> ServiceFit | None:
        """Constants of a measured run, if times of steps have some."""
        found: ServiceFit | None = self.given.get("fit")
        return found

    @property
    def request_s(self) -> float:
        """What the engine's host takes of each request outside of steps [s]."""
        return host_request_s(self.given, self.engine, self.deployment.model)

    def limit(self, lengths: Lengths) -> Limit:
        """Return the most sequences of a lane, by the engine's limit and by memory."""
        fitting, sequences = self.fitting(lengths), self.rules.sequences / self.sharing
        return Limit(np.minimum(fitting, sequences), np.where(fitting < sequences, CAPACITY, SEQUENCES))

    @property
    def sharing(self) -> int:
        """How many lanes share the engine's limit of sequences: all stages of a pipeline, but TensorRT-LLM's is of each step [-]."""
        return 1 if self.rules.engine == "trtllm" else self.deployment.parallel.pipeline

    def fitting(self, lengths: Lengths) -> np.ndarray:
        """Return how many sequences of a lane the cache holds, none where a whole one does not fit; infinite where no memory is known [-]."""
        held, whole = self._held(lengths), self._whole(lengths)
        many = np.floor(self._blocks(held) / np.ceil(held / self.rules.page)) / self.deployment.parallel.pipeline
        return np.where(np.ceil(whole / self.rules.page) <= self._blocks(whole), many, 0.0)

    def _held(self, lengths: Lengths) -> np.ndarray:
        """Return the tokens in the cache of a sequence, on average or as they are reserved."""
        return self._whole(lengths) if self.rules.reserve == "whole" else np.asarray(np.ceil(lengths.context))

    def _whole(self, lengths: Lengths) -> np.ndarray:
        """Return the tokens in the cache of a sequence at the end of its answer."""
        return np.asarray(np.ceil(lengths.cached + lengths.prompt + lengths.output))

    def never(self, where: str = "") -> str:
        """Return that no request fits, and into what: the blocks that were given, or the memory, which `where` may name the machine of."""
        blocks = self.given.get("kv_blocks")
        return f"not one request fits into {f'the memory{where} beside the weights' if blocks is None else f'kv_blocks of {blocks}'}"

    def shortage(self, lengths: Lengths) -> str:
        """Return why a request of the first of some lengths never fits."""
        held = np.maximum(self._held(lengths), self._whole(lengths))[:1]
        room = float(self._blocks(held)[0]) * self.rules.page
        longest = ", on average over time, the longest counting most" if lengths.output_cv[0] > 0 else ""
        return f"not one request fits: it holds {held[0]:,.0f} tokens{longest}, and the cache has room for {room:,.0f}"

    def _blocks(self, held: np.ndarray) -> np.ndarray:
        """Return how many blocks there are if sequences have some length, over which windows and state are spread."""
        if not self._derived:
            return np.full(held.shape, float(self.rules.kv_blocks) if "kv_blocks" in self.given else np.inf)
        if not depend_on_length(self.deployment):
            return np.full(held.shape, float(self.rules.kv_blocks))
        least, most = (self._blocks_at(round(length)) for length in (held.min(), held.max()))
        if least == most:
            return np.full(held.shape, least)
        lengths = np.unique(np.rint(np.geomspace(held.min(), held.max(), _LENGTHS)))
        return np.asarray(np.interp(held, lengths, [self._blocks_at(int(length)) for length in lengths]))

    def _blocks_at(self, length: int) -> float:
        if length not in self._known:
            asked = {name: self.given.get(name) for name in _RULES}
            self._known[length] = float(_rules(self.deployment, asked, self.engine, length=length).kv_blocks)
        return self._known[length]

    @property
    def _derived(self) -> bool:
        """Whether the blocks of the cache follow from the memory."""
        return "kv_blocks" not in self.given and self.deployment.memory_capacity is not None

    def transfer_s(self, lengths: Lengths) -> np.ndarray:
        """Return how long the cache of a prompt is on its way from one pool to the other; that of prefix hits is there [s]."""
        if self.prefill is None:
            return np.zeros(lengths.prompt.shape)
        pools = (self.prefill.time.deployment, self.deployment)
        kept = [resident(pool.but(page=1), batch=1, context=np.ceil(lengths.prompt)) for pool in pools]
        amounts = [np.asarray(each.kv_bytes + each.state_bytes, dtype=float) for each in kept]
        return np.asarray(np.maximum(*amounts) / self.link)

    def check_length(self, lengths: Lengths) -> None:
        """Raise if requests are longer than the engine takes."""
        total, most = float((lengths.cached + lengths.prompt + lengths.output).max()), self.rules.max_model_len
        if most and total > most:
            raise InvalidValueError(
                f"prompt and output are {total:,.0f} tokens together, and {self.deployment.model.name} ends at {most:,}; "
                "max_model_len= takes another limit."
            )
        longest, room = float(lengths.prompt.max()), self.rules.step_tokens
        if not self.rules.chunked and self.rules.engine != "sglang" and longest > room:  # which runs it by itself
            raise InvalidValueError(f"a prompt has {longest:,.0f} tokens; without chunks it never fits into a step of {room:,}.")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: of the deployment, the record, and the engine's limits."""
        pipeline = self._pipeline_notes if self.deployment.parallel.pipeline > 1 else ()
        pools = (self.deployment,) if self.prefill is None else (self.deployment, self.prefill.time.deployment)
        fitted = () if self.fit is None else self.fit.notes_on(*pools, rules=self.rules)
        unknown = () if self._derived or "kv_blocks" in self.given else ("no memory is known, so none limits the batch",)
        return (*self.deployment.notes, *self.server.time.notes, *fitted, *pipeline, *self.rules.notes, *unknown)

    @property
    def _pipeline_notes(self) -> tuple[str, ...]:
        """What holds of a pipeline here, and where a simulation does otherwise."""
        why = "with drafts" if self.rules.drafts else "with data-parallel ranks" if ranks_together(self.deployment) > 1 else ""
        other = f"a simulation lets one step at a time go through the stages {why}, so that it serves less than this"
        return ("sequences are taken to be spread evenly over the stages of a pipeline", *([other] if why else []))

    @property
    def basis(self) -> str:
        """Which times steps have, in words."""
        time = self.server.time
        mark = "" if time.calibration is None else generic_mark(time.calibration)
        return f"{time.basis}{mark}{' and fitted constants' * (self.fit is not None)}" + (
            "" if time.quantile is None else f" at {time.quantile:g}"
        )

    def describe(self) -> dict[str, Any]:
        """Return engine, limits and what the times rest on, as plain data."""
        time = self.server.time
        limits = {name: getattr(self.rules, name) for name in ("step_tokens", "sequences", "kv_blocks", "page", "reserve", "chunked")}
        engine = {"id": self.engine.id, "version": self.engine.version, **limits, "mixed": self.server.mixed, "request_s": self.request_s}
        return {
            "model": self.deployment.model.name,
            "hardware": self.deployment.machine.id,
            "engine": engine,
            "devices": self.devices,
            "times": time.basis,
            **({} if self.fit is None else {"fit": dict(self.fit.values())}),
            **({} if time.calibration is None else {"calibration": describe_record(time.calibration) | {"constants": time.constants}}),
            "notes": self.notes,
        }


def _rounds(given: Any) -> float:
    """Return how many requests each client sends."""
    if given is not None and (rounds := positive("rounds", given, "requests of each client")) < 1:
        raise InvalidValueError(f"rounds is {rounds:g}; each client sends at least 1 request.")
    return math.inf if given is None else rounds


def _check_pools(deployment: Deployment, prefill: Any, static: bool) -> None:
    """Raise if a deployment cannot compute the prompts of another one."""
    if not isinstance(prefill, Deployment):
        raise InvalidValueError(f"prefill is {quoted(prefill)}; it must be the Deployment that computes prompts.")
    if prefill.model.name != deployment.model.name:
        raise InvalidValueError(
            f"prefill computes prompts of {prefill.model.name}, and {deployment.model.name} decodes; they are of one model."
        )
    if static:
        raise InvalidValueError("static and prefill cannot be given together: a pool for prompts is for continuous batches.")


def _rules(deployment: Deployment, asked: Mapping[str, Any], engine: Engine, **length: int) -> Rules:
    """Return the limits that an engine has on a deployment; any number of blocks where no memory is known."""
    given: dict[str, Any] = {name: asked[name] for name in _RULES} | length
    if given["kv_blocks"] is None and deployment.memory_capacity is None:
        given["kv_blocks"] = int(_MOST)
    return rules_of(deployment, engine=engine, **given)


def _server(deployment: Deployment, asked: Mapping[str, Any], engine: Engine, rules: Rules, time: StepTime | None) -> Server:
    """Return what runs the steps of a deployment by an engine's rules."""
    check_acceptance(rules.drafts, asked["acceptance"])
    mixed = asked["mixed"]
    return Server(
        time=timing_of(deployment, asked, engine) if time is None else time,
        step_tokens=float(rules.step_tokens),
        chunked=rules.chunked,
        mixed=engine.scheduling.policy == "mixed" if mixed is None else check_flag("mixed", mixed),
        interval=rules.receive_interval,
        balanced=rules.rank_wait_steps > 0,
        verified=1 + rules.drafts,
        tokens=expected_tokens(rules.drafts, asked["acceptance"]) if rules.drafts else 1.0,
    )


def _link(given: Any, deployment: Deployment, prefill: Deployment | None) -> float:
    """Return what one device sends or receives of a cache [B/s]."""
    if prefill is None:
        if given is not None:
            raise InvalidValueError("link_bandwidth is between two pools; prefill= names the one that computes prompts.")
        return math.inf
    if given is not None:
        return check_bandwidth("link_bandwidth", given)
    networks = [pool.machine.scale_out for pool in (deployment, prefill)]
    rates = [network.bandwidth_bytes_per_s for network in networks if network is not None]
    if len(rates) < len(networks):
        raise InvalidValueError(
            "link_bandwidth is not given, and no network between servers is known of these machines; give the B/s of one device."
        )
    return float(min(rates))


def lengths_of(prompt: Any, output: Any, options: Mapping[str, Any], **load: Any) -> tuple[Lengths, dict[str, np.ndarray], tuple[int, ...]]:
    """Return the lengths of requests and their load as flat arrays, and their common shape."""
    bounds = {name: (least, _LONGEST, "token") for name, least in (("prompt", 1.0), ("output", 1.0), ("cached", 0.0))}
    bounds |= {
        "prompt_cv": (0.0, 100.0, "-"),
        "output_cv": (0.0, 100.0, "-"),
        "concurrency": (1.0, _MOST, "-"),
        "rate": (1e-9, _MOST, "1/s"),
    }
    given = {name: options.get(name, SERVICE[name].default) for name in ("cached", "prompt_cv", "output_cv")}
    found = {name: _numbers(name, value, *bounds[name]) for name, value in {"prompt": prompt, "output": output, **given, **load}.items()}
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


def _numbers(name: str, value: Any, least: float, most: float, unit: str) -> np.ndarray:
    """Return mean lengths, spreads or loads as an array, or raise."""
    check_unmasked(name, value)
    try:
        array = np.asarray(value)
        known = array.dtype.kind in "iuf" and array.size > 0
        array = array.astype(float) if known else array
    except (TypeError, ValueError, OverflowError):
        known, array = False, np.zeros(0)
    bad = ~((array >= least) & (array <= most)) if known else np.asarray(True)
    if bad.any():
        shown = quoted(value) if not known or array.ndim == 0 else f"an array with {array[bad].flat[0]:g}"
        raise InvalidValueError(f"{name} is {shown}; it must be a number of {least:g} … {most:g} [{unit}], or an array of such.")
    return array
