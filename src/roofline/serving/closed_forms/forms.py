"""Closed forms of a server's requests: how long a sequence decodes while prompts of others come in, and how long a request waits."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from roofline.arithmetic import Number
from roofline.serving.closed_forms.phases import Lengths, Phases, Server, phases
from roofline.serving.closed_forms.queueing import mg1_wait

NOTHING, CAPACITY, SEQUENCES, PROMPTS, TRANSFER = range(5)
"""What limits a server: nothing, the memory of the cache, the engine's limit of sequences, prompts that fill every step, or the link."""

_ROUNDS = 6  # of a fixed point, each of which takes most of what is left
_FAR = 1e100  # seconds: never
_SECANTS = 12  # after which rates near the edge of stability are right to 0.1 %
SETTLED = 24  # steps after which the first one no longer counts
_FULL = 32  # prompts of a step, at most
_GRID = 2048  # means at which it is known how many prompts the slowest rank has; between them to 1e-5
_LOGISTIC = 1.702  # the normal distribution is nearly a logistic one of so many standard deviations
_NEARLY = 0.999  # of the time: what a closed loop keeps busy at most


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """Most sequences of a lane, and which limit that is; an array each."""

    most: np.ndarray
    cause: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Where one lane of a server is at some load; an array each."""

    batch: np.ndarray  # sequences that a sequence sees decoding, itself included
    phases: Phases
    decoding_s: np.ndarray  # from the first token to the last
    queue_s: np.ndarray  # from being sent to the first step of the prompt
    prompt_s: np.ndarray  # the steps of the prompt
    rate: np.ndarray  # requests a second that are answered
    most: np.ndarray  # that could be, however many are sent
    cause: np.ndarray  # what limits that, NOTHING where it is not reached
    added: np.ndarray | None = None  # what a prompt adds to the steps of others, where that was asked for


def decoding_time(alone: np.ndarray, added: np.ndarray, prompt: np.ndarray, others: np.ndarray) -> np.ndarray:
    r"""Return y, the time of decoding in a closed loop beside other sequences, where each that ends is followed by a new prompt.

    Each of n others begins a prompt every y + P₁, so y = y₀ + n ΔP y / (y + P₁): the positive root of a quadratic equation.
    """
    half = (alone + others * added - prompt) / 2
    return np.where(alone > 0, half + np.sqrt(half**2 + alone * prompt), 0.0)


def each_shared(found: Phases) -> np.ndarray:
    """Return c, what each further prompt adds to a step that has one, so that those that fill it take as long as they do."""
    room = np.where(found.bulk, np.maximum(found.whole, 2.0), 2.0)
    return np.asarray((found.packed * room - found.added) / (room - 1))


RankSteps = tuple[np.ndarray, np.ndarray]
"""What :func:`steps_of_ranks` returns."""


def shared_prompts(found: Phases, rate: np.ndarray, ranked: RankSteps | None = None) -> np.ndarray:
    r"""Return what a prompt adds to the steps of others where those that came since the last look for them share a step, at some rate a second.

    A step with N prompts takes :math:`a + c N` more: ΔP with one, and what fills it with as many as it has room for. With N at random
    (Poisson) steps last :math:`S = D + a (1 - e^{-\lambda S}) + c \lambda S` on average. Where prompts run first, those that came during R decode
    steps share one, and those that came meanwhile another: :math:`S = R D + a (2 - e^{-\lambda R D} - e^{-\lambda (S - R D)}) + c \lambda S`.
    """
    each = each_shared(found)
    once = found.added - each
    period, left = found.period, np.maximum(1 - rate * each, 1e-3)
    step = period
    with np.errstate(over="ignore", invalid="ignore"):  # where no prompts share a step, and nothing of this counts
        alone, shared, sent = period / left, once / left, -rate
        for _ in range(_ROUNDS):
            several = np.where(found.first, np.expm1(sent * period) + np.expm1(sent * (step - period)), np.expm1(sent * step))
            step = alone - shared * several
        came = np.maximum(rate * step, 1e-12)
        shared = np.clip((step - period) / came, 0.0, np.maximum(found.added, found.packed))
    shared = np.where(found.bulk & (came > 1e-9), shared, found.added)
    if np.any(found.ranks > 1):
        _, own_step = ranked or steps_of_ranks(found, rate)
        shared = np.where(found.ranks > 1, (own_step - period) / np.maximum(rate * own_step, 1e-12), shared)
    return np.where(found.stages > 1, held_up(found, rate, shared), shared) if np.any(found.stages > 1) else shared


def held_up(found: Phases, rate: np.ndarray, own: np.ndarray) -> np.ndarray:
    r"""Return what a prompt adds to the steps of its lane in a pipeline, where a step that is longer holds up those of all other lanes.

    Steps go through the stages in turn, so that all take as long as the longest: with N prompts in a step of each of p lanes
    :math:`S = D + a (1 - e^{-p \lambda S}) + c\, E[\max N]`. Where prompts take m steps each, which go to the lanes in turn, it is as with
    :math:`1 + (p - 1) / m` lanes: :math:`S = D + (\Delta P / m)(1 - (1 - m \lambda S)^{1 + (p - 1) / m})`. What S is longer than D is then of the
    :math:`\lambda S` prompts of a lane; never less than a prompt adds to its `own` lane.
    """
    lanes, period = 1 + (found.stages - 1) / found.parts, found.period
    each = np.where(found.bulk, each_shared(found), 0.0)
    once = np.where(found.bulk, found.added - each, found.added / found.parts)
    step, most = period, np.maximum(found.added, found.packed) * lanes
    for _ in range(SETTLED):
        came = np.minimum(rate * step, _FULL)
        none = np.where(found.bulk, np.exp(-came * lanes), (1 - np.minimum(found.parts * came, 1.0)) ** lanes)
        step = period + once * (1 - none) + each * most_of(came, lanes)
    return np.asarray(np.clip((step - period) / np.maximum(rate * step, 1e-12), own, np.maximum(most, own)))


def steps_if_ranks(found: Phases, rate: np.ndarray) -> RankSteps | None:
    """Return :func:`steps_of_ranks` where any server has several, for those who need it more than once at a rate."""
    return steps_of_ranks(found, rate) if np.any(found.ranks > 1) else None


def steps_of_ranks(found: Phases, rate: np.ndarray) -> RankSteps:
    r"""Return the mean step of data-parallel ranks that step together, and the time from one token of a sequence to the next, at some rate a second of each.

    During a step of T as many prompts M come to all R ranks as is at random (Poisson), each to the rank with the fewest, so that the slowest has
    :math:`M / R`, rounded up. Of what a prompt on every rank adds, the share s is the slowest rank's, and the rest, which is the experts', is of the
    prompts of all: the next step is longer than D by
    :math:`E(T) = s (a (1 - e^{-R \lambda T}) + c\, E\lceil M / R \rceil) + (1 - s)(a (1 - e^{-\lambda T}) + c \lambda T)`.
    Steps without prompts last D, and a share p of all, those with some, :math:`D + \bar{E} / p`, with the mean of E after either kind. A prompt that takes m
    steps is in one of a rank's with probability :math:`m \lambda \bar{T}`. Where prompts run first, a rank's own sequences rest while it has some, but
    not those of others: a step with prompts adds :math:`a - D`, and a token takes as many steps as there are to one without own prompts.
    """
    ranks, slowest, parts, decode = found.ranks, found.slowest, found.parts, found.decode
    each = np.where(found.bulk, each_shared(found), 0.0)
    once = np.where(found.bulk, found.added - each, found.added / parts) - found.first * decode

    def after(step: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        came = np.minimum(rate * step, _FULL)
        none = np.where(found.bulk | (parts <= 1), np.exp(-came), 1 - np.minimum(parts * rate * mean, _NEARLY))
        any_rank = once * (1 - none**ranks) + each * most_if_even(came, ranks)
        more = slowest * any_rank + (1 - slowest) * (once * (1 - none) + each * came)
        return np.maximum(more, 0.0), 1 - none**ranks, none

    some, longer, mean = np.zeros_like(decode), decode, decode
    for _ in range(SETTLED):
        (more, often, none), (then, again, still) = after(decode, mean), after(longer, mean)
        some = often / np.maximum(1 - again + often, 1e-12)
        extra = (1 - some) * more + some * then
        longer, mean = decode + extra / np.maximum(some, 1e-12), decode + extra
    free = (1 - some) * none + some * still
    return mean, np.where(found.first, mean / free, mean)


def most_if_even(mean: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    r"""Return the mean of :math:`\lceil M / R \rceil` where M is at random (Poisson) with some mean for each of R ranks; of normal tails."""
    further = np.zeros(mean.shape)
    for number in np.unique(ranks).tolist():
        at = ranks == number
        further[at] = np.interp(mean[at], *_further(number))
    return np.asarray(further - np.expm1(-mean * ranks))


@cache
def _further(ranks: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Return means of each rank, and :math:`E\lceil M / R \rceil` less the probability of any, at each of them."""
    mean = _FULL * np.linspace(0.0, 1.0, _GRID) ** 2
    total = (mean * ranks)[:, None]
    beyond = (total - np.arange(1.0, _FULL) * ranks - 0.5) / np.sqrt(np.maximum(total, 1e-12))
    return mean, (1 / (1 + np.exp(np.clip(-_LOGISTIC * beyond, -50.0, 50.0)))).sum(axis=1)


def most_of(mean: np.ndarray, several: np.ndarray) -> np.ndarray:
    r"""Return the mean of the largest of several numbers that are each at random (Poisson): :math:`\sum_k (1 - F(k)^n)`."""
    count = np.arange(2.0 * _FULL)
    chance = np.exp(count * np.log(np.maximum(mean, 1e-12))[..., None] - mean[..., None] - np.cumsum(np.log(np.maximum(count, 1.0))))
    return np.asarray((1 - np.minimum(np.cumsum(chance, axis=-1), 1.0) ** several[..., None]).sum(axis=-1))


def closed_decoding(found: Phases, steps: np.ndarray, batch: np.ndarray, *, rounds: float = math.inf) -> np.ndarray:
    """Return the time of decoding in a closed loop whose prompts share steps; of the first of its rounds, half of the prompts run before."""
    added, others, met = found.added, found.others(batch), 1 - 0.5 / rounds
    decoding = decoding_time(steps * found.decode, met * added, found.prompt, others)
    for _ in range(_ROUNDS):
        added = shared_prompts(found, others / np.maximum(decoding + found.prompt, 1e-12))
        decoding = decoding_time(steps * found.decode, met * added, found.prompt, others)
    return decoding


def full_batch(server: Server, lengths: Lengths) -> np.ndarray:
    """Return the batch that decodes while prompts fill every step: what each step has room for, for as many steps as an answer takes."""
    steps = decode_steps(server, lengths)
    if not server.mixed:
        return np.full(steps.shape, np.inf)
    return np.asarray(1 + steps * server.step_tokens / (lengths.prompt + server.verified * steps))


def decode_steps(server: Server, lengths: Lengths) -> np.ndarray:
    """Return the decode steps of a request: its first token comes with its prompt."""
    return (lengths.output - 1) / server.tokens


def conserved_rate(found: Phases, steps: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Return the requests a second that are not passed in whatever order: each takes its prompt, and its share of decode steps."""
    share = np.where(steps > 0, steps * found.decode / np.maximum(batch, 1e-9), 0.0)
    return np.asarray(1 / np.maximum(np.minimum(found.packed, found.added) + share, 1e-300))


def prompt_wait(
    found: Phases,
    batch: np.ndarray,
    rate: np.ndarray,
    cv: np.ndarray,
    added: np.ndarray | None = None,
    ranked: RankSteps | None = None,
) -> np.ndarray:
    r"""Return what a request waits for prompts that come before it at random, at some rate a second.

    The rest of a step, and a queue with one server (M/G/1). Where a step takes all prompts that came during the one before, steps last
    :math:`S = D + N \Delta P` with as many prompts N as came; an arrival meets one of :math:`S' = E[S^2]/E[S]`, waits for half of it, and
    its own step has the :math:`\lambda S'` others that it came with. Where prompts run first, it meets R decode steps or the prompts after
    them, and each other one adds c. `added` and `ranked` are what :func:`shared_prompts` and :func:`steps_of_ranks` say, if that is known.
    """
    some = found.busy(batch)
    queue = found.period / 2 * some + mg1_wait(np.minimum(rate * found.service, _NEARLY), found.service, service_cv=cv)
    ranked = steps_if_ranks(found, rate) if ranked is None else ranked
    added = shared_prompts(found, rate, ranked) if added is None else added
    share = np.minimum(rate * added, _NEARLY)
    mean = found.period / (1 - share)
    met = mean + rate * added**2 * (1 + cv**2) / (1 - share**2)
    together = np.where(found.first, beside_first(found, rate, share, some), np.maximum(met / 2 * some + share * met, queue))
    waited = np.where(found.bulk, together, queue)
    return np.asarray(waited) if ranked is None else np.where(found.ranks > 1, beside_ranks(found, rate, some, ranked[0]), waited)


def step_met(found: Phases, step: np.ndarray) -> np.ndarray:
    """Return the step of ranks that step together which an arrival meets, given the mean one: longer ones are met more often."""
    extra = step - found.decode
    return np.asarray(step + extra * np.maximum(found.added_by_one - extra, 0.0) / step)


def beside_ranks(found: Phases, rate: np.ndarray, some: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return what a request waits where it comes to one of several ranks: for half of a step, those before it on its rank, and the experts of the others' prompts."""
    met = step_met(found, step)
    before = mg1_wait(np.minimum(rate * found.parts * step, _NEARLY), found.parts * step)
    each = np.where(found.bulk, each_shared(found) * rate * met, before)
    return np.asarray(met / 2 * some + each)


def beside_first(found: Phases, rate: np.ndarray, share: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Return what a request waits where prompts run first, some share of the time: for half of what it meets, and for those that come with it."""
    met = found.period * ((1 - share) + share**2 / (1 - share))
    return np.asarray(met * some * (0.5 + rate * each_shared(found)))


def open_decoding(found: Phases, steps: np.ndarray, rate: np.ndarray, added: np.ndarray, wait: np.ndarray, *, mixed: bool) -> np.ndarray:
    r"""Return y, the time of decoding if prompts of others come at random at some rate; far beyond any where they leave no time.

    :math:`y = (y_0 + \lambda \Delta P\, T) / (1 - \lambda \Delta P)`: beside those that come during y, the prompts run that came while this
    request waited and its own prompt ran, W + P₁ (P₁ alone where prompts run first); those that still wait when it ends do not. With p, the share of steps with prompts,
    :math:`T = (1 - p)(W + P_1 - D)`; their number is exponential, and ends at the steps that have no other prompt. Where a step takes all prompts that came during the one before, T is by what its own step was longer
    than the mean one. `added` is what :func:`shared_prompts` says, and `wait` what :func:`prompt_wait` says.
    """
    share = rate * added
    left = np.maximum(1 - share, 1e-12)
    mean = found.period / left
    idle = 1 - np.minimum(rate * found.parts * mean, 1.0) * mixed
    own = np.where(found.bulk, found.prompt + share * mean - mean, idle * (wait + found.prompt - found.decode))
    own = np.where(found.first, found.prompt - (found.period + found.decode) / 2, own)
    more = share * np.maximum(own, 0.0) / left
    room = np.where(found.bulk | (not mixed), np.inf, steps * idle * found.added / np.maximum(found.parts, 1.0))
    more = np.where(np.isfinite(room), -more * np.expm1(-room / np.maximum(more, 1e-300)), more)
    return np.where(share < 1, steps * found.decode / left + more, _FAR) * (steps > 0)


def rates_seen(found: Phases, steps: np.ndarray, batch: np.ndarray, cv: np.ndarray, *, mixed: bool) -> np.ndarray:
    r"""Return the rates of requests at which a sequence sees such batches: the root of :math:`\lambda = (b - 1) / y(\lambda)` (Little), of R ranks :math:`b - 1 / R`.

    By the rule of false position (Illinois), which is quick as the right side is nearly a straight line: without others it is what no rate exceeds.
    """

    def over(rate: np.ndarray) -> np.ndarray:
        ranked = steps_if_ranks(found, rate)
        added = shared_prompts(found, rate, ranked)
        wait = prompt_wait(found, batch, rate, cv, added, ranked)
        return np.asarray(rate - found.others(batch) / np.maximum(open_decoding(found, steps, rate, added, wait, mixed=mixed), 1e-12))

    low = np.zeros(batch.shape)
    below = over(low)
    high = -below
    above, middle = over(high), high
    for _ in range(_SECANTS):
        apart = above - below
        middle = np.where(apart > 0, (low * above - high * below) / np.where(apart > 0, apart, 1.0), high)
        value = over(middle)
        under = value < 0
        above, below = np.where(under, above / 2, value), np.where(under, value, below / 2)
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return np.where(steps > 0, middle, np.where(found.others(batch) > 0, np.inf, 0.0))


def most_decoding(found: Phases, steps: np.ndarray, *, mixed: bool) -> np.ndarray:
    """Return how long decoding takes with a prompt in each of its steps, where no step has several and none is between them."""
    return np.where(found.bulk | (not mixed), np.inf, steps * found.stall)


def closed_loop(server: Server, lengths: Lengths, clients: np.ndarray, limit: Limit, *, rounds: float, outside_s: float = 0.0) -> Point:
    """Return where a server is if clients each send a request when the one before has ended, all at once at first, `rounds` times.

    A request takes `outside_s` besides, which its client notices and the server does not. With fewer clients than lanes some lanes have none, and
    the others one each.
    """
    steps, held = decode_steps(server, lengths), np.minimum(clients, limit.most)
    batch = least_batch(server, held)
    found = phases(server, lengths, batch, lockstep=True)
    lockstep, (decoding, queue) = lengths.alike & (steps > 0) & (not server.mixed), lockstep_times(found, steps, batch)
    decoding = np.where(lockstep, decoding, closed_decoding(found, steps, batch, rounds=rounds))
    rate = held / (decoding + found.prompt + np.where(lockstep, queue, 0.0))
    cause = np.where(clients > limit.most, limit.cause, NOTHING)
    full = (rate * found.service > 1) & (rate > conserved_rate(found, steps, batch)) & ~lockstep
    if full.any():
        batch = np.where(full, np.minimum(batch, full_batch(server, lengths)), batch)
        found = phases(server, lengths, batch, lockstep=True)
        most = conserved_rate(found, steps, batch)
        others = np.maximum(batch - 1, 0.0) / batch
        decoding = np.where(full, steps * found.decode / (1 - most * found.packed * others), decoding)
        cause = np.where(full, PROMPTS, cause)
    free, rate = rate, np.where(lockstep, rate, np.minimum(rate, conserved_rate(found, steps, batch)))
    kept_back = np.where(rate < free, held / rate - decoding - found.prompt, 0.0)
    queue = np.where(lockstep, queue, loop_wait(found, batch, rate, lengths.prompt_cv, rounds=rounds, at_least=kept_back))
    queue = queue + (1 - 1 / rounds) * np.maximum(clients - held, 0.0) / rate
    answered = np.minimum(rate, clients / (outside_s + queue + found.prompt + decoding))
    return Point(batch, found, decoding, queue, found.prompt, answered, rate, cause)


def lockstep_times(found: Phases, steps: np.ndarray, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return decoding and wait where all requests are of one length: they end together, and all their prompts come together.

    As many as fit share a step; half of the others come before one, and half of them after it.
    """
    others = np.maximum(batch - found.together, 0.0) / 2
    return steps * found.decode + others * found.added, others * found.prompt / found.together


def loop_wait(found: Phases, batch: np.ndarray, rate: np.ndarray, cv: np.ndarray, *, rounds: float, at_least: Number = 0.0) -> np.ndarray:
    """Return what a request of a closed loop waits for its prompt to begin.

    In the first round all prompts come together, and half of the others are before one. Later they come at random, and no more than half of
    the others are waited for.
    """
    others = np.maximum(batch - 1, 0.0)
    first = others / 2 * np.minimum(found.service, found.alone)
    later = np.minimum(prompt_wait(found, batch, rate * others / np.maximum(batch, 1.0), cv), found.period + others / 2 * found.service)
    waited: np.ndarray = np.maximum(at_least, first / rounds + (1 - 1 / rounds) * later)
    return waited


def least_batch(server: Server, held: np.ndarray) -> np.ndarray:
    """Return the batch of a lane that holds so many sequences on average: there is one in a step, if only on one of the ranks that step together."""
    return np.asarray(np.maximum(held, 1 / server.ranks))


def static_batches(server: Server, lengths: Lengths, clients: np.ndarray, limit: Limit) -> Point:
    """Return where a server is that begins a batch when the one before has ended: all prompts first, then all answers."""
    steps, held = decode_steps(server, lengths), np.minimum(clients, limit.most)
    batch = least_batch(server, held)
    found = phases(server, lengths, batch, lockstep=True)
    prompts, decoding = np.maximum(batch, 1.0) * found.added, steps * found.decode
    rate = held / (prompts + decoding)
    waiting = np.maximum(clients - held, 0.0) / rate
    return Point(batch, found, decoding, waiting, prompts, rate, rate, np.where(clients > limit.most, limit.cause, NOTHING))
