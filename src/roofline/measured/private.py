"""What a measurement never keeps of a file: keys and passwords; nor what would swell it: lists and long texts."""

import re
from collections.abc import Mapping
from typing import Any

REMOVED = "(removed)"
_SECRET = r"(?:api[-_]?key|authorization|auth[-_]?token|access[-_]?token|hf[-_]?token|bearer|password|passwd|secret|credentials?|cookie)"
_NAME = re.compile(_SECRET, re.IGNORECASE)
_NAME_OF_TEXT = re.compile(r"^tokens?$|[-_](?:token|key)$", re.IGNORECASE)  # numbers under such names are counts and times
_IN_TEXT = (
    (
        re.compile(rf"((?:--?|\b)[\w-]*{_SECRET}[\w-]*['\"]?\s*[=:\s]\s*['\"]?(?:(?:bearer|basic)\s+)?)([^\s'\",}}]+)", re.IGNORECASE),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"(\b(?:bearer|basic)\s+)([^\s'\",}]+)", re.IGNORECASE), rf"\1{REMOVED}"),
    (re.compile(r"((?:--|[?&])(?:token|key|sig|signature)[=\s]+['\"]?)([^\s'\"&]+)", re.IGNORECASE), rf"\1{REMOVED}"),
    (re.compile(r"\b(?:sk|hf|nvapi|ghp|glpat|xox[a-z])[-_][\w-]{8,}"), REMOVED),
    (re.compile(r"(://)[^/\s@:]*:[^/\s@]*@"), rf"\1{REMOVED}@"),
)
_LONGEST = 400


def is_secret(name: str, value: Any) -> bool:
    """Return whether a key names a secret, and not a count or a time of tokens.

    Examples
    --------
    >>> is_secret("api_key", "abc"), is_secret("hf_token", "abc"), is_secret("time_to_first_token", 0.5), is_secret("tokenizer", "abc")
    (True, True, False, False)
    """
    return bool(_NAME.search(name) or (isinstance(value, str) and _NAME_OF_TEXT.search(name)))


def without_secrets(text: str) -> str:
    """Return a text without the secrets that stand in it, as command lines and addresses have them.

    Examples
    --------
    >>> without_secrets("aiperf profile --api-key abc123 --url http://me:word@host/v1")
    'aiperf profile --api-key (removed) --url http://(removed)@host/v1'
    """
    for pattern, put in _IN_TEXT:
        text = pattern.sub(put, text)
    return text


def kept(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers and short texts of a file by its own keys, mappings inside included.

    Examples
    --------
    >>> kept({"backend": "vllm", "api_key": "abc", "ttfts": [0.1, 0.2], "input": {"token": "abc", "concurrency": 4}})
    {'backend': 'vllm', 'input': {'concurrency': 4}}
    """
    found: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key)
        if is_secret(name, value):
            continue
        if isinstance(value, Mapping):
            if inner := kept(value):
                found[name] = inner
        elif isinstance(value, str):
            if len(value) <= _LONGEST:
                found[name] = without_secrets(value)
        elif value is None or isinstance(value, (bool, int, float)):
            found[name] = value
    return found
