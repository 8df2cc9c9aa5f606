"""The words of a command line: what a command takes, reading it, and the text of --help.

argparse is not used: it answers a wrong word with a usage line and a fragment instead of a sentence, takes the last of two contradicting flags in
silence, and its help differs between versions of Python.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from inspect import Parameter, cleandoc, signature
from types import NoneType
from typing import Any, get_args

from roofline.cli.printing import wrapped
from roofline.errors import InvalidValueError, UnknownOptionError, quoted
from roofline.names import nearest_names

_NUMBER = re.compile(r"-\.?\d")
_COLUMN = 30  # of the texts in --help, at most


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says of one parameter: ``Annotated[int, Given("Sequences.")]``."""

    help: str
    flags: tuple[str, ...] = ()  # beside the one that the name makes
    positional: bool = False
    several: bool = False  # values joined by commas, of which the command gets a tuple
    model: bool = False  # whether it names a model, of which --read says how it is read


@dataclass(frozen=True, slots=True)
class Argument:
    """One parameter of a command."""

    name: str
    kind: type  # int, float, str or bool
    given: Given
    default: Any = None
    required: bool = False

    @property
    def flag(self) -> str:
        """The option of its name: ``--tensor-parallel``; ``--no-gated`` for what is on unless it is switched off."""
        return f"--{'no-' if self.default is True else ''}{self.name.replace('_', '-')}"

    @property
    def flags(self) -> tuple[str, ...]:
        """Every spelling."""
        return (self.flag, *self.given.flags)

    @property
    def shown(self) -> str:
        """What stands for its value in --help."""
        if self.given.positional:
            return self.name.upper()
        word = {int: "N", float: "X", str: "WORD", bool: "yes|no"}[self.kind]
        return f"{word},{word}…" if self.given.several else word

    @property
    def switch(self) -> bool:
        """Whether it takes no value: what is on or off, and not left to an engine."""
        return self.kind is bool and self.default is not None

    def value(self, text: str) -> Any:
        """Return a value, or several, as numbers where it is one; the library says what is wrong with any other text."""
        if self.given.several:
            return tuple(self._single(part.strip()) for part in text.split(","))
        return self._single(text)

    def _single(self, text: str) -> Any:
        if self.kind is bool:
            return {"yes": True, "no": False}.get(text, text)
        try:
            return self.kind(text)
        except ValueError:
            return text


READ = Given("How its configuration is read: auto, key by key; code, from the code that transformers has of it.")
_READ = Argument("read", str, READ, "auto")
"""What every command takes that is given a model."""


@dataclass(frozen=True, slots=True)
class Command:
    """What `roofline NAME` runs."""

    name: str
    about: str
    arguments: tuple[Argument, ...]
    run: Callable[..., int | None]

    @classmethod
    def of(cls, name: str, function: Callable[..., int | None]) -> "Command":
        """Return the command that a function of annotated parameters is."""
        arguments = tuple(map(_argument, signature(function).parameters.values()))
        if any(argument.given.model for argument in arguments):
            arguments += (_READ,)
        return cls(name, cleandoc(function.__doc__ or ""), arguments, function)

    def __call__(self, words: Sequence[str]) -> int:
        """Read the words and run."""
        given = self.read(words)
        models = [a.name for a in self.arguments if a.given.model and given[a.name] is not None]
        if any(argument is _READ for argument in self.arguments) and (how := given.pop(_READ.name)) != _READ.default:
            from roofline.model import Model

            given |= {name: Model.load(given[name], read=how) for name in models}
        return self.run(**given) or 0

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the parameters that words give, and the defaults of those they do not."""
        by_flag = {flag: argument for argument in self.arguments for flag in argument.flags}
        found: dict[str, Any] = {}
        loose: list[str] = []
        rest = iter(words)
        for word in rest:
            if not word.startswith("-") or word == "-" or _NUMBER.match(word):
                loose.append(word)
            elif word == "--":
                loose += rest
            else:
                name, equals, value = word.partition("=")
                argument = by_flag.get(name)
                if argument is None:
                    raise self._unknown(word)
                if argument.name in found:
                    raise InvalidValueError(f"{argument.flag} is given twice.")
                found[argument.name] = self._value(argument, value if equals else None, rest)
        self._place(loose, found)
        if found.get("json") and found.get("csv"):
            raise InvalidValueError("--json and --csv are two forms of one output: give one of them.")
        return {a.name: found.get(a.name, a.default) for a in self.arguments}

    def _value(self, argument: Argument, value: str | None, rest: Any) -> Any:
        if argument.switch:
            if value is not None:
                raise InvalidValueError(f"{argument.flag} takes no value.")
            return not argument.default
        text = next(rest, None) if value is None else value
        if not text or (value is None and text.startswith("--")):
            raise InvalidValueError(f"{argument.flag} needs a value: {argument.flag} {argument.shown}.")
        return argument.value(text)

    def _place(self, loose: Sequence[str], found: dict[str, Any]) -> None:
        """Give the words without a flag to the parameters that may stand alone, in their order."""
        places = [a for a in self.arguments if a.given.positional and a.name not in found]
        if len(loose) > len(places):
            for argument in self.arguments:
                if argument.given.positional and argument.name in found:
                    raise InvalidValueError(f"{argument.shown} is given twice: by {argument.flag}, and as {quoted(loose[len(places)])}.")
            takes = " ".join(a.shown for a in self.arguments if a.given.positional)
            raise InvalidValueError(f"{self.name} takes {takes or 'options only'}; {quoted(loose[len(places)])} is one word too many.")
        found |= {a.name: a.value(word) for a, word in zip(places, loose, strict=False)}
        missing = [a for a in self.arguments if a.required and a.name not in found]
        if missing:
            wanted = missing[0].shown if missing[0].given.positional else f"{missing[0].flag} {missing[0].shown}"
            raise InvalidValueError(f"{self.name} needs {wanted}; see 'roofline {self.name} --help'.")

    def _unknown(self, word: str) -> UnknownOptionError:
        """Return the error for a word that the command does not know, with the option that it stands for."""
        from roofline.deployment.spelling import options_meant

        known: Collection[str] = [a.name for a in self.arguments]
        name = word.partition("=")[0].strip("-").replace("-", "_")
        near = options_meant(name, known) or nearest_names(name, known)
        flags = [next(a.flag for a in self.arguments if a.name == option) for option in near[:2]]
        hint = f"did you mean {' or '.join(flags)}?" if flags else f"see 'roofline {self.name} --help'."
        return UnknownOptionError(f"{self.name} has no {quoted(word.partition('=')[0])}; {hint}")

    def help(self, width: int) -> str:
        """Return the text of --help."""
        alone = [a for a in self.arguments if a.given.positional]
        needed = [a for a in self.arguments if a.required and not a.given.positional]
        words = [a.shown if a.required else f"[{a.shown}]" for a in alone] + [f"{a.flag} {a.shown}" for a in needed]
        lines = [" ".join(["usage: roofline", self.name, *words, "[options]"]), "", *_paragraphs(self.about), ""]
        lines = [line for text in lines for line in wrapped(text, width)]
        for argument in alone:
            lines += two_columns(argument.shown, _told(argument), width)
        lines.append("")
        for argument in self.arguments:
            if not argument.given.positional:
                value = "" if argument.switch else f" {argument.shown}"
                lines += two_columns(", ".join(argument.flags) + value, _told(argument), width)
        return "\n".join([*lines, *two_columns("--help", "Print this text.", width)])


def _paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a docstring, each on one line, with an empty one between."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n")).split("\n")


def _told(argument: Argument) -> str:
    default = argument.default
    if argument.kind is bool or default in (None, (), (None,)) or argument.required:
        return argument.given.help
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"{argument.given.help} (default {shown})"


def two_columns(left: str, right: str, width: int, column: int = _COLUMN) -> list[str]:
    """Return a name and the text about it, beside each other."""
    column = min(column, width * 3 // 8)
    texts = wrapped(right, max(width - column, 20))
    if len(left) + 4 > column:
        return [f"  {left}", *(" " * column + text for text in texts)]
    return [f"  {left}".ljust(column) + texts[0], *(" " * column + text for text in texts[1:])]


def _argument(parameter: Parameter) -> Argument:
    hint, given = get_args(parameter.annotation)
    kind = hint
    while get_args(kind):  # an optional one, or a tuple of several
        kind = next(option for option in get_args(kind) if option is not NoneType)
    required = parameter.default is Parameter.empty
    return Argument(parameter.name, kind, given, None if required else parameter.default, required)
