"""The step's aggregates as symbols: what the coefficients of a compiled model multiply."""

import math

from roofline import ops
from roofline.arithmetic import LinearForm, Number, maximum, minimum
from roofline.errors import InvalidValueError
from roofline.model import Experts
from roofline.ops import PowerLaw, busiest_popularity, shared_experts
from roofline.step import Aggregate, Step, Visibility, cached_positions, visible_pairs


def _tokens(step: Step) -> object:
    return step.tokens


def _sampled(step: Step) -> object:
    return step.sampled


def _any_sampled(step: Step) -> object:
    return step.any_sampled


def _sequences(step: Step) -> object:
    return step.sequences


def _continued(step: Step) -> object:
    return step.continued


TOKENS = LinearForm.of(Aggregate("tokens", _tokens))
SAMPLED = LinearForm.of(Aggregate("sampled", _sampled))
ANY_SAMPLED = LinearForm.of(Aggregate("any sampled", _any_sampled))
SEQUENCES = LinearForm.of(Aggregate("sequences", _sequences))
CONTINUED = LinearForm.of(Aggregate("continued", _continued))


def pairs(visibility: Visibility) -> LinearForm:
    """Return the symbol for a step's query-key pairs."""
    return LinearForm.of(Aggregate("pairs", Step.pairs, (visibility,), divided=True))


def read(visibility: Visibility) -> LinearForm:
    """Return the symbol for a step's cached positions read [token]."""
    return LinearForm.of(Aggregate("read", Step.read, (visibility,), divided=True))


def written(visibility: Visibility) -> LinearForm:
    """Return the symbol for a step's positions written [token]."""
    return LinearForm.of(Aggregate("written", Step.written, (visibility,), divided=True))


def held(visibility: Visibility) -> LinearForm:
    """Return the symbol for the positions that stay cached after a step [token]."""
    return LinearForm.of(Aggregate("held", Step.held, (visibility,), divided=True))


def touched_experts(part: Experts, visits: float, routing: ops.Routing) -> LinearForm:
    """Return the symbol for the distinct experts of one device that a step touches in one layer."""
    if isinstance(routing, PowerLaw):
        popularity = busiest_popularity(routing.exponent, count=part.count, visits=visits, ranks=part.ranks)
        whole = math.ceil(part.visits(best=True) / part.ranks)  # what the busiest device gets of a single token
        return LinearForm.of(Aggregate("distinct experts", _shared, (popularity, whole, part.gathered)))
    if part.ranks > 1 and not isinstance(routing, str):
        raise InvalidValueError(
            "with expert_parallel above 1, routing is 'uniform', 'best' or a power law: popularities do not say which device is busiest."
        )
    here, least = (visits, 0) if part.ranks == 1 else (visits / part.ranks, math.ceil(visits / part.ranks))
    if routing == "best":
        here = math.ceil(here)  # the busiest device is visited by whole experts
    return LinearForm.of(Aggregate("distinct experts", _distinct, (part.local, here, routing, part.gathered, least)))


def _distinct(step: Step, count: int, top_k: float, routing: ops.Routing, gathered: int, least: int) -> Number:
    """Distinct experts of a device: of several, the busiest touches as many as a single token makes it, however many the average one does."""
    tokens = step.tokens * gathered
    touched = ops.distinct_experts(tokens, count=count, top_k=top_k, routing=routing)
    return maximum(touched, minimum(tokens, 1) * least) if least else touched


def _shared(step: Step, popularity: tuple[float, ...], least: int, gathered: int) -> Number:
    return shared_experts(step.tokens * gathered, popularity, least=least)


def latent_flops(visibility: Visibility, heads: int, rank: int, nope_dim: int, rope_dim: int, v_dim: int) -> LinearForm:
    """Return the symbol for the FLOP of latent attention, each sequence in its cheaper form [FLOP]."""
    return LinearForm.of(Aggregate("latent attention FLOP", _latent, (visibility, heads, rank, nope_dim, rope_dim, v_dim), divided=True))


def _latent(step: Step, visibility: Visibility, heads: int, rank: int, nope_dim: int, rope_dim: int, v_dim: int) -> Number:
    return step.total(
        lambda g: ops.latent_attention_flops(
            pairs=visible_pairs(g.new, g.cached, visibility),
            reexpanded=cached_positions(g.new, g.cached, visibility),
            heads=heads,
            rank=rank,
            nope_dim=nope_dim,
            rope_dim=rope_dim,
            v_dim=v_dim,
        )
    )
