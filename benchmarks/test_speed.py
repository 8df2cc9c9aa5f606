"""How fast the library is: ``python -m pytest benchmarks/test_speed.py``. The default run of pytest does not collect it.

Seconds are the machine's; what can be compared is the ratio to a reference timed in turn with it, in the same run.
``python benchmarks/write_performance.py`` runs this and writes the table of docs/performance.md.
"""

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import timeit
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from roofline import Deployment, Hardware, Model, StepTime, decode_estimate, decode_floor, matmul_floor, plan
from roofline.planner.planning import table_of
from roofline.requests import Workload
from roofline.serving import Rules
from roofline.serving.schedulers import VllmScheduler
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.simulation.replica import Replica
from roofline.sweeps import sweep as machine_sweep

MODEL, MACHINE = "llama-3.1-70b", "h100-sxm"
CONFIG = Path(__file__).parents[1] / "examples" / "llama-2-70b" / "config.json"
POINTS = 1_000_000


@pytest.fixture
def record(benchmark):
    """Benchmark a call, time a reference in turn with it, and keep what a reader needs beside the statistics."""

    def run(call, *, what, reference, against, target="", points=0):
        benchmark(call)
        mine, theirs = in_turn(call, reference)
        benchmark.extra_info |= {"what": what, "seconds": mine, "against": against, "ratio": mine / theirs, "target": target}
        benchmark.extra_info["points_per_s"] = points / mine

    return run


def in_turn(call, reference, *, rounds=300, slice_s=1e-3):
    """Return the least seconds of two calls, timed alternately so that both see the same machine.

    Slices are short, so that some are free of other processes; calls that take longer have fewer rounds.
    """
    calls = (call, reference)
    numbers = [max(1, round(slice_s / min(timeit.repeat(c, number=1, repeat=3)))) for c in calls]
    rounds = 15 if max(numbers) == 1 else rounds
    times = [[timeit.timeit(c, number=n) / n for c, n in zip(calls, numbers, strict=True)] for _ in range(rounds)]
    return tuple(min(column) for column in zip(*times, strict=True))


@pytest.fixture(scope="module")
def cpu_seconds(tmp_path_factory):
    """The seconds of CPU that a statement takes in a fresh interpreter, start and all, with every module compiled as after an installation."""
    compiled = str(tmp_path_factory.mktemp("compiled"))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPYCACHEPREFIX": compiled}

    def measure(statement):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return measure


def command(*arguments):
    """A statement that runs the command line."""
    return f"import sys; sys.argv = {['roofline', *arguments]!r}; from roofline.cli import main; main()"


LIBRARIES = "import numpy, pydantic"
STARTS = {
    # what is timed, how it reads, target
    "import": ("import roofline", "`import roofline`", ""),
    "decode_floor": ("from roofline import decode_floor", "`from roofline import decode_floor`", ""),
    "first floor": (
        f"from roofline import decode_floor; decode_floor({MODEL!r}, {MACHINE!r}, batch=8, context=8192)",
        "the same, and a first floor by name",
        "≤ 1.6 ×",
    ),
    "config": (
        f"from roofline import decode_floor; decode_floor({str(CONFIG)!r}, {MACHINE!r}, batch=8, context=8192)",
        "the same, of a config.json",
        "",
    ),
    "floor": (command("floor", MODEL, MACHINE), "`roofline floor`", "≤ 2.2 ×"),
    "help": (command("--help"), "`roofline --help`", "≤ 1.3 ×"),
}


@pytest.mark.parametrize("row", STARTS)
def test_start(benchmark, cpu_seconds, row):
    statement, what, target = STARTS[row]
    beside(benchmark, cpu_seconds, statement, LIBRARIES, rounds=5, what=what, target=target)


@pytest.mark.parametrize("name", ["llama-3.1-70b", "deepseek-v3", "qwen3-235b-a22b"])
def test_a_model_read_from_its_code(benchmark, cpu_seconds, name):
    pytest.importorskip("transformers")
    statement = f"from roofline import Model; Model.load({name!r}, read='code')"
    libraries = "import torch; from transformers import AutoModelForCausalLM"
    beside(benchmark, cpu_seconds, statement, libraries, rounds=2, what=f"{name} read from its code, start and all", target="≤ 10 s")


def beside(benchmark, cpu_seconds, statement, reference, *, rounds, what, target):
    """Benchmark a statement in a fresh interpreter in turn with another one."""
    times = []

    def both():
        times.append((cpu_seconds(statement), cpu_seconds(reference)))

    benchmark.pedantic(both, rounds=rounds, warmup_rounds=1)
    # one lucky start of either would decide a ratio of the best ones, so it is the middle one of the rounds
    mine, ratio = min(mine for mine, _ in times[1:]), statistics.median(mine / theirs for mine, theirs in times[1:])
    benchmark.extra_info |= {"what": what, "seconds": mine, "against": f"`{reference}`", "ratio": ratio, "target": target}


# -------------------------------------------------------------------------------------------------------------- one floor


def one_numpy_call():
    """Return a call of fixed cost: add up 4096 numbers."""
    numbers = np.ones(4096)
    return numbers.sum


ONE = "`numpy.ones(4096).sum()`"


def test_scalar_by_name(record):
    def floor():
        return decode_floor(MODEL, MACHINE, batch=8, context=8192).time_s

    record(floor, what="one decode floor, by name", reference=one_numpy_call(), against=ONE)


def test_scalar_loaded(record):
    model, machine = Model.load(MODEL), Hardware.load(MACHINE)

    def loaded():
        return decode_floor(model, machine, batch=8, context=8192).time_s

    record(loaded, what="one decode floor, model and machine loaded", reference=one_numpy_call(), against=ONE, target="≤ 9 ×")


def test_by_op(record):
    floor = decode_floor(MODEL, MACHINE, batch=8, context=8192)
    record(floor.by_op, what="`.by_op()` of one floor", reference=one_numpy_call(), against=ONE, target="≤ 60 ×")


def test_roofline_time(record):
    floor = decode_floor(MODEL, MACHINE, batch=8, context=8192)
    record(lambda: floor.roofline_s, what="`.roofline_s` of one floor", reference=one_numpy_call(), against=ONE, target="≤ 60 ×")


@pytest.mark.parametrize("degree", [1, 8])
def test_scalar_estimate(record, degree):
    deployment = Deployment(MODEL, MACHINE, tensor_parallel=degree)
    record(
        lambda: decode_estimate(deployment, batch=8, context=8192).time_s,
        what=f"one decode estimate of a deployment, tensor parallel {degree}",
        reference=one_numpy_call(),
        against=ONE,
        target="≤ 50 ×",
    )


STEP_TIMES = {
    "floor": (lambda: StepTime(Deployment(MODEL, MACHINE), "floor"), "≤ 100 ×"),
    "roofline": (lambda: StepTime(Deployment(MODEL, MACHINE), "roofline"), "≤ 100 ×"),
    "estimate": (lambda: StepTime(Deployment(MODEL, MACHINE)), "≤ 100 ×"),
}


@pytest.mark.parametrize("basis", STEP_TIMES)
def test_single_steps_of_step_time(record, basis):
    make, target = STEP_TIMES[basis]
    time = make()
    record(
        lambda: time.decode(8, 8 * 8192),
        what=f"`StepTime.decode` of one step, {basis}",
        reference=one_numpy_call(),
        against=ONE,
        target=target,
    )


def test_single_mixed_step_of_step_time(record):
    time, count, new, cached = StepTime(Deployment(MODEL, MACHINE)), [[8, 1]], [[1, 512]], [[8192, 0]]
    record(
        lambda: time(count, new, cached),
        what="`StepTime` of one step of decodes and a prefill, estimate",
        reference=one_numpy_call(),
        against=ONE,
        target="≤ 100 ×",
    )


def test_config(record):
    text = CONFIG.read_text(encoding="utf-8")
    config = json.loads(text)
    record(
        lambda: Model.load(config),
        what="a config of 70 B parameters read",
        reference=lambda: json.loads(text),
        against="`json.loads` of it",
    )


BIG = {
    "DeepSeek-V3": "deepseek-ai--DeepSeek-V3",
    "GLM-5-FP8": "zai-org--GLM-5-FP8",
    "Qwen3.5-397B-A17B": "Qwen--Qwen3.5-397B-A17B",
    "gpt-oss-120b": "openai--gpt-oss-120b",
    "Nemotron-3-Ultra, NVFP4": "nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-NVFP4",
}


@pytest.mark.parametrize("name", BIG)
def test_big_config(record, name):
    """Read as a dict, so every time anew; what is kept from the first time is what the number formats mean."""
    folder = Path(pytest.importorskip("aiconfigurator_core").__path__[0], "model_configs")
    texts = [f.read_text(encoding="utf-8") for f in sorted(folder.glob(f"{BIG[name]}_*config.json"))]
    config, *beside = map(json.loads, texts)
    if beside:
        config["hf_quant_config"] = beside[0]
    assert Model.load(config).num_layers > 0

    def parse():
        for text in texts:
            json.loads(text)

    record(lambda: Model.load(config), what=f"{name}'s config read", reference=parse, against="`json.loads` of it", target="≤ 1 ms")


# ------------------------------------------------------------------------------------------------------------------ sweeps


def sweep(record, batch, context, what):
    model, machine = Model.load(MODEL), Hardware.load(MACHINE)

    def floors():
        return decode_floor(model, machine, batch=batch, context=context).time_s

    assert floors().size == POINTS
    record(floors, what=what, reference=lambda: batch * context, against="`batch * context`", target="≥ 5e6 points/s", points=POINTS)


def test_sweep_of_a_grid(record):
    sweep(record, np.arange(1, 1001)[:, None], 100 * np.arange(1000), "a grid of 1000 batches × 1000 contexts")


def test_sweep_of_points(record):
    random = np.random.default_rng(0)
    sweep(record, random.integers(1, 512, POINTS), random.integers(0, 131072, POINTS), "10⁶ pairs of batch and context")


@pytest.mark.parametrize("points", [10**4, 10**5])
def test_sweep_of_fewer_points(record, points):
    """Blocks keep the points' rate: 10⁵ points are no slower than fewer or more of them."""
    random = np.random.default_rng(0)
    model, machine = Model.load(MODEL), Hardware.load(MACHINE)
    batch, context = random.integers(1, 512, points), random.integers(0, 131072, points)
    record(
        lambda: decode_floor(model, machine, batch=batch, context=context).time_s,
        what=f"10{'⁴' if points == 10**4 else '⁵'} pairs of batch and context",
        reference=lambda: batch * context,
        against="`batch * context`",
        target="≥ 5e6 points/s",
        points=points,
    )


def test_memory_of_a_sweep(benchmark):
    """What a million points take beside the arrays of the result: the sizes given, as floats, and one block of work."""
    random = np.random.default_rng(0)
    model, machine = Model.load(MODEL), Hardware.load(MACHINE)
    batch, context = random.integers(1, 512, POINTS), random.integers(0, 131072, POINTS)
    tracemalloc.start()
    floor = benchmark.pedantic(lambda: decode_floor(model, machine, batch=batch, context=context), rounds=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    own = sum(roof.nbytes for roof in (floor.roofs.compute_s, floor.roofs.memory_s))
    benchmark.extra_info |= {"what": "most memory of 10⁶ pairs, beside the result", "megabytes": (peak - own) / 1e6}
    benchmark.extra_info |= {"against": "the result's arrays", "ratio": (peak - own) / own, "target": "≤ 32 MB"}


def test_sweep_of_products(record):
    random = np.random.default_rng(0)
    m, n, k = random.integers(1, 65536, (3, POINTS))
    machine = Hardware.load(MACHINE)
    record(
        lambda: matmul_floor(m, n, k, machine, format="bf16").time_s,
        what="`matmul_floor` of 10⁶ shapes",
        reference=lambda: m * n * k,
        against="`m * n * k`",
        points=POINTS,
    )


def test_sweep_of_machines(record):
    machines, batch, context = [Hardware.load(h) for h in ("h100-sxm", "h200-sxm")], np.arange(1, 501), 200 * np.arange(500)
    model = Model.load(MODEL)
    record(
        lambda: machine_sweep(model, machines, batch=batch, context=context, tensor_parallel=(1, 8)).time_s,
        what="`sweep` of 2 machines × 2 degrees × 500 batches × 500 contexts",
        reference=lambda: np.multiply.outer(np.ones((2, 2)), np.multiply.outer(batch, context)),
        against="`batch * context` on the same grid",
        target="≥ 1e6 points/s",
        points=POINTS,
    )


# --------------------------------------------------------------------------------------------------------------- estimates

STEPS = 100_000


def test_scalar_estimate_of_experts(record):
    model, machine = Model.load("deepseek-v3"), Hardware.load(MACHINE)
    options = {"batch": 8, "context": 8192, "tensor_parallel": 8}
    record(
        lambda: decode_estimate(model, machine, **options).time_s,
        what="one decode estimate, deepseek-v3",
        reference=lambda: decode_floor(model, machine, **options).time_s,
        against="its floor",
        target="≤ 10 ×",
    )


def test_many_steps_of_step_time(record):
    random, steps = np.random.default_rng(0), 10**4
    time, batch = StepTime(Deployment(MODEL, MACHINE)), random.integers(1, 256, steps)
    context = batch * random.integers(100, 8192, steps)
    record(
        lambda: time.decode(batch, context),
        what="`StepTime.decode` of 10⁴ steps, estimate",
        reference=lambda: context / batch,
        against="`context / batch`",
        target="≥ 1e5 points/s",
        points=steps,
    )


@pytest.mark.parametrize("name", [MODEL, "deepseek-v3"])
def test_sweep_of_estimates(record, name):
    model, machine, batch = Model.load(name), Hardware.load(MACHINE), np.arange(1, STEPS + 1)
    options = {"batch": batch, "context": 8192, "tensor_parallel": 8}
    assert decode_estimate(model, machine, **options).time_s.size == STEPS
    record(
        lambda: decode_estimate(model, machine, **options).time_s,
        what=f"10⁵ decode estimates, {name}",
        reference=lambda: decode_floor(model, machine, **options).time_s,
        against="their floors",
        target="≥ 1e5 points/s",
        points=STEPS,
    )


@pytest.mark.parametrize("sequences", [16, 256])
def test_simulated_requests(record, sequences):
    """One replica of vLLM with a step time of a line: 10,000 requests of 200 tokens each way, at nine tenths of what it can serve."""
    requests, tokens = 10_000, 200
    rules = Rules("vllm", step_tokens=8192, sequences=sequences, kv_blocks=26 * sequences)
    step_s = 0.008 + 2e-5 * sequences
    arrival_s = np.arange(requests) * (step_s * tokens + 2e-5 * tokens * sequences) / sequences / 0.9
    work = Workload(np.full(requests, tokens), np.full(requests, tokens), arrival_s)

    def simulated():
        replica = Replica(VllmScheduler(rules, Ledger(work)), lambda load: 0.008 + 2e-5 * (load[0] + load[3]))
        ended = 0
        for request, at_s in enumerate(arrival_s.tolist()):
            ended += len(replica.advance(at_s))
            replica.add(request, at_s)
        assert ended + len(replica.advance(math.inf)) == requests

    def loop():
        for _ in range(1_000_000):
            pass

    what = f"10⁴ requests × 200 tokens through one replica of {sequences} sequences"
    record(simulated, what=what, reference=loop, against="a loop of 10⁶ passes in Python", target="≤ 0.5 s", points=requests * tokens)


MANY = ["h100-sxm", "h200-sxm", "l40s", "a100-sxm-80gb", "b200-sxm", "mi300x", "a10g", "l4", "h20-96gb", "rtx-4090"]


@pytest.mark.parametrize(
    ("named", "budgets", "limits", "pools", "shown"),
    [
        (MANY, [None, 1024, 2048, 4096, 8192, 16384], range(8, 1664, 8), "one", "one pool"),
        (MANY[:3], [None, 1024, 2048, 4096], range(4, 520, 4), ("one", "two"), "one pool and pairs of two"),
    ],
)
def test_candidates_by_closed_forms(record, named, budgets, limits, pools, shown):
    """The first pass of a plan: machines × degrees × weights × tokens of a step × sequences."""
    chat = Workload.generated(2000, prompt=1000, output=200, arrivals=12.0, seed=1)
    choices = {"machines": named, "formats": [None, "fp8"], "step_tokens": budgets, "sequences": [None, *limits], "pools": pools}
    asked = plan("llama-3.1-8b", chat, {"ttft_s": 0.5, "tpot_s": 0.02}, simulated=0, **choices).asked

    def searched():
        return table_of(asked).cost.min()

    def loop():
        for _ in range(1_000_000):
            pass

    count, deployments = len(table_of(asked)), len(asked.case.deployments)
    what = f"{count:,} candidates of {deployments} deployments by closed forms: {shown}"
    record(searched, what=what, reference=loop, against="a loop of 10⁶ passes in Python", target="≤ 2 s", points=count)
