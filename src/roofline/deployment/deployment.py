"""A model on a machine, in the formats and over the devices that somebody deploys it with."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Unpack

import numpy as np

from roofline.calls import checks_call
from roofline.catalog import load_model
from roofline.deployment.machine import Machine, find_machine, named_machine, no_machine, scale_up_domain
from roofline.deployment.options import ALL, OPTIONS, DeploymentOptions, asks
from roofline.deployment.spelling import refused_option
from roofline.errors import InvalidValueError, quoted
from roofline.forward import Program, compile_model
from roofline.forward.lowering import Fusion
from roofline.forward.precision import as_chosen, as_dtype
from roofline.hardware import Hardware
from roofline.hardware.sections import check_capacity
from roofline.model import Model
from roofline.parallel import Parallel
from roofline.step import Step
from roofline.units import check_rate, whole_number

_RATES = ("memory_bandwidth", "peak_flops_per_s", "memory_capacity")
_DEGREES = ("tensor_parallel", "pipeline_parallel", "expert_parallel", "data_parallel", "context_parallel")
_FORMATS = ("weights", "dtype", "activations", "kv")
_REMEMBERED = 256  # deployments that the questions asked last were about


@asks(ALL)
@dataclass(frozen=True, init=False, repr=False, eq=False)
class Deployment:
    """A model, a machine, number formats, degrees of parallelism and a memory policy: checked once, asked many questions.

    Every function that takes a model and a machine takes a deployment in place of both.

    Parameters
    ----------
    model : str, Path, mapping, object, int, float or Model
        What :meth:`Model.load` takes: a name, a config.json, a number of parameters [-].
    hardware : Hardware, str or Path, optional
        A machine, its name, or its spec file; None with bare rates, or where only memory is asked about [-].
    {options}

    Raises
    ------
    RooflineError
        One clear error for whatever is unknown, malformed or impossible.

    Examples
    --------
    >>> from roofline import decode_floor
    >>> node = Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel=2, weights="fp8")
    >>> node.devices, node.but(tensor_parallel=4).devices
    (2, 4)
    >>> decode_floor(node, batch=8, context=8192).devices
    2
    """

    model: Model
    asked_model: Model = field(hash=False)  # as it was given, without what `dtype` and `kv_bytes_per_token` say
    hardware: Hardware | None
    parallel: Parallel
    program: Program
    fusion: Fusion
    routing: Any
    mtp: int
    page: int
    in_flight_tokens: int
    activation_tokens: int
    reserve: int
    utilization: float
    options: Mapping[str, Any] = field(hash=False)

    def __init__(self, model: Any, hardware: Machine = None, **options: Unpack[DeploymentOptions]) -> None:
        given: dict[str, Any] = dict(options)
        check_options("Deployment", ALL, given)
        if isinstance(model, Deployment):
            raise InvalidValueError(f"{quoted(model)} is a deployment already; deployment.but(...) changes it.")
        given |= {name: as_chosen(given[name], by_component=name == "weights") for name in _FORMATS if name in given}
        every = {name: given.get(name, option.default) for name, option in OPTIONS.items()}
        machine = find_machine(hardware, **{name: every[name] for name in _RATES})
        loaded = asked = Model.load(model)
        if every["kv_bytes_per_token"] is not None:
            if every["kv"] is not None:
                raise InvalidValueError("kv_bytes_per_token says the bytes of the cache in whatever format: give it or kv, not both.")
            loaded = loaded.with_cache(every["kv_bytes_per_token"])
        if (dtype := as_dtype(every["dtype"])) not in (None, loaded.dtype):
            loaded = loaded.but(dtype=dtype)
        parallel = Parallel(*(every[name] for name in _DEGREES))
        program = compile_model(
            loaded,
            **{name: every[name] for name in ("weights", "activations", "kv", "fusion", "routing", "mtp")},
            parallel=parallel,
            domain=scale_up_domain(machine if parallel.devices > 1 else None),
        )
        if not isinstance(every["routing"], str):
            program.values(Step.prefill(1))  # popularities of experts are checked by what counts them
        values: dict[str, Any] = {"model": loaded, "asked_model": asked, "hardware": machine, "parallel": parallel, "program": program}
        values |= {"fusion": every["fusion"], "routing": _kept(every["routing"], program), "mtp": int(every["mtp"])}
        values |= {"page": whole_number("page", every["page"], minimum=1)}
        values |= {"in_flight_tokens": whole_number("in_flight_tokens", every["in_flight_tokens"])}
        values |= {"activation_tokens": whole_number("activation_tokens", every["activation_tokens"])}
        values |= {"reserve": _check_reserve(every["reserve"])}
        values |= {"utilization": _check_share("utilization", every["utilization"])}
        values |= {
            "options": MappingProxyType({name: _kept(value, program) for name, value in given.items() if not _is_default(name, value)})
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def devices(self) -> int:
        """Devices of one replica [-]."""
        return self.parallel.devices

    @property
    def machine(self) -> Hardware:
        """The machine, for questions that need one [-]."""
        if self.hardware is None:
            raise no_machine([name for name in _RATES if name in self.options])
        return self.hardware

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever asks about it must know: what its names are read as, and what a batch is in a pipeline."""
        machine = "" if self.hardware is None else self.hardware.alias_note
        return tuple(note for note in (self.model.alias_note, machine, self.parallel.in_flight_note) if note)

    def warn_of_one_device(self) -> None:
        """Warn if the machine's name stands for several devices and one is asked about: for answers that are a number without notes."""
        if self.devices == 1 and self.hardware is not None and self.hardware.named_devices > 1:
            warnings.warn(f"{self.hardware.alias_note}.", stacklevel=4)

    @property
    def memory_capacity(self) -> int | None:
        """Memory of one device; None where it is not known [B]."""
        if self.hardware is not None:
            return None if self.hardware.memory_capacity is None else int(self.hardware.memory_capacity)
        given = self.options.get("memory_capacity")
        return None if given is None else check_capacity("memory_capacity", given)

    @property
    def usable_bytes(self) -> int | None:
        r"""Memory of one device that may be used, the reserve included: :math:`\lfloor u M \rfloor`; None where it is not known [B]."""
        capacity = self.memory_capacity
        return capacity if capacity is None or self.utilization == 1 else int(capacity * self.utilization)

    @checks_call
    def but(self, **changes: Any) -> "Deployment":
        """Return this deployment with some things changed.

        Parameters
        ----------
        **changes : optional
            ``model``, ``hardware`` (in place of bare rates, too), or any option [-].

        Returns
        -------
        Deployment
            Another deployment [-].
        """
        given = {**self._asked, **changes}
        if changes.get("hardware") is not None:  # another machine has rates of its own
            given = {name: value for name, value in given.items() if name not in _RATES or name in changes}
        return Deployment(**given)

    @property
    def _asked(self) -> dict[str, Any]:
        """The arguments that make this deployment."""
        bare = self.hardware is not None and "memory_bandwidth" in self.options
        return {"model": self.asked_model, "hardware": None if bare else self.hardware, **self.options}

    def __getattr__(self, name: str) -> Any:
        """Return an option, given or not, for those that are no fields."""
        if name not in OPTIONS:
            raise AttributeError(f"a Deployment has no {name!r}")
        return self.options.get(name, OPTIONS[name].default)

    def __eq__(self, other: object) -> bool:
        return self._asked == other._asked if isinstance(other, Deployment) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.model.name, self.hardware, self.parallel, self.fusion, self.utilization))

    def __reduce__(self) -> tuple[Any, ...]:
        asked: dict[str, Any] = {name: dict(value) if isinstance(value, Mapping) else value for name, value in self._asked.items()}
        return partial(Deployment, **asked), ()

    def __repr__(self) -> str:
        machine = [] if self.hardware is None or "memory_bandwidth" in self.options else [repr(self.hardware.id)]
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        return f"Deployment({', '.join([repr(self.model.name), *machine, *options])})"


def _is_default(name: str, value: Any) -> bool:
    default = OPTIONS[name].default
    return value is default or (isinstance(value, (int, float, str)) and not isinstance(value, bool) and value == default)


def _kept(value: Any, program: Program) -> Any:
    """Return an option as something that nobody can change from outside."""
    if isinstance(value, Mapping):
        return MappingProxyType(dict(value))
    return program.routing if isinstance(value, (list, np.ndarray)) else value


def _check_reserve(value: Any) -> int:
    """Return a reserve in whole bytes; one below a megabyte was meant in another unit."""
    if type(value) is int and value == 0:
        return 0
    return int(check_rate("reserve", value, "B", least=1e6, most=1e16, positive=not (isinstance(value, (int, float)) and value == 0)))


def _check_share(name: str, value: Any) -> float:
    known = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if known and 2 <= value <= 100:
        raise InvalidValueError(f"utilization is {value:g}; it is a share of the memory: did you mean {value / 100:g}?")
    if not known or not 0 < value <= 1:
        raise InvalidValueError(f"{name} is {quoted(value)}; it is a share of the memory: above 0, at most 1.")
    return float(value)


_recent: dict[Any, Deployment] = {}


def check_options(question: str, takes: tuple[str, ...], options: Mapping[str, Any]) -> None:
    """Raise UnknownOptionError for the first option that a question does not take."""
    for name in options:
        if name not in takes:
            raise refused_option(question, name, takes)


def deploy(question: str, takes: tuple[str, ...], model: Any, hardware: Machine, options: Mapping[str, Any]) -> Deployment:
    """Return the deployment that a question is about: the one given, or the one that its arguments describe."""
    if type(model) is Deployment:
        return _given(question, takes, model, hardware, options)
    loaded = model if type(model) is Model else load_model(model)
    machine = hardware if hardware is None or isinstance(hardware, Hardware) else named_machine(hardware)
    try:
        # 1 and True are equal, but only the first is a degree; without options, whatever the question takes, there is one deployment
        key = (
            (id(loaded), id(machine), takes, *options, *options.values(), *map(type, options.values()))
            if options
            else (id(loaded), id(machine))
        )
        found = _recent.get(key)
    except TypeError:  # a mapping of formats, an array of popularities
        key, found = None, None
    if found is None:
        check_options(question, takes, options)
        found = Deployment(loaded, machine, **options)
        if key is not None:
            while len(_recent) >= _REMEMBERED:
                _recent.pop(next(iter(_recent)), None)
            _recent[key] = found  # it keeps the objects alive that the key names by their ids
    return found


def _given(question: str, takes: tuple[str, ...], deployment: Deployment, hardware: Machine, options: Mapping[str, Any]) -> Deployment:
    check_options(question, takes, options)
    if hardware is not None and deployment.hardware is None:
        return deployment.but(hardware=hardware, **options)
    if hardware is not None:
        raise InvalidValueError(f"{question} was given a deployment, which names its machine; deployment.but(hardware=...) is on another.")
    return deployment.but(**options) if options else deployment
