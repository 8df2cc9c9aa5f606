"""Recurrent and hybrid models against counts taken on the reference implementations, and their states against the plain recurrences."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reference_counts import load_counts
from roofline import ConfigError, Model, Step
from roofline.errors import UnsupportedModelError
from roofline.formats import Format
from roofline.forward import forward
from roofline.model import RGLRU, Attention, GatedDeltaNet, KimiDeltaAttention, LightningAttention, Mamba1, Mamba2, RecurrentMixer
from roofline.ops.recurrent import state_flops
from roofline.step import Visibility

ENTRIES = (
    "bamba-9b",
    "falcon-mamba-7b",
    "jamba-v0.1",
    "kimi-linear-48b-a3b",
    "minimax-text-01",
    "nemotron-h-56b",
    "qwen3-next-80b-a3b",
    "qwen3.5-397b-a17b",
    "recurrentgemma-2b",
    "zamba2-7b",
)

Q, K, V, OUT = (f"self_attn.{x}_proj" for x in "qkvo")
EXPERTS = ("mlp.experts.gate_proj", "mlp.experts.up_proj")
ALIASES = {
    # what the reference implementations call their modules, in the words of ours; a name that is not here means the same there and here
    "feed_forward.experts.gate_up_proj": EXPERTS,
    "feed_forward.experts.down_proj": ("mlp.experts.down_proj",),
    "feed_forward.router": ("mlp.gate",),
    "mlp.experts.gate_up_proj": EXPERTS,
    "mixer.experts.up_proj": ("mlp.experts.up_proj",),
    "mixer.experts.down_proj": ("mlp.experts.down_proj",),
    "mixer.gate": ("mlp.gate",),
    "mixer.q_proj": (Q,),
    "mixer.k_proj": (K,),
    "mixer.v_proj": (V,),
    "mixer.o_proj": (OUT,),
    "mixer.up_proj": ("mlp.up_proj",),
    "mixer.down_proj": ("mlp.down_proj",),
    "temporal_block.q_proj": (Q,),
    "temporal_block.k_proj": (K,),
    "temporal_block.v_proj": (V,),
    "temporal_block.o_proj": (OUT,),
    "temporal_block.conv_1d": ("temporal_block.conv1d",),
    "feed_forward.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.gate_up_proj_adapter_list.*.*": ("mlp.gate_up_proj_adapter.0", "mlp.gate_up_proj_adapter.1"),
    "norm": ("input_layernorm",),
    "input_layernorm": ("input_layernorm",),
}
STARTS = {
    "mlp.shared_expert.": "mlp.shared_experts.",
    "mixer.shared_experts.": "mlp.shared_experts.",
    "mixer.fc": "mlp.fc",
    "feed_forward.": "mlp.",
    "mlp_block.": "mlp.",
    "self_attn.forget_gate.": "self_attn.",
}
ENDS = {"input_gate_weight": "input_gate", "input_gate_bias": "input_gate", "recurrent_gate_weight": "recurrent_gate"}
ENDS |= {"recurrent_gate_bias": "recurrent_gate"}


def names(module):
    """Our names of a module of a reference implementation."""
    module = module.removeprefix("mamba_decoder.")
    if module.startswith("shared_transformer.") and "layernorm" not in module:
        module = module.removeprefix("shared_transformer.")
    for theirs, ours in ENDS.items():
        module = module.replace(theirs, ours)
    if module in ALIASES:
        return ALIASES[module]
    for theirs, ours in STARTS.items():
        if module.startswith(theirs):
            return (ours + module.removeprefix(theirs),)
    return (module,)


@pytest.fixture(scope="module", params=ENTRIES)
def entry(request):
    return load_counts(request.param)


@pytest.fixture(scope="module")
def model(entry):
    return Model.load(entry["config"])


# -------------------------------------------------------------------------------------------------------------- parameters


def test_parameters(entry, model):
    truth = entry["params"]
    assert model.parameters == truth["total"] == sum(model.by_component().values())
    assert model.active_parameters == truth["active_per_token"]
    assert model.embedding_parameters == truth["embedding"]
    assert model.head.tied == truth["tied_word_embeddings"]
    assert model.head_parameters == truth["lm_head"]
    uses = sum(1 for kind in entry["config"].get("layers_block_type", ()) if kind == "hybrid")
    assert model.num_layers == uses + sum(group["count"] for group in truth["layer_groups"])  # a shared block stands by itself
    for module, parameters in truth["outside_layers"].items():
        assert module.split(".")[1] in ("norm", "norm_f", "final_norm", "final_layernorm")
        assert model.final_norm.parameters == parameters


def test_parameters_of_every_component(entry, model):
    expected, ours = Counter(), model.by_component()
    for group in entry["params"]["layer_groups"]:
        for module, parameters in group["components"].items():
            expected[names(module)] += group["count"] * parameters
    for parts, parameters in expected.items():
        assert sum(ours.pop(part, 0) for part in parts) == parameters, parts
    assert set(ours) <= {"embed_tokens", "lm_head", "norm"}


def test_biases(entry, model):
    matrices = [(g.stored, m) for g in model.layers for m in g.matrices(model.hidden_size)]
    biases = sum(count * m.bias * m.copies for count, m in matrices)
    mixers = [(g.stored, g.mixer) for g in model.layers if isinstance(g.mixer, RecurrentMixer)]
    biases += sum(count * m.conv_channels * m.conv_bias for count, m in mixers)
    biases += sum(count * v.parameters for count, m in mixers for v in m.vectors() if v.name.endswith("dt_bias"))
    assert biases == entry["params"]["bias_elements"]


# ------------------------------------------------------------------------------------------------------------------- cache


def test_cache_and_state_bytes(entry, model):
    cache = entry["kv_cache"]
    assert model.kv_bytes_per_token() == cache["bytes_per_token"]
    assert model.state_bytes_per_sequence == cache["fixed_state_bytes_per_sequence"]


def test_state_of_every_layer(entry, model):
    kept = Counter()
    for group in model.layers:
        if isinstance(group.mixer, RecurrentMixer):
            state = group.mixer.state_elements * Format.load(group.mixer.state_format).bytes_per_element
            kept[state + 2 * group.mixer.conv_state_elements] += group.count
    theirs = Counter()
    for group in entry["kv_cache"]["layer_groups"]:
        theirs[group["fixed_state_bytes"]] += group["count"]
    del theirs[0]
    assert kept == theirs


def test_cache_held_after_a_step(entry, model):
    for point, held in entry["cache_bytes_measured"].items():
        batch, tokens = (int(part.lstrip("btokens")) for part in point.split("_"))
        assert forward(model, Step.prefill(tokens, batch=batch), weights="bf16").held_bytes == held, point


# -------------------------------------------------------------------------------------------------------------------- FLOP


def work_of(model, point, logits="all"):
    new, cached, batch = point["new_tokens_per_sequence"], point["cached_tokens_before"], point["batch"]
    return forward(model, Step.prefill(new + cached, cached=cached, batch=batch, logits=logits), weights="bf16")


def category(op):
    if op.kind != "contraction" or op.name == "lm_head":
        return op.name
    return "attention" if ".attention" in op.name else "state" if op.name.endswith("state_update") else "linear"


def test_flops_of_projections_and_attention_at_every_point(entry, model):
    for name, point in entry["flops"].items():
        ours = Counter()
        for op in work_of(model, point).ops:
            ours[category(op)] += op.flops
        assert ours["linear"] == point.get("linear_layers_kv_b_proj_for_new_token_only", point["linear_layers"]), name
        assert point["linear_outside_layers"] == 0
        assert ours["lm_head"] == point["lm_head"], name
        (last,) = (op.flops for op in work_of(model, point, "last").ops if op.name == "lm_head")
        assert last == point["lm_head_last_position_only"], name
        assert ours["attention"] == _attention(entry, name, point), name


def _attention(entry, name, point):
    if name in entry.get("mla_variants_handwritten", ()):  # the cheaper of both forms
        forms = entry["mla_variants_handwritten"][name]
        again = forms["latent_cache_reexpanded_every_step_hf"]
        return min(
            forms["absorbed"]["attention"], again["attention"] + again["kv_b_proj"] - forms["absorbed"]["kv_b_proj_as_absorbed_bmms"]
        )
    # the cache of MiniMax-Text misreports its length to the mask; one query sees everything cached, as the calls' widths say
    if entry["model_type"] == "minimax" and point["new_tokens_per_sequence"] == 1:
        return point["attention_dense"]
    return point.get("attention_unmasked", 0)


def test_every_projection_is_multiplied_once_per_use(entry, model):
    used = sum(
        g.count * m.inputs * m.outputs * m.copies for g in model.layers for m in g.matrices(model.hidden_size) if ".experts." not in m.name
    )
    point = entry["flops"]["decode_b1_c1024"]
    linear = point.get("linear_layers_kv_b_proj_for_new_token_only", point["linear_layers"])
    assert 2 * used == linear - point.get("routed_experts_executed", _routed(entry, model))


def _routed(entry, model):
    parts = [(g.count, g.feed_forward) for g in model.layers if getattr(g.feed_forward, "kind", "") == "experts"]
    return sum(2 * n * e.top_k * sum(m.inputs * m.outputs for m in e.expert_matrices(model.hidden_size)) for n, e in parts)


# --------------------------------------------------------------------------------------------------- state, from first principles


class Macs:
    """Matrix products that count their multiply-accumulates."""

    def __init__(self):
        self.count = 0

    def outer(self, a, b):
        self.count += a.size * b.size
        return np.outer(a, b)

    def dot(self, a, b):
        self.count += a.size * (1 if b.ndim == 1 else b.shape[1])
        return a @ b


def mamba1_step(macs, part, state, rng):
    b, c, x = rng.normal(size=part.state), rng.normal(size=part.state), rng.normal(size=part.inner)
    state[:] = state * rng.uniform(size=state.shape) + macs.outer(x, b)
    return macs.dot(c, state.T)


def mamba2_step(macs, part, state, rng):
    b, c = rng.normal(size=(2, part.groups, part.state))
    x, per = rng.normal(size=(part.heads, part.head_dim)), part.heads // part.groups
    for h in range(part.heads):
        state[h] = rng.uniform() * state[h] + macs.outer(b[h // per], x[h])
        macs.dot(c[h // per], state[h])


def delta_step(macs, part, state, rng):
    heads, k_dim, v_dim = state.shape
    for h in range(heads):
        q, k, v = rng.normal(size=k_dim), rng.normal(size=k_dim), rng.normal(size=v_dim)
        state[h] = (rng.uniform(size=(k_dim, 1)) if isinstance(part, KimiDeltaAttention) else rng.uniform()) * state[h]
        state[h] += macs.outer(k, rng.uniform() * (v - macs.dot(k, state[h])))
        macs.dot(q, state[h])


def lightning_step(macs, part, state, rng):
    for h in range(part.heads):
        q, k, v = rng.normal(size=(3, part.head_dim))
        state[h] = 0.9 * state[h] + macs.outer(k, v)
        macs.dot(q, state[h])


RECURRENCES = {
    "mamba1": (Mamba1(inner=6, state=4, dt_rank=1), (6, 4), mamba1_step),
    "mamba2": (Mamba2(heads=4, head_dim=3, state=5, groups=2), (4, 5, 3), mamba2_step),
    "delta": (GatedDeltaNet(key_heads=2, value_heads=4, key_dim=3, value_dim=5), (4, 3, 5), delta_step),
    "kimi": (KimiDeltaAttention(heads=3, head_dim=4), (3, 4, 4), delta_step),
    "lightning": (LightningAttention(heads=2, head_dim=4), (2, 4, 4), lightning_step),
}


def sizes(part):
    return {"elements": part.state_elements, "pair_width": part.pair_width, "retrieves": part.retrieves}


@pytest.mark.parametrize("name", RECURRENCES)
@pytest.mark.parametrize("tokens", [1, 7])
def test_state_flops_are_those_of_the_plain_recurrence(name, tokens):
    part, shape, step = RECURRENCES[name]
    macs, state, rng = Macs(), np.zeros(shape), np.random.default_rng(1)
    assert state.size == part.state_elements
    for _ in range(tokens):
        step(macs, part, state, rng)
    assert state_flops(tokens, 5, **sizes(part)) == 2 * macs.count  # of a sequence that goes on from a state
    assert state_flops(tokens, 0, **sizes(part)) < 2 * macs.count  # one that starts has fewer to do


@pytest.mark.parametrize("name", RECURRENCES)
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 9, 40])
def test_a_sequence_that_starts_may_look_at_pairs_while_that_is_less(name, tokens):
    part, *_ = RECURRENCES[name]
    each = 2 * part.state_elements
    reads = sum(min(2 * part.pair_width * i, each) for i in range(1, tokens + 1))
    retrieved = sum(min(2 * part.pair_width * i, each) for i in range(tokens)) if part.retrieves else 0
    assert state_flops(tokens, 0, **sizes(part)) == each * tokens + reads + retrieved
    both = state_flops(np.array([tokens, tokens]), np.array([0, 3]), **sizes(part))
    assert list(both) == [state_flops(tokens, cached, **sizes(part)) for cached in (0, 3)]


def test_looking_at_pairs_gives_what_the_recurrence_gives():
    """Of the delta rule too: each token's correction comes from those before it, pair by pair, with fewer products than the state has."""
    rng, n, k_dim, v_dim = np.random.default_rng(2), 4, 16, 16
    q, k, v = rng.normal(size=(3, n, k_dim)) / 4
    alpha, beta = rng.uniform(size=(2, n))
    state, recurrent, plain = np.zeros((k_dim, v_dim)), [], Macs()
    for i in range(n):
        state = alpha[i] * state
        state = state + plain.outer(k[i], beta[i] * (v[i] - plain.dot(k[i], state)))
        recurrent.append(plain.dot(q[i], state))
    corrections, pairwise, macs = [], [], Macs()
    for i in range(n):
        decay = [np.prod(alpha[j + 1 : i + 1]) for j in range(i)]
        known = sum((d * macs.dot(k[i], k[j]) * corrections[j] for j, d in enumerate(decay)), start=np.zeros(v_dim))
        macs.count += i * v_dim
        corrections.append(beta[i] * (v[i] - known))
        pairwise.append(sum(d * macs.dot(q[i], k[j]) * corrections[j] for j, d in enumerate([*decay, 1.0])))
        macs.count += (i + 1) * v_dim
    final = sum(np.prod(alpha[j + 1 :]) * macs.outer(k[j], corrections[j]) for j in range(n))
    assert np.allclose(recurrent, pairwise)
    assert np.allclose(state, final)
    one = {"elements": k_dim * v_dim, "pair_width": k_dim + v_dim, "retrieves": True}
    assert state_flops(n, 0, **one) == 2 * macs.count < 2 * plain.count


def _tiny(mixer, hidden=8):
    config = {"model_type": "mamba", "hidden_size": hidden, "num_hidden_layers": 1, "vocab_size": 4, "state_size": 2, "conv_kernel": 4}
    base = Model.load(config)
    return base.but(layers=(base.layers[0].but(mixer=mixer),))


@pytest.mark.parametrize("name", RECURRENCES)
def test_state_is_written_by_all_sequences_and_read_by_those_that_had_one(name):
    model = _tiny(RECURRENCES[name][0])
    size = 4 * RECURRENCES[name][0].state_elements
    fresh, goes_on = Step.prefill(9, batch=3), Step.decode(batch=5, context=9)
    for step, moved in ((fresh, 3 * size), (goes_on, 10 * size), (fresh + goes_on, 13 * size)):
        assert forward(model, step, weights="bf16").total("state_bytes") == moved


def test_the_taps_of_a_convolution_read_and_write_only_the_columns_they_need():
    part = Mamba1(inner=6, state=4, dt_rank=1, conv_kernel=4)
    model, state, column = _tiny(part), 4 * 24, 2 * 6
    expected = {
        Step.prefill(9): state + 3 * column,
        Step.prefill(2): state + 2 * column,
        Step.decode(context=2): 2 * state + (2 + 1) * column,
        Step.decode(context=9): 2 * state + (3 + 1) * column,
    }
    for step, moved in expected.items():
        assert forward(model, step, weights="bf16").total("state_bytes") == moved
    assert model.state_bytes_per_sequence == state + 4 * column  # though four columns are kept


def test_a_diagonal_recurrence_has_no_products():
    part = RGLRU(width=8, heads=2, conv_kernel=4)
    (op,) = (op for op in forward(_tiny(part), Step.decode(batch=3, context=1), weights="bf16").ops if op.name.endswith("state_update"))
    assert (op.flops, op.vector_flops) == (0, 2 * 8 * 3)


def test_state_does_not_depend_on_context(model):
    near, far = (forward(model, Step.decode(batch=2, context=c), weights="bf16") for c in (1000, 10_000_000))
    assert near.total("state_bytes") == far.total("state_bytes")
    assert sum(op.flops for op in near.ops if category(op) == "state") == sum(op.flops for op in far.ops if category(op) == "state")


# ------------------------------------------------------------------------------------------------------------ single families


def _config(name, **changes):
    return load_counts(name)["config"] | changes


def test_zamba2_reads_a_shared_block_once_and_caches_every_use():
    model = Model.load(_config("zamba2-7b"))
    uses = [g for g in model.layers if isinstance(g.mixer, Attention)]
    assert sum(g.count for g in uses) == 13
    assert sum(g.stored for g in uses) == 2
    work = forward(model, Step.decode(context=100), weights="bf16")
    assert work.total("weight_bytes") == 2 * (
        model.parameters - model.embedding_parameters + model.hidden_size + model.head.outputs * model.hidden_size
    )
    assert work.total("kv_read_bytes") == 100 * 13 * 2 * 32 * 224 * 2


def test_recurrent_gemma_halves_its_feed_forward_and_sees_a_window():
    model = Model.load(_config("recurrentgemma-2b"))
    assert {g.feed_forward.intermediate for g in model.layers} == {7680}
    assert {g.mixer.visibility for g in model.layers if isinstance(g.mixer, Attention)} == {Visibility("window", 2048)}


def test_minimax_keeps_its_states_in_16_bits_and_qwen_may():
    assert {g.mixer.state_format for g in Model.load(_config("minimax-text-01")).layers if isinstance(g.mixer, LightningAttention)} == {
        "bf16"
    }
    config = _config("qwen3.5-397b-a17b")
    half = Model.load(config | {"text_config": config["text_config"] | {"mamba_ssm_dtype": "bfloat16"}})
    assert Model.load(config).state_bytes_per_sequence - half.state_bytes_per_sequence == 45 * 2 * 64 * 128 * 128


def test_qwen35_multi_token_prediction():
    model = Model.load(_config("qwen3.5-397b-a17b"))
    hidden, layer = model.hidden_size, model.layers[-1]
    assert model.mtp_parameters == layer.parameters(hidden) + 2 * hidden * hidden + 3 * hidden
    assert any("vision" in note for note in model.not_modelled)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("nemotron-h-56b", {"hybrid_override_pattern": "M-X"}, "letters"),
        ("nemotron-h-56b", {"num_key_value_heads": 7}, "key-value heads"),
        ("nemotron-h-56b", {"layers_block_type": [["mamba"]], "hybrid_override_pattern": None}, "layers_block_type"),
        ("zamba2-7b", {"n_mamba_heads": 100}, "Mamba channels"),
        ("zamba2-7b", {"layers_block_type": None}, "layers_block_type"),
        ("qwen3-next-80b-a3b", {"linear_num_value_heads": 33}, "key heads"),
        ("recurrentgemma-2b", {"lru_width": 2561}, "channels"),
        ("recurrentgemma-2b", {"block_types": [[]]}, "block_types"),
        ("nemotron-h-56b", {"num_hidden_layers": 117}, "118 layers"),
        ("nemotron-h-56b", {"layers_block_type": ["mamba"] * 118}, "different layers"),
        ("nemotron-h-56b", {"mamba_ssm_cache_dtype": "int8"}, "mamba_ssm_cache_dtype"),
        ("jamba-v0.1", {"attn_layer_offset": 8}, "attn_layer_offset"),
        ("bamba-9b", {"attn_layer_indices": [9, 32]}, "attn_layer_indices"),
        ("bamba-9b", {"mamba_d_head": 32}, "Mamba heads"),
        ("recurrentgemma-2b", {"block_types": ["mamba"]}, "block_types"),
        ("recurrentgemma-2b", {"head_dim": 128}, "head_dim"),
        ("minimax-text-01", {"layer_types": ["linear_attention"]}, "layer_types"),
        ("zamba2-7b", {"layers_block_type": ["mamba"] * 80 + ["attention"]}, "layers_block_type"),
        ("qwen3-next-80b-a3b", {"mlp_only_layers": [48]}, "mlp_only_layers"),
        (
            "kimi-linear-48b-a3b",
            {"linear_attn_config": {"full_attn_layers": [1], "kda_layers": [2], "num_heads": 1, "head_dim": 1}},
            "1 … 27",
        ),
        ("kimi-linear-48b-a3b", {"linear_attn_config": {"num_heads": 1, "head_dim": 1}}, "layer_types"),
    ],
)
def test_invalid_layer_patterns_raise(name, changes, says):
    with pytest.raises(ConfigError, match=says):
        Model.load(_config(name, **changes))


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("nemotron-h-56b", {"sliding_window": 4096}, "sliding_window"),
        ("nemotron-h-56b", {"attention_bias": True}, "attention_bias"),
        ("nemotron-h-56b", {"num_nextn_predict_layers": 2}, "num_nextn_predict_layers"),
        ("jamba-v0.1", {"mamba_inner_layernorms": False}, "mamba_inner_layernorms"),
        ("falcon-mamba-7b", {"ssm_cfg": {"layer": "Mamba2"}}, "ssm_cfg"),
        ("falcon-mamba-7b", {"d_model": 1}, "d_model"),
        ("zamba2-7b", {"gated_linear_unit": False}, "gated_linear_unit"),
        ("zamba2-7b", {"mamba_headdim": 32}, "mamba_headdim"),
        ("qwen3-next-80b-a3b", {"attn_output_gate": False}, "attn_output_gate"),
        ("qwen3-next-80b-a3b", {"ngram_size": 3}, "ngram_size"),
        ("kimi-linear-48b-a3b", {"num_nextn_predict_layers": 1}, "num_nextn_predict_layers"),
        ("kimi-linear-48b-a3b", {"num_key_value_heads": 8}, "num_key_value_heads"),
    ],
)
def test_unsupported_key_raises_by_name(name, changes, key):
    with pytest.raises(UnsupportedModelError, match=key):
        Model.load(_config(name, **changes))


# ------------------------------------------------------------------------------------------------------- transformers itself

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "vocab_size": 96,
    "intermediate_size": 112,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MAMBA_SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 96, "state_size": 8, "conv_kernel": 4}
NEMOTRON = {
    "model_type": "nemotron_h",
    **SIZES,
    "head_dim": 24,
    "mamba_num_heads": 8,
    "mamba_head_dim": 12,
    "ssm_state_size": 10,
    "n_groups": 2,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 40,
    "moe_shared_expert_intermediate_size": 56,
    "n_shared_experts": 1,
}
ZAMBA = {
    "model_type": "zamba2",
    **SIZES,
    "num_hidden_layers": 5,
    "layers_block_type": ["mamba", "hybrid", "hybrid", "mamba", "hybrid"],
    "num_mem_blocks": 2,
    "n_mamba_heads": 8,
    "mamba_d_state": 10,
    "mamba_ngroups": 2,
    "adapter_rank": 6,
}
QWEN = {
    **SIZES,
    "head_dim": 24,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 10,
    "linear_conv_kernel_dim": 4,
    "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 56,
    "num_experts": 6,
    "num_experts_per_tok": 2,
}
KIMI = {
    "model_type": "kimi_linear",
    "pad_token_id": 0,
    **SIZES,
    "num_key_value_heads": 4,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 6,
    "v_head_dim": 10,
    "num_experts": 6,
    "num_experts_per_token": 2,
    "num_shared_experts": 2,
    "moe_intermediate_size": 40,
    "first_k_dense_replace": 1,
    "linear_attn_config": {"num_heads": 3, "head_dim": 8, "short_conv_kernel_size": 4, "full_attn_layers": [3], "kda_layers": [1, 2, 4]},
}
BAMBA = {"model_type": "bamba", **SIZES, "mamba_n_heads": 8, "mamba_d_head": "auto", "mamba_d_state": 10, "mamba_n_groups": 2}
CLASSES = {
    "mamba": {"model_type": "mamba", **MAMBA_SIZES},
    "mamba, biases, untied": {"model_type": "mamba", **MAMBA_SIZES, "use_bias": True, "tie_word_embeddings": False, "time_step_rank": 5},
    "mamba without convolution bias": {"model_type": "mamba", **MAMBA_SIZES, "use_conv_bias": False, "expand": 3, "time_step_rank": "auto"},
    "mamba2": {"model_type": "mamba2", **MAMBA_SIZES, "num_heads": 8, "head_dim": 16, "n_groups": 2},
    "falcon_mamba": {"model_type": "falcon_mamba", **MAMBA_SIZES, "expand": 16, "intermediate_size": 112},
    "jamba": {
        "model_type": "jamba",
        **SIZES,
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "attn_layer_period": 3,
        "attn_layer_offset": 1,
        "mamba_dt_rank": "auto",
    },
    "jamba without experts": {"model_type": "jamba", **SIZES, "num_experts": 1, "mamba_proj_bias": True, "mamba_d_state": 6},
    "bamba": {**BAMBA, "attn_layer_indices": [1, 2], "attention_bias": True, "mlp_bias": True, "mamba_proj_bias": True},
    "bamba without attention": BAMBA,
    "nemotron_h": {**NEMOTRON, "hybrid_override_pattern": "M*E-", "use_bias": True},
    "nemotron_h, biases": {**NEMOTRON, "layers_block_type": ["mamba", "attention", "mlp", "mamba"], "mlp_bias": True},
    "nemotron_h, latent experts": {
        **NEMOTRON,
        "layers_block_type": ["moe", "full_attention", "moe", "linear_attention"],
        "moe_latent_size": 20,
    },
    "recurrent_gemma": {"model_type": "recurrent_gemma", **SIZES, "lru_width": 80, "attention_bias": True},
    "zamba2": ZAMBA,
    "zamba2, attention adapters": {**ZAMBA, "use_shared_attention_adapter": True, "add_bias_linear": True},
    "minimax": {"model_type": "minimax", **SIZES, "head_dim": 24, "num_local_experts": 3, "num_experts_per_tok": 2},
    "qwen3_next": {"model_type": "qwen3_next", **QWEN, "mlp_only_layers": [2], "decoder_sparse_step": 2},
    "qwen3_next, other interval": {"model_type": "qwen3_next", **QWEN, "full_attention_interval": 2, "attention_bias": True},
    "qwen3_5": {"model_type": "qwen3_5_text", **QWEN},
    "qwen3_5_moe": {"model_type": "qwen3_5_moe_text", **QWEN},
    "kimi_linear": KIMI,
    "kimi_linear, low-rank queries": {**KIMI, "q_lora_rank": 14, "attention_bias": True, "num_shared_experts": 1},
}
UNKNOWN_TO = {
    "qwen3_5_text": QWEN.keys() & {"moe_intermediate_size", "shared_expert_intermediate_size", "num_experts", "num_experts_per_tok"}
}
UNKNOWN_TO["qwen3_5_moe_text"] = {"intermediate_size"}


def instantiate(config):
    """The reference implementation's own modules, without memory."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind = config["model_type"]
    try:
        described = transformers.AutoConfig.for_model(**config)
    except ValueError:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(described)


@pytest.mark.parametrize("name", CLASSES)
def test_parameters_are_those_that_transformers_makes(name):
    config = {k: v for k, v in CLASSES[name].items() if k not in UNKNOWN_TO.get(CLASSES[name]["model_type"], ())}
    theirs = instantiate(config)
    ours = Model.load(config)
    assert ours.parameters == sum(p.numel() for p in theirs.parameters())
    assert ours.head.tied == theirs.config.tie_word_embeddings


def _wheel(*kinds):
    spec = importlib.util.find_spec("aiconfigurator_core")
    folder = Path(spec.origin).parent / "model_configs" if spec and spec.origin else None
    files = sorted(folder.glob("*_config.json")) if folder else []
    return {f.name.removesuffix("_config.json").split("--")[-1]: f for f in files if json.loads(f.read_text()).get("model_type") in kinds}


def _plain(file):
    """A configuration without its quantization, which changes formats and no parameter."""
    config = json.loads(file.read_text())
    for level in (config, config.get("text_config", {})):
        level.pop("quantization_config", None)
    return config


@pytest.mark.parametrize("name", sorted(_wheel("nemotron_h", "qwen3_5", "qwen3_5_moe")))
def test_published_configurations_have_the_parameters_that_transformers_makes(name):
    config = _plain(_wheel("nemotron_h", "qwen3_5", "qwen3_5_moe")[name])
    text = dict(config.get("text_config", config))
    if text["model_type"] == "nemotron_h":
        kinds = text.pop("layers_block_type", None) or [
            {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}[x] for x in text.pop("hybrid_override_pattern")
        ]
        text |= {"layers_block_type": list(dict.fromkeys(kinds)), "num_hidden_layers": len(set(kinds))}
        if "attention_head_dim" in text:
            text["head_dim"] = text.pop("attention_head_dim")
    else:
        text |= {"layer_types": text["layer_types"][2:4], "num_hidden_layers": 2}
    theirs, ours = instantiate({k: v for k, v in text.items() if k not in ("auto_map", "architectures")}), Model.load(text)
    expected, named = Counter(), ours.by_component()
    for parameter, tensor in theirs.named_parameters():
        if ".layers." in parameter:
            expected[names(parameter.split(".layers.")[1].partition(".")[2].removesuffix(".weight").removesuffix(".bias"))] += (
                tensor.numel()
            )
    for parts, parameters in expected.items():
        assert sum(named.pop(part, 0) for part in parts) == parameters, parts
    assert set(named) == {"embed_tokens", "lm_head", "norm"}
    assert ours.parameters == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 31.6e9, 3.6e9),  # its technical report
        ("NVIDIA-Nemotron-3-Super-120B-A12B-FP8", 120e9, 12e9),  # its name
        ("NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", 550e9, 55e9),
        ("Qwen3.5-122B-A10B", 122e9, 10e9),
        ("Qwen3.5-35B-A3B", 35e9, 3.3e9),
        ("Kimi-K3", 2.8e12, 104e9),  # its announcement
    ],
)
def test_published_sizes(name, total, active):
    files = _wheel("nemotron_h", "qwen3_5_moe", "kimi_k3")
    if name not in files:
        pytest.skip("the configurations that come with aiconfigurator_core are not here")
    model = Model.load(_plain(files[name]))
    assert model.parameters == pytest.approx(total, rel=0.015)
    assert model.active_parameters == pytest.approx(active, rel=0.07)


def test_kimi_k3_fills_its_checkpoint():
    """Tensor bytes of the published index: experts in MXFP4 (4.25 bits), nearly everything else in 16 bits, and a small vision tower."""
    files = _wheel("kimi_k3")
    if not files:
        pytest.skip("the configurations that come with aiconfigurator_core are not here")
    model = Model.load(_plain(files["Kimi-K3"]))
    experts = sum(n for component, n in model.by_component().items() if ".experts." in component)
    assert experts == 92 * 896 * 33_030_144
    ours = experts * 17 // 32 + 2 * (model.parameters - experts)
    assert forward(Model.load(files["Kimi-K3"]), Step.decode()).program.stored_bytes == ours
    theirs = 1_560_860_324_864
    assert 0 < theirs - ours < 2 * 0.5e9
    layer = next(g for g in model.layers if isinstance(g.mixer, KimiDeltaAttention) and g.feed_forward.kind == "experts")
    f32 = {"conv1d": 147_456, "A_log": 96, "dt_bias": 12_288, "o_norm": 128}  # and rates padded to 128 heads
    kda = sum(m.parameters for m in layer.mixer.matrices(7168)) + 3 * 7168
    assert 2 * kda + 4 * (sum(f32.values()) + 128 - 96) == 887_843_840  # tensor bytes of the first such layer in the index
    assert sum(v.parameters for v in layer.mixer.vectors()) == sum(f32.values())
