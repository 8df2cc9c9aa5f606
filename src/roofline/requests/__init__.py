"""Requests: what clients ask of a server, and what happened to each request, whether it was simulated or measured."""

from roofline.requests.arrivals import Arrivals
from roofline.requests.figures import Cost, Energy, Goodput, Period, Statistics
from roofline.requests.lengths import Lengths
from roofline.requests.slo import SLO
from roofline.requests.statistics import Interval, mean_interval, percentile_interval
from roofline.requests.times import RequestTimes
from roofline.requests.workload import Workload

__all__ = [
    "SLO",
    "Arrivals",
    "Cost",
    "Energy",
    "Goodput",
    "Interval",
    "Lengths",
    "Period",
    "RequestTimes",
    "Statistics",
    "Workload",
    "mean_interval",
    "percentile_interval",
]
