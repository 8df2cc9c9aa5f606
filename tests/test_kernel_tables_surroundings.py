"""What a table says besides sizes, formats and times: calls, machines, sparsity, an index; and how files number and write their cells."""

import numpy as np
import pytest

from roofline import (
    Deployment,
    Hardware,
    InvalidValueError,
    Step,
    StepTime,
    attainable,
    attention_floor,
    check_table,
    decode_floor,
    matmul_floor,
    mbu,
    record_from_tables,
)
from roofline.kernel_tables import read_table

SIZES = {"m": [4096, 4096], "n": [8192, 8192], "k": [8192, 8192], "dtype": ["bf16", "bf16"]}
TIMED = SIZES | {"ms": [0.77, 0.78]}
HEAD = "m,n,k,dtype,us\n"
ROW = "4096,8192,8192,bf16,770\n"


@pytest.fixture
def csv(tmp_path):
    """A function that writes a CSV file and returns its path."""

    def write(text):
        (tmp_path / "t.csv").write_text(text)
        return tmp_path / "t.csv"

    return write


# ------------------------------------------------------------------------------------------------------------------------ calls


@pytest.mark.parametrize("calls", ["calls", "iters", "repeat", "# of Calls", "Instances", "num_iters", "count"])
@pytest.mark.parametrize(("time", "values"), [("total_ms", [77, 160]), ("Total Time (us)", [77e3, 160e3])])
def test_a_total_is_divided_by_its_calls(calls, time, values):
    read = read_table(SIZES | {time: values, calls: [100, 200]})
    assert read.groups[0].seconds == pytest.approx([0.77e-3, 0.8e-3], rel=1e-12)  # 77 ms / 100, 160 ms / 200
    assert read.reading.read[calls] == "calls"
    assert read.reading.read[time].endswith("of all calls")


def test_a_mean_is_not_divided_by_its_calls():
    read = read_table(TIMED | {"iters": [100, 100]})
    assert read.groups[0].seconds[0] == pytest.approx(0.77e-3, rel=1e-12)
    assert read.reading.ignored == ("iters",)


def test_a_total_without_calls_is_taken_for_one_call_and_it_is_said():
    read = read_table(SIZES | {"total_ms": [0.77, 0.78]})
    assert read.groups[0].seconds[0] == pytest.approx(0.77e-3, rel=1e-12)
    assert "total_ms is the time of one call" in read.reading.assumed


def test_calls_are_counts():
    with pytest.raises(InvalidValueError, match=r"column 'calls' must hold whole numbers of at least 1; .*row 2 \(0\)"):
        read_table(SIZES | {"total_ms": [77, 78], "calls": [100, 0]})
    assert read_table(SIZES | {"total_ms": [77, 78], "calls": [100, None]}).skipped == ("1 of 2 rows have holes: row 2 (calls)",)


# --------------------------------------------------------------------------------------------------------------------- machines


@pytest.mark.parametrize("name", ["gpu", "device", "GPU name", "machine"])
@pytest.mark.parametrize("text", ["NVIDIA H100 80GB HBM3", "h100-sxm", "H100"])
def test_the_machine_that_is_asked_about_is_noted(name, text):
    result = check_table(TIMED | {name: [text, text]}, "h100-sxm")
    assert result.ok
    assert result.kernels.reading.read[name] == "machine"
    assert result.kernels.reading.assumed == ()


def test_another_machine_is_an_error():
    table = TIMED | {"gpu": ["H100", "NVIDIA A100-SXM4-80GB"]}
    message = "column 'gpu' says 'NVIDIA A100-SXM4-80GB' in row 2, which is a100-sxm-80gb, and the machine asked about is h100-sxm"
    for ask in (lambda **o: check_table(table, "h100-sxm", **o), lambda: record_from_tables(table, "h100-sxm", id="x", source="y")):
        with pytest.raises(InvalidValueError, match=message):
            ask()
    assert check_table(table, "h100-sxm", ignore=["gpu"]).ok
    assert len(read_table(table).where(machine="H100")) == 1
    assert check_table(read_table(table).where(machine="H100"), "h100-sxm").ok


def test_a_name_of_a_family_means_any_of_it():
    slow = {n: c for n, c in TIMED.items() if n != "ms"} | {"ms": [2, 3], "gpu": ["A100", "A100"]}
    assert check_table(slow, "a100-pcie-40gb").ok
    with pytest.raises(InvalidValueError, match="which is a100-sxm-80gb"):
        check_table(slow, "v100-sxm2-32gb")


def test_a_name_that_no_machine_has_is_said():
    assert check_table(TIMED | {"gpu": ["lab-3", "lab-3"]}, "h100-sxm").kernels.reading.assumed == ("machine 'lab-3' is h100-sxm",)
    own = Hardware.from_rates(memory_bandwidth=3e12, peak_flops_per_s=1e15)
    assert check_table(TIMED | {"gpu": ["H100", "H100"]}, own).kernels.reading.assumed == ("machine 'H100' is custom",)


@pytest.mark.parametrize("place", ["cuda:0", "cuda", 0, "GPU 3", "1"])
def test_a_place_in_a_machine_names_none(place):
    assert check_table(TIMED | {"device": [place, place]}, "h100-sxm").kernels.reading.ignored == ("device",)


# --------------------------------------------------------------------------------------------------------------------- sparsity


@pytest.mark.parametrize("dense", ["dense", "None", 0, 0.0, False, ""])
def test_dense_products_are_read(dense):
    read = read_table(TIMED | {"sparsity": ["dense", dense]})
    assert read.reading.read["sparsity"] == "dense"


@pytest.mark.parametrize(("name", "sparse"), [("sparsity", "2:4"), ("sparsity", 0.5), ("is_sparse", True), ("Structured sparsity", "50%")])
def test_sparse_products_are_refused_by_name(name, sparse):
    with pytest.raises(InvalidValueError, match=f"column '{name}' says '{sparse}' in row 2: floors are of dense products"):
        read_table(TIMED | {name: [type(sparse)(0) if sparse != "2:4" else "", sparse]})
    assert len(read_table(TIMED | {name: ["", sparse], "ms": [1, None]})) == 1  # a row that is skipped says nothing


# ------------------------------------------------------------------------------------------------------------------ masked arrays


@pytest.mark.parametrize("name", ["m", "ms", "dtype"])
def test_masked_elements_of_tables_are_holes(name):
    read = read_table(TIMED | {name: np.ma.array(TIMED[name], mask=[False, True])})
    assert read.skipped == (f"1 of 2 rows have holes: row 2 ({'a format' if name == 'dtype' else name})",)
    assert read.groups[0].seconds == pytest.approx([0.77e-3], rel=1e-12)
    assert len(read_table(TIMED | {name: np.ma.array(TIMED[name])})) == 2


def test_masked_arrays_are_refused_by_formulas():
    masked = np.ma.array([1, 2, 3], mask=[False, True, False])
    floor = decode_floor("llama-3.1-8b", "h100-sxm", batch=[1, 2, 3], context=100)
    times = StepTime(Deployment("llama-3.1-8b", "h100-sxm"))
    ask = {
        "m": lambda x: matmul_floor(x, 64, 64, "h100-sxm", format="bf16"),
        "batch": lambda x: decode_floor("llama-3.1-8b", "h100-sxm", batch=x, context=100),
        "context": lambda x: attention_floor(batch=1, context=x, hardware="h100-sxm", heads=8, head_dim=64),
        "new": lambda x: Step.of(new=x),
        "cached": lambda x: times(1, 1, x),
        "intensity": lambda x: attainable(x, peak_flops_per_s=1e15, bandwidth=1e12),
        "time_s": lambda x: mbu(floor, x * 0.01),
    }
    for name, call in ask.items():
        with pytest.raises(InvalidValueError, match=rf"^{name} is a masked array, 1 of 3 elements masked; .*{name}\.compressed\(\)\.$"):
            call(masked)
        call(np.ma.array([1, 2, 3]))


# ---------------------------------------------------------------------------------------------------------- indices, rows, commas


@pytest.mark.parametrize("values", [[0, 1], [7, 3], [0, 0]])
def test_an_index_is_ignored_by_name(values, csv):
    assert read_table(TIMED | {"Unnamed: 0": values}).reading.ignored == ("Unnamed: 0",)
    rows = [f"{i},4096,8192,8192,bf16,770\n" for i in values]
    assert read_table(csv("," + HEAD + "".join(rows))).reading.ignored == ("Unnamed: 0",)


def test_rows_are_numbered_as_in_the_file(csv):
    path = csv(f"\n{HEAD}{ROW}\n,,,,\n{ROW}4096,8192,8192,bf16,7.7\n\n\n")
    result = check_table(path, "h100-sxm")
    assert sorted(result.rows["row"].tolist()) == [1, 4, 5]
    assert result.skipped == ("2 of 5 rows have holes: row 2 (empty), row 3 (empty)",)
    assert result.below["row"].tolist() == [5]
    with pytest.raises(InvalidValueError, match=r"column 'us' .* row 3 \('fast'\)"):
        read_table(csv(f"{HEAD}{ROW}\n{ROW.replace('770', 'fast')}"))
    with pytest.raises(InvalidValueError, match=r"has columns .* but no rows"):
        read_table(csv(f"{HEAD}\n\n"))


@pytest.mark.parametrize(("column", "given"), [("us", "12,5"), ("us", "1.234,5"), ("m", "1,024"), ("us", "1,5e3")])
def test_numbers_with_commas_have_a_sentence_of_their_own(column, given, csv):
    cells = {"m": "4096", "n": "8192", "k": "8192", "dtype": "bf16", "us": "770"} | {column: given}
    message = rf"column '{column}' has numbers with commas in 1 of 1 rows: row 1 \('{given}'\); write a decimal point"
    for text in (";".join(cells) + "\n" + ";".join(cells.values()), HEAD + ",".join(f'"{cell}"' for cell in cells.values())):
        with pytest.raises(InvalidValueError, match=message):
            read_table(csv(text))


def test_cells_that_do_not_fit_the_names_are_counted_with_what_parts_them(csv):
    with pytest.raises(
        InvalidValueError, match=r"line 2 of .* has 6 cells .* names 5 columns, separated by ','; a decimal comma must be a point"
    ):
        read_table(csv(HEAD + "4096,8192,8192,bf16,770,5\n"))
    with pytest.raises(InvalidValueError, match=r"line 2 of .* has 1 cell where the first line names 5 columns, separated by ','"):
        read_table(csv(HEAD + ROW.replace(",", ";")))
    assert read_table(csv("\n" + (HEAD + ROW).replace(",", ";"))).groups[0].seconds.tolist() == [770e-6]
