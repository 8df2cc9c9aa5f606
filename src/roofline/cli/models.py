"""`roofline models`: the models that are known by name, and one of them with its components."""

from collections.abc import Mapping
from typing import Annotated, Any

from roofline.catalog import check_model, list_models
from roofline.cli import options as given
from roofline.cli.app import FINDING
from roofline.cli.printing import Column, show, show_csv, show_json, show_table
from roofline.cli.reading import Given
from roofline.errors import InvalidValueError, quoted
from roofline.model import Model
from roofline.units import GIGA, show_bytes

_COLUMNS = (
    Column("name", right=False),
    Column("parameters", rank=1),
    Column("active", rank=4),
    Column("layers", rank=3),
    Column("KV per token", rank=2),
)
_COMPONENTS = (Column("component", right=False), Column("parameters"), Column("stored", rank=1))
_CHECKED = (
    Column("component", right=False),
    Column("parameters"),
    Column("in files"),
    Column("stored", rank=1),
    Column("in files", rank=1),
    Column("formats", right=False, rank=2),
    Column("", right=False),
)


def models(
    name: Annotated[
        str | None, Given("Show this model: a catalogue name, the path of a config.json or of a GGUF file.", positional=True)
    ] = None,
    check: Annotated[
        str | None, Given("Hold the model of this folder or GGUF file against the tensors that the headers of its files name.")
    ] = None,
    read: given.Read = "auto",
    json: given.Json = False,
    csv: given.Csv = False,
) -> int | None:
    """List the models that are known by name, or show one with its components.

    Any other model is read from its own config.json or GGUF file. KV per token is in bf16. With --check the exit status is 0 if description and
    files agree, 1 if not.
    """
    if check is not None:
        if name is not None:
            raise InvalidValueError(f"the model is given as {quoted(name)} and as --check; one of the two is enough.")
        return _check(check, read, json=json, csv=csv)
    found = [Model.load(known) for known in list_models()] if name is None else [Model.load(name, read=read)]
    if json:
        show_json([_sizes(model) for model in found] if name is None else {**_sizes(found[0]), **_parts(found[0])})
    elif csv:
        show_csv([_sizes(model) for model in found])
    elif name is None:
        show_table(_COLUMNS, map(_row, found))
    else:
        _show_model(found[0])
    return None


def _check(path: str, read: str, *, json: bool, csv: bool) -> int:
    result = check_model(path, read=read)
    if csv:
        show_csv(result.table())
    else:
        rows = [
            (
                row.component,
                f"{row.parameters:,}",
                "" if row.in_files is None else f"{row.in_files:,}",
                "" if row.bytes is None else show_bytes(row.bytes),
                "" if row.bytes_in_files is None else show_bytes(row.bytes_in_files),
                row.formats,
                "" if row.ok else "differs",
            )
            for row in result.components
        ]
        given.print_result(result, json=json, csv=False, columns=_CHECKED, rows=rows)
    return 0 if result.ok else FINDING


def _sizes(model: Model) -> dict[str, Any]:
    """Return the sizes of a model [-]."""
    return {
        "name": model.name,
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "dtype": model.dtype,
        "max_positions": model.max_positions,
        "kv_bytes_per_token": model.kv_bytes_per_token(),
        "state_bytes_per_sequence": model.state_bytes_per_sequence,
        "mtp_parameters": model.mtp_parameters,
        "tower_parameters": model.tower_parameters,
        "source": model.source,
    }


def _parts(model: Model) -> dict[str, Any]:
    return {"components": model.by_component(), "stored_bytes": _stored(model), "not_modelled": list(model.not_modelled)}


def _stored(model: Model) -> Mapping[str, int | float]:
    return {} if model.dtype is None else model.bytes_by_component()


def _billions(count: int) -> str:
    return f"{count / GIGA:.4g} B"


def _row(model: Model) -> tuple[str, ...]:
    counts = _billions(model.parameters), _billions(model.active_parameters)
    return model.name, *counts, str(model.num_layers), show_bytes(model.kv_bytes_per_token())


def _show_model(model: Model) -> None:
    stored = _stored(model)
    active = f", {_billions(model.active_parameters)} active" if model.active_parameters != model.parameters else ""
    size = f", {show_bytes(sum(stored.values()))} as stored" if stored else ""
    show(f"{model.name}: {model.parameters:,} parameters{active}{size}, {model.num_layers} layers of width {model.hidden_size:,}")
    state = f"; state per sequence {show_bytes(model.state_bytes_per_sequence)}" if model.state_bytes_per_sequence else ""
    show(f"  KV cache per token, bf16: {show_bytes(model.kv_bytes_per_token())}{state}")
    if model.max_positions:
        show(f"  longest sequence: {model.max_positions:,} tokens")
    if model.mtp_parameters:
        show(f"  multi-token-prediction modules: {model.mtp_parameters:,} further parameters")
    for tower in model.towers:
        show(f"  {tower.senses} tower with its projector: {tower.parameters:,} further parameters")
    show(f"  source: {model.source}")
    if model.alias_note:
        show(f"  note: {model.alias_note}")
    for note in model.not_modelled:
        show(f"  left out: {note}")
    show()
    rows = [(part, f"{count:,}", show_bytes(stored[part]) if part in stored else "") for part, count in model.by_component().items()]
    show_table(_COMPONENTS, rows)
