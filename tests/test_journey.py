"""The batch journey against hand arithmetic, and its borders against a scan of every batch."""

import json
import math

import numpy as np
import pytest

from roofline import Hardware, InvalidValueError, Model, Step, decode_floor, step_floor
from roofline.batching import context_without_compute, critical_batch, free_rows, journey
from roofline.capacity import max_batch

RATES = {"memory_bandwidth": 3.35e12, "peak_flops_per_s": 989.4e12}
RIDGE = 989.4 / 3.35  # 295.34 FLOP/B
LLAMA, H100 = "llama-3-8b", "h100-sxm"

# Llama-3-8B by hand, from its published dimensions: 32 layers of width 4096, 32 query and 8 key-value heads of 128, 14336, 128256 words.
# Per layer q and o 2·4096², k and v 2·4096·1024, three matrices 4096·14336; the head 4096·128256; 65 norms of 4096.
MATRICES = 32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336) + 4096 * 128256
WEIGHTS = 2 * (MATRICES + 65 * 4096)  # bf16; of the embedding table a sequence reads one row
KV = 2 * 32 * 8 * 128 * 2  # 131,072 B per token
ROW = 2 * 4096
PAIR = 2 * 32 * 32 * (128 + 128)  # FLOP of one query-key pair in all layers and heads


def flops_per_sequence(context):
    return 2 * MATRICES + PAIR * (context + 1)


def bytes_per_sequence(context):
    return KV * (context + 1) + ROW  # context positions read, one written


def by_hand(context, *, ridge=RIDGE, cache=0):
    """Solve B·F / P = (w − C + B·k) / W for B."""
    return (WEIGHTS - cache) / (flops_per_sequence(context) / ridge - bytes_per_sequence(context))


# ---------------------------------------------------------------------------------------------------------- critical batch


def test_weights_only_the_critical_batch_is_the_ridge_in_16_bit():
    """I*·(2 bytes)/2 = 295: for a bare parameter count exactly, for Llama-3-8B because norms weigh what one pair of attention costs."""
    assert critical_batch("70B", **RATES).batch == pytest.approx(RIDGE, rel=1e-9)
    assert critical_batch("70B", **RATES).first_batch == 296
    assert round(critical_batch(LLAMA, **RATES).weights_only) == 295


@pytest.mark.parametrize(("weights", "size"), [("fp8", 1), ("int4", 4.25 / 8)])
def test_narrower_weights_are_balanced_by_smaller_batches(weights, size):
    """I*·(bytes per weight)/2, one peak given for every format."""
    assert critical_batch("70B", weights=weights, **RATES).batch == pytest.approx(RIDGE * size / 2, rel=1e-9)


def test_the_critical_batch_of_llama_3_8b_without_context():
    """15,009,849,344 / (15,009,841,152/295.34 − 139,264) = 296.15: the token's own cache and embedding row cost one sequence more."""
    critical = critical_batch(LLAMA, **RATES)
    assert (WEIGHTS, flops_per_sequence(0), bytes_per_sequence(0)) == (15_009_849_344, 15_009_841_152, 139_264)
    assert critical.batch == pytest.approx(296.155, abs=1e-3)
    assert critical.batch == pytest.approx(by_hand(0), rel=1e-9)
    assert critical.first_batch == 297
    assert critical.closed_form
    assert (critical.flops_per_sequence, critical.bytes_per_sequence) == (flops_per_sequence(0), bytes_per_sequence(0))
    assert critical.ridge == pytest.approx(RIDGE)


def test_critical_batch_grows_with_context_until_there_is_none():
    """F(c)/I* > k(c) needs (c+1)·(131,072 − 1775.2) < 50,811,709, so c + 1 < 392.98: context 391 is the last with a critical batch."""
    contexts = np.arange(393)
    critical = critical_batch(LLAMA, context=contexts, **RATES)
    assert np.all(np.diff(critical.batch[:392]) > 0)
    assert np.array_equal(critical.first_batch[:392], np.floor(critical.batch[:392]) + 1)
    np.testing.assert_allclose(critical.batch[:391], by_hand(contexts[:391]), rtol=1e-9)
    assert critical.exists.tolist() == [True] * 392 + [False]
    assert critical.intensity_limit[391] > RIDGE > critical.intensity_limit[392]
    assert context_without_compute(LLAMA, **RATES) == 392
    none = critical_batch(LLAMA, context=392, **RATES)
    assert (none.exists, none.first_batch) == (False, math.inf)
    assert "saturates at 295.3" in none.reason


def test_critical_batch_credits_the_last_level_cache():
    h = Hardware.load(H100)
    ridge = 132 * 4096 * 1.98e9 / h.memory_bandwidth  # SMs, FLOP per clock (H100 white paper), highest clock
    assert critical_batch(LLAMA, h, context=100).batch == pytest.approx(by_hand(100, ridge=ridge, cache=h.last_level_cache), rel=1e-4)


def test_latent_attention_turns_compute_bound_at_any_context_where_the_ridge_is_low():
    """DeepSeek-V3 absorbed: 2·128·(576+512) FLOP on 2·576 B per position is 242 FLOP/B: above A100's 153, below H100's 319."""
    assert 312e12 / 2.039e12 < 2 * 128 * (576 + 512) / (2 * 576) < RIDGE
    model = {"weights": "bf16", "activations": "bf16", "kv": "bf16"}
    assert context_without_compute("deepseek-v3", "a100-sxm-80gb", **model) is None
    limit = context_without_compute("deepseek-v3", "h100-sxm", **model)
    assert limit > 1000
    assert critical_batch("deepseek-v3", "h100-sxm", context=[limit - 1, limit], **model).exists.tolist() == [True, False]


@pytest.mark.parametrize("model", [LLAMA, "mistral-7b-v0.3", "mixtral-8x7b", "llama-4-scout", "deepseek-v4-flash", "gemma-3-27b"])
@pytest.mark.parametrize("machine", [H100, "mi300x", "rtx-4090"])
def test_from_the_context_without_compute_on_there_is_no_critical_batch(model, machine):
    limit = context_without_compute(model, machine)
    assert limit is not None
    beyond = limit + np.unique(np.geomspace(1, 10**6, 500).astype(int)) - 1
    assert not critical_batch(model, machine, context=beyond).exists.any()
    assert critical_batch(model, machine, context=limit - 1).exists


def test_without_a_peak_nothing_is_ever_compute_bound():
    assert critical_batch("70B", memory_bandwidth=3e12).batch == math.inf
    assert "no compute peak" in critical_batch("70B", memory_bandwidth=3e12).reason
    assert context_without_compute("70B", memory_bandwidth=3e12) == 0
    assert context_without_compute("70B", **RATES) is None


def test_critical_batch_of_a_recurrent_model_is_independent_of_context():
    """Falcon-Mamba's state, 64·8192·16 elements of 4 B, is written at each step and, except in the first, read: 2·7.2e9 FLOP on 67 MB.

    That is 216 FLOP/B: below the ridge of H100, above that of A100. The first step, which only writes, has twice the intensity.
    """
    critical = critical_batch("falcon-mamba-7b", "a100-sxm-80gb", context=[10, 1000, 10**6])
    assert len(set(critical.batch.tolist())) == 1
    assert context_without_compute("falcon-mamba-7b", "a100-sxm-80gb") is None
    assert context_without_compute("falcon-mamba-7b", H100) == 1


# ------------------------------------------------------------------------------------------------------------ brute force

MODELS = [
    *("llama-3-8b", "llama-2-7b", "qwen3-0.6b", "gemma-3-27b", "phi-3-mini-4k", "starcoderbase-1b", "gpt2", "llama-3-70b"),  # dense
    *("mixtral-8x7b", "qwen3-30b-a3b", "olmoe-1b-7b", "gpt-oss-20b", "llama-4-scout"),  # mixtures of experts
    *("deepseek-v2-lite", "deepseek-v3", "kimi-linear-48b-a3b"),  # latent attention
    *("falcon-mamba-7b", "zamba2-7b", "jamba-v0.1"),  # recurrent and hybrid
]
MACHINES = ["h100-sxm", "h200-sxm", "a100-sxm-80gb", "mi300x", "b200-sxm", "rtx-4090", "l4", "tpu-v5e", "apple-m3-max-40", "v100-sxm2-32gb"]
SCAN = 20_000


def triples():
    random = np.random.default_rng(20)
    for _ in range(50):
        context = random.choice([0, int(random.integers(1, 300)), int(10 ** random.uniform(2, 5))])
        yield str(random.choice(MODELS)), str(random.choice(MACHINES)), int(context)


TRIPLES = list(triples())


def scan(model, machine, context, **options):
    """Look at every batch: what binds, and whether arithmetic takes longest, room or not."""
    floor = decode_floor(model, machine, batch=np.arange(1, SCAN + 1), context=context, **options)
    return floor.bound, floor.roof == "compute"


def check(model, machine, context, **options):
    bound, compute = scan(model, machine, context, **options)
    result = journey(model, machine, context=context, **options)
    said = np.concatenate(
        [np.full(min(r.last_batch or SCAN, SCAN) - r.first_batch + 1, r.bound) for r in result.regimes if r.first_batch <= SCAN]
    )
    assert np.array_equal(said, bound)
    first = result.critical.first_batch
    if first <= SCAN:
        assert compute[int(first) - 1 :].all()
        assert first == 1 or not compute[int(first) - 2]
    else:
        assert not compute[-1]
    if result.max_batch is not None and result.max_batch < SCAN:
        assert result.max_batch == np.count_nonzero(bound != "capacity")
    return " → ".join(r.bound for r in result.regimes)


@pytest.mark.parametrize(("model", "machine", "context"), TRIPLES)
def test_borders_are_those_of_a_scan_of_every_batch(model, machine, context):
    check(model, machine, context, weights="bf16", activations="bf16")


@pytest.mark.parametrize(
    ("model", "machine", "context", "options", "route"),
    [
        (LLAMA, H100, 128, {}, "memory → compute → capacity"),
        (LLAMA, H100, 8192, {}, "memory → capacity"),  # never compute-bound
        ("llama-3-70b", H100, 0, {}, "capacity"),  # weights alone do not fit
        ("70B", None, 0, {"memory_bandwidth": 3e12, "peak_flops_per_s": 1e15}, "memory → compute"),  # no capacity given
        ("70B", None, 0, {"memory_bandwidth": 3e12}, "memory"),
        ("gpt2", "apple-m3-max-40", 0, {}, "memory → compute → capacity"),
        ("gpt2", "mi300x", 0, {}, "compute → capacity"),  # 256 MB of last-level cache hold 124 M parameters in 16 bit
        ("gpt2", "mi300x", 100, {}, "compute → memory → capacity"),  # until the sequences' own cache no longer fits there
    ],
)
def test_regimes_may_be_skipped(model, machine, context, options, route):
    assert check(model, machine, context, **({"weights": "bf16"} if model == "gpt2" else options)) == route


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("llama-3-70b", {"tensor_parallel": 8}),
        ("llama-3-70b", {"tensor_parallel": 2, "pipeline_parallel": 2}),
        ("mixtral-8x7b", {"tensor_parallel": 2}),
        ("deepseek-v3", {"data_parallel": 8, "expert_parallel": 8}),
    ],
)
def test_borders_on_several_devices(model, options):
    check(model, "h200-sxm", 512, **options)
    # capacity counts in pages of tokens; in pages of one, and with the token that the step adds, it is the same sum
    assert journey(model, "h200-sxm", context=512, **options).max_batch == max_batch(model, "h200-sxm", context=513, page=1, **options)


def test_where_the_links_are_slow_one_more_sequence_may_load_them_most():
    """On 8 H100, 64 all-reduces of 4096·2 B are 524,288 B per token: 1.17 µs at 450 GB/s.

    Arithmetic takes 2·32·218,103,808/8 FLOP at 2141e12 and the head 2·525,336,576/8 at 1070e12: 0.81 + 0.12 = 0.93 µs.
    """
    options = {"tensor_parallel": 8, "weights": "fp8"}
    critical = critical_batch("llama-3-8b", H100, **options)
    assert (critical.exists, critical.limit) == (False, "network")
    assert "links" in critical.reason
    assert check("llama-3-8b", H100, 0, **options).startswith("memory → network")
    assert critical_batch("llama-3-8b", H100, tensor_parallel=2).exists


# --------------------------------------------------------------------------------------------------------------- free rows


def test_free_rows_of_a_bare_parameter_count():
    """295 rows are free altogether: at batch 8, 8·(k + 1) ≤ 295 gives 35 drafts, and 295 − 8 = 287 prefill tokens."""
    rows = free_rows("70B", batch=8, **RATES)
    assert (rows.drafts, rows.chunk) == (35, 287)
    assert rows.time_s == rows.verify_s == rows.chunk_s == 140e9 / 3.35e12
    assert free_rows("70B", batch=[1, 295, 296, 1000], **RATES).drafts.tolist() == [294, 0, 0, 0]
    assert free_rows("70B", memory_bandwidth=3e12).drafts == math.inf


@pytest.mark.parametrize(
    ("model", "batch", "context"), [(LLAMA, 1, 1000), (LLAMA, 16, 4096), ("mixtral-8x7b", 4, 100), ("deepseek-v3", 8, 3000)]
)
def test_free_rows_are_those_of_a_scan(model, batch, context):
    plain = decode_floor(model, "h200-sxm", batch=batch, context=context)
    rows = free_rows(model, "h200-sxm", batch=batch, context=context)
    some = np.arange(1, 3000)
    decode = Step.decode(batch=batch, context=context)
    for found, steps in ((rows.drafts, Step.verify(some, batch=batch, context=context)), (rows.chunk, decode + Step.chunk(some))):
        assert found == np.count_nonzero(step_floor(model, "h200-sxm", steps).compute_s <= plain.time_s)
    assert rows.verify_s >= rows.time_s
    assert rows.chunk_s >= rows.time_s


def test_experts_make_free_arithmetic_cost_bytes():
    """One token reads 2 of Mixtral's 8 experts, many read them all: free arithmetic is no free step, and the times say so."""
    rows = free_rows("mixtral-8x7b", "h200-sxm")
    assert rows.drafts > 100
    assert rows.verify_s > 3 * rows.time_s


# -------------------------------------------------------------------------------------------------------------- what it says


def test_the_journey_in_words():
    text = str(journey(LLAMA, H100, context=128))
    assert "memory → compute → capacity" in text
    assert "compute: batch 494 to " in text  # (w − C)/(F/I* − k) = 493.8, see test_on_a_named_machine
    assert "critical batch: 494 (weights only 319.4)" in text
    assert "(does not fit)" in str(journey("llama-3-70b", H100))
    assert "critical batch: none" in str(journey(LLAMA, H100, context=8192))


def test_curves_and_plain_data():
    result = journey(LLAMA, H100, context=128, batches=[1, 64, 5000])
    single = [decode_floor(LLAMA, H100, batch=b, context=128) for b in (1, 64, 5000)]
    assert result.time_s.tolist() == [f.time_s for f in single]
    assert result.bound.tolist() == ["memory", "memory", "capacity"]
    assert result.intensity == pytest.approx([f.intensity for f in single])
    data = json.loads(result.to_json())
    assert data["regimes"][0] == {"bound": "memory", "first_batch": 1, "last_batch": 493}
    assert data["max_batch"] == result.max_batch
    assert [r["batch"] for r in result.to_records()] == [1, 64, 5000]
    for other in (critical_batch(LLAMA, H100, context=[0, 10**6]), critical_batch(LLAMA, H100), free_rows(LLAMA, H100)):
        json.loads(other.to_json())
        assert repr(other).startswith("<")
        assert other.to_records()
    assert len(journey(LLAMA, H100).batch) > 100


@pytest.mark.parametrize("call", [journey, critical_batch, free_rows])
def test_invalid_journey_arguments_raise(call):
    for arguments in ({"context": -1}, {"context": 1.5}, {"context": [[]], "batches": [0]} if call is journey else {"context": "x"}):
        with pytest.raises(InvalidValueError):
            call(LLAMA, H100, **arguments)
    with pytest.raises(InvalidValueError):
        call(LLAMA)
    with pytest.raises(InvalidValueError, match="encoder"):
        call("bert-large", H100, context=5, weights="bf16")
    with pytest.raises(TypeError, match="wieghts"):
        call(LLAMA, H100, wieghts="fp8")


def test_a_journey_is_at_one_context_and_from_batch_one():
    with pytest.raises(InvalidValueError, match="one context"):
        journey(LLAMA, H100, context=[0, 1])
    with pytest.raises(InvalidValueError, match="batches"):
        journey(LLAMA, H100, batches=[0, 1])


def test_journey_takes_names_and_loaded_models():
    model, machine = Model.load(LLAMA), Hardware.load(H100)
    assert critical_batch(model, machine).batch == critical_batch(LLAMA, H100).batch
