"""Reading what a device reports about itself, without torch: NVML for GPUs, ``/proc`` for the host's processors.

:func:`open_telemeter` returns what watches a device. Everything here only reads: no setting of a device is ever changed.
"""

from roofline.telemetry.opening import open_telemeter

__all__ = ["open_telemeter"]
