"""A replica as an engine's arguments, and such arguments as a replica.

Names are those of vLLM 0.33, SGLang 0.5.23 and TensorRT-LLM 1.3 (``trtllm-serve``), as in the table of engine flags of the documentation.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roofline.engines import load_engine
from roofline.errors import InvalidValueError, UnknownOptionError, quoted
from roofline.names import nearest_names

Settings = dict[str, Any]
"""What a replica is, by our names: degrees, formats, limits; only what differs from the default."""

_DEGREES = ("tensor_parallel", "pipeline_parallel", "expert_parallel", "data_parallel", "context_parallel")


@dataclass(frozen=True, slots=True)
class Arguments:
    """What an engine calls our settings.

    Parameters
    ----------
    engine : str
        Its id [-].
    command : str
        Words before the checkpoint [-].
    flags : mapping of str to str
        The flag of a setting of one value; ``.name`` is a key of the file of options, ``.a.b`` one within another [-].
    formats : mapping of str to mapping
        What formats are called, for settings that are formats [-].
    numbers : sequence of str
        Flags of whole numbers [-].
    converts : sequence of str
        Formats that the engine makes of stored 16-bit weights [-].
    pools : mapping of str to str
        What a replica of the pool for prompts, or for answers, is told besides [-].
    switches : sequence of str
        Flags without a value [-].
    blocks_in_tokens : bool
        Whether the cache is counted in tokens, not in blocks [-].
    silent : sequence of str
        Flags that say nothing about a candidate, with a value [-].
    image : str
        Its container, without the version [-].
    degrees, settings : callable
        Our degrees in its own, and the other way round [-].
    """

    engine: str
    command: str
    flags: Mapping[str, str]
    formats: Mapping[str, Mapping[str, str]]
    numbers: Sequence[str]
    converts: Sequence[str]
    pools: Mapping[str, Sequence[str]]
    switches: Sequence[str]
    blocks_in_tokens: bool
    silent: Sequence[str]
    image: str
    degrees: Callable[[Settings], Settings]
    settings: Callable[[Settings], Settings]


def _one(name: str, degrees: Settings, engine: str) -> None:
    if degrees.get(name, 1) != 1:
        raise InvalidValueError(f"{name} of {degrees[name]} cannot be told to {engine}, which has no such degree.")


def _all_experts(given: Settings) -> Settings:
    """vLLM: whole experts on all devices of a stage, or on none."""
    _one("context_parallel", given, "vLLM")
    told = {name: value for name, value in given.items() if name not in ("expert_parallel", "context_parallel")}
    experts, every = given.get("expert_parallel", 1), given.get("tensor_parallel", 1) * given.get("data_parallel", 1)
    if experts not in (1, every):
        raise InvalidValueError(
            f"expert_parallel of {experts} cannot be told to vLLM, which has whole experts on all {every} devices of a stage or on none."
        )
    admission = told.pop("admission", None)
    if admission not in (None, *_RESERVES):
        raise InvalidValueError(f"admission of {admission!r} cannot be told to vLLM; it takes {', '.join(_RESERVES)}.")
    switches = [_WHOLE_EXPERTS] * (experts != 1) + [switch for name, switch in _RESERVES.items() if name == admission]
    return told | dict.fromkeys(switches, True)


def _of_all_experts(told: Settings) -> Settings:
    every = told.get("tensor_parallel", 1) * told.get("data_parallel", 1)
    found = {name: value for name, value in told.items() if name != _WHOLE_EXPERTS and name not in _RESERVES.values()}
    found |= {"expert_parallel": every} if _WHOLE_EXPERTS in told else {}
    said = [name for name, switch in _RESERVES.items() if switch in told]
    return found | ({"admission": said[-1]} if said else {})


def _divided(given: Settings) -> Settings:
    """SGLang: tensor parallelism counts all devices of a stage, and limits are of all data-parallel ranks together."""
    _one("context_parallel", given, "SGLang")
    ranks = given.get("data_parallel", 1)
    told = {name: value for name, value in given.items() if name != "context_parallel"}
    if told.get("admission", "ratio") != "ratio":
        raise InvalidValueError(
            f"admission of {told['admission']} cannot be told to SGLang, which reserves a share of the answers: 'ratio'."
        )
    if ranks == 1:
        return told
    told["tensor_parallel"] = told.get("tensor_parallel", 1) * ranks
    return told | {name: told[name] * ranks for name in ("step_tokens", "sequences") if name in told} | {"--enable-dp-attention": True}


def _of_divided(told: Settings) -> Settings:
    found = {name: value for name, value in told.items() if name != "--enable-dp-attention"}
    ranks = found.get("data_parallel", 1)
    if ranks == 1:
        return found
    if "--enable-dp-attention" not in told:
        raise InvalidValueError("--dp-size without --enable-dp-attention is of independent replicas, not of one.")
    return found | {name: found[name] // ranks for name in ("tensor_parallel", "step_tokens", "sequences") if name in found}


_BALANCE = ".attention_dp_config.enable_balance"


def _attention_ranks(given: Settings) -> Settings:
    """TensorRT-LLM: with data-parallel attention, every device of a stage is a rank."""
    ranks = given.get("data_parallel", 1)
    told = {name: value for name, value in given.items() if name != "data_parallel"}
    if ranks == 1:
        return told
    if told.get("rank_wait_steps"):
        told[_BALANCE] = True
    if given.get("tensor_parallel", 1) != 1:
        raise InvalidValueError("tensor_parallel and data_parallel cannot both be told to TensorRT-LLM, whose attention has one of them.")
    return told | {"tensor_parallel": ranks, ".enable_attention_dp": True}


def _of_attention_ranks(told: Settings) -> Settings:
    found = {name: value for name, value in told.items() if name not in (".enable_attention_dp", _BALANCE)}
    if "rank_wait_steps" in found and told.get(".enable_attention_dp") and not told.get(_BALANCE):
        found["rank_wait_steps"] = 0  # which its timeout says nothing of
    if told.get(".enable_attention_dp"):
        found["data_parallel"] = found.pop("tensor_parallel", 1)
    return found


_WHOLE_EXPERTS = "--enable-expert-parallel"
_RESERVES = {"prompt": "--scheduler-reserve-full-isl", "chunk": "--no-scheduler-reserve-full-isl"}
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_LISTEN = ("--host", "--port")
_FP8 = {"fp8": "fp8"}

ENGINES = {
    "vllm": Arguments(
        engine="vllm",
        command="vllm serve",
        flags={
            "tensor_parallel": "--tensor-parallel-size",
            "pipeline_parallel": "--pipeline-parallel-size",
            "data_parallel": "--data-parallel-size",
            "weights": "--quantization",
            "dtype": "--dtype",
            "kv": "--kv-cache-dtype",
            "utilization": "--gpu-memory-utilization",
            "page": "--block-size",
            "step_tokens": "--max-num-batched-tokens",
            "sequences": "--max-num-seqs",
            "kv_blocks": "--num-gpu-blocks-override",
            "max_model_len": "--max-model-len",
            "graph_tokens": "--max-cudagraph-capture-size",
        },
        formats={"weights": _FP8, "dtype": _DTYPES, "kv": {"bf16": "bfloat16", "fp16": "float16", "fp8": "fp8", "nvfp4": "nvfp4"}},
        numbers=(
            "--block-size",
            "--max-num-batched-tokens",
            "--max-num-seqs",
            "--num-gpu-blocks-override",
            "--max-model-len",
            "--max-cudagraph-capture-size",
        ),
        converts=("fp8",),
        pools={
            "prefill": ("--kv-transfer-config", '{"kv_connector": "NixlConnector", "kv_role": "kv_producer"}'),
            "decode": ("--kv-transfer-config", '{"kv_connector": "NixlConnector", "kv_role": "kv_consumer"}'),
        },
        switches=(_WHOLE_EXPERTS, *_RESERVES.values()),
        blocks_in_tokens=False,
        silent=(*_LISTEN, "--kv-transfer-config"),
        image="vllm/vllm-openai:v",
        degrees=_all_experts,
        settings=_of_all_experts,
    ),
    "sglang": Arguments(
        engine="sglang",
        command="python3 -m sglang.launch_server --model-path",
        flags={
            "tensor_parallel": "--tp-size",
            "pipeline_parallel": "--pp-size",
            "data_parallel": "--dp-size",
            "expert_parallel": "--ep-size",
            "weights": "--quantization",
            "dtype": "--dtype",
            "kv": "--kv-cache-dtype",
            "utilization": "--mem-fraction-static",
            "page": "--page-size",
            "step_tokens": "--chunked-prefill-size",
            "sequences": "--max-running-requests",
            "kv_blocks": "--max-total-tokens",
            "max_model_len": "--context-length",
            "receive_interval": "--scheduler-recv-interval",
            "graph_tokens": "--cuda-graph-max-bs-prefill",
        },
        formats={"weights": _FP8, "dtype": _DTYPES, "kv": {"bf16": "bf16", "fp8": "fp8_e4m3"}},
        numbers=(
            "--page-size",
            "--chunked-prefill-size",
            "--max-running-requests",
            "--max-total-tokens",
            "--context-length",
            "--scheduler-recv-interval",
            "--cuda-graph-max-bs-prefill",
        ),
        converts=("fp8",),
        pools={pool: ("--disaggregation-mode", pool, "--disaggregation-transfer-backend", "nixl") for pool in ("prefill", "decode")},
        switches=("--enable-dp-attention",),
        blocks_in_tokens=True,
        silent=(*_LISTEN, "--disaggregation-mode", "--disaggregation-transfer-backend"),
        image="lmsysorg/sglang:v",
        degrees=_divided,
        settings=_of_divided,
    ),
    "trtllm": Arguments(
        engine="trtllm",
        command="trtllm-serve",
        flags={
            "tensor_parallel": "--tp_size",
            "pipeline_parallel": "--pp_size",
            "expert_parallel": "--ep_size",
            "context_parallel": "--cp_size",
            "dtype": ".dtype",
            "kv": ".kv_cache_config.dtype",
            "page": ".kv_cache_config.tokens_per_block",
            "step_tokens": "--max_num_tokens",
            "sequences": "--max_batch_size",
            "kv_blocks": ".kv_cache_config.max_tokens",
            "admission": ".scheduler_config.capacity_scheduler_policy",
            "max_model_len": "--max_seq_len",
            "rank_wait_steps": ".attention_dp_config.timeout_iters",
        },
        formats={
            "dtype": _DTYPES,
            "kv": {"fp8": "fp8", "nvfp4": "nvfp4"},
            "admission": {"whole": "GUARANTEED_NO_EVICT", "prompt": "MAX_UTILIZATION", "batch": "STATIC_BATCH"},
        },
        numbers=(
            ".kv_cache_config.tokens_per_block",
            ".kv_cache_config.max_tokens",
            "--max_num_tokens",
            "--max_batch_size",
            "--max_seq_len",
            ".attention_dp_config.timeout_iters",
        ),
        converts=(),
        pools=dict.fromkeys(("prefill", "decode"), (".cache_transceiver_config.backend", "DEFAULT")),
        switches=(".enable_attention_dp", _BALANCE),
        blocks_in_tokens=True,
        silent=(*_LISTEN, ".cache_transceiver_config.backend"),
        image="nvcr.io/nvidia/tensorrt-llm/release:",
        degrees=_attention_ranks,
        settings=_of_attention_ranks,
    ),
}
"""What each engine calls our settings, by its id."""


def told_to(arguments: Arguments, settings: Settings, pool: str, *, stored: bool) -> tuple[list[str], dict[str, Any], Settings]:
    """Return the words of a command, the keys of the file of options, and the settings that the engine has no argument for.

    Weights are no argument if a checkpoint is named that has them `stored` so.
    """
    told = arguments.degrees({name: value for name, value in settings.items() if name != "weights" or not stored})
    if "kv_blocks" in told:
        told["kv_blocks"] *= _block_tokens(arguments, told)
    words: list[str] = []
    keys: dict[str, Any] = {}
    silent: Settings = {"weights": settings["weights"]} if stored and "weights" in settings else {}
    for name, value in told.items():
        flag = arguments.flags.get(name, name)
        if name == "weights" and (value not in arguments.converts or "activations" in settings):
            raise InvalidValueError(
                f"{arguments.engine} makes {' and '.join(arguments.converts) or 'no other format'} of stored weights, not {quoted(value)} as planned; "
                "checkpoint= names one that has them so."
            )
        if flag.startswith("."):
            keys[flag] = _theirs(arguments, name, value)
        elif flag.startswith("--"):
            words += [flag] if value is True else [flag, str(_theirs(arguments, name, value))]
        else:
            silent[name] = value
    extra = arguments.pools.get(pool, ())
    if extra and extra[0].startswith("."):
        keys |= dict(zip(extra[::2], extra[1::2], strict=True))
    else:
        words += extra
    return words, keys, silent


def _theirs(arguments: Arguments, name: str, value: Any) -> Any:
    names = arguments.formats.get(name)
    if names is None:
        return value
    if value not in names:
        raise InvalidValueError(f"{name} of {quoted(value)} cannot be told to {arguments.engine}; it takes {', '.join(names)}.")
    return names[value]


def _block_tokens(arguments: Arguments, settings: Settings) -> int:
    """Return in how many units of an engine a block is counted."""
    return settings.get("page") or load_engine(arguments.engine).cache.page or 1 if arguments.blocks_in_tokens else 1


def said_by(arguments: Arguments, words: Sequence[str], keys: Mapping[str, Any]) -> Settings:
    """Return the settings that the words after a checkpoint, and the keys of a file of options, stand for."""
    ours = {flag: name for name, flag in arguments.flags.items()}
    found: Settings = {}
    rest = iter(words)
    pairs = [(flag, True if flag in arguments.switches else next(rest, "")) for flag in rest]
    for flag, value in [*pairs, *keys.items()]:
        if flag in arguments.silent:
            continue
        if flag not in ours and flag not in arguments.switches:
            near = nearest_names(flag, ours)
            raise UnknownOptionError(
                f"{quoted(flag.lstrip('.'))} is nothing that a candidate has; "
                + (f"nearest: {', '.join(near)}." if near else f"known: {', '.join(ours)}.")
            )
        found[ours.get(flag, flag)] = value if isinstance(value, bool) else _value(arguments, ours.get(flag, flag), flag, str(value))
    if "kv_blocks" in found:
        found["kv_blocks"] //= _block_tokens(arguments, found)
    return arguments.settings(found)


def _value(arguments: Arguments, name: str, flag: str, text: str) -> Any:
    names = arguments.formats.get(name)
    try:
        if names is not None:
            return {theirs: our for our, theirs in names.items()}[text]
        return int(text) if name in _DEGREES or flag in arguments.numbers else float(text)
    except (KeyError, ValueError):
        allowed = "a number" if names is None else " or ".join(names.values())
        raise InvalidValueError(f"{flag} is {quoted(text)}; a candidate has {allowed} there.") from None


def shell_words(words: Sequence[str]) -> str:
    """Return words as a shell takes them, a flag with its value on each line."""
    lines: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not lines:
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n  ".join(" ".join(line) for line in lines)


def nested(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a file of options as mappings within mappings."""
    found: dict[str, Any] = {}
    for key, value in keys.items():
        *outer, last = key.lstrip(".").split(".")
        place = found
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = value
    return found


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return mappings within mappings as keys of a file of options."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        found |= flat(value, f"{prefix}.{name}") if isinstance(value, Mapping) else {f"{prefix}.{name}": value}
    return found


def read_options(text: str) -> dict[str, Any]:
    """Return what such a file holds: plain values, in mappings by indentation."""
    found: dict[str, Any] = {}
    places: list[tuple[int, dict[str, Any]]] = [(-1, found)]
    for line in filter(str.strip, text.splitlines()):
        indent = len(line) - len(line.lstrip())
        name, colon, value = line.strip().partition(":")
        if not colon:
            raise InvalidValueError(f"{quoted(line.strip())} is no option: name and value with a colon between.")
        while places[-1][0] >= indent:
            places.pop()
        if value.strip():
            places[-1][1][name] = _plain(value.strip())
        else:
            inner: dict[str, Any] = {}
            places[-1][1][name] = inner
            places.append((indent, inner))
    return found


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
