"""What a kernel is: its kind (sizes and formats, which say what it costs) and its family (the form of its time, with few constants).

A kernel is one launch on one device, described by an :class:`~roofline.ops.Op`. ``KINDS`` counts kernels from the sizes that people
and tables give; ``FAMILIES`` times them, with constants that a fit finds.
"""

from roofline.kernels.forms import FAMILIES
from roofline.kernels.forms.family import Constant, Family, Values, combine
from roofline.kernels.kinds import KINDS, count_op

__all__ = ["FAMILIES", "KINDS", "Constant", "Family", "Values", "combine", "count_op"]
