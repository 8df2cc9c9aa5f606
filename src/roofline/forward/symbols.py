"""The step's aggregates as symbols: what the coefficients of a compiled model multiply."""

import math
from collections.abc import Callable

from roofline import ops
from roofline.arithmetic import LinearForm, Number, maximum, minimum
from roofline.errors import InvalidValueError
from roofline.model import Experts
from roofline.ops import PowerLaw, busiest_popularity, shared_experts
from roofline.ops.latent_attention import latent_attention_flops
from roofline.step import Aggregate, Sequences, Step, Visibility
from roofline.visibility import cached_positions, visible_pairs, written_positions


def _new(g: Sequences) -> Number:
    return g.new


def _sampled(g: Sequences) -> Number:
    return g.sampled


def _one(g: Sequences) -> Number:
    return 1


def _continued(g: Sequences) -> Number:
    return minimum(g.cached, 1)


def _fresh(g: Sequences) -> Number:
    return 1 - minimum(g.cached, 1)


def _any_fresh(step: Step) -> Number:
    return minimum(step.total(_fresh), 1)


def _drafting(g: Sequences) -> Number:
    return minimum(g.sampled, 1)


def _any_sampled(step: Step) -> Number:
    return step.any_sampled


TOKENS = LinearForm.of(Aggregate("tokens", _new))
SAMPLED = LinearForm.of(Aggregate("sampled", _sampled))
ANY_SAMPLED = LinearForm.of(Aggregate("any sampled", _any_sampled, whole=True))
DRAFTING = LinearForm.of(Aggregate("drafting sequences", _drafting))
SEQUENCES = LinearForm.of(Aggregate("sequences", _one))
CONTINUED = LinearForm.of(Aggregate("continued", _continued))
FRESH = LinearForm.of(Aggregate("fresh", _fresh))
ANY_FRESH = LinearForm.of(Aggregate("any fresh", _any_fresh, whole=True))


def pairs(visibility: Visibility) -> LinearForm:
    """Return the symbol for a step's query-key pairs."""
    return LinearForm.of(Aggregate("pairs", _pairs, (visibility,), divided=True))


def _pairs(g: Sequences, visibility: Visibility) -> Number:
    if visibility.looks_ahead:
        g.refuse_cache()
    return visible_pairs(g.new, g.cached, visibility)


def read(visibility: Visibility) -> LinearForm:
    """Return the symbol for a step's cached positions read [token]."""
    return LinearForm.of(Aggregate("read", _read, (visibility,), divided=True))


def _read(g: Sequences, visibility: Visibility) -> Number:
    return cached_positions(g.new, g.cached, visibility)


def written(visibility: Visibility) -> LinearForm:
    """Return the symbol for a step's positions written [token]."""
    return LinearForm.of(Aggregate("written", _written, (visibility,), divided=True))


def _written(g: Sequences, visibility: Visibility) -> Number:
    return written_positions(g.new, g.cached, visibility)


def source_pairs(positions: int) -> LinearForm:
    """Return the symbol for the pairs of new tokens and so many positions of their source."""
    return LinearForm.of(Aggregate("source pairs", _source_pairs, (positions,), divided=True))


def _source_pairs(g: Sequences, positions: int) -> Number:
    return g.new * positions


def source_read(positions: int) -> LinearForm:
    """Return the symbol for the positions of sources that were written before a step [token]."""
    return LinearForm.of(Aggregate("source read", _source_read, (positions,), divided=True))


def _source_read(g: Sequences, positions: int) -> Number:
    return minimum(g.cached, 1) * positions


def source_written(positions: int) -> LinearForm:
    """Return the symbol for the positions of sources that a step writes [token]."""
    return LinearForm.of(Aggregate("source written", _source_written, (positions,), divided=True))


def _source_written(g: Sequences, positions: int) -> Number:
    return _fresh(g) * positions


def drafted(form: Number) -> LinearForm:
    """Return an amount of a step as that of the pass that drafts one more token, which runs only where a row is sampled."""
    return _of_another(form, ANY_SAMPLED, "drafted", _drafted)


def _drafted(step: Step, aggregate: Aggregate) -> Number:
    return aggregate.of(step.drafted)


def encoded(form: Number, positions: int, times: int = 1) -> LinearForm:
    """Return an amount of a step as that of an encoder's passes over so many positions for every sequence of which nothing is cached."""
    return _of_another(form, ANY_FRESH, "encoded", _encoded, positions, times)


def _encoded(step: Step, aggregate: Aggregate, positions: int, times: int) -> Number:
    return aggregate.of(type(step)(tuple(Sequences(g.count * _fresh(g) * times, positions, 0, positions) for g in step.groups)))


def _of_another(form: Number, runs: LinearForm, name: str, value: Callable[..., Number], *arguments: int) -> LinearForm:
    """Return an amount of a step as that of another step made of it, which `runs` or does not."""
    terms = LinearForm.coerce(form).terms
    total: LinearForm = runs * terms.pop(1, 0)
    for symbol, coefficient in terms.items():
        if isinstance(symbol, Aggregate):
            total += coefficient * LinearForm.of(Aggregate(f"{name} {symbol}", value, (symbol, *arguments), symbol.divided, whole=True))
    return total


def touched_experts(part: Experts, visits: float, routing: ops.Routing) -> LinearForm:
    """Return the symbol for the distinct experts of one device that a step touches in one layer."""
    if isinstance(routing, PowerLaw):
        popularity = busiest_popularity(routing.exponent, count=part.count, visits=visits, ranks=part.ranks)
        whole = math.ceil(part.visits(best=True) / part.ranks)  # experts of the busiest device that a single token visits
        return LinearForm.of(Aggregate("distinct experts", _shared, (popularity, whole, part.gathered), whole=True))
    if part.ranks > 1 and not isinstance(routing, str):
        raise InvalidValueError(
            "with expert_parallel above 1, routing is 'uniform', 'best' or a power law: popularities do not say which device is busiest."
        )
    here, least = (visits, 0) if part.ranks == 1 else (visits / part.ranks, math.ceil(visits / part.ranks))
    if routing == "best":
        here = math.ceil(here)  # the busiest device is visited by whole experts
    return LinearForm.of(Aggregate("distinct experts", _distinct, (part.local, here, routing, part.gathered, least), whole=True))


def gathered_tokens(gathered: int) -> LinearForm:
    """Return the symbol for the tokens that experts serve: those of all data-parallel ranks that gather theirs [token]."""
    return TOKENS if gathered == 1 else LinearForm.of(Aggregate("gathered tokens", _gathered, (gathered,), whole=True))


def _gathered(step: Step, gathered: int) -> Number:
    """Tokens of all ranks if the step is the part of one of them, else as if all had as many as this one."""
    return step.tokens * gathered if gathered == 1 or step.whole is None else step.whole.tokens


def _distinct(step: Step, count: int, top_k: float, routing: ops.Routing, gathered: int, least: int) -> Number:
    """Distinct experts read by the busiest device: at least those that a single token makes it read."""
    tokens = _gathered(step, gathered)
    touched = ops.distinct_experts(tokens, count=count, top_k=top_k, routing=routing)
    return maximum(touched, minimum(tokens, 1) * least) if least else touched


def _shared(step: Step, popularity: tuple[float, ...], least: int, gathered: int) -> Number:
    return shared_experts(_gathered(step, gathered), popularity, least=least)


def latent_flops(visibility: Visibility, heads: int, rank: int, nope_dim: int, rope_dim: int, v_dim: int) -> LinearForm:
    """Return the symbol for the FLOP of latent attention, each sequence in its cheaper form [FLOP]."""
    return LinearForm.of(Aggregate("latent attention FLOP", _latent, (visibility, heads, rank, nope_dim, rope_dim, v_dim), divided=True))


def _latent(g: Sequences, visibility: Visibility, heads: int, rank: int, nope_dim: int, rope_dim: int, v_dim: int) -> Number:
    return latent_attention_flops(
        pairs=visible_pairs(g.new, g.cached, visibility),
        reexpanded=cached_positions(g.new, g.cached, visibility),
        heads=heads,
        rank=rank,
        nope_dim=nope_dim,
        rope_dim=rope_dim,
        v_dim=v_dim,
    )
