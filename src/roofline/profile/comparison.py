"""Two profiles beside each other: what became faster, what slower, and what is new."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.names import unknown_name
from roofline.profile.result import Profile
from roofline.profile.rows import OperatorTime, short, show_change
from roofline.results import Result
from roofline.units import show_time

_VIEWS = {"operator": Profile.by_operator, "module": Profile.by_module, "phase": Profile.by_phase}
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Change:
    """One operator, module or phase in two profiles.

    Parameters
    ----------
    name : str
        What it is called in both [-].
    phase : str, optional
        Its phase [-].
    before, after : OperatorTime, optional
        Its sums; None where it does not occur [-].
    """

    name: str
    phase: str | None
    before: OperatorTime | None
    after: OperatorTime | None

    @property
    def before_s(self) -> float:
        """Its time in the first profile; 0 where it does not occur [s]."""
        return self.before.time_s if self.before else 0.0

    @property
    def after_s(self) -> float:
        """Its time in the second profile; 0 where it does not occur [s]."""
        return self.after.time_s if self.after else 0.0

    @property
    def saved_s(self) -> float:
        """Time that it takes less; negative where it takes more [s]."""
        return self.before_s - self.after_s

    @property
    def gain(self) -> float | None:
        """Time before over after; None where it occurs in one of them only [-]."""
        return self.before_s / self.after_s if self.before and self.after and self.after_s else None


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class ProfileComparison(Result):
    """Two profiles beside each other.

    Parameters
    ----------
    before, after : Profile
        The two [-].
    by : str
        What is compared: ``"operator"``, ``"module"`` or ``"phase"`` [-].
    changes : tuple of Change
        The largest differences first [-].
    """

    before: Profile
    after: Profile
    by: str
    changes: tuple[Change, ...]

    _numbers = ("before_s", "after_s", "saved_s", "gain")

    @property
    def before_s(self) -> float:
        """Time of all operators before [s]."""
        return self.before.time_s

    @property
    def after_s(self) -> float:
        """Time of all operators after [s]."""
        return self.after.time_s

    @property
    def saved_s(self) -> float:
        """Time that all operators take less; negative where they take more [s]."""
        return self.before_s - self.after_s

    @property
    def gain(self) -> float | None:
        """Time of all operators before over after; None if there are none after [-]."""
        return self.before_s / self.after_s if self.after_s else None

    def table(self) -> list[dict[str, Any]]:
        """Return a row for every change [-]."""
        return [
            {
                **{name: getattr(change, name) for name in ("name", "phase", "before_s", "after_s", "saved_s", "gain")},
                **{
                    f"{when}_{name}": row and getattr(row, name)
                    for when, row in _sides(change).items()
                    for name in ("calls", "flops", "total_bytes", "of_roof")
                },
            }
            for change in self.changes
        ]

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: both profiles' [-]."""
        return {"by": self.by, "before": self.before.context(), "after": self.after.context()}

    def summary(self) -> list[str]:
        """Return the text: the whole, then the largest differences [-]."""
        gain = f", {self.gain:.3g} × as fast" if self.gain else ""
        lines = [f"operators: {show_time(self.before_s)} before, {show_time(self.after_s)} after{gain}"]
        for change in self.changes[:_SHOWN]:
            name = f"{short(change.name) or 'outside'}{f' ({change.phase})' if change.phase and change.name != change.phase else ''}"
            words = show_change(change.before_s, change.after_s)
            lines.append(f"  {name}: {words}{'' if change.after else ', gone'}{'' if change.before else ', new'}")
        return lines


def _sides(change: Change) -> Mapping[str, OperatorTime | None]:
    return {"before": change.before, "after": change.after}


@checks_call
def compare_profiles(before: Profile, after: Profile, *, by: str = "operator") -> ProfileComparison:
    """Return two profiles beside each other: what became faster, what slower, and what is new.

    Parameters
    ----------
    before, after : Profile
        Of the same work before and after a change [-].
    by : {"operator", "module", "phase"}, optional
        What is compared [-].

    Returns
    -------
    ProfileComparison
        The largest differences first [-].

    Raises
    ------
    InvalidValueError
        If one is no profile.
    UnknownNameError
        If there is no such view.
    """
    for name, given in (("before", before), ("after", after)):
        if not isinstance(given, Profile):
            raise InvalidValueError(f"{name} is {quoted(given)}; it must be a Profile, as of profile_torch.")
    if by not in _VIEWS:
        raise unknown_name("view", str(by), _VIEWS)
    sums = [{(row.name, row.phase): row for row in _VIEWS[by](profile)} for profile in (before, after)]
    changes = [Change(*key, sums[0].get(key), sums[1].get(key)) for key in dict.fromkeys((*sums[0], *sums[1]))]
    return ProfileComparison(before, after, by, tuple(sorted(changes, key=lambda change: -abs(change.saved_s))))
