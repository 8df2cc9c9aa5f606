"""vLLM's batch queue and scheduler of a pipeline, request by request and stage by stage: slow, literal, for tests.

Written from the rules as read in the wheel 0.33.0 (``EngineCore.step_with_batch_queue``, ``Scheduler.schedule`` and ``update_from_output``,
``AsyncScheduler``, ``VllmConfig.max_concurrent_batches``), with none of the lanes of ``roofline.serving``: every request has a number of tokens
under way and the number of the decision from which on it may decode.
"""

from dataclasses import dataclass, field

from reference_vllm import Engine, Request


@dataclass(eq=False)
class Under:
    """What the engine knows of a request beside its tokens."""

    placeholders: int = 0
    eligible: int = 0
    flying: int = 0  # tokens of steps under way
    stale: int = 0  # of these, tokens of steps from before it was stopped


@dataclass(eq=False)
class Batch:
    granted: dict = field(default_factory=dict)
    answers: list = field(default_factory=list)  # requests that get a token
    end: float = 0.0


class PipelineEngine(Engine):
    def __init__(self, rules, stages):
        super().__init__(rules)
        self.ahead = rules.async_scheduling
        self.stages, self.call, self.under = stages, 0, {}

    def add(self, request):
        self.under[request] = Under()
        self.waiting.append(request)

    def wanted(self, request):
        under = self.under[request]
        if (
            not self.ahead
        ):  # Scheduler, not AsyncScheduler: no placeholders, and a request is under way as long as its tokens are all computed
            return len(request.tokens) - request.computed
        last = request.computed + 2 - under.placeholders >= len(request.prompt) + request.output
        if (under.placeholders and last) or self.call < under.eligible:
            return 0
        return len(request.tokens) + under.placeholders - request.computed

    def schedule(self, now):
        self.call += 1
        rules, granted, preempted, index, budget = self.rules, {}, False, 0, self.rules.step_tokens
        limit = rules.long_prompt_tokens if len(self.running) + len(self.waiting) > 1 else 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            new = self.wanted(request)
            new = limit if 0 < limit < new else new
            new = min(new, budget, (rules.max_model_len or 10**9) - request.computed - 1)
            if new <= 0:
                index += 1
                continue
            while not (fits := self.allocate(request, new)):
                if rules.policy == "priority":
                    victim = max(self.running, key=lambda r: (r.priority, r.arrival, r.number))
                    index -= self.running.index(victim) < index
                    self.running.remove(victim)
                    budget += granted.pop(victim, 0)
                else:
                    victim = self.running.pop()
                self.stop(victim)
                preempted = True
                if victim is request:
                    break
            if fits:
                granted[request] = new
                budget -= new
                index += 1
            elif rules.policy != "priority":
                break
        if not preempted:
            aside = [request for request in self.waiting if self.under[request].stale]
            self.waiting = [request for request in self.waiting if not self.under[request].stale]
            self.admit(budget, limit, granted, now)
            self.waiting = aside + self.waiting
        return self.depart(granted), bool(granted)

    def stop(self, victim):
        under = self.under[victim]
        self.release(victim)
        victim.computed, victim.decodes, under.placeholders, under.stale = 0, False, 0, under.flying
        victim.preemptions += 1
        self.waiting.insert(0, victim)

    def depart(self, granted):
        batch, load = Batch(granted), [0, 0, 0, 0, 0, 0]
        for request, new in granted.items():
            under = self.under[request]
            whole = request.computed + new >= len(request.tokens) + under.placeholders
            if request.decodes:
                load[0] += 1
                load[1] += request.computed
            else:
                load[2] += 1
                load[3] += new
                load[4] += sum(range(request.computed + 1, request.computed + new + 1))
                load[5] += whole
            request.computed += new
            under.flying += new
            if whole:
                under.placeholders += self.ahead
                under.eligible = self.call + self.stages
                request.decodes = True
                batch.answers.append(request)
        batch.load = tuple(load)
        return batch

    def complete(self, batch, end):
        for request, new in batch.granted.items():
            under = self.under[request]
            under.flying -= new
            stale = under.stale > 0
            under.stale -= new if stale else 0
            if request not in batch.answers:
                continue
            request.answer.append(("answer", request.number, len(request.answer)))
            request.tokens.append(request.answer[-1])
            request.times.append(end)
            if not stale and self.ahead:
                under.placeholders -= 1
                self.fill(request, request.computed - under.flying)
            if len(request.answer) == request.output:
                request.finish = end
                if request in self.running:
                    self.running.remove(request)
                    self.release(request)
                else:
                    self.waiting.remove(request)


def simulate(rules, requests, stage_seconds, stages):
    """Return begin, end and load of each step of requests in order of arrival."""
    engine, coming, queue, steps, now = PipelineEngine(rules, stages), list(requests), [], [], 0.0
    free, ends, idle = [0.0] * stages, [0.0] * stages, 0
    while coming or queue or engine.waiting or engine.running:
        if not (queue or engine.waiting or engine.running):
            now = max(now, coming[0].arrival)
        while coming and coming[0].arrival <= now:
            engine.add(coming.pop(0))
        if engine.waiting or engine.running:
            begin = max(now, free[0], ends[-stages])  # whose tokens the first stage awaits
            batch, some = engine.schedule(begin)
            batch.end = ends[-1]
            if some:
                at = begin
                for stage, seconds in enumerate(stage_seconds(batch.load)):
                    at = free[stage] = max(at, free[stage]) + seconds
                batch.end = at
                steps.append((begin, at, batch.load))
            ends.append(batch.end)
            queue.append(batch)
            idle = 0 if some or any(other.granted for other in queue) else idle + 1
            assert idle < 3 * stages, "nothing runs although something waits"
            if len(queue) < stages + rules.async_scheduling:
                continue
        batch = queue.pop(0)
        now = max(now, batch.end)
        engine.complete(batch, now)
    assert len(engine.free) == rules.kv_blocks
    return steps


def literal(shapes, prompts=None, priority=None, page=16):
    """Return requests of (prompt, output, arrival), with contents of their prompts if these are given."""
    return [
        Request(n, at, prompts[n] if prompts else [(n, i) for i in range(prompt)], output, page, priority[n] if priority else 0)
        for n, (prompt, output, at) in enumerate(shapes)
    ]
