"""Modules that keep a state: refused where no cache shows it, read with it where the module returns it."""

from typing import ClassVar

import pytest

from roofline import Model, Step, UnsupportedModelError, decode_floor
from roofline.forward import forward

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

WIDTH, STATE, VOCABULARY = 64, 8, 100


class Attends(nn.Module):
    """Attention of four heads."""

    def __init__(self):
        super().__init__()
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH, False), nn.Linear(WIDTH, WIDTH, False)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        return self.o(functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Scans(nn.Module):
    """A state of WIDTH x STATE that every token updates, one after another, or all by one operator."""

    def __init__(self, how="loop"):
        super().__init__()
        self.b, self.c, self.how = nn.Linear(WIDTH, STATE, False), nn.Linear(WIDTH, STATE, False), how
        self.decay = nn.Parameter(torch.zeros(WIDTH, STATE))

    def forward(self, x):
        added, c = x[..., None] * self.b(x)[:, :, None], self.c(x)
        if self.how == "cumsum":
            return (added.cumsum(1) * c[:, :, None]).sum(-1)
        self.last, made = x.new_zeros(1, WIDTH, STATE), []
        for t in range(x.shape[1]):
            self.last = self.last * self.decay.exp() + added[:, t]
            made.append((self.last * c[:, t, None]).sum(-1))
        return torch.stack(made, 1)


class Recurs(nn.Module):
    """A recurrence of torch's."""

    def __init__(self, kind):
        super().__init__()
        self.inner = kind(WIDTH, WIDTH, batch_first=True)

    def forward(self, x):
        return self.inner(x)[0]


class Filters(nn.Module):
    """A filter as long as the sequence, by Fourier transforms."""

    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x, n=2 * x.shape[1], dim=1), n=2 * x.shape[1], dim=1)[:, : x.shape[1]]


class Convolves(nn.Module):
    """Every channel over four tokens."""

    def __init__(self):
        super().__init__()
        self.taps = nn.Conv1d(WIDTH, WIDTH, 4, padding=3, groups=WIDTH, bias=False)

    def forward(self, x):
        return self.taps(x.mT)[..., : x.shape[1]].mT


class Shifts(nn.Module):
    """What comes before a token, told in one of several ways."""

    WAYS: ClassVar = {
        "pad": lambda x: functional.pad(x, (0, 0, 1, -1)),
        "pad of fewer": lambda x: functional.pad(x[:, :-1], (0, 0, 1, 0)),
        "cat": lambda x: torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1),
        "roll": lambda x: x.roll(1, 1),
    }

    def __init__(self, way):
        super().__init__()
        self.way, self.inner = self.WAYS[way], nn.Linear(WIDTH, WIDTH, False)

    def forward(self, x):
        return self.inner(self.way(x))


class Language(nn.Module):
    """Layers between a table and a head; what it returns beside the logits is made of them."""

    def __init__(self, *layers, beside=None):
        super().__init__()
        self.table, self.layers, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.ModuleList(layers), nn.Linear(WIDTH, VOCABULARY, False)
        self.beside = beside

    def forward(self, ids):
        x = self.table(ids)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x) if self.beside is None else {"logits": self.head(x), **self.beside(self.layers)}


RECURRENCES = {
    "loop": Scans,
    "cumsum": lambda: Scans("cumsum"),
    "LSTM": lambda: Recurs(nn.LSTM),
    "GRU": lambda: Recurs(nn.GRU),
    "Fourier": Filters,
}


@pytest.mark.parametrize("make", RECURRENCES.values(), ids=RECURRENCES)
@pytest.mark.parametrize("attends", [True, False], ids=["hybrid", "alone"])
def test_a_recurrence_whose_state_nothing_shows_is_refused_by_name(make, attends):
    layers = [Attends(), make()] if attends else [make(), make()]
    with pytest.raises(
        UnsupportedModelError, match=rf"layers\.{int(attends)}\S* .*as a recurrence does, and no state that it keeps was seen"
    ):
        Model.from_module(Language(*layers))


class Sums(nn.Module):
    """Linear attention of one head over chunks of 16 tokens, or retention over all; what it keeps is WIDTH x WIDTH."""

    def __init__(self, how="chunks"):
        super().__init__()
        self.qkv, self.how = nn.Linear(WIDTH, 3 * WIDTH, False), how

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.how == "retention":
            apart = torch.arange(x.shape[1], device=x.device)[:, None] - torch.arange(x.shape[1], device=x.device)
            return (q @ k.mT * torch.where(apart >= 0, 0.9 ** apart.float(), 0.0)) @ v
        self.sum, made = x.new_zeros(1, WIDTH, WIDTH), []
        for q_, k_, v_ in zip(*(t.split(16, 1) for t in (q, k, v)), strict=True):
            made.append(q_ @ self.sum + (q_ @ k_.mT).tril() @ v_)
            self.sum = self.sum + k_.mT @ v_
        return torch.cat(made, 1)


@pytest.mark.parametrize("how", ["chunks", "retention"])
@pytest.mark.parametrize("attends", [True, False], ids=["hybrid", "alone"])
def test_scores_without_a_softmax_are_no_attention(how, attends):
    with pytest.raises(UnsupportedModelError, match=rf"layers\.{int(attends)} multiplies scores with values without a softmax"):
        Model.from_module(Language(*([Attends()] if attends else []), Sums(how)))


def test_linear_attention_whose_state_is_returned_costs_as_much_at_any_context():
    model = Model.from_module(Language(Sums(), beside=lambda layers: {"state": [layers[0].sum]}))
    assert model.state_bytes_per_sequence == WIDTH * WIDTH * 4
    assert model.kv_bytes_per_token("fp32") == 0
    by_hand = (
        2 * (3 * WIDTH**2 + WIDTH * VOCABULARY) + 2 * WIDTH**2
    )  # matrices; a multiplication and an addition for each element of the state
    assert [decode_floor(model, "h100-sxm", context=context, weights="bf16").flops for context in (100, 1000)] == [by_hand] * 2


@pytest.mark.parametrize(
    "weigh", [torch.sigmoid, torch.relu, torch.exp, lambda s: s.softmax(-1)], ids=["sigmoid", "relu", "exp", "softmax"]
)
def test_scores_that_a_function_weighs_one_by_one_are_attention(weigh):
    class Weighs(Attends):
        """Attention with another function in place of a softmax."""

        def forward(self, x):
            q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
            return self.o((weigh(q @ k.mT).tril() @ v).transpose(1, 2).flatten(2))

    model = Model.from_module(Language(Weighs()))
    matrices = 2 * (4 * WIDTH**2 + WIDTH * VOCABULARY)
    assert decode_floor(model, "h100-sxm", context=1024, weights="bf16").flops == matrices + 4 * WIDTH * 1025


def test_a_state_that_the_module_returns_is_counted():
    model = Model.from_module(Language(Attends(), Scans(), beside=lambda layers: {"state": [layers[1].last]}))
    assert model.state_bytes_per_sequence == WIDTH * STATE * 4  # fp32, as the module is
    assert model.kv_bytes_per_token("fp32") == 2 * WIDTH * 4
    updates = sum(op.flops for op in forward(model, Step.decode(batch=1, context=8), weights="bf16").ops if op.family == "state")
    assert updates == 2 * WIDTH * STATE  # a multiplication and an addition for each of its elements
    matrices = 2 * (4 * WIDTH**2 + 2 * WIDTH * STATE + WIDTH * VOCABULARY)
    assert decode_floor(model, "h100-sxm", context=1024, weights="bf16").flops == matrices + 4 * WIDTH * 1025 + updates


@pytest.mark.parametrize("make", [Convolves, *(lambda way=way: Shifts(way) for way in Shifts.WAYS)], ids=["convolution", *Shifts.WAYS])
def test_rows_before_a_token_that_no_cache_shows_are_named(make):
    (note,) = Model.from_module(Language(Attends(), make())).not_modelled
    assert note.startswith("the last rows that a sequence keeps for convolutions or shifts in layers.1")


def test_attention_alone_keeps_no_state():
    assert Model.from_module(Language(Attends(), Attends())).not_modelled == ()


def test_an_operator_of_others_is_refused_by_name():
    @torch.library.custom_op("roofline_tests::scan", mutates_args=())
    def scan(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    scan.register_fake(torch.empty_like)

    class Calls(nn.Module):
        """A layer whose work is a kernel's."""

        def forward(self, x):
            return scan(x)

    with pytest.raises(UnsupportedModelError, match=r"layers\.1 calls roofline_tests::scan, an operator that is not torch's own"):
        Model.from_module(Language(Attends(), Calls()))


def test_states_of_32_bits_keep_them_beside_parts_that_text_never_runs():
    pytest.importorskip("transformers", minversion="5.24")
    sizes = {"hidden_size": 128, "attention_hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "vocab_size": 100}
    model = Model.load({"model_type": "rwkv", "dtype": "bfloat16", **sizes}, read="code")
    assert model.state_bytes_per_sequence == 3 * 128 * (2 * 2 + 3 * 4)  # RwkvModel: two states in the model's format, three in fp32

    class Beside(Language):
        """A layer with a state in 32 bits beside 16, and a larger part in 32 bits that no token passes."""

        def __init__(self):
            super().__init__(Attends(), Scans(), beside=lambda layers: {"state": [layers[1].last.float(), layers[1].last]})
            self.bfloat16()
            self.tower = nn.Linear(1000, 1000)

    assert Model.from_module(Beside()).state_bytes_per_sequence == WIDTH * STATE * (4 + 2)


def test_a_code_that_runs_in_32_bits_alone_does_not_say_which_states_have_them(monkeypatch):
    pytest.importorskip("transformers", minversion="5.24")
    from roofline.torch_modules import read

    true, asked = read._read, []

    def once(module, *args, **kwargs):
        asked.append(module)
        if len(asked) == 1:
            raise UnsupportedModelError("expected BFloat16 and found Float")
        return true(module, *args, **kwargs)

    monkeypatch.setattr(read, "_read", once)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100, "state_size": 8}
    model = Model.load({"model_type": "mamba", "dtype": "bfloat16", **sizes}, read="code")
    assert any(note.startswith("which of its states have 32 bits") for note in model.not_modelled)
