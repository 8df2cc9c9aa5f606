"""How far closed forms of a service are from its simulation, on the same times of steps: the tables of docs/serving.md.

Run it as ``python benchmarks/closed_forms.py [--requests 2000]``; the first tenth of the requests is left out.
"""

import argparse

import numpy as np

from roofline import Deployment, Lengths, Workload, serving_estimate, simulate

SYSTEMS = {
    "8B": Deployment("llama-3.1-8b", "h100-sxm"),
    "70B": Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel=4),
    "mixture": Deployment("mixtral-8x7b", "h100-sxm", tensor_parallel=2),
}
LENGTHS = [(200, 200), (1024, 256), (4000, 100), (8000, 32), (8000, 800), (30_000, 100)]
SHARES = (0.25, 0.5, 0.8)  # of the most that can be answered
SPREADS = ((0.3, 0.47), (0.3, 0.8), (1.0, 0.47), (1.0, 0.8), (2.0, 0.47), (2.0, 0.8))
PIPELINE = Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel=4, pipeline_parallel=2)
STEPS = ((1000, 200, None), (1000, 200, 1024), (200, 500, None))  # of a pipeline: prompt, output, step_tokens
RANKS = Deployment("deepseek-r1", "h200-sxm", data_parallel=8, expert_parallel=8)
OF_RANKS = ((1000, 200), (200, 500), (6000, 500))
TIMES = ("ttft_s", "tpot_s", "ttft_s 99 %", "tpot_s 99 %", "itl_s 99 %")


def errors(deployment: Deployment, lengths: dict[str, float], share: float, requests: int, **told: object) -> list[float]:
    """Return closed over simulated, less one, of each of the times."""
    rate = share / float(serving_estimate(deployment, **lengths, rate=1.0, **told).load)
    found = serving_estimate(deployment, **lengths, rate=rate, **told)
    drawn = {
        n: Lengths.lognormal(mean=lengths[n], cv=cv) if (cv := lengths.get(f"{n}_cv")) else int(lengths[n]) for n in ("prompt", "output")
    }
    times = simulate(deployment, Workload.generated(requests, **drawn, arrivals=rate, seed=1), **told).times
    tails, begin = found.percentile(0.99), requests // 10
    closed = [found.ttft_s, found.tpot_s, *(tails[name] for name in ("ttft_s", "tpot_s", "itl_s"))]
    ttft, tpot = times.ttft_s[begin:], times.tpot_s[begin:]
    simulated = [ttft.mean(), np.nanmean(tpot), np.quantile(ttft, 0.99), np.nanquantile(tpot, 0.99), np.quantile(times.itl_s, 0.99)]
    return [float(one) / float(other) - 1 for one, other in zip(closed, simulated, strict=True)]


def row(*cells: object) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> None:
    """Print the errors of each system and load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    requests = parser.parse_args().requests
    row("what", "prompt", "output", "share", *TIMES)
    for share in SHARES:
        for name, deployment in SYSTEMS.items():
            for prompt, output in LENGTHS:
                found = errors(deployment, {"prompt": prompt, "output": output}, share, requests)
                row(name, prompt, output, f"{share:.0%}", *(f"{error:+.0%}" for error in found))
    for cv, share in SPREADS:
        found = errors(SYSTEMS["8B"], {"prompt": 1000, "output": 200, "prompt_cv": cv, "output_cv": cv}, share, 2 * requests)
        row(f"8B, spread {cv}", 1000, 200, f"{share:.0%}", *(f"{error:+.0%}" for error in found))
    for engine in ("vllm", "sglang", "trtllm"):
        for prompt, output, step_tokens in STEPS:
            told = {"engine": engine, "step_tokens": step_tokens if engine != "trtllm" or step_tokens is None else 2048}
            for share in (0.1, 0.3, 0.8):
                found = errors(PIPELINE, {"prompt": prompt, "output": output}, share, requests, **told)
                row(
                    f"70B, 2 stages, {engine}, steps of {told['step_tokens']}",
                    prompt,
                    output,
                    f"{share:.0%}",
                    *(f"{error:+.0%}" for error in found),
                )
    for engine in ("vllm", "sglang", "trtllm"):
        for prompt, output in OF_RANKS:
            for share in (0.1, 0.3, 0.6):
                found = errors(RANKS, {"prompt": prompt, "output": output}, share, requests, engine=engine)
                row(f"R1, 8 ranks, {engine}", prompt, output, f"{share:.0%}", *(f"{error:+.0%}" for error in found))


if __name__ == "__main__":
    main()
