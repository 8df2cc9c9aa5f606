"""The step's aggregates as symbols: what the coefficients of a compiled model multiply."""

from roofline.arithmetic import LinearForm
from roofline.step import Aggregate, Step, Visibility

__all__ = ["ANY_SAMPLED", "SAMPLED", "SEQUENCES", "TOKENS", "held", "pairs", "read", "written"]


def _tokens(step: Step) -> object:
    return step.tokens


def _sampled(step: Step) -> object:
    return step.sampled


def _any_sampled(step: Step) -> object:
    return step.any_sampled


def _sequences(step: Step) -> object:
    return step.sequences


TOKENS = LinearForm.of(Aggregate("tokens", _tokens))
SAMPLED = LinearForm.of(Aggregate("sampled", _sampled))
ANY_SAMPLED = LinearForm.of(Aggregate("any sampled", _any_sampled))
SEQUENCES = LinearForm.of(Aggregate("sequences", _sequences))


def pairs(visibility: Visibility) -> LinearForm:
    """Return the symbol for a step's query-key pairs.

    Parameters
    ----------
    visibility : Visibility
        Which positions a token sees [-].

    Returns
    -------
    LinearForm
        The symbol [-].
    """
    return LinearForm.of(Aggregate("pairs", Step.pairs, (visibility,)))


def read(visibility: Visibility) -> LinearForm:
    """Return the symbol for a step's cached positions read.

    Parameters
    ----------
    visibility : Visibility
        Which positions a token sees [-].

    Returns
    -------
    LinearForm
        The symbol [token].
    """
    return LinearForm.of(Aggregate("read", Step.read, (visibility,)))


def written(visibility: Visibility) -> LinearForm:
    """Return the symbol for a step's positions written.

    Parameters
    ----------
    visibility : Visibility
        Which positions a token sees [-].

    Returns
    -------
    LinearForm
        The symbol [token].
    """
    return LinearForm.of(Aggregate("written", Step.written, (visibility,)))


def held(visibility: Visibility) -> LinearForm:
    """Return the symbol for the positions that stay cached after a step.

    Parameters
    ----------
    visibility : Visibility
        Which positions a token sees [-].

    Returns
    -------
    LinearForm
        The symbol [token].
    """
    return LinearForm.of(Aggregate("held", Step.held, (visibility,)))
