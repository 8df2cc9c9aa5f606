"""What a kernel is: its kind (sizes and formats, which say what it costs) and its family (the form of its time, with few constants).

A kernel is one launch on one device, described by an :class:`~roofline.ops.Op`. ``KINDS`` counts kernels from the sizes that people
and tables give; ``FAMILIES`` times them, with constants that a fit finds.
"""

from roofline.frozen import FrozenDict
from roofline.kernels.forms.attention import ATTENTION
from roofline.kernels.forms.collectives import ALL_REDUCE, EXCHANGE, SEND
from roofline.kernels.forms.experts import EXPERTS
from roofline.kernels.forms.family import Constant, Family, Values, combine
from roofline.kernels.forms.latent_attention import LATENT_ATTENTION
from roofline.kernels.forms.matmul import MATMUL
from roofline.kernels.forms.rowwise import ROWWISE
from roofline.kernels.forms.state import STATE
from roofline.kernels.kinds import KINDS, count_op

__all__ = ["FAMILIES", "KINDS", "Constant", "Family", "Values", "combine", "count_op"]

FAMILIES: dict[str, Family] = {
    family.name: family for family in (MATMUL, ATTENTION, LATENT_ATTENTION, EXPERTS, STATE, ROWWISE, ALL_REDUCE, EXCHANGE, SEND)
}
"""Every family of kernels by its name in ``Op.family``."""
FAMILIES = FrozenDict(FAMILIES)
