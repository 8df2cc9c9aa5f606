"""Tables of measured kernels: whatever holds them, what their columns mean, and one clear error for what cannot be."""

import builtins
import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from roofline import (
    Hardware,
    InvalidValueError,
    MissingDependencyError,
    RooflineError,
    UnknownNameError,
    attention_floor,
    decode_estimate,
    experts_floor,
    latent_attention_floor,
    matmul_floor,
    prefill_estimate,
)
from roofline.errors import CalibrationError
from roofline.fitting.tables import record_from_tables, split_classes
from roofline.kernel_tables import check_table, read_table
from roofline.kernel_tables.aiconfigurator.layout import LAYOUTS, MACHINES, run_as
from roofline.kernel_tables.columns import rows_by_value
from roofline.kernel_tables.read import read_layout
from roofline.kernels import KINDS, count_op
from roofline.ops import all_reduce, exchange
from roofline.records.schema import PERCENTILES

H100 = Hardware.load("h100-sxm")
PLAIN = {
    "m": [16, 4096, 16],
    "n": [4096, 8192, 64],
    "k": [1024, 8192, 64],
    "format": ["bf16", "bf16", "fp8"],
    "seconds": [9e-6, 8e-4, 4e-6],
}


def table(**changed):
    """The plain table with columns changed, or left out where None."""
    return {name: column for name, column in {**PLAIN, **changed}.items() if column is not None}


class LazyFrame:
    """What polars has before a query is run: names of columns, and no rows."""

    columns = tuple(PLAIN)

    def __getitem__(self, name):
        raise TypeError("'LazyFrame' object is not subscriptable (aside from slicing)")

    def collect(self):
        return PLAIN


def same(left, right):
    """Whether two tables hold the same rows."""
    key = lambda g: (g.kind, *map(str, sorted(g.fixed.items())))  # noqa: E731
    a, b = sorted(left, key=key), sorted(right, key=key)
    assert [key(g) for g in a] == [key(g) for g in b]
    for g, h in zip(a, b, strict=True):
        assert all((g.sizes[name] == h.sizes[name]).all() for name in g.sizes)
        assert g.seconds == pytest.approx(h.seconds, rel=1e-12)
        assert (g.rows == h.rows).all()
    return True


# ---------------------------------------------------------------------------------------------------------- whatever holds it


def test_rows_are_grouped_by_operator():
    read = read_table(PLAIN)
    assert len(read) == 3
    assert {(g.family, g.stored, g.operand): g.rows.tolist() for g in read} == {
        ("matmul", "bf16", "bf16"): [0, 1],
        ("matmul", "fp8", "fp8"): [2],
    }
    bf16 = next(g for g in read if g.stored == "bf16")
    assert bf16.op.flops.tolist() == [2 * 16 * 4096 * 1024, 2 * 4096 * 8192 * 8192]
    assert bf16.seconds.tolist() == [9e-6, 8e-4]


def test_every_holder_of_columns_gives_the_same_rows(tmp_path):
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    from pyarrow import parquet

    class Polars:
        """What polars has: a list of names, and columns that become numpy."""

        columns = tuple(PLAIN)

        def __getitem__(self, name):
            return type("Series", (), {"to_numpy": staticmethod(lambda: np.array(PLAIN[name]))})()

    frame = pandas.DataFrame(PLAIN)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    frame.to_csv(tmp_path / "semicolon.csv", index=False, sep=";", encoding="utf-8-sig")
    parquet.write_table(arrow.table(PLAIN), tmp_path / "t.parquet")
    holders = [
        frame,
        arrow.table(PLAIN),
        Polars(),
        *(tmp_path / name for name in ("t.csv", "t.tsv", "semicolon.csv", "t.parquet")),
        str(tmp_path / "t.csv"),
    ]
    holders += [frame.astype({"format": "category"}), frame.convert_dtypes()]
    assert all(same(read_table(holder), read_table(PLAIN)) for holder in holders)


def test_a_table_that_is_read_stays_as_it_is():
    read = read_table(PLAIN)
    assert read_table(read) is read


@pytest.mark.parametrize(
    ("names", "values"),
    [
        ("seconds", 2.5e-3),
        ("latency_s", 2.5e-3),
        ("latency_ms", 2.5),
        ("Latency (ms)", 2.5),
        ("time_us", 2500),
        ("time_µs", 2500),
        ("median_ns", 2.5e6),
        ("kernel time [us]", 2500),
        ("microseconds", 2500),
        ("ms", 2.5),
    ],
)
def test_the_unit_is_in_the_name_of_the_time(names, values):
    read = read_table(table(seconds=None) | {names: [values] * 3})
    assert read.groups[0].seconds == pytest.approx(2.5e-3, rel=1e-12)


@pytest.mark.parametrize("name", ["latency", "time", "Duration", "median"])
def test_a_time_without_a_unit_is_asked_about(name):
    with pytest.raises(InvalidValueError, match=r"has no unit: call it .*_ms or give unit='ms'"):
        read_table(table(seconds=None) | {name: [1.0] * 3})
    assert read_table(table(seconds=None) | {name: [1.0] * 3}, unit="ms").groups[0].seconds[0] == 1e-3


def test_a_unit_that_is_given_wins_over_the_name():
    assert read_table(PLAIN, unit="ms").groups[0].seconds[0] == pytest.approx(9e-9)


def test_several_times_need_a_choice():
    two = table(seconds=None) | {"mean_ms": [2.0] * 3, "median_ms": [1.0] * 3}
    with pytest.raises(InvalidValueError, match=r"mean_ms.*median_ms.*time="):
        read_table(two)
    assert read_table(two, time="median_ms").groups[0].seconds[0] == 1e-3


# ------------------------------------------------------------------------------------------------------------ what a row means


@pytest.mark.parametrize(
    ("columns", "formats"),
    [
        ({"dtype": "torch.bfloat16"}, {"format": "bf16"}),
        ({"gemm_dtype": "fp8_block"}, {"format": "fp8", "weights": "fp8_block128"}),
        ({"precision": "int4"}, {"format": "bf16", "weights": "int4"}),
        ({"format": "int4_wo"}, {"format": "bf16", "weights": "int4_channel"}),
        ({"format": "sq"}, {"format": "int8"}),
        ({"format": "FP8-E4M3"}, {"format": "fp8"}),
        ({"weights": "mxfp4", "activations": "mxfp8"}, {"format": "mxfp8", "weights": "mxfp4"}),
        ({"weights": "int4"}, {"format": "bf16", "weights": "int4"}),
        ({"activations": "fp16"}, {"format": "fp16"}),
        ({"format": "bf16", "weights": "fp8"}, {"format": "bf16", "weights": "fp8"}),
    ],
    ids=str,
)
def test_labels_of_products(columns, formats):
    read = read_table(table(format=None) | {name: [label] * 3 for name, label in columns.items()})
    (group,) = read.groups
    floor = matmul_floor(PLAIN["m"], PLAIN["n"], PLAIN["k"], H100, **formats)
    assert group.floor(H100).time_s.tolist() == floor.time_s.tolist()
    assert (group.stored, group.operand) == (floor.op.stored, floor.op.operand)


def test_an_empty_cell_is_as_if_the_column_were_not_there():
    read = read_table(table(weights=["int4", "", None]))
    assert {str(g.fixed["weights"]): g.rows.tolist() for g in read} == {"int4": [0], "bf16": [1], "fp8": [2]}


def test_a_row_of_attention():
    row = {
        "batch": [64, 8],
        "context": [8192, 100],
        "new": [1, 1],
        "heads": [64, 64],
        "kv_heads": [8, 8],
        "head_dim": [128, 128],
        "seconds": [1e-3, 1e-5],
    }
    sizes = {"heads": 64, "kv_heads": 8, "head_dim": 128, "batch": np.array([64, 8]), "context": np.array([8192, 100])}
    for columns, formats in (
        ({"kv": "fp8"}, {"kv": "fp8"}),
        ({"dtype": "bf16"}, {}),
        ({"kv_cache_dtype": "fp8", "attn_dtype": "fp8"}, {"kv": "fp8", "activations": "fp8"}),
    ):
        (group,) = read_table(row | {name: [label] * 2 for name, label in columns.items()}).groups
        assert group.floor(H100).time_s.tolist() == attention_floor(hardware=H100, **sizes, **formats).time_s.tolist()
    (group,) = read_table(row | {"dtype": ["bf16"] * 2, "window_size": [1024, 1024]}).groups
    assert group.floor(H100).time_s.tolist() == attention_floor(hardware=H100, **sizes, visible="window", span=1024).time_s.tolist()
    shared = {name: column for name, column in row.items() if name not in ("kv_heads", "new")}
    (group,) = read_table(shared | {"dtype": ["bf16"] * 2}).groups  # as many key-value heads as heads, one new token
    assert group.floor(H100).time_s.tolist() == attention_floor(hardware=H100, **(sizes | {"kv_heads": 64})).time_s.tolist()


def test_a_row_of_latent_attention():
    row = {"batch": [64], "context": [8192], "num_heads": [16], "kv_lora_rank": [512], "kv": ["bf16"], "time_us": [500]}
    (group,) = read_table(row).groups
    assert group.kind == "latent_attention"
    assert group.floor(H100).time_s.tolist() == latent_attention_floor(hardware=H100, heads=16, batch=[64], context=[8192]).time_s.tolist()


def test_a_row_of_experts_and_its_share_of_expert_parallelism():
    row = {
        "num_tokens": [4, 4096],
        "hidden": [7168] * 2,
        "inter_size": [2048] * 2,
        "experts": [256] * 2,
        "topk": [8] * 2,
        "dtype": ["fp8_block"] * 2,
    }
    (group,) = read_table(row | {"time_us": [100, 9000]}).groups
    shape = {"hidden": 7168, "intermediate": 2048, "count": 256, "top_k": 8, "format": "fp8", "weights": "fp8_block128"}
    assert group.floor(H100).time_s.tolist() == experts_floor([4, 4096], H100, **shape, routing="best").time_s.tolist()
    (split,) = read_table(row | {"time_us": [100, 9000], "ep": [4, 4]}).groups
    # a quarter of the visits, 2 of 8 per token, all of which the busiest rank computes
    assert split.op.flops[1] == 2 * 4096 * 2 * 3 * 7168 * 2048


def test_a_row_of_a_collective():
    row = {"op": ["all_reduce", "alltoall", "All-Gather"], "ranks": [8, 8, 8], "bytes": [450_000_000] * 3, "seconds": [2e-3] * 3}
    groups = {g.fixed["op"]: g for g in read_table(row)}
    assert groups["all_reduce"].floor(H100).time_s[0] == pytest.approx(1e-3, rel=1e-12)  # 450 MB at 450 GB/s
    for op in ("all_to_all", "all_gather"):
        assert groups[op].floor(H100).time_s[0] == pytest.approx(0.875e-3, rel=1e-12)
        assert groups[op].floor(H100).bound[0] == "network"
    assert count_op("collective", op="all_reduce", size=8, ranks=4).link_bytes == all_reduce("", 8, ranks=4, domain=4).link_bytes
    assert count_op("collective", op="all_to_all", size=8, ranks=4).link_bytes == exchange("", 8, ranks=4, visits=1, domain=4).link_bytes


def test_low_latency_exchanges_have_the_bytes_that_their_table_says():
    """A row of SGLang 0.5.12 on H200 in aiconfigurator-core 0.12.0 has bandwidths beside times: B = 244.17 GB/s · 481 µs, and 287.5 · 211."""
    row = {
        "op_name": ["ll"],
        "device": ["NVIDIA H200"],
        "node_num": [1],
        "hidden_size": [7168],
        "num_token": [1024],
        "num_topk": [8],
        "combine_avg_t_us": [480.969],
        "dispatch_avg_t_us": [211.099],
    }
    there, back = read_layout("wideep_deepep_ll", row).groups
    assert back.seconds.tolist() == [480.969e-6]
    assert back.sizes["size"][0] == pytest.approx(244.174805e9 * 480.969e-6, rel=1e-6)
    assert there.sizes["size"][0] == pytest.approx(287.478084e9 * 211.099e-6, rel=3e-3)  # without 16 B of each row's head
    assert back.fixed["ranks"] == there.fixed["ranks"] == 8
    (wide, _) = read_layout("wideep_deepep_ll", row | {"device": ["NVIDIA GB200"], "node_num": [8]}).groups
    assert wide.fixed["ranks"] == 32  # four GPUs of a GB200 NVL72 compute tray (NVIDIA's data sheet)


def test_normal_exchanges_send_a_token_once_to_each_device_and_are_read_at_the_usual_number_of_units():
    """Of 8 uniform choices among 8 devices 8 (1 − (7/8)^8) are distinct; rows in fp8 have a scale for 128 elements."""
    columns = {
        "op_name": ["normal"] * 2,
        "device": ["NVIDIA H200"] * 2,
        "node_num": [1, 1],
        "hidden_size": [7168] * 2,
        "num_token": [512] * 2,
    }
    columns |= {"num_topk": [8, 8], "dispatch_sms": [4, 20], "combine_sms": [4, 20]}
    columns |= {"dispatch_transmit_us": [304.0, 100.0], "combine_transmit_us": [566.0, 188.0]}
    there, back = read_layout("wideep_deepep_normal", columns).groups
    distinct = 8 * (1 - (7 / 8) ** 8)
    assert there.sizes["size"].tolist() == [round(512 * distinct * 7168 * (1 + 4 / 128))]
    assert back.sizes["size"].tolist() == [round(512 * distinct * 7168 * 2)]
    assert (there.seconds.tolist(), back.seconds.tolist()) == ([100e-6], [188e-6])


def test_a_dispatch_over_nvlink_waits_for_what_prepares_it():
    """TensorRT-LLM 1.3.0rc10 on GB200, 4096 tokens over 32 devices: 39.6 µs before 291.8 µs, and 922 µs back in bf16."""
    names = ["alltoall_prepare", "alltoall_dispatch", "alltoall_combine", "alltoall_combine_low_precision"]
    row = {"num_tokens": 4096, "hidden_size": 7168, "topk": 8, "num_experts": 256, "moe_ep_size": 32}
    columns = {name: [value] * 4 for name, value in row.items()} | {"op_name": names, "latency": [0.039568, 0.291821, 0.922003, 0.685846]}
    read = read_layout("trtllm_alltoall", columns | {"kernel_source": ["NVLinkTwoSided"] * 4, "moe_dtype": ["nvfp4"] * 4})
    there, back = read.groups
    assert there.seconds[0] == pytest.approx(331.389e-6)
    assert back.seconds[0] == pytest.approx(922.003e-6)
    reached = 32 * (1 - (31 / 32) ** 8)
    assert back.sizes["size"][0] == round(4096 * reached * 7168 * 2)
    assert there.sizes["size"][0] == round(4096 * reached * 7168 * 9 / 16)  # four bits, and a byte of scale for 16 elements
    assert "2 rows" in read.skipped[0]


def test_groups_can_be_chosen_taken_apart_and_read_otherwise():
    read = read_table(PLAIN)
    assert len(read.where(format="bf16")) == 2
    assert len(read.where(stored=("bf16", "fp8"), kind="matmul")) == 3
    assert len(read.keep(lambda g: g.seconds < 1e-5)) == 2
    with pytest.raises(InvalidValueError, match="nearest: format"):
        read.where(fromat="bf16")
    group = read.where(format="bf16").groups[0]
    assert group.take(np.array([1])).rows.tolist() == [1]
    assert group.read_as(format="fp8", weights="fp8").operand == "fp8"
    with pytest.raises(InvalidValueError, match="no argument 'kv'"):
        group.read_as(kv="fp8")
    assert next(group.shapes()) == "16 × 4096 × 1024"


def test_every_combination_is_found_once():
    columns = {"a": np.array([1, 2, 1, 2, 1]), "b": np.array(["x", "x", "y", "x", "y"], dtype=object)}
    assert {tuple(v.values()): r.tolist() for v, r in rows_by_value(columns, ["a", "b"])} == {
        (1, "x"): [0],
        (2, "x"): [1, 3],
        (1, "y"): [2, 4],
    }


# ------------------------------------------------------------------------------------------------------------------ bad tables


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (table(n=None), InvalidValueError, "no column 'n'"),
        (table(n=None) | {"N_": [1, 1, 1]}, None, ""),
        (table(format=None), InvalidValueError, "no column of formats: format or dtype for both operands, or weights and activations\\.$"),
        (table(format=None) | {"fromat": ["bf16"] * 3}, InvalidValueError, "nearest: fromat"),
        (table(seconds=None), InvalidValueError, "no column of times"),
        (table(seconds=[1e-6, float("nan"), 0.0]), InvalidValueError, r"'seconds' must hold positive finite numbers .*; 1 of 3 .*row 3 \(0.0\)"),
        (table(seconds=[1e-6, -1e-6, float("inf")]), InvalidValueError, r"row 2 \(-1e-06\), row 3 \(inf\)"),
        (table(seconds=["1e-6", "", "fast"]), InvalidValueError, r"1 of 3 rows do not: row 3 \('fast'\)"),
        (table(m=[16, 0, 16]), InvalidValueError, r"'m' must hold whole numbers of at least 1; .*row 2 \(0\)"),
        (table(m=[16, 1.5, 16]), InvalidValueError, r"row 2 \(1.5\)"),
        (table(m=[True, True, True]), InvalidValueError, "row 1"),
        (table(m=[16, 2.0**60, 16]), InvalidValueError, "row 2"),
        (table(m=["16", "x", None]), InvalidValueError, r"1 of 3 rows do not: row 2 \('x'\)"),
        (table(format=["bf16", "bf17", "fp8"]), UnknownNameError, "row 2: unknown format label 'bf17'; nearest: .*bf16"),
        (table(format=["", "", ""]), InvalidValueError, "no column of formats"),
        (table(seconds=["OOM", "", None], m=[1, 1, 1]), InvalidValueError, "no column of times"),
        (table(seconds=["OOM", "", 1], m=[1, 1, ""]), InvalidValueError, r"no row of the table is whole: row 1 \(seconds\), row 2 \(seconds\), row 3 \(m\)"),
        (table(weights=["int4", "int5x", ""]), UnknownNameError, "row 2: unknown number format 'int5x'"),
        (table(dtype=["bf16"] * 3), InvalidValueError, "'format', 'dtype' could all be 'format'"),
        (table(m=[1, 2]), InvalidValueError, "differ in length: m 2"),
        ({name: [] for name in PLAIN}, InvalidValueError, "no rows"),
        ({}, InvalidValueError, "no columns"),
        ({"x": [1], "seconds": [1.0]}, InvalidValueError, "do not tell what was measured.*matmul: m, n, k"),
        (table(m=[[1], [2], [3]]), InvalidValueError, "2 dimensions"),
        (table(m=[[1], [2, 3], [3]]), InvalidValueError, "column 'm'"),
        (
            {"num_tokens": [1], "hidden": [2], "intermediate": [3], "top_k": [2], "format": ["bf16"], "seconds": [1.0]},
            InvalidValueError,
            "experts kernels has no column 'experts' ",
        ),
        ({"x": [1], "seconds": [1.0]}, InvalidValueError, "experts: tokens, hidden, intermediate, experts, top_k; collective: bytes, ranks"),
        (LazyFrame(), InvalidValueError, r"a LazyFrame holds no rows yet; .*collect\(\)"),
        (42, InvalidValueError, "not int"),
        ("table.xlsx", InvalidValueError, "no such file"),
        (
            {"batch": [1], "new": [1], "heads": [6], "kv_heads": [4], "head_dim": [64], "kv": ["bf16"], "seconds": [1.0]},
            InvalidValueError,
            "row 1 of the table: heads is 6 and kv_heads is 4",
        ),
        ({"batch": [1], "ctx": [1], "heads": [6], "head_size": [64], "seconds": [1.0]}, InvalidValueError, "no column of formats"),
        ({"batch": [1], "heads": [6], "kv": ["bf16"], "seconds": [1.0]}, InvalidValueError, "attention kernels has no column 'head_dim'"),
        ({"ranks": [8], "bytes": [8], "seconds": [1.0]}, InvalidValueError, "no column 'op'"),
        ({"op": ["gossip"], "ranks": [8], "bytes": [8], "seconds": [1.0]}, UnknownNameError, "row 1: unknown collective 'gossip'"),
    ],
)  # fmt: skip
def test_one_clear_error(given, error, message):
    if error is None:
        read_table(given)
        return
    with pytest.raises(error, match=message) as caught:
        read_table(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ({"time": 5}, "a column's name"),
        ({"time": []}, "a column's name"),
        ({"kind": []}, "matmul"),
        ({"unit": np.array([1, 2])}, "s, ms, us, ns"),
    ],
)
def test_options_that_are_no_text(option, allowed):
    with pytest.raises(InvalidValueError, match=f"^{next(iter(option))} is of type .*{allowed}.*[.]$"):
        read_table(PLAIN, **option)


@pytest.mark.parametrize("option", [{"unit": "minutes"}, {"kind": "gemm"}, {"time": "secs"}])
def test_options_that_do_not_exist(option):
    with pytest.raises(RooflineError, match=next(iter(option.values()))):
        read_table(PLAIN, **option)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "is empty"),
        ("t.csv", "m,n,k,format,seconds\n", "no rows"),
        ("t.csv", "m,n,k,format,seconds\n1,2,3,bf16\n", "line 2 of .* has 4 cells"),
        ("t.csv", "m,m,k,format,seconds\n1,2,3,bf16,1\n", "several columns called 'm'"),
        ("t.xlsx", "no", "'.xlsx'"),
        ("t.parquet", "no parquet at all", "cannot read"),
    ],
)
def test_files_that_are_no_tables(tmp_path, name, text, message):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidValueError, match=message):
        read_table(tmp_path / name)


def test_binary_that_calls_itself_csv(tmp_path):
    (tmp_path / "t.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(InvalidValueError, match="cannot read"):
        read_table(tmp_path / "t.csv")


def test_a_folder_is_searched_within_limits(tmp_path, monkeypatch):
    monkeypatch.setattr("roofline.kernel_tables.aiconfigurator.layout._MOST_FILES", 3)
    (tmp_path / "inside").mkdir()
    for name in "abcd":
        (tmp_path / "inside" / name).touch()
    with pytest.raises(InvalidValueError, match=r"^\S+ holds more than 3 files and folders; name the folder of one machine's tables\.$"):
        read_table(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "link").symlink_to(tmp_path / "inside")
    with pytest.raises(InvalidValueError, match="holds no table of measured kernels"):
        read_table(outside)


def test_a_folder_without_tables(tmp_path):
    with pytest.raises(InvalidValueError, match="holds no table of measured kernels"):
        read_table(tmp_path)
    (tmp_path / "unheard_of_perf.parquet").write_bytes(b"")
    with pytest.raises(InvalidValueError, match="holds no known table; known: gemm"):
        read_table(tmp_path)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    def refuse(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return builtins.__import__(name, *rest) if rest else importlib.import_module(name)

    monkeypatch.setattr("roofline.kernel_tables.columns.import_module", refuse)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[calibrate\]' in a checkout"):
        read_table(tmp_path / "t.parquet")


# ------------------------------------------------------------------------------------------------- the wheel's layout and record


def test_labels_without_a_meaning_are_left_out_and_named():
    columns = {"m": [1, 2], "n": [8, 8], "k": [8, 8], "gemm_dtype": ["fp8", "fp7"], "latency": [0.003, 0.003]}
    read = read_layout("gemm", {name: np.array(column) for name, column in columns.items()})
    assert len(read) == 1
    assert "1 rows of gemm" in read.skipped[0]
    assert "fp7; known: bfloat16, fp8, " in read.skipped[0]


GEMM = {"m": [1, 2], "n": [8, 8], "k": [8, 8], "gemm_dtype": ["fp8", "fp8"], "latency": [0.003, 0.003]}
REDUCE = {"num_gpus": [2], "message_size": [8], "allreduce_dtype": ["half"], "latency": [0.1]}
DECODE = {"batch_size": 1, "isl": 1, "step": 9, "num_heads": 6, "num_key_value_heads": 2, "head_dim": 64, "latency": 0.1}
DECODE = {name: [value] for name, value in (DECODE | {"attn_dtype": "bfloat16", "kv_cache_dtype": "fp8"}).items()}


def test_columns_of_a_layout_may_be_lists_or_a_frame():
    assert same(read_layout("gemm", GEMM), read_layout("gemm", {name: np.array(column) for name, column in GEMM.items()}))
    assert len(read_layout("custom_allreduce", REDUCE)) == len(read_layout("generation_attention", DECODE)) == 1


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_without_its_columns_is_refused_by_name(name):
    with pytest.raises(
        InvalidValueError,
        match=f"the table {name} of aiconfigurator-core has no column '.*'; it has: latency|no column has the format of the elements",
    ):
        read_layout(name, {"latency": [0.1]})


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("gem", GEMM, "unknown table 'gem' of aiconfigurator-core; nearest: gemm"),
        (["gemm"], GEMM, "unknown table .* of aiconfigurator-core; known: gemm"),
        ("gemm", 7, "not int"),
        ("gemm", GEMM | {"m": [1]}, "columns of the table gemm differ in length: m 1, n 2"),
        ("gemm", {n: [] for n in GEMM}, "the table gemm has columns .* but no rows"),
        ("gemm", GEMM | {"m": [-1, 1]}, r"column 'm' must hold whole numbers of at least 1; 1 of 2 .*row 1 \(-1\)"),
        ("gemm", GEMM | {"m": [1, 1.5]}, r"row 2 \(1.5\)"),
        ("gemm", GEMM | {"m": [1, float("nan")]}, r"row 2 \(nan\)"),
        ("gemm", GEMM | {"m": ["x", "1"]}, r"row 1 \('x'\)"),
        ("gemm", GEMM | {"latency": [1.0, 0.0]}, r"'latency' must hold positive finite numbers .*; 1 of 2 .*row 2 \(0.0\)"),
        ("custom_allreduce", REDUCE | {"message_size": ["8 MB"]}, r"'message_size' must hold whole numbers.*row 1 \('8 MB'\)"),
        ("custom_allreduce", REDUCE | {"allreduce_dtype": ["double"]}, r"must hold half, bfloat16, int8; .*row 1 \('double'\)"),
        ("custom_allreduce", {n: c for n, c in REDUCE.items() if n != "allreduce_dtype"}, "message_size.*dtype or nccl_dtype or allreduce_dtype"),
        ("generation_attention", DECODE | {"num_heads": ["many"]}, r"'num_heads' must hold whole numbers .*row 1 \('many'\)"),
        ("generation_attention", DECODE | {"num_key_value_heads": [4]}, "row 1 of the table generation_attention: heads is 6 and kv_heads is 4"),
    ],
)  # fmt: skip
def test_one_clear_error_in_a_layout(name, given, message):
    with pytest.raises(InvalidValueError, match=message) as caught:
        read_layout(name, given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"m": [1], "n": [8], "k": [8], "dtype": ["bf16"], "latency_us": [14.0]}, "because its name ends in .*no column 'latency'; nearest: latency_us"),
        (GEMM | {"m": [0, 1]}, r"gemm_perf.parquet.*column 'm' must hold .*row 1 \(0\)"),
        ({n: [] for n in GEMM}, "gemm_perf.parquet.* but no rows"),
        (GEMM | {"gemm_dtype": ["fp7"] * 2}, "no row of .* can be read: 2 rows .* unknown label fp7; known: bfloat16"),
    ],
)  # fmt: skip
def test_a_file_of_the_layout_is_refused_by_its_name(tmp_path, columns, message):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table(columns), tmp_path / "gemm_perf.parquet")
    for path in (tmp_path, tmp_path / "gemm_perf.parquet"):
        with pytest.raises(InvalidValueError, match=message):
            read_table(path)


def test_experts_are_run_as_their_table_says():
    columns = {"num_tokens": 4096, "hidden_size": 64, "inter_size": 128, "topk": 2, "num_experts": 8, "moe_tp_size": 1, "moe_ep_size": 4}
    columns |= {"moe_dtype": "bfloat16", "distribution": "power_law_1.2", "latency": 1.0}
    (group,) = read_layout("moe", {name: np.array([value]) for name, value in columns.items()}).groups
    average = 2 * (4096 * 2 / 4) * 3 * 64 * 128
    assert group.op.flops[0] == average
    assert run_as(group).op.flops[0] > 1.1 * average  # the busiest rank of a power law
    columns["distribution"] = "balanced"
    (group,) = read_layout("moe", {name: np.array([value]) for name, value in columns.items()}).groups
    assert run_as(group).op.flops[0] == average
    columns["distribution"] = "power_law_steep"
    (group,) = read_layout("moe", {name: np.array([value]) for name, value in columns.items()}).groups
    with pytest.raises(InvalidValueError, match="routing is 'power_law_steep'"):
        run_as(group)


@pytest.fixture(scope="module")
def h100_tables():
    """The tables of the wheel for an H100."""
    pytest.importorskip("pyarrow")
    spec = find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("aiconfigurator-core is not installed: a wheel for Linux x86-64 with measured kernels")
    return Path(spec.submodule_search_locations[0], "systems", "data", "h100_sxm")


def test_the_layout_is_read_folder_by_folder_and_file_by_file(h100_tables):
    engine = h100_tables / "gemm" / "vllm" / "0.24.0"
    by_folder, by_file = read_table(engine), read_table(engine / "gemm_perf.parquet")
    assert len(by_folder) == len(by_file) == 107_188
    assert by_file.groups[0].origin["framework"] == "vllm"
    assert by_file.groups[0].origin["version"] == "0.24.0"
    assert {(g.stored, g.operand) for g in by_file} == {("bf16", "bf16"), ("fp8", "fp8"), ("fp8_block128", "fp8")}
    with pytest.raises(InvalidValueError, match="leave out unit, kind, time, ignore and columns"):
        read_table(engine, unit="ms")


def test_machines_and_layouts_of_the_wheel_exist(h100_tables):
    for folder, machine in MACHINES.items():
        assert (h100_tables.parent / folder).is_dir()
        Hardware.load(machine)
    assert {layout.kind for layout in LAYOUTS.values()} == set(KINDS)
    found = {
        path.name.removesuffix("_perf.parquet") for gpu in ("h100_sxm", "gb200") for path in (h100_tables.parent / gpu).rglob("*.parquet")
    }
    assert set(LAYOUTS) <= found


def test_a_record_from_the_wheel(h100_tables):
    pytest.importorskip("scipy")
    read = read_table(h100_tables / "gemm" / "trtllm")
    record = record_from_tables(read, "h100-sxm", id="h100-gemm", source="wheel", software={"trtllm": "1.3.0rc20"}, rows_per_table=200)
    assert record.hardware == "h100-sxm"
    assert record.rates.memory_bandwidth == H100.memory_bandwidth
    assert {(c.family, c.stored) for c in record.classes} == {("matmul", "bf16"), ("matmul", "fp8"), ("matmul", "fp8_block128")}
    for c in record.classes:
        assert len(c.samples.seconds) == 200
        assert c.error < 0.2
        # anyone can count the samples again, and finds them among the table's rows
        op = count_op("matmul", **{n: np.array(column) for n, column in c.samples.sizes.items()}, **c.fixed_sizes)
        assert (op.compulsory_bytes + op.activation_bytes).tolist() == list(c.samples.moved_bytes)
        rows = {
            row for g in read.where(stored=c.stored) for row in zip(*(g.sizes[x].tolist() for x in "mnk"), g.seconds.tolist(), strict=True)
        }
        assert set(zip(*(c.samples.sizes[x] for x in "mnk"), c.samples.seconds, strict=True)) <= rows


# ---------------------------------------------------------------------------------------------------------- records, synthetic


def synthetic(rows=400, seed=1, noise=0.03):
    """Products whose times follow a plain law: 4 µs, 0.7 of the peak and 0.8 of the bandwidth, the longer of the two."""
    draw = np.random.default_rng(seed)
    sizes = {name: 2 ** draw.integers(low, 14, rows) for name, low in (("m", 0), ("n", 8), ("k", 8))}
    op = count_op("matmul", **sizes, format="bf16", weights="bf16")
    longer = np.maximum(
        op.flops / (0.7 * H100.peak("bf16").value), (op.compulsory_bytes + op.activation_bytes) / (0.8 * H100.memory_bandwidth)
    )
    return {**sizes, "format": ["bf16"] * rows, "seconds": (4e-6 + longer) * np.exp(noise * draw.standard_normal(rows))}


@pytest.fixture(scope="module")
def record():
    pytest.importorskip("scipy")
    return record_from_tables(synthetic(), "h100-sxm", id="synthetic", source="a law", date="2026-01-02", rows_per_table=100)


def test_the_law_behind_a_table_is_found(record):
    (c,) = record.classes
    assert len(c.samples.seconds) == 100
    assert c.error < 0.06  # 3 % of noise has a mean of 2.4 %
    assert c.constants["fixed_s"].value == pytest.approx(4e-6, rel=0.2)
    assert c.constants["bandwidth_share"].value == pytest.approx(0.8, rel=0.1)
    assert "100 of 400 rows" in c.note
    assert c.residual_quantiles[0] < 0 < c.residual_quantiles[-1]


def test_steps_of_few_tokens_and_of_many_have_intervals_of_their_own(record):
    """One law, with noise of 1 % up to 256 rows and of 10 % beyond: 80 % of normal noise lies within 1.28 standard deviations."""
    few, many = synthetic(noise=0.01), synthetic(noise=0.1)
    table = {name: np.where(few["m"] <= 256, few[name], many[name]) if name != "format" else few[name] for name in few}
    options = {"id": "synthetic", "source": "a law", "date": "2026-01-02", "rows_per_table": 200}
    (c,) = (made := record_from_tables(table, "h100-sxm", **options)).classes
    places = [PERCENTILES.index(p) for p in (10, 90)]
    spread = {kind: float(np.diff([quantiles[p] for p in places])[0]) for kind, quantiles in c.step_quantiles.items()}
    assert spread["decode"] == pytest.approx(2 * 1.28 * 0.01, rel=0.5)
    assert spread["prefill"] == pytest.approx(2 * 1.28 * 0.1, rel=0.5)
    assert spread["decode"] < c.residual_quantiles[places[1]] - c.residual_quantiles[places[0]] < spread["prefill"]
    steps = (
        decode_estimate("llama-3-8b", "h100-sxm", context=64, calibration=made),
        prefill_estimate("llama-3-8b", "h100-sxm", prompt=512, calibration=made),
    )
    for step, kind in zip(steps, ("decode", "prefill"), strict=True):
        product = next(row for row in step.by_op() if row.name == "mlp.down_proj")
        assert product.high_s / product.time_s == pytest.approx(np.exp(c.step_quantiles[kind][places[1]]))


def test_the_same_tables_give_the_same_record(record):
    options = {"id": "synthetic", "source": "a law", "date": "2026-01-02", "rows_per_table": 100}
    assert record_from_tables(synthetic(), "h100-sxm", **options) == record
    assert record_from_tables(synthetic(seed=2), "h100-sxm", **options) != record


def test_the_rows_to_fit_do_not_depend_on_the_highest_clock():
    """Shares refer to the data sheet's peaks, so that a record can be fitted again when a source gives the clock."""
    slow, fast = H100.but(clock=None), H100.but(clock=H100.clock.but(highest_hz=4 * H100.clock.highest_hz))
    tables = [read_table(synthetic())]
    ((one,),), ((other,),) = ([fitted for fitted, _ in split_classes(tables, m, rows_per_table=100).values()] for m in (slow, fast))
    assert one.seconds.tolist() == other.seconds.tolist()


def test_some_rows_of_a_small_class_are_held_out():
    pytest.importorskip("scipy")
    record = record_from_tables(synthetic(rows=50), "h100-sxm", id="small", source="a law")
    assert len(record.classes[0].samples.seconds) == 40


def test_what_was_left_out_is_said():
    pytest.importorskip("scipy")
    few = {name: list(column[:3]) for name, column in synthetic().items()} | {"format": ["fp8"] * 3}
    record = record_from_tables([synthetic(), few], "h100-sxm", id="two", source="a law")
    assert [c.stored for c in record.classes] == ["bf16"]
    assert re.search("reading fp8.* too few", record.plan)
    with pytest.raises(CalibrationError, match=r"nothing .* can be fitted.*too few"):
        record_from_tables(few, "h100-sxm", id="few", source="a law")


@pytest.mark.parametrize("rows", range(1, 7))
def test_too_few_rows_are_counted_as_the_table_has_them(rows):
    pytest.importorskip("scipy")
    few = {name: column[:rows] for name, column in synthetic().items()}
    with pytest.raises(CalibrationError, match=rf"not fitted: {rows} rows? (is|are) too few; at least 7 are needed\.$"):
        record_from_tables(few, "h100-sxm", id="few", source="a law")


def test_as_many_rows_as_are_needed_are_enough():
    pytest.importorskip("scipy")
    enough = {name: column[:7] for name, column in synthetic().items()}
    assert len(record_from_tables(enough, "h100-sxm", id="seven", source="a law").classes[0].samples.seconds) == 5


@pytest.mark.parametrize("wrong", [{"seconds": synthetic()["seconds"] * 1e-3}, {"format": ["fp32"] * 400}], ids=["unit", "label"])
def test_rows_that_no_kernel_can_have_are_named_in_the_record(wrong):
    pytest.importorskip("scipy")
    wrong = synthetic() | wrong
    record = record_from_tables(wrong, "h100-sxm", id="wrong", source="a law", rows_per_table=100)
    poor, too_fast = map(str, record.conditions)
    assert re.match(r"poor fit: matmul \w+, mean error \d+% on samples held out", poor)
    assert re.fullmatch(r"\d+ of 400 rows of matmul \w+ are faster than their floor: see check_table", too_fast)
    assert int(too_fast.split()[0]) == len(check_table(wrong, "h100-sxm").below["row"])


def test_experts_are_held_against_their_floor_and_not_against_a_routing():
    """Under a power law the busiest rank is an estimate; rows between their floor and that are faster than nothing."""
    pytest.importorskip("scipy")
    tokens = [2**i for i in range(14)] * 2
    shape = {"hidden_size": 2048, "inter_size": 1024, "topk": 2, "num_experts": 8, "moe_tp_size": 1, "moe_ep_size": 4}
    columns = {name: [value] * 28 for name, value in (shape | {"moe_dtype": "bfloat16", "distribution": "power_law_1.2"}).items()}
    (group,) = read_layout("moe", {"num_tokens": tokens, **columns, "latency": [1.0] * 28}).groups
    floor, run = group.floor(H100).time_s, run_as(group).floor(H100).time_s
    assert (run > 1.02 * floor).any()
    for share, conditions in ((1.01, 0), (0.9, 1)):
        read = read_layout("moe", {"num_tokens": tokens, **columns, "latency": share * floor * 1e3})
        record = record_from_tables(read, "h100-sxm", id="experts", source="a law")
        assert len([c for c in record.conditions if c.code == "faster than floor"]) == conditions


def test_a_record_of_good_rows_has_no_conditions(record):
    assert record.conditions == ()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"id": ""}, "id is ''; it must be text that is not empty"),
        ({"id": 5}, "id is 5; it must be text"),
        ({"id": b"8"}, "id is b'8'; it must be text"),
        ({"source": None}, "source is None; it must be text"),
        ({"device": 5}, "device is 5; it must be text"),
        ({"date": "8"}, "date is '8'; it must be in ISO 8601, like 2026-11-30"),
        ({"date": False}, "date is False; it must be text"),
        ({"software": "8"}, "software is '8'; it must be a mapping of names to versions"),
        ({"software": -1}, "software is -1; it must be a mapping"),
        ({"software": 0}, "software is 0; it must be a mapping"),
        ({"software": {"cuda": 13}}, "software has 'cuda': 13; names and versions must be text"),
        ({"rows_per_table": None}, "rows_per_table is of type NoneType; it must be a whole number of at least 5"),
        ({"rows_per_table": [1]}, "rows_per_table is of type list"),
        *(({"rows_per_table": bad}, f"rows_per_table is {bad}.*; it must be a whole number") for bad in (float("inf"), 1e30, 0, -1, 4, True, 0.5)),
    ],
    ids=str,
)  # fmt: skip
def test_a_record_of_what_cannot_be_is_refused_before_anything_is_fitted(option, message, monkeypatch):
    monkeypatch.setattr("roofline.fitting.tables.fitted_fields", None)
    given = {"id": "mine", "source": "a law"} | option
    with pytest.raises(InvalidValueError, match=re.escape(message) if ".*" not in message else message.replace("+", r"\+")) as caught:
        record_from_tables(PLAIN, "h100-sxm", **given)
    assert "\n" not in str(caught.value)


def test_a_record_of_no_table_is_refused():
    with pytest.raises(InvalidValueError, match="sources is an empty list; it must be a table"):
        record_from_tables([], "h100-sxm", id="none", source="nobody")


def test_a_machine_without_links_fits_no_collective():
    pytest.importorskip("scipy")
    draw = np.random.default_rng(0)
    size = 2 ** draw.integers(10, 30, 60)
    rows = {"op": ["all_reduce"] * 60, "ranks": draw.choice([2, 4, 8], 60), "bytes": size, "seconds": 5e-6 + size / 300e9}
    record = record_from_tables(rows, "h100-sxm", id="links", source="a law")
    assert record.classes[0].family == "all_reduce"
    assert record.rates.link_bandwidth == H100.link_ceiling.value
    with pytest.raises(CalibrationError, match="rate of links"):
        record_from_tables(rows, Hardware.from_rates(memory_bandwidth=1e12), id="links", source="a law")
