"""What would help: every known optimization re-evaluated by the model itself for one given step, and ranked.

No lever is taken from a table of adages. Each is the same floor computed again with one thing changed, so the useless ones show
themselves as 1.00× and say why.
"""

from roofline.optimizations.evaluate import levers
from roofline.optimizations.result import Lever, Levers
from roofline.step import expected_tokens

__all__ = ["Lever", "Levers", "expected_tokens", "levers"]
