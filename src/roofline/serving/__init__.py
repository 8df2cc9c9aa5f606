"""From steps to a service: the engines' schedulers step by step, closed forms of a served system, and its simulation."""

from roofline.serving.estimate import serving_estimate
from roofline.serving.estimate_result import ServingEstimate
from roofline.serving.fit import fit_service
from roofline.serving.fleet import Fleet, ReplicaUse, Run
from roofline.serving.largest_rate import MaxRate, max_rate
from roofline.serving.load import Load
from roofline.serving.members import Member
from roofline.serving.queueing import erlang_c, mg1_wait, mgc_wait, mmc_wait
from roofline.serving.routing import Seen
from roofline.serving.rules import Rules, rules_of
from roofline.serving.runs import simulate
from roofline.serving.saturation import Saturation
from roofline.serving.service_fit import FitError, ServiceFit, load_service_fit
from roofline.serving.simulation import Simulation
from roofline.serving.step_seconds import compile_ranks, compile_steps

__all__ = [
    "FitError",
    "Fleet",
    "Load",
    "MaxRate",
    "Member",
    "ReplicaUse",
    "Rules",
    "Run",
    "Saturation",
    "Seen",
    "ServiceFit",
    "ServingEstimate",
    "Simulation",
    "compile_ranks",
    "compile_steps",
    "erlang_c",
    "fit_service",
    "load_service_fit",
    "max_rate",
    "mg1_wait",
    "mgc_wait",
    "mmc_wait",
    "rules_of",
    "serving_estimate",
    "simulate",
]
