"""The options of a service: names, types and descriptions, once for all questions about one."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from roofline.deployment import Deployment
from roofline.deployment.options import DeploymentOptions, Option
from roofline.engines import Engine
from roofline.frozen import FrozenDict
from roofline.records import CalibrationRecord
from roofline.serving.rules import Reserve
from roofline.serving.steps.service_fit import ServiceFit

Question = TypeVar("Question", bound=Callable[..., Any])


class ServiceOptions(DeploymentOptions, total=False):
    """What every question about a service takes, beside the options of a deployment."""

    cached: Any
    prompt_cv: Any
    output_cv: Any
    drafts: int | None
    acceptance: float | Sequence[float] | None
    replicas: int
    prefill: Deployment | None
    prefill_replicas: int
    link_bandwidth: float | str | None
    static: bool
    rounds: float | None
    engine: str | Engine
    step_tokens: int | None
    sequences: int | None
    kv_blocks: int | None
    admission: Reserve | None
    chunked: bool | None
    max_model_len: int | None
    mixed: bool | None
    receive_interval: int | None
    rank_wait_steps: int | None
    graph_tokens: int | None
    basis: Literal["estimate", "roofline", "floor"]
    calibration: CalibrationRecord | str | Path | None
    quantile: float | None
    cuda_graph: bool
    fit: ServiceFit | None


SERVICE = {
    "cached": Option("int or array_like", "Tokens of each prompt that a prefix cache has", 0, unit="token", value=int),
    "prompt_cv": Option("float or array_like", "Standard deviation of the lengths of prompts over their mean", 0.0, value=float),
    "output_cv": Option("float or array_like", "Standard deviation of the lengths of answers over their mean", 0.0, value=float),
    "drafts": Option(
        "int",
        "Draft tokens that each step verifies, and that nothing is taken to draft; those of the deployment's own modules (`mtp`), with their time, if not given",
        unit="token",
        value=int,
    ),
    "acceptance": Option(
        "float or sequence of float",
        "Probability that a draft is accepted if those before it were; those after a rejected one are lost",
        value=float,
    ),
    "replicas": Option("int", "Replicas of the deployment, which share the load evenly", 1, value=int),
    "prefill": Option("Deployment", "What computes the prompts, where a pool of its own does; its caches then go over a link"),
    "prefill_replicas": Option("int", "Replicas of that", 1, value=int),
    "link_bandwidth": Option(
        "float or str",
        "What one device sends or receives of a cache; what the machines have between servers if not given",
        unit="B/s",
        value=float,
    ),
    "static": Option("bool", "Whether a batch begins when all sequences of the one before have ended", False, value=bool),
    "rounds": Option(
        "float", "Requests of each client, all of whom begin together, as benchmarks run them; a lasting load if not given", value=float
    ),
    "engine": Option("str or Engine", "Whose rules, limits and host times; after a name perhaps a version, as in 'sglang 0.5.9'", "vllm"),
    "step_tokens": Option(
        "int", "Most tokens of a step (vLLM: max_num_batched_tokens); the engine's default if not given", unit="token", value=int
    ),
    "sequences": Option("int", "Most sequences that run at a time (vLLM: max_num_seqs); the engine's default if not given", value=int),
    "kv_blocks": Option(
        "int", "Blocks of the cache on each data-parallel rank, of `page` tokens each; what fits into the memory if not given", value=int
    ),
    "admission": Option(
        '{"prompt", "chunk", "ratio", "whole"}',
        'What must be free of the cache when a request begins: with "whole" prompt and answer, else the cache holds what is used; the engine\'s if not given',
    ),
    "chunked": Option("bool", "Whether prompts are cut to what a step has room for; what the engine does if not given", value=bool),
    "max_model_len": Option(
        "int",
        "Most tokens of a request, prompt and answer together; what the model's configuration says if not given",
        unit="token",
        value=int,
    ),
    "mixed": Option(
        "bool", "Whether prompts run in one step with decodes, not alone and first; what the engine does if not given", value=bool
    ),
    "receive_interval": Option(
        "int", "SGLang: every how many steps without prompts requests are received; what the engine does if not given", value=int
    ),
    "rank_wait_steps": Option(
        "int",
        "TensorRT-LLM: for how many steps data-parallel ranks wait for each other's prompts, to run them on all together; closed forms leave out the wait itself; none if not given",
        value=int,
    ),
    "graph_tokens": Option(
        "int",
        "Most tokens of an estimate's step with prompts whose layers the host launches as a graph; what the engine's profile says if not given",
        unit="token",
        value=int,
    ),
    "basis": Option('{"estimate", "roofline", "floor"}', "Which times steps have, as of a :class:`roofline.StepTime`", "estimate"),
    "calibration": Option(
        "CalibrationRecord, str or Path",
        "What an estimate rests on; the engine's record of the machine if there is one, else the machine's default",
    ),
    "quantile": Option(
        "float", "Of an estimate, the level of probability of the times of steps; the times to expect if not given", value=float
    ),
    "cuda_graph": Option("bool", "Whether an estimate's decode steps are launched as one graph", True, value=bool),
    "fit": Option(
        "ServiceFit",
        "Constants of the same engine and model from a measured run, in place of `basis`, `calibration` and the host's time of a request; "
        "limits such as `kv_blocks` are asked for as without it",
    ),
}
SERVICE = FrozenDict(SERVICE)


def serves(question: Question) -> Question:
    """Write the options of a service into the signature and the docstring of a question; those of the deployment follow."""
    signature = inspect.signature(question)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    rest = [p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    options = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default) for name, option in SERVICE.items()]
    question.__signature__ = signature.replace(parameters=[*own, *options, *rest])  # type: ignore[attr-defined]
    lines = "\n".join(option.line(name) for name, option in SERVICE.items())
    question.__doc__ = inspect.cleandoc(question.__doc__ or "").replace("{service}", lines)
    return question
