"""A module as a `Model`: run twice on the meta device, its parameters and what it did attributed to parts."""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from roofline.errors import InvalidValueError, UnsupportedModelError, quoted
from roofline.model import Model
from roofline.torch_modules.build import build, one_line, quiet
from roofline.torch_modules.complete import check_parameters, in_modules, uncounted
from roofline.torch_modules.encoder_decoders import read_two_stacks
from roofline.torch_modules.ends import bytes_of_model, common_widths, ends_of, named_towers, token_table, towers_of, width_of
from roofline.torch_modules.events import Call, Contraction, Record
from roofline.torch_modules.inputs import Inputs, arguments
from roofline.torch_modules.layers import groups, split_layers
from roofline.torch_modules.notes import address_of
from roofline.torch_modules.recurrence import check_recurrences, rows_before
from roofline.torch_modules.required import torch
from roofline.torch_modules.sources import two_stacks
from roofline.torch_modules.tally import FLOATS, Tally, inside, take
from roofline.torch_modules.values import give
from roofline.torch_modules.watch import watch
from roofline.visibility import BIDIRECTIONAL, CAUSAL, Visibility

_LENGTHS = (5, 11)
"""Tokens of the two runs: primes, so that no width of a model is taken for one of them [token]."""

_LONGER = (4099, 2039, 1021, 509, 251, 127, 61, 31, 17)
"""Tokens of the run that looks for windows in masks, the first that the module allows: primes just below usual limits [token]."""


def read_module(module: Any, *, inputs: Inputs = None, name: str = "", visible: str | None = None) -> Model:
    """Return the model that a module is; see :meth:`Model.from_module`."""
    if visible not in (None, "causal", "bidirectional"):
        raise InvalidValueError(f"visible is {quoted(visible)}; it is 'causal' or 'bidirectional'.")
    if not isinstance(module, torch.nn.Module):
        raise InvalidValueError(f"module is {quoted(module)}; it must be a torch.nn.Module.")
    usual = _usual(module)
    plain = None if usual is None else FLOATS[usual]
    seen = None if visible is None else CAUSAL if visible == "causal" else BIDIRECTIONAL
    return _read(_on_meta(module), inputs, name or type(module).__name__, plain, visible=seen, usual=usual)


def _usual(module: torch.nn.Module) -> torch.dtype | None:
    """Return the format of most matrices of a module that is one to compute in, of other parameters where it has no such matrix."""
    floats = [parameter for parameter in module.parameters() if parameter.dtype in FLOATS and parameter.numel()]
    dtypes = Counter(parameter.dtype for parameter in floats if parameter.ndim > 1) or Counter(parameter.dtype for parameter in floats)
    return max(dtypes, key=dtypes.__getitem__, default=None)


def read_code(data: Mapping[str, Any], *, name: str) -> Model:
    """Return the model of a configuration, read from transformers' code for it."""
    module, config, notes = build(data, name)
    dtype = data.get("dtype", data.get("torch_dtype"))
    plain = next((label for kind, label in FLOATS.items() if str(kind) == f"torch.{dtype}"), None)
    if data.get("quantization_config") or data.get("hf_quant_config"):
        plain, notes = None, (*notes, "the number formats that the checkpoint is quantized to: weights= says them")
    composite = config.get_text_config() is not config
    try:
        model = _read(module, None, name, plain, composite=composite)
    except UnsupportedModelError as error:
        if len({parameter.dtype for parameter in module.parameters()}) > 1:
            # a class that makes parameters of 32 bits whatever it is asked for runs once a checkpoint's replace them (XLNet)
            module.to("meta", torch.bfloat16)
            module.tie_weights()  # type: ignore[operator]
        elif "float" in str(error).lower():
            module.float()  # code that mixes a format of its own with 16 bits
        else:
            raise
        model = _read(module, None, name, plain, composite=composite)
        if all(parameter.dtype is torch.float32 for parameter in module.parameters()) and model.state_bytes_per_sequence:
            notes = (*notes, "which of its states have 32 bits: its code runs in 32 bits alone")
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return model.but(
        max_positions=longest if isinstance(longest, int) and longest > 0 else None, not_modelled=(*model.not_modelled, *notes)
    )


def _on_meta(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a module on the meta device, without copying a weight."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = torch.nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = held = torch.empty_like(buffer, device="meta")
        if buffer.device.type != "meta":
            give(held, buffer.detach().cpu())
    return copy.deepcopy(module, memo).eval()


def _read(
    module: torch.nn.Module,
    inputs: Inputs,
    name: str,
    dtype: str | None,
    *,
    composite: bool = False,
    visible: Visibility | None = None,
    usual: torch.dtype | None = None,
) -> Model:
    for path, inner in module.named_modules():
        if isinstance(inner, (torch.nn.Transformer, torch.nn.TransformerDecoder)):
            raise UnsupportedModelError(
                f"{name}: {path or 'it'} is a {type(inner).__name__}, an encoder–decoder, which is not read from code."
            )
    named: dict[int, tuple[str, ...]] = {}
    for parameter_name, parameter in module.named_parameters():
        named.setdefault(address_of(parameter), (parameter_name,))
    buffers = {address_of(buffer): (path, sum(size > 1 for size in buffer.shape) > 1) for path, buffer in module.named_buffers()}
    if inputs is None and two_stacks(module):
        model = _two_stacks(module, named, buffers, name, dtype)
        other = [path for path, held in module.named_parameters() if usual not in (None, held.dtype) and held.dtype in FLOATS]
        return model.but(not_modelled=(*model.not_modelled, bytes_of_model(other))) if other else model
    with quiet(), torch.device("meta"):
        short, long = (_run(module, named, buffers, inputs, tokens, name) for tokens in _LENGTHS)
        further = _further(module, named, buffers, inputs, name, _unknown(long)) if long.masked else None
    if callable(inputs):
        _check_inputs(short, long)
        _check_batch([arguments(module, inputs, tokens) for tokens in _LENGTHS])
    try:
        tally = take(module, (short, long), _LENGTHS, visible, further)
        check_recurrences(tally, (short, long))
        tally.usual = usual
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{name}: {error}") from None
    if not tally.kept and not any(isinstance(event, Call) for event in tally.events):
        if tally.left[1]:
            raise UnsupportedModelError(
                f"{name}: {in_modules(tally.left[1][:1])} multiplies activations in a way that is no attention known here, and no state was kept."
            )
        raise UnsupportedModelError(
            f"{name}: no attention was called and no state was kept, so that it is no model of sequences that could be read from its code."
        )
    return _model(tally, name, dtype, (short, long), composite=composite)


def _two_stacks(
    module: torch.nn.Module, named: dict[int, tuple[str, ...]], buffers: dict[int, tuple[str, bool]], name: str, dtype: str | None
) -> Model:
    """Return the model of a module with an encoder and a decoder."""

    def run(given: dict[str, Any], lengths: tuple[int, ...]) -> Record:
        with _running(name, "on a source and tokens"):
            return watch(module, named, buffers, (), given, lengths)

    try:
        with quiet(), torch.device("meta"):
            return read_two_stacks(module, run, name, dtype)
    except UnsupportedModelError as error:
        said = str(error)
        raise UnsupportedModelError(said if said.startswith(f"{name}: ") else f"{name}: {said}") from None


def _further(
    module: torch.nn.Module,
    named: dict[int, tuple[str, ...]],
    buffers: dict[int, tuple[str, bool]],
    inputs: Inputs,
    name: str,
    unknown: int,
) -> tuple[Record, int] | None:
    """Return the longest run that a module with masks of its own allows, for windows show only beyond their length.

    It is one in which no more masks are unknown than in a short run: those of many heads may be larger than what is computed.
    """
    for tokens in _LONGER:
        try:
            record = _run(module, named, buffers, inputs, tokens, name)
        except UnsupportedModelError:  # more than its masks hold
            continue
        if _unknown(record) <= unknown or record.strange:
            return record, tokens
    return None


def _unknown(record: Record) -> int:
    """Return in how many calls and products it is not known what a token sees."""
    return sum(isinstance(event, (Call, Contraction)) and event.visible is None for event in record.events)


def _check_inputs(short: Record, long: Record) -> None:
    """Refuse inputs of which attention gets another number of tokens than was asked for."""
    rows = [max((event.queries for event in record.events if isinstance(event, Call)), default=None) for record in (short, long)]
    if rows[0] is None or rows[1] is None or rows[1] - rows[0] == _LENGTHS[1] - _LENGTHS[0]:
        return
    raise InvalidValueError(
        f"inputs makes {rows[0]} tokens where {_LENGTHS[0]} are asked for, and {rows[1]} where {_LENGTHS[1]} are; it makes as many as its argument says."
    )


def _check_batch(made: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> None:
    """Refuse inputs of several sequences."""
    first = [[leaf for leaf in (*positional, *given.values()) if isinstance(leaf, torch.Tensor)][:1] for positional, given in made]
    for short, long in zip(*first, strict=True):
        if short.ndim in (2, 3) and short.shape[0] == long.shape[0] > 1 and short.shape[1] != long.shape[1]:
            raise InvalidValueError(
                f"inputs makes a batch of {short.shape[0]} sequences; it makes one, of as many tokens as its argument says."
            )


def _run(
    module: torch.nn.Module, named: dict[int, tuple[str, ...]], buffers: dict[int, tuple[str, bool]], inputs: Inputs, tokens: int, name: str
) -> Record:
    with _running(name, f"with {tokens} token ids", "; inputs= gives a function of the number of tokens that makes other arguments"):
        positional, given = arguments(module, inputs, tokens)
        return watch(module, named, buffers, positional, given, (tokens,))


@contextmanager
def _running(name: str, how: str, otherwise: str = "") -> Iterator[None]:
    """Say in a sentence that code does not run, whatever it raises."""
    try:
        yield
    except (InvalidValueError, UnsupportedModelError):
        raise
    except Exception as error:  # whatever a module raises
        raise UnsupportedModelError(
            f"{name}: its code does not run on torch's meta device {how} ({type(error).__name__}: {one_line(error)}){otherwise}."
        ) from None


def _model(tally: Tally, name: str, dtype: str | None, records: tuple[Record, Record], *, composite: bool) -> Model:
    layers, outside = split_layers(tally)
    widths = common_widths(layers)
    vocabulary = token_table(tally, widths)
    hidden = width_of(widths, vocabulary)
    parts = groups(tally, layers, hidden)
    towers = towers_of(tally, outside) if composite else {}
    outside = [weight for weight in outside if not any(inside(weight.name, path) for path in towers)]
    ends, further, notes = ends_of(tally, outside, vocabulary, hidden, records[1])
    notes += named_towers(towers)
    model = Model(
        name=name,
        source=f"read from code: {type(tally.module).__name__}",
        hidden_size=hidden,
        dtype=dtype,
        layers=(*parts, *further),
        max_positions=_positions(tally, hidden),
        not_modelled=notes,
        unknown_towers=tuple(towers),
        **ends,
    )
    check_parameters(model, tally, towers)
    return model.but(not_modelled=(*notes, *rows_before(tally, records), *uncounted(model, tally, records, layers)))


def _positions(tally: Tally, hidden: int) -> int | None:
    """Return how many rows the longest table has that rows of tokens are looked up in by their positions, None where there is none."""
    tables = [shape for name in tally.placed if len(shape := tally.shapes.get(name, ())) == 2 and shape[1] == hidden]
    return max((rows for rows, _ in tables if rows >= tally.lengths[1]), default=None)
