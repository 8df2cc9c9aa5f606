"""What was measured: the deployment that a measurement is of, from what its file states and what the caller says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from roofline.catalog import is_known_model
from roofline.deployment import Deployment
from roofline.deployment.deployment import deploy
from roofline.deployment.options import ALL
from roofline.engines import ENGINES, load_engine
from roofline.engines.load import is_shipped
from roofline.errors import InvalidValueError, RooflineError, SpecError, UnknownNameError, quoted
from roofline.floors import decode_floor
from roofline.hardware import Hardware
from roofline.measured.measurement import ServingMeasurement
from roofline.model import Matrix, Model
from roofline.model.storage import tensors
from roofline.names import normalize_name
from roofline.records import CalibrationRecord
from roofline.serving.steps.engine_times import engine_times

DEFAULT_ENGINE = "vllm"

_DEGREES = tuple(name for name in ALL if name.endswith("_parallel"))
_FORMATS = ("weights", "kv")
_RATES = ("memory_bandwidth", "peak_flops_per_s")
_NARROW = re.compile(r"(?i)(?<![a-z0-9])(fp8|awq|gptq|int4|int8|w4a16|w8a8|w8a16|nvfp4|mxfp4|fp4|[48]bit)(?![a-z0-9])")


@dataclass(frozen=True, slots=True)
class Subject:
    """What ran, and how it is known.

    Parameters
    ----------
    deployment : Deployment
        The model on its machine [-].
    engine : str
        The engine, by the name of its profile [-].
    stated : mapping of str to object
        What the measurement itself says of the deployment, as far as it is used [-].
    assumed : tuple of str
        What neither the measurement nor the caller says, and what is taken instead [-].
    notes : tuple of str
        Where the two contradict each other [-].
    """

    deployment: Deployment
    engine: str
    stated: Mapping[str, Any]
    assumed: tuple[str, ...]
    notes: tuple[str, ...]


def find_subject(measurement: ServingMeasurement, model: Any, hardware: Any, engine: str | None, options: Mapping[str, Any]) -> Subject:
    """Return what a measurement is of; raise for what it does not say and nobody can guess, naming the keywords that say it."""
    stated = {name: value for name, value in measurement.options.items() if name in ALL}
    used, assumed = _engine(measurement, engine)
    if isinstance(model, Deployment):
        deployment = deploy("compare", ALL, model, hardware, options)
        notes = _contradictions(measurement, deployment, {name: getattr(deployment, name) for name in stated}, stated)
        return Subject(deployment, used, stated, assumed, notes)
    bare = any(options.get(name) is not None for name in _RATES)
    named_model = _known_model(measurement) if model is None else model
    named_machine = None if bare else measurement.machine if hardware is None else hardware
    missing = [*_no_model(measurement, model), *([] if bare else _no_machine(measurement, hardware))]
    if missing:
        raise InvalidValueError(
            f"{measurement.source} does not say what ran: give {' and '.join(missing)}; and degrees (tensor_parallel= …) and formats "
            "(weights=, kv=) where they are not one device and what the checkpoint says."
        )
    deployment = deploy("compare", ALL, named_model, named_machine, {**stated, **options})
    notes = _contradictions(measurement, deployment, options, stated)
    known = {**stated, **options}
    assumed += assumed_of(deployment, known)
    if not any(name in known for name in _DEGREES) and decode_floor(deployment, batch=1, context=0).fits is False:
        raise InvalidValueError(
            f"{deployment.model.name} does not fit into one {deployment.machine.name}, and {measurement.source} does not say how many there "
            "were: give tensor_parallel= (or another degree), and weights= if they were quantized."
        )
    return Subject(deployment, used, {n: v for n, v in stated.items() if n not in options}, assumed, notes)


def find_record(deployment: Deployment, engine: str, calibration: Any, *, cuda_graph: bool) -> CalibrationRecord | None:
    """Return what estimates rest on: as for a service, the engine's record of the machine if there is one; None for a model without kernels."""
    if deployment.model.is_anonymous:
        return None
    return engine_times(deployment, {"calibration": calibration, "cuda_graph": cuda_graph}, load_engine(engine)).calibration


def _engine(measurement: ServingMeasurement, engine: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the engine: the caller's, that of the measurement, or the default, which is an assumption."""
    if engine is not None:
        return engine, ()
    for text in (measurement.engine, measurement.source):
        found = [name for name in ENGINES if name in normalize_name(text or "")]
        if found:
            return _of_version(found[0], text or ""), ()
        if "tensorrt" in normalize_name(text or ""):
            return "trtllm", ()
    said = "" if measurement.engine is None else f", since {quoted(measurement.engine)} is none of {', '.join(ENGINES)}"
    return DEFAULT_ENGINE, (f"rules and kernels of {DEFAULT_ENGINE}{said} (engine= names another)",)


def _of_version(engine: str, text: str) -> str:
    """Return an engine with the version that a text ends with, if host times of its own are known of it."""
    named = f"{engine} {text.rpartition(' ')[2]}"
    try:
        return engine if is_shipped(load_engine(named)) else named
    except RooflineError:
        return engine


def _known_model(measurement: ServingMeasurement) -> str | None:
    """Return the name of the catalogue that a measurement's model goes by; of a folder, its last part."""
    name = measurement.model or ""
    for text in (name, name.rstrip("/").rpartition("/")[2]):
        if text and is_known_model(text):
            try:
                Model.load(text)
            except RooflineError:  # a path that is no longer there
                continue
            return text
    return None


def _no_model(measurement: ServingMeasurement, model: Any) -> list[str]:
    if model is not None or _known_model(measurement) is not None:
        return []
    return ["model="] if measurement.model is None else [f"model= (it says {quoted(measurement.model)}, which is no name of the catalogue)"]


def _no_machine(measurement: ServingMeasurement, hardware: Any) -> list[str]:
    if hardware is not None:
        return []
    if measurement.machine is None:
        return ["hardware="]
    try:
        Hardware.load(measurement.machine)
    except UnknownNameError:
        return [f"hardware= (it says {quoted(measurement.machine)}, which is no machine of the catalogue)"]
    return []


def assumed_of(deployment: Deployment, known: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is taken for what nobody says."""
    found = [] if any(name in known for name in _DEGREES) else ["one device (tensor_parallel= and other degrees say more)"]
    if "weights" not in known:
        found.append("weights as the checkpoint stores them (weights=)")
    if "kv" not in known and "kv_bytes_per_token" not in known:
        found.append(f"a KV cache in {deployment.program.precision.kv.name} (kv=)")
    return tuple(found)


def _contradictions(
    measurement: ServingMeasurement, deployment: Deployment, given: Mapping[str, Any], stated: Mapping[str, Any]
) -> tuple[str, ...]:
    """Raise where degrees contradict each other; return sentences on other things, of which the caller's are used."""
    notes = []
    for name, value in stated.items():
        if name not in given or given[name] == value:
            continue
        if name in _DEGREES:
            raise InvalidValueError(
                f"{measurement.source} says {name} {quoted(value)}, and {quoted(given[name])} was given; if the measurement is wrong, "
                "leave it out of its options."
            )
        if name in _FORMATS and given[name] is not None:
            notes.append(f"contradiction: {measurement.source} says {name} {quoted(value)}; {quoted(given[name])} was given and is used")
    known, source, called = _known_model(measurement), measurement.source, measurement.model
    if known is not None and Model.load(known).parameters != deployment.model.parameters:  # other checkpoints of one shape are the same
        notes.append(f"contradiction: {source} names the model {quoted(called)}; {deployment.model.name} is used")
    elif called and known is None and normalize_name(deployment.model.name) not in normalize_name(called):
        notes.append(
            f"{source} names the model {quoted(called)}, which the catalogue does not have; {deployment.model.name} is taken for it"
        )
    if called and (word := _NARROW.search(called)) and deployment.options.get("weights") is None and _is_wide(deployment):
        notes.append(
            f"the name {quoted(called)} says weights in {word[0]}; they are taken as the checkpoint of {deployment.model.name} stores them (weights=)"
        )
    return (*notes, *other_machine(source, measurement.machine, deployment))


def other_machine(source: str, said: str | None, deployment: Deployment) -> tuple[str, ...]:
    """Return a sentence if what measured names another machine than that of a deployment."""
    if not said:
        return ()
    used = deployment.machine
    try:
        named = Hardware.load(said)
    except (UnknownNameError, SpecError):  # SpecError: a name that looks like a path
        if any(normalize_name(name) in normalize_name(said) for name in (used.id, used.name)):
            return ()
        return (f"{source} names the machine {quoted(said)}, which the catalogue does not have; {used.name} is taken for it",)
    return () if named.id == used.id else (f"contradiction: {source} names the machine {named.name}; {used.name} is used",)


def _is_wide(deployment: Deployment) -> bool:
    """Return whether no matrix of a model is stored in less than 16 bits."""
    stored = deployment.program.precision.stored
    return all(float(stored(tensor, group).bits) >= 16 for tensor, group, _ in tensors(deployment.model) if isinstance(tensor, Matrix))
