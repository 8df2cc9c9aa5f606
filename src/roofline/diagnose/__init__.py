"""What a run was bound by: one report from a benchmark, a running engine, a trace, counters, a log, or a table of steps."""

from roofline.diagnose.diagnosing import diagnose
from roofline.diagnose.misdiagnoses import Misdiagnosis
from roofline.diagnose.phase import Cause, Phase, Remedy
from roofline.diagnose.result import Diagnosis

__all__ = ["Cause", "Diagnosis", "Misdiagnosis", "Phase", "Remedy", "diagnose"]
