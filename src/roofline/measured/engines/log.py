"""What an engine says when it starts: version, model, degrees, formats, and the cache that it found room for."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from roofline.capacity import resident
from roofline.deployment import Deployment
from roofline.deployment.machine import Machine
from roofline.deployment.spelling import checks_keywords
from roofline.errors import InvalidValueError, quoted
from roofline.frozen import FrozenDict
from roofline.measured.engines.exposition import page_text
from roofline.results import Result, show_notes
from roofline.units import show_bytes

_GIB = 2**30
_AS_STORED = {"auto", "None", ""}


def _gib(text: str) -> float:
    return float(text.replace(",", "")) * _GIB


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


def _dtype(text: str) -> str:
    return text.strip("'").removeprefix("torch.")


def _model(text: str) -> str:
    """Return a model's name; a folder of the Hub's cache is called by the name that it stands for."""
    cached = re.search(r"models--([^/]+?)--([^/]+)", text)
    return f"{cached[1]}/{cached[2]}" if cached else text


@dataclass(frozen=True, slots=True)
class _Line:
    """A figure in a line; of several such lines, one for every worker, the one that binds counts."""

    pattern: str
    read: Callable[[str], Any] = str
    of: Callable[[list[Any]], Any] = min


def _first(values: list[Any]) -> Any:
    return values[0]


def _last(values: list[Any]) -> Any:
    return values[-1]


def _argument(name: str, read: Callable[[str], Any] = _whole, value: str = r"([\d,]+)") -> _Line:
    return _Line(rf"{name}(?<!\w{name})=(?:')?{value}", read, _first)  # a pattern that begins with a letter is searched ten times as fast


_TEXT = r"([^',)\s]+)"
# what each engine writes; names as roofline has them
_LINES: Mapping[str, Mapping[str, _Line]] = FrozenDict(
    {
        "vllm": {  # vllm 0.6 to 0.33: v1/engine/core.py, v1/worker/gpu_worker.py, v1/core/kv_cache_utils.py; v0: executor_base.py, worker.py
            "version": _Line(r"(?:LLM engine \(v|API server version |vLLM version )([0-9][^\s)]*)", str, _first),
            "model": _Line(r"with config: model='([^']+)'", _model, _first),
            "dtype": _Line(r"[ ,]dtype=(torch\.\w+)", _dtype, _first),
            "tensor_parallel": _argument("tensor_parallel_size"),
            "pipeline_parallel": _argument("pipeline_parallel_size"),
            "data_parallel": _argument("data_parallel_size"),
            "quantization": _argument("quantization", str, _TEXT),
            "kv": _argument("kv_cache_dtype", str, _TEXT),
            "longest": _Line(r"(?:Using max model len |max_seq_len=)([\d,]+)", _whole, _first),
            "step_tokens": _Line(r"max_num_batched_tokens=([\d,]+)", _whole, _first),
            "weight_bytes": _Line(r"(?:Model loading|[Ll]oading model weights|model weights) (?:took|take) ([\d.]+) ?Gi?B", _gib, max),
            "kv_bytes": _Line(r"(?:Available KV cache memory: |reserved for KV Cache is )(-?[\d.]+) ?GiB", _gib),
            "kv_tokens": _Line(r"GPU KV cache size: ([\d,]+) tokens", _whole),
            "kv_blocks": _Line(r"# (?:GPU|cuda) blocks: ([\d,]+)", _whole),
            "per_request": _Line(r"Maximum concurrency for ([\d,]+) tokens per request", _whole, _first),
            "concurrency": _Line(r"tokens per request: ([\d.]+)x", float),
            "experts_apart": _Line(r"enable_expert_parallel'?[=:] ?(True)", str, _first),
        },
        "sglang": {  # sglang 0.4 to 0.5: srt/server_args.py, model_runner.py, mem_cache/memory_pool.py; its GB are GiB
            "version": _Line(r"sglang[ =]?(?:version)?[ :=]*v?([0-9]\.[\w.]+)", str, _first),
            "model": _Line(r"ServerArgs\(model_path='([^']+)'", _model, _first),
            "dtype": _Line(r"Load weight end\..*?dtype=(torch\.\w+)", _dtype, _first),
            "tensor_parallel": _argument("tp_size"),
            "pipeline_parallel": _argument("pp_size"),
            "data_parallel": _argument("dp_size"),
            "expert_parallel": _argument("ep_size"),
            "quantization": _argument("quantization", str, _TEXT),
            "kv": _argument("kv_cache_dtype", str, _TEXT),
            "longest": _argument("context_len"),
            "step_tokens": _argument("max_prefill_tokens"),
            "sequences": _Line(r"max_total_num_tokens=.*max_running_requests=(\d+)", _whole),
            "weight_bytes": _Line(r"Load weight end\..*?mem usage=([\d.]+) GB", _gib, max),
            "kv_tokens": _Line(r"(?:KV Cache is allocated\..*?#tokens: |max_total_num_tokens=)([\d,]+)", _whole),
            "k_bytes": _Line(r"KV Cache is allocated\..*?K size: ([\d.]+) GB", _gib),
            "v_bytes": _Line(r"KV Cache is allocated\..*?V size: ([\d.]+) GB", _gib),
        },
        "tensorrt-llm": {  # cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp; what is printed first is of a trial run
            "version": _Line(r"TensorRT[- ]LLM version: ([\w.]+)", str, _first),
            "longest": _Line(r"max_seq_len=([\d,]+)", _whole, _last),
            "step_tokens": _Line(r"max_num_tokens=([\d,]+)", _whole, _last),
            "sequences": _Line(r"max_batch_size=([\d,]+)", _whole, _last),
            "kv_bytes": _Line(r"Allocated ([\d.]+) GiB for max tokens in paged KV cache", _gib, _last),
            "kv_tokens": _Line(r"for max tokens in paged KV cache \(([\d,]+)\)", _whole, _last),
            "page": _Line(r"Number of tokens per block: (\d+)", _whole, _last),
        },
    }
)
_WRITES = {
    "vllm": r"vLLM API server|LLM engine \(v|kv_cache_utils\.py|vllm\.entrypoints|gpu_worker\.py",
    "sglang": r"ServerArgs\(",
    "tensorrt-llm": r"\[TensorRT-LLM\]|\[TRT-LLM",
}
_BEGINS = {"vllm": r"vLLM API server version", "sglang": r"server_args=ServerArgs\(", "tensorrt-llm": r"TensorRT-LLM version:"}
_SERVES = "Application startup complete"  # what comes after it is about requests
_FAILED = r"\w*(?:Error|Exception): .+"
_DEGREES = ("tensor_parallel", "pipeline_parallel", "data_parallel", "expert_parallel")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class EngineLog(Result):
    """What an engine said when it started; None where it did not say it.

    Parameters
    ----------
    engine : str
        ``"vllm"``, ``"sglang"`` or ``"tensorrt-llm"`` [-].
    source : str
        Where it was read [-].
    version, model, dtype, quantization : str, optional
        As the log names them [-].
    options : mapping
        Options of a :class:`roofline.deployment.Deployment` that the log states [-].
    longest : int, optional
        Longest sequence that it accepts [token].
    step_tokens : int, optional
        Most tokens of a step [token].
    sequences : int, optional
        Most sequences that run together, by its settings [-].
    weight_bytes : float, optional
        What loading the model took of one device, the fullest [B].
    kv_bytes : float, optional
        What is left for the cache of one device, the fullest [B].
    kv_tokens : int, optional
        Tokens that the cache of one replica holds, as the engine counts them [token].
    concurrency : float, optional
        Sequences of `per_request` tokens that the engine says fit [-].
    per_request : int, optional
        Tokens of each of them [token].
    failure : str, optional
        The error that ended the start [-].
    """

    engine: str
    source: str
    version: str | None = None
    model: str | None = None
    dtype: str | None = None
    quantization: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    longest: int | None = None
    step_tokens: int | None = None
    sequences: int | None = None
    weight_bytes: float | None = None
    kv_bytes: float | None = None
    kv_tokens: int | None = None
    concurrency: float | None = None
    per_request: int | None = None
    failure: str | None = None

    _numbers = ("longest", "step_tokens", "sequences", "weight_bytes", "kv_bytes", "kv_tokens", "concurrency", "per_request")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know [-]."""
        notes = []
        if self.failure:
            notes.append(f"the start failed: {self.failure}")
        if self.quantization:
            notes.append(
                f"quantization is {self.quantization}: formats are those of the checkpoint that the model's name stands for, or say weights="
            )
        return tuple(notes)

    def deployment(self, hardware: Machine = None, *, model: Any = None, **options: Any) -> Deployment:
        """Return what runs, as a deployment.

        Parameters
        ----------
        hardware : Hardware, str or Path, optional
            The machine, which no log names [-].
        model : str, Path, mapping or Model, optional
            In place of the log's, which may be a path of another machine [-].
        **options : optional
            Options of a :class:`roofline.deployment.Deployment`, which replace the log's [-].

        Returns
        -------
        Deployment
            With the degrees and formats that the log states [-].
        """
        named = self.model if model is None else model
        if named is None:
            raise InvalidValueError(f"{self.source} names no model; say which: model=.")
        return Deployment(named, hardware, **{**self.options, **options})

    def cache(self, *, model: Any = None, **options: Any) -> "LoggedCache":
        """Return the engine's own count of its cache beside ours.

        Parameters
        ----------
        model : str, Path, mapping or Model, optional
            In place of the log's, which may be a path of another machine [-].
        **options : optional
            Options of a :class:`roofline.deployment.Deployment`, which replace the log's [-].

        Returns
        -------
        LoggedCache
            Sequences and bytes of a token, logged and counted [-].
        """
        if self.kv_bytes is None:
            raise InvalidValueError(
                f"{self.source} does not say how much memory the cache has{', since the start failed' if self.failure else ''}."
            )
        deployment = self.deployment(model=model, **options)
        length = self.per_request or self.longest
        if length is None:
            raise InvalidValueError(f"{self.source} does not say how long a request may be.")
        ahead = deployment.in_flight_tokens or self.step_tokens or 0
        booked = resident(deployment.but(in_flight_tokens=ahead), batch=1, context=length)
        kept = resident(deployment.but(in_flight_tokens=0), batch=1, context=length)
        return LoggedCache(
            self,
            length,
            ahead,
            self.kv_bytes / float(booked.kv_bytes + booked.state_bytes),
            self.kv_bytes / float(kept.kv_bytes + kept.state_bytes),
        )

    def context(self) -> dict[str, Any]:
        """Return who said it, and of what [-]."""
        names = ("engine", "source", "version", "model", "dtype", "quantization", "options", "failure", "notes")
        return {"kind": "log of a start"} | {name: getattr(self, name) for name in names}

    def summary(self) -> list[str]:
        """Return the short text: what started, then its cache [-]."""
        options = "".join(f", {name} {value}" for name, value in self.options.items())
        lines = [f"{self.engine} {self.version or ''} serving {self.model or 'a model that is not named'}{options}".replace("  ", " ")]
        if self.weight_bytes is not None:
            lines.append(f"  model: {show_bytes(self.weight_bytes)} of a device")
        if self.kv_tokens is not None:
            room = "" if self.kv_bytes is None else f"{show_bytes(self.kv_bytes)} of a device, "
            lines.append(f"  cache: {room}{self.kv_tokens:,} tokens")
        if self.concurrency is not None and self.per_request is not None:
            lines.append(f"  sequences of {self.per_request:,} tokens: {self.concurrency:g}")
        return [*lines, *show_notes(self.notes)]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class LoggedCache(Result):
    """An engine's count of the sequences in its cache beside ours.

    Parameters
    ----------
    log : EngineLog
        What the engine said [-].
    per_request : int
        Tokens of each sequence [token].
    in_flight_tokens : int
        Tokens booked beyond a window [token].
    booked_sequences : float
        Sequences that fit as the engine books windowed layers: ours for its "Maximum concurrency" [-].
    kept_sequences : float
        Sequences that fit by what they keep [-].
    """

    log: EngineLog
    per_request: int
    in_flight_tokens: int
    booked_sequences: float
    kept_sequences: float

    _numbers = ("per_request", "in_flight_tokens", "logged_sequences", "booked_sequences", "kept_sequences")

    @property
    def logged_sequences(self) -> float | None:
        """Sequences that the engine says fit [-]."""
        return self.log.concurrency

    def context(self) -> dict[str, Any]:
        """Return what the engine said [-]."""
        return self.log.context() | {"kind": "cache as logged and as counted"}

    def summary(self) -> list[str]:
        """Return the short text: the engine's count, then ours [-]."""
        said = "not said" if self.logged_sequences is None else f"{self.logged_sequences:.2f}"
        lines = [
            f"sequences of {self.per_request:,} tokens in {show_bytes(self.log.kv_bytes or 0)} of a device: {said} by {self.log.engine}"
        ]
        lines.append(f"  counted: {self.booked_sequences:.2f} as an engine books them, {self.kept_sequences:.2f} by what they keep")
        return lines


@checks_keywords
def read_engine_log(source: str | os.PathLike[str]) -> EngineLog:
    r"""Return what an engine said when it started, from its log.

    Parameters
    ----------
    source : str or Path
        A log file (``.gz`` too), or its text; of several starts in it, the last counts [-].

    Returns
    -------
    EngineLog
        Model, degrees, formats and cache [-].

    Raises
    ------
    InvalidValueError
        If it cannot be read, or has no line of a start that is known.

    Notes
    -----
    Lines that every worker writes count once: of the memory for the cache the smallest, as the engines take it. Arguments that may hold
    keys of an interface are not kept.

    Examples
    --------
    >>> log = read_engine_log("INFO [kv_cache_utils.py:849] GPU KV cache size: 464,848 tokens\n")
    >>> log.engine, log.kv_tokens
    ('vllm', 464848)
    """
    if not isinstance(source, (str, os.PathLike)):
        raise InvalidValueError(f"source is {quoted(source)}; it must be the path of a log, or its text.")
    text, name, _ = page_text(source, 5.0, what="a log")
    text = re.sub(r"\x1b\[[0-9;]*m|\[(?:\d+;)*\d+m", "", text)  # colours, also without the character that begins them
    engine = engine_of_log(text)
    if engine is None:
        raise InvalidValueError(f"{name} has no line that vLLM, SGLang or TensorRT-LLM writes when it starts.")
    starts = [match.start() for match in re.finditer(_BEGINS[engine], text)]
    text = (text[starts[-1] :] if starts else text).partition(_SERVES)[0]
    found = {field: value for field, line in _LINES[engine].items() if (value := _read(text, line)) is not None}
    failure = None if "kv_tokens" in found and "failed" not in text else _failure(text)
    if not found and failure is None:
        raise InvalidValueError(f"{name} has lines of {engine}, but none that says model, degrees or cache.")
    return _as_log(engine, name, found, failure)


def engine_of_log(text: str) -> str | None:
    """Return the engine whose lines a text has, None if it has those of none."""
    return next((engine for engine, pattern in _WRITES.items() if re.search(pattern, text)), None)


def _read(text: str, line: _Line) -> Any:
    values = [line.read(value) for value in re.findall(line.pattern, text)]
    return line.of(values) if values else None


def _failure(text: str) -> str | None:
    """Return the last error that a log names."""
    lines = [line for line in text.splitlines() if "Error: " in line or "Exception: " in line]
    found = re.search(_FAILED, lines[-1]) if lines else None
    return " ".join(found[0].split())[:200] if found else None


def _as_log(engine: str, name: str, found: dict[str, Any], failure: str | None) -> EngineLog:
    options = {degree: found.pop(degree) for degree in _DEGREES if degree in found}
    if found.pop("experts_apart", None):
        options["expert_parallel"] = options.get("tensor_parallel", 1) * options.get("data_parallel", 1)
    options = {degree: many for degree, many in options.items() if many > 1}
    kv, quantization = found.pop("kv", ""), found.pop("quantization", "")
    if kv not in _AS_STORED:
        options["kv"] = "fp8" if kv.startswith("fp8") else kv
    if "dtype" in found:
        options["dtype"] = found["dtype"]
    if "page" in found:
        options["page"] = found.pop("page")
    blocks, parts = found.pop("kv_blocks", None), [found.pop(part, None) for part in ("k_bytes", "v_bytes")]
    if blocks and "kv_tokens" not in found:
        found["kv_tokens"] = blocks * options.get("page", 16)
    if None not in parts:
        found["kv_bytes"] = sum(parts)
    return EngineLog(
        engine, name, quantization=None if quantization in _AS_STORED else quantization, options=options, failure=failure, **found
    )
