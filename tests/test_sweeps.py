"""Sweeps: the same numbers as single calls, wherever they are computed."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

from roofline import Hardware, InvalidValueError, UnknownNameError, decode_floor
from roofline.sweeps import sweep

MODEL, MACHINES = "mixtral-8x7b", ["h100-sxm", "h200-sxm", "mi300x"]
GRID = {"batch": [1, 16, 512], "context": [0, 1000, 30_000], "tensor_parallel": [1, 2, 8]}


@pytest.fixture(scope="module")
def result():
    return sweep(MODEL, MACHINES, weights="fp8", **GRID)


def test_every_point_is_that_of_a_single_call(result):
    assert result.shape == (3, 3, 3, 3)
    for i, h in enumerate(MACHINES):
        for j, t in enumerate(GRID["tensor_parallel"]):
            for k, b in enumerate(GRID["batch"]):
                for m, c in enumerate(GRID["context"]):
                    one, at = decode_floor(MODEL, h, batch=b, context=c, tensor_parallel=t, weights="fp8"), (i, j, k, m)
                    for name, column in result.columns.items():
                        np.testing.assert_allclose(column[at], getattr(one, name), rtol=1e-12, err_msg=name)
                    assert (result.bound[at], bool(result.fits[at])) == (one.bound, one.fits)


def test_all_bounds_occur_and_what_does_not_fit_has_no_throughput():
    result = sweep("llama-3-8b", ["h100-sxm", "l4"], batch=[1, 400, 5000], context=[1, 8000], tensor_parallel=[1, 8])
    assert set(result.bound.ravel()) == {"memory", "compute", "network", "capacity"}
    assert np.array_equal(np.isnan(result.tokens_per_s), ~result.fits)
    assert np.array_equal(result.bound == "capacity", ~result.fits)


@pytest.mark.parametrize(
    "pool",
    [lambda: ThreadPoolExecutor(2), lambda: ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))],
    ids=["threads", "processes"],
)
def test_an_executor_gives_the_same(result, pool):
    with pool() as executor:
        elsewhere = sweep(MODEL, MACHINES, weights="fp8", executor=executor, **GRID)
    for name, column in result.columns.items():
        assert np.array_equal(column, elsewhere.columns[name], equal_nan=True), name
    assert np.array_equal(result.bound, elsewhere.bound)


def test_sweep_converts_to_dict_json_and_records(result):
    records = result.to_records()
    assert len(records) == 81
    assert {n: records[-1][n] for n in ("hardware", "tensor_parallel", "batch", "context")} == {
        "hardware": "mi300x",
        "tensor_parallel": 8,
        "batch": 512,
        "context": 30_000,
    }
    assert records[-1]["time_s"] == result.time_s[-1, -1, -1, -1]
    data = json.loads(result.to_json())
    assert np.shape(data["time_s"]) == result.shape
    assert data["options"] == {"weights": "fp8"}
    text = str(result)
    assert text.startswith("decode sweep of mixtral-8x7b: 3 × 3 × 3 × 3 points")
    assert text.count("tokens/s") == 9
    assert repr(result).startswith("<decode sweep")
    assert "nothing fits" in str(sweep("llama-3-70b", "h100-sxm"))


def test_a_machine_of_unknown_capacity_says_nothing_about_what_fits():
    bare = Hardware.from_rates(memory_bandwidth=3e12, peak_flops_per_s=1e15)
    result = sweep("70B", ["h100-sxm", bare], batch=[1, 2])
    assert result.fits.tolist() == [[[[False], [False]]], [[[None], [None]]]]
    assert [r["fits"] for r in result.to_records()] == [False, False, None, None]
    assert result.time_s[1, 0, 0, 0] == 140e9 / 3e12
    assert sweep("70B", bare).fits.tolist() == [[[[None]]]]


def test_generators_and_single_values_are_axes_too():
    result = sweep("llama-3-8b", (h for h in ("h100", "a100-sxm-80gb")), batch=range(1, 4), context=np.arange(5), tensor_parallel=2)
    assert result.shape == (2, 1, 3, 5)


@pytest.mark.parametrize(
    "arguments", [{"batch": []}, {"batch": [[1, 2]]}, {"batch": 0}, {"context": -1}, {"tensor_parallel": ()}, {"tensor_parallel": 0}]
)
def test_invalid_sweep_axes_raise(arguments):
    with pytest.raises(InvalidValueError, match=next(iter(arguments))):
        sweep("llama-3-8b", "h100", **arguments)


def test_sweep_with_unknown_or_no_machine_raises():
    with pytest.raises(UnknownNameError):
        sweep("llama-3-8b", ["h100", "h1000"])
    with pytest.raises(InvalidValueError, match="hardware"):
        sweep("llama-3-8b", [])
