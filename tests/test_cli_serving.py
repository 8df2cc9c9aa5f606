"""`roofline serve-estimate`, `roofline simulate` and `roofline plan`: the library's answers in the words of the command line."""

import csv
import gzip
import io
import json
import subprocess
import sys

import numpy as np
import pytest

from roofline import Deployment
from roofline.cli import printing, simulate
from roofline.cli.wording import in_our_words
from roofline.planner import plan as find_plan
from roofline.planner import read_export
from roofline.requests import SLO, Arrivals, Lengths, Workload
from roofline.serving import max_rate, serving_estimate
from roofline.serving import simulate as serve
from shell import invoke as run

SERVED = ("llama-3.1-8b", "h100-sxm")
LENGTHS = ("--prompt", 1024, "--output", 256)
FEW = ("--prompt", 200, "--output", 20, "--requests", 50, "--rate", 20)
TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,374,44\n2023-11-16 18:15:50,396,109\n2023-11-16 18:15:51,879,55\n"


def ok(*words):
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


# -------------------------------------------------------------------------------------------------------------- closed forms


def test_the_text_of_a_serving_estimate_is_the_librarys():
    out = ok("serve-estimate", *SERVED, *LENGTHS, "--rate", 20)
    assert out.rstrip("\n") == in_our_words(str(serving_estimate(*SERVED, prompt=1024, output=256, rate=20.0)))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--concurrency", 64], {"concurrency": 64}),
        (["--rate", 20, "--engine", "sglang", "--kv-blocks", 200_000], {"rate": 20.0, "engine": "sglang", "kv_blocks": 200_000}),
        (["--rate", 5, "--tp", 2, "--weights", "fp8"], {"rate": 5.0, "tensor_parallel": 2, "weights": "fp8"}),
        (["--rate", 5, "--basis", "floor", "--chunked", "no"], {"rate": 5.0, "basis": "floor", "chunked": False}),
        (["--rate", 5, "--drafts", 3, "--acceptance", 0.7], {"rate": 5.0, "drafts": 3, "acceptance": 0.7}),
        (["--rate", 5, "--eager", "--calibration", "generic"], {"rate": 5.0, "cuda_graph": False, "calibration": "generic"}),
        (["--concurrency", 8, "--static"], {"concurrency": 8, "static": True}),
    ],
    ids=lambda o: " ".join(map(str, o)),
)
def test_json_of_a_serving_estimate_is_the_librarys(words, expected):
    data = json.loads(ok("serve-estimate", *SERVED, *LENGTHS, *words, "--json"))
    assert data == json.loads(serving_estimate(*SERVED, prompt=1024, output=256, **expected).to_json())


def test_lists_of_lengths_and_loads_are_combined():
    rows = list(
        csv.DictReader(io.StringIO(ok("serve-estimate", *SERVED, "--prompt", "512,1024", "--output", 256, "--rate", "5,20,90", "--csv")))
    )
    found = serving_estimate(*SERVED, prompt=np.repeat([512, 1024], 3), output=256, rate=np.tile([5.0, 20.0, 90.0], 2))
    assert [float(row["ttft_s"]) for row in rows] == found.ttft_s.tolist()
    table = ok("serve-estimate", *SERVED, "--prompt", "512,1024", "--output", 256, "--rate", "5,20,90").splitlines()
    first = next(i for i, line in enumerate(table) if line.split()[:1] == ["prompt"])
    assert [line.split()[0] for line in table[first + 1 : first + 7]] == ["512"] * 3 + ["1024"] * 3
    assert "saturated" in table[first + 6]
    assert "inf" not in table[first + 6]


def test_promises_find_the_largest_rate():
    data = json.loads(ok("serve-estimate", *SERVED, *LENGTHS, "--ttft", "500ms", "--tpot", "20ms", "--percentile", 0.9, "--json"))
    assert data["rate"] == max_rate(*SERVED, prompt=1024, output=256, slo=SLO(ttft_s=0.5, tpot_s=0.02, percentile=0.9)).rate
    rows = ok("serve-estimate", *SERVED, "--prompt", "1024,65536", "--output", 256, "--ttft", "250ms")
    assert "a single request has a time to the first token" in rows


def test_a_pool_for_prompts_may_have_another_degree_and_machine():
    words = ("--prefill-replicas", 2, "--prefill-tp", 2, "--prefill-hardware", "h200-sxm", "--link-bandwidth", "50GB/s")
    data = json.loads(ok("serve-estimate", *SERVED, *LENGTHS, "--rate", 20, *words, "--json"))
    prompts = Deployment("llama-3.1-8b", "h200-sxm", tensor_parallel=2)
    expected = serving_estimate(*SERVED, prompt=1024, output=256, rate=20.0, prefill=prompts, prefill_replicas=2, link_bandwidth="50GB/s")
    assert data["ttft_s"] == expected.ttft_s
    assert data["devices"] == 5


# ---------------------------------------------------------------------------------------------------------------- simulation


def test_the_text_of_a_simulation_is_the_librarys():
    made = Workload.generated(50, prompt=200, output=20, arrivals=20.0, seed=3)
    out = ok("simulate", *SERVED, *FEW, "--seed", 3)
    assert out.rstrip("\n") == in_our_words(str(serve(Deployment(*SERVED), made, seed=3)))


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["--rate", 9, "--arrival-cv", 0], lambda: Workload.generated(50, prompt=200, output=20, arrivals=Arrivals.even(9.0))),
        (["--rate", 9, "--arrival-cv", 2], lambda: Workload.generated(50, prompt=200, output=20, arrivals=Arrivals.gamma(9.0, cv=2.0))),
        (["--clients", 8], lambda: Workload.generated(50, prompt=200, output=20, clients=8)),
        (["--clients", 8, "--system-tokens", 64], lambda: Workload.generated(50, prompt=200, output=20, clients=8, system_tokens=64)),
        (
            ["--rate", 9, "--prompt-cv", 0.5],
            lambda: Workload.generated(50, prompt=Lengths.lognormal(mean=200, cv=0.5), output=20, arrivals=9.0),
        ),
    ],
    ids=lambda o: " ".join(map(str, o)) if isinstance(o, list) else "",
)
def test_requests_come_as_asked(words, made):
    rows = list(csv.DictReader(io.StringIO(ok("simulate", *SERVED, "--prompt", 200, "--output", 20, "--requests", 50, *words, "--csv"))))
    expected = serve(Deployment(*SERVED), made()).to_records()
    assert [float(row["finish_s"]) for row in rows] == [row["finish_s"] for row in expected]
    assert [int(row["prompt"]) for row in rows] == [row["prompt"] for row in expected]


def test_a_range_of_lengths_is_uniform():
    words = ("--prompt", "100-300", "--output", 20, "--requests", 200, "--clients", 50, "--csv")
    prompts = [int(row["prompt"]) for row in csv.DictReader(io.StringIO(ok("simulate", *SERVED, *words)))]
    assert prompts == Workload.generated(200, prompt=Lengths.uniform(100, 300), output=20, clients=50).prompt.tolist()


def test_users_ask_again_after_thinking():
    data = json.loads(ok("simulate", *SERVED, "--prompt", 100, "--output", 20, "--users", 5, "--turns", 3, "--think", "2s", "--json"))
    made = Workload.from_users(5, prompt=100, output=20, turns=3, think_s=2.0)
    assert data["requests"] == 15
    assert data["duration_s"] == serve(Deployment(*SERVED), made).times.duration_s


def test_a_trace_is_served_at_its_own_rate_or_another(tmp_path):
    file = tmp_path / "trace.csv.gz"
    file.write_bytes(gzip.compress(TRACE.encode()))
    rows = list(csv.DictReader(io.StringIO(ok("simulate", *SERVED, "--trace", file, "--csv"))))
    assert [float(row["arrival_s"]) for row in rows] == [0.0, 4.0, 5.0]
    rows = list(csv.DictReader(io.StringIO(ok("simulate", *SERVED, "--trace", file, "--rate", 4, "--csv"))))
    assert [float(row["arrival_s"]) for row in rows] == [0.0, 0.4, 0.5]
    assert len(ok("simulate", *SERVED, "--trace", file, "--requests", 2, "--csv").splitlines()) == 3


def test_broken_promises_are_a_finding():
    kept = run("simulate", *SERVED, *FEW, "--ttft", "1s", "--tpot", "50ms")
    assert (kept.exit_code, "are kept: TTFT" in kept.stdout) == (0, True)
    broken = run("simulate", *SERVED, *FEW, "--ttft", "1s", "--tpot", "1ms")
    assert (broken.exit_code, broken.stderr) == (1, "")
    assert "promises for 99 % are broken" in broken.stdout
    data = json.loads(run("simulate", *SERVED, *FEW, "--tpot", "1ms", "--json").stdout)
    assert data["promises"]["runs"][0]["met"] is False


def test_the_timeline_of_replicas_and_steps(tmp_path):
    file = tmp_path / "run.json"
    ok("simulate", *SERVED, *FEW, "--replicas", 2, "--router", "least loaded", "--timeline", file)
    events = json.loads(file.read_text())["traceEvents"]
    assert {event["pid"] for event in events} == {0, 1}
    assert any(event["name"] == "step" for event in events)


def test_several_runs_have_requests_of_their_own():
    data = json.loads(ok("simulate", *SERVED, *FEW, "--replications", 3, "--seed", 5, "--json"))
    assert data["seeds"] == [5, 6, 7]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("serve-estimate", *SERVED, *LENGTHS), "give one of --rate, --concurrency, and promises"),
        (("serve-estimate", *SERVED, *LENGTHS, "--rate", 1, "--ttft", "1s"), "give one of --rate, --concurrency, and promises"),
        (("serve-estimate", *SERVED, "--prompt", 10, "--rate", 1), "serve-estimate needs --output N,N…"),
        (("serve-estimate", *SERVED, *LENGTHS, "--rate", 0), "rate is 0"),
        (("serve-estimate", *SERVED, *LENGTHS, "--rate", 1, "--chunked", "perhaps"), "--chunked is 'perhaps'; it is yes or no."),
        (("serve-estimate", *SERVED, *LENGTHS, "--rate", 1, "--kv-blocks", 0), "--kv-blocks is 0"),
        (("simulate", *SERVED), "--prompt is not given; requests come from --trace"),
        (("simulate", *SERVED, *LENGTHS), "give --rate, the requests a second"),
        (("simulate", *SERVED, *LENGTHS, "--rate", -1), "rate is -1.0; it must be a positive finite number"),
        (("simulate", *SERVED, *LENGTHS, "--rate", 1, "--turns", 2), "--turns is of --users."),
        (("simulate", *SERVED, *LENGTHS, "--users", 1, "--requests", 2), "--requests cannot be given with --users"),
        (("simulate", *SERVED, "--prompt", "long", "--output", 1, "--rate", 1), "--prompt is 'long'; it is a number of tokens"),
        (("simulate", *SERVED, "--prompt", "1-9", "--prompt-cv", 1, "--output", 1, "--rate", 1), "--prompt 1-9 is a range"),
        (("simulate", *SERVED, "--prompt", 0, "--output", 1, "--rate", 1), "--prompt is '0'; it is a number of tokens"),
        (("simulate", *SERVED, "--trace", "nosuch.csv"), "'nosuch.csv' cannot be read"),
        (("simulate", *SERVED, "--trace", "x.csv", "--prompt", 3), "--prompt cannot be given with --trace"),
        (("simulate", *SERVED, *FEW, "--ttft", "1"), "--ttft is '1'; it is a number with its unit"),
        (("simulate", *SERVED, *FEW, "--ttft", "0s"), "--ttft is 0"),
        (("simulate", *SERVED, *FEW, "--router", "nearest"), "nearest"),
        (("simulate", *SERVED, *FEW, "--max-model-len", 100), "100"),
        (("simulate", *SERVED, "--prompt", 9000, "--output", 9, "--rate", 1, "--kv-blocks", 50), "block"),
        (("simulate", "llama-3.1-70b", "h100-sxm", *FEW), "nothing is left for a cache"),
    ],
    ids=lambda o: " ".join(map(str, o[2:])) if isinstance(o, tuple) else "",
)
def test_wrong_words_get_one_sentence(words, message):
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.startswith("roofline: ")
    assert result.stderr.count("\n") == 1


# ------------------------------------------------------------------------------------------------------------------ planning

PLAN = """
model = "llama-3.1-8b"
machines = ["h100-sxm", "l40s"]
degrees = [1, {tensor_parallel = 2, kv = "fp8"}]
simulated = 3

[workload]
rate = 12
prompt = 1000
output = 100
requests = 200

[promises]
ttft = "500ms"
tpot = "20ms"

[prices]
h100-sxm = 2.5
l40s = 0.9

[options]
utilization = 0.9
"""
ASKED = (
    *(
        "--machines",
        "h100-sxm,l40s",
        "--rate",
        12,
        "--prompt",
        1000,
        "--output",
        100,
        "--requests",
        200,
        "--ttft",
        "500ms",
        "--tpot",
        "20ms",
    ),
    *("--degrees", "1,2", "--simulated", 3),
)


def made(**changes):
    asked = {"machines": ["h100-sxm", "l40s"], "degrees": [1, 2], "simulated": 3, **changes}
    chat = Workload.generated(200, prompt=1000, output=100, arrivals=12.0)
    return find_plan("llama-3.1-8b", chat, SLO(ttft_s=0.5, tpot_s=0.02), **asked)


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    return file


def test_the_text_of_a_plan_is_the_librarys():
    assert ok("plan", "llama-3.1-8b", *ASKED).rstrip("\n") == in_our_words(str(made()))


def test_prices_are_of_machines_or_of_all():
    words = ("plan", "llama-3.1-8b", *ASKED, "--json", "--prices")
    assert json.loads(ok(*words, "h100=2.5,l40s=0.9"))["cost"] == made(prices={"h100-sxm": 2.5, "l40s": 0.9}).cheapest.cost
    assert json.loads(ok(*words, 2))["cost"] == 2 * made().cheapest.devices


def test_a_file_asks_what_options_ask(config):
    expected = made(degrees=[1, {"tensor_parallel": 2, "kv": "fp8"}], prices={"h100-sxm": 2.5, "l40s": 0.9}, utilization=0.9)
    assert json.loads(ok("plan", "--config", config, "--json")) == json.loads(expected.to_json())


def test_options_go_before_the_file(config):
    data = json.loads(ok("plan", "--config", config, "--rate", 20, "--spare", 1, "--json"))
    assert data["workload"]["load"] == pytest.approx(Workload.generated(200, prompt=1000, output=100, arrivals=20.0).rate)
    assert data["devices"] > json.loads(ok("plan", "--config", config, "--rate", 20, "--json"))["devices"]


def test_looks_and_graphs_of_an_engine_are_in_a_file_and_among_the_options(config):
    asked = 'engine = "sglang"\nreceive_interval = 4\n'
    config.write_text(asked + PLAN)
    told = ("--graph-tokens", 512, "--export", "sglang")
    assert read_export(ok("plan", "--config", config, *told)).limits == {"receive_interval": 4, "graph_tokens": 512}


def test_a_trace_is_looked_for_beside_the_file(tmp_path):
    (tmp_path / "trace.csv").write_text(TRACE)
    text = PLAN.replace("rate = 12\nprompt = 1000\noutput = 100\nrequests = 200", 'trace = "trace.csv"')
    (tmp_path / "plan.toml").write_text(text)
    assert json.loads(ok("plan", "--config", tmp_path / "plan.toml", "--json"))["workload"]["load"] == pytest.approx(2 / 5)


def test_every_candidate_is_a_row_of_csv():
    rows = list(csv.DictReader(io.StringIO(ok("plan", "llama-3.1-8b", *ASKED, "--csv"))))
    assert [(row["name"], row["reason"]) for row in rows] == [(row["name"], row["reason"]) for row in made().to_records()]


def test_a_plan_is_exported_and_reported(tmp_path):
    out = ok("plan", "llama-3.1-8b", *ASKED, "--export", "vllm", "--checkpoint", "mine/llama", "--report", tmp_path / "plan.html")
    assert "vllm serve mine/llama" in out
    assert read_export(out).deployment == made().cheapest.candidate.deployment
    assert "<h2>Answer</h2>" in (tmp_path / "plan.html").read_text()


def test_processes_give_the_same_answer():
    assert ok("plan", "llama-3.1-8b", *ASKED, "--processes", 2) == ok("plan", "llama-3.1-8b", *ASKED)


def test_promises_that_no_candidate_keeps_are_a_finding():
    result = run("plan", "llama-3.1-8b", *ASKED[:-4], "--degrees", 1, "--e2e", "1ms")
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.startswith("no plan for ")
    assert "forbids it" in result.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("ttft", "tttf"), "table promises of plan.toml has 'tttf', which is no key of it; nearest: ttft"),
        (("machines", "machine"), "plan.toml has 'machine', which is no key of it; nearest: machines"),
        (("simulated = 3", "rate = 3"), "plan.toml has 'rate', which is no key of it; nearest: workload.rate."),
        (("[promises]", "[promise]"), "plan.toml has 'promise', which is no key of it; nearest: promises"),
        (("[workload]", "workload = 3\n[promises.x]"), "workload of plan.toml is 3; it is a table, [workload]."),
        (("utilization = 0.9", "tensor_parallel = 2"), "table options of plan.toml has 'tensor_parallel'"),
        (("l40s = 0.9", ""), "--prices has none of l40s"),
        (('ttft = "500ms"', "ttft = 0.5"), "--ttft is 0.5; it is a number with its unit"),
        (("prompt = 1000", "prompt = -5"), "--prompt is '-5'; it is a number of tokens"),
        (("requests = 200", 'requests = "many"'), "many"),
        (('model = "llama-3.1-8b"', ""), "model is not given; plan needs a model"),
        (("simulated = 3", "simulated = ="), "cannot be read: Invalid value"),
        (('ttft = "500ms"\ntpot = "20ms"', ""), "nothing is promised: give --ttft"),
        (('"l40s"]', '"l4s"]'), "unknown machine 'l4s'; nearest: l40s"),
    ],
    ids=lambda change: change[1] if isinstance(change, tuple) else "",
)
def test_what_is_wrong_with_a_file_is_one_sentence(config, change, message):
    text = PLAN.replace(*change, 1)
    assert text != PLAN
    config.write_text(text)
    result = run("plan", "--config", config)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


# ------------------------------------------------------------------------------------------------- progress and interruption


def test_ctrl_c_leaves_one_line_and_status_130():
    script = (
        "from roofline.cli import simulate as command; from roofline.__main__ import main; import sys\n"
        "def stopped(*_, **__): raise KeyboardInterrupt\n"
        "command.serve = stopped\n"
        f"sys.argv = ['roofline', 'simulate', *{[str(word) for word in (*SERVED, *FEW)]}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "roofline: interrupted; nothing was written.\n")


def test_progress_is_shown_at_a_terminal_only(monkeypatch):
    real = simulate.serve

    def slow(*given, **told):
        assert not printing.Event().wait(1.2)
        return real(*given, **told)

    monkeypatch.setattr(simulate, "serve", slow)
    assert run("simulate", *SERVED, *FEW).stderr == ""
    assert run("simulate", *SERVED, *FEW, columns=80).stderr == "\r\x1b[Ksimulating, 1 s\r\x1b[K"
