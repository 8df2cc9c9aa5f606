"""Vision and audio towers: their parameters, their memory, and the work of encoding with them.

Small configurations of every family are built by transformers' class on the meta device; those of whom the towers can be run alone are
run once in eager attention, so that torch counts every product.
"""

import csv
import json
import re
import struct
from pathlib import Path

import pytest

from roofline import Deployment, Model, Workload, check_model, decode_floor, max_batch, prefill_estimate, prefill_floor, resident, simulate
from roofline.errors import InvalidValueError, UnsupportedModelError
from roofline.forward import forward
from roofline.huggingface import supported_model_types
from roofline.huggingface.build import TOWERED
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


SOUND = {"d_model": 40, "encoder_attention_heads": 5, "encoder_ffn_dim": 72, "encoder_layers": 3, "num_mel_bins": 16, "output_dim": 48}
STEP = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "share_expert_dim": 24, "sliding_window": 16}
STEP |= {"layer_types": ["full_attention", "sliding_attention"], "moe_layers_enum": "1"}
STEP |= {"attention_other_setting": {"attention_type": "sliding_attention", "num_attention_heads": 6}}


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
    "video_llava": _around("video_llava", "llama", CLIP),
    "llama4": _around(
        "llama4",
        "llama4_text",
        VIT | {"hidden_size": 60, "intermediate_size": 240, "projector_input_dim": 32, "projector_output_dim": 32, "vision_output_dim": 32},
        inner={"num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 64},
    ),
    "mllama": _around(
        "mllama",
        "mllama_text_model",
        VIT
        | {"num_global_layers": 2, "max_num_tiles": 2, "vision_output_dim": 120, "intermediate_layers_indices": [0, 1]}
        | {"supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]},
        inner={"cross_attention_layers": [1], "pad_token_id": 0},
    ),
    "gemma4": _around(
        "gemma4",
        "gemma4_text",
        VIT | {"model_type": "gemma4_vision", "num_key_value_heads": 5, "head_dim": 8, "patch_size": 4, "position_embedding_size": 20},
        inner={"hidden_size_per_layer_input": 0},
    ),
    "step3p7": _around("step3p7", "step3p5", VIT | {"num_attention_heads": 4, "hidden_size": 32, "image_size": 112}, inner=STEP),
    "qwen2_5_omni": _around(
        "qwen2_5_omni_thinker", "qwen2_5_omni_text", DEEP | {"fullatt_block_indexes": [1], "window_size": 56}, audio_config=SOUND
    ),
    "qwen3_omni_moe": _around(
        "qwen3_omni_moe_thinker",
        "qwen3_omni_moe_text",
        DEEP | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        audio_config=SOUND | {"downsample_hidden_size": 6, "n_window": 50, "n_window_infer": 100},
        inner={"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    ),
    "qwen2_audio": {"model_type": "qwen2_audio", "text_config": TEXT | {"model_type": "qwen2"}, "dtype": "bfloat16"}
    | {
        "audio_config": {k: v for k, v in SOUND.items() if k != "output_dim"}
        | {"model_type": "qwen2_audio_encoder", "max_source_positions": 16}
    },
    "voxtral": {"model_type": "voxtral", "text_config": TEXT | {"model_type": "llama"}, "dtype": "bfloat16"}
    | {
        "audio_config": {"model_type": "voxtral_encoder", "hidden_size": 40, "num_attention_heads": 5, "intermediate_size": 160}
        | {"num_hidden_layers": 2, "num_mel_bins": 16, "max_source_positions": 16}
    }
    | {"tie_word_embeddings": False},
    "shieldgemma2": _around("shieldgemma2", "gemma3_text", SIGLIP | {"vision_use_head": False}, mm_tokens_per_image=4),
    "lighton_ocr": _around("lighton_ocr", "qwen3", VIT | {"model_type": "pixtral"}),
    "cosmos3_omni": _around("cosmos3_omni", "qwen3_vl_text", DEEP | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}),
    "audioflamingo3": {"model_type": "audioflamingo3", "text_config": TEXT | {"model_type": "qwen2"}, "dtype": "bfloat16"}
    | {"audio_config": {k: v for k, v in SOUND.items() if k != "output_dim"} | {"max_source_positions": 16}},
    "qwen3_asr": {
        "model_type": "qwen3_asr",
        "text_config": TEXT | {"model_type": "qwen3"},
        "dtype": "bfloat16",
        "tie_word_embeddings": False,
    }
    | {"audio_config": SOUND | {"model_type": "qwen3_asr_encoder", "downsample_hidden_size": 6}},
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
    if kind == "audioflamingo3":
        auto = transformers.AutoModelForSeq2SeqLM
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


IMAGES = {
    "aya_vision",
    "llava",
    "llava, siglip",
    "vipllava",
    "paligemma",
    "deepseek_vl",
    "gemma3",
    "cohere2_vision",
    "internvl",
    "internvl, normed",
}
"""Families whose tower takes an image of one size: 56 by 56 pixels, 16 patches."""
SOUNDS = {"qwen2_audio", "voxtral"}
"""Families whose audio tower takes a stretch of one length: 32 frames, 16 positions."""
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


@pytest.mark.parametrize("name", sorted(SOUNDS))
def test_encoding_sound_has_the_products_that_torch_counts(name):
    torch = pytest.importorskip("torch")
    built, model = _built(FAMILIES[name], attn_implementation="eager"), Model.load(FAMILIES[name])
    heard = torch.zeros(1, 16, 32, device="meta", dtype=torch.bfloat16)
    tower, positions = built.model.audio_tower, model.towers[0].positions

    def run():
        made = tower(heard).last_hidden_state
        built.model.multi_modal_projector(made.reshape(positions // 4, -1) if name == "voxtral" else made)

    assert _encoding(model.with_encoded()) == _products(torch, run)


@pytest.mark.parametrize(("name", "frames", "positions"), [("qwen2_5_omni", 64, 32), ("qwen3_omni_moe", 200, 26)])
def test_encoding_sound_of_any_length_has_the_products_that_torch_counts(name, frames, positions):
    torch = pytest.importorskip("torch")
    built, model = _built(FAMILIES[name], attn_implementation="eager"), Model.load(FAMILIES[name])
    tower = built.model.audio_tower.to_empty(device="cpu").float()
    for buffer in tower.buffers():
        buffer.zero_()
    lengths = {"feature_lens": torch.tensor([frames])} | ({"aftercnn_lens": torch.tensor([positions])} if name == "qwen2_5_omni" else {})
    counted = _products(torch, lambda: tower(torch.zeros(16, frames), **lengths))
    assert _encoding(model.with_encoded(positions, senses="audio")) == counted


def test_encoding_an_image_of_step_3_7_has_the_products_that_torch_counts():
    torch = pytest.importorskip("torch")
    built, model = _built(FAMILIES["step3p7"], attn_implementation="eager").model, Model.load(FAMILIES["step3p7"])
    tower, projector = (part.to_empty(device="cpu").float() for part in (built.vision_model, built.multi_modal_projector))
    for buffer in tower.buffers():
        buffer.zero_()
    assert _encoding(model.with_encoded()) == _products(torch, lambda: projector(tower(torch.zeros(1, 3, 112, 112)).last_hidden_state))


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
    text = resident(gemma.without_towers(), "h100-sxm", context=1000)
    projector = 1152 * 2560 + 1152
    # Gemma 3 report, arXiv:2503.19786, table 1: 417 million of the vision encoder
    assert gemma.tower_parameters - projector == pytest.approx(417e6, abs=0.5e6)
    assert kept.tower_bytes == 2 * gemma.tower_parameters == kept.total_bytes - text.total_bytes
    assert (kept.weight_bytes, text.tower_bytes) == (text.weight_bytes, 0)
    assert gemma.stored_bytes() == gemma.without_towers().stored_bytes() == 2 * gemma.parameters
    assert max_batch(gemma, memory_capacity=24e9, context=8192) < max_batch(gemma.without_towers(), memory_capacity=24e9, context=8192)


def test_a_decode_step_and_a_prefill_without_images_leave_the_tower_alone():
    gemma = Model.load("gemma-3-4b")
    seeing = gemma.with_encoded(times=2)
    assert left_out("vision") in gemma.not_modelled
    assert left_out("vision") not in seeing.not_modelled
    decode = [decode_floor(model, "h100-sxm", batch=4, context=1000) for model in (gemma, gemma.without_towers(), seeing)]
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
    assert model.not_modelled == ("the vision tower and its projector: config, 'vision_config': a vision tower 'some_vit' is not modelled",)
    assert "without the vision tower 'some_vit', whose size is not known" in resident(model, "h100-sxm").notes
    alone = model.without_towers()
    assert (alone.tower_parameters, alone.not_modelled, resident(alone, "h100-sxm").notes) == (0, (), ())
    with pytest.raises(InvalidValueError, match="no vision or audio tower that is understood"):
        model.with_encoded()
    for changed in (CLIP | {"some_new_blocks": 3}, {"model_type": "clip_vision_model"}, CLIP | {"num_attention_heads": 7}):
        assert Model.load(FAMILIES["llava"] | {"vision_config": changed}).tower_parameters is None


@pytest.mark.parametrize("said", [{}, {"vision_config": None}])
@pytest.mark.parametrize("family", ["gemma3", "llava", "qwen2_5_vl"])
def test_a_multimodal_configuration_without_its_tower_has_one_of_unknown_size(family, said):
    config = {key: value for key, value in FAMILIES[family].items() if key != "vision_config"}
    model = Model.load(config | said)
    assert (model.tower_parameters, model.unknown_towers) == (None, (f"the vision tower of '{family}'",))
    assert model.not_modelled == ("the vision tower and its projector: the configuration has no 'vision_config'",)
    assert (model.without_towers().tower_parameters, model.without_towers().not_modelled) == (0, ())


@pytest.mark.parametrize("name", ["minimax-m3", "step-3.7-flash", "step-3.7-flash-fp8"])
def test_multimodal_entries_without_their_tower_say_so(name):
    assert Model.load(name).tower_parameters is None
    assert any("no 'vision_config'" in note for note in Model.load(name).not_modelled)


def test_a_text_model_has_no_tower():
    text = FAMILIES["gemma3"]["text_config"]
    assert Model.load(text).tower_parameters == 0
    config = {key: value for key, value in FAMILIES["gemma4"].items() if key != "vision_config"}
    assert Model.load(config).tower_parameters == 0  # Gemma4Config: without vision_config there is none


@pytest.mark.slow
@pytest.mark.parametrize("key", TOWERED)
def test_families_with_a_tower_by_default_are_those_of_transformers(key):
    mapping = pytest.importorskip("transformers").CONFIG_MAPPING
    whole = {t: mapping[t]() for t in supported_model_types() if t in mapping}
    default = {t for t, config in whole.items() if getattr(getattr(config, "thinker_config", None) or config, key, None) is not None}
    assert default == {t for t in TOWERED[key] if t in mapping and t in supported_model_types()}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dept": 40}, "key 'dept' = 40 is not understood"),
        ({"depth": "32"}, "'depth' is '32'; it must be a whole number"),
        ({"depth": 0}, "'depth' is 0; it must be a whole number"),
        ({"num_heads": 7}, "hidden size 40 is not a multiple of 7 attention heads"),
    ],
)
def test_what_is_wrong_in_a_towers_configuration_is_named(changed, said):
    config = FAMILIES["qwen2_5_vl"]
    model = Model.load(config | {"vision_config": config["vision_config"] | changed})
    assert model.tower_parameters is None
    assert said in model.not_modelled[0]


def test_a_tower_for_images_of_any_shape_needs_their_patches():
    qwen = Model.load(FAMILIES["qwen2_vl"])
    with pytest.raises(InvalidValueError, match="positions is needed"):
        qwen.with_encoded()
    with pytest.raises(InvalidValueError, match="senses is 'audio'"):
        qwen.with_encoded(16, senses="audio")
    assert qwen.with_encoded(16).towers[0].rows == 4


@pytest.mark.parametrize("positions", [4097, 10**7])
def test_a_tower_has_no_more_positions_than_its_table(positions):
    gemma = Model.load("gemma-3-4b")  # 896 / 14 squared
    assert gemma.with_encoded(4096).towers[0].encoded == 4096
    with pytest.raises(InvalidValueError, match=f"positions is {positions}; the vision tower of gemma-3-4b has 4,096 at most"):
        gemma.with_encoded(positions)


@pytest.mark.parametrize("ask", [prefill_floor, prefill_estimate])
def test_a_prompt_has_as_many_tokens_as_what_is_encoded_makes_rows(ask):
    seeing = Model.load("gemma-3-4b").with_encoded(times=3)  # mm_tokens_per_image of its configuration is 256
    assert ask(seeing, "h100-sxm", prompt=768)
    assert ask(seeing, "h100-sxm", prompt=800, cached=780)  # nothing is encoded again
    for prompt in (767, [100, 1000]):
        with pytest.raises(InvalidValueError, match="encodes makes 768 rows of a prompt, but a prompt has fewer tokens"):
            ask(seeing, "h100-sxm", prompt=prompt)


with (Path(__file__).parent / "data" / "towers.csv").open(encoding="utf-8", newline="") as _file:
    PUBLISHED = [(row["model"], int(row["total"])) for row in csv.DictReader(_file)]
"""Parameters of whole checkpoints."""


@pytest.mark.parametrize(("name", "total"), PUBLISHED)
def test_text_model_and_tower_are_the_parameters_of_the_card(name, total):
    model = Model.load(name)
    assert model.parameters + model.tower_parameters == total


KNOWN = [
    # published counts of towers that many models share: the configuration, the parameters, and where they are said
    (
        SIGLIP
        | {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 384}
        | {"vision_use_head": False},
        413e6,
    ),  # SigLIP so400m/14 at 384 pixels without its head; Zhai et al., arXiv:2303.15343, "shape-optimized 400M"
    (
        CLIP | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336},
        303.5e6,
    ),
]  # CLIP ViT-L/14: 303 million, Radford et al., arXiv:2103.00020, of the vision encoder


@pytest.mark.parametrize(("vision", "parameters"), KNOWN)
def test_a_tower_that_many_share_has_its_published_size(vision, parameters):
    (tower,) = Model.load(FAMILIES["llava"] | {"vision_config": vision}).towers
    alone = tower.parameters - sum(group.parameters(0) for group in tower.projector)
    assert alone == pytest.approx(parameters, rel=0.003)


def test_the_whole_of_qwen2_5_vl_7b_is_what_its_card_says():
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    vision |= {
        "in_chans": 3,
        "spatial_patch_size": 14,
        "tokens_per_second": 2,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "window_size": 112,
    }
    text = {"hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
    model = Model.load({"model_type": "qwen2_5_vl", **text, "vocab_size": 152_064, "torch_dtype": "bfloat16", "vision_config": vision})
    # of the checkpoint, as its page on the Hugging Face Hub shows them; the tower of 0.67 billion: Bai et al., arXiv:2502.13923, table 1
    assert model.parameters + model.tower_parameters == 8_292_166_656
    assert model.tower_parameters == pytest.approx(0.67e9, rel=0.01)


def _saved(folder, config, kinds):
    """A folder with the configuration and the header of a file that has the tensors of transformers' class, in these types by name."""
    built, header, at = _built(config), {}, 0
    for name, tensor in built.state_dict().items():
        kind = next((kind for part, kind in kinds.items() if part in name), "BF16")
        size = tensor.numel() * (4 if kind == "F32" else 2)
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return folder


@pytest.mark.parametrize("name", ["llava, siglip", "gemma3", "qwen2_5_vl", "qwen3_vl", "mistral3", "qwen2_5_omni"])
def test_the_tensors_of_a_tower_belong_to_it(name, tmp_path):
    check = check_model(_saved(tmp_path, FAMILIES[name], {"vision": "F32", "visual": "F32", "projector": "F32"}))
    assert (check.ok, check.beside_bytes) == (True, 0)
    row = next(row for row in check.components if row.component == "vision tower")
    assert row.parameters == row.in_files
    tower = next(tower for tower in check.model.towers if tower.senses == "vision")
    assert tower.dtype == "fp32"


def test_a_model_that_encodes_is_not_simulated_from_tables():
    seeing = Deployment(Model.load("gemma-3-4b").with_encoded(), "h100-sxm")
    with pytest.raises(UnsupportedModelError, match="images or sound for every new sequence"):
        simulate(seeing, Workload.generated(3, arrivals=1, prompt=100, output=5, seed=1))
