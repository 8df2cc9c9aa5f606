"""`Demand`: what a workload asks of a service, as far as closed forms can know."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from roofline.errors import InvalidValueError, quoted
from roofline.requests import Workload


@dataclass(frozen=True, slots=True)
class Demand:
    """A load, and lengths."""

    load: float  # requests a second; of a closed loop, clients
    closed: bool  # whether a fixed number of clients wait for answers
    prompt: float  # tokens, mean
    repeated: float  # of these, what a prefix cache can find at most, mean
    output: float
    prompt_cv: float
    output_cv: float

    @classmethod
    def of(cls, workload: Workload) -> Self:
        """Return what a workload asks: users who think ask most where answers come at once."""
        closed = workload.clients is not None
        if closed:
            load = float(workload.clients or 1)
        else:
            sent = np.sort(_sent_at_the_earliest(workload))
            if not sent[-1] > sent[0]:
                raise InvalidValueError(
                    "all requests arrive at once, so there is no rate to plan for: give arrivals, or clients= of whom each waits for its answer."
                )
            # users come and go, so the rate is that of the middle, where most of them are there
            low, high = np.quantile(sent, (0.05, 0.95)) if workload.after is not None else (sent[0], sent[-1])
            load = float(0.9 * len(workload) / (high - low)) if workload.after is not None else workload.rate
        prompt, output = workload.prompt.astype(float), workload.output.astype(float)
        repeated = float(workload.repeated().mean()) if workload.blocks is not None else 0.0
        return cls(
            load,
            closed,
            float(prompt.mean()),
            repeated,
            float(output.mean()),
            float(prompt.std() / prompt.mean()),
            float(output.std() / output.mean()),
        )

    @property
    def unit(self) -> str:
        """What the load is counted in."""
        return "clients" if self.closed else "requests/s"


def check_workload(name: str, given: Any) -> None:
    """Raise if something is no workload."""
    if not isinstance(given, Workload):
        raise InvalidValueError(f"{name} is {quoted(given)}; Workload.generated(…), .from_trace(…) or .from_users(…) makes one.")


def longest_prompt(workload: Workload, share: float, *, cached: bool) -> float:
    """Return what a share of the prompts does not exceed, in tokens that are computed."""
    found = workload.repeated() if cached and workload.blocks is not None else 0
    return float(np.quantile(workload.prompt - found, share, method="lower"))


def _sent_at_the_earliest(workload: Workload) -> np.ndarray:
    """Return when requests are sent if answers take no time."""
    sent = workload.arrival_s.astype(float).copy()
    if workload.after is not None:
        think = np.zeros(len(workload)) if workload.think_s is None else workload.think_s
        for request, before in enumerate(workload.after.tolist()):
            if before >= 0:
                sent[request] = max(sent[request], sent[before] + think[request])
    return sent


def raised(workload: Workload, factor: float) -> Workload:
    """Return a workload whose load is some factor larger."""
    if factor == 1:
        return workload
    if workload.clients is not None:
        return replace(workload, clients=max(1, int(np.ceil(workload.clients * factor - 1e-9))))
    if workload.after is not None:
        raise InvalidValueError("the load of users who think is their number: make a workload of more users in place of a factor.")
    return workload.scaled(rate=workload.rate * factor)


def lengthened(workload: Workload, *, prompt: float = 1.0, output: float = 1.0) -> Workload:
    """Return a workload whose prompts and answers are longer by factors; what prompts have in common is not."""
    lengths = {"prompt": workload.prompt, "output": workload.output}
    changed: dict[str, Any] = {
        name: np.maximum(np.rint(lengths[name] * factor), 1).astype(int) for name, factor in (("prompt", prompt), ("output", output))
    }
    blocks = workload.blocks
    if blocks is not None:
        most = (changed["prompt"] + changed["output"]) // workload.block_tokens
        blocks = tuple(ids[:n] for ids, n in zip(blocks, most.tolist(), strict=True))
    return replace(workload, **changed, blocks=blocks)


def busiest(workload: Workload, requests: int) -> Workload:
    """Return the stretch of so many requests in which they come fastest; all of them where there are no more, or users come again."""
    return _stretch(workload, requests, lambda spans: spans)


def typical(workload: Workload, requests: int) -> Workload:
    """Return the stretch of so many requests whose rate is nearest to that of the whole."""
    return _stretch(workload, requests, lambda spans: np.abs(spans - (requests - 1) / workload.rate))


def _stretch(workload: Workload, requests: int, least: Callable[[np.ndarray], np.ndarray]) -> Workload:
    count = len(workload)
    if count <= requests or workload.after is not None or workload.clients is not None:
        return workload
    first = int(np.argmin(least(workload.arrival_s[requests - 1 :] - workload.arrival_s[: count - requests + 1])))
    stretch = workload.take(np.arange(first, first + requests))
    return replace(stretch, arrival_s=stretch.arrival_s - stretch.arrival_s[0])
