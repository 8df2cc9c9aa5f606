"""What a step that verifies drafts yields."""

from collections.abc import Sequence

from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.units import whole_number


@checks_call
def expected_tokens(drafts: int, acceptance: float | Sequence[float]) -> float:
    r"""Return the tokens that one speculative verification yields on average: :math:`1 + \sum_{i=1}^k \prod_{j \le i} a_j`.

    With the same probability for every draft that is :math:`(1 - a^{k+1})/(1 - a)`.

    Parameters
    ----------
    drafts : int
        k, draft tokens [token].
    acceptance : float or sequence of float
        a, probability that a draft is accepted, given that those before it were; one for all, or one for each position [-].

    Returns
    -------
    float
        Between 1 and k + 1 [token].

    Raises
    ------
    InvalidValueError
        If an `acceptance` is not within 0 … 1, or there is not one for each draft.

    References
    ----------
    Leviathan, Kalman, Matias, arXiv 2211.17192, equation 1.

    Examples
    --------
    >>> expected_tokens(3, 0.5), expected_tokens(2, [0.8, 0.5])
    (1.875, 2.2)
    """
    k = whole_number("drafts", drafts)
    if isinstance(acceptance, (list, tuple)):
        if len(acceptance) != k:
            raise InvalidValueError(f"acceptance has {len(acceptance)} probabilities for {k} drafts; give one for each, or one for all.")
        tokens, all_before = 1.0, 1.0
        for each in acceptance:
            all_before *= _probability(each)
            tokens += all_before
        return tokens
    a = _probability(acceptance)
    return float(k + 1) if a == 1 else (1 - a ** (k + 1)) / (1 - a)


def _probability(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidValueError(f"acceptance is {quoted(value)}; it must be a probability, 0 … 1, or a list of one for each draft.")
    return float(value)
