"""Measured requests: from columns of moments and spans to times of one clock."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.requests.reading import Table, known_moments, lengths, moments, numbers, read_table

_NO_CLOCK = "the records do not say when each request was sent: moments count from there, and rates are over the duration stated, if any"


class Read(NamedTuple):
    """What records say, in the order of arrivals and counted from the first."""

    prompt: np.ndarray
    output: np.ndarray
    arrival_s: np.ndarray
    sent_s: np.ndarray
    start_s: np.ndarray | None
    first_token_s: np.ndarray
    finish_s: np.ndarray
    token_s: list[np.ndarray] | None
    counts: dict[str, np.ndarray]
    begin_s: float | None
    end_s: float | None
    notes: tuple[str, ...]
    source: str


def read_times(source: Any, columns: Mapping[str, str] | None) -> Read:
    """Return the times of a file of records, or of rows."""
    table = read_table(source, columns)
    known = table.columns
    missing = [name for name in ("prompt", "output") if name not in known]
    missing += ["first_token_s or ttft_s"] if not known.keys() & {"first_token_s", "ttft_s"} else []
    missing += ["finish_s, e2e_s or gaps_s"] if not known.keys() & {"finish_s", "e2e_s", "gaps_s"} else []
    if missing:
        raise InvalidValueError(f"{table.source} has no {missing[0]}; name its column: columns=dict({missing[0].split()[0].strip(',')}=…).")
    absolute = known.keys() & {"first_token_s", "finish_s"}
    if absolute and not known.keys() & {"sent_s", "arrival_s"}:
        raise InvalidValueError(f"{table.source} does not say when requests were sent; name the column: columns=dict(sent_s=…).")
    arrival, sent = _sent(table)
    first = moments(table, "first_token_s") if "first_token_s" in known else sent + numbers(table, "ttft_s")
    gaps = _gaps(table) if "gaps_s" in known else None
    if "finish_s" in known:
        finish = moments(table, "finish_s")
    elif "e2e_s" in known:
        finish = sent + numbers(table, "e2e_s")
    else:
        finish = first + np.array([each.sum() for each in gaps or ()])
    order, origin = np.argsort(arrival, kind="stable"), float(arrival.min())
    timed = bool(known.keys() & {"sent_s", "arrival_s"})
    failed = (f"failed requests left out: {table.failed}",) if table.failed else ()
    return Read(
        prompt=lengths(table, "prompt")[order],
        output=lengths(table, "output")[order],
        arrival_s=arrival[order] - origin,
        sent_s=sent[order] - origin,
        start_s=moments(table, "start_s")[order] - origin if "start_s" in known else None,
        first_token_s=first[order] - origin,
        finish_s=finish[order] - origin,
        token_s=None if gaps is None else [np.concatenate(([first[i]], first[i] + np.cumsum(gaps[i]))) - origin for i in order.tolist()],
        counts={name: numbers(table, name)[order] for name in ("cached", "preemptions", "replica") if name in known},
        begin_s=None if timed else 0.0,
        end_s=None if timed else float(table.duration_s or np.nan),
        notes=failed if timed else (*failed, _NO_CLOCK),
        source=table.source,
    )


def _sent(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return when requests arrived and were sent, on the clock of the latter."""
    known = table.columns
    if "sent_s" not in known:
        arrival = known_moments(table, "arrival_s") if "arrival_s" in known else np.zeros(len(known["prompt"]))
        return arrival, arrival
    sent = known_moments(table, "sent_s")
    if "arrival_s" not in known:
        return sent, sent
    arrival = known_moments(table, "arrival_s")
    return arrival + min(float((sent - arrival).min()), 0.0), sent  # sent before it arrived: the clocks are two


def _gaps(table: Table) -> list[np.ndarray]:
    """Return the gaps between the tokens, or chunks, of each answer."""
    factor, found = 1e-3 if "gaps_s" in table.milliseconds else 1.0, []
    for row, gaps in enumerate(table.columns["gaps_s"], 1):
        try:
            found.append(np.array(gaps, dtype=float).reshape(-1) * factor)
        except (TypeError, ValueError, OverflowError):
            raise InvalidValueError(f"{table.source}: gaps_s of row {row} are {quoted(gaps)}; they must be a list of numbers.") from None
    return found
