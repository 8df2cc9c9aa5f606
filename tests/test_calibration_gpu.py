"""Micro-benchmarks on a real GPU: skipped where there is none."""

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from roofline.calibration.collectives import measure_all_reduce  # noqa: E402
from roofline.calibration.devices import Device, open_device  # noqa: E402
from roofline.calibration.measure import OutOfMemory, measure  # noqa: E402
from roofline.calibration.plan import Point, quick_plan  # noqa: E402
from roofline.calibration.products import OPERANDS  # noqa: E402
from roofline.calibration.starting import calibrate  # noqa: E402
from roofline.errors import SpecError, UnknownNameError  # noqa: E402
from roofline.hardware import Hardware  # noqa: E402
from roofline.records.conditions import WRONG  # noqa: E402

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def gpu() -> Device:
    return open_device("cuda:0")


def test_the_gpu_is_described(gpu: Device) -> None:
    assert gpu.label == "cuda:0"
    assert gpu.name == torch.cuda.get_device_name(0)
    assert "fp32" in gpu.native
    assert 0 < gpu.free_bytes <= gpu.memory_bytes


@pytest.mark.parametrize("operand", list(OPERANDS))
def test_products_are_right_in_every_format(gpu: Device, operand: str) -> None:
    if operand not in gpu.operands:
        pytest.skip(f"{gpu.name} does not multiply {operand}")
    found = measure(Point("matmul", OPERANDS[operand].stored, operand, {"m": 256, "n": 4096, "k": 4096}), gpu, budget_s=0.2)
    assert not {"result wrong", "not in a graph"} & {flag.code for flag in found.flags}
    assert 0 < found.low_s <= found.seconds <= found.high_s


def test_tf32_is_not_fp32(gpu: Device) -> None:
    if "tf32" not in gpu.operands:
        pytest.skip(f"{gpu.name} has no tf32")
    errors = [measure(Point("matmul", "fp32", o, {"m": 1024, "n": 1024, "k": 1024}), gpu, budget_s=0.1).error for o in ("fp32", "tf32")]
    assert errors[1] > 5 * errors[0]


def test_one_point_of_every_family_of_the_quick_plan(gpu: Device) -> None:
    plan = quick_plan(gpu)
    firsts = {(p.family, p.sizes.get("new", 1) > 1, tuple(p.fixed.items())): p for p in reversed(plan)}
    for point in firsts.values():
        found = measure(point, gpu, budget_s=0.1)
        assert not {"result wrong", "not in a graph"} & {flag.code for flag in found.flags}, (point.key, found)


def test_attention_runs_in_a_fused_kernel(gpu: Device) -> None:
    """Otherwise every score would be written to memory and read again."""
    if "bf16" not in gpu.native:
        pytest.skip(f"{gpu.name} has no fused attention in torch")
    for sizes in ({"batch": 16, "context": 2047, "new": 1}, {"batch": 1, "context": 0, "new": 2048}):
        found = measure(Point("attention", "bf16", "bf16", sizes, {"heads": 32, "kv_heads": 8, "head_dim": 128}), gpu, budget_s=0.2)
        assert found.kernel.endswith(("flash", "cuDNN"))
        assert WRONG not in found.flags


def test_weights_and_caches_come_from_memory_and_not_from_the_cache(gpu: Device) -> None:
    """What fits into the cache is read faster if it is the same every time than if it is another every time."""
    main = "bf16" if "bf16" in gpu.native else "fp16"
    third = gpu.cache_bytes // 3
    product = Point("matmul", main, main, {"m": 1, "n": third // (2 * 4096) // 16 * 16, "k": 4096})
    heads: dict[str, str | int] = {"heads": 32, "kv_heads": 8, "head_dim": 128}
    decode = Point("attention", main, main, {"batch": 8, "context": third // (8 * 4096) - 1, "new": 1}, heads)
    for point in (product, decode):
        one = replace(gpu, cache_bytes=1)  # no need to take turns
        cold, warm = (measure(point, device, budget_s=0.2) for device in (gpu, one))
        assert warm.seconds < cold.seconds, (point.key, warm, cold)


def test_rates_are_near_the_datasheet_and_not_above(gpu: Device) -> None:
    """What a mistake of units, counting or synchronization would not be."""
    try:
        hardware = Hardware.load(gpu.name)
    except (UnknownNameError, SpecError):
        pytest.skip(f"no datasheet of {gpu.name}")
    main = "bf16" if "bf16" in gpu.native else "fp16"
    product = measure(Point("matmul", main, main, {"m": 8192, "n": 8192, "k": 8192}), gpu, budget_s=0.5)
    memory = measure(Point("read", "fp32", "fp32", {"bytes": 2**31}), gpu, budget_s=0.5)
    assert 0.4 < product.flops / product.low_s / hardware.peak(main).value < 1.1  # clocks may be above the datasheet's
    assert 0.5 < memory.moved_bytes / memory.low_s / hardware.memory_bandwidth < 1.0


def test_a_graph_launches_faster_than_the_host(gpu: Device) -> None:
    host, graph = (measure(Point(f, "fp32", "fp32", {"elements": 1}), gpu, budget_s=0.2) for f in ("launch", "graph_launch"))
    assert 0 < graph.seconds < host.seconds < 1e-3


def test_too_much_memory_is_refused_and_the_next_point_runs(gpu: Device) -> None:
    with pytest.raises(OutOfMemory):
        measure(Point("read", "fp32", "fp32", {"bytes": gpu.memory_bytes // 1024 * 1024 * 2}), gpu)
    assert measure(Point("read", "fp32", "fp32", {"bytes": 2**20}), gpu, budget_s=0.05).seconds > 0


@pytest.mark.slow
def test_all_reduce_between_all_gpus(gpu: Device) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs several GPUs")
    for _, found in measure_all_reduce(gpu, sizes=(65536, 2**24)):
        assert WRONG not in found.flags


@pytest.mark.slow
def test_the_quick_plan_leaves_nothing_out(gpu: Device, tmp_path: Path) -> None:
    record = calibrate(gpu.label, tmp_path / "record.json", plan="quick", ranks=1)
    assert record.complete
    assert not [condition for condition in record.conditions if condition.code == "skipped"]
    codes = {flag.code for c in record.classes for flags in c.samples.flags.values() for flag in flags}
    assert not {"result wrong", "not in a graph"} & codes
    families = {c.family for c in record.classes}
    assert families >= {"matmul", "attention", "rowwise", "read", "copy", "graph_launch", "step_sync", "host_to_device", "device_to_host"}
    assert all(c.constants for c in record.classes if c.family == "matmul" and c.operand in ("bf16", "fp8"))
    watched = not [condition for condition in record.conditions if condition.code == "no telemetry"]
    assert watched == any(t is not None and bool(t.sm_clock_hz) for c in record.classes for t in c.samples.telemetry)
