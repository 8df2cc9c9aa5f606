"""Requests: what clients ask of a server, and what happened to each request, whether it was simulated or measured."""

from roofline.requests.times import RequestTimes
from roofline.requests.workload import Workload

__all__ = ["RequestTimes", "Workload"]
