"""What fits: against vLLM's published start-up logs, hand arithmetic, and a count of every page and position by brute force."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from catalogue import every_model
from roofline import Hardware, InvalidValueError, Model, Step, fewest_devices, max_batch, max_context, resident, step_floor
from roofline.capacity.share import device_shares
from roofline.formats import Format
from roofline.forward import forward
from roofline.model import Attention, Held
from roofline.parallel import Parallel
from roofline.step import Rows

GIB = 2**30
FEW = settings(max_examples=60, deadline=None)


# ------------------------------------------------------------------------------------------- vLLM's arithmetic, from its own logs

# model, tensor parallel, then as logged: utilization, total GiB, weights, non-torch and activation GiB, blocks of 16 tokens, and
# "Maximum concurrency for N tokens per request". Keys, values, layers, heads, width and bytes make the page.
LOGS = {
    # github.com/oracle-samples/oci-data-science-ai-samples, ai-quick-actions/troubleshooting-tips.md, "Out of Memory (OOM) Error" II:
    # an 8B Llama of 131,072 positions on an A10, vLLM 0.7; it also prints "maximum number of tokens ... in KV cache (37696)"
    "llama-8b-a10": ("llama-3.1-8b", 1, 0.90, 22.07, 14.99, 0.05, 0.22, 2356, 131072, 0.29, 2 * 32 * 8 * 128 * 2),
    # github.com/vllm-project/vllm/issues/15039: four H100 NVL with 32.95 GiB of weights each, 131.8 GiB in all: a 70B Llama in bf16
    "llama-70b-4-gpus": ("llama-3.1-70b", 4, 0.89, 79.33, 32.95, 0.28, 1.30, 29547, 131072, 3.61, 2 * 80 * 8 * 128 * 2 // 4),
    # github.com/generative-computing/mellea/pull/416: weights of 1.12 GiB, pages of 61.84 GiB / 36184 = 1.75 MiB: Qwen3-0.6B in bf16
    "qwen3-0.6b": ("qwen3-0.6b", 1, 0.80, 79.19, 1.12, 0.16, 0.23, 36184, 8192, 70.67, 2 * 28 * 8 * 128 * 2),
}


@pytest.mark.parametrize("case", LOGS.values(), ids=LOGS)
def test_blocks_and_concurrency_as_vllm_prints_them(case):
    model, tensor, utilization, total, weights, other, activations, blocks, length, concurrency, token = case
    empty = resident(model, batch=0, tensor_parallel=tensor)
    assert empty.weight_bytes == pytest.approx(weights * GIB, rel=0.01)
    assert empty.page_bytes == 16 * token
    # blocks = (utilization · total − weights − non-torch − activations) / page, with the weights as logged
    rest = round((weights + other + activations) * GIB) - empty.weight_bytes
    asked = resident(model, memory_capacity=total * GIB, utilization=utilization, batch=0, reserve=max(rest, 0), tensor_parallel=tensor)
    rounding = 4 * 0.005 * GIB / (16 * token) + 1  # four logged numbers of two decimals
    assert asked.free_pages == pytest.approx(blocks, abs=rounding)
    # from the number of blocks on, everything is exact
    memory = empty.weight_bytes + blocks * 16 * token
    same = {"memory_capacity": memory, "tensor_parallel": tensor}
    assert resident(model, batch=0, **same).cache_tokens == blocks * 16 == max_context(model, **same)
    assert max_batch(model, context=length, **same) == blocks // (length // 16) == int(concurrency)
    assert blocks * 16 / length == pytest.approx(concurrency, abs=0.005)


def test_sequences_as_vllm_admits_them_with_windowed_layers():
    """A start of gpt-oss-120b on four H100 under vLLM 0.10.1.1 prints 45.32 GiB, 2,640,144 tokens and 284.25 sequences of 16,384.

    Two groups of 18 layers share the blocks, so there are 2 · 2,640,144 / 16 = 330,018. A sequence books 1024 of them in full layers and
    ceil((127 + 2048) / 16) + 1 = 137 in windowed ones: vLLM, v1/kv_cache_interface.py, SlidingWindowSpec.max_admission_blocks_per_request.
    """
    asked = {"context": 16384, "tensor_parallel": 4, "in_flight_tokens": 2048}
    block = 18 * 16 * 2 * 2 * 64 * 2  # layers of a group, tokens, keys and values, heads of a device, width, bytes
    one = resident("gpt-oss-120b", batch=1, **asked).kv_bytes
    assert one == (1024 + 137) * block
    assert 330018 * block / one == pytest.approx(284.25, abs=0.005)
    room = resident("gpt-oss-120b", tensor_parallel=4).weight_bytes + 330018 * block
    assert max_batch("gpt-oss-120b", memory_capacity=room, **asked) == 284
    assert max_batch("gpt-oss-120b", memory_capacity=room, context=16384, tensor_parallel=4) == 319  # what is kept, 8 pages of a window


def test_tokens_in_flight_book_a_window_and_a_page_or_a_chunk():
    """vLLM's own tests: a window of 1024 and 1024 tokens are 129 blocks of 16, with 2048 tokens 193; a chunk has no page beside it."""
    assert -(-Rows("window", 1024).booked(16384, 1024) // 16) + 1 == 129
    assert -(-Rows("window", 1024).booked(16384, 2048) // 16) + 1 == 193
    assert Rows("open", 8192).booked(100_000, 2048) == 8192 + 2048
    assert Rows("all").booked(1000, 2048) == Rows("all").most(1000)
    short = {"tensor_parallel": 4, "page": 1}
    kept, booked = (resident("gpt-oss-120b", batch=1, context=100, in_flight_tokens=t, **short).kv_bytes for t in (0, 2048))
    assert booked - kept == 18 * 2 * 2 * 64 * 2  # a window that is not full books its tokens and one page
    empty = resident("gpt-oss-120b", batch=1, context=0, in_flight_tokens=2048, **short)
    assert empty.kv_bytes == 0
    lengths = resident("gpt-oss-120b", batch=1, context=np.array([0, 100]), in_flight_tokens=2048, **short)
    assert list(lengths.kv_bytes) == [0, booked]


def test_the_a10_of_the_log_holds_37696_tokens():
    weights = resident("llama-3.1-8b").weight_bytes
    assert max_context("llama-3.1-8b", memory_capacity=weights + 2356 * 16 * 131072 + 131071) == 37696


# --------------------------------------------------------------------------------------------------------------- hand arithmetic


def test_kv_of_llama_3_70b():
    """2 · 80 layers · 8 heads · 128 · 2 B = 327,680 B per token; 140 GB of it for 1024 · 417 tokens."""
    r = resident("llama-3-70b", batch=2, context=1024)
    assert (r.kv_bytes, r.state_bytes) == (2 * 1024 * 327_680, 0)
    assert resident("llama-3-70b", context=1025).kv_bytes == 1040 * 327_680
    assert resident("llama-3-70b", context=1025, page=1).kv_bytes == 1025 * 327_680
    assert resident("llama-3-70b", context=1024, kv="fp8").kv_bytes == 1024 * 163_840


def test_tensor_parallel_multiplies_the_kv_budget():
    """Eight key-value heads: a page shrinks by t until t = 8 and not beyond, while every device brings its memory."""
    pages = [resident("llama-3-70b", tensor_parallel=t).page_bytes for t in (1, 2, 4, 8, 16)]
    assert pages == [16 * 327_680 // d for d in (1, 2, 4, 8, 8)]
    four, eight = (resident("llama-3-70b", "h100-sxm", batch=0, tensor_parallel=t) for t in (4, 8))
    assert eight.cache_tokens > 2 * four.cache_tokens  # twice the devices, and fewer weights on each
    room = [r.budget_bytes - r.weight_bytes for r in (four, eight)]
    assert [r.cache_tokens for r in (four, eight)] == [x // p * 16 for x, p in zip(room, pages[2:4], strict=True)]


def test_latent_cache_is_a_copy_on_every_device():
    """DeepSeek-V3: 61 layers · (512 + 64) · 2 B = 70,272 B per token, whatever the degree."""
    assert [resident("deepseek-v3", context=16, tensor_parallel=t).kv_bytes for t in (1, 8)] == [16 * 70_272] * 2


def test_windowed_layers_are_bounded_by_their_window():
    """gpt-oss-20b: 12 of 24 layers see 128 tokens; 8 heads · 64 · 2 · 2 B = 2048 B per token and layer."""
    for length in (1, 16, 127, 128, 5000):
        pages = [math.ceil(n / 16) * 16 for n in (length, min(length, 127))]
        assert resident("gpt-oss-20b", context=length).kv_bytes == 12 * 2048 * sum(pages)


def test_recurrent_state_is_independent_of_context():
    """Falcon-Mamba-7B: 64 layers · 8192 channels · (16 · 4 B of state + 3 · 2 B of convolution, or all in 32 bit)."""
    short, long = (resident("falcon-mamba-7b", batch=3, context=c) for c in (1, 10**6))
    assert short.kv_bytes == long.kv_bytes == 0
    assert short.state_bytes == long.state_bytes == 3 * Model.load("falcon-mamba-7b").state_bytes_per_sequence
    assert max_context("falcon-mamba-7b", "h100-sxm") == math.inf
    assert max_batch("falcon-mamba-7b", "h100-sxm", context=1) == max_batch("falcon-mamba-7b", "h100-sxm", context=10**9) < math.inf


def test_unlimited_batch_and_context_are_infinite():
    assert max_batch("7B", "h100-sxm", context=8192) == math.inf == max_context("7B", "h100-sxm")
    assert max_batch("70B", "h100-sxm", context=8192) == 0 == max_context("70B", "h100-sxm")
    assert fewest_devices("70B", memory_capacity=80e9) == 2  # 140 GB
    assert fewest_devices("llama-3-70b", memory_capacity=1e8, at_most=64) == math.inf
    assert resident("7B").fits is None
    assert resident("7B", "h100-sxm", activation_tokens=100).activation_bytes == 0


def test_activations_of_llama_3_8b():
    """One operator and the residual: 8192 rows of 2 · 14336 in, 14336 out, and 4096 beside them, 2 B each."""
    r = resident("llama-3-8b", "h100-sxm", activation_tokens=8192, reserve=10**9, utilization=0.5)
    assert r.activation_bytes == 8192 * (3 * 14336 + 4096) * 2
    assert r.free_bytes == r.budget_bytes - r.weight_bytes - r.activation_bytes - 10**9
    assert r.budget_bytes == int(0.5 * Hardware.load("h100-sxm").memory_capacity)


def test_a_mix_and_a_shared_prefix():
    """Nine of 2048 and one of 32768 tokens; a prefix of 1000 tokens is 62 whole pages, in memory once."""
    token = 131_072
    mix = resident("llama-3-8b", context={2048: 9, 32768: 1}, batch=2)
    assert mix.kv_bytes == 2 * (9 * 2048 + 32768) * token
    shared = resident("llama-3-8b", context=2048, batch=9, shared_prefix=1000)
    assert shared.kv_bytes == (992 + 9 * (2048 - 992)) * token
    both = resident("llama-3-8b", context={2048: 9, 32768: 1}, batch=2, shared_prefix=1000)
    assert both.kv_bytes == (992 + 2 * (9 * (2048 - 992) + 32768 - 992)) * token
    weights = mix.weight_bytes
    assert max_batch("llama-3-8b", memory_capacity=weights + 5 * (9 * 2048 + 32768) * token, context={2048: 9, 32768: 1}) == 5


def test_compressed_entries_share_a_prefix_too():
    model = "deepseek-v4-flash"
    one, two = (resident(model, batch=b, context=4096, shared_prefix=4096) for b in (1, 2))
    assert one.kv_bytes == two.kv_bytes  # identical sequences are in memory once
    assert two.state_bytes == 2 * one.state_bytes > 0
    assert one.total_bytes == resident(model, context=4096).total_bytes


def test_pipeline_stages_hold_their_layers_of_every_step_in_flight():
    """Two stages of 16 layers: half the cache of a sequence each, for two steps in flight."""
    one, two = (resident("llama-3-8b", batch=4, context=1024, pipeline_parallel=p) for p in (1, 2))
    assert two.kv_bytes == one.kv_bytes
    assert one.weight_bytes / 2 <= two.weight_bytes < one.weight_bytes
    assert resident("llama-3-8b", batch=5, context=1024, data_parallel=2).kv_bytes == 3 * 1024 * 131_072
    assert resident("llama-3-8b", batch=1, context=1024, context_parallel=2).kv_bytes == 512 * 131_072


# ------------------------------------------------------------------------------------------------------------------ brute force


def count_by_hand(model, batch, length, page, kv):
    """Every layer, every page: the positions a sequence may have to keep, one by one for windows, page by page."""
    size, total = Format.load(kv).bytes_per_element, model.stored_bytes()
    for group in model.layers:
        mixer = group.mixer
        if mixer is None:
            continue
        kept = length if mixer.visible == "causal" else min(length, mixer.span - 1)
        filled = 0
        while filled < kept:
            filled += page
        total += batch * group.count * filled * mixer.kv_heads * (mixer.head_dim + mixer.value_dim) * size
    return total


@FEW
@given(strategies.models(), st.integers(1, 300), st.integers(0, 3000), st.sampled_from((1, 16, 64)), st.sampled_from(("bf16", "fp8")))
def test_resident_against_a_count_by_hand(model, batch, length, page, kv):
    assert resident(model, batch=batch, context=length, page=page, kv=kv).total_bytes == count_by_hand(model, batch, length, page, kv)


@FEW
@given(strategies.models(), st.integers(10**8, 10**13), st.integers(1, 100_000), st.sampled_from((1, 16, 64)), st.integers(0, 5000))
def test_one_sequence_more_does_not_fit(model, memory, length, page, prefix):
    asked = {"memory_capacity": memory, "page": page, "context": length, "shared_prefix": min(prefix, length)}
    most = max_batch(model, **asked)
    if most == math.inf:
        assert resident(model, batch=10**15, **asked).fits
        return
    assert isinstance(most, int)
    assert most == 0 or resident(model, batch=most, **asked).fits
    assert not resident(model, batch=most + 1, **asked).fits


@FEW
@given(strategies.models(), st.integers(10**8, 10**13), st.integers(1, 5000), st.sampled_from((1, 16, 64)), st.integers(0, 5000))
def test_one_token_more_does_not_fit(model, memory, batch, page, prefix):
    asked = {"memory_capacity": memory, "page": page, "batch": batch, "shared_prefix": prefix}
    longest = max_context(model, **asked)
    if longest == math.inf:
        assert resident(model, context=10**15, **asked).fits
    elif longest == 0:
        assert not resident(model, context=max(prefix, 1), **asked).fits
    else:
        assert resident(model, context=longest, **asked).fits
        assert not resident(model, context=longest + 1, **asked).fits


NAMED = ("llama-3-8b", "gpt-oss-20b", "deepseek-v4-flash", "qwen3-next-80b-a3b", "recurrentgemma-2b", "deepseek-v3.2", "gemma-3-27b")


@pytest.mark.parametrize("model", NAMED)
@pytest.mark.parametrize("degrees", [{}, {"tensor_parallel": 2}, {"pipeline_parallel": 3, "data_parallel": 2}, {"context_parallel": 2}])
def test_max_batch_and_max_context_of_catalogue_models_are_exact(model, degrees):
    asked = {"memory_capacity": 8e11, "weights": "fp8", **degrees}
    for length in (1, 1000, 50_000):
        most = max_batch(model, context=length, shared_prefix=length // 2, **asked)
        step = degrees.get("data_parallel", 1)  # as many sequences in each group
        fit = [resident(model, batch=most + d, context=length, shared_prefix=length // 2, **asked).fits for d in (0, step)]
        assert fit == [True, False]
    longest = max_context(model, batch=300, **asked)
    if longest != math.inf:
        assert [resident(model, batch=300, context=longest + d, **asked).fits for d in (0, 1)] == [True, False]


DEGREES = ({}, {"tensor_parallel": 2}, {"pipeline_parallel": 3}, {"data_parallel": 2}, {"context_parallel": 2})


@pytest.mark.parametrize("name", every_model())
def test_without_pages_memory_is_what_the_floor_says(name):
    """The same bytes, exactly, where what the model keeps divides and no chunk or entry is open.

    A sequence of 8191 tokens is one short of a chunk (8192) and of entries (4, 128): as much is open as ever before, which is what has to
    fit, while the floor looks at the moment after the step. So they differ at other lengths. Devices that share a cache hold whole
    positions each, where the floor divides: up to one row of each kind for every sequence.
    """
    model = Model.load(name)
    is_open = any(h.rows.kind == "open" for g in model.layers if g.mixer is not None for h in g.mixer.keeps())
    encoder = any(isinstance(g.mixer, Attention) and g.mixer.visible == "bidirectional" for g in model.layers)
    odd = any(isinstance(g.mixer, Attention) and g.mixer.heads % 2 for g in model.layers)
    kept_elsewhere = any(getattr(g.mixer, "shared_cache", False) for g in model.layers)
    for degrees in DEGREES:
        parallel = Parallel(*(degrees.get(f"{d}_parallel", 1) for d in ("tensor", "pipeline", "expert", "data", "context")))
        for length in (1, 1001, 8191):
            step = Step.prefill(length, batch=10) if encoder else Step.decode(batch=10, context=length - 1)
            if odd and "tensor_parallel" in degrees:  # refused
                continue
            if (model.encoder is not None or kept_elsewhere) and "pipeline_parallel" in degrees:  # refused
                continue
            floor = step_floor(model, "h200", step, weights="bf16", kv="fp8", **degrees).resident_bytes
            ours = resident(model, batch=10, context=length, page=1, weights="bf16", kv="fp8", **degrees).total_bytes
            if parallel.context > 1:
                (share,) = device_shares(model, parallel, weights="bf16", kv="fp8")
                assert ours - floor >= 0
                assert length < 8191 or ours - floor <= 10 * sum(held.size for held in share.held)
            else:
                assert ours == floor if not is_open or length == 8191 else ours >= floor


def test_what_is_kept_is_said_by_the_mixer_alone(monkeypatch):
    """Memory that no shipped mixer has: 7 elements for every 10 positions, 5 bytes after the first 100, and 3 elements of state."""
    kept = (
        Held(Rows("entries", 10), 7),
        Held(Rows("overlap", 100, cached=False), 5, "fp8"),
        Held(Rows("state", cached=False), 3, "stream"),
    )
    monkeypatch.setattr(Attention, "keeps", lambda self: kept)
    model = Model.load("llama-3-8b").but()
    early = resident(model, batch=2, context=95, page=1)
    assert (early.kv_bytes, early.state_bytes) == (2 * 32 * 9 * 7 * 2, 2 * 32 * 3 * 2)
    later = resident(model, batch=2, context=105, page=1)
    assert (later.kv_bytes, later.state_bytes) == (2 * 32 * 10 * 7 * 2, 2 * 32 * (5 + 3 * 2))
    assert forward(model, Step.decode(batch=2, context=104)).held_bytes == later.kv_bytes + later.state_bytes
    assert model.kv_bytes_per_token() == pytest.approx(32 * 0.7 * 2)
    assert model.state_bytes_per_sequence == 32 * 3 * 2


@pytest.mark.parametrize("model", NAMED)
def test_resident_bytes_are_monotone(model):
    lengths = np.unique(np.geomspace(1, 200_000, 400).astype(int))
    for extra in ({}, {"shared_prefix": 1}):
        totals = resident(model, batch=7, context=lengths, **extra).total_bytes
        assert np.all(np.diff(totals) >= 0)
        most = max_batch(model, "h200", context=lengths, tensor_parallel=2, **extra)
        assert np.all(most[1:] <= most[:-1])
    batches = np.arange(1, 200)
    longest = max_context(model, "h200", batch=batches, tensor_parallel=2)
    assert np.all(longest[1:] <= longest[:-1])
    alone, shared = (resident(model, batch=50, context=20_000, shared_prefix=s).total_bytes for s in (0, 19_900))
    assert shared < alone


@pytest.mark.parametrize("model", NAMED)
def test_array_results_equal_scalar_results(model):
    lengths, batches = np.array([1, 17, 4096, 100_000]), np.array([[1], [33]])
    asked = {"memory_capacity": 8e11, "weights": "fp8"}
    r = resident(model, batch=batches, context=lengths, **asked)
    most, longest = max_batch(model, context=lengths, **asked), max_context(model, batch=batches, **asked)
    few = fewest_devices(model, batch=batches, context=lengths, memory_capacity=4e10, weights="fp8", at_most=8)
    for i, b in enumerate((1, 33)):
        assert longest[i, 0] == max_context(model, batch=b, **asked)
        for j, n in enumerate(lengths.tolist()):
            one = resident(model, batch=b, context=n, **asked)
            assert (r.total_bytes[i, j], r.free_pages[i, j]) == (one.total_bytes, one.free_pages)
            assert few[i, j] == fewest_devices(model, batch=b, context=n, memory_capacity=4e10, weights="fp8", at_most=8)
    assert most.tolist() == [max_batch(model, context=n, **asked) for n in lengths.tolist()]


def test_fewest_devices_is_the_first_degree_that_fits():
    """32 query heads: 3 does not divide them, so that what needs three devices takes four."""
    for batch in (1, 40, 100, 300):
        need = fewest_devices("llama-3-8b", memory_capacity=24e9, batch=batch, context=8192)
        degrees = (1, 2, 4, 8, 16, 32)
        fit = [resident("llama-3-8b", memory_capacity=24e9, batch=batch, context=8192, tensor_parallel=t).fits for t in degrees]
        assert need == (degrees[fit.index(True)] if any(fit) else math.inf)
    assert fewest_devices("llama-3-70b", "h100-sxm", pipeline_parallel=2, utilization=0.9) == 2
    assert fewest_devices("deepseek-v3", "h200", expert_parallel=8) >= 8


# ------------------------------------------------------------------------------------------------------ results and bad questions


def test_capacity_result_text_and_plain_data():
    r = resident("llama-3-70b", "h100-sxm", batch=64, context=8192, tensor_parallel=4, utilization=0.9)
    text = str(r)
    assert "DOES NOT FIT" in text
    assert "KV cache: 42.95 GB" in text  # 64 · 8192 · 327,680 / 4
    assert "devices: 4" in text
    assert r.to_dict()["fits"] is False
    assert len(resident("llama-3-70b", context=np.array([1, 2, 3])).to_records()) == 3
    assert "schema_version" in resident("llama-3-70b", "h100-sxm", batch=np.array([1, 2])).to_json()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"context": -1}, "context"),
        ({"context": 10.5}, "context"),
        ({"context": {}}, "empty mix"),
        ({"context": {100: 0}}, "100 tokens"),
        ({"context": 10, "page": 0}, "page"),
        ({"context": 10, "page": np.array([1, 2])}, "single whole number"),
        ({"context": 10, "shared_prefix": 11}, "shared_prefix"),
        ({"context": 10, "utilization": 0}, "utilization"),
        ({"context": 10, "utilization": 1.5}, "utilization"),
        ({"context": 10, "utilization": float("nan")}, "utilization"),
        ({"context": 10, "reserve": -1}, "reserve"),
        ({"context": 10, "memory_capacity": 80}, "memory_capacity"),
        ({"context": 10, "tensor_parallel": 3}, "evenly"),
        ({"context": 10, "tensor_parallel": 0}, "tensor_parallel"),
    ],
)
def test_invalid_capacity_arguments_raise(asked, says):
    with pytest.raises(InvalidValueError, match=says):
        max_batch("llama-3-8b", **{"memory_capacity": 80e9, **asked})


def test_unknown_memory_capacity_raises():
    bare = Hardware.from_rates(memory_bandwidth=3e12)
    for ask in (lambda h: max_batch("7B", h, context=1), lambda h: max_context("7B", h), lambda h: fewest_devices("7B", h)):
        with pytest.raises(InvalidValueError, match="memory capacity of custom is not known"):
            ask(bare)
        with pytest.raises(InvalidValueError, match="no machine"):
            ask(None)
    with pytest.raises(InvalidValueError, match="not both"):
        max_context("7B", "h100-sxm", memory_capacity=80e9)
    assert resident("7B", bare).fits is None


def test_counts_of_arrays_are_whole_numbers():
    # (80e9 - 16.06e9) / (8192 * 131,072 B) = 59.5
    batches = max_batch("llama-3-8b", memory_capacity=80e9, context=np.array([8192, 10**7]))
    assert batches.dtype.kind == "i"
    assert batches.tolist() == [59, 0]
    assert max_context("llama-3-8b", memory_capacity=80e9, batch=np.array([1, 59])).dtype.kind == "i"
    devices = fewest_devices("llama-3-70b", memory_capacity=80e9, batch=np.array([1, 32]), context=8192)
    assert (devices.dtype.kind, devices.tolist()) == ("i", [2, 4])
    # a state-space model has no cache that grows
    assert max_context("falcon-mamba-7b", memory_capacity=80e9, batch=[1, 2]).tolist() == [math.inf, math.inf]


def test_memory_of_an_array_says_which_points_do_not_fit():
    text = str(resident("llama-3-8b", "h100-sxm", batch=[1, 1000], context=8192))
    assert text.splitlines()[0].endswith("DOES NOT FIT: 1 of 2 points (batch 1000)")
