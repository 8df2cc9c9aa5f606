"""Fit the host times of engines' profiles to served systems on H100 and H200: ``hardware_specs/engines/*.toml``, table ``host``.

The closed form of ``served_systems`` with the kernels of the row's own record, and again with those of the generic one, so that no engine's
host makes up for the errors of one set of kernels. Fitted together for three engines: `step_s` and `request_s` of each, what its host takes
to launch a dense layer, and how many times as long a layer of experts takes with attention, and with another mixer. Least are

    mean of sqrt(r² + 0.05²) over TPOT of all rows + the same over TTFT of rows that tell the host from the queue,

r the logarithm of predicted over measured; those are rows of at most 16 clients that fit into the memory, without data-parallel attention, and
of SGLang, which runs prompts first, only where lengths are drawn. The interval of `step_s` has 10 to 90 % of its fits without one of the
models, with either set of kernels.

`sequence_s` is not fitted: 9–14 µs helped one of two sets of kernels and hurt the other, with TensorRT-LLM and with SGLang.

Usage: ``python benchmarks/fit_engines.py`` prints the times; ``--write`` puts them into the profiles, ``--records DIR`` takes records from a
folder, by file name, before the shipped ones.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from roofline import StepTime
from roofline.engines import ENGINES, load_engine
from roofline.estimate.overheads import layers_of
from roofline.records import FittedConstant
from served_rows import DEV, Served, aggregated, sample
from served_systems import (
    Records,
    chunk_steps,
    configurations,
    decode_steps,
    deploy,
    load_of,
    time_per_token,
    time_to_first,
)

PROFILES = Path(__file__).parents[1] / "hardware_specs" / "engines"
KERNELS = ("own", "generic")
MOST_CLIENTS = 16
SOFT = 0.05
MOST_CHUNKS = 4
UNITS = np.array([1e-4, 1e-4, 1e-2])
"""About how long steps, layers and requests take: what is fitted are roots of such multiples [s]."""
NOTHING = FittedConstant(value=0.0, low=0.0, high=0.0, unit="s")


@dataclass(frozen=True, slots=True)
class Rows:
    """Kernels of the rows of one engine, and what was measured there; an element of the first axis for each row."""

    decode: np.ndarray  # kernels of D [s]
    mixed: np.ndarray  # of a prompt's steps, rows × chunks [s]
    shared: np.ndarray
    alone: np.ndarray
    tokens: np.ndarray  # of these chunks
    batch: np.ndarray
    clients: np.ndarray
    prompts: np.ndarray  # that share a step
    answer: np.ndarray
    yielded: np.ndarray  # tokens of a step, of each sequence
    layers: np.ndarray  # rows × kinds of layers
    tells: np.ndarray  # whether TTFT tells the host from the queue
    family: np.ndarray
    tpot_s: np.ndarray
    ttft_s: np.ndarray

    def of(self, chosen: np.ndarray) -> "Rows":
        """Return some of the rows."""
        return Rows(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Host:
    """The times that are fitted [s]."""

    step: float
    request: float
    layers: np.ndarray  # by kind
    graph_tokens: int


def errors(rows: Rows, host: Host) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms of predicted over measured TPOT and TTFT."""
    there = rows.tokens > 0

    def seconds(kernels: np.ndarray, decodes: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        eager = decodes[:, None] + prompts[:, None] * rows.tokens > host.graph_tokens
        launching = (rows.layers @ host.layers)[:, None] * eager
        summed: np.ndarray = ((np.maximum(kernels, launching) + host.step) * there).sum(axis=1)
        return summed

    one, batch = np.ones_like(rows.batch), rows.batch
    decode = rows.decode + host.step
    prompt = seconds(rows.mixed, batch, one)
    added = (seconds(rows.shared, batch, rows.prompts) - there.sum(axis=1) * decode) / rows.prompts
    per_token = time_per_token(decode / rows.yielded, added, prompt, batch, rows.answer)
    first = time_to_first(per_token, decode, added, prompt, seconds(rows.alone, 0 * batch, one), batch, rows.clients, rows.answer)
    return np.log(per_token / rows.tpot_s), np.log((first + host.request) / rows.ttft_s)


def soft(error: np.ndarray) -> float:
    """Return the mean size of errors, in which large ones do not count more."""
    return float(np.sqrt(error**2 + SOFT**2).mean())


def kernels_of(rows: Sequence[Served], records: Records, which: str) -> Rows:
    """Return the kernels of an engine's rows, by its own records or by the generic one."""
    parts = []
    for group in configurations(rows):
        deployment, one, number = deploy(group[0]), group[0], len(group)
        record = records.own(one.machine, one.engine) if which == "own" else records.generic
        time = StepTime(deployment, calibration=record.model_copy(update={"overheads": {"step_s": NOTHING}}))
        load = load_of(group, deployment)
        steps = chunk_steps(time, load, load.together)
        layers = list(layers_of(deployment.model).values())
        few = (load.clients <= np.minimum(load.batch, MOST_CLIENTS)) & (one.data == 1)
        parts.append(
            Rows(
                decode=decode_steps(time, load),
                mixed=_padded(steps.mixed),
                shared=_padded(steps.shared),
                alone=_padded(steps.alone),
                tokens=_padded(steps.tokens),
                batch=load.batch,
                clients=load.clients,
                prompts=load.together,
                answer=load.answer,
                yielded=np.full(number, load.tokens),
                layers=np.tile(layers, (number, 1)),
                tells=few & (load.drawn | (one.engine != "sglang")),
                family=np.full(number, one.family),
                tpot_s=np.array([row.tpot_s for row in group]),
                ttft_s=np.array([row.ttft_s for row in group]),
            )
        )
    return Rows(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Rows)))


def _padded(chunks: np.ndarray) -> np.ndarray:
    return np.pad(chunks, ((0, 0), (0, MOST_CHUNKS - chunks.shape[1])))


def hosts(numbers: np.ndarray) -> dict[str, Host]:
    """Return the times of every engine from the numbers that are fitted: two ratios of layers, and three roots of times for each engine."""
    ratios, times = numbers[:2] ** 2, numbers[2:].reshape(len(ENGINES), 3) ** 2 * UNITS
    found = {}
    for engine, (step, dense, request) in zip(ENGINES, times.tolist(), strict=True):
        layers = dense * np.array([1.0, *ratios])
        graph_tokens = load_engine(engine).graphs.prefill_tokens or 0
        found[engine] = Host(step, request, layers, graph_tokens)
    return found


def fit(rows: Mapping[str, Sequence[Rows]]) -> dict[str, Host]:
    """Return the host times of all engines."""

    def loss(numbers: np.ndarray) -> float:
        found = hosts(numbers)
        each = [(part, *errors(part, found[engine])) for engine, parts in rows.items() for part in parts]
        return sum(soft(tpot) + soft(ttft[part.tells]) for part, tpot, ttft in each)

    numbers = np.array([1.2, 2.2, *([1.5, 1.5, 1.0] * len(ENGINES))])
    for _ in range(3):  # its directions start afresh
        numbers = minimize(loss, numbers, method="Powell", options={"maxiter": 20, "xtol": 1e-3, "ftol": 1e-5}).x
    return hosts(numbers)


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
    times |= {"request_s": host.request, **dict(zip(("dense", "experts", "other_experts"), host.layers.tolist(), strict=True))}
    return {name: float(f"{seconds:.2g}") for name, seconds in times.items()}


def write(engine: str, times: Mapping[str, float]) -> None:
    """Put fitted times into a profile."""
    file = PROFILES / f"{engine}.toml"
    text = file.read_text(encoding="utf-8")
    for name, seconds in times.items():
        text, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {seconds:g}", text)
        if found != 1:
            raise SystemExit(f"{file.name}: {name} stands there {found} times")
    file.write_text(text, encoding="utf-8")


def main() -> None:
    """Print or write the times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the times into hardware_specs/engines")
    parser.add_argument("--records", type=Path, help="a folder of records that stand before the shipped ones, by file name")
    asked = parser.parse_args()
    served = [row for row in aggregated(sample()) if not isinstance(row, str) and row.machine in DEV]
    records = Records(asked.records)
    rows = {
        engine: [kernels_of([row for row in served if row.engine == engine], records, which) for which in KERNELS] for engine in ENGINES
    }
    for engine, host in fit(rows).items():
        times = table(host, interval(rows[engine], host))
        print(f"{engine}: " + ", ".join(f"{name} {seconds:g}" for name, seconds in times.items()))
        for which, part in zip(KERNELS, rows[engine], strict=True):
            tpot, ttft = (np.median(np.abs(np.expm1(error))) for error in errors(part, host))
            print(f"    {which}: median errors of {part.tpot_s.size} rows: TPOT {tpot:.1%}, TTFT {ttft:.1%}")
        if asked.write:
            write(engine, times)


if __name__ == "__main__":
    main()
