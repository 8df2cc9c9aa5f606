"""The known optimizations, each as what it changes in the call of a floor."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from roofline.deployment import Deployment
from roofline.deployment.inputs import machine_input, model_input
from roofline.errors import RooflineError
from roofline.floors import Floor, decode_floor, prefill_floor, step_floor
from roofline.forward.lowering import FUSIONS
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.optimizations.changes import half_kv_heads, latent_cache, scaled, windowed
from roofline.results import several
from roofline.step import Sequences, Step, expected_tokens


@dataclass(frozen=True, slots=True)
class Asked:
    """The step whose levers are evaluated, as the call of a floor."""

    kind: str  # which floor
    deployment: Deployment  # what runs the step
    shape: Mapping[str, Any]  # how large the step is: batch and context; batch, prompt and cached; or a ``step``

    def floor(self, change: Mapping[str, Any]) -> Floor:
        """Return the floor with some arguments changed, be they the step's or the deployment's."""
        if "step" in change:
            kind, shape = "step", {"step": change["step"]}
        else:
            kind, shape = self.kind, {name: change.get(name, value) for name, value in self.shape.items()}
        changed = {name: value for name, value in change.items() if name not in self.shape and name != "step"}
        return _FLOORS[kind](self.deployment.but(**changed) if changed else self.deployment, **shape)


_FLOORS: dict[str, Callable[..., Floor]] = {"decode": decode_floor, "prefill": prefill_floor, "step": step_floor}


@dataclass(frozen=True, slots=True)
class Options:
    """What the levers themselves have to be told."""

    drafts: int  # draft tokens per verification [token]
    acceptance: float  # probability that a draft is accepted
    draft: Model | None  # who drafts; None for the model's own multi-token-prediction modules, or a look-up that costs nothing
    hit: float  # share of the prompt found in the prefix cache
    machines: tuple[Hardware, ...]  # other machines to try

    def inputs(self) -> dict[str, Any]:
        """Return the options as inputs of the question."""
        told: dict[str, Any] = {"drafts": self.drafts, "acceptance": self.acceptance, "hit": self.hit}
        told |= {} if self.draft is None else {"draft": model_input(self.draft)}
        return told | ({"machines": several([machine_input(machine) for machine in self.machines])} if self.machines else {})


@dataclass(frozen=True, slots=True)
class Proposal:
    """One lever before it is evaluated."""

    name: str  # what it is called
    group: str  # what kind of lever it is
    change: Mapping[str, Any]  # keywords of the floor that change, with their new values; a ``step`` is for `step_floor`
    how: str  # what to do
    caveat: str = ""  # what it costs beside memory and devices
    tokens: float = 1.0  # useful tokens of the changed step for each of the old one's
    per: str = "step"  # ``"token"`` or ``"step"``: what the times are compared for
    refusal: str = ""  # why it does not apply; empty where it does
    draft: Mapping[str, Any] | None = None  # what changes in the deployment for the draft steps that run beside
    repeats: int = 0  # how many such draft steps


def menu(asked: Asked, base: Floor, options: Options) -> Iterator[Proposal]:
    """Yield every lever, applicable or not."""
    yield from _formats(asked, base)
    yield _batch(asked)
    yield from _parallel(asked)
    yield from _machines(base, options)
    yield _speculative(asked, base, options)
    yield _prefix(asked, options)
    yield from _fusion(asked)
    yield _shorter(asked)
    yield from _models(base)


def _weights(given: Any, format: str) -> Any:
    """Replace the general format, keep the choices for single components."""
    return {**given, "*": format} if isinstance(given, Mapping) else format


def _formats(asked: Asked, base: Floor) -> Iterator[Proposal]:
    given, model = asked.deployment.options.get("weights"), base.model
    rest = base.work.program.precision.base
    # `weights` of 16 bits or more said what the rest is in as well, and is about to be replaced
    named = {"dtype": rest.name} if rest.name != model.dtype and not rest.weights_only else {}
    for name in ("fp8_a16", "int4", "nvfp4_a16"):
        change = {"weights": _weights(given, name), **named}
        how = f"store the weights in {name.removesuffix('_a16')}, multiply as before"
        yield Proposal(f"weights {name}", "weights", change, how, "quantized weights: check the quality on your task")
    for name in ("fp8", "int8", "nvfp4"):
        change = {"weights": _weights(given, name), "activations": name, **named}
        how = f"store the weights and multiply in {name}"
        yield Proposal(
            f"weights and activations {name}", "activations", change, how, "quantized weights and activations: check the quality"
        )
    how = "multiply in fp8 wherever the weights are that narrow already"
    yield Proposal("activations fp8", "activations", {"activations": "fp8"}, how, "quantized activations: check the quality")
    cached = base.kv_read_bytes + base.kv_write_bytes > 0
    for name in ("fp8", "nvfp4"):
        refusal = "" if cached else "the step has no KV cache"
        caveat = "quantized cache: check the quality at long context"
        yield Proposal(f"KV cache {name}", "cache", {"kv": name}, f"keep the KV cache in {name}", caveat, refusal=refusal)


def _scaled_groups(step: Step, change: Callable[[Sequences], Sequences]) -> Step:
    return Step(tuple(change(group) for group in step.groups))


def _batch(asked: Asked) -> Proposal:
    if asked.kind == "step":
        change: dict[str, Any] = {"step": _scaled_groups(asked.shape["step"], lambda g: g._replace(count=g.count * 2))}
    else:
        change = {"batch": asked.shape["batch"] * 2}
    caveat = "every sequence waits for the larger step"
    return Proposal("twice the batch", "batching", change, "put twice the sequences into the step", caveat, tokens=2.0, per="token")


def _parallel(asked: Asked) -> Iterator[Proposal]:
    now = asked.deployment.parallel.tensor
    for degree in (2, 4, 8):
        name, how = f"tensor_parallel={degree}", f"split every layer over {degree} devices"
        refusal = "" if degree > now else f"the step is split {now} ways already"
        yield Proposal(name, "devices", {"tensor_parallel": degree}, how, "two all-reduces per layer", refusal=refusal)


def _machines(base: Floor, options: Options) -> Iterator[Proposal]:
    for what in ("memory bandwidth", "FLOP/s", "memory capacity", "link bandwidth"):
        if what == "link bandwidth" and not base.network_s:
            continue
        name, how = f"twice the {what}", f"a machine like this one with 2 × the {what}"
        yield _built(name, "machine", how, "another machine", hardware=partial(scaled, base.hardware, what))
    for other in options.machines:
        yield Proposal(f"machine {other.id}", "machine", {"hardware": other}, f"run on {other.name}", "another machine")


def _built(name: str, group: str, how: str, caveat: str, **change: Callable[[], Any]) -> Proposal:
    """Return a proposal whose change may turn out to be impossible when it is made."""
    try:
        return Proposal(name, group, {key: make() for key, make in change.items()}, how, caveat)
    except RooflineError as error:
        return Proposal(name, group, {}, how, caveat, refusal=str(error).rstrip("."))


def _speculative(asked: Asked, base: Floor, options: Options) -> Proposal:
    name, k = "speculative decoding", options.drafts
    own = options.draft is None and len(base.model.mtp_modules) > 0
    drafter = options.draft.name if options.draft else "its own multi-token-prediction module" if own else "a look-up that costs nothing"
    how = f"verify {k} draft{'s' if k != 1 else ''} of {drafter} at once, acceptance {options.acceptance:g}"
    if asked.kind != "decode":
        return Proposal(
            name, "scheduling", {}, how, per="token", refusal="it drafts tokens that are decoded, and this step is not a decode"
        )
    batch, context = asked.shape["batch"], asked.shape["context"]
    change: dict[str, Any] = {"step": Step.verify(k, batch=batch, context=context)}
    if own:
        change["mtp"] = max(k, asked.deployment.mtp)
    draft = None
    if options.draft is not None:
        draft = {"model": options.draft, "weights": None, "activations": None, "kv": None, "routing": "uniform", "mtp": 0}
    gain = expected_tokens(k, options.acceptance)
    caveat = f"pays only at the acceptance assumed ({gain:.3g} tokens per verification)"
    return Proposal(name, "scheduling", change, how, caveat, tokens=gain, per="token", draft=draft, repeats=k)


def _prefix(asked: Asked, options: Options) -> Proposal:
    name, how = "prefix cache", f"find {options.hit:.0%} of the prompt in a prefix cache"
    if asked.kind != "prefill":
        return Proposal(name, "scheduling", {}, how, refusal="it saves work on prompts, and this step is not a prefill")
    prompt, before = asked.shape["prompt"], asked.shape["cached"]
    cached = min(int(options.hit * prompt), prompt - 1)
    refusal = "" if cached > before else f"{before} of {prompt} tokens are cached already"
    return Proposal(name, "scheduling", {"cached": cached}, how, "memory that keeps the prefixes", refusal=refusal)


def _fusion(asked: Asked) -> Iterator[Proposal]:
    now = FUSIONS.index(asked.deployment.fusion)
    for level, name, how in (
        (1, "flash attention", "never write the score matrix"),
        (2, "operator fusion", "keep every activation on chip"),
    ):
        refusal = "" if level > now else f"in use already (fusion={asked.deployment.fusion!r})"
        yield Proposal(name, "kernels", {"fusion": FUSIONS[level]}, how, "kernels that somebody writes", refusal=refusal)


def _shorter(asked: Asked) -> Proposal:
    caveat = "the model sees less"
    if asked.kind == "prefill":
        prompt, cached = asked.shape["prompt"], asked.shape["cached"]
        change: dict[str, Any] = {"prompt": prompt // 2, "cached": cached // 2}
        refusal = "" if prompt // 2 > cached // 2 else "the prompt cannot be halved"
        return Proposal("half the prompt", "context", change, "cut or summarize the prompt", caveat, refusal=refusal)
    name, how = "half the context", "cut or summarize what stays in the cache"
    if asked.kind == "step":
        step = _scaled_groups(asked.shape["step"], lambda g: g._replace(cached=g.cached // 2))
        refusal = "" if step != asked.shape["step"] else "nothing is cached"
        return Proposal(name, "context", {"step": step}, how, caveat, refusal=refusal)
    refusal = "" if asked.shape["context"] else "nothing is cached"
    return Proposal(name, "context", {"context": asked.shape["context"] // 2}, how, caveat, refusal=refusal)


def _models(base: Floor) -> Iterator[Proposal]:
    model, window = base.model, int(base.work.step.longest) // 2
    caveat = "another model: it has to be trained"
    if window < 1:
        yield Proposal("sliding window", "model", {}, "attend to half the sequence", caveat, refusal="the sequence is one token long")
    else:
        how = f"let full attention see the last {window} tokens only"
        yield _built("sliding window", "model", how, caveat, model=partial(windowed, model, window))
    how = "share each KV head by twice the queries"
    yield _built("half the KV heads", "model", how, caveat, model=partial(half_kv_heads, model))
    how = "cache one latent row per token (MLA)"
    yield _built("latent KV cache", "model", how, caveat, model=partial(latent_cache, model))
