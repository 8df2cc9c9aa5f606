"""llama-bench of llama.cpp: JSON, JSON Lines and CSV with all keys, and the markdown table that it prints."""

import re
from collections.abc import Iterator
from typing import Any

from roofline.errors import InvalidValueError, quoted
from roofline.measured.clients.content import Content
from roofline.measured.clients.degrees import cache_format
from roofline.measured.measurement import Latency, ServingMeasurement
from roofline.units import read_quantity

_HEADER = re.compile(r"^\s*\|\s*model\s*\|\s*size\s*\|\s*params\s*\|.*\|\s*test\s*\|\s*t/s\s*\|\s*$", re.IGNORECASE | re.MULTILINE)
_TEST = re.compile(r"(?:pp(?P<prompt>\d+))?\+?(?:tg(?P<gen>\d+))?(?:\s*@\s*d(?P<depth>\d+))?")
_SPEED = re.compile(r"(?P<mean>[\d.]+)\s*(?:±|\+-|\+/-)?\s*(?P<std>[\d.]+)?")
_DEVICE = (re.compile(r"^\s*Device \d+: ([^,\n]+),", re.MULTILINE), re.compile(r"^ggml_vulkan: \d+ = ([^|\n]+?)\s*(?:\||$)", re.MULTILINE))
_SCALE = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def is_row(keys: frozenset[str]) -> bool:
    """Return whether these are the keys of a test in JSON or CSV."""
    return {"n_prompt", "n_gen", "avg_ts"} <= keys


def read_row(content: Content) -> ServingMeasurement:
    """Return what a test in JSON or CSV says."""
    speed = content.positive("avg_ts")
    if speed is None:
        raise content.wrong("avg_ts", "a rate of more than 0")
    build, devices = content.text("build_commit"), content.text("devices") or ""
    cpu_only = content.number("n_gpu_layers") == 0 or devices.lower() == "none"
    keys = content.data.get("type_k"), content.data.get("type_v")
    return _test(
        f"llama-bench{f' (build {build})' if build else ''}",
        model=content.text("model_type", "model_filename"),
        machine=content.text("cpu_info") if cpu_only else content.text("gpu_info", "cpu_info"),
        options=cache_format(content, "type_k") if keys[0] == keys[1] else {},
        prompt=content.count("n_prompt") or 0,
        generated=content.count("n_gen") or 0,
        depth=content.count("n_depth") or 0,
        speed=speed,
        spread=content.number("stddev_ts"),
        stored=(content.positive("model_size"), content.positive("model_n_params")),
        raw=content.data,
    )


def has_table(text: str) -> bool:
    """Return whether a text has a table of llama-bench."""
    return bool(_HEADER.search(text))


def read_tables(text: str, name: str) -> list[ServingMeasurement]:
    """Return what the tables of a log say, a measurement for each row."""
    devices = list(dict.fromkeys(found for pattern in _DEVICE for found in pattern.findall(text)))
    machine = devices[0].strip() if len(devices) == 1 else None
    found = [_printed(row, machine, name) for row in _rows(text)]
    if not found:
        raise InvalidValueError(f"{name} has the head of a table of llama-bench, and no row below it.")
    return found


def _rows(text: str) -> Iterator[dict[str, str]]:
    header: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if _HEADER.match(line):
            header = [cell.lower() for cell in cells]
        elif header and line.lstrip().startswith("|") and len(cells) == len(header):
            if not all(set(cell) <= set("-: ") for cell in cells):
                yield dict(zip(header, cells, strict=True))
        else:
            header = [] if not line.strip() else header


def _printed(row: dict[str, str], machine: str | None, name: str) -> ServingMeasurement:
    test, speed = _TEST.fullmatch(row["test"]), _SPEED.match(row["t/s"])
    if not test or not (test["prompt"] or test["gen"]) or not speed or float(speed["mean"]) <= 0:
        raise InvalidValueError(
            f"{name}: a row of llama-bench has the test {quoted(row['test'])} at {quoted(row['t/s'])} tokens/s; tests are pp512, tg128 or pp512+tg128, with @ d4096 for a depth."
        )
    content = Content(row, name)
    same = "type_k" in row and row.get("type_k") == row.get("type_v")
    return _test(
        "llama-bench",
        model=row["model"],
        machine=machine,
        options=cache_format(content, "type_k") if same else {},
        prompt=int(test["prompt"] or 0),
        generated=int(test["gen"] or 0),
        depth=int(test["depth"] or 0),
        speed=float(speed["mean"]),
        spread=float(speed["std"]) if speed["std"] else None,
        stored=(read_quantity(row["size"], "B"), _parameters(row["params"])),
        raw=row,
    )


def _parameters(text: str) -> float | None:
    found = re.fullmatch(r"([\d.]+)\s*([KMBT]?)", text.strip())
    return float(found[1]) * _SCALE[found[2]] if found else None


def _test(
    source: str,
    *,
    prompt: int,
    generated: int,
    depth: int,
    speed: float,
    spread: float | None,
    stored: tuple[float | None, float | None],
    **known: Any,
) -> ServingMeasurement:
    """Return the measurement of a test: a prompt alone, tokens one after the other, or both together."""
    notes = []
    if stored[0] and stored[1]:
        notes.append(
            f"the file of the weights has {stored[0]:.4g} B for {stored[1]:.4g} parameters, {8 * stored[0] / stored[1]:.3g} bit each: its formats differ from matrix to matrix"
        )
    if prompt and depth:
        notes.append(f"the prompt follows {depth} tokens that are cached already")
    found: dict[str, Any] = {"engine": "llama.cpp", "batch": 1.0, "concurrency": 1.0, "notes": tuple(notes), **known}
    if prompt and generated:
        whole = (prompt + generated) / speed
        key = "(n_prompt + n_gen) / avg_ts"
        return ServingMeasurement(source, prompt=prompt, output=generated, e2e=Latency("end to end", "request", whole, key=key), **found)
    if prompt:
        return ServingMeasurement(source, prompt=prompt, prefill_s=prompt / speed, prompt_tokens_per_s=speed, **found)
    step = Latency("step", "step", 1 / speed, std_s=None if spread is None else spread / speed**2, key="1 / avg_ts")
    return ServingMeasurement(source, output=generated, cached_context=depth + generated / 2, step=step, output_tokens_per_s=speed, **found)
