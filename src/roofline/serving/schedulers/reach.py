"""`Reach`: how near a scheduler came to its limits, which tells other limits that would have changed nothing."""

from dataclasses import replace
from typing import NamedTuple

from roofline.serving.rules import Rules


class Reach(NamedTuple):
    """How near a scheduler came to its limits, of a run in which none of its requests shared blocks or was stopped.

    Parameters
    ----------
    tokens, sequences : int
        Most tokens of a step that held prompts, and most sequences that ran at a time.
    spare_blocks : int
        Least blocks that were free beyond those that a request needed.
    """

    tokens: int
    sequences: int
    spare_blocks: int

    def same_under(self, other: Rules, own: Rules) -> bool:
        """Return whether all would have gone the same way under other rules.

        It would if they differ in limits of tokens, sequences and blocks alone, and of each that differs neither value was reached.
        """
        tokens = own.step_tokens == other.step_tokens or self.tokens < min(own.step_tokens, other.step_tokens)
        sequences = own.sequences == other.sequences or self.sequences < min(own.sequences, other.sequences)
        if not (tokens and sequences and self.spare_blocks >= own.kv_blocks - other.kv_blocks):
            return False
        return replace(other, step_tokens=own.step_tokens, sequences=own.sequences, kv_blocks=own.kv_blocks) == own
