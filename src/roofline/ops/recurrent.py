"""Recurrent mixers: linear attention and state-space models, whose state does not grow."""

from roofline.arithmetic import Number, maximum, minimum
from roofline.formats import Format
from roofline.ops.op import Op


def _reads(tokens: Number, *, elements: int, pair_width: int) -> Number:
    """FLOP by which a sequence without state reads what its first so many tokens left: pair by pair while that is cheaper."""
    pairwise = minimum(tokens, elements // pair_width)
    return pair_width * pairwise * (pairwise + 1) + 2 * elements * (tokens - pairwise)


def state_flops(new: Number, cached: Number, *, elements: int, pair_width: int, retrieves: bool = False) -> Number:
    r"""Return the FLOP by which one sequence updates its state and reads it out, token by token [FLOP].

    A token's rank-one update of |S| elements is :math:`2|S|`, its read-out as much; the delta rule first reads what the key retrieves, another
    :math:`2|S|`. Chunked forms add products within a chunk and save nothing of this, but for a sequence that had no state: its
    i-th token may look at the i tokens so far pair by pair, :math:`2 p i` with p multiply-accumulates for a pair, while that is less.

    References
    ----------
    arXiv 2405.21060 (Mamba-2), sections 2 and 7; arXiv 2412.06464 (gated delta rule), equation 10.

    Examples
    --------
    >>> sizes = dict(elements=32 * 128 * 128, pair_width=32 * 256, retrieves=True)
    >>> state_flops(1, 1000, **sizes) == 3 * 2 * 32 * 128 * 128
    True
    >>> state_flops(1, 0, **sizes) == 2 * 32 * 128 * 128 + 2 * 32 * 256
    True
    """
    if not pair_width:
        return 0 * new
    full = 2 * elements * new
    fresh = _reads(new, elements=elements, pair_width=pair_width)
    if retrieves:  # the first token finds nothing to retrieve
        fresh = fresh + _reads(maximum(new - 1, 0), elements=elements, pair_width=pair_width)
    goes_on = minimum(cached, 1)
    return full + goes_on * (1 + retrieves) * full + (1 - goes_on) * fresh


def state_update(
    name: str,
    tokens: Number,
    *,
    flops: Number,
    sequences: Number,
    continued: Number,
    elements: int,
    decays: int,
    state: Format,
    operand: str,
    inputs: int,
    outputs: int,
    stream: Format,
) -> Op:
    """Return the cost of updating and reading a recurrent state.

    The state is written once per sequence and step, and read once by sequences that had one; without anything before it is zero.

    Parameters
    ----------
    name : str
        What to call it [-].
    tokens : int or numpy.ndarray
        New tokens [token].
    flops : int or numpy.ndarray
        From ``state_flops``, all sequences together [FLOP].
    sequences, continued : int or numpy.ndarray
        Sequences, and those among them that go on from a state [-].
    elements : int
        State elements per sequence [-].
    decays : int
        State elements that every token decays by factors of their own, two operations each on the general units [-].
    state : Format
        Format that the state is kept in [-].
    operand : str
        Operand format that the products run in [-].
    inputs, outputs : int
        Elements per token in and out [-].
    stream : Format
        Format of the tokens [-].

    Returns
    -------
    Op
        A contraction [-].

    Examples
    --------
    >>> fp32, bf16 = Format.load("fp32"), Format.load("bf16")
    >>> sizes = dict(elements=32 * 128 * 128, decays=0, state=fp32, operand="bf16", inputs=1, outputs=1, stream=bf16)
    >>> state_update("delta", 1, flops=3145728, sequences=1, continued=1, **sizes).state_bytes
    4194304
    """
    size = elements * state.bytes_per_element
    return Op(
        name,
        "contraction",
        operand,
        flops=flops,
        vector_flops=2 * decays * tokens,
        state_bytes=size * sequences + size * continued,
        input_bytes=inputs * stream.bytes_per_element * tokens,
        output_bytes=outputs * stream.bytes_per_element * tokens,
        rows=tokens,
        sequences=sequences,
        family="state",
        stored=state.name,
        sizes={"elements": elements},
    )


def convolution(name: str, tokens: Number, *, read: Number, written: Number, channels: int, kernel: int, stream: Format) -> Op:
    """Return the cost of a short causal convolution per channel: 2 · kernel FLOP each, on the general units.

    Its taps see a window of `kernel` positions, of which the kernel − 1 before the first new token are read from the state.
    That more columns may be kept does not mean that more must be moved.

    Parameters
    ----------
    name : str
        What to call it [-].
    tokens : int or numpy.ndarray
        New tokens [token].
    read, written : int or numpy.ndarray
        Columns of the state read and written, all sequences together [token].
    channels, kernel : int
        Channels, and taps [-].
    stream : Format
        Format of tokens and state [-].

    Returns
    -------
    Op
        An element-wise operator [-].

    Examples
    --------
    >>> convolution("conv", 1, read=3, written=1, channels=8192, kernel=4, stream=Format.load("bf16")).state_bytes
    65536
    """
    row = channels * stream.bytes_per_element
    return Op(
        name,
        "element-wise",
        vector_flops=2 * channels * kernel * tokens,
        state_bytes=row * (read + written),
        input_bytes=row * tokens,
        output_bytes=row * tokens,
        rows=tokens,
        family="rowwise",
        stored=stream.name,
        sizes={"width": channels},
    )
