"""Profiles of torch code: amounts against torch's own counter and counts by hand, times, modules, phases, and the floor beside them."""

import json
import subprocess
import sys
from collections import Counter

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.nn import functional  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count  # noqa: E402

from roofline import Hardware, InvalidValueError, UnknownNameError, decode_floor, prefill_floor  # noqa: E402
from roofline.calibration.devices import open_device  # noqa: E402
from roofline.calibration.plan import quick_plan  # noqa: E402
from roofline.calibration.session import CalibrationSession  # noqa: E402
from roofline.errors import CallError  # noqa: E402
from roofline.ops import Op  # noqa: E402
from roofline.profile import Profile, beside_floor, compare_profiles, profile_torch, profiling  # noqa: E402
from roofline.profile.events import EventReader  # noqa: E402
from roofline.profile.operators import CALLS, COSTS, NOTHING  # noqa: E402
from roofline.telemetry.reading import SilentTelemeter  # noqa: E402

MACHINE = Hardware.from_rates(memory_bandwidth=20e9, peak_flops_per_s=1e11, name="bare")


@pytest.fixture(autouse=True)
def one_thread():
    """More threads than free cores wait for each other, which is no time of operators."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ones(*shape, dtype=torch.float32):
    return torch.ones(*shape, dtype=dtype)


def amounts(profile, name):
    """FLOP of products, operations, bytes and format of all calls of one operator."""
    (row,) = [row for row in profile.by_operator() if row.name == f"aten::{name}"]
    return row.flops, row.vector_flops, row.total_bytes, row.format


A, BF16, INT = ones(64, 32), torch.bfloat16, torch.long


# --- amounts ---


@pytest.mark.parametrize(
    ("work", "products"),
    [
        (lambda: functional.linear(ones(4, 16, 32), ones(8, 32), ones(8)), 1),
        (lambda: A @ ones(32, 48), 1),
        (lambda: ones(3, 5, 7) @ ones(3, 7, 2), 1),
        (lambda: torch.baddbmm(ones(3, 5, 2), ones(3, 5, 7), ones(3, 7, 2)), 1),
        (lambda: torch.einsum("bik,ok->bio", ones(4, 16, 32), ones(8, 32)), 1),
        (lambda: functional.conv1d(ones(2, 4, 9), ones(6, 4, 3), padding=1), 1),
        (lambda: functional.conv2d(ones(2, 4, 9, 9), ones(6, 2, 3, 3), ones(6), stride=2, padding=1, groups=2), 1),
        (lambda: functional.conv2d(ones(1, 4, 12, 10), ones(6, 4, 3, 3), dilation=2), 1),
        (lambda: functional.conv_transpose1d(ones(2, 4, 9), ones(4, 6, 3), stride=2), 1),
        (lambda: functional.conv_transpose2d(ones(2, 4, 5, 6), ones(4, 3, 3, 2), stride=(2, 1), groups=2), 1),
        (lambda: torch.nn.MultiheadAttention(32, 4)(ones(6, 2, 32), ones(6, 2, 32), ones(6, 2, 32)), 4),
    ],
)
def test_flop_of_products_are_those_of_torchs_counter(work, products):
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        work()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        profile = profile_torch(work)
    assert profile.flops == counter.get_total_flops() > 0
    assert sum(row.calls for row in profile.rows if row.flops) >= products


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "queries", "keys"), [(4, 4, 6, 6), (8, 2, 5, 5), (8, 2, 1, 9)])
def test_attention_is_counted_over_the_pairs_that_are_seen(causal, heads, kv_heads, queries, keys):
    q, k, v = ones(2, heads, queries, 8), ones(2, kv_heads, keys, 8), ones(2, kv_heads, keys, 8)
    causal = causal and queries == keys
    profile = profile_torch(lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=heads != kv_heads))
    flops, _, moved, form = amounts(profile, "_scaled_dot_product_flash_attention_for_cpu")
    square = sdpa_flop_count(q.shape, k.shape, v.shape)  # torch's counter takes the whole square under any mask
    assert flops == (square * (queries + 1) / (2 * queries) if causal else square)
    assert moved == 4 * (2 * q.numel() + k.numel() + v.numel())
    assert form == "fp32"


def test_a_mask_is_read_and_hides_nothing_since_its_values_are_not_known():
    q, k = ones(2, 4, 6, 8), ones(2, 4, 7, 8)
    profile = profile_torch(lambda: functional.scaled_dot_product_attention(q, k, k, attn_mask=ones(6, 7)))
    flops, _, moved, _ = amounts(profile, "_scaled_dot_product_flash_attention_for_cpu")
    assert flops == sdpa_flop_count(q.shape, k.shape, k.shape)
    assert moved == 4 * (2 * q.numel() + 2 * k.numel() + 42)


X, ROWS = ones(4, 16, 32), 4 * 16 * 32


@pytest.mark.parametrize(
    ("work", "name", "flops", "operations", "moved", "form"),
    [  # counted by hand: every input read once, every output written once
        (lambda: functional.linear(A, ones(8, 32), ones(8)), "addmm", 2 * 64 * 32 * 8, 64 * 8, 4 * (64 * 32 + 32 * 8 + 8 + 64 * 8), "fp32"),
        (lambda: A.bfloat16() @ ones(32, 8, dtype=BF16), "mm", 2 * 64 * 32 * 8, 0, 2 * (64 * 32 + 32 * 8 + 64 * 8), "bf16"),
        (
            lambda: torch._int_mm(ones(32, 16, dtype=torch.int8), ones(16, 8, dtype=torch.int8)),
            "_int_mm",
            8192,
            0,
            32 * 16 + 16 * 8 + 1024,
            "int8",
        ),
        (lambda: ones(5, 7) @ ones(7), "mv", 70, 0, 4 * (35 + 7 + 5), "fp32"),
        (lambda: ones(7) @ ones(7), "dot", 14, 0, 4 * 15, "fp32"),
        (lambda: X + ones(4, 1, 32), "add", 0, ROWS, 4 * (2 * ROWS + 128), "fp32"),
        (lambda: X + ones(4, 1, 32).expand(4, 16, 32), "add", 0, ROWS, 4 * (2 * ROWS + 128), "fp32"),  # expanded: 128 elements in memory
        (lambda: X.clone().add_(1), "add_", 0, ROWS, 8 * ROWS, "fp32"),
        (lambda: ones(8, dtype=INT) + 1, "add", 0, 0, 128, "int64"),
        (lambda: X.bfloat16() * ones(32), "mul", 0, ROWS, 2 * ROWS + 128 + 4 * ROWS, "fp32"),
        (lambda: functional.silu(X), "silu", 0, ROWS, 8 * ROWS, "fp32"),
        (lambda: X > 0, "gt", 0, ROWS, 5 * ROWS, "bool"),
        (lambda: torch.where(X > 0, X, X), "where", 0, 0, (1 + 3 * 4) * ROWS, "fp32"),
        (lambda: X.bfloat16(), "copy_", 0, 0, 6 * ROWS, "bf16"),
        (
            lambda: ones(1, 2, 1, 5, 8).expand(1, 2, 3, 5, 8).reshape(1, 6, 5, 8),
            "copy_",
            0,
            0,
            4 * (80 + 240),
            "fp32",
        ),  # keys repeated for heads
        (lambda: torch.cat([X * 1, X * 1]), "cat", 0, 0, 16 * ROWS, "fp32"),
        (lambda: X.sum(1), "sum", 0, ROWS, 4 * (ROWS + 4 * 32), "fp32"),
        (lambda: X.mean((0, -1), keepdim=True), "mean", 0, ROWS, 4 * (ROWS + 16), "fp32"),
        (lambda: X.argmax(-1), "argmax", 0, ROWS, 4 * ROWS + 8 * 64, "int64"),
        (lambda: torch.maximum(X, X), "maximum", 0, ROWS, 12 * ROWS, "fp32"),
        (lambda: torch.max(X, X), "max", 0, ROWS, 12 * ROWS, "fp32"),
        (lambda: X.topk(5), "topk", 0, 0, 4 * ROWS + 64 * 5 * 12, "fp32"),
        (lambda: X.softmax(-1), "_softmax", 0, 5 * ROWS, 8 * ROWS, "fp32"),  # arXiv 2205.14135 aside, five operations for a score
        (lambda: functional.layer_norm(X, (32,), ones(32), ones(32)), "native_layer_norm", 0, 7 * ROWS, 8 * ROWS + 256, "fp32"),
        (lambda: functional.embedding(ones(3, 5, dtype=INT), ones(10, 16)), "embedding", 0, 0, 15 * (8 + 2 * 64), "fp32"),
        (lambda: X.gather(1, ones(4, 3, 32, dtype=INT)), "gather", 0, 0, 384 * (8 + 4 + 4), "fp32"),
        (
            lambda: X.clone().scatter_add_(1, ones(4, 3, 32, dtype=INT), ones(4, 3, 32)),
            "scatter_add_",
            0,
            384,
            384 * (8 + 4 + 4 + 4),
            "fp32",
        ),
        (lambda: X.clone().index_copy_(0, torch.tensor([0, 1]), ones(2, 16, 32)), "index_copy_", 0, 0, 16 + 8 * 1024, "fp32"),
        (lambda: X.index_copy(0, torch.tensor([0, 1]), ones(2, 16, 32)), "index_copy", 0, 0, 16 + 8 * 1024 + 8 * ROWS, "fp32"),
    ],
)
def test_bytes_and_operations_are_those_of_a_count_by_hand(work, name, flops, operations, moved, form):
    assert amounts(profile_torch(work, warmup=0), name) == (flops, operations, moved, form)


def test_eight_bit_products_have_their_own_format_and_result():
    a, b = ones(32, 64).to(torch.float8_e4m3fn), ones(16, 64).to(torch.float8_e4m3fn).t()
    one = ones(1)
    profile = profile_torch(lambda: torch._scaled_mm(a, b, one, one, out_dtype=BF16))
    assert amounts(profile, "_scaled_mm") == (2 * 32 * 64 * 16, 0, 32 * 64 + 64 * 16 + 8 + 2 * 32 * 16, "fp8")


def test_operators_that_only_call_others_are_such_by_torchs_own_tables():
    kernels = ("CompositeImplicitAutograd", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
    overloads = {}
    for name in torch._C._dispatch_get_all_op_names():
        overloads.setdefault(name.partition(".")[0], []).append(name)
    for name in CALLS:
        assert any(torch._C._dispatch_has_kernel_for_dispatch_key(o, k) for o in overloads[name] for k in kernels), name
    assert not (CALLS | NOTHING) & set(COSTS)
    assert {name for name in NOTHING if name.startswith("aten::")} <= set(overloads)


# --- what is not understood ---


@pytest.fixture(scope="module")
def strange():
    """An operator of somebody's own."""

    @torch.library.custom_op("roofline_test::strange", mutates_args=())
    def run(x: torch.Tensor) -> torch.Tensor:
        return x.sort()[0]

    return run


def test_operators_that_are_not_understood_are_listed_with_their_share_of_the_time(strange):
    x = torch.randn(2**17)
    profile = profile_torch(lambda: (strange(x), x + 1), hardware=MACHINE)
    listed = {row.name: row for row in profile.unknown}
    assert {"roofline_test::strange", "aten::sort"} <= set(listed)
    sort = listed["aten::sort"]
    assert (sort.flops, sort.total_bytes, sort.intensity, sort.of_roof, sort.bound) == (None,) * 5
    assert 0.3 < profile.unknown_s / profile.time_s < 1
    assert profile.flops == 0
    assert profile.total.counted_s == pytest.approx(profile.time_s - profile.unknown_s)
    assert f"FLOP and bytes not known: {profile.unknown_s / profile.time_s:.1%} of the time (aten::sort" in str(profile)
    assert "null" in profile.to_json()


def test_operators_of_ones_own_have_costs_of_ones_own(strange):
    def cost(call):
        (x,) = call.tensors
        return Op(call.name, "element-wise", vector_flops=x.elements * 17, input_bytes=x.bytes, output_bytes=x.bytes, stored=x.element.name)

    x = torch.randn(2**17)
    profile = profile_torch(lambda: strange(x), operators={"roofline_test::strange": cost})
    (row,) = [row for row in profile.by_operator() if row.name == "roofline_test::strange"]
    assert (row.vector_flops, row.total_bytes, row.format) == (17 * 2**17, 8 * 2**17, "fp32")
    assert "aten::sort" not in {row.name for row in profile.rows}  # it is inside, and counted there
    linear = profile_torch(lambda: functional.linear(A, ones(8, 32)), operators={"aten::linear": lambda _: None})
    assert "aten::linear" in {row.name for row in linear.unknown}
    assert linear.flops == 2 * 64 * 32 * 8  # what is left unknown passes its calls on
    with pytest.raises(InvalidValueError, match="it must be a mapping of names of operators"):
        profile_torch(lambda: None, operators={"aten::mm": 3}, warmup=0)


def test_a_product_without_a_known_peak_has_no_roof_and_no_bound():
    bare = Hardware.from_rates(memory_bandwidth=20e9, name="bare")
    profile = profile_torch(lambda: ones(8, 8) @ ones(8, 8) + 1, hardware=bare)
    rows = {row.name: row for row in profile.by_operator()}
    assert (rows["aten::mm"].of_roof, rows["aten::mm"].bound, rows["aten::mm"].flops) == (None, None, 1024)
    assert rows["aten::add"].bound == "memory"
    assert profile.roof_s is None  # a roof of some operators would look like one of all
    for machine, peak in (("h100-sxm", "fp64 matrix peak"), ("a100", "fp64 matrix peak")):
        double = profile_torch(lambda: ones(8, 8, dtype=torch.float64) @ ones(8, 8, dtype=torch.float64), hardware=machine)
        assert peak in [ceiling.name for ceiling in double.ceilings]


# --- times ---


def event(name, start, duration, cat="cpu_op", thread=1, **args):
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": thread, "ts": start, "dur": duration, "args": args}


def shaped(name, start, duration, *dims, kind="float", **args):
    told = {"Input Dims": [list(d) for d in dims], "Input type": [kind] * len(dims), "Concrete Inputs": [""] * len(dims)}
    return event(name, start, duration, **told, **args)


# fixtures of the layout of torch's Chrome traces
HOST = [
    event("roofline profile", 0, 1000, "user_annotation"),
    event("roofline phase: decode", 100, 800, "user_annotation"),
    event("roofline module: ", 100, 700, "user_annotation"),
    event("roofline module: layers.3.up", 200, 300, "user_annotation"),
    shaped("aten::linear", 210, 280, (4, 8), (16, 8)),
    shaped("aten::t", 215, 10, (16, 8)),
    shaped("aten::addmm", 230, 250, (16,), (4, 8), (8, 16)),
    shaped("aten::copy_", 235, 100, (4, 16), (4, 16)),  # inside of addmm: not counted again
    shaped("mylib::op", 600, 150, (4, 16)),
    shaped("aten::add", 620, 50, (4, 16), (4, 16)),
    shaped("aten::mul", 950, 40, (4, 16), (4, 16)),
    shaped("aten::mul", 300, 40, (4, 16), (4, 16), thread=2) | {"tid": 2},
]


def read(events, **options):
    reader = EventReader(**options)
    for one in events:
        reader.add(one)
    return reader.profile("events", "pretended")


def test_time_belongs_to_the_outermost_operator_that_is_understood_and_else_to_each_itself():
    profile = read(HOST)
    rows = {(row.name, row.module, row.phase): row for row in profile.rows}
    assert {key: round(row.time_s * 1e6) for key, row in rows.items()} == {
        ("aten::linear", "layers.3.up", "decode"): 280 - 10 - 250,
        ("aten::t", "layers.3.up", "decode"): 10,
        ("aten::addmm", "layers.3.up", "decode"): 250,
        ("mylib::op", "", "decode"): 150 - 50,
        ("aten::add", "", "decode"): 50,
        ("aten::mul", "", None): 40,
        ("aten::mul", "", "decode"): 40,  # on another thread at a time of the phase
    }
    assert rows["aten::addmm", "layers.3.up", "decode"].flops == 2 * 4 * 8 * 16
    assert profile.wall_s == pytest.approx(1e-3)
    assert profile.walls == {"decode": pytest.approx(8e-4)}
    assert profile.forwards == {"decode": 1}
    assert profile.of_phase("decode").wall_s == pytest.approx(8e-4)
    assert profile.of_phase(None).wall_s == pytest.approx(2e-4)
    assert profile.unknown_s == pytest.approx(1e-4)
    assert [row.name for row in profile.by_module()] == ["layers.*.up", "", ""]


def test_on_a_gpu_time_is_that_of_kernels_with_the_operator_that_launched_them():
    operators = [
        shaped("aten::linear", 0, 40, (64, 32), (8, 32), kind="c10::BFloat16", **{"External id": 1}),
        shaped("aten::mm", 5, 30, (64, 32), (32, 8), kind="c10::BFloat16", **{"External id": 2}),
        shaped("aten::empty", 6, 5, **{"External id": 3}),
        shaped("aten::copy_", 50, 5, (64, 8), (64, 8), kind="c10::BFloat16", **{"External id": 4}),
        shaped("aten::add", 60, 5, (8,), (8,), **{"External id": 5}),  # on the host: no kernel
    ]
    kernels = [
        event("nvjet_hsh_64x8", 100, 7, "kernel", 7, **{"External id": 2}),
        event("splitKreduce_kernel", 110, 2, "kernel", 7, **{"External id": 2}),
        event("Memcpy DtoD (Device -> Device)", 120, 3, "gpu_memcpy", 7, **{"External id": 4}),
        event("Memcpy HtoD (Pageable -> Device)", 130, 4, "gpu_memcpy", 7, **{"External id": 4}),
        event("triton_poi_fused_add", 140, 6, "kernel", 7),
    ]
    machine = Hardware.load("h100-sxm")
    profile = read(operators + kernels, hardware=machine)
    assert {row.name: round(row.time_s * 1e6) for row in profile.rows} == {
        "aten::mm": 9,
        "aten::copy_": 3,
        "Memcpy HtoD (Pageable -> Device)": 4,
        "triton_poi_fused_add": 6,
    }
    assert {row.name for row in profile.unknown} == {"Memcpy HtoD (Pageable -> Device)", "triton_poi_fused_add"}
    (mm,) = [row for row in profile.rows if row.name == "aten::mm"]
    moved = 2 * (64 * 32 + 32 * 8 + 64 * 8)
    assert (mm.format, mm.bound) == ("bf16", "memory")
    assert mm.memory_s == pytest.approx(moved / machine.memory_bandwidth)
    assert mm.of_roof == pytest.approx(mm.memory_s / 9e-6)
    assert mm.achieved_bytes_per_s == pytest.approx(moved / 9e-6)
    assert mm.achieved_flops_per_s == pytest.approx(2 * 64 * 32 * 8 / 9e-6)
    assert profile.wall_s == pytest.approx(146e-6)


def test_products_of_fp32_are_of_tf32_where_torch_was_told_so():
    (row,) = read([shaped("aten::mm", 0, 5, (8, 8), (8, 8))], fp32_products="tf32").rows
    assert row.format == "tf32"


def test_a_trace_without_shapes_gives_times_and_no_amounts():
    profile = read([event("aten::mm", 0, 5), event("aten::view", 5, 1)])
    assert profile.time_s == pytest.approx(6e-6)
    assert [row.name for row in profile.unknown] == ["aten::mm"]
    assert read([]).covered == 0


# --- a model ---

CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}


def build(**sizes):
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**CONFIG, **sizes})).eval()


def described(model):
    return {**model.config.to_dict(), "architectures": ["LlamaForCausalLM"], "torch_dtype": "float32"}


def generate(model, tokens, steps, run):
    """Prefill a prompt and decode some steps, each with the last row's logits."""
    with torch.inference_mode():
        with run.phase("prefill"):
            cache = model(tokens, logits_to_keep=1).past_key_values
        with run.phase("decode"):
            for _ in range(steps):
                model(tokens[:, :1], past_key_values=cache, logits_to_keep=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small Llama, its profile of a prefill of 24 and 4 steps of decode, and the trace."""
    model, path = build(), tmp_path_factory.mktemp("trace") / "trace.json"
    tokens = torch.randint(512, (1, 24))
    with profiling(hardware=MACHINE, trace=path) as run:
        generate(model, tokens, 4, run)
    return model, run.profile, path


def test_flop_of_a_llama_are_those_of_torchs_counter_and_of_the_floor(small):
    model, profile, _ = small
    tokens = torch.randint(512, (1, 24))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        cache = model(tokens, logits_to_keep=1).past_key_values
    prefill = counter.get_total_flops()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        for _ in range(4):
            model(tokens[:, :1], past_key_values=cache, logits_to_keep=1)
    decode = counter.get_total_flops()
    # the one difference: torch's counter knows no attention of a CPU, which is 4 · heads · width for each pair that is seen, in three layers
    pairs = {"prefill": 24 * 25 // 2, "decode": 25 + 26 + 27 + 28}
    counted = {"prefill": prefill, "decode": decode}
    for row in profile.by_phase():
        assert row.flops == counted[row.name] + 3 * 4 * 64 * pairs[row.name]
    assert profile.of_phase("prefill").flops == prefill_floor(described(model), MACHINE, prompt=24).flops
    floors = [decode_floor(described(model), MACHINE, context=context).flops for context in range(24, 28)]
    assert profile.of_phase("decode").flops == sum(floors)


def test_with_attention_as_products_torchs_counter_agrees_to_the_flop():
    model, tokens = build(num_hidden_layers=1), torch.randint(512, (1, 9))
    model.config._attn_implementation = "eager"
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            model(tokens)
        profile = profile_torch(model, tokens, warmup=0)
    assert profile.flops == counter.get_total_flops()


def test_modules_are_told_apart_by_their_paths_and_layers_are_summed(small):
    _, profile, _ = small
    sums = {(row.name, row.phase): row for row in profile.by_module()}
    assert sums["model.layers.*.mlp.up_proj", "prefill"].flops == 3 * 2 * 24 * 64 * 160
    assert sums["model.layers.*.self_attn.k_proj", "decode"].flops == 4 * 3 * 2 * 64 * 32
    assert sums["lm_head", "decode"].flops == 4 * 2 * 64 * 512
    layers = {row.name for row in profile.by_module(layers=True)}
    assert {f"model.layers.{i}.mlp.down_proj" for i in range(3)} <= layers
    assert profile.forwards == {"prefill": 1, "decode": 4}
    assert {row.module for row in profile_torch(torch.nn.Linear(8, 8), ones(2, 8), modules=False).rows} == {""}


def test_a_saved_trace_gives_the_same_profile(small):
    _, profile, path = small
    again = read(json.loads(path.read_text())["traceEvents"], hardware=MACHINE)
    assert again.rows == profile.rows
    assert (again.wall_s, again.walls, again.forwards) == (profile.wall_s, profile.walls, profile.forwards)


def test_views_add_up_to_the_whole(small):
    _, profile, _ = small
    for view in (profile.by_operator(), profile.by_module(), profile.by_module(layers=True), profile.by_phase()):
        for amount in ("time_s", "counted_s", "calls"):
            assert sum(getattr(row, amount) for row in view) == pytest.approx(getattr(profile.total, amount))
        for amount in ("flops", "vector_flops", "total_bytes", "roof_s"):
            assert sum(getattr(row, amount) or 0 for row in view) == pytest.approx(getattr(profile.total, amount))
    assert profile.time_s <= profile.wall_s
    assert profile.total.roof_s >= max(profile.total.compute_s, profile.total.memory_s)
    assert len(profile.table()) == len(profile.rows)
    assert Counter(row.phase for row in profile.rows).keys() == {"prefill", "decode"}


def test_beside_the_floor_every_part_of_the_model_has_its_measured_time(small):
    model, profile, _ = small
    compared = beside_floor(profile, prefill_floor(described(model), MACHINE, prompt=24))
    parts = {part.name: part for part in compared.parts}
    for name in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj", "lm_head"):
        assert parts[name].flops == parts[name].expected_flops > 0
        assert parts[name].measured_s > 0
    assert parts["self_attn"].flops == parts["self_attn"].expected_flops
    assert sum(part.measured_s for part in compared.parts) == pytest.approx(profile.of_phase("prefill").time_s)
    assert sum(part.roof_s for part in compared.parts) == pytest.approx(float(compared.floor.roofline_s))
    assert (compared.steps, compared.notes) == (1, ())
    assert compared.over_floor == pytest.approx(compared.wall_s / compared.floor_s)
    decoding = beside_floor(profile, decode_floor(described(model), MACHINE, context=25))
    assert decoding.steps == 4
    assert decoding.wall_s == pytest.approx(profile.walls["decode"] / 4)
    assert str(decoding).startswith(f"config on {profile.device}: a decode step takes ")
    json.loads(compared.to_json())


def test_a_floor_of_another_step_is_told_by_its_flop(small):
    model, profile, _ = small
    (note,) = beside_floor(profile, prefill_floor(described(model), MACHINE, prompt=32)).notes
    assert "check batch, context and prompt" in note
    with pytest.raises(InvalidValueError, match="it must be the floor of one step"):
        beside_floor(profile, prefill_floor(described(model), MACHINE, prompt=[16, 32]))
    quiet = profile_torch(lambda: A @ ones(32, 4), modules=False)
    with pytest.raises(InvalidValueError, match="does not say how often the model ran: pass steps="):
        beside_floor(quiet, prefill_floor(described(model), MACHINE, prompt=24))
    assert "has no names of modules" in beside_floor(quiet, prefill_floor(described(model), MACHINE, prompt=24), steps=1).notes[0]


def test_modules_whose_names_no_floor_has_belong_to_the_block_around_them():
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=128)
    model, tokens = transformers.GPT2LMHeadModel(config).eval(), torch.randint(128, (1, 16))
    with torch.inference_mode():
        profile = profile_torch(lambda: model(tokens), hardware=MACHINE)
    floor = prefill_floor(
        {**config.to_dict(), "architectures": ["GPT2LMHeadModel"], "torch_dtype": "float32"}, MACHINE, prompt=16, logits="all"
    )
    parts = {part.name: part for part in beside_floor(profile, floor).parts}
    assert parts["self_attn"].flops == parts["self_attn"].expected_flops > 0
    assert parts["mlp"].flops == parts["mlp"].expected_flops > 0


def test_attention_that_multiplies_what_a_mask_hides_is_told_apart_from_a_wrong_step():
    model, tokens = build(), torch.randint(512, (1, 64))
    model.config._attn_implementation = "eager"
    with torch.inference_mode():
        profile = profile_torch(lambda: model(tokens, logits_to_keep=1), hardware=MACHINE)
    compared = beside_floor(profile, prefill_floor(described(model), MACHINE, prompt=64))
    odd = {part.name for part in compared.parts if part.flops != part.expected_flops}
    assert odd == {"self_attn"}
    assert compared.notes[0].endswith("attention without a fused kernel also multiplies what a mask hides")


def test_experts_as_grouped_products_are_counted_where_torchs_counter_has_nothing():
    torch.manual_seed(0)
    sizes = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "head_dim": 16}
    config = transformers.Qwen3MoeConfig(**{**CONFIG, **sizes})
    model, tokens = transformers.Qwen3MoeForCausalLM(config).eval(), torch.randint(512, (2, 16))
    with torch.inference_mode():
        profile = profile_torch(lambda: model(tokens), hardware=MACHINE)
    described = {**config.to_dict(), "architectures": ["Qwen3MoeForCausalLM"], "torch_dtype": "float32"}
    compared = beside_floor(profile, prefill_floor(described, MACHINE, batch=2, prompt=16, logits="all"))
    assert compared.flops == compared.expected_flops
    (experts,) = [part for part in compared.parts if part.name.startswith("mlp.experts") and part.flops]
    assert experts.flops == 3 * 32 * 2 * 3 * 2 * 64 * 48  # layers · tokens · experts of each · matrices · multiply and add


@pytest.mark.slow
def test_on_a_calibrated_cpu_decode_is_memory_bound_prefill_compute_bound_and_operators_fill_the_time(tmp_path):
    device = open_device("cpu")
    points = [point for point in quick_plan(device) if point.family in ("matmul", "read") and point.operand == "fp32"][:5]
    record = CalibrationSession(device, points, SilentTelemeter("none"), tmp_path / "record.json", plan="quick").run(limit_s=60)
    machine = Hardware.from_record(record)
    model = build(
        hidden_size=3072, intermediate_size=12288, num_hidden_layers=2, num_attention_heads=24, num_key_value_heads=8, vocab_size=4096
    )
    tokens = torch.randint(4096, (1, 64))
    for prompt, steps in ((tokens[:, :8], 1), (tokens, 4)):  # the first time warms up
        with profiling(hardware=machine) as run:
            generate(model, prompt, steps, run)
    assert 0.9 < run.profile.covered <= 1
    for phase, bound in (("prefill", "compute"), ("decode", "memory")):
        part = run.profile.of_phase(phase)
        linears = [row for row in part.rows if row.name == "aten::mm" and (row.module.endswith("_proj"))]
        assert len(linears) == 2 * 7
        assert {row.bound for row in linears} == {bound}
        assert 0.8 < part.covered <= 1  # Python between operators waits for its turn on a busy machine
        assert part.unknown_s < 0.01 * part.time_s
    compared = beside_floor(run.profile, decode_floor(described(model), machine, context=65))
    assert compared.notes == ()
    assert {part.name: part.bound for part in compared.parts}["mlp.down_proj"] == "memory"


@pytest.mark.gpu
def test_on_a_gpu_kernels_have_operators_modules_and_phases():
    model = build().to("cuda", torch.bfloat16)
    tokens = torch.randint(512, (4, 128), device="cuda")
    with torch.inference_mode():
        profile = profile_torch(lambda: model(tokens, logits_to_keep=1), phase="prefill")
    expected = prefill_floor({**described(model), "torch_dtype": "bfloat16"}, "h100-sxm", batch=4, prompt=128).flops
    assert profile.flops == pytest.approx(expected, rel=0.02)
    assert profile.device == torch.cuda.get_device_name()
    assert {row.format for row in profile.rows if row.flops} == {"bf16"}
    assert any(row.module == "model.layers.0.mlp.up_proj" for row in profile.rows)
    assert profile.unknown_s < 0.1 * profile.time_s


# --- two profiles ---


def test_two_profiles_show_what_became_faster_and_what_is_new():
    before = read([shaped("aten::mm", 0, 50, (8, 8), (8, 8)), shaped("aten::add", 60, 30, (8,), (8,))])
    after = read([shaped("aten::mm", 0, 20, (8, 8), (8, 8)), shaped("aten::silu", 60, 5, (8,))])
    compared = compare_profiles(before, after)
    assert {c.name: (round(c.saved_s * 1e6), c.gain) for c in compared.changes} == {
        "aten::mm": (30, pytest.approx(2.5)),
        "aten::add": (30, None),
        "aten::silu": (-5, None),
    }
    assert compared.gain == pytest.approx(80 / 25)
    assert str(compared).splitlines()[0] == "operators: 80 µs before, 25 µs after, 3.2 × as fast"
    assert "aten::silu: 0 s → 5 µs, 5 µs lost, new" in str(compared)
    assert "aten::add: 30 µs → 0 s, 30 µs saved, gone" in str(compared)
    assert [c.name for c in compare_profiles(before, after, by="phase").changes] == [""]
    with pytest.raises(UnknownNameError, match="nearest: operator"):
        compare_profiles(before, after, by="operators")
    with pytest.raises(InvalidValueError, match="after is 3; it must be a Profile"):
        compare_profiles(before, 3)


# --- how it is asked ---


def test_what_cannot_be_profiled_is_said_before_anything_runs(tmp_path):
    ran = []
    for wrong, message in (
        ({"repeat": 0}, "repeat is 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"modules": "yes"}, "modules is 'yes'"),
        ({"trace": tmp_path}, "it must be the path of a file"),
        ({"trace": tmp_path / "none" / "trace.json"}, "it must be the path of a file"),
        ({"phase": ""}, "a phase has a name"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            profile_torch(ran.append, 1, **{"warmup": 0, **wrong})
    with pytest.raises(UnknownNameError, match="h100"):
        profile_torch(ran.append, 1, warmup=0, hardware="h100-sx")
    with pytest.raises(InvalidValueError, match="function is 3; it must be something to call"):
        profile_torch(3)
    with pytest.raises(CallError, match="profile_torch has no input_ids"):
        profile_torch(ran.append, input_ids=1)
    with pytest.raises(CallError, match="profiling has no machine"):
        profiling(machine="h100-sxm")
    assert ran == []


def test_phases_do_not_nest_and_a_profile_is_there_only_after_the_block():
    with profiling() as run:
        with pytest.raises(InvalidValueError, match="has not ended"):
            run.profile  # noqa: B018
        with run.phase("prefill"), pytest.raises(InvalidValueError, match="phases do not nest"), run.phase("decode"):
            pass
        with pytest.raises(InvalidValueError, match="running already"), profiling():
            pass
    assert isinstance(run.profile, Profile)
    with pytest.raises(UnknownNameError, match="unknown phase of the profile 'training'"):
        run.profile.of_phase("training")


def test_hooks_are_gone_after_a_block_that_fails():
    hooks = torch.nn.modules.module
    before = len(hooks._global_forward_pre_hooks), len(hooks._global_forward_hooks)
    layer = torch.nn.Linear(8, 8)
    with pytest.raises(RuntimeError), profiling() as run:
        layer(ones(2, 9))
    with pytest.raises(InvalidValueError, match="was left by RuntimeError, so there is no profile of it"):
        run.profile  # noqa: B018
    assert (len(hooks._global_forward_pre_hooks), len(hooks._global_forward_hooks)) == before
    assert {row.module for row in profile_torch(torch.nn.Sequential(layer), ones(2, 8)).rows if row.flops} == {"0"}


def test_a_trace_can_be_kept_compressed(tmp_path):
    profile_torch(lambda: A + 1, trace=tmp_path / "trace.json.gz")
    assert (tmp_path / "trace.json.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_the_room_loads_no_torch():
    code = "import sys, roofline.profile; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
