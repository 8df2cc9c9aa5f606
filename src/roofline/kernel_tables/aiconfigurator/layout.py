"""Machines, files and tables of the package ``aiconfigurator-core``: every table is read as sizes and options of a kind of kernels."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from roofline.errors import InvalidValueError
from roofline.kernel_tables.aiconfigurator.columns import ELEMENT_LABELS
from roofline.kernel_tables.aiconfigurator.exchanges import NVLINK_PHASES, deepep_seconds, nvlink_seconds, read_deepep, read_nvlink
from roofline.kernel_tables.aiconfigurator.layers import QUANTIZED, read_convolution, read_mamba_convolution, read_quantization, read_state
from roofline.kernel_tables.columns import Columns, show_rows
from roofline.kernel_tables.labels import EXPERTS, MATMULS
from roofline.kernel_tables.table import KernelGroup
from roofline.kernel_tables.times import UNITS
from roofline.kernels.counting import POWER_LAW
from roofline.names import nearest_names
from roofline.ops import PowerLaw
from roofline.ops.routing import parse_routing

MACHINES = {
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200-sxm",
    "a100_sxm": "a100-sxm-80gb",
    "b200_sxm": "b200-sxm",
    "b300_sxm": "b300-sxm",
    "gb200": "gb200",
    "gb300": "gb300",
    "l40s": "l40s",
    "rtx_pro_6000_server": "rtx-pro-6000-blackwell-server",
}
"""Folder of the package → machine. Its tables of Intel's B60 are not read, for lack of a spec."""

_UNGATED_EXPERTS = {(1856, 6, 128), (2688, 22, 512), (5120, 22, 512)}
"""Width, experts per token and experts of the models whose experts have two matrices: Nemotron 3 Nano, Super and Ultra
(``mlp_hidden_act`` relu2). TensorRT-LLM's tables call these kernels nongated; those of the other engines do not say."""

ELEMENT_BYTES = {"half": 2, "bfloat16": 2, "int8": 1}
"""Label of a collective's elements → size [B]."""

_COLLECTIVES = {"all_reduce": "all_reduce", "all_gather": "all_gather", "reduce_scatter": "reduce_scatter", "alltoall": "all_to_all"}
_SUFFIX = "_perf.parquet"
_MOST_FILES = 10_000  # of a folder that is searched; the package has a fifth of them for all its machines
_EXPERT_SIZES = {
    "tokens": "num_tokens",
    "hidden": "hidden_size",
    "intermediate": "inter_size",
    "count": "num_experts",
    "top_k": "topk",
    "tp": "moe_tp_size",
    "ep": "moe_ep_size",
}


def _latency(table: Columns) -> np.ndarray:
    return table["latency"] / UNITS["ms"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How the columns of one table are read."""

    kind: str  # a key of :data:`roofline.kernels.KINDS`
    # columns of the table → sizes and options of the kind; None for an unknown label, whose row is left out
    read: Callable[[Columns], dict[str, np.ndarray]]
    labels: tuple[str, ...]  # columns that tell apart kernels of the same sizes, such as formats
    also: tuple["Layout", ...] = ()  # how other rows of the same table are read
    known: tuple[str, ...] = ()  # the known values of the first of `labels`, if they can be listed
    seconds: Callable[[Columns], np.ndarray] = _latency  # columns of the table → times of the rows


def lengths(table: Columns, *, decode: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return new and cached tokens: a decode row attends to isl + step positions, including its own [token].

    Examples
    --------
    >>> [column.item() for column in lengths({"isl": np.array([1]), "step": np.array([1023])}, decode=True)]
    [1, 1023]
    """
    if decode:
        return np.ones_like(table["isl"]), table["isl"] + table["step"] - 1
    return table["isl"], table["step"]


def message_bytes(table: Columns) -> np.ndarray:
    """Return the bytes of a collective: ``message_size`` counts elements in every table, NCCL's as well [B].

    It is the total as nccl-tests has it: all that a rank ends up with (all-gather) or starts from (the other three).

    Examples
    --------
    >>> message_bytes({"message_size": np.array([1024]), "dtype": np.array(["half"])}).item()
    2048
    """
    named = next((name for name in ELEMENT_LABELS if name in table), None)
    if named is None:
        raise InvalidValueError(f"no column has the format of the elements of message_size; it is called {' or '.join(ELEMENT_LABELS)}.")
    unknown = np.array([label not in ELEMENT_BYTES for label in table[named].tolist()], dtype=bool)
    if unknown.any():
        raise InvalidValueError(
            f"column {named!r} must hold {', '.join(ELEMENT_BYTES)}; {int(unknown.sum())} of {unknown.size} rows do not: "
            f"{show_rows(unknown, table[named])}."
        )
    each = np.array([ELEMENT_BYTES[label] for label in table[named].tolist()], dtype=int)
    total: np.ndarray = table["message_size"].astype(int) * each
    return total


def _translate(labels: np.ndarray, meaning: Mapping[str, Any]) -> np.ndarray:
    """Return the meaning of each label, None if it is unknown."""
    return np.array([meaning.get(label) for label in labels.tolist()], dtype=object)


def _formats(labels: np.ndarray, known: Mapping[str, Mapping[str, str]]) -> dict[str, np.ndarray]:
    return {argument: _translate(labels, {n: f[argument] for n, f in known.items()}) for argument in ("format", "weights")}


def _gemm(table: Columns) -> dict[str, np.ndarray]:
    return {**{x: table[x] for x in "mnk"}, **_formats(table["gemm_dtype"], MATMULS)}


def _attention(table: Columns, *, decode: bool) -> dict[str, np.ndarray]:
    """Read attention; if either label is fp8, entries are counted as fp8; only ``attn_dtype`` makes queries fp8."""
    new, cached = lengths(table, decode=decode)
    fp8 = table["attn_dtype"] == "fp8"
    shape = {"heads": "num_heads", "kv_heads": "num_key_value_heads", "head_dim": "head_dim"}
    return {
        **{ours: table[theirs] for ours, theirs in shape.items()},
        "batch": table["batch_size"],
        "context": cached,
        "new": new,
        "window": table["window_size"] if "window_size" in table else np.zeros_like(new),
        "kv": _bf16_or_fp8(fp8 | (table["kv_cache_dtype"] == "fp8")),
        "activations": _bf16_or_fp8(fp8),
    }


def _latent(table: Columns, *, decode: bool) -> dict[str, np.ndarray]:
    """Read latent attention of DeepSeek-V3's sizes; projections in the same row are not counted."""
    new, cached = lengths(table, decode=decode)
    labels = {"kv": "kv_cache_dtype", "activations": "mla_dtype"}
    formats = {argument: _bf16_or_fp8(table[label] != "bfloat16") for argument, label in labels.items()}
    return {"batch": table["batch_size"], "context": cached, "new": new, "heads": table["num_heads"], **formats}


def _bf16_or_fp8(fp8: np.ndarray) -> np.ndarray:
    return np.where(fp8, "fp8", "bf16").astype(object)


def _moe(table: Columns) -> dict[str, np.ndarray]:
    sizes = {ours: table[theirs] for ours, theirs in _EXPERT_SIZES.items()}
    shapes = zip(*(sizes[name].tolist() for name in ("intermediate", "top_k", "count")), strict=True)
    gated = np.array([shape not in _UNGATED_EXPERTS for shape in shapes], dtype=int)
    return {**sizes, "gated": gated, **_formats(table["moe_dtype"], EXPERTS)}


def _collective(table: Columns) -> dict[str, np.ndarray]:
    op = _translate(table["op_name"], _COLLECTIVES) if "op_name" in table else np.full(len(table["latency"]), "all_reduce", dtype=object)
    return {"size": message_bytes(table), "ranks": table["num_gpus"], "op": op}


def _phase(read: Callable[..., dict[str, np.ndarray]], *, decode: bool) -> Callable[[Columns], dict[str, np.ndarray]]:
    return lambda table: read(table, decode=decode)


_LATENT_LABELS = ("mla_dtype", "kv_cache_dtype")
_KERNEL = ("kernel_source", "phase")
_RECURRENT = Layout("state", read_state, _KERNEL, (Layout("convolution", read_convolution, _KERNEL),))


def _deepep(mode: str) -> Layout:
    """Return how a table of DeepEP's kernels is read, whose rows have the times of both directions."""
    there, back = (
        Layout("collective", partial(read_deepep, mode=mode, phase=phase), (), seconds=partial(deepep_seconds, mode=mode, phase=phase))
        for phase in ("dispatch", "combine")
    )
    return replace(there, also=(back,))


LAYOUTS: dict[str, Layout] = {
    "gemm": Layout("matmul", _gemm, ("gemm_dtype",), known=tuple(MATMULS)),
    "generation_attention": Layout("attention", _phase(_attention, decode=True), ("attn_dtype", "kv_cache_dtype")),
    "context_attention": Layout("attention", _phase(_attention, decode=False), ("attn_dtype", "kv_cache_dtype")),
    "moe": Layout("experts", _moe, ("moe_dtype", "distribution"), known=tuple(EXPERTS)),
    "generation_mla": Layout("latent_attention", _phase(_latent, decode=True), _LATENT_LABELS),
    "mla_generation_module": Layout("latent_attention", _phase(_latent, decode=True), _LATENT_LABELS),
    "wideep_generation_mla": Layout("latent_attention", _phase(_latent, decode=True), _LATENT_LABELS),
    "context_mla": Layout("latent_attention", _phase(_latent, decode=False), _LATENT_LABELS),
    "mla_context_module": Layout("latent_attention", _phase(_latent, decode=False), _LATENT_LABELS),
    "wideep_context_mla": Layout("latent_attention", _phase(_latent, decode=False), _LATENT_LABELS),
    "nccl": Layout("collective", _collective, ("op_name",), known=tuple(_COLLECTIVES)),
    "wideep_deepep_ll": _deepep("ll"),
    "wideep_deepep_normal": _deepep("normal"),
    "trtllm_alltoall": Layout("collective", read_nvlink, ("op_name", "moe_dtype"), known=NVLINK_PHASES, seconds=nvlink_seconds),
    "custom_allreduce": Layout("collective", _collective, ("op_name",), known=tuple(_COLLECTIVES)),
    "scale_matrix": Layout("rowwise", read_quantization, ("quant_dtype",), known=tuple(QUANTIZED)),
    "gdn": _RECURRENT,
    "kda": _RECURRENT,
    "mamba2": Layout("convolution", read_mamba_convolution, _KERNEL),
}
"""Table → how it is read. Not read: ``wideep_moe``, ``wideep_context_moe`` and ``wideep_generation_moe``, where the work of the
measured rank depends on dispatch and on replicas of experts that the tables do not have. Nor ``moe_a2a``: vLLM's does not say the format
that rows are sent in, and one token takes vLLM's and TensorRT-LLM's low-latency kernels 30–240 µs where SGLang's same kernels take 12: the
host's launch.
Rows of ``*_module`` and ``wideep_*_mla`` include projections: a floor still holds for them, but a fit would be too slow."""


WITH_PROJECTIONS = tuple(name for name in LAYOUTS if "mla" in name and ("module" in name or name.startswith("wideep")))
"""Tables whose rows include projections besides the kernel."""


def run_as(group: KernelGroup) -> KernelGroup:
    """Return kernels as they were run rather than as a bound counts them: mixtures of experts under their table's routing."""
    distribution = group.origin.get("distribution", "")
    if group.kind != "experts" or not distribution.startswith(("balanced", POWER_LAW)):
        return group
    law = PowerLaw(0) if distribution == "balanced" else parse_routing(distribution)
    return group.read_as(routing=POWER_LAW, exponent=law.exponent) if isinstance(law, PowerLaw) else group


def find_tables(path: Path) -> list[Path]:
    """Return the table files in a folder, links to other folders not followed, or the file itself."""
    if path.is_file():
        return [path]
    seen, found = 0, []
    for folder, folders, files in os.walk(path):
        seen += len(folders) + len(files)
        if seen > _MOST_FILES:
            raise InvalidValueError(f"{path} holds more than {_MOST_FILES:,} files and folders; name the folder of one machine's tables.")
        found += [Path(folder, file) for file in files if file.endswith(_SUFFIX)]
    if not found:
        raise InvalidValueError(
            f"{path} {'holds no table of measured kernels' if path.is_dir() else 'does not exist'}; "
            f"a folder is read as <folder>/<engine>/<version>/<table>{_SUFFIX}."
        )
    return sorted(found)


def table_name(path: Path) -> str | None:
    """Return the name of the table in a file, None if the file is not named like one.

    Examples
    --------
    >>> table_name(Path("h100_sxm/gemm/vllm/0.24.0/gemm_perf.parquet"))
    'gemm'
    """
    return path.name.removesuffix(_SUFFIX) if path.name.endswith(_SUFFIX) else None


def find_layout(table: str) -> Layout:
    """Return how a table is read.

    Examples
    --------
    >>> find_layout("gemm").kind
    'matmul'
    """
    if not isinstance(table, str) or table not in LAYOUTS:
        near = nearest_names(table, LAYOUTS) if isinstance(table, str) else []
        raise InvalidValueError(
            f"unknown table {table!r} of aiconfigurator-core; {'nearest' if near else 'known'}: {', '.join(near or LAYOUTS)}."
        )
    return LAYOUTS[table]


def origin_of(path: Path) -> dict[str, str]:
    """Return where the rows of a file were measured, from its path.

    Examples
    --------
    >>> origin_of(Path("h100_sxm/gemm/vllm/0.24.0/gemm_perf.parquet"))
    {'table': 'gemm', 'gpu': 'h100_sxm', 'framework': 'vllm', 'version': '0.24.0'}
    """
    name = table_name(path) or path.stem
    find_layout(name)
    parts = path.parts
    gpu = {"gpu": parts[-5]} if len(parts) >= 5 else {}
    engine = {"framework": parts[-3], "version": parts[-2]} if len(parts) >= 3 else {}
    return {"table": name, **gpu, **engine}
