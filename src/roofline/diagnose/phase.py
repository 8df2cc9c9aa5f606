"""One phase of a run: how long it took beside floor and estimate, what binds it, what was lost, what would help."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from roofline.measured import Label, Part
from roofline.units import show_time

HEALTHY = 1.5
"""Measured over estimate, above which something else than the step is looked for; runs without a fault lie at 1.1 to 1.4 [-]."""
FAR = 3.0
"""Measured over floor, above which the same is done where there is no estimate; runs without a fault lie at 1.6 to 2.2 [-]."""

WORDS = {
    "memory": "the bandwidth of the memory",
    "compute": "arithmetic",
    "network": "the links between devices",
    "capacity": "the capacity of the memory",
    "host": "the host: devices wait for it",
    "front end": "what a request goes through before its step: HTTP, tokenizer, scheduler",
    "queue": "waiting: requests queue",
    "prompts of others": "prompts of other requests, which share the steps",
    "matrices": "kernels of matrix products, which are far from their roof",
    "experts": "kernels of the experts, which are far from their roof",
    "cache": "kernels of attention, which are far from their roof",
    "collectives": "what devices exchange",
    "small kernels": "norms, activations and other small kernels",
    "labels": "nothing real: it is faster than possible, so something is not as it was said",
    "not explained": "something that the input does not show",
    "": "not known",
}
"""What binds, in words."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that makes a phase slower than its estimate, looked for in the input.

    Parameters
    ----------
    name : str
        ``"capacity"``, ``"queue"``, ``"prompts of others"``, ``"host"``, ``"front end"`` or ``"labels"``; of a trace a kind of kernels too [-].
    found : bool or None
        Whether it is there; None where the input cannot tell [-].
    text : str
        The numbers that say so, or what is missing [-].
    """

    name: str
    found: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something to do about a phase, evaluated.

    Parameters
    ----------
    name : str
        A lever of :func:`roofline.optimizations.levers`, or the loss that would be gone [-].
    helps : bool
        Whether the measured time gains noticeably [-].
    gain : float
        How many times faster if all of the measured time beyond the floor stays as it is [-].
    most : float
        How many times faster at most: at the floor, or without all of the loss [-].
    reason : str
        Why [-].
    cost : str
        What it costs; empty where nothing is known of it [-].
    """

    name: str
    helps: bool
    gain: float
    most: float
    reason: str
    cost: str = ""

    def line(self) -> str:
        """Return it in one line [-]."""
        span = f"{self.gain:.2f}×" if abs(self.most - self.gain) < 0.005 else f"{self.gain:.2f}× – {self.most:.2f}×"
        return f"{self.name}: {span}; {self.reason}" + (f"; cost: {self.cost}" if self.cost and self.helps else "")


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of a run.

    Parameters
    ----------
    name : str
        ``"prefill"``, ``"decode"``, ``"mixed"``, ``"request"``, or what a profile calls it; with the deployment where there are several [-].
    what : str
        What was timed [-].
    measured_s : float
        How long it took [s].
    floor_s, estimate_s, served_s : float, optional
        The least time, the time to expect of the step alone, and that at this load [s].
    roof : str
        Which roof binds the floor: ``"memory"``, ``"compute"``, ``"network"`` or ``"capacity"``; empty where that is not known [-].
    intensity, ridge : float, optional
        FLOP of a byte, and how many would take as long as the byte [FLOP/B].
    mbu, mfu : float, optional
        Share of bandwidth and of peak that were used [-].
    best_mfu : float, optional
        The MFU that the floor itself has: no implementation has more [-].
    binds : str
        What binds it in truth: the roof, or the cause that was found [-].
    why : str
        What says so [-].
    causes : tuple of Cause
        What was looked for, in order; none where the time is as expected [-].
    losses : tuple of Part
        The three largest parts of the time beyond the floor [s].
    remedies : tuple of Remedy
        What would help, the largest gain first, then what would not [-].
    labels : tuple of Label
        Below the floor: what would explain it [-].
    """

    name: str
    what: str
    measured_s: float
    floor_s: float | None = None
    estimate_s: float | None = None
    served_s: float | None = None
    roof: str = ""
    intensity: float | None = None
    ridge: float | None = None
    mbu: float | None = None
    mfu: float | None = None
    best_mfu: float | None = None
    binds: str = ""
    why: str = ""
    causes: tuple[Cause, ...] = ()
    losses: tuple[Part, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    labels: tuple[Label, ...] = ()

    @property
    def over_floor(self) -> float | None:
        """Measured over floor [-]."""
        return self.measured_s / self.floor_s if self.floor_s else None

    @property
    def over_estimate(self) -> float | None:
        """Measured over the estimate of the step alone [-]."""
        return self.measured_s / self.estimate_s if self.estimate_s else None

    @property
    def helps(self) -> tuple[Remedy, ...]:
        """What would help [-]."""
        return tuple(remedy for remedy in self.remedies if remedy.helps)

    @property
    def does_not_help(self) -> tuple[Remedy, ...]:
        """What would not [-]."""
        return tuple(remedy for remedy in self.remedies if not remedy.helps)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain Python.

        Returns
        -------
        dict
            Fields by name, with the ratios [SI].
        """
        nested = ("causes", "losses", "remedies", "labels")
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in nested}
        rows = {name: [_row(one) for one in getattr(self, name)] for name in nested}
        return {**own, "over_floor": self.over_floor, "over_estimate": self.over_estimate, **rows}

    def times(self) -> str:
        """Return measured, floor and estimates in one line [-]."""
        text = f"{show_time(self.measured_s)} measured ({self.what})"
        if self.floor_s:
            text += f"; {self.over_floor:.3g} × the floor of {show_time(self.floor_s)}"
        if self.estimate_s:
            text += f"; {self.over_estimate:.3g} × the estimate of {show_time(self.estimate_s)}"
        if self.served_s:
            text += f"; {self.measured_s / self.served_s:.3g} × that at this load, {show_time(self.served_s)}"
        return text

    def roof_line(self) -> str:
        """Return which roof binds the floor, and by which numbers; empty where that is not known [-]."""
        if not self.roof:
            return ""
        words = [f"the floor is {self.roof}-bound"]
        if self.intensity is not None and self.ridge is not None:
            words.append(f"{self.intensity:.3g} FLOP/B, the balance is at {self.ridge:.3g}")
        words += [f"{name.upper()} {share:.0%}" for name in ("mbu", "mfu") if (share := getattr(self, name)) is not None]
        return ", ".join(words)


def _row(one: Any) -> Mapping[str, Any]:
    return {each.name: getattr(one, each.name) for each in fields(one) if each.name != "change"}


def is_slow(measured_s: float, estimate_s: float | None, floor_s: float) -> bool:
    """Return whether a time is so far above what is expected that a cause is looked for."""
    return measured_s > (FAR * floor_s if estimate_s is None else HEALTHY * estimate_s)


def verdict(
    phase_roof: str, measured_s: float, estimate_s: float | None, floor_s: float | None, causes: Iterable[Cause]
) -> tuple[str, str]:
    """Return what binds a phase, and what says so."""
    causes = tuple(causes)
    found = next((cause for cause in causes if cause.found), None)
    if found is not None:
        return found.name, found.text
    if floor_s is None:
        return "", "without the machine and the model there is no floor to hold it against"
    roof = phase_roof or "not explained"
    if estimate_s is None:
        far = f"{measured_s / floor_s:.3g} × its floor; runs without a fault lie at 1.6 to 2.2"
        return ("not explained", f"{far}, and nothing in the input shows why") if is_slow(measured_s, None, floor_s) else (roof, far)
    ratio = measured_s / estimate_s
    if ratio < 1 / HEALTHY:
        return (
            roof,
            f"{ratio:.3g} × its estimate: faster than runs are expected to be, so the estimate is not of these kernels, or a label is wrong",
        )
    if ratio <= HEALTHY:
        return roof, f"{ratio:.3g} × its estimate, as runs without a fault take (up to {HEALTHY:g})"
    return "not explained", f"{ratio:.3g} × its estimate, and nothing in the input shows why"


def impossible(over_floor: float, labels: Iterable[Label]) -> tuple[str, str]:
    """Return what binds a phase that is shorter than its floor: nothing, since something is not as it was said."""
    lifts = [label.name for label in labels if label.lifts]
    return "labels", f"{over_floor:.3g} × what is possible; explained by: {', '.join(lifts) or 'no single label'}"
