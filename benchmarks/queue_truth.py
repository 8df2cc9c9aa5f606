"""Simulated waits held against queueing theory: M/M/1, M/D/1, M/G/1, M/D/c, M/M/c and M/D/∞ as limits of an engine.

A request of one token is served in a step that takes as long as its prompt has tokens, and a step holds one request: one server. Replicas behind a
round-robin router are the servers of M/D/c, where the order of service is the order of arrival. With one step time for all steps, a request that
runs for n steps is served for n step times, beside up to `sequences` others: the servers of M/M/c, if n is geometric.

Usage: python benchmarks/queue_truth.py [--requests N] [--seeds N] [--run N]
"""

import argparse
import time

import numpy as np

from roofline import Rules, Workload, simulate
from roofline.requests import mean_interval, percentile_interval
from roofline.serving import erlang_c, mg1_wait, mmc_wait

TOKENS = 1000  # of a prompt, on average: lengths are whole, services are not
STEPS = 50  # of a service on average, for each server: a request waits for the end of a step even where a server is free


def one_server(requests, utilization, services, seed, replicas=1):
    """Return the waits of requests of one token, each served alone; services are in units of their mean."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1 / (utilization * replicas), requests))
    prompt = np.maximum(1, np.rint(services(rng, requests) * TOKENS)).astype(int)
    rules = Rules("vllm", step_tokens=10**9, sequences=1, kv_blocks=10**9)
    work = Workload(prompt, np.ones(requests, int), arrival_s)
    times = simulate(None, work, rules=rules, step_s=lambda load: load.tokens / TOKENS, replicas=replicas, token_times=False).times
    return times.start_s - times.sent_s


def hyperexponential(rng, count, square=4.0):
    """Return services of mean 1 and squared coefficient of variation `square`: one of two exponentials with balanced means."""
    p = (1 + np.sqrt((square - 1) / (square + 1))) / 2
    first = rng.random(count) < p
    return np.where(first, rng.exponential(1 / (2 * p), count), rng.exponential(1 / (2 * (1 - p)), count))


SERVICES = {
    "M/M/1": (lambda rng, n: rng.exponential(1, n), 1.0),
    "M/D/1": (lambda rng, n: np.ones(n), 0.0),
    "M/G/1, c² = 4": (hyperexponential, 2.0),
}


def md_c_wait(servers, utilization, terms=200):
    """Return the mean wait of M/D/c, after Crommelin: the sum of an infinite series.

    W = Σ_{i≥1} e^{-i a} [ Σ_{j≥ic} (i a)^j / j! − (c / a) Σ_{j≥ic+1} (i a)^j / j! ] in units of the service, with a = c ρ. H. C. Tijms, A First Course in
    Stochastic Models, Wiley 2003, section 9.6.2.
    """
    from scipy.stats import poisson

    a = servers * utilization
    i = np.arange(1, terms + 1)
    return float(np.sum(poisson.sf(i * servers - 1, i * a) - poisson.sf(i * servers, i * a) / utilization))


def several_servers(requests, utilization, servers, steps, seed):
    """Return the waits, in units of the service, of requests that run for a geometric number of equal steps, at most `servers` at a time."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(steps / (utilization * servers), requests))
    output = rng.geometric(1 / steps, requests)
    rules = Rules("vllm", step_tokens=10**9, sequences=servers, kv_blocks=10**9)
    work = Workload(np.ones(requests, int), output, arrival_s)
    times = simulate(None, work, rules=rules, step_s=lambda load: 1.0, token_times=False).times
    return (times.start_s - times.sent_s) / steps


def show(name, utilization, waits, truth):
    """Print a line."""
    found = mean_interval(waits)
    print(
        f"{name:16} {utilization:4.1f} {truth:9.4f} {found.value:9.4f} {found.value / truth - 1:+7.2%}  ±{found.half_width:.2%}", flush=True
    )


def main():
    """Print waits, then how often intervals hold the truth."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--requests", type=int, default=200_000)
    asked.add_argument("--seeds", type=int, default=200)
    asked.add_argument("--run", type=int, default=50_000, help="requests of a run whose intervals are held against the truth")
    asked = asked.parse_args()
    n = asked.requests
    print(f"{'system':16} {'load':4} {'theory':>9} {'found':>9} {'':7}  {n:,} requests, interval of 90 %")
    for first, (name, (services, cv)) in enumerate(SERVICES.items()):
        for second, utilization in enumerate((0.5, 0.7, 0.9)):
            waits = one_server(n, utilization, services, 10 * first + second)
            show(name, utilization, waits, mg1_wait(utilization, 1.0, service_cv=cv))
    for servers in (2, 4):
        show(f"M/D/{servers}", 0.7, one_server(n, 0.7, SERVICES["M/D/1"][0], 30 + servers, servers), md_c_wait(servers, 0.7))
    for servers in (2, 4, 8):
        waits = several_servers(n, 0.7, servers, STEPS * servers, 40 + servers)
        show(f"M/M/{servers}", 0.7, waits, mmc_wait(servers, 0.7, 1.0))
        found = np.mean(waits > 1 / (STEPS * servers))
        print(f"{'  some wait':16} {0.7:4.1f} {erlang_c(servers, 0.7):9.4f} {found:9.4f}")
    begin = time.perf_counter()
    held = {"mean": 0, "p99": 0}
    truth = mg1_wait(0.7, 1.0, service_cv=1.0)
    tail = np.log(0.7 / 0.01) / 0.3  # P(W > t) = ρ e^{−(1 − ρ) t}
    for seed in range(asked.seeds):
        waits = one_server(asked.run, 0.7, SERVICES["M/M/1"][0], seed)
        mean, p99 = mean_interval(waits), percentile_interval(waits, 0.99)
        held["mean"] += mean.low <= truth <= mean.high
        held["p99"] += p99.low <= tail <= p99.high
    shares = ", ".join(f"{name} {count / asked.seeds:.1%}" for name, count in held.items())
    print(
        f"intervals of 90 % hold the truth in {asked.seeds} runs of {asked.run:,} requests (M/M/1, 0.7): {shares} [{time.perf_counter() - begin:.0f} s]"
    )


if __name__ == "__main__":
    main()
