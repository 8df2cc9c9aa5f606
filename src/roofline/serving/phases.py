"""The steps that a request passes, in seconds: alone and beside others, from one call of a `StepTime`."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from roofline.step_time import StepTime


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """Mean lengths of requests, and how much they vary; one array each, all of one shape."""

    prompt: np.ndarray  # tokens to compute: prefix hits are not among them
    cached: np.ndarray  # tokens of prefix hits
    output: np.ndarray
    prompt_cv: np.ndarray  # standard deviation over mean
    output_cv: np.ndarray

    @property
    def context(self) -> np.ndarray:
        """Tokens in the cache of a sequence that decodes, on average over time: who answers longer is met more often [token]."""
        return self.cached + self.prompt + self.output * (1 + self.output_cv**2) / 2

    @property
    def alike(self) -> np.ndarray:
        """Whether all requests are of one length, so that those that end together are followed by prompts that come together."""
        return (self.prompt_cv == 0) & (self.output_cv == 0)

    def at(self, which: np.ndarray) -> "Lengths":
        """Return the lengths at some indices."""
        return Lengths(*(getattr(self, name)[which] for name in self.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """What runs the steps of one replica, and how its engine puts prompts into them."""

    time: StepTime
    step_tokens: float  # most tokens of a step
    chunked: bool  # whether prompts are cut to it
    mixed: bool  # whether prompts run beside decodes
    verified: int = 1  # rows of a sequence in a step: 1 and the drafts
    tokens: float = 1.0  # that a step yields for each sequence

    @property
    def ranks(self) -> int:
        """Data-parallel ranks, which step together."""
        return self.time.deployment.parallel.data

    @property
    def lanes(self) -> int:
        """Batches under way at a time: one in every stage of a pipeline, on every rank."""
        return self.ranks * self.time.deployment.parallel.pipeline


class Phases(NamedTuple):
    """Seconds of what a request passes, at some batch that decodes; an array each."""

    decode: np.ndarray  # a step of the whole batch
    prompt: np.ndarray  # all steps of a prompt, the others of the batch beside it if they are mixed
    added: np.ndarray  # what a prompt adds to the steps of the others
    alone: np.ndarray  # all steps of a prompt with nothing beside it
    packed: np.ndarray  # what it adds where prompts fill every step
    service: np.ndarray  # the same with its share of decode steps: how often prompts can come
    stall: np.ndarray  # the longest time between two tokens of another sequence
    parts: np.ndarray  # how often it is as long, for each prompt


def phases(server: Server, lengths: Lengths, batch: np.ndarray, *, lockstep: bool = False) -> Phases:
    """Return the phases of requests at the batch that a sequence sees, itself included.

    In lockstep, prompts of one length come together, and share a step as far as it has room.
    """
    others = np.maximum(batch - 1, 0.0)
    room = server.step_tokens - server.verified * others * server.mixed
    room = np.maximum(room, server.step_tokens / 8)  # an engine's limits leave more
    room = room if server.chunked else np.maximum(room, lengths.prompt)
    fitting = room / lengths.prompt
    whole = fitting if server.chunked else np.maximum(np.floor(fitting), 1.0)
    together = np.where(lengths.alike & lockstep, np.clip(batch, 1.0, np.maximum(np.floor(fitting), 1.0)), 1.0)
    begin = np.arange(np.ceil((lengths.prompt / room).max()).astype(int)) * room[:, None]
    chunk = np.clip(lengths.prompt[:, None] - begin, 0.0, room[:, None])

    beside, none, one = server.mixed * others, np.zeros_like(others), np.ones_like(others)
    shared = np.where(whole > 1, whole, 1.0)
    count = len(begin[0])
    decodes = np.stack([batch, others, beside, beside, *[beside] * count, *[none] * count], axis=1)
    prompts = np.stack([none, none, shared, together, *(2 * [one] * count)], axis=1)
    first = [chunk[:, :1]] * 4
    new = np.concatenate([*first, chunk, chunk], axis=1)
    cached = lengths.cached[:, None] + np.concatenate([0 * column for column in first] + [begin, begin], axis=1)
    last = cached + new >= (lengths.cached + lengths.prompt)[:, None] - 1e-9
    seconds = server.time(
        server.ranks * np.stack([decodes, prompts * (new > 0)], axis=-1),
        np.stack([np.full(new.shape, float(server.verified)), np.maximum(new, 1.0)], axis=-1),
        np.stack([np.broadcast_to(lengths.context[:, None], new.shape), cached], axis=-1),
        sampled=np.stack([np.full(new.shape, float(server.verified)), last], axis=-1),
    )
    decode, waiting, full, several = seconds[:, :4].T
    there = chunk > 0
    mixed, alone = seconds[:, 4 : 4 + count] * there, seconds[:, 4 + count :] * there
    steps, kept = there.sum(axis=1), waiting * server.mixed
    added = np.where(together > 1, (several - kept) / together, mixed.sum(axis=1) - steps * kept)
    added = np.maximum(added, 0.0)
    service = np.where(whole > 1, full / whole, added + kept / fitting)
    stall = mixed.max(axis=1) if server.mixed else alone.sum(axis=1) + decode
    return Phases(
        decode,
        mixed.sum(axis=1),
        added,
        alone.sum(axis=1),
        service - kept / fitting,
        service,
        stall,
        steps if server.mixed else np.ones_like(decode),
    )
