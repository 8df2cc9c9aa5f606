"""`TrtllmRequest`: a request as TensorRT-LLM's schedulers know it; and `share`, what a step computes of each prompt."""

from roofline.serving.rules import Rules
from roofline.serving.schedulers.decoding import Served
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.schedulers.prefix import Page, page_keys


class TrtllmRequest(Served):
    """A request, with what its answer may be at most, what tells its first pages, and which of these the cache has before it begins."""

    __slots__ = ("again", "begun", "found", "limit", "prompt", "shared")

    def __init__(self, rules: Rules, ledger: Ledger, request: int, held: int, tokens: int | None) -> None:
        self.prompt = ledger.prompt[request]
        first = int(held >= self.prompt)
        goal = ledger.output[request] if tokens is None else tokens
        super().__init__(request, (ledger.priority[request], 0), self.prompt + first, first, goal, held)
        self.limit = max(goal, rules.answer_tokens)
        self.shared = page_keys(ledger, request, rules.page) if rules.prefix_caching else ()
        self.begun = False
        self.found: list[Page] = []
        self.again = 0  # and how many more that only it can find


def place(served: TrtllmRequest) -> int:
    """Return how many had come before it."""
    return served.place


def share(left: list[int], room: int, rules: Rules) -> list[int]:
    """Return how many tokens a step computes of prompts of which so many are left, if it has room for so many; see `TrtllmScheduler`."""
    page, most = rules.page, rules.step_tokens
    parts = [0] * len(left)
    if not rules.chunked:
        for index, new in enumerate(left):
            if new > room:
                break
            room -= new
            parts[index] = new
    elif sum(left) <= room and all(new <= most for new in left):
        parts = list(left)
    elif rules.chunking == "fcfs":
        for index, new in enumerate(left):
            parts[index] = new if new <= room else room // page * page
            room -= parts[index]
    else:
        grown = True
        while grown and room > 0:
            grown = False
            for index, new in enumerate(left):
                more = min(page, new - parts[index])
                if 0 < more <= room and parts[index] + more <= most:
                    parts[index] += more
                    room -= more
                    grown = True
    return parts
