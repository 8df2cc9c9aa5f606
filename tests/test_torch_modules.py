"""Models read from their code: parameters of the module, FLOP by torch's counter, caches by the tensors that a run leaves."""

import json

import pytest

from roofline import ConfigError, InvalidValueError, Model, Step, UnsupportedModelError, decode_floor
from roofline.forward import forward
from roofline.model import Attention, CountedMixer, DenseFeedForward, Experts, LatentAttention

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.24")

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 90,
}
LATENT = {"q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12, "num_key_value_heads": 4}
ROUTED = {"moe_intermediate_size": 40, "num_experts_per_tok": 2}
STATES = {"num_heads": 4, "head_dim": 32, "state_size": 16, "n_groups": 2, "expand": 2, "chunk_size": 8}
CONFIGS = {
    "llama": SIZES | {"head_dim": 24, "attention_bias": True},
    "qwen3_moe": SIZES | ROUTED | {"num_experts": 6, "head_dim": 24},
    "gemma3_text": SIZES | {"head_dim": 24, "sliding_window": 16, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    "gpt_oss": SIZES | {"head_dim": 24, "num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": 16},
    "deepseek_v3": SIZES
    | LATENT
    | ROUTED
    | {"n_routed_experts": 8, "n_shared_experts": 1, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1},
    "bloom": {"hidden_size": 64, "n_layer": 3, "n_head": 4, "vocab_size": 90},
    "mamba2": {"hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 90} | STATES,
    "jamba": SIZES | {"mamba_dt_rank": 8, "num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 4, "attn_layer_offset": 2},
}
WHOLE = ("llama", "qwen3_moe", "gemma3_text", "gpt_oss", "deepseek_v3", "bloom")
"""Families of which every part is recognized as what a reader makes of it."""


def config(kind):
    """The configuration of a small model, as a config.json has it."""
    return transformers.CONFIG_MAPPING[kind](**CONFIGS[kind], dtype="bfloat16").to_dict() | {"model_type": kind}


def build(kind, device="meta"):
    """The module of transformers itself."""
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(transformers.CONFIG_MAPPING[kind](**CONFIGS[kind]), dtype=torch.bfloat16)
    return model.eval()


@pytest.mark.parametrize("kind", CONFIGS)
def test_parameters_are_those_of_the_module_and_reader_and_code_agree(kind):
    code, reader = Model.load(config(kind), read="code"), Model.load(config(kind))
    assert code.parameters == sum(p.numel() for p in build(kind).parameters())
    assert code.source.startswith("read from code: ")
    for what in ("parameters", "active_parameters", "state_bytes_per_sequence", "num_layers"):
        assert getattr(code, what) == getattr(reader, what), what
    assert code.kv_bytes_per_token() == reader.kv_bytes_per_token()


@pytest.mark.parametrize("kind", WHOLE)
def test_recognized_parts_cost_what_those_of_the_reader_cost(kind):
    step = Step.decode(batch=3, context=40)
    code, reader = (forward(Model.load(config(kind), **how), step) for how in ({"read": "code"}, {}))
    for amount in ("flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes"):
        assert code.total(amount) == reader.total(amount), amount


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "bloom", "mamba2"])
def test_flop_of_linear_maps_are_those_that_torch_counts(kind):
    from torch.utils.flop_counter import FlopCounterMode

    module, tokens = build(kind, "cpu"), 10
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros((1, tokens), dtype=torch.int64))
    counts = {str(op).removeprefix("aten."): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    work = forward(Model.load(config(kind), read="code"), Step.prefill(batch=1, prompt=tokens))
    linear = sum(op.flops for op in work.ops if op.family == "matmul")
    head = 2 * 64 * 90 * (tokens - 1)  # of every row, where a step samples one
    assert linear + head == counts["mm"] + counts.get("addmm", 0)


@pytest.mark.parametrize("kind", ["llama", "deepseek_v3", "jamba"])
def test_a_sequence_keeps_what_the_cache_object_holds(kind):
    module, tokens = build(kind, "cpu"), 9
    with torch.no_grad():
        cache = module(torch.zeros((1, tokens), dtype=torch.int64), use_cache=True).past_key_values
    rows = [
        tensor for layer in cache.layers for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)) if tensor is not None
    ]
    states = [
        tensor
        for layer in cache.layers
        for held in (getattr(layer, "conv_states", {}), getattr(layer, "recurrent_states", {}))
        for tensor in held.values()
    ]
    model = Model.load(config(kind), read="code")
    assert model.kv_bytes_per_token() * tokens == sum(tensor.nbytes for tensor in rows)
    assert model.state_bytes_per_sequence == sum(tensor.nbytes for tensor in states)


def test_what_is_read_are_the_parts_of_a_model():
    latent = Model.load(config("deepseek_v3"), read="code")
    assert isinstance(latent.layers[0].mixer, LatentAttention)
    assert isinstance(latent.layers[0].feed_forward, DenseFeedForward)
    assert latent.layers[1].feed_forward == Experts(count=8, top_k=2, intermediate=40, shared=DenseFeedForward(intermediate=40))
    windows = Model.load(config("gpt_oss"), read="code").layers[0].mixer
    assert isinstance(windows, Attention)
    assert (windows.visible, windows.span, windows.sinks) == ("window", 16, True)
    assert isinstance(Model.load(config("mamba2"), read="code").layers[0].mixer, CountedMixer)


def test_layers_that_share_weights_are_stored_once():
    small = {
        "embedding_size": 16,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "vocab_size": 90,
        "num_hidden_layers": 5,
    }
    albert = Model.load({"model_type": "albert", **small}, read="code")
    with torch.device("meta"):
        module = transformers.AutoModelForMaskedLM.from_config(transformers.AlbertConfig(**small))
    assert albert.parameters == sum(p.numel() for p in module.parameters())
    (layers, *_) = albert.layers
    assert (layers.count, layers.distinct, layers.mixer.visible) == (5, 1, "bidirectional")


VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


def test_a_tower_that_text_never_runs_is_named():
    text = SIZES | {"head_dim": 24, "model_type": "gemma3_text"}
    both = transformers.Gemma3Config(text_config=text, vision_config=VISION, mm_tokens_per_image=4)
    with torch.device("meta"):
        module = transformers.Gemma3ForConditionalGeneration(both)
    model = Model.load(both.to_dict(), read="code")
    assert model.parameters == sum(p.numel() for name, p in module.named_parameters() if "language_model" in name)
    tower = sum(p.numel() for p in module.model.vision_tower.parameters())
    assert any(note.startswith(f"model.vision_tower, {tower:,} parameters") for note in model.not_modelled)
    assert model.tower_parameters is None


# -------------------------------------------------------------------------------------------------------- a module of one's own


class Block(torch.nn.Module):
    """A layer whose attention is the layer's own business."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before, self.between = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv, self.joined = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = (t.view(batch, tokens, self.heads, -1).transpose(1, 2) for t in self.qkv(self.before(x)).chunk(3, -1))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.joined(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(torch.nn.functional.gelu(self.up(self.between(x))))


class Own(torch.nn.Module):
    """A GPT as one writes it, without a cache, its head tied to its table."""

    def __init__(self, width=48, heads=4, layers=3, vocabulary=90):
        super().__init__()
        self.tokens, self.places = torch.nn.Embedding(vocabulary, width), torch.nn.Embedding(32, width)
        self.blocks = torch.nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.last, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids):
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.last(x))


def test_a_module_of_ones_own_is_read():
    module = Own()
    model = Model.from_module(module)
    assert model.parameters == sum(p.numel() for p in module.parameters())
    (layers,) = model.layers
    assert layers.count == 3
    assert (layers.mixer.heads, layers.mixer.kv_heads, layers.mixer.head_dim, layers.mixer.visible) == (4, 4, 12, "causal")
    assert layers.feed_forward == DenseFeedForward(intermediate=192, gated=False, bias=True)
    assert model.kv_bytes_per_token("fp32") == 3 * 2 * 48 * 4  # keys and values of every layer
    assert (model.head.tied, model.embedding.positions, model.dtype) == (True, 32, "fp32")
    assert decode_floor(model, "h100-sxm", batch=2, context=16, tensor_parallel=2).time_s > 0
    assert next(module.parameters()).device.type == "cpu"


def test_inputs_make_the_arguments_of_a_module_that_takes_others():
    class Rows(torch.nn.Module):
        """Layers that take rows, not ids."""

        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.Sequential(Block(32, 4), Block(32, 4))

        def forward(self, rows):
            return self.blocks(rows)

    module = Rows()
    with pytest.raises(UnsupportedModelError, match="inputs= gives a function of the number of tokens"):
        Model.from_module(module)
    model = Model.from_module(module, inputs=lambda tokens: {"rows": torch.zeros((1, tokens, 32))}, name="rows")
    assert (model.name, model.parameters, model.num_layers) == ("rows", sum(p.numel() for p in module.parameters()), 2)
    with pytest.raises(InvalidValueError, match="inputs is 7"):
        Model.from_module(module, inputs=7)


def test_what_is_no_model_of_sequences_is_refused():
    images = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    with pytest.raises(UnsupportedModelError, match="no attention was called and no state was kept"):
        Model.from_module(images, inputs=lambda tokens: torch.zeros((1, 3, 8, 8 * tokens)))
    with pytest.raises(InvalidValueError, match="module is 3; it must be a"):
        Model.from_module(3)


def test_a_parameter_of_towers_that_text_never_reads_is_no_part_of_the_text_model():
    text = SIZES | {"head_dim": 16, "model_type": "llama"}
    both = transformers.LlavaNextConfig(
        text_config=text, vision_config=VISION | {"model_type": "clip_vision_model"}, image_grid_pinpoints=[[28, 28]]
    )
    with torch.device("meta"):
        module = transformers.LlavaNextForConditionalGeneration(both)
    model = Model.load(both.to_dict(), read="code")
    assert model.parameters == sum(p.numel() for name, p in module.named_parameters() if "language_model" in name or "lm_head" in name)
    assert any(note.startswith("model.image_newline, 64 parameters") for note in model.not_modelled)


BERT = SIZES | {"max_position_embeddings": 64}
ENCODERS = {
    "layoutlm": BERT | {"max_2d_position_embeddings": 120},  # larger tables than that of tokens, and a mask of its own
    "roc_bert": BERT | {"pronunciation_vocab_size": 120, "shape_vocab_size": 130, "pronunciation_embed_dim": 72, "shape_embed_dim": 80},
    "deberta": BERT | {"relative_attention": False},  # adds 32 bits to 16
    "squeezebert": BERT | {"embedding_size": 64},  # scores and values in a module each, maps that are convolutions
    "mobilebert": BERT | {"embedding_size": 16, "intra_bottleneck_size": 32, "true_hidden_size": 32},  # a head of two tables
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_sees_both_ways_and_costs_what_its_class_counts(kind, import_benchmark):
    configuration = transformers.CONFIG_MAPPING[kind](**ENCODERS[kind])
    model = Model.load(configuration.to_dict(), read="code")
    module = transformers.AutoModelForMaskedLM.from_config(configuration, attn_implementation="eager").eval()  # may look at values
    assert model.parameters == sum(p.numel() for p in module.parameters())
    assert (model.embedding.vocabulary, model.kv_bytes_per_token()) == (90, 0)
    assert {part.mixer.visible for part in model.layers if getattr(part.mixer, "heads", 0)} == {"bidirectional"}
    run = import_benchmark("families_counted").run
    (short, _), (long, _) = run(module, 16), run(module, 48)  # what a sequence needs once is in both
    assert import_benchmark("families_described").of_model(model).linear_flops == (long - short) / 32


def test_an_encoder_that_shortens_its_sequence_is_refused():
    small = {"d_model": 64, "n_head": 4, "d_head": 16, "d_inner": 96, "vocab_size": 90, "block_sizes": [2, 2], "num_decoder_layers": 1}
    with pytest.raises(UnsupportedModelError, match="does not work on so many positions for each token"):
        Model.load({"model_type": "funnel", **small}, read="code")


def test_activations_that_are_multiplied_otherwise_are_no_attention():
    class Gram(torch.nn.Module):
        """Mixes by a matrix of the width's correlations, without scores."""

        def __init__(self):
            super().__init__()
            self.table, self.out = torch.nn.Embedding(90, 32), torch.nn.Linear(32, 90)

        def forward(self, input_ids):
            rows = self.table(input_ids)
            return self.out(rows @ (rows.transpose(1, 2) @ rows))

    with pytest.raises(UnsupportedModelError, match="multiplies activations in a way that is no attention known here"):
        Model.from_module(Gram())


def test_what_has_no_code_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"has no code for model_type 'mine'; .* Model.from_module\(module\)"):
        Model.load({"model_type": "mine", "auto_map": {"AutoModel": "mine.Model"}}, read="code")
    with pytest.raises(InvalidValueError, match="read is 'torch'; it is 'auto' or 'code'"):
        Model.load("llama-3-8b", read="torch")
    with pytest.raises(UnsupportedModelError, match=r"Model\.load\(…, read=\"code\"\)"):
        Model.load({"model_type": "mine"})


def test_a_mixer_that_was_only_counted_is_not_split_over_devices():
    model = Model.load(config("mamba2"), read="code")
    assert decode_floor(model, "h100-sxm", batch=1, context=16).time_s > 0
    with pytest.raises(InvalidValueError, match="read from code as a whole cannot be split over 2 devices"):
        decode_floor(model, "h100-sxm", batch=1, context=16, tensor_parallel=2)


def test_a_quantized_configuration_says_no_format():
    model = Model.load(config("llama") | {"quantization_config": {"quant_method": "gptq", "bits": 4}}, read="code")
    assert model.dtype is None
    assert any("quantized" in note for note in model.not_modelled)


def test_products_that_no_part_counts_are_named_with_their_flop():
    class Mixing(torch.nn.Module):
        """Attention of torch's own, and beside it a product of activations that is none."""

        def __init__(self):
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(16, 48), torch.nn.Linear(16, 16)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            return x + self.out(mixed) + x @ (x.transpose(1, 2) @ x)

    def stack(*layers):
        return torch.nn.Sequential(torch.nn.Embedding(50, 16), torch.nn.Sequential(*layers), torch.nn.Linear(16, 50))

    model = Model.from_module(stack(Mixing(), Mixing()))
    flops = 2 * 2 * (16 * 11 * 16 + 11 * 16 * 16)  # two layers, two products of 11 tokens: by hand
    what = "products of activations in 1.0, 1.1, and whatever a sequence keeps for them"
    assert model.not_modelled == (f"{flops:,} FLOP, in a prefill of 11 tokens, of {what}",)


@pytest.mark.parametrize("kind", CONFIGS)
def test_nothing_that_the_code_multiplies_is_left_out_in_silence(kind):
    notes = Model.load(config(kind), read="code").not_modelled
    assert all("around the states" in note for note in notes)  # which a chunked scan multiplies more often than a state needs


def test_a_model_that_counts_less_or_more_than_its_code_says_so(monkeypatch):
    from roofline.torch_modules import complete

    true = complete._prefill
    for less in (1000, -1000):
        monkeypatch.setattr(
            complete, "_prefill", lambda *given, less=less: {k: v - less * (k == "parameters") for k, v in true(*given).items()}
        )
        (note,) = Model.load(config("llama"), read="code").not_modelled
        beyond = "" if less > 0 else "counted beyond those "
        assert note == f"1,000 FLOP, in a prefill of 11 tokens, {beyond}of products with parameters"


def test_sizes_that_are_the_defaults_of_a_class_and_keys_that_it_ignores_are_named():
    told = SIZES | {"model_type": "diffllama", "num_local_experts": 8, "max_position_embeddings": 512}
    assert Model.load(told, read="code").not_modelled == ("what keys mean that DiffLlamaConfig does not know: num_local_experts",)
    del told["num_hidden_layers"], told["num_local_experts"]
    assert Model.load(told, read="code").not_modelled == (
        f"sizes that the configuration does not say, taken from its class: num_hidden_layers {transformers.DiffLlamaConfig().num_hidden_layers}",
    )
    with pytest.raises(ConfigError, match="says no size of its model"):
        Model.load({"model_type": "persimmon"}, read="code")


@pytest.mark.parametrize("beside", ["num_key_value_head", "num_kv_heads"])
def test_a_key_that_is_a_part_of_a_known_one_is_named(beside):
    (note,) = Model.load(config("llama") | {"max_position_embeddings": 512, beside: 4}, read="code").not_modelled
    assert note == f"what keys mean that LlamaConfig does not know: {beside}"


def test_what_no_code_runs_is_refused_before_or_as_it_runs():
    with pytest.raises(ConfigError, match=r"'num_hidden_layers' is 1000000000; it must be a whole number of 1 … 4000"):
        Model.load(config("llama") | {"num_hidden_layers": 10**9}, read="code")
    with pytest.raises(
        UnsupportedModelError, match=r"4 attention heads of model\.layers\.0\.self_attn are not a multiple of 3 key-value heads"
    ):
        Model.load(config("llama") | {"num_key_value_heads": 3}, read="code")


def test_the_command_line_reads_a_path_from_code(tmp_path, capsys):
    from roofline.cli.app import run

    (tmp_path / "config.json").write_text(json.dumps(config("llama")))
    assert run(["models", str(tmp_path), "--read", "code"]) == 0
    assert "read from code: LlamaForCausalLM" in capsys.readouterr().out
    assert run(["floor", str(tmp_path), "h100-sxm", "--read", "code", "--json"]) == 0
    floor = decode_floor(Model.load(config("llama"), read="code"), "h100-sxm")
    assert json.loads(capsys.readouterr().out)["weight_bytes"] == floor.weight_bytes
    assert run(["floor", "70B", "h100-sxm", "--read", "cod"]) == 2
    assert capsys.readouterr().err == "roofline: --read is 'cod'; it is 'auto' or 'code'.\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-3.1-70b", "deepseek-v3", "qwen3-235b-a22b"])
def test_large_models_are_read_from_their_code(name):
    assert Model.load(name, read="code").parameters == Model.load(name).parameters
