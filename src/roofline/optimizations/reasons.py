"""Why a lever helps or does not, from the roofs before and after."""

from roofline.bounds import Roofs
from roofline.explanation import NOTICEABLE, ROOFS
from roofline.floors import Floor
from roofline.units import show_time

_ROUNDING = 1e-9


def reason(base: Floor, roofs: Roofs, *, gain: float, roofline_gain: float, tokens: float) -> str:
    """Say why a lever helps, or why it does not, from the roofs before and after."""
    before = {name: getattr(base, field) for field, name in ROOFS.items()}
    after = {name: getattr(roofs, field) / tokens for field, name in ROOFS.items()}
    binds, then = str(base.roof), str(roofs.binding)
    if gain >= 1 + NOTICEABLE:
        share = " for the tokens of one step as it was" if tokens != 1 else ""
        next_bound = f", where {then} binds" if then != binds else ""
        return f"{binds} binds, and falls from {show_time(before[binds])} to {show_time(after[binds])}{share}{next_bound}"
    if gain <= 1 - NOTICEABLE:
        raised = [name for name in before if after[name] > before[name] * (1 + NOTICEABLE)]
        return f"it adds {' and '.join(raised) or then} time"
    return _no_gain(before, after, binds, roofline_gain)


def _no_gain(before: dict[str, float], after: dict[str, float], binds: str, roofline_gain: float) -> str:
    """Say why a lever changes nothing that is noticeable."""
    lowered = [name for name in before if after[name] < before[name] * (1 - NOTICEABLE)]
    if roofline_gain >= 1 + NOTICEABLE and not lowered:
        return "it saves only activation traffic, which the floor does not count: the gain is in the roofline time"
    if after[binds] < before[binds] * (1 - _ROUNDING):
        return f"{binds} binds, and falls by {1 - after[binds] / before[binds]:.2%} only"
    if lowered:
        others = " and ".join(f"{name} {show_time(before[name])}" for name in lowered)
        return f"{' and '.join(lowered)} is not what binds: {others} against {binds} {show_time(before[binds])}"
    return "it changes no roof of this step"
