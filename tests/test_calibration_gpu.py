"""Micro-benchmarks on a real GPU: skipped where there is none."""

import pytest

torch = pytest.importorskip("torch")

from roofline.calibration.collectives import measure_all_reduce  # noqa: E402
from roofline.calibration.devices import Device, open_device  # noqa: E402
from roofline.calibration.measure import OutOfMemory, measure  # noqa: E402
from roofline.calibration.plan import Point, quick_plan  # noqa: E402
from roofline.calibration.products import OPERANDS  # noqa: E402

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
    assert not {"result wrong", "not in a graph"} & set(found.flags)
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
        assert not {"result wrong", "not in a graph"} & set(found.flags), (point.key, found)


def test_memory_is_read_slower_than_the_cache(gpu: Device) -> None:
    near, far = (
        measure(Point("read", "fp32", "fp32", {"bytes": size}), gpu, budget_s=0.2) for size in (gpu.cache_bytes // 4 // 1024 * 1024, 2**30)
    )
    assert near.moved_bytes / near.seconds > far.moved_bytes / far.seconds


def test_weights_come_from_memory_and_not_from_the_cache(gpu: Device) -> None:
    """A matrix that would fit into the cache is read no faster than an array that does not."""
    main = "bf16" if "bf16" in gpu.native else "fp16"
    size = 2 ** ((gpu.cache_bytes // 4).bit_length() // 2)
    product = measure(Point("matmul", main, main, {"m": 1, "n": size // 2, "k": size // 2}), gpu, budget_s=0.2)
    memory = measure(Point("read", "fp32", "fp32", {"bytes": 2**30}), gpu, budget_s=0.2)
    assert product.moved_bytes / product.seconds < 1.1 * memory.moved_bytes / memory.seconds


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
        assert "result wrong" not in found.flags
