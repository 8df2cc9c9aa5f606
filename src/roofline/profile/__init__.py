"""What a run spent its time on: operators of torch code, steps of traces, reports of profilers; each beside its roof."""

from roofline.profile.beside import PartTime, ProfileBesideFloor, beside_floor
from roofline.profile.comparison import Change, ProfileComparison, compare_profiles
from roofline.profile.result import Profile
from roofline.profile.rows import OperatorTime
from roofline.profile.torch_run import TorchRun, profile_torch, profiling

__all__ = [
    "Change",
    "OperatorTime",
    "PartTime",
    "Profile",
    "ProfileBesideFloor",
    "ProfileComparison",
    "TorchRun",
    "beside_floor",
    "compare_profiles",
    "profile_torch",
    "profiling",
]
