"""Pictures: what the curves hold against hand formulas, whose Axes come back, units on the axes, and what is left behind (nothing)."""

import subprocess
import sys

import numpy as np
import pytest

from roofline import (
    Hardware,
    InvalidValueError,
    MissingDependencyError,
    UnknownNameError,
    decode_estimate,
    decode_floor,
    kernel_estimate,
    matmul_floor,
    prefill_floor,
)
from roofline.plotting import plot_batch, plot_breakdown, plot_roofline

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)

# NVIDIA H100 white paper: 132 SMs of 4096 FLOP per clock in bf16, 8192 in fp8; at most 1980 MHz; 5 stacks of HBM3 at 3.352 TB/s
BF16, FP8, W = 132 * 4096 * 1.98e9, 132 * 8192 * 1.98e9, 3.352e12
KV = 2 * 32 * 8 * 128 * 2  # Llama-3-8B: keys and values, layers, heads, width, bytes: 131,072 B per token


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    before = plt.get_fignums()
    yield
    assert plt.get_fignums() == before


@pytest.fixture
def ax():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


@pytest.fixture(scope="module")
def decode():
    return decode_floor("llama-3-70b", "h100-sxm", batch=8, context=4096)


@pytest.fixture(scope="module")
def prefill():
    return prefill_floor("llama-3-70b", "h100-sxm", prompt=2048)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def line(ax, label):
    (found,) = [drawn for drawn in ax.lines if drawn.get_label() == label]
    return found


# ------------------------------------------------------------------------------------------------------------------- roofline


def test_the_roofs_are_bandwidth_times_intensity_up_to_the_peak(ax):
    assert plot_roofline("h100-sxm", ax=ax) is ax
    roofs = {drawn.get_gid(): drawn.get_xydata() for drawn in ax.lines if drawn.get_gid()}
    assert roofs.keys() == {"roof bf16", "roof fp8"}
    for name, peak in (("roof bf16", BF16), ("roof fp8", FP8)):
        intensity, rate = roofs[name].T
        assert rate == pytest.approx(np.minimum(intensity * W, peak), rel=1e-4)
        assert rate.max() == pytest.approx(peak, rel=1e-4)
        assert np.isclose(intensity, peak / W, rtol=1e-4).any(), "the ridge is a point of the curve"
    diamonds = [drawn.get_xydata()[0] for drawn in ax.lines if drawn.get_marker() == "D"]
    assert np.asarray(diamonds) == pytest.approx(np.array([[BF16 / W, BF16], [FP8 / W, FP8]]), rel=1e-4)
    assert any("319.4 FLOP/B" in text for text in texts(ax))  # 1070.5 / 3.352
    assert any("3.352 TB/s" in text for text in texts(ax))


def test_a_format_without_a_mode_shares_the_roof_it_is_computed_on(ax):
    plot_roofline("a100-sxm-80gb", ax=ax)  # A100 data sheet: bf16 312 TFLOP/s, no fp8
    assert sum(bool(drawn.get_gid()) for drawn in ax.lines) == 1
    assert "bf16, fp8: 312 TFLOP/s" in texts(ax)


def test_operators_lie_under_their_roof(ax, decode, prefill):
    plot_roofline("h100-sxm", formats=("bf16",), floors=(decode, prefill), ax=ax)
    clouds = [np.asarray(c.get_offsets()) for c in ax.collections if len(c.get_offsets())]
    assert len(clouds) == 2
    for cloud in clouds:
        intensity, rate = cloud.T
        assert (rate <= np.minimum(intensity * W, BF16) * (1 + 1e-4)).all()
    # Down projection of batch 8: 2·8·28672·8192 FLOP; 2·28672·8192 B of weights, 2·8·(28672 + 8192) B of activations
    x = 2 * 8 * 28672 * 8192 / (2 * 28672 * 8192 + 2 * 8 * (28672 + 8192))
    assert np.isclose(clouds[0], (x, x * W), rtol=1e-4).all(axis=1).any()
    # of a prompt of 2048 the same product is past the ridge
    x = 2 * 2048 * 28672 * 8192 / (2 * 28672 * 8192 + 2 * 2048 * (28672 + 8192))
    assert np.isclose(clouds[1], (x, BF16), rtol=1e-4).all(axis=1).any()


def test_the_area_of_a_bubble_grows_with_its_share(ax, decode):
    plot_roofline("h100-sxm", floors=decode, ax=ax)
    cloud = next(c for c in ax.collections if len(c.get_offsets()))
    shares = [row.time_s / decode.roofline_s for row in decode.by_op() if row.op.flops or row.op.vector_flops]
    assert np.argsort(cloud.get_sizes()).tolist() == np.argsort(shares).tolist()


def test_prefill_and_decode_have_different_markers(ax, decode, prefill):
    plot_roofline("h100-sxm", floors=(decode, prefill), ax=ax)
    shapes = {len(c.get_paths()[0].vertices) for c in ax.collections if len(c.get_offsets())}
    assert len(shapes) == 2
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["decode, batch 8, context 4,096", "prefill, batch 1 × 2,048 tokens"]


@pytest.mark.parametrize("machine", ["h100-sxm", "mi300x", "a100-sxm-80gb"])
def test_labels_neither_overlap_nor_leave_the_axes(ax, machine):
    model = "deepseek-v3"
    floors = decode_floor(model, machine, batch=64, context=8192), prefill_floor(model, machine, prompt=2048)
    plot_roofline(machine, floors=floors, ax=ax)
    ax.figure.draw_without_rendering()
    notes = [t for t in ax.texts if hasattr(t, "arrow_patch") and t.arrow_patch is not None]
    boxes = [matplotlib.text.Text.get_window_extent(note) for note in notes]
    assert len(boxes) >= 4
    inside = ax.get_window_extent()
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[i + 1 :])
        assert inside.x0 <= box.x0 <= box.x1 <= inside.x1
        assert inside.y0 <= box.y0 <= box.y1 <= inside.y1


def test_axes_title_and_units_of_a_roofline(ax, decode):
    plot_roofline("h100-sxm", floors=decode, ax=ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("intensity [FLOP/B]", "rate [TFLOP/s]")
    assert "H100" in ax.get_title()
    assert "llama-3-70b (weights bf16, KV bf16)" in ax.get_title()
    assert ax.yaxis.get_major_formatter()(1e14, 0) == "100"  # data in FLOP/s, ticks in TFLOP/s


def test_a_floor_of_another_machine_or_of_many_steps_is_refused(ax, decode):
    with pytest.raises(InvalidValueError, match="a floor is for H100"):
        plot_roofline("a100-sxm-80gb", floors=decode, ax=ax)
    many = decode_floor("llama-3-8b", "h100-sxm", batch=np.arange(1, 4))
    for draw in (lambda: plot_roofline("h100-sxm", floors=many, ax=ax), lambda: plot_breakdown(many, ax=ax)):
        with pytest.raises(InvalidValueError, match=r"array of shape \(3,\)"):
            draw()
    with pytest.raises(UnknownNameError, match="fp9"):
        plot_roofline("h100-sxm", formats=("fp9",), ax=ax)


def clouds(ax):
    return [np.asarray(c.get_offsets()) for c in ax.collections if len(c.get_offsets())]


def test_one_format_is_a_text(ax):
    plot_roofline("h100-sxm", formats="bf16", ax=ax)
    assert [drawn.get_gid() for drawn in ax.lines if drawn.get_gid()] == ["roof bf16"]


def test_several_machines_have_a_roof_each(ax):
    decode = decode_floor("llama-3-8b", "h200-sxm", batch=8)
    plot_roofline(["h100-sxm", Hardware.load("h200-sxm")], formats="bf16", floors=decode, ax=ax)
    roofs = {drawn.get_gid(): drawn.get_xydata() for drawn in ax.lines if drawn.get_gid()}
    # H200 data sheet: 4.8 TB/s, and the chip of the H100 at the same highest clock
    for name, bandwidth in (("roof h100-sxm bf16", W), ("roof h200-sxm bf16", 4.8e12)):
        intensity, rate = roofs[name].T
        assert rate == pytest.approx(np.minimum(intensity * bandwidth, BF16), rel=1e-3)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == [
        "H100 SXM5 80GB: 3.352 TB/s, bf16 1.071 PFLOP/s",
        "H200 SXM 141GB: 4.8 TB/s, bf16 1.071 PFLOP/s",
        "decode, batch 8, context 0, H200 SXM 141GB",
    ]


def test_kernels_stand_at_their_roof_their_estimate_and_their_measured_time(ax):
    rows = np.array([1, 64, 4096])
    floor = matmul_floor(rows, 4096, 4096, "h100-sxm", format="bf16")
    estimate = kernel_estimate(floor)
    plot_roofline("h100-sxm", formats="bf16", floors=(floor, estimate), measured=[(floor, 2 * estimate.time_s)], ax=ax)
    x = 2 * rows * 4096 * 4096 / (2 * (4096 * 4096 + 2 * rows * 4096))
    for cloud, rate in zip(
        clouds(ax),
        (np.minimum(x * W, BF16), floor.flops / estimate.time_s, floor.flops / estimate.time_s / 2),
        strict=True,
    ):
        assert cloud == pytest.approx(np.column_stack([x, rate]), rel=1e-4)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["matmul", "matmul, estimate", "matmul, measured"]


@pytest.mark.parametrize("model", ["llama-3-8b", "mixtral-8x7b"])
def test_an_estimate_lies_below_the_floor_of_its_step(ax, model):
    estimate = decode_estimate(model, "h100-sxm", batch=8, context=4096)
    plot_roofline("h100-sxm", formats="bf16", floors=estimate, measured=[(estimate.floor, estimate.time_s)], ax=ax)
    operators, measured = clouds(ax)
    assert len(operators) >= 8
    assert (operators[:, 1] <= np.minimum(operators[:, 0] * W, BF16)).all()
    assert measured == pytest.approx(np.array([[estimate.floor.intensity, estimate.floor.flops / estimate.time_s]]))


@pytest.mark.parametrize("time_s", [0.0, -1.0, np.nan, "1 ms", [1e-3, 2e-3]])
def test_a_measured_point_needs_one_positive_time_for_each(ax, decode, time_s):
    kernel = matmul_floor([1, 2, 3], 64, 64, "h100-sxm", format="bf16")
    with pytest.raises(InvalidValueError):
        plot_roofline("h100-sxm", measured=[(kernel, time_s)], ax=ax)


def test_what_is_no_floor_is_not_drawn(ax):
    for given in (3, [3], ["h100-sxm"]):
        with pytest.raises(InvalidValueError):
            plot_roofline("h100-sxm", floors=given, ax=ax)


# ---------------------------------------------------------------------------------------------------------------------- batch


def test_time_against_batch_is_the_floor_with_its_roofs(ax):
    assert plot_batch("llama-3-8b", "h100-sxm", context=1024, ax=ax) is ax
    drawn = line(ax, "floor")
    batch = np.arange(1, 1025)
    assert drawn.get_xdata().tolist() == batch.tolist()
    # 8,030,261,248 parameters less the table of 128256·4096, in 2 bytes; rows of the table; cache of 1024 read, 1 written; less 50 MiB of L2
    moved = 2 * (8_030_261_248 - 128256 * 4096) + 2 * 4096 * batch + KV * batch * 1025
    assert drawn.get_ydata() == pytest.approx((moved - 50 * 2**20) / W, rel=1e-6)
    assert (line(ax, "memory roof").get_ydata() == drawn.get_ydata()).all()
    assert not [other for other in ax.lines if other.get_label() == "network roof"], "one device has none"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("batch [sequences]", "time of a decode step [ms]")
    assert ax.get_title() == "llama-3-8b on H100 SXM5 80GB\ndecode, context 1,024, weights bf16, KV bf16"


def test_the_capacity_border_is_where_weights_and_cache_fill_the_memory(ax):
    plot_batch("llama-3-8b", "h100-sxm", context=1024, ax=ax)
    capacity = 85.52e9  # visible, as nvidia-smi reports
    border = (capacity - 2 * 8_030_261_248) / (KV * 1025)
    first = int(border) + 1
    assert any(text.startswith(f"does not fit\nfrom {first:,}") for text in texts(ax))
    assert any("memory-bound" in text for text in texts(ax))


def test_borders_between_coarse_batches_are_searched_for(ax):
    fine = plot_batch("llama-3-8b", "h100-sxm", context=128, ax=ax.figure.add_subplot())
    coarse = plot_batch("llama-3-8b", "h100-sxm", context=128, batches=[1, 8, 64, 512, 1024], ax=ax)
    borders = [text.split("from ")[1] for text in texts(fine) if "from" in text]
    assert borders
    assert [text.split("from ")[1] for text in texts(coarse) if "from" in text] == borders


def test_weights_alone_turn_compute_bound_at_the_ridge(ax):
    """B·140e9/1070.5e12 s of arithmetic pass (140e9 - 50 MiB of L2)/3.352e12 s of bytes beyond B = 319.24."""
    plot_batch("70B", "h100-sxm", context=0, batches=np.arange(1, 600), ax=ax)
    past = np.asarray(line(ax, "compute roof").get_ydata()) > line(ax, "memory roof").get_ydata()
    assert np.argmax(past) + 1 == 320


def test_an_alias_is_the_same_machine(ax):
    plot_roofline("H100", floors=decode_floor("llama-3-8b", "h100-sxm"), ax=ax)
    assert "H100 SXM5 80GB" in ax.get_title()


def test_intensity_and_its_ridge(ax):
    plot_batch("llama-3-8b", "h100-sxm", context=1024, quantity="intensity", ax=ax)
    assert line(ax, "ridge of the machine").get_ydata() == pytest.approx(BF16 / W, rel=1e-4)
    floor = decode_floor("llama-3-8b", "h100-sxm", batch=64, context=1024)
    assert line(ax, "intensity").get_ydata()[63] == pytest.approx(floor.flops / floor.total_bytes, rel=1e-12)
    assert ax.get_ylabel() == "intensity [FLOP/B]"


def test_throughput_ends_where_nothing_fits(ax):
    plot_batch("llama-3-8b", "h100-sxm", context=1024, quantity="tokens_per_s", ax=ax)
    rate = line(ax, "throughput at the floor").get_ydata()
    assert np.isfinite(rate[:500]).all()
    assert np.isnan(rate[600:]).all()
    assert ax.get_ylabel() in ("throughput [token/s]", "throughput [ktoken/s]")


def test_options_reach_the_floor_and_the_title(ax):
    plot_batch("llama-3-70b", "h100-sxm", context=1024, ax=ax, weights="fp8", kv="fp8", tensor_parallel=4)
    assert ax.get_title() == "llama-3-70b on H100 SXM5 80GB, tensor parallel 4\ndecode, context 1,024, weights fp8, KV fp8"
    floor = decode_floor("llama-3-70b", "h100-sxm", batch=16, context=1024, weights="fp8", kv="fp8", tensor_parallel=4)
    assert line(ax, "floor").get_ydata()[15] == pytest.approx(floor.time_s, rel=1e-12)
    assert line(ax, "network roof").get_ydata()[15] == pytest.approx(floor.network_s, rel=1e-12)


def test_plot_batch_where_no_batch_fits(ax):
    plot_batch("llama-3-70b", "h100-sxm", context=1024, quantity="tokens_per_s", ax=ax)
    assert "does not fit" in texts(ax)


@pytest.mark.parametrize("batches", [[], [0, 1], [4, 2], [1, 1], [[1, 2]], [1.5], "8"])
def test_impossible_batches_are_refused(ax, batches):
    with pytest.raises(InvalidValueError, match="batches"):
        plot_batch("llama-3-8b", "h100-sxm", context=0, batches=batches, ax=ax)


def test_unknown_quantities_name_the_known_ones(ax, decode):
    with pytest.raises(UnknownNameError, match="intensity"):
        plot_batch("llama-3-8b", "h100-sxm", context=0, quantity="intensities", ax=ax)
    with pytest.raises(UnknownNameError, match="bytes"):
        plot_breakdown(decode, quantity="byte", ax=ax)


def test_an_estimate_lies_above_its_floor_with_its_interval(ax):
    batches = np.array([1, 8, 64])
    plot_batch("llama-3-8b", "h100-sxm", context=1024, batches=batches, estimate="generic", measured=([1, 64], [6e-3, 9e-3]), ax=ax)
    expected = decode_estimate("llama-3-8b", "h100-sxm", batch=batches, context=1024, calibration="generic")
    assert line(ax, "estimate (generic)").get_ydata() == pytest.approx(expected.time_s)
    assert line(ax, "measured").get_xydata().tolist() == [[1, 6e-3], [64, 9e-3]]
    (band,) = [c for c in ax.collections if c.get_label() == "80% interval"]
    edges = band.get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == pytest.approx((expected.low_s.min(), expected.high_s.max()))


def test_the_throughput_of_estimates_and_of_measured_steps(ax):
    batches = np.array([1, 8, 64])
    plot_batch("llama-3-8b", "h100-sxm", context=1024, batches=batches, quantity="tokens_per_s", estimate=True, measured=(64, 0.01), ax=ax)
    expected = decode_estimate("llama-3-8b", "h100-sxm", batch=batches, context=1024)
    assert line(ax, "estimate (h100-sxm-vllm-0.24.0)").get_ydata() == pytest.approx(batches / expected.time_s)
    assert line(ax, "measured").get_xydata().tolist() == [[64, 6400]]


def test_several_machines_have_a_curve_each(ax):
    machines = ["h100-sxm", "h200-sxm"]
    plot_batch("llama-3-8b", machines, context=1024, batches=[1, 8], ax=ax)
    for machine in machines:
        floor = decode_floor("llama-3-8b", machine, batch=[1, 8], context=1024)
        assert line(ax, f"floor, {floor.hardware.name}").get_ydata() == pytest.approx(floor.time_s)
    assert not [text for text in texts(ax) if "bound" in text]


@pytest.mark.parametrize(
    "wrong",
    [
        {"measured": 3},
        {"measured": ([1, 2], [1e-3])},
        {"measured": ([1], [0.0])},
        {"measured": ([1], ["fast"])},
        {"estimate": True, "quantity": "intensity"},
    ],
)
def test_what_cannot_be_measured_or_estimated_is_refused(ax, wrong):
    with pytest.raises(InvalidValueError):
        plot_batch("llama-3-8b", "h100-sxm", context=0, batches=[1, 2], ax=ax, **wrong)
    with pytest.raises(InvalidValueError, match="at least one machine"):
        plot_batch("llama-3-8b", [], context=0, ax=ax)


# ------------------------------------------------------------------------------------------------------------------ breakdown


def stacks(ax):
    """Whole width of every bar, from the top."""
    widths = {}
    for patch in ax.patches:
        row = round(patch.get_y() + patch.get_height() / 2)
        widths[row] = max(widths.get(row, 0), patch.get_x() + patch.get_width())
    return [widths[row] for row in sorted(widths)]


def test_stacked_times_add_up_and_stand_over_the_roofs(ax, decode):
    assert plot_breakdown(decode, ax=ax) is ax
    assert stacks(ax) == pytest.approx([decode.roofline_s, decode.memory_s, decode.compute_s], rel=1e-12)
    (marked,) = {x for drawn in ax.lines for x in drawn.get_xdata()}
    assert marked == decode.time_s
    assert ax.get_xlabel() == "time [ms]"
    assert "does not fit" in ax.get_legend().get_texts()[0].get_text()
    assert "decode, batch 8, context 4,096, weights bf16, KV bf16" in ax.get_title()


def test_the_bars_of_an_estimate_are_its_kernels_and_its_overhead(ax):
    estimate = decode_estimate("llama-3-8b", "h100-sxm", batch=8, context=4096)
    plot_breakdown(estimate, ax=ax)
    bars = {}
    for bar in ax.patches:
        bars[round(bar.get_y(), 3)] = bars.get(round(bar.get_y(), 3), 0) + bar.get_width()
    longest = max(bars.values())
    assert longest == pytest.approx(estimate.kernels_s + estimate.overhead_s)
    assert "estimate" in [label.get_text() for label in ax.get_yticklabels()]
    assert any(text.startswith("floor: ") for text in (t.get_text() for t in ax.get_legend().get_texts()))
    with pytest.raises(InvalidValueError, match="KernelFloor"):
        plot_breakdown(matmul_floor(64, 64, 64, "h100-sxm", format="bf16"), ax=ax)


def test_stacked_bytes_add_up_by_kind(ax, decode):
    plot_breakdown(decode, quantity="bytes", ax=ax)
    weights, cache, _ = stacks(ax)
    # 70,553,706,496 parameters less the table of 128256·8192, in 2 bytes, and 8 rows of it; 327,680 B of cache per token
    assert weights == pytest.approx(2 * (70_553_706_496 - 128256 * 8192 + 8 * 8192), rel=1e-12)
    assert cache == pytest.approx(327_680 * 8 * 4097, rel=1e-12)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["weights", "KV cache", "activations"]
    assert ax.get_xlabel() == "main-memory traffic [GB]"


def test_several_devices_have_a_network_roof(ax):
    floor = decode_floor("llama-3-70b", "h100-sxm", batch=8, context=1024, tensor_parallel=8)
    plot_breakdown(floor, ax=ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()][1:] == ["memory roof", "compute roof", "network roof"]
    assert stacks(ax)[3] == pytest.approx(floor.network_s, rel=1e-12)


# --------------------------------------------------------------------------------------------------------------- housekeeping


def test_a_figure_is_made_only_when_none_is_given(decode):
    for draw in (
        lambda: plot_roofline("h100-sxm"),
        lambda: plot_batch("llama-3-8b", "h100-sxm", context=0),
        lambda: plot_breakdown(decode),
    ):
        settings = dict(matplotlib.rcParams)
        made = draw()
        assert plt.get_fignums() == [made.figure.number]
        assert tuple(made.figure.get_size_inches()) == (6.0, 4.0)
        assert dict(matplotlib.rcParams) == settings
        plt.close(made.figure)


@pytest.mark.parametrize("canvas", ["pdf", "svg", "agg"])
def test_plots_work_on_any_canvas(decode, canvas, tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    left, _ = figure.subfigures(1, 2)  # an Axes of a part of a figure
    plot_roofline("h100-sxm", floors=decode, ax=left.add_subplot())
    picture = tmp_path / f"roofline.{canvas.replace('agg', 'png')}"
    figure.savefig(picture)
    assert picture.stat().st_size > 5000


def test_without_matplotlib_the_extra_is_named(monkeypatch, decode):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for draw in (
        lambda: plot_roofline("h100-sxm"),
        lambda: plot_batch("llama-3-8b", "h100-sxm", context=0),
        lambda: plot_breakdown(decode),
    ):
        with pytest.raises(MissingDependencyError, match=r"pip install '\.\[plot\]' in a checkout"):
            draw()


def test_importing_plotting_does_not_import_matplotlib():
    code = "import sys; from roofline import plot_roofline; import roofline.plotting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
