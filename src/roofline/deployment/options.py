"""The options of a deployment: names, types and descriptions, once for Python signatures, docs and the command line."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

from roofline.calls import checks_call
from roofline.errors import UnknownOptionError
from roofline.formats import Format
from roofline.forward.lowering import Fusion
from roofline.forward.precision import WeightFormats
from roofline.frozen import FrozenDict

Question = TypeVar("Question", bound=Callable[..., Any])


class _Shared(TypedDict, total=False):
    weights: WeightFormats
    dtype: str | None
    activations: str | Format | None
    kv: str | Format | None
    kv_bytes_per_token: int | None
    mtp: int
    pipeline_parallel: int
    expert_parallel: int
    data_parallel: int
    context_parallel: int
    memory_capacity: float | str | None
    utilization: float
    reserve: float | str


class SweepOptions(_Shared, total=False):
    """What a sweep over tensor-parallel degrees takes."""

    fusion: Fusion
    routing: Any
    memory_bandwidth: float | str | None
    peak_flops_per_s: float | str | None


class StepOptions(SweepOptions, total=False):
    """What every question about the time of a step takes."""

    tensor_parallel: int


class CapacityOptions(_Shared, total=False):
    """What every question about memory takes."""

    tensor_parallel: int
    page: int
    in_flight_tokens: int
    activation_tokens: int


class DeploymentOptions(StepOptions, CapacityOptions, total=False):
    """All options of a :class:`Deployment`."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option: what is said of it in every docstring and in the help of every command."""

    types: str
    text: str
    default: Any = None
    unit: str = "-"
    value: type = str  # of the command line
    flag: str = ""  # a short one, such as --tp
    also: str = ""  # what only Python can give

    def line(self, name: str) -> str:
        """Return its entry in a numpydoc list of parameters."""
        return f"{name} : {self.types}, optional\n    {self.text}{self.also} [{self.unit}]."


def _degree(text: str, flag: str) -> Option:
    return Option("int", text, 1, value=int, flag=flag)


OPTIONS = {
    "weights": Option(
        "str, Format or mapping",
        "Format of the weights; as stored if not given",
        also="; a mapping names those of single components, or of whole modules",
    ),
    "dtype": Option("str", "Format of what is not quantized, and of activations in memory; what the checkpoint says if not given"),
    "activations": Option("str or Format", "Format that rows are multiplied in; follows the weights if not given"),
    "kv": Option("str or Format", "Format of the KV cache; what the checkpoint says if not given, else that of the activations in memory"),
    "kv_bytes_per_token": Option(
        "int",
        "Bytes that one token adds to the KV cache, for a model of which only the number of parameters is known",
        unit="B",
        value=int,
    ),
    "fusion": Option(
        '{"none", "attention", "full"}', "What stays on chip between operators; it changes the roofline time only", "attention"
    ),
    "routing": Option(
        "str or array_like",
        "How tokens spread over experts: uniform (a bound on average), best (a bound for any routing), power_law_1.2 (the busiest "
        "device's load if popularity follows a power law; any exponent)",
        "uniform",
        also=", or the popularity of each expert",
    ),
    "mtp": Option(
        "int", "Tokens that the model's multi-token-prediction modules draft for each sequence in the step, one after another", 0, value=int
    ),
    "tensor_parallel": _degree("Devices that share every layer", "--tp"),
    "pipeline_parallel": _degree("Stages that share the layers, each with a step in flight: batch is that of one step", "--pp"),
    "expert_parallel": _degree("Devices that share the routed experts, whole experts each", "--ep"),
    "data_parallel": _degree("Groups of devices that share the sequences", "--dp"),
    "context_parallel": _degree("Devices that share the cache of every sequence", "--cp"),
    "memory_bandwidth": Option("float or str", "Memory bandwidth of a machine without a name", unit="B/s", value=float),
    "peak_flops_per_s": Option("float or str", "Dense peak of a machine without a name, for every format", unit="FLOP/s", value=float),
    "memory_capacity": Option("float or str", "Memory of one device of a machine without a name", unit="B", value=float),
    "utilization": Option("float", "Share of the memory that may be used", 1, value=float),
    "reserve": Option(
        "float or str",
        "Memory that the framework keeps on every device: context, graphs, workspaces; a number of bytes, or text like 2GB",
        0,
        unit="B",
        value=float,
    ),
    "page": Option("int", "Positions of a page of the cache: 16 is vLLM's block, 1 means no pages", 16, unit="token", value=int),
    "in_flight_tokens": Option(
        "int",
        "Tokens of steps under way that an engine books in every windowed layer beyond the window, and a page: vLLM's max_num_batched_tokens; "
        "0 counts what is kept",
        0,
        unit="token",
        value=int,
    ),
    "activation_tokens": Option(
        "int", "Rows of the largest step, whose peak activations count; 0 leaves them out", 0, unit="token", value=int
    ),
}
OPTIONS = FrozenDict(OPTIONS)

STEP: tuple[str, ...] = tuple(n for n in OPTIONS if n in StepOptions.__annotations__)
CAPACITY: tuple[str, ...] = tuple(n for n in OPTIONS if n in CapacityOptions.__annotations__)
ALL: tuple[str, ...] = tuple(OPTIONS)

_SUBJECT = """\
model : str, Path, mapping, object, int, float, Model or Deployment
    What :meth:`Model.load` takes: a name, a config.json, a number of parameters; or a deployment [-].
hardware : Hardware, str or Path, optional
    A machine, its name, or its spec file; None with bare rates, with a deployment, or where only memory is asked about [-]."""

OWN: dict[str, tuple[str, ...]] = {}
"""The parameters of every question besides the options of the deployment."""


def asks(names: tuple[str, ...]) -> Callable[[Question], Question]:
    """Write the options of a deployment into the signature and the docstring of a question that takes them as ``**options``."""

    def write(question: Question) -> Question:
        signature = inspect.signature(question)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        # what has a default may not stand before what has none, even among keywords of a class
        options = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=OPTIONS[n].default) for n in names]
        question.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        text = inspect.cleandoc(question.__doc__ or "").replace("{model}", _SUBJECT)
        question.__doc__ = text.replace("{options}", "\n".join(OPTIONS[n].line(n) for n in names))
        OWN[question.__name__] = tuple(p.name for p in own)
        if not inspect.isclass(question):
            return checks_call(question, _refuse)
        question.__init__ = checks_call(question.__init__, _refuse)  # type: ignore[method-assign]
        return question

    return write


def _refuse(question: str, name: str, takes: Sequence[str]) -> UnknownOptionError:
    from roofline.deployment.spelling import refused_option  # which knows all questions, and is needed for mistakes only

    return refused_option(question, name, takes)
