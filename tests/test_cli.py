"""The command line: the same numbers as the library, errors in one line of the command line's words, tables that fit."""

import csv
import io
import json
import re
import subprocess
import sys

import pytest

import roofline
from pretended import FULL, bare, start
from roofline import (
    Hardware,
    attention_floor,
    decode_estimate,
    decode_floor,
    experts_floor,
    fewest_devices,
    journey,
    levers,
    list_models,
    list_records,
    matmul_floor,
    max_batch,
    max_context,
    prefill_floor,
)
from roofline.cli import kernel
from roofline.cli.app import COMMANDS, find_command
from roofline.cli.wording import in_our_words
from roofline.deployment.options import CAPACITY, OPTIONS, STEP
from roofline.estimate import kernel_estimate
from shell import invoke as run


def ok(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


# ------------------------------------------------------------------------------------------------------------------- floors


def test_the_text_of_a_floor_is_the_librarys():
    out = ok("floor", "llama-3-8b", "h100-sxm", "--batch", 8, "--context", 1024)
    assert out.rstrip("\n") == in_our_words(str(decode_floor("llama-3-8b", "h100-sxm", batch=8, context=1024)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], lambda m, h: decode_floor(m, h)),
        (["--batch", 8, "--context", 1024], lambda m, h: decode_floor(m, h, batch=8, context=1024)),
        (["--weights", "fp8", "--kv", "fp8"], lambda m, h: decode_floor(m, h, weights="fp8", kv="fp8")),
        (["--weights", "fp8", "--activations", "bf16"], lambda m, h: decode_floor(m, h, weights="fp8", activations="bf16")),
        (["--prompt", 2048], lambda m, h: prefill_floor(m, h, prompt=2048)),
        (["--prompt", 2048, "--cached", 1024, "--batch", 2], lambda m, h: prefill_floor(m, h, prompt=2048, cached=1024, batch=2)),
    ],
    ids=lambda o: " ".join(map(str, o)) if isinstance(o, list) else "",
)
def test_json_is_the_librarys(options, expected):
    data = json.loads(ok("floor", "llama-3-8b", "h100-sxm", *options, "--json"))
    assert data == expected("llama-3-8b", "h100-sxm").to_dict()
    assert data["schema_version"] == 1


def test_a_floor_from_a_file_and_a_number_of_parameters(repository):
    config = repository / "examples" / "llama-2-70b" / "config.json"
    # 2·68,976,648,192 B less the table's 2·262,144,000 B, at 3.352 TB/s: 41 ms
    data = json.loads(ok("floor", config, "h100-sxm", "--json"))
    assert data["time_s"] * 1e3 == pytest.approx(41.0, abs=0.05)
    assert data["tokens_per_s"] is None
    assert data["bound"] == "capacity"
    assert "DOES NOT FIT" in ok("floor", config, "h100-sxm")
    assert json.loads(ok("floor", "7B", "h100-sxm", "--json"))["weight_bytes"] == 14e9


def test_bare_rates_are_a_machine():
    out = ok("floor", "70B", "--memory-bandwidth", 3e12, "--memory-capacity", 80e9)
    assert out.rstrip("\n") == in_our_words(str(decode_floor("70B", memory_bandwidth=3e12, memory_capacity=80e9)))
    assert "no machine: name one" in run("floor", "70B").stderr


DEPLOYED = ("floor", "estimate", "explain", "sweep", "levers", "journey", "efficiency")


@pytest.mark.parametrize(("command", "names"), [*((command, STEP) for command in DEPLOYED), ("fit", CAPACITY)])
def test_every_option_of_a_deployment_is_an_option_of_the_command(command, names):
    """One description each: what the docstrings say is what --help says."""
    text = " ".join(run(command, "--help").stdout.split())
    for name in names:
        assert f"--{name.replace('_', '-')}" in text
        first = OPTIONS[name].text.split(",")[0]
        assert " ".join(first.split()[:4]) in text, name


def test_the_breakdown_lists_every_operator():
    out = ok("floor", "llama-3-8b", "h100-sxm", "--ops")
    for row in decode_floor("llama-3-8b", "h100-sxm").by_op():
        assert row.op.name in out
    assert "operator " in out
    assert "operator " not in ok("floor", "llama-3-8b", "h100-sxm")


# ----------------------------------------------------------------------------------------------------------------- hardware


def test_every_machine_is_listed():
    lines = ok("hardware").splitlines()
    for machine in Hardware.list():
        assert any(machine in line for line in lines), machine
    assert any("h100-sxm" in line and "3.352 TB/s" in line and "319" in line for line in lines)


def test_one_machine():
    assert "H100 SXM5 80GB" in ok("hardware", "H100")
    data = json.loads(ok("hardware", "h100-sxm", "--json"))
    assert Hardware.from_dict(data) == Hardware.load("h100-sxm")


def test_all_machines_as_json():
    data = json.loads(ok("hardware", "--json"))
    assert [d["id"] for d in data] == Hardware.list()


# ------------------------------------------------------------------------------------------------------------------- models


def test_every_model_is_listed():
    lines = ok("models").splitlines()
    for name in list_models():
        assert any(name in line for line in lines), name
    # 68.98e9 parameters; 2·80 layers·8 heads·128·2 B of cache per token
    assert any("llama-2-70b" in line and "68.98 B" in line and "327.7 kB" in line and "80" in line for line in lines)


# ------------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("floor", "lama-3-8b", "h100"), "unknown model 'lama-3-8b'; nearest: "),
        (("floor", "llama-3-8b", "h100x"), "unknown machine 'h100x'; nearest: "),
        (("floor", "llama-3-8b", "h100", "--weights", "fp9"), "unknown number format 'fp9'; nearest: fp8"),
        (("floor", "llama-3-8b", "h100", "--batch", 0), "batch is 0"),
        (("floor", "llama-3-8b", "h100", "--context", -1), "context is -1"),
        (("floor", "llama-3-8b", "h100", "--prompt", 0), "prompt is 0"),
        (("floor", "llama-3-8b", "h100", "--prompt", 8, "--cached", 8), "cached is 8 but prompt is 8"),
        (("floor", "no/such/config.json", "h100"), "cannot read no/such/config.json"),
        (("floor", "llama-3-8b", "no/such/spec.toml"), "no/such/spec.toml"),
        (("hardware", "nonesuch"), "unknown machine 'nonesuch'"),
    ],
)
def test_errors_are_one_line_on_stderr(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.startswith("roofline: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("floor",),
        ("floor", "llama-3-8b"),
        ("floor", "llama-3-8b", "h100", "--batch", "many"),
        ("floor", "llama-3-8b", "h100", "--prompt", 8, "--context", 8),
        ("floor", "llama-3-8b", "h100", "--cached", 8),  # without a prompt there is nothing to have cached
        ("nonesuch",),
    ],
)
def test_invalid_command_line_exits_with_usage_error(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


def test_the_list_of_commands_says_what_they_say():
    for name, line in COMMANDS.items():
        assert find_command([name])[0].about.splitlines()[0] == line


def test_help():
    assert all(f"  {name} " in ok("--help") for name in COMMANDS)
    assert "--prompt" in ok("floor", "--help")
    assert run().exit_code == 2
    assert run("floor", "--batch", 8, "-h").stdout == ok("floor", "--help")


@pytest.mark.parametrize("columns", [50, 80, 120])
@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS), ("kernel", "attention")], ids=" ".join)
def test_help_is_as_wide_as_the_terminal(command, columns):
    lines = run(*command, "--help", columns=columns).stdout.splitlines()
    assert max(map(len, lines)) <= columns


def test_the_version():
    assert ok("--version") == f"roofline {roofline.__version__}\n"


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "roofline", "--version"], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == ok("--version")


# --------------------------------------------------------------------------------------------------------------- estimates


def test_the_text_of_an_estimate_is_the_librarys():
    out = ok("estimate", "llama-3-8b", "h100-sxm", "--batch", 8, "--context", 1024)
    assert out.rstrip("\n") == str(decode_estimate("llama-3-8b", "h100-sxm", batch=8, context=1024))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--eager"], {"cuda_graph": False}),
        (["--calibration", "generic"], {"calibration": "generic"}),
        (["--calibration", "trtllm", "--tp", 2], {"calibration": "trtllm", "tensor_parallel": 2}),
        (["--interval", 0.5, "--weights", "fp8"], {"interval": 0.5, "weights": "fp8"}),
    ],
    ids=lambda o: " ".join(map(str, o)),
)
def test_json_of_an_estimate_is_the_librarys(options, expected):
    data = json.loads(ok("estimate", "llama-3-8b", "h100-sxm", *options, "--json"))
    assert data == decode_estimate("llama-3-8b", "h100-sxm", **expected).to_dict()


def test_a_record_knows_its_machine():
    out = ok("estimate", "llama-3-8b", "--calibration", "h100-sxm-vllm-0.24.0", "--prompt", 512, "--ops")
    assert "H100 SXM5" in out
    assert "self_attn.qkv_proj" in out
    assert "or give --calibration a record" in run("estimate", "llama-3-8b").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tensor-parallel-size", 4], "floor has no '--tensor-parallel-size'; did you mean --tensor-parallel?"),
        (["--gpu-memory-utilization=0.9"], "did you mean --utilization?"),
        (["--wieghts", "fp8"], "did you mean --weights"),
        (["--xyzzy"], "see 'roofline floor --help'"),
    ],
)
def test_unknown_options_name_the_right_one(words, message):
    result = run("floor", "llama-3-8b", "h100-sxm", *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_options_may_stand_between_model_and_machine():
    assert ok("floor", "llama-3-8b", "--batch", 8, "h100-sxm") == ok("floor", "llama-3-8b", "h100-sxm", "--batch", 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("floor", "llama-3-8b", "h100", "--batch", "1e3"), "--batch is '1e3'; it must be a whole number of at least 1"),
        (("floor", "llama-3-8b", "h100", "--batch", 0), "--batch is 0; it must be"),
        (("floor", "llama-3-8b", "h100", "--utilization", "lots"), "--utilization is 'lots'; "),
        (("floor", "llama-3-8b", "h100", "--batch"), "--batch needs a value"),
        (("floor", "llama-3-8b", "h100", "--batch", "--json"), "--batch needs a value"),
        (("floor", "llama-3-8b", "h100", "--batch="), "--batch needs a value"),
        (("floor", "llama-3-8b", "h100", "--tp", 2, "--tensor-parallel", 4), "--tensor-parallel is given twice"),
        (("floor", "llama-3-8b", "h100", "--json=yes"), "--json takes no value"),
        (("floor", "llama-3-8b", "h100", "h200"), "floor takes MODEL HARDWARE; 'h200' is one word too many"),
        (("floor", "llama-3-8b", "h100", "--hardware", "h200"), "HARDWARE is given twice"),
        (("floor",), "floor needs MODEL; see 'roofline floor --help'"),
        (("efficiency", "llama-3-8b", "h100"), "efficiency needs --time WORD"),
        (("efficiency", "llama-3-8b", "h100", "--time", "24.5"), "--time is '24.5'; it is a number with its unit"),
        (("sweep", "llama-3-8b", "h100", "--batch", "1,x"), "--batch is 'x'"),
        (("kernel",), "kernel needs KIND"),
        (("kernel", "matmull"), "unknown kind of kernel 'matmull'; nearest: matmul"),
        (("kernel", "matmul", "h100", "--m", 8, "--n", 8, "--format", "bf16"), "kernel matmul needs --k"),
        (("kernel", "matmul", "h100", "--m", "8,16", "--n", 8, "--k", 8, "--format", "bf16", "--time", "1ms"), "--time is of one kernel"),
        (("calibrate", "--output", "x.json", "--id", "mine"), "--id goes with --tables"),
        (("calibrate", "--output", "x.json", "--tables", "t.csv"), "--tables needs --hardware"),
        (("flor",), "unknown command 'flor'; nearest: floor"),
    ],
)
def test_wrong_words_get_a_sentence_of_ours(words, message):
    result = run(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.startswith("roofline: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ("floor", "llama-3-8b"),
        ("floor", "llama-3-8b", "h100x"),
        ("floor", "llama-3-8b", "h100", "--tp", 0),
        ("floor", "llama-3-8b", "h100", "--memory-bandwidth", 3e12),
        ("floor", "70B", "--memory-bandwidth", 3350),
        ("floor", "70B", "--memory-bandwidth", 3e12, "--memory-capacity", 80),
        ("floor", "mixtral-8x7b", "h100", "--tp", 3),
        ("fit", "llama-3-8b", "h100", "--activation-tokens", -1),
        ("fit", "llama-3-8b", "h100", "--page", 0),
        ("estimate", "llama-3-8b", "h100", "--calibration", "nosuch"),
        ("levers", "llama-3-8b", "h100", "--hit", 2),
        ("kernel", "matmul", "h100", "--m", 0, "--n", 8, "--k", 8, "--format", "bf16"),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_messages_speak_the_words_of_the_command_line(words):
    message = run(*words).stderr
    assert message.count("\n") == 1
    assert not re.search(r"\w\(|\b[a-z]+=", message), message
    assert [name for name in OPTIONS if "_" in name and name in message] == []


def test_results_speak_the_words_of_the_command_line():
    text = ok("floor", "mixtral-8x7b", "h100-sxm")
    assert "--weights fp8 (" in text
    assert ".ceilings" not in text
    assert "tensor_parallel" not in ok("levers", "llama-3-8b", "h100-sxm")


# ------------------------------------------------------------------------------------------------------- the other questions


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_sweep_has_a_row_for_every_combination():
    words = ("sweep", "llama-3-8b", "h100-sxm,l4", "--batch", "1,64", "--context", "0,4096", "--tp", "1,2", "--weights", "bf16,fp8")
    rows = rows_of(ok(*words, "--csv"))
    assert len(rows) == 2**5
    for row in rows:
        options = {"tensor_parallel": int(row["tensor_parallel"]), "weights": row["weights"]}
        step = {"batch": int(row["batch"]), "context": int(row["context"])}
        estimate = decode_estimate("llama-3-8b", row["hardware"], **step, **options)
        assert float(row["floor_s"]) == pytest.approx(estimate.floor.time_s, rel=1e-12)
        assert float(row["estimate_s"]) == pytest.approx(estimate.time_s, rel=1e-12)
    assert json.loads(ok(*words, "--json"))["rows"][0]["floor_s"] == float(rows[0]["floor_s"])
    table = ok(*words)
    assert all(text in table for text in ("hardware", "weights", "tp", "batch", "context", "floor", "estimate"))


def test_a_sweep_of_prefills():
    rows = rows_of(ok("sweep", "llama-3-8b", "h100-sxm", "--prompt", "512,2048", "--batch", "1,2", "--cached", 256, "--csv"))
    assert [(row["batch"], row["prompt"]) for row in rows] == [("1", "512"), ("1", "2048"), ("2", "512"), ("2", "2048")]
    expected = prefill_floor("llama-3-8b", "h100-sxm", prompt=2048, batch=2, cached=256).time_s
    assert float(rows[3]["floor_s"]) == pytest.approx(expected, rel=1e-12)


def test_a_sweep_names_what_it_could_not_evaluate():
    out = ok("sweep", "llama-3-8b", "h100-sxm", "--tp", "1,3,5")
    assert "not evaluated: h100-sxm, tp 3: llama-3-8b: 32 attention heads cannot be split 3 ways evenly" in out
    assert "no estimate: 70B parameters" in ok("sweep", "70B", "--memory-bandwidth", 3e12)
    assert run("sweep", "llama-3-8b", "h100-sxm", "--tp", "3").exit_code == 2


def test_levers_are_a_table_in_the_order_of_their_gain():
    found = levers("llama-3-8b", "h100-sxm", batch=8, context=1024)
    lines = ok("levers", "llama-3-8b", "h100-sxm", "--batch", 8, "--context", 1024).splitlines()
    names = [in_our_words(row.name) for row in found]
    table = lines[3 : 3 + len(found)]
    assert [line.startswith(name) for line, name in zip(table, names, strict=True)] == [True] * len(names)
    assert f"{found.best.gain:.2f}×" in table[0]
    assert json.loads(ok("levers", "llama-3-8b", "h100-sxm", "--prompt", 512, "--json"))["kind"] == "levers of a prefill floor"
    assert "What helps:" in ok("levers", "llama-3-8b", "h100-sxm", "--explain")
    assert "h200" in ok("levers", "llama-3-8b", "h100-sxm", "--machines", "h200,b200")


def test_a_journey():
    assert (
        json.loads(ok("journey", "llama-3-8b", "h100-sxm", "--context", 128, "--json"))
        == journey("llama-3-8b", "h100-sxm", context=128).to_dict()
    )
    assert [row["batch"] for row in rows_of(ok("journey", "llama-3-8b", "h100-sxm", "--batches", "1,32", "--csv"))] == ["1", "32"]


def test_what_fits():
    # as in the docstrings of max_batch and max_context: (80e9 - 16.06e9) / (8192 · 131,072 B) = 59.5
    data = json.loads(ok("fit", "llama-3-8b", "--memory-capacity", 80e9, "--context", 8192, "--batch", 59, "--json"))
    assert data["max_batch"] == 59 == max_batch("llama-3-8b", memory_capacity=80e9, context=8192)
    assert data["max_context"] == max_context("llama-3-8b", memory_capacity=80e9, batch=59)
    out = ok("fit", "llama-3-70b", "--memory-capacity", 80e9, "--batch", 32, "--context", 8192)
    assert (
        f"fewest devices for batch 32 at context 8192: {fewest_devices('llama-3-70b', memory_capacity=80e9, batch=32, context=8192)}" in out
    )
    assert "give --memory-capacity" in ok("fit", "llama-3-8b")


KERNELS = {
    "matmul": ({"m": 16, "n": 4096, "k": 2048, "format": "fp8", "output": "bf16"}, matmul_floor),
    "attention": ({"heads": 32, "kv_heads": 8, "head_dim": 128, "batch": 4, "context": 512}, attention_floor),
    "experts": ({"tokens": 8, "hidden": 512, "intermediate": 256, "count": 8, "top_k": 2, "format": "bf16", "gated": False}, experts_floor),
}


@pytest.mark.parametrize("kind", KERNELS)
def test_a_kernel(kind):
    sizes, function = KERNELS[kind]
    words = [
        w for name, value in sizes.items() for w in ([f"--{name.replace('_', '-')}", value] if value is not False else [f"--no-{name}"])
    ]
    data = json.loads(ok("kernel", kind, "h100-sxm", *words, "--json"))
    floor = function(**sizes, hardware="h100-sxm")
    assert data["floor"]["time_s"] == floor.time_s
    assert data["estimate"]["time_s"] == kernel_estimate(floor).time_s


def test_every_kernel_with_a_floor_is_a_kind():
    kinds = {name.removesuffix("_floor") for name in roofline.__all__ if name.endswith("_floor")} - {"decode", "prefill", "step"}
    assert set(kernel.kinds()) == kinds
    for kind in kinds:
        assert "[" not in "".join(line[30:] for line in ok("kernel", kind, "--help").splitlines() if "unit" in line)
        assert "`" not in ok("kernel", kind, "--help")


def test_sizes_of_kernels_are_lists():
    rows = rows_of(ok("kernel", "matmul", "h100-sxm", "--m", "1,16", "--n", "1024,2048,4096", "--k", 512, "--format", "bf16", "--csv"))
    assert [(row["m"], row["n"]) for row in rows] == [(m, n) for m in ("1", "16") for n in ("1024", "2048", "4096")]
    expected = matmul_floor(16, 4096, 512, hardware="h100-sxm", format="bf16").time_s
    assert float(rows[-1]["floor_s"]) == pytest.approx(expected, rel=1e-12)


def test_the_efficiency_of_a_measured_time():
    # 140 GB in 62.5 ms on 3 TB/s: 46.67 / 62.5 = 74.7 %
    data = json.loads(ok("efficiency", "70B", "--memory-bandwidth", 3e12, "--time", "62.5ms", "--json"))
    assert data["mbu"] == pytest.approx(0.7467, abs=1e-4)
    assert data["mfu"] is None
    assert "MBU 74.7%" in ok("efficiency", "70B", "--memory-bandwidth", 3e12, "--time", "62500us")
    kernel = ("kernel", "matmul", "h100-sxm", "--m", 4096, "--n", 4096, "--k", 4096, "--format", "bf16")
    # 2·4096³ FLOP in 200 µs are 687.2 TFLOP/s of 989.4
    assert "MFU 69.5%" in ok(*kernel, "--time", "200us")


def test_models_and_records_as_data():
    assert [model["name"] for model in json.loads(ok("models", "--json"))] == list_models()
    one = json.loads(ok("models", "mixtral-8x7b", "--json"))
    assert sum(one["components"].values()) == one["parameters"] == 46_702_792_704  # mistralai/Mixtral-8x7B-v0.1, model card: 46.7B
    assert [record["id"] for record in json.loads(ok("records", "--json"))] == list_records()
    assert rows_of(ok("hardware", "--csv"))[0]["id"] == Hardware.list()[0]


def test_what_a_name_is_read_as_is_said():
    assert '"h100" is read as h100-sxm' in ok("hardware", "h100")
    assert "is read as mixtral-8x7b" in ok("models", "mistralai/Mixtral-8x7B-Instruct-v0.1")


def test_more_than_the_data_sheet_is_explained():
    # 2·8192³ FLOP in 4.7 ms are 233.9 TFLOP/s; the data sheet has 209.5
    words = ("--m", 8192, "--n", 8192, "--k", 8192, "--format", "bf16", "--time", "4.7ms")
    assert "MFU 111.7% (the device runs faster than the peak of its data sheet)" in ok("kernel", "matmul", "rtx-5090", *words)


def test_a_machine_is_shown_with_every_source():
    out = " ".join(ok("hardware", "h100-sxm").split())
    data = Hardware.load("h100-sxm").to_dict()
    sources = [section["source"] for section in data.values() if isinstance(section, dict)]
    assert len(sources) >= 5
    assert [source for source in sources if " ".join(source.split()) not in out] == []
    assert "3.352 TB/s" in out


@pytest.fixture
def products(tmp_path):
    """A table of three products, of which the last is 1.5 µs where its floor is 1.1 ms, and a column that is no size."""
    table = tmp_path / "products.csv"
    table.write_text("m,n,k,dtype,latency_us,tile\n16,4096,4096,bf16,14.2,64\n4096,4096,4096,bf16,208,128\n8192,8192,8192,bf16,1.5,128\n")
    return table


def test_every_row_of_a_table_is_listed(products):
    words = ("check", products, "h100-sxm", "--ignore", "tile")
    assert run(*words).exit_code == 1
    rows = rows_of(run(*words, "--csv").stdout)
    assert [row["row"] for row in rows] == ["3", "2", "1"]  # the nearest to the roof first
    floor = matmul_floor(4096, 4096, 4096, hardware="h100-sxm", format="bf16")
    assert float(rows[1]["share"]) == pytest.approx(floor.time_s / 208e-6, rel=1e-9)
    listed = run(*words, "--all", columns=80).stdout
    assert all(shape in listed for shape in ("16 × 4096 × 4096", "8192 × 8192 × 8192"))
    assert json.loads(run(*words, "--json").stdout)["rows_checked"] == 3
    assert run("check", products, "h100-sxm", "--columns", "tile").stderr.startswith("roofline: --columns has 'tile'")


@pytest.mark.parametrize(
    "words",
    [
        ("estimate", "llama-3-8b", "h100-sxm", "--batch", 8),
        ("levers", "llama-3-8b", "h100-sxm"),
        ("journey", "llama-3-8b", "h100-sxm"),
        ("fit", "llama-3-8b", "h100-sxm", "--context", 8192, "--at-most", 8, "--reserve", "2GB"),
        ("efficiency", "llama-3-8b", "h100-sxm", "--prompt", 4096, "--time", "200ms"),
    ],
    ids=lambda words: words[0],
)
def test_what_a_command_saved_is_asked_again_without_loss(tmp_path, words):
    saved = tmp_path / "saved.json"
    saved.write_text(ok(*words, "--json"))
    assert ok("ask", saved, "--json") == saved.read_text()
    assert ok("ask", saved, "--csv") == ok(*words, "--csv")


def test_a_saved_result_is_asked_again(tmp_path, monkeypatch):
    saved = tmp_path / "saved.json"
    text = ok("estimate", "llama-3-8b", "h100-sxm", "--batch", 8, "--json")
    saved.write_text(text)
    assert json.loads(ok("ask", saved, "--json")) == json.loads(text)
    assert "cannot be read" in run("ask", tmp_path).stderr
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert json.loads(ok("ask", "-", "--json")) == json.loads(text)
    saved.write_text("{}")
    assert run("ask", saved).exit_code == 2


# ---------------------------------------------------------------------------------------------------------- records as machines


@pytest.mark.parametrize(
    "words",
    [
        ("floor", "llama-3-8b", "RECORD"),
        ("floor", "llama-3-8b", "--hardware", "RECORD"),
        ("estimate", "llama-3-8b", "RECORD"),
        ("explain", "llama-3-8b", "RECORD"),
        ("sweep", "llama-3-8b", "RECORD,h100-sxm"),
        ("levers", "llama-3-8b", "RECORD"),
        ("journey", "llama-3-8b", "RECORD"),
        ("fit", "llama-3-8b", "RECORD"),
        ("kernel", "matmul", "RECORD", "--m", "16", "--n", "512", "--k", "512", "--format", "fp32"),
        ("efficiency", "llama-3-8b", "RECORD", "--time", "100s"),
        ("hardware", "RECORD"),
    ],
    ids=lambda words: " ".join(words[:3]),
)
@pytest.mark.usefixtures("remember_fits")
def test_a_record_is_a_machine_everywhere(words, output):
    record = start(output, FULL).run()
    text = ok(*(word.replace("RECORD", str(output)) for word in words))
    assert "Pretended CPU" in text or record.id in text


def test_the_id_of_a_shipped_record_is_a_machine():
    assert "calibration: h100-sxm-vllm-0.24.0" in ok("estimate", "llama-3-8b", "h100-sxm-vllm-0.24.0")
    assert "H100 SXM5" in ok("floor", "llama-3-8b", "h100-sxm-vllm-0.24.0")


@pytest.mark.usefixtures("remember_fits")
def test_a_broken_record_says_what_is_wrong_with_it(output):
    start(output, FULL, hardware=bare()).run()
    output.write_text(output.read_text().replace('"schema_version": 2', '"schema_version": 99'))
    assert "schema_version is 99" in run("floor", "llama-3-8b", output).stderr
