"""Latent, compressed and block-sparse attention against the reference data, transformers' own classes, and published sizes."""

import json
from collections import Counter
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference_counts import load_counts
from roofline import ConfigError, Model, Step, UnsupportedModelError
from roofline.formats import Format
from roofline.forward import forward
from roofline.model import BlockSparseAttention, CompressedAttention, Indexer, LatentAttention
from roofline.ops.block_sparse_attention import block_pairs, block_positions_read
from roofline.ops.compressed_attention import entries_read, entries_written, entry_pairs
from roofline.ops.latent_attention import latent_attention_flops
from roofline.step import Visibility
from roofline.visibility import visible_pairs

BF16 = Format.load("bf16")
TRUTHS = ["deepseek-v2-lite", "deepseek-v3.2"]

# a DeepSeek-V4 in which every kind of layer occurs and the window, the entries and the selection all bite early
SMALL_V4 = {
    "model_type": "deepseek_v4",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "qk_rope_head_dim": 8,
    "q_lora_rank": 32,
    "o_groups": 2,
    "o_lora_rank": 8,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "index_topk": 3,
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
    "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
    "mlp_layer_types": ["hash_moe", "moe", "moe"],
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 1,
    "vocab_size": 50,
    "hc_mult": 4,
    "num_nextn_predict_layers": 1,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
SMALL_M3 = {
    "model_type": "minimax_m3",
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "rotary_dim": 4,
    "intermediate_size": 20,
    "dense_intermediate_size": 40,
    "shared_intermediate_size": 28,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 50,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "index_block_size": 4,
    "index_topk_blocks": 3,
    "index_local_blocks": 1,
    "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
LONGCAT = {
    "model_type": "longcat_flash",
    "attention_bias": False,
    "attention_method": "MLA",
    "expert_ffn_hidden_size": 2048,
    "ffn_hidden_size": 12288,
    "hidden_size": 6144,
    "kv_lora_rank": 512,
    "max_position_embeddings": 131072,
    "mla_scale_kv_lora": True,
    "mla_scale_q_lora": True,
    "moe_topk": 12,
    "n_routed_experts": 512,
    "num_attention_heads": 64,
    "num_layers": 28,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "router_bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 131072,
    "zero_expert_num": 256,
    "zero_expert_type": "identity",
}
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 129280,
}
GLM_5 = DEEPSEEK_V3 | {"model_type": "glm_moe_dsa", "index_n_heads": 32, "index_head_dim": 128, "index_topk": 2048, "num_hidden_layers": 8}


def plain(config):
    """A configuration without its quantization, which changes neither shapes nor counts."""
    levels = {k: plain(v) if k == "text_config" else v for k, v in config.items()}
    return {k: v for k, v in levels.items() if k not in ("quantization_config", "expert_dtype")}


# ---------------------------------------------------------------------------------------------------------- reference data


@pytest.fixture(scope="module", params=TRUTHS)
def truth(request):
    return load_counts(request.param)


@pytest.fixture(scope="module")
def model(truth):
    return Model.load(plain(truth["config"]))


def merged(name):
    """One name for what some keep in one tensor: the gate and the up matrix of a feed-forward."""
    for two in ("gate_up_proj", "gate_proj", "up_proj"):
        if name in (f"mlp.{two}", f"mlp.experts.{two}", f"mlp.shared_experts.{two}"):
            return name.replace(two, "gate_up_proj")
    return name


def components(model):
    totals = Counter()
    for name, parameters in model.by_component().items():
        totals[merged(name)] += parameters
    return totals


def work_of(model, point, logits="all"):
    new, cached, batch = point["new_tokens_per_sequence"], point["cached_tokens_before"], point["batch"]
    return forward(model, Step.prefill(new + cached, cached=cached, batch=batch, logits=logits), weights="bf16")


def category(op):
    if op.kind != "contraction" or op.name == "lm_head":
        return op.name if op.name == "lm_head" else "other"
    if op.name.startswith("self_attn.attention"):
        return "attention"
    return "indexer" if op.name.endswith(".indexer") else "linear"


def flops(work):
    totals = Counter()
    for op in work.ops:
        totals[category(op)] += op.flops
    return totals


def test_parameters(truth, model):
    params = truth["params"]
    assert model.parameters == params["total"]
    assert model.active_parameters == params["active_per_token"]
    assert (model.embedding_parameters, model.head_parameters) == (params["embedding"], params["lm_head"])
    expected = Counter(
        {"embed_tokens": params["embedding"], "lm_head": params["lm_head"], "norm": params["outside_layers"]["model.norm.weight"]}
    )
    for group in params["layer_groups"]:
        for name, parameters in group["components"].items():
            expected[merged(name)] += group["count"] * parameters
    assert components(model) == expected
    assert model.num_layers == sum(group["count"] for group in params["layer_groups"])


def test_cache_bytes(truth, model):
    assert model.kv_bytes_per_token("bf16") == truth["kv_cache"]["bytes_per_token"]
    assert model.state_bytes_per_sequence == 0
    for point in truth["flops"].values():
        step = Step.prefill(point["new_tokens_per_sequence"], batch=point["batch"])
        work = forward(model, step, weights="bf16")
        assert work.resident_bytes - work.program.stored_bytes == step.tokens * truth["kv_cache"]["bytes_per_token"]


def test_matrices_pass_every_new_token_once(truth, model):
    assert len(truth["flops"]) >= 4
    for name, point in truth["flops"].items():
        ours = flops(work_of(model, point))
        # the reference passes the whole cache through kv_b in every decode step; a new token does it once
        assert ours["linear"] == point.get("linear_layers_kv_b_proj_for_new_token_only", point["linear_layers"]), name
        assert point["linear_outside_layers"] == ours["other"] == 0
        assert ours["lm_head"] == point["lm_head"], name
        assert flops(work_of(model, point, "last"))["lm_head"] == point["lm_head_last_position_only"], name


def test_prefill_is_expanded_and_decode_absorbed(truth, model):
    mixer = model.layers[0].mixer
    expanded, absorbed = mixer.nope_dim + mixer.rope_dim + mixer.v_head_dim, 2 * mixer.kv_lora_rank + mixer.rope_dim
    for name, point in truth["flops"].items():
        dims = absorbed if point["cached_tokens_before"] else expanded
        assert flops(work_of(model, point))["attention"] * expanded == point["attention_unmasked"] * dims, name
    for name, variants in truth["mla_variants_handwritten"].items():
        point = truth["flops"][name]
        selected = point["attention_unmasked"] / point["attention_dense"]  # those figures attend to everything
        assert flops(work_of(model, point))["attention"] == variants["absorbed"]["attention"] * selected
        kv_b = sum(op.flops for op in work_of(model, point).ops if op.name == "self_attn.kv_b_proj")
        assert kv_b == variants["absorbed"]["kv_b_proj_as_absorbed_bmms"]
        assert (
            2 * sum(g.count for g in model.layers) * (mixer.kv_lora_rank + mixer.rope_dim) == variants["cache_bytes_per_token_2B"]["latent"]
        )


def test_the_indexer_scores_causal_pairs_of_the_rectangle(truth, model):
    for name, point in truth["flops"].items():
        new, cached, batch = point["new_tokens_per_sequence"], point["cached_tokens_before"], point["batch"]
        rectangle = batch * new * (new + cached)
        causal = batch * visible_pairs(new, cached)
        assert flops(work_of(model, point))["indexer"] * rectangle == point.get("sparse_indexer", 0) * causal, name


def test_selected_pairs_are_those_of_the_mask(truth, model):
    for point in truth["flops"].values():
        for call in point["attention_calls"]:
            pairs = visible_pairs(point["new_tokens_per_sequence"], point["cached_tokens_before"], model.layers[0].mixer.visibility)
            assert point["batch"] * pairs == call["unmasked_pairs_whole_batch"]


# ------------------------------------------------------------------------------------------------------- published figures


def test_deepseek_v3_as_published():
    model = Model.load(DEEPSEEK_V3)
    assert model.parameters == 671_026_404_352  # arXiv 2412.19437: 671B, 37B activated
    assert model.active_parameters == pytest.approx(37e9, rel=0.02)
    assert model.kv_bytes_per_token("bf16") == 70_272  # 61 · (512 + 64) · 2
    # the hub's 685B hold the multi-token-prediction layer with copies of embedding and head
    assert model.parameters + model.mtp_parameters + 2 * model.embedding_parameters == pytest.approx(684.5e9, rel=1e-3)


def test_longcat_flash_as_published():
    model = Model.load(LONGCAT)
    assert model.parameters == pytest.approx(560e9, rel=0.002)  # arXiv 2509.01322: 560B, 18.6B to 31.3B activated, about 27B on average
    assert model.active_parameters - model.embedding_parameters == pytest.approx(31.3e9, rel=0.01)
    average = sum(op.flops for op in forward(model, Step.decode(), weights="bf16").ops if category(op) in ("linear", "lm_head")) / 2
    assert average == pytest.approx(27e9, rel=0.02)
    assert model.num_layers == 56


@pytest.mark.parametrize(
    ("name", "total", "active", "cache"),
    [
        # DeepSeek-V4 model cards: parameters, activated ones; at 1M tokens 7 % and 10 % of the cache of V3.2
        ("deepseek-ai--DeepSeek-V4-Flash", 284e9, 13e9, 0.07),
        ("deepseek-ai--DeepSeek-V4-Pro", 1.6e12, 49e9, 0.10),
    ],
)
def test_deepseek_v4_as_published(name, total, active, cache):
    model = Model.load(plain(packaged(name)))
    assert model.parameters == pytest.approx(total, rel=0.02)
    assert model.active_parameters - model.embedding_parameters == pytest.approx(active, rel=0.03)
    held = [forward(model, Step.decode(context=c), weights="bf16") for c in (2**20 - 1, 2**19 - 1)]
    per_token = (held[0].resident_bytes - held[1].resident_bytes) / 2**19
    assert per_token == 2 * sum(g.count * g.mixer.entry_elements / g.mixer.ratio for g in model.layers if g.mixer.ratio)
    # the published shares are of caches in narrower formats; both are larger by the same factor in 16 bit
    assert per_token / 85_888 == pytest.approx(cache * 1.145, rel=0.02)


# ---------------------------------------------------------------------------------------------------- transformers' classes


def packaged(name):
    """A configuration as published, from a package that carries some."""
    folder = pytest.importorskip("aiconfigurator_core").__path__[0]
    with open(f"{folder}/model_configs/{name}_config.json") as file:
        return json.load(file)


def cut(config, layers):
    """The first layers of a model, in every list that has an item per layer."""
    count = config.get("num_hidden_layers", config.get("num_layers"))

    def shorter(value):
        if isinstance(value, dict):
            return {k: shorter(v) for k, v in value.items()}
        return value[:layers] if isinstance(value, list) and count <= len(value) <= count + 1 else value

    return shorter(config) | {k: layers for k in ("num_hidden_layers", "num_layers") if k in config}


def instantiated(config, prefix):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    classes = [f"{prefix}Config", f"{prefix}ForCausalLM"]
    if prefix == "MiniMaxM3VL":
        classes[0] = "MiniMaxM3VLTextConfig"
    if not all(hasattr(transformers, name) for name in classes):
        pytest.skip(f"this transformers has no {prefix}")
    kind, cls = (getattr(transformers, name) for name in classes)
    skipped = ("model_type", "architectures", "auto_map", "torch_dtype", "dtype", "transformers_version", "hidden_act")
    settings = kind(**{k: v for k, v in config.items() if k not in skipped})
    settings._attn_implementation = settings._experts_implementation = "eager"
    return settings, lambda device: cls(settings).to(torch.float32) if device == "cpu" else _on_meta(torch, cls, settings)


def _on_meta(torch, cls, settings):
    with torch.device("meta"):
        return cls(settings)


def canonical(name):
    """A parameter's component in our words."""
    parts = [p for p in name.removesuffix(".weight").removesuffix(".bias").split(".") if not p.isdigit() and p not in ("model", "layers")]
    if parts[:1] == ["mlps"]:
        parts[0] = "mlp"
    if parts and parts[0] in ("attn_hc", "ffn_hc", "hc_head"):
        parts = parts[:1]
    return merged(".".join(parts).replace("mlp.router.classifier", "mlp.gate"))


@pytest.mark.parametrize(
    ("name", "prefix", "layers"),
    [
        ("deepseek-ai--DeepSeek-V3", "DeepseekV3", 4),
        ("deepseek-ai--DeepSeek-R1", "DeepseekV3", 4),
        ("nvidia--DeepSeek-V3.2-NVFP4", "DeepseekV32", 4),
        ("moonshotai--Kimi-K2-Instruct", "DeepseekV3", 2),
        ("moonshotai--Kimi-K2.5", "DeepseekV3", 2),
        ("zai-org--GLM-5", "GlmMoeDsa", 4),
        ("zai-org--GLM-5.1", "GlmMoeDsa", 4),
        ("zai-org--GLM-5.2", "GlmMoeDsa", 8),
        ("nvidia--GLM-5.2-NVFP4", "GlmMoeDsa", 8),
        ("zai-org--GLM-5.3", "GlmMoeDsa", 8),
        ("deepseek-ai--DeepSeek-V4-Flash", "DeepseekV4", 5),
        ("deepseek-ai--DeepSeek-V4-Pro", "DeepseekV4", 5),
        ("sgl-project--DeepSeek-V4-Flash-FP8", "DeepseekV4", 5),
        ("MiniMaxAI--MiniMax-M3", "MiniMaxM3VL", 5),
        ("nvidia--MiniMax-M3-NVFP4", "MiniMaxM3VL", 5),
        (LONGCAT, "LongcatFlash", 2),
    ],
    ids=str,
)
def test_components_are_transformers(name, prefix, layers):
    config = plain(name if isinstance(name, dict) else packaged(name))
    text = cut(config.get("text_config", config), layers)
    model = Model.load(config | {"text_config": text} if "text_config" in config else text)
    _, build = instantiated(text, prefix)
    expected = Counter()
    for parameter, tensor in build("meta").named_parameters():
        expected[canonical(parameter)] += tensor.numel()
    if prefix == "LongcatFlash":  # the class has room for matrices of experts that do nothing; the forward pass never uses it
        idle = expected["mlp.experts.gate_up_proj"] * 256 // 768
        expected["mlp.experts.gate_up_proj"] -= idle
    assert components(model) == expected


def run(config, prefix, monkeypatch):
    """Yield what a small model does in each of several steps: FLOP by module, pairs allowed by every layer's mask, its cache."""
    torch = pytest.importorskip("torch")
    counter = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode
    settings, build = instantiated(config, prefix)
    module = __import__(build("meta").__module__, fromlist=["x"])
    masks, eager = [], module.eager_attention_forward

    def spy(layer, query, key, value, mask, **options):
        keys = mask.shape[-1]
        rows = mask.expand(query.shape[0], query.shape[1], query.shape[2], keys)
        masks.append(int((rows == 0).sum()))
        return eager(layer, query, key, value, mask, **options)

    monkeypatch.setattr(module, "eager_attention_forward", spy)
    torch.manual_seed(0)
    model = build("cpu").eval()
    cache = __import__("transformers").DynamicCache(config=settings)
    cached = 0
    for new in (23, 14, 1, 1, 1, 1, 2, 1):
        masks.clear()
        with counter(display=False) as counts, torch.no_grad():
            model(torch.randint(0, 50, (2, new)), past_key_values=cache, use_cache=True)
        modules = Counter()
        for name, flop in counts.get_flop_counts().items():
            if name.count(".") >= 2 or name.endswith("lm_head"):
                modules[canonical(name.split(".", 1)[1])] += sum(flop.values())
        yield Step.prefill(cached + new, cached=cached, batch=2, logits="all"), modules, list(masks), cache
        cached += new


def test_deepseek_v4_does_what_transformers_does(monkeypatch):
    model = Model.load(SMALL_V4)
    for step, modules, masks, cache in run(SMALL_V4, "DeepseekV4", monkeypatch):
        work = forward(model, step, weights="bf16")
        ours = flops(work)
        leaves = ("_proj", "lm_head", "mlp.gate", "hc_head", "mlp.experts")
        theirs = sum(n for name, n in modules.items() if name.endswith(leaves))
        # of a hyper-connection the reference also counts, as a product, the mixing of streams; of that the layer, not the module
        theirs += modules["attn_hc"] + modules["ffn_hc"]
        assert ours["linear"] + ours["lm_head"] == theirs
        assert ours["attention"] == sum(4 * 16 * allowed for allowed in masks)
        assert len(masks) == 3
        scores = modules["self_attn.compressor.indexer.scorer"] - modules["self_attn.compressor.indexer.scorer.weights_proj"]
        (group,) = step.groups
        seen = entry_pairs(group.new, group.cached, ratio=4)
        entries = (group.cached + group.new) // 4
        assert scores * seen == 2 * 2 * 8 * 2 * seen * group.new * entries  # the whole rectangle, without weights
        assert ours["indexer"] == 2 * 2 * (8 + 1) * 2 * seen
        gates = [gate for layer in cache.layers for gate in getattr(layer, "overlap_gate", {}).values() if gate is not None]
        wide = sum(gate.numel() for gate in gates)  # in 32 bits in a model of 16, as the next test finds
        assert work.resident_bytes - work.program.stored_bytes == 2 * elements(cache) + 2 * wide


def elements(cache):
    """Elements of a cache's tensors; keys are values, which a class that knows nothing of it stores twice."""
    return sum(tensor.numel() for tensor in held(cache))


def held(cache):
    """Tensors of a cache of DeepSeek-V4, which are there from when they are first needed."""
    names = ("buffer_kv", "buffer_gate", "compressed_kv", "overlap_kv", "overlap_gate")
    beside = [getattr(layer, name, {}).values() for layer in cache.layers for name in names]
    return [layer.keys for layer in cache.layers] + [tensor for tensors in beside for tensor in tensors if tensor is not None]


def test_deepseek_v4_keeps_the_bytes_that_its_cache_has_in_16_bits():
    torch = pytest.importorskip("torch")
    settings, _ = instantiated(SMALL_V4, "DeepseekV4")
    transformers = __import__("transformers")
    module = transformers.AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        cache = module(torch.zeros((1, 23), dtype=torch.int64), use_cache=True).past_key_values
    work = forward(Model.load(SMALL_V4), Step.prefill(23), weights="bf16")
    assert work.held_bytes == sum(tensor.nbytes for tensor in held(cache))


def test_minimax_m3_does_what_transformers_does(monkeypatch):
    model = Model.load(SMALL_M3)
    for step, modules, masks, cache in run(SMALL_M3, "MiniMaxM3VL", monkeypatch):
        work = forward(model, step, weights="bf16")
        ours = flops(work)
        leaves = ("_proj", "lm_head", "mlp.gate", "mlp.experts")
        assert ours["linear"] + ours["lm_head"] == sum(n for name, n in modules.items() if name.endswith(leaves))
        assert ours["attention"] == sum(2 * (12 + 12) * allowed for allowed in masks)
        scores = modules["self_attn.indexer"] - modules["self_attn.indexer.q_proj"] - modules["self_attn.indexer.k_proj"]
        (group,) = step.groups
        causal = visible_pairs(group.new, group.cached)
        assert ours["indexer"] * group.new * (group.new + group.cached) == scores * causal
        held = sum(
            x.numel() for layer in cache.layers for x in (layer.keys, layer.values, getattr(layer, "idx_keys", None)) if x is not None
        )
        assert work.resident_bytes - work.program.stored_bytes == 2 * held
        assert 2 * held == 2 * (group.cached + group.new) * model.kv_bytes_per_token("bf16")


# -------------------------------------------------------------------------------------------------------------- properties

SIZES = st.integers(0, 300)
NEW = st.integers(1, 60)


@given(new=NEW, cached=SIZES, ratio=st.integers(1, 12), top_k=st.none() | st.integers(1, 20))
def test_compressed_entries_against_a_loop(new, cached, ratio, top_k):
    def seen(position):
        return min((position + 1) // ratio, top_k or 10**9)

    assert entry_pairs(new, cached, ratio=ratio, top_k=top_k) == sum(seen(p) for p in range(cached, cached + new))
    made = sum((p + 1) % ratio == 0 for p in range(cached, cached + new))
    assert entries_written(new, cached, ratio=ratio) == made
    # of what a token sees at least so much was there before the step, and as much if all agree
    before = cached // ratio
    least = max(max(0, seen(p) - ((p + 1) // ratio - before)) for p in range(cached, cached + new))
    assert entries_read(new, cached, ratio=ratio, top_k=top_k) == (before if top_k is None else least)


@given(new=NEW, cached=SIZES, block=st.integers(1, 12), top_k=st.integers(1, 8))
def test_selected_blocks_against_a_loop(new, cached, block, top_k):
    def seen(position):
        return position % block + 1 + block * min(position // block, top_k - 1)

    assert block_pairs(new, cached, block=block, top_k=top_k) == sum(seen(p) for p in range(cached, cached + new))
    assert block_positions_read(new, cached, block=block, top_k=top_k) == seen(cached) - 1
    if top_k * block >= cached + new:
        assert block_pairs(new, cached, block=block, top_k=top_k) == visible_pairs(new, cached)


DIMS = st.fixed_dictionaries({name: st.integers(1, 600) for name in ("heads", "rank", "nope_dim", "rope_dim", "v_dim")})


@given(dims=DIMS, new=NEW, cached=SIZES, more=st.integers(0, 50))
def test_latent_attention_is_the_cheaper_form_and_grows(dims, new, cached, more):
    def cost(new, cached):
        return latent_attention_flops(pairs=visible_pairs(new, cached), reexpanded=cached, **dims)

    h, r, nope, rope, v = (dims[name] for name in ("heads", "rank", "nope_dim", "rope_dim", "v_dim"))
    pairs = visible_pairs(new, cached)
    absorbed, expanded = 2 * h * (r + rope + r) * pairs, 2 * h * (nope + rope + v) * pairs + 2 * r * h * (nope + v) * cached
    assert cost(new, cached) == min(absorbed, expanded)
    assert cost(new + more, cached) >= cost(new, cached)
    assert cost(new, cached + more) >= cost(new, cached)
    # absorbing towards the cache and expanding among the new tokens passes kv_b twice, and never beats both
    mixed = 2 * h * ((2 * r + rope) * new * cached + (nope + rope + v) * visible_pairs(new, 0)) + 2 * r * h * (nope + v) * new
    assert mixed >= min(absorbed, expanded)


@given(new=NEW, cached=SIZES, top_k=st.integers(1, 100))
def test_selection_costs_no_more_than_attending_to_everything(new, cached, top_k):
    mixer = {"heads": 4, "q_lora_rank": 16, "kv_lora_rank": 32, "nope_dim": 8, "rope_dim": 4, "v_head_dim": 8}
    dense, sparse = (
        LatentAttention(**mixer, indexer=indexer) for indexer in (None, Indexer(heads=2, head_dim=8, top_k=top_k, shared=True))
    )
    base = Model.load(DEEPSEEK_V3 | {"num_hidden_layers": 1, "first_k_dense_replace": 1, "hidden_size": 64, "vocab_size": 10})
    a, b = (forward(base.but(layers=(base.layers[0].but(mixer=m),)), Step.chunk(new, cached=cached)) for m in (dense, sparse))
    for amount in ("flops", "kv_read_bytes", "kv_write_bytes"):
        assert b.total(amount) <= a.total(amount)
    if top_k > new + cached:
        assert b.total("flops") == a.total("flops")


@given(batch=st.integers(1, 4), new=NEW, cached=SIZES)
def test_costs_are_monotone_in_tokens_and_context(batch, new, cached):
    for config in (SMALL_V4, SMALL_M3, GLM_5):
        model = LOADED.setdefault(config["model_type"], Model.load(config))
        for step, more in (
            (Step.chunk(new, cached=cached, batch=batch), Step.chunk(new + 1, cached=cached, batch=batch)),
            (Step.chunk(new, cached=cached, batch=batch), Step.chunk(new, cached=cached, batch=batch + 1)),
            (Step.decode(context=cached, batch=batch), Step.decode(context=cached + 64, batch=batch)),
        ):
            low, high = forward(model, step), forward(model, more)
            for amount in ("flops", "vector_flops", "weight_bytes", "kv_read_bytes", "activation_bytes"):
                assert low.total(amount) <= high.total(amount) or isclose(low.total(amount), high.total(amount)), amount


LOADED = {}


@pytest.mark.parametrize("config", [SMALL_V4, SMALL_M3, GLM_5, LONGCAT], ids=lambda c: c["model_type"])
def test_fusion_changes_activation_traffic_only(config):
    model = Model.load(config)
    none, attention, full = (forward(model, Step.prefill(100), fusion=f) for f in ("none", "attention", "full"))
    assert none.total("activation_bytes") > attention.total("activation_bytes") > full.total("activation_bytes")
    for amount in ("flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes"):
        assert none.total(amount) == attention.total(amount) == full.total(amount)


# ----------------------------------------------------------------------------------------------------------------- readers


def test_shared_indexers_have_neither_weights_nor_keys():
    every, fourth = Model.load(GLM_5), Model.load(GLM_5 | {"index_topk_freq": 4, "index_skip_topk_offset": 3})
    selects = [g.mixer.index_elements_per_token > 0 for g in fourth.layers for _ in range(g.count)]
    assert selects == [True, True, True, False, False, False, True, False]
    gone = sum(1 for s in selects if not s)
    assert every.kv_bytes_per_token() - fourth.kv_bytes_per_token() == gone * 2 * 128
    one = sum(n for name, n in every.by_component().items() if ".indexer." in name) // 8
    assert every.parameters - fourth.parameters == gone * one
    assert one == 1536 * 32 * 128 + 7168 * 128 + 7168 * 32 + 2 * 128
    listed = GLM_5 | {"indexer_types": ["full" if s else "shared" for s in selects]}
    pattern = GLM_5 | {"index_topk_pattern": "".join("F" if s else "S" for s in selects)}
    assert Model.load(listed).layers == Model.load(pattern).layers == fourth.layers
    assert all(g.mixer.visibility == Visibility("selected", 2048) for g in fourth.layers)


def test_multi_token_prediction_lies_beside_the_model():
    v3, v4 = Model.load(DEEPSEEK_V3), Model.load(SMALL_V4)
    without = Model.load(DEEPSEEK_V3 | {"num_nextn_predict_layers": 0})
    assert v3.parameters == without.parameters
    assert without.mtp_parameters == 0
    layer = v3.layers[-1].parameters(7168)
    assert v3.mtp_parameters == layer + 2 * 7168 * 7168 + 3 * 7168
    assert v4.mtp_parameters == v4.layers[0].parameters(64) + 2 * 64 * 64 + 3 * 64 + (4 * 64 * 4 + 5)
    assert len(v3.mtp_modules) == len(v4.mtp_modules) == 1
    rows = forward(v4, Step.prefill(10), mtp=1).ops
    streams = sum(op.flops for op in rows if op.name == "mtp.h_proj")
    assert streams == 4 * 2 * 10 * 64 * 64  # once for each stream
    assert sum(op.weight_bytes for op in rows if op.name == "mtp.h_proj") == 2 * 64 * 64


def test_a_vision_tower_is_left_out_by_name():
    model = Model.load({"model_type": "kimi_k25", "text_config": DEEPSEEK_V3, "vision_config": {"patch_size": 14}})
    assert model.layers == Model.load(DEEPSEEK_V3).layers
    assert any("vision" in note for note in model.not_modelled)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (DEEPSEEK_V3 | {"index_topk": 2048}, "index_topk"),
        (DEEPSEEK_V3 | {"mlp_bias": True}, "mlp_bias"),
        (DEEPSEEK_V3 | {"moe_layer_freq": 2}, "moe_layer_freq"),
        (DEEPSEEK_V3 | {"num_key_value_heads": 8}, "num_key_value_heads"),
        (DEEPSEEK_V3 | {"qk_head_dim": 64}, "qk_head_dim"),
        (GLM_5 | {"indexer_types": ["shared"] * 8}, "full"),
        (GLM_5 | {"layer_types": ["sliding_attention"] * 8}, "layer_types"),
        (GLM_5 | {"q_lora_rank": None}, "q_lora_rank"),
        (SMALL_V4 | {"layer_types": None, "compress_ratios": [0, 4, 64]}, "compress_ratios"),
        (SMALL_V4 | {"layer_types": None}, "compress_ratios"),
        (SMALL_V4 | {"o_groups": 3}, "groups"),
        (SMALL_V4 | {"hc_mult": 2**30}, "hc_mult"),
        (SMALL_V4 | {"layer_types": [["sliding_attention"]] * 3}, "layer_types"),
        (GLM_5 | {"index_topk_pattern": "FFFFFFFX"}, "full"),
        (DEEPSEEK_V3 | {"num_nextn_predict_layers": 2**30}, "num_nextn_predict_layers"),
        (LONGCAT | {"num_layers": 2**30}, "num_layers"),
        (SMALL_V4 | {"num_key_value_heads": 2}, "num_key_value_heads"),
        (SMALL_V4 | {"mlp_layer_types": ["dense"] * 3}, "mlp_layer_types"),
        (SMALL_M3 | {"attention_output_gate": True}, "attention_output_gate"),
        (SMALL_M3 | {"index_local_blocks": 0}, "index_local_blocks"),
        (SMALL_M3 | {"moe_intermediate_size": 99}, "moe_intermediate_size"),
        (LONGCAT | {"zero_expert_type": "copy"}, "zero_expert_type"),
        ({"model_type": "kimi_k25", "text_config": DEEPSEEK_V3 | {"model_type": "llama"}}, "model_type"),
    ],
    ids=str,
)
def test_unsupported_key_raises_by_name(config, key):
    with pytest.raises((UnsupportedModelError, ConfigError), match=key):
        Model.load(config)


@pytest.mark.parametrize("update", [{"sparse_score_type": "mean"}, {"sparse_init_block": 1}, {"sparse_disable_index_value": [0, 1, 0]}])
def test_block_selection_of_another_kind_is_refused(update):
    flat = {k: v for k, v in SMALL_M3.items() if not k.startswith("index_") and k != "layer_types"}
    nested = {
        "use_sparse_attention": True,
        "sparse_attention_freq": [0, 1, 1],
        "sparse_disable_index_value": [0, 1, 1],
        "sparse_num_index_heads": 2,
        "sparse_index_dim": 8,
        "sparse_block_size": 4,
        "sparse_topk_blocks": 3,
        "sparse_local_block": 1,
        "sparse_init_block": 0,
        "sparse_score_type": "max",
    }
    assert Model.load(flat | {"sparse_attention_config": nested}).layers == Model.load(SMALL_M3).layers
    with pytest.raises((UnsupportedModelError, ConfigError), match=next(iter(update))):
        Model.load(flat | {"sparse_attention_config": nested | update})


def test_invalid_latent_attention_parts_raise():
    with pytest.raises(ValueError, match="index heads"):
        BlockSparseAttention(heads=4, kv_heads=2, head_dim=8, index_heads=3, index_dim=8, block=4, top_k=2)
    with pytest.raises(ValueError, match="no compressed entries"):
        CompressedAttention(
            heads=4,
            head_dim=8,
            rope_dim=4,
            q_lora_rank=8,
            o_groups=2,
            o_lora_rank=4,
            window=4,
            indexer=Indexer(heads=1, head_dim=1, top_k=1),
        )


@pytest.mark.parametrize("config", [SMALL_V4, SMALL_M3, GLM_5, LONGCAT], ids=lambda c: c["model_type"])
def test_round_trip(config):
    model = Model.load(config)
    assert Model.from_dict(json.loads(json.dumps(model.to_dict()))) == model
