"""The work of one step: `Model` × `Step` → `Work`."""

from collections.abc import Callable, Iterator
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from roofline.arithmetic import Number, maximum
from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.formats import Format
from roofline.forward.lowering import Fusion
from roofline.forward.precision import WeightFormats
from roofline.forward.program import Program, Row, compile_model
from roofline.frozen import freeze
from roofline.model import Model
from roofline.names import unknown_name
from roofline.ops import Op
from roofline.parallel import SINGLE, Parallel
from roofline.step import Step

_BLOCK = 2**14  # steps evaluated at once: their aggregates stay in the processor's cache


class Work:
    """What one step costs on one device, whatever the machine. Amounts are numbers, or arrays of the step's shape.

    Parameters
    ----------
    program : Program
        The compiled model [-].
    step : Step
        The step [-].
    values : tuple, optional
        The step's aggregates, as the program orders them, if they are known [-].
    """

    __slots__ = ("_known", "_large", "_program", "_shape", "_step")  # every floor makes one, and setting what is frozen takes longer

    def __init__(self, program: Program, step: Step, values: tuple[Number, ...] = ()) -> None:
        self._program, self._step, self._known = program, step, values
        self._shape = shape = step.shape
        self._large = bool(shape) and not values and prod(shape) > _BLOCK

    @property
    def program(self) -> Program:
        """The compiled model [-]."""
        return self._program

    @property
    def step(self) -> Step:
        """The step [-]."""
        return self._step

    @property
    def shape(self) -> tuple[int, ...]:
        """The step's shape; () for one step [-]."""
        return self._shape

    @property
    def values(self) -> tuple[Number, ...]:
        """The step's aggregates, as the program orders them [-]."""
        return self._known_until(None) if not self._large else self._program.values(self._step)

    def _known_until(self, stop: int | None) -> tuple[Number, ...]:
        """Return the aggregates before index `stop` at least, computing those that are not known yet."""
        known, program = self._known, self._program
        if len(known) < (stop or len(program.aggregates) + 1):
            step = self._step if program.parallel.data == 1 else program.rank_step(self._step)
            new = program.rank_values(step, len(known), stop)
            self._known = known = known + (tuple(map(freeze, new)) if self._shape else new)
        return known

    def _of(self, row: Row) -> Number:
        if self._large and row:
            return self.by_blocks(lambda part: (part._of(row),))[0]
        known = self._known or self._known_until(self._program.leading + 1)
        total: Number = 0
        try:
            for index, coefficient in row:
                total = total + coefficient * known[index]
        except IndexError:  # an aggregate that no floor needs
            self._known_until(None)
            return self._of(row)
        return total

    def by_blocks(self, function: "Callable[..., tuple[Number, ...]]", *arguments: Any) -> tuple[Number, ...]:
        """Return what `function` makes of this work; of a large array, block by block, so that only the results take memory.

        Parameters
        ----------
        function : callable
            Takes work and `arguments`, and returns numbers, or arrays of its step's shape; element by element, so that blocks do not
            matter [-].
        *arguments : optional
            What else it takes [-].

        Returns
        -------
        tuple
            The numbers of all blocks; those that are the same for the whole array as single numbers [-].
        """
        if not self._large:
            return function(self, *arguments)
        shape = self._shape
        results: list[Number] = []
        for where in _blocks(shape):
            parts = function(Work(self._program, self._step.block(where, len(shape))), *arguments)
            results = results or [np.empty(shape, part.dtype) if isinstance(part, np.ndarray) else part for part in parts]
            for whole, part in zip(results, parts, strict=True):
                if isinstance(whole, np.ndarray):
                    whole[where] = part
        return tuple(results)

    @property
    def flops_by_operand(self) -> dict[str, Number]:
        """FLOP of matrix products by operand format [FLOP]."""
        return {operand: self._of(row) for operand, row in self._program.operands}

    def total(self, amount: str) -> Number:
        """Return one amount summed over all operators.

        Parameters
        ----------
        amount : str
            Any of ``roofline.ops.AMOUNTS``, or one of the sums ``compulsory_bytes`` (weights, cache, state), ``activation_bytes``
            (in and out) and ``reread_bytes`` (weights that drafts read once more) [-].

        Returns
        -------
        int, float or numpy.ndarray
            The amount [SI].

        Raises
        ------
        UnknownNameError
            If there is no such amount; the message names the nearest.
        """
        row = self._program.totals.get(amount)
        if row is None:
            raise unknown_name("amount of work", str(amount), [*self._program.totals])
        return self._of(row)

    @property
    def compulsory_bytes(self) -> Number:
        """Bytes that no implementation avoids: weights, cache, state [B]."""
        return self._of(self._program.totals["compulsory_bytes"])

    @property
    def resident_bytes(self) -> Number:
        """Bytes that must be in memory: every parameter, cache and state after the step, on the fullest device [B].

        In a pipeline that is the fullest of stages of equal numbers of layers, see ``roofline.parallel.sharding.stages``.
        """
        return reduce(maximum, [stage.stored_bytes + self._of(stage.row) for stage in self._program.residents])

    @property
    def held_bytes(self) -> Number:
        """Cache and state after the step, of the fullest device [B]."""
        return reduce(maximum, [self._of(stage.row) for stage in self._program.residents])

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operators with their amounts as numbers, identical layers summed into one [-]."""
        program = self._program
        if self._large:
            numbers = [self._of(row) for row in program.rows]
        else:
            known, numbers = self.values, []
            for row in program.rows:
                total: Number = 0
                for index, coefficient in row:
                    total = total + coefficient * known[index]
                numbers.append(total)
        return tuple(
            op.having(**{name: numbers[index] for name, index in amounts}) for op, amounts in zip(program.ops, program.amounts, strict=True)
        )


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield slices that cut an array of this shape into blocks, leading axes first."""
    inner = prod(shape[1:])
    step = max(1, _BLOCK // inner) if inner else 1
    for start in range(0, shape[0], step):
        here = (slice(start, start + step),)
        if inner <= _BLOCK:
            yield here
        else:
            yield from ((*here, *rest) for rest in _blocks(shape[1:]))


@checks_call
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
        Number formats, as in ``Precision.of`` [-].
    fusion : {"none", "attention", "full"}, optional
        What stays on chip between operators [-].
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
    Work
        Operators and totals [-].

    Examples
    --------
    >>> forward(Model.anonymous("70B"), Step.decode()).total("flops")
    140000000000
    """
    if not isinstance(step, Step):
        raise InvalidValueError(f"a step is built with Step.decode, Step.prefill, Step.chunk or Step.verify; {quoted(step)} is none.")
    program = compile_model(
        model, weights=weights, activations=activations, kv=kv, fusion=fusion, routing=routing, mtp=mtp, parallel=parallel, domain=domain
    )
    return Work(program, step)
