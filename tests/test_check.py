"""`roofline check`: a table of measured kernels against physics, and the likely reason for what beats it."""

import csv
import io
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from roofline import Hardware, InvalidValueError, RooflineError, UnknownNameError, attention_floor, kernel_estimate, matmul_floor
from roofline.kernel_tables import check_table, read_table
from roofline.kernel_tables.reasons import unit_shift
from shell import invoke

H100, A100 = Hardware.load("h100-sxm"), Hardware.load("a100-sxm-80gb")
SHAPES = [(m, n, k) for m in (1, 16, 256, 4096, 16384) for n in (1024, 8192, 28672) for k in (4096, 16384)]
SIZES = {name: [shape[i] for shape in SHAPES] for i, name in enumerate("mnk")}
M, N, K = (np.array(SIZES[name]) for name in "mnk")
LAUNCH = 3e-6


def roofline(machine, floor):
    """Time of kernels at the machine's rates, nothing cached."""
    return np.maximum(floor.compute_s, floor.total_bytes / machine.memory_bandwidth)


def run_at(machine=H100, share=0.8, **formats):
    """Times of kernels that reach a share of the machine's rates in some formats."""
    return LAUNCH + roofline(machine, matmul_floor(M, N, K, machine, **formats)) / share


def products(seconds, label="bf16", name="seconds"):
    """A table of matrix products."""
    return {**SIZES, "format": [label] * len(SHAPES), name: seconds}


def reasons(result):
    """Rows below the floor by likely reason."""
    names, counts = np.unique(result.below["reason"], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


# ------------------------------------------------------------------------------------------------------------- tables that hold


@pytest.mark.parametrize("label", ["bf16", "fp8", "int8", "fp8_block"])
@pytest.mark.parametrize("share", [0.3, 0.8, 0.99])
def test_plausible_kernels_hold(label, share):
    formats = {"format": "fp8", "weights": "fp8_block128"} if label == "fp8_block" else {"format": label}
    result = check_table(products(run_at(share=share, **formats), label), "h100-sxm")
    assert result.ok
    assert result.findings == ()
    assert result.checked == len(SHAPES)
    assert result.tightest <= share
    assert str(result).startswith("the table on H100 SXM5 80GB: all 30 rows hold")


def test_a_row_on_its_floor_holds():
    floor = matmul_floor(M, N, K, H100, format="bf16").time_s
    rows = floor > 0
    table = {name: np.array(column)[rows] for name, column in products(floor).items()}
    assert check_table(table, H100).ok
    assert not check_table({**table, "seconds": table["seconds"] * (1 - 1e-6)}, H100).ok


def test_what_the_cache_holds_is_counted_and_no_error():
    # 16 × 4096 × 4096 in bf16 is 33.8 MB, in the cache from the run before: 10.1 µs at the memory's rate, here in 7
    result = check_table({"m": [16], "n": [4096], "k": [4096], "dtype": ["bf16"], "seconds": [7e-6]}, "h100-sxm")
    assert result.ok
    assert result.cache_resident == 1
    assert "1 rows beat bytes / bandwidth" in str(result)


def test_the_same_rows_on_a_machine_whose_cache_is_not_known():
    bare = Hardware.from_rates(memory_bandwidth=H100.memory_bandwidth, peak_flops_per_s=989e12)
    result = check_table({"m": [16], "n": [4096], "k": [4096], "dtype": ["bf16"], "seconds": [7e-6]}, bare)
    assert reasons(result) == {"cache-resident": 1}
    assert "names none" in result.findings[0].evidence


@pytest.mark.parametrize(("share", "said"), [(1.001, "0.1 % below"), (1.0099, "1 % below"), (1.000001, "0.0001 % below")])
def test_a_row_just_below_its_floor_is_a_measuring_error(share, said):
    """2 · 8192³ FLOP at 1 PFLOP/s are 1.0995 ms."""
    machine = Hardware.from_rates(memory_bandwidth=3e12, peak_flops_per_s=1e15)
    table = {name: [8192, 8192] for name in "mnk"} | {"dtype": ["bf16"] * 2, "ms": [1.099511627776 / share, 1.5]}
    result = check_table(table, machine)
    assert not result.ok
    (finding,) = result.findings
    assert (finding.reason, finding.rows, finding.evidence) == ("at the floor", 1, f"{said}: measuring error")
    assert "no row is faster than physics allows, but 1 of 2 is odd" in str(result)
    assert f"({said}, compute-bound; at the floor)" in str(result)


def test_a_row_just_below_its_floor_has_the_reason_of_the_rows_that_miss_it():
    machine = Hardware.from_rates(memory_bandwidth=3e12, peak_flops_per_s=1e15)
    table = {name: [8192, 8192] for name in "mnk"} | {"dtype": ["bf16"] * 2, "ms": [1.0995 / 1.005, 1.0995 / 1.2]}
    assert "at the floor" not in reasons(check_table(table, machine))


# ------------------------------------------------------------------------------------------------------- sizes that were assumed

DECODE = {"batch": [64, 64], "heads": [64, 64], "head_dim": [128, 128], "context": [8191, 8191], "dtype": ["bf16", "bf16"]}


def test_a_row_below_the_floor_of_an_assumption_is_due_to_the_assumption():
    """64 · 8192 positions of keys and values of 64 heads × 128 in bf16 are 17.18 GB, 5.125 ms at 3.352 TB/s, less 16 µs for a cache of
    52.4 MB; of 8 key-value heads they are 0.64 ms."""
    table = DECODE | {"time_us": [700, 6000]}
    result = check_table(table, "h100-sxm")
    assert result.below["floor_s"][0] == pytest.approx(5.11e-3, rel=2e-3)
    (finding,) = result.findings
    assert (finding.reason, finding.rows) == ("assumption", 1)
    assert finding.evidence == "assumed kv_heads equal to heads; with less the rows hold: give kv_heads"
    assert "no row is faster than physics allows, but 1 of 2 is odd" in str(result)
    assert "memory-bound; assumption)" in str(result)
    assert check_table(table | {"kv_heads": [8, 8]}, "h100-sxm").ok


def test_one_key_value_head_of_128_is_no_wrong_unit():
    """Of one head 64 · 8192 positions are 268 MB, 80 µs: 128 times as fast as with as many as heads."""
    result = check_table(DECODE | {"heads": [128, 128], "time_us": [90, 100]}, "h100-sxm")
    assert reasons(result) == {"assumption": 2}
    assert check_table(DECODE | {"heads": [128, 128], "kv_heads": [1, 1], "time_us": [90, 100]}, "h100-sxm").ok


def test_what_no_number_of_key_value_heads_explains_is_faster_than_physics():
    """Of one head 268 MB less 52.4 MB of cache are 64 µs."""
    result = check_table(DECODE | {"time_us": [12, 700]}, "h100-sxm")
    found = {f.reason: f for f in result.findings}
    assert found.keys() == {"assumption", "no likely reason"}
    assert "all this with kv_heads 1, the least that is possible" in found["no likely reason"].evidence
    assert "1 of 2 rows is faster than physics allows" in str(result)


def test_every_size_that_was_assumed_may_be_less():
    """States of 256 · 128 heads of 128 × 64 in fp32 are 1.07 GB, read and written in 0.64 ms; 128 × 128, as assumed, take twice as long."""
    table = {"batch": [256], "context": [1], "heads": [128], "key_dim": [128], "state": ["fp32"], "key_heads": [1], "ms": [0.7]}
    (finding,) = check_table(table, "h100-sxm").findings
    assert finding.reason == "assumption"
    assert "value_dim equal to key_dim" in finding.evidence
    assert check_table(table | {"value_dim": [64]}, "h100-sxm").ok


# ------------------------------------------------------------------------------------------------------------------ wrong units


@pytest.mark.parametrize(("factor", "words"), [(1e-3, "1,000 times too short"), (1e-6, "1,000,000 times too short")])
def test_times_that_are_too_short(factor, words):
    result = check_table(products(run_at(format="bf16") * factor), "h100-sxm")
    assert not result.ok
    assert set(reasons(result)) == {"wrong units"}
    (finding,) = result.findings
    assert finding.reason == "wrong units"
    assert words in finding.evidence


@pytest.mark.parametrize(("factor", "words"), [(1e3, "1,000 times too long"), (1e6, "1,000,000 times too long")])
def test_times_that_are_too_long_are_a_finding(factor, words):
    result = check_table(products(run_at(format="bf16") * factor), "h100-sxm")
    assert not result.ok
    assert "hold" not in str(result).splitlines()[0]
    assert len(result.below["row"]) == 0
    (finding,) = result.findings
    assert finding.reason == "wrong units"
    assert words in finding.evidence


def test_the_unit_can_be_put_right():
    table = products(run_at(format="bf16") * 1e3, name="time_s")  # they are in ms
    assert check_table(table, "h100-sxm").findings[0].reason == "wrong units"
    assert check_table(table, "h100-sxm", unit="ms").findings == ()


@pytest.mark.parametrize("efficiency", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("shift", [-6, -3, 0, 3, 6])
def test_the_power_of_ten_is_found_at_any_usual_efficiency(shift, efficiency):
    roofline_s = np.geomspace(1e-7, 1e-2, 50)
    seconds = (LAUNCH + roofline_s / efficiency) * 10.0**shift
    assert unit_shift(seconds, roofline_s) == shift


def test_one_row_in_another_unit_is_a_row_not_the_table():
    seconds = run_at(format="bf16")
    seconds[-1] *= 1e-3
    result = check_table(products(seconds), "h100-sxm")
    assert reasons(result) == {"wrong units": 1}
    assert result.below["row"].tolist() == [len(SHAPES)]
    assert "unlike the rest of the table" in result.findings[0].evidence


# ----------------------------------------------------------------------------------------------------------------- wrong labels


@pytest.mark.parametrize(
    ("label", "really", "machine", "said"),
    [
        ("bf16", "fp8", H100, "format fp8, weights fp8"),
        ("bf16", "int8", A100, "format int8, weights int8"),  # which has no fp8
        ("fp8", "nvfp4", Hardware.load("b200-sxm"), "format nvfp4, weights nvfp4"),
        ("fp32", "tf32", H100, "format tf32, weights tf32"),
    ],
)
def test_a_narrower_format_under_a_wider_label(label, really, machine, said):
    result = check_table(products(run_at(machine, format=really, share=0.9), label), machine)
    assert reasons(result)["wrong format label"] == len(result.below["row"])
    assert len(result.below["row"]) >= 10
    (finding,) = result.findings
    assert f"read as {said}" in finding.evidence
    assert finding.worst == pytest.approx(result.below["share"][0])


def test_quantized_rows_under_a_weight_only_label():
    result = check_table(products(run_at(format="int8", share=0.7), "int8_wo"), "h100-sxm")
    assert set(reasons(result)) == {"wrong format label"}
    assert "read as format" in result.findings[0].evidence


def test_one_byte_per_cache_entry_under_a_bf16_label():
    shape = {"heads": 64, "kv_heads": 8, "head_dim": 128}
    steps = {"batch": np.array([16, 64, 128]), "context": np.array([8191, 8191, 16383])}
    seconds = roofline(H100, attention_floor(hardware=H100, **shape, **steps, kv="fp8")) / 0.85
    row = {**steps, **{name: [size] * 3 for name, size in shape.items()}, "kv": ["bf16"] * 3, "seconds": seconds}
    result = check_table(row, "h100-sxm")
    assert reasons(result) == {"one-byte cache": 3}
    assert "read as kv fp8, 3 of 3 hold" in result.findings[0].evidence
    assert check_table(row | {"kv": ["fp8"] * 3}, "h100-sxm").ok


def test_attention_that_multiplies_in_fp8_under_a_bf16_label():
    shape = {"heads": 64, "kv_heads": 8, "head_dim": 128}
    prompt = {"batch": np.array([1, 4]), "new": np.array([16384, 16384])}
    seconds = attention_floor(hardware=H100, **shape, **prompt, kv="fp8", activations="fp8").compute_s / 0.8
    row = {**prompt, "context": [0, 0], **{name: [size] * 2 for name, size in shape.items()}, "dtype": ["bf16"] * 2, "seconds": seconds}
    assert reasons(check_table(row, "h100-sxm")) == {"wrong format label": 2}


def test_values_narrower_than_keys():
    shape = {"heads": 8, "head_dim": 192}
    floor = attention_floor(hardware=H100, **shape, kv_heads=8, v_head_dim=128, batch=[64], context=[32767])
    row = {
        "batch": [64],
        "context": [32767],
        "heads": [8],
        "kv_heads": [8],
        "head_dim": [192],
        "kv": ["bf16"],
        "seconds": floor.time_s / 0.93,
    }
    result = check_table(row, "h100-sxm")
    assert reasons(result) == {"narrower values": 1}
    assert check_table(row | {"v_head_dim": [128]}, "h100-sxm").ok


# ------------------------------------------------------------------------------------------------------------------ sparse peaks


def sparse_times(machine, label="bf16"):
    """Kernels that multiply at 1.6 times the dense peak, and move their bytes as labelled."""
    floor = matmul_floor(M, N, K, machine, format=label)
    return LAUNCH + np.maximum(floor.compute_s / 1.6, floor.total_bytes / machine.memory_bandwidth / 0.85)


@pytest.mark.parametrize(("machine", "label"), [(H100, "bf16"), (H100, "fp8"), (A100, "bf16"), (Hardware.load("l40s"), "fp8")])
def test_a_sparse_peak(machine, label):
    result = check_table(products(sparse_times(machine, label), label), machine)
    assert set(reasons(result)) == {"sparse peak"}
    assert set(result.below["bound"]) == {"compute"}
    (finding,) = result.findings
    assert "2:4 structured sparsity" in finding.evidence
    assert 1 < finding.worst <= 1.6


def test_no_sparsity_on_a_machine_that_has_none():
    volta = Hardware.load("v100-sxm2-32gb")
    result = check_table(products(sparse_times(volta, "fp16"), "fp16"), volta)
    assert "sparse peak" not in reasons(result)
    assert reasons(result)["no likely reason"] == len(result.below["row"])


def test_where_no_memory_bound_row_tells_both_are_said():
    table = {"m": [8192], "n": [8192], "k": [8192], "dtype": ["bf16"], "seconds": [2 * 8192**3 / (1.5 * 989.4e12)]}
    (finding,) = check_table(table, "h100-sxm").findings
    assert "sparsity would explain as much" in finding.evidence
    assert finding.reason == "wrong format label"


def test_check_without_a_likely_reason():
    table = {"m": [8192], "n": [8192], "k": [8192], "dtype": ["fp8"], "seconds": [2 * 8192**3 / (3 * 1978.9e12)]}
    (finding,) = check_table(table, "h100-sxm").findings
    assert finding.reason == "no likely reason"
    assert "check the sizes and the machine" in finding.evidence
    links = {"op": ["all_reduce"], "ranks": [8], "bytes": [450_000_000], "seconds": [0.5e-3]}
    (finding,) = check_table(links, "h100-sxm").findings
    assert "more than the links carry" in finding.evidence


# ------------------------------------------------------------------------------------------------------------------- the result


def test_the_rows_are_listed_fastest_first_with_their_place():
    seconds = run_at(format="bf16")
    large = [i for i, (m, n, k) in enumerate(SHAPES) if m == 16384]
    for i, ratio in zip(large[:2], (1.2, 1.5), strict=True):
        seconds[i] = matmul_floor(*SHAPES[i], H100, format="bf16").time_s / ratio
    result = check_table(products(seconds), "h100-sxm")
    assert result.below["row"].tolist() == [large[1] + 1, large[0] + 1]
    assert result.below["share"] == pytest.approx([1.5, 1.2])
    records, data = result.to_records(), json.loads(result.to_json())
    assert records[0]["shape"] == " × ".join(map(str, SHAPES[large[1]]))
    assert data["share"][:2] == pytest.approx([1.5, 1.2])
    assert (data["rows_checked"], data["rows_below_floor"], data["ok"], data["hardware"]) == (30, 2, False, "h100-sxm")
    assert data["findings"][0]["reason"] in {r["reason"] for r in records}
    assert f"row {large[1] + 1}: " in str(result)
    assert "2 of 30 rows are faster than physics allows" in repr(result)


def test_every_row_has_its_floor_its_share_and_an_estimate_the_nearest_to_the_roof_first():
    shares = np.array([0.2, 0.9, 0.5])
    sizes = {"m": [4096] * 3, "n": [8192] * 3, "k": [8192] * 3}
    machine = Hardware.from_rates(memory_bandwidth=3e12, peak_flops_per_s=1e15)
    result = check_table(sizes | {"dtype": ["bf16"] * 3, "s": 2 * 4096 * 8192 * 8192 / 1e15 / shares}, machine)
    rows = result.to_records()
    assert [r["row"] for r in rows] == [2, 3, 1]
    assert [r["share"] for r in rows] == pytest.approx([0.9, 0.5, 0.2], rel=1e-3)
    assert rows[0]["floor_s"] == pytest.approx(549.8e-6, rel=1e-3)
    assert rows[0]["estimate_s"] == pytest.approx(kernel_estimate(matmul_floor(4096, 8192, 8192, machine, format="bf16")).time_s)
    assert (rows[0]["m"], rows[0]["n"], rows[0]["format"], rows[0]["bound"], rows[0]["reason"]) == (4096, 8192, "bf16", "compute", "")
    assert [*result.rows, "calibration"] == list(rows[0])
    with pytest.raises(ValueError, match="read-only"):
        result.rows["share"][0] = 2


def test_the_rows_as_csv_as_text_and_as_json():
    table = {"m": [16, 1], "n": [4096] * 2, "k": [4096] * 2, "dtype": ["bf16", "fp8"], "time_us": [12, 13]}
    result = check_table(table, "h100-sxm")
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert [(r["row"], r["m"], r["format"]) for r in rows] == [("1", "16", "bf16"), ("2", "1", "fp8")]
    assert [float(r["time_s"]) for r in rows] == [12e-6, 13e-6]
    assert float(rows[0]["cold_s"]) == pytest.approx((16 * 4096 * 2 * 2 + 4096**2 * 2) / 3.352e12)  # bytes over bandwidth
    assert rows[0]["shape"] == "16 × 4096 × 4096"
    assert (rows[0]["calibration"], rows[0]["constants"]) == ("h100-sxm-vllm-0.24.0", "own")
    assert json.loads(result.to_json())["format"] == ["bf16", "fp8"]


def test_rows_of_several_kinds_stand_in_one_table():
    """A folder of aiconfigurator-core has tables of several kinds; a size that a kind has not is empty."""
    both = replace(read_table({"m": [16], "n": [64], "k": [64], "dtype": ["bf16"], "us": [9]}), groups=(
        *read_table({"m": [16], "n": [64], "k": [64], "dtype": ["bf16"], "us": [9]}).groups,
        *read_table({"op": ["all_reduce"], "ranks": [8], "bytes": [1024], "us": [9]}).groups,
    ))  # fmt: skip
    rows = {r["kernels"]: r for r in check_table(both, "h100-sxm").to_records()}
    assert (rows["the table matmul bf16"]["m"], rows["the table matmul bf16"]["ranks"]) == (16, None)
    assert (rows["the table collective all_reduce"]["ranks"], rows["the table collective all_reduce"]["m"]) == (8, None)
    assert rows["the table collective all_reduce"]["estimate_s"] > 0


def test_estimates_rest_on_the_record_that_is_named():
    table = {"m": [4096], "n": [8192], "k": [8192], "dtype": ["bf16"], "us": [900]}
    default, other = (check_table(table, "h100-sxm", calibration=name) for name in (None, "sglang"))
    assert (default.to_dict()["calibration"], other.to_dict()["calibration"]) == ("h100-sxm-vllm-0.24.0", "h100-sxm-sglang-0.5.14")
    assert default.rows["estimate_s"][0] != other.rows["estimate_s"][0]


def test_one_row_that_is_far_too_slow_is_a_finding():
    seconds = run_at(format="bf16")
    seconds[-1] *= 2000
    result = check_table(products(seconds), "h100-sxm")
    assert not result.ok
    assert [(f.reason, f.rows) for f in result.findings] == [("far too slow", 1)]
    assert "no row is faster than physics allows, but 1 of 30 is odd" in str(result)
    assert {r["row"]: r["reason"] for r in result.to_records() if r["reason"]} == {len(SHAPES): "far too slow"}


def test_only_the_worst_rows_are_written_out():
    result = check_table(products(run_at(format="bf16") * 1e-3), "h100-sxm")
    faster = len(result.below["row"])
    assert faster > 10
    assert f"{faster - 10:,} more are faster" in str(result)
    assert str(result).count("  row ") == 10


def test_bad_input_is_refused():
    with pytest.raises(UnknownNameError, match="h100x"):
        check_table(products(run_at(format="bf16")), "h100x")
    with pytest.raises(InvalidValueError, match="positive"):
        check_table(products([-1.0] * len(SHAPES)), "h100-sxm")
    with pytest.raises(RooflineError):
        check_table(None, "h100-sxm")


# ------------------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def run(tmp_path):
    """Check a table, written as CSV, from the command line."""

    def run(table, *arguments):
        file = tmp_path / "kernels.csv"
        file.write_text("\n".join([",".join(table), *(",".join(map(str, row)) for row in zip(*table.values(), strict=True))]))
        return invoke("check", file, "--hardware", "h100-sxm", *arguments)

    return run


def test_the_command_says_whether_all_rows_hold(run):
    good = run(products(run_at(format="bf16")))
    assert good.exit_code == 0
    assert "all 30 rows hold" in good.stdout
    bad = run(products(run_at(format="bf16") * 1e-3))
    assert bad.exit_code == 1
    assert "wrong units" in bad.stdout
    assert bad.stderr == ""


def test_the_command_says_what_it_cannot_read_in_the_layout(tmp_path):
    """A traceback would leave with 1, which says that rows do not hold."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = arrow.table({"m": [1], "n": [4096], "k": [4096], "dtype": ["bf16"], "latency_us": [14.0]})
    for name, status in (("gemm_perf.parquet", 2), ("gemm.parquet", 0)):
        parquet.write_table(table, tmp_path / name)
        result = invoke("check", tmp_path / name, "--hardware", "h100-sxm")
        assert result.exit_code == status
        assert result.stderr.count("\n") == (status == 2)
        assert ("its name ends in _perf.parquet" in result.stderr) == (status == 2)


def test_the_command_takes_a_unit_and_gives_json(run):
    table = products(run_at(format="bf16") * 1e3, name="latency")
    refused = run(table)
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert "column 'latency' has no unit" in refused.stderr
    assert refused.stderr.count("\n") == 1
    data = json.loads(run(table, "--unit", "ms", "--json").stdout)
    assert data["ok"] is True
    assert sorted(data["row"]) == list(range(1, len(SHAPES) + 1))


@pytest.mark.parametrize("change", [{"format": ["bf17"] * len(SHAPES)}, {"seconds": ["-1"] * len(SHAPES)}, {"m": ["many"] * len(SHAPES)}])
def test_the_command_refuses_bad_tables_in_one_line(run, change):
    result = run(products(run_at(format="bf16")) | change)
    assert result.exit_code == 2
    assert result.stderr.startswith("roofline: ")
    assert result.stderr.count("\n") == 1


# ---------------------------------------------------------------------------------------------------------- the wheel's own tables


@pytest.fixture(scope="module")
def tables():
    """The tables of the wheel."""
    pytest.importorskip("pyarrow")
    spec = find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("aiconfigurator-core is not installed: a wheel for Linux x86-64 with measured kernels")
    return Path(spec.submodule_search_locations[0], "systems", "data")


def test_what_is_wrong_with_the_wheels_tables_of_an_h100_is_found(tables):
    """The two lanes that the benchmark names as defects beat the floor of their label, and nothing else does; mixtures of many narrow
    experts are a thousand times as slow as they could be."""
    result = check_table(tables / "h100_sxm", "h100-sxm")
    assert result.checked > 1_100_000
    slow = {f.kernels for f in result.findings if f.reason == "far too slow"}
    assert slow
    assert all("moe experts" in kernels for kernels in slow)
    assert {(f.reason, f.kernels) for f in result.findings if f.reason != "far too slow"} == {
        ("wrong format label", "sglang 0.5.6.post2 gemm matmul bf16/int8"),
        ("narrower values", "sglang 0.5.14 generation_attention attention bf16"),
    }
    assert result.cache_resident > 200


def test_eight_bit_caches_of_an_a100_are_found(tables):
    result = check_table(tables / "a100_sxm" / "attention", "a100-sxm-80gb")
    assert {(f.reason, f.kernels) for f in result.findings} == {("one-byte cache", "trtllm 1.0.0 generation_attention attention bf16")}
    assert result.below["share"][0] > 1.6


def test_a_table_in_another_encoding_is_one_sentence(tmp_path):
    table = tmp_path / "excel.csv"
    table.write_text("m,n,k,dtype,latency_us\n1,4096,4096,bf16,20\n", encoding="utf-16")
    with pytest.raises(InvalidValueError, match="it is no text in UTF-8"):
        check_table(table, "h100-sxm")
