"""Hold simulations against real runs, request by request: from estimates alone, and with constants fitted to a tenth of the requests.

The runs are of casys-kaist/LLMServingSim (MIT): vLLM 0.19.0, 300 requests of ShareGPT each, Poisson about 10 per second; ``tests/data/requests``
has their records. Each is simulated by vLLM's rules with its own limits, every request arriving when the engine had queued it. No constant is fitted in
"estimates alone": steps take what the calibration record of the machine says, or a borrowed one where there is none. Fits find three constants
beyond the floor (step_s, sequence_s, token_s) from the times of 30 requests: those sent first, or every tenth. All are judged on the other 270 and on
all 300.

Usage: ``python benchmarks/served_runs.py`` prints the tables; ``--write`` puts them into docs/served_runs.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pages import DOCS, markdown, publish
from roofline import Deployment
from roofline.requests import RequestTimes
from roofline.serving import FitError, ServiceFit, fit_service, simulate
from roofline.serving.fit import as_sent
from roofline.serving.steps.service_fit import errors_of
from roofline.units import show_time

PAGE = DOCS / "served_runs.md"
DATA = Path(__file__).parents[1] / "tests" / "data" / "requests"
FIRST, TENTH = range(30), range(0, 300, 10)


class MeasuredRun(NamedTuple):
    """A run, and what its engine was told (``meta.json`` beside the published requests)."""

    name: str
    file: str
    deployment: Deployment
    options: Mapping[str, Any]

    @property
    def times(self) -> RequestTimes:
        """What happened, each request arriving when it was queued."""
        return as_sent(RequestTimes.from_records(DATA / self.file))


_LIMITS = {"engine": "vllm", "step_tokens": 2048, "prefix_caching": True}

RUNS = (
    MeasuredRun(
        "RTX 4090, Llama-3.1-8B",
        "vllm_0.19.0_rtx_4090_llama_3.1_8b.jsonl.gz",
        Deployment("llama-3.1-8b", "rtx-4090"),
        {**_LIMITS, "sequences": 256, "kv_blocks": 2588, "max_model_len": 32768},
    ),
    MeasuredRun(
        "RTX PRO 6000, Llama-3.1-8B",
        "vllm_0.19.0_rtx_pro_6000_llama_3.1_8b.jsonl.gz",
        Deployment("llama-3.1-8b", "rtx-pro-6000-blackwell-server"),
        {**_LIMITS, "sequences": 128},
    ),
    MeasuredRun(
        "2 × RTX PRO 6000, Qwen3-30B-A3B",
        "vllm_0.19.0_2_rtx_pro_6000_qwen3_30b_a3b.jsonl.gz",
        Deployment("qwen3-30b-a3b", "rtx-pro-6000-blackwell-server", data_parallel=2, expert_parallel=2),
        {**_LIMITS, "sequences": 128},
    ),
)


def unfitted(run: MeasuredRun, basis: str) -> tuple[FitError, ...]:
    """Return how far a simulation without fitted constants is from a run; of all requests alike."""
    measured = run.times
    found = simulate(run.deployment, measured.workload, basis=basis, request_s=0.0, token_times=False, **run.options)
    return errors_of(found.times, measured, np.arange(len(measured)))


def fitted(run: MeasuredRun, requests: Sequence[int]) -> ServiceFit:
    """Return the constants of a run that some of its requests tell."""
    return fit_service(run.times, run.deployment, requests=requests, **run.options)


def _cells(errors: Sequence[FitError], requests: str) -> tuple[str, ...]:
    return tuple(f"{error.mean:+.1%} / {error.p99:+.1%}" for error in errors if error.requests == requests)


def report() -> dict[str, str]:
    """Return the tables of the page."""
    measured, rows, constants = [], [], []
    for run in RUNS:
        times = run.times
        figures = (times.ttft_s, times.tpot_s, times.e2e_s)
        measured.append((run.name, *(f"{show_time(each.mean())} / {show_time(np.percentile(each, 99))}" for each in figures)))
        bases = ("floor", "estimate")
        rows.extend((run.name, f"none: {basis} alone", "300", *_cells(unfitted(run, basis), "fitted")) for basis in bases)
        fits = {"3, from the first 30": fitted(run, FIRST), "3, from every tenth": fitted(run, TENTH)}
        for name, fit in fits.items():
            judged = (("270 others", "others"), ("300", "all"))
            rows.extend((run.name, name, label, *_cells(fit.errors, which)) for label, which in judged)
            shown = (f"{show_time(one.value)} ({show_time(one.low)} … {show_time(one.high)})" for one in fit.constants.values())
            constants.append((run.name, name, *shown))
    times_of = ("time to first token", "time per output token", "end to end")
    return {
        "measured": markdown(("run", *(f"{name}, mean / P99" for name in times_of)), measured),
        "errors": markdown(("run", "fitted constants", "judged on", *times_of), rows),
        "constants": markdown(("run", "fitted constants", "`step_s`", "`sequence_s`", "`token_s`, per token"), constants),
    }


if __name__ == "__main__":
    publish(report, PAGE, __doc__)
