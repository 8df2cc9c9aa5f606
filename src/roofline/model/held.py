"""What a layer keeps in memory for every sequence: its cache and its state."""

from abc import abstractmethod
from dataclasses import dataclass

from roofline.model.components import WeightedPart
from roofline.step.rows import Rows

CACHE, STREAM = "kv", "stream"
"""What :attr:`Held.stored` may be besides the name of a format: the format of the cache, and that of activations in memory."""


@dataclass(frozen=True, slots=True)
class Held:
    """Rows that one layer keeps in memory for every sequence.

    Parameters
    ----------
    rows : Rows
        How many, by the length of the sequence [-].
    elements : int
        Elements of one row [-].
    stored : str, optional
        The format of the elements: ``"kv"``, whatever the cache is in; ``"stream"``, whatever activations are in; or the name of a format [-].
    """

    rows: Rows
    elements: int
    stored: str = CACHE

    @property
    def cache_elements_per_token(self) -> int | float:
        """Elements by which one more token makes the cache grow, as long as no window is full [-]."""
        if not self.rows.cached or self.rows.kind == "source":
            return 0
        if self.rows.kind != "entries":
            return self.elements
        return self.elements / self.rows.span if self.elements % self.rows.span else self.elements // self.rows.span


class MixerPart(WeightedPart):
    """Base of all mixers: each says what it keeps of a sequence."""

    @abstractmethod
    def keeps(self) -> tuple[Held, ...]:
        """Return what one layer keeps in memory for every sequence: cache rows, states, or nothing [-]."""

    @property
    def cache_elements_per_token(self) -> int | float:
        """Elements by which one token makes the cache of one layer grow, as long as no window is full [-]."""
        return sum(held.cache_elements_per_token for held in self.keeps())
