"""No measured kernel is faster than its floor, and the floor is not far below the fastest.

The tables and the named defects are those of benchmarks/measured_kernels.py, which checks every GPU.
"""

import importlib.util
import sys

import pytest

pytest.importorskip("pyarrow", reason="pyarrow reads the kernel tables")

GPUS = ("h100_sxm", "a100_sxm")


@pytest.fixture(scope="module")
def kernels(repository):
    """The benchmark's module."""
    path = repository / "benchmarks" / "measured_kernels.py"
    spec = importlib.util.spec_from_file_location("measured_kernels", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    if module.data_folder() is None:
        pytest.skip("aiconfigurator-core is not installed: a wheel for Linux x86-64 with measured kernels")
    return module


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


def test_the_check_covers_what_it_says(checked):
    rows = {family: sum(lane.ratios.size for gpu in GPUS for lane in checked[family, gpu]) for family, _ in checked}
    assert rows["gemm"] > 400_000
    assert rows["generation_attention"] > 25_000
    assert rows["context_attention"] > 170_000


@pytest.mark.parametrize("name", ["a100-trtllm-kv", "sglang-head-192", "sglang-chunk-8192", "sglang-int8-weight-only"])
def test_a_named_defect_is_one(kernels, checked, name):
    """Its rows stand out from every other lane as labelled, and not as they were probably meant."""
    defect = kernels.DEFECTS[name]
    for gpu in set(defect.gpus) & set(GPUS):
        labelled, meant = kernels.defect_ratios(defect, gpu)
        assert labelled.max() > max(lane.tightest for lane in checked[defect.family, gpu])
        assert (labelled.max() > 1) == (gpu in defect.beaten)
        assert meant.max() < 0.9


def test_every_defect_is_tested(kernels):
    marks = next(mark for mark in test_a_named_defect_is_one.pytestmark if mark.name == "parametrize")
    assert sorted(kernels.DEFECTS) == sorted(marks.args[1])
    assert all(set(defect.gpus) & set(GPUS) and set(defect.beaten) <= set(defect.gpus) for defect in kernels.DEFECTS.values())
