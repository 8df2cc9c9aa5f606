"""Fit the host times of engines' profiles to served systems on H100 and H200: ``hardware_specs/engines/*.toml``, table ``host``.

The closed forms of ``serving_estimate``, as in ``served_systems``, with the kernels of the row's own record, and again with those of the generic one, so that no engine's
host makes up for the errors of one set of kernels. Fitted for each engine: `sequence_s` and `request_s`, and what its host takes to
launch a layer of each kind. `step_s` is 0: the engines prepare a step while the one before runs, and a constant of each step besides
brings models that are left out no nearer. What rows of one engine do not tell is another's: TensorRT-LLM's dense layers, and SGLang's request and layers without a
recurrent state, are vLLM's. What first tokens come later is fitted of TensorRT-LLM for layers of latent attention, since a prompt of DeepSeek-R1 takes others less
than its own first token, and of SGLang, by layers in the geometric mean of the others' ratios. SGLang's times of today are those of the sample's
versions, which stand beside them in its profile, but for one factor each of layers and of first tokens' delays: they are fitted to how much shorter
times became from version 0.5.9 to 0.5.12 on H200 (ten pairs of equal labels, ``served_rows.later``), in which errors of kernels cancel. Which steps with prompts run from graphs, and what a step holds, is as the sweeps' scripts say
(``served_told``). Least are

    mean of sqrt(r² + 0.05²) over TPOT of all rows + the same over TTFT of rows that tell the host from the queue,

r the logarithm of predicted over measured; those are rows of at most 16 clients that fit into the memory, without data-parallel attention. The
interval of `step_s` has 10 to 90 % of what fits beside the other times without one of the models, with either set of kernels; that of SGLang today is
that of its earlier versions.

Usage: ``python benchmarks/fit_engines.py`` prints the times; ``--write`` puts them into the profiles, ``--records DIR`` takes records from a
folder, by file name, before the shipped ones.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from roofline.engines import ENGINES
from roofline.estimate.overheads import layers_of
from roofline.records import FittedConstant
from roofline.serving.closed_forms.forms import closed_decoding, conserved_rate, lockstep_times, loop_wait
from roofline.serving.closed_forms.phases import Plan, assembled, on_one_rank, planned, seconds_of
from served_rows import DEV, Served, aggregated, later, sample
from served_systems import ROUNDS, Records, configurations, deploy, served_as, tokens_of
from served_told import graph_tokens_of

PROFILES = Path(__file__).parents[1] / "hardware_specs" / "engines"
KERNELS = ("own", "generic")
FACTORS, ABOUT = np.linspace(0, 1, 21), 1.01
"""Factors of layers that are tried, and how much worse one fits that fits about as well."""
EARLIER, THEN = "sglang earlier", "sglang then"
"""Host times of the sample's versions of SGLang, which has newer ones, and its rows with the labels of newer ones."""
MOST_CLIENTS = 16
SOFT = 0.05
KINDS = ("dense", "experts", "other_experts", "recurrent_experts")
MOST_CHUNKS = 4
UNITS = np.array([1e-6, 1e-2, 1e-4, 1e-4])
"""About how long sequences, requests and layers take, and delays of first tokens [s]."""
CLIENT = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)
"""What a request of the other client may take more: ``CLIENT_S`` of ``served_rows`` is the best of them [s]."""
NOTHING = FittedConstant(value=0.0, low=0.0, high=0.0, unit="s")


@dataclass(frozen=True, slots=True)
class Rows:
    """Kernels of the rows of one engine, and what was measured there; an element of the first axis for each row."""

    kernels: np.ndarray  # of the steps of the plan, rows × steps [s]
    plan: Plan
    one_rank: np.ndarray  # what a prompt on one data-parallel rank adds to a step, over what one on each adds
    batch: np.ndarray
    clients: np.ndarray
    answer: np.ndarray
    cv: np.ndarray  # of the lengths of prompts
    yielded: np.ndarray  # tokens of a step, of each sequence
    layers: np.ndarray  # rows × kinds of layers
    graph_tokens: np.ndarray  # of a step with prompts that is replayed, at most
    sampling: np.ndarray  # of a token, beyond what each sequence takes [s]
    client: np.ndarray  # of a request, beyond what the engine takes of it [s]
    tells: np.ndarray  # whether TTFT tells the host from the queue
    family: np.ndarray
    tpot_s: np.ndarray
    ttft_s: np.ndarray

    def of(self, chosen: np.ndarray) -> "Rows":
        """Return some of the rows."""
        plan = Plan(*(column[chosen] for column in self.plan))
        return Rows(self.kernels[chosen], plan, *(getattr(self, field.name)[chosen] for field in fields(self)[2:]))

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> "Rows":
        """Return the rows of several configurations together."""
        plan = Plan(*map(np.concatenate, zip(*(part.plan for part in parts), strict=True)))
        kernels, *others = (np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls) if field.name != "plan")
        return cls(kernels, plan, *others)


@dataclass(frozen=True, slots=True)
class Host:
    """The times that are fitted [s]."""

    sequence: float
    request: float
    layers: np.ndarray  # by kind
    first: np.ndarray  # the same, by which first tokens come later
    step: float = 0.0


def errors(rows: Rows, host: Host) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms of predicted over measured TPOT and TTFT."""
    plan = rows.plan
    eager = (plan.prompts > 0) & (plan.decodes + plan.prompts * plan.new > rows.graph_tokens[:, None])
    launching = (rows.layers @ host.layers)[:, None] * eager
    sequences = plan.decodes + plan.prompts
    seconds = np.maximum(rows.kernels, launching) + host.step + (host.sequence + rows.sampling[:, None]) * sequences
    found = assembled(plan, seconds * (sequences > 0), rows.one_rank)
    steps = (rows.answer - 1) / rows.yielded
    alike = (rows.cv == 0) & ~plan.mixed
    in_step, queue = lockstep_times(found, steps, rows.batch)
    decoding = np.where(alike, in_step, closed_decoding(found, steps, rows.batch, rounds=ROUNDS))
    free = rows.batch / (decoding + found.prompt + queue * alike)
    rate = np.where(alike, free, np.minimum(free, conserved_rate(found, steps, rows.batch)))
    kept_back = rows.batch / rate - decoding - found.prompt
    waited = np.where(alike, queue, loop_wait(found, rows.batch, rate, rows.cv, rounds=ROUNDS, at_least=kept_back))
    first = found.prompt + waited + (1 - 1 / ROUNDS) * np.maximum(rows.clients - rows.batch, 0.0) / rate
    outside = host.request + rows.client + rows.layers @ host.first
    return np.log(decoding / (rows.answer - 1) / rows.tpot_s), np.log((first + outside) / rows.ttft_s)


def soft(error: np.ndarray) -> float:
    """Return the mean size of errors, in which large ones do not count more."""
    return float(np.sqrt(error**2 + SOFT**2).mean())


def kernels_of(rows: Sequence[Served], records: Records, which: str) -> Rows:
    """Return the kernels of an engine's rows, by its own records or by the generic one."""
    parts = []
    for group in configurations(rows):
        one, number = group[0], len(group)
        record = records.of(one) if which == "own" else records.generic
        kernels = record.model_copy(update={"overheads": {"step_s": NOTHING}})
        operation = served_as(deploy(one), group, calibration=kernels).operation
        service, lengths = operation.service, operation.lengths
        plan = planned(service.server, lengths, operation.point.batch, lockstep=True)
        seconds = seconds_of(service.server, lengths, plan)
        clients = np.array([row.concurrency for row in group]) / service.server.lanes
        parts.append(
            Rows(
                kernels=_padded(seconds),
                plan=Plan(*(_padded(column) for column in plan)),
                one_rank=on_one_rank(service.server, lengths, plan, seconds),
                batch=operation.point.batch,
                clients=clients,
                answer=lengths.output,
                cv=lengths.prompt_cv,
                yielded=np.full(number, tokens_of(group)),
                layers=np.tile(list(layers_of(service.deployment.model).values()), (number, 1)),
                graph_tokens=np.array([graph_tokens_of(row) for row in group]),
                sampling=np.array([row.sampling_s for row in group]),
                client=np.array([row.client_s for row in group]),
                tells=(clients <= np.minimum(operation.point.batch, MOST_CLIENTS)) & (one.data == 1),
                family=np.full(number, one.family),
                tpot_s=np.array([row.tpot_s for row in group]),
                ttft_s=np.array([row.ttft_s for row in group]),
            )
        )
    return Rows.joined(parts)


def _padded(column: np.ndarray) -> np.ndarray:
    """Return a column of a plan with as many parts of prompts as any row has."""
    if column.ndim == 1:
        return column
    beside = column.shape[1] <= MOST_CHUNKS  # whether parts are there: all others have parts beside decodes and alone, after four steps
    before, *parts = (column[:, :0], column) if beside else np.split(column, [4, 4 + (column.shape[1] - 4) // 2], axis=1)
    return np.concatenate([before, *(np.pad(part, ((0, 0), (0, MOST_CHUNKS - part.shape[1]))) for part in parts)], axis=1)


def loss_of(parts: Sequence[Rows], host: Host) -> float:
    """Return what is to be least."""
    each = [(part, *errors(part, host)) for part in parts]
    return sum(soft(tpot) + soft(ttft[part.tells]) for part, tpot, ttft in each)


def fit(parts: Sequence[Rows], host_of: Callable[[np.ndarray], Host], begin: Sequence[float]) -> Host:
    """Return the host times of an engine, from numbers whose squares are times."""
    numbers = np.array(begin)
    for _ in range(3):  # its directions start afresh
        numbers = minimize(
            lambda numbers: loss_of(parts, host_of(numbers**2)),
            numbers,
            method="Powell",
            options={"maxiter": 20, "xtol": 1e-3, "ftol": 1e-5},
        ).x
    return host_of(numbers**2)


def vllm(times: np.ndarray) -> Host:
    """Return vLLM's host from the times of sequences, requests, and layers of three kinds, in `UNITS`; with a recurrent state they are as others."""
    sequence, request, *layers = times * UNITS[[0, 1, 2, 2, 2]]
    return Host(sequence, request, np.array([*layers, layers[-1]]), np.zeros(len(KINDS)))


def trtllm(known: Host, times: np.ndarray) -> Host:
    """Return TensorRT-LLM's from those of sequences, requests, layers of two kinds of experts, and by how much the last ones' first tokens come later.

    A dense layer is vLLM's, whose host launches the same from Python: kernels take longer than it in nearly all rows, which fit as well without it.
    """
    sequence, request, experts, others, later = times * UNITS[[0, 1, 2, 2, 2]]
    return Host(sequence, request, np.array([known.layers[0], experts, others, others]), np.array([0.0, 0.0, later, later]))


def sglang(known: Host, times: np.ndarray) -> Host:
    """Return SGLang's from those of sequences and of layers with a recurrent state, and a factor of first tokens' delays; others are known ones."""
    sequence, recurrent, factor = times * UNITS[[0, 2, 3]]
    return replace(known, sequence=sequence, layers=np.append(known.layers[:-1], recurrent), first=factor * known.first)


def pairs(sampled: Iterable[Served]) -> tuple[list[Served], list[Served]]:
    """Return rows of later versions, and the same with the times that the sample has for their labels."""
    known = {replace(row, version="").labels: row for row in sampled if row.speculative == "none"}
    found = [(row, known[labels]) for row in later() if (labels := replace(row, version="").labels) in known]
    return [row for row, _ in found], [replace(row, tpot_s=earlier.tpot_s, ttft_s=earlier.ttft_s) for row, earlier in found]


def today(earlier: Host, then: Sequence[Rows], now: Sequence[Rows]) -> Host:
    """Return the host times of later versions, by what rows of equal labels took then and now.

    Layers that are launched faster than their kernels run take no time, whatever their own: the factor is the largest that fits about as well as
    any. A layer with a recurrent state, of which there are no pairs, is taken for one of another attention.
    """
    known = replace(earlier, layers=np.append(earlier.layers[:-1], earlier.layers[-2]))

    def host_of(layers: float, first: float) -> Host:
        return replace(known, layers=layers * known.layers, first=first * known.first)

    def loss(first: float, layers: float) -> float:
        total = 0.0
        for before, after in zip(then, now, strict=True):
            tpot, ttft = (new - old for new, old in zip(errors(after, host_of(layers, first)), errors(before, known), strict=True))
            total += soft(tpot) + soft(ttft[after.tells])
        return total

    found = {factor: minimize_scalar(loss, args=(factor,), bounds=(0, 2), method="bounded") for factor in FACTORS.tolist()}
    enough = ABOUT * min(each.fun for each in found.values())
    largest = max(factor for factor, each in found.items() if each.fun <= enough)
    return host_of(largest, found[largest].x)


def fits(rows: Mapping[str, Sequence[Rows]]) -> dict[str, Host]:
    """Return the host times of all engines; SGLang's first tokens come later by layers in the mean ratio of the other engines' layers."""
    found = {"vllm": fit(rows["vllm"], vllm, [5.0, 2.5, 2.1, 2.8, 5.0])}
    found["trtllm"] = fit(rows["trtllm"], partial(trtllm, found["vllm"]), [5.0, 2.5, 2.8, 5.0, 4.0])
    ratios = np.exp(np.mean([np.log(host.layers / host.layers[0]) for host in found.values()], axis=0))
    known = replace(found["vllm"], first=ratios)
    found[EARLIER] = fit(rows[EARLIER], partial(sglang, known), [5.0, 5.0, 2.0])
    return found | {"sglang": today(found[EARLIER], rows[THEN], rows["sglang"])}


def clients(rows: Mapping[str, Sequence[Rows]]) -> dict[float, float]:
    """Return the sum of what is least, over all engines, by what a request of the other client takes more [s]."""
    found = {}
    for seconds in CLIENT:
        other = {engine: [replace(part, client=seconds * (part.client > 0)) for part in parts] for engine, parts in rows.items()}
        found[seconds] = sum(loss_of(other[engine], host) for engine, host in fits(other).items())
    return found


def interval(parts: Sequence[Rows], host: Host) -> tuple[float, float]:
    """Return 10 and 90 % of the steps' times that fit without one of the models [s]."""
    found = []
    for part in parts:
        for family in np.unique(part.family):
            rest = part.of(part.family != family)
            one = minimize_scalar(
                lambda step, rest=rest: soft(errors(rest, replace(host, step=step))[0]), bounds=(0, 5e-3), method="bounded"
            )
            found.append(one.x)
    low, high = np.quantile(found, (0.1, 0.9))
    return min(float(low), host.step), max(float(high), host.step)


def table(host: Host, ends: tuple[float, float]) -> dict[str, float]:
    """Return the fitted keys of a profile [s]."""
    times = {"step_s": host.step, "step_low_s": ends[0], "step_high_s": ends[1]}
    times |= {
        "sequence_s": host.sequence,
        "request_s": host.request,
        **dict(zip(KINDS, host.layers.tolist(), strict=True)),
        **{f"first_{kind}": seconds for kind, seconds in zip(KINDS, host.first.tolist(), strict=True) if seconds},
    }
    for first in ("", "first_"):  # the profile takes one for the other where they are not told apart
        if times.get(f"{first}recurrent_experts") == times.get(f"{first}other_experts"):
            times.pop(f"{first}recurrent_experts", None)
    return {name: float(f"{round(seconds, 7):.2g}") for name, seconds in times.items()}


def write(which: str, times: Mapping[str, float]) -> None:
    """Put fitted times into a profile."""
    engine, _, part = which.partition(" ")
    file = PROFILES / f"{engine}.toml"
    before, header, text = file.read_text(encoding="utf-8").partition(f"[[{part}]]\n" if part else "[host]\n")
    for name, seconds in times.items():
        within = r"(^\[\w+\.first_token_s\]\n(?:.+\n)*?)" if name.startswith("first_") else "()"
        key = name.removeprefix("first_")
        text, found = re.subn(rf"(?m){within}^{key} = .*$", rf"\g<1>{key} = {seconds:g}", text, count=1)
        if found != 1:
            raise SystemExit(f"{file.name}: {name} stands there {found} times")
    file.write_text(before + header + text, encoding="utf-8")


def main() -> None:
    """Print or write the times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the times into hardware_specs/engines")
    parser.add_argument("--client", action="store_true", help="only print how well times of the other client's requests fit")
    parser.add_argument("--records", type=Path, help="a folder of records that stand before the shipped ones, by file name")
    asked = parser.parse_args()
    sampled = [row for row in aggregated(sample()) if not isinstance(row, str) and row.machine in DEV]
    served = {engine: [row for row in sampled if row.engine == engine] for engine in ENGINES}
    now, then = pairs(sampled)
    served |= {EARLIER: served["sglang"], "sglang": now, THEN: then}
    records = Records(asked.records)
    rows = {name: [kernels_of(each, records, which) for which in KERNELS] for name, each in served.items()}
    if asked.client:
        for seconds, loss in clients(rows).items():
            print(f"{seconds:g} s: {loss:.4f}")
        return
    hosts = fits(rows)
    ends = {name: interval(rows[name], host) for name, host in hosts.items() if name != "sglang"}
    ends["sglang"] = ends[EARLIER]
    for engine, host in hosts.items():
        times = table(host, ends[engine])
        print(f"{engine}: " + ", ".join(f"{name} {seconds:g}" for name, seconds in times.items()))
        for which, part in zip(KERNELS, rows[engine], strict=True):
            tpot, ttft = (np.median(np.abs(np.expm1(error))) for error in errors(part, host))
            print(f"    {which}: median errors of {part.tpot_s.size} rows: TPOT {tpot:.1%}, TTFT {ttft:.1%}")
        if asked.write:
            write(engine, times)


if __name__ == "__main__":
    main()
