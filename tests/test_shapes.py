"""Constants of single shapes, their own or of near ones, and intervals of small and of large kernels."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from roofline import (
    CalibrationError,
    Hardware,
    collective_floor,
    decode_estimate,
    experts_floor,
    kernel_estimate,
    load_record,
    matmul_floor,
    record_from_tables,
)
from roofline.estimate.constants import choose
from roofline.fitting.shapes import shape_rows
from roofline.kernel_tables.read import read_layout
from roofline.kernels import FAMILIES, count_op
from roofline.kernels.near import shape_weights
from roofline.records import Shapes, SizeQuantiles, save_record
from roofline.records.schema import PERCENTILES

pytest.importorskip("scipy")

FAMILY = FAMILIES["experts"]
LAW = {c.name: c.start for c in FAMILY.constants} | {"compute_share": 0.5, "pad_rows": 20.0, "pad_columns": 60.0}
OWN = {  # hidden, width inside an expert, experts, visited per token → what of the law is another there
    (2048, 768, 128, 8): {"fixed_s": 2e-5, "bandwidth_share": 0.9},
    (2048, 1536, 128, 8): {"fixed_s": 2.4e-5, "bandwidth_share": 0.8},
    (6144, 16384, 8, 2): {"fixed_s": 6e-5, "bandwidth_share": 0.4, "compute_share": 0.25},
}
TOKENS = tuple(np.unique(np.geomspace(1, 16384, 60).astype(int)).tolist())
SIZES = ("hidden", "intermediate", "count", "top_k")


def seconds(shape, tokens, law=None):
    """Times of kernels by the law of a shape, its own or another's, on an H100 in bf16."""
    op = count_op("experts", tokens=np.array(tokens), **dict(zip(SIZES, shape, strict=True)), format="bf16", weights="bf16")
    machine = Hardware.load("h100-sxm")
    rates = {"peak_flops_per_s": machine.peak("bf16").value, "bandwidth": machine.memory_bandwidth}
    return FAMILY.seconds(FAMILY.features(op), LAW | OWN[law or shape], **rates)


def columns_of(tokens, shape, law=None):
    """A table of kernels of one shape that follow a law."""
    sizes = {name: np.full(len(tokens), size) for name, size in zip(SIZES, shape, strict=True)}
    return {"num_tokens": np.array(tokens), **sizes, "dtype": np.full(len(tokens), "bf16"), "latency_s": seconds(shape, tokens, law)}


def fitted(tables):
    """A record of some tables."""
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    return record_from_tables(columns, "h100-sxm", id="mine", source="a law", kind="experts")


def made_of(tokens):
    """A record of kernels that follow another law for each shape."""
    return fitted([columns_of(tokens, shape) for shape in OWN])


@cache
def record():
    return made_of(TOKENS)


def estimate(shape, tokens=64, calibration=None):
    floor = experts_floor(tokens, "h100-sxm", **dict(zip(SIZES, shape, strict=True)), format="bf16", routing="best")
    return kernel_estimate(floor, calibration=calibration or record())


@pytest.mark.parametrize("shape", OWN)
def test_every_shape_is_timed_by_its_own_law(shape):
    tokens = [1, 5, 100, 5000]
    assert estimate(shape, tokens).time_s == pytest.approx(seconds(shape, tokens), rel=0.03)


def test_a_shape_that_was_not_measured_is_timed_like_near_ones_with_a_wider_interval():
    narrow, wide, other = OWN
    between, near = (2048, 1024, 128, 8), (6144, 14336, 8, 2)
    assert seconds(between, 64, narrow) < estimate(between).time_s < seconds(between, 64, wide)
    assert estimate(near).time_s == pytest.approx(seconds(near, 64, other), rel=0.03)
    spread = [e.high_s / e.low_s for e in (estimate(near), estimate(other))]
    assert spread[0] > 1.5 > 1.05 > spread[1]  # the laws of the two models differ by a factor of two


def test_shapes_weigh_the_more_the_nearer_they_are():
    known = np.array([[1024.0, 8.0], [2048.0, 8.0], [8192.0, 8.0]])
    weights = shape_weights(known, np.array([1536.0, 8.0]))
    assert weights.sum() == pytest.approx(1)
    assert weights[1] > weights[0] > weights[2] > 0  # by a factor of 4/3, of 3/2, of 16/3


def test_a_record_with_shapes_is_written_and_read_again(tmp_path):
    path = save_record(record(), tmp_path / "mine.json")
    assert load_record(path).classes[0].shapes.sizes == record().classes[0].shapes.sizes
    assert estimate((2048, 768, 128, 8), calibration=path).time_s == estimate((2048, 768, 128, 8)).time_s


def changed(**fields):
    (own,) = record().classes
    shapes = own.shapes.model_copy(update=fields)
    return record().model_copy(update={"classes": (own.model_copy(update={"shapes": shapes}),)})


def test_constants_of_shapes_are_those_of_the_form():
    constants = dict(record().classes[0].shapes.constants)
    with pytest.raises(CalibrationError, match=r"sharpness of shapes must lie in 1 … 16 -"):
        estimate((2048, 768, 128, 8), calibration=changed(constants=constants | {"sharpness": (0.5, 2.0, 2.0)}))
    with pytest.raises(CalibrationError, match="has other sizes or constants than hidden, intermediate, matrices"):
        estimate((2048, 768, 128, 8), calibration=changed(constants={"fixed_s": constants["fixed_s"]}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"constants": {"fixed_s": (1e-5,)}}, "one value for each: sizes.hidden has 2 values, constants.fixed_s has 1 value"),
        ({"constants": {"compute_share": (0.5, 1.5)}}, "constants.compute_share has 1.5"),
        ({"sizes": {"hidden": (4096.0, 0.0)}}, "sizes.hidden has 0; sizes and constants are positive"),
        ({"residual_quantiles": ()}, "shapes need sizes, constants and residual_quantiles"),
    ],
)
def test_columns_of_shapes_are_checked(changed, message):
    fields = {
        "sizes": {"hidden": (4096.0, 2048.0)},
        "constants": {"fixed_s": (1e-5, 2e-5)},
        "residual_quantiles": (0.0,) * len(PERCENTILES),
        "error": 0.1,
    }
    with pytest.raises(CalibrationError, match=message):
        Shapes(**fields | changed)


def test_shapes_with_few_rows_have_no_constants_of_their_own():
    assert made_of(TOKENS[::5]).classes[0].shapes is None


def test_how_wrong_such_shapes_come_out_is_in_the_interval_of_shapes_that_were_not_measured():
    few = columns_of(TOKENS[::5], (2048, 768, 32, 8), law=(2048, 768, 128, 8))
    slow = few | {"latency_s": 20 * few["latency_s"]}
    without, with_few = (fitted([columns_of(TOKENS, shape) for shape in OWN] + more).classes[0] for more in ([], [slow]))
    assert len(with_few.shapes.sizes["hidden"]) == len(OWN)
    assert with_few.residual_quantiles[-1] > without.residual_quantiles[-1] + 1  # of a factor of 20, e^3
    assert with_few.shapes.residual_quantiles == pytest.approx(without.shapes.residual_quantiles, abs=0.05)


def test_gpt_oss_on_eight_devices_takes_what_was_measured():
    """vLLM 0.24.0 on an H100, in aiconfigurator-core 0.12.0: four tokens take 45.8 µs in gpt-oss-120b, 43.2 in gpt-oss-20b."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow reads the kernel tables")
    spec = find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the kernel tables are in the package aiconfigurator-core")
    file = Path(spec.submodule_search_locations[0], "systems/data/h100_sxm/moe/vllm/0.24.0/moe_perf.parquet")
    read = parquet.read_table(file, filters=[("moe_dtype", "=", "w4a16_mxfp4"), ("hidden_size", "=", 2880)])
    table = read_layout("moe", {name: np.asarray(read[name].to_numpy()) for name in read.column_names})
    fitted = record_from_tables(table, "h100-sxm", id="vllm", source="aiconfigurator-core 0.12.0")
    for model, measured in (("gpt-oss-120b", 45.8e-6), ("gpt-oss-20b", 43.2e-6)):
        step = decode_estimate(model, "h100-sxm", batch=4, context=1024, tensor_parallel=8, calibration=fitted)
        (time,) = {row.time_s / row.count for row in step.by_op() if row.family == "experts"}
        assert time == pytest.approx(measured, rel=0.1)


def test_of_several_kernels_for_the_same_experts_the_fastest_is_fitted(import_benchmark):
    """Engines pick the faster of two kernels by the number of tokens, as TensorRT-LLM does between cutlass and min_latency."""
    same = {
        "moe_dtype": "nvfp4",
        "hidden_size": 4096,
        "inter_size": 1536,
        "topk": 8,
        "num_experts": 128,
        "moe_tp_size": 1,
        "moe_ep_size": 1,
    }
    table = {name: np.full(5, value) for name, value in same.items()} | {
        "num_tokens": np.array([1, 1, 64, 64, 64]),
        "distribution": np.array(["balanced"] * 4 + ["power_law_1.2"]),
        "kernel_source": np.array(["cutlass", "min_latency", "cutlass", "min_latency", "cutlass"]),
        "latency": np.array([0.03, 0.01, 0.2, 0.4, 0.3]),
    }
    assert import_benchmark("fit_records").fastest(table).tolist() == [1, 2, 4]


# ------------------------------------------------------------------------------------- shapes that say nothing of others

MESSAGES = tuple(np.geomspace(256, 256e6, 24).astype(int).tolist())


@cache
def reducing():
    """All-reduces of 5 µs and 300 GB/s among two and four devices; among eight another kernel takes ten times as long."""
    rows = [(ranks, size, (50e-6 if ranks == 8 else 5e-6) + size / 300e9) for ranks in (2, 4, 8) for size in MESSAGES]
    ranks, size, times = (np.array(column) for column in zip(*rows, strict=True))
    table = {"op": ["all_reduce"] * len(rows), "ranks": ranks, "bytes": size, "seconds": times}
    return record_from_tables(table, "h100-sxm", id="mine", source="a law")


@pytest.mark.parametrize(("ranks", "fixed"), [(2, 5e-6), (4, 5e-6), (8, 50e-6)])
def test_all_reduces_of_each_measured_number_of_devices_are_timed_by_their_own_law(ranks, fixed):
    for size in (1000, 10**7):
        floor = collective_floor("all_reduce", size, "h100-sxm", devices=ranks)
        assert kernel_estimate(floor, calibration=reducing()).time_s == pytest.approx(fixed + size / 300e9, rel=0.1)


def test_all_reduces_in_two_stages_take_longer_from_where_the_table_says():
    """Among eight devices 12 µs more from 256 KiB on, among four from 512 KiB, as vLLM's kernel has it: one set of constants finds both."""
    sizes = [2**i for i in range(10, 28)]
    rows = [(ranks, size, 5e-6 + (12e-6 if ranks * size >= 2**21 else 0) + size / 300e9) for ranks in (4, 8) for size in sizes]
    ranks, size, times = (np.array(column) for column in zip(*rows, strict=True))
    table = {"op": ["all_reduce"] * len(rows), "ranks": ranks, "bytes": size, "seconds": times}
    made = record_from_tables(table, "h100-sxm", id="mine", source="a law")
    for devices, small in ((4, 2**18), (8, 2**17)):
        for size in (small, 2 * small):
            expected = 5e-6 + (12e-6 if devices * size >= 2**21 else 0) + size / 300e9
            floor = collective_floor("all_reduce", size, "h100-sxm", devices=devices)
            assert kernel_estimate(floor, calibration=made).time_s == pytest.approx(expected, rel=0.15)


def test_all_reduces_of_another_number_of_devices_are_timed_by_the_law_of_all():
    (own,) = reducing().classes
    found = kernel_estimate(collective_floor("all_reduce", 1000, "h100-sxm", devices=3), calibration=reducing())
    assert {n: c.item() for n, c in found.chosen.constants.items()} == {n: c.value for n, c in own.constants.items()}
    assert found.chosen.quantiles[0].tolist() == list(own.residual_quantiles)


# ------------------------------------------------------------------------------------- products, whose shape is their matrix

MATRICES = {(4096, 4096): 0.9, (8192, 4096): 0.5, (4096, 8192): 0.7}  # columns and depth → share of the bandwidth
ROWS = tuple(sorted({*range(1, 17), *(m + more for m in range(32, 4097, 96) for more in (0, 1))}))


def multiply_s(m, n, k, share):
    """Times of products that read weights at a share of the bandwidth, and multiply at 0.8 of the peak."""
    machine = Hardware.load("h100-sxm")
    return 3e-6 + np.maximum(2 * n * k / (share * machine.memory_bandwidth), 2.0 * m * n * k / (0.8 * machine.peak("bf16").value))


@cache
def multiplying():
    columns = [np.array(c) for c in zip(*((m, n, k) for n, k in MATRICES for m in ROWS), strict=True)]
    m, n, k = columns
    times = np.concatenate([multiply_s(np.array(ROWS), *matrix, share) for matrix, share in MATRICES.items()])
    table = {"m": m, "n": n, "k": k, "format": ["bf16"] * m.size, "seconds": times}
    return record_from_tables(table, "h100-sxm", id="mine", source="a law")


def test_products_of_every_matrix_are_timed_by_their_own_law_one_by_one_and_as_arrays():
    n, k = (np.array(column) for column in zip(*MATRICES, strict=True))
    together = kernel_estimate(matmul_floor([[1], [16]], n, k, "h100-sxm", format="bf16"), calibration=multiplying())
    for column, (matrix, share) in enumerate(MATRICES.items()):
        for row, m in enumerate((1, 16)):
            alone = kernel_estimate(matmul_floor(m, *matrix, "h100-sxm", format="bf16"), calibration=multiplying())
            assert alone.time_s == pytest.approx(multiply_s(m, *matrix, share), rel=0.05)
            for name in ("time_s", "low_s", "high_s"):
                assert getattr(together, name)[row, column] == pytest.approx(getattr(alone, name))
    assert together.context()["constants"]["bandwidth_share"].shape == (6,)


def test_products_of_a_full_tile_and_of_one_row_more_are_both_fitted():
    """Kernel tables have 512 and 513 rows, 768 and 769, …; every second of these would all be of one kind."""
    m = np.array([size + more for size in range(256, 8192, 256) for more in (0, 1)])
    sizes = {"m": m, "n": np.full(m.size, 4096), "k": np.full(m.size, 4096)}
    groups = tuple(read_layout("gemm", {**sizes, "gemm_dtype": np.full(m.size, "bfloat16"), "latency": np.full(m.size, 0.1)}))
    fitted = m[shape_rows(FAMILIES["matmul"], groups)]
    assert np.mean(fitted % 2) == pytest.approx(0.5, abs=0.05)
    assert len(fitted) == pytest.approx(m.size / 2, abs=1)


def test_shapes_that_mislead_about_others_are_kept_for_themselves_alone():
    """Of twelve matrices two have enough rows, of which one takes ten times as long as all others: means over these two would be far off."""
    few = [(2**i, 2**j) for i in range(9, 14) for j in (10, 12)]
    rows = [(m, n, k, 1.0) for n, k in few for m in ROWS[::16]] + [
        (m, n, 2048, slow) for n, slow in ((512, 10.0), (4096, 1.0)) for m in ROWS
    ]
    m, n, k, slow = (np.array(column) for column in zip(*rows, strict=True))
    table = {"m": m, "n": n, "k": k, "format": ["bf16"] * m.size, "seconds": slow * multiply_s(m, n, k, 0.8)}
    (found,) = (made := record_from_tables(table, "h100-sxm", id="mine", source="a law")).classes
    assert found.shapes.near is False
    for matrix, slow in (((512, 2048), 10), ((4096, 2048), 1)):
        estimate = kernel_estimate(matmul_floor(16, *matrix, "h100-sxm", format="bf16"), calibration=made)
        assert estimate.time_s == pytest.approx(slow * multiply_s(16, *matrix, 0.8), rel=0.3)
    other = kernel_estimate(matmul_floor(16, 1024, 1024, "h100-sxm", format="bf16"), calibration=made).chosen
    assert {n: c.item() for n, c in other.constants.items()} == {n: c.value for n, c in found.constants.items()}


# ------------------------------------------------------------------------------------- small and large kernels of a class


def products(rows=340):
    """Products of one row that take 4 µs and 0.8 of the bandwidth, with noise of 20 % below a million weights and of 2 % beyond."""
    draw = np.random.default_rng(3)
    n, k = (2 ** draw.integers(8, 14, rows) for _ in range(2))
    noise = np.where(n * k >= 1e6, 0.02, 0.2) * draw.standard_normal(rows)
    times = (4e-6 + 2 * n * k / (0.8 * Hardware.load("h100-sxm").memory_bandwidth)) * np.exp(noise)
    m = np.where(np.arange(rows) % 4, 1, 4096)
    return {"m": m, "n": n, "k": k, "format": ["bf16"] * rows, "seconds": np.where(m == 1, times, times + n * k * 1e-10)}


@cache
def sized():
    return record_from_tables(products(), "h100-sxm", id="mine", source="a law", rows_per_table=400)


def decode_residuals(outputs, calibration=None):
    """What estimates of square products of one row leave in decode steps."""
    floors = [matmul_floor(1, int(n), int(n), "h100-sxm", format="bf16") for n in outputs]
    ops = [floor.op for floor in floors]
    chosen = choose(FAMILIES["matmul"], ops, calibration or sized(), floors[0].hardware, steps=frozenset({"decode"}))
    every = [FAMILIES["matmul"].features(op) for op in ops]
    return chosen.residuals(FAMILIES["matmul"], {name: np.array([[float(x[name])] for x in every]) for name in every[0]})


def test_small_and_large_products_have_intervals_of_their_own():
    """80 % of normal noise lies within 1.28 standard deviations."""
    (c,) = sized().classes
    assert (c.size_quantiles.size, c.size_quantiles.border, set(c.size_quantiles.small)) == ("weights_per_row", 1e6, {"decode"})
    found = decode_residuals([256, 8192])
    small, large = (found.at(0.9) - found.at(0.1))[:, 0]
    assert small == pytest.approx(2 * 1.28 * 0.2, rel=0.4)
    assert large == pytest.approx(2 * 1.28 * 0.02, rel=0.6)


def test_the_interval_does_not_jump_at_the_border():
    high = decode_residuals(np.unique(np.geomspace(300, 4000, 400).astype(int))).at(0.9)[:, 0]
    assert high[0] > 5 * high[-1]
    assert np.abs(np.diff(high)).max() < 0.05 * (high[0] - high[-1])
    assert (np.diff(high) <= 0).all()


def test_steps_as_arrays_have_the_intervals_of_each():
    """Caches of 10 MB to 10 GB, on both sides of the border and at it."""
    contexts = [100, 10_000, 100_000]
    both = decode_estimate("llama-3-8b", "h100-sxm", batch=4, context=np.array(contexts))
    each = [decode_estimate("llama-3-8b", "h100-sxm", batch=4, context=context) for context in contexts]
    assert both.low_s.tolist() == pytest.approx([e.low_s for e in each], rel=1e-12)
    assert both.high_s.tolist() == pytest.approx([e.high_s for e in each], rel=1e-12)
    attention = [next(row for row in e.by_op() if row.family == "attention") for e in each]
    spread = [row.high_s / row.low_s for row in attention]
    assert spread[0] > spread[2]


def test_a_record_without_sizes_has_one_interval_for_all(tmp_path):
    (c,) = sized().classes
    without = sized().model_copy(update={"classes": (c.model_copy(update={"size_quantiles": None}),)})
    path = save_record(without, tmp_path / "old.json")
    assert "size_quantiles" not in path.read_text()
    assert np.ptp(decode_residuals([256, 8192], load_record(path)).at(0.9)) == 0
    assert load_record(save_record(sized(), tmp_path / "new.json")).classes[0].size_quantiles.small.keys() == {"decode"}


def test_sizes_are_those_of_the_form():
    (c,) = sized().classes
    other = c.model_copy(update={"size_quantiles": c.size_quantiles.model_copy(update={"size": "columns"})})
    with pytest.raises(CalibrationError, match="size_quantiles are by columns, and this form's by weights_per_row"):
        decode_estimate("llama-3-8b", "h100-sxm", calibration=sized().model_copy(update={"classes": (other,)}))
    same = (0.0,) * len(PERCENTILES)
    with pytest.raises(CalibrationError, match="needs small and large, of the same kinds of step"):
        SizeQuantiles(size="columns", border=1.0, small={"decode": same}, large={"prefill": same})
