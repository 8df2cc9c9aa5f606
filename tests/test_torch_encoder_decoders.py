"""Encoder–decoders read from their code, beside their readers and beside what their classes of transformers count and keep."""

import functools

import pytest

from roofline import Model, Step, UnsupportedModelError, decode_floor
from roofline.forward import forward
from roofline.model import Attention, CrossAttention, DenseFeedForward

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.24")

STACKS = {"d_model": 48, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 6}
STACKS |= {"encoder_ffn_dim": 80, "decoder_ffn_dim": 112, "vocab_size": 90, "max_position_embeddings": 40, "pad_token_id": 1}
T5 = {"d_model": 48, "d_kv": 16, "d_ff": 80, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4, "vocab_size": 90, "pad_token_id": 1}
CONFIGS = {
    "bart": STACKS,
    "m2m_100": STACKS,
    "mbart": STACKS,
    "t5": T5 | {"feed_forward_proj": "gated-gelu"},
    "umt5": T5,
    "whisper": {k: v for k, v in STACKS.items() if k != "max_position_embeddings"}
    | {"max_source_positions": 26, "max_target_positions": 40, "num_mel_bins": 20, "pad_token_id": 1, "decoder_start_token_id": 2},
}
KINDS = [pytest.param(kind, marks=() if kind in ("t5", "whisper") else pytest.mark.slow) for kind in CONFIGS]
SOURCE, TARGET = 26, 9


def config(kind, **changes):
    """The configuration of a small model, as a config.json has it."""
    written = transformers.CONFIG_MAPPING[kind](**CONFIGS[kind] | changes, dtype="bfloat16").to_dict()
    return written | {"model_type": kind, "architectures": [type(build(kind, **changes)).__name__]}


def build(kind, device="meta", **changes):
    """The module of transformers itself."""
    auto = transformers.AutoModelForSpeechSeq2Seq if kind == "whisper" else transformers.AutoModelForSeq2SeqLM
    with torch.device(device):
        module = auto.from_config(transformers.CONFIG_MAPPING[kind](**CONFIGS[kind] | changes), dtype=torch.bfloat16)
    return module.eval()


def arguments(kind, source, target):
    ids = torch.ones((1, target), dtype=torch.int64)
    if kind == "whisper":
        return {"input_features": torch.zeros((1, 20, 2 * source), dtype=torch.bfloat16), "decoder_input_ids": ids}
    return {"input_ids": torch.ones((1, source), dtype=torch.int64), "decoder_input_ids": ids}


@functools.cache
def read(kind):
    """A model by both routes, each read once."""
    return Model.load(config(kind), read="code"), Model.load(config(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_those_of_the_module_and_both_stacks_are_there(kind):
    code, reader = read(kind)
    module = build(kind)
    assert code.parameters == sum(p.numel() for p in module.parameters())
    assert code.source == f"read from code: {type(module).__name__}"
    assert (code.encoder.num_layers, code.num_layers) == (3, 2)
    for what in ("parameters", "source_positions", "hidden_size", "state_bytes_per_sequence", "tower_parameters"):
        assert getattr(code, what) == getattr(reader, what), what
    assert code.kv_bytes_per_token() == reader.kv_bytes_per_token()
    assert code.source_bytes_per_sequence() == reader.source_bytes_per_sequence()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [Step.prefill(prompt=7), Step.decode(batch=3, context=17)], ids=["prefill", "decode"])
def test_a_step_costs_what_that_of_the_reader_costs(kind, step):
    code, reader = (forward(model.with_source(19), step) for model in read(kind))
    for amount in ("flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes"):
        mine, theirs = code.total(amount), reader.total(amount)
        if amount == "flops":  # of products; norms have no place of their own among what a module does
            mine, theirs = (sum(op.flops for op in work.ops if op.kind == "contraction") for work in (code, reader))
        assert mine == theirs, amount


@pytest.mark.parametrize("kind", KINDS)
def test_linear_maps_of_source_and_target_are_those_that_torch_counts(kind):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(kind, "cpu")(**arguments(kind, SOURCE, TARGET))
    counts = {str(op).removeprefix("aten."): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    work = forward(read(kind)[0].with_source(SOURCE), Step.prefill(TARGET, logits="all"))
    linear = sum(op.flops for op in work.ops if op.kind == "contraction" and ".attention" not in op.name)
    assert linear == counts["mm"] + counts.get("addmm", 0) + counts.get("convolution", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_keeps_what_the_caches_of_both_lengths_hold(kind):
    with torch.no_grad():
        outputs = build(kind, "cpu")(**arguments(kind, SOURCE, TARGET), use_cache=True)
    cache = outputs.get("past_key_values", outputs.get("cache"))
    own, crossing = (
        sum(layer.keys.nbytes + layer.values.nbytes for layer in part.layers)
        for part in (cache.self_attention_cache, cache.cross_attention_cache)
    )
    model = read(kind)[0].with_source(SOURCE)
    assert (model.kv_bytes_per_token() * TARGET, model.source_bytes_per_sequence()) == (own, crossing)


def test_what_is_read_are_the_parts_of_an_encoder_decoder():
    t5, whisper = read("t5")[0], read("whisper")[0]
    first = t5.layers[0]
    assert isinstance(first.mixer, CrossAttention)
    assert isinstance(first.mixer.own, Attention)
    assert (first.mixer.own.visible, first.mixer.own.bias_table, t5.layers[1].mixer.own.bias_table) == ("causal", 32 * 4, 0)
    assert first.feed_forward == DenseFeedForward(intermediate=80, gated=True)
    assert (t5.encoder.layers[0].mixer.visible, t5.encoder.tokens, whisper.encoder.tokens) == ("bidirectional", True, False)
    assert [note for note in t5.not_modelled if "length of the source" in note]
    assert not whisper.not_modelled  # of one length alone
    assert decode_floor(whisper, "h100-sxm", batch=2, context=9, tensor_parallel=2).time_s > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bart", "m2m_100"])
def test_stacks_that_are_not_tied_have_tables_of_their_own(kind):
    module = build(kind, tie_word_embeddings=False)
    for how in ({"read": "code"}, {}):
        model = Model.load(config(kind, tie_word_embeddings=False), **how)
        assert model.parameters == sum(p.numel() for p in module.parameters()) == Model.load(config(kind)).parameters + 3 * 90 * 48
        assert (model.encoder.rows, model.head.tied) == (90, False)
        assert any(f"{90 * 48:,} parameters" in note for note in model.not_modelled)  # of the fourth table, which nothing looks up


@pytest.mark.slow
def test_a_module_is_read_as_its_configuration_is():
    code = Model.from_module(build("t5"), name="mine")
    assert code.but(name=read("t5")[0].name, max_positions=read("t5")[0].max_positions) == read("t5")[0]


@pytest.mark.slow
def test_a_decoder_alone_is_never_taken_for_the_whole():
    """Whisper's causal class is its decoder; a configuration that names no class is of both stacks."""
    plain = {key: value for key, value in config("whisper").items() if key != "architectures"}
    assert Model.load(plain, read="code").encoder.num_layers == 3


def test_stacks_that_do_not_fit_are_refused_by_name():
    small = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 80, "num_hidden_layers": 2, "vocab_size": 90}
    wide = transformers.BertConfig(**small | {"hidden_size": 64})
    both = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(wide, transformers.BertConfig(**small))
    with pytest.raises(UnsupportedModelError, match=r"encoder.* is 64 wide and the decoder 48"):
        Model.load(both.to_dict(), read="code")


@pytest.mark.slow
def test_windows_of_both_stacks_are_those_of_the_class():
    """The mask of T5Gemma's encoder is that of |query - key| <= window (transformers, sliding_window_bidirectional_overlay)."""
    stack = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    stack |= {"head_dim": 16, "sliding_window": 20, "vocab_size": 90}
    written = transformers.T5GemmaConfig(encoder=stack, decoder=stack, vocab_size=90).to_dict()
    for model in (Model.load(written, read="code"), Model.load(written)):
        assert [group.mixer.span for group in model.encoder.layers] == [20, 0]
        assert [(group.mixer.own.visible, group.mixer.own.span) for group in model.layers] == [("window", 20), ("causal", 0)]


def test_a_decoder_that_leaves_out_its_mask_beside_a_cache_keeps_its_keys():
    """FSMT makes no mask where a cache is asked for, since a step then has one token."""
    sizes = {key: value for key, value in STACKS.items() if key not in ("vocab_size", "max_position_embeddings")}
    written = transformers.FSMTConfig(langs=["en", "de"], src_vocab_size=90, tgt_vocab_size=70, **sizes).to_dict()
    model = Model.load(written, read="code")
    assert model.kv_bytes_per_token() == 2 * 2 * 48 * 2  # keys and values of two layers
    assert model.layers[0].mixer.own.visible == "causal"
    assert any(note.startswith("masks of model.decoder.layers.0.self_attn") for note in model.not_modelled)


def code_of(config, automatic="AutoModelForSpeechSeq2Seq"):
    """A model read from its code, beside the module of transformers."""
    with torch.device("meta"):
        module = getattr(transformers, automatic).from_config(config, dtype=torch.bfloat16).eval()
    return Model.load(config.to_dict() | {"architectures": [type(module).__name__]}, read="code"), module


STACK = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}


@pytest.mark.slow
def test_a_position_of_sound_has_the_rows_of_each_convolution_that_later_strides_leave_of_it():
    """Moonshine's three have strides of 64, 3 and 2 samples (transformers, modeling_moonshine)."""
    sizes = {"hidden_size": 48, "intermediate_size": 80, "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 2, "vocab_size": 90}
    heads = {f"{stack}_num_{kind}_heads": 4 for stack in ("encoder", "decoder") for kind in ("attention", "key_value")}
    model, module = code_of(transformers.MoonshineConfig(**sizes, **heads))
    assert model.parameters == sum(p.numel() for p in module.parameters())
    assert [(group.feed_forward.name, group.count) for group in model.encoder.layers[:3]] == [("conv1", 3 * 2), ("conv2", 2), ("conv3", 1)]


@pytest.mark.slow
def test_distances_between_positions_are_no_work_of_a_position():
    """Canary's encoder multiplies each of 2L - 1 distances of L positions with a matrix, the same for all sequences (arXiv 1901.02860, appendix B)."""
    encoder = STACK | {"model_type": "parakeet_encoder", "num_mel_bins": 16, "subsampling_conv_channels": 8}
    config = transformers.CanaryConfig(encoder_config=encoder, decoder_config=STACK | {"vocab_size": 90, "head_dim": 12}, vocab_size=90)
    model, module = code_of(config)
    assert model.parameters == sum(p.numel() for p in module.parameters())
    assert any("relative_k_proj" in note for note in model.not_modelled)
    mixer = next(
        group.mixer
        for group in model.encoder.layers
        if group.mixer is not None and group.mixer.kind == "counted" and group.mixer.projections
    )
    assert "self_attn.relative_k_proj" not in {matrix.name for matrix in mixer.matrices(48)}
    assert mixer.further >= 48 * 48  # read, though nothing passes it


def test_tokens_that_are_ids_in_several_codebooks_are_read():
    """Dia embeds nine ids for each position (transformers, DiaConfig)."""
    decoder = STACK | {
        "head_dim": 12,
        "cross_hidden_size": 48,
        "cross_num_attention_heads": 4,
        "cross_num_key_value_heads": 4,
        "cross_head_dim": 12,
    }
    config = transformers.DiaConfig(encoder_config=STACK | {"head_dim": 12, "vocab_size": 70}, decoder_config=decoder | {"vocab_size": 90})
    model, module = code_of(config)
    assert model.parameters == sum(p.numel() for p in module.parameters())
    assert model.kv_bytes_per_token() == 2 * 2 * 48 * 2


def test_voxtral_realtime_is_mistral_with_matrices_for_its_delay():
    """Beside the text model of transformers: its parameters, and the FLOP of products with them but for the delay's, which a run makes once."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers.models.voxtral_realtime.modeling_voxtral_realtime import VoxtralRealtimeTextModel

    text = {"vocab_size": 90, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.VoxtralRealtimeConfig(text_config=text | {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 20})
    with torch.device("meta"):
        module = VoxtralRealtimeTextModel(config.text_config)
        ids, delay = torch.ones((1, TARGET), dtype=torch.int64), torch.zeros((1, 1, 48))
        with FlopCounterMode(display=False) as counter:
            module(input_ids=ids, t_cond=delay)
    model = Model.load({**config.to_dict(), "model_type": "voxtral_realtime"})
    work = forward(model, Step.prefill(TARGET, logits="all"), weights="bf16")
    linear = sum(op.flops for op in work.ops if op.kind == "contraction" and ".attention" not in op.name)
    products = {str(op).removeprefix("aten."): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    assert model.parameters == sum(p.numel() for p in module.parameters())
    assert linear - 2 * 48 * 90 * TARGET == products["mm"] - 2 * (2 * 2 * 32 * 48)  # without the head, which the class leaves to another
    assert model.layers[0].mixer.span == 20
