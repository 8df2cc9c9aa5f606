"""Micro-benchmarks on the CPU, for real; the logic that only a GPU runs, with a fake of torch's CUDA."""

import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from roofline.calibration import collectives, devices, products, timing  # noqa: E402
from roofline.calibration.collectives import measure_all_reduce  # noqa: E402
from roofline.calibration.devices import Device, cpu_cache_bytes, open_device  # noqa: E402
from roofline.calibration.measure import Measurement, OutOfMemory, measure  # noqa: E402
from roofline.calibration.operators import PREPARE, ROTATION, prepare, rotation  # noqa: E402
from roofline.calibration.operators.kernel import Kernel, deviation, poison, random_array  # noqa: E402
from roofline.calibration.plan import Point, quick_plan, thorough_plan  # noqa: E402
from roofline.calibration.timing import Times, device_times, host_times, median_error, quantile  # noqa: E402
from roofline.errors import CalibrationError, MissingDependencyError, UnknownNameError  # noqa: E402
from roofline.fitting.classes import kernel_op  # noqa: E402
from roofline.formats import Format  # noqa: E402
from roofline.records import Flag  # noqa: E402
from roofline.records.conditions import WRONG  # noqa: E402

NOT_FP8 = ("fp32", "tf32", "bf16", "fp16", "int8")
HEADS: dict[str, str | int] = {"heads": 8, "kv_heads": 2, "head_dim": 64}


@pytest.fixture(scope="module")
def cpu() -> Device:
    return open_device("cpu")


@pytest.fixture(scope="module")
def small(cpu: Device) -> Device:
    """A CPU with a small cache, so that tests need little memory and time."""
    return replace(cpu, cache_bytes=2**20)


def gemm(m: int, n: int, k: int, operand: str = "fp32") -> Point:
    return Point("matmul", products.OPERANDS[operand].stored, operand, {"m": m, "n": n, "k": k})


def attention(batch: int, context: int, new: int, **fixed: int) -> Point:
    return Point("attention", "fp32", "fp32", {"batch": batch, "context": context, "new": new}, {**HEADS, **fixed})


# --- devices ---


def test_the_cpu_is_described_and_multiplies_fp32(cpu: Device) -> None:
    assert (cpu.kind, cpu.label) == ("cpu", "cpu")
    assert "fp32" in cpu.operands
    assert "tf32" not in cpu.operands  # a mode of NVIDIA's matrix units
    assert set(cpu.native) <= set(cpu.operands)
    assert 0 < cpu.free_bytes <= cpu.memory_bytes
    assert cpu.properties["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "mps", "cuda:", "cuda:-1", "CUDA:0", "", None, 0])
def test_a_name_of_no_device_is_refused_with_what_is_allowed(name: Any) -> None:
    with pytest.raises(CalibrationError, match=r"must be cpu, cuda, or one GPU"):
        open_device(name)


def test_a_gpu_where_there_is_none_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CalibrationError, match=r"no device cuda:0: .*(no CUDA|no GPU).*allowed here: cpu"):
        open_device("cuda:0")


def test_a_gpu_beyond_the_last_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(CalibrationError, match=r"no device cuda:2; this machine has cuda:0, cuda:1 and cpu"):
        open_device("cuda:2")


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[calibrate\]' in a checkout"):
        open_device("cpu")


def test_last_level_caches_are_added_up_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # four processors, pairs share an L3 of 8 MiB; one processor is not ours
    for processor, shared in enumerate(("0-1", "0-1", "2-3", "2-3")):
        for index, (level, kind, size, who) in enumerate(
            (("1", "Data", "32K", str(processor)), ("1", "Instruction", "64K", str(processor)), ("3", "Unified", "8192K", shared))
        ):
            folder = tmp_path / f"cpu{processor}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", who)):
                (folder / name).write_text(text + "\n")
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert cpu_cache_bytes(tmp_path) == 16 * 2**20
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert cpu_cache_bytes(tmp_path) == 8 * 2**20


def test_a_format_counts_as_supported_only_if_its_product_runs_and_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    assert products.try_product(torch, "fp32", "cpu")
    monkeypatch.setattr(torch, "mm", lambda x, y, out: out.fill_(1.0))
    assert not products.try_product(torch, "fp32", "cpu")

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("not implemented for this type")

    monkeypatch.setattr(torch, "mm", refuse)
    assert not products.try_product(torch, "fp32", "cpu")


def test_precision_is_set_for_a_while_and_set_back() -> None:
    before = torch.get_float32_matmul_precision()
    with products.precision(torch, "tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    with suppress(ZeroDivisionError), products.precision(torch, "fp32"):
        assert torch.get_float32_matmul_precision() == "highest"
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == before


def test_precision_may_have_been_set_kernel_by_kernel() -> None:
    """Torch then refuses to say what it is, and every product with it."""
    matmul = torch.backends.cuda.matmul
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has one precision for all kernels")
    before = torch.get_float32_matmul_precision()
    try:
        matmul.fp32_precision = "tf32"
        assert products.try_product(torch, "fp32", "cpu")
        with products.precision(torch, "fp32"):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision(before)


# --- plans ---


def fake_gpu(**changes: Any) -> Device:
    """An H100 as a plan sees it."""
    formats = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8")
    return replace(Device("cuda", "NVIDIA H100", 0, {}, formats, formats, 50 * 2**20, 80 * 10**9), **changes)


@pytest.mark.parametrize("device", ["cpu", "h100", "v100"])
def test_plans_are_of_the_promised_size_and_run_families_in_turn(device: str, cpu: Device) -> None:
    chosen = {
        "cpu": cpu,
        "h100": fake_gpu(),
        "v100": fake_gpu(native=("fp32", "fp16"), operands=("fp32", "fp16", "bf16"), memory_bytes=16 * 10**9, cache_bytes=6 * 2**20),
    }[device]
    quick, thorough = quick_plan(chosen), thorough_plan(chosen)
    assert 45 <= len(quick) <= 90
    assert 2 * len(quick) <= len(thorough) <= 1000
    assert thorough[: len(quick)] == quick  # a quick measurement can be continued
    assert len({p.key for p in thorough}) == len(thorough)
    # an interrupted plan has rates, bandwidth and attention already
    assert {"matmul", "attention", "read", "copy", "launch"} <= {p.family for p in quick[:10]}
    assert {p.family for p in thorough} <= set(PREPARE)
    assert all(p.operand in chosen.operands for p in thorough if p.family == "matmul")


def test_a_plan_measures_skinny_and_square_products_and_memory_from_cached_to_far_beyond(cpu: Device) -> None:
    quick = quick_plan(cpu)
    rows = {p.sizes["m"] for p in quick if p.family == "matmul"}
    assert {1, 2, 4, 8, 16, 32, 64, 128, 256} <= rows
    for family in ("read", "copy"):
        sizes = [p.sizes["bytes"] for p in quick if p.family == family]
        assert min(sizes) < cpu.cache_bytes / 2
        assert max(sizes) >= 4 * cpu.cache_bytes


def test_int8_on_cuda_is_planned_only_with_the_rows_it_takes() -> None:
    assert min(p.sizes["m"] for p in thorough_plan(fake_gpu()) if p.operand == "int8") > 16


def test_points_have_a_key_that_tells_them_apart() -> None:
    assert gemm(1, 2, 3).key == replace(gemm(1, 2, 3), sizes={"k": 3, "n": 2, "m": 1}).key
    assert (
        len({gemm(1, 2, 3).key, gemm(2, 1, 3).key, gemm(1, 2, 3, "bf16").key, attention(1, 2, 1).key, attention(1, 2, 1, heads=4).key}) == 5
    )


# --- kernels ---


@pytest.mark.parametrize(
    "point",
    [
        gemm(1, 256, 512),
        gemm(33, 100, 260),
        gemm(8, 256, 256, "bf16"),
        gemm(20, 128, 128, "int8"),
        attention(2, 100, 1),
        attention(2, 0, 37),
        attention(1, 0, 1),
        attention(2, 63, 1, kv_heads=8),
        Point("rowwise", "fp32", "fp32", {"rows": 5, "width": 96}, {"kernel": "norm"}),
        Point("rowwise", "bf16", "fp32", {"rows": 4, "width": 64}, {"kernel": "residual"}),
        Point("read", "fp32", "fp32", {"bytes": 2**20}),
        Point("copy", "fp32", "fp32", {"bytes": 2**20}),
        Point("launch", "fp32", "fp32", {"elements": 1}),
    ],
    ids=lambda p: p.key,
)
def test_every_family_runs_and_is_right(point: Point, small: Device) -> None:
    if point.family == "matmul" and point.operand not in small.operands:
        pytest.skip(f"this CPU does not multiply {point.operand}")
    found = measure(point, small, budget_s=0.05)
    assert 0 < found.low_s <= found.seconds <= found.high_s
    assert found.runs >= 3
    assert found.moved_bytes > 0
    assert math.isfinite(found.error)
    assert WRONG not in found.flags
    assert found.kernel


def test_bytes_and_flops_are_counted_by_definition(small: Device) -> None:
    product = measure(gemm(4, 128, 64, "bf16" if "bf16" in small.operands else "fp32"), small, budget_s=0.01)
    width = 2 if "bf16" in small.operands else 4
    assert (product.flops, product.moved_bytes) == (2 * 4 * 128 * 64, width * (128 * 64 + 4 * 64 + 4 * 128))
    decode = measure(
        attention(3, 99, 1), small, budget_s=0.01
    )  # a hundred positions of 2 heads for keys and for values, 8 heads in and out
    assert decode.moved_bytes == 4 * 3 * (100 * 2 * 64 * 2 + 2 * 8 * 64)
    assert decode.flops == 4 * 64 * 8 * 100 * 3
    prompt = measure(attention(1, 0, 10), small, budget_s=0.01)
    assert prompt.flops == 4 * 64 * 8 * (10 * 11 / 2)  # the causal half, with its diagonal
    copy = measure(Point("copy", "fp32", "fp32", {"bytes": 2**16}), small, budget_s=0.01)
    assert copy.moved_bytes == 2**16  # half read, half written


def test_gemm_rate_agrees_with_a_separate_timing(cpu: Device) -> None:
    size = 768
    a, b = torch.randn(size, size), torch.randn(size, size)

    def ratio() -> float:
        found, times = measure(gemm(size, size, size), cpu, budget_s=0.2), []
        for _ in range(12):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        return found.seconds / statistics.median(times[2:])

    # a factor that no unit or counting mistake stays within, and attempts, since others may keep the machine busy during one of the two
    assert any(1 / 3 < ratio() < 3 for _ in range(5))


def test_weights_are_spread_over_more_than_the_cache(small: Device) -> None:
    size = 4 * 128 * 64
    (kernel,) = prepare(gemm(1, 128, 64), small)
    assert len(kernel.calls) * size >= ROTATION * small.cache_bytes
    (decode,) = prepare(attention(1, 127, 1), small)
    assert len(decode.calls) * 4 * 2 * 128 * 2 * 64 >= ROTATION * small.cache_bytes
    assert rotation(10 * small.cache_bytes, small) == 1


def test_calls_run_in_turn_and_each_has_weights_of_its_own(small: Device) -> None:
    (kernel,) = prepare(gemm(2, 512, 512), small)
    results = [kernel.calls[i]().clone() for i in (0, 1)]
    assert not torch.equal(*results)
    assert kernel.check(0, results[0]) < kernel.tolerance < kernel.check(1, results[0])
    order: list[int] = []
    calls = [lambda i=i: order.append(i) for i in range(5)]
    times = host_times(calls, small, budget_s=0.02, poison=lambda _: None)
    timed = order[6:]  # after one round and one more call to warm up
    assert timed[:12] == [i % 5 for i in range(12)]
    assert order[-1] == times.last


def _halved(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *a, **k: function(*a, **k).mul_(0.5)


@pytest.mark.parametrize(
    ("owner", "name", "point"),
    [
        (torch, "mm", gemm(4, 128, 128)),
        (torch.nn.functional, "scaled_dot_product_attention", attention(2, 50, 1)),
        (torch.nn.functional, "scaled_dot_product_attention", attention(1, 0, 20)),
        (torch.nn.functional, "rms_norm", Point("rowwise", "fp32", "fp32", {"rows": 3, "width": 64}, {"kernel": "norm"})),
        (torch, "add", Point("rowwise", "fp32", "fp32", {"rows": 3, "width": 64}, {"kernel": "residual"})),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_a_kernel_that_computes_something_else_is_found_out(
    owner: Any, name: str, point: Point, small: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, _halved(getattr(owner, name)))
    found = measure(point, small, budget_s=0.01)
    assert WRONG in found.flags


def test_a_kernel_that_does_nothing_is_found_out(small: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result of the warm-up is right, but was overwritten before the clock ran."""
    real, seen = torch.mm, []

    def lazy(x: Any, y: Any, out: Any) -> Any:
        seen.append(1)
        return real(x, y, out=out) if len(seen) <= 2 else out  # the warm-up is at least two calls

    monkeypatch.setattr(torch, "mm", lazy)
    found = measure(gemm(2, 512, 512), small, budget_s=0.02)
    assert WRONG in found.flags
    assert found.error == math.inf


def test_a_nan_in_a_result_is_found_out() -> None:
    right = torch.randn(4, 4)
    wrong = right.clone()
    assert deviation(right, right) == 0
    wrong[2, 1] = math.nan
    assert deviation(wrong, right) == math.inf
    poison(wrong)
    assert wrong.isnan().all()
    counts = torch.zeros(3, dtype=torch.int32)
    poison(counts)
    assert (counts == torch.iinfo(torch.int32).min).all()


def test_data_are_random_alike_in_every_run_and_no_zeros(cpu: Device) -> None:
    one = random_array((3, 5_000_000), "float32", cpu, seed=1)
    assert torch.equal(one[0, :9], random_array((3, 5_000_000), "float32", cpu, seed=1)[0, :9])
    assert not torch.equal(one[0, :9], random_array((9,), "float32", cpu, seed=2))
    for row in one:  # long arrays repeat themselves, and are full to the end
        assert 0.99 < float(row.std()) < 1.01
    assert not torch.equal(one[0, :1000], one[1, :1000])
    whole = random_array((1000,), "int8", cpu)
    assert int(whole.min()) < -100
    assert int(whole.max()) > 100


def test_the_fastest_way_counts(small: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.neg

    def slow(*a: Any, **k: Any) -> Any:
        time.sleep(0.003)
        return real(*a, **k)

    monkeypatch.setattr(torch, "neg", slow)
    assert measure(Point("copy", "fp32", "fp32", {"bytes": 2**16}), small, budget_s=0.05).kernel == "copy_"


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Let a point be run in ways that are given as (name, seconds, deviation), or refuse to run."""

    def install(*given: tuple[str, float | Exception, float]) -> None:
        def call(seconds: float | Exception) -> str:
            if isinstance(seconds, Exception):
                raise seconds
            time.sleep(seconds)
            return ""

        kernels = tuple(Kernel(n, (lambda s=s: call(s),), 1.0, 0.0, lambda *_, e=e: e, 0.1) for n, s, e in given)
        monkeypatch.setattr("roofline.calibration.measure.prepare", lambda *_: kernels)

    return install


def test_a_way_whose_result_is_wrong_does_not_count_however_fast(ways: Callable[..., None], small: Device) -> None:
    ways(("wrong", 0.0, 0.2), ("slow", 0.01, 0.0), ("right", 0.002, 0.1))
    found = measure(gemm(1, 2, 3), small, budget_s=0.01)
    assert (found.kernel, found.error) == ("right", 0.1)
    assert WRONG not in found.flags
    ways(("wrong", 0.0, 0.2), ("worse", 0.002, math.inf))
    found = measure(gemm(1, 2, 3), small, budget_s=0.01)
    assert (found.kernel, WRONG in found.flags) == ("wrong", True)


def test_a_way_that_the_device_refuses_costs_only_itself(ways: Callable[..., None], small: Device) -> None:
    refusal = RuntimeError("No available kernel. Aborting execution.")
    ways(("refused", refusal, 0.0), ("taken", 0.0, 0.0))
    assert measure(gemm(1, 2, 3), small, budget_s=0.01).kernel == "taken"
    ways(("refused", refusal, 0.0), ("refused too", RuntimeError("out of memory"), 0.0))
    with pytest.raises(CalibrationError, match=r"n=2 does not run on cpu: No available kernel\. Aborting execution"):
        measure(gemm(1, 2, 3), small, budget_s=0.01)


@pytest.mark.parametrize("stored", ["bf16", "fp16"])
def test_a_norm_that_is_rounded_twice_is_right(stored: str, cpu: Device) -> None:
    """As kernels do that round the normalized row and then its product with the weights; the tails of products are long."""
    dtype, rows, width = products.OPERANDS[stored].dtype, 3, 28672
    (kernel,) = prepare(Point("rowwise", stored, "fp32", {"rows": rows, "width": width}, {"kernel": "norm"}), cpu)
    x, weights = random_array((rows, width), dtype, cpu, seed=5), random_array((width,), dtype, cpu, seed=6)
    exact = x.double() * torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True) + 1e-6)
    assert kernel.check(0, exact.to(x.dtype) * weights) <= kernel.tolerance
    assert kernel.check(0, exact.to(x.dtype)) > kernel.tolerance


def test_arrays_of_any_multiple_of_a_kibibyte_are_read(small: Device) -> None:
    assert WRONG not in measure(Point("read", "fp32", "fp32", {"bytes": 17 * 1024}), small, budget_s=0.01).flags


def test_reading_from_the_cache_is_faster_than_from_memory(cpu: Device) -> None:
    def rate(size: int) -> float:
        found = measure(Point("read", "fp32", "fp32", {"bytes": size}), cpu, budget_s=0.2)
        return found.moved_bytes / found.low_s

    assert any(rate(2**20) > rate(6 * cpu.cache_bytes) for _ in range(5))  # a busy machine may be slow just when the cache is read


# --- errors ---


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (gemm(1, 100, 64, "fp8"), r"multiples of 16|not fp8"),
        (gemm(1, 64, 64, "tf32"), r"multiplies .*, not tf32"),
        (replace(gemm(1, 64, 64), stored="int4"), r"weights in fp32, not in int4"),
        (attention(1, 5, 5), r"not with 5 new tokens after 5"),
        (replace(attention(1, 5, 1), stored="fp8"), r"not fp8 and fp32"),
        (Point("rowwise", "fp32", "fp32", {"rows": 1, "width": 8}, {"kernel": "rotary"}), r"norm and residual, not 'rotary'"),
        (Point("rowwise", "int8", "fp32", {"rows": 1, "width": 8}), r"not in int8"),
        (Point("read", "fp32", "fp32", {"bytes": 100}), r"multiples of 1024 bytes, not of 100"),
        (Point("host_to_device", "fp32", "fp32", {"bytes": 1024}), r"measured on a GPU"),
        (Point("graph_launch", "fp32", "fp32", {"elements": 1}), r"measured on a GPU"),
        (Point("step_sync", "fp32", "fp32", {"batch": 1, "vocabulary": 8}), r"measured on a GPU"),
    ],
    ids=lambda v: v.key if isinstance(v, Point) else None,
)
def test_what_cannot_be_measured_is_refused_by_name(point: Point, message: str, small: Device) -> None:
    with pytest.raises(CalibrationError, match=message):
        measure(point, small)


def test_an_unknown_family_is_refused_with_the_nearest(small: Device) -> None:
    with pytest.raises(UnknownNameError, match="nearest: matmul"):
        measure(replace(gemm(1, 8, 8), family="matmult"), small)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
    ids=lambda e: f"{type(e).__name__} {str(e)[:20]}",
)
def test_a_full_memory_is_an_error_of_its_own(error: Exception, small: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(OutOfMemory, match=r"matmul fp32/fp32 k=64 m=1 n=64 does not fit into the memory of cpu"):
        measure(gemm(1, 64, 64), small)


def test_what_cannot_fit_is_not_even_asked_for(small: Device) -> None:
    """Linux would grant the memory and end the process later."""
    with pytest.raises(OutOfMemory, match=r"1\.126 PB are needed on cpu, of which .* GB are free"):
        measure(Point("read", "fp32", "fp32", {"bytes": 2**50}), small)


def test_another_failure_of_torch_names_the_point(small: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")

    monkeypatch.setattr(torch, "mm", broken)
    with pytest.raises(
        CalibrationError, match=r"m=1 n=64 does not run on cpu: CUDA error: an illegal memory access was encountered\.$"
    ) as caught:
        measure(gemm(1, 64, 64), small)
    assert not isinstance(caught.value, OutOfMemory)


# --- timing ---


def test_quantiles_are_those_of_the_standard_library() -> None:
    samples = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.3]
    tenths = statistics.quantiles(samples, n=10, method="inclusive")
    assert [quantile(samples, level) for level in (0.1, 0.5, 0.9)] == pytest.approx([tenths[0], statistics.median(samples), tenths[8]])


def test_the_error_of_a_median_is_that_of_repeated_draws() -> None:
    generator = torch.Generator().manual_seed(3)
    draws = 1 + 0.1 * torch.randn(2000, 40, generator=generator, dtype=torch.float64)
    found = float(draws.quantile(0.5, dim=1).std())
    said = statistics.mean(median_error(row.tolist()) for row in draws[:200])
    assert said == pytest.approx(found, rel=0.15)


def test_blocks_in_which_threads_waited_for_a_processor_do_not_count(small: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second block is twice as long, and had to wait for as long as it lasted."""
    block = iter(range(10**6))
    disturbed = [False]
    waited = [0.0]

    def wait() -> float:
        return waited[0]

    def work() -> None:
        disturbed[0] = next(block) % 2 == 1
        time.sleep(0.02 if disturbed[0] else 0.01)
        waited[0] += 0.02 if disturbed[0] else 0.0

    monkeypatch.setattr(timing, "waited_s", wait)
    times = host_times([work], small, budget_s=0.1, poison=lambda _: None)
    assert timing.SHARED not in times.flags
    assert max(times.samples) < 0.02


def test_times_of_a_machine_that_is_never_free_say_so(small: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(timing, "waited_s", lambda: float(next(clock)))
    times = host_times([lambda: time.sleep(0.001)], small, budget_s=0.02, poison=lambda _: None)
    assert times.flags[0] == timing.SHARED
    assert len(times.samples) >= 3


def test_waiting_for_a_processor_is_summed_over_threads(tmp_path: Path) -> None:
    for thread, text in (("1", "5 2000000000 7"), ("2", "5 500000000 7"), ("3", "")):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(text)
    assert timing.waited_s(tmp_path) == 2.5


def test_times_that_scatter_say_so(small: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "waited_s", lambda: 0.0)
    call = iter(range(10**6))

    def ever_slower() -> None:
        time.sleep(0.001 * 1.2 ** next(call))  # so that no number of calls makes equal blocks

    assert host_times([ever_slower], small, budget_s=0.5, poison=lambda _: None).flags == (timing.UNSETTLED,)


def test_three_runs_are_done_however_long_they_take(small: Device) -> None:
    assert len(host_times([lambda: time.sleep(0.02)], small, budget_s=0.0, poison=lambda _: None).samples) == 3


# --- CUDA without a GPU: a fake whose clock runs by what is launched ---


class FakeCuda:
    """A kernel takes the device 10 µs and launching a graph takes the host 40 µs; graphs remember what they captured."""

    OutOfMemoryError = torch.cuda.OutOfMemoryError

    def __init__(self, refuse: Exception | None = None) -> None:
        self.host_ms = self.device_ms = 0.0
        self.refuse = refuse
        self.graphs: list[Any] = []
        self.capturing: Any = None

    def launch(self, work: Callable[[], Any]) -> Any:
        if self.capturing is not None:
            self.capturing.calls.append(work)
        else:
            self.device_ms = max(self.device_ms, self.host_ms) + 0.01
        return work()

    def wait(self, until_ms: float) -> None:
        self.host_ms = max(self.host_ms, until_ms)

    def Stream(self, _: int) -> Any:
        return SimpleNamespace(wait_stream=lambda _: None, synchronize=lambda: self.wait(self.device_ms))

    def current_stream(self, _: int) -> Any:
        return self.Stream(0)

    def stream(self, _: Any) -> Any:
        return nullcontext()

    def Event(self, enable_timing: bool) -> Any:
        assert enable_timing
        event = SimpleNamespace(at=0.0, synchronize=lambda: self.wait(event.at))
        event.record = lambda _: setattr(event, "at", max(self.device_ms, self.host_ms))
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def CUDAGraph(self) -> Any:
        graph = SimpleNamespace(calls=[], replays=0)

        def replay() -> None:
            graph.replays += 1
            self.host_ms += 0.04
            for work in graph.calls:
                self.launch(work)

        graph.replay = replay
        self.graphs.append(graph)
        return graph

    def graph(self, graph: Any, stream: Any, capture_error_mode: str) -> Any:
        assert capture_error_mode == "thread_local"  # the thread that watches the device must not end a capture
        fake = self

        class Capture:
            def __enter__(self) -> None:
                fake.capturing = graph

            def __exit__(self, *_: Any) -> None:
                fake.capturing = None
                if fake.refuse:
                    raise fake.refuse

        return Capture()


def run_fake(monkeypatch: pytest.MonkeyPatch, fake: FakeCuda, sets: int = 7) -> tuple[Times, list[Any], list[int]]:
    monkeypatch.setattr(timing, "load_torch", lambda: SimpleNamespace(cuda=fake))
    poisoned: list[Any] = []
    order: list[int] = []

    def call(i: int) -> Callable[[], Any]:
        return lambda: fake.launch(lambda: order.append(i) or f"result {i}")

    times = device_times([call(i) for i in range(sets)], fake_gpu(), budget_s=0.01, poison=poisoned.append)
    return times, poisoned, order


def test_a_graph_holds_all_buffers_in_turn_and_divides_by_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCuda()
    times, poisoned, order = run_fake(monkeypatch, fake)
    calls = len(fake.graphs[-1].calls)
    assert calls % 7 == 0
    assert calls * 10e-6 >= 2e-3
    assert fake.graphs[-1].replays >= len(times.samples)
    assert order[-calls:] == [i % 7 for i in range(calls)]
    assert (times.last, times.result, poisoned, times.flags) == (6, "result 6", ["result 6"], ())


@pytest.mark.parametrize("sets", [1, 7, 3000])
def test_what_the_host_takes_to_launch_a_graph_is_not_in_its_time(monkeypatch: pytest.MonkeyPatch, sets: int) -> None:
    times, _, _ = run_fake(monkeypatch, FakeCuda(), sets)
    assert times.samples == pytest.approx([10e-6] * len(times.samples))
    assert len(times.samples) >= 3


def test_a_kernel_that_cannot_be_captured_is_timed_without_a_graph_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCuda(RuntimeError("operation not permitted when stream is capturing"))
    times, _, _ = run_fake(monkeypatch, fake)
    assert times.flags == (Flag(code="not in a graph"),)
    assert not any(graph.replays for graph in fake.graphs)
    assert times.samples == pytest.approx([10e-6] * len(times.samples))


def test_a_memory_that_fills_up_while_capturing_is_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run_fake(monkeypatch, FakeCuda(torch.cuda.OutOfMemoryError("full")))


def test_a_memory_that_cannot_be_tidied_up_costs_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases of torch before 2.13 refuse it for good after a capture has failed."""

    def refuse() -> None:
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    found = Measurement(1.0, 1.0, 1.0, 3, 1.0, 1.0, 0.0)
    monkeypatch.setattr(Device, "current", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "empty_cache", refuse)
    monkeypatch.setattr("roofline.calibration.measure._measured", lambda *_: found)
    assert measure(gemm(1, 2, 3), fake_gpu()) is found


# --- CUDA without a GPU: torch's own rules of shapes, types and layouts, on arrays without memory ---

FAKE_GPUS = {
    "h100": fake_gpu(),
    "h200": fake_gpu(memory_bytes=141 * 10**9),
    "a100": fake_gpu(cache_bytes=40 * 2**20, operands=NOT_FP8, native=NOT_FP8),
    "l40s": fake_gpu(cache_bytes=96 * 2**20, memory_bytes=48 * 10**9),
}


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let arrays have shapes only, on a device that need not be there."""
    fake_tensor = pytest.importorskip("torch._subclasses.fake_tensor")
    scaled_mm = torch._scaled_mm

    def scaled(*arguments: Any, out: Any, **options: Any) -> Any:  # its form with `out` has no rules of its own
        found = scaled_mm(*arguments, **options)
        assert (found.shape, found.dtype) == (out.shape, out.dtype)
        return out

    def empty(shape: tuple[int, ...], dtype: str, device: Device, *, seed: int = 0) -> Any:
        return torch.empty(shape, dtype=getattr(torch, dtype), device=device.label)

    monkeypatch.setattr(torch, "_scaled_mm", scaled)
    monkeypatch.setattr(Device, "free_bytes", property(lambda device: device.memory_bytes))
    for family in ("matmul", "attention", "memory", "overheads", "rowwise"):
        monkeypatch.setattr(f"roofline.calibration.operators.{family}.random_array", empty)
    with fake_tensor.FakeTensorMode(), torch.no_grad():
        yield


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize("name", FAKE_GPUS)
def test_torch_takes_the_arguments_of_every_point_of_the_plans(name: str) -> None:
    gpu = FAKE_GPUS[name]
    ran = set()
    for point in thorough_plan(gpu):
        if point.family in ("copy", "host_to_device", "device_to_host", "step_sync"):  # these ask for the device itself
            continue
        for kernel in prepare(point, gpu):
            result = kernel.calls[-1]()
            ran.add((point.family, point.operand))
            if point.family == "matmul":
                assert tuple(result.shape) == (point.sizes["m"], point.sizes["n"])
                assert result.dtype == getattr(torch, products.OPERANDS[point.operand].output)
            if point.family == "attention":
                assert tuple(result.shape) == (point.sizes["batch"], point.fixed["heads"], point.sizes["new"], point.fixed["head_dim"])
    assert ran >= {("matmul", operand) for operand in gpu.native} | {("attention", "bf16"), ("read", "fp32"), ("rowwise", "fp32")}


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize("point", [attention(4, 8191, 1, head_dim=128), attention(2, 0, 4096, head_dim=128)], ids=lambda p: p.key)
def test_both_fused_kernels_of_attention_take_the_caches_as_they_lie(point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer heads of keys than of queries, and a cache that is a view into all of them."""
    shapes = []

    def run(q: Any, k: Any, v: Any, *, is_causal: bool, **options: Any) -> Any:
        assert options == {"enable_gqa": True}
        flash = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, is_causal)[0]
        cudnn = torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, False, 0.0, is_causal)[0]
        shapes.extend((flash.shape, cudnn.shape))
        return flash

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", run)
    for kernel in prepare(replace(point, stored="bf16", operand="bf16"), fake_gpu()):
        kernel.calls[-1]()
    assert shapes == [(point.sizes["batch"], 8, point.sizes["new"], 128)] * 4


@pytest.mark.usefixtures("no_memory")
def test_torch_refuses_what_the_plans_avoid() -> None:
    """Otherwise the tests above could not fail."""
    product = products.OPERANDS["fp8"]
    x, weights = (torch.empty(shape, dtype=torch.float8_e4m3fn, device="cuda:0") for shape in ((16, 24), (32, 24)))
    with pytest.raises(RuntimeError, match="divisible by 16"):
        product.run(torch, x, weights, torch.empty(16, 32, dtype=torch.bfloat16, device="cuda:0"), torch.empty((), device="cuda:0"))
    q, k = torch.empty(1, 8, 1, 64, device="cuda:0"), torch.empty(1, 3, 5, 64, device="cuda:0")
    with pytest.raises(RuntimeError):
        torch.nn.functional.scaled_dot_product_attention(q, k, k, enable_gqa=True)


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize(
    ("native", "operand", "ways"),
    [
        (NOT_FP8, "bf16", {"flash", "cuDNN"}),
        (NOT_FP8, "fp16", {"flash", "cuDNN"}),
        (("fp32", "fp16"), "fp16", {""}),
        (NOT_FP8, "fp32", {""}),
    ],
)
def test_attention_is_run_by_each_kernel_that_may_be_the_fastest(native: tuple[str, ...], operand: str, ways: set[str]) -> None:
    """Which one torch takes by itself changes with its release; older devices have none of them."""
    kernels = prepare(replace(attention(8, 8191, 1), stored=operand, operand=operand), fake_gpu(native=native))
    assert {kernel.name.partition(", ")[2] for kernel in kernels} == ways


# --- collectives ---


@pytest.mark.slow
def test_two_real_processes_add_up_over_gloo(cpu: Device) -> None:
    found = measure_all_reduce(cpu, sizes=(4096, 4 * 2**20))
    assert [p.sizes for p, _ in found] == [{"ranks": 2, "bytes": 4096}, {"ranks": 2, "bytes": 4 * 2**20}]
    for point, times in found:
        assert point.family == "all_reduce"
        assert isinstance(times, Measurement)
        assert 0 < times.low_s <= times.seconds <= times.high_s
        assert times.moved_bytes == point.sizes["bytes"]
        assert WRONG not in times.flags
    assert found[1][1].seconds > found[0][1].seconds


@pytest.mark.slow
def test_processes_that_take_too_long_are_ended(cpu: Device) -> None:
    with pytest.raises(CalibrationError, match=r"not done after 0.2 s; they were ended"):
        measure_all_reduce(cpu, sizes=(4096,), timeout_s=0.2)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("left_out", "flagged"), [(0, False), (1, True)])
def test_a_sum_over_eight_ranks_may_be_rounded_at_every_addition_but_leave_none_out(
    left_out: int, flagged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, ranks = 2**24, 8
    total = torch.zeros(size // 4)
    for rank in range(left_out, ranks):
        total += torch.randn(size // 4, generator=torch.Generator().manual_seed(rank))

    def add_up(array: Any, op: Any = None) -> None:
        if array.shape == total.shape:
            array.copy_(total)

    monkeypatch.setattr(torch.distributed, "all_reduce", add_up)
    monkeypatch.setattr(torch.distributed, "barrier", lambda: None)
    row = collectives._time_size(torch, size, 0, ranks, "cpu", 0.05)
    _, measured = collectives._result(ranks, size, row["samples"], row["error"])
    assert (WRONG in measured.flags) == flagged


def test_all_reduces_that_cannot_be_are_refused(cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CalibrationError, match=r"ranks is 1; .* needs at least 2"):
        measure_all_reduce(cpu, ranks=1)
    with pytest.raises(CalibrationError, match="multiples of 4 bytes, not 6"):
        measure_all_reduce(cpu, sizes=(8, 6))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(CalibrationError, match=r"ranks is 2; an all-reduce on cuda:0 needs 2 … 1 GPUs"):
        measure_all_reduce(fake_gpu())


def test_storage_formats_of_products_are_known() -> None:
    for operand, product in products.OPERANDS.items():
        kind = getattr(torch, product.dtype)
        assert Format.load(product.stored).bytes_per_element == kind.itemsize
        op = kernel_op("matmul", product.stored, operand, {"m": 1, "n": 1, "k": 1})
        assert op.output_bytes == getattr(torch, product.output).itemsize
