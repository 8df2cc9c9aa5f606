"""Hold floor and estimate against a real transformers Llama on this machine's CPU, after calibrating it.

Three parts, each measured apart from the library: the rates that calibration finds, against plain torch loops
of this script's own that take turns with it; a Llama of random weights, decoding and prefilling through transformers; and what the calibrated machine's
floor and estimate say of the same steps.

Usage: ``python benchmarks/measured_llama.py`` prints (four minutes in all); ``--write`` puts the tables into docs/estimates.md.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from pages import DOCS, write
from roofline import Hardware, decode_estimate, prefill_estimate
from roofline.calibration import calibrate
from roofline.calibration.plan import Point
from roofline.records import CalibrationRecord

PAGE = DOCS / "estimates.md"

SHAPE = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 4}
"""A Llama of 0.67 billion parameters: Llama-2's widths, grouped-query attention, a small vocabulary."""

CONTEXT = 256
STEPS = (("decode", 1), ("decode", 8), ("prefill", 256))


Rates = tuple[float, float, float]
"""Of a large product [FLOP/s], of reading and of the triad [B/s]."""


@dataclass(frozen=True, slots=True)
class Row:
    """One step, three times."""

    step: str
    measured_s: float
    low_s: float
    high_s: float
    """Quantiles (10 %, 90 %) of the measurement [s]."""
    floor_s: float
    estimate_s: float
    interval: tuple[float, float]

    @property
    def error(self) -> float:
        """How far the estimate is from the measured time [-]."""
        return self.estimate_s / self.measured_s - 1


def repeat(work: Callable[[], object], *, seconds: float = 4.0, least: int = 5) -> list[float]:
    """Return the times of so many runs after two to warm up [s]."""
    for _ in range(2):
        work()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def own_loops(size: int = 2**28, rows: int = 2048) -> Callable[[], Rates]:
    """Return what measures, by loops of this script's own, a large product in fp32, the reading of one long array, and STREAM's triad.

    Streams count at their 10 % quantile, triad with three arrays; where a processor reads what it is about to overwrite, a fourth one moves.
    """
    a, b, out = (torch.randn(size // 4) for _ in range(3))
    x, y, product = (torch.randn(rows, rows) for _ in range(3))

    def run() -> Rates:
        gemm = statistics.median(repeat(lambda: torch.mm(x, y, out=product), seconds=0.4))
        read, triad = (
            statistics.quantiles(repeat(work, seconds=0.3), n=10)[0] for work in (a.sum, lambda: torch.add(a, b, alpha=3.0, out=out))
        )
        return 2 * rows**3 / gemm, size / read, 3 * size / triad

    return run


def build(**shape: int) -> LlamaForCausalLM:
    """Return a Llama of random fp32 weights."""
    torch.manual_seed(0)
    config = LlamaConfig(**{"vocab_size": 32000, "max_position_embeddings": 4096, "dtype": "float32"} | shape)
    return LlamaForCausalLM(config).eval()


def step(model: LlamaForCausalLM, kind: str, size: int, context: int = CONTEXT) -> Callable[[], object]:
    """Return one decode step of `size` sequences after `context` tokens, or one prefill of `size` tokens, to be run again and again."""
    vocabulary = model.config.vocab_size
    if kind == "prefill":
        prompt = torch.randint(vocabulary, (1, size))
        return lambda: model(prompt, use_cache=True, logits_to_keep=1)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(torch.randint(vocabulary, (size, context)), past_key_values=cache, use_cache=True, logits_to_keep=1)
    token = torch.randint(vocabulary, (size, 1))

    def decode() -> object:
        out = model(token, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.crop(-1)  # take the new token away again
        return out

    return decode


Times = dict[tuple[str, int], list[float]]


def measure(model: LlamaForCausalLM, times: Times, *, rounds: int, seconds: float, context: int = CONTEXT) -> None:
    """Add the times of so many rounds of all steps: they take turns, since a virtual machine is faster one moment than the next."""
    with torch.inference_mode():
        works = {kind: step(model, *kind, context) for kind in STEPS}
        for _ in range(rounds):
            for kind, work in works.items():
                times.setdefault(kind, []).extend(repeat(work, seconds=seconds, least=3))


def compare(model: LlamaForCausalLM, machine: Hardware, times: Times, *, context: int = CONTEXT) -> list[Row]:
    """Ask for floor and estimate of every step that was measured."""
    config, rows = model.config.to_dict() | {"dtype": "float32"}, []
    options = {"weights": "fp32", "activations": "fp32", "kv": "fp32", "cuda_graph": False}
    for (kind, size), measured in times.items():
        if kind == "decode":
            estimate = decode_estimate(config, machine, batch=size, context=context, **options)
        else:
            estimate = prefill_estimate(config, machine, prompt=size, **options)
        tenths = statistics.quantiles(measured, n=10)
        spread = (statistics.median(measured), tenths[0], tenths[-1])
        name = f"decode, batch {size}, context {context}" if kind == "decode" else f"prefill of {size} tokens"
        rows.append(Row(name, *spread, float(estimate.floor.time_s), estimate.time_s, (estimate.low_s, estimate.high_s)))
    return rows


def best_gemm(record: CalibrationRecord) -> float:
    """Return the rate of fp32 products that calibration found: the fastest product's median [FLOP/s]."""
    products = next(c for c in record.classes if (c.family, c.operand) == ("matmul", "fp32"))
    m, n, k = (products.samples.sizes[name] for name in "mnk")
    return max(2 * a * b * c / s for a, b, c, s in zip(m, n, k, products.samples.seconds, strict=True))


def tables(record: CalibrationRecord, machine: Hardware, rows: list[Row], own: list[Rates]) -> str:
    """Return both tables; of the spells of this script's own loops, which took turns with the calibration, the best counts as STREAM has it."""
    gemm, read, triad = (max(rates) for rates in zip(*own, strict=True))
    bandwidth = machine.memory_bandwidth
    found = [("fp32 products", best_gemm(record), gemm, "GFLOP/s")]
    found += [("memory, reading", bandwidth, read, "GB/s"), ("memory, STREAM's triad", bandwidth, triad, "GB/s")]
    lines = ["| rate | calibration | a loop of its own | difference |", "| --- | --- | --- | --- |"]
    lines += [f"| {name} | {a / 1e9:.4g} {unit} | {b / 1e9:.4g} {unit} | {a / b - 1:+.1%} |" for name, a, b, unit in found]
    lines += [
        "",
        "| step | floor | measured (10–90 %) | estimate (80 % interval) | error | measured / floor |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        measured = f"{r.measured_s * 1e3:.4g} ms ({r.low_s * 1e3:.4g} … {r.high_s * 1e3:.4g})"
        estimate = f"{r.estimate_s * 1e3:.4g} ms ({r.interval[0] * 1e3:.4g} … {r.interval[1] * 1e3:.4g})"
        lines.append(f"| {r.step} | {r.floor_s * 1e3:.4g} ms | {measured} | {estimate} | {r.error:+.1%} | {r.measured_s / r.floor_s:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Calibrate, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{PAGE.name}")
    arguments = parser.parse_args()
    model, times, own, loops = build(**SHAPE), {}, [], own_loops()

    def take_turns(_done: int, _points: int, point: Point | None) -> None:
        if point is not None and point.family == "read":  # a virtual machine's share of the memory bus changes by the second
            own.append(loops())

    measure(model, times, rounds=3, seconds=3.0)
    with tempfile.TemporaryDirectory() as folder:
        record = calibrate("cpu", Path(folder, "cpu.json"), plan="quick", progress=take_turns)
    measure(model, times, rounds=3, seconds=3.0)  # before and after, so that a drift of the machine cancels
    machine = Hardware.from_record(record)
    text = tables(record, machine, compare(model, machine, times), own)
    if not arguments.write:
        print(text)
        return
    write({"llama": text}, PAGE)


if __name__ == "__main__":
    main()
