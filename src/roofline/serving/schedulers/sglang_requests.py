"""`SglangRequest`: a request as SGLang's scheduler knows it; and `order`, in which those that wait are tried."""

from collections import deque

from roofline.serving.rules import Rules
from roofline.serving.schedulers.decoding import Served
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.schedulers.radix import Node, RadixCache

_LONGEST_QUEUE = 128  # srt/managers/schedule_policy.py, WAITING_QUEUE_PREFIX_MATCH_MAX
_REFRESH_PASSES = 32  # WAITING_PREFIX_REFRESH_INTERVAL
_SHORT_PREFIX = 32  # IN_BATCH_PREFIX_CACHING_CHECK_THRESHOLD, IN_BATCH_PREFIX_CACHING_DEPRIORITIZE_THRESHOLD


class SglangRequest(Served):
    """A request, with what its answer may be at most, what its pages hold, and the node at which what the tree keeps for it ends."""

    __slots__ = ("limit", "node", "prompt", "shared", "stored")

    node: Node
    stored: int

    def __init__(self, rules: Rules, ledger: Ledger, request: int, held: int, tokens: int | None) -> None:
        self.prompt = ledger.prompt[request]
        first = int(held >= self.prompt)
        goal = ledger.output[request] if tokens is None else tokens
        super().__init__(request, (ledger.priority[request], 0), self.prompt + first, first, goal, held)
        self.limit = max(goal, rules.answer_tokens)
        self.shared = ledger.blocks[request] if rules.prefix_caching and ledger.blocks is not None else ()


def order(waiting: deque[SglangRequest], rules: Rules, ledger: Ledger, tree: RadixCache, passes: int) -> bool:
    """Sort those that wait by the policy, in place; whoever comes first otherwise stays first among equals.

    Where the policy does not look at the tree, the tree is told every 32 passes that the prefixes of those that wait will be used. Returns
    whether this was such a pass.
    """
    by_prefix = rules.policy == "lpm" and rules.prefix_caching and len(waiting) <= _LONGEST_QUEUE
    ranks: dict[int, float] = {}
    if by_prefix:
        ranks = _prefixes(waiting, tree)
    elif rules.policy == "lof":
        ranks = {served.request: -served.limit for served in waiting}
    elif rules.policy == "priority":
        ranks = {served.request: ledger.priority[served.request] for served in waiting}
    if ranks:
        ordered = sorted(waiting, key=lambda served: ranks[served.request])
        waiting.clear()
        waiting.extend(ordered)
    if by_prefix or not rules.prefix_caching:
        return False
    if passes % _REFRESH_PASSES == 0:
        for index in reversed(range(min(len(waiting), _LONGEST_QUEUE))):
            tree.match(waiting[index].shared, waiting[index].request, waiting[index].tokens)
    return True


def _prefixes(waiting: deque[SglangRequest], tree: RadixCache) -> dict[int, float]:
    """Return how few tokens of each are in the tree; of those that share a prefix which is not there, all but the first come last."""
    ranks: dict[int, float] = {}
    among = RadixCache(1, tree.unit)
    for served in waiting:
        found = tree.match(served.shared, served.request, served.tokens).end
        ranks[served.request] = -min(found, served.tokens - 1)
        if found > _SHORT_PREFIX:
            continue
        if among.match(served.shared, served.request, served.tokens).end >= _SHORT_PREFIX:
            ranks[served.request] = float("inf")
        else:
            among.insert(served.shared, served.request, served.tokens, served.prompt)
    return ranks
