"""The monitor on a real GPU that works: skipped where there is none."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch")

from roofline.monitor import BottleneckMonitor, DeviceSample, Verdict  # noqa: E402

pytestmark = pytest.mark.gpu


@contextmanager
def working(kernel: Callable[[], object]) -> Iterator[None]:
    """Run a kernel again and again beside what is done meanwhile."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            for _ in range(20):
                kernel()
            torch.cuda.synchronize()

    kernel()
    torch.cuda.synchronize()
    worker = threading.Thread(target=run)
    worker.start()
    try:
        yield
    finally:
        ended.set()
        worker.join()


def watched(kernel: Callable[[], object]) -> tuple[DeviceSample, Verdict]:
    """The last of four samples, half a second apart, of the GPU that torch uses first, and what binds it."""
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    with BottleneckMonitor(f"gpu{index_of(uuid)}") as monitor, working(kernel):
        *_, last = monitor.watch(0.5, 1.6)
        ((device, sample),) = last.items()
        return sample, monitor.classify_bottleneck()[device]


def index_of(uuid: str) -> int:
    """NVML's number of a GPU, which may differ from CUDA's."""
    pynvml = pytest.importorskip("pynvml")
    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return next(i for i, handle in enumerate(handles) if uuid in str(pynvml.nvmlDeviceGetUUID(handle)))
    finally:
        pynvml.nvmlShutdown()


def test_large_products_keep_the_tensor_cores_active() -> None:
    """On an H100 a product of 8192³ in bf16 reaches 0.8 of the peak, and reads some hundredths of the bandwidth."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    sample, verdict = watched(lambda: a @ b)
    assert sample.busy is None or sample.busy > 0.9
    if sample.tensor_active is None or sample.dram_active is None:
        pytest.skip(f"no GPM counters: {sample.missing.get('tensor_active')}")
    assert sample.tensor_active > 0.5, (sample, verdict)
    assert sample.dram_active < 0.5, (sample, verdict)


def test_copies_keep_the_memory_active() -> None:
    """On an H100 a copy moves 3.0 of 3.35 TB/s."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    sample, verdict = watched(lambda: target.copy_(source))
    if sample.tensor_active is None or sample.dram_active is None:
        pytest.skip(f"no GPM counters: {sample.missing.get('tensor_active')}")
    assert sample.dram_active > 0.7, (sample, verdict)
    assert sample.tensor_active < 0.05, (sample, verdict)
    assert verdict.bottleneck == "memory_bound", (sample, verdict)
