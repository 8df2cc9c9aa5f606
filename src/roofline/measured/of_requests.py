"""A measurement from what happened to requests one by one, simulated or measured."""

import numpy as np

from roofline.calls import checks_call
from roofline.measured.measurement import Latency, ServingMeasurement
from roofline.measured.point import mean_context
from roofline.requests import RequestTimes


@checks_call
def measurement_of(times: RequestTimes, *, source: str = "requests one by one") -> ServingMeasurement:
    """Return the measurement that a benchmark client would have written of some requests.

    Parameters
    ----------
    times : RequestTimes
        What happened to each, of a simulation or of :meth:`roofline.RequestTimes.from_records` [-].
    source : str, optional
        Where they come from [-].

    Returns
    -------
    ServingMeasurement
        Means, medians, deviations and percentiles over requests; gaps between tokens where they are known one by one [-].

    Examples
    --------
    >>> times = RequestTimes.from_records([{"prompt": 8, "output": 3, "sent_s": 0.0, "first_token_s": 0.5, "finish_s": 0.9}])
    >>> measurement_of(times).tpot.mean_s
    0.2
    """
    ended = times.ended
    duration = times.duration_s
    decoding = float(np.nansum((times.finish_s - times.first_token_s)[ended]))
    return ServingMeasurement(
        source=source,
        duration_s=duration,
        completed=int(ended.sum()),
        failed=int((~ended).sum()),
        prompt=float(np.mean(times.workload.prompt[ended])) if ended.any() else None,
        output=float(np.mean(times.workload.output[ended])) if ended.any() else None,
        cached_context=mean_context(times),
        concurrency=float(np.nansum(times.e2e_s[ended])) / duration if duration else None,
        batch=decoding / duration if duration else None,
        requests_per_s=times.requests_per_s,
        prompt_tokens_per_s=times.input_tokens / duration if duration else None,
        output_tokens_per_s=times.output_tokens_per_s,
        ttft=_latency(times.ttft_s, "first token", "request", "ttft_s"),
        tpot=_latency(times.tpot_s, "per token after the first", "request", "tpot_s"),
        itl=_latency(times.itl_s, "gap of chunks", "chunk", "itl_s") if times.token_s is not None else None,
        e2e=_latency(times.e2e_s, "end to end", "request", "e2e_s"),
        times=times,
        notes=times.notes,
    )


def _latency(values: np.ndarray, definition: str, weight: str, key: str) -> Latency | None:
    known = values[np.isfinite(values)]
    if known.size == 0:
        return None
    percentiles = {p: float(np.percentile(known, p)) for p in (50.0, 90.0, 95.0, 99.0)}
    return Latency(
        definition,  # type: ignore[arg-type] # one of the definitions, by the calls above
        weight,  # type: ignore[arg-type]
        mean_s=float(known.mean()),
        median_s=percentiles[50.0],
        std_s=float(known.std()),
        percentiles=percentiles,
        key=key,
    )
