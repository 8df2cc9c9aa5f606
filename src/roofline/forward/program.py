"""A model compiled to coefficients, and the work of one step: `Model` × `Step` → `Work`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from roofline import ops
from roofline.arithmetic import LinearForm, Number
from roofline.errors import InvalidValueError
from roofline.formats import Format
from roofline.forward.lowering import FUSIONS, Fusion, Lowering
from roofline.forward.precision import Precision, WeightFormats
from roofline.forward.symbols import ANY_SAMPLED, SAMPLED, TOKENS, held
from roofline.model import Model
from roofline.ops import Op
from roofline.step import Aggregate, Step

__all__ = ["Program", "Work", "compile_model", "forward"]

_Row = tuple[tuple[int, Number], ...]
_TOTALS = ("flops", "vector_flops", "weight_bytes", "kv_read_bytes", "kv_write_bytes", "state_bytes", "link_bytes", "activation_bytes")


def _operators(lowering: Lowering) -> Iterator[Op]:
    model, stream = lowering.model, lowering.precision.stream
    if model.embedding is not None:
        table = model.embedding
        tables = len(table.tables)
        yield ops.embedding("embed_tokens", TOKENS, width=table.width, stored=lowering.precision.base, stream=stream, tables=tables)
        if table.norm is not None:
            yield lowering.norm(table.norm)
    for group in model.layers:
        for op in lowering.layer(group):
            yield op.times(group.count)
    if model.final_norm is not None:
        yield lowering.norm(model.final_norm, SAMPLED, reads=ANY_SAMPLED)
    if model.head is not None:
        *transform, projection = model.head.matrices(model.hidden_size)
        for matrix in transform:
            yield lowering.linear(matrix, None, SAMPLED, reads=ANY_SAMPLED)
        norm = model.head.norm(model.hidden_size)
        if norm is not None:
            yield lowering.norm(norm, SAMPLED, reads=ANY_SAMPLED)
        yield lowering.linear(projection, None, SAMPLED, reads=ANY_SAMPLED)


def _stored_bytes(lowering: Lowering) -> Number:
    """Bytes of all parameters as stored, tied tensors once [B]."""
    model = lowering.model
    matrices: Number = 0
    inside = 0
    for group in model.layers:
        for matrix in group.matrices(model.hidden_size):
            stored = lowering.precision.stored(matrix, group)
            weights = matrix.inputs * matrix.outputs * matrix.copies * group.count
            matrices += weights * stored.bytes_per_element
            inside += weights
    if model.head is not None:
        *_, projection = model.head.matrices(model.hidden_size)
        if not model.head.tied:
            weights = projection.inputs * projection.outputs
            matrices += weights * lowering.precision.stored(projection, None).bytes_per_element
            inside += weights
    return matrices + (model.parameters - inside) * lowering.precision.base.bytes_per_element


def _cache_bytes(lowering: Lowering) -> LinearForm:
    """Cache that must stay resident after a step, as a form in its aggregates [B]."""
    size = lowering.precision.kv.bytes_per_element
    total = LinearForm({})
    for group in lowering.model.layers:
        if group.mixer is not None and group.mixer.cache_elements_per_token:
            total = total + held(group.mixer.visibility) * (group.count * group.mixer.cache_elements_per_token * size)
    return total


@dataclass(frozen=True, slots=True)
class Program:
    """A model under one choice of formats, reduced to coefficients of a step's aggregates.

    Parameters
    ----------
    ops : tuple of Op
        The operators; their amounts are linear forms [-].
    aggregates : tuple of Aggregate
        The symbols in use; index 0 of every row is the constant [-].
    operands : tuple of (str, row)
        FLOP of matrix products by operand format [FLOP].
    totals : mapping of str to row
        Every other amount, summed over operators [FLOP or B].
    stored_bytes : int or float
        All parameters as stored [B].
    precision : Precision
        The number formats [-].
    """

    ops: tuple[Op, ...]
    aggregates: tuple[Aggregate, ...]
    operands: tuple[tuple[str, _Row], ...]
    totals: Mapping[str, _Row]
    stored_bytes: Number
    precision: Precision

    def values(self, step: Step) -> tuple[Number, ...]:
        """Return the aggregates of a step, in the order that the rows refer to.

        Parameters
        ----------
        step : Step
            The step [-].

        Returns
        -------
        tuple
            1, then each aggregate [-].
        """
        return (1, *[a.function(step, *a.arguments) for a in self.aggregates])


def _evaluate(row: _Row, values: tuple[Number, ...]) -> Number:
    total: Number = 0
    for index, coefficient in row:
        total = total + coefficient * values[index]
    return total


def _compile(lowering: Lowering) -> Program:
    operators = tuple(_operators(lowering))
    symbols: dict[object, int] = {1: 0}

    def row(form: Number) -> _Row:
        terms = LinearForm.coerce(form).terms
        return tuple((symbols.setdefault(symbol, len(symbols)), coefficient) for symbol, coefficient in terms.items())

    operands: dict[str, LinearForm] = {}
    totals = {name: LinearForm({}) for name in _TOTALS}
    for op in operators:
        operands[op.operand] = operands.get(op.operand, LinearForm({})) + op.flops
        for name in _TOTALS:
            totals[name] = totals[name] + getattr(op, name)
    totals["cache_bytes"] = _cache_bytes(lowering)
    by_operand = tuple((operand, row(form)) for operand, form in operands.items() if form.terms)
    rows = {name: row(form) for name, form in totals.items()}
    for op in operators:
        for form in op.amounts().values():
            row(form)
    aggregates = tuple(s for s in symbols if isinstance(s, Aggregate))
    return Program(operators, aggregates, by_operand, rows, _stored_bytes(lowering), lowering.precision)


def compile_model(
    model: Model,
    *,
    weights: WeightFormats = None,
    activations: str | Format | None = None,
    kv: str | Format | None = None,
    fusion: Fusion = "attention",
) -> Program:
    """Reduce a model to its coefficients. Done once for each choice of formats, then remembered on the model.

    Parameters
    ----------
    model : Model
        The model [-].
    weights, activations, kv : str, optional
        Number formats, as in :meth:`Precision.of` [-].
    fusion : {"none", "attention", "full"}, optional
        What stays on chip between operators; it changes activation traffic only [-].

    Returns
    -------
    Program
        The compiled model [-].

    Raises
    ------
    UnknownNameError
        If a format or component is not known.
    InvalidValueError
        If `fusion` is none of the three.
    """
    key = (tuple(weights.items()) if isinstance(weights, Mapping) else weights, activations, kv, fusion)
    program: Program | None = model.memo.get(key)
    if program is None:
        if fusion not in FUSIONS:
            raise InvalidValueError(f"fusion is {fusion!r}; it must be one of {', '.join(FUSIONS)}.")
        precision = Precision.of(model, weights=weights, activations=activations, kv=kv)
        program = model.memo[key] = _compile(Lowering(model, precision, fusion))
    return program


@dataclass(frozen=True, slots=True)
class Work:
    """What one step costs on one device, free of any hardware. Amounts are numbers, or arrays of the step's shape.

    Parameters
    ----------
    program : Program
        The compiled model [-].
    step : Step
        The step [-].
    values : tuple
        The step's aggregates, as the program orders them [-].
    """

    program: Program
    step: Step
    values: tuple[Number, ...]

    @property
    def flops_by_operand(self) -> dict[str, Number]:
        """FLOP of matrix products by operand format [FLOP]."""
        return {operand: _evaluate(row, self.values) for operand, row in self.program.operands}

    def total(self, amount: str) -> Number:
        """Return one amount summed over all operators.

        Parameters
        ----------
        amount : str
            ``flops``, ``weight_bytes``, ``kv_read_bytes``, ``kv_write_bytes``, ``state_bytes``, ``link_bytes``,
            ``vector_flops``, ``activation_bytes``, or ``cache_bytes`` held after the step [-].

        Returns
        -------
        int, float or numpy.ndarray
            The amount [FLOP or B].
        """
        return _evaluate(self.program.totals[amount], self.values)

    @property
    def compulsory_bytes(self) -> Number:
        """Bytes that no implementation avoids: weights, cache, state [B]."""
        rows, values = self.program.totals, self.values
        return (
            _evaluate(rows["weight_bytes"], values)
            + _evaluate(rows["kv_read_bytes"], values)
            + _evaluate(rows["kv_write_bytes"], values)
            + _evaluate(rows["state_bytes"], values)
        )

    @property
    def resident_bytes(self) -> Number:
        """Bytes that must be in memory: every parameter, and the cache after the step [B]."""
        return self.program.stored_bytes + self.total("cache_bytes")

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operators with their amounts as numbers, identical layers summed into one."""
        index: dict[object, int] = {a: i for i, a in enumerate((1, *self.program.aggregates))}

        def number(form: Number) -> Number:
            return sum((c * self.values[index[s]] for s, c in LinearForm.coerce(form).terms.items()), start=0)

        return tuple(replace(op, **{name: number(form) for name, form in op.amounts().items()}) for op in self.program.ops)


def forward(
    model: Model,
    step: Step,
    *,
    weights: WeightFormats = None,
    activations: str | Format | None = None,
    kv: str | Format | None = None,
    fusion: Fusion = "attention",
) -> Work:
    """Return the work of one step of a model.

    Parameters
    ----------
    model : Model
        The model [-].
    step : Step
        The step [-].
    weights, activations, kv : str, optional
        Number formats, as in :meth:`Precision.of` [-].
    fusion : {"none", "attention", "full"}, optional
        What stays on chip between operators [-].

    Returns
    -------
    Work
        Operators and totals [-].

    Examples
    --------
    >>> forward(Model.anonymous("70B"), Step.decode()).total("flops")
    140000000000
    """
    program = compile_model(model, weights=weights, activations=activations, kv=kv, fusion=fusion)
    return Work(program, step, program.values(step))
