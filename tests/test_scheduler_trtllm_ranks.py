"""TensorRT-LLM's data-parallel ranks, whose prompts wait for each other, against its rule written out literally."""

import numpy as np
import pytest

from roofline import Deployment, Workload, simulate
from roofline.serving import rules_of

TWO = Deployment("qwen3-30b-a3b", "h100-sxm", data_parallel=2, expert_parallel=2)
FOUR = Deployment("qwen3-30b-a3b", "h100-sxm", data_parallel=4, expert_parallel=4)


def rules(deployment, **told):
    """Return TensorRT-LLM's rules with room for everything."""
    usual = {"step_tokens": 8192, "sequences": 64, "kv_blocks": 10**6, "prefix_caching": False, "chunked": False}
    return rules_of(deployment, engine="trtllm", **(usual | told))


def served(deployment, workload, told):
    """Return when first tokens came and requests ended, with steps of a second."""
    found = simulate(deployment, workload, rules=told, step_s=lambda loads: 1.0, request_s=0.0, warm_up_s=0.0)
    return found.times.first_token_s, found.times.finish_s


def literal(workload, ranks, wait_steps, gather_steps, sequences):
    """Return the same as `served`, by the rule as the engine has it (scheduler.py, ``_balance_adp_context_requests``), step after step."""
    prompts, answers = [[] for _ in range(ranks)], [{} for _ in range(ranks)]
    first, finish = {}, {}
    arrived, turn, waited, gathered, now = 0, 0, 0, 0, 0.0
    count = len(workload)

    def arrive(until):
        nonlocal arrived, turn
        while arrived < count and workload.arrival_s[arrived] <= until:
            order = [(turn + ahead) % ranks for ahead in range(ranks)]
            least = min(order, key=lambda rank: len(prompts[rank]) + len(answers[rank]))
            prompts[least].append(arrived)
            arrived, turn = arrived + 1, turn + 1

    while len(finish) < count:
        arrive(now)
        if not any(prompts) and not any(answers):
            now = workload.arrival_s[arrived]
            continue
        chosen = [prompts[rank][: sequences - len(answers[rank])] for rank in range(ranks)]
        all_have_prompts, all_answer = all(chosen), all(answers)
        if all(len(each) < sequences for each in answers) and all_have_prompts:
            waited = 0
            if all_answer:
                if gathered < gather_steps:
                    gathered, chosen = gathered + 1, [[] for _ in range(ranks)]
                else:
                    gathered = 0
        else:
            waited += 1
            if waited >= wait_steps or not all_answer:
                waited = 0
            else:
                chosen = [[] for _ in range(ranks)]
        now += 1.0
        arrive(now - 1e-9)  # a request joins the rank that has fewest while the step runs
        for rank in range(ranks):
            for request in list(answers[rank]):
                answers[rank][request] -= 1
                if not answers[rank][request]:
                    del answers[rank][request]
                    finish[request] = now
            for request in chosen[rank]:
                prompts[rank].remove(request)
                first[request] = now
                if workload.output[request] == 1:
                    finish[request] = now
                else:
                    answers[rank][request] = workload.output[request] - 1
    return [first[request] for request in range(count)], [finish[request] for request in range(count)]


def test_a_prompt_waits_for_one_on_the_other_rank():
    """Steps 1, 2, 3 … have no prompts on both ranks, so that the fifth lets those go that there are; two prompts go when the second has come."""
    arrivals = [0.0, 0.0, 3.5, 6.5, 8.5]
    workload = Workload(prompt=[100] * 5, output=[40, 40, 1, 2, 2], arrival_s=arrivals)
    first, _ = served(TWO, workload, rules(TWO, rank_wait_steps=5))
    assert first == pytest.approx([1.0, 1.0, 6.0, 10.0, 10.0], abs=1e-12)


def test_without_balance_nobody_waits():
    workload = Workload(prompt=[100] * 3, output=[40, 40, 5], arrival_s=[0.0, 0.0, 3.5])
    assert served(TWO, workload, rules(TWO))[0][2] == pytest.approx(5.0, abs=1e-12)


def test_prompts_of_all_ranks_wait_for_more():
    """Both ranks have a prompt from the step at 4 s on; they wait two steps for more."""
    workload = Workload(prompt=[100] * 4, output=[40, 40, 5, 5], arrival_s=[0.0, 0.0, 3.5, 3.5])
    first, _ = served(TWO, workload, rules(TWO, rank_wait_steps=50, rank_gather_steps=2))
    assert first[2:] == pytest.approx([7.0, 7.0], abs=1e-12)


def test_prompts_run_where_a_rank_has_nothing_to_answer():
    """One request alone never waits for a rank that has none."""
    workload = Workload(prompt=[100], output=[10], arrival_s=[0.25])
    first, finish = served(FOUR, workload, rules(FOUR, rank_wait_steps=60))
    assert (first[0], finish[0]) == pytest.approx((1.25, 10.25), abs=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_as_the_rule_written_out(seed):
    rng = np.random.default_rng(seed)
    deployment, ranks = ((TWO, 2), (FOUR, 4))[seed % 2]
    wait, gather, sequences = int(rng.choice([1, 3, 7, 60])), int(rng.choice([0, 0, 2, 5])), int(rng.choice([2, 5, 64]))
    count = 60
    arrival_s = np.sort(np.round(rng.uniform(0, rng.choice([20, 100]), count), 3))
    workload = Workload(prompt=rng.integers(1, 200, count), output=rng.integers(1, 30, count), arrival_s=arrival_s)
    told = rules(deployment, rank_wait_steps=wait, rank_gather_steps=gather, sequences=sequences, step_tokens=10**6)
    found, expected = served(deployment, workload, told), literal(workload, ranks, wait, gather, sequences)
    for got, wanted in zip(found, expected, strict=True):
        assert got == pytest.approx(wanted, abs=1e-9)
