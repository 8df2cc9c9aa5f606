"""What an encoder–decoder is run on: a source of a stated size beside the tokens, as text, frames or samples."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from roofline.errors import UnsupportedModelError
from roofline.torch_modules.build import one_line
from roofline.torch_modules.events import Record
from roofline.torch_modules.inputs import token_ids
from roofline.torch_modules.required import torch

TOKENS = (5, 11)
"""Tokens of the target in the two runs that tell what one of them costs [token]."""

_TEXT = (7, 13)
"""Tokens of a source of text in its two sizes: primes, as those of the target are, and others [token]."""

_WIDTHS = ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "d_model")
_LONG = (1 << 9, 1 << 14, 5 << 12)
"""Frames or samples of which an encoder makes positions, the first that it makes some of, the last in whole frames of 80."""

Run = Callable[[dict[str, Any], tuple[int, ...]], Record]


class Source(NamedTuple):
    """What the encoder is given, in two sizes."""

    name: str  # the argument that takes it
    given: tuple[torch.Tensor, torch.Tensor]  # the smaller and the larger, the same where there is only one size
    positions: tuple[int, int]  # what cross-attention sees of each

    @property
    def fixed(self) -> bool:
        """Whether the encoder takes one size alone."""
        return self.positions[0] == self.positions[1]


def two_stacks(module: torch.nn.Module) -> bool:
    """Return whether a module of transformers reads a source by an encoder and makes tokens by a decoder."""
    config = getattr(module, "config", None)
    return bool(getattr(config, "is_encoder_decoder", False)) and "decoder_input_ids" in inspect.signature(module.forward).parameters


def arguments(module: torch.nn.Module, source: Source, which: int, tokens: int) -> dict[str, Any]:
    """Return the arguments of a run on one of two sources and so many tokens."""
    return {source.name: source.given[which], "decoder_input_ids": token_ids(module, tokens)}


def source_of(module: torch.nn.Module, run: Run, name: str) -> Source:
    """Return a source that a module takes."""
    main, why = str(getattr(module, "main_input_name", "input_ids")), ""
    if main == "input_ids":
        small, large = (torch.zeros((1, size), dtype=torch.int64, device="meta") for size in _TEXT)
        return Source(main, (small, large), _TEXT)
    for small, large in _candidates(module, main):
        try:
            counts = [_positions(module, run, main, given) for given in (small, large)]
            if small.shape != large.shape:
                axis = next(i for i, (a, b) in enumerate(zip(small.shape, large.shape, strict=True)) if a != b)
                small, large, counts = _whole(module, run, main, (small, large), counts, axis)
        except UnsupportedModelError as error:
            why = why or one_line(error)
            continue
        return Source(main, (small, large), (counts[0], counts[1]))
    raise UnsupportedModelError(why or f"{name}: {type(module).__name__} takes {main}, of which no shape is known.")


def _candidates(module: torch.nn.Module, main: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield sources of two sizes that a module may take."""
    config: Any = module.config
    dtype = next(module.parameters()).dtype
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    if main in ("input_values", "inputs"):
        shapes = [((1, size), (1, 2 * size)) for size in _LONG]
    levels = [config, *(inner for inner in vars(config).values() if hasattr(inner, "to_json_string"))]
    if main == "flattened_patches":  # each with the row and the column that it is in
        widths = [level.patch_embed_hidden_size + 2 for level in levels if hasattr(level, "patch_embed_hidden_size")]
        shapes = [((1, small, width), (1, large, width)) for width in widths for small, large in (_TEXT,)]
    if main == "pixel_values":
        shapes = [
            ((1, getattr(level, "num_channels", 3), *_sides(level.image_size)),) * 2 for level in levels if hasattr(level, "image_size")
        ]
    longest = getattr(config, "max_source_positions", None)
    bins = getattr(config, "num_mel_bins", None)
    if isinstance(longest, int) and isinstance(bins, int):
        shapes.append(((1, bins, 2 * longest),) * 2)
    widths = [getattr(level, key, None) for key in _WIDTHS for level in levels]
    for width in dict.fromkeys(width for width in widths if isinstance(width, int)):
        shapes += [((1, _LONG[0], width), (1, 2 * _LONG[0], width))]
    for first, second in shapes:
        yield torch.zeros(first, dtype=dtype, device="meta"), torch.zeros(second, dtype=dtype, device="meta")


def _sides(size: Any) -> tuple[int, int]:
    """Return the height and the width of an image."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _positions(module: torch.nn.Module, run: Run, main: str, given: torch.Tensor) -> int:
    """Return how many positions an encoder makes of a source."""
    outputs = run({main: given, "decoder_input_ids": token_ids(module, TOKENS[0])}, (TOKENS[0], given.shape[1])).outputs
    rows = outputs.get("encoder_last_hidden_state") if isinstance(outputs, Mapping) else None
    if not isinstance(rows, torch.Tensor) or rows.ndim != 3 or not rows.shape[1]:
        raise UnsupportedModelError(f"{type(module).__name__} does not return what its encoder makes of a source.")
    return int(rows.shape[1])


def _whole(
    module: torch.nn.Module, run: Run, main: str, given: tuple[torch.Tensor, torch.Tensor], counts: list[int], axis: int
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Return sources that differ by a whole number of what becomes one position, six positions apart, so that edges cancel."""
    small, large = given
    more = large.shape[axis] - small.shape[axis]
    if counts[1] <= counts[0]:
        raise UnsupportedModelError(f"the encoder of {type(module).__name__} makes {counts[1]} positions of two different sources.")
    if counts[1] - counts[0] == more:
        return small, large, counts

    def longer(by: int) -> tuple[torch.Tensor, int]:
        given = small.new_zeros([size + by * (i == axis) for i, size in enumerate(small.shape)])
        return given, _positions(module, run, main, given) - counts[0]

    made = counts[1] - counts[0]
    if round(more / (made + 1)) != round(more / max(made - 1, 1)):  # what a last, partial position may hide
        more = 4 * round(more / made) ** 2
        made = longer(more)[1]
    step = round(more / made)
    large, further = longer(6 * step)
    after = counts[0] + further
    if after != counts[0] + 6:
        raise UnsupportedModelError(
            f"the encoder of {type(module).__name__} makes {counts[0]} and {after} positions of sources that are {6 * step} apart, not one of as many each."
        )
    return small, large, [counts[0], after]
