"""The time of one kernel: one form per family, in a module of its own."""

from roofline.kernels.forms.attention import ATTENTION
from roofline.kernels.forms.collectives import ALL_REDUCE, EXCHANGE, SEND
from roofline.kernels.forms.experts import EXPERTS
from roofline.kernels.forms.family import Family
from roofline.kernels.forms.latent_attention import LATENT_ATTENTION
from roofline.kernels.forms.matmul import MATMUL
from roofline.kernels.forms.rowwise import ROWWISE
from roofline.kernels.forms.state import STATE

FAMILIES: dict[str, Family] = {
    family.name: family for family in (MATMUL, ATTENTION, LATENT_ATTENTION, EXPERTS, STATE, ROWWISE, ALL_REDUCE, EXCHANGE, SEND)
}
"""Every family of kernels by its name in ``Op.family``."""
