"""Modules of one's own that are read or refused: masks made of values, experts that data gathers, heads on the last token, inputs."""

import pytest

from roofline import InvalidValueError, Model, UnsupportedModelError, decode_floor, prefill_floor
from roofline.model import Experts

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

WIDTH, HEADS, VOCABULARY = 64, 4, 100


def compared(tokens, device=None):
    at = torch.arange(tokens, device=device)
    return at[None, :] <= at[:, None]


MASKS = {
    "tril of ones": (lambda t: torch.tril(torch.ones(t, t)) == 1, ("causal", 0)),
    "comparison of ranges": (compared, ("causal", 0)),
    "window": (lambda t: compared(t) & ~torch.ones(t, t, dtype=torch.bool).tril(-16), ("window", 16)),
    "long window": (lambda t: compared(t) & ~torch.ones(t, t, dtype=torch.bool).tril(-300), ("window", 300)),
    "chunk": (lambda t: compared(t) & (torch.arange(t)[:, None] // 32 == torch.arange(t)[None, :] // 32), ("chunk", 32)),
    "both sides of 20": (lambda t: (torch.arange(t)[:, None] - torch.arange(t)[None, :]).abs() <= 20, ("bidirectional", 20)),
    "everything": (lambda t: torch.ones(t, t, dtype=torch.bool), ("bidirectional", 0)),
}
USES = {
    "masked_fill": lambda q, k, v, seen: (q @ k.mT).masked_fill(~seen, -torch.inf).softmax(-1) @ v,
    "where": lambda q, k, v, seen: torch.where(seen, q @ k.mT, -1e9).softmax(-1) @ v,
    "added": lambda q, k, v, seen: (q @ k.mT / 4 + torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)).softmax(-1) @ v,
    "GPT-2": lambda q, k, v, seen: (q @ k.mT * seen.float() - 1e10 * (1 - seen.float())).softmax(-1) @ v,
    "einsum": lambda q, k, v, seen: torch.einsum(
        "bhqk,bhkd->bhqd", torch.einsum("bhqd,bhkd->bhqk", q, k).masked_fill(~seen, -1e9).softmax(-1), v
    ),
    "fused": lambda q, k, v, seen: functional.scaled_dot_product_attention(q, k, v, attn_mask=seen),
}


class Layer(nn.Module):
    """Attention of one's own, with as many key-value heads as asked for, and a block."""

    def __init__(self, attend, kv=HEADS, block=None):
        super().__init__()
        self.attend, self.head = attend, WIDTH // HEADS
        self.q, self.o = nn.Linear(WIDTH, WIDTH, False), nn.Linear(WIDTH, WIDTH, False)
        self.k, self.v = nn.Linear(WIDTH, kv * self.head, False), nn.Linear(WIDTH, kv * self.head, False)
        self.block = block or nn.Sequential(nn.Linear(WIDTH, 128), nn.GELU(), nn.Linear(128, WIDTH))

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (-1, self.head)).transpose(1, 2) for p in (self.q, self.k, self.v))
        x = x + self.o(self.attend(q, k, v).transpose(1, 2).flatten(2))
        return x + self.block(x)


class Language(nn.Module):
    """Two layers between a table and a head."""

    def __init__(self, *layers, last_only=False):
        super().__init__()
        self.table, self.layers, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.ModuleList(layers), nn.Linear(WIDTH, VOCABULARY, False)
        self.last_only = last_only

    def forward(self, ids):
        x = self.table(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, -1:] if self.last_only else x)


def causal(q, k, v):
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def flops(model, **weights):
    return decode_floor(model, "h100-sxm", context=1024, weights="bf16", **weights).flops


PLAIN = 2 * (2 * (4 * WIDTH**2 + 2 * WIDTH * 128) + WIDTH * VOCABULARY) + 2 * 4 * WIDTH * 1025
"""Of a token after 1,024: two layers' and the head's matrices, and both products of attention over 1,025 positions, by hand [FLOP]."""


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("mask", ["tril of ones", "window"])
def test_masks_of_values_are_read_however_they_are_used(use, mask):
    make, (kind, span) = MASKS[mask]

    def attend(q, k, v):
        return USES[use](q, k, v, make(q.shape[2]))

    model = Model.from_module(Language(Layer(attend), Layer(attend)))
    (layers,) = model.layers
    assert (layers.mixer.visible, layers.mixer.span) == (kind, span)
    assert model.kv_bytes_per_token("fp32") == 2 * 2 * WIDTH * 4
    assert model.not_modelled == ()
    if kind == "causal":
        assert flops(model) == PLAIN


@pytest.mark.parametrize("mask", MASKS)
def test_what_a_mask_lets_a_token_see_is_read_from_its_values(mask):
    make, seen = MASKS[mask]
    model = Model.from_module(Language(Layer(lambda q, k, v: USES["masked_fill"](q, k, v, make(q.shape[2])))))
    assert (model.layers[0].mixer.visible, model.layers[0].mixer.span) == seen


def test_a_mask_in_a_buffer_is_read_as_far_as_it_goes():
    class Buffered(Layer):
        """As nanoGPT has it: a buffer of so many positions, cut to the tokens."""

        def __init__(self):
            super().__init__(self.masked)
            self.register_buffer("bias", torch.tril(torch.ones(256, 256)).view(1, 1, 256, 256))

        def masked(self, q, k, v):
            tokens = q.shape[2]
            return (q @ k.mT).masked_fill(self.bias[:, :, :tokens, :tokens] == 0, -torch.inf).softmax(-1) @ v

    module = Language(Buffered(), Buffered())
    assert flops(Model.from_module(module)) == PLAIN
    assert bool((module.layers[0].bias[0, 0] == torch.ones(256, 256).tril()).all())
    with torch.device("meta"):
        unknown = Language(Buffered(), Buffered())
    with pytest.raises(
        UnsupportedModelError,
        match=r'the mask of layers.0 depends on data, on a parameter, or on a buffer of the meta device; visible= says .*: "causal" or "bidirectional"',
    ):
        Model.from_module(unknown)
    assert flops(Model.from_module(unknown, visible="causal")) == PLAIN
    assert Model.from_module(unknown, visible="bidirectional").kv_bytes_per_token() == 0
    with pytest.raises(InvalidValueError, match="visible is 'both'"):
        Model.from_module(unknown, visible="both")


def test_attention_of_torch_with_a_mask_is_causal():
    class Encoder(nn.Module):
        """torch's own layers, used as a decoder."""

        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY, False)
            self.layers = nn.TransformerEncoder(
                nn.TransformerEncoderLayer(WIDTH, HEADS, 128, batch_first=True), 2, enable_nested_tensor=False
            )

        def forward(self, ids):
            mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], device=ids.device)
            return self.head(self.layers(self.table(ids), mask=mask, is_causal=True))

    assert flops(Model.from_module(Encoder())) == PLAIN


REPEATS = {
    "repeated": lambda z: z.repeat_interleave(2, 1),
    "expanded": lambda z: z[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2),
    "tiled": lambda z: z.repeat(1, 2, 1, 1),
    "joined": lambda z: torch.cat([z] * 2, 1),
    "stacked": lambda z: torch.stack([z] * 2, 2).flatten(1, 2),
    "gathered": lambda z: z[:, torch.arange(HEADS) // 2],
    "selected": lambda z: z.index_select(1, torch.arange(HEADS) // 2),
}


@pytest.mark.parametrize("repeat", REPEATS.values(), ids=REPEATS)
@pytest.mark.parametrize("attend", [causal, lambda q, k, v: (q @ k.mT).tril().softmax(-1) @ v], ids=["fused", "own"])
def test_keys_are_kept_before_they_are_repeated(repeat, attend):
    grouped = Layer(lambda q, k, v: attend(q, repeat(k), repeat(v)), kv=2)
    model = Model.from_module(Language(grouped))
    assert model.layers[0].mixer.kv_heads == 2
    assert model.kv_bytes_per_token("bf16") == 2 * (2 * 16) * 2


@pytest.mark.parametrize("attend", [causal, lambda q, k, v: (q @ k.mT).tril().softmax(-1) @ v], ids=["fused", "own"])
def test_keys_that_are_rotated_after_they_are_repeated_are_kept_before(attend):
    def rotated(x):
        angle = torch.arange(x.shape[2])[:, None] * 0.1 ** torch.arange(x.shape[3])
        return x * angle.cos() + torch.cat([-x[..., x.shape[3] // 2 :], x[..., : x.shape[3] // 2]], -1) * angle.sin()

    grouped = Layer(lambda q, k, v: attend(rotated(q), rotated(k.repeat_interleave(2, 1)), v.repeat_interleave(2, 1)), kv=2)
    model = Model.from_module(Language(grouped))
    assert model.layers[0].mixer.kv_heads == 2
    assert model.kv_bytes_per_token("bf16") == 2 * (2 * 16) * 2


@pytest.mark.parametrize("attend", [causal, lambda q, k, v: (q @ k.mT).tril().softmax(-1) @ v], ids=["fused", "own"])
@pytest.mark.parametrize("kv", [1, 2, HEADS])
def test_heads_one_by_one_are_one_attention(attend, kv):
    def each(q, k, v):
        return torch.stack([attend(q[:, head], k[:, head * kv // HEADS], v[:, head * kv // HEADS]) for head in range(HEADS)], 1)

    model = Model.from_module(Language(Layer(each, kv), Layer(each, kv)))
    assert model.kv_bytes_per_token("bf16") == 2 * 2 * (kv * 16) * 2  # of two layers, keys and values
    assert model.not_modelled == ()
    assert flops(model) == PLAIN - 2 * 2 * 2 * WIDTH * (HEADS - kv) * 16  # of two matrices in two layers, that have fewer heads


class Gathered(nn.Module):
    """Experts whose matrices are gathered for every token."""

    def __init__(self, count=8, chosen=2, inner=32):
        super().__init__()
        self.gate, self.chosen = nn.Linear(WIDTH, count, False), chosen
        self.up, self.down = nn.Parameter(torch.zeros(count, WIDTH, inner)), nn.Parameter(torch.zeros(count, inner, WIDTH))

    def forward(self, x):
        rows = x.flatten(0, 1)
        weights, which = self.gate(rows).softmax(-1).topk(self.chosen, -1)
        inner = torch.einsum("td,tkdf->tkf", rows, self.up[which]).relu()
        return (torch.einsum("tkf,tkfd->tkd", inner, self.down[which]) * weights[..., None]).sum(1).view(x.shape)


def test_experts_that_data_gathers_are_counted():
    model = Model.from_module(Language(Layer(causal, block=Gathered()), Layer(causal, block=Gathered())))
    assert model.layers[0].feed_forward == Experts(count=8, top_k=2, intermediate=32, gated=False)
    experts = 2 * 2 * WIDTH * 8 + 2 * 2 * (2 * 2 * WIDTH * 32)  # routers of two layers; two experts of two matrices in each
    assert flops(model) == PLAIN - 2 * 2 * 2 * WIDTH * 128 + experts


class Heads(Language):
    """A second head beside the first."""

    def __init__(self, *layers):
        super().__init__(*layers)
        self.second = nn.Linear(WIDTH, VOCABULARY, False)

    def forward(self, ids):
        x = self.table(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x), self.second(x)


def test_heads_on_the_same_rows_are_counted_for_the_rows_that_logits_are_asked_of():
    module = Heads(Layer(causal), Layer(causal))
    model = Model.from_module(module)
    assert model.parameters == sum(p.numel() for p in module.parameters())
    assert model.not_modelled == ()
    assert flops(model) == PLAIN + 2 * WIDTH * VOCABULARY
    pairs = 100 * 101 // 2
    by_hand = 100 * 2 * 2 * (4 * WIDTH**2 + 2 * WIDTH * 128) + 2 * 4 * WIDTH * pairs + 2 * 2 * WIDTH * VOCABULARY
    assert prefill_floor(model, "h100-sxm", prompt=100, weights="bf16").flops == by_hand


def test_keys_that_are_fewer_than_tokens_are_refused():
    def averaged(q, k, v):
        k, v = (functional.pad(t, (0, 0, 0, -t.shape[2] % 4)).unflatten(2, (-1, 4)).mean(3) for t in (k, v))
        return functional.scaled_dot_product_attention(q, k, v)

    with pytest.raises(UnsupportedModelError, match="5 and 11 tokens reads 2 and 3 rows, not one for each token"):
        Model.from_module(Language(Layer(averaged)))


def test_values_that_two_calls_read_are_kept_once():
    def differential(q, k, v):
        first, second = (causal(a, b, v) for a, b in zip(q.chunk(2, -1), k.chunk(2, -1), strict=True))
        return first - second / 2

    model = Model.from_module(Language(Layer(differential)))
    assert model.kv_bytes_per_token("fp32") == 2 * WIDTH * 4
    same = Model.from_module(Language(Layer(lambda q, k, v: causal(q, k, k))))
    assert same.kv_bytes_per_token("fp32") == WIDTH * 4


def test_keys_and_values_that_a_latent_row_makes_are_kept_as_that_row():
    class Latent(nn.Module):
        """Four heads of 16 and 8 from a row of 32 and 8."""

        def __init__(self):
            super().__init__()
            self.q, self.down, self.norm = nn.Linear(WIDTH, 4 * 24, False), nn.Linear(WIDTH, 40, False), nn.LayerNorm(32, bias=False)
            self.up, self.o = nn.Linear(32, 4 * 32, False), nn.Linear(4 * 16, WIDTH, False)

        def forward(self, x):
            row, rotated = self.down(x).split([32, 8], -1)
            k, v = self.up(self.norm(row)).unflatten(-1, (4, 32)).transpose(1, 2).chunk(2, -1)
            k = torch.cat([k, rotated[:, None].expand(-1, 4, -1, -1)], -1)
            return self.o(causal(self.q(x).unflatten(-1, (4, 24)).transpose(1, 2), k, v).transpose(1, 2).flatten(2))

    class Holds(nn.Module):
        """A layer of it and a block."""

        def __init__(self):
            super().__init__()
            self.attends, self.block = Latent(), nn.Sequential(nn.Linear(WIDTH, 128), nn.GELU(), nn.Linear(128, WIDTH))

        def forward(self, x):
            return x + self.block(x + self.attends(x))

    assert Model.from_module(Language(Holds())).kv_bytes_per_token("fp32") == 40 * 4


def test_a_product_that_is_not_known_is_refused():
    class Integers(nn.Module):
        """A matrix of 8 bits, by torch's product of integers."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(WIDTH, WIDTH, dtype=torch.int8), requires_grad=False)

        def forward(self, x):
            return torch._int_mm(x.flatten(0, 1).to(torch.int8), self.weight).to(x.dtype).view(x.shape)

    with pytest.raises(UnsupportedModelError, match=r"layers\.0\.block calls aten::_int_mm"):
        Model.from_module(Language(Layer(causal, block=Integers())))


class Grouped(Gathered):
    """Experts that sorted rows are multiplied with by torch's grouped product, perhaps in rows that are padded to an even share of each."""

    def __init__(self, padded=0):
        super().__init__()
        self.padded = padded

    def forward(self, x):
        rows = x.flatten(0, 1)
        weights, which = self.gate(rows).softmax(-1).topk(self.chosen, -1)
        order = which.flatten().argsort()
        ends = (which.flatten()[:, None] == torch.arange(8)).sum(0).cumsum(0).to(torch.int32)
        sorted_rows = functional.pad(rows[order // self.chosen].bfloat16(), (0, 0, 0, self.padded))
        inner = functional.grouped_mm(sorted_rows, self.up.bfloat16(), offs=ends).relu()
        out = functional.grouped_mm(inner, self.down.bfloat16(), offs=ends)[order.argsort()]
        return (out.unflatten(0, (-1, self.chosen)) * weights[..., None]).sum(1).view(x.shape)


def test_experts_of_a_grouped_product_are_those_that_data_gathers():
    module = Language(Layer(causal, block=Grouped()), Layer(causal, block=Grouped()))
    model = Model.from_module(module)
    assert model.layers == Model.from_module(Language(Layer(causal, block=Gathered()), Layer(causal, block=Gathered()))).layers
    assert model.not_modelled == ()
    with pytest.raises(UnsupportedModelError, match=r"layers\.0\.block takes 18 matrices of its stacks for 5 tokens, not as many for each"):
        Model.from_module(Language(Layer(causal, block=Grouped(padded=8))))


def test_experts_that_all_run_are_named():
    class Gated(nn.Module):
        """Blocks that all run, of which two have a weight."""

        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(WIDTH, 4, False)
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(WIDTH, 32, False), nn.ReLU(), nn.Linear(32, WIDTH, False)) for _ in range(4)
            )

        def forward(self, x):
            weights, which = self.gate(x).softmax(-1).topk(2, -1)
            return sum((weights * (which == i)).sum(-1, keepdim=True) * expert(x) for i, expert in enumerate(self.experts))

    model = Model.from_module(Language(Layer(causal, block=Gated())))
    assert model.not_modelled == ("that a token may need only some of the modules in layers.0.block.experts: the code runs all of them",)
    assert flops(model) == 2 * (4 * WIDTH**2 + WIDTH * 4 + 4 * 2 * WIDTH * 32 + WIDTH * VOCABULARY) + 4 * WIDTH * 1025


@pytest.mark.parametrize("step", [2, 3])
def test_a_layer_on_some_of_the_tokens_is_refused(step):
    class Sparse(Layer):
        """A layer on every second or third token."""

        def forward(self, x):
            return x + super().forward(x[:, ::step]).repeat_interleave(step, 1)[:, : x.shape[1]]

    with pytest.raises(UnsupportedModelError, match=r"layers\.1\.\w+ does not work on so many positions for each token"):
        Model.from_module(Language(Layer(causal), Sparse(causal)))


@pytest.mark.parametrize(
    "before", [lambda rows, x, seen: rows, lambda rows, x, seen: functional.silu(rows) * x[seen].mean(-1, keepdim=True)]
)
def test_rows_that_data_picks_by_a_mask_are_refused_by_name(before):
    class Switched(Layer):
        """A layer whose second matrix only some tokens pass."""

        def __init__(self, attend):
            super().__init__(attend)
            self.gate, self.expert = nn.Linear(WIDTH, 2), nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            x = super().forward(x)
            seen = self.gate(x).argmax(-1) == 1
            x[seen] = self.expert(before(x[seen], x, seen))
            return x

    with pytest.raises(
        UnsupportedModelError, match=r"which rows layers\.0\.expert multiplies with layers\.0\.expert\.weight depends on their values"
    ):
        Model.from_module(Language(Switched(causal)))


def test_a_head_on_the_last_token_is_a_head():
    model = Model.from_module(Language(Layer(causal), Layer(causal), last_only=True))
    assert (model.head.outputs, model.head.tied, model.not_modelled) == (VOCABULARY, False, ())
    assert flops(model) == PLAIN


def test_inputs_of_a_constant_number_of_tokens_or_of_a_batch_are_refused():
    module = Language(Layer(causal))
    with pytest.raises(InvalidValueError, match="makes 7 tokens where 5 are asked for, and 7 where 11"):
        Model.from_module(module, inputs=lambda tokens: torch.zeros((1, 7), dtype=torch.int64))
    with pytest.raises(InvalidValueError, match="a batch of 4 sequences"):
        Model.from_module(module, inputs=lambda tokens: torch.zeros((4, tokens), dtype=torch.int64))


def test_what_cannot_be_read_is_refused_by_name():
    class Both(nn.Module):
        """torch's encoder–decoder."""

        def __init__(self):
            super().__init__()
            self.table, self.inner = nn.Embedding(VOCABULARY, WIDTH), nn.Transformer(WIDTH, HEADS, 1, 1, 128, batch_first=True)

        def forward(self, ids):
            return self.inner(self.table(ids), self.table(ids))

    with pytest.raises(UnsupportedModelError, match="inner is a Transformer, an encoder–decoder"):
        Model.from_module(Both())

    class Packed(nn.Module):
        """A linear map whose weight is a buffer."""

        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.zeros((WIDTH, WIDTH), dtype=torch.int8))
            self.register_buffer("scale", torch.ones(WIDTH))

        def forward(self, x):
            return functional.linear(x, self.weight.to(x.dtype) * self.scale[:, None])

    with pytest.raises(UnsupportedModelError, match=r"multiplies with layers\.0\.block.weight, a buffer"):
        Model.from_module(Language(Layer(causal, block=Packed())))

    class Branch(nn.Module):
        """A block that longer sequences alone pass."""

        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            return self.inner(x) if x.shape[1] > 6 else x

    with pytest.raises(UnsupportedModelError, match="is not the same for 5 and for 11 tokens"):
        Model.from_module(Language(Layer(causal, block=Branch())))


def test_products_of_activations_outside_attention_are_named():
    class Indexer(nn.Module):
        """Scores that nothing is multiplied with."""

        def forward(self, x):
            return x * (x @ x.mT).amax(-1, keepdim=True)

    model = Model.from_module(Language(Layer(causal, block=Indexer())))
    assert any("products of activations in layers.0.block" in note for note in model.not_modelled)


class Returns(Language):
    """Two layers, and what they return beside the logits."""

    def __init__(self, *layers, beside):
        super().__init__(*layers)
        self.beside = beside
        self.second = nn.Linear(WIDTH, VOCABULARY, False) if beside == "second head" else None

    def forward(self, ids):
        x = self.table(ids)
        states, caches = [x], []
        for layer in self.layers:
            q, k, v = (p(x).unflatten(-1, (-1, layer.head)).transpose(1, 2) for p in (layer.q, layer.k, layer.v))
            x = x + layer.o(layer.attend(q, k, v).transpose(1, 2).flatten(2))
            x = x + layer.block(x)
            states.append(x)
            caches.append((k, v))
        logits = self.head(x)
        maps = [torch.zeros(1, HEADS, ids.shape[1], ids.shape[1])] * 2
        if self.beside == "second head":
            return logits, self.second(x)
        if self.beside == "names":
            return {"logits": logits, "hidden": x}
        return logits, {"own cache": caches, "states": states, "maps": maps, "nested": (logits, None)}[self.beside]


@pytest.mark.parametrize("beside", ["own cache", "states", "maps", "nested", "names", "second head"])
def test_further_results_are_no_cache(beside):
    model = Model.from_module(Returns(Layer(causal), Layer(causal), beside=beside))
    assert model.kv_bytes_per_token() == 2 * 2 * WIDTH * 2  # layers, keys and values, bf16
    assert flops(model) == PLAIN + 2 * WIDTH * VOCABULARY * (beside == "second head")
    assert model.not_modelled == ()


def prefill_flops(module, tokens):
    return prefill_floor(Model.from_module(module), "h100-sxm", prompt=tokens, weights="bf16").flops


LAYERS = PLAIN - 2 * WIDTH * VOCABULARY - 2 * 4 * WIDTH * 1025
PROMPT = 100 * LAYERS + 2 * 4 * WIDTH * 100 * 101 // 2 + 2 * WIDTH * VOCABULARY
"""Of a prompt of 100 tokens: the layers' matrices, attention over the pairs that a causal mask leaves, the head on the last, by hand [FLOP]."""


def test_a_second_head_is_for_the_last_token_of_a_prompt_as_the_first_is():
    module = Returns(Layer(causal), Layer(causal), beside="second head")
    assert prefill_flops(module, 100) == PROMPT + 2 * WIDTH * VOCABULARY
    both = prefill_floor(Model.from_module(module), "h100-sxm", prompt=100, logits="all").flops
    assert both == PROMPT + 2 * WIDTH * VOCABULARY * (2 * 100 - 1)


def test_the_first_factor_of_a_head_is_for_the_last_token_of_a_prompt():
    class Factors(Language):
        """A table of 16 elements a row, and the matrix from there to the width, both before the layers and after."""

        def __init__(self, *layers):
            super().__init__(*layers)
            self.table, self.wide = nn.Embedding(VOCABULARY, 16), nn.Linear(16, WIDTH, False)
            del self.head

        def forward(self, ids):
            x = self.wide(self.table(ids))
            for layer in self.layers:
                x = layer(x)
            return x @ self.wide.weight @ self.table.weight.T

    module = Factors(Layer(causal), Layer(causal))
    assert prefill_flops(module, 100) == PROMPT - 2 * (WIDTH - 16) * VOCABULARY + 2 * 16 * WIDTH * 101
    assert Model.from_module(module).parameters == sum(p.numel() for p in module.parameters())


def test_what_all_tokens_pass_before_their_mean_is_counted_for_all():
    class Means(Language):
        """Logits, and the mean of what a matrix makes of all tokens."""

        def __init__(self, *layers):
            super().__init__(*layers)
            self.pooled = nn.Linear(WIDTH, WIDTH, False)

        def forward(self, ids):
            x = self.table(ids)
            for layer in self.layers:
                x = layer(x)
            return {"logits": self.head(x), "pooler_output": self.pooled(x).mean(1)}

    assert prefill_flops(Means(Layer(causal), Layer(causal)), 100) == PROMPT + 100 * 2 * WIDTH**2


class Borrows(Language):
    """Two layers of which the second reads the keys and values of the first."""

    def forward(self, ids):
        x, held = self.table(ids), None
        for layer in self.layers:
            q, k, v = (p(x).unflatten(-1, (-1, layer.head)).transpose(1, 2) for p in (layer.q, layer.k, layer.v))
            held = held or (k, v)
            x = x + layer.o(layer.attend(q, *held).transpose(1, 2).flatten(2))
            x = x + layer.block(x)
        return self.head(x)


def test_keys_of_an_earlier_layer_are_refused_by_name():
    with pytest.raises(UnsupportedModelError, match="reads keys and values that an earlier layer made"):
        Model.from_module(Borrows(Layer(causal), Layer(causal)))


def test_attention_over_a_fixed_memory_is_refused_by_name():
    class Crosses(nn.Module):
        def __init__(self):
            super().__init__()
            self.language, self.memory = Language(Layer(causal), Layer(causal)), nn.Linear(WIDTH, WIDTH, False)

        def forward(self, ids, rows):
            held = self.memory(rows).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            self.language.layers[1].attend = lambda q, k, v: functional.scaled_dot_product_attention(q, held, held + 1)
            return self.language(ids)

    with pytest.raises(UnsupportedModelError, match="reads 50 rows however many tokens"):
        Model.from_module(Crosses(), inputs=lambda n: {"ids": torch.zeros(1, n, dtype=torch.long), "rows": torch.zeros(1, 50, WIDTH)})


def distances(tokens):
    """How far a key is behind a query, times a slope for each head."""
    at = torch.arange(tokens)
    return (at[:, None] - at[None, :]) * 2.0 ** -torch.arange(1.0, HEADS + 1)[:, None, None]


BIASES = {
    "fused": lambda q, k, v: functional.scaled_dot_product_attention(
        q, k, v, attn_mask=(-distances(q.shape[2])).masked_fill(~compared(q.shape[2]), -torch.inf)
    ),
    "own": lambda q, k, v: (q @ k.mT - distances(q.shape[2])).masked_fill(~compared(q.shape[2]), -torch.inf).softmax(-1) @ v,
}


@pytest.mark.parametrize("attend", BIASES.values(), ids=BIASES)
def test_biases_by_distance_hide_nothing(attend):
    model = Model.from_module(Language(Layer(attend), Layer(attend)))
    assert (model.layers[0].mixer.visible, flops(model), model.not_modelled) == ("causal", PLAIN, ())


ODD = {
    "strides": lambda i, j: (j <= i) & ((i - j) % 4 == 0),
    "sinks": lambda i, j: (j <= i) & ((i - j < 16) | (j < 4)),
    "a prefix": lambda i, j: (j <= i) | (j < 16),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("use", ["fused", "where"])
def test_a_mask_that_is_not_modelled_is_refused_for_what_it_is(odd, use):
    def attend(q, k, v):
        at = torch.arange(q.shape[2])
        return USES[use](q, k, v, odd(at[:, None], at[None, :]))

    with pytest.raises(UnsupportedModelError, match=r"the mask of layers\.0 lets a token see neither all that came before, nor a window"):
        Model.from_module(Language(Layer(attend), Layer(attend)))


def test_a_mask_made_of_parameters_is_refused_for_what_it_is():
    class Learned(Layer):
        """Distances with slopes that are learned."""

        def __init__(self):
            super().__init__(self.sloped)
            self.slopes = nn.Parameter(torch.ones(HEADS, 1, 1))

        def sloped(self, q, k, v):
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=-distances(q.shape[2]) * self.slopes)

    with pytest.raises(UnsupportedModelError, match=r"the mask of layers\.0 depends on data, on a parameter, or on a buffer"):
        Model.from_module(Language(Learned(), Learned()))


def test_a_table_of_positions_says_how_many_there_are():
    class Placed(Language):
        """Rows of a table of 512 positions, and of one of two kinds, are added to those of tokens."""

        def __init__(self, *layers):
            super().__init__(*layers)
            self.positions, self.kinds = nn.Embedding(512, WIDTH), nn.Embedding(2, WIDTH)

        def forward(self, ids):
            places = torch.arange(ids.shape[1], device=ids.device)
            x = self.table(ids) + self.positions(places) + self.kinds(torch.zeros_like(places))
            for layer in self.layers:
                x = layer(x)
            return self.head(x)

    assert Model.from_module(Placed(Layer(causal))).max_positions == 512
    assert Model.from_module(Language(Layer(causal))).max_positions is None
