"""Planning: which machines serve a workload and keep promises, how many, and what would change the answer."""

from roofline.planner.candidates import Candidate, Excluded
from roofline.planner.choice import Choice, not_dominated
from roofline.planner.days import Schedule, Shift
from roofline.planner.export import read_export
from roofline.planner.money import BreakEven, PlanCost, PlanEnergy
from roofline.planner.planning import plan
from roofline.planner.questions import Bar, Gain, Point, Price, Thresholds
from roofline.planner.result import Plan
from roofline.planner.trials import Trial

__all__ = [
    "Bar",
    "BreakEven",
    "Candidate",
    "Choice",
    "Excluded",
    "Gain",
    "Plan",
    "PlanCost",
    "PlanEnergy",
    "Point",
    "Price",
    "Schedule",
    "Shift",
    "Thresholds",
    "Trial",
    "not_dominated",
    "plan",
    "read_export",
]
