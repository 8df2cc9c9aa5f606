"""What a run spent its time on: operators of torch code, steps of traces, reports of profilers; each beside its roof."""

from roofline.profile.result import OperatorTime, Profile

__all__ = ["OperatorTime", "Profile"]
