"""`Decoding`: requests that decode together, a token a step, kept so that a step is constant work; `Drafting`: the same with drafts.

A clock counts the steps. What changes with every step is kept as its value on the clock: of each request the difference of its context and
the clock, and when it ends; of all together their number, the sum of their contexts, and how many are at each position in their last
block, which tells how many blocks the next step takes.
"""

from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from random import Random
from typing import Any

from roofline.errors import InvalidValueError, quoted
from roofline.serving.rules import Rules
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.schedulers.prefix import Page, Run
from roofline.serving.steps.load import Load, SecondsByNumber, StepSeconds


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
        Blocks that it has, where they are more than its tokens in the cache need.
    keys, pages, run
        What tells the contents of its first pages, those of them that are full, and what is left of others after it was stopped.
    lane, flight
        In a pipeline: with whom it decodes, and the number of a step that held it.
    """

    __slots__ = (
        "base",
        "computed",
        "decodes",
        "each",
        "end",
        "first",
        "flight",
        "generated",
        "goal",
        "held",
        "keys",
        "lane",
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
    flight: int
    lane: Any
    place: int

    def __init__(self, request: int, rank: tuple[float, int], tokens: int, generated: int, goal: int, held: int) -> None:
        self.request = request
        self.rank = rank
        self.tokens = tokens
        self.generated = generated
        self.goal = goal
        self.held = held
        self.computed = 0
        self.owned = 0
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
        self._until = 0  # the sum of when they end on the clock
        self._positions = [0] * page  # how many, by base modulo page
        self._ends: dict[int, list[Served]] = {}  # by when they end on the clock
        self.fills: dict[int, list[Served]] = {}
        """Who fills a page with a known key, by when on the clock."""

    @property
    def to_come(self) -> int:
        """Tokens that they will have until they end [token]."""
        return self._until - self.number * self.clock

    def generated(self, served: Served) -> int:
        """Return how many tokens of its answer a request has."""
        return served.goal - served.end + self.clock

    def needed(self) -> int:
        """Return how many blocks they take in the next step."""
        return self._positions[-self.clock % self.page]

    def needs(self, served: Served) -> int:
        """Return how many blocks one of them takes in the next step."""
        return int((served.base + self.clock) % self.page == 0)

    def take(self) -> int:
        """Let them have the blocks of the next step, and return how many these are."""
        return self.needed()

    def give(self, kept: int) -> int:
        """Let them have blocks for so many tokens beyond those in the cache, no more, and return how many they give back: none here."""
        return 0

    def enter(self, served: Served) -> None:
        """Let a request decode that had a token in the last step."""
        served.decodes, served.each = True, 1
        served.first = len(self.step_ends_s) - 1
        self.number += 1
        self.context += served.computed
        self._place(served, served.computed - self.clock, self.clock + served.goal - served.generated)

    def _place(self, served: Served, base: int, end: int) -> None:
        served.base, served.end = base, end
        self._until += end
        self._positions[base % self.page] += 1
        if end in self._ends:
            self._ends[end].append(served)
        else:
            self._ends[end] = [served]
        if served.keys:
            self.fill_next(served)

    def _displace(self, served: Served) -> None:
        self._until -= served.end
        self._positions[served.base % self.page] -= 1
        same = self._ends[served.end]
        same.remove(served)
        if not same:
            del self._ends[served.end]
        if len(served.pages) < len(served.keys):
            clock = (len(served.pages) + 1) * self.page - 1 - served.base
            filling = self.fills.get(clock, [])
            if served in filling:  # not in a pipeline, where a page that is full is noted when its step has ended
                filling.remove(served)
                if not filling:
                    del self.fills[clock]

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
        served.owned = -(-served.computed // self.page)
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
        return sorted(self.fills.pop(self.clock, ()), key=lambda served: served.place)

    def fill_next(self, served: Served) -> None:
        """Take note of when a request fills its next page with a known key."""
        if len(served.pages) < len(served.keys):
            self.fills.setdefault((len(served.pages) + 1) * self.page - 1 - served.base, []).append(served)

    def advance(self, advancing: int, granted: Mapping[Served, int]) -> list[Served]:
        """Give so many of the requests a token, and return those that have ended."""
        self.clock += 1
        self.context += advancing
        ended = self._ends.pop(self.clock, None)
        if ended is None:
            return []
        for served in ended:
            self._until -= served.end
            self._positions[served.base % self.page] -= 1
            self._leave(served)
        return ended

    def step(self) -> list[Served]:
        """Give each of them a token, and return those that have ended."""
        return self.advance(self.number, {})

    def quiet(self, free: int) -> bool:
        """Return whether in the next step none ends, no more than the free blocks are taken, and no page with a known key fills."""
        return self.clock + 1 not in self._ends and self.needed() <= free and self.clock not in self.fills

    def run(self, begin_s: float, until_s: float, seconds: StepSeconds, free: int) -> tuple[float, int]:
        """Run steps in which none ends and no more than the free blocks are taken; return when the last ended, and blocks taken."""
        page, positions, ends, fills = self.page, self._positions, self._ends, self.fills
        number, clock, context = self.number, self.clock, self.context
        append, new, taken = self.step_ends_s.append, tuple.__new__, 0  # Load(...) takes longer than the rest of the loop
        decoding = seconds.decoding(number) if isinstance(seconds, SecondsByNumber) else None
        while begin_s < until_s:
            after = clock + 1
            if after in ends or clock in fills:
                break
            needed = positions[-clock % page]
            if needed:
                taken += needed
                if taken > free:
                    taken -= needed
                    break
            begin_s += decoding(context) if decoding else seconds(new(Load, (number, context, 0, 0, 0, 0)))
            append(begin_s)
            clock = after
            context += number
        self.clock, self.context = clock, context
        return begin_s, taken


class Drafting(Decoding):
    """Requests that decode with drafts: a step gives each of them a token, and as many more as drafts are accepted, by chance.

    The clock rests: `base` is what is in the cache, and `end` how many tokens are to come.

    Parameters
    ----------
    accepted : tuple of float
        Share of the steps in which the first draft is accepted, the first two, and so on [-].
    seed : int
        What chance begins with [-].
    ahead : int, optional
        Tokens beyond those in the cache for which each has blocks in a step, where all of them take part in every step [token].
    """

    def __init__(
        self,
        page: int,
        ledger: Ledger,
        series: int,
        step_ends_s: list[float],
        accepted: tuple[float, ...],
        seed: int,
        ahead: int = 0,
    ) -> None:
        super().__init__(page, ledger, series, step_ends_s)
        self._rejected = [1 - share for share in accepted]
        self._chance = Random(seed).random
        self._ahead = ahead
        self._members: dict[Served, None] = {}

    def needed(self) -> int:
        """Return how many blocks they take in the next step."""
        return sum(map(self.needs, self._members))

    def needs(self, served: Served) -> int:
        """Return how many blocks one of them takes in the next step."""
        return max(0, -(-(served.base + self._ahead) // self.page) - served.owned)

    def take(self) -> int:
        """Let them have the blocks of the next step, and return how many these are."""
        taken = 0
        for served in self._members:
            needs = self.needs(served)
            served.owned += needs
            taken += needs
        return taken

    def give(self, kept: int) -> int:
        """Let them have blocks for so many tokens beyond those in the cache, no more, and return how many they give back."""
        given = 0
        for served in self._members:
            owned = -(-(served.base + kept) // self.page)
            given += served.owned - owned
            served.owned = owned
        return given

    def _place(self, served: Served, base: int, end: int) -> None:
        served.base, served.end = base, end
        self._until += end
        self._members[served] = None

    def stall(self, served: Served) -> None:
        """Let a request miss the step that is being scheduled."""
        self._note(served)
        served.first = len(self.step_ends_s) + 1

    def remove(self, served: Served) -> None:
        """Let a request decode no longer."""
        del self._members[served]
        self._until -= served.end
        owned = served.owned
        self._leave(served)
        served.owned = owned

    def step(self) -> list[Served]:
        """Verify all drafts of each of them, and return those that have ended."""
        return self.advance(self.number, dict.fromkeys(self._members, 1 + len(self._rejected)))

    def advance(self, advancing: int, granted: Mapping[Served, int]) -> list[Served]:
        """Give the requests that were granted rows their tokens, and return those that have ended."""
        ended = []
        last = len(self.step_ends_s) - 1
        for served, rows in granted.items():
            if not served.decodes:
                continue
            tokens = 1 + (bisect_left(self._rejected, self._chance(), 0, rows - 1) if rows > 1 else 0)
            given = min(tokens, served.end)
            if given != served.each:
                self._note_before(served, last)
                served.first, served.each = last, given
            kept = min(tokens, given + 1)  # what was accepted beyond the goal is no part of the answer
            served.end -= given
            self._until -= given
            served.base += kept
            self.context += kept
            if not served.end:
                ended.append(served)
        for served in ended:
            self.remove(served)
        return ended

    def _note_before(self, served: Served, step: int) -> None:
        if step > served.first:
            self.ledger.segment(served.request, self.series, served.first, step - served.first, served.each)


def decoding_of(
    rules: Rules,
    ledger: Ledger,
    series: tuple[int, list[float]],
    accepted: tuple[float, ...],
    seed: int,
    ahead: int = 0,
) -> Decoding:
    """Return what keeps the requests of a scheduler that decode, with drafts if the rules have some.

    Raises
    ------
    InvalidValueError
        If `accepted` has no share for each draft, or one that cannot be.
    """
    if len(accepted) != rules.drafts or not all(0 <= later <= share <= 1 for share, later in pairwise((*accepted, 0))):
        raise InvalidValueError(
            f"accepted is {quoted(accepted)}; it has a share of 0 … 1 for each of {rules.drafts} drafts, none larger than the one before."
        )
    if accepted:
        return Drafting(rules.page, ledger, *series, accepted, seed, ahead)
    return Decoding(rules.page, ledger, *series)
