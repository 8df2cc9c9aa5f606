"""Regression pins of the command line's output: files in data/cli, and the outputs in docs/command_line.md. Run as a script, it writes them again."""

import contextlib
import re
import shlex
import tempfile
from pathlib import Path

from shell import invoke

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "tests" / "data" / "cli"
PAGE = REPOSITORY / "docs" / "command_line.md"
COLUMNS = 80

SERVED = "llama-3.1-8b h100-sxm --batch 8 --context 4096"
PINNED = {
    "help": "--help",
    "floor-help": "floor --help",
    "kernel-help": "kernel matmul --help",
    "floor": f"floor {SERVED}",
    "floor-ops": f"floor {SERVED} --ops",
    "floor-csv": f"floor {SERVED} --csv",
    "floor-does-not-fit": "floor llama-3.1-70b h100-sxm",
    "estimate": f"estimate {SERVED} --ops",
    "estimate-generic": "estimate llama-3.1-8b l4",
    "explain": f"explain {SERVED}",
    "sweep": "sweep llama-3.1-8b h100-sxm,l4 --batch 1,8 --context 4096 --tp 1,2,3 --weights bf16,fp8",
    "levers": f"levers {SERVED}",
    "journey": "journey llama-3.1-8b h100-sxm --context 4096 --batches 1,32,1024",
    "fit": "fit llama-3.1-70b h100-sxm --tp 4 --batch 8 --context 8192",
    "kernel": "kernel attention h100-sxm --heads 32 --kv-heads 8 --head-dim 128 --batch 64 --context 8192 --time 800us",
    "kernel-list": "kernel matmul h100-sxm --m 16,4096 --n 4096 --k 4096,8192 --format bf16",
    "efficiency": f"efficiency {SERVED} --time 8.2ms",
    "hardware": "hardware h100-sxm",
    "model": "models mixtral-8x7b",
    "record": "records l40s-vllm-0.24.0",
    "unknown-machine": "floor llama-3.1-8b h100-sx",
}


def output(words: str, columns: int | None) -> str:
    """Return what a command prints, standard error included, without the progress that a terminal writes over."""
    return re.sub(r"\r\x1b\[K[^\r\n]*", "", invoke(*shlex.split(words), columns=columns).output)


def blocks(page: str) -> list[tuple[str, str]]:
    """Return every command of the page's console blocks, with the output that the page shows."""
    shown = re.findall(r"^```console\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    return [(command, text) for block in shown for command, text in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE)]


def page_output(command: str, shown: str) -> str:
    """Return what the page should show of a command: what a terminal gets, with … as many lines of it as now; nothing of what a file gets."""
    words, _, file = command.removeprefix("roofline ").partition(" > ")
    if file:
        Path(file).write_text(output(words, None), encoding="utf-8")
        return ""
    text = output(words, COLUMNS)
    if not shown.endswith("…\n"):
        return text
    return "".join([*text.splitlines(keepends=True)[: shown.count("\n") - 1], "…\n"])


@contextlib.contextmanager
def page_files(page: str):
    """Stand in a folder with the files that the page shows with their names as captions."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name, text in re.findall(r"^```\{code-block\} text\n:caption: (\S+)\n\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
            Path(name).write_text(text, encoding="utf-8")
        yield


def main() -> None:
    """Write all pins again."""
    for name, words in PINNED.items():
        (FOLDER / f"{name}.terminal.txt").write_text(output(words, COLUMNS), encoding="utf-8")
        (FOLDER / f"{name}.piped.txt").write_text(output(words, None), encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    with page_files(page):
        for command, text in blocks(page):
            page = page.replace(f"$ {command}\n{text}", f"$ {command}\n{page_output(command, text)}")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
