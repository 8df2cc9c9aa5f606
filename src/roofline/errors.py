"""Every error that roofline raises, in one tree.

::

    RooflineError
    ├── InvalidValueError         (also ValueError)    a number or option that cannot be: negative, NaN, wrong unit
    ├── UnknownNameError          (also LookupError)   a machine, model or format nobody has heard of
    │   └── UnknownOptionError    (also TypeError)     an option that a function does not take
    ├── SpecError                 (also ValueError)    a hardware spec file that does not parse or validate
    ├── ConfigError               (also ValueError)    a model config that is malformed or incomplete
    │   └── UnsupportedModelError                      a well-formed config of something not modelled
    ├── CalibrationError          (also ValueError)    measurements or a record that cannot be used
    └── MissingDependencyError    (also ImportError)   an optional package is not installed

A caller who does not want to depend on this tree can catch the builtin instead.
"""

__all__ = [
    "CalibrationError",
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


class UnknownOptionError(UnknownNameError, TypeError):
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
