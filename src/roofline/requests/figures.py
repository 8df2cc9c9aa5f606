"""Figures of many requests: of what arrives in a period, and of times, promises, cost and energy."""

from collections.abc import Mapping
from typing import NamedTuple

from roofline.requests.statistics import Interval


class Period(NamedTuple):
    """What arrives in one period of a workload.

    Parameters
    ----------
    start_s : float
        When it begins [s].
    requests : int
        Requests that arrive in it [-].
    rate : float
        Requests per second [request/s].
    prompt, output : float
        Mean tokens of their prompts and answers, not a number where there are none [token].
    """

    start_s: float
    requests: int
    rate: float
    prompt: float
    output: float


class Statistics(NamedTuple):
    """One time of all requests that have it.

    Parameters
    ----------
    measure : str
        Which: ``ttft_s``, ``tpot_s``, ``itl_s``, ``e2e_s`` or ``queue_s`` [-].
    size : int
        How many values [-].
    mean, median, p90, p95, p99 : Interval
        With intervals, as of values that depend on their neighbours [s].
    least, most : float
        The shortest and the longest [s].
    """

    measure: str
    size: int
    mean: Interval
    median: Interval
    p90: Interval
    p95: Interval
    p99: Interval
    least: float
    most: float


class Goodput(NamedTuple):
    """What came of promises.

    Parameters
    ----------
    share : float
        Requests that kept all promises together, of all [-].
    requests_per_s : float
        These requests per second [request/s].
    output_tokens_per_s : float
        Tokens of their answers per second [token/s].
    reached : mapping of str to float
        By promise, the time that the promised share of requests did not exceed [s].
    met : bool
        Whether every promise is kept for its share of requests [-].
    """

    share: float
    requests_per_s: float
    output_tokens_per_s: float
    reached: Mapping[str, float]
    met: bool


class Cost(NamedTuple):
    """What requests cost, in the currency of the price.

    Parameters
    ----------
    total, per_request : float
        Of all, and of one [currency].
    per_million_input, per_million_output : float
        Of a million tokens of prompts and of answers [currency].
    per_million_total : float
        Of a million tokens, whichever [currency].
    """

    total: float
    per_request: float
    per_million_input: float
    per_million_output: float
    per_million_total: float


class Energy(NamedTuple):
    """What energy requests took.

    Parameters
    ----------
    total_j, per_request_j : float
        Of all, and of one [J].
    per_output_token_j, per_token_j : float
        For each token of answers, and for each token of prompts and answers [J].
    """

    total_j: float
    per_request_j: float
    per_output_token_j: float
    per_token_j: float
