"""Phases of a server at all its batches, computed once and looked up where a service is searched through."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from roofline.arithmetic import Number
from roofline.serving.closed_forms.forms import (
    NOTHING,
    PROMPTS,
    Limit,
    Point,
    closed_decoding,
    conserved_rate,
    decode_steps,
    full_batch,
    open_decoding,
    prompt_wait,
    rates_seen,
    shared_prompts,
    steps_if_ranks,
)
from roofline.serving.closed_forms.phases import Lengths, Phases, Server, phases
from roofline.serving.closed_forms.queueing import mgc_wait

_NODES = 40  # batches at which phases are evaluated for a search; between two of them they are nearly straight lines
_BATCHES = 128  # at which it is found at which rate they are seen
_ENDLESS = 2.0**14  # sequences, where nothing limits them


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Phases at batches from 1 (of ranks that step together, one sequence on one of them) to the most, to be looked up at any batch between.

    There is a row for each length and limit, and a line of nodes for each server and length, which rows share that differ in limits only.
    """

    mixed: bool  # whether prompts run beside decodes
    lengths: Lengths  # of each row, as are
    steps: np.ndarray  # that decode
    line: np.ndarray
    limit: Limit
    most: np.ndarray  # requests a second at the largest batch
    nodes: np.ndarray  # batches, lines × nodes, as are
    phases: Phases
    batches: np.ndarray | None = None  # the same, closer to each other
    rates: np.ndarray | None = None  # requests a second at which a sequence sees these

    @classmethod
    def of(cls, server: Server, lengths: Lengths, limit: Limit, *, apart: bool = False, line: np.ndarray | None = None) -> "Curves":
        """Return the curves of a server, up to its limit or to the batch at which prompts fill every step.

        Prompts may be `apart`, another pool's. Rows with the same `line`, numbers that do not fall, differ in limits only; else each has its own.
        """
        limit, steps = reached(server, lengths, limit, apart=apart), decode_steps(server, lengths)
        top, cause, every = limit.most, limit.cause, np.arange(limit.most.size)
        line = every if line is None else line
        first = np.searchsorted(line, np.arange(line[-1] + 1))
        nodes = _spaced(1 / server.arriving, np.maximum.reduceat(top, first)[:, None], _NODES)
        rows = np.repeat(first, _NODES)
        found = Phases(*(each.reshape(nodes.shape) for each in _phases(server.at(rows), lengths.at(rows), nodes.ravel(), apart)))
        last = _between(nodes, found, line, top)
        decoding = closed_decoding(last, steps, top)
        held = np.where(cause == PROMPTS, np.inf, top / np.maximum(decoding + last.prompt, 1e-300))
        most = np.minimum(held, conserved_rate(last, steps, top))
        return cls(server.mixed, lengths, steps, line, limit, most, nodes, found)

    def searchable(self) -> "Curves":
        """Return the same with the rates at which batches are seen, which :meth:`batch` needs."""
        first = np.searchsorted(self.line, np.arange(len(self.nodes)))
        batches = _spaced(self.nodes[:, :1], self.nodes[:, -1:], _BATCHES)
        found = _between(self.nodes, self.phases, np.arange(len(self.nodes))[:, None], batches)
        rates = rates_seen(found, self.steps[first, None], batches, self.lengths.prompt_cv[first, None], mixed=self.mixed)
        # from the batch on at which more decode than can leave, none is reached
        return replace(self, batches=batches, rates=np.maximum.accumulate(rates, axis=1))

    @classmethod
    def joined(cls, several: Sequence["Curves"]) -> "Curves":
        """Return the curves of several servers of one engine as one."""
        before = np.cumsum([0, *(len(one.nodes) for one in several[:-1])])
        rows = {name: np.concatenate([getattr(one, name) for one in several]) for name in ("steps", "most", "nodes")}
        return cls(
            mixed=several[0].mixed,
            lengths=Lengths.joined([one.lengths for one in several]),
            line=np.concatenate([one.line + first for one, first in zip(several, before, strict=True)]),
            limit=Limit(*(np.concatenate([getattr(one.limit, name) for one in several]) for name in ("most", "cause"))),
            phases=Phases(*map(np.concatenate, zip(*(one.phases for one in several), strict=True))),
            **rows,
        )

    def batch(self, row: np.ndarray, rate: np.ndarray) -> np.ndarray:
        """Return the batch that a sequence sees if requests of some row arrive at a rate."""
        assert self.batches is not None
        assert self.rates is not None
        first, low = self.line[row] * _BATCHES, np.zeros(row.size, dtype=int)
        for stride in 2 ** np.arange(int(np.log2(_BATCHES)))[::-1]:  # the last one that is seen at a smaller rate
            low += stride * (self.rates.take(first + low + stride) < rate)
        place = first + np.minimum(low, _BATCHES - 2)
        begin, end = self.rates.take(place), self.rates.take(place + 1)
        share = np.where(rate < end, (rate - begin) / np.where(rate < end, end - begin, 1.0), 1.0)
        return np.asarray(np.minimum(_within(self.batches, place, np.maximum(share, 0.0)), self.limit.most[row]))

    def at(self, row: np.ndarray, batch: np.ndarray) -> Phases:
        """Return the phases of some rows at some batches, interpolated."""
        return _between(self.nodes, self.phases, self.line[row], batch)

    def decode_at(self, row: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Return the time of a decode step of some rows at some batches, interpolated."""
        return _within(self.phases.decode, *_place(self.nodes, self.line[row], batch))

    def open_loop(self, row: np.ndarray, rate: np.ndarray) -> Point:
        """Return where the server is if requests of some row arrive at random at a rate; what grows without end is infinite."""
        batch = self.batch(row, rate)
        found, steps = self.at(row, batch), self.steps[row]
        most, top, cause = self.most[row], self.limit.most[row], self.limit.cause[row]
        prompt_cv, output_cv = self.lengths.prompt_cv[row], self.lengths.output_cv[row]
        load = rate / most
        served = np.minimum(rate, most)
        ceiling = np.where(load < 1, np.inf, 0) + top / most  # Little, with all places taken
        ranked = steps_if_ranks(found, served)
        added = shared_prompts(found, served, ranked)
        wait = prompt_wait(found, batch, served, prompt_cv, added, ranked)
        decoding = np.minimum(open_decoding(found, steps, served, added, wait, mixed=self.mixed), ceiling)
        prompts = np.where(load < 1, wait, np.inf)
        places = mgc_wait(top, load, decoding + found.prompt, service_cv=output_cv)
        queue = prompts + np.where(cause == PROMPTS, 0.0, places)
        return Point(batch, found, decoding, queue, found.prompt, served, most, np.where(load < 1, NOTHING, cause), added)


def reached(server: Server, lengths: Lengths, limit: Limit, *, apart: bool) -> Limit:
    """Return limits as far as a server can reach them: up to the batch at which prompts fill every step, unless these are `apart`."""
    full = np.inf if apart else full_batch(server, lengths)
    most = np.maximum(np.minimum(np.minimum(limit.most, full), _ENDLESS), 1.0)
    return Limit(most, np.where(full < limit.most, PROMPTS, limit.cause))


def _phases(server: Server, lengths: Lengths, batch: np.ndarray, apart: bool) -> Phases:
    """Return the phases of requests, without prompts where these are another pool's."""
    found, none = phases(server, lengths, batch), np.zeros_like(batch)
    return (
        found._replace(prompt=none, added=none, packed=none, service=none, stall=found.decode, bulk=none > 0, first=none > 0)
        if apart
        else found
    )


def _spaced(least: Number, most: np.ndarray, count: int) -> np.ndarray:
    """Return batches from the least to the most, each the same multiple of the one before."""
    return np.asarray(least * (most / least) ** np.linspace(0.0, 1.0, count))


def _place(nodes: np.ndarray, line: np.ndarray, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which nodes batches follow, counted through all lines, and how far from these to the next ones they are."""
    least = nodes[:, 0][line]
    place = (_NODES - 1) * np.log(batch / least) / np.log(np.maximum(nodes[:, -1][line] / least, 1 + 1e-12))
    low = line * _NODES + np.clip(place.astype(int), 0, _NODES - 2)
    begin, end = nodes.take(low), nodes.take(low + 1)
    return low, np.where(end > begin, (batch - begin) / np.maximum(end - begin, 1e-300), 0.0)


def _within(values: np.ndarray, low: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return what lies between values and the ones after them, at some share of the way."""
    begin = values.take(low)  # much quicker than by two indices
    return np.asarray(begin + share * (values.take(low + 1) - begin))


def _between(nodes: np.ndarray, phases: Phases, line: np.ndarray, batch: np.ndarray) -> Phases:
    """Return the phases of some lines at some batches, interpolated."""
    low, share = _place(nodes, line, batch)
    found = (each.take(low) if each.dtype == bool else _within(each, low, share) for each in phases)
    return Phases(*found)
