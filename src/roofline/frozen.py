"""What is shared may not be changed: mappings without ways to change them, arrays that cannot be written, attributes that cannot be set."""

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

import numpy as np

Key = TypeVar("Key")
Value = TypeVar("Value")
Class = TypeVar("Class", bound=type)


class FrozenDict(dict[Key, Value]):
    """A dict that cannot be changed; ``dict(...)`` of it is a copy that can.

    Examples
    --------
    >>> FrozenDict(a=1)["b"] = 2
    Traceback (most recent call last):
    ...
    TypeError: this mapping is frozen; dict(...) of it makes a copy that can be changed.
    """

    def _refuse(self, *given: Any, **named: Any) -> NoReturn:
        raise TypeError("this mapping is frozen; dict(...) of it makes a copy that can be changed.")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


class Frozen:
    """Base of classes whose attributes are set once, by ``object.__setattr__`` in their own methods."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} is frozen: {name} cannot be set; make another one.")

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        for name, value in state[1].items():
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} is frozen: {name} cannot be deleted.")


def sealed(cls: Class) -> Class:
    """Let a frozen dataclass with slots refuse every attribute in a sentence.

    Such a class is made twice, and what refuses in the first fails with a TypeError in the second for all but fields.
    """
    cls.__setattr__ = Frozen.__setattr__  # type: ignore[assignment]
    cls.__delattr__ = Frozen.__delattr__  # type: ignore[assignment]
    return cls


def freeze(value: Any) -> Any:
    """Return a value that cannot be changed: of an array the same one, read-only; of mappings and lists a frozen copy.

    Examples
    --------
    >>> freeze({"a": [1, 2]})
    {'a': (1, 2)}
    """
    kind = type(value)
    if kind is float or kind is int or kind is str:  # most are
        return value
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
        return value
    if isinstance(value, Mapping):
        return FrozenDict({key: freeze(inner) for key, inner in value.items()})
    return tuple(map(freeze, value)) if isinstance(value, list) else value
