"""A description of a model beside the tensors of its checkpoint."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

from roofline.errors import quoted
from roofline.huggingface.stored import Files
from roofline.model import Model
from roofline.model.storage import tensors
from roofline.results import Result
from roofline.units import show_bytes

_SHOWN = 3
_NEAR = 0.02  # scales of rows, indices, zero points that no kernel reads: what no format counts


class CheckedComponent(NamedTuple):
    """One component by the description and by the files.

    Parameters
    ----------
    component : str
        Its name [-].
    formats : str
        The formats that it is stored in [-].
    parameters : int
        Parameters by the description, all layers and draft layers together [-].
    in_files : int or None
        Parameters in the files; None where they do not say [-].
    bytes : float or None
        Bytes by the description; None where no format is known [B].
    bytes_in_files : float or None
        Bytes in the files, scales included; None where they do not say [B].
    transposed : int
        Matrices that the files hold with rows and columns exchanged, where most of the others are not [-].
    """

    component: str
    formats: str
    parameters: int
    in_files: int | None
    bytes: float | None
    bytes_in_files: float | None
    transposed: int = 0

    @property
    def ok(self) -> bool:
        """Whether the two agree, as far as the files say anything."""
        same = not self.transposed and (self.in_files is None or self.in_files == self.parameters)
        return same and (self.bytes is None or self.bytes_in_files is None or abs(self.bytes - self.bytes_in_files) <= _NEAR * self.bytes)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class ModelCheck(Result):
    """A model as it is described beside what the files of its checkpoint hold.

    Parameters
    ----------
    model : Model
        The model, with the formats of the files [-].
    components : tuple of CheckedComponent
        Each component by both [-].
    parameters : int
        Parameters by the description, draft layers and towers included [-].
    stored_bytes : float or None
        Bytes by the description, draft layers and towers included; None where no format is known [B].
    checkpoint_bytes : int
        Bytes of all tensors in the files [B].
    beside_bytes : int
        Bytes of tensors in the files that belong to no component: towers that are not understood, tables of rotations [B].
    files : int
        Files of tensors that were read, 0 where only an index is there [-].
    beside : tuple of str
        Names of the tensors that belong to no component [-].
    """

    model: Model
    components: tuple[CheckedComponent, ...]
    parameters: int
    stored_bytes: float | None
    checkpoint_bytes: int
    beside_bytes: int
    files: int
    beside: tuple[str, ...] = ()

    _numbers = ("parameters", "stored_bytes", "checkpoint_bytes", "beside_bytes", "files")

    @property
    def ok(self) -> bool:
        """Whether description and files agree in the parameters and bytes of every component."""
        if any(row.bytes_in_files is not None for row in self.components):
            return all(row.ok for row in self.components)
        return self.stored_bytes is None or abs(self.stored_bytes - self.checkpoint_bytes) <= _NEAR * self.checkpoint_bytes

    def summary(self) -> list[str]:
        """Return the totals of both, and where they differ [-]."""
        size = "" if self.stored_bytes is None else f", {show_bytes(self.stored_bytes)}"
        read = f"{self.files} file{'s' if self.files != 1 else ''}" if self.files else "their index"
        beside = f", of which {show_bytes(self.beside_bytes)} belong to no component: {self._named()}" if self.beside_bytes else ""
        differ = [row.component for row in self.components if not row.ok]
        return [
            f"{self.model.name}: {self.parameters:,} parameters{size}; the files hold {show_bytes(self.checkpoint_bytes)} by {read}{beside}",
            *([f"  differ: {', '.join(differ)}"] if differ else []),
            *(f"  note: {note}" for note in self.model.not_modelled),
        ]

    def _named(self) -> str:
        """Return the first of the tensors that belong to no component."""
        more = len(self.beside) - _SHOWN
        return ", ".join(map(quoted, self.beside[:_SHOWN])) + (f" and {more:,} more" if more > 0 else "")

    def context(self) -> dict[str, Any]:
        """Return the model's name and source, whether all agrees, and what the description leaves out [-]."""
        return {
            "model": self.model.name,
            "source": self.model.source,
            "ok": self.ok,
            "not_modelled": list(self.model.not_modelled),
            "beside": list(self.beside),
        }

    def table(self) -> list[dict[str, Any]]:
        """Return a row for every component [-]."""
        return [{**row._asdict(), "ok": row.ok} for row in self.components]


def compare_files(model: Model, files: Files) -> ModelCheck:
    """Return a model beside the files that it was read with."""
    counts: Counter[str] = Counter()
    for part, _, times in tensors(model, model.mtp):
        counts[part.name] += times * part.parameters
    sizes = {} if model.dtype is None else model.bytes_by_component(mtp=True)
    for tower in model.towers:
        name = f"{tower.senses} tower"
        counts[name] = tower.parameters
        if sizes:
            sizes[name] = model.but(towers=(tower,)).tower_bytes or 0
    rows = []
    for name, count in (+counts).items():
        row = files.rows.get(name)
        formats = "" if row is None else ", ".join(row.formats)
        held = (row.weights, row.bytes) if row else (0, 0) if files.rows else (None, None)
        rows.append(CheckedComponent(name, formats, count, held[0], sizes.get(name), held[1], files.transposed[name]))
    rows += [
        CheckedComponent(name, ", ".join(row.formats), 0, row.weights, 0, row.bytes) for name, row in files.rows.items() if not counts[name]
    ]
    beside = files.beside if files.rows else []
    return ModelCheck(
        model=model,
        components=tuple(rows),
        parameters=sum(counts.values()),
        stored_bytes=sum(sizes.values()) if sizes else None,
        checkpoint_bytes=files.checkpoint.total_bytes,
        beside_bytes=sum(tensor.bytes for tensor in beside),
        files=files.checkpoint.files,
        beside=tuple(tensor.name for tensor in beside),
    )
