"""The steps that a request passes, in seconds: alone and beside others, from one call of a `StepTime`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from roofline.arithmetic import Number
from roofline.step_time import StepTime

_BEFORE = 4  # columns of a plan before the parts of a prompt
_COLUMNS = ("decodes", "prompts", "new", "cached", "last")  # what a plan has for each step


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
        return np.asarray(self.cached + self.prompt + self.output * (1 + self.output_cv**2) / 2)

    @property
    def alike(self) -> np.ndarray:
        """Whether all requests are of one length, so that those that end together are followed by prompts that come together."""
        return np.asarray((self.prompt_cv == 0) & (self.output_cv == 0))

    def at(self, which: np.ndarray) -> "Lengths":
        """Return the lengths at some indices."""
        return Lengths(*(getattr(self, name)[which] for name in self.__slots__))

    @classmethod
    def joined(cls, several: Sequence["Lengths"]) -> "Lengths":
        """Return several lengths as one."""
        return cls(*(np.concatenate([getattr(one, name) for one in several]) for name in cls.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """What runs the steps of one replica, and how its engine puts prompts into them."""

    time: StepTime
    step_tokens: Number  # most tokens of a step; an array where requests meet several budgets
    chunked: bool  # whether prompts are cut to it
    mixed: bool  # whether prompts run beside decodes
    verified: int = 1  # rows of a sequence in a step: 1 and the drafts
    tokens: float = 1.0  # that a step yields for each sequence
    interval: int = 1  # decode steps between two looks for new requests
    balanced: bool = False  # whether data-parallel ranks wait for each other's prompts

    def at(self, which: np.ndarray) -> "Server":
        """Return what runs the steps of some requests, if each has its budget."""
        return self if np.ndim(self.step_tokens) == 0 else replace(self, step_tokens=np.asarray(self.step_tokens)[which])

    @property
    def ranks(self) -> int:
        """Data-parallel ranks, which step together."""
        return self.time.deployment.parallel.data

    @property
    def arriving(self) -> int:
        """Data-parallel ranks that have prompts one by one, as these come; 1 where all have them in the same steps."""
        return 1 if self.balanced else self.ranks

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
    together: np.ndarray  # prompts that come together and share the steps of `prompt`
    whole: np.ndarray  # prompts that fill a step, less than 1 if one takes several steps
    bulk: np.ndarray  # whether prompts that came since the last look for them share a step, as far as it has room
    first: np.ndarray  # whether prompts run before answers go on, with a look for more after each of their steps
    interval: np.ndarray  # decode steps between two looks
    stages: np.ndarray  # of a pipeline, each of which has a step of another lane
    ranks: np.ndarray  # that step together, and each have prompts when these come; 1 where all have them in the same steps
    slowest: np.ndarray  # share of what prompts on all ranks add that is each rank's own, so that one rank with a prompt adds it too

    @property
    def period(self) -> np.ndarray:
        """Seconds between two looks for new requests while no prompts run."""
        return np.asarray(self.interval * self.decode)

    @property
    def added_by_one(self) -> np.ndarray:
        """What a prompt on one rank, or the first part of one, adds to a step of all [s]."""
        return np.asarray(self.added * (self.slowest + (1 - self.slowest) / self.ranks) / self.parts)

    def others(self, batch: np.ndarray) -> np.ndarray:
        """Return the sequences that decode beside one, at some batch of its lane: of ranks that step together, the mean of all [-]."""
        return np.asarray(np.maximum(batch - 1 / self.ranks, 0.0))

    def busy(self, batch: np.ndarray) -> np.ndarray:
        """Return whether a step is under way when a request comes [-]."""
        return np.asarray(np.clip(self.ranks * self.others(batch), 0.0, 1.0))


class Plan(NamedTuple):
    """The steps that phases are made of, rows × columns.

    Two of decodes alone, one full of prompts, one with those that come together, then the parts of one prompt beside others, and alone.
    """

    decodes: np.ndarray  # sequences
    prompts: np.ndarray
    new: np.ndarray  # tokens of each prompt
    cached: np.ndarray  # before them
    last: np.ndarray  # whether the prompt ends
    there: np.ndarray  # whether a prompt has so many parts, rows × parts
    whole: np.ndarray  # prompts that the full step holds, less than 1 if one takes several steps; one for each row, as are
    together: np.ndarray  # prompts that come together
    fitting: np.ndarray  # prompts by tokens that a step has room for
    mixed: np.ndarray  # whether prompts run beside decodes
    interval: np.ndarray  # decode steps between two looks for new requests
    stages: np.ndarray  # of a pipeline
    ranks: np.ndarray  # that have prompts one by one


def planned(server: Server, lengths: Lengths, batch: np.ndarray, *, lockstep: bool = False) -> Plan:
    """Return the steps that the phases of requests are made of."""
    ranks = np.where(lengths.alike & lockstep, 1, server.arriving)
    others = np.maximum(batch - 1 / ranks, 0.0)
    room = server.step_tokens - server.verified * others * server.mixed
    room = np.maximum(room, server.step_tokens / 8)  # an engine's limits leave more
    room = room if server.chunked else np.maximum(room, lengths.prompt)
    fitting = room / lengths.prompt
    whole = fitting if server.chunked else np.maximum(np.floor(fitting), 1.0)
    together = np.where(lengths.alike & lockstep, np.clip(batch, 1.0, np.maximum(np.floor(fitting), 1.0)), 1.0)
    begin = np.arange(np.ceil((lengths.prompt / room).max()).astype(int)) * room[:, None]
    chunk = np.clip(lengths.prompt[:, None] - begin, 0.0, room[:, None])
    beside, none, one = server.mixed * others, np.zeros_like(others), np.ones_like(others)
    count, first, begins = len(begin[0]), [chunk[:, :1]] * _BEFORE, [0 * begin[:, :1]] * _BEFORE
    new = np.concatenate([*first, chunk, chunk], axis=1)
    cached = lengths.cached[:, None] + np.concatenate([*begins, begin, begin], axis=1)
    return Plan(
        decodes=np.stack([batch, others, beside, beside, *[beside] * count, *[none] * count], axis=1),
        prompts=np.stack([none, none, np.maximum(whole, 1.0), together, *[one] * (2 * count)], axis=1) * (new > 0),
        new=new,
        cached=cached,
        last=cached + new >= (lengths.cached + lengths.prompt)[:, None] - 1e-9,
        there=chunk > 0,
        whole=whole,
        together=together,
        fitting=fitting,
        mixed=np.full(others.shape, server.mixed),
        interval=np.full(others.shape, server.interval),
        stages=np.full(others.shape, server.time.deployment.parallel.pipeline),
        ranks=ranks,
    )


def seconds_of(server: Server, lengths: Lengths, plan: Plan, count: np.ndarray | None = None) -> np.ndarray:
    """Return the time of each step of a plan, rows × columns; each rank has its decodes and prompts, if not another `count` of all is given."""
    verified = np.full(plan.new.shape, float(server.verified))
    seconds: np.ndarray = server.time(
        server.ranks * np.stack([plan.decodes, plan.prompts], axis=-1) if count is None else count,
        np.stack([verified, np.maximum(plan.new, 1.0)], axis=-1),
        np.stack([np.broadcast_to(lengths.context[:, None], plan.new.shape), plan.cached], axis=-1),
        sampled=np.stack([verified, plan.last], axis=-1),
    )
    return seconds


def on_one_rank(server: Server, lengths: Lengths, plan: Plan, seconds: np.ndarray) -> np.ndarray:
    """Return what a prompt on one of several data-parallel ranks adds to a step, over what one on each of them adds; 1 with a single rank."""
    if server.arriving == 1:
        return np.ones(len(seconds))
    first = slice(_BEFORE, _BEFORE + 1)
    several = np.stack([server.ranks * plan.decodes[:, first], plan.prompts[:, first]], axis=-1)
    one = seconds_of(server, lengths, plan._replace(**{name: getattr(plan, name)[:, first] for name in _COLUMNS}), several)[:, 0]
    kept = seconds[:, 1] * plan.mixed
    added = seconds[:, _BEFORE] - kept
    share = np.clip((one - kept) / np.where(added > 0, added, 1.0), 1 / server.ranks, 1.0)
    return np.where(plan.ranks > 1, share, 1.0)


def assembled(plan: Plan, seconds: np.ndarray, one_rank: np.ndarray) -> Phases:
    """Return the phases that the steps of a plan amount to, where a prompt on one rank adds some share of what one on each of them adds."""
    decode, waiting, full, several = seconds[:, :_BEFORE].T
    beside, alone = (part * plan.there for part in np.split(seconds[:, _BEFORE:], 2, axis=1))
    steps, kept = plan.there.sum(axis=1), waiting * plan.mixed
    own = one_rank[:, None]
    met = own * beside + (1 - own) * kept[:, None] * plan.there
    added = np.where(plan.together > 1, (several - kept) / plan.together, beside.sum(axis=1) - steps * kept)
    added = np.maximum(added, 0.0)
    service = np.where(plan.whole > 1, full / np.maximum(plan.whole, 1.0), added + kept / plan.fitting)
    return Phases(
        decode=decode,
        prompt=np.where((plan.together > 1) & ~plan.mixed, several, _in_stages(met, plan.stages)),
        added=added,
        alone=_in_stages(own * alone, plan.stages),
        packed=service - kept / plan.fitting,
        service=service,
        stall=np.where(plan.mixed, beside.max(axis=1), alone.sum(axis=1) + decode),
        parts=np.where(plan.mixed, steps, 1),
        together=plan.together,
        whole=plan.whole,
        bulk=~plan.mixed | (plan.whole >= 2),
        first=~plan.mixed,
        interval=plan.interval,
        stages=plan.stages,
        ranks=plan.ranks,
        slowest=np.where(plan.ranks > 1, (one_rank * plan.ranks - 1) / np.maximum(plan.ranks - 1, 1), 1.0),
    )


def _in_stages(parts: np.ndarray, stages: np.ndarray) -> np.ndarray:
    r"""Return how long the steps of a prompt take, rows × steps, where one enters the first of p stages when the one before has left it.

    :math:`(\sum_i t_i + (p - 1) \max_i t_i) / p`, which is exact where steps are alike; their sum without a pipeline.
    """
    return np.asarray((parts.sum(axis=1) + (stages - 1) * parts.max(axis=1)) / stages)


def phases(server: Server, lengths: Lengths, batch: np.ndarray, *, lockstep: bool = False) -> Phases:
    """Return the phases of requests at the batch that a sequence sees, itself included.

    In lockstep, prompts of one length come together, and share a step as far as it has room.
    """
    plan = planned(server, lengths, batch, lockstep=lockstep)
    seconds = seconds_of(server, lengths, plan)
    return assembled(plan, seconds, on_one_rank(server, lengths, plan, seconds))
