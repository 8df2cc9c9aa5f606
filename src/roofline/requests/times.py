"""`RequestTimes`: what happened to each request, simulated or measured."""

from dataclasses import dataclass

import numpy as np

from roofline.requests.workload import Workload


@dataclass(frozen=True, slots=True, eq=False)
class RequestTimes:
    """When each request of a workload arrived, began, answered and ended; not a number where it did not.

    Parameters
    ----------
    workload : Workload
        The requests [-].
    sent_s : numpy.ndarray
        When each was sent: its arrival, or later if its client had to wait for others [s].
    start_s : numpy.ndarray
        When the first step that holds a part of its prompt began [s].
    first_token_s, finish_s : numpy.ndarray
        When its first and its last token were there [s].
    cached : numpy.ndarray
        Tokens of its prompt that a prefix cache had, at its first admission [token].
    preemptions : numpy.ndarray
        How often it was stopped and begun again [-].
    replica : numpy.ndarray
        Which replica served it [-].
    token_s : tuple of numpy.ndarray, optional
        When each token of each answer was there [s].
    """

    workload: Workload
    sent_s: np.ndarray
    start_s: np.ndarray
    first_token_s: np.ndarray
    finish_s: np.ndarray
    cached: np.ndarray
    preemptions: np.ndarray
    replica: np.ndarray
    token_s: tuple[np.ndarray, ...] | None = None
