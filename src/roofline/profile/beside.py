"""A profile beside the floor of the same step: what every operator of the model took, and what it has to take."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from roofline.bounds import OpTime
from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.floors import Floor
from roofline.huggingface.module_names import FUSED, without_outer
from roofline.profile.result import Profile
from roofline.profile.rows import OperatorTime
from roofline.results import Result, show_notes
from roofline.units import show_flops, show_time, whole_number

_BLOCKS = {"attn": "self_attn", "attention": "self_attn", "self_attention": "self_attn", "block_sparse_moe": "mlp", "feed_forward": "mlp"}
_LINEARS = {"fc1": "mlp.up_proj", "fc2": "mlp.down_proj", "intermediate.dense": "mlp.up_proj", "output.dense": "mlp.down_proj"}
"""What some families call the parts of a layer, and what floors call them."""

_LAYER = "layer"  # what a layer runs outside of its parts: residuals
_ELSEWHERE = "elsewhere"  # what runs outside of everything that the floor knows

_APART = 0.02  # of the FLOP; more is another step


@dataclass(frozen=True, slots=True)
class PartTime:
    """One part of a model: what it took in a step, and its roof.

    Parameters
    ----------
    name : str
        The operator of the floor, or the block whose operators cannot be told apart [-].
    measured_s : float
        Mean of the steps [s].
    roof_s : float
        Its operators by the floor, one after another, each at its own roof with its activations [s].
    flops, expected_flops : float
        Operations of matrix products in a step, as profiled and by the floor [FLOP].
    total_bytes, expected_bytes : float
        Bytes in a step, as profiled and by the floor, activations included [B].
    bound : str, optional
        Which roof most of `roof_s` is under; None where the floor has nothing [-].
    """

    name: str
    measured_s: float
    roof_s: float
    flops: float
    expected_flops: float
    total_bytes: float
    expected_bytes: float
    bound: str | None

    @property
    def over_roof(self) -> float | None:
        """Measured time over the roof's; None where the floor has nothing [-]."""
        return self.measured_s / self.roof_s if self.roof_s else None

    @property
    def lost_s(self) -> float:
        """Measured time beyond the roof's, in a step [s]."""
        return self.measured_s - self.roof_s


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class ProfileBesideFloor(Result):
    """A profile beside the floor of the same step, part by part.

    Parameters
    ----------
    profile : Profile
        What was measured, of the steps alone [-].
    floor : Floor
        The floor of one step [-].
    steps : int
        Steps that were profiled [-].
    parts : tuple of PartTime
        In the order of the floor; ``"elsewhere"`` is what runs outside of everything that it knows [-].
    notes : tuple of str
        What a reader must know [-].
    """

    profile: Profile
    floor: Floor
    steps: int
    parts: tuple[PartTime, ...]
    notes: tuple[str, ...]

    _numbers = ("steps", "wall_s", "measured_s", "roofline_s", "floor_s", "over_roofline", "over_floor", "flops", "expected_flops")

    @property
    def wall_s(self) -> float:
        """From start to end of a step [s]."""
        return self.profile.wall_s / self.steps

    @property
    def measured_s(self) -> float:
        """Operators of a step, one after another [s]."""
        return self.profile.time_s / self.steps

    @property
    def roofline_s(self) -> float:
        """The floor's operators one after another, each at its own roof [s]."""
        return float(self.floor.roofline_s)

    @property
    def floor_s(self) -> float:
        """The floor of a step [s]."""
        return float(self.floor.time_s)

    @property
    def over_roofline(self) -> float:
        """Time of operators over the floor's operators at their roofs [-]."""
        return self.measured_s / self.roofline_s

    @property
    def over_floor(self) -> float:
        """Time from start to end over the floor [-]."""
        return self.wall_s / self.floor_s

    @property
    def flops(self) -> float:
        """Operations of matrix products in a step, as profiled [FLOP]."""
        return self.profile.flops / self.steps

    @property
    def expected_flops(self) -> float:
        """Operations of matrix products in a step, by the floor [FLOP]."""
        return float(self.floor.flops)

    def table(self) -> list[dict[str, Any]]:
        """Return the parts [-]."""
        return [{name: getattr(part, name) for name in (*PartTime.__slots__, "over_roof", "lost_s")} for part in self.parts]

    def context(self) -> dict[str, Any]:
        """Return what the numbers rest on: the profile's and the floor's [-]."""
        return {"profile": self.profile.context(), "floor": self.floor.context(), "notes": self.notes}

    def summary(self) -> list[str]:
        """Return the text: the step, then its parts [-]."""
        head = f"{self.floor.model.name} on {self.profile.device}: a {self.floor.kind} step takes {show_time(self.wall_s)}, {self.over_floor:.3g} × its floor"
        lines = [f"  operators: {show_time(self.measured_s)}, {self.over_roofline:.3g} × {show_time(self.roofline_s)} at their roofs"]
        for part in self.parts:
            over = f"{part.over_roof:.3g} × {show_time(part.roof_s)} ({part.bound})" if part.over_roof else "nothing in the floor"
            lines.append(f"  {part.name}: {show_time(part.measured_s)}, {over}")
        return [head, *lines, *show_notes(self.notes)]


@checks_call
def beside_floor(profile: Profile, floor: Floor, *, steps: int | None = None) -> ProfileBesideFloor:
    """Return a profile beside the floor of the same step: for each part of the model, measured time, roof, FLOP and bytes.

    Parameters
    ----------
    profile : Profile
        What was measured; if it has a phase of the floor's kind, ``"prefill"`` or ``"decode"``, that alone counts [-].
    floor : Floor
        The floor of one step: of :func:`roofline.decode_floor`, :func:`roofline.prefill_floor` or :func:`roofline.step_floor`, for the machine
        that the profile is of [-].
    steps : int, optional
        Steps that were profiled; by default as many as the model was called [-].

    Returns
    -------
    ProfileBesideFloor
        Times and amounts of a step, part by part [-].

    Raises
    ------
    InvalidValueError
        If `floor` is none of a single step, or nobody says how many steps were profiled.

    Notes
    -----
    Operators are matched by the path of the module that calls them. What cannot be told apart, such as rotary embeddings, cache and attention inside
    of a module ``self_attn``, is one part. Parts of a fused module are together, as the floor has them: ``self_attn.qkv_proj``.
    """
    if not isinstance(floor, Floor) or floor.work.shape:
        raise InvalidValueError(
            f"floor is {quoted(floor)}; it must be the floor of one step, such as decode_floor(model, machine, context=1024)."
        )
    if floor.kind in profile.phases:
        profile = profile.of_phase(floor.kind)
    calls = sum((profile.forwards or {}).values())
    if steps is None and not calls:
        raise InvalidValueError("the profile does not say how often the model ran: pass steps=.")
    count = calls if steps is None else whole_number("steps", steps, minimum=1)
    expected = floor.by_op()
    parts = _parts(profile.rows, expected, count)
    measured, wanted = profile.flops / count, float(floor.flops)
    notes = list(profile.notes)
    if not any(row.module for row in profile.rows):
        notes.append(
            f"the profile has no names of modules, so all operators are {_ELSEWHERE!r}: profile with modules=True to tell parts apart"
        )
    if abs(measured - wanted) > _APART * wanted:
        notes.append(
            f"the profile has {show_flops(measured)} of products in a step, the floor {show_flops(wanted)}: check batch, context and prompt, the rows "
            "that reach the LM head (logits=) and the number of steps; attention without a fused kernel also multiplies what a mask hides"
        )
    return ProfileBesideFloor(profile, floor, count, parts, tuple(notes))


def _parts(rows: Sequence[OperatorTime], expected: Sequence[OpTime], steps: int) -> tuple[PartTime, ...]:
    """Return measured rows and operators of the floor under common names: the longest that both have a part of."""
    names = {_of_floor(row.name) for row in expected}
    measured: dict[str, list[OperatorTime]] = defaultdict(list)
    for row in rows:
        measured[_place(row, names)].append(row)
    wanted: dict[str, list[OpTime]] = defaultdict(list)
    for op in expected:
        name = _of_floor(op.name)
        wanted[next((key for key in _upwards(name) if key in measured), name)].append(op)
    return tuple(_part(name, measured.get(name, []), wanted.get(name, []), steps) for name in (*wanted, *(set(measured) - set(wanted))))


def _part(name: str, rows: Sequence[OperatorTime], expected: Sequence[OpTime], steps: int) -> PartTime:
    bounds: dict[str, float] = defaultdict(float)
    for op in expected:
        bounds[str(op.bound)] += float(op.time_s)
    return PartTime(
        name,
        sum(row.time_s for row in rows) / steps,
        sum(float(op.time_s) for op in expected),
        sum(row.flops or 0 for row in rows) / steps,
        sum(float(op.op.flops) for op in expected),
        sum(row.total_bytes or 0 for row in rows) / steps,
        sum(float(op.op.compulsory_bytes + op.op.activation_bytes) for op in expected),
        max(bounds, key=lambda bound: bounds[bound]) if bounds else None,
    )


def _of_floor(name: str) -> str:
    """Return the place of an operator of the floor: residuals are added by the layer itself."""
    return _LAYER if name.rpartition(".")[2] == "residual" else name


def _upwards(name: str) -> list[str]:
    """Return a path and those of all modules around it, the longest first.

    Examples
    --------
    >>> _upwards("mlp.experts.gate_up_proj")
    ['mlp.experts.gate_up_proj', 'mlp.experts', 'mlp']
    """
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _place(row: OperatorTime, names: set[str]) -> str:
    """Return the part of the model that an operator belongs to: the operator of the floor, or the block that it is in."""
    parts = row.module.split(".")
    numbered = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    inner = [_BLOCKS.get(part, part) for part in parts[(numbered or -1) + 1 :] if not part.isdigit()]
    if numbered is not None and not inner:
        return _LAYER
    path = without_outer(".".join(inner))
    parent, _, last = path.rpartition(".")
    spelled = [path, _LINEARS.get(path, ""), *(f"{parent}.{other}".lstrip(".") for other in FUSED.get(last, ()))]
    found = next((name for name in spelled if name in names), None)
    blocks = {block for name in names for block in _upwards(name)[1:]}
    return found or next((block for block in _upwards(path) if block in blocks), _LAYER if numbered is not None else _ELSEWHERE)
