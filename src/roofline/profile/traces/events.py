"""Chrome traces event by event: any size in little memory, plain or gzipped."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from roofline.errors import InvalidValueError, quoted

_CHUNK = 1 << 22  # read at a time [B]
_LARGEST = 1 << 26  # no event is longer; without a bound a broken file would be read to its end for one event [characters]
_SIGN = re.compile(r"[^\s,]").search
# an event of the Python stack as torch writes it: up to nine tenths of a file, recognized without being decoded
_STACK = re.compile(
    r'\{\s*"ph": "X",\s*"cat": "python_function",\s*"name": "(?:[^"\\]|\\.)*+"[^{}"]*+(?:"[^"]*+"[^{}"]*+)*?"args": \{[^{}]*+\}\s*\}'
).match
_DECODER = json.JSONDecoder(strict=False)  # names of kernels hold raw tabs and newlines


class Events:
    """The events of a Chrome trace, one after another, but those of the Python stack, and what stands beside them.

    Parameters
    ----------
    path : str or Path
        The file, plain or gzipped whatever its name says [-].

    Attributes
    ----------
    beside : dict
        Everything of the file but its events; complete once the events are read [-].
    cut : bool
        Whether the file ends in the middle, as a killed job leaves it [-].

    Raises
    ------
    InvalidValueError
        If the file is missing, empty, no JSON, or has no events.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.beside: dict[str, Any] = {}
        self.cut = False
        self._text, self._at, self._ended = "", 0, False
        self._file: Any = None
        self._decoded = codecs.getincrementaldecoder("utf-8-sig")(errors="replace").decode

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            with self.path.open("rb") as raw:
                packed = raw.peek(2)[:2] == b"\x1f\x8b"
                self._file = gzip.GzipFile(fileobj=raw) if packed else raw
                yield from self._document()
        except OSError as error:
            raise InvalidValueError(f"{self.path}: {error.strerror or error}.") from None

    def _document(self) -> Iterator[dict[str, Any]]:
        start = self._next()
        if start == "[":
            yield from self._array()
        elif start == "{":
            self._at += 1
            yield from self._members()
        else:
            raise InvalidValueError(f"{self.path} is {'empty' if not start else f'no JSON: it starts with {quoted(self._text[:20])}'}.")

    def _members(self) -> Iterator[dict[str, Any]]:
        """Read the members of the outermost object: events as they come, all others kept."""
        found = False
        while (sign := self._next()) not in ("}", ""):
            name = self._value() if sign == '"' else None
            if not isinstance(name, str) or self._next() != ":":
                if self.cut:
                    break
                raise self._broken()
            self._at += 1
            if name == "traceEvents" and self._next() == "[":
                found = True
                yield from self._array()
            elif (value := self._value()) is not None:
                self.beside[name] = value
        self.cut = self.cut or sign == ""
        if not found:
            known = ", ".join(list(self.beside)[:6])
            raise InvalidValueError(f"{self.path} is no Chrome trace: it has no traceEvents, but {known or 'nothing'}.")

    def _array(self) -> Iterator[dict[str, Any]]:
        self._at += 1
        scan = _DECODER.scan_once  # type: ignore[attr-defined] # raw_decode without its sentence about errors
        while (sign := self._next()) not in ("]", ""):
            if sign != "{":
                raise self._broken()
            if stack := _STACK(self._text, self._at):
                self._at = stack.end()
                continue
            try:
                event, self._at = scan(self._text, self._at)
            except (StopIteration, ValueError):  # the event goes on in the next chunk, or is broken
                event = self._value()
            if event is None:
                return
            yield event
        self._at += 1
        self.cut = self.cut or sign == ""

    def _value(self) -> Any:
        """Return the next value, reading on until it is whole; None where the file ends within it."""
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                if end < len(self._text) or not self._more():  # a number may go on in the next chunk
                    self._at = end
                    return value
            except ValueError:
                if len(self._text) - self._at > _LARGEST:
                    raise self._broken() from None
                if not self._more():
                    self.cut = True
                    return None

    def _next(self) -> str:
        """Go to the next sign that is neither space nor comma, and return it; nothing at the end of the file."""
        while True:
            if found := _SIGN(self._text, self._at):
                self._at = found.start()
                return found[0]
            self._at = len(self._text)
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on, and forget what was read; say whether there was more."""
        if self._ended:
            return False
        chunk = bytearray()
        try:
            while len(chunk) < _CHUNK and (part := self._file.read1(_CHUNK)):
                chunk += part
        except (EOFError, zlib.error, gzip.BadGzipFile):  # what came before is read
            self.cut = self._ended = True
        self._ended = self._ended or len(chunk) < _CHUNK
        if chunk:
            self._text, self._at = self._text[self._at :] + self._decoded(chunk, self._ended), 0
        return bool(chunk)

    def _broken(self) -> InvalidValueError:
        return InvalidValueError(
            f"{self.path} is no trace that can be read: its JSON breaks off at {quoted(self._text[self._at : self._at + 30])}."
        )
