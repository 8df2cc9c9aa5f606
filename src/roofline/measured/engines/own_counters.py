"""The FLOP and bytes that an engine says its steps took, recomputed, and by how much it is off and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from roofline.deployment import Deployment
from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError, quoted
from roofline.formats import Format
from roofline.forward import Work
from roofline.frozen import FrozenDict
from roofline.measured.engines.window import EngineWindow
from roofline.ops import Op
from roofline.results import Result
from roofline.step import Step
from roofline.units import show_bytes, show_flops

# vllm/v1/metrics/perf.py, _QUANT_WEIGHT_BYTE_SIZE: one size for all weights but the head, whatever the checkpoint says of a module [B]
_PRICES: Mapping[str, float] = FrozenDict(
    {
        **dict.fromkeys(["fp8", "fbgemm_fp8", "ptpc_fp8", "fp_quant", "modelopt", "modelopt_mxfp8", "experts_int8"], 1.0),
        **dict.fromkeys(
            [
                "mxfp4",
                "awq",
                "awq_marlin",
                "gptq",
                "gptq_marlin",
                "modelopt_fp4",
                "petit_nvfp4",
                "compressed-tensors",
                "torchao",
                "quark",
                "moe_wna16",
                "inc",
            ],
            0.5,
        ),
    }
)
_SWITCH = "--enable-mfu-metrics"


@dataclass(frozen=True, slots=True)
class _Terms:
    """What steps take by our count, and by how much an engine's rule differs, term by term."""

    flops: float = 0.0
    bytes: float = 0.0
    rectangle_flops: float = 0.0
    weight_bytes: float = 0.0
    expert_bytes: float = 0.0
    activation_bytes: float = 0.0

    def plus(self, other: "_Terms", times: float) -> "_Terms":
        return _Terms(*(getattr(self, name) + times * getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class OwnCounters(Result):
    """An engine's own counters of FLOP and bytes beside ours, for the work of one window on one device.

    Parameters
    ----------
    window : EngineWindow
        The window [-].
    deployment : Deployment
        What ran in it [-].
    batch : float
        Sequences of the mean decode step [-].
    cached_context : float
        Tokens of each in the cache [token].
    counted_flops : float
        What the engine's counter grew by, of one device [FLOP].
    counted_bytes : float
        What its counters of bytes read and written grew by, of one device [B].
    flops : float
        What the steps need by our count [FLOP].
    compulsory_bytes : float
        What the steps must move by our count: weights, cache and state [B].
    terms : tuple
        Why an engine's rule gives something else: (reason, FLOP, bytes) [SI].
    """

    window: EngineWindow
    deployment: Deployment
    batch: float
    cached_context: float
    counted_flops: float
    counted_bytes: float
    flops: float
    compulsory_bytes: float
    terms: tuple[tuple[str, float, float], ...] = ()

    _numbers = (
        "batch",
        "cached_context",
        "counted_flops",
        "counted_bytes",
        "flops",
        "compulsory_bytes",
        "expected_flops",
        "expected_bytes",
    )

    @property
    def expected_flops(self) -> float:
        """What the engine's rule gives for the same steps: ours and the terms [FLOP]."""
        return self.flops + sum(flops for _, flops, _ in self.terms)

    @property
    def expected_bytes(self) -> float:
        """What the engine's rule gives for the same steps: ours and the terms [B]."""
        return self.compulsory_bytes + sum(size for _, _, size in self.terms)

    @property
    def flops_ratio(self) -> float:
        """The engine's FLOP over ours [-]."""
        return self.counted_flops / self.flops

    @property
    def bytes_ratio(self) -> float:
        """The engine's bytes over ours [-]."""
        return self.counted_bytes / self.compulsory_bytes

    def context(self) -> dict[str, Any]:
        """Return the window, and what ran in it [-]."""
        return self.window.context() | {"kind": "an engine's own counters", "deployment": repr(self.deployment)}

    def table(self) -> Sequence[Mapping[str, Any]]:
        """Return the terms, a row each [-]."""
        return tuple({"reason": reason, "flops": flops, "bytes": size} for reason, flops, size in self.terms)

    def summary(self) -> list[str]:
        """Return the short text: both counts with their ratios, then the terms [-]."""
        lines = [
            f"{self.window.engine} counted {show_flops(self.counted_flops)} and {show_bytes(self.counted_bytes)} on a device",
            f"  ours: {show_flops(self.flops)} and {show_bytes(self.compulsory_bytes)}; the engine's are {self.flops_ratio:.2f} × and "
            f"{self.bytes_ratio:.2f} × as much",
        ]
        for reason, flops, size in self.terms:
            parts = [f"{'+' if value > 0 else '−'}{show(abs(value))}" for value, show in ((flops, show_flops), (size, show_bytes)) if value]
            lines.append(f"  {', '.join(parts)}: {reason}")
        if self.terms:
            lines.append(f"  {show_flops(self.expected_flops)} and {show_bytes(self.expected_bytes)} by the engine's rule")
        return lines


@checks_keywords
def own_counters(
    window: EngineWindow, deployment: Deployment, *, quantization: str | None = None, cached_context: float | None = None
) -> OwnCounters:
    """Return what an engine's own counters of FLOP and bytes say of a window beside our count of the same steps.

    Parameters
    ----------
    window : EngineWindow
        Of vLLM or SGLang, started with ``--enable-mfu-metrics`` [-].
    deployment : Deployment
        What runs [-].
    quantization : str, optional
        As the engine's log names it, such as ``"compressed-tensors"``: vLLM gives all weights one size by that name; that of the deployment's
        formats if not given [-].
    cached_context : float, optional
        Mean tokens of a decoding sequence; what the window says if not given: its own, or the prompt and half the answer [token].

    Returns
    -------
    OwnCounters
        Both counts, and for vLLM the terms by which its rule differs [-].

    Raises
    ------
    InvalidValueError
        If the counters are off, or the window does not say the batch or the context.

    Notes
    -----
    The window's mean step stands for all of its steps. vLLM's rule differs from ours in four terms: one size for every quantized weight,
    min(T·k, E) experts where ours are those that T·k random choices reach on average, every activation in and out of memory, and the
    attention of a prompt to all its positions instead of the earlier half.

    References
    ----------
    vLLM, vllm/v1/metrics/perf.py.
    """
    counted = {name: window.counted.get(name) for name in ("flops", "read_bytes", "write_bytes")}
    if counted["flops"] is None:
        raise InvalidValueError(f"the pages of {window.engine} have no counters of estimated FLOP; vLLM and SGLang have them.")
    if not counted["flops"]:
        raise InvalidValueError(f"the counters of estimated FLOP are 0: they are off; start {window.engine} with {_SWITCH}.")
    if quantization is not None and quantization not in _PRICES:
        raise InvalidValueError(
            f"quantization is {quoted(quantization)}, for which vLLM counts the head alone; it knows {', '.join(_PRICES)}."
        )
    steps, context = _steps(window), _context(window, cached_context)
    batch = window.batch or 0.0
    price = None if quantization is None else _PRICES[quantization]
    total = _Terms()
    for whole, share in ((floor(batch), 1 - batch % 1), (ceil(batch), batch % 1)):  # linear between whole batches
        if whole and share:
            step = _step(window, whole, round(context))
            total = total.plus(_terms(Work(deployment.program, step), price, causal=1.0), share * steps)
    total = total.plus(*_prompts(window, deployment, price))
    reads = (counted["read_bytes"] or 0.0) + (counted["write_bytes"] or 0.0)
    terms = _named(total, quantization) if window.engine == "vllm" else ()
    return OwnCounters(
        window, deployment, batch, context, counted["flops"] / window.ranks, reads / window.ranks, total.flops, total.bytes, terms
    )


def _steps(window: EngineWindow) -> float:
    """Return the decode steps of one rank."""
    if window.batch is None:
        raise InvalidValueError("the window does not say how many sequences decode together; take pages further apart.")
    steps = window.counted.get("steps")
    if steps:
        return steps / window.ranks
    rows = window.counted.get("output_tokens", 0.0) - window.counted.get("completed", 0.0)
    return max(rows, 0.0) / window.batch / (window.accepted or 1.0)


def _step(window: EngineWindow, batch: int, context: int) -> Step:
    """Return a decode step, or under speculation one that verifies drafts."""
    return Step.verify(round(window.drafts), batch=batch, context=context) if window.drafts else Step.decode(batch=batch, context=context)


def _context(window: EngineWindow, given: float | None) -> float:
    if given is not None:
        return float(given)
    if window.cached_context is not None:
        return window.cached_context
    if window.prompt is None or window.output is None:
        raise InvalidValueError("the window does not say how long sequences are; give cached_context, the mean tokens of a decoding one.")
    return window.prompt + window.output / 2


def _prompts(window: EngineWindow, deployment: Deployment, price: float | None) -> tuple[_Terms, float]:
    """Return the work of a mean prompt beside the steps that it runs in, and how many there are on one rank."""
    tokens = window.counted.get("prompt_tokens", 0.0)
    if not tokens:
        return _Terms(), 0.0
    many = window.counted.get("first_tokens") or window.counted.get("completed")
    if not many:
        raise InvalidValueError(f"the window has {tokens:,.0f} tokens of prompts, but does not say of how many; take pages further apart.")
    mean = tokens / many
    hit = (window.prefix_hits or 0.0) * mean
    new = max(1, round(mean - hit))
    work = Work(deployment.program, Step.prefill(new + round(hit), cached=round(hit)))
    terms = _terms(work, price, causal=_rectangle(new, round(hit)))
    return _Terms(
        terms.flops, terms.bytes - float(work.total("weight_bytes")), terms.rectangle_flops, 0.0, 0.0, terms.activation_bytes
    ), many / window.ranks


def _rectangle(new: int, cached: int) -> float:
    """Return positions that vLLM counts for a prompt, all of them for each token, over those that a causal mask leaves [-]."""
    return new * (new + cached) / (new * cached + new * (new + 1) / 2)


def _terms(work: Work, price: float | None, *, causal: float) -> _Terms:
    """Return what one step takes, and the terms by which vLLM's rule differs."""
    ops = work.ops
    attention = sum(float(op.flops) for op in ops if op.family == "attention")
    weights = experts = moved = routed = 0.0
    for op in ops:
        if op.kind != "contraction" and not op.name.endswith(".activation"):  # of the rest vLLM counts the activation function alone
            continue
        moved += float(op.activation_bytes)
        if op.family == "experts":
            routed = float(op.rows) / op.count or routed  # the second product of the same tokens does not repeat them
            priced, chosen = _experts(op, price, routed)
            weights, experts = weights + priced, experts + chosen
        elif op.weight_bytes and price is not None and op.name != "lm_head":
            weights += float(op.weight_bytes) * (price / Format.load(op.stored).bytes_per_element - 1)
    return _Terms(float(work.total("flops")), float(work.compulsory_bytes), attention * (causal - 1), weights, experts, moved)


def _experts(op: Op, price: float | None, routed: float) -> tuple[float, float]:
    """Return the bytes by which vLLM's size of a weight and its number of experts change what experts read."""
    sizes, read = op.sizes, float(op.weight_bytes)
    if not read:
        return 0.0, 0.0
    share = 1 / sizes["matrices"] if "down" in op.name else 1 - 1 / sizes["matrices"]
    one = float(sizes["expert_bytes"]) * share * op.count  # of one expert in all these layers
    size = one if price is None else price * float(sizes["hidden"] * sizes["intermediate"] * sizes["matrices"]) * share * op.count
    chosen = min(routed, float(sizes["count"]) / float(sizes["ranks"]))
    return read * (size / one - 1), (chosen - read / one) * size


def _named(total: _Terms, quantization: str | None) -> tuple[tuple[str, float, float], ...]:
    priced = f"{_PRICES.get(quantization or '', 2.0):g} B, since quantization is {quantization}"
    terms = (
        ("activations of every product are read and written in memory", 0.0, total.activation_bytes),
        (f"every weight but the head's has {priced}", 0.0, total.weight_bytes),
        ("min(T·k, E) experts are read", 0.0, total.expert_bytes),
        ("a token of a prompt attends to all its positions", total.rectangle_flops, 0.0),
    )
    return tuple(term for term in terms if abs(term[1]) > 1e-9 * total.flops or abs(term[2]) > 1e-9 * total.bytes)
