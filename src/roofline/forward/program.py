"""A model compiled to coefficients of a step's aggregates."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from roofline import ops
from roofline.arithmetic import LinearForm, Number
from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.formats import Format
from roofline.forward.lowering import FUSIONS, Fusion, Lowering, merge_alike
from roofline.forward.memory import held_bytes, held_form, stored_bytes
from roofline.forward.precision import Precision, WeightFormats
from roofline.forward.symbols import ANY_SAMPLED, DRAFTING, SAMPLED, TOKENS, drafted, encoded
from roofline.forward.towers import tower_bytes, tower_operators
from roofline.frozen import FrozenDict
from roofline.model import Embedding, Encoder, Model
from roofline.ops import AMOUNTS, Op, Routing
from roofline.ops.routing import parse_routing
from roofline.parallel import SINGLE, Parallel, shard_model
from roofline.parallel.sharding import stages
from roofline.step import Aggregate, Rows, Step
from roofline.units import whole_number

Row = tuple[tuple[int, Number], ...]
"""A linear form in a program's aggregates: index and coefficient of each, index 0 being the constant."""

_COMPULSORY = ("weight_bytes", "kv_read_bytes", "kv_write_bytes", "state_bytes")


def _encoder(lowering: Lowering, encoder: Encoder, table: Embedding) -> Iterator[Op]:
    """Yield the operators of an encoder, as a step runs them: on the source of every sequence of which nothing is cached."""
    positions, operators = lowering.model.source_positions, list[Op]()
    if encoder.tokens:
        stored = lowering.precision.stored(table.tables[0], None)
        operators.append(ops.embedding("embed_tokens", TOKENS, width=table.width, stored=stored, stream=lowering.precision.stream))
    if encoder.positions:  # the same rows for every sequence
        operators.append(lowering.vectors("embed_positions", min(positions, encoder.positions) * lowering.model.hidden_size))
    if encoder.norm is not None:
        operators.append(lowering.norm(encoder.norm))
    for group, count, stored_once in merge_alike(encoder.layers):
        operators += [op.times(count, stored=stored_once) for op in lowering.layer(group)]
    if encoder.final_norm is not None:
        operators.append(lowering.norm(encoder.final_norm))
    for op in operators:
        amounts = {n: encoded(form, positions) for n, form in op.amounts().items() if isinstance(form, LinearForm) or form}
        yield op.having(name=f"encoder.{op.name}", **amounts)


def _operators(lowering: Lowering) -> Iterator[Op]:
    model, stream = lowering.model, lowering.precision.stream
    yield from tower_operators(lowering)
    if model.encoder is not None and model.embedding is not None:
        yield from _encoder(lowering, model.encoder, model.embedding)
    if model.embedding is not None:
        table = model.embedding
        tables, stored = len(table.tables), lowering.precision.stored(table.tables[0], None)
        yield ops.embedding("embed_tokens", TOKENS, width=table.width, stored=stored, stream=stream, tables=tables)
        if table.norm is not None:
            yield lowering.norm(table.norm)
        yield from lowering.beside_table(table)
    for group, count, stored_once in merge_alike(model.layers):
        for op in lowering.layer(group):
            yield op.times(count, stored=stored_once)
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


def _drafts(lowering: Lowering, mtp: int) -> tuple[list[Op], list[Op]]:
    """Return the operators of so many drafts: those that read weights for the first time, and those that read them once more.

    Each module runs on every row of the step; what is then still to be drafted they draft in turn, one row of each sequence at a time.
    Every draft ends with the model's own head, and waits for the token before it.
    """
    first, again, model = [], [], lowering.model
    for place, module in enumerate(model.mtp_modules[:mtp]):
        layers = [op.times(group.count, stored=group.stored) for group in module for op in lowering.layer(group)]
        first += [op.having(name=f"mtp.{op.name}") for op in layers]
        more = len(range(place, mtp, len(model.mtp_modules))) - 1
        if more:
            forms = ({name: drafted(form) for name, form in op.amounts().items() if isinstance(form, LinearForm) or form} for op in layers)
            once = (op.having(name=f"mtp.again.{op.name}", **amounts) for op, amounts in zip(layers, forms, strict=True))
            again += [op.times(more) for op in once]
    if mtp and model.head is not None:
        projection = model.head.matrices(model.hidden_size)[-1]
        again.append(lowering.linear(projection, None, DRAFTING, name=f"mtp.{projection.name}", reads=ANY_SAMPLED).times(mtp))
    return first, again


@dataclass(frozen=True, slots=True)
class Stage:
    """What one device of a pipeline stage holds."""

    stored_bytes: Number  # parameters, towers included [B].
    tower_bytes: Number  # those of towers [B].
    held: Mapping[Rows, Number]  # bytes of one row of each kind that is kept for a sequence, all layers of the stage together [B].
    row: Row  # bytes of cache and state that a step leaves there [B].


@dataclass(frozen=True, slots=True)
class Program:
    """A model under one choice of formats, reduced to coefficients of a step's aggregates.

    Parameters
    ----------
    ops : tuple of Op
        The operators, with linear forms as amounts [-].
    aggregates : tuple of Aggregate
        The symbols in use; index 0 of every row is the constant [-].
    leading : int
        How many of them, from the first on, a floor needs; the others are for memory and for single operators [-].
    operands : tuple of (str, row)
        FLOP of matrix products by operand format [FLOP].
    totals : mapping of str to row
        Every amount of an operator, and the sums that ``Work.total`` names, summed over operators [SI].
    rows : tuple of row
        The distinct amounts of operators [SI].
    amounts : tuple of tuple of (str, int)
        For each operator the names of what it has, and which of the `rows` each is [-].
    residents : tuple of Stage
        What one device of every pipeline stage holds [-].
    precision : Precision
        The number formats [-].
    routing : str, PowerLaw or tuple of float
        How tokens spread over experts [-].
    parallel : Parallel
        How many devices share the model; every amount is one device's [-].
    mtp : int
        Tokens that multi-token-prediction modules draft for each sequence in the step [token].
    """

    ops: tuple[Op, ...]
    aggregates: tuple[Aggregate, ...]
    leading: int
    operands: tuple[tuple[str, Row], ...]
    totals: Mapping[str, Row]
    rows: tuple[Row, ...]
    amounts: tuple[tuple[tuple[str, int], ...], ...]
    residents: tuple[Stage, ...]
    precision: Precision
    routing: Routing
    parallel: Parallel
    mtp: int

    @property
    def stored_bytes(self) -> Number:
        """Parameters as stored, on the device that holds the most [B]."""
        return max(stage.stored_bytes for stage in self.residents)

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
        return self.rank_values(self.rank_step(step))

    def rank_step(self, step: Step) -> Step:
        """Return the part of a step that the busiest data-parallel rank processes.

        Parameters
        ----------
        step : Step
            The step [-].

        Returns
        -------
        Step
            The rank's part [-].
        """
        return step.share(self.parallel.data) if self.parallel.data > 1 else step

    def rank_values(self, step: Step, start: int = 0, stop: int | None = None) -> tuple[Number, ...]:
        """Return the aggregates of one data-parallel rank from its own part of a step, in the order that the rows refer to.

        Parameters
        ----------
        step : Step
            What the rank processes [-].
        start, stop : int, optional
            Which, by the index that rows use; all if not given [-].

        Returns
        -------
        tuple
            1, then each aggregate [-].
        """
        values: list[Number] = [] if start else [1]
        group, alone = step.groups[0], type(step) is Step and len(step.groups) == 1  # of a single group there is nothing to add up
        count = group.count
        for aggregate in self.aggregates[max(start - 1, 0) : None if stop is None else stop - 1]:
            function, arguments = aggregate.function, aggregate.arguments
            if aggregate.whole:
                values.append(function(step, *arguments))
            elif not alone:
                values.append(step.total(function, *arguments))
            else:
                values.append(count * (function(group, *arguments) if arguments else function(group)))
        return tuple(values)


def _per_device(form: Number, parallel: Parallel) -> Number:
    """Divide what devices that share the cache of every sequence divide among them."""
    if parallel.context == 1 or not isinstance(form, LinearForm):
        return form
    return LinearForm({s: c / parallel.context if isinstance(s, Aggregate) and s.divided else c for s, c in form.terms.items()})


def _between(lowering: Lowering, operators: Iterable[Op]) -> Iterator[Op]:
    """Yield every operator as one device runs it, and the traffic between pipeline stages and between devices that share a cache."""
    parallel, stream = lowering.parallel, lowering.precision.stream.bytes_per_element
    for op in operators:
        yield op.having(**{name: _per_device(form, parallel) for name, form in op.amounts().items()})
        if parallel.context > 1 and op.kind == "contraction" and LinearForm.coerce(op.kv_read_bytes).terms:
            # each device sends its partial result of every row once, to be added up
            yield ops.all_reduce(f"{op.name}.combine", op.output_bytes, ranks=parallel.context, domain=lowering.domain)
    if parallel.pipeline > 1:
        row = TOKENS * (lowering.model.hidden_size * stream / parallel.tensor)
        outside = parallel.devices > lowering.domain
        yield ops.send("pipeline.send", row, outside=outside).times(parallel.pipeline - 1)


class _Symbols:
    """The aggregates met so far, in the order in which rows refer to them."""

    def __init__(self) -> None:
        self.index: dict[object, int] = {1: 0}

    def row(self, form: Number) -> Row:
        """Return a form as a row."""
        terms = LinearForm.coerce(form).terms
        return tuple((self.index.setdefault(symbol, len(self.index)), coefficient) for symbol, coefficient in terms.items())


def _compile(lowering: Lowering, mtp: int) -> Program:
    first, again = _drafts(lowering, mtp)
    operators = tuple(_between(lowering, (*_operators(lowering), *first, *again)))
    symbols = _Symbols()
    operands: dict[str, LinearForm] = {}
    forms = dict.fromkeys(AMOUNTS, LinearForm({}))
    for op in operators:
        if op.kind == "contraction":
            operands[op.operand] = operands.get(op.operand, LinearForm({})) + op.flops
        forms |= {name: forms[name] + form for name, form in op.amounts().items()}
    forms["compulsory_bytes"] = sum((forms[name] for name in _COMPULSORY), start=LinearForm({}))
    forms["activation_bytes"] = forms["input_bytes"] + forms["output_bytes"]
    forms["reread_bytes"] = sum((op.weight_bytes for op in again), start=LinearForm({}))
    by_operand = tuple((operand, symbols.row(form)) for operand, form in operands.items() if form.terms)
    for name in ("compulsory_bytes", "reread_bytes", "link_bytes", "nic_bytes", "hops"):  # with the operands all that a floor needs
        symbols.row(forms[name])
    leading = len(symbols.index) - 1
    residents = tuple(_stages(lowering, mtp, symbols))
    totals = {name: symbols.row(form) for name, form in forms.items()}
    rows: dict[tuple[Row, tuple[type, ...]], int] = {}  # integers stay integers: a row of equal floats is another one
    amounts = []
    for op in operators:
        of_op = {name: symbols.row(form) for name, form in op.amounts().items() if isinstance(form, LinearForm) or form}
        amounts.append(tuple((name, rows.setdefault((row, tuple(type(c) for _, c in row)), len(rows))) for name, row in of_op.items()))
    aggregates = tuple(s for s in symbols.index if isinstance(s, Aggregate))
    distinct = tuple(key[0] for key in rows)
    return Program(
        tuple(op.having(sizes=FrozenDict(op.sizes)) for op in operators),
        aggregates,
        leading,
        by_operand,
        FrozenDict(totals),
        distinct,
        tuple(amounts),
        residents,
        lowering.precision,
        lowering.routing,
        lowering.parallel,
        mtp,
    )


def _stages(lowering: Lowering, mtp: int, symbols: _Symbols) -> Iterator[Stage]:
    parallel, precision = lowering.parallel, lowering.precision
    for stage in stages(lowering.model, parallel.pipeline):
        held = held_bytes(stage, precision, mtp)
        # one step is in flight in every stage, and each leaves its cache in all of them
        form = _per_device(held_form(held) * parallel.pipeline, parallel)
        towers = tower_bytes(stage, precision)
        yield Stage(stored_bytes(stage, precision, mtp) + towers, towers, FrozenDict(held), symbols.row(form))


@checks_call
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
        Number formats, as in ``Precision.of`` [-].
    fusion : {"none", "attention", "full"}, optional
        What stays on chip between operators; it changes activation traffic only [-].
    routing : str or array_like, optional
        How tokens spread over experts: ``"uniform"``, ``"best"``, ``"power_law_1.2"`` or the like, or the popularity of each [-].
    mtp : int, optional
        Tokens that multi-token-prediction modules draft for each sequence in the step, one after another [token].
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
    if not isinstance(model, Model):
        raise InvalidValueError(f"model is {quoted(model)}; it must be a Model, such as Model.load(...) returns.")
    routing, mtp = parse_routing(routing), _checked_drafts(model, mtp)
    key = (tuple(weights.items()) if isinstance(weights, Mapping) else weights, activations, kv, fusion, routing, mtp, parallel, domain)
    try:
        program: Program | None = model.memo.find(key)
    except TypeError:
        given = {"weights": weights, "activations": activations, "kv": kv, "fusion": fusion}
        name = next((name for name, value in given.items() if not isinstance(value, Hashable)), "weights")
        raise InvalidValueError(f"{name} is {quoted(given[name])}; it is given by name.") from None
    if program is None:
        if fusion not in FUSIONS:
            raise InvalidValueError(f"fusion is {quoted(fusion)}; it must be one of {', '.join(FUSIONS)}.")
        share = shard_model(model, parallel)
        precision = Precision.of(share, weights=weights, activations=activations, kv=kv)
        program = model.memo.keep(key, _compile(Lowering(share, precision, fusion, routing, parallel, domain), mtp))
    return program


def compile_stages(
    model: Model,
    parallel: Parallel,
    *,
    weights: WeightFormats = None,
    activations: str | Format | None = None,
    kv: str | Format | None = None,
    mtp: int = 0,
) -> tuple[Program, ...]:
    """Return the program of one device of every pipeline stage by itself, without the traffic between devices."""
    share = shard_model(model, parallel)
    precision = Precision.of(share, weights=weights, activations=activations, kv=kv)
    mtp = _checked_drafts(model, mtp)
    return tuple(_compile(Lowering(part, precision, "attention", "uniform"), mtp) for part in stages(share, parallel.pipeline))


def _checked_drafts(model: Model, mtp: int) -> int:
    count = whole_number("mtp", mtp)
    if count and not model.mtp_modules:
        raise InvalidValueError(f"mtp is {count}, but {model.name} has no multi-token-prediction module that could draft.")
    return count
