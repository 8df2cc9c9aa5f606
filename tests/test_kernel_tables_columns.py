"""Columns of tables as engines, libraries and people call them: each is read, named as ignored, or an error; none is silently left out.

Names of columns are those of FlashInfer (`benchmarks/routines/flashinfer_benchmark_utils.py`), the CUTLASS profiler, hipBLASLt-bench,
vLLM's `benchmark_paged_attention.py`, flash-attention's and Triton's benchmarks, and aiconfigurator's collectors.
"""

import os
import warnings

import numpy as np
import pytest

from roofline import Hardware, InvalidValueError, attention_floor, check_table, matmul_floor, record_from_tables
from roofline.errors import CalibrationError
from roofline.kernel_tables import read_table
from roofline.kernels import KINDS

H100 = Hardware.load("h100-sxm")
DECODE = {"batch": [64], "heads": [64], "kv_heads": [8], "head_dim": [128], "dtype": ["bf16"], "time_us": [700]}
MATMUL = {"m": [16, 32], "n": [4096, 4096], "k": [4096, 4096], "dtype": ["bf16", "bf16"], "time_us": [12.0, 13.0]}


def group(**columns):
    """The only group of a table of decode attention with other or (None) fewer columns."""
    table = DECODE | {name: [value] for name, value in columns.items()}
    (found,) = read_table({name: column for name, column in table.items() if column != [None]}).groups
    return found


# -------------------------------------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize(
    "name",
    ["seq_len", "seqlen", "ctx", "isl", "context_length", "context_len", "s_kv", "seqlen_k", "kv_len", "max_kv_len", "S", "SeqLen", "past"],
)
def test_a_length_is_never_ignored(name):
    """64 sequences of 8192 positions are 2.15 GB of bf16 keys and values of 8 heads × 128: 64 · 8192 · 2 · 8 · 128 · 2 bytes at 3.352 TB/s
    less the cache are 626 µs on an H100, so 100 µs are not possible."""
    result = check_table(DECODE | {name: [8192], "time_us": [100]}, "h100-sxm")
    assert not result.ok
    assert result.rows["floor_s"][0] == pytest.approx(626e-6, rel=2e-3)
    assert f"{name} as" in str(result)
    assert check_table(DECODE | {name: [8192], "time_us": [700]}, "h100-sxm").ok


@pytest.mark.parametrize("name", ["n_kv_heads", "hkv", "num_key_value_heads", "num_kv_heads", "nheads_k", "heads_kv", "h_kv"])
def test_key_value_heads_are_never_ignored(name):
    table = {name if n == "kv_heads" else n: c for n, c in (DECODE | {"ctx": [8192]}).items()}
    assert check_table(table, "h100-sxm").ok
    assert group(kv_heads=None, ctx=8192, **{name: 8}).fixed["kv_heads"] == 8


@pytest.mark.parametrize(
    ("columns", "context", "new"),
    [
        ({"s_qo": 1, "s_kv": 8192}, 8191, 1),
        ({"seqlen_q": 512, "seqlen_k": 4096}, 3584, 512),
        ({"query_len": 512, "seq_len": 4096}, 3584, 512),  # vLLM: seq_len counts the query
        ({"seqlen": 2048, "seqlen_k": 2048}, 0, 2048),
        ({"context": 1024, "kv_len": 1536}, 1024, 512),
        ({"cache_len": 1024, "q_len": 512, "kv_len": 1536}, 1024, 512),
        ({"q_len": 4096}, 0, 4096),
        ({"ctx": 4096}, 4096, 1),
        ({"isl": 1024, "step": 8, "phase": "generation"}, 1031, 1),  # aiconfigurator: a step attends to isl + step positions
        ({"isl": 1024, "step": 8, "op_name": "context_attention"}, 8, 1024),  # and a prompt follows so many cached tokens
        ({"seq_len": 1024, "phase": "prefill"}, 0, 1024),
        ({"seq_len": 1024, "stage": "decode"}, 1023, 1),
        ({"kv_len": 1024, "is_prefill": True}, 0, 1024),
    ],
    ids=str,
)
def test_what_is_cached_and_what_is_new(columns, context, new):
    sizes = {"context": 0, "new": 1} | {name: column[0] for name, column in group(**columns).sizes.items()}
    assert (sizes["context"], sizes["new"]) == (context, new)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "no column of lengths: context .tokens in the cache., new .new tokens., kv_len .both. or seq_len"),
        ({"seq_len": 512, "context": 100}, "is seq_len the length of the new tokens or of all"),
        ({"q_len": 512, "kv_len": 100}, "the length of the cache counts the new tokens too"),
        ({"q_len": 512, "kv_len": 1000, "context": 100}, "do not add up"),
        ({"isl": 512, "step": 5, "q_len": 1}, "say a length more than once"),
        ({"seq_len": 512, "seqlen": 512}, "'seq_len', 'seqlen' could all be 'seq_len'"),
        ({"isl": 512, "osl": 128}, "column 'osl' looks like a size of the attention kernels and is not understood"),
    ],
    ids=str,
)
def test_lengths_that_contradict_each_other(columns, message):
    with pytest.raises(InvalidValueError, match=message):
        group(**columns)


def test_a_length_that_is_taken_for_a_cache_is_said():
    reading = read_table(DECODE | {"seqlen": [8192]}).reading
    assert any("seqlen is the length of the cache at a decode step" in text for text in reading.assumed)
    assert not any("seqlen" in text for text in read_table(DECODE | {"seqlen": [8192], "phase": ["decode"]}).reading.assumed)


def test_prompts_that_were_read_as_decode_steps_are_a_finding():
    """FlashAttention's benchmark has seqlen for queries and keys alike."""
    flash = {"batch_size": [2, 1], "seqlen": [8192, 16384], "nheads": [16, 16], "headdim": [128, 128], "causal": [True, True]}
    flash |= {"dtype": ["fp16"] * 2, "fwd_ms": [1.4, 2.7]}  # 4 · 16384² · 16 · 128 / 2 FLOP in 2.7 ms are 407 TFLOP/s
    machine = Hardware.from_rates(memory_bandwidth=3e12, peak_flops_per_s=1e15)
    (finding,) = check_table(flash, machine).findings
    assert finding.reason == "prompts"
    assert "columns={'seqlen': 'new'}" in finding.evidence
    result = check_table(flash, machine, columns={"seqlen": "new"})
    assert result.ok
    assert result.rows["share"][0] == pytest.approx(407 / 1000, rel=0.01)


# -------------------------------------------------------------------------------------------------------- other sizes and masks


def test_a_batch_of_products():
    table = {"batch": [32], "M": [4096], "N": [2048], "K": [1024], "dtype": ["bf16"], "time_ms": [6.5]}
    (found,) = read_table(table).groups
    alone = matmul_floor(4096, 2048, 1024, H100, format="bf16").op
    assert found.op.flops[0] == 32 * alone.flops
    assert found.op.weight_bytes[0] == 32 * alone.weight_bytes
    assert found.op.activation_bytes[0] == 32 * alone.activation_bytes
    assert next(found.shapes()) == "32 of 4096 × 2048 × 1024"


def test_a_batch_that_is_the_number_of_rows_again_is_asked_about():
    twice = MATMUL | {"batch": [16, 32]}
    with pytest.raises(InvalidValueError, match="'batch' equals 'm' in every row"):
        read_table(twice)
    assert [g.fixed["batch"] for g in read_table(twice, ignore="batch")] == [1]
    assert [g.fixed["batch"] for g in read_table(twice, columns={"batch": "batch_count"})] == [16, 32]


@pytest.mark.parametrize(("name", "value", "window"), [("window_left", -1, 0), ("window_left", 1023, 1024), ("window_size", -1, 0), ("window_size", 1024, 1024), ("sliding_window", "", 0)])  # fmt: skip
def test_a_window_of_none(name, value, window):
    table = {n: c * 2 for n, c in (DECODE | {"ctx": [8192]}).items()} | {name: [value, 4096]}
    windows = {int(row): g.fixed["window"] for g in read_table(table) for row in g.rows}
    assert windows == {0: window, 1: 4097 if name == "window_left" else 4096}


@pytest.mark.parametrize(("causal", "visible"), [(True, "causal"), ("False", "bidirectional"), (0, "bidirectional"), ("causal", "causal")])
def test_causal_or_not(causal, visible):
    found = group(q_len=2048, kv_len=2048, is_causal=causal)
    assert (
        found.floor(H100).flops[0]
        == attention_floor(hardware=H100, heads=64, kv_heads=8, head_dim=128, batch=64, new=2048, visible=visible).flops
    )


def test_new_tokens_that_see_a_whole_cache_are_counted_as_causal_and_it_is_said():
    table = DECODE | {"q_len": [512], "kv_len": [4096], "causal": [False]}
    assert any("causal products in 1 row" in text for text in read_table(table).reading.assumed)
    assert read_table(table).groups[0].fixed["visible"] == "causal"


# ------------------------------------------------------------------------------------------------ what libraries and engines print

CUTLASS = {
    "Problem": 1,
    "Provider": "CUTLASS",
    "Disposition": "passed",
    "gemm_kind": "universal",
    "m": 4096,
    "n": 4096,
    "k": 8192,
    "A": "f16:column",
    "B": "f16:row",
    "C": "f16:column",
    "D": "f16:column",
    "alpha": 1,
    "split_k_slices": 1,
    "batch_count": 1,
    "swizzle_size": 1,
    "op_class": "tensorop",
    "accum": "f32",
    "cta_m": 256,
    "cta_n": 128,
    "cluster_m": 1,
    "stages": 3,
    "warps_m": 4,
    "inst_m": 16,
    "min_cc": 80,
    "max_cc": 1024,
    "Bytes": 167772160,
    "Flops": 274911461376,
    "Flops/Byte": 1638,
    "Runtime": 1.7,
    "GB/s": 95.5969,
    "GFLOPs": 168196,
}
HIPBLASLT = {
    "transA": "T",
    "transB": "N",
    "grouped_gemm": 0,
    "batch_count": 1,
    "m": 8192,
    "n": 8192,
    "k": 8192,
    "alpha": 1,
    "lda": 8192,
    "stride_a": 67108864,
    "beta": 0,
    "ldb": 8192,
    "stride_b": 67108864,
    "a_type": "f8_r",
    "b_type": "f8_r",
    "c_type": "bf16_r",
    "d_type": "bf16_r",
    "compute_type": "f32_r",
    "activation_type": "none",
    "bias_type": "bf16_r",
    "rotating_buffer": 512,
    "hipblaslt-Gflops": 1292110,
    "hipblaslt-GB/s": 440.689,
    "us": 850.941,
}
VLLM = {"num_seqs": 64, "seq_len": 8192, "num_query_heads": 64, "num_kv_heads": 8, "head_size": 128, "block_size": 16, "dtype": "bfloat16"}
FLASHINFER = {
    "routine": "BatchDecodeWithPagedKVCacheWrapper",
    "median_time": 0.7,
    "std_time": 0.01,
    "tflops": 100,
    "tb_per_sec": 2.9,
    "s_qo": 1,
    "s_kv": 8192,
    "head_dim_qk": 128,
    "head_dim_vo": 128,
    "head_dim_ckv": "",
    "causal": False,
    "q_dtype": "bfloat16",
    "kv_dtype": "fp8_e4m3",
    "n": "",
    "m": "",
    "batch_size": 64,
    "num_qo_heads": 64,
    "num_kv_heads": 8,
    "page_size": 16,
    "random_seed": 42,
    "use_cupti": True,
}


def one(row, **options):
    (found,) = read_table({name: [value] for name, value in row.items()}, **options).groups
    return found


def test_the_cutlass_profiler():
    found = one(CUTLASS, unit="ms")
    assert found.seconds[0] == 1.7e-3
    assert found.fixed == {"batch": 1, "format": "fp16", "weights": "fp16", "output": "fp16"}


def test_hipblaslt_bench():
    found = one(HIPBLASLT)
    assert found.fixed == {"batch": 1, "format": "fp8", "weights": "fp8", "output": "bf16"}
    assert found.seconds[0] == 850.941e-6


def test_vllm_and_flashinfer():
    for row, options, formats in (
        (VLLM | {"kv_cache_dtype": "auto", "kernel_us": 700}, {}, {}),
        (FLASHINFER, {"unit": "ms"}, {"kv": "fp8"}),
    ):
        floor = attention_floor(hardware=H100, heads=64, kv_heads=8, head_dim=128, batch=64, context=8191, **formats)
        assert one(row, **options).floor(H100).time_s[0] == floor.time_s


def test_a_result_in_fewer_bits_is_not_counted_in_more():
    fp8 = MATMUL | {"dtype": ["fp8", "fp8"]}
    wide, narrow = (read_table(table).groups[0].op.output_bytes[0] for table in (fp8, fp8 | {"out_dtype": ["fp8", "fp8"]}))
    assert (wide, narrow) == (2 * 16 * 4096, 16 * 4096)
    assert "results in bf16" in read_table(fp8).reading.assumed


# --------------------------------------------------------------------------------------------- what was read, and what was not


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tp", [8, 8]),
        ("groups", [4, 4]),
        ("num_layers", [80, 80]),
        ("avg_seq_len", [512.5, 700.25]),
        ("seq_lens", ["[512, 1024]", "[512]"]),
        ("foo", ["2", "3"]),
        ("E", [8, 8]),
    ],
)
def test_a_column_that_may_be_a_size_is_an_error_that_says_what_to_do(name, values):
    with pytest.raises(
        InvalidValueError, match=rf"column '{name}' looks like a size of the matmul kernels .*ignore=\['{name}'\]"
    ) as caught:
        read_table(MATMUL | {name: values})
    assert f"columns={{'{name}': " in str(caught.value)
    read = read_table(MATMUL | {name: values}, ignore=name)
    assert name in read.reading.ignored
    assert len(read) == 2


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tflops", [700, 710]),
        ("GFLOPs", [700, 710]),
        ("hipblaslt-GB/s", [700, 710]),
        ("p99_us", [14, 15]),
        ("std_time_us", [2, 3]),
        ("iters", [100, 100]),
        ("random_seed", [42, 43]),
        ("BLOCK_SIZE_M", [64, 128]),
        ("num_warps", [4, 8]),
        ("num_stages", [3, 4]),
        ("kernel", ["sm90_xmma_gemm", "nvjet"]),
        ("passed", [True, True]),
        ("split_k", [2, 4]),
        ("power", [500, 600]),
        ("note", ["", ""]),
    ],
)
def test_what_is_no_size_is_ignored_by_name(name, values):
    table = MATMUL | {name: values}
    assert read_table(table).reading.ignored == (name,)
    assert f"ignored: {name}" in str(check_table(table, "h100-sxm"))


def test_columns_are_ignored_by_pattern_and_read_by_order():
    odd = MATMUL | {"my_a": [2, 3], "my_b": [4, 5]}
    with pytest.raises(InvalidValueError, match="columns 'my_a', 'my_b' look like sizes"):
        read_table(odd)
    assert read_table(odd, ignore=["my_*"]).reading.ignored == ("my_a", "my_b")
    rows = {"rows_of_mine": [16, 32], **{name: column for name, column in MATMUL.items() if name != "m"}}
    read = read_table(rows, columns={"rows_of_mine": "m"})
    assert read.groups[0].sizes["m"].tolist() == [16, 32]
    assert read.reading.read["rows_of_mine"] == "m"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore": "nn"}, "ignore names 'nn', and the table has no such column"),
        ({"ignore": 5}, "ignore is 5; it must be names of columns"),
        ({"columns": {"q": "m"}}, "columns names 'q', and the table has no such column"),
        ({"columns": {"m": "n"}}, "columns reads 'm' as 'n', which another column is as well"),
        ({"columns": {"m": 1}}, "it must be a mapping of names of columns to what they are"),
    ],
)
def test_columns_that_do_not_exist_cannot_be_ignored_or_read(options, message):
    with pytest.raises(InvalidValueError, match=message):
        read_table(MATMUL, **options)


def test_a_check_says_what_it_read_in_which_unit_and_what_it_assumed():
    fp8 = {"bs": [64], "ctx": [8192], "h": [64], "d": [128], "kv_dtype": ["fp8"], "latency_ms": [9.0], "tflops": [3.0]}
    text = str(check_table(fp8, "h100-sxm"))
    assert "read: latency_ms as time in ms, bs as batch, h as heads, d as head_dim, ctx as context, kv_dtype as kv" in text
    assert "assumed: one new token for each sequence, kv_heads equal to heads" in text
    assert "ignored: tflops" in text
    assert check_table(MATMUL, "h100-sxm").to_dict()["unit"] == "us"
    assert "time_us as time in ns" in str(check_table(MATMUL, "h100-sxm", unit="ns"))


# -------------------------------------------------------------------------------------------------------------------- holes


@pytest.mark.parametrize("hole", ["", None, float("nan"), "OOM", "n/a", " - ", "NaN", "skipped"])
@pytest.mark.parametrize("name", ["m", "dtype", "time_us"])
def test_rows_with_holes_are_skipped_counted_and_named(name, hole):
    table = {n: [*c, c[0]] for n, c in MATMUL.items()}
    table[name][1] = hole
    read = read_table(table)
    assert sorted(row for g in read for row in g.rows.tolist()) == [0, 2]
    (note,) = read.skipped
    assert note == f"1 of 3 rows have holes: row 2 ({'a format' if name == 'dtype' else name})"
    result = check_table(table, "h100-sxm")
    assert f"skipped: {note}" in str(result)
    assert sorted(result.rows["row"].tolist()) == [1, 3]


def test_rows_keep_their_place_when_others_are_skipped():
    seconds = matmul_floor([16384] * 3, 8192, 8192, H100, format="bf16").time_s
    table = {"m": [16384] * 3, "n": [8192] * 3, "k": [8192] * 3, "dtype": ["bf16"] * 3, "s": [None, seconds[1] / 1.01, seconds[2] / 1.5]}
    assert check_table(table, "h100-sxm").below["row"].tolist() == [3, 2]
    with pytest.raises(InvalidValueError, match=r"'s' must hold positive finite numbers.*: row 3 \(-1\)"):
        check_table(table | {"s": [None, 1, -1]}, "h100-sxm")


# ---------------------------------------------------------------------------------------------------------------- hostile files


def test_a_table_that_lies_on_its_side_is_refused_at_once(tmp_path):
    (tmp_path / "wide.csv").write_text(",".join(f"c{i}" for i in range(100_000)) + "\n" + ",".join("1" * 100_000))
    for source in (tmp_path / "wide.csv", {f"c{i}": [1] for i in range(100_000)}):
        with pytest.raises(InvalidValueError, match="has 100,000 columns, and at most 1,000 are read"):
            read_table(source)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "gemm_perf.parquet"])
def test_only_regular_files_are_read(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    os.mkfifo(tmp_path / name)
    with pytest.raises(InvalidValueError, match=r"cannot read .*only regular files are read\.$"):
        read_table(tmp_path / name)


@pytest.mark.parametrize("seconds", [1e-320, 1e308, 5e-31])
def test_times_beyond_any_kernel_are_refused(seconds):
    with pytest.raises(InvalidValueError, match="positive finite numbers"):
        read_table(MATMUL | {"time_us": [seconds, 1.0]})


@pytest.mark.parametrize("seconds", [1e-24, 1e-12, 1.0, 1e12, 1e29])
@pytest.mark.parametrize("kind", ["matmul", "attention"])
def test_no_time_makes_numpy_warn(kind, seconds):
    table = MATMUL if kind == "matmul" else {name: column * 2 for name, column in (DECODE | {"seqlen": [2**53]}).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = check_table(table | {"time_us": [seconds, 2 * seconds]}, "h100-sxm")
        assert np.isfinite(result.rows["share"]).all()
        str(result)


def test_what_was_given_is_not_quoted_at_length():
    long = "x" * 300_000
    for table in ({long: [2, 3]}, {"m": [long, 1]}, {long: ["a", "b"], "time_us": None}):
        with pytest.raises(InvalidValueError) as caught:
            read_table({name: column for name, column in (MATMUL | table).items() if column is not None})
        assert len(str(caught.value)) < 600


def test_a_record_of_impossible_times_is_refused_in_one_sentence():
    pytest.importorskip("scipy")
    draw = np.random.default_rng(0)
    table = {name: 2 ** draw.integers(4, 13, 40) for name in "mnk"} | {"dtype": ["bf16"] * 40, "s": draw.uniform(1e19, 2e20, 40)}
    with pytest.raises(CalibrationError, match=r"not fitted: .*residual_quantiles has .*; logarithms of measured / fitted lie"):
        record_from_tables(table, "h100-sxm", id="far", source="nobody")


def test_a_record_says_what_was_skipped_and_assumed():
    pytest.importorskip("scipy")
    batch, context = (np.tile(2.0 ** np.arange(3, 8), 4), np.repeat(2.0 ** np.arange(9, 13), 5))
    time = attention_floor(hardware=H100, heads=32, head_dim=128, batch=batch.astype(int), context=context.astype(int)).time_s * 1.3 + 8e-6
    table = {"batch": batch, "ctx": context, "heads": [32] * 20, "head_dim": [128] * 20, "dtype": ["bf16"] * 20, "s": time}
    table["s"][3] = np.nan
    plan = record_from_tables(table, "h100-sxm", id="mine", source="a law").plan
    assert "1 of 20 rows have holes: row 4 (s)" in plan
    assert "assumed: kv_heads equal to heads" in plan
    table["s"] = table["s"] / 8  # as with a sixth of the heads, or fewer
    (condition,) = (c for c in record_from_tables(table, "h100-sxm", id="mine", source="a law").conditions if c.code == "faster than floor")
    assert "rows of attention bf16, with kv_heads equal to heads assumed, are faster than their floor" in condition.text


def test_every_kind_is_found_by_its_own_names():
    for kind in KINDS.values():
        names = [name for size in kind.required for name in (size.names[0],)] + (["rank"] if kind.name == "latent_attention" else [])
        table = {name: [8] for name in names} | {"us": [100.0], "ctx": [16]}
        table |= {"op": ["all_reduce"]} if kind.name == "collective" else {"dtype": ["bf16"]}
        if not any(size.name == "new" for size in kind.sizes):
            del table["ctx"]
        assert {g.kind for g in read_table(table)} == {kind.name}
