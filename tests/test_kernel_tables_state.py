"""Tables of recurrent state, short convolutions and row-wise kernels: plain ones, the wheel's, and what a model's layer costs."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from roofline import Hardware, InvalidValueError, Model, Step, UnknownNameError
from roofline.arithmetic import LinearForm
from roofline.fitting.tables import record_from_tables
from roofline.floors import counted_floor
from roofline.forward import compile_model
from roofline.kernel_tables import check_table, read_table
from roofline.kernel_tables.aiconfigurator.layout import LAYOUTS, MACHINES
from roofline.kernel_tables.read import read_layout
from roofline.kernels import FAMILIES, KINDS, count_op

H100, L40S = Hardware.load("h100-sxm"), Hardware.load("l40s")
STATE = {
    "batch": [1, 64],
    "context": [512, 512],
    "heads": [32, 32],
    "key_heads": [16, 16],
    "key_dim": [128, 128],
    "state": ["fp32", "fp32"],
}
ROWS = {"rows": [16, 4096], "width": [4096, 4096], "format": ["bf16", "bf16"]}
GDN = {
    "framework": "vLLM",
    "version": "0.24.0",
    "kernel_source": "fused_recurrent_gated_delta_rule_packed_decode",
    "phase": "generation",
    "batch_size": 64,
    "seq_len": 1,
    "d_conv": 4,
    "num_k_heads": 16,
    "head_k_dim": 128,
    "num_v_heads": 32,
    "head_v_dim": 128,
    "latency": 0.1,
}


def columns(**changed):
    """One row of the wheel's table of gated delta nets, with some columns changed or (None) left out."""
    return {n: np.array([v]) for n, v in (GDN | changed).items() if v is not None}


def layer(model, step, part):
    """Features of one kernel of a model's layers, counted by the forward pass."""
    op = next(op for op in compile_model(Model.load(model)).ops if op.name.endswith(part))

    def count(form):
        terms = LinearForm.coerce(form).terms
        return sum(factor * (1 if symbol == 1 else symbol.of(step)) for symbol, factor in terms.items()) / op.count

    return {name: count(form) for name, form in FAMILIES[op.family].features(op).items()}


# ----------------------------------------------------------------------------------------------------- a row and a model's layer


@pytest.mark.parametrize(
    ("step", "row"),
    [
        (Step.decode(batch=64, context=4096), {}),
        (Step.prefill(1000, batch=4), {"phase": "context", "batch_size": 4, "seq_len": 1000, "kernel_source": "chunk_gated_delta_rule"}),
        (Step.prefill(1), {"phase": "context", "batch_size": 1, "seq_len": 1, "kernel_source": "chunk_gated_delta_rule"}),
        (Step.prefill(2, batch=3), {"phase": "context", "batch_size": 3, "seq_len": 2, "kernel_source": "chunk_gated_delta_rule"}),
    ],
    ids=["decode", "prompts", "one token", "fewer tokens than taps"],
)
def test_a_row_costs_what_the_layer_of_a_model_costs(step, row):
    (state,) = read_layout("gdn", columns(**row)).groups
    assert (state.family, state.stored, state.operand) == ("state", "fp32", "bf16")
    wanted = layer("qwen3-next-80b-a3b", step, "state_update")
    assert {n: np.ravel(v)[0] for n, v in FAMILIES["state"].features(state.op).items()} == wanted
    (taps,) = read_layout("gdn", columns(**row | {"kernel_source": "causal_conv1d_fn"})).groups
    assert (taps.family, taps.stored) == ("rowwise", "bf16")
    wanted = layer("qwen3-next-80b-a3b", step, "conv1d")
    assert {n: np.ravel(v)[0] for n, v in FAMILIES["rowwise"].features(taps.op).items()} == wanted


def test_kimi_delta_attention_is_read_as_its_layer():
    sizes = {"num_k_heads": 32, "num_v_heads": 32, "kernel_source": "fused_recurrent_kda_packed_decode"}  # Kimi Linear 48B
    (state,) = read_layout("kda", columns(**sizes)).groups
    wanted = layer("kimi-linear-48b-a3b", Step.decode(batch=64, context=100), "state_update")
    assert {n: np.ravel(v)[0] for n, v in FAMILIES["state"].features(state.op).items()} == wanted


def test_a_mamba_layer_is_a_state_that_retrieves_nothing():
    bamba = {"heads": 128, "key_heads": 1, "key_dim": 128, "value_dim": 64, "retrieves": 0, "state": "fp32", "activations": "bf16"}
    op = count_op("state", batch=3, context=50, new=7, **bamba)
    assert FAMILIES["state"].features(op) == layer("bamba-9b", Step.chunk(7, cached=50, batch=3), "state_update")


# -------------------------------------------------------------------------------------------------------------- plain tables


def test_a_plain_table_of_states():
    (group,) = read_table(STATE | {"time_us": [9, 60]}).groups
    assert (group.kind, group.family, group.stored) == ("state", "state", "fp32")
    elements = 32 * 128 * 128
    assert group.op.state_bytes.tolist() == [2 * 4 * elements, 64 * 2 * 4 * elements]  # read and written
    assert group.op.flops.tolist() == [6 * elements, 64 * 6 * elements]  # retrieved, updated, read out
    assert group.op.activation_bytes[0] == 2 * (2 * 16 * 128 + 2 * 32 * 128)  # queries, keys and values in, values out
    named = {"batch_size": [1], "num_v_heads": [32], "num_k_heads": [16], "head_k_dim": [128], "context": [512], "dtype": ["bf16"]}
    (same,) = read_table(named | {"time_us": [9]}).groups  # a state is kept in fp32 unless a table says otherwise
    assert {n: np.ravel(v)[0] for n, v in same.op.amounts().items()} == {n: np.ravel(v)[0] for n, v in group.op.amounts().items()}
    (narrow,) = read_table(STATE | {"state": ["bf16"] * 2, "time_us": [9, 60]}).groups
    assert 2 * narrow.op.state_bytes[0] == group.op.state_bytes[0]
    (fresh,) = read_table(STATE | {"context": [0, 0], "new": [8, 8], "time_us": [9, 60]}).groups
    assert 2 * fresh.op.state_bytes[0] == group.op.state_bytes[0]  # nothing to read yet


def test_a_plain_table_of_convolutions():
    (group,) = read_table({"batch": [8], "new": [100], "channels": [1024], "dtype": ["bf16"], "time_us": [9]}).groups
    assert (group.kind, group.family) == ("convolution", "rowwise")
    # 100 rows of 8 prompts in and out; the last three of each, which is what four taps look back at, stay behind
    assert FAMILIES["rowwise"].features(group.op)["bytes"] == 2 * 1024 * 8 * (100 + 100 + 3)


def test_a_plain_table_of_rows():
    read = read_table(ROWS | {"output": ["fp8", ""], "time_us": [3, 20]})
    assert {(g.kind, g.family, g.stored, g.operand) for g in read} == {("rowwise", "rowwise", "bf16", "fp32")}
    moved = {g.fixed["output"]: FAMILIES["rowwise"].features(g.op)["bytes"].tolist() for g in read}
    assert moved == {"fp8": [3 * 16 * 4096], "bf16": [4 * 4096 * 4096]}
    (added,) = read_table(ROWS | {"inputs": [2, 2], "seconds": [1e-5, 1e-4]}).groups
    assert added.op.activation_bytes.tolist() == [6 * 16 * 4096, 6 * 4096 * 4096]
    assert added.floor(H100).time_s.tolist() == [0, pytest.approx((6 * 4096**2 - H100.last_level_cache) / H100.memory_bandwidth)]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (STATE | {"key_heads": [5, 5]}, InvalidValueError, "row 1 of the table: heads is 32 and key_heads is 5"),
        (STATE | {"batch": [1, 0]}, InvalidValueError, r"'batch' must hold whole numbers of at least 1; .*row 2 \(0\)"),
        (STATE | {"context": [-1, 5]}, InvalidValueError, r"'context' must hold whole numbers of at least 0; .*row 1"),
        (STATE | {"new": [1, 0]}, InvalidValueError, r"'new' must hold .*row 2"),
        (STATE | {"state": None}, InvalidValueError, "no column of formats"),
        (STATE | {"state": ["fp32", "fp31"]}, UnknownNameError, "row 2: unknown number format 'fp31'"),
        (ROWS | {"width": None}, InvalidValueError, "no column 'width'"),
        (ROWS | {"width": [4096, 0.5]}, InvalidValueError, "row 2"),
        (ROWS | {"rows": ["many", 1]}, InvalidValueError, r"row 1 \('many'\)"),
        (ROWS | {"format": None}, InvalidValueError, "no column of formats"),
        (ROWS | {"output": ["fp9", "fp8"]}, UnknownNameError, "row 1: unknown number format 'fp9'"),
        (ROWS | {"inputs": [0, 1]}, InvalidValueError, "'inputs'"),
        ({"batch": [1, 1], "dtype": ["bf16"] * 2}, InvalidValueError, "do not tell what was measured"),
        ({"batch": [1, 1], "channels": [8, 8], "taps": [0, 4], "dtype": ["bf16"] * 2}, InvalidValueError, "'taps'"),
    ],
)  # fmt: skip
def test_one_clear_error(given, error, message):
    with pytest.raises(error, match=message) as caught:
        read_table({name: column for name, column in given.items() if column is not None} | {"seconds": [1.0, 1.0]})
    assert "\n" not in str(caught.value)


def test_a_state_without_its_width_is_asked_for_by_name():
    short = {name: column for name, column in STATE.items() if name != "key_dim"} | {"seconds": [1.0, 1.0]}
    with pytest.raises(InvalidValueError, match="the table of state kernels has no column 'key_dim'"):
        read_table(short, kind="state")


def test_sizes_at_the_limit_do_not_overflow():
    most = [2**53]
    for given in (
        {"batch": most, "context": most, "new": most, "heads": [2**20], "key_dim": [2**20], "dtype": ["bf16"]},
        {"batch": most, "new": most, "channels": most, "dtype": ["bf16"]},
        {"rows": most, "width": most, "dtype": ["bf16"]},
    ):
        (group,) = read_table(given | {"seconds": [1.0]}).groups
        floor = float(np.ravel(group.floor(H100).time_s)[0])
        assert np.isfinite(floor)
        assert floor > 1e12


# ------------------------------------------------------------------------------------------------------------------- floors


def test_a_state_that_fits_into_the_cache_twice_crosses_no_memory():
    """An L40S rewrites 67 MB in 35 µs, again and again, as if its memory had 3.9 TB/s: they never leave its 96 MB of cache."""
    sizes = {"context": 4096, "new": 1, "heads": 8, "key_heads": 8, "key_dim": 128, "value_dim": 128, "retrieves": 1}
    formats = {"state": "fp32", "activations": "bf16"}
    resident = counted_floor(count_op("state", batch=128, **sizes, **formats), L40S)
    assert resident.total_bytes > L40S.last_level_cache  # counted as it is read and as it is written
    assert resident.memory_s == 0
    beyond = counted_floor(count_op("state", batch=1024, **sizes, **formats), L40S)
    assert beyond.memory_s == pytest.approx((beyond.total_bytes - 2 * L40S.last_level_cache) / L40S.memory_bandwidth)
    stateless = counted_floor(count_op("rowwise", rows=10**6, width=4096, inputs=1, activations="bf16", output="fp8"), L40S)
    assert stateless.memory_s == pytest.approx((3 * 4096 * 10**6 - L40S.last_level_cache) / L40S.memory_bandwidth)


def test_a_state_faster_than_physics_is_found():
    slow, fast = (check_table(STATE | {"batch": [512, 512], "time_us": [700, time]}, "h100-sxm") for time in (701, 500))
    assert slow.ok  # 2.1 GB at 3.35 TB/s take 640 µs, 31 µs less if the cache holds what it can of states read and written
    assert fast.below["row"].tolist() == [2]
    assert check_table(ROWS | {"rows": [2**20] * 2, "time_us": [6000, 4000]}, "h100-sxm").below["row"].tolist() == [2]


# -------------------------------------------------------------------------------------------------------- the wheel's tables


def test_rows_without_a_meaning_are_left_out_and_named():
    def rows(table="gdn", **changed):
        read = read_layout(table, columns(**changed))
        return len(read), " ".join(read.skipped)

    assert rows() == (1, "")
    for phase, source in (("verify", "fused_recurrent_kda"), ("context", "causal_conv1d_fn_qkv3")):
        kept, note = rows("kda", phase=phase, kernel_source=source)
        assert kept == 0
        assert phase in note
        assert source in note
    earlier = {"framework": "TRTLLM", "version": "1.3.0rc20"}
    assert rows(**earlier, kernel_source="causal_conv1d_fn")[0] == 0
    (group,) = read_layout("gdn", columns(**earlier)).groups
    assert group.stored == "bf16"
    (group,) = read_layout("gdn", columns(framework=None, version=None)).groups
    assert group.stored == "fp32"
    quantized = {"m": 8, "k": 64, "quant_dtype": "fp3", "latency": 0.1}
    read = read_layout("scale_matrix", {name: np.array([value]) for name, value in quantized.items()})
    assert len(read) == 0
    assert "fp3" in read.skipped[0]


@pytest.fixture(scope="module")
def wheel():
    """The folder of the wheel's tables."""
    pytest.importorskip("pyarrow")
    spec = find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("aiconfigurator-core is not installed: a wheel for Linux x86-64 with measured kernels")
    return Path(spec.submodule_search_locations[0], "systems", "data")


def test_tables_of_an_h100_are_read(wheel):
    state = read_table(wheel / "h100_sxm" / "linear_attention" / "vllm" / "0.24.0" / "gdn_perf.parquet")
    assert len(state) == 9094
    assert {(g.kind, g.family, g.stored) for g in state} == {("state", "state", "fp32"), ("convolution", "rowwise", "bf16")}
    assert {g.origin["phase"] for g in state} == {"context", "generation"}
    rows = read_table(wheel / "h100_sxm" / "quantize" / "vllm" / "0.24.0" / "scale_matrix_perf.parquet")
    assert len(rows) == 1628
    assert {(g.fixed["activations"], g.fixed["output"]) for g in rows} == {("bf16", "fp8")}


@pytest.mark.parametrize("gpu", ["h100_sxm", "b200_sxm", "l40s", "a100_sxm"])
def test_no_measured_row_beats_its_floor(wheel, gpu):
    """L40S has the most cache for its bandwidth, A100 an older table: both had rows below a floor that was wrong."""
    found = 0
    for name in ("gdn", "kda", "mamba2", "scale_matrix"):
        for path in sorted((wheel / gpu).glob(f"*/*/*/{name}_perf.parquet")):
            checked = check_table(path, MACHINES[gpu])
            assert checked.ok, checked.summary()
            assert checked.tightest > 0.05
            found += 1
    assert found == (1 if gpu == "a100_sxm" else 9)


def test_a_record_has_both_families(wheel):
    pytest.importorskip("scipy")
    h100 = wheel / "h100_sxm"
    states = read_table(h100 / "linear_attention" / "trtllm" / "1.3.0rc20" / "gdn_perf.parquet")
    rows = read_table(h100 / "quantize" / "trtllm" / "1.3.0rc20" / "scale_matrix_perf.parquet")
    record = record_from_tables([states, rows], "h100-sxm", id="h100", source="the wheel aiconfigurator-core", rows_per_table=150)
    errors = {(c.family, c.stored): c.error for c in record.classes}
    assert set(errors) == {("state", "bf16"), ("rowwise", "bf16")}
    assert errors["rowwise", "bf16"] < 0.15
    assert errors["state", "bf16"] < 0.3


def test_every_table_is_read_as_a_kind_that_exists():
    assert {each.kind for layout in LAYOUTS.values() for each in (layout, *layout.also)} == set(KINDS)
