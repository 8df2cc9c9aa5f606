"""What commands about a service share: its pools, what is promised, and the requests."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from roofline.cli.machines import find_machine
from roofline.cli.options import read_time
from roofline.cli.reading import Given
from roofline.deployment import Deployment
from roofline.errors import InvalidValueError, quoted
from roofline.requests import SLO, Arrivals, Lengths, Workload

Ttft = Annotated[str | None, Given("Promised time to the first token, with its unit: 500ms, 2s.")]
Tpot = Annotated[str | None, Given("Promised time per token after the first, the mean of an answer.")]
Itl = Annotated[str | None, Given("Promised gap between two tokens.")]
E2e = Annotated[str | None, Given("Promised time to the last token.")]
Percentile = Annotated[float, Given("Share of the requests for which promises hold.")]
PrefillHardware = Annotated[str | None, Given("Machine of a pool of its own that computes the prompts; that of the answers if not given.")]
PrefillTp = Annotated[int | None, Given("Devices that share every layer in that pool; as for answers if not given.", ("--prefill-tp",))]
PrefillReplicas = Annotated[int | None, Given("Replicas of that pool; without these three, replicas compute their own prompts.")]
Trace = Annotated[str | None, Given("A trace, or the result of a benchmark client: CSV or JSON Lines, perhaps gzipped.")]
Requests = Annotated[int | None, Given("Requests that are made up, 1000 if not given; or the first ones of a trace.")]
Rate = Annotated[float | None, Given("Requests a second that arrive at random; a trace's own if not given.")]
ArrivalCv = Annotated[float, Given("Spread of the gaps between arrivals over their mean: 1 is Poisson, 0 even, more is bursts.")]
Clients = Annotated[int | None, Given("Most requests under way at a time, as benchmark clients limit them.")]
Users = Annotated[int | None, Given("Users who wait for each answer and think before they ask again, in place of requests.")]
Turns = Annotated[int, Given("Prompts of each user.")]
Think = Annotated[str, Given("Mean time that a user thinks, with its unit.")]
Prompt = Annotated[str | None, Given("Tokens of each prompt: 1024, or 128-2048 for any length between. Of users: new ones of each turn.")]
Output = Annotated[str | None, Given("Tokens of each answer, likewise.")]
PromptCv = Annotated[float, Given("Spread of log-normal lengths of prompts over their mean.")]
OutputCv = Annotated[float, Given("Spread of log-normal lengths of answers over their mean.")]
SystemTokens = Annotated[int, Given("Tokens that all prompts begin with, besides their own.")]
Seed = Annotated[int, Given("Begins what is left to chance.")]


def promises(ttft: str | None, tpot: str | None, itl: str | None, e2e: str | None, percentile: float) -> SLO | None:
    """Return what is promised; None if nothing is."""
    given = {"ttft": ttft, "tpot": tpot, "itl": itl, "e2e": e2e}
    found = {f"{name}_s": read_time(text, f"--{name}") for name, text in given.items() if text is not None}
    return SLO(**found, percentile=percentile) if found else None


def pool_for_prompts(deployment: Deployment, hardware: str | None, tensor_parallel: int | None, replicas: int | None) -> dict[str, Any]:
    """Return the options of a pool that computes prompts; none where there is none."""
    if hardware is None and tensor_parallel is None and replicas is None:
        return {}
    own = dict(deployment.options) if tensor_parallel is None else {**deployment.options, "tensor_parallel": tensor_parallel}
    machine = deployment.machine if hardware is None else find_machine(hardware)
    return {"prefill": Deployment(deployment.model, machine, **own), "prefill_replicas": 1 if replicas is None else replicas}


def workload_of(asked: Mapping[str, Any]) -> Callable[[int], Workload] | Workload:
    """Return the requests that options describe; what is made up, as a function of a seed."""
    if asked["trace"] is not None:
        return _of_trace(asked)
    missing = next((name for name in ("prompt", "output") if asked[name] is None), None)
    if missing:
        raise InvalidValueError(f"--{missing} is not given; requests come from --trace, or have --prompt and --output.")
    lengths: dict[str, Any] = {name: _lengths(name, asked[name], asked[f"{name}_cv"]) for name in ("prompt", "output")}
    if asked["users"] is not None:
        return _of_users(asked, lengths)
    if asked["rate"] is None and asked["clients"] is None:
        raise InvalidValueError("give --rate, the requests a second, --clients or --users; or --trace, which says when requests come.")
    of_users = next((name for name in ("turns", "think") if asked[name] != _OF_USERS[name]), None)
    if of_users:
        raise InvalidValueError(f"--{of_users} is of --users.")
    arrivals = None if asked["rate"] is None else _arrivals(asked["rate"], asked["arrival_cv"])
    system = {"clients": asked["clients"], "system_tokens": asked["system_tokens"]}
    count = 1000 if asked["requests"] is None else asked["requests"]
    return lambda seed: Workload.generated(count, **lengths, arrivals=arrivals, **system, seed=seed)


_OF_USERS = {"turns": 1, "think": "0s"}


def _of_trace(asked: Mapping[str, Any]) -> Workload:
    stray = [name for name in ("prompt", "output", "users") if asked[name] is not None] + ["arrival_cv"] * (asked["arrival_cv"] != 1)
    if stray:
        raise InvalidValueError(f"--{stray[0].replace('_', '-')} cannot be given with --trace, which says what requests are.")
    found = Workload.from_trace(asked["trace"], clients=asked["clients"])
    if asked["requests"] is not None:
        found = found.take(range(min(asked["requests"], len(found))))
    return found if asked["rate"] is None else found.scaled(rate=asked["rate"])


def _of_users(asked: Mapping[str, Any], lengths: Mapping[str, Any]) -> Callable[[int], Workload]:
    stray = [name for name in ("requests", "clients") if asked[name] is not None]
    if stray:
        raise InvalidValueError(f"--{stray[0]} cannot be given with --users, each of whom asks --turns times.")
    arrivals = None if asked["rate"] is None else _arrivals(asked["rate"], asked["arrival_cv"])
    told = {"turns": asked["turns"], "think_s": read_time(asked["think"], "--think"), "system_tokens": asked["system_tokens"]}
    return lambda seed: Workload.from_users(asked["users"], **lengths, arrivals=arrivals, **told, seed=seed)


def _arrivals(rate: float, cv: float) -> Arrivals:
    if cv == 0:
        return Arrivals.even(rate)
    return Arrivals.poisson(rate) if cv == 1 else Arrivals.gamma(rate, cv=cv)


def _lengths(name: str, text: str, cv: float) -> Lengths:
    """Return the lengths that a word stands for: a number, or a range."""
    least, dash, most = text.partition("-")
    parts = (least, most) if dash else (least,)
    if not all(part.isdecimal() and int(part) for part in parts):
        raise InvalidValueError(f"--{name} is {quoted(text)}; it is a number of tokens such as 1024, or a range such as 128-2048.")
    numbers = [int(part) for part in parts]
    if dash and cv:
        raise InvalidValueError(f"--{name} {text} is a range, and --{name}-cv is of log-normal lengths: give one of them.")
    if dash:
        return Lengths.uniform(*numbers)
    return Lengths.lognormal(mean=numbers[0], cv=cv) if cv else Lengths.fixed(numbers[0])
