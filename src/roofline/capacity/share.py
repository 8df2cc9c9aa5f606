"""One device's share of a model: its parameters, and what every sequence keeps in its memory, as a function of length."""

from dataclasses import dataclass, field

from roofline.arithmetic import Number, minimum
from roofline.formats import Format
from roofline.forward import Program, Work
from roofline.forward.precision import WeightFormats
from roofline.forward.program import compile_stages
from roofline.model import Model
from roofline.parallel import Parallel
from roofline.step import Rows, Step


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
    """Something that every sequence keeps on one device, all layers together."""

    rows: Rows  # how many rows, by the length of the sequence
    size: Number  # bytes of a row [B]

    @property
    def span(self) -> int:
        """Window, chunk, or positions of an entry; 0 if there is none [token]."""
        return self.rows.span

    def allocated(self, length: Number, prefix: Number, page: int, ways: int, in_flight: int = 0) -> tuple[Number, Number]:
        """Return what one sequence keeps for itself, and what all sequences keep together for their common prefix [B]."""
        if not self.rows.cached:
            return self.rows.most(length) * self.size, 0

        def whole(positions: Number) -> Number:
            return pages(-(-positions // ways), page)

        if self.rows.kind == "source":  # whatever the length; a prefix of the answer says nothing of what it answers
            return whole(self.span) * self.size, 0
        kept, each = (length, self.span) if self.rows.kind == "entries" else (self.rows.booked(length, in_flight), 1)
        positions = whole(kept)
        common = (positions - whole(minimum(kept, length - prefix))) // each  # of a window, only what lies within the prefix
        ahead = page * minimum(length, 1) if in_flight and self.rows.kind == "window" else 0  # a window may begin within a page
        return (positions // each - common + ahead) * self.size, common * self.size


@dataclass(frozen=True, slots=True)
class Share:
    """What one device holds."""

    weight_bytes: Number  # its parameters, those of towers included [B]
    tower_bytes: Number  # those of vision and audio towers [B]
    held: tuple[Held, ...]  # what every sequence keeps there
    ways: int  # devices over which the positions of a sequence are spread
    program: Program  # the share, compiled
    width: int  # elements of a row of the residual stream
    peaks: dict[int, Number] = field(default_factory=dict, repr=False, compare=False)  # of activations, by tokens, that were asked for

    def sequence_bytes(self, length: Number, prefix: Number, page: int, *, cache: bool, in_flight: int = 0) -> tuple[Number, Number]:
        """Return the bytes of cache, or of state, that one sequence keeps, and those that all sequences keep once [B]."""
        own: Number = 0 * length
        once: Number = 0 * length
        for held in self.held:
            if held.rows.cached is cache:
                mine, common = held.allocated(length, prefix, page, self.ways, in_flight)
                own, once = own + mine, once + common
        return own, once

    def page_bytes(self, page: int) -> Number:
        """Return the bytes of one page in all layers whose cache grows without bound [B]."""
        total: Number = 0
        for held in self.held:
            if held.rows.grows:
                size, each = page * held.size, max(held.span, 1)
                total = total + (size / each if size % each else size // each)
        return total


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
    known: tuple[Share, ...] | None = model.memo.find(key)
    if known is None:
        made = []
        for program in compile_stages(model, parallel, weights=weights, activations=activations, kv=kv, mtp=mtp):
            (stage,) = program.residents
            held = tuple(Held(rows, size) for rows, size in stage.held.items())
            made.append(Share(stage.stored_bytes, stage.tower_bytes, held, parallel.context, program, model.hidden_size))
        known = model.memo.keep(key, tuple(made))
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
    if tokens not in share.peaks:
        share.peaks[tokens] = _activation_peak(share, tokens) if tokens else 0
    return share.peaks[tokens]


def _activation_peak(share: Share, tokens: int) -> Number:
    ops = Work(share.program, Step.prefill(tokens)).ops
    inside = [op.activation_bytes / op.count for op in ops if op.kind != "collective"]
    residual = tokens * share.width * share.program.precision.stream.bytes_per_element
    if not any(inside):
        return 0  # nothing is known about the activations of an anonymous model
    peak = max(inside) + residual
    return int(peak) if peak == int(peak) else peak
