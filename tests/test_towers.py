"""Vision and audio towers: their parameters, their memory, and the work of encoding with them.

Small configurations of every family are built by transformers' class on the meta device; those of whom the towers can be run alone are
run once in eager attention, so that torch counts every product.
"""

import json
import re

import pytest

from roofline import Model, decode_floor, max_batch, prefill_floor, resident
from roofline.errors import InvalidValueError
from roofline.forward import forward
from roofline.model.tower import left_out
from roofline.step import Step

TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}
TEXT |= {"head_dim": 12, "dtype": "bfloat16", "tie_word_embeddings": False}
LINEAR = {
    f"linear_{what}": size for what, size in {"num_key_heads": 2, "num_value_heads": 2, "key_head_dim": 8, "value_head_dim": 8}.items()
}
VIT = {"hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 5, "image_size": 56, "patch_size": 14}
DEEP = {"depth": 3, "hidden_size": 40, "num_heads": 5, "intermediate_size": 72, "out_hidden_size": 48}
CLIP, SIGLIP = VIT | {"model_type": "clip_vision_model"}, VIT | {"model_type": "siglip_vision_model"}


def _around(model_type, text, vision, *, inner=None, **more):
    level = TEXT | {"model_type": text} | (inner or {})
    around = {"model_type": model_type, "dtype": "bfloat16", "tie_word_embeddings": False}
    return around | {"text_config": level, "vision_config": vision, **more}


FAMILIES = {
    "llava": _around("llava", "llama", CLIP),
    "llava, all patches of two layers": _around(
        "llava", "llama", CLIP, vision_feature_layer=[-2, 1], vision_feature_select_strategy="full", multimodal_projector_bias=False
    ),
    "llava, siglip": _around("llava", "llama", SIGLIP, vision_feature_layer=-1),
    "llava, pixtral": _around("llava", "mistral", VIT | {"model_type": "pixtral"}, vision_feature_layer=-1),
    "llava_next": _around("llava_next", "mistral", CLIP),
    "llava_next_video": _around("llava_next_video", "llama", CLIP),
    "vipllava": _around("vipllava", "llama", CLIP, vision_feature_layer=[-2, -3]),
    "llava_onevision": _around("llava_onevision", "qwen2", SIGLIP | {"vision_use_head": False}),
    "paligemma": _around("paligemma", "gemma", SIGLIP, projection_dim=48),
    "deepseek_vl": _around("deepseek_vl", "llama", SIGLIP),
    "gemma3": _around("gemma3", "gemma3_text", SIGLIP | {"vision_use_head": False}, mm_tokens_per_image=4),
    "mistral3": _around("mistral3", "mistral", VIT | {"model_type": "pixtral"}),
    "aya_vision": _around("aya_vision", "cohere2", SIGLIP),
    "cohere2_vision": _around("cohere2_vision", "cohere2", SIGLIP, alignment_intermediate_size=64),
    "lfm2_vl": _around("lfm2_vl", "lfm2", VIT | {"model_type": "siglip2_vision_model", "num_patches": 16}, projector_hidden_size=56),
    "lfm2_vl, no norm": _around(
        "lfm2_vl", "lfm2", VIT | {"model_type": "siglip2_vision_model"}, projector_use_layernorm=False, projector_bias=False
    ),
    "idefics3": _around("idefics3", "llama", VIT | {"model_type": "idefics3_vision"}, scale_factor=2),
    "smolvlm": _around("smolvlm", "llama", VIT | {"model_type": "smolvlm_vision"}, scale_factor=4),
    "internvl": _around("internvl", "qwen2", VIT | {"model_type": "internvl_vision", "attention_bias": True}),
    "internvl, normed": _around(
        "internvl",
        "qwen2",
        VIT | {"model_type": "internvl_vision", "use_qk_norm": True, "norm_type": "rms_norm", "use_mean_pooling": False},
    ),
    "qwen2_vl": _around("qwen2_vl", "qwen2_vl_text", {"depth": 3, "embed_dim": 40, "num_heads": 5, "hidden_size": 48}),
    "qwen2_5_vl": _around("qwen2_5_vl", "qwen2_5_vl_text", DEEP | {"fullatt_block_indexes": [1], "window_size": 56}),
    "qwen3_vl": _around("qwen3_vl", "qwen3_vl_text", DEEP | {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16}),
    "qwen3_5": _around("qwen3_5", "qwen3_5_text", DEEP | {"num_position_embeddings": 16}, inner=LINEAR),
    "glm4v": _around("glm4v", "glm4v_text", DEEP | {"image_size": 56}),
    "glm46v": _around("glm46v", "glm4v_text", DEEP | {"model_type": "glm4v_vision", "attention_bias": True}),
}
BESIDE = re.compile("vision|visual|image|video|audio|multi_modal|projector|connector|aligner")


def _built(config, **options):
    """Transformers' model of a configuration on the meta device."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind = config["model_type"]
    if kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    read = transformers.CONFIG_MAPPING[kind].from_dict(json.loads(json.dumps(config)))
    auto = transformers.AutoModelForMultimodalLM if "audio_config" in config else transformers.AutoModelForImageTextToText
    with torch.device("meta"):
        model = auto.from_config(read, **options).eval()
    model.tie_weights()
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tower_has_the_parameters_of_its_class(name):
    model, built = Model.load(FAMILIES[name]), _built(FAMILIES[name])
    counts = {name: p.numel() for name, p in built.named_parameters()}
    assert model.tower_parameters == sum(n for name, n in counts.items() if BESIDE.search(name))
    assert model.tower_parameters + model.parameters == sum(counts.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_what_transformers_writes_again_has_the_same_tower(name):
    transformers = pytest.importorskip("transformers")
    config = FAMILIES[name]
    if name == "paligemma":
        pytest.skip("transformers writes of its text model that it sees what follows, which is refused")
    if config["model_type"] not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {config['model_type']}")
    again = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(json.loads(json.dumps(config))).to_dict()
    first, second = Model.load(config).towers, Model.load(again | {"dtype": "bfloat16"}).towers
    assert [tower.but(model_type="") for tower in second] == [tower.but(model_type="") for tower in first]


IMAGES = {"llava", "llava, siglip", "vipllava", "paligemma", "deepseek_vl", "gemma3", "cohere2_vision", "internvl", "internvl, normed"}
"""Families whose tower takes an image of one size: 56 by 56 pixels, 16 patches."""
GRIDS = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v", "glm46v"}
"""Families whose tower takes patches of any image."""


def _products(torch, run):
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def _encoding(model, prompt=40):
    """The products of a prefill that the tower does."""
    ops = forward(model, Step.prefill(prompt)).ops
    return sum(op.flops for op in ops if op.kind == "contraction" and op.name.startswith(("vision.", "audio.")))


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_encoding_an_image_has_the_products_that_torch_counts(name):
    torch = pytest.importorskip("torch")
    config = FAMILIES[name] | {"vision_config": FAMILIES[name]["vision_config"] | {"vision_use_head": False}}
    built, model = _built(config, attn_implementation="eager"), Model.load(config)
    pixels = torch.zeros(1, 3, 56, 56, device="meta", dtype=torch.bfloat16)
    counted = _products(torch, lambda: built.model.get_image_features(pixel_values=pixels))
    (tower,) = model.towers
    whole = model.but(towers=(tower.but(layers=(*tower.layers, *tower.idle), idle=()),))  # transformers also runs layers that nobody reads
    assert _encoding(whole.with_encoded()) == counted


def test_layers_after_the_one_that_is_read_are_stored_and_not_run():
    last, before = (Model.load(FAMILIES["llava"] | {"vision_feature_layer": layer}) for layer in (-1, -2))
    assert last.tower_parameters == before.tower_parameters
    assert sum(g.count for g in before.towers[0].layers if g.mixer) == 2
    width, wide, rows = 40, 72, 17  # queries, keys, values, output, two matrices, and two products of attention
    one = 2 * rows * (4 * width**2 + 2 * width * wide) + 4 * rows**2 * width
    assert _encoding(last.with_encoded()) - _encoding(before.with_encoded()) == one


@pytest.mark.parametrize("name", sorted(GRIDS))
def test_encoding_patches_has_the_products_that_torch_counts(name):
    torch = pytest.importorskip("torch")
    built, model = _built(FAMILIES[name], attn_implementation="eager"), Model.load(FAMILIES[name])
    patch = model.towers[0].embedding[0].feed_forward.inputs
    visual = built.model.visual.to_empty(device="cpu").float()
    grid, pixels = torch.tensor([[1, 8, 4]]), torch.zeros(32, patch)
    for buffer in visual.buffers():
        buffer.zero_()
    assert _encoding(model.with_encoded(32)) == _products(torch, lambda: visual(pixels, grid_thw=grid))


def test_windows_are_blocks_that_see_themselves_alone():
    config = FAMILIES["qwen2_5_vl"]
    windowed = Model.load(config).with_encoded(64)
    full = Model.load(config | {"vision_config": config["vision_config"] | {"fullatt_block_indexes": [0, 1, 2]}}).with_encoded(64)
    assert _encoding(full) - _encoding(windowed) == 2 * (64**2 - 4 * 16**2) * 4 * 40  # two of three layers, windows of 4 by 4 patches


def test_towers_are_outside_the_parameters_and_in_memory():
    gemma = Model.load("gemma-3-4b")
    kept = resident(gemma, "h100-sxm", context=1000)
    text = resident(gemma.but(towers=()), "h100-sxm", context=1000)
    assert (
        gemma.tower_parameters == 419_817_984
    )  # 416,866,032 of SigLIP so400m/14 at 896 pixels without its head, and the projector's 2,951,952
    assert kept.tower_bytes == 2 * gemma.tower_parameters == kept.total_bytes - text.total_bytes
    assert (kept.weight_bytes, text.tower_bytes) == (text.weight_bytes, 0)
    assert gemma.stored_bytes() == gemma.but(towers=()).stored_bytes() == 2 * gemma.parameters
    assert max_batch(gemma, memory_capacity=24e9, context=8192) < max_batch(gemma.but(towers=()), memory_capacity=24e9, context=8192)


def test_a_decode_step_and_a_prefill_without_images_leave_the_tower_alone():
    gemma = Model.load("gemma-3-4b")
    seeing = gemma.with_encoded(times=2)
    assert left_out("vision") in gemma.not_modelled and left_out("vision") not in seeing.not_modelled
    decode = [decode_floor(model, "h100-sxm", batch=4, context=1000) for model in (gemma, gemma.but(towers=()), seeing)]
    assert len({(floor.time_s, floor.flops, floor.weight_bytes) for floor in decode}) == 1
    one, two = (prefill_floor(gemma.with_encoded(times=n), "h100-sxm", prompt=1000) for n in (1, 2))
    plain = prefill_floor(gemma, "h100-sxm", prompt=1000)
    assert two.flops - plain.flops == pytest.approx(2 * (one.flops - plain.flops))
    assert one.weight_bytes == two.weight_bytes == plain.weight_bytes + 2 * gemma.tower_parameters


def test_devices_share_a_tower_evenly_and_the_first_stage_has_it():
    gemma = Model.load("gemma-3-4b")
    whole, half = (resident(gemma, "h100-sxm", tensor_parallel=n) for n in (1, 2))
    assert half.tower_bytes == whole.tower_bytes / 2
    first = resident(gemma, "h100-sxm", pipeline_parallel=2)
    assert first.tower_bytes == whole.tower_bytes
    alone, shared = (prefill_floor(gemma.with_encoded(), "h100-sxm", prompt=300, tensor_parallel=n).work for n in (1, 2))
    flops = [sum(op.flops for op in work.ops if op.name.startswith("vision.")) for work in (alone, shared)]
    assert flops[1] == flops[0] / 2


def test_a_tower_in_another_format_than_the_layers():
    gemma = Model.load("gemma-3-4b")
    in_16_bits = 2 * gemma.tower_parameters
    assert resident(gemma, "h100-sxm", weights="fp8").tower_bytes == in_16_bits
    assert resident(gemma, "h100-sxm", weights="fp32").tower_bytes == 2 * in_16_bits
    assert resident(gemma, "h100-sxm", weights="q4_k_m").tower_bytes == in_16_bits


def test_a_tower_that_is_not_understood_is_named_and_not_guessed():
    config = FAMILIES["llava"] | {"vision_config": VIT | {"model_type": "some_vit"}}
    model = Model.load(config)
    assert (model.towers, model.tower_parameters) == ((), None)
    assert model.not_modelled == ("the vision tower and its projector: 'some_vit' is not modelled",)
    assert "without the vision tower 'some_vit', whose size is not known" in resident(model, "h100-sxm").notes
    with pytest.raises(InvalidValueError, match="no vision or audio tower that is understood"):
        model.with_encoded()
    for changed in (CLIP | {"some_new_blocks": 3}, {"model_type": "clip_vision_model"}, CLIP | {"num_attention_heads": 7}):
        assert Model.load(FAMILIES["llava"] | {"vision_config": changed}).tower_parameters is None


def test_a_tower_for_images_of_any_shape_needs_their_patches():
    qwen = Model.load(FAMILIES["qwen2_vl"])
    with pytest.raises(InvalidValueError, match="positions is needed"):
        qwen.with_encoded()
    with pytest.raises(InvalidValueError, match="senses is 'audio'"):
        qwen.with_encoded(16, senses="audio")
    assert qwen.with_encoded(16).towers[0].rows == 4
