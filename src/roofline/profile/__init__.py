"""What a run spent its time on: operators of torch code, steps of traces, reports of profilers; each beside its roof."""

from roofline.profile.result import OperatorTime, Profile
from roofline.profile.torch_run import TorchRun, profile_torch, profiling
from roofline.profile.traces.steps import TraceStep
from roofline.profile.traces.trace import Trace, TraceCollective, TraceKernel, read_trace

__all__ = [
    "OperatorTime",
    "Profile",
    "TorchRun",
    "Trace",
    "TraceCollective",
    "TraceKernel",
    "TraceStep",
    "profile_torch",
    "profiling",
    "read_trace",
]
