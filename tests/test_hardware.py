"""Machines: the shipped specs against their datasheets, the traps of the field, and hostile spec files."""

import csv
import json
import math
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from roofline import shipped
from roofline.errors import InvalidValueError, SpecError, UnknownNameError
from roofline.formats import OPERANDS
from roofline.hardware import EVIDENCE, Hardware, load, nodes
from roofline.hardware.load import read_spec, spec_files
from roofline.hardware.schema import validator
from roofline.names import normalize_name

ROOT = Path(__file__).parents[1]
SPECS = ROOT / "hardware_specs"
IDS = Hardware.list()
GIB = 2**30

TEXTS = {"name", "vendor", "architecture", "unit", "memory_capacity_label_unit", "memory_type", "compute_unit_kind"}
TEXTS |= {"scaleup_interconnect", "scaleup_topology", "evidence", "sources"}


def _facts():
    """The fact sheet: what the sources state, in their units and independent of the spec files; an empty cell is unknown."""
    table = csv.DictReader((Path(__file__).parent / "data" / "hardware_facts.csv").read_text(encoding="utf-8").splitlines())
    return {row.pop("id"): {key: _cell(key, text) for key, text in row.items()} for row in table}


def _cell(key, text):
    if not text or key in TEXTS:
        return text or None
    return text == "True" if text in ("True", "False") else float(text)


FACTS = _facts()


# ---------------------------------------------------------------------------------------------------------------- files


def test_every_file_is_found_and_valid():
    assert sorted(f.stem for f in SPECS.glob("*.toml")) == IDS
    for machine in IDS:
        assert Hardware.load(machine).id == machine


@pytest.mark.parametrize("machine", IDS)
def test_every_group_of_figures_has_source_and_evidence(machine):
    text = (SPECS / f"{machine}.toml").read_text()
    assert text.startswith("#:schema ./schema.json\n")
    spec = tomllib.loads(text)
    for name, table in spec.items():
        if isinstance(table, dict):
            assert len(table["source"]) > 10, name
            assert table["evidence"] in set(EVIDENCE) - {"M", "U"}, name


def test_no_file_has_a_sparse_figure():
    keys = set()

    def collect(table):
        for key, value in table.items():
            keys.add(key)
            if isinstance(value, dict):
                collect(value)

    for file in SPECS.glob("*.toml"):
        collect(tomllib.loads(file.read_text()))
    assert not [k for k in keys if "spars" in k]
    assert "fp8" in keys


def test_ids_names_and_aliases_are_unique():
    seen = {}
    for machine in IDS:
        h = Hardware.load(machine)
        for key in {normalize_name(n) for n in (h.id, h.name, *h.aliases)}:
            assert seen.setdefault(key, machine) == machine, key


def test_geforce_boards_have_no_peer_access():
    """Their drivers offer none over PCIe; of other boards no spec says."""
    for machine in IDS:
        h = Hardware.load(machine)
        if h.host_link is not None:
            assert h.host_link.peer_access is (False if h.name.startswith("GeForce") else None), machine


def test_schema_file_is_current():
    pytest.importorskip("pydantic", minversion="2.10", reason="before pydantic 2.10 the same schema was spelled otherwise")
    text = (SPECS / "schema.json").read_text()
    assert text == json.dumps(Hardware.json_schema(), indent=2, ensure_ascii=False) + "\n"


def test_schema_accepts_the_files_and_refuses_nonsense():
    jsonschema = pytest.importorskip("jsonschema")
    schema = Hardware.json_schema()
    for file in SPECS.glob("*.toml"):
        jsonschema.validate(tomllib.loads(file.read_text()), schema)
    spec = tomllib.loads((SPECS / "t4.toml").read_text())
    spec["memory"]["bandwidth_bytes_per_s"] = 320
    with pytest.raises(jsonschema.ValidationError, match="320"):
        jsonschema.validate(spec, schema)


# ----------------------------------------------------------------------------------------------------- equal to the facts

PEAKS = {
    "fp64": "dense_tflops_fp64_tensor",
    "tf32": "dense_tflops_tf32",
    "bf16": "dense_tflops_bf16",
    "fp16": "dense_tflops_fp16_fp32acc",
    "fp8": "dense_tflops_fp8_fp32acc",
    "int8": "dense_tops_int8",
    "fp4": "dense_tflops_fp4",
    "int4": "dense_tops_int4",
}
MATRIX_FP32 = {"trainium1", "trainium2", "trainium3", "inferentia2", "gaudi3"}  # fp32 printed for the matrix engine
HOST_BY_C2C = {"gh200-96gb", "gh200-144gb", "gb200", "gb300"}  # the host is reached over NVLink-C2C, 450 GB/s one way


def close(value, expected, factor):
    if expected is None:
        return value is None
    return value == pytest.approx(expected * factor, rel=1e-12)


@pytest.mark.parametrize("machine", FACTS)
def test_spec_equals_the_fact_sheet(machine):
    fact, h = FACTS[machine], Hardware.load(machine)
    assert (h.name, h.vendor, h.architecture, h.year, h.unit) == tuple(fact[k] for k in ("name", "vendor", "architecture", "year", "unit"))
    matrix = h.compute.matrix_flops_per_s
    for operand, key in PEAKS.items():
        expected = fact[key]
        if machine.startswith("apple-") or (machine.startswith("v100-") and operand == "int8"):
            expected = None  # no matrix mode: these run on the general units
        assert close(getattr(matrix, operand), expected, 1e12), operand
    fp32 = matrix.fp32 if machine in MATRIX_FP32 else h.compute.vector_flops_per_s
    assert close(fp32, fact["dense_tflops_fp32"], 1e12)
    assert close(h.compute.fp64_vector_flops_per_s, fact["dense_tflops_fp64"], 1e12)
    if machine.startswith("apple-"):
        assert close(h.peak("fp16").value, fact["dense_tflops_fp16"] or math.inf, 1e12)
    fast = h.compute.matrix_flops_per_s_fp16_accumulate
    assert (fast is not None) == fact["fp16_fp32_accumulate_half_rate"]
    if fast is not None:
        assert close(fast.fp16, fact["dense_tflops_fp16"], 1e12)
        assert close(fast.fp8, fact["dense_tflops_fp8"], 1e12)

    assert h.memory.capacity_bytes == fact["memory_visible_bytes"]
    assert h.memory.labelled_bytes == fact["memory_capacity_gb_as_sold"] * (GIB if fact["memory_capacity_label_unit"] == "GiB" else 10**9)
    assert close(h.memory_bandwidth, fact["memory_bandwidth_gb_s"], 1e9)
    assert h.memory.type == fact["memory_type"]
    if machine != "h200-sxm":  # its own test below
        assert close(h.cache and h.cache.l2_bytes, fact["l2_cache_mib"], 2**20)
    assert close(h.cache and h.cache.last_level_bytes, fact["last_level_cache_mib"], 2**20)
    assert (h.units.count, h.units.kind) == (fact["compute_unit_count"], fact["compute_unit_kind"])
    assert close(h.units.boost_clock_hz, fact["boost_clock_mhz"], 1e6)
    if not machine.startswith("apple-"):
        assert close(h.units.matrix_clock_hz, fact["clock_behind_tensor_peak_mhz"], 1e6)
    assert close(h.units.sram_bytes_per_unit, fact["sram_kib_per_compute_unit"], 1024)

    assert (h.scale_up is None) == (fact["scaleup_interconnect"] is None)
    if h.scale_up is not None:
        assert close(h.scale_up.bandwidth_bytes_per_s, fact["scaleup_gb_s_per_direction"], 1e9)
        assert close(h.scale_up.pair_bandwidth_bytes_per_s, fact["scaleup_pair_gb_s_per_direction"], 1e9)
        names = (fact["scaleup_interconnect"], fact["scaleup_domain_size"], fact["scaleup_topology"])
        assert (h.scale_up.link, h.scale_up.domain_size, h.scale_up.topology) == names
    assert close(h.scale_out and h.scale_out.bandwidth_bytes_per_s, fact["nic_gbit_s_typical"], 1e9 / 8)
    if machine in HOST_BY_C2C:
        assert (h.host_link.link, h.host_link.bandwidth_bytes_per_s) == ("NVLink-C2C", 450e9)
    elif machine == "dgx-spark-gb10":
        assert h.host_link is None  # CPU and GPU share one memory
    else:
        assert close(h.host_link and h.host_link.bandwidth_bytes_per_s, fact["pcie_gb_s_per_direction"], 1e9)
    assert close(h.power and h.power.tdp_w, fact["tdp_w"], 1)


@pytest.mark.parametrize("machine", FACTS)
def test_evidence_letters_are_those_of_the_fact_sheet(machine):
    h = Hardware.load(machine)
    compute, memory, units, links, power = FACTS[machine]["evidence"]
    assert (h.compute.evidence, h.memory.evidence, h.units.evidence) == (compute, memory, units)
    assert h.scale_up is None or h.scale_up.evidence == links
    assert h.power is None or h.power.evidence == power
    if machine not in {"h200-sxm", "tpu-v5e"}:  # the cache of each has a source of its own
        assert h.cache is None or h.cache.evidence == units


# --------------------------------------------------------------------------------------- peaks derived from units and clock

# The vendor prints a figure that its own units and clock do not give.
NOT_DERIVED = {
    "dgx-spark-gb10": 0.06,  # 125 is the 1 PFLOP sparse fp4 headline divided by 8; 48 SM give 118.8
    "apple-m1-pro-16": 0.03,  # 5.2 printed; the recalled clock gives 5.3
    "apple-m1-max-32": 0.03,
    "apple-m1-ultra-64": 0.02,
}


def derived_peaks(h):
    units = h.units
    if units is None or units.count is None:
        return
    if units.vector_fma_per_clock_per_unit and units.boost_clock_hz:
        yield 2 * units.count * units.vector_fma_per_clock_per_unit * units.boost_clock_hz, h.compute.vector_flops_per_s
    for operand in OPERANDS:
        fma = getattr(units.matrix_fma_per_clock_per_unit, operand)
        if fma is not None and units.matrix_clock_hz:
            yield 2 * units.count * fma * units.matrix_clock_hz, getattr(h.compute.matrix_flops_per_s, operand)


def test_peaks_follow_from_units_and_clock():
    checked = []
    for machine in IDS:
        for derived, stated in derived_peaks(Hardware.load(machine)):
            assert derived == pytest.approx(stated, rel=NOT_DERIVED.get(machine, 0.01)), machine
            checked.append(machine)
    assert len(set(checked) - set(NOT_DERIVED)) >= 40


# -------------------------------------------------------------------------------------------------------- traps of the field


@pytest.mark.parametrize(
    ("machine", "operand", "tflops"),
    [
        ("h100-sxm", "bf16", 989.4),  # NVIDIA H100 datasheet prints 1979, with sparsity
        ("h100-sxm", "fp8", 1978.9),
        ("h100-pcie", "bf16", 756.5),  # datasheet 1513, with sparsity
        ("h200-sxm", "bf16", 989.4),
        ("l4", "bf16", 121),  # datasheet 242, with sparsity
        ("l40", "bf16", 181.05),  # L40 is capped at half of L40S
        ("l40s", "bf16", 362.05),
        ("a100-sxm-80gb", "int8", 624),
        ("a10", "bf16", 125),
        ("a10g", "bf16", 70),  # NOT the A10: more SMs, half the matrix rate
        ("mi300x", "bf16", 1307.4),  # AMD also prints 2614.9, with sparsity
        ("mi300x", "fp8", 2614.9),
        ("trainium2", "bf16", 667),
        ("trainium2", "fp8", 1299),  # 2563 is with 4:1 sparsity
        ("rtx-pro-6000-blackwell-ws", "fp4", 2015.2),  # "4000 AI TOPS" is sparse
        ("rtx-pro-6000-blackwell-server", "bf16", 467.8),  # Server Edition, 2430 MHz
        ("rtx-pro-6000-blackwell-server", "fp4", 1871.2),
        ("b200-sxm", "bf16", 2250),  # HGX, 1000 W
        ("gb200", "bf16", 2500),  # NVL72, 1200 W
        ("mi355x", "fp8", 5033.2),
        ("h20-96gb", "bf16", 148),
    ],
)
def test_peaks_are_dense(machine, operand, tflops):
    ceiling = Hardware.load(machine).peak(operand)
    assert ceiling.value == pytest.approx(tflops * 1e12, rel=1e-12)
    assert ceiling.unit == "FLOP/s"
    assert ceiling.note == ""


@pytest.mark.parametrize(("machine", "full", "half"), [("rtx-3090", 142.3, 71.2), ("rtx-4090", 330.3, 165.2), ("rtx-5090", 419, 209.5)])
def test_geforce_halves_the_rate_for_fp32_sums(machine, full, half):
    # Ampere GA102, Ada and RTX Blackwell white papers; frameworks accumulate in fp32.
    h = Hardware.load(machine)
    assert h.peak("bf16").value == h.peak("fp16").value == half * 1e12
    assert h.compute.matrix_flops_per_s_fp16_accumulate.fp16 == full * 1e12


def test_geforce_fp8_is_halved_too_and_professional_boards_are_not():
    assert Hardware.load("rtx-4090").peak("fp8").value == 330.3e12
    assert Hardware.load("rtx-5090").peak("fp8").value == 419e12
    for machine in ("rtx-6000-ada", "l40s", "rtx-pro-6000-blackwell-ws"):
        assert Hardware.load(machine).compute.matrix_flops_per_s_fp16_accumulate is None


# --------------------------------------------------------------------------------------------------- what nothing exceeds

# SMs, FLOP per clock of one in bf16 (white papers) and the highest clock that nvidia-smi prints for the part [MHz].
HIGHEST = [("h100-sxm", 132, 4096, 1980), ("a100-sxm-80gb", 108, 2048, 1410), ("rtx-4090", 128, 512, 3165), ("rtx-5090", 170, 512, 3135)]


@pytest.mark.parametrize(("machine", "units", "flop", "mhz"), HIGHEST)
def test_a_ceiling_is_units_times_flop_times_the_highest_clock(machine, units, flop, mhz):
    h = Hardware.load(machine)
    ceiling, peak = h.ceiling("bf16"), h.peak("bf16")
    assert ceiling.proven
    assert ceiling.value == pytest.approx(units * flop * mhz * 1e6, rel=1e-3)
    assert ceiling.value >= peak.value
    assert h.ridge("bf16") == ceiling.value / h.memory_bandwidth


def test_a_ceiling_says_how_it_differs_from_the_data_sheet():
    assert Hardware.load("h100-sxm").ceiling("bf16").note == "bf16 at up to 1.98 GHz: the data sheet's 989.4 TFLOP/s is for 1.83 GHz"
    assert "nvidia-smi" in Hardware.load("h100-sxm").ceiling("bf16").source
    assert "2.52 GHz with fp32 sums" in Hardware.load("rtx-4090").ceiling("fp16").note
    assert Hardware.load("a100").ceiling("bf16").note == ""
    assert "the data sheet, which rounds" in Hardware.load("v100").ceiling("fp16").note


@pytest.mark.parametrize(("machine", "tflops"), [("rtx-3090", 142.3), ("rtx-4090", 330.3), ("rtx-5090", 419)])
def test_fp16_operands_may_be_summed_in_fp16_and_bf16_ones_are_not(machine, tflops):
    """The fp16-sum peaks of NVIDIA's white papers: llama.cpp sums so (CUBLAS_COMPUTE_16F), and torch has a switch."""
    h = Hardware.load(machine)
    faster = h.clock.highest_hz / h.units.matrix_clock_hz
    assert h.ceiling("fp16").value == pytest.approx(tflops * 1e12 * faster, rel=1e-3)
    assert h.ceiling("bf16").value == pytest.approx(h.peak("bf16").value * faster, rel=1e-3)


def test_fp8_operands_may_be_summed_in_fp16():
    """SageAttention2++, arXiv 2505.21136: on Ada fp8 products with fp16 sums are twice as fast, and it uses them."""
    h = Hardware.load("rtx-4090")
    assert h.ceiling("fp8").value == pytest.approx(660.6e12 * 3165 / 2520, rel=1e-3)
    assert Hardware.load("rtx-3090").ceiling("fp8").value == Hardware.load("rtx-3090").ceiling("fp16").value  # converted


@pytest.mark.parametrize("machine", IDS)
def test_every_peak_is_a_bound_or_says_that_it_is_none(machine):
    h = Hardware.load(machine)
    for operand in OPERANDS:
        ceiling = h.ceiling(operand)
        assert ceiling.value >= h.peak(operand).value
        assert ceiling.proven == ("no proven bound" not in ceiling.note)
        assert ceiling.proven or h.clock is None or "the clock of this peak" in ceiling.note


def test_rates_of_the_user_stand_as_they_are():
    bare = Hardware.from_rates(memory_bandwidth=1e12, peak_flops_per_s=1e14)
    assert bare.ceiling("bf16") == bare.peak("bf16")
    assert bare.ceiling("bf16").proven


def test_gaudi_2_has_432_and_a_half():
    """Two MMEs of 256·256 multiply-adds at 1650 MHz; the printed 432 is rounded."""
    assert Hardware.load("gaudi2").ceiling("bf16").value == pytest.approx(2 * 2 * 256 * 256 * 1.65e9, rel=1e-4)


def test_apple_prints_no_rate_of_the_matrix_units_of_m5():
    h = Hardware.load("m5")
    assert h.peak("fp16").value == math.inf
    assert h.memory_bandwidth == 153.6e9


def test_ridge_points():
    assert Hardware.load("h100-sxm").ridge("bf16") == pytest.approx(132 * 4096 * 1.98e9 / 3.352e12, rel=1e-3)
    assert Hardware.load("h20").ridge() == pytest.approx(37, abs=0.5)  # capped compute on full memory


@pytest.mark.parametrize(
    ("machine", "one_way", "both_ways"),
    [
        ("v100-sxm2-16gb", 150, 300),  # NVLink 2 to 5: the printed totals sum both directions
        ("a100-sxm-80gb", 300, 600),
        ("h100-sxm", 450, 900),
        ("b200-sxm", 900, 1800),
        ("h800-sxm", 200, 400),
        ("h20-96gb", 450, 900),
        ("mi300x", 448, 896),
        ("mi355x", 535.5, 1071),
        ("gaudi3", 600, 1200),
        ("tpu-v5e", 200, 400),
        ("trainium2", 640, 1280),
    ],
)
def test_links_are_one_direction(machine, one_way, both_ways):
    assert Hardware.load(machine).link_ceiling.value == one_way * 1e9 == both_ways * 1e9 / 2


@pytest.mark.parametrize(("machine", "pair"), [("mi300x", 64), ("mi355x", 76.5), ("gaudi2", 37.5), ("h100-sxm", 450)])
def test_a_pair_in_a_mesh_gets_one_link(machine, pair):
    assert Hardware.load(machine).scale_up.pair_bandwidth_bytes_per_s == pair * 1e9


@pytest.mark.parametrize(
    ("machine", "visible_mib", "label_gib"),
    [
        ("t4", 15360, 16),  # inline ECC leaves 15/16
        ("a10", 23028, 24),
        ("a40", 46068, 48),
        ("l40s", 46068, 48),
        ("b200-sxm", None, 180),
        ("b300-sxm", 275040, 288),
        ("gb200", 189471, 186),
        ("gb300", 284208, 288),
        ("h100-sxm", None, 80),
    ],
)
def test_visible_and_labelled_bytes(machine, visible_mib, label_gib):
    memory = Hardware.load(machine).memory
    assert memory.labelled_bytes == label_gib * GIB
    if visible_mib:
        assert memory.capacity_bytes == visible_mib * 2**20


def test_capacity_is_what_software_sees():
    assert Hardware.load("h100-sxm").memory_capacity == 85_520_809_984  # never 80e9
    h = Hardware.load("mi355x")  # visible bytes unknown
    assert h.memory.capacity_bytes is None
    assert h.memory_capacity == h.capacity_ceiling.value == 288 * GIB
    assert h.capacity_ceiling.note == "as labelled: visible bytes not known"


@pytest.mark.parametrize(
    ("machine", "absent", "instead"),
    [
        ("a100-sxm-80gb", "fp8", "bf16"),
        ("a100-sxm-80gb", "fp4", "bf16"),
        ("h100-sxm", "fp4", "fp8"),
        ("h100-sxm", "int4", "int8"),
        ("v100-sxm2-32gb", "bf16", "fp16"),
        ("v100-sxm2-32gb", "int8", "fp16"),
        ("t4", "bf16", "fp16"),
        ("mi355x", "tf32", "fp32"),
        ("tpu-v5e", "fp8", "bf16"),
        ("gaudi3", "int8", "bf16"),
        ("gb300", "int4", "bf16"),  # its int8 mode is vestigial, so bf16 is the better conversion
    ],
)
def test_a_missing_mode_is_converted_and_said(machine, absent, instead):
    h = Hardware.load(machine)
    assert getattr(h.compute.matrix_flops_per_s, absent) is None
    assert h.peak(absent).value == h.peak(instead).value
    assert h.peak(absent).note == f"no {absent} mode: computed in {instead}"


@pytest.mark.parametrize(
    ("machine", "slow", "fast", "ratio"),
    [
        ("gaudi3", "bf16", "fp8", 1),
        ("tpu-v5p", "bf16", "fp8", 1),
        ("tpu-v6e", "bf16", "fp8", 1),
        ("tpu-v6e", "bf16", "int8", 2),
        ("trainium3", "bf16", "fp8", 3.75),
        ("trainium3", "fp8", "fp4", 1),
        ("mi210", "bf16", "int8", 1),
    ],
)
def test_halving_the_bits_does_not_always_double_the_rate(machine, slow, fast, ratio):
    h = Hardware.load(machine)
    assert h.peak(fast).value / h.peak(slow).value == pytest.approx(ratio, rel=2e-3)


@pytest.mark.parametrize(("machine", "int8"), [("b300-sxm", 153.5), ("gb300", 165)])
def test_blackwell_ultra_int8_is_vestigial(machine, int8):
    h = Hardware.load(machine)
    assert h.compute.matrix_flops_per_s.int8 == int8 * 1e12 < Hardware.load("a100").peak("int8").value
    ceiling = h.peak("int8")  # int8 is exact in bf16, and a bound takes the faster way
    assert ceiling.value == h.peak("bf16").value
    assert ceiling.name == "bf16 matrix peak"
    assert "faster here than the int8 matrix peak" in ceiling.note


def test_apple_computes_fp16_on_the_general_units():
    h = Hardware.load("m3 max")
    assert h.peak("fp16").value == h.peak("bf16").value == h.vector_peak.value == 14.1e12
    assert h.peak("fp16").name == "fp32 vector peak"


def test_fp32_takes_the_faster_units():
    assert Hardware.load("mi210").peak("fp32").value == 45.3e12  # matrix; the vector units do 22.6
    assert Hardware.load("mi210").vector_peak.value == 22.6e12
    assert Hardware.load("h100-sxm").peak("fp32").value == 66.9e12


def test_an_unknown_wider_format_is_bounded_not_guessed():
    h = Hardware.load("tpu-v5e")  # Google prints bf16 and int8 only
    assert h.peak("fp32").value == h.peak("bf16").value
    assert h.peak("fp32").note == "fp32 peak not known: bounded by bf16, which is no slower"
    assert h.vector_peak.value == math.inf


def test_last_level_caches():
    assert Hardware.load("h100-sxm").last_level_cache == 50 * 2**20
    assert Hardware.load("h200-sxm").last_level_cache == 62_914_560  # device properties, not the H100 datasheet's 50 MiB
    assert Hardware.load("mi300x").last_level_cache == 256 * 2**20  # Infinity Cache behind 32 MiB of L2
    assert Hardware.load("mi300x").cache.l2_bytes == 32 * 2**20
    assert Hardware.load("trainium2").last_level_cache == 0
    assert Hardware.load("trainium2").cache_ceiling.note == "no cache known"


def test_links_that_are_missing_or_unknown():
    l40s = Hardware.load("l40s")
    assert l40s.scale_up is None
    assert l40s.link_ceiling.value == 31.5e9
    assert l40s.link_ceiling.note == "no scale-up link: peers are reached over PCIe 4.0 x16"
    assert Hardware.load("max-1550").link_ceiling is None  # Xe Link rate unknown
    assert Hardware.load("apple-m2-10").link_ceiling is None
    assert Hardware.load("h100-sxm").network_ceiling.value == 50e9  # 400 Gb/s
    assert Hardware.load("h100-sxm").host_ceiling.value == 63e9
    assert Hardware.load("apple-m2-10").network_ceiling is None
    assert Hardware.load("apple-m2-10").host_ceiling is None


def test_ceilings_carry_their_source():
    h = Hardware.load("h100-sxm")
    for ceiling in (h.peak("bf16"), h.vector_peak, h.memory_ceiling, h.capacity_ceiling, h.cache_ceiling, h.link_ceiling):
        assert ceiling.evidence == "S"
        assert "https://" in ceiling.source
    assert h.memory_ceiling.value == h.memory_bandwidth == 3.352e12
    assert str(h.memory_ceiling) == "memory bandwidth 3.352 TB/s [S]"
    assert str(h) == "H100 SXM5 80GB (h100-sxm): 3.352 TB/s, 85.52 GB, 989.4 TFLOP/s bf16"
    assert repr(h) == "<Hardware h100-sxm>"


# --------------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("H100", "h100-sxm"),
        ("h100_sxm", "h100-sxm"),
        ("h100 SXM5 80GB", "h100-sxm"),
        ("h100_pcie", "h100-pcie"),
        ("h200_sxm", "h200-sxm"),
        ("H200", "h200-sxm"),
        ("a100", "a100-sxm-80gb"),
        ("a100_sxm", "a100-sxm-80gb"),
        ("a100_pcie", "a100-pcie-80gb"),
        ("b200_sxm", "b200-sxm"),
        ("b300_sxm", "b300-sxm"),
        ("gb200", "gb200"),
        ("l40s", "l40s"),
        ("a30", "a30"),
        ("rtx_pro_6000_server", "rtx-pro-6000-blackwell-server"),
        ("RTX PRO 6000", "rtx-pro-6000-blackwell-ws"),
        ("RTX 4090", "rtx-4090"),
        ("V100", "v100-sxm2-32gb"),
        ("gh200", "gh200-96gb"),
        ("h20", "h20-96gb"),
        ("TPU v5e", "tpu-v5e"),
        ("Ironwood", "tpu-v7"),
        ("trn2", "trainium2"),
        ("M4 Max", "apple-m4-max-40"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),  # as the driver reports it
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_names_ignore_case_punctuation_and_vendor(name, machine):
    assert Hardware.load(name).id == machine


# What nvidia-smi, torch, Vulkan and the clouds print, and what it is.
PRINTED = [
    ("NVIDIA RTX A6000", "rtx-a6000"),
    ("H100-80GB", "h100-sxm"),
    ("NVIDIA GH200 120GB", "gh200-96gb"),  # 120 GB is the LPDDR5X of its CPU
    ("NVIDIA GH200 480GB", "gh200-96gb"),
    ("GH200 480GB", "gh200-96gb"),
    ("NVIDIA B300 SXM6 AC", "b300-sxm"),
    ("NVIDIA GeForce RTX 4080 SUPER", "rtx-4080-super"),
    ("NVIDIA GeForce RTX 5090 D", "rtx-5090-d"),
    ("NVIDIA RTX 4000 Ada Generation", "rtx-4000-ada"),
    ("NVIDIA A800-SXM4-80GB", "a800-sxm-80gb"),
    ("AMD Instinct MI300X OAM", "mi300x"),
    ("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S", "strix-halo-395"),
    ("Intel(R) Arc(TM) Pro B60 Graphics", "arc-pro-b60"),
    ("Apple M5", "apple-m5-10"),
]


@pytest.mark.parametrize(("name", "machine"), PRINTED)
def test_names_that_drivers_and_clouds_print(name, machine):
    assert Hardware.load(name).id == machine


# Memory as makers name it, with the machine that has so much.
WITH_MEMORY = [
    ("RTX 4090 24GB", "rtx-4090"),
    ("rtx 4090 (24 GB)", "rtx-4090"),
    ("L40S 48GB", "l40s"),
    ("L4-24GB", "l4"),
    ("T4 16GB", "t4"),
    ("MI300X 192GB", "mi300x"),
    ("MI250X 128GB HBM2e", "mi250x"),
    ("H100 SXM5 80GB HBM3", "h100-sxm"),
    ("B200 180GB", "b200-sxm"),
    ("B200 192GB", "b200-sxm"),
    ("NVIDIA H200 141GB", "h200-sxm"),
    ("8x RTX 4090 24GB", "rtx-4090"),
    ("Apple M4 Max 128GB", "apple-m4-max-40"),
]


@pytest.mark.parametrize(("name", "machine"), WITH_MEMORY)
def test_a_name_may_end_with_the_memory_that_the_machine_has(name, machine):
    assert Hardware.load(name) == Hardware.load(machine)


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("RTX 4090 48GB", "rtx-4090 has 25.76 GB"),
        ("A100 24GB", "a100-sxm-80gb has 85.2 GB, a100-pcie-40gb has 42.95 GB, a100-pcie-80gb has 85.9 GB, a100-sxm-40gb has 42.95 GB"),
        ("H100 94GB", "h100-sxm has 85.52 GB, h100-nvl has 100.9 GB, h100-pcie has 85.9 GB"),
    ],
)
def test_a_name_with_another_memory_lists_the_variants(name, variants):
    with pytest.raises(UnknownNameError, match=re.escape(f": {variants}. A spec file")):
        Hardware.load(name)


def test_a_family_s_name_with_memory_says_whom_else_it_could_mean():
    assert "others of this family: h200-nvl" in Hardware.load("H200 141GB").alias_note  # which has 141 GB, too


# Devices of an instance as the pages of AWS, Google Cloud and Azure list them.
NODES = [
    ("p5.48xlarge", "h100-sxm", 8),
    ("p4d.24xlarge", "a100-sxm-40gb", 8),
    ("p4de.24xlarge", "a100-sxm-80gb", 8),
    ("a3-highgpu-8g", "h100-sxm", 8),
    ("ND96isr_H100_v5", "h100-sxm", 8),
    ("Standard_ND96isr_H100_v5", "h100-sxm", 8),
    ("trn2.48xlarge", "trainium2", 16),
    ("8xH100", "h100-sxm", 8),
    ("8x H100", "h100-sxm", 8),
    ("8 × A100-80GB", "a100-sxm-80gb", 8),
    ("H100:4", "h100-sxm", 4),
    ("RTX 3090 x2", "rtx-3090", 2),
    ("gpu_8x_h100_sxm5", "h100-sxm", 8),
    ("DGX H100", "h100-sxm", 8),
]


@pytest.mark.parametrize(("name", "machine", "devices"), NODES)
def test_a_name_for_several_devices_is_one_of_them_and_says_how_many_there_are(name, machine, devices):
    h = Hardware.load(name)
    assert h == Hardware.load(machine)
    assert h.alias_note.startswith(f'"{name}" is read as {devices} × {machine} ({h.name})')
    assert h.alias_note.endswith(f"results are for one device unless degrees are given: tensor_parallel={devices} uses all")


def test_an_instance_of_one_device_needs_no_degree():
    assert Hardware.load("g5.xlarge").alias_note == '"g5.xlarge" is read as 1 × a10g (A10G (AWS G5))'


@pytest.mark.parametrize("name", ["8x", "x8", "0xH100", "8xH1000", "H100x", "p5.49xlarge", "99999xH100"])
def test_what_counts_no_devices_is_unknown(name):
    with pytest.raises(UnknownNameError, match="unknown machine"):
        Hardware.load(name)


def test_nodes_need_a_count_and_one_owner(tmp_path, monkeypatch):
    for machine, node in (("one", "8x Same"), ("two", "4x same")):
        (tmp_path / f"{machine}.toml").write_text(f'nodes = ["{node}"]\n')
    monkeypatch.setattr(nodes, "spec_files", lambda: {m: tmp_path / f"{m}.toml" for m in ("one", "two")})
    with pytest.raises(SpecError, match=r"two\.toml: the node '4x same' is also one of one"):
        nodes._nodes.__wrapped__()
    (tmp_path / "two.toml").write_text('nodes = ["p5.48xlarge"]\n')
    with pytest.raises(SpecError, match=r"'p5.48xlarge' has no number of devices in front"):
        nodes._nodes.__wrapped__()


def test_ambiguous_alias_is_noted():
    h = Hardware.load("H100")
    assert h.requested == "H100"
    assert h.alias_note == '"H100" is read as h100-sxm (H100 SXM5 80GB); others of this family: h100-nvl, h100-pcie'
    assert "a100-sxm-40gb" in Hardware.load("A100 SXM").alias_note
    assert "h200" not in Hardware.load("h20").alias_note  # another family that starts with the same letters
    assert h == Hardware.load("h100-sxm")
    assert hash(h) == hash(Hardware.load("h100-sxm"))
    assert "requested" not in json.dumps(h.to_dict())


@pytest.mark.parametrize("name", ["h100-sxm", "H100 SXM", "H100 SXM5 80GB", "NVIDIA H100 PCIe", "l40s", "RTX 4090", "trn2"])
def test_a_plain_name_needs_no_note(name):
    assert Hardware.load(name).alias_note == ""


def test_requested_is_only_kept_when_it_differs():
    assert Hardware.load("H100 SXM").requested is None
    assert Hardware.load("trn2").requested == "trn2"
    assert Hardware.load("NVIDIA H100 80GB HBM3").requested == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(("typo", "near"), [("h100-sxmm", "h100-sxm"), ("mi300", "mi300x"), ("trillum", "trillium"), ("gaudi-4", "gaudi3")])
def test_an_unknown_name_lists_the_nearest(typo, near):
    with pytest.raises(UnknownNameError, match=f"unknown machine '{typo}'; nearest:.*{near}"):
        Hardware.load(typo)
    with pytest.raises(LookupError):
        Hardware.load(typo)


@pytest.mark.parametrize("name", ["groq-lpu-v1", "cerebras-wse3", "", "???"])
def test_values_that_are_no_machine_raise(name):
    with pytest.raises(UnknownNameError):
        Hardware.load(name)


def test_an_unknown_operand_lists_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown operand format 'bfloat16'; nearest: bf16"):
        Hardware.load("h100").peak("bfloat16")


@pytest.mark.parametrize("source", [None, 3.35e12, 7, ["h100"], {"memory": {}}])
def test_other_types_are_refused(source):
    with pytest.raises(InvalidValueError, match="from_rates"):
        Hardware.load(source)


def test_loading_is_lazy():
    script = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" and str(args[0]).endswith(".toml") else None)
from roofline.hardware import Hardware
print(len(opened))
Hardware.load("h100-sxm"); Hardware.load("H100 SXM"); Hardware.list()
print(len(opened))
Hardware.load("h100")
print(len(opened) > 60)
before = len(opened)
Hardware.load("a100"), Hardware.load("h100")
print(len(opened) - before)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert out == ["0", "1", "True", "1"]


def test_loads_and_peaks_are_cached():
    h = Hardware.load("h100")
    assert Hardware.load("h100") is h
    assert Hardware.load(h) is h
    assert h.peak("fp8") is h.peak("fp8")
    assert h.memory_bandwidth is h.memory_bandwidth


def test_two_files_cannot_share_a_name(tmp_path, monkeypatch):
    for machine in ("one", "two"):
        (tmp_path / f"{machine}.toml").write_text(f'schema_version = 1\nname = "{machine}"\naliases = ["Same-Name"]\n')
    monkeypatch.setattr(load, "spec_files", lambda: {"one": tmp_path / "one.toml", "two": tmp_path / "two.toml"})
    with pytest.raises(SpecError, match=r"two\.toml: the name 'Same-Name' is also a name of one"):
        load._aliases.__wrapped__()


def test_packaged_specs_come_first(tmp_path, monkeypatch):
    package = tmp_path / "src" / "roofline"
    packaged, checkout = package / "_hardware_specs", tmp_path / "hardware_specs"
    for folder in (packaged, checkout):
        folder.mkdir(parents=True)
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    assert shipped.spec_folder.__wrapped__() == packaged
    packaged.rmdir()
    assert shipped.spec_folder.__wrapped__() == checkout  # as in an editable install


def test_missing_packaged_specs_raise_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "src" / "roofline")
    with pytest.raises(SpecError, match="reinstall"):
        shipped.spec_folder.__wrapped__()


# ---------------------------------------------------------------------------------------------------------------- spec files

HEAD = 'schema_version = 1\nid = "mine"\nname = "Mine"\n'
MEMORY = "[memory]\nbandwidth_bytes_per_s = 3e12\n"


def test_minimal_spec_file_loads(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(HEAD + MEMORY)
    for source in (file, str(file)):
        h = Hardware.load(source)
        assert (h.id, h.memory_bandwidth, h.memory_capacity, h.last_level_cache) == ("mine", 3e12, None, 0)
        assert (h.memory.source, h.memory.evidence, h.requested) == ("not stated", "U", None)
        assert h.capacity_ceiling is None


def test_a_json_spec_file(tmp_path):
    file = tmp_path / "h100.json"
    file.write_text(json.dumps(Hardware.load("h100-sxm").to_dict()))
    assert Hardware.load(file) == Hardware.load("h100-sxm")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + MEMORY[:-3], "not valid TOML"),
        ("", "schema_version is missing; id is missing; name is missing; memory is missing"),
        (HEAD, "memory is missing"),
        (HEAD + "memory = 3e12\n", "memory is 3000000000000.0; it should be a valid dictionary"),
        (HEAD + "[memory]\n", "memory.bandwidth_bytes_per_s is missing"),
        (HEAD + "[memory]\nbandwidth_bytes_per_s = 3350\n", r"memory.bandwidth_bytes_per_s is 3350 B/s.*did you mean 3350 GB/s"),
        (HEAD + "[memory]\nbandwidth_bytes_per_s = -3e12\n", "memory.bandwidth_bytes_per_s is -3.*positive"),
        (HEAD + "[memory]\nbandwidth_bytes_per_s = 0\n", "memory.bandwidth_bytes_per_s is 0.0; it must be a positive"),
        (HEAD + "[memory]\nbandwidth_bytes_per_s = nan\n", "memory.bandwidth_bytes_per_s is nan"),
        (HEAD + "[memory]\nbandwidth_bytes_per_s = inf\n", "memory.bandwidth_bytes_per_s is inf"),
        (
            HEAD + '[memory]\nbandwidth_bytes_per_s = "3.35 TB/s"\n',
            "memory.bandwidth_bytes_per_s is '3.35 TB/s'; it should be a valid number",
        ),
        (HEAD + "[memory]\nbandwidth_bytes_per_s = true\n", "memory.bandwidth_bytes_per_s is True"),
        (HEAD + f"[memory]\nbandwidth_bytes_per_s = 1{'0' * 400}\n", "memory.bandwidth_bytes_per_s is a number of 401 digits"),
        (HEAD + MEMORY + "capacity_bytes = 80\n", "memory.capacity_bytes is 80 B.*did you mean 80 GB"),
        (HEAD + MEMORY + "capacity_bytes = 80.5\n", "memory.capacity_bytes is 80.5; it should be a valid integer"),
        (HEAD + MEMORY + "bandwith = 3e12\n", "memory.bandwith is not a known key; nearest: bandwidth_bytes_per_s"),
        (
            HEAD + MEMORY + "[compute.matrix_flops_per_s]\nbf16 = 989\n",
            "compute.matrix_flops_per_s.bf16 is 989 FLOP/s: did you mean 989 TFLOP/s",
        ),
        (
            HEAD + MEMORY + "[compute.matrix_flops_per_s]\nbf16_sparse = 1e15\n",
            "matrix_flops_per_s.bf16_sparse is not a known key; nearest: bf16",
        ),
        (
            HEAD + MEMORY + f"[cache]\nl2_bytes = 1{'0' * 400}\n",
            "cache.l2_bytes is a number of 401 digits; it should be less than or equal",
        ),
        (HEAD + MEMORY + "[units]\nmatrix_clock_hz = 1830\n", "units.matrix_clock_hz is 1830 Hz.*did you mean 1830 MHz"),
        (HEAD + MEMORY + "[scale_up]\nbandwidth_bytes_per_s = 450\n", "scale_up.bandwidth_bytes_per_s is 450 B/s.*450 GB/s"),
        (HEAD + MEMORY + "[scale_out]\nbandwidth_bytes_per_s = 50\n", "scale_out.bandwidth_bytes_per_s is 50 B/s.*50 GB/s"),
        (HEAD + MEMORY + '[compute]\nevidence = "Z"\n', "compute.evidence is 'Z'; it should be 'P', 'V', 'S', 'R', 'M' or 'U'"),
        (HEAD + MEMORY + "[memry]\n", "memry is not a known key; nearest: memory"),
        (HEAD + MEMORY + "[qqq]\n", "qqq is not a known key; known: schema_version, id"),
        (HEAD.replace("1", "2", 1) + MEMORY, "schema_version is 2; this version of roofline reads up to 1: upgrade roofline"),
        (HEAD.replace("1", '"1"', 1) + MEMORY, "schema_version is '1'; it should be 1"),
        (HEAD.replace('"Mine"', '""') + MEMORY, "name is ''"),
        ("\n".join(f"k{i} = 1" for i in range(9)) + "\n" + HEAD + MEMORY, "and 4 more"),
    ],
)
def test_a_bad_spec_file_gives_one_error_that_names_file_and_key(tmp_path, text, message):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(SpecError, match=message) as caught:
        Hardware.load(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert isinstance(caught.value, ValueError)
    assert caught.value.__context__ is None or caught.value.__suppress_context__  # no pydantic traceback under it
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", b"[1, 2]"), ("b.json", b"{"), ("c.toml", b"\xff\xfe"), ("d.json", b"[" * 100_000)]
)
def test_unreadable_spec_files_raise(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=name):
        Hardware.load(tmp_path / name)


@pytest.mark.parametrize("path", ["no/such/file", "absent.toml", "absent.JSON"])
def test_a_missing_file_is_said(path):
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        Hardware.load(path)


def test_directory_as_spec_file_raises(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        Hardware.load(tmp_path)


# ---------------------------------------------------------------------------------------------------------------- bare rates


def test_from_rates():
    h = Hardware.from_rates(memory_bandwidth=3e12, peak_flops_per_s=1e15, memory_capacity=80e9)
    assert (h.name, h.memory_bandwidth, h.memory_capacity, h.last_level_cache) == ("custom", 3e12, 80_000_000_000, 0)
    assert h.ridge("bf16") == pytest.approx(1000 / 3)
    for operand in OPERANDS:
        assert h.peak(operand).value == 1e15
        assert h.peak(operand).note == "one peak given for every format"
        assert h.peak(operand).evidence == "U"
    assert h.vector_peak.value == 1e15
    assert h.link_ceiling is None
    assert h.alias_note == ""
    assert Hardware.load(h) is h


def test_without_a_peak_nothing_is_compute_bound():
    h = Hardware.from_rates(memory_bandwidth=3e12, name="stream")
    for operand in OPERANDS:
        assert h.peak(operand).value == math.inf
        assert h.peak(operand).note == "no compute peak given"
    assert h.ridge() == math.inf
    assert h.memory_capacity is None
    assert str(h) == "stream (stream): 3 TB/s"


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"memory_bandwidth": 3350}, "memory_bandwidth is 3350 B/s.*3350 GB/s"),
        ({"memory_bandwidth": 0}, "memory_bandwidth is 0"),
        ({"memory_bandwidth": math.nan}, "memory_bandwidth is nan"),
        ({"memory_bandwidth": "3e12"}, "memory_bandwidth is '3e12'"),
        ({"memory_bandwidth": None}, "memory_bandwidth is None"),
        ({"memory_bandwidth": 3e12, "peak_flops_per_s": 989}, "peak_flops_per_s is 989 FLOP/s: did you mean 989 TFLOP/s"),
        ({"memory_bandwidth": 3e12, "peak_flops_per_s": -1e15}, "peak_flops_per_s is -1"),
        ({"memory_bandwidth": 3e12, "peak_flops_per_s": True}, "peak_flops_per_s is True"),
        ({"memory_bandwidth": 3e12, "memory_capacity": 80}, "memory_capacity is 80 B.*80 GB"),
        ({"memory_bandwidth": 3e12, "name": ""}, "name is ''"),
        ({"memory_bandwidth": 3e12, "name": 7}, "name is 7"),
    ],
)
def test_bad_rates(rates, message):
    with pytest.raises(InvalidValueError, match=message):
        Hardware.from_rates(**rates)


# --------------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("machine", IDS)
def test_a_shipped_spec_read_by_name_is_what_validation_makes_of_it(machine):
    file = spec_files()[machine]
    assert validator(Hardware).model_validate(read_spec(file)).model_dump(mode="json") == Hardware.load(machine).to_dict()
    assert Hardware.load(file) == Hardware.load(machine)


@pytest.mark.parametrize("machine", IDS)
def test_json_round_trip(machine):
    h = Hardware.load(machine)
    assert Hardware.from_dict(json.loads(json.dumps(h.to_dict()))) == h


def test_pickle_keeps_everything():
    h = Hardware.load("H100")
    h.peak("bf16")
    again = pickle.loads(pickle.dumps(h))
    assert again == h
    assert again.alias_note == h.alias_note
    assert again.peak("bf16") == h.peak("bf16")


def test_machines_are_frozen_and_compare_by_content():
    h = Hardware.load("h100-sxm")
    with pytest.raises(AttributeError, match="frozen"):
        h.name = "other"
    assert h != Hardware.load("h100-pcie")
    assert h != "h100-sxm"
    assert len({h, Hardware.load("H100"), Hardware.load("h100-pcie")}) == 2
