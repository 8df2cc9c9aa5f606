"""No measured collective is faster than its floor, and the floor is that of the bytes, not of an algorithm.

The tables are those of benchmarks/measured_kernels.py, which checks every GPU; test_measured_kernels.py checks every row of two.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from roofline import Hardware
from roofline.bounds import network_time
from roofline.ops import all_reduce, exchange

GPUS = ("h100_sxm", "a100_sxm")
RANKS = (2, 3, 4, 8, 16, 72)


@pytest.fixture(scope="module")
def collectives(import_benchmark):
    """The benchmark's modules."""
    pytest.importorskip("pyarrow", reason="pyarrow reads the tables")
    tables, floors, kernels = (import_benchmark(f"measured_{name}") for name in ("tables", "floors", "kernels"))
    if tables.data_folder() is None:
        pytest.skip("aiconfigurator-core is not installed: a wheel for Linux x86-64 with measured collectives")
    return SimpleNamespace(
        machines=tables.MACHINES, tables=tables.tables, floors=floors.collective_floors, sizes=floors.sizes, check=kernels.check
    )


def test_a_ring_is_never_below_the_floor():
    """2(t-1)/t · B >= B for any t >= 2, and equal for two."""
    size = np.array([1, 4096, 2**30])
    for ranks in RANKS:
        floor = all_reduce("all_reduce", size, ranks=ranks, domain=ranks).link_bytes
        ring = 2 * (ranks - 1) / ranks * size
        assert (floor == size).all()
        assert (floor <= ring).all()
        assert (floor == ring).all() == (ranks == 2)


def test_reducing_in_the_switch_is_never_below_the_floor():
    """Every device sends its part and, of what the switch then spreads, its share: B (1 + 1/t)."""
    for ranks in RANKS:
        assert all_reduce("all_reduce", 4096, ranks=ranks, domain=ranks).link_bytes < 4096 * (1 + 1 / ranks)


def test_a_ring_is_a_reduce_scatter_and_an_all_gather():
    for ranks in RANKS:
        half = exchange("reduce_scatter", 4096, ranks=ranks, visits=1, domain=ranks).link_bytes
        assert half == pytest.approx((ranks - 1) / ranks * 4096, rel=1e-12)
        assert 2 * half >= all_reduce("all_reduce", 4096, ranks=ranks, domain=ranks).link_bytes * (1 - 1e-12)


def test_one_rank_sends_nothing():
    assert all_reduce("all_reduce", 4096, ranks=1, domain=8).link_bytes == 0
    assert exchange("alltoall", 4096, ranks=1, visits=1, domain=8).link_bytes == 0


def test_collective_bytes_by_hand():
    """450 MB over NVLink 4 at 450 GB/s: 1 ms to add up, 7/8 of that to pass on among eight."""
    h100 = Hardware.load("h100-sxm")
    add = all_reduce("all_reduce", 450e6, ranks=8, domain=8)
    assert network_time(add.link_bytes, add.nic_bytes, h100) == pytest.approx(1e-3, rel=1e-12)
    pass_on = exchange("alltoall", 450e6, ranks=8, visits=1, domain=8)
    assert network_time(pass_on.link_bytes, pass_on.nic_bytes, h100) == pytest.approx(0.875e-3, rel=1e-12)
    a100 = Hardware.load("a100-sxm-80gb")
    assert network_time(add.link_bytes, add.nic_bytes, a100) == pytest.approx(1.5e-3, rel=1e-12)


def row(**columns):
    """A table of one measured row."""
    return {name: np.array([value]) for name, value in ({"latency": 1.0} | columns).items()}


def test_a_row_is_what_its_columns_say(collectives):
    """225 million elements of 16 bits are 450 MB in NCCL's tables and in the engines'."""
    for label in ("half", "bfloat16"):
        table = row(dtype=label, num_gpus=8, message_size=225_000_000)
        floors = collectives.floors("h100_sxm", table, reduce=True)
        assert floors.time[0] == pytest.approx(1e-3, rel=1e-12)
        assert floors.naive[0] == pytest.approx(1.75e-3, rel=1e-12)
        assert floors.bound[0] == "network"
    table = row(dtype="int8", num_gpus=4, message_size=450_000_000)
    assert collectives.floors("h100_sxm", table, reduce=False).time[0] == pytest.approx(0.75e-3, rel=1e-12)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("family", ["all_reduce", "redistribution"])
def test_no_collective_beats_its_floor(collectives, family, gpu):
    found = collectives.check(family, gpu)
    assert sum(lane.ratios.size for lane in found) > 300
    for lane in found:
        assert (lane.ratios > 0).all(), lane
        assert lane.below == 0, lane
    assert 0.6 < max(lane.tightest for lane in found) < 0.8


def test_all_ranks_are_in_one_domain(collectives):
    for gpu, machine in collectives.machines.items():
        scale_up = Hardware.load(machine).scale_up
        for _, table in collectives.tables("all_reduce", gpu):
            assert table["num_gpus"].min() >= 2
            assert table["num_gpus"].max() <= (scale_up.domain_size if scale_up else 8)


def test_measured_all_reduces_are_faster_than_a_ring(collectives):
    """Eight H100 add up in the switch, so that the ring is an estimate and no floor; A100's switch cannot."""
    assert sum(lane.naive for lane in collectives.check("all_reduce", "h100_sxm")) > 0
    assert sum(lane.naive for lane in collectives.check("all_reduce", "a100_sxm")) == 0


@pytest.mark.parametrize("gpu", GPUS)
def test_message_sizes_of_nccl_count_elements(collectives, gpu):
    """An all-gather only copies, so that as many bytes take as long in either format; as many elements do not."""
    for _, table in collectives.tables("redistribution", gpu):
        gather, large = table["op_name"] == "all_gather", collectives.sizes(table) >= 2**25
        time = {}
        for i in np.flatnonzero(gather & large):
            time[table["dtype"][i], int(table["num_gpus"][i]), int(table["message_size"][i])] = table["latency"][i]
        pairs = [(t, time["int8", ranks, 2 * n], time.get(("int8", ranks, n))) for (label, ranks, n), t in time.items() if label == "half"]
        assert len(pairs) >= 12
        assert np.median([half / bytes_ for half, bytes_, _ in pairs]) == pytest.approx(1, abs=0.01)
        assert np.median([half / elements for half, _, elements in pairs if elements]) > 1.7


def test_sizes_of_an_all_gather_are_totals(collectives):
    """As the share of one rank they would ask for a multiple of the link's rate."""
    for lane, table in collectives.tables("redistribution", "h100_sxm"):
        rows = (table["op_name"] == "all_gather") & (table["num_gpus"] == 8)
        rate = collectives.sizes(table)[rows] / (table["latency"][rows] * 1e-3)
        ratio = rate.max() / Hardware.load("h100-sxm").link_ceiling.value
        assert 7 / 8 * ratio < 1 < 7 * ratio, lane
