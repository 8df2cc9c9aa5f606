"""`TrtllmScheduler`: the rules of TensorRT-LLM's schedulers.

At most `sequences` requests are active, in the order in which they came; the others wait in a queue. In each step a first scheduler decides
whose pages fit, a second one whose tokens do.

Pages: with `reserve` "whole" (GUARANTEED_NO_EVICT) a prompt is taken up if there are pages for it and the longest answer beside what is left to
those that run; the first that does not fit holds up all behind it but those that have begun (the engine would hang where one of these came
later). With "batch" (STATIC_BATCH) prompts are taken up only while none answers.
With "prompt" or "chunk" (MAX_UTILIZATION) pages are taken as they are needed; where they run short, the last of those that have begun is
paused, gives its pages back, and computes its prompt and its answer so far anew when its turn comes. A prompt takes the pages of all of its
tokens at once. With prefix caching a prompt waits whose next page another one is just computing.

Tokens: those that answer take one each, prompts what is left of `step_tokens`, from the first on until one does not fit as a whole. Where
prompts are cut, each that is not computed as a whole gets whole pages: the first all that is left, or all of them the same (`chunking`).
Prompts can wait for others beside answers (`batch_wait_steps`, `batch_wait_ratio`).

Drafts (of modules in the same engine, as MTP and EAGLE): each that answers takes 1 + drafts tokens of a step, and pages for these and for
drafts − 1 more, which it has from its beginning; pages of drafts that were not accepted are given back. Where the longest answer is reserved,
the engine does not reserve what the last step takes beyond it, and would fail without it; here that is reserved too.

Read in github.com/NVIDIA/TensorRT-LLM: tensorrt_llm/_torch/pyexecutor/scheduler/scheduler.py and py_executor.py,
resource_manager.py; tensorrt_llm/_torch/speculative/utils.py;
cpp/tensorrt_llm/batch_manager/capacityScheduler.cpp, microBatchScheduler.cpp and kvCacheManager.cpp (commits 002f3cc, 02a10fe, 0a949d3).
The host's loop is the one without overlap. Pages of a cache are lost in the order in which they were used last, whole pages alone are found.
"""

from bisect import insort
from collections import deque
from collections.abc import Hashable

from roofline.errors import InvalidValueError
from roofline.serving.rules import Rules
from roofline.serving.schedulers.base import Scheduler
from roofline.serving.schedulers.decoding import decoding_of
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.schedulers.prefix import Blocks, PrefixCache
from roofline.serving.schedulers.trtllm_requests import TrtllmRequest, place, share
from roofline.serving.steps.load import Load, StepSeconds


class TrtllmScheduler(Scheduler):
    """TensorRT-LLM's schedulers; see `Scheduler` for what they do, and `VllmScheduler` for what they take."""

    def __init__(self, rules: Rules, ledger: Ledger, accepted: tuple[float, ...] = (), seed: int = 0) -> None:
        super().__init__(rules, ledger)
        self._rows = 1 + rules.drafts  # of each that answers
        if rules.step_tokens < rules.sequences * self._rows or (rules.chunked and rules.step_tokens < rules.page):
            each = f"{self._rows} tokens" if rules.drafts else "a token"
            raise InvalidValueError(
                f"a step of {rules.step_tokens} tokens must hold {each} of each of {rules.sequences} sequences, and a page where prompts are cut."
            )
        self._extra = max(0, rules.drafts - 1)  # places that each has beyond its tokens, into which the drafts' modules write
        self._ahead = self._extra + self._rows
        self._blocks: Blocks = PrefixCache(rules.kv_blocks) if rules.prefix_caching else Blocks(rules.kv_blocks)
        self._decoding = decoding_of(rules, ledger, (self.series, self.ends), accepted, seed, self._ahead)
        self._whole = rules.reserve in ("whole", "batch")
        self._promised = 0  # blocks that active requests may still take, where they are reserved
        self._queue: deque[TrtllmRequest] = deque()
        self._prompts: list[TrtllmRequest] = []  # active ones whose prompts are not computed, in their order
        self._answers: dict[int, TrtllmRequest] = {}  # active ones that answer
        self._begun = 0  # prompts that hold pages
        self._parts: list[tuple[TrtllmRequest, int]] = []  # prompts of this step, and how many tokens of each
        self._arrived: list[TrtllmRequest] = []  # those of this step whose caches came from elsewhere
        self._places = 0
        self._last = -1  # the last place of those that have begun
        self._undecided = False  # whether the next step is to be decided anew
        self._waited = 0  # steps for which prompts have waited for others
        self._lacking = ""  # what holds up all that wait, until a request ends or another one comes

    @property
    def waiting(self) -> int:  # type: ignore[override]
        """Requests that wait [-]."""
        return len(self._queue) + len(self._prompts) - self._begun

    @property
    def running(self) -> int:  # type: ignore[override]
        """Requests that have begun and hold blocks [-]."""
        return len(self._answers) + self._begun

    @property
    def used_blocks(self) -> int:  # type: ignore[override]
        """Blocks that running requests hold [-]."""
        return self.rules.kv_blocks - self._blocks.free

    def add(self, request: int, held: int = 0, tokens: int | None = None) -> None:
        """Let a request join those that wait; see `Scheduler.add`."""
        rules = self.rules
        served = TrtllmRequest(rules, self.ledger, request, held, tokens)
        most = self._reserved(served) if self._whole else self._pages(served.prompt + served.goal - 2 + self._ahead)
        if most > rules.kv_blocks:
            raise InvalidValueError(
                f"request {request} has {served.prompt} tokens and {served.limit} to answer; they never fit into {rules.kv_blocks} blocks of "
                f"{rules.page} tokens."
            )
        if not rules.chunked and served.prompt > rules.step_tokens and held < served.prompt:
            raise InvalidValueError(
                f"request {request} has {served.prompt} tokens; without chunks they never fit into a step of {rules.step_tokens} tokens."
            )
        served.place = self._places
        self._places += 1
        self._queue.append(served)
        self._lacking = ""

    def _pages(self, tokens: int) -> int:
        return -(-tokens // self.rules.page)

    def _reserved(self, served: TrtllmRequest) -> int:
        """Return how many pages a request may take until its longest answer has ended."""
        return self._pages(served.prompt + served.limit + max(0, self._ahead - 2))

    # a step

    def schedule(self, now_s: float) -> Load | None:
        """Decide what the step that begins now holds; None if there is nothing to do."""
        self.choose()
        return self.begin(now_s)

    @property
    def prompts(self) -> int:
        """Prompts of the step that was chosen [-]."""
        return len(self._parts)

    @property
    def answers(self) -> int:
        """Requests that answer [-]."""
        return len(self._answers)

    def choose(self) -> None:
        """Choose the prompts of the step that begins now."""
        while self._queue and len(self._prompts) + len(self._answers) < self.rules.sequences:
            self._prompts.append(self._queue.popleft())
        self._lacking, self._undecided = "sequences" if self._queue else "", False
        fitting = self._fit_whole() if self._whole else self._fit_needed()
        self._arrived = arrived = [served for served in fitting if served.held >= served.prompt]
        room = self.rules.step_tokens - (self._decoding.number + len(arrived)) * self._rows
        to_compute = [served for served in fitting if served not in arrived] if arrived else fitting
        self._parts = self._share(to_compute, room)
        self._undecided = self._undecided or bool(self._parts or arrived)
        if self._parts and self._answers and not self._enough(self._parts):
            self.wait()

    def wait(self) -> None:
        """Let the prompts that were chosen wait for a later step."""
        self._parts, self._lacking = [], "tokens"

    def begin(self, now_s: float) -> Load | None:
        """Begin the step that was chosen; None if there is nothing to do."""
        parts, arrived = self._parts, self._arrived
        self._begin([*arrived, *(served for served, _ in parts if not served.begun)], now_s)
        for served in arrived:
            self._prompts.remove(served)
            self._begun -= 1
            self._answers[served.request] = served
            self._decoding.enter(served)
            served.first = len(self.ends)  # its first token came from elsewhere
        self._arrived = []
        self._grow(self._decoding.take())
        if self.waiting:
            self.held_up[self._lacking or "tokens"] += 1
        self._lacking = "" if self._undecided else self._lacking
        count, context = self._decoding.number, self._decoding.context
        tokens = pairs = ended = 0
        for served, new in parts:
            tokens += new
            pairs += new * served.computed + new * (new + 1) // 2
            ended += served.computed + new == served.tokens
        return Load(count, context, len(parts), tokens, pairs, ended) if count or parts else None

    def complete(self, end_s: float) -> list[int]:
        """Give the tokens of the step that was scheduled, and return the requests that have ended here."""
        self.ends.append(end_s)
        ended = [self._answers.pop(served.request) for served in self._decoding.step()]
        given = self._decoding.give(self._extra)  # what was taken for drafts that were not accepted
        self._blocks.give(given)
        self._promised += given if self._whole else 0
        for served, new in self._parts:
            served.computed += new
            if served.computed == served.tokens:
                self._prompts.remove(served)
                self._begun -= 1
                self._keep(served, served.tokens - 1)
                if self._answer(served, end_s):
                    ended.append(served)
        self._parts = []
        for served in ended:
            self.ledger.finish_s[served.request] = end_s
            self._release(served)
        if ended:
            self._lacking = ""
        return [served.request for served in ended]

    def run(self, begin_s: float, until_s: float, seconds: StepSeconds) -> float:
        """Run the next steps that need no decision and begin before a time; see `Scheduler.run`."""
        if self._to_decide():
            return begin_s
        clock = self._decoding.clock
        end_s, taken = self._decoding.run(begin_s, until_s, seconds, self._blocks.free)
        self._gone(self._decoding.clock - clock, taken)
        return end_s

    def ahead(self) -> Load | None:
        """Return what the next step holds if it needs no decision; see `Scheduler.ahead`."""
        decoding = self._decoding
        return None if self._to_decide() or not decoding.quiet(self._blocks.free) else Load(decoding.number, decoding.context)

    def go(self, end_s: float) -> None:
        """Run the step that `ahead` returned; see `Scheduler.go`."""
        taken = self._decoding.needed()
        self.ends.append(end_s)
        self._decoding.step()
        self._gone(1, taken)

    def _to_decide(self) -> bool:
        """Return whether there is more to decide than that those that answer go on."""
        return not self._answers or self._begun > 0 or self.rules.drafts > 0 or (self.waiting > 0 and not self._lacking)

    def _gone(self, steps: int, taken: int) -> None:
        """Take note of steps without decisions, and of the pages that they took."""
        self._grow(taken)
        if self.waiting and self._lacking:
            self.held_up[self._lacking] += steps

    # pages

    def _grow(self, pages: int) -> None:
        """Let those that answer have so many more pages, of those that are reserved for them."""
        self._blocks.take(pages)
        self._promised -= pages if self._whole else 0

    def _fit_whole(self) -> list[TrtllmRequest]:
        """Return the prompts for which there are pages up to their longest answers."""
        if self.rules.reserve == "batch" and self._answers:
            self._lacking = self._lacking or "sequences"
            return []
        left = self._blocks.free - self._promised
        fitting = [served for served in self._prompts if served.begun]
        computing = self._being_computed()
        for served in self._prompts:
            if not served.begun and not self._waits(served, computing):
                left -= self._reserved(served) - len(served.found) + self._idle(served)
                if left < 0:
                    self._lacking = "blocks"
                    break
                fitting.append(served)
        return fitting

    def _fit_needed(self) -> list[TrtllmRequest]:
        """Return the prompts for which there are pages beside those that this step takes, after pausing others where these run short."""
        decoding, planned = self._decoding, 0
        fitting: list[TrtllmRequest] = []
        computing = self._being_computed()
        new = next((served.place for served in self._prompts if not served.begun), self._last + 1)
        if new > self._last and decoding.needed() <= self._blocks.free:  # all that have begun come first, and there are pages for them
            planned = decoding.needed()
            for served in self._prompts:
                if not served.begun and self._waits(served, computing):
                    continue
                planned += self._needed(served)
                if planned > self._blocks.free:
                    self._lacking = "blocks"
                    break
                fitting.append(served)
            return fitting
        self._undecided = bool(self._prompts)  # one of these may come before some that have begun, and let them be paused
        order = sorted([*self._prompts, *self._answers.values()], key=place)
        index = 0
        while index < len(order):
            served = order[index]
            if not served.begun and self._waits(served, computing):  # also one for which another was just paused, as in the engine
                index += 1
                continue
            needed = self._needed(served)
            if planned + needed <= self._blocks.free:
                planned += needed
                index += 1
                if served.request not in self._answers:
                    fitting.append(served)
                continue
            last = next((later for later in reversed(order[index:]) if later.begun), None)
            self._lacking = "blocks"
            if last is None:
                break
            del order[order.index(last) :]
            self._pause(last)
            self._undecided = True
        return fitting

    def _needed(self, served: TrtllmRequest) -> int:
        """Return how many pages a request takes in this step."""
        if served.request in self._answers:
            return self._decoding.needs(served)
        if served.begun:
            return 0
        stored = served.tokens + self._extra if served.held < served.prompt else served.prompt + self._ahead
        return self._pages(stored) - len(served.found) + self._idle(served)

    def _being_computed(self) -> set[Hashable]:
        """Return which pages that others may have too are computed by prompts that have begun."""
        if not isinstance(self._blocks, PrefixCache):
            return set()
        return {key for served in self._prompts if served.begun and (key := self._missing(served)) is not None}

    def _waits(self, served: TrtllmRequest, computing: set[Hashable]) -> bool:
        """Return whether a prompt that has not begun waits for a page that another one computes; otherwise others wait for its next one."""
        if not isinstance(self._blocks, PrefixCache):
            return False
        key = self._missing(served)
        if key in computing:
            return True
        if key is not None:
            computing.add(key)
        return False

    def _missing(self, served: TrtllmRequest) -> Hashable:
        """Return what tells the first page that others may have too and the cache has not; None if there is no such page."""
        found = self._find(served)
        return served.shared[found] if found < len(served.shared) else None

    def _find(self, served: TrtllmRequest) -> int:
        """Return how many of a request's first pages the cache has, and note those that it need not compute; not all of its tokens."""
        assert isinstance(self._blocks, PrefixCache)
        found = self._blocks.find(served.shared, len(served.shared))
        if not served.begun:
            most = (served.tokens - 1) // self.rules.page
            served.found, served.again = found[:most], 0
            if served.run is not None and len(found) == len(served.shared):
                served.again = min(served.run.pages, most - len(served.found))
        return len(found)

    def _idle(self, served: TrtllmRequest) -> int:
        """Return how many of the pages that the cache has of a request are free as long as it does not begin."""
        return sum(not page.users for page in served.found)

    def _begin(self, begun: list[TrtllmRequest], now_s: float) -> None:
        """Give requests the pages of all of their tokens: first those that the cache has of them, which the others must not take."""
        page, blocks, ledger = self.rules.page, self._blocks, self.ledger
        if isinstance(blocks, PrefixCache):
            for served in begun:
                blocks.hold(served.found)
                if served.again and served.run is not None:
                    blocks.resume(served.run, served.again)
        for served in begun:
            stored = served.tokens if served.held < served.prompt else served.prompt
            served.computed, served.owned = min(self._cached(served), stored), self._pages(stored + self._extra)
            hit = len(served.found) + served.again
            blocks.take(served.owned - hit)
            if self._whole:
                self._promised += self._reserved(served) - served.owned
            if ledger.start_s[served.request] != ledger.start_s[served.request]:
                ledger.start_s[served.request], ledger.cached[served.request] = now_s, hit * page
            served.pages, served.found, served.again, served.run = served.found, [], 0, None
            served.held, served.begun = 0, True
            self._begun += 1
            self._last = max(self._last, served.place)

    def _cached(self, served: TrtllmRequest) -> int:
        """Return how many tokens of a request that has not begun need not be computed."""
        return max((len(served.found) + served.again) * self.rules.page, min(served.held, served.tokens - 1))

    def _keep(self, served: TrtllmRequest, upto: int) -> None:
        """Let others find the full pages of a request's first so many tokens."""
        if isinstance(self._blocks, PrefixCache):
            for key in served.shared[len(served.pages) : upto // self.rules.page]:
                served.pages.append(self._blocks.fill(key))

    def _release(self, served: TrtllmRequest) -> None:
        """Give back the pages of a request."""
        page, blocks = self.rules.page, self._blocks
        owned, full = served.owned, served.computed // page
        if self._whole:
            self._promised -= self._reserved(served) - owned
        if isinstance(blocks, PrefixCache):
            self._keep(served, served.computed)
            blocks.give(owned - full)
            served.run = blocks.leave(served.pages, full - len(served.pages))
            served.pages = []
        else:
            blocks.give(owned)

    def _pause(self, served: TrtllmRequest) -> None:
        """Let a request compute its prompt and its answer so far anew, at its place among the active ones."""
        if served.request in self._answers:
            del self._answers[served.request]
            self._decoding.remove(served)
            insort(self._prompts, served, key=place)
        else:
            self._begun -= 1
        self._release(served)
        served.begun, served.computed = False, 0
        self.ledger.preemptions[served.request] += 1
        if not self.rules.chunked and served.tokens > self.rules.step_tokens:
            raise InvalidValueError(
                f"request {served.request}, paused after {served.generated} tokens of its answer, has {served.tokens} to compute anew; without "
                f"chunks they do not fit into a step of {self.rules.step_tokens} tokens."
            )

    # tokens

    def _share(self, fitting: list[TrtllmRequest], room: int) -> list[tuple[TrtllmRequest, int]]:
        """Return the prompts of a step, and how many tokens of each."""
        left = [served.tokens - (served.computed if served.begun else self._cached(served)) for served in fitting]
        parts = share(left, room, self.rules)
        if parts != left and self._lacking != "blocks":
            self._lacking = "tokens"
        return [(served, new) for served, new in zip(fitting, parts, strict=True) if new]

    def _enough(self, parts: list[tuple[TrtllmRequest, int]]) -> bool:
        """Return whether the prompts of a step wait for others no longer."""
        steps, ratio = self.rules.batch_wait_steps, self.rules.batch_wait_ratio
        tokens = self._decoding.number * self._rows + sum(new for _, new in parts)
        if self._waited < steps and tokens < ratio * self.rules.step_tokens:
            self._waited += 1
            return False
        self._waited = 0
        return True

    # answers

    def _answer(self, served: TrtllmRequest, end_s: float) -> bool:
        """Give a request whose prompt is computed a token, and return whether it was its last; otherwise it answers from now on."""
        ledger, request = self.ledger, served.request
        if ledger.first_token_s[request] != ledger.first_token_s[request]:
            ledger.first_token_s[request] = end_s
        served.generated += 1
        if served.generated == served.goal:
            ledger.segment(request, self.series, len(self.ends) - 1, 1)
            return True
        self._answers[request] = served
        self._decoding.enter(served)
        return False
