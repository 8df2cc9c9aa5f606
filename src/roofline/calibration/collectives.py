"""All-reduce between real processes: gloo on a CPU, NCCL where there are several GPUs."""

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from roofline import ops
from roofline.calibration.devices import Device, load_torch
from roofline.calibration.measure import Measurement
from roofline.calibration.plan import Point
from roofline.calibration.timing import SETTLED, median_error, quantile
from roofline.errors import CalibrationError

__all__ = ["SIZES", "measure_all_reduce"]

SIZES = (16384, 2**20, 65536, 16 * 2**20, 262144, 4 * 2**20, 4096, 64 * 2**20)
"""Arrays to add up: from a decode step's to a long prompt's [B]."""

_BLOCK_S = 5e-3
_SIZE_S = 0.5
_LEAST_RUNS, _MOST_RUNS = 5, 50
_DOUBLINGS = 100  # an array that is added up over and over must stay within fp32


def measure_all_reduce(
    device: Device, *, ranks: int | None = None, sizes: Iterable[int] = SIZES, timeout_s: float = 60.0
) -> tuple[tuple[Point, Measurement], ...]:
    """Return how long adding up arrays over several processes takes, the slowest process counting.

    Every process is started afresh, so a script that calls this needs the usual ``if __name__ == "__main__":``.

    Parameters
    ----------
    device : Device
        A CPU, on which all processes run, or the first of several GPUs of which each gets one [-].
    ranks : int, optional
        Processes; 2 on a CPU and all GPUs if not given [-].
    sizes : iterable of int, optional
        Bytes to add up, as every process has them, in multiples of 4 [B].
    timeout_s : float, optional
        After so long all processes are ended [s].

    Returns
    -------
    tuple of (Point, Measurement)
        Points of the family all_reduce, with sizes ranks and bytes [-].

    Raises
    ------
    CalibrationError
        If there are fewer GPUs than ranks, a process fails, or it takes too long.
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
        _run(torch, count, (count, sizes, device.kind, folder, timeout_s), timeout_s)
        try:
            rows = json.loads((Path(folder) / "times.json").read_text())
        except (OSError, ValueError) as error:
            raise CalibrationError(f"the {count} processes of an all-reduce ended without a result.") from error
    return tuple(_result(count, size, row["samples"], row["error"]) for size, row in zip(sizes, rows, strict=True))


def _result(ranks: int, size: int, samples: list[float], error: float) -> tuple[Point, Measurement]:
    op = ops.all_reduce("all_reduce", size, ranks=ranks, domain=ranks)
    flags = (*(("result wrong",) if not error <= 1e-6 else ()), *(("did not settle",) if median_error(samples) > SETTLED else ()))
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


def _run(torch: Any, count: int, arguments: tuple[Any, ...], timeout_s: float) -> None:
    """Start the processes and wait for all; whatever happens, none is left behind."""
    context = torch.multiprocessing.start_processes(_rank, args=arguments, nprocs=count, join=False, start_method="spawn")
    deadline = time.monotonic() + timeout_s
    try:
        while not context.join(timeout=min(1.0, max(deadline - time.monotonic(), 0.01))):
            if time.monotonic() > deadline:
                raise CalibrationError(f"an all-reduce between {count} processes was not done after {timeout_s:g} s; they were ended.")
    except CalibrationError:
        raise
    except Exception as error:  # torch has several for a process that raised, was ended, or never began
        text = str(error).strip().splitlines()
        raise CalibrationError(f"a process of the all-reduce failed: {text[-1] if text else type(error).__name__}.") from error
    finally:
        for process in context.processes:
            if process.is_alive():
                process.terminate()
        for process in context.processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join(5)


def _rank(rank: int, ranks: int, sizes: tuple[int, ...], kind: str, folder: str, timeout_s: float) -> None:
    """Run as one of the processes."""
    torch = load_torch()
    distributed = torch.distributed
    if kind == "cuda":
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks))  # this process is no one's but ours
        if Path("/sys/class/net/lo").exists():
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host name may not resolve to this machine
    distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=(Path(folder) / "meeting").as_uri(),
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=timeout_s),
    )
    try:
        where = f"cuda:{rank}" if kind == "cuda" else "cpu"
        rows = [_time_size(torch, size, rank, ranks, where) for size in sizes]
        if rank == 0:
            (Path(folder) / "times.json").write_text(json.dumps(rows))
        distributed.barrier()
    finally:
        with contextlib.suppress(RuntimeError):
            distributed.destroy_process_group()


def _time_size(torch: Any, size: int, rank: int, ranks: int, where: str) -> dict[str, Any]:
    distributed = torch.distributed
    generator = torch.Generator().manual_seed(rank)
    mine = torch.randn(size // 4, generator=generator).to(where)
    array = mine.clone()
    distributed.all_reduce(array)
    reference = sum(torch.randn(size // 4, generator=torch.Generator().manual_seed(r)).double() for r in range(ranks))
    error = float((array.cpu().double() - reference).abs().max())
    error = error if error == error else 1e30

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
    distributed.all_reduce(once, op=distributed.ReduceOp.MAX)  # all must repeat it alike
    repeats = min(int(_DOUBLINGS / math.log2(ranks)), max(1, round(_BLOCK_S / float(once))))
    runs = min(_MOST_RUNS, max(_LEAST_RUNS, round(_SIZE_S / (repeats * float(once)))))
    samples = torch.tensor([block(repeats) for _ in range(runs)], device=where)
    distributed.all_reduce(samples, op=distributed.ReduceOp.MAX)
    return {"samples": [float(s) for s in samples.tolist()], "error": error}
