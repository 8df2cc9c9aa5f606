"""The step model: closed forms against loops over visible(p), constructors, arrays, and what no step can be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline import InvalidValueError, Step
from roofline.step import BIDIRECTIONAL, CAUSAL, Rows, Visibility
from roofline.visibility import cached_positions, visible_pairs, written_positions

SPANS = st.integers(1, 40)
VISIBILITIES = st.one_of(
    st.just(CAUSAL),
    SPANS.map(lambda span: Visibility("window", span)),
    SPANS.map(lambda span: Visibility("chunk", span)),
)
LENGTHS = st.integers(0, 120)


def positions_seen(p, visibility):
    """The positions that the token at position p attends to, itself included: the definition, one position at a time."""
    if visibility.kind == "causal":
        return set(range(p + 1))
    if visibility.kind == "window":
        return {q for q in range(p + 1) if p - q < visibility.span}
    return {q for q in range(p + 1) if q // visibility.span == p // visibility.span}


# --------------------------------------------------------------------------------------------------------- against loops


@given(new=st.integers(1, 60), cached=LENGTHS, visibility=VISIBILITIES)
def test_pairs_and_positions_read_against_loops(new, cached, visibility):
    seen = [positions_seen(cached + i, visibility) for i in range(new)]
    assert visible_pairs(new, cached, visibility) == sum(len(s) for s in seen)
    assert cached_positions(new, cached, visibility) == len({q for s in seen for q in s if q < cached})


@given(new=st.integers(1, 60), cached=LENGTHS, visibility=VISIBILITIES)
def test_positions_written_are_those_a_later_token_can_see(new, cached, visibility):
    later = positions_seen(cached + new, visibility)  # what the next token sees contains whatever any later one sees of these
    assert written_positions(new, cached, visibility) == len({q for q in later if cached <= q < cached + new})


@given(new=st.integers(1, 60), cached=LENGTHS, visibility=VISIBILITIES)
def test_positions_held_are_those_a_later_token_can_see(new, cached, visibility):
    later = positions_seen(cached + new, visibility)
    rows = Rows.seen(visibility)
    assert rows.after(cached + new) == len({q for q in later if q < cached + new})
    assert rows.most(cached + new) == max(rows.after(length) for length in range(cached + new + 1))


@given(new=st.integers(1, 60), count=st.integers(1, 5))
def test_an_encoder_sees_everything_new_and_keeps_nothing(new, count):
    step = Step.prefill(new, batch=count)
    assert step.pairs(BIDIRECTIONAL) == sum(1 for _ in range(count) for _ in range(new) for _ in range(new))
    assert step.read(BIDIRECTIONAL) == step.written(BIDIRECTIONAL) == 0


def test_closed_forms_are_exact_beyond_floats():
    n = 10**10 + 1  # n(n+1)/2 > 2^53
    assert visible_pairs(n, 0) == n * (n + 1) // 2
    assert visible_pairs(n, n, Visibility("window", 4096)) == n * 4096


@pytest.mark.parametrize(
    ("new", "cached", "visibility", "pairs", "read"),
    [
        # by hand: position p sees p+1; min(p+1, 4); (p mod 4)+1
        (4, 0, CAUSAL, 1 + 2 + 3 + 4, 0),
        (2, 3, CAUSAL, 4 + 5, 3),
        (6, 0, Visibility("window", 4), 1 + 2 + 3 + 4 + 4 + 4, 0),
        (1, 9, Visibility("window", 4), 4, 3),
        (1, 9, Visibility("window", 1), 1, 0),
        (6, 0, Visibility("chunk", 4), 1 + 2 + 3 + 4 + 1 + 2, 0),
        (3, 7, Visibility("chunk", 4), 4 + 1 + 2, 3),  # the first token ends the old chunk, the others start one
        (1, 8, Visibility("chunk", 4), 1, 0),  # a token at the start of a chunk sees only itself
    ],
)
def test_small_cases_by_hand(new, cached, visibility, pairs, read):
    assert visible_pairs(new, cached, visibility) == pairs
    assert cached_positions(new, cached, visibility) == read


# ---------------------------------------------------------------------------------------------------------- constructors


def totals(step, visibility=CAUSAL):
    return step.sequences, step.tokens, step.sampled, step.pairs(visibility), step.read(visibility), step.written(visibility)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        # sequences, T, R, pairs, kv read, kv written: by the definitions, computed by hand
        (Step.decode(), (1, 1, 1, 1, 0, 1)),
        (Step.decode(batch=8, context=1024), (8, 8, 8, 8 * 1025, 8 * 1024, 8)),
        (Step.prefill(4), (1, 4, 1, 10, 0, 4)),
        (Step.prefill(4, batch=3, logits="all"), (3, 12, 12, 30, 0, 12)),
        (Step.prefill(4, logits="none"), (1, 4, 0, 10, 0, 4)),
        (Step.prefill(6, cached=4), (1, 2, 1, 5 + 6, 4, 2)),  # a prefix hit of 4 of 6
        (Step.prefill(6, cached=4, logits="all"), (1, 2, 2, 11, 4, 2)),
        (Step.chunk(2, cached=4), (1, 2, 0, 11, 4, 2)),
        (Step.chunk(2, cached=4, last=True), (1, 2, 1, 11, 4, 2)),
        (Step.verify(3, batch=2, context=10), (2, 8, 8, 2 * (11 + 12 + 13 + 14), 20, 8)),
        (Step.verify(0, context=10), (1, 1, 1, 11, 10, 1)),  # no drafts: a decode step
        (Step.of(count=2, new=3, cached=1, sampled=2), (2, 6, 4, 2 * (2 + 3 + 4), 2, 6)),
        (Step.decode(batch=2, context=10) + Step.prefill(4), (3, 6, 3, 22 + 10, 20, 6)),
    ],
)
def test_constructors(step, expected):
    assert totals(step) == expected


def test_longest_sequence():
    assert (Step.decode(batch=2, context=10) + Step.prefill(4) + Step.chunk(5, cached=20)).longest == 25


def test_any_sampled_is_whether_not_how_many():
    assert [Step.chunk(5).any_sampled, Step.decode(batch=7).any_sampled, Step.verify(3).any_sampled] == [0, 1, 1]
    np.testing.assert_array_equal(Step.of(new=4, sampled=[0, 1, 4]).any_sampled, [0, 1, 1])


@given(chunks=st.lists(st.integers(1, 50), min_size=1, max_size=6), hit=LENGTHS, visibility=VISIBILITIES)
def test_chunked_prefill_conserves_tokens_samples_and_pairs(chunks, hit, visibility):
    whole = Step.prefill(hit + sum(chunks), cached=hit)
    done, parts = hit, []
    for i, new in enumerate(chunks):
        parts.append(Step.chunk(new, cached=done, last=i == len(chunks) - 1))
        done += new
    assert sum(p.tokens for p in parts) == whole.tokens
    assert sum(p.sampled for p in parts) == whole.sampled
    assert sum(p.pairs(visibility) for p in parts) == whole.pairs(visibility)


@given(tokens=st.integers(1, 40), context=LENGTHS, visibility=VISIBILITIES)
def test_decoding_one_by_one_sees_the_pairs_of_one_prefill(tokens, context, visibility):
    steps = [Step.decode(context=context + i) for i in range(tokens)]
    assert sum(s.pairs(visibility) for s in steps) == Step.prefill(context + tokens, cached=context).pairs(visibility)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(0, 30)), min_size=2, max_size=4), VISIBILITIES)
def test_a_mixture_is_the_sum_of_its_groups(groups, visibility):
    steps = [Step.of(count=c, new=n, cached=k) for c, n, k in groups]
    mixed = sum(steps[1:], start=steps[0])
    assert totals(mixed, visibility) == tuple(map(sum, zip(*(totals(s, visibility) for s in steps), strict=True)))


# ----------------------------------------------------------------------------------------------------------------- arrays


@given(
    news=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    cached=st.lists(LENGTHS, min_size=1, max_size=4),
    visibility=VISIBILITIES,
)
def test_arrays_equal_scalars(news, cached, visibility):
    grid = totals(Step.of(count=3, new=np.array(news)[:, None], cached=cached, sampled=1), visibility)
    for i, new in enumerate(news):
        for j, have in enumerate(cached):
            one = totals(Step.of(count=3, new=new, cached=have, sampled=1), visibility)
            for whole, scalar in zip(grid, one, strict=True):
                assert np.broadcast_to(whole, (len(news), len(cached)))[i, j] == scalar


def test_scalars_stay_python_ints_and_arrays_keep_their_shape():
    assert all(type(n) is int for n in totals(Step.decode(batch=np.int64(8), context=np.int32(5))))
    assert Step.decode(batch=[1, 2], context=[[0], [5], [9]]).pairs().shape == (3, 2)
    assert Step.decode(batch=np.array([2, 3], dtype=np.uint8)).tokens.tolist() == [2, 3]


def test_integer_arrays_do_not_overflow():
    step = Step.prefill(np.array([200_000], dtype=np.int32), batch=np.array([64], dtype=np.int8))
    assert step.pairs()[0] == 64 * 200_000 * 200_001 // 2


# --------------------------------------------------------------------------------------------------------------- bad input

NOT_COUNTS = [
    -1,
    1.5,
    math.nan,
    math.inf,
    -math.inf,
    True,
    "8",
    b"8",
    None,
    [],
    [1, -1],
    [1, 1.5],
    [1, math.nan],
    {1},
    {},
    1j,
    [[1], [1, 2]],
]


@pytest.mark.parametrize("bad", NOT_COUNTS, ids=repr)
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("batch", lambda x: Step.decode(batch=x)),
        ("context", lambda x: Step.decode(context=x)),
        ("prompt", lambda x: Step.prefill(x)),
        ("cached", lambda x: Step.prefill(8, cached=x)),
        ("batch", lambda x: Step.prefill(8, batch=x)),
        ("new", lambda x: Step.chunk(x)),
        ("cached", lambda x: Step.chunk(1, cached=x)),
        ("drafts", lambda x: Step.verify(x)),
        ("count", lambda x: Step.of(count=x, new=1)),
        ("sampled", lambda x: Step.of(new=1, sampled=x)),
    ],
    ids=str,
)
def test_invalid_counts_raise(name, build, bad):
    with pytest.raises(InvalidValueError, match=f"^{name} "):
        build(bad)
    with pytest.raises(ValueError, match=name):
        build(bad)


@pytest.mark.parametrize(
    "bad", [[True], np.array([True, True]), ["1", "2"], np.array("5"), np.array(["2020"], dtype="datetime64[Y]")], ids=repr
)
def test_arrays_of_non_numbers_raise(bad):
    with pytest.raises(InvalidValueError, match="batch"):
        Step.decode(batch=bad)


@pytest.mark.parametrize(
    "build", [lambda: Step.decode(batch=0), lambda: Step.prefill(0), lambda: Step.chunk(0), lambda: Step.of(count=0, new=1)]
)
def test_counts_must_be_at_least_one(build):
    with pytest.raises(InvalidValueError, match="at least 1"):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Step.decode(batch=[1, 2, 3], context=[1, 2]), r"do not broadcast.*\(3,\).*\(2,\)"),
        (lambda: Step.prefill([10, 20, 30], cached=[1, 2]), "broadcast"),
        (lambda: Step.decode(batch=[1, 2, 3]) + Step.prefill([10, 20]), "broadcast"),
        (lambda: Step.of(new=2, sampled=3), "sampled is 3 but new is 2"),
        (lambda: Step.of(new=[2, 4], sampled=3), "sampled is 3 but new is"),
        (lambda: Step.prefill(8, cached=8), "cached is 8 but prompt is 8"),
        (lambda: Step.prefill(8, cached=[0, 9]), "at least one token of the prompt"),
        (lambda: Step.prefill(8, logits="first"), 'logits is \'first\'; it must be "last", "all" or "none"'),
        (lambda: Step.prefill(8, logits=["last"]), "logits is"),
        (lambda: Visibility("window", 0), "window length is 0"),
        (lambda: Visibility("chunk", -5), "chunk length is -5"),
        (lambda: Visibility("window", 1.5), "window length is 1.5"),
        (lambda: Visibility("diagonal", 4), "diagonal"),
    ],
)
def test_invalid_combinations_of_step_arguments_raise(build, message):
    with pytest.raises(InvalidValueError, match=message):
        build()


@pytest.mark.parametrize("step", [Step.decode(context=5), Step.prefill(8, cached=4), Step.prefill(8) + Step.decode(context=[0, 5])])
def test_an_encoder_has_no_cache(step):
    with pytest.raises(InvalidValueError, match="encoder"):
        step.pairs(BIDIRECTIONAL)


def test_a_step_is_added_to_steps_only():
    with pytest.raises((InvalidValueError, TypeError)):
        Step.decode() + 3


def test_a_step_prints_its_groups():
    assert str(Step.decode(batch=8, context=1000) + Step.prefill(100)) == (
        "step of 108 token rows, 9 of them to the LM head\n"
        "  8 sequences: new 1, cached 1,000, to the LM head 1\n"
        "  1 sequence: new 100, cached 0, to the LM head 1"
    )
    assert str(Step.decode(batch=[1, 8], context=5)).startswith(
        "step of 1 … 8 token rows, 1 … 8 of them to the LM head (an array of 2 steps)"
    )
