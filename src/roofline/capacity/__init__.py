"""What fits into memory, how much more would, and what would make it fit."""

from roofline.capacity.limits import MemoryLimits, fewest_devices, max_batch, max_context, memory_limits
from roofline.capacity.memory import Resident, resident

__all__ = ["MemoryLimits", "Resident", "fewest_devices", "max_batch", "max_context", "memory_limits", "resident"]
