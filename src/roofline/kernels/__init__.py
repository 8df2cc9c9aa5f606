"""How long one kernel takes: for every family of kernels a form with few named constants, which a fit finds."""

from roofline.kernels.attention import ATTENTION
from roofline.kernels.collectives import ALL_REDUCE, EXCHANGE, SEND
from roofline.kernels.experts import EXPERTS
from roofline.kernels.family import Constant, Family, Values, combine
from roofline.kernels.latent_attention import LATENT_ATTENTION
from roofline.kernels.matmul import MATMUL
from roofline.kernels.rowwise import ROWWISE
from roofline.kernels.state import STATE

__all__ = ["FAMILIES", "Constant", "Family", "Values", "combine"]

FAMILIES: dict[str, Family] = {
    family.name: family for family in (MATMUL, ATTENTION, LATENT_ATTENTION, EXPERTS, STATE, ROWWISE, ALL_REDUCE, EXCHANGE, SEND)
}
"""Every family of kernels by its name in ``Op.family``."""
