"""Hold floor and estimate against a real transformers Llama on this machine's CPU, after calibrating it.

Three parts, each measured apart from the library: the rates that calibration finds, against a plain torch loop and a plain copy loop
of this script's own; a Llama of random weights, decoding and prefilling through transformers; and what the calibrated machine's
floor and estimate say of the same steps.

Usage: ``python benchmarks/measured_llama.py`` calibrates (three minutes in all) and prints; ``--record FILE`` uses a record made before;
``--write`` puts the tables into docs/estimates.md.
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
from roofline.records import CalibrationRecord, load_record

PAGE = DOCS / "estimates.md"

SHAPE = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 4}
"""A Llama of 0.67 billion parameters: Llama-2's widths, grouped-query attention, a small vocabulary."""

CONTEXT = 256
STEPS = (("decode", 1), ("decode", 8), ("prefill", 256))


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


def gemm_rate(size: int = 2048) -> float:
    """Return the rate of a large product in fp32, by a loop of this script's own [FLOP/s]."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)
    return 2 * size**3 / statistics.median(repeat(lambda: torch.mm(a, b, out=out)))


def stream_rate(size: int = 2**28) -> float:
    """Return the bandwidth of STREAM's triad over three long arrays, by a loop of this script's own, at its 10 % quantile [B/s].

    Three spells, of which the best counts as STREAM has it: a virtual machine's share of the memory bus changes by the second.
    """
    a, b, out = torch.randn(size // 4), torch.randn(size // 4), torch.empty(size // 4)
    spells = [repeat(lambda: torch.add(a, b, alpha=3.0, out=out), seconds=3.0) for _ in range(3)]
    return 3 * size / min(statistics.quantiles(times, n=10)[0] for times in spells)


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
    """Return the rate of fp32 products that calibration found: the largest product's median [FLOP/s]."""
    products = next(c for c in record.classes if (c.family, c.operand) == ("matmul", "fp32"))
    m, n, k = (products.samples.sizes[name] for name in "mnk")
    return max(2 * a * b * c / s for a, b, c, s in zip(m, n, k, products.samples.seconds, strict=True))


def tables(record: CalibrationRecord, machine: Hardware, rows: list[Row]) -> str:
    """Return both tables."""
    found = [("fp32 products", best_gemm(record), gemm_rate(), "GFLOP/s"), ("memory", machine.memory_bandwidth, stream_rate(), "GB/s")]
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
    parser.add_argument("--record", type=Path, help="a calibration record of this machine, made before")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{PAGE.name}")
    arguments = parser.parse_args()
    model, times = build(**SHAPE), {}
    measure(model, times, rounds=3, seconds=3.0)
    with tempfile.TemporaryDirectory() as folder:
        record = load_record(arguments.record) if arguments.record else calibrate("cpu", output=Path(folder, "cpu.json"), plan="quick")
    measure(model, times, rounds=3, seconds=3.0)  # before and after, so that a drift of the machine cancels
    machine = Hardware.from_record(record)
    text = tables(record, machine, compare(model, machine, times))
    if not arguments.write:
        print(text)
        return
    write({"llama": text}, PAGE)


if __name__ == "__main__":
    main()
