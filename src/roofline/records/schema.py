"""A calibration record: samples of one machine with one software stack, the constants fitted to them, and the error of the fit.

Every figure is plain SI. A class of kernels is a family, the format of the weights or cache it reads, and the operand format it
multiplies in; its samples stand column by column beside its fit, so that anyone can fit them again.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from roofline.errors import InvalidValueError, quoted
from roofline.formats import OPERANDS
from roofline.names import unknown_name
from roofline.records.conditions import Condition, Flag
from roofline.records.part import EMPTY, FROZEN, NotNegative, Part
from roofline.records.shapes import PERCENTILES as PERCENTILES
from roofline.records.shapes import KindQuantiles, Quantiles, Shapes, SizeQuantiles, values

SCHEMA_VERSION: Literal[2] = 2
"""Version of the JSON that records are written in [-]."""

SLOWEST = 1e7
"""Least rate that a record accepts: no device is slower, so a lower rate must be in another unit [FLOP/s], [B/s]."""

_OVERHEADS = ("launch_s", "graph_launch_s", "sync_s", "step_s")


class Telemetry(Part):
    """What the device reported while one sample ran; None where it reports nothing.

    Parameters
    ----------
    sm_clock_hz, memory_clock_hz : float, optional
        Clocks [Hz].
    power_w, temperature_c : float, optional
        Power drawn and temperature [W], [degC].
    throttle_reasons : tuple of str, optional
        Why clocks are throttled, by NVML's names; empty if they are not [-].
    tensor_active, dram_active : float, optional
        Shares of the time in which tensor cores and main memory were busy, of the GPM counters [-].
    """

    sm_clock_hz: NotNegative | None = None
    memory_clock_hz: NotNegative | None = None
    power_w: NotNegative | None = None
    temperature_c: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    tensor_active: NotNegative | None = None
    dram_active: NotNegative | None = None


class Environment(Part):
    """On what device and with what software the samples were taken; None where it is not known.

    Parameters
    ----------
    device : str
        The device's own name, e.g. ``"NVIDIA H100 80GB HBM3"`` [-].
    software : mapping of str to str
        Versions of what ran the kernels: framework, driver, CUDA, operating system [-].
    properties : mapping of str to (str, int, float or bool)
        What else the device reports: uuid hash, maximal clocks, power limit, ECC, MIG, cores [-].
    """

    device: str
    software: Annotated[dict[str, str], FROZEN] = EMPTY
    properties: Annotated[dict[str, str | int | float | bool | None], FROZEN] = EMPTY

    @field_validator("properties", mode="before")
    @classmethod
    def _check_properties(cls, value: Any) -> Any:
        return _check_plain("properties", value)


class Rates(Part):
    """The rates that shares refer to: the datasheet's, or the best measured ones where there is no datasheet.

    Parameters
    ----------
    peak_flops_per_s : mapping of str to float
        Peak by operand format [FLOP/s].
    memory_bandwidth : float
        Main-memory bandwidth [B/s].
    link_bandwidth : float, optional
        Link between devices, one direction [B/s].
    origin : {"datasheet", "measured", "fraction"}
        Where they come from; ``"fraction"`` where shares hold for any machine [-].
    """

    peak_flops_per_s: Annotated[dict[str, float], FROZEN] = EMPTY
    memory_bandwidth: float | None = None
    link_bandwidth: float | None = None
    origin: Literal["datasheet", "measured", "fraction"]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for operand in self.peak_flops_per_s:
            if operand not in OPERANDS:
                raise InvalidValueError(f"peak_flops_per_s has an {unknown_name('operand format', operand, OPERANDS)}")
        rates = {f"peak_flops_per_s.{operand}": (peak, "FLOP/s") for operand, peak in self.peak_flops_per_s.items()}
        rates |= {name: (rate, "B/s") for name in ("memory_bandwidth", "link_bandwidth") if (rate := getattr(self, name)) is not None}
        for name, (rate, unit) in rates.items():
            if rate < SLOWEST:
                raise InvalidValueError(f"{name} is {rate:g}; it must be a rate in {unit}, at least {SLOWEST:g}")
        return self


class FittedConstant(Part):
    """A constant of a form.

    Parameters
    ----------
    value, low, high : float
        Its value and the ends of its 80 % confidence interval [unit].
    unit : str
        Its unit, ``"-"`` for a share [-].
    """

    value: float
    low: float
    high: float
    unit: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise InvalidValueError(f"value is {self.value:g}; it must lie in its own interval, low {self.low:g} to high {self.high:g}")
        return self


class Samples(Part):
    """Measured kernels of one class, column by column.

    Parameters
    ----------
    sizes : mapping of str to tuple of float
        What each kernel was asked to do, by the argument names of the function that counts it: m, n, k; batch, context, … [-].
    seconds : tuple of float
        Median time of each [s].
    low_s, high_s : tuple of float, optional
        10 % and 90 % quantiles of the repetitions [s].
    moved_bytes : tuple of float, optional
        Bytes that the kernel was counted to move, from which its rate can be derived again [B].
    flags : mapping of int to tuple of Flag, optional
        Samples that are doubtful, by place, and why [-].
    telemetry : tuple of (Telemetry or None), optional
        What the device reported while each ran [-].
    """

    sizes: Annotated[dict[str, tuple[float, ...]], FROZEN] = EMPTY
    seconds: tuple[float, ...] = ()
    low_s: tuple[float, ...] = ()
    high_s: tuple[float, ...] = ()
    moved_bytes: tuple[float, ...] = ()
    flags: Annotated[dict[int, tuple[Flag, ...]], FROZEN] = EMPTY
    telemetry: tuple[Telemetry | None, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        count = len(self.seconds)
        sizes = {f"sizes.{name}": column for name, column in self.sizes.items()}
        optional = {name: column for name in ("low_s", "high_s", "moved_bytes", "telemetry") if (column := getattr(self, name))}
        for name, column in {**sizes, **optional}.items():
            if len(column) != count:
                raise InvalidValueError(f"{name} has {values(len(column))}, but seconds has {count}; every column has one for each kernel")
        for name, column in {**sizes, "moved_bytes": self.moved_bytes}.items():
            if column and min(column) < 0:
                place = next(i for i, v in enumerate(column) if v < 0)
                raise InvalidValueError(f"{name}.{place} is {column[place]:g}; it must not be negative")
        if self.seconds and min(self.seconds) <= 0:
            place = next(i for i, t in enumerate(self.seconds) if t <= 0)
            raise InvalidValueError(f"seconds.{place} is {self.seconds[place]:g}; a time must be positive")
        _check_order("low_s", self.low_s, "seconds", self.seconds)
        _check_order("seconds", self.seconds, "high_s", self.high_s)
        for place in self.flags:
            if not 0 <= place < count:
                raise InvalidValueError(f"flags.{place} is of no sample; there are {count}, counted from 0")
        return self


class KernelClass(Part):
    """One class of kernels: its samples, and the constants fitted to them.

    Parameters
    ----------
    family : str
        A key of :data:`roofline.kernels.FAMILIES` [-].
    stored : str
        Format of the weights or the cache that it reads; empty where it does not matter [-].
    operand : str
        Operand format that it multiplies in; empty where nothing is multiplied [-].
    fixed_sizes : mapping of str to (str, int or float)
        Arguments that all its samples share: formats, head_dim, … [-].
    samples : Samples
        What was measured [-].
    constants : mapping of str to FittedConstant
        The fit; empty before it is made [-].
    residual_quantiles : tuple of float
        log(measured / fitted) at the 1st, 5th, 10th, 20th, … 80th, 90th, 95th and 99th percentile, see
        ``roofline.records.PERCENTILES`` [-].
    step_quantiles : mapping of str to tuple of float
        The same of the samples of decode steps alone (``"decode"``: one new token of each sequence, or few tokens) and of prompts
        (``"prefill"``); empty where there are too few of either [-].
    size_quantiles : SizeQuantiles, optional
        The same of small kernels and of large ones, where there are enough of both in a kind of step [-].
    error : float, optional
        Mean absolute error on samples that the fit has not seen [-].
    note : str, optional
        What a user must know of the fit [-].
    taken_from : str, optional
        Id of the record that the class is taken from, see :func:`roofline.records.with_classes`; empty for the record's own [-].
    shapes : Shapes, optional
        Constants of single shapes. `residual_quantiles` and `error` are then those of models that no shape is of [-].
    """

    family: Annotated[str, Field(min_length=1)]
    stored: str
    operand: str
    fixed_sizes: Annotated[dict[str, str | int | float | bool], FROZEN] = EMPTY
    samples: Samples = Field(default_factory=Samples)
    constants: Annotated[dict[str, FittedConstant], FROZEN] = EMPTY
    residual_quantiles: Quantiles = ()
    step_quantiles: KindQuantiles = EMPTY
    size_quantiles: SizeQuantiles | None = None
    error: NotNegative | None = None
    note: str = ""
    taken_from: str = ""
    shapes: Shapes | None = None

    @property
    def static_scales(self) -> bool:
        """Whether it is of products whose rows are quantized with scales that the checkpoint stores (``scales`` ``"static"``) [-]."""
        return self.fixed_sizes.get("scales") == "static"

    @property
    def steps(self) -> frozenset[str]:
        """Of which kinds of step, ``"decode"`` and ``"prefill"``, it has samples; empty where they do not tell, as of matrix products.

        A class with samples of one kind is no class for the other: how long prompts take does not say how long a decode step takes.
        """
        new = self.samples.sizes.get("new", ())
        return frozenset(name for name, some in (("decode", any(n == 1 for n in new)), ("prefill", any(n > 1 for n in new))) if some)

    @field_validator("operand")
    @classmethod
    def _check_operand(cls, operand: str) -> str:
        if operand and operand not in OPERANDS:
            raise InvalidValueError(f"operand is an {unknown_name('operand format', operand, OPERANDS)}")
        return operand

    @field_validator("fixed_sizes", mode="before")
    @classmethod
    def _check_sizes(cls, value: Any) -> Any:
        return _check_plain("fixed_sizes", value)

    @field_validator("constants")
    @classmethod
    def _check_constants(cls, constants: dict[str, FittedConstant]) -> dict[str, FittedConstant]:
        for name, constant in constants.items():
            # a share above 1 would let an estimate pass the floor
            if name.endswith("share") and not (constant.low > 0 and constant.high <= 1):
                given = f"{constant.value:g} ({constant.low:g} to {constant.high:g})"
                raise InvalidValueError(f"constants.{name} is {given}; a share of a rate must be above 0 and at most 1")
            _check_time("constants", name, constant)
        return constants


class CalibrationRecord(Part):
    """What one machine really reaches, as measured.

    Parameters
    ----------
    schema_version : int
        Version of this layout [-].
    id : str
        What results call it [-].
    hardware : str
        Id of the machine's spec; empty where it has none [-].
    date : str
        When it was measured or, from a table that does not say so, fitted, ISO 8601 [-].
    source : str
        Who measured it and how, or the table it was taken from [-].
    environment : Environment
        Device and software [-].
    rates : Rates
        What shares refer to [-].
    classes : tuple of KernelClass
        Kernels by class [-].
    overheads : mapping of str to FittedConstant
        Times outside kernels: ``launch_s`` of a kernel from the host, ``graph_launch_s`` of one in a graph, ``sync_s`` of sampling
        and bringing ids to the host, ``step_s`` of all that an engine does between the kernels of two steps [s].
    unpacking_flops : FittedConstant, optional
        What one weight with packed scales, of ggml's K-quants, costs a machine without matrix units, whose units that multiply unpack it; None
        where it is not known, and then it costs nothing [FLOP].
    conditions : tuple of Condition
        What every result repeats: throttled clocks, a shared device, an unfinished plan [-].
    complete : bool
        Whether the plan was finished; an interrupted run can be resumed [-].
    plan : str
        The plan that was run [-].
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    id: Annotated[str, Field(min_length=1)]
    hardware: str = ""
    date: str
    source: str
    environment: Environment
    rates: Rates
    classes: tuple[KernelClass, ...] = ()
    overheads: Annotated[dict[str, FittedConstant], FROZEN] = EMPTY
    unpacking_flops: FittedConstant | None = None
    conditions: tuple[Condition, ...] = ()
    complete: bool = True
    plan: str = ""

    @field_validator("date")
    @classmethod
    def _check_date(cls, date: str) -> str:
        try:
            datetime.fromisoformat(date)
        except ValueError:
            raise InvalidValueError(f"date is {quoted(date)}; it must be in ISO 8601, like 2026-11-30 or 2026-11-30T12:00:00Z") from None
        return date

    @field_validator("unpacking_flops")
    @classmethod
    def _check_unpacking(cls, constant: FittedConstant | None) -> FittedConstant | None:
        if constant is not None and not (constant.unit == "FLOP" and constant.low > 0):
            raise InvalidValueError(
                f"unpacking_flops is {constant.value:g} {constant.unit} (from {constant.low:g}); it must be positive, in 'FLOP' for each weight"
            )
        return constant

    @field_validator("overheads")
    @classmethod
    def _check_overheads(cls, overheads: dict[str, FittedConstant]) -> dict[str, FittedConstant]:
        for name, constant in overheads.items():
            if name not in _OVERHEADS:
                raise InvalidValueError(f"overheads has an {unknown_name('overhead', name, _OVERHEADS)}")
            if constant.unit != "s":
                raise InvalidValueError(f"overheads.{name} is in {quoted(constant.unit)}; it must be in 's'")
            _check_time("overheads", name, constant)
        return overheads

    def __str__(self) -> str:
        state = "" if self.complete else ", unfinished"
        lines = [f"{self.id}: {self.environment.device}, {self.date}{state}", f"  {self.source}"]
        for c in self.classes:
            what = " ".join(dict.fromkeys(word for word in (c.family, c.stored, c.operand) if word)) + ", static scales" * c.static_scales
            error = "not fitted" if not c.constants else "fitted" if c.error is None else f"mean error {c.error:.1%} on samples held out"
            lines.append(f"  {what}: {values(len(c.samples.seconds)).replace('value', 'sample')}, {error}")
        return "\n".join([*lines, *(f"  note: {condition}" for condition in self.conditions)])

    def __repr__(self) -> str:
        return f"<CalibrationRecord {self.id}>"

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: tuple[KernelClass, ...]) -> tuple[KernelClass, ...]:
        seen: dict[object, int] = {}
        for place, kernel in enumerate(classes):
            key = (kernel.family, kernel.stored, kernel.operand, frozenset(kernel.fixed_sizes.items()))
            first = seen.setdefault(key, place)
            if first != place:
                what = f"family {quoted(kernel.family)}, stored {quoted(kernel.stored)} and operand {quoted(kernel.operand)}"
                raise InvalidValueError(f"classes.{place} is of the same {what} as classes.{first}; each class must stand once")
        return classes


def _check_plain(name: str, value: Any) -> Any:
    """Return a mapping if its values are texts, finite numbers, booleans or null; here, because a union's own errors are many."""
    if isinstance(value, Mapping):
        for key, given in value.items():
            if not (given is None or isinstance(given, (str, int, float))) or (isinstance(given, float) and not math.isfinite(given)):
                raise InvalidValueError(f"{name}.{key} is {quoted(given)}; it must be a text, a finite number, true or false")
    return value


def _check_order(left: str, less: Sequence[float], right: str, more: Sequence[float]) -> None:
    if less and more and not all(a <= b for a, b in zip(less, more, strict=True)):
        place = next(i for i, (a, b) in enumerate(zip(less, more, strict=True)) if a > b)
        raise InvalidValueError(f"{left}.{place} is {less[place]:g}, above {right}.{place}, {more[place]:g}; it must not be")


def _check_time(name: str, key: str, constant: FittedConstant) -> None:
    if constant.unit == "s" and constant.low < 0:
        raise InvalidValueError(
            f"{name}.{key} is {constant.value:g} s ({constant.low:g} to {constant.high:g}); a time must not be negative"
        )
