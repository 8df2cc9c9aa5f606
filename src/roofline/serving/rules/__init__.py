"""What a scheduler is told: limits, pages, and the blocks of a cache that the memory leaves room for."""

from roofline.serving.rules.of_engine import LOGGED, check_options, ranks_together, rules_of
from roofline.serving.rules.rules import Reserve, Rules, check_acceptance

__all__ = ["LOGGED", "Reserve", "Rules", "check_acceptance", "check_options", "ranks_together", "rules_of"]
