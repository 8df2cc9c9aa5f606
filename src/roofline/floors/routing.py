"""What a floor takes for granted about how tokens spread over experts."""

from roofline.ops import Routing

__all__ = ["routing_note"]

_NOTES = {
    "uniform": "experts touched as under uniform, independent routing, on average: skewed routing touches fewer; routing='best' is unconditional",
    "best": "all tokens agree on their experts: a bound whatever the routing",
}


def routing_note(routing: Routing) -> str:
    """Say under which condition a floor over experts holds.

    Parameters
    ----------
    routing : str or tuple of float
        How tokens spread over experts [-].

    Returns
    -------
    str
        A sentence [-].
    """
    return _NOTES.get(str(routing), "experts touched as the popularity given says, on average")
