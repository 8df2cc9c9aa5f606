"""What a model occupies: its tensors one by one, and the one formula for their bytes under any choice of formats."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from roofline.errors import InvalidValueError
from roofline.formats import Format
from roofline.model.components import Matrix, Vector

if TYPE_CHECKING:
    from roofline.model.layers import LayerGroup
    from roofline.model.spec import Model

Tensor = Matrix | Vector
Placed = tuple[Tensor, "LayerGroup | None", int]
"""A tensor with its layer, None outside the layers, and how often it is stored."""
FormatOf = Callable[[Tensor, "LayerGroup | None"], Format]


def of_groups(groups: Iterable["LayerGroup"], hidden: int, tables: Iterable[tuple[str, int]] = ()) -> Iterator[Placed]:
    """Yield the tensors of tables outside layers, and of layers of this width."""
    yield from ((Vector(name, elements), None, 1) for name, elements in tables)
    for group in groups:
        for matrix in group.matrices(hidden):
            yield matrix, group, group.stored
        for vector in group.vectors():
            yield vector, group, group.stored


def parameters_of(placed: Iterable[Placed]) -> dict[str, int]:
    """Return the parameters of every component that has any, layers summed [-]."""
    found: dict[str, int] = {}
    for tensor, _, times in placed:
        found[tensor.name] = found.get(tensor.name, 0) + times * tensor.parameters
    return {name: parameters for name, parameters in found.items() if parameters}


def tensors(model: "Model", mtp: Iterable["LayerGroup"] = ()) -> Iterator[Placed]:
    """Yield every tensor that is stored, with its layer (None outside the layers) and how often it is; tied tensors once."""
    if model.embedding is not None:
        for table in (*model.embedding.tables, *model.embedding.layer_tables):
            yield table, None, 1
        for norm in (model.embedding.norm, model.embedding.projection_norm):
            if norm is not None:
                yield Vector(norm.name, norm.parameters), None, 1
        for part in model.embedding.projections:
            yield from ((matrix, None, 1) for matrix in part.matrices(model.hidden_size))
    if model.encoder is not None:
        for vector in model.encoder.vectors(model.hidden_size):
            yield vector, None, 1
    yield from of_groups((*(model.encoder.layers if model.encoder is not None else ()), *model.layers, *mtp), model.hidden_size)
    if model.final_norm is not None:
        yield Vector(model.final_norm.name, model.final_norm.parameters), None, 1
    if model.head is not None:
        *transform, projection = model.head.matrices(model.hidden_size)
        for matrix in transform:
            yield matrix, None, 1
        norm = model.head.norm(model.hidden_size)
        if norm is not None:
            yield Vector(norm.name, norm.parameters), None, 1
        yield Vector(projection.name, projection.bias) if model.head.tied else projection, None, 1


def bytes_by_component(placed: Iterable[Placed], format_of: FormatOf) -> dict[str, int | float]:
    """Return the bytes of every component, layers summed: weights and vectors in the format of their name, biases in that of ``NAME.bias`` [B]."""
    totals: dict[str, int | float] = {}
    for tensor, group, times in placed:
        weights = tensor.inputs * tensor.outputs * tensor.copies if isinstance(tensor, Matrix) else tensor.parameters
        size = weights * format_of(tensor, group).bytes_per_element if weights else 0
        if bias := tensor.parameters - weights:
            size += bias * format_of(Vector(f"{tensor.name}.bias", bias), group).bytes_per_element
        totals[tensor.name] = totals.get(tensor.name, 0) + times * size
    return {name: size for name, size in totals.items() if size}


def format_as_stored(model: "Model", name: str, group: "LayerGroup | None") -> Format | None:
    """Return the format that the checkpoint stores a component in, or None if it is in the model's own `dtype`."""
    for component, stored in model.formats if group is None else group.formats:
        if component == name:
            return Format.load(stored)
    return None


def stored_dtype(model: "Model") -> Format:
    """Return the format of everything that has none of its own."""
    if model.dtype is None:
        raise InvalidValueError(f"{model.name}: its configuration names no dtype, and nothing is guessed, so its bytes are not known.")
    return Format.load(model.dtype)
