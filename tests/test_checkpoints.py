"""What the headers of GGUF and safetensors files say goes before what a configuration claims.

Sizes of published files are what llama.cpp prints of them: llama-bench and llama-server in their READMEs (``tools/llama-bench``,
``tools/server``), and logs of loading in issues of ggml-org/llama.cpp, whose numbers of tensors by type are held as well.
"""

import json
import struct
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

import roofline
from roofline import ConfigError, Model, UnsupportedModelError, check_model, decode_floor, list_models
from roofline.checkpoints import read_folder, read_gguf
from shell import invoke

GIB = 2**30

LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 1024,
    "dtype": "bfloat16",
    "tie_word_embeddings": False,
}
SHAPES = {
    "self_attn.q_proj": (256, 256),
    "self_attn.k_proj": (128, 256),
    "self_attn.v_proj": (128, 256),
    "self_attn.o_proj": (256, 256),
    "mlp.gate_proj": (512, 256),
    "mlp.up_proj": (512, 256),
    "mlp.down_proj": (256, 512),
}
WIDTH = {"U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E8M0": 1, "BF16": 2, "F16": 2, "F32": 4, "I32": 4, "U32": 4, "I64": 8}


def write_tensors(file, tensors):
    """Write a safetensors file that ends behind its header."""
    at, header = 0, {"__metadata__": {"format": "pt"}}
    for name, (kind, shape) in tensors.items():
        size = WIDTH[kind] * prod(shape)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text)
    return at


def llama_tensors(pack=None, kind="BF16"):
    """Return the tensors of the small Llama, every matrix of the layers as `pack` makes them of module, rows and columns."""
    tensors = {"model.embed_tokens.weight": (kind, (1024, 256)), "lm_head.weight": (kind, (1024, 256)), "model.norm.weight": (kind, (256,))}
    for i in range(2):
        for name, (rows, columns) in SHAPES.items():
            module = f"model.layers.{i}.{name}"
            tensors |= {f"{module}.weight": (kind, (rows, columns))} if pack is None else pack(module, rows, columns)
        tensors |= {f"model.layers.{i}.{name}.weight": (kind, (256,)) for name in ("input_layernorm", "post_attention_layernorm")}
    return tensors


@pytest.fixture
def folder(tmp_path):
    def write(tensors, **config):
        (tmp_path / "config.json").write_text(json.dumps(LLAMA | config))
        write_tensors(tmp_path / "model.safetensors", tensors)
        return tmp_path

    return write


# -------------------------------------------------------------------------------------------------------------------- GGUF

PUBLISHED = {
    # file: tensors by type, bytes, parameters; the tolerance of bytes that are printed in GiB is half of their last digit
    "llama_2_7b": ({"Q4_0": 225, "Q6_K": 1, "F32": 65}, 3_825_065_984, 6_738_415_616),  # llama-bench's README
    "llama_3_1_8b": ({"Q4_K": 193, "Q6_K": 33, "F32": 66}, 4_912_898_304, 8_030_261_248),  # llama-server's README; 64 factors of rotation
    "qwen3_30b_a3b": ({"Q4_K": 289, "Q6_K": 49, "F32": 241}, 17.28 * GIB, 30_532_122_624),  # issue 14235
    "gpt_oss_20b": ({"Q8_0": 98, "MXFP4": 72, "F32": 289}, 11.27 * GIB, 20_914_757_184),  # 459 tensors: ik_llama.cpp, issue 822
    "gpt_oss_120b": ({"Q8_0": 146, "MXFP4": 108, "F32": 433}, 59.02 * GIB, 116_829_156_672),  # issue 15253
}


@pytest.fixture
def published(tmp_path):
    headers = pytest.importorskip("gguf_headers", reason="headers are made with the package gguf")

    def write(name, **options):
        metadata, tensors = getattr(headers, name)()
        architecture = {"qwen3_30b_a3b": "qwen3moe", "gpt_oss_20b": "gpt-oss", "gpt_oss_120b": "gpt-oss"}.get(name, "llama")
        assert headers.counts(tensors) == PUBLISHED[name][0]
        return headers.write_header(tmp_path / f"{name}.gguf", architecture, metadata, tensors, **options)

    return write


@pytest.mark.parametrize("name", PUBLISHED)
def test_bytes_of_published_gguf_files_follow_from_their_headers(published, name):
    model = Model.load(published(name))
    _, size, parameters = PUBLISHED[name]
    assert model.parameters == parameters
    rounding = (
        64 * 4 if isinstance(size, int) else 0.005 * GIB
    )  # factors of rotation, which no description has; the last digit that is printed
    assert model.stored_bytes() == pytest.approx(size, rel=0, abs=rounding)
    assert rounding < 1e-3 * size
    assert not model.not_modelled


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_gguf_file_describes_the_architecture_of_the_published_configuration(published, name):
    read, model = Model.load(published(name)), Model.load(name.replace("_3_1_", "_3.1_"))
    assert read.by_component() == model.by_component()
    assert read.active_parameters == model.active_parameters
    assert read.kv_bytes_per_token() == model.kv_bytes_per_token()
    mixers = [[g.mixer for g in m.layers for _ in range(g.count)] for m in (read, model)]
    assert mixers[0] == mixers[1]


ARCHITECTURES = {
    "mixtral-8x7b": "llama",
    "mistral-nemo-12b": "llama",
    "llama-3.2-1b": "llama",
    "qwen2.5-7b": "qwen2",
    "qwen3-8b": "qwen3",
    "qwen1.5-moe-a2.7b": "qwen2moe",
    "qwen3-vl-8b-instruct": "qwen3vl",
    "qwen3-vl-30b-a3b-instruct": "qwen3vlmoe",
    "qwen3-next-80b-a3b": "qwen3next",
    "qwen3.5-27b": "qwen35",
    "qwen3.5-35b-a3b": "qwen35moe",
    "gemma-7b": "gemma",
    "gemma-2-9b": "gemma2",
    "gemma-3-27b": "gemma3",
    "phi-3-mini-4k": "phi3",
    "phi-4": "phi3",
    "deepseek-v2-lite": "deepseek2",
    "deepseek-v3": "deepseek2",
    "glm-4.5": "glm4moe",
    "glm-4.5-air": "glm4moe",
    "olmoe-1b-7b": "olmoe",
    "seed-oss-36b": "seed_oss",
    "smollm3-3b": "smollm3",
    "minimax-m2.5": "minimax-m2",
    "command-r-plus": "command-r",
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_gguf_file_and_the_configuration_that_it_was_made_from_are_one_model(tmp_path, repository, name):
    headers = pytest.importorskip("gguf_headers", reason="headers are made with the package gguf")
    config = json.loads((repository / "src" / "roofline" / "_models" / f"{name}.json").read_text())["config"]
    model, architecture = Model.load(name), ARCHITECTURES[name]
    filled = GEMMA_3 if architecture == "gemma3" else {}
    metadata = headers.metadata_of(filled | config | config.get("text_config", {}), architecture)
    read = Model.load(headers.write_header(tmp_path / "x.gguf", architecture, metadata, headers.tensors_of(model, architecture)))
    assert read.by_component() == model.by_component()
    assert read.active_parameters == model.active_parameters
    assert [g.mixer for g in read.layers for _ in range(g.count)] == [g.mixer for g in model.layers for _ in range(g.count)]
    assert read.mtp_parameters == (model.mtp_parameters if architecture == "glm4moe" else 0)


GEMMA_3 = {"head_dim": 128, "num_attention_heads": 32, "num_key_value_heads": 16, "sliding_window": 1024}  # of gemma-3-27b


def test_the_header_is_read_as_the_package_gguf_reads_it(published, tmp_path):
    gguf = pytest.importorskip("gguf")
    path = published("llama_2_7b")
    ours = read_gguf(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + ours.total_bytes + (1 << 20))  # the package wants the weights to be there; a hole will do
    theirs = gguf.GGUFReader(path)
    assert [(t.name, t.kind, t.shape, t.bytes) for t in ours.tensors] == [
        (t.name, t.tensor_type.name.lower(), tuple(t.shape.tolist()), t.n_bytes) for t in theirs.tensors
    ]
    assert ours.metadata["llama.embedding_length"] == theirs.fields["llama.embedding_length"].contents()


def test_parts_of_a_split_gguf_file_are_read_together(published):
    whole, first = published("qwen3_30b_a3b"), published("qwen3_30b_a3b", parts=3)
    assert read_gguf(first).files == 3
    last = first.with_name(first.name.replace("00001-of", "00003-of"))
    assert Model.load(first).layers == Model.load(last).layers == Model.load(whole).layers
    last.unlink()
    with pytest.raises(ConfigError, match="00003-of-00003"):
        Model.load(first)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        (
            "gpt_oss_20b",
            12.53e-3,
        ),  # llama-bench on a Ryzen AI Max+ 395, as in test_compare; below the floor with attention and head in bf16
        ("gpt_oss_120b", 1 / 47.41),  # lhl/strix-halo-testing, issue 33: tg32
    ],
)
def test_llama_cpp_decodes_gpt_oss_above_the_floor_of_the_file(published, name, seconds):
    model, step = Model.load(published(name)), {"batch": 1, "context": 32}
    floor = decode_floor(model, "strix-halo", **step)
    assert floor.time_s < seconds < 1.6 * floor.time_s
    assert floor.time_s < 0.76 * decode_floor(name, "strix-halo", **step).time_s
    stored = dict(model.layers[0].formats)
    assert (stored["self_attn.q_proj"], stored["mlp.experts.up_proj"], dict(model.formats)["lm_head"]) == ("q8_0", "mxfp4_aint8", "q8_0")


def test_two_types_in_what_is_one_matrix_here_are_counted_both(tmp_path):
    headers = pytest.importorskip("gguf_headers", reason="headers are made with the package gguf")
    model = Model.load("deepseek-v2-lite")
    config = json.loads((Path(roofline.__file__).parent / "_models" / "deepseek-v2-lite.json").read_text())["config"]
    tensors = headers.tensors_of(model, "deepseek2")
    tensors["blk.0.attn_k_b.weight"] = (tensors["blk.0.attn_k_b.weight"][0], "Q8_0")
    read = Model.load(headers.write_header(tmp_path / "x.gguf", "deepseek2", headers.metadata_of(config, "deepseek2"), tensors))
    assert dict(read.layers[0].formats)["self_attn.kv_b_proj"] == "gguf_12.25"  # half of it in 16, half in 8.5 bits
    floor = decode_floor(read, "h100-sxm", context=100)
    assert floor.weight_bytes > 0


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"general.architecture": "rwkv7"}, UnsupportedModelError, "'rwkv7' of GGUF files is not read"),
        ({"llama.expert_used_twice": 3}, UnsupportedModelError, "llama.expert_used_twice"),
        ({"llama.attention.head_count": 30}, ConfigError, "head"),
        ({"llama.feed_forward_length": 11000}, UnsupportedModelError, "mlp.gate_proj"),
        ({"llama.block_count": 31}, UnsupportedModelError, "blk.31"),
        ({"llama.block_count": 33}, UnsupportedModelError, "no tensor of it is in the files"),
        ({"llama.expert_count": 4, "llama.expert_used_count": 2}, UnsupportedModelError, "not in the tensors that its architecture has"),
    ],
)
def test_a_gguf_file_that_its_description_does_not_fit_is_refused(published, monkeypatch, change, error, said):
    path = published("llama_2_7b")
    found = read_gguf(path)
    changed = replace(found, metadata={**found.metadata, **change})
    monkeypatch.setattr("roofline.checkpoints.read_gguf", lambda path: changed)
    with pytest.raises(error, match=said):
        Model.load(path)


def test_a_gguf_file_with_biases_that_its_architecture_does_not_have_so_is_refused(published, monkeypatch):
    """Biases of queries, keys and values, and none behind attention: `attention_bias` of Llama means all four."""
    path = published("llama_2_7b")
    found = read_gguf(path)
    weight = next(tensor for tensor in found.tensors if tensor.name == "blk.0.attn_norm.weight")
    biases = [weight._replace(name=f"blk.{layer}.attn_{of}.bias") for layer in range(32) for of in "qkv"]
    changed = replace(found, tensors=(*found.tensors, *biases))
    monkeypatch.setattr("roofline.checkpoints.read_gguf", lambda path: changed)
    with pytest.raises(
        UnsupportedModelError, match=r"self_attn\.o_proj has 536,870,912 weights in the file, and 537,001,984 in its architecture"
    ):
        Model.load(path)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + b"\x03\0\0\0" + b"\xff" * 16, b"version https://git-lfs.github.com/spec/v1"])
def test_what_is_no_gguf_file_is_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.gguf"):
        Model.load(path)
    with pytest.raises(ConfigError, match="No such file"):
        Model.load(str(tmp_path / "y.gguf"))


def test_a_gguf_file_is_found_in_its_folder_and_without_its_name(published):
    path = published("llama_2_7b")
    model = Model.load(path)
    blob = path.rename(path.with_name("sha256-8934d96d3f08982e95922b2b7a2c626a1fe873d7c3b06e8e56d7bc0a1fef9246"))  # as ollama keeps it
    assert Model.load(blob).layers == model.layers
    part = blob.rename(path)
    (path.parent / "mmproj-model.gguf").write_bytes(b"")
    assert Model.load(path.parent).layers == model.layers
    (path.parent / "another.gguf").write_bytes(part.read_bytes())
    with pytest.raises(ConfigError, match=r"config\.json"):
        Model.load(path.parent)


def test_a_header_that_ends_anywhere_is_refused_in_a_sentence(published):
    path = published("llama_2_7b")
    content = path.read_bytes()
    for size in range(0, len(content) - 64, 331):  # behind the last tensor only filling follows
        path.write_bytes(content[:size])
        with pytest.raises((ConfigError, UnsupportedModelError)):
            read_gguf(path)


# ------------------------------------------------------------------------------------------------------------- safetensors


def test_a_folder_without_files_and_with_agreeing_ones_is_the_same_model(folder):
    path = folder(llama_tensors())
    model, described = Model.load(path), Model.load(LLAMA)
    assert model.layers == described.layers
    assert (model.stored_bytes(), model.not_modelled) == (described.stored_bytes(), ())
    assert read_folder(path).total_bytes == model.stored_bytes()


def test_shards_are_read_together_and_an_index_alone_gives_the_total(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    named = list(llama_tensors().items())
    files = {"model-00001-of-00002.safetensors": dict(named[:7]), "model-00002-of-00002.safetensors": dict(named[7:])}
    total = sum(write_tensors(tmp_path / name, tensors) for name, tensors in files.items())
    index = {"metadata": {"total_size": total}, "weight_map": {t: name for name, tensors in files.items() for t in tensors}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    check = check_model(tmp_path)
    assert (check.ok, check.files, check.checkpoint_bytes, check.beside_bytes) == (True, 2, total, 0)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    check = check_model(tmp_path)
    assert (check.ok, check.files, check.checkpoint_bytes) == (True, 0, total)
    assert any(note.endswith("that the index names there is no model-00002-of-00002.safetensors") for note in check.model.not_modelled)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    assert check_model(tmp_path).model.not_modelled == ()
    index["metadata"]["total_size"] = total // 2
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not check_model(tmp_path).ok
    assert any("by their index" in note for note in Model.load(tmp_path).not_modelled)


def awq(module, rows, columns):
    return {
        f"{module}.qweight": ("I32", (columns, rows // 8)),
        f"{module}.qzeros": ("I32", (columns // 128, rows // 8)),
        f"{module}.scales": ("F16", (columns // 128, rows)),
    }


def mlx(module, rows, columns):
    scales = {f"{module}.{name}": ("BF16", (rows, columns // 64)) for name in ("scales", "biases")}
    return {f"{module}.weight": ("U32", (rows, columns * 4 // 32)), **scales}


def fp8_blocks(module, rows, columns):
    return {f"{module}.weight": ("F8_E4M3", (rows, columns)), f"{module}.weight_scale_inv": ("F32", (-(-rows // 128), columns // 128))}


def nvfp4(module, rows, columns):
    scales = {f"{module}.weight_scale": ("F8_E4M3", (rows, columns // 16)), f"{module}.weight_scale_2": ("F32", ())}
    return {f"{module}.weight": ("U8", (rows, columns // 2)), **scales, f"{module}.input_scale": ("F32", ())}


def fp8_tensor(module, rows, columns):
    return {f"{module}.weight": ("F8_E4M3", (rows, columns)), f"{module}.weight_scale": ("F32", ()), f"{module}.input_scale": ("F32", ())}


@pytest.mark.parametrize(
    ("pack", "format", "bits"),
    [
        # bits of a weight with its scales: an int4 in groups of 128 with a 16-bit scale and a zero point of 4 bits, and so on
        (awq, "int4_g128_zp4", 4 + 20 / 128),
        (mlx, "int4_g64_zp", 4 + 32 / 64),
        (fp8_blocks, "fp8_block128", 8 + 32 / 128**2),
        (nvfp4, "nvfp4", 4 + 8 / 16),
        (fp8_tensor, "fp8", 8),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_packed_weights_are_told_by_their_tensors_alone(folder, pack, format, bits):
    model = Model.load(folder(llama_tensors(pack)))
    assert {dict(group.formats).get("mlp.up_proj") for group in model.layers} == {format}
    assert model.bytes_by_component()["mlp.up_proj"] == pytest.approx(2 * 512 * 256 * bits / 8, rel=1e-9)
    assert "mlp.up_proj: bf16 by the configuration, but" in " ".join(model.not_modelled) or "further components" in " ".join(
        model.not_modelled
    )


def test_a_claimed_format_that_the_tensors_have_is_kept_without_a_note(folder):
    claim = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
    model = Model.load(folder(llama_tensors(awq), quantization_config=claim))
    assert model.not_modelled == ()
    assert model.layers == Model.load(LLAMA | {"quantization_config": claim}).layers


def test_zero_points_and_indices_that_no_kernel_reads_change_no_format(folder):
    def gptq(module, rows, columns):
        groups = columns // 64
        return {
            f"{module}.qweight": ("I32", (columns // 8, rows)),
            f"{module}.qzeros": ("I32", (groups, rows // 8)),
            f"{module}.scales": ("F16", (groups, rows)),
            f"{module}.g_idx": ("I32", (columns,)),
        }

    claim = {"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": True}
    model = Model.load(folder(llama_tensors(gptq), quantization_config=claim))
    assert model.not_modelled == ()
    assert model.layers == Model.load(LLAMA | {"quantization_config": claim}).layers


def test_experts_of_gpt_oss_are_found_in_their_blocks(tmp_path):
    config = {"model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16, "dtype": "bfloat16", **SMALL}
    config |= {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}}
    tensors = {f"{name}.weight": ("BF16", (256, 64)) for name in ("model.embed_tokens", "lm_head")} | {"model.norm.weight": ("BF16", (64,))}
    for i in range(2):
        layer = f"model.layers.{i}."
        for name, rows, columns in (("q", 64, 64), ("k", 32, 64), ("v", 32, 64), ("o", 64, 64)):
            tensors[f"{layer}self_attn.{name}_proj.weight"] = ("BF16", (rows, columns))
            tensors[f"{layer}self_attn.{name}_proj.bias"] = ("BF16", (rows,))
        tensors |= {f"{layer}{name}.weight": ("BF16", (64,)) for name in ("input_layernorm", "post_attention_layernorm")}
        tensors |= {f"{layer}self_attn.sinks": ("BF16", (4,)), f"{layer}mlp.router.bias": ("BF16", (4,))}
        tensors[f"{layer}mlp.router.weight"] = ("BF16", (4, 64))
        for name, rows, columns in (("gate_up_proj", 256, 64), ("down_proj", 64, 128)):
            tensors[f"{layer}mlp.experts.{name}_blocks"] = ("U8", (4, rows, columns // 32, 16))
            tensors[f"{layer}mlp.experts.{name}_scales"] = ("U8", (4, rows, columns // 32))
            tensors[f"{layer}mlp.experts.{name}_bias"] = ("BF16", (4, rows))
    (tmp_path / "config.json").write_text(json.dumps(config))
    total = write_tensors(tmp_path / "model.safetensors", tensors)
    check = check_model(tmp_path)
    assert (check.ok, check.stored_bytes, check.beside_bytes, check.model.not_modelled) == (True, total, 0, ())
    assert check.model.layers == Model.load(config).layers


def test_a_module_that_is_left_in_16_bits_against_the_claim_is_named_and_counted(folder):
    claim = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
    tensors = llama_tensors(awq)
    for name in [name for name in tensors if name.startswith("model.layers.1.mlp.down_proj.")]:
        del tensors[name]
    tensors["model.layers.1.mlp.down_proj.weight"] = ("BF16", (256, 512))
    model = Model.load(folder(tensors, quantization_config=claim))
    assert model.not_modelled == ("mlp.down_proj: int4_g128_zp4 by the configuration, but bf16 in the files, which is taken",)
    assert [dict(group.formats).get("mlp.down_proj") for group in model.layers] == ["int4_g128_zp4", None]


def test_a_dtype_that_the_configuration_does_not_say_or_says_wrongly_is_that_of_the_files(folder):
    model = Model.load(folder(llama_tensors(kind="F32")))
    assert (model.dtype, model.stored_bytes()) == ("fp32", 4 * model.parameters)
    assert model.not_modelled == ("the dtype by the configuration, bf16: the files are in fp32, which is taken",)
    model = Model.load(folder(llama_tensors(kind="F16"), dtype=None))
    assert (model.dtype, model.not_modelled) == ("fp16", ())


def test_names_that_are_not_known_leave_the_configuration_its_word(folder):
    def renamed(tensors):
        return {f"tower.part_{i}": tensor for i, tensor in enumerate(tensors.values())}

    model = Model.load(folder(renamed(llama_tensors(kind="F32"))))
    assert (model.dtype, model.stored_bytes()) == ("fp32", 4 * model.parameters)  # the one type that all have
    check = check_model(folder(renamed(llama_tensors(awq))))
    assert not check.ok
    assert check.model.layers == Model.load(LLAMA).layers
    assert any("not those that are known of this family" in note for note in check.model.not_modelled)


@pytest.mark.parametrize(("layers", "held"), [(2, {0}), (4, {0}), (4, {0, 1}), (4, {1, 3})])
def test_layers_that_the_files_lack_are_missed(folder, layers, held):
    per_layer = {name: tensor for name, tensor in llama_tensors().items() if ".layers.0." in name}
    tensors = {name: tensor for name, tensor in llama_tensors().items() if ".layers." not in name}
    tensors |= {name.replace(".0.", f".{i}."): tensor for i in held for name, tensor in per_layer.items()}
    check = check_model(folder(tensors, num_hidden_layers=layers))
    row = next(row for row in check.components if row.component == "self_attn.q_proj")
    assert (check.ok, row.parameters, row.in_files) == (False, layers * 256 * 256, len(held) * 256 * 256)
    assert any("self_attn.q_proj: no tensor of it" in note for note in check.model.not_modelled)


def test_a_layer_that_the_description_does_not_have_is_named_and_not_ok(folder):
    tensors = llama_tensors()
    further = {name.replace(".1.", ".2."): tensor for name, tensor in tensors.items() if ".layers.1." in name}
    check = check_model(folder(tensors | further))
    row = next(row for row in check.components if row.component == "layer 2")
    weights = sum(rows * columns for rows, columns in SHAPES.values()) + 2 * 256
    assert (check.ok, row.parameters, row.in_files, row.bytes_in_files) == (False, 0, weights, 2 * weights)
    assert check.beside == tuple(further)
    assert "'model.layers.2.self_attn.q_proj.weight'" in str(check)
    assert any("layer 2" in note for note in Model.load(folder(tensors | further)).not_modelled)


def test_tensors_that_belong_to_no_component_are_named(folder):
    further = {f"model.layers.0.self_attn.wizard_{i}.weight": ("BF16", (8, 8)) for i in range(5)}
    check = check_model(folder(llama_tensors() | further))
    assert check.beside == tuple(further)
    assert "wizard_0.weight', 'model.layers.0.self_attn.wizard_1.weight', 'model.layers.0.self_attn.wizard_2.weight' and 2 more" in str(
        check
    )


def test_a_gguf_file_without_its_last_layers_is_refused(tmp_path):
    headers = pytest.importorskip("gguf_headers", reason="headers are made with the package gguf")
    metadata, tensors = headers.llama_2_7b()
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("blk.") or int(name.split(".")[1]) < 16}  # of 32
    with pytest.raises(UnsupportedModelError, match="no tensor of it is in the files"):
        Model.load(headers.write_header(tmp_path / "half.gguf", "llama", metadata, kept))


def test_weights_that_the_description_does_not_have_are_named(folder):
    tensors = llama_tensors()
    tensors["model.embed_tokens.weight"] = ("BF16", (1088, 256))
    del tensors["lm_head.weight"]
    tensors["vision_tower.blocks.0.weight"] = ("BF16", (64, 64))
    check = check_model(folder(tensors))
    assert not check.ok
    assert check.beside_bytes == 2 * 64 * 64
    assert set(check.model.not_modelled) == {
        "embed_tokens: 262,144 weights by the description, but 278,528 in the files",
        "lm_head: no tensor of it is in the files",
    }


def test_changed_files_are_read_again(folder):
    assert Model.load(folder(llama_tensors())).dtype == "bf16"
    assert Model.load(folder(llama_tensors(kind="F32"))).dtype == "fp32"


@pytest.mark.parametrize("content", [b"", b"\x05\0\0\0\0\0\0\0{}", b"version 1\n", b"\x02\0\0\0\0\0\0\0[]"])
def test_what_is_no_safetensors_file_is_refused_in_a_sentence(folder, content):
    path = folder(llama_tensors())
    (path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.safetensors is no whole safetensors file"):
        Model.load(path)


def test_a_file_that_ends_before_its_tensors_do_is_refused(folder):
    path = folder(llama_tensors()) / "model.safetensors"
    header, total = path.stat().st_size, check_model(path.parent).checkpoint_bytes
    with path.open("r+b") as file:
        file.truncate(header + total)
    assert check_model(path.parent).ok
    with path.open("r+b") as file:
        file.truncate(header + total - 1000)
    with pytest.raises(ConfigError, match=f"cut short.* {total:,} bytes of tensors, of which {total - 1000:,} are there"):
        check_model(path.parent)


def test_a_gguf_file_that_ends_before_its_tensors_do_is_refused(published):
    path = published("llama_2_7b")
    begins, total = (
        -(-path.stat().st_size // 32) * 32,
        3_825_065_984,
    )  # general.alignment of ggml's docs/gguf.md; every tensor is a multiple of it
    for short, error in ((0, None), (1000, ConfigError)):
        with path.open("r+b") as file:
            file.truncate(begins + total - short)  # a hole, not bytes
        if error is None:
            assert Model.load(path).stored_bytes() == total
        else:
            with pytest.raises(error, match=f"cut short.* of which {total - short:,} are there"):
                Model.load(path)


def test_a_matrix_with_rows_and_columns_exchanged_is_named(folder):
    tensors = llama_tensors()
    tensors["model.layers.1.mlp.up_proj.weight"] = ("BF16", (256, 512))
    check = check_model(folder(tensors))
    assert [row.component for row in check.components if not row.ok] == ["mlp.up_proj"]
    assert check.model.not_modelled == ("mlp.up_proj: rows and columns are exchanged in the files",)


def test_a_family_that_stores_all_matrices_the_other_way_is_right(tmp_path):
    config = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 256, "n_positions": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shapes = {"attn.c_attn": (64, 192), "attn.c_proj": (64, 64), "mlp.c_fc": (64, 256), "mlp.c_proj": (256, 64)}
    tensors = {
        "wte.weight": ("F32", (256, 64)),
        "wpe.weight": ("F32", (64, 64)),
        "ln_f.weight": ("F32", (64,)),
        "ln_f.bias": ("F32", (64,)),
    }
    for layer in ("h.0", "h.1"):
        for name, (rows, columns) in shapes.items():
            tensors |= {f"{layer}.{name}.weight": ("F32", (rows, columns)), f"{layer}.{name}.bias": ("F32", (columns,))}
        tensors |= {f"{layer}.{norm}.{kind}": ("F32", (64,)) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
    write_tensors(tmp_path / "model.safetensors", tensors)
    assert check_model(tmp_path).ok


def test_weights_that_git_did_not_fetch_are_not_there(folder):
    path = folder(llama_tensors())
    (path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    assert Model.load(path).layers == Model.load(LLAMA).layers
    assert read_folder(path) is None


SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 256,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "llama": {},
    "starcoder2": {},
    "mixtral": {"num_local_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 16},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16},
    "granitemoe": {"num_local_experts": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_transformers_saves_is_found_to_the_last_byte(tmp_path, model_type):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    config = transformers.CONFIG_MAPPING[model_type](**SMALL, **FAMILIES[model_type])
    reference = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    reference.save_pretrained(tmp_path, max_shard_size="100KB")
    check = check_model(tmp_path)
    assert check.ok
    assert check.model.not_modelled == ()
    assert check.parameters == sum(p.numel() for p in reference.parameters())
    assert check.beside_bytes == 0
    assert check.stored_bytes == check.checkpoint_bytes
    assert all(row.in_files == row.parameters for row in check.components)


# ------------------------------------------------------------------------------------------------------------ command line


def test_check_prints_each_component_beside_the_files(folder):
    path = folder(llama_tensors())
    text = invoke("models", "--check", path).stdout
    assert "self_attn.q_proj" in text
    assert "131,072" in text
    rows = json.loads(invoke("models", "--check", path, "--json").stdout)
    assert rows["ok"] is True
    assert {row["component"]: row["in_files"] for row in rows["ops"]}["lm_head"] == 262_144


def test_check_says_by_its_status_that_something_differs(folder):
    tensors = llama_tensors()
    del tensors["lm_head.weight"]
    assert invoke("models", "--check", folder(tensors)).exit_code == 1


def test_a_check_needs_files(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    with pytest.raises(ConfigError, match="no safetensors files"):
        check_model(tmp_path)
    with pytest.raises(ConfigError):
        check_model(list_models()[0])
