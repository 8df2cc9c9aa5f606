"""No measured kernel is faster than its floor, and the floor is not far below the fastest.

The tables and the named defects are those of benchmarks/measured_kernels.py, which checks every GPU.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from roofline import Hardware

pytest.importorskip("pyarrow", reason="pyarrow reads the kernel tables")

GPUS = ("h100_sxm", "a100_sxm")


@pytest.fixture(scope="module")
def kernels(import_benchmark):
    """The benchmark's modules."""
    tables, floors, defects, kernels = (import_benchmark(f"measured_{name}") for name in ("tables", "floors", "defects", "kernels"))
    if tables.data_folder() is None:
        pytest.skip("aiconfigurator-core is not installed: a wheel for Linux x86-64 with measured kernels")
    return SimpleNamespace(
        FAMILIES=floors.FAMILIES,
        DEFECTS=defects.DEFECTS,
        check=kernels.check,
        skewed=kernels.skewed,
        defect_ratios=kernels.defect_ratios,
        expert_floors=floors.expert_floors,
        latent_floors=floors.latent_floors,
    )


@pytest.fixture(scope="module")
def checked(kernels):
    """What each family of kernels came to on the GPUs of this test."""
    return {(family, gpu): kernels.check(family, gpu) for family in kernels.FAMILIES for gpu in GPUS}


def test_no_kernel_beats_its_floor(checked):
    for found in checked.values():
        assert found
        for lane in found:
            assert lane.below == 0, lane


def test_every_row_is_a_number(checked):
    for found in checked.values():
        for lane in found:
            assert (lane.ratios >= 0).all(), lane  # not a number compares as false


@pytest.mark.parametrize("gpu", GPUS)
def test_the_tightest_products_are_within_ten_percent(checked, gpu):
    assert max(lane.tightest for lane in checked["gemm", gpu]) >= 0.9


def test_the_tightest_decode_attention_is_within_ten_percent(checked):
    assert max(lane.tightest for lane in checked["generation_attention", "h100_sxm"]) >= 0.9


@pytest.mark.parametrize("family", ["balanced_moe", "generation_mla"])
def test_the_tightest_experts_and_latent_attention_are_within_ten_percent(checked, family):
    assert max(lane.tightest for lane in checked[family, "h100_sxm"]) >= 0.9


def test_the_best_routing_is_a_close_floor_where_products_bind(checked):
    bound = [lane for lane in checked["moe", "h100_sxm"] if lane.where.endswith("compute")]
    assert max(lane.tightest for lane in bound) >= 0.8


def test_skewed_routing_beats_the_floor_of_uniform_routing(kernels):
    """Which is why the unconditional floor is that of the best routing."""
    ratios = np.concatenate([lane.ratios for lane in kernels.skewed("h100_sxm")])
    assert 1.3 < ratios.max() < 1.5
    assert 0.01 < (ratios > 1).mean() < 0.02


def row(**columns):
    """A table of one measured row."""
    return {name: np.array([value]) for name, value in ({"latency": 1.0} | columns).items()}


def experts(**columns):
    """One row of a mixture of experts of DeepSeek-V3's shape."""
    shape = {"hidden_size": 7168, "inter_size": 2048, "topk": 8, "num_experts": 256, "moe_tp_size": 1, "moe_ep_size": 1}
    return row(**(shape | {"num_tokens": 4, "moe_dtype": "bfloat16"} | columns))


def experts_time(kernels, routing="best", **columns):
    return float(kernels.expert_floors("h100_sxm", experts(**columns), routing=routing).time[0])


WEIGHT = 3 * 7168 * 2048 * 2
H100 = Hardware.load("h100-sxm")
CACHE, BANDWIDTH, PEAK = H100.last_level_cache, H100.memory_bandwidth, H100.ceiling("bf16").value


def test_a_row_of_experts_is_what_its_columns_say(kernels):
    rows = 2 * 4 * 7168 * 2  # 4 tokens in and out
    assert experts_time(kernels) == pytest.approx((8 * WEIGHT + rows - CACHE) / BANDWIDTH, rel=1e-12)
    assert experts_time(kernels, moe_tp_size=4) == pytest.approx((2 * WEIGHT + rows - CACHE) / BANDWIDTH, rel=1e-12)
    plain = {"hidden_size": 7168, "inter_size": 2688, "topk": 22, "num_experts": 512}  # two matrices each
    bytes_ = 22 * 2 * 7168 * 2688 * 2 + rows
    assert experts_time(kernels, **plain) == pytest.approx((bytes_ - CACHE) / BANDWIDTH, rel=1e-12)


def test_a_rank_of_expert_parallelism_has_its_share_of_the_visits_and_the_fewest_tokens(kernels):
    # T tokens, 2 visits each to a rank's 64 experts: the weights of 2, and the rows of T/4 tokens that visit 8 each
    floor = experts_time(kernels, num_tokens=4096, moe_ep_size=4)
    flops = 2 * 4096 * 2 * 3 * 7168 * 2048
    assert floor == pytest.approx(flops / PEAK, rel=1e-12)
    small = experts_time(kernels, num_tokens=64, moe_ep_size=4)
    assert small == pytest.approx((2 * WEIGHT + 2 * 16 * 7168 * 2 - CACHE) / BANDWIDTH, rel=1e-12)
    every = 64 * (1 - (1 - 8 / 256) ** 64)
    spread = experts_time(kernels, "uniform", num_tokens=64, moe_ep_size=4)
    assert spread == pytest.approx((every * WEIGHT + 2 * 16 * 7168 * 2 - CACHE) / BANDWIDTH, rel=1e-12)


def test_a_row_of_latent_attention_is_what_its_columns_say(kernels):
    """Its last step sees isl + step positions."""
    columns = {"isl": 1, "step": 131071, "batch_size": 128, "num_heads": 1, "mla_dtype": "bfloat16", "kv_cache_dtype": "fp8"}
    found = kernels.latent_floors("h100_sxm", row(**columns), decode=True)
    assert found.read[0] == pytest.approx(128 * 131072 * 576, rel=1e-4)
    assert found.bound[0] == "memory"
    assert found.time[0] == pytest.approx((128 * 131072 * 576 - CACHE) / BANDWIDTH, rel=1e-3)


def test_measured_tables_have_enough_rows(checked):
    rows = {family: sum(lane.ratios.size for gpu in GPUS for lane in checked[family, gpu]) for family, _ in checked}
    assert rows["gemm"] > 400_000
    assert rows["generation_attention"] > 25_000
    assert rows["context_attention"] > 170_000
    assert rows["moe"] > 520_000
    assert rows["balanced_moe"] > 170_000
    assert rows["generation_mla"] > 28_000
    assert rows["context_mla"] > 18_000


@pytest.mark.parametrize(
    "name",
    ["a100-trtllm-kv", "sglang-head-192", "sglang-chunk-8192", "sglang-int8-weight-only", "sglang-grouped-experts", "vllm-grouped-experts"],
)
def test_named_defect_violates_its_label_and_satisfies_its_reading(kernels, checked, name):
    """Its rows stand out from every other lane as labelled, and not as they were probably meant."""
    defect = kernels.DEFECTS[name]
    for gpu in set(defect.gpus) & set(GPUS):
        labelled, meant = kernels.defect_ratios(defect, gpu)
        assert labelled.max() > max(lane.tightest for lane in checked[defect.family, gpu])
        assert (labelled.max() > 1) == (gpu in defect.beaten)
        assert meant.max() < 0.9


@pytest.mark.parametrize("name", ["trtllm-min-latency"])
def test_named_defect_of_another_machine_violates_its_label(kernels, name):
    defect = kernels.DEFECTS[name]
    labelled, meant = kernels.defect_ratios(defect, defect.beaten[0])
    assert labelled.max() > 1.1
    assert meant.max() < 0.9


def test_every_defect_is_tested(kernels):
    tests = (test_named_defect_violates_its_label_and_satisfies_its_reading, test_named_defect_of_another_machine_violates_its_label)
    here, elsewhere = (next(mark for mark in test.pytestmark if mark.name == "parametrize").args[1] for test in tests)
    assert sorted(kernels.DEFECTS) == sorted([*here, *elsewhere])
    assert all(set(kernels.DEFECTS[name].gpus) & set(GPUS) for name in here)
    assert all(set(defect.beaten) <= set(defect.gpus) for defect in kernels.DEFECTS.values())
