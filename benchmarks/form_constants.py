"""Write what the constants of every form usually are: ``python benchmarks/form_constants.py`` prints the tables, ``--write`` puts them into docs/estimates.md."""

import math

from pages import DOCS, markdown, publish
from roofline import CalibrationRecord, load_record
from roofline.kernels import FAMILIES, Constant
from roofline.records import FittedConstant, KernelClass

PAGE = DOCS / "estimates.md"

SHOWN = {
    "matmul": ("h100-sxm-vllm-0.24.0", "bf16"),
    "attention": ("h100-sxm-vllm-0.24.0", "bf16"),
    "latent_attention": ("h100-sxm-trtllm-1.3.0rc20", "bf16"),
    "experts": ("h100-sxm-vllm-0.24.0", "bf16"),
    "state": ("h100-sxm-vllm-0.24.0", "fp32"),
    "rowwise": ("h100-sxm-vllm-0.24.0", ""),
    "all_reduce": ("b200-sxm-vllm-0.24.0", ""),
    "exchange": ("h100-sxm-vllm-0.24.0", ""),
    "send": ("generic", ""),
}
"""Record and stored format whose constants stand on the page, by family; no format where a family has one class."""

_STEPS = ((1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"), (1e-12, "ps"))


def fitted(record: CalibrationRecord, family: str, stored: str) -> KernelClass:
    """Return the class of a family that the page shows."""
    (found,) = (c for c in record.classes if c.family == family and (not stored or c.stored == stored))
    return found


def digits(value: float) -> str:
    """Return a number with three digits, and no exponent."""
    places = max(0, 2 - math.floor(math.log10(value)))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if places else text


def shown(value: float, unit: str) -> str:
    """Return a value with its unit, if it has one that is not counted."""
    if unit.partition("/")[0] != "s":
        return digits(value)
    step, name = next((s for s in _STEPS if value >= s[0]), _STEPS[-1])
    return f"{digits(value / step)} {name}{unit[1:]}"


def line(constant: Constant, found: FittedConstant) -> tuple[str, ...]:
    """Return the line of a constant."""
    ends = {"its least": constant.least, "its most": constant.most}
    end = next((f" ({name})" for name, bound in ends.items() if math.isclose(found.value, bound, rel_tol=1e-3)), "")
    between = " … ".join(shown(value, constant.unit) for value in (found.low, found.high))
    return (f"`{constant.name}`", constant.unit, constant.meaning, shown(found.value, constant.unit) + end, between)


def report() -> dict[str, str]:
    """Return one table for each family."""
    tables = {}
    for family, (record, stored) in SHOWN.items():
        found = fitted(load_record(record), family, stored).constants
        lines = [line(constant, found[constant.name]) for constant in FAMILIES[family].constants]
        tables[f"constants {family}"] = markdown(("constant", "unit", "meaning", "value", "80 % interval"), lines)
    return tables


def main() -> None:
    """Print or write the tables."""
    publish(report, PAGE, __doc__)


if __name__ == "__main__":
    main()
