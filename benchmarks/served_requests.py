"""How a published served system is simulated as its client ran it: requests, what the engine is told, and what its steps take.

A row of ``served_rows`` is what a benchmark client measured: a number of clients, who all begin at once and send the next prompt when an
answer has come, ten prompts for each of them; lengths drawn uniformly where the row's source draws them. Prompts are random, so that no
prefix cache finds them, and answers are as long as asked for. Five or three rounds run here, of which the middle ones stand for those that
are left out. Clients who begin together with prompts and answers of one length stay together where prompts run first (SGLang), and
drift apart where they run beside answers: measured times to the first token say so, and a simulation alone would not.

What the sweeps' scripts tell the engines is in ``served_told``.

A row labelled mtp decodes as in ``served_systems``: each step verifies four rows of a sequence and yields 2.35 tokens. Its answers are so
many steps long, and what a step reads of their caches is counted as if they had all tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from roofline import CalibrationRecord, Deployment, StepTime, Workload
from roofline.engines import Engine
from roofline.estimate.overheads import launching_s, of_layers
from roofline.records import FittedConstant
from roofline.requests import RequestTimes
from roofline.serving import Load, Rules, compile_ranks, compile_steps, rules_of, simulate
from served_rows import DENSE, Served
from served_systems import tokens_of
from served_told import engine_of, graph_tokens_of, told

ROUNDS = 10
FEW = 8
"""Clients, of whom five rounds are simulated; of more it is three [-]."""
APART = {"vllm": 1.0, "trtllm": 0.5}
"""How far apart clients who ask for answers of one length drift where prompts run beside answers, in answers [-]. Fitted on H100 and H200."""
NOTHING = FittedConstant(value=0.0, low=0.0, high=0.0, unit="s")


@dataclass(frozen=True, slots=True)
class Host:
    """What steps take beside their kernels, and how far these are off."""

    request_s: float
    layers: float = 1.0  # how many times as long launching a layer takes as in the engine's profile
    sequence_s: float = 0.0
    dense: float = 1.0  # how many times as long the kernels of steps without prompts take, of dense models
    experts: float = 1.0  # and of mixtures of experts
    prefill: float = 1.0  # and those of steps with prompts

    @classmethod
    def of(cls, engine: Engine) -> "Host":
        """Return what an engine's profile says."""
        host = engine.host
        return cls(host.request_s or 0.0, sequence_s=host.sequence_s or 0.0)

    def decode(self, row: Served) -> float:
        """Return how many times as long the kernels of a row's steps without prompts take [-]."""
        return self.dense if row.family in DENSE else self.experts


def requests(row: Served, request_s: float) -> Workload:
    """Return what the clients of a row ask, the same each time: five rounds of few clients, three of many.

    Each client's next request reaches the engine some time after its last answer: anything up to twice `request_s`. With answers of one
    length, clients of engines with mixed steps drift apart, as their times to the first token show; here the first answer of each is cut
    by up to `APART` of it, so that they are apart from the second round on.
    """
    clients = clients_of(row)
    count = clients * (5 if clients <= FEW else 3)
    chance = np.random.default_rng([round(row.isl), round(row.osl), clients])
    lengths = []
    for mean in (row.isl, row.osl):
        nominal = mean / 0.9
        ends = (round(0.8 * nominal), round(nominal)) if row.drawn else (round(mean), round(mean))
        lengths.append(chance.integers(ends[0], ends[1] + 1, count))
    prompt, answer = lengths
    if apart := APART.get(row.engine, 0.0) * (not row.drawn):
        least = np.maximum(np.rint((1 - apart) * answer[:clients]), 1).astype(int)
        answer[:clients] = chance.integers(least, answer[:clients], endpoint=True)
    steps = 1 + np.rint((answer - 1) / tokens_of([row])).astype(int)
    late_s = 2 * request_s * chance.random(count)
    late_s[:clients].sort()
    before = np.arange(count) - clients
    arrival_s = np.where(before < 0, late_s, late_s[clients - 1])
    return Workload(
        prompt=prompt, output=np.maximum(steps, 2), arrival_s=arrival_s, after=np.maximum(before, -1), think_s=late_s * (before >= 0)
    )


@dataclass(frozen=True, slots=True)
class Server:
    """What runs rows of one configuration: the kernels of its steps, looked up, and what the host's part depends on."""

    deployment: Deployment
    kernels: Callable[[Any], float]
    launch_s: float
    first_s: float  # by which first tokens come later than steps end

    @classmethod
    def of(cls, deployment: Deployment, record: CalibrationRecord, rows: Sequence[Served]) -> "Server":
        """Return what runs rows of one deployment."""
        one = rows[0]
        most = [told(row) for row in rows]
        largest = {name: max(each[name] for each in most) for name in ("sequences", "step_tokens")}
        rules = rules_of(deployment, engine=one.engine, prefix_caching=False, drafts=one.drafts, kv_blocks=2, chunked=True, **largest)
        kernels = record.model_copy(update={"overheads": {**record.overheads, "step_s": NOTHING}})
        engine = engine_of(one)
        later = engine.host.first_token_s
        compiled = compile_steps if deployment.parallel.data == 1 else compile_ranks
        return cls(
            deployment,
            compiled(StepTime(deployment, calibration=kernels), rules),
            launching_s(engine, deployment.model),
            0.0 if later is None else of_layers(later, deployment.model),
        )

    def seconds(self, host: Host, row: Served) -> Callable[[Any], float]:
        """Return how long steps of a row take, of all ranks where there are several."""
        kernels, graph_tokens, launch_s = self.kernels, graph_tokens_of(row), self.launch_s * host.layers
        sequence_s, decode, prefill = host.sequence_s + row.sampling_s, host.decode(row), host.prefill
        rows, prompt, yielded = 1 + row.drafts, row.isl, tokens_of([row])

        def stretched(load: Load) -> Load:
            return load._replace(context=load.decodes * prompt + yielded * (load.context - load.decodes * prompt))

        def one(load: Load) -> float:
            count, _, prompts, tokens, _, _ = load
            timed = kernels(load if yielded == 1.0 else stretched(load)) * (prefill if prompts else decode)
            if prompts and timed < launch_s and count * rows + tokens > graph_tokens:
                timed = launch_s
            return timed + sequence_s * (count + prompts)

        def several(loads: Sequence[Load]) -> float:
            prompts = any(load.prompts for load in loads)
            timed = kernels(loads if yielded == 1.0 else [stretched(load) for load in loads]) * (prefill if prompts else decode)
            if prompts and timed < launch_s and max(load.decodes * rows + load.tokens for load in loads) > graph_tokens:
                timed = launch_s
            return timed + sequence_s * max(load.decodes + load.prompts for load in loads)

        return one if self.deployment.parallel.data == 1 else several


def limits(server: Server, row: Served) -> Rules:
    """Return how the engine of a row schedules."""
    return rules_of(server.deployment, engine=row.engine, answer_tokens=round(row.osl), length=round(row.isl + row.osl / 2), **told(row))


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """What became of the requests of a row."""

    times: RequestTimes
    tokens: np.ndarray  # of each request after the first
    weights: np.ndarray  # of each request in the means of ten rounds
    steps: Sequence[Any]  # begin, end and load of each, if they were kept
    later_s: float = 0.0  # by which first tokens come later than steps end and the engine's host takes of a request

    def mean(self, column: np.ndarray) -> np.ndarray:
        """Return a mean over requests."""
        return self.weights @ column

    @property
    def tpot_s(self) -> float:
        """Mean time per output token [s]."""
        return float(self.mean((self.times.finish_s - self.times.first_token_s) / self.tokens))

    def ttft_s(self, host: Host) -> float:
        """Return the mean time to the first token [s]."""
        return host.request_s + self.later_s + float(self.mean(self.times.ttft_s))


def run(server: Server, host: Host, row: Served, *, steps: bool = False) -> Simulated:
    """Simulate a row."""
    later_s = server.first_s + row.client_s
    asked = requests(row, host.request_s + later_s)
    found = simulate(
        server.deployment,
        asked,
        rules=limits(server, row),
        step_s=server.seconds(host, row),
        token_times=False,
        warm_up_s=0.0,
        steps=steps,
    )
    times = found.times
    kept = found.runs[0].steps[0] if steps else ()
    return Simulated(times, (asked.output - 1) * tokens_of([row]), weights(row, len(times)), kept, later_s)


def weights(row: Served, count: int) -> np.ndarray:
    """Return how much each simulated request counts: the first and the last round as one of ten each, those between as the other eight."""
    clients = clients_of(row)
    between = count // clients - 2
    return np.repeat([1 / ROUNDS, *[(1 - 2 / ROUNDS) / between] * between, 1 / ROUNDS], clients) / clients


def clients_of(row: Served) -> int:
    """Return how many clients a row has."""
    return max(1, round(row.concurrency))
