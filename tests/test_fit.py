"""Fitting: what a fit finds, what it is not misled by, and what it refuses by name."""

import builtins

import numpy as np
import pytest

from roofline import CalibrationError, MissingDependencyError
from roofline.kernels import FAMILIES

pytest.importorskip("scipy")
from roofline.estimate.constants import generic_record
from roofline.fitting.conditions import check_fits
from roofline.fitting.selection import FEWEST, fitted_fields, select_fit
from roofline.fitting.solve import fit_family
from roofline.records import KernelClass

MATMUL = FAMILIES["matmul"]
PEAK, BANDWIDTH = 1e15, 3e12
LAW = {c.name: c.start if c.neutral is None else c.neutral for c in MATMUL.constants} | {
    "compute_share": 0.7,
    "bandwidth_share": 0.8,
    "fixed_s": 5e-6,
}
"""A machine that we know: three constants, the others without effect."""


def points(count, seed=0):
    """Shapes from one row to thousands, in bf16."""
    draw = np.random.default_rng(seed)
    m, n, k = (np.round(2.0 ** draw.uniform(low, high, count)) for low, high in ((0, 13), (9, 15), (9, 14)))
    return {"m": m, "n": n, "k": k, "bytes": 2 * (m * k + k * n + m * n)}


def times(x, law=LAW):
    return MATMUL.seconds(x, law, peak_flops_per_s=PEAK, bandwidth=BANDWIDTH)


def fit(x, t, **options):
    return fit_family(MATMUL, x, t, peak_flops_per_s=PEAK, bandwidth=BANDWIDTH, **options)


def predicted(found, x):
    return times(x, {name: value for name, (value, _, _) in found.constants.items()})


def test_the_law_behind_the_points_is_found():
    found = fit(points(200), times(points(200)))
    for name in ("compute_share", "bandwidth_share", "fixed_s"):
        value, low, high = found.constants[name]
        assert value == pytest.approx(LAW[name], rel=0.02)
        assert low <= value <= high
    assert np.abs(predicted(found, points(50, seed=1)) / times(points(50, seed=1)) - 1).max() < 0.02


def test_confidence_grows_with_noise():
    x, draw = points(300), np.random.default_rng(5)
    quiet, loud = (fit(x, times(x) * np.exp(draw.normal(0, s, 300))) for s in (0.01, 0.15))
    for name in ("compute_share", "bandwidth_share", "fixed_s"):
        narrow, wide = (np.log(found.constants[name][2] / found.constants[name][1]) for found in (quiet, loud))
        assert narrow < wide
        assert narrow < 0.1


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_confidence_covers_the_law(noise):
    """The intervals are of 80 %: fewer than 12 of 20 that hold the law would be one case in a hundred."""
    covered = dict.fromkeys(("compute_share", "bandwidth_share", "fixed_s"), 0)
    rest = {name: value for name, value in LAW.items() if name not in covered}
    for fixed in ({}, rest):
        covered = dict.fromkeys(covered, 0)
        for seed in range(20):
            x = points(300, seed=seed)
            found = fit(x, times(x) * np.exp(np.random.default_rng(100 + seed).normal(0, noise, 300)), fixed=fixed)
            for name in covered:
                _, low, high = found.constants[name]
                covered[name] += low <= LAW[name] <= high
        assert min(covered.values()) >= 12, covered


def test_outliers_hardly_matter():
    """One point in twenty is ten times too slow: a page fault, a throttled clock, another process."""
    x = points(300)
    t = times(x) * np.exp(np.random.default_rng(2).normal(0, 0.03, 300))
    t[::20] *= 10
    found, fresh = fit(x, t), points(100, seed=3)
    assert np.median(np.abs(predicted(found, fresh) / times(fresh) - 1)) < 0.03


def test_times_that_beat_the_peak_end_at_a_share_of_one():
    """No estimate passes the floor, whatever was measured: in the wrong unit, of the wrong format, from the cache."""
    x = points(200)
    found = fit(x, times(x) / 5)
    assert found.constants["compute_share"][0] <= 1
    assert found.constants["bandwidth_share"][0] <= 1
    floor = np.maximum(2 * x["m"] * x["n"] * x["k"] / PEAK, x["bytes"] / BANDWIDTH)
    assert np.all(predicted(found, x) >= floor)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1e-6])
def test_a_time_that_is_none_is_refused_by_its_place(bad):
    x, t = points(60), times(points(60))
    t[17] = bad
    with pytest.raises(CalibrationError, match=r"1 of 60 matmul times.*point 17"):
        fit(x, t)


def test_too_few_points_are_refused_with_how_many_are_needed():
    with pytest.raises(CalibrationError, match=r"5 points are too few for the 12 constants of matmul; at least 24"):
        fit(points(5), times(points(5)))


def test_points_that_are_all_alike_are_refused():
    x = {name: np.full(40, column[0]) for name, column in points(40).items()}
    with pytest.raises(CalibrationError, match="same sizes"):
        fit(x, times(x))


def test_a_size_that_is_no_number_is_refused_by_name():
    x = points(40)
    x["k"][3] = np.nan
    with pytest.raises(CalibrationError, match="k of point 3"):
        fit(x, times(points(40)))


def test_few_points_are_fitted_with_few_constants():
    x = points(20)
    found = select_fit(
        MATMUL, x, times(x) * np.exp(np.random.default_rng(1).normal(0, 0.02, 20)), peak_flops_per_s=PEAK, bandwidth=BANDWIDTH
    )
    assert found.held
    assert np.mean(np.abs(found.unseen)) < 0.1
    assert np.abs(predicted(found.fit, points(50, seed=4)) / times(points(50, seed=4)) - 1).mean() < 0.1


@pytest.mark.parametrize("count", range(FEWEST))
def test_points_too_few_to_hold_any_out_are_refused_with_how_many_are_needed(count):
    with pytest.raises(CalibrationError, match=rf"^{count} samples of matmul are too few; at least {FEWEST} are needed\.$"):
        fitted_fields(MATMUL, points(count), times(points(count)), peak_flops_per_s=PEAK, bandwidth=BANDWIDTH)


def test_as_many_points_as_are_needed_are_enough():
    assert fitted_fields(MATMUL, points(FEWEST), times(points(FEWEST)), peak_flops_per_s=PEAK, bandwidth=BANDWIDTH)["error"] < 0.5


def test_points_that_are_all_alike_but_one_leave_none_to_hold_out():
    x = points(20)
    x = {name: np.where(np.arange(20) == 7, column[7], column[0]) for name, column in x.items()}
    with pytest.raises(CalibrationError, match="too few of the 20 samples of matmul differ in size"):
        fitted_fields(MATMUL, x, times(x), peak_flops_per_s=PEAK, bandwidth=BANDWIDTH)


def test_a_fit_worse_than_that_of_no_machine_in_particular_is_poor():
    generic = generic_record()
    assert max(c.error for c in generic.classes if c.error is not None) > 0.1
    assert check_fits((), generic.classes) == ()
    same = {"family": "matmul", "operand": "fp8", "constants": generic.classes[0].constants}
    poor = [KernelClass(**same, stored="fp8", error=0.6), KernelClass(**same, stored="fp8_block128", error=7.3)]
    assert tuple(map(str, check_fits((), poor))) == (
        "poor fit: matmul fp8, mean error 60% on samples held out",
        "poor fit: matmul fp8_block128 in fp8, mean error 730% on samples held out",
    )


def test_residuals_of_unseen_points_make_the_interval():
    x, draw = points(250), np.random.default_rng(6)
    fields = fitted_fields(MATMUL, x, times(x) * np.exp(draw.normal(0, 0.1, 250)), peak_flops_per_s=PEAK, bandwidth=BANDWIDTH)
    fresh = points(2000, seed=7)
    constants = {name: c.value for name, c in fields["constants"].items()}
    rest = np.log(times(fresh) * np.exp(draw.normal(0, 0.1, 2000)) / times(fresh, constants))
    low, high = fields["residual_quantiles"][2], fields["residual_quantiles"][10]  # 10 % and 90 %
    assert 0.7 < np.mean((rest >= low) & (rest <= high)) < 0.9


def test_without_scipy_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[calibrate\]' in a checkout"):
        fit(points(60), times(points(60)))
