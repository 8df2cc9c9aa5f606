"""How tokens spread over experts: what a routing may be, and what a result says of it."""

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.names import nearest_names


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """Experts of unequal popularity, see :func:`busiest_popularity`.

    Parameters
    ----------
    exponent : float
        α of the density :math:`x^{-α}` of popularities; 0 for equal ones [-].
    """

    exponent: float

    def __str__(self) -> str:
        return f"power_law_{self.exponent:.12g}"


Routing = Literal["uniform", "best"] | PowerLaw | tuple[float, ...]
"""How tokens spread over experts: ``"uniform"``, ``"best"``, a power law, or the probability that a token visits each expert."""

_NAMED: dict[str, Literal["uniform", "best"]] = {"uniform": "uniform", "best": "best"}
_LAW = re.compile(r"power_law_((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)", re.ASCII)


def parse_routing(routing: Any) -> Routing:
    """Return a routing in the form that all other functions take; called once for each question.

    Examples
    --------
    >>> parse_routing("power_law_1.2")
    PowerLaw(exponent=1.2)
    """
    near: list[str] = []
    if isinstance(routing, PowerLaw):
        return routing
    if isinstance(routing, str):
        if routing in _NAMED:
            return _NAMED[routing]
        law = _LAW.fullmatch(routing)
        if law is not None and np.isfinite(float(law[1])):
            return PowerLaw(float(law[1]))
        near = nearest_names(routing, (*_NAMED, "power_law_1.2"), most=1)
    elif routing is not None:
        try:
            popularity = np.asarray(routing, dtype=float)
        except (TypeError, ValueError, OverflowError):
            popularity = np.empty(0)
        if popularity.ndim == 1 and popularity.size and np.all(popularity >= 0) and np.isfinite(popularity).all():
            return tuple(popularity.tolist())
    raise InvalidValueError(
        f"routing is {quoted(routing)}; it must be 'uniform', 'best', 'power_law_' and an exponent of at least 0 (power_law_1.2), "
        f"or an array with the popularity of each expert{f'; nearest: {near[0]}' if near else ''}."
    )


_NOTES = {
    "uniform": "assumes that tokens pick experts uniformly and independently; skewed routing reads fewer experts, so that this is no bound "
    "for it. routing='best' is a bound for any routing",
    "best": "all tokens pick the same experts: a bound for any routing",
}
_AVERAGE = "; work of an average device; the busiest one does more (try routing='power_law_1.2')"
_BUSIEST = "visits, experts read and traffic are those of the busiest device, averaged over random placements of experts"


def routing_note(routing: Routing, ranks: int = 1) -> str:
    """Say under which condition a time over experts holds, for experts spread over `ranks` devices."""
    if isinstance(routing, PowerLaw):
        law = f"popularity of experts follows a power law of exponent {routing.exponent:g}"
        return f"{law}: {_BUSIEST if ranks > 1 else 'every expert gets its share of the visits'}; no bound for other routings"
    if not isinstance(routing, str):
        return "experts read on average under the popularity given"
    return _NOTES[routing] + (_AVERAGE if routing == "uniform" and ranks > 1 else "")
