"""`Decoding`: requests that decode together, a token a step, kept so that a step is constant work; `Drafting`: the same with drafts.

A clock counts the steps. What changes with every step is kept as its value on the clock: of each request the difference of its context and
the clock, and when it ends; of all together their number, the sum of their contexts, and how many are at each position in their last
block, which tells how many blocks the next step takes.
"""

from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from random import Random

from roofline.serving.ledger import Ledger
from roofline.serving.load import Load, StepSeconds
from roofline.serving.prefix import Page, Run


class Served:
    """A request as a scheduler knows it.

    Attributes
    ----------
    request, rank, place
        Its index in the workload; who is served first, where the policy is priority; how many had begun before it.
    tokens, computed
        What it has: its prompt and its answer so far, and how much of it is in the cache.
    generated, goal
        Tokens of its answer, and until how many it stays.
    decodes, base, end
        Whether it continues its answer. Then `base` plus the clock are in the cache, and it ends at `end` on the clock, while
        `computed`, `tokens` and `generated` rest.
    first, each
        Since which step it has had so many tokens in every step.
    held
        Tokens whose keys and values come with it.
    owned
        Blocks that it has, where drafts are verified.
    keys, pages, run
        What tells the contents of its first pages, those of them that are full, and what is left of others after it was stopped.
    """

    __slots__ = (
        "base",
        "computed",
        "decodes",
        "each",
        "end",
        "first",
        "generated",
        "goal",
        "held",
        "keys",
        "owned",
        "pages",
        "place",
        "rank",
        "request",
        "run",
        "tokens",
    )

    base: int
    each: int
    end: int
    first: int
    owned: int
    place: int

    def __init__(self, request: int, rank: tuple[float, int], tokens: int, generated: int, goal: int, held: int) -> None:
        self.request = request
        self.rank = rank
        self.tokens = tokens
        self.generated = generated
        self.goal = goal
        self.held = held
        self.computed = 0
        self.decodes = False
        self.keys: Sequence[Hashable] = ()
        self.pages: list[Page] = []
        self.run: Run | None = None


class Decoding:
    """Requests of one scheduler that decode, a token in every step.

    Parameters
    ----------
    page : int
        Tokens of a block [token].
    ledger : Ledger
        The books, which get the segments of tokens [-].
    series : int
        The number of the series of steps in which these requests get tokens [-].
    step_ends_s : list
        The ends of these steps [s].
    """

    def __init__(self, page: int, ledger: Ledger, series: int, step_ends_s: list[float]) -> None:
        self.page = page
        self.ledger = ledger
        self.series = series
        self.step_ends_s = step_ends_s
        self.clock = 0
        self.number = 0
        self.context = 0
        self._positions = [0] * page  # how many, by base modulo page
        self._ends: dict[int, list[Served]] = {}  # by when they end on the clock
        self._fills: dict[int, list[Served]] = {}  # by when a page with a known key becomes full

    def needed(self) -> int:
        """Return how many blocks they take in the next step."""
        return self._positions[-self.clock % self.page]

    def enter(self, served: Served) -> None:
        """Let a request decode that had a token in the last step."""
        served.decodes, served.each = True, 1
        served.first = len(self.step_ends_s) - 1
        self.number += 1
        self.context += served.computed
        self._place(served, served.computed - self.clock, self.clock + served.goal - served.generated)

    def _place(self, served: Served, base: int, end: int) -> None:
        served.base, served.end = base, end
        self._positions[base % self.page] += 1
        if end in self._ends:
            self._ends[end].append(served)
        else:
            self._ends[end] = [served]
        if served.keys:
            self.fill_next(served)

    def _displace(self, served: Served) -> None:
        self._positions[served.base % self.page] -= 1
        same = self._ends[served.end]
        same.remove(served)
        if not same:
            del self._ends[served.end]
        if len(served.pages) < len(served.keys):
            clock = (len(served.pages) + 1) * self.page - 1 - served.base
            self._fills[clock].remove(served)
            if not self._fills[clock]:
                del self._fills[clock]

    def stall(self, served: Served) -> None:
        """Let a request miss the step that is being scheduled."""
        self._note(served)
        served.first = len(self.step_ends_s) + 1
        self._displace(served)
        self._place(served, served.base - 1, served.end + 1)

    def remove(self, served: Served) -> None:
        """Let a request decode no longer, although it has not ended."""
        self._displace(served)
        self._leave(served)

    def _leave(self, served: Served) -> None:
        self._note(served)
        clock = self.clock
        served.decodes = False
        served.computed = served.base + clock
        served.tokens = served.computed + 1
        served.generated = served.goal - served.end + clock
        self.number -= 1
        self.context -= served.computed

    def _note(self, served: Served) -> None:
        """Write in which steps a request has had its last tokens."""
        steps = len(self.step_ends_s) - served.first
        if steps > 0:
            self.ledger.segment(served.request, self.series, served.first, steps, served.each)

    def filling(self) -> list[Served]:
        """Return the requests of which this step fills a page with a known key, in the order in which they began."""
        return sorted(self._fills.pop(self.clock, ()), key=lambda served: served.place)

    def fill_next(self, served: Served) -> None:
        """Take note of when a request fills its next page with a known key."""
        if len(served.pages) < len(served.keys):
            self._fills.setdefault((len(served.pages) + 1) * self.page - 1 - served.base, []).append(served)

    def advance(self, advancing: int, granted: Mapping[Served, int]) -> list[Served]:
        """Give so many of the requests a token, and return those that have ended."""
        self.clock += 1
        self.context += advancing
        ended = self._ends.pop(self.clock, None)
        if ended is None:
            return []
        for served in ended:
            self._positions[served.base % self.page] -= 1
            self._leave(served)
        return ended

    def quiet(self, free: int) -> bool:
        """Return whether in the next step none ends, no more than the free blocks are taken, and no page with a known key fills."""
        return self.clock + 1 not in self._ends and self.needed() <= free and self.clock not in self._fills

    def run(self, begin_s: float, until_s: float, seconds: StepSeconds, free: int) -> tuple[float, int]:
        """Run steps in which none ends and no more than the free blocks are taken; return when the last ended, and blocks taken."""
        page, positions, ends, fills = self.page, self._positions, self._ends, self._fills
        number, clock, context = self.number, self.clock, self.context
        append, new, taken = self.step_ends_s.append, tuple.__new__, 0  # Load(...) takes longer than the rest of the loop
        while begin_s < until_s and clock + 1 not in ends and clock not in fills:
            needed = taken + positions[-clock % page]
            if needed > free:
                break
            taken = needed
            begin_s += seconds(new(Load, (number, context, 0, 0, 0, 0)))
            append(begin_s)
            clock += 1
            context += number
        self.clock, self.context = clock, context
        return begin_s, taken


class Drafting(Decoding):
    """Requests that decode with drafts: a step gives each of them a token, and as many more as drafts are accepted, by chance.

    `base` is what is in the cache; the clock rests.

    Parameters
    ----------
    accepted : tuple of float
        Share of the steps in which the first draft is accepted, the first two, and so on [-].
    seed : int
        What chance begins with [-].
    """

    def __init__(self, page: int, ledger: Ledger, series: int, step_ends_s: list[float], accepted: tuple[float, ...], seed: int) -> None:
        super().__init__(page, ledger, series, step_ends_s)
        self._rejected = [1 - share for share in accepted]
        self._chance = Random(seed).random

    def _place(self, served: Served, base: int, end: int) -> None:
        served.base = base

    def stall(self, served: Served) -> None:
        """Let a request miss the step that is being scheduled."""
        self._note(served)
        served.first = len(self.step_ends_s) + 1

    def remove(self, served: Served) -> None:
        """Let a request decode no longer."""
        self._note(served)
        served.decodes = False
        served.computed = served.base
        served.tokens = served.computed + 1
        self.number -= 1
        self.context -= served.computed

    def advance(self, advancing: int, granted: Mapping[Served, int]) -> list[Served]:
        """Give the requests that were granted rows their tokens, and return those that have ended."""
        ended = []
        last = len(self.step_ends_s) - 1
        for served, rows in granted.items():
            if not served.decodes:
                continue
            tokens = 1 + (bisect_left(self._rejected, self._chance(), 0, rows - 1) if rows > 1 else 0)
            given = min(tokens, served.goal - served.generated)
            if given != served.each:
                self._note_before(served, last)
                served.first, served.each = last, given
            kept = min(tokens, given + 1)  # what was accepted beyond the goal is no part of the answer
            served.generated += given
            served.base += kept
            self.context += kept
            if served.generated == served.goal:
                ended.append(served)
        for served in ended:
            self.remove(served)
        return ended

    def _note_before(self, served: Served, step: int) -> None:
        if step > served.first:
            self.ledger.segment(served.request, self.series, served.first, step - served.first, served.each)
