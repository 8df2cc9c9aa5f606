"""From steps to a service: the engines' schedulers step by step, closed forms of a served system, and its simulation."""

from roofline.serving.load import Load
from roofline.serving.rules import Rules

__all__ = ["Load", "Rules"]
