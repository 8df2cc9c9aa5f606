"""Descriptions: frozen records of plain figures, whose fields are checked when one is made.

Models and machines are made of them. They are no dataclasses and no pydantic models because there are dozens of these classes: a dataclass
takes over a millisecond to define and pydantic's first class fifty, which every start of a program would pay.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import Parameter, Signature, get_annotations
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, dataclass_transform, get_args, get_origin

from roofline.calls import checks_call, listed
from roofline.errors import CallError, InvalidValueError, quoted

NOT_EMPTY = object()
"""Marks a text or a tuple that must have at least one element: ``Annotated[str, NOT_EMPTY]`` [-]."""


@dataclass(frozen=True, slots=True)
class Number:
    """Marks what a number may be: ``Annotated[int, Number(1, 8)]``."""

    least: float  # its range [unit]
    most: float
    # returns a number of that name, or raises with a sentence that says more than the range does
    check: Callable[[str, Any], Any] | None = None
    exponents: bool = False  # whether ``80e9``, which TOML and JSON read as a float, may stand for a whole number

    def take(self, kind: type, name: str, value: Any) -> Any:
        """Return a number as its kind, and checked [unit]."""
        if kind is float and type(value) is int:
            value = float(value)
        if self.exponents and isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if self.check is None or type(value) is not kind else self.check(name, value)


_Checks = tuple[dict[str, Callable[[Any], bool]], dict[str, tuple[Number, type]]]


class _Signature:
    """The parameters of a description, for `help` and editors."""

    def __get__(self, _: object, cls: "type[Description]") -> Signature:
        kept = ((name, hint, cls._field_defaults.get(name, Parameter.empty)) for name, hint in cls._fields.items())
        return Signature([Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hint) for name, hint, default in kept])


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Description:
    """Base of all descriptions: immutable, given by keyword, compared by content; nothing unknown is let in and nothing is converted."""

    _fields: ClassVar[dict[str, Any]] = {}
    _field_defaults: ClassVar[dict[str, Any]] = {}
    _checks: ClassVar[_Checks]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = {name: hint for name, hint in get_annotations(cls).items() if name[0] != "_" and not _of_class(hint)}
        cls._fields = {**cls._fields, **own}
        cls._field_defaults = {**cls._field_defaults, **{name: cls.__dict__[name] for name in own if name in cls.__dict__}}

    __signature__ = _Signature()

    def __init__(self, *unnamed: Any, **given: Any) -> None:
        cls = type(self)
        if unnamed:
            raise CallError(
                f"{cls.__name__} takes no value without a name, and {len(unnamed)} {'was' if len(unnamed) == 1 else 'were'} given; it has {listed(tuple(cls._fields))}."
            )
        tests, numbers = cls.__dict__.get("_checks") or _compile_checks(cls)
        held = self.__dict__
        held.update(cls._field_defaults)
        for name, value in given.items():
            if name not in tests:
                from roofline.names import nearest_names

                near = nearest_names(name, cls._fields)
                raise InvalidValueError(f"{cls.__name__} has no {quoted(name)}; it has {', '.join(near) or listed(tuple(cls._fields))}.")
            if name in numbers and value is not None:
                number, kind = numbers[name]
                value = number.take(kind, name, value)
            if not tests[name](value):
                raise InvalidValueError(f"{cls.__name__}: {name} is {quoted(value)}; it must be {_wanted(cls._fields[name])}.")
            held[name] = value
        if len(held) < len(tests):
            missing = ", ".join(name for name in tests if name not in held)
            raise InvalidValueError(f"{cls.__name__} needs {missing}.")
        self._check()

    def _check(self) -> None:
        """Raise InvalidValueError if fields that are right by themselves do not go together."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a {type(self).__name__} is frozen: {name} cannot be set; .but({name}=...) returns a changed copy.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} is frozen: {name} cannot be deleted.")

    def _values(self) -> tuple[Any, ...]:
        held = self.__dict__
        return tuple([held[name] for name in self._fields])

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return self._values() == other._values() if isinstance(other, Description) and type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        given = ((name, self.__dict__[name]) for name in self._fields)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given)})"

    @checks_call
    def but(self, **changes: Any) -> Self:
        """Return a checked copy with some fields changed; nothing computed from the old ones is carried over.

        Parameters
        ----------
        **changes : object
            New values by field name [-].

        Returns
        -------
        Description
            The copy, of the same class [-].

        Raises
        ------
        InvalidValueError
            If there is no such field, or it cannot have that value.
        """
        return type(self)(**{name: self.__dict__[name] for name in self._fields} | changes)

    @checks_call
    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain data.

        Returns
        -------
        dict
            Values by field name: numbers, texts, None, lists and dicts of such [-].
        """
        return {name: _plain(value) for name, value in zip(self._fields, self._values(), strict=True)}

    @classmethod
    @checks_call
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the description that plain data describes: what :meth:`to_dict` returns, or a part of it.

        Parameters
        ----------
        data : mapping
            Values by field name; fields with a default may be absent [-].

        Returns
        -------
        Description
            The description [-].

        Raises
        ------
        InvalidValueError
            If a field is unknown, missing, or cannot have that value.
        """
        if not isinstance(data, Mapping):
            raise InvalidValueError(f"a {cls.__name__} is described by a mapping of its fields, not by {quoted(data)}.")
        return cls(**{name: _built(cls._fields[name], value) if name in cls._fields else value for name, value in data.items()})


def _of_class(hint: Any) -> bool:
    origin: Any = get_origin(hint)
    return origin is ClassVar


def _plain(value: Any) -> Any:
    if isinstance(value, Description):
        return value.to_dict()
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _built(hint: Any, value: Any) -> Any:
    """Return plain data as the descriptions and tuples that a type hint asks for."""
    if isinstance(value, Mapping):
        kinds = parts_of(hint)
        for kind in kinds:
            if len(kinds) == 1 or value.get("kind") == kind._field_defaults["kind"]:
                return kind.from_dict(value)
    if isinstance(value, list):
        inner = next((option for option in _options(hint) if get_origin(option) is tuple), tuple[Any, ...])
        return tuple(_built(get_args(inner)[0], v) for v in value)
    return value


def _options(hint: Any) -> list[Any]:
    """Return the alternatives of a type hint, without what annotates them."""
    if get_origin(hint) is Annotated:
        return _options(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return [option for part in get_args(hint) for option in _options(part)]
    return [hint]


def parts_of(hint: Any) -> list[type[Description]]:
    """Return the classes of descriptions that a type hint allows."""
    return [option for option in _options(hint) if _is_description(option)]


def _compile_checks(cls: type[Description]) -> _Checks:
    """Return the test of every field, and the numbers that are converted or checked by a function of their own; kept with the class."""
    numbers = {name: found for name, hint in cls._fields.items() if (found := _number(hint)) is not None}
    cls._checks = {name: _test(hint) for name, hint in cls._fields.items()}, numbers
    return cls._checks


def _number(hint: Any) -> tuple[Number, type] | None:
    for option in (hint, *get_args(hint)):
        if get_origin(option) is Annotated and isinstance(number := get_args(option)[1], Number):
            kind = get_args(option)[0]
            return (number, kind) if kind is float or number.check or number.exponents else None
    return None


@cache
def _test(hint: Any) -> Callable[[Any], bool]:
    """Return what tells whether a value is of a type: exactly, so that neither True is a number nor 1 a flag."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated and isinstance(inner[1], Number):
        kind, (least, most) = inner[0], (inner[1].least, inner[1].most)
        return lambda value: type(value) is kind and least <= value <= most
    if origin is Annotated:  # NOT_EMPTY
        test = _test(inner[0])
        return lambda value: test(value) and len(value) > 0
    if origin is Literal:
        return lambda value: any(type(value) is type(known) and value == known for known in inner)
    if origin in (Union, UnionType):
        classes = tuple(option for option in inner if option is NoneType or _is_description(option))
        first, *others = [_test(option) for option in inner if option not in classes] or [_no]
        if others:
            return lambda value: isinstance(value, classes) or first(value) or any(test(value) for test in others)
        return lambda value: isinstance(value, classes) or first(value)
    if origin is tuple and inner[-1] is ...:
        every = _test(inner[0])
        return lambda value: type(value) is tuple and all(map(every, value))
    if origin is tuple:  # the only one is a pair
        left, right = map(_test, inner)
        return lambda value: type(value) is tuple and len(value) == 2 and left(value[0]) and right(value[1])
    if _is_description(hint):
        return lambda value: isinstance(value, hint)
    return lambda value: type(value) is hint


def _no(_: object) -> bool:
    return False


def _is_description(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Description)


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "None"}


def _wanted(hint: Any) -> str:
    """Write what a type asks for."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated and isinstance(inner[1], Number):
        return f"{_WORDS[inner[0]]} of {inner[1].least:,} … {inner[1].most:,}"
    if origin is Annotated:
        return f"{_wanted(inner[0])}, not empty"
    if origin is Literal:
        return "one of " + ", ".join(map(repr, inner))
    if origin in (Union, UnionType):
        return " or ".join(map(_wanted, inner))
    if origin is tuple:
        return "a tuple of " + (_wanted(inner[0]) if inner[-1] is ... else ", ".join(map(_wanted, inner)))
    return _WORDS.get(hint) or f"a {hint.__name__}"
