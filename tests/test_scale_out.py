"""Sweeps and plans on executors: the answer is that of one process, whatever runs it and whatever of that dies."""

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

from roofline import InvalidValueError, Workload, plan, sweep
from roofline.tasks import run_tasks

CHAT = Workload.generated(400, prompt=1000, output=100, arrivals=12.0, seed=1)
PROMISED = {"ttft_s": 0.5, "tpot_s": 0.02}
ASKED = {"machines": ["h100-sxm", "l40s"], "degrees": [1, 2], "step_tokens": [None, 2048], "pools": ["one", "two"]}
GRID = {"batch": [1, 64], "context": [0, 4096], "tensor_parallel": [1, 2, 4]}


@pytest.fixture(scope="module")
def here():
    return plan("llama-3.1-8b", CHAT, PROMISED, **ASKED)


def same(there, here):
    """Compare two plans bit for bit."""
    assert there.to_dict() == here.to_dict()
    assert there.choices == here.choices


class DyingPool(ProcessPoolExecutor):
    """Processes of which one ends without a word as soon as there is work."""

    def __init__(self):
        super().__init__(2, mp_context=multiprocessing.get_context("spawn"))
        self.dying = False

    def submit(self, function, /, *arguments):
        future = super().submit(function, *arguments)
        if not self.dying:
            self.dying = True
            super().submit(os._exit, 1)
        return future


def test_threads_answer_as_one_process(here):
    with ThreadPoolExecutor(2) as pool:
        there = plan("llama-3.1-8b", CHAT, PROMISED, executor=pool, **ASKED)
        same(there, here)
        same(pickle.loads(pickle.dumps(there)), here)


def test_a_killed_process_loses_nothing(here):
    with DyingPool() as pool, pytest.warns(UserWarning, match="run here, because the executor lost them"):
        same(plan("llama-3.1-8b", CHAT, PROMISED, executor=pool, **ASKED), here)


def test_a_killed_process_loses_nothing_of_a_sweep():
    with DyingPool() as pool, pytest.warns(UserWarning, match="BrokenProcessPool"):
        there = sweep("llama-3-8b", ["h100-sxm", "l4"], executor=pool, **GRID)
    alone = sweep("llama-3-8b", ["h100-sxm", "l4"], **GRID)
    assert all(np.array_equal(there.columns[name], column, equal_nan=True) for name, column in alone.columns.items())


def test_an_executor_that_was_shut_down_loses_nothing():
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.warns(UserWarning, match="3 of 3 tasks are run here.*RuntimeError"):
        assert run_tasks(abs, [-1, 2, -3], pool) == [1, 2, 3]


def test_tasks_that_cannot_be_sent_are_run_here():
    with ProcessPoolExecutor(1) as pool, pytest.warns(UserWarning, match="2 of 2 tasks"):
        assert run_tasks(lambda task: 2 * task, [1, 2], pool) == [2, 4]


def failing(task):
    if task == 2:
        raise InvalidValueError("2 is not allowed.")
    return task


def test_an_error_of_the_question_is_raised_as_without_an_executor():
    with ThreadPoolExecutor(1) as pool, pytest.raises(InvalidValueError, match="2 is not allowed"):
        run_tasks(failing, [1, 2, 3], pool)


@pytest.mark.parametrize("ask", [lambda **given: plan("llama-3.1-8b", CHAT, PROMISED, machines="h100-sxm", **given), lambda **given: sweep("llama-3-8b", "h100-sxm", **given)], ids=["plan", "sweep"])  # fmt: skip
def test_what_is_no_executor_is_refused(ask):
    with pytest.raises(InvalidValueError, match="it must have submit"):
        ask(executor=4)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as started,
        distributed.Client(started) as client,
    ):
        yield client


@pytest.mark.slow
def test_a_dask_cluster_answers_as_one_process(cluster, here):
    with cluster.get_executor() as executor:
        same(plan("llama-3.1-8b", CHAT, PROMISED, executor=executor, **ASKED), here)
    same(plan("llama-3.1-8b", CHAT, PROMISED, executor=cluster, **ASKED), here)


class KillingClient:
    """The client of a cluster, one of whose workers is killed when tasks have been sent to it."""

    def __init__(self, client):
        self.client, self.sent = client, 0

    def submit(self, function, task):
        future, self.sent = self.client.submit(function, task), self.sent + 1
        if self.sent == 2:
            os.kill(next(iter(self.client.run(os.getpid).values())), 9)
        return future


@pytest.mark.slow
def test_a_killed_worker_of_a_cluster_loses_nothing(cluster, here):
    killing = KillingClient(cluster)
    same(plan("llama-3.1-8b", CHAT, PROMISED, executor=killing, **ASKED), here)
    assert killing.sent > 2
