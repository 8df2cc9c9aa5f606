"""`Scheduler`: what every engine's scheduler can do, step by step."""

from abc import ABC, abstractmethod

from roofline.serving.rules import Rules
from roofline.serving.schedulers.ledger import Ledger
from roofline.serving.schedulers.reach import Reach
from roofline.serving.steps.load import Load, StepSeconds


class Scheduler(ABC):
    """The queues of one engine replica, or of one data-parallel rank of it.

    Parameters
    ----------
    rules : Rules
        What the scheduler is told [-].
    ledger : Ledger
        The books of the simulation, which hold the requests [-].

    Notes
    -----
    A step is scheduled when it begins and completed when it ends; requests that join in between are seen by the next one. A scheduler
    writes when each request began, answered and ended.
    """

    def __init__(self, rules: Rules, ledger: Ledger) -> None:
        self.rules = rules
        self.ledger = ledger
        self.series, self.ends = ledger.series()
        self.held_up = {"tokens": 0, "sequences": 0, "blocks": 0}  # steps in which a request waited, by what it lacked

    @property
    def steps(self) -> int:
        """Steps that have ended [-]."""
        return len(self.ends)

    @property
    def reach(self) -> Reach | None:
        """How near it has come to its limits; None where it cannot tell that other limits would have changed nothing."""
        return None

    waiting: int
    """Requests that wait [-]."""
    running: int
    """Requests that have begun and hold blocks [-]."""
    used_blocks: int
    """Blocks that running requests hold [-]."""

    @abstractmethod
    def add(self, request: int, held: int = 0, tokens: int | None = None) -> None:
        """Let a request join those that wait.

        Parameters
        ----------
        request : int
            Its index in the workload [-].
        held : int, optional
            Tokens whose keys and values come with it, as from a pool that computed its prompt: from its whole prompt on it has its
            first token, and the first step here gives its second [token].
        tokens : int, optional
            Tokens of its answer until which it stays here: 1 in a pool that only computes prompts; all of them if not given [token].

        Raises
        ------
        InvalidValueError
            If it can never be served: it needs more than an empty cache, or more than the limits of a step allow.
        """

    @abstractmethod
    def schedule(self, now_s: float) -> Load | None:
        """Decide what the step that begins now holds; None if there is nothing to do."""

    @abstractmethod
    def complete(self, end_s: float) -> list[int]:
        """Give the tokens of the step that was scheduled, and return the requests that have ended here."""

    def run(self, begin_s: float, until_s: float, seconds: StepSeconds) -> float:
        """Run the next steps that need no decision and begin before a time, and return when the last of them ended.

        In such a step every running request gets a token, none ends, and none can be admitted. A scheduler that knows none of these
        returns the time at which it was to begin.
        """
        return begin_s

    def ahead(self) -> Load | None:
        """Return what the next step holds if every running request gets a token in it and nothing is to be decided; otherwise None."""
        return None

    def go(self, end_s: float) -> None:
        """Run the step that `ahead` returned, which ends at a time."""
        raise NotImplementedError
