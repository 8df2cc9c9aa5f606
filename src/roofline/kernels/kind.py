"""A kind of kernel: the sizes and options that describe one, and the function that counts what it costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from roofline.errors import InvalidValueError
from roofline.frozen import FrozenDict
from roofline.ops import Op


def words(text: str) -> tuple[str, ...]:
    """Return names that are written with blanks between them.

    Examples
    --------
    >>> words("num_heads n_heads h")
    ('num_heads', 'n_heads', 'h')
    """
    return tuple(text.split())


@dataclass(frozen=True, slots=True)
class Size:
    """One size of a kernel."""

    name: str  # its name, an argument of the function that counts
    aliases: tuple[str, ...] = ()  # other names that tables have for it
    # its value if it is not given: a number, or the name of the size that it equals; None if it must be given
    default: int | str | None = None
    least: int = 1  # the least allowed value
    fixed: bool = False  # whether it must be a single number; otherwise it may be an array, one element per kernel

    @property
    def names(self) -> tuple[str, ...]:
        """The name and its aliases [-]."""
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of kernel."""

    name: str  # its name
    sizes: tuple[Size, ...]  # what describes a kernel in numbers
    options: Mapping[str, str]  # what describes it in words, such as formats: name → default, empty if it must be given
    shape: str  # how the sizes of a kernel are written, a template of :meth:`str.format`
    count: Callable[..., Op]  # sizes and options by name → :class:`~roofline.ops.Op`; sizes that are not fixed may be arrays

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", FrozenDict(self.options))

    @property
    def required(self) -> tuple[Size, ...]:
        """The sizes without a default [-]."""
        return tuple(size for size in self.sizes if size.default is None)

    @property
    def fixed(self) -> tuple[str, ...]:
        """Names of everything that is the same for all kernels counted in one call [-]."""
        return (*(size.name for size in self.sizes if size.fixed), *self.options)

    @property
    def varying(self) -> tuple[str, ...]:
        """Names of the sizes that may be arrays [-]."""
        return tuple(size.name for size in self.sizes if not size.fixed)

    def with_defaults(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return sizes and options together with the defaults of those that are missing."""
        found = dict(given)
        for size in self.sizes:
            if size.name in found:
                continue
            if size.default is None:
                raise InvalidValueError(f"{self.name} kernels need {', '.join(s.name for s in self.required)}; {size.name} is missing.")
            found[size.name] = found[size.default] if isinstance(size.default, str) else size.default
        return {**self.options, **found}
