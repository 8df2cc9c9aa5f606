"""The library's sentences in the words of the command line: ``--reserve`` for ``reserve=``, ``roofline hardware`` for ``Hardware.list()``."""

import re
from collections.abc import Sequence

from roofline.cli.reading import Argument
from roofline.deployment.options import OPTIONS

_PHRASES = {
    "Hardware.list()": "'roofline hardware'",
    "list_models()": "'roofline models'",
    "list_records()": "'roofline records'",
    "Hardware.from_rates(...)": "--memory-bandwidth",
    "(sources: .ceilings)": "(sources: 'roofline hardware NAME')",
    "cuda_graph=False": "--eager",
    "time_s is ": "--time is ",
    "ttft_s is ": "--ttft is ",
    "tpot_s is ": "--tpot is ",
    "itl_s is ": "--itl is ",
    "e2e_s is ": "--e2e is ",
    "think_s is ": "--think is ",
    "interval_s is ": "--interval is ",
    "it must be True or False": "it is yes or no",
}
_QUOTES = "'\""
_OF_STEPS = ("batch", "context", "prompt", "cached", "shared_prefix", "at_most", "calibration", "interval")
_OF_SERVICES = ("kv_blocks", "step_tokens", "sequences", "max_model_len", "link_bandwidth", "acceptance", "drafts")


def in_our_words(text: str, arguments: Sequence[Argument] = ()) -> str:
    """Return a sentence or result of the library as the command line says it."""
    for python, ours in _PHRASES.items():
        text = text.replace(python, ours)
    options = [a.name for a in arguments if not a.given.positional]
    for argument in arguments:
        if argument.given.positional:  # "give model=" and not "model='70B'", which repeats what was given
            text = re.sub(rf"\b{argument.name}=(?![\w'\"])", argument.shown, text)
    names = sorted({*options, *OPTIONS, *_OF_STEPS, *_OF_SERVICES}, key=len, reverse=True)
    named = "|".join(names)
    text = re.sub(rf"\b({named})=('[^']*'|\"[^\"]*\"|[\w.,+-]*\w)", lambda m: f"{_flag(m[1])} {m[2].strip(_QUOTES)}", text)
    # lists and mappings: ignore=['a', 'b'] is --ignore a,b and columns={'a': 'b'} is --columns a=b
    text = re.sub(rf"\b({named})=\[([^]]*)\]", lambda m: f"{_flag(m[1])} {_joined(m[2])}", text)
    text = re.sub(rf"\b({named})=\{{([^}}]*)\}}", lambda m: f"{_flag(m[1])} {_joined(m[2]).replace(':', '=')}", text)
    text = re.sub(rf"\b({named})=(?=[),.;:]|$)", lambda m: _flag(m[1]), text)
    text = re.sub(rf"\b({named})= ?", lambda m: f"{_flag(m[1])} ", text)
    text = re.sub(rf"(?<![-\w'\"])({'|'.join(n for n in names if '_' in n)})\b", lambda m: _flag(m[1]), text)
    if options:  # "batch is 0; …" begins with an option, other sentences may with a word that only looks like one
        text = re.sub(
            rf"^({'|'.join(sorted(options, key=len, reverse=True))}) (?=is |has |contains |cannot )", lambda m: f"{_flag(m[1])} ", text
        )
    return text


def _joined(items: str) -> str:
    return re.sub(r"['\" ]", "", items)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
