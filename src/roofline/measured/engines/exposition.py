"""Text of a page of metrics, from a URL, a file or a string, and its samples by name."""

import base64
import json
import math
import os
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from roofline.errors import InvalidValueError, MissingDependencyError, install, quoted
from roofline.frozen import FrozenDict
from roofline.names import local_path
from roofline.validation import read_text

_MOST_BYTES = 64 * 2**20  # a page of 64 ranks with all histograms is some 2 MB
_RAY = re.compile(r"^(?:ray_)?vllm[_:]")
"""vLLM under Ray Serve: names have a prefix, and newer versions of Ray allow no colon."""


class Sample(NamedTuple):
    """One line of a page."""

    labels: Mapping[str, str]
    value: float


class Exposition(NamedTuple):
    """A page as it was read."""

    samples: Mapping[str, tuple[Sample, ...]]  # by name
    source: str  # what to call it in messages
    at_s: float | None  # when it was read, if it was read from a server


def read_exposition(source: Any, *, timeout_s: float = 5.0) -> Exposition:
    """Return the samples of a page, or raise one sentence that says why it has none."""
    if not isinstance(source, (str, os.PathLike)):
        raise InvalidValueError(f"source is {quoted(source)}; it must be a URL, the path of a saved page, or its text.")
    text, name, at_s = page_text(source, timeout_s)
    text = text.lstrip("\ufeff \r\n\t")
    if text.startswith('"'):  # llama.cpp, builds from 7010 on: the page is one JSON string
        try:
            text = json.loads(text)
        except ValueError:
            raise InvalidValueError(f"{name} is a quoted string that does not end; was it cut off?") from None
    _refuse_others(text, name)
    return Exposition(_samples(text, name), name, at_s)


def page_text(source: str | os.PathLike[str], timeout_s: float, *, what: str = "a page") -> tuple[str, str, float | None]:
    """Return a text, what to call it, and when a server sent it."""
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return _fetched(source, timeout_s)
    if isinstance(source, str) and ("\n" in source or source.lstrip().startswith(("#", '"', "{", "["))):
        return source, "the text", None
    path = local_path(source)
    if not os.fspath(source) or not path.exists():
        raise InvalidValueError(f"there is no file {quoted(os.fspath(source))}; {what} is read from a URL, a file, or its text.")
    return read_text(path, errors="replace"), path.name, None


def _fetched(url: str, timeout_s: float) -> tuple[str, str, float]:
    import http.client
    import urllib.error
    import urllib.parse
    import urllib.request  # with TLS and all; files need none of it

    try:
        parts = urllib.parse.urlsplit(url)
        login, _, host = parts.netloc.rpartition("@")
        where = urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))  # a password stays out of messages
        request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host)))
        if login:
            request.add_header("Authorization", f"Basic {base64.b64encode(urllib.parse.unquote(login).encode()).decode()}")
    except ValueError as error:
        raise InvalidValueError(f"{quoted(url.rpartition('@')[2])} is no URL: {error}.") from None
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            raw = _body(answer, where, timeout_s)
            at_s = time.time()
    except urllib.error.HTTPError as error:
        error.close()
        reason = " ".join(str(error.reason).split())[:100]
        where_else = "; metrics are at /metrics, TensorRT-LLM's at /prometheus/metrics" if error.code == http.HTTPStatus.NOT_FOUND else ""
        raise InvalidValueError(f"{where} answers {error.code} {reason}{where_else}.") from None
    except InvalidValueError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise InvalidValueError(f"{where} does not answer within {timeout_s:g} s: {reason}.") from None
    return raw.decode("utf-8", errors="replace"), where, at_s


def _body(answer: Any, where: str, timeout_s: float) -> bytes:
    """Return what a server sends, if it sends all of it in time and it is no more than a page can be."""
    end, parts, size = time.monotonic() + timeout_s, list[bytes](), 0
    while part := answer.read1(2**16):
        parts.append(part)
        size += len(part)
        if size > _MOST_BYTES:
            raise InvalidValueError(f"{where} sends more than {_MOST_BYTES // 2**20} MiB, which is no page of metrics.")
        if time.monotonic() > end:
            raise InvalidValueError(f"{where} has not sent a whole page within {timeout_s:g} s.")
    return b"".join(parts)


def _refuse_others(text: str, name: str) -> None:
    if not text.strip():
        raise InvalidValueError(f"{name} is empty: no metrics.")
    if text.startswith(("[", "{")):
        own = "iterLatencyMS" in text[:4000] or "kvCacheStats" in text[:20000] or text.strip() == "[]"
        hint = (
            "these are iteration statistics of TensorRT-LLM, whose page of metrics is /prometheus/metrics"
            if own
            else "a page of metrics is lines of text"
        )
        raise InvalidValueError(f"{name} is JSON: {hint}.")
    if text[:200].lstrip().lower().startswith(("<!doctype", "<html")):
        raise InvalidValueError(f"{name} is an HTML page; metrics are at /metrics of the engine's own port.")


def _samples(text: str, name: str) -> Mapping[str, tuple[Sample, ...]]:
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        raise MissingDependencyError(f"pages of metrics are read with prometheus-client: {install('monitor')}.") from None
    found: dict[str, list[Sample]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if math.isfinite(sample.value):
                    plain = _RAY.sub("vllm:", sample.name)
                    found.setdefault(plain, []).append(Sample(FrozenDict(sample.labels), float(sample.value)))
    except (ValueError, IndexError, TypeError, KeyError) as error:
        raise InvalidValueError(f"{name} is no page of metrics, or was cut off: {' '.join(str(error).split())[:100]}.") from None
    if not found:
        raise InvalidValueError(f"{name} has no samples: only comments, or nothing was counted yet.")
    return FrozenDict({key: tuple(samples) for key, samples in found.items()})
