"""Hypothesis strategies: valid models, machines and steps, small enough to be quick and odd enough to find corners."""

from hypothesis import strategies as st

from roofline import Hardware, Model, Step
from roofline.model import Attention, DenseFeedForward, Embedding, Head, LayerGroup, Norm

__all__ = ["FORMATS", "contexts", "machines", "models", "rates", "steps"]

NAMED = ("h100-sxm", "a100-sxm-80gb", "v100-sxm2-16gb", "b200-sxm", "mi300x", "rtx-4090", "tpu-v5e", "apple-m3-max-40", "l4")
FORMATS = ("bf16", "fp16", "fp8", "int8", "int4", "mxfp4", "nvfp4")


def _norm(name, width, bias=False):
    return Norm(name=name, width=width, parameters=width * (1 + bias))


@st.composite
def attentions(draw, chunked=True, encoder=False):
    """Return attention with any grouping of heads, and any visibility of a decoder or that of an encoder."""
    kv_heads, group, width = draw(st.integers(1, 8)), draw(st.integers(1, 8)), draw(st.sampled_from((1, 32, 64, 128)))
    visible = "bidirectional" if encoder else draw(st.sampled_from(("causal", "window", "chunk") if chunked else ("causal", "window")))
    bias, normed = draw(st.booleans()), draw(st.booleans())
    return Attention(
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=width,
        v_head_dim=draw(st.sampled_from((None, 16))),
        visible=visible,
        span=draw(st.integers(1, 5000)) if visible in ("window", "chunk") else 0,
        query_bias=bias,
        key_bias=bias,
        value_bias=bias,
        output_bias=draw(st.booleans()),
        query_norm=_norm("self_attn.q_norm", width) if normed else None,
        key_norm=_norm("self_attn.k_norm", width) if normed else None,
        rotary=draw(st.booleans()),
    )


@st.composite
def models(draw, chunked=True, encoders=False):
    """Return a transformer of up to four kinds of layers, or now and then one of which only its size is known."""
    if draw(st.integers(0, 9)) == 0:
        return Model.anonymous(draw(st.integers(10**6, 10**12)))
    hidden, encoder = draw(st.integers(1, 4096)), encoders and draw(st.booleans())
    mixer = attentions(chunked=chunked, encoder=encoder)
    block = st.builds(DenseFeedForward, intermediate=st.integers(1, 20_000), gated=st.booleans(), bias=st.booleans())
    parts = st.one_of(st.tuples(mixer, block), st.tuples(mixer, st.none()), st.tuples(st.none(), block))
    norms = st.lists(st.sampled_from([_norm("input_layernorm", hidden), _norm("other_norm", hidden, bias=True)]), max_size=2).map(tuple)
    group = st.builds(
        lambda n, p, norms: LayerGroup(count=n, mixer=p[0], feed_forward=p[1], norms=norms), st.integers(1, 100), parts, norms
    )
    layers = draw(st.lists(group, min_size=1, max_size=4))
    vocabulary = draw(st.integers(1, 200_000))
    return Model(
        name="random",
        source="hypothesis",
        hidden_size=hidden,
        dtype=draw(st.sampled_from(("bf16", "fp16", "fp32"))),
        layers=tuple(layers),
        embedding=Embedding(vocabulary=vocabulary, width=hidden, positions=draw(st.sampled_from((0, 1024)))),
        final_norm=draw(st.sampled_from((None, _norm("norm", hidden)))),
        head=draw(
            st.one_of(
                st.none(), st.builds(Head, outputs=st.just(vocabulary), tied=st.booleans(), bias=st.booleans(), transform=st.booleans())
            )
        ),
        max_positions=draw(st.sampled_from((None, 4096))),
    )


def rates():
    """Return plausible bare rates: a bandwidth, a peak, a capacity."""
    return st.fixed_dictionaries(
        {
            "memory_bandwidth": st.floats(1e10, 1e14),
            "peak_flops_per_s": st.floats(1e11, 1e17),
            "memory_capacity": st.floats(1e9, 1e13),
        }
    )


def machines():
    """Return shipped machines and machines of bare rates."""
    return st.one_of(st.sampled_from(NAMED).map(Hardware.load), rates().map(lambda r: Hardware.from_rates(**r)))


def contexts():
    """Return context lengths, short ones as often as long ones."""
    return st.one_of(st.integers(0, 20), st.integers(0, 200_000))


@st.composite
def _groups(draw, cached):
    new = draw(st.one_of(st.just(1), st.integers(1, 10_000)))
    sampled = draw(st.sampled_from((0, 1, new)))
    return Step.of(count=draw(st.integers(1, 512)), new=new, cached=draw(contexts()) if cached else 0, sampled=sampled)


def steps(cached=True):
    """Return mixtures of one to three groups; `cached=False` gives what an encoder can be asked."""
    return st.lists(_groups(cached), min_size=1, max_size=3).map(lambda groups: sum(groups[1:], start=groups[0]))
