"""`read_measurements`: the file of any benchmark client, whose format its keys tell, as measurements in one schema."""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from roofline.calls import checks_call
from roofline.errors import InvalidValueError, MissingDependencyError, quoted
from roofline.measured.clients import aiperf, guidellm, inferencex, llama_bench, llmd, mlperf, printed, sglang, trtllm, vllm
from roofline.measured.clients.content import Content
from roofline.measured.engines.log import engine_of_log
from roofline.measured.measurement import ServingMeasurement
from roofline.measured.private import without_secrets
from roofline.names import local_path
from roofline.requests import RequestTimes
from roofline.requests.reading import table_rows
from roofline.validation import read_text

_YAML = re.compile(r"^scenario:\s*$", re.MULTILINE)
Read = Callable[[Content], "ServingMeasurement | Sequence[ServingMeasurement]"]


@dataclass(frozen=True, slots=True)
class _Format:
    """A kind of object: how its keys tell it, and who reads it."""

    tool: str
    tells: Callable[[frozenset[str]], bool]
    read: Read


_OBJECTS = (
    _Format("PyTorch", vllm.is_pytorch, vllm.refuse_pytorch),
    _Format("SGLang", sglang.is_serving, sglang.read_serving),
    _Format("vLLM", vllm.is_serve, vllm.read_serve),
    _Format("vLLM", vllm.is_latency, vllm.read_latency),
    _Format("vLLM", vllm.is_throughput, vllm.read_throughput),
    _Format("SGLang", sglang.is_one_batch, sglang.read_one_batch),
    _Format("guidellm", guidellm.is_report, guidellm.read_report),
    _Format("AIPerf and GenAI-Perf", aiperf.is_summary, aiperf.read_summary),
    _Format("trtllm-bench", trtllm.is_report, trtllm.read_report),
    _Format("llama-bench", llama_bench.is_row, llama_bench.read_row),
    _Format("InferenceX", inferencex.is_aggregate, inferencex.read_aggregate),
    _Format("InferenceX", inferencex.is_experiment, inferencex.read_experiment),
    _Format("llm-d", llmd.is_report, llmd.read_report),
)
_READ = f"results of {', '.join(dict.fromkeys(each.tool for each in _OBJECTS[1:]))} and MLPerf, and records of single requests"
_ELSEWHERE = {  # keys, or beginnings of texts, of files that others read
    "bottleneck": "a recording of roofline monitor; roofline.monitor reads it",
    "utilization.gpu": "a recording of nvidia-smi; roofline.monitor reads it",
    "# HELP": "a page of an engine's metrics; roofline.measured.read_metrics reads it",
    "# TYPE": "a page of an engine's metrics; roofline.measured.read_metrics reads it",
    "traceEvents": "a trace of torch.profiler; roofline.profile reads it",
    "environment": "a calibration record; roofline.load_record reads it",
    "model_type": "a model's configuration; roofline.Model.load reads it",
    "Time (%)": "a summary of Nsight Systems; roofline.profile reads it",
    '"ID"': "a report of Nsight Compute; roofline.profile reads it",
    "Process ID": "a report of Nsight Compute; roofline.profile reads it",
    "==PROF==": "a report of Nsight Compute; roofline.profile reads it",
}


@checks_call
def read_measurements(path: "str | os.PathLike[str]") -> tuple[ServingMeasurement, ...]:
    """Return the measurements that a file of a benchmark client holds, whatever client it is of: its keys tell.

    Parameters
    ----------
    path : str or path
        A file, compressed by gzip or not [-].

    Returns
    -------
    tuple of ServingMeasurement
        One for each run, in the order of the file [-].

    Raises
    ------
    InvalidValueError
        If the file cannot be read, is cut short, or is of no known format.
    MissingDependencyError
        If it is YAML, and pyyaml is not installed.

    Notes
    -----
    Read are:

    - vLLM: ``bench serve`` from 0.7 to 0.33 (one object, JSON Lines, the array of a sweep's summary; with ``--save-detailed`` each request), ``bench latency``,
      ``bench throughput``;
    - the summary that vLLM's and SGLang's clients print, in a log;
    - SGLang: ``bench_serving`` from 0.4 to 0.5, ``bench_one_batch``, ``bench_one_batch_server``;
    - guidellm: reports of schema 1 and 2;
    - AIPerf and GenAI-Perf: the summary (``profile_export_aiperf.json``, ``profile_export_genai_perf.json``), and AIPerf's requests (``profile_export.jsonl``);
    - trtllm-bench: ``--report_json``;
    - llama-bench: JSON, JSON Lines, CSV, and the markdown table, alone or in a log;
    - InferenceX: ``agg_*.json``, results of its client, and files of single experiments;
    - llm-d: benchmark reports 0.1 and 0.2, in JSON or YAML;
    - MLPerf: summary and detail log of LoadGen, and the table of published results, which is UTF-16;
    - records of single requests, as :meth:`roofline.requests.RequestTimes.from_records` reads them.

    What these tools call a time per token is not one thing; each :class:`Latency` says what was timed, and what counts once in its mean.
    Zeros that stand for failed requests are None. Keys, tokens and passwords are not kept.

    Examples
    --------
    >>> import json, tempfile
    >>> from pathlib import Path
    >>> file = Path(tempfile.mkdtemp()) / "result.json"
    >>> _ = file.write_text(json.dumps({"model_id": "Qwen/Qwen3-8B", "request_throughput": 2.0, "mean_tpot_ms": 12.5, "mean_itl_ms": 25.0}))
    >>> (run,) = read_measurements(file)
    >>> print(run.tpot)
    12.5 ms mean (per token after the first, a value for each request)
    >>> print(run.itl)
    25 ms mean (gap of chunks, a value for each chunk)
    """
    name = local_path(path).name
    text = read_text(path)
    if not text.strip():
        raise InvalidValueError(f"{name} is empty.")
    found = _of_objects(_values(text, name), name) if _is_json(text) else _of_text(text, name)
    return tuple(replace(one, path=str(path)) for one in found)


@checks_call
def read_measurement(path: "str | os.PathLike[str]", *, run: int | None = None) -> ServingMeasurement:
    """Return the measurement that a file of a benchmark client holds.

    Parameters
    ----------
    path : str or path
        A file that :func:`read_measurements` reads [-].
    run : int, optional
        Which run of several, the first is 0 [-].

    Returns
    -------
    ServingMeasurement
        The run [-].

    Raises
    ------
    InvalidValueError
        If the file cannot be read, or holds several runs and none was chosen.
    """
    found = read_measurements(path)
    if run is None and len(found) == 1:
        return found[0]
    name = local_path(path).name
    if run is None:
        shown = "; ".join(f"{place}: {_load(one)}" for place, one in enumerate(found[:4]))
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        raise InvalidValueError(f"{name} holds {len(found)} runs ({shown}{more}); say which: run=0.")
    if isinstance(run, bool) or not isinstance(run, int) or not -len(found) <= run < len(found):
        raise InvalidValueError(f"run is {quoted(run)}; {name} holds {len(found)} runs, from 0 to {len(found) - 1}.")
    return found[run]


def _load(one: ServingMeasurement) -> str:
    said = [
        f"{text} {value:g}"
        for text, value in (("rate", one.request_rate), ("at most", one.max_concurrency), ("in flight", one.concurrency))
        if value
    ]
    return ", ".join(said) or one.source


def _is_json(text: str) -> bool:
    first = text.lstrip()[:1]
    return first == "{" or (first == "[" and not llama_bench.has_table(text) and not printed.has_summary(text))  # logs begin with [ too


def _values(text: str, name: str) -> list[Any]:
    """Return the JSON values of a text: one, or several one after the other, with ``Infinity`` and ``NaN`` as Python writes them."""
    values: list[Any] = []
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        while at < len(text) and text[at] in " \t\r\n,\x1e":
            at += 1
        if at == len(text):
            break
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            place = getattr(error, "pos", at)
            line = text.count("\n", 0, place) + 1
            whole = f"; the {len(values)} before it are whole" if values else ""
            raise InvalidValueError(f"{name}: line {line} is no JSON, cut short or corrupted{whole}.") from None
        values.append(value)
    return values


def _of_objects(values: Sequence[Any], name: str) -> list[ServingMeasurement]:
    """Return the measurements of JSON values: objects, or lists of such."""
    objects = [each for value in values for each in (value if isinstance(value, list) else [value])]
    if not objects:
        raise InvalidValueError(f"{name} holds no results: it is an empty list.")
    if (other := next((each for each in objects if not isinstance(each, Mapping)), None)) is not None:
        raise InvalidValueError(f"{name} holds {quoted(other)} where an object with the results of a run should be.")
    found: list[ServingMeasurement] = []
    for place, each in enumerate(objects):
        content = Content(each, name if len(objects) == 1 else f"{name}, result {place + 1}")
        known = _format(frozenset(map(str, each)))
        if known is None and place == 0 and (times := _single_requests(objects, name)) is not None:
            return [times]
        if known is None:
            raise _unknown(content.name, each)
        read = known.read(content)
        found += [read] if isinstance(read, ServingMeasurement) else read
    return found


def _format(keys: frozenset[str]) -> _Format | None:
    return next((each for each in _OBJECTS if each.tells(keys)), None)


def _single_requests(rows: Sequence[Mapping[str, Any]], name: str) -> ServingMeasurement | None:
    """Return the measurement of records of single requests, None if these are none."""
    if aiperf.is_record(frozenset(rows[0])):
        told = [aiperf.request_of(Content(row, f"{name}, request {place + 1}")) for place, row in enumerate(rows)]
        return ServingMeasurement.from_times(RequestTimes.from_records(told), source="aiperf")
    try:
        times = RequestTimes.from_records(rows)
    except InvalidValueError:
        return None
    return ServingMeasurement.from_times(times, source="records of single requests")


def _unknown(name: str, keys: Iterable[str]) -> InvalidValueError:
    keys = list(map(str, keys))
    if other := next((what for start, what in _ELSEWHERE.items() for key in keys if key.strip().startswith(start)), None):
        return InvalidValueError(f"{name} is no result of a benchmark client: it is {other}.")
    shown = without_secrets(", ".join(map(quoted, keys[:5])))
    return InvalidValueError(f"{name} is of no known format: it has {shown or 'no keys'}; what is read: {_READ}.")


def _of_text(text: str, name: str) -> list[ServingMeasurement]:
    """Return the measurements of a table or a log."""
    if mlperf.is_table(text):
        return mlperf.read_table(text, name)
    if mlperf.is_log(text):
        return [mlperf.read_log(text, name)]
    if llama_bench.has_table(text):
        return llama_bench.read_tables(text, name)
    if printed.has_summary(text):
        return printed.read_summaries(text, name)
    if _YAML.search(text):
        return _of_objects([_yaml(text, name)], name)
    rows = table_rows(text, name)
    if rows and all(None not in row and None not in row.values() for row in rows):
        return _of_objects(rows, name)
    if engine_of_log(text) is not None:
        raise InvalidValueError(
            f"{name} is no result of a benchmark client: it is the log of an engine's start; roofline.measured.read_engine_log reads it."
        )
    raise _unknown(name, text.lstrip().splitlines()[0].split(",")[:3])


def _yaml(text: str, name: str) -> Any:
    """Return what YAML says, which llm-d's reports are written in."""
    try:
        import yaml
    except ImportError:
        raise MissingDependencyError(f"{name} is YAML, which needs the package 'pyyaml': pip install pyyaml; or give it as JSON.") from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        raise InvalidValueError(f"{name} is no valid YAML, cut short or corrupted.") from None
