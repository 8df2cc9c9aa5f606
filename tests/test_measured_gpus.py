"""What an H100 and an H200 did (benchmarks/measurements, written by benchmarks/on_gpu.py), beside floors and counts."""

import csv
import json

import pytest

from roofline import Hardware, attention_floor, decode_floor, matmul_floor, prefill_floor
from roofline.records import load_record
from roofline.records.samples import list_samples

MACHINES = ("h100-sxm", "h200-sxm")


@pytest.fixture(scope="module", params=MACHINES)
def measured(request, repository):
    """A machine's name and the folder of what was measured on it."""
    return request.param, repository / "benchmarks" / "measurements" / request.param


def test_no_step_of_a_real_llama_is_faster_than_its_floor(measured):
    machine, folder = measured
    rows = json.loads((folder / "llama.json").read_text())["rows"]
    assert len(rows) == 18
    for row in rows:
        if "prompt" in row:
            floor = prefill_floor("llama-3.1-8b", machine, prompt=row["prompt"])
        else:
            floor = decode_floor("llama-3.1-8b", machine, batch=row["batch"], context=row["context"])
        assert row["low_s"] / floor.time_s > 1.5, row


def test_counters_read_the_bytes_that_a_floor_counts(measured):
    """Nsight Compute's DRAM bytes of kernels that read each operand once, with the caches flushed before."""
    machine, folder = measured
    with (folder / "counters.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if "reduc" not in row["Kernel Name"].lower()]
    shape = {"heads": 32, "kv_heads": 8, "head_dim": 128, "kv": "bf16"}
    floors = {
        0: matmul_floor(m=1, n=4096, k=4096, hardware=machine, format="bf16"),
        1: matmul_floor(m=16, n=14336, k=4096, hardware=machine, format="bf16"),
        4: matmul_floor(m=1, n=28672, k=4096, hardware=machine, format="bf16"),
        5: attention_floor(hardware=machine, batch=64, context=2047, **shape),
        6: attention_floor(hardware=machine, batch=1, context=65535, **shape),
        7: attention_floor(hardware=machine, batch=8, context=4095, **shape),
    }
    for place, floor in floors.items():
        assert float(rows[place]["dram__bytes_read.sum"]) == pytest.approx(floor.total_bytes, rel=0.004), place


def test_tensor_cores_count_the_flop_of_whole_tiles(measured):
    """2·m·n·k where m fills the tiles of 8 rows, and 8 times that at one row."""
    _, folder = measured
    with (folder / "counters.csv").open() as file:
        rows = [float(row["sm__ops_path_tensor_src_bf16_dst_fp32.sum"]) for row in csv.DictReader(file)]
    assert [2 * m * n * k for m, n, k in ((16, 14336, 4096), (256, 4096, 4096), (4096, 4096, 4096))] == rows[2:5]
    assert rows[0] == 8 * matmul_floor(m=1, n=4096, k=4096, hardware="h100-sxm", format="bf16").flops


@pytest.mark.parametrize("record", ["h100-sxm-torch-20261127-1126", "h200-sxm-torch-20261127-1129"])
def test_no_calibration_sample_is_faster_than_its_floor(record):
    machine = record.split("-torch")[0]
    Hardware.load(machine).calibrated(record)  # shipped
    samples = [sample for sample in list_samples(load_record(record).classes) if sample.family in ("matmul", "attention")]
    assert len(samples) > 50
    for sample in samples:
        sizes = {name: int(size) for name, size in sample.sizes.items()}
        if sample.family == "matmul":
            floor = matmul_floor(**sizes, hardware=machine, format=sample.operand)
        else:
            floor = attention_floor(**sizes, hardware=machine, kv=sample.stored, **sample.fixed)
        assert floor.time_s <= sample.low_s, sample
