"""How long a plan takes that simulates 300 candidates: machines × degrees × weights × step_tokens × sequences, with invented prices.

Run it as ``python benchmarks/plan_speed.py [--requests 3000] [--simulated 300]``.
"""

import argparse
import time

from roofline import Lengths, Workload, plan

PRICES = {"h100-sxm": 2.5, "h200-sxm": 3.0, "a100-sxm-80gb": 1.5, "l40s": 1.0}


def loop_s() -> float:
    """Return what a loop of 10⁶ passes takes, which tells how fast Python is here."""
    begin = time.process_time()
    for _ in range(1_000_000):
        pass
    return time.process_time() - begin


def main() -> None:
    """Print candidates, seconds of the processor, and loops that would take as long."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--simulated", type=int, default=300)
    given = parser.parse_args()
    lengths = {"prompt": Lengths.lognormal(mean=1000, cv=1.0), "output": Lengths.lognormal(mean=200, cv=1.0)}
    workload = Workload.generated(given.requests, **lengths, arrivals=40.0, seed=1)
    choices = {"degrees": [1, 2], "formats": [None, "fp8"], "step_tokens": [None, 1024, 2048, 4096], "sequences": [None, 32, 64, 96, 128]}
    slo = {"ttft_s": 1.0, "tpot_s": 0.05}
    before, begin = min(loop_s() for _ in range(5)), time.process_time()
    found = plan("llama-3.1-8b", workload, slo, machines=list(PRICES), **choices, prices=PRICES, simulated=given.simulated, within=3.0)
    took = time.process_time() - begin
    loop = min(before, *(loop_s() for _ in range(5)))
    print(
        f"{len(found.choices)} candidates simulated in {took:.1f} s, as long as {took / loop:.0f} loops of 10⁶ passes: {found.cheapest.candidate}"
    )


if __name__ == "__main__":
    main()
