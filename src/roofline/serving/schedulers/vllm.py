"""`VllmScheduler`: the rules of vLLM's V1 scheduler, in constant work for steps in which nothing is decided.

Running requests are served first, in the order in which they began; then those that wait, from the head, until one does not fit. A request
takes blocks only for the tokens of a step. When they run short, the one that began last is stopped, gives all of its blocks back and
waits at the head; nobody begins in such a step.

Requests that decode advance together, a token a step. So a clock counts their steps, and what changes with every step is kept as its value
on the clock: of each request the difference of its context and the clock, and when it ends; of all together their number, the sum of
their contexts, and how many are at each position in their last block, which tells how many blocks the next step takes.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from heapq import heappop, heappush

from roofline.errors import InvalidValueError
from roofline.serving.ledger import Ledger
from roofline.serving.load import Load, StepSeconds
from roofline.serving.prefix import Blocks, Page, PrefixCache, Run, page_keys
from roofline.serving.rules import Rules
from roofline.serving.schedulers.base import Scheduler


class Served:
    """A request as the scheduler knows it.

    `computed` of its `tokens` are in the cache; while it decodes, `base` plus the clock are, and it ends at `end` on the clock.
    """

    __slots__ = (
        "base",
        "computed",
        "decodes",
        "end",
        "first",
        "generated",
        "goal",
        "held",
        "keys",
        "pages",
        "place",
        "rank",
        "request",
        "run",
        "tokens",
    )

    def __init__(self, request: int, rank: tuple[float, int], tokens: int, generated: int, goal: int, held: int) -> None:
        self.request = request
        self.rank = rank  # who is served first, where the policy is priority
        self.tokens = tokens
        self.generated = generated
        self.goal = goal
        self.held = held
        self.computed = 0
        self.decodes = False
        self.base = self.end = self.first = self.place = 0
        self.keys: Sequence[Hashable] = ()
        self.pages: list[Page] = []
        self.run: Run | None = None


class VllmScheduler(Scheduler):
    """vLLM's V1 scheduler; see `Scheduler` for what it takes and does."""

    def __init__(self, rules: Rules, ledger: Ledger) -> None:
        super().__init__(rules, ledger)
        self._blocks: Blocks = PrefixCache(rules.kv_blocks) if rules.prefix_caching else Blocks(rules.kv_blocks)
        self._watermark = int(rules.watermark * (rules.kv_blocks + 1))  # of all blocks, the null block among them
        self._by_priority = rules.policy == "priority"
        self._waiting: deque[Served] = deque()
        self._heap: list[tuple[tuple[float, int], Served]] = []  # those that wait, where the policy is priority
        self._running: dict[int, Served] = {}
        self._partial: list[Served] = []  # running requests whose prompts are not computed yet
        self._parts: list[tuple[Served, int]] = []  # prompts of this step, and how many tokens of each
        self._added = 0
        self._begun = 0
        self._lacking = ""  # what the first that waits lacks, until a request ends or another one is first
        self._advancing = 0  # requests that decode in this step
        self._seen = 0  # and the sum of their contexts
        # requests that decode
        self._clock = 0
        self._decodes = 0
        self._context = 0
        self._positions = [0] * rules.page  # how many, by base modulo page
        self._ends: dict[int, list[Served]] = {}  # by when they end on the clock
        self._fills: dict[int, list[Served]] = {}  # by when a page with a known key becomes full

    @property
    def waiting(self) -> int:  # type: ignore[override]
        """Requests that wait [-]."""
        return len(self._heap) if self._by_priority else len(self._waiting)

    @property
    def running(self) -> int:  # type: ignore[override]
        """Requests that have begun and hold blocks [-]."""
        return len(self._running)

    @property
    def used_blocks(self) -> int:  # type: ignore[override]
        """Blocks that running requests hold [-]."""
        return self.rules.kv_blocks - self._blocks.free

    def add(self, request: int, held: int = 0, tokens: int | None = None) -> None:
        """Let a request join those that wait; see `Scheduler.add`."""
        rules, ledger = self.rules, self.ledger
        prompt, goal = ledger.prompt[request], ledger.output[request] if tokens is None else tokens
        most = prompt + goal - 1  # the last token never enters the cache
        if -(-most // rules.page) > rules.kv_blocks:
            raise InvalidValueError(
                f"request {request} has {prompt} tokens and {goal} to answer; they never fit into {rules.kv_blocks} blocks of {rules.page} tokens."
            )
        if not rules.chunked and most > rules.step_tokens:
            raise InvalidValueError(
                f"request {request} has {prompt} tokens and {goal} to answer; without chunks they never fit into a step of {rules.step_tokens} tokens."
            )
        first = held >= prompt
        served = Served(request, (ledger.priority[request], self._added), prompt + first, int(first), goal, held)
        self._added += 1
        if rules.prefix_caching:
            served.keys = page_keys(ledger, request, rules.page)
        self._wait(served)

    def _wait(self, served: Served, at_head: bool = False) -> None:
        if self._by_priority:
            heappush(self._heap, (served.rank, served))
            self._lacking = ""
        elif at_head:
            self._waiting.appendleft(served)
            self._lacking = ""
        else:
            self._waiting.append(served)

    # a step

    def schedule(self, now_s: float) -> Load | None:
        """Decide what the step that begins now holds; None if there is nothing to do."""
        left, preempted = self._continue()
        if self._clock in self._fills:
            self._fill()
        if preempted:
            self.held_up["blocks"] += 1
        else:
            self._admit(left, now_s)
        if not self._parts:
            return Load(self._advancing, self._seen) if self._advancing else None
        tokens = pairs = ended = 0
        for served, new in self._parts:
            tokens += new
            pairs += new * served.computed + new * (new + 1) // 2
            ended += served.computed + new == served.tokens
        return Load(self._advancing, self._seen, len(self._parts), tokens, pairs, ended)

    def _continue(self) -> tuple[int, bool]:
        """Serve those that run; return how many tokens are left, and whether any was stopped."""
        rules, partial = self.rules, self._partial
        left = rules.step_tokens - self._decodes
        needed = self._positions[-self._clock % rules.page]
        new = 0
        if partial:
            new = min(partial[0].tokens - partial[0].computed, left)
            needed += self._more(partial[0].computed, new)
        in_line = not partial or (len(partial) == 1 and not rules.long_prompt_tokens)  # the one whose prompt is under way began last
        if left < 0 or needed > self._blocks.free or not in_line:
            return self._walk()
        self._parts = []
        self._advancing, self._seen = self._decodes, self._context
        self._blocks.take(needed)
        if new:
            self._compute(partial[0], new)
        return left - new, False

    def _walk(self) -> tuple[int, bool]:
        """Serve those that run one by one, and stop others where blocks run short; see `_continue`."""
        limit = self._long_prompt_tokens()
        left, preempted = self.rules.step_tokens, False
        granted: dict[Served, int] = {}
        queue, index = list(self._running.values()), 0
        while index < len(queue) and left > 0:
            served = queue[index]
            computed = served.base + self._clock if served.decodes else served.computed
            new = 1 if served.decodes else min(served.tokens - computed, limit, left)
            needed = self._more(computed, new)
            while needed > self._blocks.free:
                preempted = True
                victim = max(queue, key=lambda running: running.rank) if self._by_priority else queue[-1]
                place = queue.index(victim)
                del queue[place]
                index -= place < index
                given = granted.pop(victim, 0)
                left += given
                self._preempt(victim, given)
                if victim is served:
                    break
            else:
                self._blocks.take(needed)
                granted[served] = new
                left -= new
                index += 1
        self._parts = []
        self._advancing, self._seen = self._decodes, self._context
        for served in queue:
            if not served.decodes:
                if served in granted:
                    self._compute(served, granted[served])
            elif served not in granted:
                self._stall(served)
        return left, preempted

    def _long_prompt_tokens(self) -> int:
        """Return the most tokens of a prompt in this step."""
        rules = self.rules
        alone = len(self._running) + self.waiting <= 1
        return rules.long_prompt_tokens if rules.long_prompt_tokens and not alone else rules.step_tokens

    def _more(self, computed: int, new: int) -> int:
        """Return how many more blocks a request takes for new tokens."""
        page = self.rules.page
        return -(-(computed + new) // page) - -(-computed // page)

    def _compute(self, served: Served, new: int) -> None:
        """Let this step compute so many tokens of a prompt, for which the blocks are taken."""
        self._parts.append((served, new))
        if served.keys:
            self._keep(served, served.computed + new)

    def _admit(self, left: int, now_s: float) -> None:
        """Let waiting requests begin, from the head until one lacks something."""
        rules = self.rules
        limit = self._long_prompt_tokens()
        lacking = ""
        while self.waiting:
            if left <= 0:
                lacking = "tokens"
                break
            if len(self._running) >= rules.sequences:
                lacking = "sequences"
                break
            served = self._heap[0][1] if self._by_priority else self._waiting[0]
            pages, again = self._find(served)
            hit = (len(pages) + again) * rules.page
            cached = max(hit, min(served.held, served.tokens - 1))
            new = min(served.tokens - cached, limit)
            if new > left:
                if not rules.chunked:
                    lacking = "tokens"
                    break
                new = left
            if not self._take(served, pages, again, cached + new):
                lacking = "blocks"
                break
            if self._by_priority:
                heappop(self._heap)
            else:
                self._waiting.popleft()
            self._begin(served, cached, new, hit, now_s)
            left -= new
        if lacking:
            self.held_up[lacking] += 1
        self._lacking = "" if lacking == "tokens" and self._parts else lacking

    def _find(self, served: Served) -> tuple[list[Page], int]:
        """Return the pages that the cache has of a request, and how many of those that only it can find; not all of its tokens."""
        if not isinstance(self._blocks, PrefixCache):
            return [], 0
        most = (served.tokens - 1) // self.rules.page
        pages = self._blocks.find(served.keys, most)
        if served.run is None or len(pages) < len(served.keys):
            return pages, 0
        return pages, min(served.run.pages, most - len(pages))

    def _take(self, served: Served, pages: list[Page], again: int, upto: int) -> bool:
        """Take the blocks of a request that begins, for tokens up to so many, if they and what must be free beside them are there."""
        rules, blocks = self.rules, self._blocks
        has = len(pages) + again
        now = -(-upto // rules.page) - has
        needed = -(-served.tokens // rules.page) - has if rules.reserve == "prompt" else now
        idle = again + sum(not page.users for page in pages)
        if needed + idle + (self._watermark if self._running else 0) > blocks.free:
            return False
        if isinstance(blocks, PrefixCache):
            blocks.hold(pages)
            if again and served.run is not None:
                blocks.resume(served.run, again)
            served.pages, served.run = pages, None
        blocks.take(now)
        return True

    def _begin(self, served: Served, cached: int, new: int, hit: int, now_s: float) -> None:
        """Let a request run from this step on."""
        ledger, request = self.ledger, served.request
        if ledger.start_s[request] != ledger.start_s[request]:
            ledger.start_s[request], ledger.cached[request] = now_s, hit
        served.computed, served.held = cached, 0
        served.place = self._begun
        self._begun += 1
        self._running[request] = served
        if cached + new < served.tokens:
            self._partial.append(served)
        self._compute(served, new)

    def complete(self, end_s: float) -> list[int]:
        """Give the tokens of the step that was scheduled, and return the requests that have ended here."""
        self.ends.append(end_s)
        self._clock += 1
        self._context += self._advancing
        ended = self._ends.pop(self._clock, [])
        for served in ended:
            self._leave(served)
        for served, new in self._parts:
            served.computed += new
            if served.computed == served.tokens:
                if served in self._partial:
                    self._partial.remove(served)
                if self._answer(served, end_s):
                    ended.append(served)
        self._parts = []
        if not ended:
            return []
        self._lacking = ""
        if len(ended) > 1:
            ended.sort(key=lambda served: served.place)
        for served in ended:
            self.ledger.finish_s[served.request] = end_s
            del self._running[served.request]
            self._release(served, served.computed)
        return [served.request for served in ended]

    # requests that decode

    def _answer(self, served: Served, end_s: float) -> bool:
        """Give a request whose prompt is computed a token, and return whether it was its last; otherwise it decodes from now on."""
        ledger, request = self.ledger, served.request
        if ledger.first_token_s[request] != ledger.first_token_s[request]:
            ledger.first_token_s[request] = end_s
        served.generated += 1
        if served.generated == served.goal:
            ledger.segment(request, self.series, len(self.ends) - 1, 1)
            return True
        served.decodes = True
        served.first = len(self.ends) - 1
        self._decodes += 1
        self._context += served.computed
        self._enter(served, served.computed - self._clock, self._clock + served.goal - served.generated)
        return False

    def _enter(self, served: Served, base: int, end: int) -> None:
        """Set when a request that decodes takes blocks, fills pages and ends."""
        served.base, served.end = base, end
        self._positions[base % self.rules.page] += 1
        self._ends.setdefault(end, []).append(served)
        if len(served.pages) < len(served.keys):
            self._fills.setdefault((len(served.pages) + 1) * self.rules.page - 1 - base, []).append(served)

    def _stall(self, served: Served) -> None:
        """Let a request that decodes miss this step."""
        self._advancing -= 1
        self._seen -= served.base + self._clock
        self._note(served)
        served.first = len(self.ends) + 1
        self._forget(served)
        self._enter(served, served.base - 1, served.end + 1)

    def _forget(self, served: Served) -> None:
        """Undo `_enter`."""
        self._positions[served.base % self.rules.page] -= 1
        self._ends[served.end].remove(served)
        if len(served.pages) < len(served.keys):
            self._fills[(len(served.pages) + 1) * self.rules.page - 1 - served.base].remove(served)

    def _note(self, served: Served) -> None:
        """Write when a request that decodes got its last tokens."""
        steps = len(self.ends) - served.first
        if steps > 0:
            self.ledger.segment(served.request, self.series, served.first, steps)

    def _leave(self, served: Served) -> None:
        """Let a request decode no longer."""
        self._note(served)
        served.decodes = False
        served.computed = served.base + self._clock
        served.generated = served.goal - (served.end - self._clock)
        self._positions[served.base % self.rules.page] -= 1
        self._decodes -= 1
        self._context -= served.computed

    def _preempt(self, served: Served, given: int) -> None:
        """Stop a running request, to which the step had already given so many tokens, and let it wait at the head."""
        if served.decodes:
            self._forget(served)
            self._positions[served.base % self.rules.page] += 1
            self._leave(served)
            served.tokens = self.ledger.prompt[served.request] + served.generated
        else:
            self._partial.remove(served)
        del self._running[served.request]
        self._release(served, served.computed + given)
        served.computed = 0
        self.ledger.preemptions[served.request] += 1
        self._wait(served, at_head=True)

    # blocks

    def _keep(self, served: Served, upto: int) -> None:
        """Let others find the pages that a request fills with its tokens up to so many."""
        assert isinstance(self._blocks, PrefixCache)
        for key in served.keys[len(served.pages) : upto // self.rules.page]:
            served.pages.append(self._blocks.fill(key))

    def _fill(self) -> None:
        """Let others find the pages of answers that become full in this step."""
        for served in self._fills.pop(self._clock):
            self._keep(served, served.base + self._clock + 1)
            if len(served.pages) < len(served.keys):
                self._fills.setdefault(self._clock + self.rules.page, []).append(served)
        self._lacking = ""

    def _release(self, served: Served, upto: int) -> None:
        """Give back the blocks of a request's first so many tokens."""
        page, blocks = self.rules.page, self._blocks
        full, owned = upto // page, -(-upto // page)
        if isinstance(blocks, PrefixCache):
            blocks.give(owned - full)
            served.run = blocks.leave(served.pages, full - len(served.pages))
            served.pages = []
        else:
            blocks.give(owned)

    # steps without decisions

    def run(self, begin_s: float, until_s: float, seconds: StepSeconds) -> float:
        """Run the next steps that need no decision and begin before a time; see `Scheduler.run`."""
        decodes, clock, context = self._decodes, self._clock, self._context
        if not decodes or self._partial or decodes > self.rules.step_tokens or (self.waiting and not self._lacking):
            return begin_s
        page, positions, ends, fills = self.rules.page, self._positions, self._ends, self._fills
        free, taken = self._blocks.free, 0
        append = self.ends.append
        while begin_s < until_s and clock + 1 not in ends and clock not in fills:
            needed = taken + positions[-clock % page]
            if needed > free:
                break
            taken = needed
            begin_s += seconds(Load(decodes, context))
            append(begin_s)
            clock += 1
            context += decodes
        self._blocks.take(taken)
        if self._lacking:
            self.held_up[self._lacking] += clock - self._clock
        self._clock, self._context = clock, context
        return begin_s
