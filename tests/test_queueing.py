"""Waits in queues, held against values of the textbook formulas (Kleinrock, Queueing Systems 1) and against each other."""

import numpy as np
import pytest

from roofline import InvalidValueError
from roofline.serving import erlang_c, mg1_wait, mgc_wait, mmc_wait

LOADS = np.array([0.5, 0.7, 0.9])


@pytest.mark.parametrize(
    ("cv", "waits"),
    [(1.0, [1, 7 / 3, 9]), (0.0, [0.5, 7 / 6, 4.5]), (2.0, [2.5, 35 / 6, 22.5])],
    ids=["M/M/1: ρ/(1 − ρ)", "M/D/1: half of it", "M/G/1 with c² = 4: 2.5 times"],
)
def test_one_server_waits_as_pollaczek_and_khinchine_say(cv, waits):
    assert mg1_wait(LOADS, 1.0, service_cv=cv) == pytest.approx(waits)
    assert mg1_wait(0.7, 0.02, service_cv=cv) == pytest.approx(0.02 * waits[1])


@pytest.mark.parametrize(
    ("servers", "load", "busy", "mean", "p99"),
    [
        (2, 0.7, 0.576471, 0.960784, 6.757),
        (4, 0.7, 0.428654, 0.357212, 3.132),
        (8, 0.7, 0.270603, 0.112751, 1.374),
        (8, 0.9, 0.701533, 0.876916, None),
    ],
)
def test_several_servers_wait_as_erlang_says(servers, load, busy, mean, p99):
    """By hand for two servers: C = 2ρ²/(1 + ρ) = 0.98/1.7."""
    assert erlang_c(servers, load) == pytest.approx(busy, abs=1e-6)
    assert mmc_wait(servers, load, 1.0) == pytest.approx(mean, abs=1e-6)
    if p99 is not None:
        assert mmc_wait(servers, load, 1.0, percentile=0.99) == pytest.approx(p99, abs=1e-3)


def test_one_of_several_servers_is_one_server():
    assert mmc_wait(1, LOADS, 1.0) == pytest.approx(mg1_wait(LOADS, 1.0, service_cv=1))
    assert mgc_wait(1, LOADS, 1.0, service_cv=0.3) == pytest.approx(mg1_wait(LOADS, 1.0, service_cv=0.3))


def test_waits_of_many_servers_are_near_erlang():
    servers, loads = np.array([[2], [8], [32], [64], [256]]), [0.5, 0.7, 0.9, 0.99]
    exact, found = mmc_wait(servers, loads, 1.0), mgc_wait(servers, loads, 1.0)
    assert found[:3] == pytest.approx(exact[:3])
    assert np.abs(found - exact)[3:] == pytest.approx(0, abs=5e-3)
    assert found[3:, 3] == pytest.approx(exact[3:, 3], rel=0.01)


def test_a_thousand_servers_are_no_overflow():
    assert erlang_c(1024, 0.5) == pytest.approx(0, abs=1e-60)
    assert 0 < erlang_c(1024, 0.99) < 1


def test_what_nobody_waits_for_and_what_has_no_end():
    assert mg1_wait([0.0, 1.0, 2.0], 1.0).tolist() == [0, np.inf, np.inf]
    assert mmc_wait(4, [0.0, 1.0, 2.0], 1.0).tolist() == [0, np.inf, np.inf]
    assert mgc_wait(4, [0.0, 1.0, 2.0], 1.0).tolist() == [0, np.inf, np.inf]
    assert mmc_wait(4, 0.1, 1.0, percentile=0.5) == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: mg1_wait(-0.1, 1.0), "utilization is -0.1"),
        (lambda: mg1_wait(0.5, "1 s"), "service_s is '1 s'"),
        (lambda: erlang_c(0, 0.5), "servers is 0"),
        (lambda: mgc_wait(0.5, 0.5, 1.0), "servers is 0.5"),
        (lambda: mmc_wait(2, 0.5, 1.0, percentile=99), "did you mean 0.99?"),
        (lambda: mg1_wait([0.1, 0.2], [1.0, 1.0, 1.0]), "do not broadcast"),
    ],
)
def test_wrong_values_get_one_sentence(call, said):
    with pytest.raises(InvalidValueError, match=r"^[^\n]*$") as caught:
        call()
    assert said in str(caught.value)
