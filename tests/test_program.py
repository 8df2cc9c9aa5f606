"""The compiled program: totals by name, operators as numbers, large arrays in blocks, and parts that nobody lowers."""

import pickle
import tracemalloc
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofline import Model, Step, UnknownNameError
from roofline.errors import UnsupportedModelError
from roofline.forward import compile_model, forward
from roofline.forward.work import Work
from roofline.model import DenseFeedForward
from roofline.ops import AMOUNTS
from roofline.parallel import Parallel, shard_model

MODELS = st.sampled_from(("llama-3-8b", "gpt-oss-20b", "deepseek-v3.2", "deepseek-v4-flash", "qwen3-next-80b-a3b", "bamba-9b"))
PARALLEL = st.sampled_from((Parallel(), Parallel(tensor=2), Parallel(pipeline=2, data=2), Parallel(context=3)))


@settings(max_examples=30, deadline=None)
@given(MODELS, PARALLEL, st.integers(1, 10**6), st.integers(0, 10**6))
def test_every_amount_is_the_sum_over_operators(model, parallel, batch, context):
    work = forward(Model.load(model), Step.decode(batch=batch, context=context), parallel=parallel)
    for name in (*AMOUNTS, "compulsory_bytes", "activation_bytes"):
        assert work.total(name) == pytest.approx(sum(getattr(op, name) for op in work.ops), rel=1e-12), name


def test_python_numbers_stay_exact():
    """2 · 8.03e9 parameters less the embedding, times tokens, and attention: beyond 2^53, to the last digit."""
    tokens = 10**15 + 1
    work = forward(Model.load("llama-3-8b"), Step.of(count=tokens, new=1, cached=3))
    matrices = sum(m.parameters * g.count for g in Model.load("llama-3-8b").layers for m in g.matrices(4096))
    attention = 4 * 32 * 32 * 128 * 4  # scores and values of 4 positions, 32 layers and heads
    assert work.total("flops") == tokens * (2 * matrices + attention + 2 * 4096 * 128256)
    assert sum(op.flops for op in work.ops) == work.total("flops")
    assert all(isinstance(op.flops, int) for op in work.ops)


@pytest.mark.parametrize(("name", "nearest"), [("flop", "flops"), ("weights", "weight_bytes"), ("link_byte", "link_bytes")])
def test_an_unknown_amount_names_the_nearest(name, nearest):
    with pytest.raises(UnknownNameError, match=rf"unknown amount of work '{name}'; nearest: .*{nearest}"):
        forward(Model.load("llama-3-8b"), Step.decode()).total(name)


@pytest.mark.parametrize("model", ["llama-3-8b", "gpt-oss-20b", "deepseek-v4-flash"])
@pytest.mark.parametrize("parallel", [Parallel(), Parallel(data=4, pipeline=2)])
def test_large_arrays_are_their_scalars(model, parallel):
    """Of one axis, of axes in any order of size, and where a field has fewer axes than the step."""
    program = compile_model(Model.load(model), parallel=parallel)
    long, short = np.arange(30_001) * 7, np.array([[1], [33], [5]])
    for context, batch in (
        (long, 9),
        (long, short),
        (long[:, None], short.T),
        (long.reshape(-1, 1, 1) // 3, np.stack([short.T, short.T + 1], axis=1)),
    ):
        step = Step.decode(batch=batch, context=context)
        work = Work(program, step)
        totals = [work.total(name) for name in AMOUNTS] + [work.resident_bytes, *work.flops_by_operand.values()]
        for at in (0, 2**14 - 1, 2**14, -1):
            where = np.unravel_index(at % np.prod(step.shape), step.shape)
            one = Step.decode(
                batch=np.broadcast_to(batch, step.shape)[where].item(), context=np.broadcast_to(context, step.shape)[where].item()
            )
            alone = Work(program, one)
            single = [alone.total(name) for name in AMOUNTS] + [alone.resident_bytes, *alone.flops_by_operand.values()]
            assert [np.broadcast_to(t, step.shape)[where] for t in totals] == single


def test_a_large_array_takes_no_memory_beside_its_result():
    work = forward(Model.load("llama-3-8b"), Step.decode(batch=8, context=np.arange(10**6)))
    tracemalloc.start()
    flops = work.total("flops")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < flops.nbytes + 2 * 2**20


def test_several_numbers_by_blocks():
    work = forward(Model.load("llama-3-8b"), Step.decode(batch=8, context=np.arange(20_000)))
    flops, weights, half = work.by_blocks(lambda part: (part.total("flops"), part.total("weight_bytes"), part.compulsory_bytes / 2))
    assert np.array_equal(flops, work.total("flops"))
    assert weights == work.total("weight_bytes")
    assert isinstance(weights, int)
    assert np.array_equal(half, work.compulsory_bytes / 2)


def test_work_travels_between_processes():
    work = forward(Model.load("gpt-oss-20b"), Step.decode(batch=8, context=100))
    assert pickle.loads(pickle.dumps(work)).resident_bytes == work.resident_bytes


class Convolution(DenseFeedForward):
    kind: Literal["convolution"] = "convolution"


def with_a_new_part():
    model = Model.load("llama-3-8b").but()
    group = model.layers[0].but()
    object.__setattr__(group, "feed_forward", Convolution(intermediate=4096))
    object.__setattr__(model, "layers", (group,))
    return model


def test_a_part_that_nobody_lowers_or_splits_is_named():
    with pytest.raises(UnsupportedModelError, match=r"Convolution cannot be counted: .* @lowers\(Convolution\)"):
        compile_model(with_a_new_part())
    with pytest.raises(UnsupportedModelError, match=r"Convolution cannot be split over devices: .* rule"):
        shard_model(with_a_new_part(), Parallel(tensor=2))


def test_what_adds_to_the_residual_stream_says_so():
    """One for each mixer and each feed-forward, in each kind of layer: the combination of experts is none."""
    for name, kinds in {"llama-3-8b": 1, "deepseek-v3": 2, "qwen3-next-80b-a3b": 2, "falcon-mamba-7b": 0.5}.items():
        added = [op for op in compile_model(Model.load(name)).ops if op.adds_residual]
        assert len(added) == 2 * kinds
        assert all(op.name.endswith(".residual") and op.family == "rowwise" for op in added)
