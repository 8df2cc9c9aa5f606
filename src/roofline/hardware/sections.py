"""The tables of a hardware spec: compute, memory, cache, units, links, power. All SI, each with its source.

A table refuses unknown keys, wrong types and figures that cannot be in SI base units: a bandwidth of 3350 is one in GB/s, and the message says so.
"""

from functools import partial
from typing import Annotated, Any

from roofline.description import Description, Number
from roofline.errors import InvalidValueError
from roofline.shipped import Table
from roofline.units import MEGA, TERA, check_rate


def check_peak(name: str, value: Any) -> float:
    """Return a compute peak if it can be one in FLOP/s, else raise InvalidValueError [FLOP/s]."""
    # The plausible range starts at slow CPUs, so the nearest prefix that fits would be giga; datasheets print tera.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < MEGA:
        raise InvalidValueError(f"{name} is {value:g} FLOP/s: did you mean {value:g} TFLOP/s = {value * TERA:g} FLOP/s?")
    return check_rate(name, value, "FLOP/s", least=1e9, most=1e19)


def check_bandwidth(name: str, value: Any) -> float:
    """Return a memory or link bandwidth if it can be one in B/s, else raise InvalidValueError [B/s]."""
    return check_rate(name, value, "B/s", least=1e9, most=1e17)


def check_capacity(name: str, value: Any) -> int:
    """Return a memory capacity in whole bytes if it can be one, else raise InvalidValueError [B]."""
    number = check_rate(name, value, "B", least=1e8, most=1e16)
    return value if type(value) is int else int(number)


Peak = Annotated[float, Number(1e9, 1e19, check_peak)]
Bandwidth = Annotated[float, Number(1e9, 1e17, check_bandwidth)]
NetworkBandwidth = Annotated[float, Number(1e8, 1e15, partial(check_rate, unit="B/s", least=1e8, most=1e15))]
Capacity = Annotated[int, Number(1e8, 1e16, check_capacity, exponents=True)]
CacheBytes = Annotated[int, Number(1, 10**13, exponents=True)]
Hertz = Annotated[float, Number(1e7, 1e11, partial(check_rate, unit="Hz", least=1e7, most=1e11))]
Watt = Annotated[float, Number(0.1, 1e6, partial(check_rate, unit="W", least=0.1, most=1e6))]
Count = Annotated[int, Number(1, 10**9)]


class FormatRates(Description):
    """Dense rates by operand format; a format the machine has no mode for, or whose rate is not known, is absent.

    Parameters
    ----------
    fp64, fp32, tf32, bf16, fp16, fp8, int8, fp4, int4 : float, optional
        Rate of products in this operand format, never the structured-sparsity figure [FLOP/s].
    any : float, optional
        One rate for every format that is not listed, where nothing better is known [FLOP/s].
    """

    fp64: Peak | None = None
    fp32: Peak | None = None
    tf32: Peak | None = None
    bf16: Peak | None = None
    fp16: Peak | None = None
    fp8: Peak | None = None
    int8: Peak | None = None
    fp4: Peak | None = None
    int4: Peak | None = None
    any: Peak | None = None


class FormatCounts(Description):
    """Multiply-adds per clock and unit by operand format.

    Parameters
    ----------
    fp64, fp32, tf32, bf16, fp16, fp8, int8, fp4, int4 : int, optional
        Dense multiply-adds of one unit in one clock [-].
    """

    fp64: Count | None = None
    fp32: Count | None = None
    tf32: Count | None = None
    bf16: Count | None = None
    fp16: Count | None = None
    fp8: Count | None = None
    int8: Count | None = None
    fp4: Count | None = None
    int4: Count | None = None


class Compute(Table):
    """Dense compute peaks.

    Parameters
    ----------
    vector_flops_per_s : float, optional
        Peak of the general (vector) units in fp32 [FLOP/s].
    fp64_vector_flops_per_s : float, optional
        Peak of the general units in fp64 [FLOP/s].
    matrix_flops_per_s : FormatRates, optional
        Dense peaks of the matrix units, sums kept in fp32 (or int32): what a framework gets [FLOP/s].
    matrix_flops_per_s_fp16_accumulate : FormatRates, optional
        Faster peaks with 16-bit sums, on parts that halve the rate for fp32 sums (GeForce): a floor takes them, a share does not [FLOP/s].
    """

    vector_flops_per_s: Peak | None = None
    fp64_vector_flops_per_s: Peak | None = None
    matrix_flops_per_s: FormatRates = FormatRates()
    matrix_flops_per_s_fp16_accumulate: FormatRates | None = None

    @property
    def has_matrix_units(self) -> bool:
        """Whether the peak of any format is that of matrix units [-]."""
        return self.matrix_flops_per_s != FormatRates()


class Memory(Table):
    """Main memory.

    Parameters
    ----------
    capacity_bytes : int, optional
        What software can see, ECC and reserved bytes taken off [B].
    labelled_bytes : int, optional
        What the label says; a label in GiB is converted [B].
    bandwidth_bytes_per_s : float
        Peak bandwidth [B/s].
    type : str, optional
        Technology, e.g. ``"HBM3"`` [-].
    """

    capacity_bytes: Capacity | None = None
    labelled_bytes: Capacity | None = None
    bandwidth_bytes_per_s: Bandwidth
    type: str = ""


class Cache(Table):
    """Caches shared by all units.

    Parameters
    ----------
    l2_bytes : int, optional
        Level-2 cache, or the shared SRAM that takes its place [B].
    last_level_bytes : int, optional
        A larger cache behind it, e.g. Infinity Cache [B].
    """

    l2_bytes: CacheBytes | None = None
    last_level_bytes: CacheBytes | None = None


class Units(Table):
    """Compute units and clocks; with the multiply-adds per clock they re-derive the matrix peak.

    Parameters
    ----------
    count : int, optional
        Units switched on in this part [-].
    kind : str, optional
        What the vendor calls one, e.g. ``"SM"`` [-].
    matrix_clock_hz : float, optional
        The clock behind the matrix peak, often below the boost clock [Hz].
    boost_clock_hz : float, optional
        The boost clock of the data sheet, usually behind the vector peak [Hz].
    sram_bytes_per_unit : int, optional
        On-chip memory of one unit (L1 or shared memory, LDS, SBUF) [B].
    vector_fma_per_clock_per_unit : int, optional
        fp32 multiply-adds of the general units of one unit in one clock [-].
    matrix_fma_per_clock_per_unit : FormatCounts, optional
        The same of its matrix units, by operand format, with fp32 sums [-].
    """

    count: Count | None = None
    kind: str = ""
    matrix_clock_hz: Hertz | None = None
    boost_clock_hz: Hertz | None = None
    sram_bytes_per_unit: CacheBytes | None = None
    vector_fma_per_clock_per_unit: Count | None = None
    matrix_fma_per_clock_per_unit: FormatCounts = FormatCounts()


class Clock(Table):
    """The highest clock that the part is sold to run at: what its maker or its driver states, not what an owner can set.

    Parameters
    ----------
    highest_hz : float
        The clock; a compute peak of the data sheet is exceeded where that peak belongs to a lower one [Hz].
    """

    highest_hz: Hertz


class ScaleUp(Table):
    """The fast links between the devices of one domain (NVLink, Infinity Fabric, ICI).

    Parameters
    ----------
    link : str, optional
        Its name and width [-].
    bandwidth_bytes_per_s : float, optional
        What leaves one device in ONE direction over all its links; vendors often print both directions summed [B/s].
    pair_bandwidth_bytes_per_s : float, optional
        What one device can send to one peer; less than the above in a mesh or torus [B/s].
    domain_size : int, optional
        Devices that reach each other over it [-].
    topology : str, optional
        Switch, mesh, torus or bridge [-].
    latency_s : float, optional
        Least time from one device to another, for the smallest message [s].
    """

    link: str = ""
    bandwidth_bytes_per_s: Bandwidth | None = None
    pair_bandwidth_bytes_per_s: Bandwidth | None = None
    domain_size: Count | None = None
    topology: str = ""
    latency_s: Annotated[float, Number(0, 1e-2)] | None = None


class ScaleOut(Table):
    """The network between servers: what is typical beside this part, not a property of it.

    Parameters
    ----------
    bandwidth_bytes_per_s : float
        Network bandwidth per device in ONE direction [B/s].
    """

    bandwidth_bytes_per_s: NetworkBandwidth


class HostLink(Table):
    """The link between a device and its host.

    Parameters
    ----------
    link : str, optional
        Its name, e.g. ``"PCIe 5.0 x16"`` [-].
    bandwidth_bytes_per_s : float
        Its rate in ONE direction after line coding, before packet overhead [B/s].
    peer_access : bool, optional
        Whether devices reach each other's memory over it; if not, what they send goes through the host's memory [-].
    """

    link: str = ""
    bandwidth_bytes_per_s: Bandwidth
    peer_access: bool | None = None


class Power(Table):
    """Power.

    Parameters
    ----------
    tdp_w : float
        Board or module power limit [W].
    """

    tdp_w: Watt
