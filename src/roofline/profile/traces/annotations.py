"""What engines write into a trace about the batch of a step, and the `Step` that it means.

vLLM names the range around a step after its requests: ``execute_context_<n>(<tokens>)_generation_<n>(<tokens>)``; with
``detailed_trace_annotation`` the sums of new tokens (sq), of lengths (sk), of squares and products stand in place of the tokens
(``vllm/v1/worker/gpu_worker.py``). SGLang writes ``step[DECODE bs=32]`` and ``step[EXTEND bs=15 toks=15360]``; with roofline
annotations the same sums follow, ``c_`` of prompts and ``g_`` of sequences that decode (``sglang/srt/model_executor``).
"""

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from roofline.errors import InvalidValueError
from roofline.step import Sequences, Step
from roofline.step.step import lone_step
from roofline.units import whole_number

_SUMS = r"sq(\d+)sk(\d+)sqsq(\d+)sqsk(\d+)"
_VLLM_DETAILED = re.compile(rf"execute_\d+_context_(\d+)\({_SUMS}\)_generation_(\d+)\({_SUMS}\)$")
_VLLM = re.compile(r"execute_context_(\d+)\((\d+)\)_generation_(\d+)\((\d+)\)$")
_SGLANG = re.compile(r"step\[(\w+) bs=(\d+)((?: \w+=\d+)*)\]$")


class Sums(NamedTuple):
    """Requests of one kind in a step: how many, and sums over them; None where the annotation does not say it.

    Parameters
    ----------
    requests : int
        How many [-].
    new : int or None
        Tokens to process, of all together [token].
    lengths : int or None
        Tokens after the step, of all together [token].
    squares : int or None
        Squares of the new tokens of each, added up [token²].
    products : int or None
        New tokens of each times its length, added up [token²].
    """

    requests: int
    new: int | None
    lengths: int | None = None
    squares: int | None = None
    products: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What an annotation says of a step.

    Parameters
    ----------
    context, generation : Sums
        Requests whose prompts are processed, and those that decode [-].
    mode : str
        ``"decode"``, ``"prefill"``, ``"mixed"``; ``"empty"`` of a pass that only keeps other ranks company; of other passes what the engine
        calls them, such as ``"target_verify"`` [-].
    """

    context: Sums
    generation: Sums
    mode: str

    @property
    def requests(self) -> int:
        """Requests of both kinds."""
        return self.context.requests + self.generation.requests

    @property
    def tokens(self) -> int | None:
        """Tokens that it processes; None where the annotation does not say them."""
        new = self.context.new, self.generation.new
        return None if new[0] is None or new[1] is None else new[0] + new[1]

    @property
    def told(self) -> bool:
        """Whether all sums are known, so that the step follows from the annotation alone."""
        return all(None not in sums for sums in (self.context, self.generation) if sums.requests)

    def step(self, *, context: int | None = None, cached: int | None = None) -> Step | None:
        """Return the step that was run, None where too little is known of it.

        Parameters
        ----------
        context : int, optional
            Tokens in the cache of each sequence that decodes, where the annotation does not say it [token].
        cached : int, optional
            Tokens in the cache of each request whose prompt is processed, where the annotation does not say it [token].

        Returns
        -------
        Step or None
            Groups of sequences whose sums are those of the annotation [-].
        """
        groups: list[Sequences] = []
        for sums, held, sampled in ((self.context, cached, False), (self.generation, context, True)):
            if not sums.requests:
                continue
            filled = sums if None not in sums else _filled(sums, held)
            if filled is None:
                return None
            groups += _groups(filled, all_sampled=sampled)
        return Step(tuple(groups)) if len(groups) > 1 else lone_step(groups[0]) if groups else None


def read_batch(name: str) -> Batch | None:
    """Return what the name of an annotation says of a step, None if it is about something else.

    Examples
    --------
    >>> read_batch("step[EXTEND bs=15 toks=15360]").step(cached=0).tokens
    15360
    >>> read_batch("ProfilerStep#6") is None
    True
    """
    if found := _VLLM_DETAILED.match(name):
        numbers = [int(number) for number in found.groups()]
        return _batch(Sums(*numbers[:5]), Sums(*numbers[5:]))
    if found := _VLLM.match(name):
        n, tokens, m, more = map(int, found.groups())
        return _batch(Sums(n, tokens), Sums(m, more))
    if found := _SGLANG.match(name):
        said = dict(pair.split("=") for pair in found[3].split())
        return _sglang(found[1], int(found[2]), {key: int(value) for key, value in said.items()})
    return None


def _sglang(mode: str, count: int, said: dict[str, int]) -> Batch:
    """Return the batch of SGLang's name of a step."""

    def sums(kind: str, count: int, new: int | None) -> Sums:
        return Sums(count, said.get(f"{kind}_sq", new), *(said.get(f"{kind}_{name}") for name in ("sk", "sqsq", "sqsk")))

    nothing = Sums(0, 0)
    if mode == "DECODE":
        return Batch(nothing, sums("g", count, count), "decode")
    if mode == "EXTEND":
        return Batch(sums("c", count, said.get("toks")), nothing, "prefill")
    if mode == "MIXED" and "c" in said and "g" in said:
        return _batch(sums("c", said["c"], None), sums("g", said["g"], None))
    return Batch(nothing, Sums(count, None), mode.lower())


def _batch(context: Sums, generation: Sums) -> Batch:
    modes = {(True, True): "mixed", (True, False): "prefill", (False, True): "decode"}
    return Batch(context, generation, modes.get((context.requests > 0, generation.requests > 0), "empty"))


def _filled(sums: Sums, held: int | None) -> Sums | None:
    """Return sums of requests that are alike, with so many cached tokens each; None where tokens or cache are not known."""
    if held is None or sums.new is None or sums.new < sums.requests:
        return None
    held = whole_number("context", held)
    each = sums.new / sums.requests
    return sums._replace(
        lengths=sums.new + sums.requests * held,
        squares=round(sums.requests * each**2),
        products=round(sums.new * (each + held)),
    )


def _groups(sums: Sums, *, all_sampled: bool) -> list[Sequences]:
    """Return groups of sequences with these sums: exactly those of new and cached tokens, and the others as nearly as whole tokens allow.

    Requests of unlike length are taken for two kinds, short and long ones, whose mean, spread and caches give the sums.
    """
    count, new, lengths, squares, products = (int(number or 0) for number in sums)
    held = lengths - new
    if new < count or held < 0 or squares * count < new * new or products < squares:
        raise InvalidValueError(
            f"an annotation says {count} requests, {new} new tokens, lengths of {lengths}, squares {squares}, products {products}: no batch has these sums."
        )
    many, long = _long(count, new, squares)
    if not many:
        return _spread(count, new, held, all_sampled=all_sampled)
    short = (new - many * long) / (count - many)
    of_long = (products - squares - short * held) / (long - short)  # cached tokens of the long ones: two equations
    of_long = min(max(round(of_long), 0), held)
    return [
        *_spread(many, many * long, of_long, all_sampled=all_sampled),
        *_spread(count - many, new - many * long, held - of_long, all_sampled=all_sampled),
    ]


def _long(count: int, new: int, squares: int) -> tuple[int, int]:
    """Return how many requests are long ones, and their new tokens; none where all are alike."""
    mean = new / count
    spread = math.sqrt(max(squares / count - mean**2, 0.0))
    if spread * count < 0.5:
        return 0, 0
    odds = ((mean - 1) / spread) ** 2  # of long to short ones: with more of them, short ones would have less than a token
    many = max(1, min(count // 2, int(count * odds / (1 + odds))))
    long = round(mean + spread * math.sqrt((count - many) / many))
    return many, min(long, (new - (count - many)) // many)


def _spread(count: int, new: int, held: int, *, all_sampled: bool) -> list[Sequences]:
    """Return sequences that share new and cached tokens as evenly as whole tokens allow."""
    groups = []
    (few, more), (little, much) = divmod(new, count), divmod(held, count)
    for first, last in zip(cuts := sorted({0, more, much, count}), cuts[1:], strict=False):
        tokens, cached = few + (first < more), little + (first < much)
        groups.append(Sequences(last - first, tokens, cached, tokens if all_sampled else 1))
    return groups
