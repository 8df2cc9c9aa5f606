"""What is doubtful about a sample or a whole record: a code for programs, and words for people."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from roofline.records.part import Part

_Recomputed = Literal[
    "unfinished",
    "skipped",
    "device lost",
    "flagged",
    "mostly flagged",
    "poor fit",
    "cache bandwidth",
    "rate too low",
    "faster than datasheet",
    "not recognized",
]
_Kept = Literal["device busy", "no telemetry", "faster than floor", "sister", "note"]


class Flag(Part):
    """Why one sample is doubtful.

    Parameters
    ----------
    code : str
        What is doubtful: ``"result wrong"``, ``"did not settle"``, ``"processor shared"``, ``"not in a graph"``, ``"throttled"``,
        ``"device shared"`` or ``"cpu shared"`` [-].
    detail : str, optional
        The particulars: which throttle reasons, how many other processes [-].

    Examples
    --------
    >>> print(Flag(code="throttled", detail="SwPowerCap"))
    throttled: SwPowerCap
    """

    code: Literal["result wrong", "did not settle", "processor shared", "not in a graph", "throttled", "device shared", "cpu shared"]
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else self.code


WRONG = Flag(code="result wrong")
"""Flag of a sample whose result was wrong, so that its time means nothing [-]."""


class Condition(Part):
    """What every result that rests on a record repeats.

    Parameters
    ----------
    code : str
        What kind of condition it is, e.g. ``"skipped"``, ``"poor fit"``, ``"device busy"``; ``"note"`` for a remark of one's own [-].
    text : str
        The condition in a sentence [-].
    point : str, optional
        Key of the point that it is about, where it is about one [-].

    Examples
    --------
    >>> condition = Condition(code="device busy", text="cpu busy: load 3.10 on 4 cores before the first sample")
    >>> print(condition, condition.recomputed)
    cpu busy: load 3.10 on 4 cores before the first sample False
    """

    code: Literal[_Recomputed, _Kept]
    text: Annotated[str, Field(min_length=1)]
    point: str = ""

    @property
    def recomputed(self) -> bool:
        """Whether it is recomputed from samples and plan at each write; any other is kept from the run that saw it [-]."""
        return self.code in get_args(_Recomputed)

    def __str__(self) -> str:
        return self.text
