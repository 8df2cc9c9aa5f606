"""What a file says of a deployment's degrees and cache, as options of a `Deployment`."""

from typing import Any

from roofline.errors import RooflineError
from roofline.formats import Format
from roofline.measured.clients.content import Content


def degrees(tensor: int | None, pipeline: int | None = None, expert: int | None = None, groups: int | None = None) -> dict[str, Any]:
    """Return degrees of parallelism as options, those of 1 left out but for the first.

    Parameters
    ----------
    tensor : int, optional
        Devices of a stage, as engines count them: those of all groups [-].
    pipeline, expert : int, optional
        Stages, and devices that share the experts [-].
    groups : int, optional
        Groups of these devices that share the sequences: attention of data-parallel ranks [-].
    """
    if not tensor:
        return {}
    ranks = groups if groups and tensor % groups == 0 else 1
    found = {"tensor_parallel": tensor // ranks, "pipeline_parallel": pipeline, "expert_parallel": expert, "data_parallel": ranks}
    return {name: degree for name, degree in found.items() if degree and (degree > 1 or name == "tensor_parallel")}


def cache_format(content: Content, key: str) -> dict[str, str]:
    """Return the format of the cache as an option; nothing where the engine chose it, or names one that is not known."""
    named = content.text(key)
    if named is None or named.lower() == "auto":
        return {}
    try:
        return {"kv": Format.load(named).name}
    except RooflineError:
        return {}


def quantization_note(named: str | None) -> list[str]:
    """Return what to say of a quantization by one name, which is that of some matrices and not of all."""
    if named is None:
        return []
    return [
        f"the file names one quantization for the whole model, {named!r}: which matrices it is of, the model's own configuration says, or weights="
    ]
