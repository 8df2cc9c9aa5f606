"""A model compiled to coefficients, and the work of one step: `Model` × `Step` → `Work`."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from roofline import ops
from roofline.arithmetic import LinearForm, Number, maximum
from roofline.errors import InvalidValueError
from roofline.formats import Format
from roofline.forward.compressed_attention import held_bytes as compressed_held_bytes
from roofline.forward.lowering import FUSIONS, Fusion, Lowering
from roofline.forward.precision import Precision, WeightFormats
from roofline.forward.symbols import ANY_SAMPLED, SAMPLED, SEQUENCES, TOKENS, held
from roofline.model import CompressedAttention, LayerGroup, Model, RecurrentMixer
from roofline.model.storage import bytes_by_component
from roofline.ops import Op, Routing, parse_routing
from roofline.parallel import SINGLE, Parallel, shard_model, stages
from roofline.step import Aggregate, Step
from roofline.units import check_count

_Row = tuple[tuple[int, Number], ...]
_TOTALS = (
    "nic_bytes",
    "hops",
    "flops",
    "vector_flops",
    "weight_bytes",
    "kv_read_bytes",
    "kv_write_bytes",
    "state_bytes",
    "link_bytes",
    "activation_bytes",
)


def _operators(lowering: Lowering, mtp: int) -> Iterator[Op]:
    model, stream = lowering.model, lowering.precision.stream
    if model.embedding is not None:
        table = model.embedding
        tables, stored = len(table.tables), lowering.precision.stored(table.tables[0], None)
        yield ops.embedding("embed_tokens", TOKENS, width=table.width, stored=stored, stream=stream, tables=tables)
        if table.norm is not None:
            yield lowering.norm(table.norm)
    for group in _merge_alike(model.layers):
        for op in lowering.layer(group):
            yield op.times(group.count, stored=group.stored)
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
    for module in model.mtp_modules[:mtp]:
        yield from _draft(module, lowering)


def _draft(module: tuple[LayerGroup, ...], lowering: Lowering) -> Iterator[Op]:
    """Yield one multi-token-prediction module: its layers on every row, then the model's own head once more."""
    for group in module:
        for op in lowering.layer(group):
            yield replace(op.times(group.count, stored=group.stored), name=f"mtp.{op.name}")
    head = lowering.model.head
    if head is not None:
        projection = head.matrices(lowering.model.hidden_size)[-1]
        yield lowering.linear(projection, None, SAMPLED, name=f"mtp.{projection.name}", reads=0)


def _drafts(model: Model, mtp: int) -> tuple[LayerGroup, ...]:
    return tuple(group for module in model.mtp_modules[:mtp] for group in module)


def _merge_alike(layers: Iterable[LayerGroup]) -> list[LayerGroup]:
    """Sum equal layers into one group wherever they stand, so that a pattern of two kinds is two groups, not eighty."""
    merged: dict[LayerGroup, int] = {}
    stored: dict[LayerGroup, int] = {}
    for group in layers:
        one = group.but(count=1, distinct=None)
        merged[one] = merged.get(one, 0) + group.count
        stored[one] = stored.get(one, 0) + group.stored
    return [one.but(count=count, distinct=stored[one]) for one, count in merged.items()]


def _stored_bytes(lowering: Lowering, mtp: int) -> Number:
    """Bytes of all parameters as stored, tied tensors once [B]."""
    precision, layers = lowering.precision, _drafts(lowering.model, mtp)
    return sum(bytes_by_component(lowering.model, precision.stored, precision.base, layers).values())


def _held_bytes(lowering: Lowering, mtp: int) -> LinearForm:
    """Cache and recurrent state that stay resident after a step, as a form in its aggregates [B]."""
    size, conv = lowering.precision.kv.bytes_per_element, lowering.precision.stream.bytes_per_element
    total = LinearForm({})
    for group in (*lowering.model.layers, *_drafts(lowering.model, mtp)):
        mixer = group.mixer
        if isinstance(mixer, RecurrentMixer):
            state = mixer.state_elements * Format.load(mixer.state_format).bytes_per_element + mixer.conv_state_elements * conv
            total = total + SEQUENCES * (group.count * state)
        elif isinstance(mixer, CompressedAttention):
            total = total + compressed_held_bytes(mixer, size, conv) * group.count
        elif mixer is not None and mixer.cache_elements_per_token:
            total = total + held(mixer.visibility) * (group.count * mixer.cache_elements_per_token * size)
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
        Every other amount, summed over operators [SI].
    residents : tuple of (number, row)
        Parameters as stored, and cache and state after a step, of one device of every pipeline stage [B].
    precision : Precision
        The number formats [-].
    routing : str, PowerLaw or tuple of float
        How tokens spread over experts [-].
    parallel : Parallel
        How many devices share the model; every amount is one device's [-].
    """

    ops: tuple[Op, ...]
    aggregates: tuple[Aggregate, ...]
    operands: tuple[tuple[str, _Row], ...]
    totals: Mapping[str, _Row]
    residents: tuple[tuple[Number, _Row], ...]
    precision: Precision
    routing: Routing
    parallel: Parallel

    @property
    def stored_bytes(self) -> Number:
        """Parameters as stored, on the device that holds the most [B]."""
        return max(stored for stored, _ in self.residents)

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
        return self.rank_values(step.share(self.parallel.data) if self.parallel.data > 1 else step)

    def rank_values(self, step: Step) -> tuple[Number, ...]:
        """Return the aggregates of one data-parallel rank from its own part of a step, in the order that the rows refer to.

        Parameters
        ----------
        step : Step
            What the rank processes [-].

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


def _per_device(form: Number, parallel: Parallel) -> LinearForm:
    """Divide what devices that share the cache of every sequence divide among them."""
    terms = LinearForm.coerce(form).terms
    if parallel.context == 1:
        return LinearForm(terms)
    return LinearForm({s: c / parallel.context if isinstance(s, Aggregate) and s.divided else c for s, c in terms.items()})


def _between(lowering: Lowering, operators: Iterable[Op]) -> Iterator[Op]:
    """Yield every operator as one device runs it, and the traffic between pipeline stages and between devices that share a cache."""
    parallel, stream = lowering.parallel, lowering.precision.stream.bytes_per_element
    for op in operators:
        shared: dict[str, Any] = {name: _per_device(form, parallel) for name, form in op.amounts().items()}
        yield replace(op, **shared)
        if parallel.context > 1 and op.kind == "contraction" and LinearForm.coerce(op.kv_read_bytes).terms:
            # each device sends its partial result of every row once, to be added up
            yield ops.all_reduce(f"{op.name}.combine", op.output_bytes, ranks=parallel.context, domain=lowering.domain)
    if parallel.pipeline > 1:
        row = TOKENS * (lowering.model.hidden_size * stream / parallel.tensor)
        outside = parallel.devices > lowering.domain
        yield ops.send("pipeline.send", row, outside=outside).times(parallel.pipeline - 1)


def _compile(lowering: Lowering, mtp: int) -> Program:
    parallel = lowering.parallel
    operators = tuple(_between(lowering, _operators(lowering, mtp)))
    symbols: dict[object, int] = {1: 0}

    def row(form: Number) -> _Row:
        terms = LinearForm.coerce(form).terms
        return tuple((symbols.setdefault(symbol, len(symbols)), coefficient) for symbol, coefficient in terms.items())

    operands: dict[str, LinearForm] = {}
    totals = {name: LinearForm({}) for name in _TOTALS}
    for op in operators:
        if op.kind == "contraction":
            operands[op.operand] = operands.get(op.operand, LinearForm({})) + op.flops
        for name in _TOTALS:
            totals[name] = totals[name] + getattr(op, name)
    held_by_stage = []
    for stage in stages(lowering.model, parallel.pipeline):
        part = replace(lowering, model=stage)
        # one step is in flight in every stage, and each leaves its cache in all of them
        held_by_stage.append((_stored_bytes(part, mtp), row(_per_device(_held_bytes(part, mtp) * parallel.pipeline, parallel))))
    by_operand = tuple((operand, row(form)) for operand, form in operands.items() if form.terms)
    rows = {name: row(form) for name, form in totals.items()}
    for op in operators:
        for form in op.amounts().values():
            row(form)
    aggregates = tuple(s for s in symbols if isinstance(s, Aggregate))
    return Program(operators, aggregates, by_operand, rows, tuple(held_by_stage), lowering.precision, lowering.routing, parallel)


def compile_model(
    model: Model,
    *,
    weights: WeightFormats = None,
    activations: str | Format | None = None,
    kv: str | Format | None = None,
    fusion: Fusion = "attention",
    routing: Any = "uniform",
    mtp: int = 0,
    parallel: Parallel = SINGLE,
    domain: int = 2**40,
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
    routing : str or array_like, optional
        How tokens spread over experts: ``"uniform"``, ``"best"``, ``"power_law_1.2"`` or the like, or the popularity of each [-].
    mtp : int, optional
        Multi-token-prediction modules that run in the step, each with the LM head once more [-].
    parallel : Parallel, optional
        How many devices share the model; every amount is then one device's, the busiest one's [-].
    domain : int, optional
        Devices that reach each other over scale-up links; all of them if not given [-].

    Returns
    -------
    Program
        The compiled model [-].

    Raises
    ------
    UnknownNameError
        If a format or component is not known.
    InvalidValueError
        If `fusion` is none of the three, or `routing` none that is known.
    """
    routing, drafts = parse_routing(routing), check_count("mtp", mtp)
    if not isinstance(drafts, int):
        raise InvalidValueError(f"mtp is {mtp!r}; it is one number of multi-token-prediction modules.")
    mtp = drafts
    key = (tuple(weights.items()) if isinstance(weights, Mapping) else weights, activations, kv, fusion, routing, mtp, parallel, domain)
    try:
        program: Program | None = model.memo.get(key)
    except TypeError:
        given = {"weights": weights, "activations": activations, "kv": kv, "fusion": fusion}
        name = next((name for name, value in given.items() if not isinstance(value, Hashable)), "weights")
        raise InvalidValueError(f"{name} is {given[name]!r}; it is given by name.") from None
    if program is None:
        if fusion not in FUSIONS:
            raise InvalidValueError(f"fusion is {fusion!r}; it must be one of {', '.join(FUSIONS)}.")
        if mtp > len(model.mtp_modules):
            raise InvalidValueError(f"mtp is {mtp}, but {model.name} has {len(model.mtp_modules)} multi-token-prediction modules.")
        share = shard_model(model, parallel)
        precision = Precision.of(share, weights=weights, activations=activations, kv=kv)
        program = model.memo[key] = _compile(Lowering(share, precision, fusion, routing, parallel, domain), mtp)
    return program


@dataclass(frozen=True, slots=True, eq=False)
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
            ``vector_flops``, ``activation_bytes`` [-].

        Returns
        -------
        int, float or numpy.ndarray
            The amount [SI].
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
        """Bytes that must be in memory: every parameter, cache and state after the step [B]."""
        sizes = [stored + _evaluate(row, self.values) for stored, row in self.program.residents]
        return reduce(maximum, sizes)

    @property
    def held_bytes(self) -> Number:
        """Cache and state after the step, of the fullest device [B]."""
        return reduce(maximum, [_evaluate(row, self.values) for _, row in self.program.residents])

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
    routing: Any = "uniform",
    mtp: int = 0,
    parallel: Parallel = SINGLE,
    domain: int = 2**40,
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
    routing : str or array_like, optional
        How tokens spread over experts: ``"uniform"``, ``"best"``, ``"power_law_1.2"`` or the like, or the popularity of each [-].
    mtp : int, optional
        Multi-token-prediction modules that run in the step, each with the LM head once more [-].
    parallel : Parallel, optional
        How many devices share the model; every amount is then one device's, the busiest one's [-].
    domain : int, optional
        Devices that reach each other over scale-up links; all of them if not given [-].

    Returns
    -------
    Work
        Operators and totals [-].

    Examples
    --------
    >>> forward(Model.anonymous("70B"), Step.decode()).total("flops")
    140000000000
    """
    if not isinstance(step, Step):
        raise InvalidValueError(f"a step is built with Step.decode, Step.prefill, Step.chunk or Step.verify; {step!r} is none.")
    program = compile_model(
        model, weights=weights, activations=activations, kv=kv, fusion=fusion, routing=routing, mtp=mtp, parallel=parallel, domain=domain
    )
    return Work(program, step, program.values(step))
