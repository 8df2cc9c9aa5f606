"""What to say of a call that does not fit a function: something is missing, unknown, given twice, or one value too many."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar

from roofline.errors import CallError, RooflineError, UnknownOptionError
from roofline.names import nearest_names

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)
Refuse = Callable[[str, str, Sequence[str]], RooflineError]
"""Returns the error for a name that a function does not take: of the function, the name, and the names that it takes."""

_CALLED = ("__new__", "__init__", "__call__")
_MOST_LISTED = 6
_LONGEST = 60  # characters of a name that nobody knows


def refuse_name(called: str, name: str, takes: Sequence[str]) -> UnknownOptionError:
    """Return the error for a name that a function does not take."""
    near = nearest_names(name, takes)
    known = f"nearest: {', '.join(near)}" if near else f"it takes {listed(takes)}" if takes else "it takes nothing"
    return UnknownOptionError(f"{called} has no {name[:_LONGEST]}: {known}.")


def checks_call(function: Function, refuse: Refuse = refuse_name) -> Function:
    """Answer a call that does not fit the function with one of our errors instead of Python's TypeError.

    Nothing is looked at before the call, so one that fits costs no more than a second call.
    """

    @wraps(function)
    def checked(*given: Any, **named: Any) -> Any:
        try:
            return function(*given, **named)
        except TypeError as error:
            wrong = None if isinstance(error, RooflineError) else misfit(checked, given, named, refuse)
            if wrong is None:
                raise
        raise wrong

    return checked  # type: ignore[return-value]


def checks_methods(cls: Class) -> Class:
    """Answer calls of a class and of its public methods as :func:`checks_call` does."""
    for name, member in list(vars(cls).items()):
        bound = isinstance(member, (classmethod, staticmethod))
        inner = member.__func__ if bound else member
        if inspect.isfunction(inner) and not hasattr(inner, "__wrapped__") and (name[0] != "_" or name in _CALLED):
            setattr(cls, name, type(member)(checks_call(inner)) if bound else checks_call(inner))
    return cls


def misfit(
    function: Callable[..., Any], given: Sequence[Any], named: Mapping[str, Any], refuse: Refuse = refuse_name
) -> RooflineError | None:
    """Return the error for arguments that do not fit a function; None if they do."""
    called = function.__name__
    own = list(inspect.signature(function).parameters.values())
    if own and own[0].name in ("self", "cls", "_cls"):
        owner = given[0] if inspect.isclass(given[0]) else type(given[0])
        called = f"{owner.__name__}.{function.__name__}" if function.__name__[0] != "_" else owner.__name__
        own, given = own[1:], given[1:]
    takes = [p for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = [p.name for p in takes]
    placed = [p.name for p in takes if p.kind is not p.KEYWORD_ONLY]
    if not any(p.kind is p.VAR_KEYWORD for p in own) and (unknown := next((n for n in named if n not in names), None)) is not None:
        return refuse(called, unknown, names)
    if len(given) > len(placed) and not any(p.kind is p.VAR_POSITIONAL for p in own):
        said = f"only {listed(placed)} without a name" if placed else "no value without a name"
        others = [f"{name}=" for name in names if name not in placed]
        rest = f"; name the others: {listed(others)}" if others else ""
        return CallError(f"{called} takes {said}, and {len(given)} {'was' if len(given) == 1 else 'were'} given{rest}.")
    if twice := next((name for name in placed[: len(given)] if name in named), None):
        return CallError(f"{called} was given {twice} twice: in its place and by name.")
    missing = [p.name for p in takes if p.default is p.empty and p.name not in named and p.name not in placed[: len(given)]]
    if missing:
        return CallError(f"{called} needs {' and '.join(missing)}; it takes {listed(names)}.")
    return None


def listed(names: Sequence[str]) -> str:
    """Return the first of some names, and whether there are more."""
    return ", ".join(names[:_MOST_LISTED]) + (", …" if len(names) > _MOST_LISTED else "")
