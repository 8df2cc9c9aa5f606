"""Every error that roofline raises, in one tree.

::

    RooflineError
    ├── InvalidValueError         (also ValueError)    a number or option that cannot be: negative, NaN, wrong unit
    ├── UnknownNameError          (also LookupError)   a machine, model or format nobody has heard of
    │   └── UnknownOptionError    (also TypeError)     an option that a function does not take
    ├── CallError                 (also TypeError)     a call without something that is needed, or with a value too many
    ├── SpecError                 (also ValueError)    a hardware spec file that does not parse or validate
    ├── ConfigError               (also ValueError)    a model config that is malformed or incomplete
    │   └── UnsupportedModelError                      a well-formed config of something not modelled
    ├── CalibrationError          (also ValueError)    measurements or a record that cannot be used
    └── MissingDependencyError    (also ImportError)   an optional package is not installed

A caller who does not want to depend on this tree can catch the builtin instead.
"""

__all__ = [
    "CalibrationError",
    "CallError",
    "ConfigError",
    "InvalidValueError",
    "MissingDependencyError",
    "RooflineError",
    "SpecError",
    "UnknownNameError",
    "UnknownOptionError",
    "UnsupportedModelError",
]


class RooflineError(Exception):
    """Root of every error raised on purpose by this library."""


class InvalidValueError(RooflineError, ValueError):
    """A value that no step, machine or model can have."""


class UnknownNameError(RooflineError, LookupError):
    """A name that is not in the registry; the message lists the nearest ones."""


class CallError(RooflineError, TypeError):
    """A call that lacks something, or has a value too many; the message lists what the function takes."""


class UnknownOptionError(UnknownNameError, CallError):
    """An option that a function does not take; the message names what it is called here, or who takes it."""


class SpecError(RooflineError, ValueError):
    """A hardware spec file that cannot be read or does not validate."""


class ConfigError(RooflineError, ValueError):
    """A model configuration that is malformed, truncated or lacks a needed key."""


class UnsupportedModelError(ConfigError):
    """A well-formed configuration whose cost is not modelled; the message names the key."""


class CalibrationError(RooflineError, ValueError):
    """Measurements that cannot be fitted, or a calibration record that cannot be read or written."""


class MissingDependencyError(RooflineError, ImportError):
    """An optional dependency is missing; the message names the extra to install."""


def install(extra: str) -> str:
    """Return how to install an optional part of the library, which is on no package index yet.

    Examples
    --------
    >>> install("plot")
    "pip install '.[plot]' in a checkout of roofline"
    """
    return f"pip install '.[{extra}]' in a checkout of roofline"


_MOST_QUOTED = 60


def quoted(value: object) -> str:
    """Return a value as messages quote it: at most one short line, and never an address.

    Examples
    --------
    >>> quoted("fp9"), quoted(10**400), quoted(object())
    ("'fp9'", 'a number of 401 digits', 'a value of type object')
    """
    if type(value) is int and abs(value) >= 10**30:
        return f"a number of {len(str(abs(value)))} digits" if abs(value) < 10**4000 else "a number of over 4000 digits"
    try:
        text = " ".join(repr(value[: _MOST_QUOTED + 1] if isinstance(value, (str, bytes)) else value).split())
    except Exception:  # whatever somebody's own repr raises
        text = ""
    if not text or " at 0x" in text:
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _MOST_QUOTED else f"{text[: _MOST_QUOTED - 1]}…"
