"""`Decoding`: requests that decode together, a token a step, in constant work a step.

A clock counts their steps. What changes with every step is kept as its value on the clock: of each request the difference of its context
and the clock, and when it ends; of all together their number, the sum of their contexts, and how many are at each position in their last
block, which tells how many blocks the next step takes.
"""

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from roofline.serving.ledger import Ledger
from roofline.serving.load import Load, StepSeconds
from roofline.serving.rules import Rules


class Served:
    """A request as a scheduler knows it: `computed` of its tokens are in the cache, and it stays until it has `goal` tokens of its answer.

    The pages that it has hold `stored` tokens. While it decodes, `base` plus the clock are in the cache, and it ends at `end` on the clock.
    """

    __slots__ = ("base", "computed", "end", "first", "generated", "goal", "held", "keys", "limit", "prompt", "request", "stored")

    def __init__(self, rules: Rules, ledger: Ledger, request: int, held: int, tokens: int | None) -> None:
        self.request = request
        self.prompt = ledger.prompt[request]
        self.goal = ledger.output[request] if tokens is None else tokens
        self.limit = max(self.goal, rules.answer_tokens)
        self.held = held
        self.generated = int(held >= self.prompt)
        self.computed = self.stored = self.base = self.end = self.first = 0
        self.keys: Sequence[Hashable] = ledger.blocks[request] if rules.prefix_caching and ledger.blocks is not None else ()

    @property
    def tokens(self) -> int:
        """Tokens of the prompt and of the answer so far [token]."""
        return self.prompt + self.generated


_S = TypeVar("_S", bound=Served)


class Decoding(Generic[_S]):
    """The requests of a scheduler that decode; all of them take part in a step of its clock.

    Parameters
    ----------
    rules : Rules
        What the scheduler is told [-].
    ledger : Ledger
        The books of the simulation [-].
    series, steps
        Number and times of the series of steps that the clock counts; see `Ledger.series` [-].
    """

    def __init__(self, rules: Rules, ledger: Ledger, series: int, steps: list[float]) -> None:
        self.page = rules.page
        self.ledger = ledger
        self.series, self.steps = series, steps
        self.clock = 0
        self.count = 0
        self.context = 0
        self.positions = [0] * rules.page  # how many, by base modulo page
        self.ends: dict[int, list[_S]] = {}  # by when they end on the clock
        self.pauses: dict[int, list[_S]] = {}  # by before which step something else is to be done for them

    @property
    def needed(self) -> int:
        """Blocks that the next step takes [-]."""
        return self.positions[-self.clock % self.page]

    def generated(self, served: _S) -> int:
        """Return how many tokens of its answer a request that decodes has."""
        return served.goal - served.end + self.clock

    def length(self, served: _S) -> int:
        """Return how many tokens of a request that decodes are in the cache."""
        return served.base + self.clock

    def enter(self, served: _S) -> None:
        """Let a request decode whose prompt is computed."""
        served.base = served.computed - self.clock
        served.end = self.clock + served.goal - served.generated
        served.first = self.clock
        self.count += 1
        self.context += served.computed
        self.positions[served.base % self.page] += 1
        self.ends.setdefault(served.end, []).append(served)

    def stop(self, served: _S) -> None:
        """Let a request decode no longer that has not ended."""
        self.ends[served.end].remove(served)
        if not self.ends[served.end]:
            del self.ends[served.end]
        self._leave(served)

    def advance(self, end_s: float) -> list[_S]:
        """Give each request its next token, and return those that have ended."""
        self.steps.append(end_s)
        self.clock += 1
        self.context += self.count
        ended = self.ends.pop(self.clock, [])
        for served in ended:
            self._leave(served)
        return ended

    def run(self, begin_s: float, until_s: float, seconds: StepSeconds, blocks: int, spare: int) -> tuple[float, int]:
        """Run the next steps in which none ends, that begin before a time, and for which there are blocks, `spare` of them left free.

        Returns when the last of them ended, and how many blocks they took.
        """
        clock, context, count, ends, append = self.clock, self.context, self.count, self.ends, self.steps.append
        page, positions, pauses, taken = self.page, self.positions, self.pauses, 0
        new = tuple.__new__  # Load(...) takes as long as the rest of the loop
        while begin_s < until_s and clock + 1 not in ends and clock not in pauses:
            needed = taken + positions[-clock % page]
            if needed > blocks or taken + spare > blocks:
                break
            taken = needed
            begin_s += seconds(new(Load, (count, context, 0, 0, 0, 0)))
            append(begin_s)
            clock += 1
            context += count
        self.clock, self.context = clock, context
        return begin_s, taken

    def _leave(self, served: _S) -> None:
        """Write when a request got its tokens, and forget it."""
        if self.clock > served.first:
            self.ledger.segment(served.request, self.series, served.first, self.clock - served.first)
        served.computed = served.base + self.clock
        served.stored = -(-served.computed // self.page) * self.page
        served.generated = served.goal - served.end + self.clock
        self.count -= 1
        self.context -= served.computed
        self.positions[served.base % self.page] -= 1
