"""What a run spent its time on: operators of torch code, steps of traces, reports of profilers; each beside its roof."""

from roofline.profile.beside import PartTime, ProfileBesideFloor, beside_floor
from roofline.profile.comparison import Change, ProfileComparison, compare_profiles
from roofline.profile.result import OperatorTime, Profile
from roofline.profile.torch_run import TorchRun, profile_torch, profiling
from roofline.profile.traces.steps import TraceStep
from roofline.profile.traces.trace import Trace, TraceCollective, TraceKernel, read_trace

__all__ = [
    "Change",
    "OperatorTime",
    "PartTime",
    "Profile",
    "ProfileBesideFloor",
    "ProfileComparison",
    "TorchRun",
    "Trace",
    "TraceCollective",
    "TraceKernel",
    "TraceStep",
    "beside_floor",
    "compare_profiles",
    "profile_torch",
    "profiling",
    "read_trace",
]
