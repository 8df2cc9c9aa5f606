"""How torch multiplies rows by the weights of a linear layer, for every operand format."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Product:
    """A product (m × k) · (n × k)ᵀ in one operand format."""

    dtype: str  # torch's dtypes of both operands and of the result
    output: str
    stored: str  # storage format of weights and rows
    tolerance: float  # largest deviation of a correct result from one in fp64, relative to its root mean square
    step: int = 1  # n and k must be multiples of it
    least_rows: int = 1  # fewest rows that the CUDA kernel accepts

    def run(self, torch: Any, x: Any, weight: Any, out: Any, one: Any) -> Any:
        """Multiply once, into `out`."""
        if self.dtype == "float8_e4m3fn":
            return torch._scaled_mm(x, weight.t(), scale_a=one, scale_b=one, out_dtype=out.dtype, use_fast_accum=True, out=out)
        if self.dtype == "int8":
            return torch._int_mm(x, weight.t(), out=out)
        return torch.mm(x, weight.t(), out=out)  # the kernel of torch.nn.functional.linear


# Tolerances: a result in 8 or 11 bits of mantissa is rounded by up to 2^-9 or 2^-12 of its size, and the largest of some hundred
# elements is four times their root mean square; tf32 rounds its operands to 11 bits; fp8 adds up in 14 bits on Hopper
# (arXiv 2412.19437, section 3.3.2); int8 is exact.
OPERANDS: dict[str, Product] = {
    "fp32": Product("float32", "float32", "fp32", 1e-4),
    "tf32": Product("float32", "float32", "fp32", 1e-2),
    "bf16": Product("bfloat16", "bfloat16", "bf16", 3e-2),
    "fp16": Product("float16", "float16", "fp16", 1e-2),
    "fp8": Product("float8_e4m3fn", "bfloat16", "fp8", 8e-2, step=16),
    "int8": Product("int8", "int32", "int8", 0.0, step=8, least_rows=17),
}
"""Products by operand format."""


@contextmanager
def precision(torch: Any, operand: str) -> Iterator[None]:
    """Run products of fp32 tensors in fp32 or tf32 inside the context, then restore the setting."""
    restore = _saved(torch)
    torch.set_float32_matmul_precision("high" if operand == "tf32" else "highest")
    try:
        yield
    finally:
        restore()


def _saved(torch: Any) -> Callable[[], None]:
    """Return a function that restores the current precision of fp32 products."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # torch 2.9 and later raise if it was set per backend
        kinds = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
        each = [(kind, kind.fp32_precision) for kind in kinds]

        def restore() -> None:
            for kind, value in each:
                kind.fp32_precision = value

        return restore
    return lambda: torch.set_float32_matmul_precision(before)


def try_product(torch: Any, operand: str, device: str) -> bool:
    """Return whether a tiny product in a format runs on a device."""
    product = OPERANDS[operand]
    if not hasattr(torch, product.dtype):
        return False
    size = 32
    try:
        with precision(torch, operand), torch.no_grad():
            x = torch.ones(size, size, device=device).to(getattr(torch, product.dtype))
            out = torch.zeros(size, size, device=device, dtype=getattr(torch, product.output))
            product.run(torch, x, x, out, torch.ones((), device=device))
            return bool((out == size).all().item())
    except (RuntimeError, NotImplementedError, AttributeError, TypeError):
        return False
