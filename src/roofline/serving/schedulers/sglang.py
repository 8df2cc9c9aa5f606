"""`SglangScheduler`: the rules of SGLang's scheduler.

Prompts come first: while requests wait and may begin, steps hold prompts alone, and those that decode stand still (`mixed_chunk` lets them
take part). One prompt at a time may be cut to what a step has room for, and it goes on first. A request begins if there is room for its
prompt, its answer, and a share of what the running ones have still to answer. The share is `ratio` when the engine is idle, and falls with
every step without prompts. Once a request had no room, none is tried again before one leaves.

When pages run short in a step without prompts, those with the fewest tokens of an answer are stopped and wait behind all others; the share
becomes what those that stay have answered, 20 tokens more for each, of what they may.

With drafts (EAGLE, NEXTN; one chain) a step without prompts verifies 1 + drafts tokens of each request, which has pages for twice as many
beyond those in the cache, and keeps them until it ends or is stopped. What must be free before a request may begin does not count these.

Read in the wheel sglang 0.5.23: srt/managers/scheduler.py, schedule_policy.py, schedule_batch.py, srt/mem_cache; of drafts
srt/mem_cache/allocation_sizing.py, srt/speculative/eagle_utils.py, batch_result_processor.py. The host's loop is the one
without overlap, in which the tokens of a step are known before the next one is decided.
"""

from __future__ import annotations

from collections import deque
from operator import itemgetter

from roofline.errors import InvalidValueError
from roofline.serving.rules import Rules
from roofline.serving.schedulers.base import Scheduler
from roofline.serving.schedulers.decoding import decoding_of
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.schedulers.radix import RadixCache
from roofline.serving.schedulers.sglang_requests import SglangRequest, order
from roofline.serving.steps.load import Load, StepSeconds

_RETRACT_STEPS = 20  # srt/environ.py, SGLANG_RETRACT_DECODE_STEPS
_PROMPT_WEIGHT = 1000  # srt/environ.py, SGLANG_SCHEDULER_RECV_SKIPPER_WEIGHT_DEFAULT


class SglangScheduler(Scheduler):
    """SGLang's scheduler; see `Scheduler` for what it does, and `VllmScheduler` for what it takes."""

    def __init__(self, rules: Rules, ledger: Ledger, accepted: tuple[float, ...] = (), seed: int = 0) -> None:
        super().__init__(rules, ledger)
        if rules.drafts and rules.mixed_chunk:
            raise InvalidValueError(
                "mixed_chunk is set and there are drafts, which SGLang does not verify in mixed steps; these are simulated without drafts."
            )
        self._ahead = 2 * (1 + rules.drafts) if rules.drafts else 1
        self._free = rules.kv_blocks * rules.page  # tokens of free pages
        self._tree = RadixCache(rules.page, ledger.block_tokens)
        self._decoding = decoding_of(rules, ledger, ledger.series(), accepted, seed, self._ahead)
        self._waiting: deque[SglangRequest] = deque()
        self._sent: list[SglangRequest] = []  # not received yet
        self._since = 0  # steps since requests were received, a step with prompts counting for many
        self._running: dict[int, SglangRequest] = {}  # those that decode, in the engine's order
        self._long: dict[int, SglangRequest] = {}  # of these, those that may answer more than what is reserved
        self._beyond = 0  # sum of what those that decode may answer and do not
        self._batch: list[tuple[SglangRequest, int]] = []  # prompts of this step, and how many tokens of each
        self._partial: SglangRequest | None = None  # the one whose prompt is cut
        self._decodes = False  # whether those that decode take part in this step
        self._full = False  # whether nobody is tried before one leaves
        self._lacking = "blocks"  # by whom the first that waits was held up last
        self._passes = 0
        self._ratio = rules.ratio
        self._ended_s = 0.0
        # what a pass over the waiting requests may still give away
        self._room = 0
        self._reserved = 0.0
        self._taken = 0
        self._tried: deque[tuple[int, int]] = deque()  # what requests may still answer and what they hold, not in `_states` yet
        self._states: list[tuple[int, int]] = []

    @property
    def steps(self) -> int:
        """Steps that have ended; one that computes prompts and decodes is one [-]."""
        return len({*self.ends, *self._decoding.step_ends_s})

    @property
    def waiting(self) -> int:  # type: ignore[override]
        """Requests that wait [-]."""
        return len(self._waiting) + len(self._sent)

    @property
    def running(self) -> int:  # type: ignore[override]
        """Requests that have begun and hold blocks [-]."""
        return len(self._running) + (len(self._batch) or int(self._partial is not None))

    @property
    def used_blocks(self) -> int:  # type: ignore[override]
        """Blocks that running requests hold [-]."""
        return self.rules.kv_blocks - (self._free + self._tree.evictable) // self.rules.page

    def add(self, request: int, held: int = 0, tokens: int | None = None) -> None:
        """Let a request join those that wait; see `Scheduler.add`."""
        rules = self.rules
        served = SglangRequest(rules, self.ledger, request, held, tokens)
        pages = 2 if self._exact else 1
        begins = self._paged(served.prompt) + served.goal + pages * rules.page + 1
        ends = self._paged(served.prompt + served.goal - 2 + self._ahead)
        if max(begins, ends) > rules.kv_blocks * rules.page:
            raise InvalidValueError(
                f"request {request} has {served.prompt} tokens and {served.goal} to answer; with the page that is kept free for it they never fit "
                f"into {rules.kv_blocks} blocks of {rules.page} tokens."
            )
        if rules.receive_interval > 1 and self.running:
            self._sent.append(served)
        else:
            self._waiting.append(served)

    @property
    def _exact(self) -> bool:
        """Whether answers are known to be as long as their limits, and none is found in a tree: then what each leaves free is simulated."""
        return self.rules.reserve == "whole" and not self.rules.prefix_caching

    def _paged(self, tokens: int) -> int:
        return -(-tokens // self.rules.page) * self.rules.page

    # a step

    def schedule(self, now_s: float) -> Load | None:
        """Decide what the step that begins now holds; None if there is nothing to do."""
        if now_s > self._ended_s and not self.running:
            self._ratio = self.rules.ratio
        if self._sent and (self._since >= self.rules.receive_interval or not self.running):
            self._waiting += self._sent
            self._sent.clear()
        if self._since >= self.rules.receive_interval:
            self._since = 0
        self._decodes = False
        if not self._prompts(now_s) and self._running:
            self._decode()
            if not self._running:  # only where a cut prompt holds the rest of the pages, and now goes on
                self._prompts(now_s)
        if self._waiting:
            self.held_up[self._lacking] += 1
        count, context = (self._decoding.number, self._decoding.context) if self._decodes else (0, 0)
        tokens = pairs = ended = 0
        for served, new in self._batch:
            tokens += new
            pairs += new * served.computed + new * (new + 1) // 2
            ended += served.computed + new == served.tokens
        return Load(count, context, len(self._batch), tokens, pairs, ended) if count or self._batch else None

    def complete(self, end_s: float) -> list[int]:
        """Give the tokens of the step that was scheduled, and return the requests that have ended here."""
        self._ended_s = end_s
        self._since += _PROMPT_WEIGHT if self._batch else 1
        ended: list[int] = []
        begun = {}
        batch, self._batch = self._batch, []
        done = self._advance(end_s) if self._decodes else []
        if batch:
            self.ends.append(end_s)
            self._full = self._full and bool(self._running) and not self._decodes and self._partial is None
        for served, new in batch:
            served.computed += new
            if served is not self._partial:
                if self._answer(served, end_s):
                    ended.append(self._end(served, end_s))
                else:
                    self._keep(served)
                    begun[served.request] = served
        ended += [self._end(served, end_s) for served in done]
        if batch and self._partial is not None:
            self._keep(self._partial)
        if begun and self._decodes:  # the engine puts answers behind prompts where both are in a step
            begun.update(self._running)
            self._running = begun
        else:
            self._running.update(begun)
        if ended:
            self._full = False
        return ended

    def run(self, begin_s: float, until_s: float, seconds: StepSeconds) -> float:
        """Run the next steps that need no decision and begin before a time; see `Scheduler.run`."""
        if self._to_decide():
            return begin_s
        clock = self._decoding.clock
        end_s, taken = self._decoding.run(begin_s, until_s, seconds, self._at_hand())
        self._gone(end_s, self._decoding.clock - clock, taken)
        return end_s

    def ahead(self) -> Load | None:
        """Return what the next step holds if it needs no decision; see `Scheduler.ahead`."""
        decoding = self._decoding
        return None if self._to_decide() or not decoding.quiet(self._at_hand()) else Load(decoding.number, decoding.context)

    def go(self, end_s: float) -> None:
        """Run the step that `ahead` returned; see `Scheduler.go`."""
        taken = self._decoding.needed()
        self._decoding.step_ends_s.append(end_s)
        self._decoding.step()
        self._gone(end_s, 1, taken)

    def _to_decide(self) -> bool:
        """Return whether there is more to decide than that those that decode go on."""
        if not self._running or self.rules.drafts or self._partial is not None or self._sent:
            return True
        return bool(self._waiting) and not self._full

    def _at_hand(self) -> int:
        """Return how many pages steps can take without giving up prefixes, of which the engine frees a page for each that decodes."""
        page = self.rules.page
        return self._free // page - (self._decoding.number if page > 1 and self._tree.evictable else 0)

    def _gone(self, end_s: float, steps: int, taken: int) -> None:
        """Take note of steps without decisions, and of the pages that they took."""
        if not steps:
            return
        self._free -= taken * self.rules.page
        for _ in range(steps):
            if self._ratio <= self.rules.least_ratio:
                break
            self._decay()
        if self._waiting and self._full:
            self.held_up[self._lacking] += steps
        self._ended_s = end_s
        received = self._since if self._since < self.rules.receive_interval else 0
        self._since = (received + steps - 1) % self.rules.receive_interval + 1

    # prompts

    def _prompts(self, now_s: float) -> bool:
        """Choose the prompts of a step, and return whether there are any; those that decode take part where steps are mixed."""
        rules, partial = self.rules, self._partial
        self._full = self._full and bool(self._running)
        if partial is None:
            if self._full or not self._waiting:
                return False
            if len(self._running) >= rules.sequences:
                self._full, self._lacking = True, "sequences"
                return False
        if self._waiting:
            self._passes += order(self._waiting, self.rules, self.ledger, self._tree, self._passes)
        mixed = len(self._running) if rules.mixed_chunk else 0
        self._room = rules.step_tokens - mixed
        self._reserved, self._taken = mixed + self._owed(), mixed
        self._states = []
        self._tried.clear()
        if partial is not None and self._room > 0:
            self._go_on(partial)
        self._choose(now_s)
        if not self._batch or not self._store():
            self._batch, self._partial = [], partial
            return False
        if mixed and self._running:
            self._evict(self._decoding.needed() * rules.page)
            if self._decoding.needed() * rules.page <= self._free:
                self._take_part()
        return True

    def _choose(self, now_s: float) -> None:
        """Let requests that wait begin, until one lacks something."""
        while self._waiting:
            memory = self._left_over() > 0 and self._free + self._tree.evictable > self._taken
            if memory and self._room <= 0:
                self._lacking = "tokens"
                return
            if len(self._batch) + len(self._running) >= self.rules.sequences:
                self._full, self._lacking = True, "sequences"
                return
            lacking = self._begin(self._waiting[0], now_s)
            if lacking:
                self._lacking = lacking
                if lacking == "blocks":
                    self._full = bool(self._batch or self._running)
                return
            self._waiting.popleft()

    def _left_over(self) -> float:
        """Return the tokens that are free or can be freed, and that nothing is reserved for."""
        return self._free + self._tree.evictable - self._reserved

    def _owed(self) -> float:
        """Return how many tokens are reserved for the answers that are under way."""
        decoding, most = self._decoding, self.rules.longest_answer
        owed = self._beyond + decoding.to_come
        for request, served in list(self._long.items()):
            beyond = served.limit - decoding.generated(served) - most
            if beyond > 0:
                owed -= beyond
            else:
                del self._long[request]
        return owed * (1.0 if self.rules.reserve == "whole" else self._ratio)

    def _reserve(self, new: int, stored: int, answer: int) -> None:
        """Reserve what a prompt of a step takes, with a page more, and its answer."""
        pages = self._paged(stored) + self.rules.page
        self._reserved += pages + answer
        self._taken += pages
        self._room -= self._paged(new)

    def _go_on(self, served: SglangRequest) -> None:
        """Let the cut prompt go on."""
        most = min(self._room, int(self._left_over()))
        most = most if most > 0 else self._room
        whole = served.tokens - served.computed
        new = min(whole, most)
        self._partial = served if whole > most else None
        self._batch.append((served, new))
        self._reserve(new, new, 0 if self._partial else min(served.limit, self.rules.longest_answer))

    def _begin(self, served: SglangRequest, now_s: float) -> str:
        """Let a request begin, and return what it lacks if it cannot."""
        rules, tree, page = self.rules, self._tree, self.rules.page
        whole = served.tokens - (served.held >= served.prompt)  # of which the cache needs all
        node = tree.match(served.shared, served.request, served.tokens - 1) if rules.prefix_caching else tree.root
        cached = max(node.end, min(served.held, whole))
        new, stored = whole - cached, whole - node.end
        tree.lock(node)
        answer = min(served.limit - served.generated, rules.longest_answer)
        lacking = ""
        if not (self._fits(served, stored) if self._exact else stored + answer + page < self._left_over()):
            lacking = "blocks"
        fits = new if self._exact else self._paged(new)
        cut = False
        if not lacking and rules.chunked and fits > self._room:
            new = self._room if self._exact else (cached + self._room // page * page) // page * page - cached
            cut, stored = True, cached + new - node.end
            if new <= 0 or self._partial is not None:
                lacking = "tokens"
        elif not rules.chunked and self._batch and fits >= self._room and not self._exact:
            lacking = lacking or "tokens"
        if lacking:
            tree.unlock(node)
            return lacking
        ledger, request = self.ledger, served.request
        if ledger.start_s[request] != ledger.start_s[request]:
            ledger.start_s[request], ledger.cached[request] = now_s, node.end
        served.node = node
        served.computed, served.stored, served.held = cached, node.end, 0
        if not new:  # all of it came from a pool that computes prompts
            self._take(self._paged(stored))
            self._reserved += page + answer
            self._running[request] = served
            self._enter(served)
            return ""
        self._partial = served if cut else self._partial
        self._reserve(new, stored, 0 if cut else min(served.limit, rules.longest_answer))
        self._batch.append((served, new))
        return ""

    def _fits(self, served: SglangRequest, stored: int) -> bool:
        """Return whether a request and all others could answer up to their limits, each giving its pages back when it ends."""
        pages = self._paged(stored) + self.rules.page
        if pages > min(self._free - self._taken, self._left_over()):
            return False
        self._tried.append((served.limit - served.generated, served.tokens))
        begun = [one.limit - one.generated for one, _ in self._batch]
        left = self._beyond + self._decoding.to_come + sum(begun) + max(begun, default=0)  # of these, one may be counted twice below
        number = len(self._running) + len(self._batch) + 1
        if self._free - self._taken - pages - left - 2 * self._tried[-1][0] > number:
            return True  # even if none gave anything back
        if not self._states:
            others = [(one.limit - done, one.prompt + done) for one in self._running.values() for done in [self._decoding.generated(one)]]
            others += [(one.limit - one.generated, one.tokens) for one, _ in self._batch[: len(self._batch) + 1 - len(self._tried)]]
            self._states = sorted([self._tried.popleft(), *others], key=itemgetter(0))
        while self._tried:
            mine = self._tried.popleft()  # the engine puts the longest one before the last
            place = next((i for i, (left, _) in enumerate(self._states) if mine[0] <= left), max(len(self._states) - 1, 0))
            self._states.insert(place, mine)
        free, others_left = self._free - self._taken - pages, len(self._states)
        for left, occupied in self._states:
            if free <= (left + 1) * others_left:
                return False
            free += occupied
            others_left -= 1
        return True

    def _store(self) -> bool:
        """Take the pages of the prompts of a step, and return whether they are there."""
        page = self.rules.page
        needed = sum(self._paged(served.computed + new) - served.stored for served, new in self._batch)
        self._evict(sum(new for _, new in self._batch) + (page * len(self._batch) if page > 1 else 0))
        if needed > self._free:
            return False
        self._free -= needed
        for served, new in self._batch:
            served.stored = self._paged(served.computed + new)
        return True

    # answers

    def _answer(self, served: SglangRequest, end_s: float) -> bool:
        """Give a request whose prompt is computed a token, and return whether it was its last; otherwise it decodes from now on."""
        ledger, request = self.ledger, served.request
        if ledger.first_token_s[request] != ledger.first_token_s[request]:
            ledger.first_token_s[request] = end_s
        ledger.segment(request, self.series, len(self.ends) - 1, 1)
        served.generated += 1
        if served.generated == served.goal:
            return True
        self._enter(served)
        return False

    def _enter(self, served: SglangRequest) -> None:
        decoding = self._decoding
        served.owned = -(-served.computed // self.rules.page)
        decoding.enter(served)
        served.first = len(decoding.step_ends_s)  # its first token is one of another series
        self._beyond += served.limit - served.goal
        if served.limit - served.generated > self.rules.longest_answer:
            self._long[served.request] = served

    def _advance(self, end_s: float) -> list[SglangRequest]:
        """Give those that decode a token each, and return those that have ended."""
        self._decoding.step_ends_s.append(end_s)
        ended = [self._running[served.request] for served in self._decoding.step()]
        for served in ended:
            self._forget(served)
        return ended

    def _forget(self, served: SglangRequest) -> None:
        """Undo what was noted of a request that decoded."""
        del self._running[served.request]
        self._beyond -= served.limit - served.goal
        self._long.pop(served.request, None)

    def _decode(self) -> None:
        """Let those that decode take part in a step, after stopping some of them if pages run short."""
        needed = self._decoding.needed() * self.rules.page
        self._evict(needed)
        if needed > self._free:
            self._retract()
        else:
            self._decay()
        self._take_part()

    def _decay(self) -> None:
        rules = self.rules
        self._ratio = max(self._ratio - (rules.ratio - rules.least_ratio) / rules.ratio_steps, rules.least_ratio)

    def _take_part(self) -> None:
        """Take the pages of a step of those that decode, for which the engine frees a page more for each."""
        decoding, page = self._decoding, self.rules.page
        wanted = decoding.number * page
        if self.rules.drafts:
            begun = [served for served in self._running.values() if served.first == len(decoding.step_ends_s)]  # with this step
            tokens = decoding.needed() * page + sum(served.owned * page - served.base for served in begun)
            wanted = tokens + wanted if tokens and page > 1 else tokens
        self._take(decoding.take() * page, wanted)
        self._decodes = True

    def _retract(self) -> None:
        """Stop those that decode, from the one with the fewest tokens of an answer on, until there are pages for the others."""
        decoding = self._decoding
        kept = sorted(self._running.values(), key=lambda served: (decoding.generated(served), -served.prompt), reverse=True)
        stopped = 0
        while len(kept) > (self._partial is None) and (not stopped or decoding.needed() * self.rules.page > self._free):
            served = kept.pop()
            stopped += 1
            decoding.remove(served)
            self._forget(served)
            self._release(served)
            self._evict(len(kept) * _RETRACT_STEPS)
            self._evict(decoding.needed() * self.rules.page)
            served.computed = 0
            self.ledger.preemptions[served.request] += 1
            self._waiting.append(served)
        answered = sum(decoding.generated(served) for served in kept)
        self._ratio = min((answered + _RETRACT_STEPS * len(kept)) / (sum(served.limit for served in kept) + 1), 1.0)
        self._full, self._lacking = False, "blocks"

    # pages

    def _take(self, tokens: int, wanted: int = 0) -> None:
        """Take pages of so many tokens, after freeing those of at least `wanted`."""
        self._evict(max(tokens, wanted))
        self._free -= tokens

    def _evict(self, tokens: int) -> None:
        """Free pages of so many tokens, as far as the tree can give them up."""
        if tokens > self._free and self._tree.evictable:
            self._free += self._tree.evict(tokens - self._free)

    def _keep(self, served: SglangRequest) -> None:
        """Let others find what is computed of a request."""
        if not self.rules.prefix_caching:
            return
        before = served.node
        node, found = self._tree.insert(served.shared, served.request, served.computed, served.prompt)
        self._free += found - before.end  # pages that the tree has already
        self._tree.lock(node)
        self._tree.unlock(before)
        served.node = node

    def _end(self, served: SglangRequest, end_s: float) -> int:
        """Let a request leave that has its last token."""
        self.ledger.finish_s[served.request] = end_s
        self._keep(served)
        self._release(served)
        return served.request

    def _release(self, served: SglangRequest) -> None:
        """Give back the pages of a request that are not in the tree, and what it keeps there."""
        self._free += max(self._paged(served.computed), served.owned * self.rules.page) - served.node.end
        served.owned = 0
        self._tree.unlock(served.node)
