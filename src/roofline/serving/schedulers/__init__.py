"""Schedulers of the engines: what each step holds, by the rules of each engine."""

from roofline.serving.schedulers.base import Scheduler

__all__ = ["Scheduler"]
