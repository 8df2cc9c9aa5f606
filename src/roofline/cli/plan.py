"""`roofline plan`: which machines, how many, for a workload and promises; asked by options or by a file."""

import inspect
import signal
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

from roofline.cli import options as given
from roofline.cli import serving
from roofline.cli.app import FINDING
from roofline.cli.machines import find_machine
from roofline.cli.printing import Working, show, write
from roofline.cli.reading import Given
from roofline.deployment.options import ALL
from roofline.errors import InvalidValueError, UnknownOptionError, quoted
from roofline.names import local_path, nearest_names
from roofline.planner import Plan
from roofline.planner import plan as find_plan
from roofline.requests import Workload
from roofline.units import whole_number
from roofline.validation import regular_file

_DEGREES = ("tensor_parallel", "pipeline_parallel", "expert_parallel", "data_parallel", "context_parallel")
_OF_REPLICAS = tuple(
    name for name in ALL if name not in (*_DEGREES, "weights", "kv", "memory_bandwidth", "peak_flops_per_s", "memory_capacity")
)
_WORKLOAD = (
    *("trace", "requests", "prompt", "output", "prompt_cv", "output_cv", "rate", "arrival_cv", "clients", "users", "turns", "think"),
    "system_tokens",
)
_PROMISES = ("ttft", "tpot", "itl", "e2e", "percentile")
_TABLES = {"workload": _WORKLOAD, "promises": _PROMISES, "prices": None, "options": _OF_REPLICAS}
"""Tables of a file with their keys; the keys of prices are machines."""

_PLANNED = (
    *("degrees", "formats", "step_tokens", "sequences", "pools", "engine", "prefix_caching", "link_bandwidth", "router", "head_room"),
    *("kv_blocks", "admission", "max_model_len", "receive_interval", "graph_tokens", "rank_wait_steps"),
    *("spare", "basis", "calibration", "quantile", "simulated", "within", "seed"),
)


@given.takes_deployment(_OF_REPLICAS)
def plan(
    model: given.ModelNameIfAny = None,
    *,
    config: Annotated[str | None, Given("A TOML file with the same names; options given besides go first.")] = None,
    machines: Annotated[tuple[str, ...] | None, given.listed("Machines to choose from, by name or spec file")] = None,
    trace: serving.Trace = None,
    requests: serving.Requests = None,
    prompt: serving.Prompt = None,
    output: serving.Output = None,
    prompt_cv: serving.PromptCv = 0.0,
    output_cv: serving.OutputCv = 0.0,
    rate: serving.Rate = None,
    arrival_cv: serving.ArrivalCv = 1.0,
    clients: serving.Clients = None,
    users: serving.Users = None,
    turns: serving.Turns = 1,
    think: serving.Think = "0s",
    system_tokens: serving.SystemTokens = 0,
    ttft: serving.Ttft = None,
    tpot: serving.Tpot = None,
    itl: serving.Itl = None,
    e2e: serving.E2e = None,
    percentile: serving.Percentile = 0.99,
    degrees: Annotated[tuple[int, ...] | None, given.listed("Tensor-parallel degrees to choose from; 1, 2, 4 and 8 if not given")] = None,
    formats: Annotated[tuple[str, ...] | None, given.listed("Formats of the weights to choose from; the model's own if not given")] = None,
    step_tokens: Annotated[tuple[int, ...] | None, given.listed("Most tokens of a step; the engine's default if not given")] = None,
    sequences: Annotated[
        tuple[int, ...] | None, given.listed("Most sequences that run at a time; the engine's default if not given")
    ] = None,
    pools: Annotated[tuple[str, ...], given.listed("one pool of replicas, or two, of which one computes the prompts")] = ("one",),
    engine: Annotated[
        str, Given("Whose rules are followed: vllm, sglang or trtllm, and perhaps the version whose host times count: 'sglang 0.5.9'.")
    ] = "vllm",
    prefix_caching: Annotated[bool | None, Given("Whether prefixes are found again; what the engine does if not given.")] = None,
    kv_blocks: Annotated[int | None, Given("Blocks of the cache, as the log of the one deployment there is counts them.")] = None,
    admission: Annotated[
        str | None, Given("What must be free of the cache when a request begins: prompt, chunk, ratio, whole or batch.")
    ] = None,
    max_model_len: Annotated[int | None, Given("Most tokens of a request, prompt and answer together.")] = None,
    receive_interval: Annotated[int | None, Given("SGLang: every how many steps without prompts requests are received.")] = None,
    graph_tokens: Annotated[int | None, Given("Most tokens of a step with prompts that runs as a graph.")] = None,
    rank_wait_steps: Annotated[
        int | None, Given("TensorRT-LLM: for how many steps data-parallel ranks wait for each other's prompts.")
    ] = None,
    link_bandwidth: Annotated[str | None, Given("Rate of each device at which caches go from pool to pool, as 50GB/s.")] = None,
    router: Annotated[str, Given("What chooses a replica, as for simulate.")] = "round robin",
    prices: Annotated[tuple[str, ...] | None, given.listed("What a device costs for an hour: h100-sxm=2.5, or one number for all")] = None,
    head_room: Annotated[float, Given("By what share more may come.")] = 0.0,
    spare: Annotated[int, Given("Replicas of each pool that may fail.")] = 0,
    basis: Annotated[str, Given("Which times steps have: estimate, roofline or floor.")] = "estimate",
    calibration: given.Calibration = None,
    quantile: Annotated[float | None, Given("Of an estimate, the level of probability of the times of steps.")] = None,
    simulated: Annotated[int, Given("Candidates that are simulated at most; 0 for closed forms alone.")] = 24,
    within: Annotated[float, Given("By what share one may be dearer than the cheapest to be simulated to the end.")] = 0.25,
    seed: serving.Seed = 0,
    processes: Annotated[int, Given("Processes to simulate in; the answer is the same.")] = 1,
    report: Annotated[str | None, Given("Also write a report on one page to this file: .html or .md.")] = None,
    export: Annotated[str | None, Given("Print what starts the plan instead: vllm, sglang, trtllm or k8s.")] = None,
    checkpoint: Annotated[str | None, Given("With --export: what the engine loads.")] = None,
    json: given.Json = False,
    csv: Annotated[bool, Given("Print every candidate with the reason why it is not chosen.")] = False,
    **options: Any,
) -> int:
    """Find the cheapest machines that serve a workload and keep promises, and say why not others.

    Requests are described as for simulate. Everything may stand in a file: --config FILE.toml. The exit status is 1 if no candidate keeps the promises.
    """
    defaults = {p.name: p.default for p in inspect.signature(plan).parameters.values()}
    asked = {name: value for name, value in locals().items() if name in defaults} | options
    stated = {name: value for name, value in asked.items() if value != defaults[name]}
    filed = {} if config is None else read_config(config)
    asked |= filed | stated
    with Working("planning"), nullcontext() if processes == 1 else _pool(processes) as executor:
        found = _found(asked, stated | filed, executor)
        if report is not None:
            found.report(report)
    if export is not None:
        write(found.export(export, checkpoint=checkpoint).rstrip("\n"))
    else:
        given.print_result(found, json=json, csv=csv)
        if report is not None and not json and not csv:
            show(f"  report: {report}")
    return 0 if found.kept else FINDING


def _pool(processes: int) -> ProcessPoolExecutor:
    """Return processes that leave Ctrl-C to this one."""
    count = whole_number("--processes", processes, minimum=1)
    return ProcessPoolExecutor(count, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))


def _found(asked: Mapping[str, Any], stated: Mapping[str, Any], executor: Any) -> Plan:
    """Plan for what options and the file say together."""
    for name in ("model", "machines"):
        if not asked[name]:
            raise InvalidValueError(f"{name} is not given; plan needs a model, --machines to choose from, requests and promises.")
    slo = serving.promises(*(asked[name] for name in _PROMISES))
    if slo is None:
        raise InvalidValueError("nothing is promised: give --ttft, --tpot, --itl or --e2e, each a time with its unit.")
    workload = serving.workload_of(asked)
    told = {name: asked[name] for name in (*_PLANNED, *_OF_REPLICAS) if name in stated}
    return find_plan(
        asked["model"],
        workload if isinstance(workload, Workload) else workload(asked["seed"]),
        slo,
        machines=[find_machine(word) for word in _listed(asked["machines"])],
        prices=_prices(asked["prices"]),
        executor=executor,
        **told,
    )


def _listed(given: str | Sequence[str]) -> Sequence[str]:
    return [given] if isinstance(given, str) else given


def _prices(given: Any) -> Any:
    """Return prices by machine; one for all where a number stands alone."""
    if given is None or not isinstance(given, (tuple, list)):
        return given
    pairs = [word.partition("=") for word in given]
    try:
        if len(pairs) == 1 and not pairs[0][1]:
            return float(pairs[0][0])
        return {find_machine(name).id: float(price) for name, _, price in pairs}
    except ValueError:
        raise InvalidValueError(
            f"--prices is {quoted(','.join(given))}; it is h100-sxm=2.5, several joined by commas, or one number for all."
        ) from None


def read_config(name: str) -> dict[str, Any]:
    """Return what a file asks, by the names of options; a trace is looked for beside the file."""
    path = local_path(name)
    try:
        data = tomllib.loads(regular_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or no TOML
        raise InvalidValueError(f"{quoted(name)} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    plain = tuple(p for p in inspect.signature(plan).parameters if p not in (*_WORKLOAD, *_PROMISES, *_OF_REPLICAS, "config", "prices"))
    found: dict[str, Any] = {}
    for key, value in data.items():
        if key in _TABLES and isinstance(value, dict):
            if key != "prices":
                _check_keys(value, _TABLES[key] or (), f"table {key} of {path.name}")
            found |= {"prices": value} if key == "prices" else value
        else:
            _check_keys([key], (*plain, *_TABLES), path.name)
            if key in _TABLES and key != "prices":
                raise InvalidValueError(f"{key} of {path.name} is {quoted(value)}; it is a table, [{key}].")
            found[key] = value
    found |= {name: str(found[name]) for name in ("prompt", "output") if name in found}
    return found | ({"trace": str(_beside(path, found["trace"]))} if "trace" in found else {})


def _check_keys(keys: Any, known: Sequence[str], where: str) -> None:
    for key in keys:
        if key not in known:
            near = nearest_names(key, known)
            homes = [f"{table}.{key}" for table, names in _TABLES.items() if names is not None and key in names]
            hint = homes or near or list(known)
            raise UnknownOptionError(
                f"{where} has {quoted(key)}, which is no key of it; {'nearest' if homes or near else 'known'}: {', '.join(hint)}."
            )


def _beside(path: Path, trace: Any) -> Path:
    return path.parent / str(trace)
