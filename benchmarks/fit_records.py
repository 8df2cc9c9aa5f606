"""Fit the records that ship with the library to the kernel tables of the wheel ``aiconfigurator-core``, one for each GPU and engine.

What is fitted and what is left out, by name: of each class the newest version of the engine's table that has it; matrix products with K ≥ 512; prefill
attention of more than 16 new tokens; collectives as CUDA graphs run them; exchanges of the engine's own kernels, else NCCL's; of quantization and recurrent state the rows
that were not served by the cache. Rows that `measured_defects` names are left
out, and the lanes of :data:`LEFT_OUT`.

Usage: ``python benchmarks/fit_records.py`` writes hardware_specs/measured/*.json (about two minutes);
``--gpu h100_sxm`` only those of one GPU, ``--folder`` elsewhere.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from measured_defects import defective
from measured_tables import MACHINES, Lane, Table, select, tables
from roofline import Hardware, record_from_tables
from roofline.engines import ENGINES
from roofline.kernel_tables import KernelTable
from roofline.kernel_tables.read import read_layout
from roofline.kernel_tables.table import KernelGroup
from roofline.records import CalibrationRecord, save_record, with_classes

FOLDER = Path(__file__).parents[1] / "hardware_specs" / "measured"

DECODE_ROWS = 16
"""New tokens up to which rows of prefill tables are left to the tables of decode."""

DEPTH = 512
"""Least inner dimension of products that are fitted: shallower ones are mostly fixed time."""

ENOUGH = 40
"""Rows of a class in one version of a table from which on that version is fitted rather than an older one."""

EXPERTS = ("hidden_size", "inter_size", "topk", "num_experts")
DEEPSEEK = dict(zip(EXPERTS, (7168, 2048, 8, 256), strict=True))

BLACKWELL = ("b200_sxm", "b300_sxm", "gb200", "gb300")

LEFT_OUT: dict[str, tuple[dict[str, Any], str]] = {
    "vllm-fp8-block-gemm": (
        {"family": "gemm", "framework": "vllm", "gemm_dtype": "fp8_block"},
        "55 µs and more at the smallest shapes, 150–280 µs on other GPUs: the host's launch was measured, not the kernel",
    ),
    **{
        f"trtllm-nvfp4-gemm-{gpu}": (
            {"family": "gemm", "framework": "trtllm", "gpu": gpu, "gemm_dtype": "nvfp4"},
            "up to 512 rows 1.1–1.3 times as slow as its own bf16, with 0.28 of the bytes, where SGLang's take 0.7 of bf16 (and its own "
            "on RTX PRO 6000 0.7): not the kernel that the engine picks when it starts",
        )
        for gpu in BLACKWELL
    },
    **{
        f"trtllm-mxfp4-bf16-experts-{gpu}": (
            {"family": "moe", "framework": "trtllm", "gpu": gpu, "moe_dtype": "w4a16_mxfp4"},
            "2.7–3.3 times as slow as with rows in mxfp8 at the same shapes, where SGLang's takes 1.1–1.3 times as long: not the kernel that "
            "the engine picks",
        )
        for gpu in BLACKWELL
    },
    "vllm-fp8-experts": (
        {"family": "moe", "framework": "vllm", "moe_dtype": "fp8"},
        "an untuned kernel that reaches 17–20 % of the bandwidth on Hopper; the engine tunes it when it starts",
    ),
    "vllm-grouped-experts": (
        {"family": "moe", "framework": "vllm", **DEEPSEEK},
        "as in the defect of the same name: its router keeps 4 of 8 groups, so that skewed rows touch fewer experts than their label says too",
    ),
    "sglang-grouped-experts": ({"family": "moe", "framework": "sglang", **DEEPSEEK}, "as in vLLM"),
    **{
        f"sglang-local-experts-{hidden}": (
            {
                "family": "moe",
                "framework": "sglang",
                "hidden_size": hidden,
                "inter_size": wide,
                "num_experts": count,
                "moe_ep_size": lambda ranks: ranks > 1,
            },
            "tokens that reach a rank visit min(k, E/ep) of its experts, so that the time does not fall with expert parallelism",
        )
        for hidden, wide, count in ((4096, 14336, 8), (6144, 16384, 8), (2816, 704, 128), (1024, 2688, 512))
    },
    "sglang-0.5.10-local-experts": (
        {"family": "moe", "framework": "sglang", "version": "0.5.10", "moe_ep_size": lambda ranks: ranks > 1},
        "so does every shape of this version",
    ),
    "sglang-untuned-experts": (
        {"family": "moe", "framework": "sglang", "kernel_source": "sglang_flashinfer_cutlass_moe"},
        "as vLLM's fp8 experts: the same kernel, which the engine tunes when it starts",
    ),
    **{
        f"{engine}-{version}-few-tokens-experts": (
            {
                "family": "moe",
                "framework": engine,
                "version": version,
                "gpu": "a100_sxm",
                "moe_ep_size": lambda ranks: ranks > 1,
                "num_tokens": lambda tokens, most=most: tokens <= most,
            },
            "one token takes as long on one of 2–16 devices as on one alone: the visits of few tokens all go to the device measured",
        )
        for engine, version, most in (("vllm", "0.14.0", 16), ("trtllm", "1.0.0", 4))
    },
    "l40s-all-reduce": (
        {"family": "all_reduce", "gpu": "l40s"},
        "eight ranks reach 1.1 GB/s where two reach 19: the host that was measured, not the GPU",
    ),
    "h200-deepep": (
        {"family": "dispatch", "framework": "sglang", "gpu": "h200_sxm", "version": "0.5.6.post2"},
        "the device's name is H100: a copy of that GPU's table",
    ),
    "l40s-exchange": ({"family": "redistribution", "gpu": "l40s"}, "as its all-reduce"),
    "sglang-unfused-quantize": (
        {"family": "rowwise", "framework": "sglang"},
        "several unfused kernels: 10 % of the bandwidth on H100, 6–7 % on B200",
    ),
    "convolutions": (
        {"family": "state", "kernel_source": lambda names: np.char.startswith(names.astype(str), "causal_conv1d")},
        "strided rows: 0.66–0.70 of the bandwidth on H100, 0.34 on B200, where quantization, norms and gates reach 0.84–0.9",
    ),
    "kda": (
        {"family": "state", "table": "kda"},
        "other kernels than the gated delta net's under one class; some convolve in the same launch",
    ),
}
"""Lanes that are no defect of a label but not what a serving engine does, with the reason."""

BORROWED = (
    ("trtllm", "sglang", "matmul", "nvfp4"),
    ("vllm", "sglang", "matmul", "fp8_block128"),
    ("vllm", "sglang", "latent_attention", "bf16"),
    ("vllm", "sglang", "latent_attention", "fp8"),
)
"""Classes that an engine has no usable table of, and whose they are instead on the same GPU: both engines run the same libraries of kernels
there, and constants of all GPUs or of another format are further off."""

FAMILIES = (
    "gemm",
    "generation_attention",
    "context_attention",
    "moe",
    "generation_mla",
    "context_mla",
    "all_reduce",
    "dispatch",
    "redistribution",
    "rowwise",
    "state",
)
_GRAPH = {"vllm": "vLLM_custom_graph", "trtllm": "TRTLLM", "sglang": "SGLang_CustomAllReduce_graph"}


def kept(lane: Lane, table: Table) -> np.ndarray:
    """Mark the rows of a table that are fitted, or that a fit is judged by."""
    rows = ~defective(lane, table)
    for meant, _ in LEFT_OUT.values():
        place = {name: meant[name] for name in ("family", "framework", "version", "gpu", "table") if name in meant}
        if all(getattr(lane, name) == value for name, value in place.items()):
            where = [value(table[c]) if callable(value) else table[c] == value for c, value in meant.items() if c not in place]
            rows &= ~np.logical_and.reduce([np.ones(rows.size, bool), *where])
    if lane.family == "gemm":
        rows &= table["k"] >= DEPTH
    if lane.family == "context_attention":
        rows &= table["isl"] > DECODE_ROWS
    if lane.family == "all_reduce":
        rows &= table["op_name"] == "all_reduce"
        rows &= np.isin(table["kernel_source"], list(_GRAPH.values()))
    if lane.family == "redistribution":
        rows &= table["op_name"] == "alltoall"
    return rows


def version_key(version: str) -> tuple[int, ...]:
    """Order versions: 1.3.0rc20 after 1.3.0rc15."""
    return tuple(int(part) for part in "".join(c if c.isdigit() else " " for c in version).split())


def lanes(gpu: str, engine: str) -> Iterator[tuple[Lane, KernelTable]]:
    """Yield the tables of an engine on a GPU as they are fitted, each class of the newest version that has it.

    NCCL's exchanges belong to every engine that has no table of its own kernels that dispatch tokens to experts.
    """
    own = any(lane.framework == engine and kept(lane, table).any() for lane, table in tables("dispatch", gpu))
    for family in FAMILIES:
        if family == "redistribution" and own:
            continue
        found: dict[str, list[tuple[Lane, KernelTable]]] = {}
        owner = "nccl" if family == "redistribution" else engine
        for lane, table in tables(family, gpu):
            if lane.framework == owner:
                for part in ("generation", "context") if family == "state" else ("",):
                    name = f"{part}_{lane.table}" if part else lane.table
                    rows = kept(lane, table) & ((table["phase"] == part) if part else True)
                    if rows.any():
                        some = select(table, rows)
                        kernels = read(lane, select(some, fastest(some)) if family == "moe" else some, name)
                        found.setdefault(name, []).append((lane, kernels))
        for versions in found.values():
            yield from newest(versions)


def fastest(table: Table) -> np.ndarray:
    """Return the places of the rows that an engine would run: of several kernels for the same experts the fastest."""
    code = np.zeros(len(table["latency"]), np.int64)
    for name in ("moe_dtype", "num_tokens", *EXPERTS, "moe_tp_size", "moe_ep_size", "distribution"):
        values, numbers = np.unique(table[name].astype(str), return_inverse=True)
        code = code * len(values) + numbers
    order = np.lexsort((table["latency"], code))
    return np.sort(order[np.flatnonzero(np.diff(code[order], prepend=-1))])


def read(lane: Lane, table: Table, name: str) -> KernelTable:
    """Return the kernels of a table; of rows that are streamed, those that main memory served."""
    where = {"framework": lane.framework, "version": lane.version, "table": name, "gpu": lane.gpu}
    kernels = read_layout(lane.table, table, origin=where)
    return kernels.keep(streamed(lane.gpu)) if lane.family in ("rowwise", "state") else kernels


def newest(versions: Sequence[tuple[Lane, KernelTable]]) -> Iterator[tuple[Lane, KernelTable]]:
    """Yield of every version of a table the classes that no newer one has; a version with few rows of a class does not have it.

    Experts without a gate alone, of one model's shape, are no class: rows of gated ones say whether a version has it.
    """
    best: dict[tuple[str, ...], tuple[bool, tuple[int, ...], int]] = {}
    for place, (lane, table) in enumerate(versions):
        rows: dict[tuple[str, ...], int] = {}
        for group in table:
            rows[class_of(group)] = rows.get(class_of(group), 0) + len(group) * bool(group.fixed.get("gated", True))
        for key, count in rows.items():
            if count:
                best[key] = max(best.get(key, (False, (), 0)), (count >= ENOUGH, version_key(lane.version), place))
    for place, (lane, table) in enumerate(versions):
        groups = tuple(group for group in table if best.get(class_of(group), (False, (), -1))[2] == place)
        if groups:
            yield lane, replace(table, groups=groups)


def class_of(group: KernelGroup) -> tuple[str, ...]:
    """Return what class of kernels a group belongs to; of exchanges, among how many devices as well."""
    ranks = (str(group.fixed["ranks"]),) if group.family == "exchange" else ()
    return group.family, group.stored, group.operand, *ranks


def stored_scales(gpu: str, engine: str) -> Iterator[KernelTable]:
    """Yield an engine's fp8 products as a checkpoint needs them that stores the scales of rows: without the kernel that computes these.

    How long that takes is in a table of its own, at the same rows and depths; SGLang's says 0. Whether the rows are quantized by the
    kernel before depends on model and engine, so that this part stays.
    """
    for lane, table in newest_of("gemm", gpu, engine):
        products = select(table, kept(lane, table) & (table["gemm_dtype"] == "fp8"))
        for _, scales in newest_of("computescale", gpu, engine):
            if products["m"].size and np.median(scales["latency"]) > 0:
                times = dict(zip(zip(scales["m"], scales["k"], strict=True), scales["latency"], strict=True))
                spared = np.array([times[place] for place in zip(products["m"], products["k"], strict=True)])
                yield read(lane, {**products, "latency": products["latency"] - spared}, lane.table)


def newest_of(family: str, gpu: str, engine: str) -> list[tuple[Lane, Table]]:
    """Return an engine's newest table of a family that has one, in a list; an empty one without."""
    found = [(lane, table) for lane, table in tables(family, gpu) if lane.framework == engine]
    return [max(found, key=lambda pair: version_key(pair[0].version))] if found else []


def streamed(gpu: str) -> Callable[[KernelGroup], np.ndarray]:
    """Return what marks the rows that main memory served: a cache does better than any share of the bandwidth."""
    bandwidth = Hardware.load(MACHINES[gpu]).memory_bandwidth
    return lambda group: np.asarray((group.op.compulsory_bytes + group.op.activation_bytes) / bandwidth <= group.seconds)


def record(gpu: str, engine: str) -> CalibrationRecord | None:
    """Return the record of an engine on a GPU; None if the wheel has none of its tables."""
    found = list(lanes(gpu, engine))
    own = [lane for lane, _ in found if lane.framework == engine]
    if not own:
        return None
    newest = max((lane.version for lane in own), key=version_key)
    versions = {lane.framework: "" for lane, _ in found}
    for framework in versions:
        versions[framework] = ", ".join(sorted({lane.version for lane, _ in found if lane.framework == framework}, key=version_key))
    about: dict[str, Any] = {
        "id": f"{MACHINES[gpu]}-{engine}-{newest}",
        "source": (
            f"kernel tables of {ENGINES[engine]} on {gpu} in aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0, on PyPI): CUDA-graph replay of "
            "single kernels with fixed buffers; fitted by benchmarks/fit_records.py"
        ),
        "software": versions,
        "date": "2026-11-22",
    }
    made = record_from_tables([table for _, table in found], MACHINES[gpu], **about)
    static = list(stored_scales(gpu, engine))
    classes = record_from_tables(static, MACHINES[gpu], **about).classes if static else ()
    why = "less the time of computing scales of the same rows"
    changes = ({"fixed_sizes": {**c.fixed_sizes, "scales": "static"}, "note": f"{c.note}; {why}"} for c in classes)
    return made.model_copy(
        update={"classes": (*made.classes, *(c.model_copy(update=change) for c, change in zip(classes, changes, strict=True)))}
    )


def build(gpus: Sequence[str]) -> Iterator[CalibrationRecord]:
    """Yield every record of some GPUs."""
    for gpu in gpus:
        made = {engine: found for engine in ENGINES if (found := record(gpu, engine)) is not None}
        for engine, other, family, stored in BORROWED:
            has = {name: any((c.family, c.stored) == (family, stored) for c in found.classes) for name, found in made.items()}
            if has.get(other) and not has.get(engine, True):
                made[engine] = with_classes(made[engine], made[other], family=family, stored=stored, id=made[engine].id)
        yield from made.values()


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gpu", choices=tuple(MACHINES), action="append", help="only this GPU; may be repeated")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write")
    asked = parser.parse_args()
    for made in build(asked.gpu or tuple(MACHINES)):
        path = save_record(made, asked.folder / f"{made.id}.json")
        print(f"{path.name}: {', '.join(f'{c.family} {c.stored} {100 * (c.error or 0):.1f} %' for c in made.classes)}")


if __name__ == "__main__":
    main()
