"""From steps to a service: the engines' schedulers step by step, closed forms of a served system, and its simulation."""

from roofline.serving.fleet import Fleet, Member, ReplicaUse, Run
from roofline.serving.load import Load
from roofline.serving.routing import Seen
from roofline.serving.rules import Rules, rules_of
from roofline.serving.runs import simulate
from roofline.serving.saturation import Saturation
from roofline.serving.simulation import Simulation
from roofline.serving.step_seconds import compile_ranks, compile_steps

__all__ = [
    "Fleet",
    "Load",
    "Member",
    "ReplicaUse",
    "Rules",
    "Run",
    "Saturation",
    "Seen",
    "Simulation",
    "compile_ranks",
    "compile_steps",
    "rules_of",
    "simulate",
]
