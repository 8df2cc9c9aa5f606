"""Configurations as published, from the wheel of aiconfigurator-core: none is refused, and none is read as less than it is.

What a configuration contains is settled here a second time, from its keys alone and without the readers.
"""

import importlib.util
import json
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from roofline import Hardware, Model, RooflineError, decode_floor, prefill_floor
from roofline.model import Attention, BlockSparseAttention, CompressedAttention, Experts, LatentAttention, RecurrentMixer


def _files():
    spec = importlib.util.find_spec("aiconfigurator_core")
    folder = Path(spec.origin).parent / "model_configs" if spec and spec.origin else None
    files = sorted(folder.glob("*_config.json")) if folder else []
    return {f.name.removesuffix("_config.json"): f for f in files if not f.name.endswith("hf_quant_config.json")}


FILES = _files()
pytestmark = pytest.mark.skipif(not FILES, reason="aiconfigurator-core, whose wheel carries published configurations, is not installed")
REFUSED: dict[str, str] = {}
"""Configurations that are refused, with the key that the message must name. There are none."""
LOADED = sorted(set(FILES) - set(REFUSED))


def test_every_configuration_loads():
    refused = {}
    for name, file in FILES.items():
        try:
            Model.load(file)
        except RooflineError as error:
            refused[name] = str(error)
    assert set(refused) == set(REFUSED), refused
    assert all(REFUSED[name] in message for name, message in refused.items())
    assert len(FILES) - len(refused) >= 89  # of version 0.12.0


# ------------------------------------------------------------------------------------------------- what the keys alone say


def first(keys, *names):
    """The first of several keys with a value that is not null."""
    return next((keys[name] for name in names if keys.get(name) is not None), None)


def layers_without(keys, layers):
    """How many layers have no mixer, and how many no feed-forward."""
    if letters := keys.get("hybrid_override_pattern"):
        return sum(x in "-E" for x in letters), sum(x in "M*" for x in letters)
    if kinds := keys.get("layers_block_type"):
        return sum(x in ("mlp", "moe") for x in kinds), sum(x in ("mamba", "attention") for x in kinds)
    blocks = keys.get("block_configs") or []
    return tuple(sum(block[part]["no_op"] or block[part]["replace_with_linear"] for block in blocks) for part in ("attention", "ffn"))


def recurrent_layers(keys, layers):
    if "linear_attn_config" in keys:
        return len(keys["linear_attn_config"]["kda_layers"])
    kinds = keys.get("hybrid_override_pattern") or keys.get("layers_block_type") or keys.get("layer_types") or ()
    return sum(kind in ("M", "mamba", "linear_attention") for kind in kinds)


def sparse_layers(keys, layers):
    """How many layers have experts."""
    if not first(keys, "n_routed_experts", "num_experts", "num_local_experts"):
        return 0
    frequency = keys.get("moe_layer_freq")
    if isinstance(frequency, list):
        return sum(frequency)
    for name, kind in (("mlp_layer_types", "sparse"), ("layers_block_type", "moe"), ("hybrid_override_pattern", "E")):
        if name in keys:
            return sum(x == kind for x in keys[name])
    dense = keys.get("first_k_dense_replace", 0)
    step = first(keys, "interleave_moe_layer_step", "decoder_sparse_step") or 1
    assert not keys.get("mlp_only_layers")
    return (layers - dense) // step


def local_layers(keys, layers):
    """How many layers attend to a sliding window, and how many to chunks."""
    if keys.get("sliding_window") and keys.get("use_sliding_window", True) and "compress_ratios" not in keys:
        return sum(kind in (1, "sliding_attention") for kind in keys.get("hybrid_layer_pattern") or keys["layer_types"]), 0
    # Llama 4: every fourth layer is without rotation and attends to everything
    return 0, layers - layers // 4 if keys.get("attention_chunk_size") else 0


def span(keys):
    """How many positions a window has; MiMo's `sliding_window_size` counts those before the token (transformers' MiMoV2FlashConfig)."""
    return keys["sliding_window_size"] + 1 if "sliding_window_size" in keys else keys["sliding_window"]


def indexers(keys, layers):
    """How many layers have an indexer with weights, and how many positions or blocks it selects."""
    blocks = keys.get("sparse_attention_config", {})
    if blocks.get("use_sparse_attention"):
        return sum(blocks["sparse_attention_freq"]), blocks["sparse_topk_blocks"]
    if "compress_ratios" in keys:  # DeepSeek-V4: entries of 4 positions are selected, entries of 128 are all read
        return sum(ratio == 4 for ratio in keys["compress_ratios"][:layers]), keys["index_topk"]
    if not keys.get("index_topk"):
        return 0, None
    kinds = keys.get("indexer_types", ["full"] * layers)
    return sum(kind == "full" for kind in kinds), keys["index_topk"]


def shares(keys):
    """Whether there is an expert that every token visits; Llama 4 has one in every mixture, and no key for it."""
    sizes = ("n_shared_experts", "num_shared_experts", "shared_expert_intermediate_size", "shared_intermediate_size")
    return bool(first(keys, *sizes)) or keys["model_type"] == "llama4_text"


def quantized(file, raw):
    levels = (raw, raw.get("text_config", {}))
    beside = file.with_name(file.name.replace("_config.json", "_hf_quant_config.json"))
    return any(level.get("quantization_config") or level.get("compression_config") for level in levels) or beside.is_file()


def said(file):
    """What the keys of a configuration say is in it."""
    raw = json.loads(file.read_text(encoding="utf-8"))
    keys = raw.get("text_config", raw)
    layers = keys.get("num_hidden_layers") or len(keys["layers_block_type"])
    without_mixer, without_feed_forward = layers_without(keys, layers)
    recurrent, sparse = recurrent_layers(keys, layers), sparse_layers(keys, layers)
    attending = layers - without_mixer - recurrent
    windows, chunks = local_layers(keys, layers)
    selecting, top_k = indexers(keys, layers)
    latent = attending if keys.get("kv_lora_rank") else 0
    compressed = layers if "compress_ratios" in keys else 0
    return {
        "layers": layers,
        "recurrent layers": recurrent,
        "latent attention": latent,
        "compressed attention": compressed,
        "attention to windows": windows,
        "attention to chunks": chunks,
        "attention to everything": attending - latent - compressed - windows - chunks - selecting * ("sparse_attention_config" in keys),
        "spans": {span(keys)} if windows else {keys["attention_chunk_size"]} if chunks else set(),
        "indexers": selecting,
        "selected": top_k,
        "mixtures of experts": sparse,
        "dense feed-forwards": layers - without_feed_forward - sparse,
        "experts and experts per token": sparse
        and (
            first(keys, "n_routed_experts", "num_experts", "num_local_experts"),
            first(keys, "num_experts_per_tok", "num_experts_per_token", "top_k_experts"),
        ),
        "shared experts": bool(sparse) and shares(keys),
        "narrow experts": bool(first(keys, "moe_latent_size", "routed_expert_hidden_size")),
        "drafts": bool(first(keys, "mtp_num_hidden_layers", "num_mtp_modules", "num_nextn_predict_layers")),
        "streams": keys.get("hc_mult", 1),
        "quantized": quantized(file, raw),
        "vision": "vision_config" in raw or raw["model_type"] in ("llama4", "minimax_m3", "step3p7"),  # of which the wheel drops it
    }


def found(file):
    """What the model that is read contains, in the same words."""
    model, counts, experts, spans, selected = Model.load(file), Counter(), set(), set(), set()
    for group in model.layers:
        mixer, block = group.mixer, group.feed_forward
        visible = getattr(mixer, "visible", "") if isinstance(mixer, Attention) else type(mixer)
        counts[visible] += group.count
        counts[type(block)] += group.count
        counts["recurrent"] += group.count * isinstance(mixer, RecurrentMixer)
        if visible in ("window", "chunk"):
            spans.add(mixer.span)
        indexer = getattr(mixer, "indexer", None)
        if indexer is not None and not getattr(indexer, "shared", False):
            counts["indexers"] += group.count
            selected.add(indexer.top_k)
        if isinstance(mixer, BlockSparseAttention):
            counts["indexers"] += group.count
            selected.add(mixer.top_k)
        if isinstance(block, Experts):
            experts.add((block.count, block.top_k))
    mixtures = [g.feed_forward for g in model.layers if isinstance(g.feed_forward, Experts)]
    absent = sum(g.count for g in model.layers if g.feed_forward is None)
    left_out = " ".join(model.not_modelled)
    return {
        "layers": model.num_layers,
        "recurrent layers": counts["recurrent"],
        "latent attention": counts[LatentAttention],
        "compressed attention": counts[CompressedAttention],
        "attention to windows": counts["window"],
        "attention to chunks": counts["chunk"],
        "attention to everything": counts["causal"],
        "spans": spans,
        "indexers": counts["indexers"],
        "selected": selected.pop() if len(selected) == 1 else (selected or None),
        "mixtures of experts": counts[Experts],
        "dense feed-forwards": model.num_layers - counts[Experts] - absent,
        "experts and experts per token": experts.pop() if len(experts) == 1 else len(experts),
        "shared experts": any(part.shared for part in mixtures),
        "narrow experts": any(part.latent for part in mixtures),
        "drafts": bool(model.mtp) or "multi-token-prediction" in left_out,
        "streams": max(group.streams for group in model.layers),
        "quantized": bool(model.formats) or any(group.formats for group in model.layers),
        "vision": "vision tower" in left_out,
    }


@pytest.mark.parametrize("name", LOADED)
def test_what_the_keys_say_is_what_is_read(name):
    expected, read = said(FILES[name]), found(FILES[name])
    assert {key: (expected[key], read[key]) for key in expected if expected[key] != read[key]} == {}


def test_every_kind_of_part_is_among_them():
    """The comparison would say little if the wheel had only dense models."""
    counts = Counter(key for name in LOADED for key, value in said(FILES[name]).items() if value)
    assert set(counts) == set(said(FILES[LOADED[0]]))
    assert counts["mixtures of experts"] >= 60
    assert counts["latent attention"] >= 20
    assert counts["recurrent layers"] >= 15
    assert counts["attention to windows"] >= 6
    assert counts["indexers"] >= 20
    assert counts["attention to chunks"] >= 2
    assert counts["quantized"] >= 40


@pytest.mark.parametrize("name", LOADED)
def test_a_mixture_runs_only_some_of_its_parameters(name):
    model = Model.load(FILES[name])
    if said(FILES[name])["mixtures of experts"]:
        assert model.active_parameters < 0.5 * model.parameters
    else:
        assert model.active_parameters == model.parameters


# ----------------------------------------------------------------------------------------------------- what the names promise

SIZE = re.compile(r"-(\d+(?:\.\d+)?)[Bb](?=-|$)")
ACTIVE = re.compile(r"-A(\d+(?:\.\d+)?)B(?=-|$)")
LLAMA_4 = re.compile(r"-(\d+)B-(\d+)E-")
MIXTRAL = re.compile(r"-(\d+)x(\d+)B-")
NOT_THE_SIZE = {
    # name → its parameters as published elsewhere, and why the name says something else
    "Qwen--Qwen3-VL-2B-Instruct": (1.72e9, "the name counts the vision tower; the text model is Qwen3-1.7B's"),
    "XiaomiMiMo--MiMo-7B-Base": (7.62e9, "the name is cut to a whole number; the widths are those of Qwen2.5-7B, 7.62 billion"),
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": (31.6e9, "31.6 billion in its technical report"),
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4": (31.6e9, "as above"),
    "nvidia--NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4": (31.6e9, "the layers of Nemotron 3 Nano"),
    "openai--gpt-oss-20b": (20.9e9, "20.9 billion in its model card"),
}
SIZED = [name for name in LOADED if SIZE.search(name) and not LLAMA_4.search(name)]


@pytest.mark.parametrize("name", SIZED)
def test_the_size_is_the_one_in_the_name(name):
    named = NOT_THE_SIZE[name][0] if name in NOT_THE_SIZE else 1e9 * float(SIZE.search(name)[1])
    assert Model.load(FILES[name]).parameters == pytest.approx(named, rel=0.03 if name not in NOT_THE_SIZE else 0.005)


@pytest.mark.parametrize("name", [name for name in LOADED if ACTIVE.search(name) or LLAMA_4.search(name)])
def test_the_active_size_is_the_one_in_the_name(name):
    """Names count the embedding table or leave it out, and round to a billion."""
    model = Model.load(FILES[name])
    named = 1e9 * float((ACTIVE.search(name) or LLAMA_4.search(name))[1])
    counts = (model.active_parameters, model.active_parameters - model.embedding_parameters)
    assert any(count == pytest.approx(named, rel=0.1) for count in counts), counts


@pytest.mark.parametrize("name", [name for name in LOADED if LLAMA_4.search(name) or MIXTRAL.search(name)])
def test_the_number_of_experts_is_the_one_in_the_name(name):
    number = int(LLAMA_4.search(name)[2] if LLAMA_4.search(name) else MIXTRAL.search(name)[1])
    assert {g.feed_forward.count for g in Model.load(FILES[name]).layers if isinstance(g.feed_forward, Experts)} == {number}


def test_most_names_have_a_size():
    assert len(SIZED) >= 40
    assert set(NOT_THE_SIZE) <= set(SIZED) or len(FILES) < 89


# -------------------------------------------------------------------------------------------------------------------- floors

GRID = {"batch": np.array([[1], [32]]), "context": np.array([100, 20_000])}


@pytest.fixture(scope="module")
def machine():
    return Hardware.load("h200-sxm")


def floors(name, machine):
    """A decode floor and a prefill floor, each as a function of batch and length."""
    model = Model.load(FILES[name])
    options = {} if model.dtype else {"weights": "bf16"}
    yield lambda batch, context: decode_floor(model, machine, batch=batch, context=context, **options)
    yield lambda batch, context: prefill_floor(model, machine, batch=batch, prompt=context, **options)


@pytest.mark.parametrize("name", LOADED)
def test_floors(name, machine):
    for floor in floors(name, machine):
        grid = floor(**GRID)
        for number in ("time_s", "roofline_s", "flops", "total_bytes", "resident_bytes"):
            values = getattr(grid, number)
            assert np.shape(values) == (2, 2)
            assert np.isfinite(values).all()
            assert (values > 0).all()
        assert (grid.time_s <= grid.roofline_s * (1 + 1e-12)).all()
        for i, batch in enumerate(GRID["batch"][:, 0]):
            for j, context in enumerate(GRID["context"]):
                one = floor(int(batch), int(context))
                for number in ("time_s", "roofline_s", "flops", "total_bytes", "resident_bytes"):
                    assert math.isclose(getattr(one, number), getattr(grid, number)[i, j], rel_tol=1e-12), (number, i, j)
                assert one.bound == grid.bound[i, j]
