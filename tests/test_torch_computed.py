"""Modules whose matrices are computed: of numbers of 8 bits and their scales, of nibbles, of adapters merged, of directions and lengths."""

import pytest

from roofline import Model, UnsupportedModelError, decode_floor

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

WIDTH, HEADS, INNER, VOCABULARY = 64, 4, 128, 100


class Layer(nn.Module):
    """Attention, and a block of which `up` makes the matrix from WIDTH to INNER."""

    def __init__(self, up):
        super().__init__()
        self.qkv, self.o, self.up, self.down = (
            nn.Linear(WIDTH, 3 * WIDTH, False),
            nn.Linear(WIDTH, WIDTH, False),
            up,
            nn.Linear(INNER, WIDTH, False),
        )

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        x = x + self.o(functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(self.up(x).relu())


class Language(nn.Module):
    """Two layers between a table and a head."""

    def __init__(self, up):
        super().__init__()
        self.table, self.layers, self.head = (
            nn.Embedding(VOCABULARY, WIDTH),
            nn.ModuleList(Layer(up()) for _ in range(2)),
            nn.Linear(WIDTH, VOCABULARY, False),
        )

    def forward(self, ids):
        x = self.table(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Eight(nn.Module):
    """Numbers of 8 bits with a scale."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(INNER, WIDTH).to(torch.float8_e4m3fn), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return functional.linear(x, self.weight.to(x.dtype) * self.scale)


class Nibbles(nn.Module):
    """Two numbers of 4 bits in each byte, with a scale for 32 of them."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(INNER, WIDTH // 2, dtype=torch.uint8), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(INNER, WIDTH // 32))

    def forward(self, x):
        whole = torch.stack([self.weight & 15, self.weight >> 4], -1).to(x.dtype).view(INNER, WIDTH // 32, 32) * self.scale[..., None]
        return x @ whole.flatten(1).T


class NibblesBeside(Nibbles):
    """The same, held as a buffer."""

    def __init__(self):
        super().__init__()
        held = self.weight.data
        del self.weight
        self.register_buffer("weight", held)


class Merged(nn.Module):
    """An adapter of rank 8 that is added to the matrix before every product."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(WIDTH, INNER, False)
        self.a, self.b = nn.Parameter(torch.zeros(8, WIDTH)), nn.Parameter(torch.zeros(INNER, 8))

    def forward(self, x):
        return x @ (self.base.weight + self.b @ self.a).mT


def directions():
    """A matrix of directions, and a length for each."""
    return nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, INNER, False))


PLAIN = 2 * (2 * (4 * WIDTH**2 + 2 * WIDTH * INNER) + WIDTH * VOCABULARY) + 2 * 4 * WIDTH * 1025
"""Of a token after 1,024: two layers' and the head's matrices, and both products of attention over 1,025 positions, by hand [FLOP]."""


@pytest.mark.parametrize("up", [Eight, Nibbles, Merged, directions])
def test_a_matrix_computed_of_parameters_is_multiplied_by_every_token(up):
    module = Language(up)
    model = Model.from_module(module)
    assert decode_floor(model, "h100-sxm", context=1024).flops == PLAIN
    assert model.parameters == sum(p.numel() for p in module.parameters())
    assert model.stored_bytes() == sum(p.numel() * p.element_size() for p in module.parameters())


def test_what_a_reading_of_computed_matrices_leaves_open_is_named():
    assert Model.from_module(Language(Eight)).not_modelled == Model.from_module(Language(directions)).not_modelled == ()
    (packed,) = Model.from_module(Language(Nibbles)).not_modelled
    assert packed.startswith("weights= as formats of weights in layers.0.up.weight, layers.1.up.weight: ")
    (once,) = Model.from_module(Language(Merged)).not_modelled
    assert once.startswith(f"{2 * 2 * INNER * 8 * WIDTH:,} FLOP of products that a sequence needs once: ")  # of two layers, once a run


def test_packed_weights_in_a_buffer_are_refused_by_name():
    with pytest.raises(UnsupportedModelError, match=r"layers\.0\.up multiplies with layers\.0\.up\.weight, a buffer"):
        Model.from_module(Language(NibblesBeside))


def test_a_head_and_experts_of_8_bits_are_stored_as_such():
    class Head(Language):
        """Whose head is of 8 bits, too."""

        def __init__(self):
            super().__init__(lambda: nn.Linear(WIDTH, INNER, False))
            self.head = Eight()

    model = Model.from_module(Head())
    assert model.formats == (("lm_head", "fp8_a16"),)
    assert model.not_modelled == ()
    assert model.stored_bytes() == sum(p.numel() * p.element_size() for p in Head().parameters())


class First(nn.Module):
    """A matrix of which only the first half of the rows is multiplied with."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2 * INNER, WIDTH))

    def forward(self, x):
        return functional.linear(x, self.weight[:INNER])


class Padded(Language):
    """The table makes logits, but for its last twenty rows."""

    def __init__(self, up):
        super().__init__(up)
        del self.head

    def forward(self, ids):
        x = self.table(ids)
        for layer in self.layers:
            x = layer(x)
        return x @ self.table.weight[: VOCABULARY - 20].T


def test_rows_of_a_matrix_that_no_token_passes_are_held_and_not_multiplied_with():
    """Two layers of 4·64² + 2·64·128 multiplications, attention of 2·64 over a position, a head of 100·64, by hand; 2·128·64 parameters idle."""
    with torch.device("meta"):
        model = Model.from_module(Language(First))
    position = 2 * 2 * (4 * WIDTH**2 + 2 * WIDTH * INNER) + 2 * VOCABULARY * WIDTH
    assert decode_floor(model, "h100-sxm", context=9).flops == position + 2 * 4 * WIDTH * 10
    used = 2 * (4 * WIDTH**2 + 2 * WIDTH * INNER) + 2 * VOCABULARY * WIDTH
    assert model.parameters == used + 2 * INNER * WIDTH
    assert decode_floor(model, "h100-sxm", context=9).weight_bytes == 4 * (used - VOCABULARY * WIDTH + WIDTH)  # of the table one row


def test_a_padded_table_makes_fewer_logits_than_it_has_rows():
    """A head of 80·64 multiplications and weights, by hand."""
    with torch.device("meta"):
        model = Model.from_module(Padded(lambda: nn.Linear(WIDTH, INNER, False)))
    layers = 2 * (4 * WIDTH**2 + 2 * WIDTH * INNER)
    floor = decode_floor(model, "h100-sxm", context=9)
    assert floor.flops == 2 * layers + 2 * 80 * WIDTH + 2 * 4 * WIDTH * 10
    assert model.parameters == layers + VOCABULARY * WIDTH


def test_matrices_in_another_format_than_the_module_are_counted_in_theirs():
    class Router(nn.Module):
        """Two of four experts, chosen in 32 bits."""

        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(WIDTH, 4, False)
            self.up, self.down = nn.Parameter(torch.zeros(4, WIDTH, 32)), nn.Parameter(torch.zeros(4, 32, WIDTH))

        def forward(self, x):
            rows = x.flatten(0, 1)
            which = self.gate(rows.float()).topk(2, -1).indices
            inner = torch.einsum("td,tkdf->tkf", rows, self.up[which]).relu()
            return torch.einsum("tkf,tkfd->td", inner, self.down[which]).view(x.shape)

    class Mixed(Language):
        """In 16 bits, but for the head, what chooses experts, and the norm before them."""

        def __init__(self, block):
            super().__init__(lambda: nn.Linear(WIDTH, INNER, False))
            for layer in self.layers:
                layer.down, layer.relu = nn.Linear(INNER, WIDTH, False), block()
            self.norm = nn.LayerNorm(WIDTH)
            self.bfloat16()
            for part in (self.head, self.norm, *(layer.relu.gate for layer in self.layers)):
                part.float()

        def forward(self, ids):
            x = self.table(ids)
            for layer in self.layers:
                x = layer(x) + layer.relu(x)
            return self.head(self.norm(x.float()))

    module = Mixed(Router)
    model = Model.from_module(module)
    assert model.dtype == "bf16"
    assert model.formats == (("lm_head", "fp32"),)
    assert model.not_modelled == ("the format of norm.weight, norm.bias: bytes are those of the model's",)
    sizes = sum(p.numel() * p.element_size() for p in module.parameters())
    assert model.stored_bytes() == sizes - 2 * 2 * WIDTH  # of a norm's weight and bias, 2 B of 4
