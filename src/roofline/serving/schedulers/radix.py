"""`RadixCache`: a tree of the prefixes in a cache, as SGLang keeps it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from heapq import heappop, heappush
from itertools import count


class Node:
    """Tokens in a row, from `start` to `end` of the sequences that go through here.

    What they are is told by the keys of one of these sequences, and behind its keys by whose it is.
    """

    __slots__ = ("children", "end", "keys", "locks", "owner", "parent", "start", "used")

    def __init__(self, keys: Sequence[Hashable], owner: int, start: int, end: int, parent: Node | None, used: int) -> None:
        self.keys = keys
        self.owner = owner
        self.start = start
        self.end = end
        self.parent = parent
        self.used = used
        self.locks = 0
        self.children: dict[Hashable, Node] = {}


class RadixCache:
    """Prefixes in the pages of a cache; those that no running request uses are given up leaf by leaf, the one unused for longest first.

    Parameters
    ----------
    page : int
        Tokens of a page, in which everything here is counted [token].
    unit : int
        Tokens of a block of a workload, whose id tells its tokens and all before them [token].

    Attributes
    ----------
    evictable : int
        Tokens in nodes that no running request uses [token].

    Notes
    -----
    A sequence is its keys, the ids of its blocks, and its owner, who alone knows what comes after these.
    """

    def __init__(self, page: int, unit: int) -> None:
        self.page = page
        self.unit = unit
        self.evictable = 0
        self.root = Node((), -1, 0, 0, None, 0)
        self._stamps = count(1)
        self._leaves: list[tuple[int, int, Node]] = []  # when each was used last, and that again to tell nodes apart

    def match(self, keys: Sequence[Hashable], owner: int, tokens: int) -> Node:
        """Return the node at which the longest prefix in the cache ends, of a sequence's first so many tokens; its `end` is how long it is."""
        tokens -= tokens % self.page
        node, used = self.root, next(self._stamps)
        while node.end < tokens:
            child = node.children.get(self._key(keys, owner, node.end))
            if child is None:
                break
            end = self._shared(child, keys, owner, tokens)
            child.used = used
            node = child if end == child.end else self._split(child, end)
        if not (node.children or node.locks):
            self._offer(node)
        return node

    def insert(self, keys: Sequence[Hashable], owner: int, tokens: int, prompt: int) -> tuple[Node, int]:
        """Put a sequence's first so many tokens into the cache.

        Its prompt ends at a node, so that an answer can be given up without it. Returns the node at which the sequence ends, and how many
        tokens were there before.
        """
        tokens -= tokens % self.page
        prompt -= prompt % self.page
        node = self.match(keys, owner, tokens)
        found = node.end
        if 0 < prompt < found:
            self.match(keys, owner, prompt)
        for end in (prompt, tokens):
            if node.end < end <= tokens:
                new = Node(keys, owner, node.end, end, node, next(self._stamps))
                node.children[self._key(keys, owner, node.end)] = new
                node = new
        self.evictable += tokens - found
        self._offer(node)
        return node, found

    def lock(self, node: Node) -> None:
        """Keep a prefix for one more request."""
        up: Node | None = node
        while up is not self.root and up is not None:
            if not up.locks:
                self.evictable -= up.end - up.start
            up.locks += 1
            up = up.parent

    def unlock(self, node: Node) -> None:
        """Keep a prefix for one request less."""
        up: Node | None = node
        while up is not self.root and up is not None:
            up.locks -= 1
            if not up.locks:
                self.evictable += up.end - up.start
                self._offer(up)
            up = up.parent

    def evict(self, tokens: int) -> int:
        """Give up leaves until so many tokens are free, or nothing is left to give up, and return how many are."""
        freed = 0
        while freed < tokens and self._leaves:
            used, _, leaf = heappop(self._leaves)
            if used != leaf.used or leaf.locks or leaf.children or leaf.parent is None:
                continue
            freed += leaf.end - leaf.start
            parent = leaf.parent
            del parent.children[self._key(leaf.keys, leaf.owner, leaf.start)]
            leaf.parent = None
            self._offer(parent)
        self.evictable -= freed
        return freed

    def _key(self, keys: Sequence[Hashable], owner: int, start: int) -> Hashable:
        """Return what tells the page of a sequence that starts there, and all before it."""
        block = (start + self.page - 1) // self.unit
        return keys[block] if block < len(keys) else (owner,)

    def _shared(self, node: Node, keys: Sequence[Hashable], owner: int, tokens: int) -> int:
        """Return up to where a node, whose first page a sequence has, and the sequence's first so many tokens are the same."""
        most = min(node.end, tokens)
        if node.owner == owner or node.keys is keys:
            return most if node.owner == owner else min(most, self._pages(len(keys)))
        first, last = node.start // self.unit, min(len(node.keys), len(keys))
        if node.keys[first:last] != keys[first:last]:
            last = next(block for block in range(first, last) if node.keys[block] != keys[block])
        return min(most, self._pages(last))

    def _pages(self, blocks: int) -> int:
        """Return how many tokens are in full pages of so many blocks."""
        tokens = blocks * self.unit
        return tokens - tokens % self.page

    def _split(self, node: Node, at: int) -> Node:
        """Cut a node in two, and return the upper one."""
        parent = node.parent
        assert parent is not None
        upper = Node(node.keys, node.owner, node.start, at, parent, next(self._stamps))
        upper.locks = node.locks
        parent.children[self._key(node.keys, node.owner, node.start)] = upper
        upper.children[self._key(node.keys, node.owner, at)] = node
        node.start, node.parent = at, upper
        self._offer(node)
        return upper

    def _offer(self, node: Node) -> None:
        """Let a node be given up, if it is a leaf that nobody uses."""
        if not node.locks and not node.children and node is not self.root:
            heappush(self._leaves, (node.used, next(self._stamps), node))
