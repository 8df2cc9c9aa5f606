"""`roofline simulate`: requests served step by step by an engine's own rules."""

from typing import Annotated, Any

from roofline.cli import options as given
from roofline.cli import serving
from roofline.cli.app import FINDING
from roofline.cli.machines import find_machine
from roofline.cli.printing import Working, show, show_csv, show_json
from roofline.cli.reading import Given
from roofline.cli.wording import in_our_words
from roofline.deployment import Deployment
from roofline.deployment.options import ALL
from roofline.errors import InvalidValueError
from roofline.requests import SLO, Workload
from roofline.serving import Simulation
from roofline.serving import simulate as serve
from roofline.serving.closed_forms.options import SERVICE
from roofline.units import show_time

_ROUTERS = "round robin, random, least loaded, power of two, prefix or vllm"
_OF_RULES = (
    "kv_blocks",
    "step_tokens",
    "sequences",
    "admission",
    "chunked",
    "max_model_len",
    "mixed",
    "receive_interval",
    "rank_wait_steps",
    "graph_tokens",
    "drafts",
)
_OWN = (*_OF_RULES, "replicas", "link_bandwidth", "engine", "basis", "quantile")


@given.takes_deployment(ALL)
@given.takes(SERVICE, _OWN)
def simulate(
    model: given.ModelName,
    hardware: given.HardwareName = None,
    *,
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
    router: Annotated[str, Given(f"What chooses a replica: {_ROUTERS}.")] = "round robin",
    staleness: Annotated[str, Given("How old what a router knows of replicas may be, with its unit.")] = "0s",
    prefill_hardware: serving.PrefillHardware = None,
    prefill_tensor_parallel: serving.PrefillTp = None,
    prefill_replicas: serving.PrefillReplicas = None,
    link_latency: Annotated[str, Given("What the transfer of a cache takes besides, with its unit.")] = "0s",
    prefix_caching: Annotated[bool | None, Given("Whether prefixes are found again; what the engine does if not given.")] = None,
    watermark: Annotated[float, Given("Share of the blocks that stays free when a request begins beside others.")] = 0.0,
    policy: Annotated[str, Given("Which waiting request is first: fcfs, priority, lpm or lof.")] = "fcfs",
    acceptance: Annotated[
        tuple[float, ...] | None,
        Given(
            "With --drafts: probability that one is accepted if those before it were; for all, or by position, joined by commas.",
            several=True,
        ),
    ] = None,
    calibration: given.Calibration = None,
    replications: Annotated[int, Given("Runs, each with requests of its own.")] = 1,
    half_width: Annotated[float | None, Given("Add runs until the 99th percentiles are known to this share.")] = None,
    seed: serving.Seed = 0,
    timeline: Annotated[str | None, Given("Write the first run to this file, as a timeline for Perfetto or Chrome's tracing page.")] = None,
    json: given.Json = False,
    csv: Annotated[bool, Given("Print one row for each request, in SI units.")] = False,
    **options: Any,
) -> int:
    """Serve a trace or made-up requests step by step by the engine's own rules, and print what became of them.

    Requests are those of --trace; or have --prompt and --output and come at a --rate, from --clients or from --users. With promises the exit status
    is 1 if one is broken.
    """
    asked = {name: value for name, value in locals().items() if name != "options"}
    deployment = Deployment(model, None if hardware is None else find_machine(hardware), **{name: options[name] for name in ALL})
    slo = serving.promises(ttft, tpot, itl, e2e, percentile)
    found = serving.workload_of(asked)
    told = {name: options[name] for name in _OWN if options[name] != SERVICE[name].default}
    told |= serving.pool_for_prompts(deployment, prefill_hardware, prefill_tensor_parallel, prefill_replicas)
    several: dict[str, Any] = (
        {"replications": replications, "half_width": half_width} if replications != 1 or half_width is not None else {}
    )
    if several and isinstance(found, Workload):
        raise InvalidValueError("--replications and --half-width are of made-up requests, not of a --trace, which is always the same.")
    made = found if several or isinstance(found, Workload) else found(seed)
    with Working("simulating"):
        result = serve(
            deployment,
            made,
            router=router,
            staleness_s=given.read_time(staleness, "--staleness"),
            link_latency_s=given.read_time(link_latency, "--link-latency"),
            prefix_caching=prefix_caching,
            watermark=watermark,
            policy=policy,
            acceptance=acceptance[0] if acceptance and len(acceptance) == 1 else acceptance,
            calibration=calibration,
            seed=seed,
            steps=timeline is not None,
            **several,
            **told,
        )
        if timeline is not None:
            result.to_chrome_trace(timeline)
    met = slo is None or result.goodput(slo).met
    if csv:
        show_csv(result.to_records())
    elif json:
        show_json(result.to_dict() | ({} if slo is None else {"promises": _goodput(result, slo)}))
    else:
        show(in_our_words(str(result)))
        for line in [] if slo is None else _kept(result, slo):
            show(line)
    return 0 if met else FINDING


def _goodput(result: Simulation, slo: SLO) -> dict[str, Any]:
    runs = [one._asdict() | {"reached": dict(one.reached)} for one in (times.goodput(slo) for times in result.steady)]
    return {**slo.promises, "percentile": slo.percentile, "runs": runs}


def _kept(result: Simulation, slo: SLO) -> list[str]:
    """Write what came of promises."""
    found = result.goodput(slo)
    reached = ", ".join(
        f"{name.removesuffix('_s').upper()} {show_time(value)} {'≤' if value <= slo.promises[name] else '>'} {show_time(slo.promises[name])}"
        for name, value in found.reached.items()
    )
    lines = [f"  promises for {slo.percentile * 100:.4g} % are {'kept' if found.met else 'broken'}: {reached}"]
    return [*lines, f"  {found.share:.2%} of the requests keep all of them: {found.requests_per_s:.4g} requests/s"]
