"""Encoders, encoder-decoders and cross-attention against transformers' own classes, a few layers of each, and against published counts.

Parameters are the class's own; FLOP of products with weights are torch's counter; the cache is what its cache object holds.
"""

import pytest

from roofline import Model, Step
from roofline.forward import forward

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
MODERN = {
    **{key: value for key, value in SMALL.items() if key != "type_vocab_size"},
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
ENCODERS = {
    # class of transformers: its configuration
    "BertForMaskedLM": SMALL | {"model_type": "bert"},
    "BertModel": SMALL | {"model_type": "bert"},
    "RobertaModel": SMALL | {"model_type": "roberta"},
    "RobertaPreLayerNormForMaskedLM": SMALL | {"model_type": "roberta-prelayernorm"},
    "XLMRobertaForMaskedLM": SMALL | {"model_type": "xlm-roberta"},
    "CamembertModel": SMALL | {"model_type": "camembert"},
    "Data2VecTextForMaskedLM": SMALL | {"model_type": "data2vec-text"},
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
    "ModernBertForMaskedLM": MODERN | {"model_type": "modernbert", "classifier_bias": True, "norm_bias": False},
}
DECODERS = {
    "T5ForConditionalGeneration": T5 | {"model_type": "t5"},
    "UMT5ForConditionalGeneration": T5 | {"model_type": "umt5", "feed_forward_proj": "gated-gelu"},
    "BartForConditionalGeneration": TWO_STACKS | {"model_type": "bart"},
    "MBartForConditionalGeneration": TWO_STACKS | {"model_type": "mbart"},
    "WhisperForConditionalGeneration": WHISPER | {"model_type": "whisper"},
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


def counted(run):
    """What a call returns, and the FLOP of its products with weights by torch's counter."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = run()
    by_operator = counter.get_flop_counts()["Global"]
    return result, sum(n for op, n in by_operator.items() if str(op).removeprefix("aten.") in ("mm", "addmm", "convolution"))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_like_its_class(reference, name):
    import torch

    module, model = reference(name, ENCODERS[name])
    ids = torch.full((2, 20), 3)
    _, flops = counted(lambda: module(ids))
    rows = "last" if model.head is not None and model.head.name == "pooler" else "all"
    assert linear_flops(model, Step.prefill(20, batch=2, logits=rows)) == flops
    assert model.kv_bytes_per_token() == 0


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

    module, model = reference(name, DECODERS[name])
    model = model.with_source(SOURCE)
    tokens = "input_ids" if name == "MllamaForCausalLM" else "decoder_input_ids"
    inputs, prompt, one = _inputs(module, torch), torch.full((2, PROMPT), 3), torch.full((2, 1), 3)
    first, flops = counted(lambda: module(**inputs, **{tokens: prompt}, use_cache=True))
    assert linear_flops(model, Step.prefill(PROMPT, batch=2, logits="all")) == flops

    cache = first.past_key_values
    own, cross = getattr(cache, "self_attention_cache", cache), getattr(cache, "cross_attention_cache", None)
    layers = [*own.layers, *(cross.layers if cross is not None else ())]
    by_length = {SOURCE: 0, PROMPT: 0}
    for layer in layers:
        by_length[layer.keys.shape[-2]] += (layer.keys.numel() + layer.values.numel()) // 2  # of one of both sequences
    assert by_length == {SOURCE: model.source_bytes_per_sequence() // 2, PROMPT: PROMPT * model.kv_bytes_per_token() // 2}

    again = {} if name == "MllamaForCausalLM" else {"encoder_outputs": (first.encoder_last_hidden_state,)}
    _, flops = counted(lambda: module(**again, **{tokens: one}, past_key_values=cache, use_cache=True))
    assert linear_flops(model, Step.decode(batch=2, context=PROMPT)) == flops


@pytest.mark.parametrize("config", [*ENCODERS.values(), *DECODERS.values()], ids=lambda config: config["model_type"])
def test_every_key_that_a_class_writes_is_understood(written, config):
    usual = written({"model_type": config["model_type"]})
    assert Model.load(usual.to_dict()).parameters > 10**6
