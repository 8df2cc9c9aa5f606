"""What fits into memory, how much more would, and what would make it fit."""

from roofline.capacity.limits import fewest_devices, max_batch, max_context
from roofline.capacity.memory import Resident, resident

__all__ = ["Resident", "fewest_devices", "max_batch", "max_context", "resident"]
