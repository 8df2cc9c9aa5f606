"""Ids of the Hugging Face Hub: which model one may stand for, and the configuration that the local cache holds. Nothing is fetched."""

import os
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

_ID = re.compile(r"[\w.-]+/[\w.-]+")
_TUNED = re.compile(r"instruct|chat|it|base|pt|thinking", re.IGNORECASE)  # what it was tuned for
_PASSING = re.compile(
    rf"meta|hf|{_TUNED.pattern}"  # who made it, whose format its files have
    r"|v\d+([._]\d+)*"  # a version
    r"|2\d(0[1-9]|1[0-2])|(0[1-9]|1[0-2])[0-3]\d|20\d{6}|2\d{5}",  # a date: 2507, 0528, 20240620, 250115
    re.IGNORECASE,
)
_MOST_PASSING = 6
_LONGEST = 200  # the Hub allows 96 characters


def is_id(name: str) -> bool:
    """Return whether a text has the form of an id, ``owner/name``.

    Examples
    --------
    >>> is_id("Qwen/Qwen3-8B"), is_id("./Qwen3-8B"), is_id("qwen3-8b")
    (True, False, False)
    """
    return len(name) <= _LONGEST and bool(_ID.fullmatch(name)) and not name.startswith((".", "~"))


def readings(name: str) -> Iterator[str]:
    """Yield what an id may stand for: without its owner, then without words that name no other architecture, the fewest first.

    Number formats (``AWQ``, ``FP8``) are no such words: they change the bytes of every weight.

    Examples
    --------
    >>> list(readings("mistralai/Mistral-7B-Instruct-v0.3"))
    ['Mistral-7B-Instruct-v0.3', 'Mistral-7B-v0.3', 'Mistral-7B-Instruct', 'Mistral-7B']
    """
    words = id_words(name)
    passing = [i for i, word in enumerate(words) if _PASSING.fullmatch(word)][-_MOST_PASSING:]
    for count in range(len(passing) + 1):
        for left_out in combinations(passing, count):
            yield "-".join(word for i, word in enumerate(words) if i not in left_out)


def id_words(name: str) -> list[str]:
    """Return the words of an id without its owner.

    Examples
    --------
    >>> id_words("Qwen/Qwen3-8B_Base")
    ['Qwen3', '8B', 'Base']
    """
    return [word for word in re.split(r"[-_\s]+", name.rsplit("/", 1)[-1]) if word]


def is_tuned_otherwise(name: str, reading: str) -> bool:
    """Return whether a reading of an id leaves out what the model was tuned for.

    Examples
    --------
    >>> is_tuned_otherwise("Kimi-K2-Thinking", "Kimi-K2"), is_tuned_otherwise("DeepSeek-R1-0528", "DeepSeek-R1")
    (True, False)
    """
    return sum(bool(_TUNED.fullmatch(w)) for w in id_words(name)) > sum(bool(_TUNED.fullmatch(w)) for w in id_words(reading))


def cached_config(name: str) -> Path | None:
    """Return the config.json that the local cache holds for an id, None if it holds none.

    Of several snapshots the one that ``main`` points at is meant, else the one that was written last.

    References
    ----------
    huggingface_hub: the cache is ``$HF_HUB_CACHE``, else ``$HF_HOME/hub``, else ``~/.cache/huggingface/hub``; in it
    ``models--OWNER--NAME/refs/main`` names a folder of ``models--OWNER--NAME/snapshots``.
    """
    if not is_id(name):
        return None
    folder = _cache_folder() / f"models--{name.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
        main = folder / "snapshots" / revision / "config.json"
        if main.is_file():
            return main
    except (OSError, ValueError):
        pass
    try:
        found = [file for file in (folder / "snapshots").glob("*/config.json") if file.is_file()]
        return max(found, key=lambda file: (file.stat().st_mtime_ns, str(file)), default=None)
    except OSError:
        return None


def _cache_folder() -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.path.expanduser(os.environ[variable]))
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.expanduser(home)) / "hub"
