"""`Workload`: what clients ask of a server, request by request."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf, nan
from typing import Any, Self

import numpy as np

from roofline.calls import checks_methods
from roofline.errors import InvalidValueError, quoted
from roofline.frozen import freeze, sealed
from roofline.requests.arrivals import Arrivals, as_arrivals
from roofline.requests.checking import check_blocks, check_order, column, positive, predecessors, request_count, span, tokens
from roofline.requests.figures import Period
from roofline.requests.lengths import Lengths, as_lengths
from roofline.requests.reading import read_requests
from roofline.requests.users import BLOCK_TOKENS, conversations, shared_blocks
from roofline.results import Input
from roofline.units import show_time, whole_number


@sealed
@checks_methods
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Workload(Input):
    """Requests in the order in which clients send them, an array each; one number stands for all.

    Parameters
    ----------
    prompt : array_like of int
        Tokens of each prompt, at least 1 [token].
    output : array_like of int
        Tokens of each answer, at least 1 [token].
    arrival_s : array_like
        When each is sent at the earliest, in ascending order [s].
    clients : int, optional
        Most requests under way at a time, as a benchmark client limits them: the next one is sent when any has ended; no limit if None [-].
    after : array_like of int, optional
        Index of the request at whose end the user begins to think of this one, less than its own; -1 for one that only its arrival binds [-].
    think_s : array_like, optional
        How long the user thinks [s].
    blocks : sequence of sequence of int, optional
        Ids of the full blocks that each prompt begins with; those of its answer may follow, where its prompt's are all there. Equal ids mean equal
        tokens after equal predecessors, so that a prefix cache finds them [-].
    block_tokens : int, optional
        Tokens of such a block [token].
    priority : array_like, optional
        Smaller is served first, where the engine's policy is priority [-].
    source : str, optional
        Where the requests come from [-].

    Raises
    ------
    InvalidValueError
        If there is no request, a length is no whole number of at least 1, a time is negative or not finite, arrivals are not in ascending order,
        or a request comes after itself or a later one.
    """

    prompt: np.ndarray
    output: np.ndarray
    arrival_s: np.ndarray
    clients: int | None = None
    after: np.ndarray | None = None
    think_s: np.ndarray | None = None
    blocks: tuple[tuple[int, ...], ...] | None = None
    block_tokens: int = BLOCK_TOKENS
    priority: np.ndarray | None = None
    source: str = ""

    def __post_init__(self) -> None:
        """Check every field, and how they go together."""
        count = max(np.size(self.prompt), np.size(self.output), np.size(self.arrival_s))
        for name in ("prompt", "output", "arrival_s"):
            if getattr(self, name) is None:
                raise InvalidValueError(f"{name} is None; a workload needs prompt, output and arrival_s.")
        for name in ("prompt", "output"):
            self._keep(name, tokens(name, getattr(self, name), count))
        for name in ("arrival_s", "think_s", "priority"):
            if (given := getattr(self, name)) is not None:
                self._keep(name, column(name, np.full(count, given) if np.ndim(given) == 0 else given, count))
        check_order(self.arrival_s)
        if self.after is not None:
            self._keep("after", predecessors(self.after, count))
        if self.think_s is not None:
            if self.after is None:
                raise InvalidValueError("think_s needs after: the request at whose end the user begins to think.")
            if (self.think_s < 0).any():
                raise InvalidValueError(f"think_s contains {self.think_s.min():g}; it must be at least 0 s.")
        if self.clients is not None:
            self._keep("clients", whole_number("clients", self.clients, minimum=1))
        self._keep("block_tokens", whole_number("block_tokens", self.block_tokens, minimum=1))
        if self.blocks is not None:
            self._keep("blocks", check_blocks(self.blocks, self.prompt + self.output, self.block_tokens))

    def _keep(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, freeze(value))

    def __len__(self) -> int:
        return int(self.prompt.size)

    def __str__(self) -> str:
        where = f" of {self.source}" if self.source else ""
        talks = "" if self.after is None else f" in {self._unbound:,} conversations"
        when = (
            f", {self.rate:.4g} {'requests' if self.after is None else 'conversations'}/s over {show_time(self.span_s)}"
            if self.span_s
            else ""
        )
        who = f", at most {self.clients} at a time" if self.clients else ""
        return f"{len(self):,} requests{where}{talks}{when}{who}: prompts of {self.prompt.mean():.4g} tokens, answers of {self.output.mean():.4g}"

    def __repr__(self) -> str:
        return f"<Workload: {self}>"

    @property
    def span_s(self) -> float:
        """Time from the first to the last arrival [s]."""
        return float(self.arrival_s[-1] - self.arrival_s[0])

    @property
    def _unbound(self) -> int:
        """Requests that their arrival alone binds."""
        return len(self) if self.after is None else int((self.after < 0).sum())

    @property
    def rate(self) -> float:
        """Mean rate of arrivals, of conversations where requests come after others: (count − 1) / span; infinite if all arrive at once [request/s]."""
        return (self._unbound - 1) / self.span_s if self.span_s else inf

    @classmethod
    def from_trace(
        cls,
        source: "str | os.PathLike[str] | Mapping[str, Any] | Iterable[Mapping[str, Any]]",
        *,
        columns: Mapping[str, str] | None = None,
        clients: int | None = None,
        block_tokens: int = 512,
    ) -> Self:
        """Return the requests of a trace, or of what a benchmark client wrote.

        Parameters
        ----------
        source : str or path or mapping or iterable of mapping
            A file, also gzipped: CSV with a header line, JSON Lines, a JSON array, or the result of a run of ``vllm bench serve --save-detailed`` or of
            SGLang's benchmark with ``--output-details``; or what such a file holds, as Python's csv and json modules return it [-].
        columns : mapping of str to str, optional
            Which column is which, where its name does not say it: of ``prompt``, ``output``, ``arrival_s``, ``priority`` and ``blocks`` [-].
        clients : int, optional
            Most requests under way at a time; if None, what the result of a benchmark says that does not say when requests were sent [-].
        block_tokens : int, optional
            Tokens of the blocks whose ids a trace holds; Mooncake's has 512 [token].

        Returns
        -------
        Workload
            The requests; times count from the first one [-].

        Raises
        ------
        InvalidValueError
            If the file cannot be read, is empty, has no lengths, is not in the order of its times, or holds what no request can have.

        Notes
        -----
        Known by their columns are Azure's traces of LLM inference (TIMESTAMP, ContextTokens, GeneratedTokens; 2023 and 2024), Mooncake's (milliseconds,
        and ids of blocks, of which an incomplete last one is left out), Vidur's (arrived_at, num_prefill_tokens, num_decode_tokens) and
        rows of measured requests (input_toks, output_toks, arrival_time). Other times are seconds unless the name ends in ``_ms``, or dates. Requests
        without times arrive at once, and failed ones of a benchmark are left out; `source` says so.
        """
        return cls(**read_requests(source, columns, clients, whole_number("block_tokens", block_tokens, minimum=1)))

    @classmethod
    def generated(
        cls,
        requests: int,
        *,
        prompt: Lengths | int,
        output: Lengths | int,
        arrivals: Arrivals | float | None = None,
        clients: int | None = None,
        system_tokens: int = 0,
        system_prompts: int = 1,
        seed: int = 0,
    ) -> Self:
        """Return requests whose arrivals and lengths are drawn by chance, each from a stream of its own.

        Parameters
        ----------
        requests : int
            How many [-].
        prompt, output : Lengths or int
            How long prompts and answers are [token].
        arrivals : Arrivals or float, optional
            When they are sent; a number is the rate of Poisson arrivals, None sends all at once, as far as `clients` lets them [request/s].
        clients : int, optional
            Most requests under way at a time, as benchmark clients limit them [-].
        system_tokens : int, optional
            Tokens of a system prompt before each prompt, which a prefix cache finds again [token].
        system_prompts : int, optional
            How many different ones there are, each as frequent [-].
        seed : int, optional
            Begins the streams; equal seeds give equal requests, and changing lengths leaves arrivals as they are [-].

        Returns
        -------
        Workload
            The requests [-].

        Raises
        ------
        InvalidValueError
            If a value is not what is described.
        """
        count = request_count("requests", requests)
        streams = [np.random.default_rng(each) for each in np.random.SeedSequence(whole_number("seed", seed)).spawn(4)]
        when = as_arrivals(arrivals).draw(streams[0], count)
        lengths = as_lengths("prompt", prompt).draw(streams[1], count)
        answers = as_lengths("output", output).draw(streams[2], count)
        system, kinds = whole_number("system_tokens", system_tokens), whole_number("system_prompts", system_prompts, minimum=1)
        which = streams[3].integers(kinds, size=count).tolist()
        blocks = tuple(shared_blocks(kind, system) for kind in which) if system else None
        return cls(prompt=lengths + system, output=answers, arrival_s=when, clients=clients, blocks=blocks)

    @classmethod
    def from_users(
        cls,
        users: int,
        *,
        prompt: Lengths | int,
        output: Lengths | int,
        turns: Lengths | int = 1,
        think_s: float = 0.0,
        think_cv: float = 1.0,
        arrivals: Arrivals | float | None = None,
        system_tokens: int = 0,
        system_prompts: int = 1,
        seed: int = 0,
    ) -> Self:
        """Return the conversations of users who wait for each answer and think before they ask again.

        The prompt of a turn is all that was said before and the new tokens, so that a prefix cache finds the conversation again.

        Parameters
        ----------
        users : int
            How many, each with one conversation [-].
        prompt, output : Lengths or int
            New tokens of each turn, and tokens of each answer [token].
        turns : Lengths or int, optional
            Prompts of each conversation [-].
        think_s : float, optional
            Mean time from the end of an answer to the next prompt [s].
        think_cv : float, optional
            Standard deviation of that time divided by its mean, of a gamma distribution: 1 is exponential, 0 always the mean [-].
        arrivals : Arrivals or float, optional
            When conversations begin; a number is the rate of Poisson arrivals; if None each user thinks before the first prompt too [request/s].
        system_tokens : int, optional
            Tokens of a system prompt before each conversation [token].
        system_prompts : int, optional
            How many different ones there are, each as frequent [-].
        seed : int, optional
            Begins the streams of arrivals, lengths, turns and thinking [-].

        Returns
        -------
        Workload
            The requests, those of one conversation behind each other; `arrival_s` is when the conversation begins [-].

        Raises
        ------
        InvalidValueError
            If a value is not what is described.
        """
        count = request_count("users", users)
        think, cv = positive("think_s", think_s, "s", or_zero=True), positive("think_cv", think_cv, "", or_zero=True)
        system, kinds = whole_number("system_tokens", system_tokens), whole_number("system_prompts", system_prompts, minimum=1)
        streams = [np.random.default_rng(each) for each in np.random.SeedSequence(whole_number("seed", seed)).spawn(6)]
        rounds = as_lengths("turns", turns).draw(streams[4], count)
        requests = request_count("the number of all turns", int(rounds.sum()))

        def thought(some: int) -> np.ndarray:
            return think * streams[5].gamma(1 / cv**2, cv**2, size=some) if cv else np.full(some, think)

        begins = np.sort(thought(count)) if arrivals is None else as_arrivals(arrivals).draw(streams[0], count)
        talk = conversations(
            rounds,
            new=as_lengths("prompt", prompt).draw(streams[1], requests),
            output=as_lengths("output", output).draw(streams[2], requests),
            system=system,
            which=streams[3].integers(kinds, size=count),
            kinds=kinds,
        )
        return cls(
            prompt=talk.prompt,
            output=talk.output,
            arrival_s=np.repeat(begins, rounds),
            after=talk.after,
            think_s=np.where(talk.after < 0, 0.0, thought(requests)),
            blocks=talk.blocks,
        )

    def take(self, which: Any) -> Self:
        """Return some of the requests; one whose predecessor is not among them is bound by its arrival alone.

        Parameters
        ----------
        which : array_like of int or bool
            Their indices in ascending order, or whether each is one [-].

        Returns
        -------
        Workload
            These requests, with their times [-].

        Raises
        ------
        InvalidValueError
            If there is none, or an index is out of range or order.
        """
        given = np.asarray(which)
        index = np.flatnonzero(given) if given.dtype == bool and given.shape == self.prompt.shape else given
        if (
            index.dtype.kind not in "iu"
            or index.ndim != 1
            or not index.size
            or index[0] < 0
            or index[-1] >= len(self)
            or (np.diff(index) <= 0).any()
        ):
            raise InvalidValueError(
                f"which is {quoted(which)}; it must name some of {len(self)} requests, by ascending indices or one True or False each."
            )
        after = None
        if self.after is not None:
            place = np.full(len(self) + 1, -1)
            place[index] = np.arange(index.size)
            after = place[self.after[index]]
        arrays = {
            name: old[index]
            for name in ("prompt", "output", "arrival_s", "think_s", "priority")
            if (old := getattr(self, name)) is not None
        }
        blocks = None if self.blocks is None else tuple(self.blocks[i] for i in index.tolist())
        return replace(self, **arrays, after=after, blocks=blocks)

    def between(self, start_s: float, end_s: float) -> Self:
        """Return the requests that arrive in an interval; their times count from its beginning.

        Parameters
        ----------
        start_s, end_s : float
            The interval, its end not included [s].

        Returns
        -------
        Workload
            These requests [-].

        Raises
        ------
        InvalidValueError
            If none arrives in it.
        """
        start, end = span(start_s, end_s)
        inside = (self.arrival_s >= start) & (self.arrival_s < end)
        if not inside.any():
            raise InvalidValueError(
                f"no request arrives from {start:g} s to {end:g} s; they arrive from {self.arrival_s[0]:g} s to {self.arrival_s[-1]:g} s."
            )
        some = self.take(inside)
        return replace(some, arrival_s=some.arrival_s - start)

    def scaled(self, *, rate: float) -> Self:
        """Return the same requests at another mean rate: all gaps between arrivals change by one factor, so that bursts keep their shape.

        Parameters
        ----------
        rate : float
            The mean rate [request/s].

        Returns
        -------
        Workload
            The requests; lengths and thinking are unchanged, and times count from the first arrival [-].

        Raises
        ------
        InvalidValueError
            If the rate is not positive and finite, or all requests arrive at once.
        """
        wanted = positive("rate", rate, "requests/s")
        if not self.span_s:
            raise InvalidValueError(
                "requests that arrive at once have no rate to scale; generate arrivals: Workload.generated(…, arrivals=rate)."
            )
        return replace(self, arrival_s=(self.arrival_s - self.arrival_s[0]) * (self.rate / wanted))

    def resampled(self, requests: int, *, arrivals: Arrivals | float | None = None, seed: int = 0) -> Self:
        """Return requests with lengths drawn from these, prompt and answer together, and arrivals of their own.

        With a seed for each run, these are the replications of a trace. Shared blocks and conversations are not kept.

        Parameters
        ----------
        requests : int
            How many [-].
        arrivals : Arrivals or float, optional
            When they are sent, as for :meth:`generated` [request/s].
        seed : int, optional
            Begins the streams of arrivals and of lengths [-].

        Returns
        -------
        Workload
            The requests [-].

        Raises
        ------
        InvalidValueError
            If a value is not what is described.
        """
        count = request_count("requests", requests)
        when, which = (np.random.default_rng(each) for each in np.random.SeedSequence(whole_number("seed", seed)).spawn(2))
        index = which.integers(len(self), size=count)
        arrival_s = as_arrivals(arrivals).draw(when, count)
        source = f"{self.source}, resampled" if self.source else ""
        return type(self)(prompt=self.prompt[index], output=self.output[index], arrival_s=arrival_s, clients=self.clients, source=source)

    def by_hour(self, *, period_s: float = 3600.0) -> tuple[Period, ...]:
        """Return what arrives hour by hour, or in periods of another length.

        Parameters
        ----------
        period_s : float, optional
            Length of a period [s].

        Returns
        -------
        tuple of Period
            Periods from time 0 on; the last ends after the last arrival, and its rate is that of a whole period [-].

        Raises
        ------
        InvalidValueError
            If a period is not positive, or there would be more of them than requests and a million.
        """
        period = positive("period_s", period_s, "s")
        if self.arrival_s[-1] / period > max(len(self), 1_000_000):
            raise InvalidValueError(f"period_s is {period:g}; {show_time(self.arrival_s[-1])} would have more than a million of them.")
        place = (self.arrival_s // period).astype(int)
        counts = np.bincount(place)
        with np.errstate(invalid="ignore"):
            means = [np.bincount(place, weights=lengths) / counts for lengths in (self.prompt, self.output)]
        rows = zip(counts.tolist(), means[0].tolist(), means[1].tolist(), strict=True)
        return tuple(
            Period(i * period, n, n / period, prompt if n else nan, output if n else nan) for i, (n, prompt, output) in enumerate(rows)
        )

    def repeated(self) -> np.ndarray:
        """Return how many tokens each prompt has in common with an earlier one: the most that a prefix cache can find.

        Returns
        -------
        numpy.ndarray of int
            Tokens of the full blocks that an earlier request began with too, all but the last token of a prompt at most [token].
        """
        found = np.zeros(len(self), dtype=np.int64)
        seen: set[int] = set()
        for request, ids in enumerate(self.blocks or ()):
            found[request] = next((place for place, block in enumerate(ids) if block not in seen), len(ids)) * self.block_tokens
            seen.update(ids)
        return np.asarray(np.minimum(found, self.prompt - 1))
