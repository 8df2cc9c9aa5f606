"""What the command line prints at a terminal, into pipes, and where nothing can be printed."""

import json
import os
import re
import subprocess
import sys
import warnings

import pytest

from pins import COLUMNS, FOLDER, PINNED, blocks, output, page_files, page_output
from roofline.cli.app import COMMANDS
from shell import invoke as run


def ok(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize("columns", [40, 60, 80])
@pytest.mark.parametrize("words", [("hardware",), ("models",), ("records",), ("floor", "mixtral-8x7b", "h100-sxm", "--ops")], ids=" ".join)
def test_at_a_terminal_names_do_not_fold_and_columns_that_drop_out_are_named(words, columns):
    def table(text):
        lines = text.splitlines()
        first = next(i for i, line in enumerate(lines) if line.split()[:1] and line.split()[0] in ("id", "name", "operator"))
        return lines[first:]

    piped, narrow = table(ok(*words)), table(run(*words, columns=columns).stdout)
    names = [line.split()[0] for line in piped[1:]]
    assert [line.split()[0] for line in narrow[1 : 1 + len(names)]] == names
    missing = set(re.split(r"  +", piped[0].strip())) - set(re.split(r"  +", narrow[0].strip()))
    said = " ".join(narrow[1 + len(names) :])
    assert all(heading in said for heading in missing)
    assert bool(missing) == ("Left out" in said)
    alone = len(re.split(r"  +", narrow[0].strip())) == 1  # a name is not broken
    assert alone or max(map(len, narrow)) <= columns


@pytest.mark.parametrize("columns", [40, 60, 80])
@pytest.mark.parametrize("name", sorted(PINNED.keys() - {"floor-csv", "hardware"}))  # CSV is for files; an address is not broken
def test_nothing_is_wider_than_the_terminal(name, columns):
    assert max(map(len, output(PINNED[name], columns).splitlines())) <= columns


def test_rows_that_are_too_wide_go_on_in_a_second_line():
    words = ("sweep", "llama-3.1-8b", "h100-sxm", "--batch", "1,8", "--context", "4096", "--tp", "1,2", "--pp", "1,2")
    lines = run(*words, columns=40).stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:2] == ["tp", "pp"])
    piped = [line.split() for line in ok(*words).splitlines() if line.split()[:1] in (["tp"], ["1"], ["2"])]
    folded = [(one + " " + two).split() for one, two in zip(lines[first::2], lines[first + 1 :: 2], strict=False)][: len(piped)]
    assert all(line.startswith("    ") for line in lines[first + 1 : first + 2 * len(piped) : 2])
    shown = [i for i, heading in enumerate(piped[0]) if heading in folded[0]]
    assert {"floor", "estimate"} < {piped[0][i] for i in shown}
    assert folded[0] == [piped[0][i] for i in shown]


def test_messages_are_broken_at_a_terminal_only():
    words = ("floor", "llama-3.1-8b", "h100-sx")
    piped, narrow = run(*words).stderr, run(*words, columns=50).stderr
    assert piped.count("\n") == 1
    assert narrow.count("\n") > 1
    assert narrow.split() == piped.split()


def test_piped_tables_are_plain_text_at_any_width():
    text = run("hardware").stdout
    assert not re.search(r"[│─┌┏━┃]", text)
    assert len({line.rstrip().rfind("TB/s") for line in text.splitlines() if line.endswith("TB/s")}) <= 1


@pytest.mark.parametrize("where", ["terminal", "piped"])
@pytest.mark.parametrize("name", PINNED)
def test_the_output_is_as_pinned(name, where):
    """Regression pins: see data/cli/README.md."""
    pinned = (FOLDER / f"{name}.{where}.txt").read_text(encoding="utf-8")
    assert output(PINNED[name], COLUMNS if where == "terminal" else None) == pinned


def test_no_pin_is_left_over():
    names = {file.name.split(".")[0] for file in FOLDER.glob("*.txt")}
    assert names == set(PINNED)


def test_the_page_shows_every_command_with_its_real_output(repository):
    page = (repository / "docs" / "command_line.md").read_text(encoding="utf-8")
    shown = blocks(page)
    assert {command.split()[1] for command, _ in shown} - {"--help"} == set(COMMANDS) - {"calibrate"}
    assert "roofline calibrate --output" in page
    with page_files(page):
        for command, text in shown:
            assert page_output(command, text) == text, command


def shell(*words, **how):
    environment = {**os.environ, **how.pop("environment", {})}
    return subprocess.run([sys.executable, "-m", "roofline", *words], env=environment, timeout=120, check=False, **how)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence():
    with open("/dev/full", "w") as full:
        done = shell("models", stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 74
    assert done.stderr == "roofline: the output cannot be written: No space left on device.\n"


def test_a_closed_pipe_is_silent():
    reader, writer = os.pipe()
    os.close(reader)
    done = shell("models", stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (74, "")


def test_a_closed_output_is_one_sentence():
    done = subprocess.run(
        f"'{sys.executable}' -m roofline models >&-", shell=True, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (74, "roofline: the output cannot be written: it is closed.\n")


@pytest.mark.parametrize("module", ["roofline.cli", "numpy", "roofline.floors"])
def test_ctrl_c_while_modules_are_imported_is_silent(module):
    code = """
import sys
class Interrupted:
    def find_spec(self, name, *_):
        if name == sys.argv[-1]:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from roofline.__main__ import main
sys.argv = ["roofline", "floor", "8B", "h100", sys.argv[-1]]
main()
"""
    done = subprocess.run([sys.executable, "-c", code, module], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_ascii_terminal_gets_ascii():
    done = shell("floor", "llama-3-8b", "h100-sxm", capture_output=True, environment={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.returncode == 0
    assert re.search(rb"compute [0-9.]+ us,", done.stdout)
    assert done.stderr == b""


def test_nothing_but_the_core_is_imported():
    code = """
import contextlib, io, json, sys
from roofline.cli.app import run
with contextlib.redirect_stdout(io.StringIO()):
    run(["sweep", "llama-3-8b", "h100-sxm", "--batch", "1,8"])
    run(["levers", "llama-3-8b", "h100-sxm"])
    run(["hardware"])
print(json.dumps([m for m in ("rich", "torch", "scipy", "pandas", "matplotlib") if m in sys.modules]))
"""
    assert json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout) == []


def test_warnings_are_notes_of_one_line(monkeypatch):
    def warn():
        warnings.warn("batch is odd; give tensor_parallel=2.", stacklevel=1)

    monkeypatch.setattr("roofline.cli.explain.explain", warn)
    assert run("explain").stderr == "roofline: note: batch is odd; give --tensor-parallel 2.\n"


def test_one_output_has_one_form():
    matmul = ("kernel", "matmul", "h100", "--m", "8", "--n", "8", "--k", "8", "--format", "bf16")
    for command in (("fit", "8B", "h100"), ("sweep", "8B", "h100"), ("levers", "8B", "h100"), ("models",), matmul):
        done = run(*command, "--json", "--csv")
        assert done.exit_code == 2
        assert done.stderr == "roofline: --json and --csv are two forms of one output: give one of them.\n"


def test_a_column_of_throughput_is_of_one_kind():
    """An L4 has no record of vLLM, so there is no estimate: no floor's throughput stands among those of estimates."""
    done = shell("sweep", "llama-3.1-8b", "h100-sxm,l4", "--batch", "8", "--calibration", "vllm", capture_output=True, text=True)
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("h100-sxm ", "l4 "))]
    assert len(rows[0]) > len(rows[1])


def test_no_limit_says_why():
    text = shell("fit", "llama-3.1-405b", "rtx-4090", "--context", "8192", "--at-most", "4", capture_output=True, text=True).stdout
    assert "fewest devices for batch 1 at context 8192: more than 4" in text
    text = shell("fit", "70B", "--memory-capacity", "192GB", "--context", "4096", capture_output=True, text=True).stdout
    assert "largest batch at context 4096: not known" in text
    text = shell("fit", "llama-3.1-8b", "h100-sxm", capture_output=True, text=True).stdout
    assert "largest batch at context 0: no limit: with an empty context" in text
    assert "tokens; the model was made for 131,072" in text


def test_advice_about_lists_is_in_the_words_of_the_command_line(tmp_path):
    table = tmp_path / "x.csv"
    table.write_text("m,n,k,dtype,count,latency_us\n1,4096,4096,bf16,3,20\n")
    said = shell("check", str(table), "h100-sxm", capture_output=True, text=True).stderr
    assert "--columns count=batch" in said
    assert "--ignore count" in said
