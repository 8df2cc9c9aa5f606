"""Reports of Nsight Compute, Nsight Systems and rocprofv3: real files in data/results/profilers, and small tables of the same layouts."""

from pathlib import Path

import pytest

from roofline import InvalidValueError
from roofline.profile import read_report
from roofline.profile.reports.values import decimal_sign, factor_of, number

REAL = Path(__file__).parent / "data" / "results" / "profilers"
DETAILS = '"ID","Process ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"\n'


def saved(tmp_path, text, name="report.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def details(tmp_path, *metrics):
    rows = [f'"0","17","a_gemm","S","{name}","{unit}","{value}"\n' for name, unit, value in metrics]
    return saved(tmp_path, DETAILS + "".join(rows))


# real files


def test_details_page_of_a_b200_is_read_past_the_lines_of_its_program():
    report = read_report(REAL / "b200_cublaslt_fp8_details.log")
    (kernel,) = report.kernels
    assert kernel.kind == "matrices"
    assert kernel.time_s == pytest.approx(406.24e-6)  # the program itself says 358 µs, without the profiler
    assert kernel.of_compute == pytest.approx(0.2359)
    assert kernel.of_memory == pytest.approx(0.2168)
    assert kernel.metrics["GPU Speed Of Light Throughput: SM Frequency"] == pytest.approx(1.23949604913e9)
    assert kernel.metrics["Launch Statistics: Cluster Scheduling Policy"] == "PolicySpread"
    assert len(kernel.advice) == 8
    assert kernel.advice[0].startswith("This workload exhibits low compute throughput")


def test_units_are_read_row_by_row_and_flop_that_were_not_counted_are_unknown():
    (kernel,) = read_report(REAL / "sm120_dsocr_k1_metrics.csv").kernels
    assert kernel.dram_bytes == pytest.approx(2.33e6)  # Mbyte read, byte written
    assert kernel.time_s == pytest.approx(6.75e-6)
    # flop_count_* are n/a, and a counter of 0 on the matrix units is no count: a product of one row runs on general units
    assert kernel.flops is None
    assert kernel.vector_flops is None
    assert kernel.metrics["Command line profiler metrics: sm__ops_path_tensor_src_bf16_dst_fp32.sum"] == 0
    assert not any("flop_count" in name for name in kernel.metrics)
    assert kernel.of_bandwidth == pytest.approx(0.1966)


def test_roofline_section_has_rates_and_peaks_at_the_profiled_clock():
    (kernel,) = read_report(REAL / "sm120_dsocr_k1_roofline_section.csv").kernels
    assert kernel.dram_bytes_per_s == pytest.approx(345.14e9)
    assert kernel.peak_bytes_per_s == pytest.approx(128 * 13.72e9)  # byte each cycle × DRAM clock; 1792 GB/s by the data sheet
    assert kernel.of_bandwidth == pytest.approx(0.1965, abs=1e-4)  # dram__throughput of the other report of this kernel: 19.66 %
    assert kernel.vector_flops_per_s == pytest.approx((158.12 + 1.97) * 2.15e9)
    assert kernel.peak_vector_flops_per_s == pytest.approx(43520 * 2.15e9)
    assert kernel.time_s is None
    assert kernel.vector_flops is None


def test_kernel_summary_of_nsight_systems_adds_up():
    report = read_report(REAL / "dsocr_decode_cuda_gpu_kern_sum.csv")
    first = report.kernels[0]
    assert first.kind == "matrices"
    assert first.count == 16448
    assert first.time_s == pytest.approx(61.602133e-3)
    assert first.time_s / report.time_s == pytest.approx(0.344, abs=5e-4)  # as its first column says
    assert sum(report.by_class().values()) == pytest.approx(report.time_s)


# layouts


def test_raw_page_has_units_in_its_second_line(tmp_path):
    text = (
        "==PROF== Connected to process 148\n"
        '"ID","Process ID","Kernel Name","Grid Size","dram__bytes.sum","gpu__time_duration.sum","sm__ops_path_tensor_src_bf16_dst_fp32.sum"\n'
        '"","","","","Mbyte","us",""\n'
        '"0","148","marlin","(224, 1, 1)","1,000.00","1.50","2,000,000"\n'
        '"1","148","flash_fwd","(1, 1, 1)","8.00","n/a","0"\n'
    )
    marlin, attention = read_report(saved(tmp_path, text)).kernels
    assert marlin.dram_bytes == pytest.approx(1e9)
    assert marlin.time_s == pytest.approx(1.5e-6)
    assert marlin.flops == 2e6
    assert marlin.product_flops_per_s == pytest.approx(2e6 / 1.5e-6)
    assert attention.time_s is None
    assert attention.flops is None


def test_a_raw_page_without_units_is_refused(tmp_path):
    text = '"ID","Kernel Name","dram__bytes.sum"\n"0","k","1"\n'
    with pytest.raises(InvalidValueError, match="no units"):
        read_report(saved(tmp_path, text))


def test_flop_of_general_units_are_counted_from_instructions(tmp_path):
    counted = {"fadd": 1_000_000, "fmul": 2_000_000, "ffma": 3_000_000, "dadd": 500_000, "dmul": 400_000, "dfma": 100_000}
    metrics = [(f"smsp__sass_thread_inst_executed_op_{op}_pred_on.sum", "inst", count) for op, count in counted.items()]
    path = details(
        tmp_path, *metrics, ("gpu__time_duration.sum", "msecond", "2.00"), ("sm__ops_path_tensor_src_bf16_dst_fp32.sum", "", "0")
    )
    (kernel,) = read_report(path).kernels
    assert kernel.vector_flops == 1e6 + 2e6 + 2 * 3e6 + 5e5 + 4e5 + 2 * 1e5
    assert kernel.flops == 0  # now a count: all that it did is known
    assert kernel.vector_flops_per_s == pytest.approx(kernel.vector_flops / 2e-3)


def test_metrics_of_one_name_are_apart_by_section(tmp_path):
    text = DETAILS + (
        '"0","1","k","GPU Speed Of Light Throughput","Memory Throughput","%","21.68"\n'
        '"0","1","k","Memory Workload Analysis","Memory Throughput","Gbyte/s","345.14"\n'
    )
    (kernel,) = read_report(saved(tmp_path, text)).kernels
    assert kernel.of_memory == pytest.approx(0.2168)
    assert kernel.dram_bytes_per_s == pytest.approx(345.14e9)


def test_launches_of_two_processes_are_apart(tmp_path):
    text = DETAILS + "".join(f'"{n}","{process}","k","S","Duration","ns","{100 + n}"\n' for process in (1, 2) for n in (0, 1))
    report = read_report(saved(tmp_path, text))
    assert report.count == 4
    assert report.time_s == pytest.approx(402e-9)


def test_rocprof_stats_and_traces_are_read(tmp_path):
    stats = (
        '"Name","Calls","TotalDurationNs","AverageNs","Percentage","MinNs","MaxNs","StdDev"\n'
        '"__amd_rocclr_copyBuffer",7084,17229993,2432.240683,8.38,601,10656,1241.386133\n'
        '"Cijk_Alik_Bljk_BBS",1113,13283773,11935.106020,6.46,6009,51117,6712.148824\n'
    )
    copy, product = read_report(saved(tmp_path, stats)).kernels
    assert (copy.kind, product.kind) == ("copy", "matrices")
    assert copy.time_s == pytest.approx(17.229993e-3)
    trace = (
        '"Kind","Agent_Id","Queue_Id","Kernel_Id","Kernel_Name","Correlation_Id","Start_Timestamp","End_Timestamp"\n'
        '"KERNEL_DISPATCH","Agent 2",1,42,"copy_kernel(float*, float const*, unsigned long)",1,1000000,1512480\n'
        '"KERNEL_DISPATCH","Agent 2",1,42,"copy_kernel(float*, float const*, unsigned long)",2,1600000,1700000\n'
    )
    (kernel,) = read_report(saved(tmp_path, trace)).kernels
    assert kernel.count == 2
    assert kernel.time_s == pytest.approx(612.48e-6)


@pytest.mark.parametrize("name", ["hipLaunchKernel", "hsa_signal_wait_scacquire", "HIP_RUNTIME_API", "MEMORY_COPY_HOST_TO_DEVICE"])
def test_rocprof_times_of_the_host_are_not_taken_for_kernels(tmp_path, name):
    text = f'"Name","Calls","TotalDurationNs","AverageNs","Percentage"\n{name},2,583182462,291591231,99.8\n'
    with pytest.raises(InvalidValueError, match="not of kernels"):
        read_report(saved(tmp_path, text))


def test_times_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(InvalidValueError, match="both have to be numbers"):
        read_report(saved(tmp_path, "Time (%),Total Time (ns),Instances,Name\n1.0,?,3,k\n"))
    with pytest.raises(InvalidValueError, match="both have to be times"):
        read_report(saved(tmp_path, "Kernel_Name,Start_Timestamp,End_Timestamp\nk,9,3\n"))


def test_banners_and_thousands_of_nsight_systems_are_read(tmp_path):
    text = '** CUDA GPU Kernel Summary (cuda_gpu_kern_sum)\n\nTime (%),Total Time (us),Instances,Avg (us),Name\n41.2,"1,236,000.5","4,120",300,k\n'
    (kernel,) = read_report(saved(tmp_path, text)).kernels
    assert kernel.count == 4120
    assert kernel.time_s == pytest.approx(1.2360005)


def test_what_powershell_writes_is_read(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text(DETAILS + '"0","1","k","S","Duration","ns","100"\n', encoding="utf-16")
    assert read_report(path).time_s == pytest.approx(1e-7)


# numbers


@pytest.mark.parametrize(
    ("texts", "decimal", "values"),
    [
        (["23,989,882,752.00", "1,234"], ".", [23989882752, 1234]),
        (["27.595.520", "12,5"], ",", [27595520, 12.5]),
        (["27.595.520", "1.234"], ",", [27595520, 1234]),
        (["21.68", "1,234"], ".", [21.68, 1234]),
        (["1 234,5", "7"], ",", [1234.5, 7]),
        (["1'234.5"], ".", [1234.5]),
        (["0.125"], ".", [0.125]),
        (["12345.678"], ".", [12345.678]),
        (["n/a", "7"], ".", [None, 7]),
        (["1.5e+06", "-3"], ".", [1.5e6, -3]),
    ],
)
def test_separators_follow_from_all_numbers_together(texts, decimal, values):
    assert decimal_sign(texts) == decimal
    assert [number(text, decimal) for text in texts] == [value if value is None else pytest.approx(value) for value in values]


def test_numbers_that_can_be_read_in_two_ways_are_refused_with_the_remedy(tmp_path):
    path = details(tmp_path, ("gpu__time_duration.sum", "ns", "1.234"))
    with pytest.raises(InvalidValueError, match=r"'1\.234' may have three decimals or be in thousands.*LC_ALL=C"):
        read_report(path)
    with pytest.raises(InvalidValueError, match="some of its numbers"):
        decimal_sign(["1.5", "1,5"])


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("byte", 1),
        ("Kbyte", 1e3),
        ("Gbyte/s", 1e9),
        ("byte/second", 1),
        ("nsecond", 1e-9),
        ("us", 1e-6),
        ("msecond", 1e-3),
        ("Ghz", 1e9),
        ("%", 0.01),
        ("cycle", 1),
        ("", 1),
        ("Kbyte/block", 1e3),
        ("byte/cycle", 1),
        ("cycle/nsecond", 1e9),
        ("register/thread", 1),
    ],
)
def test_units_become_si(unit, factor):
    assert factor_of(unit) == pytest.approx(factor)


# other files


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("a,b\n1,2\n", "none of the reports that can be read"),
        ('{"traceEvents": []}', "none of the reports"),
        (DETAILS, "but no kernels"),
        (DETAILS + "==PROF== Disconnected\n", "but no kernels"),
        ('"ID","Kernel Name","x"\n"","","us"\n', "but no kernels"),
        ('"' + "x" * 200_000, "none of the reports"),
    ],
)
def test_what_is_no_report_is_refused_in_a_sentence(tmp_path, content, match):
    path = saved(tmp_path, content)
    with pytest.raises(InvalidValueError, match=match) as caught:
        read_report(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_report_prints_and_becomes_json():
    report = read_report(REAL / "sm120_dsocr_k1_metrics.csv")
    assert "20% of the bandwidth at its clock" in str(report)
    assert '"of_bandwidth"' in report.to_json()
    assert report.to_records()[0]["count"] == 1
