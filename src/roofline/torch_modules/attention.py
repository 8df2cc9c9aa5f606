"""A mixer of tokens as the part that it is: attention, latent attention, or what is counted of it."""

import re
from collections.abc import Sequence
from typing import Any

from roofline.model import Attention, CountedMixer, LatentAttention, Mixer, Norm
from roofline.torch_modules.events import Call
from roofline.torch_modules.kept import Kept
from roofline.torch_modules.pieces import Pieces, norms_of
from roofline.torch_modules.required import torch
from roofline.torch_modules.tally import Weight
from roofline.visibility import BIDIRECTIONAL, CAUSAL, Visibility

_FORMATS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp32"}


def mixer(
    pieces: Pieces, calls: Sequence[Call], kept: Sequence[Kept], hidden: int, prefix: str, *, cached: bool
) -> tuple[Mixer, tuple[Norm, ...]]:
    """Return the part that mixes tokens, and the norms that it does not name itself."""
    rows = sum(held.row for held in kept)
    states = any(not held.row for held in kept)
    one = len(calls) == 1 and not states and (cached or _kept_of(calls) == calls[0].kv_heads * (calls[0].qk_dim + calls[0].v_dim))
    if one:  # of keys that are the values as well, what is kept is counted
        (call,) = calls
        visible = seen(call, kept, rows, cached=cached)
        for fit in (_attention, _latent):
            found = fit(pieces, call, visible, rows, hidden, prefix, cached=cached)
            if found is not None:
                return found
    return counted(pieces, calls, kept, prefix, cached=cached), ()


def seen(call: Call, kept: Sequence[Kept], rows: int, *, cached: bool) -> Visibility:
    """Return what a token sees: as the call says it, cut to the window of the cache or to what an indexer selects."""
    visible = call.visible
    if visible is None:
        visible = CAUSAL if rows or cached else BIDIRECTIONAL
    span, selected = max((held.span for held in kept if held.row), default=0), max((held.selects for held in kept), default=0)
    if visible != CAUSAL or not (span or selected):
        return visible
    return Visibility("selected", selected) if selected else Visibility("window", span)


def counted(pieces: Pieces, calls: Sequence[Call], kept: Sequence[Kept], prefix: str, *, cached: bool) -> CountedMixer:
    """Return a mixer by what it multiplies and keeps."""
    rows = sum(held.row for held in kept)
    still = [held for held in kept if held.elements]
    usual = [held for held in still if held.usual]
    mixed = len({held.dtype for held in still}) > 1
    columns = usual if mixed else [held for held in usual if "conv" in held.label]
    states = [held for held in still if held not in columns]
    fields: dict[str, Any] = {}
    if calls:
        visible = seen(calls[0], kept, rows, cached=cached)
        flops = sum(call.heads * (call.qk_dim + call.v_dim) for call in calls)
        fields = {"heads": 1, "qk_dim": flops // 2, "v_dim": flops - flops // 2} if len(calls) > 1 else {}
        fields |= {} if fields else {"heads": calls[0].heads, "qk_dim": calls[0].qk_dim, "v_dim": calls[0].v_dim}
        if not cached and visible.kind != "bidirectional":
            rows = rows or _kept_of(calls)
        fields |= {"visible": visible.kind, "span": visible.span}
    return CountedMixer(
        projections=pieces.projections(prefix),
        further=pieces.further,
        row=rows,
        state=sum(held.elements for held in states),
        state_format=_FORMATS.get(states[0].dtype, "fp32") if states else "fp32",
        columns=sum(held.elements for held in columns),
        token_flops=round(pieces.others),
        **fields,
    )


def _kept_of(calls: Sequence[Call]) -> int:
    """Return the elements of keys and values that a token adds, each counted once however many calls read it."""
    sizes: dict[object, int] = {}
    for i, call in enumerate(calls):
        key, value = call.held or ((i, "key"), (i, "value"))
        for held, width in ((key, call.qk_dim), (value, call.v_dim)):
            sizes[held] = max(sizes.get(held, 0), call.kv_heads * width)
    return sum(sizes.values())


def _letter(weight: Weight, letter: str) -> bool:
    """Return whether a name says that a matrix makes queries, keys or values."""
    last = weight.leaf.rsplit(".", 1)[-1]
    return bool(re.match(rf"(lin_|c_)?{letter}(_|$|lin|proj|uery|ey|alue)", last))


def _split(pieces: Pieces, call: Call, hidden: int) -> tuple[Weight, list[Weight]] | None:
    """Return the output matrix of attention and what comes before it; None if it cannot be told."""
    into = [weight for weight in pieces.matrices if weight.inputs == call.heads * call.v_dim and weight.outputs == hidden]
    if not into or any(weight.uses != 1 or weight.format for weight in pieces.matrices) or pieces.others:
        return None
    if any(vector.size >= hidden * hidden for vector in pieces.vectors):  # a matrix that no token passes
        return None
    out = into[-1]
    return out, [weight for weight in pieces.matrices if weight is not out]


def _attention(
    pieces: Pieces, call: Call, visible: Visibility, rows: int, hidden: int, prefix: str, *, cached: bool
) -> tuple[Mixer, tuple[Norm, ...]] | None:
    """Return softmax attention if all sizes are its own."""
    split = _split(pieces, call, hidden)
    if split is None or visible.kind == "selected":
        return None
    out, wide = split
    kv_heads = call.kv_heads
    if rows and rows % (call.qk_dim + call.v_dim) == 0:
        kv_heads = rows // (call.qk_dim + call.v_dim)
    q, k, v = call.heads * call.qk_dim, kv_heads * call.qk_dim, kv_heads * call.v_dim
    inputs = {weight.inputs for weight in wide}
    if len(inputs) != 1 or call.heads % kv_heads:
        return None
    shared = cached and not rows and visible.kind != "bidirectional"
    made = sum(weight.outputs for weight in wide)
    plain = q if shared else q + k + v
    extra: dict[int, dict[str, Any]] = {0: {}, q: {"gate": True}, call.heads: {"head_gate": True}}
    if k == v and not shared:
        extra[-v] = {"value_from_key": True}
    options = extra.get(made - plain)
    if options is None:
        return None
    biases = _biases(pieces, wide, out, q, k, v)
    if biases is None:
        return None
    tables, sinks = _tables(pieces, call), _sinks(pieces, call)
    queries, keys, norms = qk_norms(pieces, call, prefix, besides=(*tables, *sinks))
    width = inputs.pop()
    found = Attention(
        heads=call.heads,
        kv_heads=kv_heads,
        head_dim=call.qk_dim,
        v_head_dim=None if call.v_dim == call.qk_dim else call.v_dim,
        visible=visible.kind,
        span=visible.span,
        query_norm=queries,
        key_norm=keys,
        sinks=bool(sinks),
        bias_table=sum(table.size for table in tables),
        shared_cache=shared,
        input_width=None if width == hidden else width,
        **options,
        **biases,
    )
    whole = sum(weight.size + pieces.bias(weight) for weight in pieces.matrices)
    return (found, norms) if sum(matrix.parameters for matrix in found.matrices(hidden)) == whole else None


def _biases(pieces: Pieces, wide: list[Weight], out: Weight, q: int, k: int, v: int) -> dict[str, Any] | None:
    """Return which projections have biases, None if only a part of one has."""
    found: dict[str, Any] = {"output_bias": bool(pieces.bias(out))}
    if pieces.bias(out) not in (0, out.outputs):
        return None
    sizes = [pieces.bias(weight) for weight in wide]
    if not any(sizes):
        return found
    if len(wide) == 1:
        return found | dict.fromkeys(("query_bias", "key_bias", "value_bias"), True) if sizes[0] == wide[0].outputs == q + k + v else None
    for name, letter in (("query_bias", "q"), ("key_bias", "k"), ("value_bias", "v")):
        of = [weight for weight in wide if _letter(weight, letter)]
        if len(of) != 1 or pieces.bias(of[0]) not in (0, of[0].outputs):
            return None
        found[name] = bool(pieces.bias(of[0]))
    named = sum(size for size, name in zip((q, k, v), ("query_bias", "key_bias", "value_bias"), strict=True) if found[name])
    return found if named == sum(sizes) else None


def _tables(pieces: Pieces, call: Call) -> list[Weight]:
    """Return tables of biases that the scores of every head get by distance."""
    return [v for v in pieces.vectors if len(v.shape) == 2 and v.shape[1] == call.heads and "bias" in v.leaf.rsplit(".", 1)[-1]]


def _sinks(pieces: Pieces, call: Call) -> list[Weight]:
    """Return what holds the sinks of all heads."""
    return [v for v in pieces.vectors if call.sinks and "sink" in v.leaf.rsplit(".", 1)[-1] and v.size == call.heads][:1]


def qk_norms(pieces: Pieces, call: Call, prefix: str, besides: Sequence[Weight] = ()) -> tuple[Norm | None, Norm | None, tuple[Norm, ...]]:
    """Return the norms of queries and of keys, and further vectors as norms."""
    named: dict[str, Norm] = {}
    rest: list[Norm] = []
    for norm in norms_of([vector for vector in pieces.vectors if vector not in besides], prefix):
        if (which := norm.name[0]) in "qk" and "norm" in norm.name and which not in named:
            named[which] = norm.but(name=f"self_attn.{which}_norm")
        else:
            rest.append(norm)
    return named.get("q"), named.get("k"), tuple(rest)


def _latent(
    pieces: Pieces, call: Call, visible: Visibility, rows: int, hidden: int, prefix: str, *, cached: bool
) -> tuple[Mixer, tuple[Norm, ...]] | None:
    """Return latent attention if all sizes are its own, and the row that is kept is the latent one."""
    split = _split(pieces, call, hidden)
    if split is None or pieces.biases or visible != CAUSAL:
        return None
    _, wide = split
    for down in wide:
        for up in wide:
            rope = down.outputs - up.inputs
            nope = call.qk_dim - rope
            if up is down or down.inputs != hidden or not 0 < rope < call.qk_dim or up.outputs != call.heads * (nope + call.v_dim):
                continue
            queries = [weight for weight in wide if weight is not down and weight is not up]
            rank = queries[0].outputs if len(queries) == 2 else None
            found = LatentAttention(
                heads=call.heads, q_lora_rank=rank, kv_lora_rank=up.inputs, nope_dim=nope, rope_dim=rope, v_head_dim=call.v_dim
            )
            vectors = sum(vector.parameters for vector in found.vectors())
            matrices = sum(matrix.parameters for matrix in found.matrices(hidden))
            if (
                vectors == pieces.further
                and matrices == sum(w.size for w in pieces.matrices)
                and (rows == up.inputs + rope or not (rows or cached))
            ):
                return found, ()
    return None
