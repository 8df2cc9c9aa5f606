"""Encoders, encoder-decoders and cross-attention against transformers' own classes, a few layers of each, and against published counts.

Parameters are the class's own; FLOP of products with weights are torch's counter; the cache is what its cache object holds.
"""

import numpy as np
import pytest

from roofline import (
    ConfigError,
    Deployment,
    InvalidValueError,
    Model,
    Step,
    UnsupportedModelError,
    Workload,
    decode_floor,
    max_batch,
    prefill_floor,
    resident,
    simulate,
)
from roofline.forward import compile_model, forward
from roofline.parallel import Parallel
from roofline.step import Visibility
from roofline.step.grouped import GroupedSteps

SMALL = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 40,
    "type_vocab_size": 3,
    "pad_token_id": 1,
}
UNTYPED = {key: value for key, value in SMALL.items() if key != "type_vocab_size"}
TWO_STACKS = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 80,
    "vocab_size": 90,
    "decoder_start_token_id": 2,
    "max_position_embeddings": 30,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
T5 = {
    "d_model": 64,
    "d_kv": 8,
    "d_ff": 96,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 6,
    "vocab_size": 90,
    "n_positions": 24,
    "relative_attention_num_buckets": 10,
}
MODERN = UNTYPED | {
    "local_attention": 8,
    "global_attn_every_n_layers": 2,
    "attention_bias": True,
    "mlp_bias": True,
    "norm_bias": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "cls_token_id": 0,
    "sep_token_id": 1,
}
MLLAMA = {
    "model_type": "mllama_text_model",
    "hidden_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 90,
    "cross_attention_layers": [1, 3],
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WHISPER = {key: value for key, value in TWO_STACKS.items() if key != "max_position_embeddings"} | {
    "num_mel_bins": 20,
    "max_source_positions": 24,
    "max_target_positions": 30,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
GEMMA = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "vocab_size": 90, "intermediate_size": 96}
FULL = {"layer_types": ["full_attention"] * 3, "num_hidden_layers": 3}
T5_GEMMA = {"encoder": GEMMA | FULL, "decoder": GEMMA | FULL | {"intermediate_size": 80}, "vocab_size": 90}
ENCODERS = {
    # class of transformers: its configuration
    "BertForMaskedLM": SMALL | {"model_type": "bert"},
    "BertModel": SMALL | {"model_type": "bert"},
    "RobertaModel": SMALL | {"model_type": "roberta"},
    "RobertaPreLayerNormForMaskedLM": SMALL | {"model_type": "roberta-prelayernorm"},
    "XLMRobertaForMaskedLM": SMALL | {"model_type": "xlm-roberta"},
    "XLMRobertaXLModel": SMALL | {"model_type": "xlm-roberta-xl"},
    "MegatronBertForMaskedLM": SMALL | {"model_type": "megatron-bert"},
    "ErnieModel": SMALL | {"model_type": "ernie"},
    "NomicBertForMaskedLM": SMALL | {"model_type": "nomic_bert"},
    "JinaEmbeddingsV3Model": SMALL | {"model_type": "jina_embeddings_v3"},
    "MPNetModel": UNTYPED | {"model_type": "mpnet"},
    "EuroBertForMaskedLM": UNTYPED | {"model_type": "eurobert", "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 1},
    "CamembertModel": SMALL | {"model_type": "camembert"},
    "Data2VecTextForMaskedLM": SMALL | {"model_type": "data2vec-text"},
    "AlbertForMaskedLM": SMALL | {"model_type": "albert", "embedding_size": 48},
    "AlbertModel": SMALL | {"model_type": "albert", "embedding_size": 48},
    "ElectraForMaskedLM": SMALL | {"model_type": "electra", "embedding_size": 48},
    "ElectraModel": SMALL | {"model_type": "electra", "embedding_size": 64},
    "DistilBertForMaskedLM": {
        "model_type": "distilbert",
        "dim": 64,
        "n_heads": 4,
        "n_layers": 2,
        "hidden_dim": 96,
        "vocab_size": 90,
        "max_position_embeddings": 40,
    },
    "ModernBertModel": MODERN | {"model_type": "modernbert"},
    "ModernBertDecoderForCausalLM": MODERN | {"model_type": "modernbert-decoder"},
    "T5EncoderModel": T5 | {"model_type": "t5"},
    "ModernBertForMaskedLM": MODERN | {"model_type": "modernbert", "classifier_bias": True, "norm_bias": False},
}
DECODERS = {
    "T5ForConditionalGeneration": T5 | {"model_type": "t5"},
    "UMT5ForConditionalGeneration": T5 | {"model_type": "umt5", "feed_forward_proj": "gated-gelu"},
    "MT5ForConditionalGeneration": T5 | {"model_type": "mt5"},
    "M2M100ForConditionalGeneration": TWO_STACKS | {"model_type": "m2m_100"},
    "MarianMTModel": TWO_STACKS | {"model_type": "marian"},
    "PegasusForConditionalGeneration": TWO_STACKS | {"model_type": "pegasus"},
    "BlenderbotForConditionalGeneration": TWO_STACKS | {"model_type": "blenderbot"},
    "BlenderbotSmallForConditionalGeneration": TWO_STACKS | {"model_type": "blenderbot-small"},
    "PLBartForConditionalGeneration": TWO_STACKS | {"model_type": "plbart"},
    "MvpForConditionalGeneration": TWO_STACKS | {"model_type": "mvp"},
    "BartForConditionalGeneration": TWO_STACKS | {"model_type": "bart"},
    "MBartForConditionalGeneration": TWO_STACKS | {"model_type": "mbart"},
    "WhisperForConditionalGeneration": WHISPER | {"model_type": "whisper"},
    "T5GemmaForConditionalGeneration": T5_GEMMA | {"model_type": "t5gemma"},
    "MllamaForCausalLM": MLLAMA,
}
SOURCE, PROMPT = 24, 7


@pytest.fixture
def written():
    """Return a configuration as transformers writes it, with every key that its class has."""
    transformers = pytest.importorskip("transformers")

    def write(config):
        return transformers.CONFIG_MAPPING[config["model_type"]](**{k: v for k, v in config.items() if k != "model_type"})

    return write


@pytest.fixture
def reference(written):
    """Return a class of transformers, built, and our reading of its configuration."""
    transformers = pytest.importorskip("transformers")

    def build(name, config):
        made = written(config)
        made._attn_implementation = "eager"
        module = getattr(transformers, name)(made).eval()
        model = Model.load(made.to_dict() | {"architectures": [name]})
        assert model.parameters == sum(p.numel() for p in module.parameters())
        return module, model

    return build


def linear_flops(model, step):
    """FLOP of everything but the products of attention."""
    ops = forward(model, step, weights="bf16").ops
    return sum(op.flops for op in ops if op.kind == "contraction" and ".attention" not in op.name)


def attention_flops(model, step, square):
    """FLOP of the products of attention, those of the decoder to itself as if every token saw `square` positions."""
    ops = [op for op in forward(model, step, weights="bf16").ops if op.kind == "contraction" and ".attention" in op.name]
    causal = step.pairs() / step.tokens
    return sum(op.flops * square / causal if op.name == "self_attn.attention" and square else op.flops for op in ops)


def counted(run):
    """What a call returns, and by torch's counter the FLOP of its products with weights and of those of attention."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = run()
    by_operator = {str(op).removeprefix("aten."): n for op, n in counter.get_flop_counts()["Global"].items()}
    assert by_operator.keys() <= {"mm", "addmm", "convolution", "bmm", "baddbmm"}
    products = by_operator.pop("bmm", 0) + by_operator.pop("baddbmm", 0)
    return result, sum(by_operator.values()), products


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_like_its_class(reference, name):
    import torch

    module, model = reference(name, ENCODERS[name])
    ids = torch.full((2, 20), 3)
    _, flops, products = counted(lambda: module(ids))
    rows = "last" if model.head is not None and model.head.name == "pooler" else "all"
    step = Step.prefill(20, batch=2, logits=rows)
    assert linear_flops(model, step) == flops
    if not name.startswith("ModernBert"):  # whose class computes the whole square and masks it
        assert attention_flops(model, step, 0) == products
    assert (model.kv_bytes_per_token() == 0) is (name != "ModernBertDecoderForCausalLM")


def _inputs(module, torch):
    """What the class takes besides the tokens of the prompt."""
    if module.config.model_type == "whisper":
        return {"input_features": torch.zeros(2, module.config.num_mel_bins, 2 * SOURCE)}
    if module.config.model_type == "mllama_text_model":
        return {"cross_attention_states": torch.zeros(2, SOURCE, module.config.hidden_size)}
    return {"input_ids": torch.full((2, SOURCE), 3)}


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_is_like_its_class(reference, name):
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    module, model = reference(name, DECODERS[name])
    model = model.with_source(SOURCE)
    tokens = "input_ids" if name == "MllamaForCausalLM" else "decoder_input_ids"
    inputs, prompt, one = _inputs(module, torch), torch.full((2, PROMPT), 3), torch.full((2, 1), 3)
    first, flops, products = counted(lambda: module(**inputs, **{tokens: prompt}, use_cache=True))
    step = Step.prefill(PROMPT, batch=2, logits="all")
    assert linear_flops(model, step) == flops
    assert attention_flops(model, step, PROMPT) == products

    cache = first.past_key_values
    own, cross = getattr(cache, "self_attention_cache", cache), getattr(cache, "cross_attention_cache", None)
    layers = [*own.layers, *(cross.layers if cross is not None else ())]
    by_length = {SOURCE: 0, PROMPT: 0}
    for layer in layers:
        by_length[layer.keys.shape[-2]] += (layer.keys.numel() + layer.values.numel()) // 2  # of one of both sequences
    assert by_length == {SOURCE: model.source_bytes_per_sequence() // 2, PROMPT: PROMPT * model.kv_bytes_per_token() // 2}

    again = {} if name == "MllamaForCausalLM" else {"encoder_outputs": BaseModelOutput(last_hidden_state=first.encoder_last_hidden_state)}
    _, flops, products = counted(lambda: module(**again, **{tokens: one}, past_key_values=cache, use_cache=True))
    step = Step.decode(batch=2, context=PROMPT)
    assert linear_flops(model, step) == flops
    assert attention_flops(model, step, 0) == products


@pytest.mark.parametrize("config", [*ENCODERS.values(), *DECODERS.values()], ids=lambda config: config["model_type"])
def test_every_key_that_a_class_writes_is_understood(written, config):
    usual = written({"model_type": config["model_type"]})
    assert Model.load(usual.to_dict()).parameters > 10**6


def test_windows_of_the_encoder_of_t5gemma_are_as_wide_on_either_side_of_a_position():
    """`sliding_window_bidirectional_overlay` of transformers: positions see each other whose distance is 512 or less."""
    stack = GEMMA | {"num_hidden_layers": 4, "sliding_window": 512}
    model = Model.load({"model_type": "t5gemma", "encoder": stack, "decoder": stack, "vocab_size": 90})
    assert [group.mixer.span for group in model.encoder.layers] == [512, 0, 512, 0]
    assert [group.mixer.own.span for group in model.layers] == [512, 0, 512, 0]


@pytest.mark.parametrize(
    ("stacks", "said"),
    [
        ({"encoder": GEMMA | {"hidden_size": 96, "num_hidden_layers": 2}}, "stacks of two widths"),
        ({"encoder": None}, "lacks 'encoder' or 'decoder'"),
        ({"encoder": GEMMA | {"num_hidden_layers": 2, "layers_shared": 2}}, "layers_shared"),
    ],
)
def test_stacks_of_t5gemma_that_are_not_understood_are_refused(stacks, said):
    with pytest.raises(ConfigError, match=said):
        Model.load({"model_type": "t5gemma", "decoder": GEMMA | {"num_hidden_layers": 2}} | stacks)


# ------------------------------------------------------------------------------------------------------- published models

BASE = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24, "intermediate_size": 4096}
XLM = LARGE | {"model_type": "xlm-roberta", "vocab_size": 250002, "type_vocab_size": 1}
FLAN = {"model_type": "t5", "d_kv": 64, "vocab_size": 32128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
STACKS = {"encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16, "decoder_attention_heads": 16, "encoder_ffn_dim": 4096}
BART = STACKS | {"model_type": "bart", "d_model": 1024, "decoder_ffn_dim": 4096, "vocab_size": 50265, "max_position_embeddings": 1024}
NLLB_MOE = STACKS | {"model_type": "nllb-moe", "d_model": 2048, "encoder_layers": 24, "decoder_layers": 24, "encoder_ffn_dim": 8192}
NLLB_MOE |= {"decoder_ffn_dim": 8192, "vocab_size": 256206, "num_experts": 128, "max_position_embeddings": 1024}
SWITCH = {"model_type": "switch_transformers", "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
SWITCH |= {"vocab_size": 32128, "num_experts": 128, "num_sparse_encoder_layers": 6, "num_sparse_decoder_layers": 6}
SPARSE = {"num_sparse_encoder_layers": 15, "num_sparse_decoder_layers": 15}
VISION = {"model_type": "mllama", "text_config": {"model_type": "mllama_text_model", "hidden_size": 4096, "intermediate_size": 14336}}
VISION["text_config"] |= {"num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        # counted on transformers' classes without weights
        (XLM | {"max_position_embeddings": 514}, 560_142_482),
        (BASE | {"model_type": "modernbert", "num_hidden_layers": 22, "intermediate_size": 1152, "vocab_size": 50368}, 149_014_272),
        (
            {"model_type": "t5", "d_model": 1024, "d_kv": 128, "d_ff": 16384, "num_layers": 24, "num_heads": 32, "vocab_size": 32128},
            2_851_598_336,
        ),
        (VISION, 9_775_192_080),
        (BART, 406_291_456),
    ],
    ids=["xlm-roberta-large", "modernbert-base", "t5-3b", "llama-3.2-11b-vision", "bart-large"],
)
def test_published_models_have_the_parameters_of_their_classes(config, parameters):
    assert Model.load(config).parameters == parameters


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        # model cards on huggingface.co, rounded to what they show
        (XLM | {"max_position_embeddings": 8194, "architectures": ["XLMRobertaModel"]}, 568e6),  # BAAI/bge-m3
        (FLAN | {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12}, 248e6),  # google/flan-t5-base
        (
            BASE | {"model_type": "mpnet", "vocab_size": 30527, "max_position_embeddings": 514, "architectures": ["MPNetModel"]},
            109e6,  # sentence-transformers/all-mpnet-base-v2
        ),
        (BART | {"model_type": "m2m_100", "vocab_size": 256206}, 615e6),  # facebook/nllb-200-distilled-600M
        ("whisper-large-v3", 1.54e9),
        (NLLB_MOE, 54.5e9),  # arXiv 2207.04672, section 8
        (SWITCH, 7.41e9),  # arXiv 2101.03961, table 9
        (SWITCH | {"d_model": 2080, "d_ff": 6144, "num_layers": 15, "num_heads": 32, "num_experts": 2048} | SPARSE, 1571e9),  # the same
    ],
    ids=[
        *("bge-m3", "flan-t5-base", "all-mpnet-base-v2", "nllb-200-distilled-600m", "whisper-large-v3"),
        *("nllb-moe-54b", "switch-base-128", "switch-c-2048"),
    ],
)
def test_published_sizes(config, parameters):
    assert Model.load(config).parameters == pytest.approx(parameters, rel=0.005)


def test_a_token_passes_one_expert_of_switch_and_two_of_nllb_moe():
    dense = Model.load(SWITCH | {"num_experts": 1})
    assert Model.load(SWITCH).active_parameters == dense.parameters + 12 * 127 * 768  # and the rows of its routers
    nllb = Model.load(NLLB_MOE)
    idle = 12 * 126 * (2 * 2048 * 8192 + 2048 + 8192)  # of every fourth layer in each stack
    assert nllb.active_parameters == nllb.parameters - idle
    stacks = [[type(group.feed_forward).__name__ for group in part.layers for _ in range(group.count)] for part in (nllb, nllb.encoder)]
    assert stacks == [[*["DenseFeedForward"] * 3, "Experts"] * 6] * 2


def test_the_first_layer_of_t5_has_the_table_of_all_and_umt5_one_in_each():
    counts = [Model.load(T5 | {"model_type": name}).by_component()["self_attn.relative_attention_bias"] for name in ("t5", "umt5")]
    assert counts == [2 * 60, (2 + 3) * 60]  # 10 buckets of 6 heads, in both stacks


# --------------------------------------------------------------------------------------------------- the source of a decoder

WHISPER_3 = Model.load("whisper-large-v3")


def test_the_cache_of_a_source_does_not_grow():
    """32 layers of 1280 keys and 1280 values: of 1500 frames for every sequence, and of each token."""
    assert WHISPER_3.source_positions == 1500
    assert WHISPER_3.source_bytes_per_sequence() == 32 * 1500 * 2 * 1280 * 2
    assert WHISPER_3.kv_bytes_per_token() == 32 * 2 * 1280 * 2
    held = [resident(WHISPER_3, "h100-sxm", batch=4, context=c, page=1).kv_bytes for c in (100, 101)]
    assert held[1] - held[0] == 4 * WHISPER_3.kv_bytes_per_token()
    assert held[0] == 4 * (WHISPER_3.source_bytes_per_sequence() + 100 * WHISPER_3.kv_bytes_per_token())


def test_a_prefill_encodes_and_writes_the_source_and_a_decode_reads_it():
    first = forward(WHISPER_3, Step.prefill(4, batch=2))
    assert first.total("kv_read_bytes") == 0
    assert first.total("kv_write_bytes") == 2 * (WHISPER_3.source_bytes_per_sequence() + 4 * WHISPER_3.kv_bytes_per_token())
    then = forward(WHISPER_3, Step.decode(batch=2, context=4))
    assert then.total("kv_read_bytes") == first.total("kv_write_bytes")
    assert then.total("kv_write_bytes") == 2 * WHISPER_3.kv_bytes_per_token()
    encoder = [op for op in then.ops if op.name.startswith("encoder.") or op.name == "cross_attn.kv_proj"]
    assert encoder
    assert all(not any(op.amounts().values()) for op in encoder)
    rows = decode_floor(WHISPER_3, "h100-sxm", batch=2, context=4).by_op()
    assert not {op.name for op in encoder} & {row.op.name for row in rows}


def test_a_mixed_step_encodes_for_new_sequences_alone():
    def amounts(step):
        return {name: forward(WHISPER_3, step).total(name) for name in ("flops", "kv_read_bytes", "kv_write_bytes")}

    both, new, old = map(amounts, (Step.prefill(4) + Step.decode(batch=3, context=9), Step.prefill(4), Step.decode(batch=3, context=9)))
    assert both == {name: new[name] + old[name] for name in both}


@pytest.mark.parametrize("model", [WHISPER_3, Model.load(VISION).but(dtype="bf16")], ids=["whisper", "mllama"])
def test_capacity_has_room_for_the_source(model):
    many = max_batch(model, "h100-sxm", context=400)
    case = {"hardware": "h100-sxm", "context": 400}
    assert resident(model, batch=many, **case).fits
    assert not resident(model, batch=many + 1, **case).fits
    floor = decode_floor(model, "h100-sxm", batch=8, context=99)
    assert floor.resident_bytes == resident(model, "h100-sxm", batch=8, context=100, page=1).total_bytes


def test_tensor_parallel_devices_share_the_heads_of_a_source():
    whole, half = (forward(WHISPER_3, Step.decode(batch=2, context=8), parallel=Parallel(tensor=t)) for t in (1, 2))
    assert half.total("kv_read_bytes") == whole.total("kv_read_bytes") / 2
    reduced = [op for op in half.ops if op.name == "mixer.all_reduce" or op.name == "self_attn.all_reduce"]
    assert [op.count for op in reduced] == [32, 32]  # after the attention to the sequence and after that to the source


def test_an_encoder_is_not_cut_into_stages():
    with pytest.raises(InvalidValueError, match="has an encoder"):
        decode_floor(WHISPER_3, "h100-sxm", context=8, pipeline_parallel=2)


def test_arrays_of_mixed_steps_encode_what_single_ones_do():
    steps = Step.decode(batch=8, context=100) + Step.prefill(12), Step.decode(context=100)
    together = GroupedSteps.rows([[8, 1], [1, 0]], [[1, 12], [1, 1]], [[100, 0], [100, 0]])
    program = compile_model(WHISPER_3)
    values = [np.broadcast_to(value, (2,)).tolist() for value in program.values(together)]
    assert values == [list(pair) for pair in zip(*(program.values(step) for step in steps), strict=True)]


def test_a_service_with_sources_is_not_simulated():
    with pytest.raises(UnsupportedModelError, match="encodes a source"):
        simulate(Deployment(WHISPER_3, "h100-sxm"), Workload.generated(20, prompt=4, output=20, arrivals=5.0, seed=1))


def test_another_length_of_the_source():
    t5 = Model.load(T5 | {"model_type": "t5", "dtype": "bfloat16"})
    assert "another length of the source than 24 positions" in t5.not_modelled[0]
    longer = t5.with_source(48)
    assert longer.not_modelled == ()
    assert longer.source_bytes_per_sequence() == 2 * t5.source_bytes_per_sequence()
    assert longer.parameters == t5.parameters
    time = [prefill_floor(m, "h100-sxm", prompt=2).by_op() for m in (t5, longer)]
    assert [rows[0].op.name for rows in time] == ["encoder.embed_tokens"] * 2
    with pytest.raises(InvalidValueError, match="no cross-attention"):
        Model.load("llama-3.1-8b").with_source(3)
    with pytest.raises(InvalidValueError, match="a table of 1500"):
        WHISPER_3.with_source(1501)


def test_the_first_step_says_that_it_encodes():
    assert any("source is encoded" in note for note in decode_floor(WHISPER_3, "h100-sxm").assumptions)
    assert not any("source is encoded" in note for note in decode_floor("llama-3.1-8b", "h100-sxm").assumptions)


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        (
            DECODERS["BartForConditionalGeneration"] | {"quantization_config": {"quant_method": "fp8"}},
            UnsupportedModelError,
            "encoder-decoders",
        ),
        (DECODERS["MarianMTModel"] | {"decoder_vocab_size": 95}, UnsupportedModelError, "another vocabulary"),
        (DECODERS["MarianMTModel"] | {"share_encoder_decoder_embeddings": False}, UnsupportedModelError, "token table"),
        (DECODERS["MvpForConditionalGeneration"] | {"use_prompt": True}, UnsupportedModelError, "prompts"),
        (DECODERS["BartForConditionalGeneration"] | {"decoder_attention_heads": 7}, ConfigError, "not a multiple of 7"),
        (DECODERS["BartForConditionalGeneration"] | {"architectures": ["BartForCausalLM"]}, UnsupportedModelError, "'BartForCausalLM'"),
        (ENCODERS["ModernBertModel"] | {"sliding_window": 128}, UnsupportedModelError, "another window"),
        (MLLAMA | {"cross_attention_layers": [9]}, ConfigError, "not among the 5"),
        (ENCODERS["BertModel"] | {"is_decoder": True}, UnsupportedModelError, "causal"),
        (ENCODERS["ErnieModel"] | {"use_task_id": True}, UnsupportedModelError, "tasks"),
        ({"model_type": "whisper", "d_model": 1280, "encoder_layers": 32, "decoder_layers": 32}, ConfigError, "attention_heads"),
    ],
)
def test_what_is_refused(config, error, match):
    with pytest.raises(error, match=match):
        Model.load(config)


def test_the_head_is_that_of_the_class():
    bert = ENCODERS["BertModel"]
    heads = [Model.load(bert | {"architectures": [name]}).head for name in ("BertModel", "BertForMaskedLM", "BertForTokenClassification")]
    assert [head and head.name for head in heads] == ["pooler", "lm_head", None]
    assert "vocabulary 100, pooler of 64 outputs" in str(Model.load(bert | {"architectures": ["BertModel"]}))
    assert Model.load(bert | {"architectures": ["BertForTokenClassification"]}).not_modelled == ("the head of BertForTokenClassification",)
    discriminator = Model.load(ENCODERS["ElectraModel"] | {"architectures": ["ElectraForPreTraining"]})
    assert (discriminator.head, "ElectraForPreTraining" in discriminator.not_modelled[0]) == (None, True)


# ------------------------------------------------------------------------------------------------------- windows of encoders


@pytest.mark.parametrize("new", [1, 2, 5, 9, 30])
@pytest.mark.parametrize("span", [1, 4, 64])
def test_pairs_of_a_window_on_either_side_are_counted_one_by_one(new, span):
    seen = sum(abs(i - j) <= span for i in range(new) for j in range(new))
    assert Step.prefill(new).pairs(Visibility("bidirectional", span)) == seen


def test_local_layers_of_modernbert_see_half_the_window_on_either_side():
    """`sliding_window` of its class is `local_attention` // 2, on either side of a token."""
    model = Model.load(BASE | {"model_type": "modernbert", "num_hidden_layers": 22, "intermediate_size": 1152, "vocab_size": 50368})
    assert [group.mixer.span for group in model.layers][:4] == [0, 64, 0, 64]
    names = {op.name for op in forward(model, Step.prefill(9), weights="bf16").ops}
    assert {"self_attn.attention", "self_attn.attention[bidirectional 64]"} <= names
