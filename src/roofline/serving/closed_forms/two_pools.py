"""Closed forms of two pools: one computes prompts, a link carries their caches, the other one decodes."""

import numpy as np

from roofline.serving.closed_forms.forms import NOTHING, PROMPTS, TRANSFER, Curves, Point, decode_steps
from roofline.serving.closed_forms.phases import phases
from roofline.serving.closed_forms.queueing import mg1_wait
from roofline.serving.closed_forms.service import Service

_NEARLY = 0.999  # of the time: what a closed loop keeps busy at most


class Pools:
    """What requests of some rows pass in both pools, each per lane of the pool that decodes."""

    def __init__(self, service: Service, curves: Curves, row: np.ndarray) -> None:
        lengths = curves.lengths.at(row)
        assert service.prefill is not None
        self.curves, self.row, self.lengths = curves, row, lengths
        self.steps = decode_steps(service.server, lengths)
        prompts = phases(service.prefill, lengths, np.ones(row.size))
        self.prompt, self.service = prompts.alone, prompts.service
        self.transfer = service.transfer_s(curves.lengths)[row]
        lanes = service.replicas * service.server.lanes
        self.first = lanes / (service.prefill_replicas * service.prefill.lanes)  # lanes of this pool to one of that
        links = min(service.replicas * service.server.ranks, service.prefill_replicas * service.prefill.ranks)
        self.linked = lanes / links
        limits = (curves.most[row], 1 / (self.service * self.first), 1 / np.maximum(self.transfer * self.linked, 1e-300))
        self.most = np.minimum(np.minimum(*limits[:2]), limits[2])
        self.cause = np.select([self.most == limits[0], self.most == limits[1]], [curves.limit.cause[row], PROMPTS], TRANSFER)

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
        nodes, every = self.curves.nodes[self.row], np.arange(self.row.size)
        decoding = self.steps[:, None] * self.curves.phases.decode[self.row]
        before = (self.prompt + self.transfer)[:, None]
        sent = nodes * (1 + before / np.maximum(decoding, 1e-9))  # clients that keep so many sequences decoding
        at = np.minimum((sent < clients[:, None]).sum(axis=1), nodes.shape[1] - 1)
        low = np.maximum(at - 1, 0)
        share = np.clip((clients - sent[every, low]) / np.maximum(sent[every, at] - sent[every, low], 1e-300), 0.0, 1.0)
        batch = nodes[every, low] + share * (nodes[every, at] - nodes[every, low])
        batch = np.where(self.steps > 0, batch, 1.0)
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
