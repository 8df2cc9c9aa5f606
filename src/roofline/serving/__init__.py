"""From steps to a service: the engines' schedulers step by step, closed forms of a served system, and its simulation."""

from roofline.serving.load import Load
from roofline.serving.rules import Rules
from roofline.serving.step_seconds import compile_ranks, compile_steps

__all__ = ["Load", "Rules", "compile_ranks", "compile_steps"]
