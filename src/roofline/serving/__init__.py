"""From steps to a service: the engines' schedulers step by step, closed forms of a served system, and its simulation."""

from roofline.serving.closed_forms.estimate import serving_estimate
from roofline.serving.closed_forms.estimate_result import ServingEstimate
from roofline.serving.closed_forms.largest_rate import MaxRate, max_rate
from roofline.serving.closed_forms.queueing import erlang_c, mg1_wait, mgc_wait, mmc_wait
from roofline.serving.fit import fit_service
from roofline.serving.rules import Rules, rules_of
from roofline.serving.simulation.fleet import Fleet, ReplicaUse, Run
from roofline.serving.simulation.members import Member
from roofline.serving.simulation.result import Simulation
from roofline.serving.simulation.routing import Seen
from roofline.serving.simulation.runs import simulate
from roofline.serving.simulation.saturation import Saturation
from roofline.serving.steps.load import Load
from roofline.serving.steps.seconds import compile_ranks, compile_steps
from roofline.serving.steps.service_fit import FitError, ServiceFit, load_service_fit

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
