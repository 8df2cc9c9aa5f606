"""A slow literal TensorRT-LLM: its two schedulers request by request, page by page, as its source has them.

Read in github.com/NVIDIA/TensorRT-LLM, tensorrt_llm/_torch/pyexecutor/scheduler/scheduler.py (commit 002f3cc): GuaranteedNoEvictPolicy,
MaxUtilizationPolicy, PyMicroBatchScheduler; py_executor.py, _waiting_requests. Of the cache it knows which tokens each page holds.

Drafts: resource_manager.py, KVCacheManager.prepare_resources (a prompt gets the pages of `get_num_extra_kv_tokens` more, speculative/utils.py:
one less than drafts; an answer those of 1 + drafts tokens more in each step) and update_resources (those that were not accepted are given
back).
"""

from dataclasses import dataclass, field
from itertools import count


@dataclass(eq=False)
class Request:
    number: int
    arrival: float
    prompt: list
    most: int
    state: str = "context"
    computed: int = 0
    answer: list = field(default_factory=list)
    pages: list = field(default_factory=list)
    start: float | None = None
    first: float | None = None
    finish: float | None = None
    cached: int = 0
    paused: int = 0

    @property
    def tokens(self):
        return self.prompt + self.answer


@dataclass(eq=False)
class Page:
    """A page: the tokens up to its end, once they are computed, and how many requests use it."""

    tokens: tuple | None = None
    users: int = 0


class Cache:
    """Pages that are blank, those that hold something and nobody uses, and all that hold something."""

    def __init__(self, pages, size, reuse):
        self.size, self.reuse = size, reuse
        self.blank = [Page() for _ in range(pages)]
        self.unused = []  # that hold something, those unused for longest first
        self.held = {}

    @property
    def free(self):
        return len(self.blank) + len(self.unused)

    def find(self, tokens):
        found = []
        while self.reuse and (len(found) + 1) * self.size < len(tokens):
            wanted = tuple(tokens[: (len(found) + 1) * self.size])
            if wanted not in self.held:
                break
            found.append(self.held[wanted][0])
        return found

    def hold(self, pages):
        for page in pages:
            if not page.users:
                self.unused.remove(page)
            page.users += 1

    def take(self, number):
        taken = []
        for _ in range(number):
            page = self.blank.pop() if self.blank else self.unused.pop(0)
            if page.tokens is not None:
                self.held[page.tokens].remove(page)
                self.held = {tokens: pages for tokens, pages in self.held.items() if pages}
            page.tokens, page.users = None, 1
            taken.append(page)
        return taken

    def store(self, request, upto):
        for index in range(upto // self.size):
            page = request.pages[index]
            if self.reuse and page.tokens is None:
                page.tokens = tuple(request.tokens[: (index + 1) * self.size])
                self.held.setdefault(page.tokens, []).append(page)

    def give(self, request, kept):
        """Give back the pages of drafts that were not accepted."""
        while len(request.pages) > kept:
            page = request.pages.pop()
            page.users = 0
            self.blank.append(page)

    def release(self, request):
        self.store(request, request.computed)
        for page in reversed(request.pages):
            page.users -= 1
            if not page.users:
                (self.blank if page.tokens is None else self.unused).append(page)
        request.pages = []


def up(tokens, page):
    return -(-tokens // page)


class Engine:
    def __init__(self, rules, shared, accept):
        self.rules, self.shared, self.accept = rules, shared, accept
        self.drafts = rules.drafts
        self.extra = max(0, rules.drafts - 1)
        self.cache = Cache(rules.kv_blocks, rules.page, rules.prefix_caching)
        self.active, self.queue, self.waited = [], [], 0

    def next_page(self, request):
        """The first full page of a prompt that is not in the cache, if others may compute it too."""
        if not self.rules.prefix_caching:
            return None
        for index in range(self.shared[request.number] // self.rules.page):
            wanted = tuple(request.prompt[: (index + 1) * self.rules.page])
            if wanted not in self.cache.held:
                return wanted
        return None

    def better_later(self, request, computing):
        if request.state != "context" or request.pages:
            return False
        wanted = self.next_page(request)
        if wanted is not None and wanted in computing:
            return True
        if wanted is not None:
            computing.add(wanted)
        return False

    def computing(self):
        pages = {self.next_page(request) for request in self.active if request.state == "context" and request.pages}
        return pages - {None}

    def rest(self, request):
        whole = max(request.most, request.most - 2 + self.extra + 1 + self.drafts)  # of the last step too, where the engine would fail
        whole = up(len(request.prompt) + whole, self.rules.page)
        if request.pages:
            return whole - len(request.pages)
        return whole - sum(1 for page in self.cache.find(request.tokens) if page.users)

    def no_evict(self):
        fitting, computing = [], self.computing()
        left = self.cache.free
        for request in self.active:
            if request.state == "answer":
                fitting.append(request)
                left -= self.rest(request)
        if self.rules.reserve == "batch" and fitting:
            return fitting
        begun = [request for request in self.active if request.state == "context" and request.pages]
        new = [request for request in self.active if request.state == "context" and not request.pages]
        for request in (
            begun + new
        ):  # the source has them in one order, and hangs where one that has begun comes behind one that does not fit
            if self.better_later(request, computing):
                continue
            if self.rest(request) > left:
                break
            left -= self.rest(request)
            fitting.append(request)
        return fitting

    def needed(self, request):
        if request.state == "answer":
            return up(request.computed + self.extra + 1 + self.drafts, self.rules.page) - len(request.pages)
        if request.pages:
            return 0
        found = self.cache.find(request.tokens)
        return up(len(request.tokens) + self.extra, self.rules.page) - sum(1 for page in found if page.users)

    def utilize(self):
        fitting, computing, planned = [], self.computing(), 0
        order = list(self.active)
        index = 0
        while index < len(order):
            request = order[index]
            if self.better_later(request, computing):
                index += 1
            elif planned + self.needed(request) <= self.cache.free:
                planned += self.needed(request)
                fitting.append(request)
                index += 1
            else:
                begun = [place for place in range(index, len(order)) if order[place].pages]
                if not begun:
                    break
                last = order[begun[-1]]
                self.cache.release(last)
                last.state, last.computed = "context", 0
                last.paused += 1
                order = order[: begun[-1]]
        return fitting

    def batch(self, fitting):
        rules = self.rules
        answers = [request for request in fitting if request.state == "answer"]
        room = rules.step_tokens - len(answers) * (1 + self.drafts)
        prompts = {}
        found = {request: len(self.cache.find(request.tokens)) * rules.page for request in fitting}
        left = {
            request: len(request.tokens) - (request.computed if request.pages else found[request])
            for request in fitting
            if request.state == "context"
        }
        if not rules.chunked:
            for request, tokens in left.items():
                if tokens > room:
                    break
                prompts[request] = tokens
                room -= tokens
        elif sum(left.values()) <= room and all(tokens <= rules.step_tokens for tokens in left.values()):
            prompts = dict(left)
        elif rules.chunking == "fcfs":
            for request, tokens in left.items():
                prompts[request] = (
                    tokens if tokens <= min(room, rules.step_tokens) else min(room, rules.step_tokens) // rules.page * rules.page
                )
                room -= prompts[request]
        else:
            prompts = dict.fromkeys(left, 0)
            grown = 1
            while room > 0 and grown:
                grown = 0
                for request, tokens in left.items():
                    more = min(prompts[request] + rules.page, tokens) - prompts[request]
                    if more <= room and prompts[request] + more <= rules.step_tokens:
                        prompts[request] += more
                        room -= more
                        grown += more
        prompts = {request: tokens for request, tokens in prompts.items() if tokens}
        if prompts and answers:
            stop = self.waited >= rules.batch_wait_steps
            stop = stop or len(answers) * (1 + self.drafts) + sum(prompts.values()) >= rules.batch_wait_ratio * rules.step_tokens
            self.waited = 0 if stop else self.waited + 1
            prompts = prompts if stop else {}
        return answers, prompts

    def step(self, now):
        while self.queue and len(self.active) < self.rules.sequences:
            self.active.append(self.queue.pop(0))
        fitting = self.utilize() if self.rules.reserve in ("prompt", "chunk") else self.no_evict()
        answers, prompts = self.batch(fitting)
        new = [request for request in prompts if not request.pages]
        for request in new:
            request.pages = self.cache.find(request.tokens)
            self.cache.hold(request.pages)
        for request in new:
            request.computed = len(request.pages) * self.rules.page
            if request.start is None:
                request.start, request.cached = now, request.computed
            request.pages = request.pages + self.cache.take(up(len(request.tokens) + self.extra, self.rules.page) - len(request.pages))
        for request in answers:
            request.pages = request.pages + self.cache.take(self.needed(request))
        pairs = sum(tokens * request.computed + tokens * (tokens + 1) // 2 for request, tokens in prompts.items())
        ended = sum(request.computed + tokens == len(request.tokens) for request, tokens in prompts.items())
        return answers, prompts, (len(answers), sum(r.computed for r in answers), len(prompts), sum(prompts.values()), pairs, ended)

    def end(self, answers, prompts, end):
        done = []
        for request, tokens in prompts.items():
            request.computed += tokens
            if request.computed == len(request.tokens):
                self.cache.store(request, len(request.tokens) - 1)
                request.state = "answer"
                request.first = end if request.first is None else request.first
                request.answer.append((request.number, len(request.answer)))
                done += [request] if len(request.answer) == request.most else []
        last = []
        for request in answers:
            tokens = 1 + self.accept(request)
            for _ in range(min(tokens, request.most - len(request.answer))):
                request.answer.append((request.number, len(request.answer)))
            request.computed += min(tokens, len(request.tokens) - request.computed)
            kept = up(request.computed + self.extra, self.rules.page)
            if len(request.answer) < request.most:
                self.cache.give(request, kept)
            last += [request] if len(request.answer) == request.most else []
        for request in last + done:
            request.finish = end
            self.cache.release(request)
            self.active.remove(request)


def simulate(rules, requests, shared, seconds, accept=lambda request: 0):
    """Serve requests, and return begin, end and load of each step; `accept` says how many drafts of a request are accepted."""
    engine, steps, now = Engine(rules, shared, accept), [], 0.0
    coming = sorted(requests, key=lambda request: (request.arrival, request.number))
    for _ in count():
        while coming and coming[0].arrival <= now:
            engine.queue.append(coming.pop(0))
        answers, prompts, load = engine.step(now)
        if answers or prompts:
            end = now + seconds(load)
            engine.end(answers, prompts, end)
            steps.append((now, end, load))
            now = end
        elif coming:
            now = coming[0].arrival
        else:
            assert not engine.active
            return steps
    return steps
