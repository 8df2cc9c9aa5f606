"""Fit six constants of each engine and machine to a tenth of its served systems, by simulating these.

A simulated row is kept as how much of each constant its times have in them: kernels of steps without prompts, those of steps with prompts,
launched layers, and sequences in a step, between the first token and the last, and until the first token. At the same schedule times
are linear in the constants. Least is

    2 · sum of sqrt(r² + 0.05²) over TPOT + sum of sqrt(r² + 0.2²) over TTFT of the rows
        + 3 · sum of squares of how far constants leave the profile, over `SPREADS`,

r the logarithm of predicted over measured. Rows are simulated once, with the profile's constants.

The tenth is drawn by measurement: rows of equal times are one, wherever they stand in the sample, and are all drawn or all left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from scipy.optimize import minimize

from served_requests import Host, Server, Simulated, run
from served_rows import DENSE, Served

SHARE, PRIOR = 0.1, 3.0
SOFT, WEIGHT = (0.05, 0.2), (2.0, 1.0)
"""Below which sizes errors of TPOT and of TTFT count less, and how much each counts [-]."""
SPREADS = {"request_s": 2.0, "layers": 1.0, "sequence_s": 2.0, "dense": 0.2, "experts": 0.2, "prefill": 0.4}
"""How far each may leave where it begins at the price of a unit of r, as a logarithm [-]."""
SEQUENCE_S = 2e-6  # where that of a sequence begins at least


@dataclass(frozen=True, slots=True)
class Parts:
    """How much of each constant the times of a row have in them, in the order of `Host`."""

    tpot: np.ndarray
    ttft: np.ndarray
    row: Served
    later_s: float  # by which first tokens come later, whatever the constants

    def error(self, host: Host) -> float:
        """Return the logarithm of predicted over measured time per output token."""
        return float(np.log(self.tpot @ np.array(astuple(host)) / self.row.tpot_s))


def parts_of(server: Server, host: Host, row: Served) -> Parts:
    """Return what the simulated times of a row consist of."""
    found = run(server, host, row, steps=True)
    begins, ends, amounts = amounts_of(server, host, row, found)
    sums = np.concatenate([np.zeros((1, amounts.shape[1])), np.cumsum(amounts, axis=0)])
    clock, at_clock = np.stack([begins, ends], axis=1).ravel(), np.stack([sums[:-1], sums[1:]], axis=1).reshape(-1, amounts.shape[1])

    def at(moments: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(moments, clock, column) for column in at_clock.T], axis=1)

    times = found.times
    first = at(times.first_token_s)
    tpot = found.mean((at(times.finish_s) - first) / found.tokens[:, None])
    ttft = found.mean(first - at(times.sent_s))
    return Parts(tpot, ttft + np.array([name == "request_s" for name in Host.__slots__]), row, found.later_s)


def amounts_of(server: Server, host: Host, row: Served, found: Simulated) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return when each step began and ended, and how much of each constant it has in it, steps × constants."""
    begins, ends, loads = zip(*found.steps, strict=True)
    counts = np.array(loads, dtype=float).reshape(len(loads), -1, 6)
    begins, ends = np.array(begins), np.array(ends)
    sequences = (counts[:, :, 0] + counts[:, :, 2]).max(axis=1)
    prompts = counts[:, :, 2].sum(axis=1) > 0
    rest = ends - begins - host.sequence_s * sequences
    launch_s = server.launch_s * host.layers
    launched = prompts & (np.abs(rest - launch_s) < 1e-9 + 1e-7 * ends)
    nothing = np.zeros(len(begins))
    amounts = {
        "request_s": nothing,
        "layers": server.launch_s * launched,
        "sequence_s": sequences,
        "dense": nothing,
        "experts": nothing,
        "prefill": np.where(prompts & ~launched, rest / host.prefill, 0.0),
    }
    amounts["dense" if row.family in DENSE else "experts"] = np.where(prompts, 0.0, rest / host.decode(row))
    return begins, ends, np.stack([amounts[name] for name in Host.__slots__], axis=1)


def fit(parts: Sequence[Parts], begin: Host, prior: float = PRIOR) -> Host:
    """Return the constants that fit best; those of the beginning if there is nothing to fit to."""
    if not parts:
        return begin
    start = np.array(astuple(replace(begin, sequence_s=max(begin.sequence_s, SEQUENCE_S))))
    spreads = np.array([SPREADS[name] for name in Host.__slots__])
    tpot, ttft = (np.stack([getattr(part, name) for part in parts]) for name in ("tpot", "ttft"))
    measured = np.array([(part.row.tpot_s, part.row.ttft_s) for part in parts]).T
    later = np.array([part.later_s for part in parts])

    def loss(steps: np.ndarray) -> float:
        host = start * np.exp(steps * spreads)
        errors = np.log(np.stack([tpot @ host, ttft @ host + later]) / measured)
        sizes = np.sqrt(errors**2 + np.array(SOFT)[:, None] ** 2)
        return float(np.nansum(np.array(WEIGHT)[:, None] * sizes) + prior * (steps**2).sum())

    steps = minimize(loss, np.zeros(len(start)), method="Powell", options={"xtol": 1e-3, "ftol": 1e-5}).x
    return Host(*(start * np.exp(steps * spreads)).tolist())


def drawn(rows: Iterable[Served], seed: int) -> set[tuple[float, float]]:
    """Return the measurements to which constants are fitted: a tenth of each engine and machine, at least two of them."""
    chance, found = np.random.default_rng(seed), set()
    groups: dict[tuple[str, str], dict[tuple[float, float], None]] = {}
    for row in rows:
        groups.setdefault((row.engine, row.machine), {})[measurement(row)] = None
    for _, group in sorted(groups.items()):
        each = list(group)
        found |= {each[index] for index in chance.permutation(len(each))[: max(2, round(SHARE * len(each)))]}
    return found


def measurement(row: Served) -> tuple[float, float]:
    """Return what tells a measurement from others: its times."""
    return row.tpot_s, row.ttft_s


def interval(errors: Sequence[float]) -> tuple[float, float]:
    """Return 10 and 90 % of measured over predicted, from logarithms of the latter over the former: of n + 1 with the one to come."""
    ordered = np.sort(-np.asarray(errors))
    place = max(int(0.1 * (len(ordered) + 1)), 1) - 1
    return float(np.exp(ordered[place])), float(np.exp(ordered[-1 - place]))
