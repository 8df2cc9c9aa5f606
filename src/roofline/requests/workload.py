"""`Workload`: what clients ask of a server, request by request."""

from dataclasses import dataclass

import numpy as np

from roofline.frozen import freeze


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Requests in the order in which clients send them, an array each.

    Parameters
    ----------
    prompt : numpy.ndarray
        Tokens of each prompt, at least 1 [token].
    output : numpy.ndarray
        Tokens of each answer, at least 1 [token].
    arrival_s : numpy.ndarray
        When each is sent at the earliest, in ascending order [s].
    clients : int, optional
        Most requests under way at a time, as a benchmark client limits them: the next one is sent when any has ended; no limit if None [-].
    after : numpy.ndarray, optional
        Index of the request at whose end the user begins to think of this one, less than its own; -1 for one that only its arrival binds [-].
    think_s : numpy.ndarray, optional
        How long the user thinks [s].
    blocks : tuple of tuple of int, optional
        Ids of the full blocks that each prompt begins with. Equal ids mean equal tokens after equal predecessors, so that a prefix cache finds them [-].
    block_tokens : int, optional
        Tokens of such a block [token].
    priority : numpy.ndarray, optional
        Smaller is served first, where the engine's policy is priority [-].
    source : str, optional
        Where the requests come from [-].
    """

    prompt: np.ndarray
    output: np.ndarray
    arrival_s: np.ndarray
    clients: int | None = None
    after: np.ndarray | None = None
    think_s: np.ndarray | None = None
    blocks: tuple[tuple[int, ...], ...] | None = None
    block_tokens: int = 16
    priority: np.ndarray | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("prompt", "output", "arrival_s", "after", "think_s", "priority"):
            freeze(getattr(self, name))

    def __len__(self) -> int:
        return int(self.prompt.size)
