"""Hold sums of estimated kernels against sums of measured ones, over the models that people serve.

A case is a model, a machine, an engine's record, how the model is split, and a step: decode of 1 … 256 sequences, or the prefill of one
prompt. Every product, attention, mixture of experts and all-reduce of the step is looked up in the engine's tables; a size between two rows is
interpolated on logarithms, one after the other, and where several kernels were measured at one shape the fastest counts, as engines pick
it. Products that take less time than memory needs for their weights do not count: a large cache served them, of L40S and RTX PRO 6000, which no
step has them in. Kernels beyond the tables, the state updates and what works row by row are left out on both sides; a case counts if what is left is at
least nine tenths of the estimate. The step must fit into memory. Experts are visited as in the table's rows of ``power_law_1.01``, on both sides: a
draw of popularities that depends on the number of tokens, where a model's own do not.

Usage: ``python benchmarks/sum_check.py`` prints, ``--write`` puts the tables into docs/estimates.md and every case into
docs/tables/sums_of_kernels.csv; ``--gpu h100_sxm`` only that GPU, ``--records DIR`` records of a folder instead of the shipped ones.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fit_records import kept, version_key
from measured_tables import MACHINES, Table, tables
from pages import DOCS, comma_separated, markdown, options, put
from roofline import (
    CalibrationRecord,
    Estimate,
    Format,
    Hardware,
    Model,
    RooflineError,
    Step,
    list_models,
    list_records,
    load_record,
    step_estimate,
)
from roofline.engines import ENGINES
from roofline.estimate.constants import Chosen
from roofline.estimate.timing import same_kernels, sum_deviation
from roofline.kernel_tables.aiconfigurator.layout import message_bytes
from roofline.kernel_tables.labels import EXPERTS, MATMULS
from roofline.kernels import FAMILIES, count_op
from roofline.model import Experts
from roofline.ops import Op
from roofline.records import Environment

PAGE = DOCS / "estimates.md"
ROUTING = "power_law_1.01"
DEGREES, BATCHES, CONTEXTS, PROMPTS = (1, 2, 4, 8), (1, 4, 16, 64, 256), (1024, 8192, 32768), (512, 2048, 8192)
DENSE = (
    "llama-3.1-8b",
    "llama-3.1-70b",
    "llama-3.1-70b-instruct-fp8",
    "qwen3-8b",
    "qwen3-32b",
    "qwen3-32b-fp8-static-pertensor",
    "gemma-3-27b",
)
SHARE = 0.9
"""Least share of the estimate that must be looked up."""

LABELS = {
    (formats["weights"], Format.load(formats["format"]).operand): label for known in (MATMULS, EXPERTS) for label, formats in known.items()
}
"""Formats stored and multiplied → label of the tables."""

AXES = {
    "gemm": (("gemm_dtype",), ("n", "k", "m")),
    "generation_attention": (
        ("attn_dtype", "kv_cache_dtype", "num_heads", "num_key_value_heads", "head_dim", "window_size"),
        ("length", "batch_size"),
    ),
    "context_attention": (
        ("attn_dtype", "kv_cache_dtype", "num_heads", "num_key_value_heads", "head_dim", "window_size", "batch_size"),
        ("isl",),
    ),
    "moe": (
        ("moe_dtype", "distribution", "hidden_size", "inter_size", "num_experts", "topk", "moe_tp_size", "moe_ep_size"),
        ("num_tokens",),
    ),
    "generation_mla": (("mla_dtype", "kv_cache_dtype", "num_heads"), ("length", "batch_size")),
    "context_mla": (("mla_dtype", "kv_cache_dtype", "num_heads", "batch_size"), ("isl",)),
    "all_reduce": (("num_gpus",), ("bytes",)),
}
"""Table → columns that a kernel must agree with, and those that are interpolated."""

_FEWEST = 50  # rows of a label, below which an older version of the tables is taken


@cache
def measured(gpu: str, engine: str, name: str) -> dict[tuple[object, ...], Any]:
    """Return the times of one table: what must agree → nested mappings, one level for each size that is interpolated → [s]."""
    where, axes = AXES[name]
    found: dict[tuple[object, ...], Any] = {}
    newest: dict[object, tuple[int, ...]] = {}
    lanes = [(lane, table) for lane, table in tables(name, gpu) if lane.framework == engine and lane.table in (name, "custom_allreduce")]
    for lane, table in sorted(lanes, key=lambda pair: version_key(pair[0].version), reverse=True):
        table = {**table, "length": table["isl"] + table["step"]} if "step" in table else table
        rows = kept(lane, table)
        if name == "gemm":
            rows &= ~cached(gpu, table)
        if name == "all_reduce":
            table = {**table, "bytes": message_bytes(table)}
        elif name.startswith("context"):
            rows = rows & (table["step"] == 0)
        labels, counts = np.unique(table[where[0]][rows], return_counts=True)
        enough = {label for label, count in zip(labels.tolist(), counts.tolist(), strict=True) if count >= _FEWEST or name == "all_reduce"}
        columns = [table[c][rows].tolist() for c in (*where, *axes)]
        for *key, seconds in zip(*columns, (table["latency"][rows] * 1e-3).tolist(), strict=True):
            if newest.setdefault(key[0], version_key(lane.version) if key[0] in enough else ()) != version_key(lane.version):
                continue
            *path, last = key[len(where) :]
            level = found.setdefault(tuple(key[: len(where)]), {})
            for size in path:
                level = level.setdefault(size, {})
            level[last] = min(seconds, level.get(last, np.inf))
        newest = {label: version for label, version in newest.items() if version}
    return found


def cached(gpu: str, table: Table) -> np.ndarray:
    """Mark the products whose weights a cache served: they take less time than reading these from memory, as each step has to."""
    bits = {label: Format.load(formats["weights"]).bits for label, formats in MATMULS.items()}
    weights = table["n"] * table["k"] * np.array([bits.get(label, 0.0) for label in table["gemm_dtype"].tolist()]) / 8
    return np.asarray(weights / Hardware.load(MACHINES[gpu]).memory_bandwidth > table["latency"] * 1e-3)


def interpolate(level: Mapping[float, Any], wanted: Sequence[float]) -> float:
    """Return the time at some sizes, interpolated on logarithms, one size after another; NaN outside of what was measured [s]."""
    at, *rest = wanted
    values = sorted(level)
    if not values[0] <= at <= values[-1]:
        return np.nan
    above = bisect_left(values, at)
    if values[above] == at:
        return interpolate(level[values[above]], rest) if rest else float(level[values[above]])
    ends = values[above - 1], values[above]
    low, high = (interpolate(level[v], rest) if rest else level[v] for v in ends)
    share = np.log(at / ends[0]) / np.log(ends[1] / ends[0])
    return float(np.exp(np.log(low) * (1 - share) + np.log(high) * share))


@dataclass(frozen=True, slots=True)
class Split:
    """A model on some devices of a machine, timed with an engine's record."""

    gpu: str
    engine: str
    model: Model
    tensor_parallel: int
    expert_parallel: int

    def look_up(self, op: Op, sequences: int, length: int, *, decode: bool) -> float:
        """Return the measured time of an operator's kernel; NaN where there is none [s]."""
        tokens = sequences if decode else sequences * length
        sizes = dict(op.sizes)
        if op.family == "matmul":
            rows = sequences if "lm_head" in op.name else tokens
            return self._find("gemm", (LABELS.get((op.stored, op.operand)),), (sizes["outputs"], sizes["inputs"], rows))
        if op.family in ("attention", "latent_attention"):
            kind = ("generation" if decode else "context") + ("_mla" if op.family == "latent_attention" else "_attention")
            key: tuple[object, ...] = (_label(op.operand), _label(op.stored), sizes["heads"])
            if op.family == "attention":
                window = re.search(r"window (\d+)", op.name)
                key += (sizes["kv_heads"], sizes["qk_dim"], int(window[1]) if window else 0)
            return self._find(kind, key if decode else (*key, sequences), (length, sequences) if decode else (length,))
        if op.family == "all_reduce":
            return self._find("all_reduce", (sizes["ranks"],), (tokens * self.model.hidden_size * 2,))
        if op.family == "experts":
            shape = self._experts(op)
            names = ("hidden", "intermediate", "count", "top_k", "tp", "ep")
            return self._find("moe", (LABELS.get((op.stored, op.operand)), ROUTING, *(shape[name] for name in names)), (tokens,))
        return np.nan

    def _experts(self, op: Op) -> dict[str, Any]:
        """Return the sizes of a mixture of experts as tables name them."""
        made = experts_of(self.model)
        assert made is not None
        whole = {"intermediate": made.intermediate, "count": made.count, "top_k": made.top_k, "gated": made.gated}
        return {
            "hidden": op.sizes["hidden"],
            **whole,
            "tp": made.intermediate // int(op.sizes["intermediate"]),
            "ep": int(op.sizes["ranks"]),
        }

    def experts_s(self, op: Op, chosen: Chosen, place: int, tokens: int) -> float:
        """Return the estimate of a mixture of experts that is visited as in the tables, with the constants of a place [s]."""
        law = {"routing": "power_law", "exponent": float(ROUTING.rpartition("_")[2])}
        counted = count_op("experts", tokens=tokens, **self._experts(op), **law, **EXPERTS[LABELS[op.stored, op.operand]])
        family, constants = FAMILIES["experts"], {name: column[place, 0] for name, column in chosen.constants.items()}
        rates = {"peak_flops_per_s": chosen.peak_flops_per_s[place, 0], "bandwidth": chosen.bandwidth[place, 0]}
        return float(family.seconds(family.features(counted), constants, **rates))

    def _find(self, table: str, key: tuple[object, ...], wanted: tuple[float, ...]) -> float:
        level = measured(self.gpu, self.engine, table).get(key)
        return interpolate(level, wanted) if level else np.nan

    def steps(self) -> Iterator[tuple[str, int, int]]:
        """Yield the steps: kind, sequences, positions that a decode meets, its own included, or tokens of the prompt."""
        yield from (("decode", batch, context) for batch in BATCHES for context in CONTEXTS)
        yield from (("prefill", 1, prompt) for prompt in PROMPTS)

    def estimate(self, kind: str, sequences: int, length: int, calibration: Any) -> Estimate:
        """Return the estimate of one step."""
        step = Step.decode(batch=sequences, context=length - 1) if kind == "decode" else Step.prefill(batch=sequences, prompt=length)
        return step_estimate(
            self.model,
            MACHINES[self.gpu],
            step,
            calibration=calibration,
            tensor_parallel=self.tensor_parallel,
            expert_parallel=self.expert_parallel,
            routing=ROUTING,
        )


def _label(form: str) -> str:
    return {"bf16": "bfloat16"}.get(form, form)


@dataclass(frozen=True, slots=True)
class Case:
    """One step, measured and estimated."""

    machine: str
    engine: str
    model: str
    moe: bool
    kind: str
    measured_s: float
    estimate_s: float
    low_s: float
    high_s: float
    worst: str  # family whose error, in time, is largest

    @property
    def error(self) -> float:
        """How far the estimate is from the sum [-]."""
        return self.estimate_s / self.measured_s - 1

    @property
    def what(self) -> str:
        """What kind of model and step it is."""
        return f"{'experts' if self.moe else 'dense'}, {self.kind}"


def case(split: Split, kind: str, sequences: int, length: int, calibration: Any) -> Case | None:
    """Return a case; None if the step does not fit, or too little of it was measured."""
    estimate = split.estimate(kind, sequences, length, calibration)
    if not estimate.fits:
        return None
    measured_s, missing, parts, errors = 0.0, 0.0, [], {}
    tokens = sequences if kind == "decode" else sequences * length
    for (stack, chosen, seconds), residuals in zip(estimate.timed.parts, estimate.timed.residuals, strict=True):
        if stack.family.name in ("rowwise", "state"):
            continue
        estimated = np.zeros(seconds.shape)
        for i, op in enumerate(stack.ops):
            found = split.look_up(op, sequences, length, decode=kind == "decode") * op.count
            if np.isnan(found):
                missing += seconds[i, 0]
                continue
            time = split.experts_s(op, chosen, i, tokens) * op.count if op.family == "experts" else seconds[i, 0]
            estimated[i] = time
            measured_s += found
            errors[stack.family.name] = errors.get(stack.family.name, 0.0) + time - found
        parts.append(same_kernels(stack, chosen, estimated, residuals))
    total = float(sum(seconds.sum() for seconds, *_ in parts))
    if total < SHARE * (total + missing):
        return None
    low, high = (float(sum_deviation(parts, level)[0]) for level in (0.1, 0.9))
    return Case(
        MACHINES[split.gpu],
        split.engine,
        split.model.name,
        experts_of(split.model) is not None,
        kind,
        measured_s,
        total,
        total + min(low, 0),
        total + max(high, 0),
        max(errors, key=lambda name: abs(errors[name])),
    )


def experts_of(model: Model) -> Experts | None:
    """Return the mixture of experts of a model that has one."""
    return next((group.feed_forward for group in model.layers if isinstance(group.feed_forward, Experts)), None)


@cache
def as_measured(name: str) -> Model:
    """Return a model of the catalogue as the tables were measured: scales of rows are computed."""
    return Model.load(name).but(static_scales=False)


def splits(gpu: str, engine: str) -> Iterator[Split]:
    """Yield every model on every number of devices; mixtures of experts where theirs were measured. Of models with equal layers one counts."""
    seen, known = set(), {key[1:] for key in measured(gpu, engine, "moe")}
    for name in (*DENSE, *sorted(list_models(), key=len)):
        model = as_measured(name)
        if (shape := (model.hidden_size, model.layers)) in seen:
            continue
        seen.add(shape)
        made = experts_of(model)
        for degree in DEGREES if made or name in DENSE else ():
            for ranks in {1, degree} if made else {1}:
                if made is not None:
                    sizes = (made.latent or model.hidden_size, made.intermediate, made.count, made.top_k)
                    if (ROUTING, *sizes, degree // ranks, ranks) not in known:
                        continue
                yield Split(gpu, engine, model, degree, ranks)


def of_no_engine(record: CalibrationRecord) -> CalibrationRecord:
    """Return a record whose engine is not known: its kernels are estimated as the tables have them, the shared expert's by themselves."""
    return record.model_copy(update={"environment": Environment(device=record.environment.device)})


def cases(gpus: Sequence[str], records: Path | None) -> Iterator[Case]:
    """Yield every case."""
    for gpu in gpus:
        for engine in ENGINES:
            made_here = f"{MACHINES[gpu]}-{engine}-"
            known = (
                sorted(records.glob(f"{made_here}*.json")) if records else [name for name in list_records() if name.startswith(made_here)]
            )
            if not known:
                continue
            calibration = of_no_engine(load_record(known[0]))
            for split in splits(gpu, engine):
                for step in split.steps():
                    try:
                        made = case(split, *step, calibration)
                    except RooflineError:  # a degree that does not divide the model
                        break
                    if made is not None:
                        yield made


def errors_of(some: Sequence[Case]) -> tuple[float, float, float, float]:
    """Return the mean and the median error, the bias, and the share of cases inside the interval [-]."""
    errors = np.array([c.error for c in some])
    inside = np.mean([c.low_s <= c.measured_s <= c.high_s for c in some])
    return float(np.mean(np.abs(errors))), float(np.median(np.abs(errors))), float(np.median(errors)), float(inside)


def cell(some: Sequence[Case]) -> str:
    """Return the errors of some cases as a cell of the page."""
    if not some:
        return "–"
    mean, median, _, inside = errors_of(some)
    return f"{mean:.1%} / {median:.1%}, {inside:.0%} of {len(some):,}"


def report(found: Sequence[Case]) -> dict[str, str]:
    """Return the table of the page, by machine, and the longer one by engine and model."""
    kinds = sorted({c.what for c in found})
    machines = {f"`{m}`": [c for c in found if c.machine == m] for m in dict.fromkeys(c.machine for c in found)}
    engines = {ENGINES[e]: [c for c in found if c.engine == e] for e in ENGINES}
    lines = [
        (name, *(cell([c for c in some if c.what == kind]) for kind in kinds))
        for name, some in {**machines, **engines, "all": found}.items()
    ]
    groups: dict[tuple[str, ...], list[Case]] = {}
    for c in found:
        groups.setdefault((c.machine, c.engine, c.model, c.what.replace(", ", " ")), []).append(c)
    each = []
    for key, some in groups.items():
        families = [c.worst for c in some]
        each.append((*key, len(some), *(f"{value:.3f}" for value in errors_of(some)), max(sorted(set(families)), key=families.count)))
    names = "machine engine model steps count mean_error median_error bias inside_80 worst_family"
    return {
        "sum check": markdown(("rows of", *kinds), lines),
        "sums_of_kernels.csv": comma_separated(tuple(names.split()), sorted(each)),
    }


def main() -> None:
    """Print or write the tables."""
    parser = options(PAGE, __doc__ or "")
    parser.add_argument("--gpu", choices=tuple(MACHINES), action="append", help="only this GPU; may be repeated")
    parser.add_argument("--records", type=Path, help="a folder of records to judge instead of the shipped ones")
    asked = parser.parse_args()
    put(report(list(cases(asked.gpu or tuple(MACHINES), asked.records))), PAGE, onto_page=asked.write)


if __name__ == "__main__":
    main()
