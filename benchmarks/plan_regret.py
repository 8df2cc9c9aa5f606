"""What plans cost that simulate only promising candidates, against plans that simulate all, and how long both take.

Of both the cheapest is simulated with all of its replicas and all requests.

Run it as ``python benchmarks/plan_regret.py [--requests 3000] [--workloads 6]``. Workloads and promises are drawn by chance from ranges of
chat and summaries; candidates are machines × degrees × weights × step_tokens × sequences, with invented prices.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from roofline import SLO, Lengths, Workload, plan
from roofline.planner.choice import Choice, cost_of
from roofline.planner.fewest import Task
from roofline.planner.planning import confirmed, table_of

MODEL = "llama-3.1-8b"
PRICES = {"h100-sxm": 2.5, "a100-sxm-80gb": 1.5, "l40s": 1.0}
CHOICES = {"machines": list(PRICES), "degrees": [1, 2], "formats": [None, "fp8"], "step_tokens": [None, 2048], "sequences": [None, 32]}


def drawn(seed: int, requests: int) -> tuple[Workload, SLO]:
    """Return a workload and promises."""
    chance = np.random.default_rng(seed)
    prompt, output = chance.choice([300, 1000, 3000]), chance.choice([100, 250, 600])
    spread = chance.choice([0.3, 1.0])
    rate = chance.uniform(5, 60)
    workload = Workload.generated(
        requests,
        prompt=Lengths.lognormal(mean=prompt, cv=spread),
        output=Lengths.lognormal(mean=output, cv=spread),
        arrivals=rate,
        seed=seed,
    )
    return workload, SLO(ttft_s=float(chance.choice([0.3, 1.0, 3.0])), tpot_s=float(chance.choice([0.02, 0.04, 0.08])))


def main() -> None:
    """Print a row for each workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--workloads", type=int, default=6)
    given = parser.parse_args()
    print("workload | plan: cost, seconds, simulated | all: cost, seconds, simulated | closed forms: cost | regret")
    regrets, errors = [], []
    with ProcessPoolExecutor() as pool:
        for seed in range(given.workloads):
            workload, slo = drawn(seed, given.requests)
            begin = time.perf_counter()
            found = plan(MODEL, workload, slo, **CHOICES, prices=PRICES, executor=pool)
            took = time.perf_counter() - begin
            asked, begin = found.asked, time.perf_counter()
            table, traffic = table_of(asked), asked.traffic()
            finite = np.isfinite(table.cost)
            tasks = [Task(table.candidate(at), traffic, 8 * table.candidate(at).replicas) for at in range(len(table))]
            trials = asked.run(tasks)
            every = [Choice(trial.candidate, cost_of(trial.candidate, asked.prices), trial) for trial in trials if trial.kept]
            every = confirmed(sorted(every, key=lambda choice: choice.cost), asked)
            took_all = time.perf_counter() - begin
            if not every or not every[0].trial.kept:
                print(f"{workload} {slo}: no candidate keeps the promises; plan: {found.forbidden}")
                continue
            best = every[0].cost
            ratio = found.cheapest.cost / best - 1 if found.kept else np.inf
            regrets.append(ratio)
            errors += [
                table.candidate(at).replicas / trial.candidate.replicas for at, trial in enumerate(trials) if finite[at] and trial.kept
            ]
            missed = sum(trial.kept and not good for trial, good in zip(trials, finite, strict=True))
            print(
                f"{workload}, {slo.promises} | {found.cheapest.cost:.4g}, {took:.1f}, {len(found.choices)} | "
                f"{best:.4g}, {took_all:.1f}, {len(trials)} ({missed} that closed forms exclude) | {table.cost.min():.4g} | {ratio:.1%}",
                flush=True,
            )
    print(f"regret: mean {np.mean(regrets):.1%}, most {np.max(regrets):.1%}")
    print(f"replicas of closed forms over those of simulations: quartiles {np.quantile(errors, (0, 0.25, 0.5, 0.75, 1)).round(2).tolist()}")


if __name__ == "__main__":
    main()
