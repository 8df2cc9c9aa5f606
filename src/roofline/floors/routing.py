"""What a floor takes for granted about how tokens spread over experts."""

from roofline.ops import PowerLaw, Routing

_NOTES = {
    "uniform": "experts touched as under uniform, independent routing, on average: skewed routing touches fewer; routing='best' is unconditional",
    "best": "all tokens agree on their experts: a bound whatever the routing",
}
_AVERAGE = "; an average device's share of experts and visits, of which the busiest has more: routing='power_law_1.2' is one such"
_BUSIEST = "visits, experts touched and traffic are those of the busiest device on average, experts placed at random"


def routing_note(routing: Routing, ranks: int = 1) -> str:
    """Say under which condition a floor over experts holds."""
    if isinstance(routing, PowerLaw):
        law = f"popularity of experts follows a power law of exponent {routing.exponent:g}"
        return f"{law}: {_BUSIEST if ranks > 1 else 'every expert gets its share of the visits'}; no bound for other routings"
    return _NOTES.get(str(routing), "experts touched as the popularity given says, on average") + (
        _AVERAGE if routing == "uniform" and ranks > 1 else ""
    )
