"""vLLM V1's scheduling rules as read in its source (wheel 0.33.0), request by request and block by block: slow, literal, for tests.

Written from the rules alone, with none of the shortcuts of ``roofline.serving``: every block is an object in a queue of free blocks, every
token of a request has a content, and every step looks at every request.
"""

import random
from dataclasses import dataclass, field

NAMES = {}  # numbers of all contents seen


@dataclass(eq=False)
class Block:
    contents: int | None = None
    users: int = 0


@dataclass(eq=False)
class Request:
    number: int
    arrival: float
    prompt: list
    output: int
    page: int
    priority: float = 0
    answer: list = field(default_factory=list)
    computed: int = 0
    blocks: list = field(default_factory=list)
    preemptions: int = 0
    start: float | None = None
    cached: int | None = None
    decodes: bool = False
    finish: float | None = None
    times: list = field(default_factory=list)
    told: list = field(default_factory=list)

    def __post_init__(self):
        self.tokens = list(self.prompt)

    def contents(self):
        """Return what tells the contents of each full block: its tokens, after what tells those of the block before."""
        tokens, page = self.tokens, self.page
        for end in range(page * (len(self.told) + 1), len(tokens) + 1, page):
            block = (self.told[-1] if self.told else None, tuple(tokens[end - page : end]))
            self.told.append(NAMES.setdefault(block, len(NAMES)))
        return self.told


class Engine:
    def __init__(self, rules, accepted=(), seed=0):
        self.rules, self.accepted, self.lookahead = rules, accepted, len(accepted)
        self.random = random.Random(seed)
        self.free = [Block() for _ in range(rules.kv_blocks)]
        self.cache = []  # blocks with contents, in the order in which they got them
        self.waiting, self.running = [], []

    # blocks

    def hits(self, request):
        found = []
        if not self.rules.prefix_caching:
            return found
        for contents in request.contents()[: (len(request.tokens) - 1) // self.rules.page]:
            same = [block for block in self.cache if block.contents == contents]
            if not same:
                break
            found.append(same[0])
        return found

    def allocate(self, request, new, hits=(), admission=False):
        page = self.rules.page
        start = request.computed + len(hits) * page
        has = len(request.blocks) + len(hits)
        unused = sum(block.users == 0 for block in hits)
        spare = 0
        if admission and self.running:
            spare = int(self.rules.watermark * (self.rules.kv_blocks + 1))
        if admission and self.rules.reserve == "prompt":
            whole = max(-(-len(request.tokens) // page) - has, 0)
            if whole + unused + spare > len(self.free):
                return False
        slots = min(start + new + self.lookahead, self.rules.max_model_len or 10**9)
        wanted = max(-(-slots // page) - has, 0)
        if wanted + unused + spare > len(self.free):
            return False
        for block in hits:
            if block.users == 0:
                self.free.remove(block)
            block.users += 1
            request.blocks.append(block)
        for _ in range(wanted):
            block = self.free.pop(0)
            if block.contents is not None:
                self.cache.remove(block)
                block.contents = None
            block.users = 1
            request.blocks.append(block)
        self.fill(request, start + new)
        return True

    def fill(self, request, upto):
        if self.rules.prefix_caching:
            full = min(upto, len(request.tokens)) // self.rules.page
            for block, contents in zip(request.blocks[:full], request.contents(), strict=False):
                if block.contents is None:
                    block.contents = contents
                    self.cache.append(block)

    def release(self, request):
        empty, full = [], []
        for block in reversed(request.blocks):
            block.users -= 1
            if block.users == 0:
                (empty if block.contents is None else full).append(block)
        self.free = empty + self.free + full
        request.blocks = []

    # a step

    def schedule(self, now):
        rules = self.rules
        budget, granted, preempted = rules.step_tokens, {}, []
        limit = rules.long_prompt_tokens if len(self.running) + len(self.waiting) > 1 else 0
        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            new = len(request.tokens) - request.computed + (len(self.accepted) if request.decodes else 0)
            if 0 < limit < new:
                new = limit
            new = min(new, budget, (self.rules.max_model_len or 10**9) - request.computed - 1)
            done = False
            while not (done := self.allocate(request, new)):
                if rules.policy == "priority":
                    victim = max(self.running, key=lambda r: (r.priority, r.arrival, r.number))
                    place = self.running.index(victim)
                    self.running.remove(victim)
                    if place < index:
                        index -= 1
                    budget += granted.pop(victim, 0)
                else:
                    victim = self.running.pop()
                self.release(victim)
                victim.computed, victim.decodes = 0, False
                victim.preemptions += 1
                self.waiting.insert(0, victim)
                preempted.append(victim)
                if victim is request:
                    break
            if done:
                granted[request] = new
                budget -= new
                index += 1
            elif rules.policy != "priority":
                break
        if not preempted:
            self.admit(budget, limit, granted, now)
        return granted, preempted

    def head(self):
        if self.rules.policy == "priority":
            return min(self.waiting, key=lambda r: (r.priority, r.arrival, r.number))
        return self.waiting[0]

    def admit(self, budget, limit, granted, now):
        while self.waiting and budget > 0 and len(self.running) < self.rules.sequences:
            request = self.head()
            hits = self.hits(request)
            new = len(request.tokens) - len(hits) * self.rules.page
            if 0 < limit < new:
                new = limit
            if new > budget and not self.rules.chunked:
                break
            new = min(new, budget)
            if not self.allocate(request, new, hits, admission=True):
                break
            self.waiting.remove(request)
            self.running.append(request)
            request.computed = len(hits) * self.rules.page
            if request.start is None:
                request.start, request.cached = now, request.computed
            granted[request] = new
            budget -= new

    def complete(self, granted, end):
        ended = []
        for request, new in granted.items():
            known = len(request.tokens)
            if request.computed + new < known:
                request.computed += new
                continue
            tokens = 1
            if request.decodes and new > 1:
                draw = self.random.random()
                tokens += sum(1 - share < draw for share in self.accepted[: new - 1])
            request.computed = known - 1 + tokens
            for _ in range(min(tokens, request.output - len(request.answer))):
                request.answer.append(("answer", request.number, len(request.answer)))
                request.tokens.append(request.answer[-1])
                request.times.append(end)
            request.decodes = True
            if self.accepted:
                self.fill(request, request.computed)
            if len(request.answer) == request.output:
                request.finish = end
                self.running.remove(request)
                self.release(request)
                ended.append(request)
        return ended


def load_of(granted):
    """Return the step as ``roofline.serving.Load`` has it: answers that go on, and parts of prompts."""
    decodes = [request for request in granted if request.decodes]
    parts = [(request, new) for request, new in granted.items() if request not in decodes]
    pairs = sum(sum(range(request.computed + 1, request.computed + new + 1)) for request, new in parts)
    ended = sum(request.computed + new == len(request.tokens) for request, new in parts)
    context = sum(request.computed for request in decodes)
    return len(decodes), context, len(parts), sum(new for _, new in parts), pairs, ended


def simulate(rules, requests, seconds, accepted=(), seed=0):
    """Return each step (when it began and ended, tokens of each request, those that were stopped) of requests in order of arrival."""
    engine, coming, steps, now = Engine(rules, accepted, seed), list(requests), [], 0.0
    while coming or engine.waiting or engine.running:
        if not (engine.waiting or engine.running):
            now = max(now, coming[0].arrival)
        while coming and coming[0].arrival <= now:
            engine.waiting.append(coming.pop(0))
        granted, preempted = engine.schedule(now)
        assert granted, "nothing runs although something waits"
        load = load_of(granted)
        end = now + seconds(load)
        steps.append((now, end, load, {request.number: new for request, new in granted.items()}, [r.number for r in preempted]))
        engine.complete(granted, end)
        now = end
    assert len(engine.free) == rules.kv_blocks
    return steps
