"""All-reduce between real processes: gloo on a CPU, NCCL where there are several GPUs."""

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from roofline import ops
from roofline.calibration.devices import Device, load_torch
from roofline.calibration.measure import Measurement
from roofline.calibration.operators.kernel import deviation
from roofline.calibration.plan import Point
from roofline.calibration.timing import check_settled, quantile
from roofline.errors import CalibrationError
from roofline.records.conditions import WRONG

SIZES = (16384, 2**20, 65536, 16 * 2**20, 262144, 4 * 2**20, 4096, 64 * 2**20)
"""Sizes of all-reduces, from a decode step's to a long prompt's [B]."""

_BLOCK_S = 5e-3
_POLL_S = 0.2
_TIMES = "times"  # the file with a line for each measured size
_LEAST_RUNS, _MOST_RUNS = 5, 50
_TOLERANCE = 1e-5  # of a sum over ranks in fp32, relative to its root mean square: each addition rounds by up to 2^-24 of it
_DOUBLINGS = 100  # an array that is reduced repeatedly must stay within fp32


def measure_all_reduce(
    device: Device,
    *,
    ranks: int | None = None,
    sizes: Iterable[int] = SIZES,
    timeout_s: float = 60.0,
    size_s: float = 0.5,
    report: Callable[[Point, Measurement], None] | None = None,
) -> tuple[tuple[Point, Measurement], ...]:
    """Return the times of all-reduces, those of the slowest rank.

    Ranks are spawned processes, so a script that calls this needs the usual ``if __name__ == "__main__":``.
    """
    torch = load_torch()
    gpus = torch.cuda.device_count() if device.kind == "cuda" else 0
    count = ranks if ranks is not None else max(gpus, 2)
    sizes = tuple(sizes)
    if count < 2 or (device.kind == "cuda" and count > gpus):
        allowed = f"2 … {gpus}" if device.kind == "cuda" else "at least 2"
        raise CalibrationError(
            f"ranks is {count}; an all-reduce on {device.label} needs {allowed}{' GPUs' if device.kind == 'cuda' else ''}."
        )
    wrong = [size for size in sizes if size < 4 or size % 4]
    if wrong or not sizes:
        raise CalibrationError(f"sizes of all-reduces are positive multiples of 4 bytes, not {wrong[0] if wrong else 'none at all'}.")
    if not torch.distributed.is_available() or (device.kind == "cuda" and not torch.distributed.is_nccl_available()):
        raise CalibrationError(f"this build of torch has no collectives for {device.label}.")
    with tempfile.TemporaryDirectory(prefix="roofline-") as folder:
        times = Path(folder) / _TIMES
        found: list[tuple[Point, Measurement]] = []

        def read_times() -> None:
            whole = times.read_text().split("\n")[:-1] if times.exists() else []
            for size, line in zip(sizes[len(found) :], whole[len(found) :], strict=False):
                row = json.loads(line)
                found.append(_result(count, size, row["samples"], row["error"]))
                if report is not None:
                    report(*found[-1])

        try:
            _run(torch, count, (count, sizes, device.kind, folder, timeout_s, size_s), timeout_s, read_times)
        finally:
            read_times()
    if len(found) < len(sizes):
        raise CalibrationError(f"the {count} ranks of an all-reduce ended without a result.")
    return tuple(found)


def _result(ranks: int, size: int, samples: list[float], error: float) -> tuple[Point, Measurement]:
    op = ops.all_reduce("all_reduce", size, ranks=ranks, domain=ranks)
    flags = (*((WRONG,) if not error <= _TOLERANCE else ()), *check_settled(samples))
    return (
        Point("all_reduce", "fp32", "fp32", {"ranks": ranks, "bytes": size}),
        Measurement(
            seconds=quantile(samples, 0.5),
            low_s=quantile(samples, 0.1),
            high_s=quantile(samples, 0.9),
            runs=len(samples),
            moved_bytes=float(op.link_bytes),
            flops=0.0,
            error=error,
            flags=flags,
            kernel="all_reduce",
        ),
    )


def _run(torch: Any, count: int, arguments: tuple[Any, ...], timeout_s: float, read_times: Callable[[], None]) -> None:
    """Start the ranks and read their times until all have ended; on an error all of them are ended."""
    context = torch.multiprocessing.start_processes(_rank, args=arguments, nprocs=count, join=False, start_method="spawn")
    deadline = time.monotonic() + timeout_s
    try:
        while not _joined(context, min(_POLL_S, max(deadline - time.monotonic(), 0.01))):
            read_times()
            if time.monotonic() > deadline:
                raise CalibrationError(f"an all-reduce of {count} ranks was not done after {timeout_s:.3g} s; they were ended.")
    finally:
        for process in context.processes:
            if process.is_alive():
                process.terminate()
        for process in context.processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join(5)


def _joined(context: Any, timeout_s: float) -> bool:
    """Wait a while, and return whether all ranks have ended."""
    try:
        return bool(context.join(timeout=timeout_s))
    except Exception as error:  # torch raises several types for a process that raised, was killed, or never started
        text = str(error).strip().splitlines()
        raise CalibrationError(f"a rank of the all-reduce failed: {text[-1] if text else type(error).__name__}.") from error


def _rank(rank: int, ranks: int, sizes: tuple[int, ...], kind: str, folder: str, timeout_s: float, size_s: float) -> None:
    """Run one rank."""
    torch = load_torch()
    distributed = torch.distributed
    if kind == "cuda":
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks))  # the process is spawned, so the setting affects nothing else
        if Path("/sys/class/net/lo").exists():
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the host name may not resolve to this machine
    distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=(Path(folder) / "rendezvous").as_uri(),
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=timeout_s),
    )
    try:
        where = f"cuda:{rank}" if kind == "cuda" else "cpu"
        for size in sizes:
            row = _time_size(torch, size, rank, ranks, where, size_s)
            if rank == 0:
                with (Path(folder) / _TIMES).open("a") as times:
                    times.write(json.dumps(row) + "\n")
        distributed.barrier()
    finally:
        with contextlib.suppress(RuntimeError):
            distributed.destroy_process_group()


def _time_size(torch: Any, size: int, rank: int, ranks: int, where: str, size_s: float) -> dict[str, Any]:
    distributed = torch.distributed
    generator = torch.Generator().manual_seed(rank)
    mine = torch.randn(size // 4, generator=generator).to(where)
    array = mine.clone()
    distributed.all_reduce(array)
    reference = sum(torch.randn(size // 4, generator=torch.Generator().manual_seed(r)).double() for r in range(ranks))
    error = deviation(array, reference)

    def block(repeats: int) -> float:
        array.copy_(mine)
        distributed.barrier()
        if where != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            distributed.all_reduce(array)
        if where != "cpu":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    once = torch.tensor(max(block(2), 1e-7), device=where)
    distributed.all_reduce(once, op=distributed.ReduceOp.MAX)  # all ranks must repeat it equally often
    repeats = min(int(_DOUBLINGS / math.log2(ranks)), max(1, round(_BLOCK_S / float(once))))
    runs = min(_MOST_RUNS, max(_LEAST_RUNS, round(size_s / (repeats * float(once)))))
    samples = torch.tensor([block(repeats) for _ in range(runs)], device=where)
    distributed.all_reduce(samples, op=distributed.ReduceOp.MAX)
    return {"samples": [float(s) for s in samples.tolist()], "error": error}
