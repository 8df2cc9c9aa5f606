"""Blocks of the cache: those that are free, and with prefix caching those whose contents can be found again."""

from collections import OrderedDict
from collections.abc import Hashable, Sequence

from roofline.serving.schedulers.ledger import Ledger


def page_keys(ledger: Ledger, request: int, page: int) -> Sequence[Hashable]:
    """Return what tells the contents of a request's first pages, as far as the workload says what is in them."""
    if ledger.blocks is None:
        return ()
    ids, size = ledger.blocks[request], ledger.block_tokens
    if size == page:
        return ids
    return [(ids[((number + 1) * page - 1) // size], number) for number in range(len(ids) * size // page)]


class Blocks:
    """Blocks of a cache that finds nothing again: how many are free.

    Parameters
    ----------
    blocks : int
        All of them [-].
    """

    __slots__ = ("free",)

    def __init__(self, blocks: int) -> None:
        self.free = blocks

    def take(self, blocks: int) -> None:
        """Take so many free blocks."""
        self.free -= blocks

    def give(self, blocks: int) -> None:
        """Give blocks back whose contents nobody can find."""
        self.free += blocks


class Page:
    """A full block whose contents others may have too."""

    __slots__ = ("key", "twin", "users")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.users = 1
        self.twin: Page | None = None
        """The next page with the same contents."""


class Run:
    """Full blocks in a row that only one request can find again, once it is resumed."""

    __slots__ = ("pages",)

    def __init__(self, pages: int) -> None:
        self.pages = pages


class PrefixCache(Blocks):
    """Blocks whose contents are found again until they are taken for something else, those first that nobody has used for longest.

    Notes
    -----
    Free blocks without contents are taken before all others. A request gives its blocks back from the last to the first, so that the
    end of a prefix is lost before its beginning; pages that only that request could find are kept as one `Run`.
    """

    __slots__ = ("_blank", "_found", "_unused")

    def __init__(self, blocks: int) -> None:
        super().__init__(blocks)
        self._blank = blocks
        self._unused: OrderedDict[Page | Run, None] = OrderedDict()
        self._found: dict[Hashable, Page] = {}

    def find(self, keys: Sequence[Hashable], most: int) -> list[Page]:
        """Return the pages in the cache that a request with such keys begins with, at most so many."""
        found = []
        for key in keys[:most]:
            page = self._found.get(key)
            if page is None:
                break
            found.append(page)
        return found

    def hold(self, pages: list[Page]) -> None:
        """Keep found pages for one more user."""
        for page in pages:
            if not page.users:
                del self._unused[page]
                self.free -= 1
            page.users += 1

    def resume(self, run: Run, pages: int) -> None:
        """Keep the first pages of a run for the request that had left it."""
        self.free -= pages
        run.pages -= pages
        if not run.pages:
            del self._unused[run]

    def fill(self, key: Hashable) -> Page:
        """Return the page that a block has become which was taken before and is full now."""
        page = Page(key)
        last = self._found.setdefault(key, page)
        if last is not page:
            while last.twin is not None:
                last = last.twin
            last.twin = page
        return page

    def _forget(self, page: Page) -> None:
        """Let a page be found no longer."""
        before = self._found[page.key]
        if before is not page:
            while before.twin is not page:
                before = before.twin  # type: ignore[assignment] # it is there
            before.twin = page.twin
        elif page.twin is None:
            del self._found[page.key]
        else:
            self._found[page.key] = page.twin

    def take(self, blocks: int) -> None:
        """Take so many free blocks: blank ones, then those unused for longest, whose contents are lost."""
        self.free -= blocks
        self._blank -= blocks
        if self._blank >= 0:
            return
        blocks, self._blank = -self._blank, 0
        while blocks:
            oldest = next(iter(self._unused))
            if isinstance(oldest, Run):
                lost = min(blocks, oldest.pages)
                oldest.pages -= lost
                blocks -= lost
                if oldest.pages:
                    return
            else:
                self._forget(oldest)
                blocks -= 1
            del self._unused[oldest]

    def give(self, blocks: int) -> None:
        """Give blocks back that are not full."""
        self.free += blocks
        self._blank += blocks

    def leave(self, pages: list[Page], alone: int) -> Run | None:
        """Give full blocks back: pages that others may find, and after them `alone` ones that only this request can."""
        run = None
        if alone:
            run = Run(alone)
            self._unused[run] = None
            self.free += alone
        for page in reversed(pages):
            page.users -= 1
            if not page.users:
                self._unused[page] = None
                self.free += 1
        return run
