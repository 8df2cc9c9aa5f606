"""`VllmScheduler`: the rules of vLLM's V1 scheduler, in constant work for steps in which nothing is decided.

Running requests are served first, in the order in which they began; then those that wait, from the head, until one does not fit. A request
takes blocks only for the tokens of a step. When they run short, the one that began last is stopped, gives all of its blocks back and
waits at the head; nobody begins in such a step.
"""

from collections import deque
from heapq import heappop, heappush
from sys import maxsize

from roofline.errors import InvalidValueError
from roofline.serving.rules import Rules
from roofline.serving.schedulers.base import Scheduler
from roofline.serving.schedulers.decoding import Served, decoding_of
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.schedulers.prefix import Blocks, Page, PrefixCache, page_keys
from roofline.serving.schedulers.reach import Reach
from roofline.serving.steps.load import Load, StepSeconds, load_of


class VllmScheduler(Scheduler):
    """vLLM's V1 scheduler; see `Scheduler` for what it does.

    Parameters
    ----------
    rules : Rules
        What the scheduler is told [-].
    ledger : Ledger
        The books of the simulation, which hold the requests [-].
    accepted : tuple of float, optional
        Share of the steps in which the first draft is accepted, the first two, and so on, as vLLM logs it; as many as a step verifies,
        none without speculation [-].
    seed : int, optional
        What the chance begins with by which drafts are accepted [-].

    Raises
    ------
    InvalidValueError
        If the rules ask for what vLLM does not do, or the shares of accepted drafts do not go with them.
    """

    def __init__(self, rules: Rules, ledger: Ledger, accepted: tuple[float, ...] = (), seed: int = 0) -> None:
        super().__init__(rules, ledger)
        if rules.reserve not in ("prompt", "chunk"):
            raise InvalidValueError(f"reserve is {rules.reserve!r}; vLLM lets a request begin when its prompt fits, or its first chunk.")
        self._page, self._longest = rules.page, rules.max_model_len or maxsize
        self._blocks: Blocks = PrefixCache(rules.kv_blocks) if rules.prefix_caching else Blocks(rules.kv_blocks)
        self._watermark = int(rules.watermark * (rules.kv_blocks + 1))  # of all blocks, the null block among them
        self._drafts = rules.drafts
        self._decoding = decoding_of(rules, ledger, (self.series, self.ends), accepted, seed)
        self._by_priority = rules.policy == "priority"
        self._queue: deque[Served] = deque()
        self._heap: list[tuple[tuple[float, int], Served]] = []  # those that wait, where the policy is priority
        self._running: dict[int, Served] = {}
        self._partial: list[Served] = []  # running requests whose prompts are not computed yet
        self._resting: set[Served] = set()  # of a pipeline: running ones that have no part in this step
        self._added = 0
        self._begun = 0
        self._lacking = ""  # what the first that waits lacks, until a request ends or another one is first
        self._most_tokens, self._most_running, self._spare = 0, 0, rules.kv_blocks  # of all steps; see `reach`
        # the step that is scheduled
        self._parts: list[tuple[Served, int]] = []  # prompts, and how many tokens of each
        self._granted: dict[Served, int] = {}  # what each has, where they were served one by one
        self._advancing = 0  # how many decode
        self._seen = 0  # the sum of their contexts

    @property
    def waiting(self) -> int:  # type: ignore[override]
        """Requests that wait [-]."""
        return len(self._heap) if self._by_priority else len(self._queue)

    @property
    def running(self) -> int:  # type: ignore[override]
        """Requests that have begun and hold blocks [-]."""
        return len(self._running)

    @property
    def used_blocks(self) -> int:  # type: ignore[override]
        """Blocks that running requests hold [-]."""
        return self.rules.kv_blocks - self._blocks.free

    @property
    def reach(self) -> Reach | None:
        """How near it has come to its limits; see `Scheduler.reach`."""
        shared = self.rules.prefix_caching and self.ledger.blocks is not None
        if self._drafts or shared or not self.rules.chunked or self.held_up["blocks"]:
            return None
        return Reach(self._most_tokens, self._most_running, min(self._spare, self._blocks.free))

    def add(self, request: int, held: int = 0, tokens: int | None = None) -> None:
        """Let a request join those that wait; see `Scheduler.add`."""
        rules, ledger = self.rules, self.ledger
        prompt, goal = ledger.prompt[request], ledger.output[request] if tokens is None else tokens
        first = 1 if held >= prompt else 0
        most = prompt + goal - 1  # the last token never enters the cache
        slots = (
            min(most + 2 * self._drafts, self._longest) if self._drafts else most
        )  # those of a step, and as many for the draft model's next ones
        refused = ""
        if goal <= first:
            refused = "its first token comes with it, and no other one is asked for"
        elif most >= self._longest:
            refused = f"max_model_len is {rules.max_model_len}"
        elif slots > rules.kv_blocks * rules.page:
            refused = f"it never fits into {rules.kv_blocks} blocks of {rules.page} tokens"
        elif not rules.chunked and most > rules.step_tokens:
            refused = f"without chunks it never fits into a step of {rules.step_tokens} tokens"
        if refused:
            raise InvalidValueError(f"request {request} has a prompt of {prompt} and an answer of {goal} tokens; {refused}.")
        served = Served(request, (ledger.priority[request], self._added), prompt + first, first, goal, held)
        self._added += 1
        if rules.prefix_caching:
            known = most + bool(self._drafts)  # accepted drafts beyond the goal leave the last token in the cache
            served.keys = page_keys(ledger, request, rules.page)[: known // rules.page]
        if not self._by_priority:
            self._queue.append(served)
        else:
            heappush(self._heap, (served.rank, served))
            self._lacking = ""

    # a step

    def schedule(self, now_s: float) -> Load | None:
        """Decide what the step that begins now holds; None if there is nothing to do."""
        left, preempted = self._continue()
        if preempted:
            self._lacking = ""
            self.held_up["blocks"] += 1
        elif self._queue or self._heap:
            self._admit(left, now_s)
        if not self._parts:
            return load_of((self._advancing, self._seen, 0, 0, 0, 0)) if self._advancing else None
        tokens = pairs = ended = 0
        for served, new in self._parts:
            tokens += new
            pairs += new * served.computed + new * (new + 1) // 2
            ended += served.computed + new == served.tokens
        if self._advancing + tokens > self._most_tokens:
            self._most_tokens = self._advancing + tokens
        return load_of((self._advancing, self._seen, len(self._parts), tokens, pairs, ended))

    def _continue(self) -> tuple[int, bool]:
        """Serve those that run; return how many tokens are left, and whether any was stopped."""
        decoding, partial, rules = self._decoding, self._partial, self.rules
        left, needed, new, in_line = rules.step_tokens - decoding.number, decoding.needed(), 0, True
        if partial:
            new = min(partial[0].tokens - partial[0].computed, left)
            needed += self._more(partial[0], partial[0].computed, new)
            in_line = len(partial) == 1 and not rules.long_prompt_tokens  # it began last
        if self._drafts or left < 0 or needed > self._blocks.free or not in_line:
            return self._serve()
        self._parts = []
        self._advancing, self._seen = decoding.number, decoding.context
        if needed:
            self._blocks.take(needed)
        if decoding.fills:
            for served in decoding.filling():
                self._keep(served, served.base + decoding.clock + 1)
                decoding.fill_next(served)
        if new:
            self._compute(partial[0], new)
        return left - new, False

    def _serve(self) -> tuple[int, bool]:
        """Serve those that run one by one, and stop others where blocks run short; see `_continue`."""
        decoding = self._decoding
        granted, left, preempted = self._grant(list(self._running.values()))
        self._parts, self._granted = [], granted
        self._advancing, self._seen = decoding.number, decoding.context
        if len(granted) < len(self._running):
            for served in self._running.values():
                if served.decodes and served not in granted and served not in self._resting:
                    self._advancing -= 1
                    self._seen -= served.base + decoding.clock
                    decoding.stall(served)
        filling = decoding.filling()
        for served, new in granted.items():
            if not served.decodes:
                self._compute(served, new)
            elif served.keys:
                self._keep(served, served.base + decoding.clock + 1)
        for served in filling:
            decoding.fill_next(served)
        return left, preempted

    def _grant(self, queue: list[Served]) -> tuple[dict[Served, int], int, bool]:
        """Give each of the running requests tokens and blocks; return what each has, tokens left, and whether any was stopped."""
        limit, left, preempted = self._limit(), self.rules.step_tokens, False
        granted: dict[Served, int] = {}
        drafts, clock, index = self._drafts, self._decoding.clock, 0
        while index < len(queue) and left > 0:
            served = queue[index]
            if served in self._resting:
                index += 1
                continue
            if served.decodes:
                computed = served.base + clock
                new = min(1 + drafts, limit, left, self._longest - computed - 1) if drafts else 1
            else:
                computed = served.computed
                new = min(served.tokens - computed, limit, left)
            needed = self._more(served, computed, new)
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
                if needed:
                    self._blocks.take(needed)
                    if drafts:
                        served.owned += needed
                granted[served] = new
                left -= new
                index += 1
        return granted, left, preempted

    def _preempt(self, served: Served, given: int) -> None:
        """Stop a running request, to which the step had already given so many tokens, and let it wait at the head."""
        if served.decodes:
            self._decoding.remove(served)
        else:
            self._partial.remove(served)
        del self._running[served.request]
        upto = min(served.computed + given, served.tokens)
        if given and served.keys:
            self._keep(served, upto)
        self._release(served, upto)
        served.computed = 0
        self.ledger.preemptions[served.request] += 1
        if self._by_priority:
            heappush(self._heap, (served.rank, served))
        else:
            self._queue.appendleft(served)

    def _limit(self) -> int:
        """Return the most tokens of one request in this step."""
        rules = self.rules
        if rules.long_prompt_tokens and len(self._running) + self.waiting > 1:
            return rules.long_prompt_tokens
        return rules.step_tokens

    def _compute(self, served: Served, new: int) -> None:
        """Let this step compute so many tokens of a prompt, for which the blocks are taken."""
        self._parts.append((served, new))
        if served.keys:
            self._keep(served, served.computed + new)

    def _admit(self, left: int, now_s: float) -> None:
        """Let waiting requests begin, from the head until one lacks something."""
        rules, running = self.rules, self._running
        lacking, limit = "", self._limit() if rules.long_prompt_tokens else rules.step_tokens
        while self._heap or self._queue:
            if left <= 0:
                lacking = "tokens"
                break
            if len(running) >= rules.sequences:
                lacking = "sequences"
                break
            served = self._heap[0][1] if self._by_priority else self._queue[0]
            pages, again = self._find(served) if served.keys or served.run is not None else ([], 0)
            cached = hit = (len(pages) + again) * rules.page
            if served.held > hit:  # with its first token, if its whole prompt is held
                cached = max(hit, min(served.held, served.tokens - 1))
            new = served.tokens - cached
            if new > limit:
                new = limit
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
                self._queue.popleft()
            self._begin(served, cached, new, hit, now_s)
            left -= new
        if lacking:
            self.held_up[lacking] += 1
        self._lacking = "" if lacking == "tokens" and self._parts else lacking

    def _begin(self, served: Served, cached: int, new: int, hit: int, now_s: float) -> None:
        """Let a request run from this step on."""
        ledger, request = self.ledger, served.request
        if ledger.start_s[request] != ledger.start_s[request]:
            ledger.start_s[request], ledger.cached[request] = now_s, hit
        served.computed, served.held = cached, 0
        served.place = self._begun
        self._begun += 1
        self._running[request] = served
        if len(self._running) > self._most_running:
            self._most_running = len(self._running)
        if cached + new < served.tokens:
            self._partial.append(served)
        self._compute(served, new)

    def complete(self, end_s: float) -> list[int]:
        """Give the tokens of the step that was scheduled, and return the requests that have ended here."""
        self.ends.append(end_s)
        ended, partial = self._decoding.advance(self._advancing, self._granted), self._partial
        for served, new in self._parts:
            served.computed += new
            if served.computed == served.tokens:
                if partial and served in partial:
                    partial.remove(served)
                if self._answer(served, end_s):
                    ended.append(served)
        if self._drafts:
            for served in self._granted:
                if served.keys:
                    self._keep(served, served.base if served.decodes else served.computed)
        if not ended:
            return []
        self._lacking = ""
        if self._blocks.free < self._spare:  # it is least where some are given back
            self._spare = self._blocks.free
        if len(ended) > 1:
            ended.sort(key=lambda served: served.place)
        finish_s, running, requests = self.ledger.finish_s, self._running, []
        for served in ended:
            finish_s[served.request] = end_s
            del running[served.request]
            self._release(served, served.computed)
            requests.append(served.request)
        return requests

    def _answer(self, served: Served, end_s: float) -> bool:
        """Give a request whose prompt is computed a token, and return whether it was its last; otherwise it decodes from now on."""
        ledger, request = self.ledger, served.request
        if ledger.first_token_s[request] != ledger.first_token_s[request]:
            ledger.first_token_s[request] = end_s
        served.generated += 1
        if served.generated < served.goal:
            self._decoding.enter(served)
            return False
        ledger.segment(request, self.series, len(self.ends) - 1, 1)
        return True

    def _undecided(self) -> bool:
        """Return whether the next steps may need a decision for other reasons than those that `Decoding` knows."""
        if self._partial or self._drafts or self._decoding.number > self.rules.step_tokens:
            return True
        return not self._lacking and bool(self._queue or self._heap)

    def run(self, begin_s: float, until_s: float, seconds: StepSeconds) -> float:
        """Run the next steps that need no decision and begin before a time; see `Scheduler.run`."""
        decoding = self._decoding
        if not decoding.number or self._undecided():
            return begin_s
        clock = decoding.clock
        begin_s, taken = decoding.run(begin_s, until_s, seconds, self._blocks.free)
        if taken:
            self._blocks.take(taken)
        if self._lacking:
            self.held_up[self._lacking] += decoding.clock - clock
        return begin_s

    def ahead(self) -> Load | None:
        """Return what the next step holds if it needs no decision; see `Scheduler.ahead`."""
        decoding = self._decoding
        if not decoding.number or self._undecided() or not decoding.quiet(self._blocks.free):
            return None
        return Load(decoding.number, decoding.context)

    def go(self, end_s: float) -> None:
        """Run the step that `ahead` returned; see `Scheduler.go`."""
        self._blocks.take(self._decoding.needed())
        self.ends.append(end_s)
        self._decoding.step()
        if self._lacking:
            self.held_up[self._lacking] += 1

    # blocks

    def _more(self, served: Served, computed: int, new: int) -> int:
        """Return how many more blocks a running request takes for new tokens after those in the cache."""
        page = self.rules.page
        if self._drafts:
            return max(0, -(-min(computed + new + self._drafts, self._longest) // page) - served.owned)
        return -(-(computed + new) // page) - -(-computed // page)

    def _find(self, served: Served) -> tuple[list[Page], int]:
        """Return the pages that the cache has of a request, and how many of those that only it can find; not all of its tokens."""
        assert isinstance(self._blocks, PrefixCache)
        most = (served.tokens - 1) // self.rules.page
        pages = self._blocks.find(served.keys, most)
        if served.run is None or len(pages) < len(served.keys):
            return pages, 0
        return pages, min(served.run.pages, most - len(pages))

    def _take(self, served: Served, pages: list[Page], again: int, upto: int) -> bool:
        """Take the blocks of a request that begins, for tokens up to so many, if they and what must be free beside them are there."""
        page, blocks, has = self._page, self._blocks, len(pages) + again
        more = needed = -(-(min(upto + self._drafts, self._longest) if self._drafts else upto) // page) - has
        if upto < served.tokens and self.rules.reserve == "prompt":
            needed = max(needed, -(-served.tokens // page) - has)
        if pages:
            needed += sum(not found.users for found in pages)
        spare = blocks.free - needed - again - (self._watermark if self._running else 0)
        if spare < 0:
            return False
        if spare < self._spare:
            self._spare = spare
        if has and isinstance(blocks, PrefixCache):
            blocks.hold(pages)
            if again and served.run is not None:
                blocks.resume(served.run, again)
            served.pages = pages
        served.run = None
        blocks.take(more)
        served.owned = has + more
        return True

    def _keep(self, served: Served, upto: int) -> None:
        """Let others find the pages that a request fills with its tokens up to so many."""
        assert isinstance(self._blocks, PrefixCache)
        for key in served.keys[len(served.pages) : upto // self.rules.page]:
            served.pages.append(self._blocks.fill(key))

    def _release(self, served: Served, upto: int, under_way: int = 0) -> None:
        """Give back the blocks of a request's first so many tokens, of which others cannot find the last that are under way."""
        page, blocks = self._page, self._blocks
        owned = served.owned if self._drafts else -(-upto // page)
        if isinstance(blocks, PrefixCache):
            full = (upto - under_way) // page
            blocks.give(owned - full)
            served.run = blocks.leave(served.pages, full - len(served.pages))
            served.pages = []
        else:
            blocks.give(owned)
