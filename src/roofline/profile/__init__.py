"""What a run spent its time on: operators of torch code, steps of traces, reports of profilers; each beside its roof."""

from roofline.profile.beside import PartTime, ProfileBesideFloor, beside_floor
from roofline.profile.call import Call, Element, Tensor
from roofline.profile.comparison import Change, ProfileComparison, compare_profiles
from roofline.profile.reports.reading import read_report
from roofline.profile.reports.report import KernelReport, ReportedKernel
from roofline.profile.result import Profile
from roofline.profile.rows import OperatorTime
from roofline.profile.torch_run import TorchRun, profile_torch, profiling
from roofline.profile.traces.beside import ClassBesideEstimate, StepBesideEstimate, TraceBesideEstimate, beside_estimate
from roofline.profile.traces.changes import TraceChange, TraceComparison, compare_traces
from roofline.profile.traces.ranks import CollectiveSum, RankComparison, RankTime, compare_ranks
from roofline.profile.traces.steps import TraceStep
from roofline.profile.traces.trace import Trace, TraceCollective, TraceKernel, read_trace

__all__ = [
    "Call",
    "Change",
    "ClassBesideEstimate",
    "CollectiveSum",
    "Element",
    "KernelReport",
    "OperatorTime",
    "PartTime",
    "Profile",
    "ProfileBesideFloor",
    "ProfileComparison",
    "RankComparison",
    "RankTime",
    "ReportedKernel",
    "StepBesideEstimate",
    "Tensor",
    "TorchRun",
    "Trace",
    "TraceBesideEstimate",
    "TraceChange",
    "TraceCollective",
    "TraceComparison",
    "TraceKernel",
    "TraceStep",
    "beside_estimate",
    "beside_floor",
    "compare_profiles",
    "compare_ranks",
    "compare_traces",
    "profile_torch",
    "profiling",
    "read_report",
    "read_trace",
]
