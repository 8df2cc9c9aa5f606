"""The command line: the same numbers as the library, errors in one line."""

import json
import re

import pytest

from roofline import Hardware, decode_estimate, decode_floor, list_models, prefill_floor
from roofline.cli.app import COMMANDS, find_command
from roofline.deployment.options import OPTIONS, STEP
from shell import invoke as run


def ok(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


# ------------------------------------------------------------------------------------------------------------------- floors


def test_the_text_of_a_floor_is_the_librarys():
    out = ok("floor", "llama-3-8b", "h100-sxm", "--batch", 8, "--context", 1024)
    assert out.rstrip("\n") == str(decode_floor("llama-3-8b", "h100-sxm", batch=8, context=1024))


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
    assert out.rstrip("\n") == str(decode_floor("70B", memory_bandwidth=3e12, memory_capacity=80e9))
    assert "no machine: name one" in run("floor", "70B").stderr


@pytest.mark.parametrize("command", ["floor", "estimate"])
def test_every_option_of_a_deployment_is_an_option_of_the_command(command):
    """One description each: what the docstrings say is what --help says."""
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", run(command, "--help").stdout).split())
    for name in STEP:
        assert f"--{name.replace('_', '-')}" in text
        first = OPTIONS[name].text.split(",")[0]
        assert " ".join(first.split()[:4]) in text, name


def test_the_breakdown_lists_every_operator():
    out = ok("floor", "llama-3-8b", "h100-sxm", "--ops")
    for row in decode_floor("llama-3-8b", "h100-sxm").by_op():
        assert row.op.name in out
    assert "by operator" in out
    assert "by operator" not in ok("floor", "llama-3-8b", "h100-sxm")


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
    for name, (_, line) in COMMANDS.items():
        assert find_command(name).__doc__.splitlines()[0] == line


def test_help():
    assert "floor" in ok("--help")
    assert "--prompt" in ok("floor", "--help")


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
    assert run("estimate", "llama-3-8b").exit_code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tensor-parallel-size", 4], "floor has no '--tensor-parallel-size'; did you mean --tensor-parallel?"),
        (["--gpu-memory-utilization=0.9"], "did you mean --utilization?"),
        (["--wieghts", "fp8"], "did you mean --weights"),
        (["--xyzzy"], "see roofline floor --help"),
    ],
)
def test_unknown_options_name_the_right_one(words, message):
    result = run("floor", "llama-3-8b", "h100-sxm", *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_options_may_stand_between_model_and_machine():
    assert ok("floor", "llama-3-8b", "--batch", 8, "h100-sxm") == ok("floor", "llama-3-8b", "h100-sxm", "--batch", 8)
