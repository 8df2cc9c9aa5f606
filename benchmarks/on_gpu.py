"""What a GPU really does: its tests, a calibration record, a Llama decoded and prefilled, a profile and hardware counters.

``python benchmarks/on_gpu.py FOLDER`` measures; the parts, in this order, and what each leaves in the folder:

========= ==========================================================================================================
device    ``device.json``: what the driver says of the GPU, and its best products
calibrate ``record.json``: the record of ``roofline calibrate``, quick plan
llama     ``llama.json``: times of Llama-3.1-8B's steps (random weights, bf16, transformers), as Python launches the
          kernels and replayed from a CUDA graph, with clocks and power meanwhile
profile   ``decode.json.gz``, ``prefill.json.gz``: traces of torch's profiler of two of these steps, and the profiles that
          the library makes of them: ``decode_profile.json``, ``prefill_profile.json``
counters  ``counters.csv``: bytes and FLOP of single kernels by Nsight Compute
tests     ``tests.txt``: the tests that need a GPU
========= ==========================================================================================================

A part that fails says so and the others run: six minutes in all on an H100. ``--parts llama,profile`` runs some of them.
Its folder then goes to ``measurements/<machine>``, the record to hardware_specs/measured; ``--write`` puts tables of all of them into docs/measured.md.
"""

import argparse
import csv
import gzip
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import roofline
from measured_llama import repeat
from pages import DOCS, markdown, write
from roofline import (
    Estimate,
    KernelFloor,
    attention_floor,
    decode_estimate,
    decode_floor,
    list_records,
    matmul_floor,
    prefill_estimate,
    prefill_floor,
)

PAGE = DOCS / "measured.md"
MEASUREMENTS = Path(__file__).parent / "measurements"
"""What was measured, a folder for each machine."""

MODEL = "llama-3.1-8b"
DECODES = ((1, 1024), (8, 1024), (32, 1024), (64, 1024), (1, 8192), (8, 8192))
PREFILLS = (512, 2048, 8192)
SECONDS = 1.0

PRODUCTS = ((1, 4096, 4096), (16, 14336, 4096), (256, 4096, 4096), (4096, 4096, 4096), (1, 28672, 4096))
"""m, n, k of products in bf16 under the counters."""
ATTENTION = ((64, 2048), (1, 65536), (8, 4096))
"""Batch and context of decode attention with Llama-3.1-8B's heads under the counters."""
COUNTERS = (
    "gpu__time_duration.sum",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "sm__ops_path_tensor_src_bf16_dst_fp32.sum",
    "sm__cycles_elapsed.max",
)


def run_device(folder: Path) -> None:
    """Keep what the driver says of the GPU, and its best rates: of products of noise, and of zeros.

    Zeros draw less power, so the clock stays at its highest: what the chip can multiply at the clock that it is sold to run at.
    """
    import torch

    told = "name,driver_version,clocks.max.sm,clocks.max.memory,power.limit,memory.total"
    command = ["nvidia-smi", "--id=0", f"--query-gpu={told}", "--format=csv,noheader"]
    values = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().split(", ")
    rates: dict[str, float] = {}
    for n in (2048, 4096, 8192):
        for name, make in (("noise", torch.randn), ("zeros", torch.zeros)):
            a, b = (make(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            times = []
            for _ in range(30):
                time.sleep(0.01)  # the chip rests, so that only the clock limits the product
                start.record()
                for _ in range(3):
                    a @ b
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end) * 1e-3 / 3)
            rates[f"bf16 {n}³ of {name}"] = 2 * n**3 / min(times)
    print({name: f"{rate / 1e12:.0f} TFLOP/s" for name, rate in rates.items()})
    described = dict(zip(told.split(","), values, strict=True))
    (folder / "device.json").write_text(json.dumps({**described, "best_flops_per_s": rates}, indent=1) + "\n")


def run_calibrate(folder: Path) -> None:
    """Write a record by the quick plan."""
    from roofline.calibration import calibrate

    record = calibrate("cuda:0", folder / "record.json", plan="quick", ranks=1)
    print(record.id, *(str(condition) for condition in record.conditions), sep="\n  ")


def attend(_module: Any, query: Any, key: Any, value: Any, _mask: Any, scaling: float | None = None, **_options: Any) -> tuple[Any, None]:
    """Attention without a mask, as engines call it: transformers makes one while a graph is captured, and then copies keys and values."""
    from torch.nn.functional import scaled_dot_product_attention

    out = scaled_dot_product_attention(query, key, value, is_causal=query.shape[2] > 1, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2), None


def build() -> Any:
    """Return Llama-3.1-8B of random weights on the GPU, from the published configuration."""
    import torch
    from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

    AttentionInterface.register("without_mask", attend)
    config = LlamaConfig(**json.loads((Path(roofline.__file__).parent / "_models" / f"{MODEL}.json").read_text())["config"])
    config._attn_implementation = "without_mask"
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    return model


def decode_step(model: Any, batch: int, context: int) -> Callable[[], object]:
    """Return one decode step after `context` tokens, to be run again and again; keys and values are written in place, as engines do."""
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    class InPlace(DynamicLayer):
        """A full cache, whose last position is the new token's."""

        def update(self, key_states: Any, value_states: Any, *_args: Any, **_options: Any) -> tuple[Any, Any]:
            self.keys[:, :, -1:], self.values[:, :, -1:] = key_states, value_states
            return self.keys, self.values

        def get_seq_length(self, *_args: Any) -> int:
            return int(self.keys.shape[-2]) - 1

    config, cache = model.config, DynamicCache(config=model.config)
    shape = (batch, config.num_key_value_heads, context + 1, config.hidden_size // config.num_attention_heads)
    for layer in cache.layers:
        layer.keys, layer.values = (torch.randn(shape, device=model.device, dtype=model.dtype) for _ in range(2))
        layer.is_initialized, layer.__class__ = True, InPlace
    token = torch.randint(config.vocab_size, (batch, 1), device=model.device)
    return lambda: model(token, past_key_values=cache, use_cache=True, logits_to_keep=1)


def prefill_step(model: Any, prompt: int) -> Callable[[], object]:
    """Return the prefill of one prompt."""
    import torch

    tokens = torch.randint(model.config.vocab_size, (1, prompt), device=model.device)
    return lambda: model(tokens, use_cache=True, logits_to_keep=1)


def as_graph(work: Callable[[], object]) -> Callable[[], object]:
    """Return the replay of a CUDA graph of some work."""
    import torch

    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def steps(model: Any) -> Iterator[tuple[dict[str, int], Callable[[], object]]]:
    """Yield all steps, each made when its turn comes, since their caches do not fit together."""
    for batch, context in DECODES:
        yield {"batch": batch, "context": context}, decode_step(model, batch, context)
    for prompt in PREFILLS:
        yield {"prompt": prompt}, prefill_step(model, prompt)


def run_llama(folder: Path) -> None:
    """Measure every step, launched by Python and replayed from a graph, until a second is over."""
    import torch

    from roofline.calibration.devices import open_device
    from roofline.telemetry import open_telemeter

    model, device, rows = build(), open_device("cuda:0"), []
    telemeter = open_telemeter("cuda", 0)
    with torch.inference_mode():
        for sizes, work in steps(model):
            for launched, make in (("python", lambda work=work: work), ("graph", lambda work=work: as_graph(work))):
                row: dict[str, Any] = {**sizes, "launched": launched}
                try:
                    times, reading = telemeter.watch(lambda make=make: timed(make()))
                    tenths = statistics.quantiles(times, n=10)
                    row |= {"runs": len(times), "median_s": statistics.median(times), "low_s": tenths[0], "high_s": tenths[-1]}
                    row |= {
                        "telemetry": reading.telemetry and reading.telemetry.model_dump(),
                        "flags": [str(flag) for flag in reading.flags],
                    }
                except Exception as error:  # a graph that cannot be captured must not end the others
                    row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                print(row, flush=True)
                rows.append(row)
            del work
            torch.cuda.empty_cache()
    telemeter.close()
    import transformers

    software = {"torch": torch.__version__, "cuda": torch.version.cuda, "transformers": transformers.__version__}
    about = {"model": MODEL, "weights": "random, bf16", "device": device.name, "software": software, "date": time.strftime("%Y-%m-%d")}
    (folder / "llama.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


def timed(work: Callable[[], object]) -> list[float]:
    """Return the times of some work, each until the GPU has finished [s]."""
    import torch

    def whole() -> None:
        work()
        torch.cuda.synchronize()

    return repeat(whole, seconds=SECONDS)


def run_profile(folder: Path) -> None:
    """Keep traces and profiles of one decode step and one prefill, beside the floor of each."""
    import torch

    from roofline.hardware.recognition import recognize
    from roofline.profile import beside_floor, profile_torch

    machine, model = recognize(torch.cuda.get_device_name()), build()
    decode, prefill = {"batch": 8, "context": 1024}, {"prompt": 2048}
    floors = {"decode": lambda: decode_floor(MODEL, machine, **decode), "prefill": lambda: prefill_floor(MODEL, machine, **prefill)}
    with torch.inference_mode():
        for name, work in (("decode", decode_step(model, **decode)), ("prefill", prefill_step(model, **prefill))):
            profile = profile_torch(work, hardware=machine, phase=name, warmup=3, trace=folder / f"{name}.json.gz")
            (folder / f"{name}_profile.json").write_text(profile.to_json(indent=1) + "\n")
            print(profile, *((beside_floor(profile, floors[name]()),) if machine else ()), sep="\n", flush=True)


def run_kernels(_folder: Path) -> None:
    """Run the kernels that are counted; meant to be started by :func:`run_counters`."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    def tensor(*shape: int) -> Any:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)

    works: list[Callable[[], object]] = []
    for m, n, k in PRODUCTS:
        rows, weights = tensor(m, k), tensor(n, k)
        works.append(lambda a=rows, b=weights: torch.nn.functional.linear(a, b))
    for batch, context in ATTENTION:
        q, k, v = tensor(batch, 32, 1, 128), tensor(batch, 8, context, 128), tensor(batch, 8, context, 128)
        works.append(lambda q=q, k=k, v=v: scaled_dot_product_attention(q, k, v, enable_gqa=True))
    with torch.inference_mode():
        for work in works:
            work()
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        for work in works:
            work()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()


def run_counters(folder: Path) -> None:
    """Count the bytes and FLOP of single kernels; caches are flushed before each."""
    command = ["ncu", "--csv", "--page", "raw", "--clock-control", "none", "--profile-from-start", "off", "--metrics", ",".join(COUNTERS)]
    done = subprocess.run(
        [*command, sys.executable, __file__, str(folder), "--parts", "kernels"], capture_output=True, text=True, timeout=150, check=False
    )
    table = list(csv.reader(line for line in done.stdout.splitlines() if line.startswith('"')))
    print(f"{len(table) - 2} kernels" if len(table) > 2 else done.stdout[-800:], done.stderr[-800:])
    places = [table[0].index(name) for name in ("Kernel Name", *COUNTERS)]
    with (folder / "counters.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([row[place].replace(",", "") for place in places] for row in (table[0], *table[2:]))


def run_tests(folder: Path) -> None:
    """Run the tests marked gpu, but the one that repeats the calibration."""
    tests = Path(__file__).parents[1] / "tests"
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-m", "gpu and not slow"]
    files = [str(tests / name) for name in ("test_calibration_gpu.py", "test_profile.py")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=240, check=False, cwd=tests.parent)
    (folder / "tests.txt").write_text(done.stdout + done.stderr)
    print(done.stdout[-3500:], done.stderr[-500:])


# --- tables ---


def own_record(folder: Path) -> str:
    """Return the id of the record that was measured beside a folder's files."""
    return next(record for record in list_records() if record.startswith(f"{folder.name}-torch-"))


def ask(machine: str, row: Mapping[str, Any], **options: Any) -> Estimate:
    """Return the estimate of one measured step."""
    if "prompt" in row:
        return prefill_estimate(MODEL, machine, prompt=row["prompt"], **options)
    return decode_estimate(MODEL, machine, batch=row["batch"], context=row["context"], **options)


def name(row: Mapping[str, Any]) -> str:
    """Return a step in words."""
    return f"prefill of {row['prompt']:,}" if "prompt" in row else f"decode, batch {row['batch']}, context {row['context']:,}"


def step_table(folder: Path) -> str:
    """Return floors, estimates and measured times of the Llama's steps."""
    llama, own = json.loads((folder / "llama.json").read_text()), own_record(folder)
    launched: dict[str, dict[str, Any]] = {}
    for row in llama["rows"]:
        launched.setdefault(name(row), {})[row["launched"]] = row
    rows = []
    for step, both in launched.items():
        graph, python = both["graph"], both["python"]
        mine, engine, generic = (ask(folder.name, graph, calibration=c) for c in (own, f"{folder.name}-vllm-0.24.0", "generic"))
        times = (float(mine.floor.time_s), graph["median_s"], python["median_s"], mine.time_s, engine.time_s, generic.time_s)
        rows.append((step, *(f"{t * 1e3:.2f}" for t in times), f"{times[1] / times[0]:.2f}", f"{times[3] / times[1] - 1:+.0%}"))
    head = ("step [ms]", "floor", "measured, graph", "measured, Python", "estimate, own record", "vLLM's record", "generic")
    return markdown((*head, "graph / floor", "own record's error"), rows)


def kind_of(kernel: str) -> str:
    """Return what a kernel of the trace is to an estimate."""
    if "sdpa" in kernel or "lean_reduction" in kernel or "flash" in kernel:
        return "attention"
    return "matmul" if any(word in kernel for word in ("nvjet", "gemm", "splitK", "cublas")) else "rowwise"


def trace_table(folder: Path) -> str:
    """Return the times of kernels by family: of a trace, and of the estimate of the same step."""
    rows = []
    for file, step in (("decode", {"batch": 8, "context": 1024}), ("prefill", {"prompt": 2048})):
        trace = json.loads(gzip.decompress((folder / f"{file}.json.gz").read_bytes()))
        kernels = [event for event in trace["traceEvents"] if event.get("cat") == "kernel"]
        estimated = ask(folder.name, step, calibration=own_record(folder)).by_op()
        for family in ("matmul", "attention", "rowwise"):
            ran = [event["dur"] for event in kernels if kind_of(event["name"]) == family]
            kinds = [row for row in estimated if row.family == family]
            times = (sum(ran) * 1e-3, sum(row.time_s for row in kinds) * 1e3)
            counts = (len(ran), sum(row.count for row in kinds))
            rows.append((name(step), family, *(f"{t:.2f}" for t in times), *counts, f"{times[1] / times[0] - 1:+.0%}"))
    return markdown(("step", "family", "trace [ms]", "estimate [ms]", "launches of transformers", "of the estimate", "difference"), rows)


def counter_table(folder: Path) -> str:
    """Return bytes, FLOP and times that the counters saw and those of the floor of a cold cache, kernel by kernel."""
    with (folder / "counters.csv").open() as file:
        counted = list(csv.DictReader(file))
    asked: list[tuple[str, KernelFloor]] = [
        (f"product {m} × {n} × {k}", matmul_floor(m, n, k, folder.name, format="bf16", cache="cold")) for m, n, k in PRODUCTS
    ]
    for batch, context in ATTENTION:
        shape = {"batch": batch, "context": context - 1, "heads": 32, "kv_heads": 8, "head_dim": 128}
        asked.append((f"attention of {batch} × {context:,}", attention_floor(hardware=folder.name, kv="bf16", cache="cold", **shape)))
    rows, place = [], 0
    for what, floor in asked:
        mine = [counted[place]]
        place += 1
        while place < len(counted) and ("splitKreduce" in counted[place]["Kernel Name"] or "reduction" in counted[place]["Kernel Name"]):
            mine.append(counted[place])  # the second kernel of a divided sum
            place += 1
        time_ns, read, written, flops = (sum(float(row[c]) for row in mine) for c in COUNTERS[:4])
        cells = (
            f"{floor.total_bytes / 1e6:,.2f}",
            f"{read / 1e6:,.2f}",
            f"{written / 1e6:,.2f}",
            f"{floor.flops / 1e9:,.2f}",
            f"{flops / 1e9:,.2f}",
        )
        times = (float(floor.time_s) * 1e6, time_ns * 1e-3)
        rows.append((what, *cells, *(f"{t:.1f}" for t in times), f"{times[1] / times[0]:.2f}"))
    head = ("kernel", "bytes of the floor [MB]", "read [MB]", "written [MB]", "FLOP of the floor [G]", "of the tensor cores [G]")
    return markdown((*head, "floor, cold [µs]", "time [µs]", "time / floor"), rows)


def report() -> dict[str, str]:
    """Return all tables, by the marks of the page."""
    sections = {}
    for folder in sorted(path for path in MEASUREMENTS.iterdir() if path.is_dir()):
        for what, table in (("steps", step_table), ("traces", trace_table), ("counters", counter_table)):
            sections[f"{folder.name} {what}"] = table(folder)
    return sections


PARTS: dict[str, Callable[[Path], None]] = {
    "device": run_device,
    "calibrate": run_calibrate,
    "llama": run_llama,
    "profile": run_profile,
    "counters": run_counters,
    "tests": run_tests,
}


def main() -> None:
    """Measure, or write what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where to keep what is measured")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts to run, separated by commas")
    parser.add_argument(
        "--write", action="store_true", help=f"measure nothing; put the tables of {MEASUREMENTS.name}/ into docs/{PAGE.name}"
    )
    arguments = parser.parse_args()
    if arguments.write:
        write(report(), PAGE)
        return
    if arguments.folder is None:
        parser.error("name a folder for what is measured")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts.split(","):
        start = time.monotonic()
        print(f"== {part}", flush=True)
        try:
            ({"kernels": run_kernels} | PARTS)[part](arguments.folder)
        except Exception:  # the other parts still measure
            traceback.print_exc()
        print(f"== {part}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
