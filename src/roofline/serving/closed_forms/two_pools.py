"""Closed forms of two pools: one computes prompts, a link carries their caches, the other one decodes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from roofline.serving.closed_forms.curves import Curves
from roofline.serving.closed_forms.forms import NOTHING, PROMPTS, TRANSFER, Point
from roofline.serving.closed_forms.phases import Lengths, phases
from roofline.serving.closed_forms.queueing import mg1_wait
from roofline.serving.closed_forms.service import Service

_COLUMNS = ("prompt", "service", "transfer", "first", "linked", "most", "cause")
_NEARLY = 0.999  # of the time: what a closed loop keeps busy at most


@dataclass(frozen=True, slots=True, eq=False)
class Pools:
    """What requests of some rows of curves pass in both pools, each per lane of the pool that decodes; an array each."""

    curves: Curves
    row: np.ndarray
    prompt: np.ndarray  # seconds of a prompt alone
    service: np.ndarray  # how often prompts can come
    transfer: np.ndarray  # seconds of a cache on the link
    first: np.ndarray  # lanes of this pool to one of that which computes prompts
    linked: np.ndarray  # the same to one link
    most: np.ndarray  # requests a second that can be served
    cause: np.ndarray  # what limits these

    @classmethod
    def of(cls, service: Service, curves: Curves) -> Self:
        """Return what requests of all rows pass."""
        assert service.prefill is not None
        row = np.arange(curves.most.size)
        prompts = phases(service.prefill, curves.lengths, np.ones(row.size))
        transfer, lanes = service.transfer_s(curves.lengths), service.replicas * service.server.lanes
        first = np.full(row.size, lanes / (service.prefill_replicas * service.prefill.lanes))
        links = min(service.replicas * service.server.ranks, service.prefill_replicas * service.prefill.ranks)
        linked = np.full(row.size, lanes / links)
        limits = (curves.most, 1 / (prompts.service * first), 1 / np.maximum(transfer * linked, 1e-300))
        most = np.minimum(np.minimum(*limits[:2]), limits[2])
        cause = np.select([most == limits[0], most == limits[1]], [curves.limit.cause, PROMPTS], TRANSFER)
        return cls(curves, row, prompts.alone, prompts.service, transfer, first, linked, most, cause)

    def at(self, row: np.ndarray) -> Self:
        """Return the same of some rows."""
        return replace(self, row=row, **{name: getattr(self, name)[row] for name in _COLUMNS})

    @classmethod
    def joined(cls, several: Sequence["Pools"], curves: Curves) -> Self:
        """Return pools of several services of one engine as one, whose curves are joined."""
        columns = {name: np.concatenate([getattr(one, name) for one in several]) for name in _COLUMNS}
        return cls(curves, np.arange(curves.most.size), **columns)

    @property
    def lengths(self) -> Lengths:
        """Lengths of the requests."""
        return self.curves.lengths.at(self.row)

    @property
    def steps(self) -> np.ndarray:
        """Decode steps of the requests."""
        return np.asarray(self.curves.steps[self.row])

    def waits(self, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what requests wait for a place in the first pool, and their caches for the link."""
        busy = rate * self.service * self.first
        links = mg1_wait(rate * self.transfer * self.linked, self.transfer, service_cv=self.lengths.prompt_cv)
        return mg1_wait(busy, self.service, service_cv=self.lengths.prompt_cv), links

    def open_loop(self, rate: np.ndarray) -> Point:
        """Return where the pools are if requests arrive at random at a rate."""
        decode = self.curves.open_loop(self.row, rate)
        before, link = self.waits(rate)
        # a place to decode is waited for with the cache: between the first token and the second
        decoding = self.transfer + link + decode.decoding_s + decode.queue_s
        cause = np.where(rate < self.most, NOTHING, self.cause)
        return Point(decode.batch, decode.phases, decoding, before, self.prompt, np.minimum(rate, self.most), self.most, cause)

    def closed_loop(self, clients: np.ndarray, *, rounds: float, outside_s: float) -> Point:
        """Return where the pools are if clients each send a request when the one before has ended."""
        line, every = self.curves.line[self.row], np.arange(self.row.size)
        nodes, decoding = self.curves.nodes[line], self.steps[:, None] * self.curves.phases.decode[line]
        before = (self.prompt + self.transfer)[:, None]
        sent = nodes * (1 + before / np.maximum(decoding, 1e-9))  # clients that keep so many sequences decoding
        at = np.minimum((sent < clients[:, None]).sum(axis=1), nodes.shape[1] - 1)
        low = np.maximum(at - 1, 0)
        share = np.clip((clients - sent[every, low]) / np.maximum(sent[every, at] - sent[every, low], 1e-300), 0.0, 1.0)
        batch = nodes[every, low] + share * (nodes[every, at] - nodes[every, low])
        batch = np.where(self.steps > 0, np.minimum(batch, self.curves.limit.most[self.row]), 1.0)
        full = clients / (before[:, 0] + self.steps * self.curves.at(self.row, batch).decode) > self.most
        batch = np.where(full, np.minimum(batch, self.curves.batch(self.row, self.most)), batch)
        found = self.curves.at(self.row, batch)
        decoding_s = self.steps * found.decode
        free = clients / (before[:, 0] + decoding_s)
        rate = np.minimum(free, self.most)
        wait, _ = self.waits(np.minimum(rate, _NEARLY * self.most))
        others = np.maximum(clients * self.first - 1, 0.0)
        later = np.minimum(wait * others / np.maximum(others + 1, 1.0), others / 2 * self.service)
        queue = (1 - 1 / rounds) * later + others / 2 * self.service / rounds
        queue = np.maximum(queue, np.where(rate < free, clients / rate - decoding_s - before[:, 0], 0.0))
        answered = np.minimum(rate, clients / (outside_s + queue + self.prompt + self.transfer + decoding_s))
        cause = np.where(free > self.most, self.cause, NOTHING)
        return Point(batch, found, self.transfer + decoding_s, queue, self.prompt, answered, self.most, cause)
