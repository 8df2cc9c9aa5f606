"""What checkpoints say about number formats, against the definitions of the formats and published sizes of checkpoints."""

import json
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from roofline import ConfigError, Deployment, Format, Model, Step, UnknownNameError, attention_floor, decode_floor, resident
from roofline.errors import InvalidValueError, UnsupportedModelError
from roofline.formats import FORMATS, OPERANDS
from roofline.forward import compile_model, forward

GIB = 2**30
Q, K, V, OUT = (f"self_attn.{x}_proj" for x in "qkvo")
GATE, UP, DOWN = (f"mlp.{x}_proj" for x in ("gate", "up", "down"))
DENSE = (Q, K, V, OUT, GATE, UP, DOWN)
EXPERTS = tuple(f"mlp.experts.{x}_proj" for x in ("gate", "up", "down"))

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 12,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
}
MIXTRAL = LLAMA | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
"""The shape of Mixtral-8x7B, cut to 12 layers."""


def quantized(scheme, base=LLAMA, **more):
    return Model.load(base | {"quantization_config": scheme} | more)


def formats(model):
    """The stored format of every matrix, as {component: {format: [layers]}}."""
    found = {}
    number = 0
    for group in model.layers:
        stored = dict(group.formats)
        for _ in range(group.count):
            for matrix in group.matrices(model.hidden_size):
                found.setdefault(matrix.name, {}).setdefault(stored.get(matrix.name, model.dtype), []).append(number)
            number += 1
    return found


def everywhere(model):
    """The one format of each component; it must be the same in all layers."""
    found = formats(model)
    assert all(len(kinds) == 1 for kinds in found.values()), found
    return {name: next(iter(kinds)) for name, kinds in found.items()}


# ----------------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("fp8_block128", 8 + Fraction(32, 16384)),
        ("fp8_block128_ue8m0", 8 + Fraction(8, 16384)),
        ("fp8_block64x32", 8 + Fraction(32, 2048)),
        ("mxfp8", 8 + Fraction(8, 32)),
        ("mxfp4", 4 + Fraction(8, 32)),
        ("nvfp4", 4 + Fraction(8, 16)),
        ("nvfp4_a16", 4 + Fraction(8, 16)),
        ("int4_g128", 4 + Fraction(16, 128)),
        ("int4_g128_zp", 4 + Fraction(32, 128)),
        ("int4_g128_zp4", 4 + Fraction(16 + 4, 128)),
        ("int3_g64_zp3", 3 + Fraction(16 + 3, 64)),
        ("int8_g32", 8 + Fraction(16, 32)),
        ("int4_channel", 4),
        ("nf4", 4 + Fraction(32, 64)),
        ("nf4_dq", 4 + Fraction(8, 64) + Fraction(32, 64 * 256)),
        ("Q8_0", Fraction("8.5")),
        ("Q4_0", Fraction("4.5")),
        ("Q4_1", 5),
        ("Q5_0", Fraction("5.5")),
        ("Q5_1", 6),
        ("Q2_K", Fraction("2.625")),
        ("Q3_K", Fraction("3.4375")),
        ("Q4_K", Fraction("4.5")),
        ("Q5_K", Fraction("5.5")),
        ("Q6_K", Fraction("6.5625")),
        ("IQ4_XS", Fraction("4.25")),
        ("IQ4_NL", Fraction("4.5")),
        ("IQ3_XXS", Fraction("3.0625")),
        ("IQ2_XXS", Fraction("2.0625")),
        ("IQ1_M", Fraction("1.75")),
        ("Q4_K_M", Fraction("4.8944")),
        ("q5-k-m", Fraction("5.7036")),
    ],
)
def test_bits_per_weight(name, bits):
    assert Format.load(name).bits == bits


@pytest.mark.parametrize("name", [*FORMATS, "int4_g64_zp4_afp8", "int5_g32_s32_zp5", "fp8_block64x1_ue8m0", "mxfp4_amxfp4", "fp8_g128_s32"])
def test_a_format_is_loaded_by_the_name_it_has(name):
    format = Format.load(name)
    assert format.name == name
    assert Format.load(format.name) == format
    assert format.operand in OPERANDS
    assert Format.load(format.activations).operand in OPERANDS


def test_a_suffix_changes_the_activations_and_nothing_else():
    own, other = Format.load("nvfp4"), Format.load("nvfp4_a16")
    assert (own.bits, own.operand, own.activations) == (other.bits, other.operand, "nvfp4")
    assert other.activations == "bf16"
    assert Format.load("int4_g128_afp8").activations == "fp8"
    assert Format.load("int4_g128_a16") == Format.load("int4_g128")


@pytest.mark.parametrize("name", ["int4_g", "int9_g128", "q9_k", "fp8_block0", "int4_g0", "nvfp4_a3", "fp8_blockx"])
def test_unknown_formats(name):
    with pytest.raises((UnknownNameError, InvalidValueError)):
        Format.load(name)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        # presets of compressed-tensors (quant_scheme.py): integers by row, or in symmetric groups of 128 with 16-bit scales
        ("W4A16", "int4_sym"),
        ("w8a16", "int8_a16"),
        ("W8A8", "int8"),
        ("W4A8", "int4_sym_aint8"),
        ("NVFP4A16", "nvfp4_a16"),
        ("FP8_DYNAMIC", "fp8"),
        ("FP8_BLOCK", "fp8_block128"),
        ("4bit", "int4"),
        ("8-bit", "int8"),
        ("torch.bfloat16", "bf16"),
        ("float8_e4m3fn", "fp8"),
        ("e4m3", "fp8"),
        ("E5M2", "fp8"),
        ("fp8_e4m3fnuz", "fp8"),
        # dtypes in the header of a safetensors file (its README)
        ("F8_E4M3", "fp8"),
        ("F8_E5M2", "fp8"),
        ("F16", "fp16"),
        ("F32", "fp32"),
        ("I8", "int8"),
        (np.float16, "fp16"),
        (np.dtype("float32"), "fp32"),
        (np.dtype("int8"), "int8"),
    ],
    ids=str,
)
def test_formats_as_others_call_them(theirs, ours):
    assert Format.load(theirs) == Format.load(ours)


@pytest.mark.parametrize("name", ["fp4", "FP4", "e2m1", "float4_e2m1fn_x2", "F4_E2M1"])
def test_four_bits_without_their_scales_are_no_format(name):
    """NVFP4 has a scale for 16 elements, MXFP4 (OCP Microscaling 1.0) for 32."""
    with pytest.raises(UnknownNameError, match=f"unknown number format '{name}'; nearest: nvfp4, mxfp4. Elements of 4 bits have scales"):
        Format.load(name)


@pytest.mark.parametrize(("name", "nearest"), [("uint8", "int8"), ("uint4", "int4"), ("int8_sym", "int4_sym, int8")])
def test_the_nearest_format_comes_first(name, nearest):
    with pytest.raises(UnknownNameError, match=f"unknown number format '{name}'; nearest: {nearest}"):
        Format.load(name)


# cache types of llama.cpp (common/arg.cpp, kv_cache_types), --kv-cache-dtype of vLLM and SGLang, kv_cache_quant_algo of TensorRT-LLM
CACHED = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1", "fp8", "fp8_e4m3", "fp8_e5m2", "int8", "nvfp4"]
NEVER_CACHED = [
    "q4_k_m",
    "q4_k",
    "q6_k",
    "q6_k_file",
    "q2_k_s",
    "iq4_xs",
    "iq4_nl_file",
    "iq2_m",
    "exl2_4.0",
    "aqlm_2",
    "ternary",
    "nf4",
    "nf4_dq",
]


@pytest.mark.parametrize("name", CACHED)
def test_what_engines_keep_a_cache_in(name):
    """Llama-3.1-8B: 32 layers of 2 · 8 · 128 elements for every position."""
    read = decode_floor("llama-3.1-8b", "h100-sxm", context=100, kv=name).kv_read_bytes
    assert read == 100 * 32 * 2 * 8 * 128 * Format.load(name).bits / 8


@pytest.mark.parametrize("name", NEVER_CACHED)
def test_a_format_of_files_is_none_of_a_cache(name):
    for ask in (
        lambda: decode_floor("llama-3.1-8b", "h100-sxm", kv=name),
        lambda: resident("llama-3.1-8b", kv=name),
        lambda: attention_floor(1, 100, "h100-sxm", heads=32, kv_heads=8, head_dim=128, kv=name),
    ):
        with pytest.raises(InvalidValueError, match=r"^kv is '\w+', a format of weights only; a cache is kept in one such as fp8"):
            ask()


def test_dtypes_of_torch():
    torch = pytest.importorskip("torch")
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.float8_e4m3fn: "fp8", torch.int8: "int8"}
    for dtype, name in names.items():
        assert Format.load(dtype).name == name
    assert Deployment("llama-3.1-8b", dtype=torch.float16, weights=torch.float8_e4m3fn) == Deployment(
        "llama-3.1-8b", dtype="fp16", weights="fp8"
    )


@pytest.mark.parametrize("given", [8, None, True, b"fp8", object(), np.float16(1), np.zeros(2), np.int32, float, ["fp8"]], ids=str)
def test_what_is_no_format(given):
    with pytest.raises(InvalidValueError, match="given by name or as a dtype") as caught:
        Format.load(given)
    assert len(str(caught.value)) < 800


def test_one_choice_of_formats_is_one_deployment():
    asked = [Deployment("llama-3.1-8b", weights=w) for w in ("fp8", "FP8", "float8_e4m3fn", Format.load("fp8"), {"*": "fp8"})]
    assert len(set(asked)) == 1
    assert {node.weights for node in asked} == {"fp8"}
    plain = Deployment("llama-3.1-8b")
    assert plain == Deployment("llama-3.1-8b", weights="auto", activations="auto", kv="auto", dtype="auto")
    assert plain != asked[0]
    own = Format.grouped("int4", group=48)
    assert Deployment("llama-3.1-8b", weights=own).weights == "int4_g48"


def test_dtype_is_not_activations():
    """minimax-m2.5 is published in fp8 blocks, with embedding and head in 16 bits."""
    plain, half = (decode_floor("minimax-m2.5", "h100-sxm", tensor_parallel=4, dtype=d) for d in (None, "fp16"))
    assert set(half.work.flops_by_operand) == {"fp8", "fp16"}
    assert plain.work.flops_by_operand["fp8"] == half.work.flops_by_operand["fp8"]
    assert plain.time_s == half.time_s
    wide = decode_floor("minimax-m2.5", "h100-sxm", tensor_parallel=4, activations="bf16")
    assert set(wide.work.flops_by_operand) == {"bf16"}
    with pytest.raises(InvalidValueError, match=r"dtype is 'fp8'; .*weights="):
        decode_floor("minimax-m2.5", "h100-sxm", dtype="fp8")
    with pytest.raises(InvalidValueError, match="activations is 'nf4', a format of weights only"):
        decode_floor("llama-3.1-8b", "h100-sxm", activations="nf4")


def test_a_module_stands_for_its_matrices():
    """Mixtral-8x7B (published config): 32 layers of 8 experts of 3 · 4096 · 14336, attention of 4096² · (2 + 2/4), routers 4096 · 8."""
    experts, attention, router = 32 * 8 * 3 * 4096 * 14336, 32 * 4096**2 * 5 // 2, 32 * 4096 * 8

    def saved(weights):
        return (
            compile_model(Model.load("mixtral-8x7b")).stored_bytes - compile_model(Model.load("mixtral-8x7b"), weights=weights).stored_bytes
        )

    assert saved({"self_attn": "fp8"}) == attention
    assert saved({"mlp.experts": "fp8"}) == saved({"mlp": "fp8"}) == experts  # routers are not quantized unless named
    assert saved({"mlp": "fp8", "mlp.gate": "fp8"}) == experts + router
    assert saved({"mlp": "fp32"}) == -2 * (experts + router)
    assert saved({"self_attn.q_proj": "bf16", "self_attn": "fp8"}) == attention - 32 * 4096**2
    assert saved({"*": "fp8", "self_attn": "auto"}) == attention + experts
    with pytest.raises(UnknownNameError, match=r"'mlp\.expert'; nearest: mlp\.experts"):
        saved({"mlp.expert": "fp8"})


# ----------------------------------------------------------------------------------------------- methods for all layers alike


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ({"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]}, "fp8_block128"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"}, "fp8_block128_ue8m0"),
        ({"quant_method": "fp8", "weight_block_size": [64, 128]}, "fp8_block64x128"),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8"),
        ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]}, "fp8"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False, "damp_percent": 0.01}, "int4_g128"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": False}, "int4_g128_zp4"),
        ({"quant_method": "gptq", "bits": 3, "group_size": 64}, "int3_g64"),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "int8_a16"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}, "int4_g128_zp4"),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": False}, "int4_g64"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}, "nf4_dq"),
        ({"quant_method": "bitsandbytes", "_load_in_4bit": True, "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0}, "int8"),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["lm_head"]}, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}, "nvfp4"),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ", "group_size": 128}, "int4_g128_afp8"),
        ({"quant_method": "modelopt", "quant_algo": "MXFP8"}, "mxfp8"),
        ({"quant_method": "fp_quant", "forward_dtype": "mxfp4", "hadamard_group_size": 32, "modules_to_not_convert": ["lm_head"]}, "mxfp4_amxfp4"),
        ({"quant_method": "fp_quant", "forward_dtype": "nvfp4", "pseudoquantization": False}, "nvfp4"),
        ({"quant_method": "fouroversix", "dtype": "nvfp4", "scale_rule": "mse", "modules_to_not_convert": ["lm_head"]}, "nvfp4"),
        ({"quant_method": "quanto", "weights": "int4", "activations": None}, "int4_g128_zp"),
        ({"quant_method": "quanto", "weights": "int8", "activations": "int8"}, "int8"),
        ({"quant_method": "quanto", "weights": "float8"}, "fp8_a16"),
        ({"quant_method": "eetq", "weights": "int8"}, "int8_a16"),
        ({"quant_method": "higgs", "bits": 4, "p": 2, "group_size": 256, "hadamard_size": 512}, "int4_g256"),
        ({"quant_method": "metal", "bits": 4, "group_size": 64}, "int4_g64_zp"),
    ],
)  # fmt: skip
def test_quantization_methods_to_formats(scheme, expected):
    model = quantized(scheme)
    assert everywhere(model) == dict.fromkeys(DENSE, expected)
    assert model.formats == ()  # the head stays
    assert model.parameters == Model.load(LLAMA).parameters


def torchao(name, **data):
    """Return what transformers writes of a configuration of torchao."""
    return {
        "quant_method": "torchao",
        "quant_type": {"default": {"_type": name, "_version": 2, "_data": data}},
        "modules_to_not_convert": None,
    }


def per(granularity, **data):
    return {"_type": granularity, "_version": 1, "_data": data}


INT4_TYPE = {"_type": "torch.dtype", "_data": "int4"}


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        # torchao.quantization.quant_api: defaults of each class, and what its docstring says of activations
        (torchao("Int4WeightOnlyConfig"), "int4_g128_zp"),
        (torchao("Int4WeightOnlyConfig", group_size=32, layout={"_type": "TensorCoreTiledLayout", "_data": {"inner_k_tiles": 8}}), "int4_g32_zp"),
        (torchao("Int8WeightOnlyConfig", group_size=None), "int8_a16"),
        (torchao("Int8DynamicActivationInt8WeightConfig"), "int8"),
        (torchao("Int8DynamicActivationInt4WeightConfig"), "int4_g32_aint8"),
        (torchao("Int8DynamicActivationIntxWeightConfig", weight_dtype=INT4_TYPE, weight_granularity=per("PerGroup", group_size=32)), "int4_g32_aint8"),
        (torchao("IntxWeightOnlyConfig", weight_dtype={"_type": "torch.dtype", "_data": "int8"}, granularity=per("PerAxis", axis=0)), "int8_a16"),
        (torchao("Float8WeightOnlyConfig"), "fp8_a16"),
        (torchao("Float8DynamicActivationFloat8WeightConfig", granularity=[per("PerRow"), per("PerRow")]), "fp8"),
        (torchao("NVFP4DynamicActivationNVFP4WeightConfig"), "nvfp4"),
    ],
)  # fmt: skip
def test_torchao(scheme, expected):
    model = quantized(scheme)
    assert everywhere(model) == dict.fromkeys(DENSE, expected)
    assert model.formats == ()


def test_torchao_by_name_and_with_the_ends():
    named = {"_default": torchao("Int8WeightOnlyConfig")["quant_type"]["default"], "model.layers.3.mlp.up_proj": None}
    named["model.embed_tokens"] = torchao("IntxWeightOnlyConfig", granularity=per("PerAxis"))["quant_type"]["default"]
    model = quantized(torchao("ModuleFqnToConfig", module_fqn_to_config=named))
    assert formats(model)[UP] == {"int8_a16": [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11], "bf16": [3]}
    assert dict(model.formats) == {"embed_tokens": "int8_a16"}
    both = quantized(torchao("Int8WeightOnlyConfig") | {"include_input_output_embeddings": True})
    assert dict(both.formats) == {"embed_tokens": "int8_a16", "lm_head": "int8_a16"}


def compressed(weights, rows=None, targets=("Linear",), **more):
    group = {"targets": [*targets], "weights": weights, "input_activations": rows, "output_activations": None}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ["lm_head"]} | more


INT8 = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
FP8 = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}
FP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True}
PER_TOKEN = {"strategy": "token", "dynamic": True, "symmetric": True}


@pytest.mark.parametrize(
    ("weights", "rows", "expected"),
    [
        (INT8, PER_TOKEN | {"num_bits": 8, "type": "int"}, "int8"),
        (INT8, None, "int8_a16"),
        (FP8, PER_TOKEN | {"num_bits": 8, "type": "float"}, "fp8"),
        (FP8, None, "fp8_a16"),
        (FP8 | {"strategy": "block", "block_structure": [128, 128]}, PER_TOKEN | {"num_bits": 8, "type": "float"}, "fp8_block128"),
        (INT4, None, "int4_g128"),
        (INT4 | {"symmetric": False}, None, "int4_g128_zp4"),
        (INT4 | {"group_size": 32}, None, "int4_g32"),
        (INT4, PER_TOKEN | {"num_bits": 8, "type": "int"}, "int4_g128_aint8"),
        (INT4, PER_TOKEN | {"num_bits": 8, "type": "float"}, "int4_g128_afp8"),
        (INT4 | {"strategy": "channel", "group_size": None}, None, "int4_channel"),
        (FP4, FP4 | {"dynamic": "local"}, "nvfp4"),
        (FP4, None, "nvfp4_a16"),
        (FP4 | {"strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}, None, "mxfp4"),
    ],
)
def test_compressed_tensors(weights, rows, expected):
    model = quantized(compressed(weights, rows, format="pack-quantized"))
    assert everywhere(model) == dict.fromkeys(DENSE, expected)
    assert model.formats == ()


def test_linear_of_compressed_tensors_is_the_head_as_well():
    assert quantized(compressed(INT8) | {"ignore": []}).formats == (("lm_head", "int8_a16"),)
    assert quantized(compressed(INT8) | {"ignore": []}, tie_word_embeddings=True).formats == ()


@pytest.mark.parametrize(
    ("scheme", "named"),
    [
        ({"quant_method": "spqr"}, "spqr"),
        ({"quant_method": "fp_quant", "store_master_weights": True}, "store_master_weights"),
        ({"quant_method": "fp_quant", "forward_dtype": "mxfp6"}, "mxfp6"),
        ({"quant_method": "quanto", "weights": "int3"}, "int3"),
        (torchao("Int4WeightOnlyConfig", layout={"_type": "SparseMarlinLayout"}), "sparse rate"),
        (torchao("UIntXWeightOnlyConfig"), "UIntXWeightOnlyConfig"),
        (torchao("IntxWeightOnlyConfig", weight_dtype={"_type": "torch.dtype", "_data": "float8"}), "float8"),
        ({"quant_method": "fp8", "weight_blocks": [128, 128]}, "weight_blocks"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "fmt"),
        ({"quant_method": "fp8", "modules_to_convert": ["embed_tokens"]}, "modules_to_convert"),
        ({"quant_method": "awq", "bits": 4, "rotation": True}, "rotation"),
        ({"quant_method": "gptq", "bits": 3, "group_size": -1}, "3-bit"),
        ({"quant_method": "modelopt", "quant_algo": "FP6"}, "FP6"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 32}, "NVFP4"),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP3"}, "FP3"),
        (compressed(INT8, format="marlin-24"), "marlin-24"),
        (compressed(INT8, targets=["Embedding"]), "Embedding"),
        (compressed(INT8 | {"strategy": "token"}), "token"),
        (compressed(INT8 | {"num_bits": 8, "type": "posit"}), "posit"),
        (compressed(INT8 | {"sparsity": 0.5}), "sparsity"),
        (compressed(INT8, PER_TOKEN | {"num_bits": 3, "type": "int"}), "3-bit"),
        (compressed(INT8, targets=["re:.*no_such_proj"]), "no_such_proj"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {"model.layers.3.mlp.wide": {"quant_algo": "FP8"}}}, "mlp.wide"),
    ],
)  # fmt: skip
def test_unknown_quantization_raises_by_name(scheme, named):
    with pytest.raises(UnsupportedModelError, match=named):
        quantized(scheme)


@pytest.mark.parametrize(
    "scheme",
    [
        "fp8",
        {"quant_method": "fp8", "weight_block_size": [128]},
        {"quant_method": "fp8", "weight_block_size": [0, 128]},
        {"quant_method": "fp8", "modules_to_not_convert": "lm_head"},
        {"quant_method": "gptq", "group_size": 128},
        {"quant_method": "gptq", "bits": 16},
        {"quant_method": "bitsandbytes"},
        {"quant_method": "awq", "bits": "four"},
        {"quant_method": "fp8", "modules_to_not_convert": ["re:("]},
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {"lm_head": "FP8"}},
        {"quant_method": "gptq", "bits": 4, "dynamic": ["lm_head"]},
        {"quant_method": "fp8", "modules_to_not_convert": [object()]},
    ],
)
def test_malformed_quantization_config_raises(scheme):
    with pytest.raises(ConfigError):
        quantized(scheme)


def test_unquantized_configuration_has_no_scheme():
    for empty in (None, {}):
        model = quantized(empty)
        assert everywhere(model) == dict.fromkeys(DENSE, "bf16")
        assert len(model.layers) == 1


# ------------------------------------------------------------------------------------------------------------- layer by layer


def fp8(*names):
    return {"quant_method": "fp8", "modules_to_not_convert": [*names]}


@pytest.mark.parametrize(
    ("name", "component", "layers"),
    [
        ("model.layers.1.mlp.down_proj", DOWN, [1]),
        ("layers.1.mlp.down_proj", DOWN, [1]),
        ("model.language_model.layers.1.mlp.down_proj", DOWN, [1]),
        ("language_model.model.layers.1.mlp.down_proj", DOWN, [1]),
        ("model.layers.1.mlp", DOWN, [1]),
        ("model.layers.1", DOWN, [1]),
        ("model.layers.1*", DOWN, [1, 10, 11]),
        ("model.layers.1.*", DOWN, [1]),
        ("model.layers.1.mlp*", DOWN, [1]),
        ("model.layers.1.self_attn.qkv_proj", V, [1]),
        ("model.layers.1.mlp.gate_up_proj", UP, [1]),
        ("model.layers.*.mlp", DOWN, [*range(12)]),
        ("*.mlp.*", DOWN, [*range(12)]),
        ("*", DOWN, [*range(12)]),
        ("down_proj", DOWN, [*range(12)]),
        ("mlp.down_proj", DOWN, [*range(12)]),
        ("re:.*mlp.*", DOWN, [*range(12)]),
        ("re:.*layers\\.(1|3)\\..*", DOWN, [1, 3]),
        ("model.layers.\\d.mlp", DOWN, [*range(10)]),
        ("model.layers.1[01].mlp.down_proj", DOWN, [10, 11]),
    ],
)
def test_unquantized_modules(name, component, layers):
    found = formats(quantized(fp8(name)))[component]
    assert found.get("bf16", []) == layers
    assert sorted(layers + found.get("fp8", [])) == [*range(12)]


@pytest.mark.parametrize(
    "name",
    ["model.layers.1.mlp.gate", "gate", "down", "visual.layers.1.mlp", "vision_tower*", "mtp*", "lm_head", "norm", "model.layers.99.mlp"],
)
def test_names_of_other_modules_leave_everything_quantized(name):
    assert everywhere(quantized(fp8(name))) == dict.fromkeys(DENSE, "fp8")


def test_a_list_that_names_what_the_description_lacks_is_reported():
    model = quantized(fp8("model.layers.1.mlp.latent_proj", "lm_head", "model.layers.2.input_layernorm", "model.visual.blocks.0"))
    assert [note for note in model.not_modelled if "latent_proj" in note and "layernorm" not in note and "visual" not in note]


def test_layers_of_different_formats_are_different_groups():
    model = quantized(fp8("model.layers.3", "model.layers.4.self_attn"))
    assert [group.count for group in model.layers] == [3, 1, 1, 7]
    assert sum(group.count for group in model.layers) == 12


def test_a_plain_name_of_compressed_tensors_is_that_module_only():
    # published lists name parents that have no weights: Qwen3.6 int4 ignores "…linear_attn" and quantizes what is in it
    scheme = compressed(INT4) | {"ignore": ["lm_head", "model.layers.1.self_attn", "model.layers.2.self_attn.q_proj"]}
    found = formats(quantized(scheme))
    assert found[Q]["bf16"] == [2]
    assert "bf16" not in found[K]


def test_groups_of_named_modules():
    groups = {
        "a": {"targets": ["re:.*self_attn.*"], "weights": FP8, "input_activations": PER_TOKEN | {"num_bits": 8, "type": "float"}},
        "b": {"targets": ["model.layers.0.mlp.down_proj", "Linear"], "weights": INT4, "input_activations": None},
    }
    found = formats(quantized({"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["re:.*v_proj", "lm_head"]}))
    assert set(found[Q]) == {"fp8"}
    assert set(found[V]) == {"bf16"}
    assert set(found[DOWN]) == {"int4_g128"}


def test_gptq_overrides():
    scheme = {"quant_method": "gptq", "bits": 4, "group_size": 128, "lm_head": True}
    scheme |= {"dynamic": {"-:.*\\.1\\..*": {}, "+:.*\\.2\\.mlp.*": {"bits": 8, "group_size": 64}}}
    model = quantized(scheme)
    found = formats(model)[UP]
    assert (found["bf16"], found["int8_g64"]) == ([1], [2])
    assert model.formats == (("lm_head", "int4_g128"),)
    some = quantized({"quant_method": "gptq", "bits": 4, "modules_in_block_to_quantize": [["self_attn.q_proj"], ["mlp.down_proj"]]})
    assert {n for n, f in everywhere(some).items() if f == "int4_g128"} == {Q, DOWN}


def test_experts_and_routers():
    found = everywhere(quantized(fp8(), MIXTRAL))
    assert found["mlp.gate"] == "bf16"
    assert {found[name] for name in EXPERTS} == {"fp8"}
    for name in ("model.layers.*.block_sparse_moe.experts", "block_sparse_moe.experts", "*experts*", "re:.*experts\\.\\d+\\.w[123]"):
        assert {everywhere(quantized(fp8(name), MIXTRAL))[e] for e in EXPERTS} == {"bf16"}
    one = everywhere(quantized(fp8("re:.*\\.w2"), MIXTRAL))
    assert [one[e] for e in EXPERTS] == ["fp8", "fp8", "bf16"]
    only = everywhere(quantized({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, MIXTRAL))
    assert {name for name, format in only.items() if format == "mxfp4"} == set(EXPERTS)


def test_mixed_precision_by_module():
    layers = {
        f"model.layers.{i}.block_sparse_moe.experts.{e}.w{w}": {"quant_algo": "NVFP4", "group_size": 16}
        for i in range(12)
        for e in range(8)
        for w in (1, 2, 3)
    }
    layers |= {f"model.layers.{i}.self_attn.q_proj": {"quant_algo": "MXFP8"} for i in range(6)} | {"lm_head": {"quant_algo": "W4A16_NVFP4"}}
    scheme = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers, "kv_cache_quant_algo": "NVFP4"}
    model = quantized(scheme, MIXTRAL)
    found = formats(model)
    assert {f for e in EXPERTS for f in found[e]} == {"nvfp4"}
    assert found[Q] == {"mxfp8": [*range(6)], "bf16": [*range(6, 12)]}
    assert set(found[K]) == {"bf16"}
    assert model.formats == (("lm_head", "nvfp4_a16"),)
    assert model.kv_format == "nvfp4"
    layers["model.layers.0.block_sparse_moe.experts.5.w1"] = {"quant_algo": "FP8"}
    with pytest.raises(UnsupportedModelError, match="different formats"):
        quantized(scheme, MIXTRAL)


def test_a_quantized_checkpoint_without_a_dtype_has_a_rest_of_16_bits():
    """MiniMax-M2: 62 layers of 256 experts of 3 · 3072 · 1536; 228,689,748,992 parameters on the transformers class."""
    model = Model.load("minimax-m2.5")
    assert model.parameters == 228_689_748_992
    assert model.stored_bytes() == pytest.approx(230e9, rel=1e-3)
    assert model.bytes_by_component()["lm_head"] == 2 * 3072 * 200064


def test_the_key_may_stand_at_either_level_and_fix_the_dtype():
    inner = {k: v for k, v in MIXTRAL.items() if k != "torch_dtype"}
    model = Model.load(inner | {"quantization_config": {"quant_method": "mxfp4"}})
    assert model.dtype == "bf16"  # the method leaves everything else in bf16
    assert forward(model, Step.decode()).total("weight_bytes") > 0
    unsaid = Model.load(inner | {"quantization_config": fp8()})
    said = Model.load(MIXTRAL | {"quantization_config": fp8()})
    assert unsaid.stored_bytes() == said.stored_bytes()  # a rest of 16 bits
    assert "bf16, of 16 bits, is assumed" in str(decode_floor(unsaid, memory_bandwidth=3e12))
    untouched = fp8() | {"modules_to_not_convert": ["model.layers"]}
    for config in (inner, inner | {"quantization_config": untouched}):
        with pytest.raises(InvalidValueError, match="names no dtype"):
            Model.load(config).stored_bytes()


# ----------------------------------------------------------------------------------------------------- methods of single tools

LLAMA_8B = {
    # Llama-3.1-8B as published: 8,030,261,248 parameters
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
TABLE, NORMS = 4096 * 128256, 65 * 4096
LINEAR = 8_030_261_248 - 2 * TABLE - NORMS
QUARK_FP4 = {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}
QUARK = {"weight": QUARK_FP4, "input_tensors": QUARK_FP4}
MLX_4 = {"group_size": 64, "bits": 4}
HQQ_4 = {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 1}, "scale_quant_params": None, "zero_quant_params": None}


@pytest.mark.parametrize(
    ("config", "bits", "head", "embedding", "activations"),
    [
        # bits of the layers' matrices, of the head and of the embedding; the format that rows are multiplied in
        ({"quantization": MLX_4}, 4.5, 4.5, 4.5, "bf16"),  # a 16-bit scale and bias for 64 weights
        ({"quantization": MLX_4, "quantization_config": MLX_4 | {"mode": "affine"}}, None, None, None, None),  # which do not agree
        ({"quantization": MLX_4, "quantization_config": MLX_4}, 4.5, 4.5, 4.5, "bf16"),
        ({"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}, 4.25, 4.25, 4.25, "bf16"),
        ({"quantization": MLX_4 | {"lm_head": {"bits": 8}, "model.embed_tokens": False}}, 4.5, 8.5, 16, "bf16"),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True, "data_type": "int"}, 4.125, 16, 16, "bf16"),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": False, "quant_lm_head": True}, 4 + 20 / 128, None, 16, "bf16"),
        ({"quant_method": "quark", "global_quant_config": QUARK, "exclude": ["lm_head"]}, 4.25, 16, 16, "mxfp4"),
        ({"quant_method": "hqq", "quant_config": HQQ_4, "skip_modules": ["lm_head"]}, 4.5, 16, 16, "bf16"),
        ({"quant_method": "hqq", "quant_config": HQQ_4 | {"scale_quant_params": {"nbits": 8}}}, 4 + 24 / 64, 16, 16, "bf16"),
        ({"quant_method": "exl2", "bits": 4.0, "head_bits": 6, "version": "0.2.4", "calibration": {"rows": 115}}, 4, 6, 16, "bf16"),
        ({"quant_method": "exl3", "bits": 3.5, "head_bits": 6}, 3.5, 6, 16, "bf16"),
        ({"quant_method": "bitnet", "quantization_mode": "offline", "modules_to_not_convert": None}, 2, 16, 16, "int8"),
        ({"quant_method": "aqlm", "in_group_size": 8, "num_codebooks": 1, "nbits_per_codebook": 16}, 2, 16, 16, "bf16"),
        ({"quant_method": "aqlm", "in_group_size": 8, "num_codebooks": 2, "nbits_per_codebook": 8}, 2, 16, 16, "bf16"),
    ],
)
def test_llama_8b_as_single_tools_store_it(config, bits, head, embedding, activations):
    config = config if "quantization" in config else {"quantization_config": config}
    if bits is None:
        with pytest.raises(ConfigError, match="say different things"):
            Model.load(LLAMA_8B | config)
        return
    model = Model.load(LLAMA_8B | config)
    assert model.parameters == 8_030_261_248
    assert model.stored_bytes() == (LINEAR * bits + TABLE * ((bits if head is None else head) + embedding)) / 8 + 2 * NORMS
    ((_, format), *_) = model.layers[0].formats
    assert Format.load(format).activations == activations


def test_mlx_quantizes_routers_and_tied_heads():
    """Both are linear layers; mlx-lm names a gate of another width, and its experts switch_mlp."""
    tied = Model.load(LLAMA_8B | {"quantization": MLX_4, "tie_word_embeddings": True})
    assert tied.stored_bytes() == (LINEAR + TABLE) * 4.5 / 8 + 2 * NORMS
    head = next(op for op in forward(tied, Step.decode()).ops if op.name == "lm_head")
    assert head.weight_bytes == TABLE * 4.5 / 8
    gates = {f"model.layers.{i}.block_sparse_moe.gate": {"bits": 8} for i in range(12)}
    wide = {f"model.layers.{i}.block_sparse_moe.switch_mlp.down_proj": {"bits": 6} for i in range(6)}
    config = {name: value for name, value in MIXTRAL.items() if name != "quantization_config"}
    found = formats(Model.load(config | {"quantization": MLX_4 | gates | wide}))
    assert {*found["mlp.gate"]} == {"int8_g64_zp"}
    assert found["mlp.experts.down_proj"] == {"int6_g64_zp": [*range(6)], "int4_g64_zp": [*range(6, 12)]}


def test_quark_gives_modules_and_the_cache_formats_of_their_own():
    fp8 = {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}
    scheme = {
        "quant_method": "quark",
        "global_quant_config": QUARK,
        "layer_quant_config": {"*.self_attn.*": {"weight": fp8, "input_tensors": fp8}},
        "kv_cache_quant_config": {"*k_proj": {"output_tensors": fp8}, "*v_proj": {"output_tensors": fp8}},
        "exclude": ["lm_head"],
    }
    model = Model.load(LLAMA_8B | {"quantization_config": scheme})
    found = formats(model)
    assert ({*found[Q]}, {*found["mlp.up_proj"]}, model.kv_format) == ({"fp8"}, {"mxfp4_amxfp4"}, "fp8")


def test_codebooks_of_aqlm_are_noted():
    scheme = {"quant_method": "aqlm", "in_group_size": 8, "num_codebooks": 1, "nbits_per_codebook": 16}
    model = Model.load(LLAMA_8B | {"quantization_config": scheme | {"linear_weights_not_to_quantize": ["lm_head.weight"]}})
    assert model.not_modelled == ("the codebooks of AQLM, 1,048,576 B for every quantized matrix",)  # 2^16 entries of 8 numbers of 16 bits


SPARSE = {"quant_method": "compressed-tensors", "format": "float-quantized", "sparsity_config": {"format": "sparse-24-bitmask"}}


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ({"weird": 3}, r"names no 'quant_method', and the keys there \(weird\) are no known tool's"),
        ({"quant_method": "", "weird": 3}, "names no 'quant_method'"),
        (SPARSE, "sparse-24-bitmask.*multiplied at the sparse rate"),
        ({"quant_method": "auto-round", "bits": 4, "data_type": "mx_fp"}, "'data_type' is 'mx_fp'"),
        ({"quant_method": "auto-round", "bits": 4, "act_bits": 8}, "quantized activations"),
        ({"quant_method": "hqq"}, "lacks 'quant_config'"),
        ({"quant_method": "hqq", "quant_config": {"scale_quant_params": None}}, "lacks 'weight_quant_params'"),
        ({"quant_method": "exl2", "bits": "4"}, "'bits' is 4; it must be a number"),
        ({"quant_method": "exl2", "bits": 40}, "'bits' is 40; it must be a number"),
        ({"quant_method": "bitnet", "quantization_mode": "online"}, "become ternary when they are multiplied"),
        ({"bits": 4, "group_size": 16, "mode": "mxfp4"}, "mode 'mxfp4' with 4 bits in groups of 16"),
        ({"quant_method": "quark"}, "lacks 'global_quant_config'"),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "mx9"}}}, "mx9 per_tensor is not modelled"),
        ({"quant_method": "quark", "global_quant_config": {"input_tensors": QUARK_FP4}}, "no 'weight'"),
    ],
)
def test_what_tools_say_that_is_not_modelled(scheme, message):
    with pytest.raises((ConfigError, InvalidValueError), match=message):
        Model.load(LLAMA_8B | {"quantization_config": scheme})


# --------------------------------------------------------------------------------------------------- the file beside config.json


BESIDE = {
    "producer": {"name": "modelopt"},
    "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
}


def test_hf_quant_config_beside_the_file(tmp_path):
    for prefix in ("", "some--model_"):
        (tmp_path / f"{prefix}config.json").write_text(json.dumps(LLAMA))
    plain = Model.load(tmp_path)
    assert plain.kv_format is None
    for prefix in ("", "some--model_"):
        (tmp_path / f"{prefix}hf_quant_config.json").write_text(json.dumps(BESIDE))
        model = Model.load(tmp_path / f"{prefix}config.json")
        assert everywhere(model) == dict.fromkeys(DENSE, "fp8")
        assert model.kv_format == "fp8"
        assert model.stored_bytes() < plain.stored_bytes()
    assert everywhere(Model.load(tmp_path)) == dict.fromkeys(DENSE, "fp8")
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(BESIDE | {"mystery": 1}))
    with pytest.raises(UnsupportedModelError, match="mystery"):
        Model.load(tmp_path)


def test_config_json_wins_and_the_file_beside_it_adds_the_cache():
    model = Model.load(LLAMA | {"quantization_config": compressed(INT4), "hf_quant_config": BESIDE})
    assert everywhere(model) == dict.fromkeys(DENSE, "int4_g128")
    assert model.kv_format == "fp8"


@pytest.mark.parametrize("scheme", [{"num_bits": 8, "type": "float", "dynamic": False}, "FP8", None])
def test_format_of_the_cache(scheme):
    model = quantized({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": scheme})
    assert model.kv_format == ("fp8" if scheme else None)
    step = Step.decode(context=1000)
    own, bf16 = (forward(model, step, kv=kv).total("kv_read_bytes") for kv in (None, "bf16"))
    assert bf16 == (2 if scheme else 1) * own
    assert forward(model, step, kv="fp8").total("kv_read_bytes") == bf16 / 2


# ------------------------------------------------------------------------------------------------------- bytes, and overrides


def elements(model, names):
    return sum(g.stored * m.copies * m.inputs * m.outputs for g in model.layers for m in g.matrices(model.hidden_size) if m.name in names)


def test_stored_bytes_are_the_sum_of_the_components():
    plain = Model.load(LLAMA)
    assert plain.stored_bytes() == 2 * plain.parameters
    tied = Model.load(LLAMA | {"tie_word_embeddings": True})
    assert tied.stored_bytes() == 2 * tied.parameters == plain.stored_bytes() - 2 * 4096 * 128256
    assert "lm_head" not in tied.bytes_by_component()
    model = quantized(fp8("model.layers.0"), MIXTRAL)
    parts = model.bytes_by_component()
    assert sum(parts.values()) == model.stored_bytes() == compile_model(model).stored_bytes
    assert set(parts) == set(model.by_component())
    inside = elements(model, (Q, K, V, OUT, *EXPERTS))
    assert model.stored_bytes() == 2 * model.parameters - inside * 11 // 12


@pytest.mark.parametrize("base", [LLAMA, MIXTRAL], ids=["llama", "mixtral"])
@pytest.mark.parametrize("scheme", [None, fp8("model.layers.0"), compressed(INT4)], ids=["plain", "fp8", "int4"])
def test_an_override_replaces_the_format_of_the_quantizable_matrices_only(base, scheme):
    model = quantized(scheme, base)
    inside = elements(model, (*DENSE, *EXPERTS))
    base_bytes = 2 * model.parameters
    for name, size in (("fp8", 1), ("mxfp4", 17 / 32), ("nvfp4", 9 / 16)):
        assert compile_model(model, weights=name).stored_bytes == base_bytes - (2 - size) * inside
    assert compile_model(model, weights="bf16").stored_bytes == base_bytes
    assert compile_model(model, weights="fp32").stored_bytes == 2 * base_bytes
    head = 4096 * 128256
    more = compile_model(model, weights={"*": "fp8", "lm_head": "fp8"})
    assert more.stored_bytes == base_bytes - inside - head
    assert compile_model(model, weights={"*": "fp8", "embed_tokens": "fp8"}).stored_bytes == base_bytes - inside - head
    one = compile_model(model, weights={Q: "fp8", "*": "bf16"}).stored_bytes
    assert one == base_bytes - elements(model, (Q,))


def test_components_kept_under_weights_override():
    model = quantized(fp8("model.layers.0"), MIXTRAL)
    sizes = {}
    for op in forward(model, Step.decode(), weights="int4_g64", activations="bf16").ops:
        sizes[op.name] = sizes.get(op.name, 0) + op.weight_bytes
    assert sizes["mlp.gate"] == 2 * 12 * 4096 * 8
    assert sizes["lm_head"] == 2 * 4096 * 128256
    assert sizes["embed_tokens"] == 2 * 4096
    assert sizes["mlp.experts.down_proj"] == pytest.approx(12 * 2 * 4096 * 14336 * 4.25 / 8)


def test_a_quantized_head_stays_unless_everything_is_dequantized():
    layers = {"lm_head": {"quant_algo": "W4A16_NVFP4"}, **{f"model.layers.{i}.self_attn": {"quant_algo": "FP8"} for i in range(12)}}
    model = quantized({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers})
    head = 4096 * 128256
    assert model.bytes_by_component()["lm_head"] == head * 4.5 / 8

    def of(weights):
        ops = {op.name: op for op in forward(model, Step.decode(), weights=weights).ops}
        return ops["lm_head"].weight_bytes, ops["lm_head"].operand, ops["self_attn.o_proj"].operand, ops["mlp.down_proj"].operand

    assert of(None) == (head * 4.5 / 8, "bf16", "fp8", "bf16")
    assert of("int8") == (head * 4.5 / 8, "bf16", "int8", "int8")
    assert of("bf16") == (2 * head, "bf16", "bf16", "bf16")


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        # published shapes of Llama-3.1-8B: 32 layers, hidden 4096, 32 heads and 8 key-value heads of 128, width 14336, vocabulary 128256;
        # fused as in vLLM (models/llama.py, packed_modules_mapping)
        ("qkv_proj", 32 * 4096 * (32 + 8 + 8) * 128),
        ("self_attn.qkv_proj", 32 * 4096 * (32 + 8 + 8) * 128),
        ("model.layers.*.self_attn.q_proj", 32 * 4096 * 4096),
        ("o_proj", 32 * 4096 * 4096),
        ("self_attn.o_proj", 32 * 4096 * 4096),
        ("gate_up_proj", 32 * 4096 * 2 * 14336),
        ("mlp.gate_up_proj", 32 * 4096 * 2 * 14336),
        ("down_proj", 32 * 4096 * 14336),
        ("lm_head", 4096 * 128256),
        ("model.embed_tokens", 4096 * 128256),
    ],
)
def test_matrices_have_the_names_of_checkpoints_and_engines(name, elements):
    model = Model.load("llama-3.1-8b")
    assert compile_model(model).stored_bytes - compile_model(model, weights={name: "fp8"}).stored_bytes == elements


def test_a_name_of_fewer_matrices_wins():
    model = Model.load("llama-3.1-8b")
    value = {"self_attn.v_proj": "int4_channel"}
    for weights in (value | {"qkv_proj": "fp8"}, value | {"self_attn.qkv_proj": "fp8"}, value | {"self_attn": "fp8", OUT: "bf16"}):
        saved = compile_model(model).stored_bytes - compile_model(model, weights=weights).stored_bytes
        assert saved == 32 * 4096 * 128 * (32 + 8 + 8 * 1.5)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("model.layers.0.mlp", "mlp"), ("kv_proj", "mlp.up_proj, self_attn.v_proj"), ("attn", "self_attn"), ("c_attn", "self_attn")],
)
def test_a_name_of_no_matrix_lists_the_nearest(name, nearest):
    with pytest.raises(UnknownNameError, match=re.escape(f"unknown component of llama-3.1-8b '{name}'; nearest: {nearest}")):
        compile_model(Model.load("llama-3.1-8b"), weights={name: "fp8"})


def test_components_are_named_or_refused():
    model = Model.load(LLAMA)
    with pytest.raises(UnknownNameError, match="input_layernorm"):
        forward(model, Step.decode(), weights={"input_layernorm": "fp8"})
    tied = Model.load(LLAMA | {"tie_word_embeddings": True})
    half = compile_model(tied, weights={"lm_head": "fp8"}).stored_bytes
    assert half == compile_model(tied, weights={"embed_tokens": "fp8"}).stored_bytes == 2 * tied.parameters - 4096 * 128256
    with pytest.raises(InvalidValueError, match="one tensor"):
        forward(tied, Step.decode(), weights={"lm_head": "fp8", "embed_tokens": "bf16"})


@pytest.mark.parametrize(
    ("stored", "operand"),
    [
        *[("fp8", "fp8"), ("fp8_a16", "bf16"), ("fp8_block128", "fp8"), ("nvfp4", "fp4"), ("nvfp4_a16", "bf16"), ("nvfp4_afp8", "fp8")],
        *[("mxfp4", "bf16"), ("mxfp4_afp8", "fp8"), ("mxfp4_amxfp4", "fp4"), ("int8", "int8"), ("int8_a16", "bf16")],
        *[("int4_g128", "bf16"), ("int4_g128_aint8", "int8"), ("int4_g128_afp8", "fp8"), ("nf4_dq", "bf16")],
        *[("q4_k", "int8"), ("q4_k_m", "int8")],
    ],
)
def test_the_operand_that_a_product_runs_in(stored, operand):
    work = forward(Model.load(LLAMA), Step.decode(batch=4), weights=stored)
    assert next(op for op in work.ops if op.name == "mlp.down_proj").operand == operand


# --------------------------------------------------------------------------------------------------------- published sizes


def test_a_gguf_file_is_the_published_average_of_everything():
    # llama.cpp tools/quantize/README.md (311c2c9): Q4_K_M of Llama 3.1 is 4.58 GiB for the 8B, 4.9 / 43.1 / 249.1 GB for 8B / 70B / 405B
    sizes = {"8b": (8.03e9, 4.9), "70b": (70.55e9, 43.1), "405b": (405.85e9, 249.1)}
    for name, (parameters, gigabytes) in sizes.items():
        model = Model.load(f"llama-3.1-{name}")
        assert model.parameters == pytest.approx(parameters, rel=1e-3)
        assert compile_model(model, weights="Q4_K_M").stored_bytes == pytest.approx(gigabytes * 1e9, rel=0.01)
    eight = Model.load("llama-3.1-8b")
    for name, gib in (
        ("Q4_K_M", 4.58),
        ("Q5_K_M", 5.33),
        ("Q3_K_M", 3.74),
        ("Q2_K_file", 2.95),
        ("IQ4_XS_file", 4.17),
        ("Q6_K", 6.14),
        ("Q8_0", 7.95),
    ):
        whole = {"*": name, "lm_head": name, "embed_tokens": name} if not Format.load(name).whole_file else name
        assert compile_model(eight, weights=whole).stored_bytes == pytest.approx(gib * GIB, rel=0.002), name


@pytest.fixture(scope="module")
def published():
    """Configurations as published, from the wheel of aiconfigurator-core, each with the file beside it."""
    folder = Path(pytest.importorskip("aiconfigurator_core").__path__[0]) / "model_configs"
    return {
        path.name.removesuffix("_config.json").replace("--", "/"): path
        for path in folder.glob("*_config.json")
        if "hf_quant" not in path.name
    }


@pytest.mark.parametrize(("size", "gib"), [("120b", 60.8), ("20b", 12.8)])
def test_gpt_oss(published, size, gib):
    model = Model.load(published[f"openai/gpt-oss-{size}"])
    assert {f for e in EXPERTS for f in formats(model)[e]} == {"mxfp4"}
    assert all(formats(model)[name].keys() == {"bf16"} for name in (Q, K, V, OUT, "mlp.gate"))
    assert model.formats == ()
    # gpt-oss model card, arXiv 2508.10925, table 1: checkpoint sizes 60.8 GiB and 12.8 GiB
    assert model.stored_bytes() == pytest.approx(gib * GIB, abs=0.05 * GIB)
    assert forward(model, Step.decode()).flops_by_operand.keys() == {"bf16"}


def test_deepseek_v3(published):
    model = Model.load(published["deepseek-ai/DeepSeek-V3"])
    found = everywhere(model) if len(model.layers) == 1 else {n: next(iter(f)) for n, f in formats(model).items()}
    assert found.pop("mlp.gate") == "bf16"
    assert set(found.values()) == {"fp8_block128"}
    # the safetensors files of deepseek-ai/DeepSeek-V3 add up to 688,586,727,753 bytes; the draft layer in them has copies of embedding
    # and head (README_WEIGHTS.md), which are stored once here
    copies = 2 * 2 * 129280 * 7168
    assert model.stored_bytes(mtp=True) + copies == pytest.approx(688_586_727_753, rel=5e-5)


def test_deepseek_v3_in_awq(published):
    config = json.loads(published["deepseek-ai/DeepSeek-V3"].read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"}
    config["torch_dtype"] = "float16"
    model = Model.load(config)
    # total_size of the model.safetensors.index.json with qweight, qzeros and scales in kvcache-ai/sglang_awq (commit 1e697f1), which has the
    # correction of the router's scores, no parameter here, in 16 bits; no other size of a group leads to it
    assert model.stored_bytes() + 2 * 58 * 256 == 364_589_799_936


def test_nvfp4_with_an_ignore_list(published):
    model = Model.load(published["nvidia/DeepSeek-V3.1-NVFP4"])
    found = formats(model)
    for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"):
        assert found[f"self_attn.{name}"].keys() == {"bf16"}
    assert found[OUT].keys() == found[EXPERTS[0]].keys() == found[DOWN].keys() == {"nvfp4"}
    assert model.kv_format == "fp8"
    assert all(group.formats == () for group in model.mtp)  # model.layers.61*
    glm = Model.load(published["nvidia/GLM-5.1-NVFP4"])
    assert formats(glm)[DOWN] == {"bf16": [0, 1, 2]}  # "model.layers.0*", "model.layers.1.*", "model.layers.2.*"
    assert formats(glm)["mlp.experts.down_proj"] == {"nvfp4": [*range(3, 78)]}


def test_fp8_from_the_file_beside_the_configuration(published):
    model = Model.load(published["nvidia/Llama-3.1-70B-Instruct-FP8"])
    assert everywhere(model) == dict.fromkeys(DENSE, "fp8")
    assert (model.kv_format, model.formats) == ("fp8", ())
    assert model.stored_bytes() == model.parameters + 2 * 128256 * 8192 + (2 * 80 + 1) * 8192
    assert everywhere(Model.load(published["Qwen/Qwen3-32B-FP8"])) == dict.fromkeys(DENSE, "fp8_block128")


def test_int4_experts_of_kimi(published):
    found = formats(Model.load(published["moonshotai/Kimi-K2.5"]))
    assert {f for e in EXPERTS for f in found[e]} == {"int4_g32"}
    assert {f for name, kinds in found.items() if name not in EXPERTS for f in kinds} == {"bf16"}


def test_mixed_precision_of_qwen(published):
    model = Model.load(published["nvidia/Qwen3.6-27B-NVFP4"])
    found = formats(model)
    assert found["linear_attn.in_proj_qkv"].keys() == found["linear_attn.out_proj"].keys() == found[Q].keys() == {"fp8"}
    assert found["linear_attn.in_proj_a"].keys() == {"bf16"}
    assert found[GATE].keys() == {"nvfp4_a16"}
    assert model.formats == (("lm_head", "nvfp4_a16"),)
    assert forward(model, Step.decode()).flops_by_operand.keys() == {"bf16", "fp8"}


def test_experts_in_fp4_beside_fp8(published):
    found = formats(Model.load(published["deepseek-ai/DeepSeek-V4-Flash"]))
    assert {f for e in EXPERTS for f in found[e]} == {"mxfp4_afp8"}
    assert found["mlp.shared_experts.up_proj"].keys() == found["self_attn.q_a_proj"].keys() == {"fp8_block128_ue8m0"}
    redone = Model.load(published["nvidia/DeepSeek-V4-Flash-NVFP4"])
    assert {f for e in EXPERTS for f in formats(redone)[e]} == {"nvfp4"}
    assert formats(redone)["self_attn.q_a_proj"].keys() == {"fp8_block128_ue8m0"}


def test_every_published_scheme_is_read(published):
    read = 0
    for name, path in published.items():
        data = json.loads(path.read_text())
        beside = path.with_name(path.name.replace("_config.json", "_hf_quant_config.json"))
        if not (beside.exists() or any("quantization_config" in level for level in (data, data.get("text_config") or {}))):
            continue
        model = Model.load(path)
        read += 1
        assert any(group.formats for group in model.layers), name
        assert not [note for note in model.not_modelled if "left unquantized" in note], name
        assert {f for group in (*model.layers, *model.mtp) for _, f in group.formats} <= {f.name for f in map(Format.load, FORMATS)} | {
            "int4_g32"
        }
        if model.dtype:
            program = compile_model(model)
            assert program.stored_bytes == pytest.approx(model.stored_bytes() + (model.tower_bytes or 0), rel=1e-12)
            assert program.stored_bytes < 2 * model.parameters
    assert read > 40


# -------------------------------------------------------------------------------------------------- scales of rows, stored or computed


def rows_in(bits, dynamic, **more):
    weights = {"num_bits": bits, "type": "float", "dynamic": False, **more}
    return {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": {**weights, "dynamic": dynamic}}}


@pytest.mark.parametrize(
    ("scheme", "static"),
    [
        ({"quant_method": "fp8", "activation_scheme": "static"}, True),  # vLLM, Fp8LinearMethod: input_scale is a parameter if static
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, False),
        ({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}, False),
        ({"quant_method": "fbgemm_fp8"}, False),  # transformers, FbgemmFp8Linear: rows are quantized per token
        # compressed-tensors, QuantizationArgs.dynamic: True, False, or "local", which stores the scale of the tensor alone
        ({"quant_method": "compressed-tensors", "config_groups": rows_in(8, False)}, True),
        ({"quant_method": "compressed-tensors", "config_groups": rows_in(8, True)}, False),
        ({"quant_method": "compressed-tensors", "config_groups": rows_in(4, "local", group_size=16)}, True),
        # ModelOpt stores input_scale; per token it cannot
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, True),
        ({"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}, False),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}, True),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, None),  # rows are left alone
    ],
)
def test_whether_the_scales_of_rows_are_stored(scheme, static):
    assert quantized(scheme).static_scales is static


def test_scales_are_stored_if_those_of_every_module_are():
    layers = {f"model.layers.{i}.mlp.{x}_proj": {"quant_algo": "FP8"} for i in range(12) for x in ("gate", "up", "down")}
    mixed = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    assert quantized(mixed).static_scales is True
    layers["model.layers.0.self_attn.q_proj"] = {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}
    assert quantized(mixed).static_scales is False
    assert Model.load(LLAMA).static_scales is None
