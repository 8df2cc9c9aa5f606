"""Requests that decode by vLLM's rules: some may miss a step, fill pages that others find, or have drafts verified."""

from bisect import bisect_left
from collections.abc import Mapping
from random import Random

from roofline.serving.ledger import Ledger
from roofline.serving.prefix import Page, Run, page_keys
from roofline.serving.rules import Rules
from roofline.serving.schedulers.decoding import Decoding, Served


class Sequence(Served):
    """A request as vLLM's scheduler knows it.

    Attributes
    ----------
    rank, place
        Who is served first, where the policy is priority; how many had begun before it.
    decodes
        Whether it continues its answer.
    each
        How many tokens it has had in every step since `first`.
    owned
        Blocks that it has, where drafts are verified.
    pages, run
        Its full pages that others can find, and what is left of its other ones after it was stopped.
    """

    __slots__ = ("decodes", "each", "owned", "pages", "place", "rank", "run")

    owned: int
    place: int

    def __init__(self, rules: Rules, ledger: Ledger, request: int, held: int, tokens: int | None, number: int) -> None:
        super().__init__(rules, ledger, request, held, tokens)
        self.rank = (ledger.priority[request], number)
        self.decodes = False
        self.each = 1
        self.pages: list[Page] = []
        self.run: Run | None = None
        if self.keys:
            # the last token of an answer never enters the cache, but accepted drafts beyond it leave it there
            known = self.prompt + self.goal - (not rules.drafts)
            self.keys = page_keys(ledger, request, rules.page)[: known // rules.page]


class VllmDecoding(Decoding[Sequence]):
    """Requests that decode, a token in every step that they do not miss; see `Decoding`."""

    def enter(self, served: Sequence) -> None:
        """Let a request decode that had its first token in the last step."""
        super().enter(served)
        served.decodes = True
        served.first -= 1
        if served.keys:
            self.fill_next(served)

    def fill_next(self, served: Sequence) -> None:
        """Take note of when a request fills its next page with a known key."""
        if len(served.pages) < len(served.keys):
            self.pauses.setdefault(self._fills_at(served), []).append(served)

    def _fills_at(self, served: Sequence) -> int:
        return (len(served.pages) + 1) * self.page - 1 - served.base

    def filling(self) -> list[Sequence]:
        """Return the requests of which this step fills a page with a known key, in the order in which they began."""
        return sorted(self.pauses.pop(self.clock, ()), key=lambda served: served.place)

    def _forget(self, served: Sequence) -> None:
        """Undo `fill_next`."""
        if len(served.pages) < len(served.keys):
            same = self.pauses[self._fills_at(served)]
            same.remove(served)
            if not same:
                del self.pauses[self._fills_at(served)]

    def stop(self, served: Sequence) -> None:
        """Let a request decode no longer that has not ended."""
        self._forget(served)
        super().stop(served)

    def stall(self, served: Sequence) -> None:
        """Let a request miss the step that is being scheduled."""
        self.stop(served)
        served.computed -= 1  # the clock goes on
        served.generated -= 1
        self.enter(served)
        served.first = self.clock + 1

    def quiet(self, free: int) -> bool:
        """Return whether in the next step none ends, no more than the free blocks are taken, and no page with a known key fills."""
        return self.clock + 1 not in self.ends and self.needed <= free and self.clock not in self.pauses

    def _leave(self, served: Sequence) -> None:
        super()._leave(served)
        served.decodes = False


class Drafting(VllmDecoding):
    """Requests that decode with drafts: a step gives each of them a token, and as many more as drafts are accepted, by chance.

    Parameters
    ----------
    rules, ledger, series, steps
        As of `Decoding` [-].
    accepted : tuple of float
        Share of the steps in which the first draft is accepted, the first two, and so on [-].
    seed : int
        What chance begins with [-].
    """

    def __init__(self, rules: Rules, ledger: Ledger, series: int, steps: list[float], accepted: tuple[float, ...], seed: int) -> None:
        super().__init__(rules, ledger, series, steps)
        self._rejected = [1 - share for share in accepted]
        self._chance = Random(seed).random

    def enter(self, served: Sequence) -> None:
        """Let a request decode that had its first token in the last step."""
        served.decodes, served.each = True, 1
        served.base, served.first = served.computed - self.clock, self.clock - 1
        self.count += 1
        self.context += served.computed

    def stop(self, served: Sequence) -> None:
        """Let a request decode no longer."""
        self._note(served, self.clock)
        served.decodes = False
        served.computed = self.length(served)
        self.count -= 1
        self.context -= served.computed

    def stall(self, served: Sequence) -> None:
        """Let a request miss the step that is being scheduled."""
        self._note(served, self.clock)
        served.first = self.clock + 1
        served.base -= 1

    def verify(self, end_s: float, granted: Mapping[Sequence, int]) -> list[Sequence]:
        """Give the requests that decode their tokens, of as many rows as each was granted, and return those that have ended."""
        self.steps.append(end_s)
        last, ended = self.clock, []
        self.clock += 1
        for served, rows in granted.items():
            if not served.decodes:
                continue
            tokens = 1 + (bisect_left(self._rejected, self._chance(), 0, rows - 1) if rows > 1 else 0)
            given = min(tokens, served.goal - served.generated)
            kept = min(tokens, given + 1)  # what was accepted beyond the goal is no part of the answer
            if given != served.each:
                self._note(served, last)
                served.first, served.each = last, given
            served.generated += given
            served.base += kept - 1
            self.context += kept
            if served.generated == served.goal:
                ended.append(served)
        for served in ended:
            self.stop(served)
        return ended

    def _note(self, served: Sequence, until: int) -> None:
        """Write in which steps, before one, a request has had its last tokens."""
        if until > served.first:
            self.ledger.segment(served.request, self.series, served.first, until - served.first, served.each)
