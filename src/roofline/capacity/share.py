"""One device's share of a model: its parameters, and what every sequence keeps in its memory, as a function of length."""

from dataclasses import dataclass
from typing import Any

from roofline.arithmetic import Number, minimum
from roofline.formats import Format
from roofline.forward import Program, WeightFormats, Work, compile_model
from roofline.forward.symbols import SEQUENCES
from roofline.model import Model
from roofline.parallel import Parallel, shard_model, stages
from roofline.step import Aggregate, Step, Visibility


def pages(positions: Number, page: int) -> Number:
    r"""Return the positions that pages hold for so many: :math:`\lceil n / p \rceil \cdot p` [token].

    References
    ----------
    Kwon et al., "PagedAttention", SOSP 2023, arXiv:2309.06180, section 4: only the last page of a sequence is partly empty.

    Examples
    --------
    >>> pages(1000, 16), pages(1024, 16), pages(0, 16)
    (1008, 1024, 0)
    """
    return -(-positions // page) * page


@dataclass(frozen=True, slots=True)
class Held:
    """Something that every sequence keeps on one device, by how it depends on the sequence's length.

    Parameters
    ----------
    kind : {"all", "window", "entries", "state", "open", "overlap"}
        One row for every position; for the last `span` − 1; for every `span` positions; one for the sequence; one for
        every position whose entry of `span` is not complete, at worst; or one as soon as there is an entry [-].
    size : int or float
        Bytes of a row, all layers together [B].
    span : int, optional
        Window, chunk, or positions of an entry [token].
    """

    kind: str
    size: Number
    span: int = 0

    @property
    def is_cache(self) -> bool:
        """Whether it is a cache in pages, not a state of fixed size."""
        return self.kind in ("all", "window", "entries")

    def allocated(self, length: Number, prefix: Number, page: int, ways: int) -> tuple[Number, Number]:
        """Return what one sequence keeps for itself, and what all sequences keep together for their common prefix [B]."""

        def whole(positions: Number) -> Number:
            return pages(-(-positions // ways), page)

        if self.kind == "entries":
            common = whole(prefix) // self.span
            return (whole(length) // self.span - common) * self.size, common * self.size
        if self.is_cache:
            kept = length if self.kind == "all" else minimum(length, self.span - 1)
            own = whole(minimum(kept, length - prefix))  # of the window, only what lies behind the prefix
            return own * self.size, (whole(kept) - own) * self.size
        rows = {"open": minimum(length, self.span - 1), "overlap": minimum(length // self.span, 1)} if self.span else {}
        return rows.get(self.kind, 1) * self.size, 0


@dataclass(frozen=True, slots=True)
class Share:
    """What one device holds.

    Parameters
    ----------
    weight_bytes : int or float
        Its parameters [B].
    held : tuple of Held
        What every sequence keeps there [-].
    ways : int
        Devices over which the positions of a sequence are spread [-].
    program : Program
        The share, compiled [-].
    width : int
        Elements of a row of the residual stream [-].
    """

    weight_bytes: Number
    held: tuple[Held, ...]
    ways: int
    program: Program
    width: int

    def sequence_bytes(self, length: Number, prefix: Number, page: int, *, cache: bool, growing: bool = True) -> tuple[Number, Number]:
        """Return the bytes of cache, or of state, that one sequence keeps, and those that all sequences keep once [B]."""
        own: Number = 0 * length
        once: Number = 0 * length
        for held in self.held:
            if held.is_cache is cache and (growing or held.kind not in ("all", "entries")):
                mine, common = held.allocated(length, prefix, page, self.ways)
                own, once = own + mine, once + common
        return own, once

    def page_bytes(self, page: int) -> Number:
        """Return the bytes of one page in all layers whose cache grows without bound [B]."""
        total: Number = 0
        for held in self.held:
            if held.kind == "all":
                total = total + page * held.size
            elif held.kind == "entries":
                total = total + (page * held.size // held.span if page * held.size % held.span == 0 else page * held.size / held.span)
        return total


def _held(program: Program, row: tuple[tuple[int, Number], ...]) -> tuple[Held, ...]:
    """Read a compiled model's cache and state: every aggregate by what it is at its largest on the way to a length."""
    (sequences,) = SEQUENCES.terms
    found: dict[tuple[str, int], Number] = {}
    for index, size in row:
        symbol: Any = 1 if index == 0 else program.aggregates[index - 1]
        kind, span = ("state", 0) if symbol == sequences else _kind(symbol)
        found[kind, span] = found.get((kind, span), 0) + size
    return tuple(Held(kind, size, span) for (kind, span), size in found.items())


def _kind(symbol: Aggregate) -> tuple[str, int]:
    (argument,) = symbol.arguments
    if isinstance(argument, Visibility):
        bounded = argument.kind in ("window", "chunk")  # a chunk is full before it is dropped
        return ("window", argument.span) if bounded else ("all", 0)
    kinds = {"entries": "entries", "open positions": "open", "sequences with entries": "overlap"}
    return kinds[symbol.name], argument


def device_shares(
    model: Model,
    parallel: Parallel,
    *,
    weights: WeightFormats = None,
    activations: str | Format | None = None,
    kv: str | Format | None = None,
    mtp: int = 0,
) -> tuple[Share, ...]:
    """Return what one device of every pipeline stage holds; computed once for each choice, then remembered on the model.

    Examples
    --------
    >>> [share] = device_shares(Model.anonymous("70B"), Parallel(tensor=2))
    >>> share.weight_bytes, share.held
    (70000000000, ())
    """
    key = ("capacity", parallel, repr(weights), repr(activations), repr(kv), mtp)
    known: tuple[Share, ...] | None = model.memo.get(key)
    if known is None:
        whole = shard_model(model, parallel)
        parts = stages(whole, parallel.pipeline)
        made = []
        for i, part in enumerate(parts):
            modules = mtp if i == len(parts) - 1 else 0
            program = compile_model(part, weights=weights, activations=activations, kv=kv, mtp=modules)
            ((stored, row),) = program.residents
            made.append(Share(stored, _held(program, row), parallel.context, program, model.hidden_size))
        known = model.memo[key] = tuple(made)
    return known


def activation_peak(share: Share, tokens: int) -> Number:
    r"""Return the most activations alive at once: :math:`\max_{op} (input + output) + T \cdot d`, the residual beside one operator [B].

    Notes
    -----
    Inputs and outputs as in :class:`roofline.ops.Op`, attention fused, one row per step projected to logits. An engine that keeps
    more alive (workspaces, logits of all rows in 32 bit, graph pools) needs a `reserve` for it: vLLM measures the sum in a
    profiling run of as many tokens.

    References
    ----------
    Engines free every activation after its last reader, so that one operator's operands and the residual are what is alive:
    NVIDIA, "Reducing Activation Recomputation in Large Transformer Models", arXiv:2205.05198, section 4, lists them by operator.

    Examples
    --------
    Llama-3-8B: 8192 rows of 2 · 14336 in and 14336 out of the activation function, and 4096 of the residual, in 16 bit.

    >>> [share] = device_shares(Model.load("llama-3-8b"), Parallel())
    >>> activation_peak(share, 8192) == 8192 * (3 * 14336 + 4096) * 2
    True
    """
    if not tokens:
        return 0
    step = Step.prefill(tokens)
    ops = Work(share.program, step, share.program.values(step)).ops
    inside = [op.activation_bytes / op.count for op in ops if op.kind != "collective"]
    residual = tokens * share.width * share.program.precision.stream.bytes_per_element
    if not any(inside):
        return 0  # nothing is known about the activations of an anonymous model
    peak = max(inside) + residual
    return int(peak) if peak == int(peak) else peak
