"""`Choice`: a candidate that was tried, with what it costs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from roofline.planner.candidates import Candidate
from roofline.planner.trials import Trial


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate with the replicas that it takes, and what came of its simulation.

    Parameters
    ----------
    candidate : Candidate
        With the replicas that it takes, spare ones included [-].
    cost : float
        For an hour, or devices where no prices were given [-].
    trial : Trial
        What the simulation said, without spare replicas [-].
    """

    candidate: Candidate
    cost: float
    trial: Trial

    @property
    def name(self) -> str:
        """Machine, degrees, formats and limits [-]."""
        return self.candidate.name

    @property
    def devices(self) -> int:
        """Devices of all replicas, spare ones included [-]."""
        return self.candidate.devices

    @property
    def ratio(self) -> float | None:
        """Devices that compute prompts for each that decodes; None of one pool [-]."""
        return self.candidate.ratio

    @property
    def tokens_per_s_per_device(self) -> float:
        """Tokens of answers over all devices [token/s]."""
        return self.trial.output_tokens_per_s / self.devices

    @property
    def tokens_per_s_per_user(self) -> float:
        """How fast an answer is written, on average [token/s]."""
        return 1 / self.trial.tpot_s  # NaN of answers of one token

    @property
    def reached(self) -> Mapping[str, float]:
        """By promise, the time that the promised share of requests did not exceed; of answers of one token none between tokens [s]."""
        between = () if self.trial.tpot_s > 0 else ("tpot_s", "itl_s")
        return {name: value for name, value in self.trial.reached.items() if name not in between}

    def values(self) -> dict[str, object]:
        """Return the numbers by name [SI]."""
        trial, candidate = self.trial, self.candidate
        return {
            "name": self.name,
            "replicas": candidate.replicas,
            "prefill_replicas": candidate.prefill_replicas,
            "devices": self.devices,
            "cost": self.cost,
            "kept": trial.kept,
            "ttft_s": trial.ttft_s,
            "tpot_s": trial.tpot_s,
            **{f"reached_{name}": value for name, value in self.reached.items()},
            "share": trial.share,
            "tokens_per_s_per_device": self.tokens_per_s_per_device,
            "tokens_per_s_per_user": self.tokens_per_s_per_user,
            "busy": trial.busy,
            "binds": trial.breaks,
            "held_up": trial.held_up,
            "reason": trial.reason,
        }


def with_spare(candidate: Candidate, spare: int) -> Candidate:
    """Return a candidate with so many more replicas in each pool."""
    more: dict[str, Any] = {"prefill_replicas": candidate.prefill_replicas + spare} if candidate.prefill is not None else {}
    return replace(candidate, replicas=candidate.replicas + spare, **more)


def cost_of(candidate: Candidate, prices: Mapping[str, float] | None) -> float:
    """Return what a candidate costs for an hour, or its devices where there are no prices."""
    return float(sum(count * (1.0 if prices is None else prices[machine]) for machine, count in candidate.by_machine.items()))


def not_dominated(columns: np.ndarray) -> np.ndarray:
    """Return which rows no other row beats: at least as good in all columns, smaller is better, and better in one.

    Parameters
    ----------
    columns : numpy.ndarray
        A row for each candidate, a column for each aim [-].

    Returns
    -------
    numpy.ndarray of bool
        One for each row [-].
    """
    order = np.lexsort(columns.T[::-1])
    kept = np.zeros(len(columns), dtype=bool)
    front = np.zeros((0, columns.shape[1]))
    for at in order.tolist():  # who beats a row comes before it
        row = columns[at]
        if not ((front <= row).all(axis=1) & (front < row).any(axis=1)).any():
            kept[at] = True
            front = np.vstack([front, row])
    return kept
