"""What the published sample of served systems measured, and what was served there: labels repaired, joined and named as this library names them.

``silicon_sample.csv`` of the wheel ``aiconfigurator-core`` (NVIDIA, Apache-2.0) has 5,221 times of whole serving systems. Its labels leave
gaps, which are filled here by rule, without a look at any error:

- **Degrees.** An aggregated row is labelled with tensor and data parallelism of attention, and with tensor and expert parallelism of the
  experts. Four kinds of labels count n devices n² times, or not alike on both sides; `degrees` says how each is read.
- **Formats.** fp8 is one scale a tensor in a dense model and blocks of 128×128 in a mixture of experts and in Qwen3-32B, whose maker
  publishes it so, while TensorRT-LLM serves checkpoints that are quantized already; fp4 in a mixture is for its
  experts only, as the checkpoints' ignore lists say; gpt-oss is mxfp4, whatever the label.
- **Cache.** fp8 on Blackwell and wherever TensorRT-LLM serves quantized weights, else bf16; fp8 for Llama-3.1-70B and Qwen3.5 in fp8,
  as the sweeps' scripts set it.
- **Lengths.** InferenceX draws both lengths uniformly from 0.8–1.0 of the nominal ones, so its rows have 0.9 of them.
- **Speculative decoding and worker counts** come from InferenceX's sweep files, facts of which are in ``measurements/served_labels.csv.gz``.
  Of two rows with the same labels whose sweep ran both ways, and whose times per token are a tenth apart or more, the faster one drafts.
  A row without a match, or a lone one whose sweep ran both ways, is taken to decode one token a step.
"""

import csv
import gzip
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from measured_tables import MACHINES, data_folder

LABELS = Path(__file__).parent / "measurements" / "served_labels.csv.gz"
LATER = Path(__file__).parent / "measurements" / "served_later.csv"
BLACKWELL = ("b200-sxm", "b300-sxm", "gb200", "gb300")
DEV = ("h100-sxm", "h200-sxm")
"""Machines on which structure and constants may be tuned; the others are reported as found."""

CHECKPOINTS: dict[str, dict[str, tuple[str, str | None]]] = {
    "DeepSeek": {"fp8": ("deepseek-r1", None), "fp4": ("deepseek-v3.1-nvfp4", None)},
    "Llama-3.1-70B": {"fp8": ("llama-3.1-70b-instruct-fp8", None), "fp4": ("llama-3.1-70b", "modelopt NVFP4")},
    "Llama-3.1-8B-Instruct-FP8": {"fp8": ("llama-3.1-8b", "modelopt FP8")},
    "Llama-3.1-8B": {"bf16": ("llama-3.1-8b", None), "fp8": ("llama-3.1-8b", "fp8")},
    "Qwen3-32B": {"bf16": ("qwen3-32b", None), "fp8": ("qwen3-32b", "fp8_block128"), "fp4": ("qwen3-32b", "modelopt NVFP4")},
    "Qwen3-235B": {"fp8": ("qwen3-235b-a22b-fp8", None)},
    "Qwen3.5-397B": {
        "bf16": ("qwen3.5-397b-a17b", None),
        "fp8": ("qwen3.5-397b-a17b", "fp8_block128"),
        "fp4": ("qwen3.5-397b-a17b-nvfp4", None),
    },
    "MiniMax-M2.5": {"fp8": ("minimax-m2.5", None), "fp4": ("minimax-m2.5-nvfp4", None)},
    "Kimi-K2.5": {"int4": ("kimi-k2.5", None), "fp4": ("kimi-k2.5-nvfp4", None)},
    "gpt-oss-120b": {"fp8": ("gpt-oss-120b", None), "fp4": ("gpt-oss-120b", None)},
    "GLM-5": {"fp8": ("glm-5-fp8", None), "fp4": ("glm-5-nvfp4", None)},
}
"""Part of a model's path → its label of precision → name in the catalogue, and what its weights are quantized to, if not as stored there:
a format, or how NVIDIA's Model Optimizer did it, whose checkpoints of these models are not in the catalogue.
"""

CLIENT_S = 0.06
"""What requests of the other client (AIPerf, through Dynamo's frontend) take more: ``fit_engines --client``, H100 and H200 [s]."""
LOGIT_S = 2.4e-3 / (128 * 131072)
"""What sorting takes for each logit of a sequence: github.com/vllm-project/vllm, pull request 40376, measured before another kernel replaced it [s]."""
VOCABULARY = {"Qwen3-32B": 151936, "Qwen3-235B": 151936, "Llama-3.1-8B": 128256, "Llama-3.1-8B-Instruct-FP8": 128256}
"""Words of the models that vLLM samples with top-p, in their config.json [-]."""

DENSE = ("Llama-3.1-70B", "Llama-3.1-8B", "Llama-3.1-8B-Instruct-FP8", "Qwen3-32B")

CONFIGS = {
    "llama-3.1-70b": "meta-llama--Meta-Llama-3.1-70B",
    "llama-3.1-8b": "meta-llama--Meta-Llama-3.1-8B",
    "qwen3-32b": "Qwen--Qwen3-32B",
}
"""Names of the catalogue → files among the configurations of the wheel."""

PREFIXES = {
    "DeepSeek": "dsr1",
    "gpt-oss-120b": "gptoss",
    "MiniMax-M2.5": "minimaxm2.5",
    "Qwen3.5-397B": "qwen3.5",
    "GLM-5": "glm5",
    "Kimi-K2.5": "kimik2.5",
}
"""Part of a model's path → what the sweep files call it; they have no other of the sample's models."""

Row = Mapping[str, str]
Swept = tuple[int, int, bool]  # devices, of these for experts, and whether attention is data-parallel


@dataclass(frozen=True, slots=True)
class Served:
    """One measured system: where, what, under which load, and how long tokens took."""

    line: int  # of the sample's rows, from 1
    apart: bool  # whether prompts ran on other workers
    machine: str
    engine: str
    version: str
    family: str  # as in CHECKPOINTS
    model: str
    precision: str
    weights: str | None
    kv: str
    tensor: int
    data: int
    expert: int
    isl: float
    osl: float
    drawn: bool  # whether lengths differ from one request to the next
    concurrency: float  # clients; of a disaggregated row, for each decode worker
    speculative: str  # mtp, none, either or unknown
    repaired: str  # how the degrees were read, if not as labelled
    ttft_s: float
    tpot_s: float
    tagged: bool = False  # whether the source marks it as taken from a log of jobs (gtl), whose loads are not those of the labels
    workers: float = 1.0  # that decode, of a disaggregated row
    prompts_by: tuple[float, int, int, int] = (0.0, 1, 1, 1)  # workers that compute prompts, and their tensor, data and expert parallelism

    @property
    def labels(self) -> tuple[object, ...]:
        """What the row is labelled with, but for drafts."""
        degrees = (self.tensor, self.data, self.expert, self.workers, self.prompts_by)
        load = (self.isl, self.osl, self.drawn, self.concurrency)
        return (self.apart, self.machine, self.engine, self.version, self.model, self.precision, *degrees, *load)

    @property
    def borrowed(self) -> bool:
        """Whether the script names TensorRT-LLM's own kernels for experts in fp8, which its tables lack and SGLang's have."""
        newer = re.match(r"1\.[2-9]", self.version) is not None and not self.apart
        return (
            newer
            and self.engine == "trtllm"
            and self.machine in BLACKWELL
            and self.precision == "fp8"
            and self.data == 1
            and self.family == "DeepSeek"
        )

    @property
    def drafts(self) -> int:
        """Tokens that a step drafts for each sequence: 3, but 1 in TensorRT-LLM's scripts of one pool with data-parallel attention, and 2 in SGLang's of R1."""
        if self.speculative != "mtp":
            return 0
        if self.engine == "trtllm" and self.data > 1 and not self.apart:
            return 1
        return 2 if self.engine == "sglang" and self.family == "DeepSeek" and not self.apart else 3

    @property
    def client_s(self) -> float:
        """What a request takes outside of the engine more than with InferenceX's client and the engine's own server [s]."""
        return 0.0 if self.drawn else CLIENT_S

    @property
    def sampling_s(self) -> float:
        """What the engine takes to sample a token beyond what it takes of each sequence [s].

        Clients that draw no lengths name no temperature (AIPerf), so that vLLM samples as the ``generation_config`` of these models says, with
        top-p. Its version 0.12 sorts the logits for that.
        """
        return LOGIT_S * VOCABULARY[self.family] if self.engine == "vllm" and not self.drawn else 0.0

    @property
    def acceptance(self) -> float:
        """Probability that a draft is accepted if those before it were: assumed of disaggregated systems, else fitted to H200's rows [-]."""
        return 0.75 if self.apart else 0.65

    def checkpoint(self) -> tuple[str | dict[str, Any], str | Mapping[str, str] | None]:
        """Return the model, and the format of its weights if it is not the stored one."""
        if self.family == "gpt-oss-120b" and self.machine in BLACKWELL:
            return self.model, {"experts": "mxfp4_afp8"}
        maker, _, algorithm = (self.weights or "").partition(" ")
        folder = data_folder()
        if maker != "modelopt" or folder is None:
            return self.model, self.weights
        config = json.loads((folder.parents[1] / "model_configs" / f"{CONFIGS[self.model]}_config.json").read_text(encoding="utf-8"))
        quantization = {"quant_algo": algorithm, "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
        return {**config, "hf_quant_config": {"producer": {"name": maker}, "quantization": quantization}}, None


DRAWN = r"db-dump|source_file=2026|source_file=[\w.-]+-gap-analysis\.csv"
"""Sources whose rows are InferenceX's, which draws lengths: 122 of the 123 rows of the last have, to the digit, the times of one of the others."""

READ = {
    "": "as labelled",
    "tp=n²": "labelled tensor parallelism n², experts n × n: n devices",
    "dp=n²": "labelled data parallelism n², experts n × n: n devices",
    "tp=dp=n": "labelled tensor and data parallelism n each, experts n²: n devices, data parallelism",
    "experts": "labelled more devices for experts than for attention: the former",
    "swept": "labelled as no sweep ran: the one that did, on as many devices or on their root",
}
"""How the degrees of a row were read."""


def degrees(tensor: int, data: int, expert_tensor: int, expert: int) -> tuple[int, int, int, str]:
    """Return tensor, data and expert parallelism as labelled degrees are to be read, and how that is, one of `READ`."""
    attention, experts = tensor * data, expert_tensor * expert
    squared = attention == experts == expert**2 > 8
    if squared and data == 1 < expert_tensor:
        return expert, 1, expert, "tp=n²"
    if squared and tensor == 1 < expert_tensor:
        return 1, expert, expert, "dp=n²"
    if attention == experts == expert and tensor == data > 1:
        return 1, data, data, "tp=dp=n"
    if experts > attention:
        return tensor * experts // attention, data, expert, "experts"
    return tensor, data, expert, ""


def as_swept(shape: tuple[int, int, int], repaired: str, options: Collection[Swept]) -> tuple[int, int, int, str]:
    """Return tensor, data and expert parallelism as one of those that were swept, if they are none of them and it is plain which, and how they were read.

    Labels are n of each degree, or squares of n, where n devices ran; a degree of experts of 1 may be one that was not given.
    """
    tensor, data, expert = shape
    devices, apart = tensor * data, data > 1
    if not options or (devices, expert, apart) in options:
        return *shape, repaired
    likely = []
    if repaired == "tp=dp=n":
        likely = [(data, data, False)]
    elif devices == 4 == expert**2:
        likely = [(2, 2, apart)]
    elif expert == 1:
        likely = [option for option in options if option[0] == devices]
    if len(likely) != 1 or likely[0] not in options:
        return *shape, repaired
    devices, expert, apart = likely[0]
    return *((1, devices) if apart else (devices, 1)), expert, "swept"


def image_of(source: str) -> str:
    """Return the container image that a row's source names, without its host, or nothing."""
    last = source.split("; ")[-1].removeprefix("image=")
    return re.sub(r"^nvcr\.io[#/]", "", last) if ":" in last and "=" not in last.split(":")[0] else ""


def labels() -> dict[tuple[str, ...], list[Row]]:
    """Return the entries of the sweep files by what rows of the sample share with them, with their image and, if aggregated, without."""
    found: dict[tuple[str, ...], list[Row]] = {}
    with gzip.open(LABELS, "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            prefix = "dsr1" if row["prefix"].lower().startswith(("dsr1", "deepseek-r1")) else row["prefix"]
            engine = row["framework"].removeprefix("dynamo-").replace("trt", "trtllm")
            load = (row["mode"], prefix, row["hw"], engine, row["precision"].removeprefix("nv"), row["isl"], row["osl"], row["conc"])
            if row["mode"] == "agg":
                pools = (row["p_tp"], row["p_ep"], row["p_dp"])
                found.setdefault((*load, *pools, ""), []).append(row)
            else:
                pools = (row["p_tp"], row["d_tp"])
            found.setdefault((*load, *pools, row["image"]), []).append(row)
    return found


def most_clients(known: Mapping[tuple[str, ...], Sequence[Row]]) -> dict[tuple[str, ...], float]:
    """Return the most clients that the sweep files have of a mode, model, machine, engine, format and lengths, at any degrees."""
    found: dict[tuple[str, ...], float] = {}
    for key, entries in known.items():
        found[key[:7]] = max(found.get(key[:7], 0.0), *(float(entry["conc"]) for entry in entries))
    return found


def shapes_of(known: Mapping[tuple[str, ...], Sequence[Row]]) -> dict[tuple[str, ...], set[Swept]]:
    """Return the degrees that aggregated systems were swept with, by what they share: with as many clients, and with any number of them."""
    found: dict[tuple[str, ...], set[Swept]] = {}
    for key in known:
        if key[0] == "agg":
            for load in (key[:8], key[:7]):
                found.setdefault(load, set()).add((int(key[8]), int(key[9]), key[10] == "True"))
    return found


def sample() -> list[Row]:
    """Return the rows of the sample, numbered."""
    data = data_folder()
    if data is None:
        raise SystemExit("pip install aiconfigurator-core==0.12.0 (Linux x86-64) for the served systems")
    with (data.parent / "silicon_sample.csv").open(encoding="utf-8") as file:
        return [{**row, "line": str(line)} for line, row in enumerate(csv.DictReader(file), start=1)]


def whole(text: str) -> int:
    """Return a count, 1 where it is empty or 0."""
    return int(float(text or 1)) or 1


def labelled_degrees(row: Row, pool: str = "") -> tuple[int, int, int, str]:
    """Return the degrees of a row, or of one of its pools, as `degrees` does."""
    return degrees(*[whole(row[f"{pool}{name}_size"]) for name in ("tp", "attention_dp", "moe_tp", "moe_ep")])


def aggregated(rows: list[Row]) -> Iterator[Served | str]:
    """Yield every aggregated row as what was served, or the reason why it cannot be."""
    return decided(_aggregated(rows))


def _aggregated(rows: list[Row]) -> Iterator[Served | str]:
    """Yield every aggregated row as what was served, or the reason why it cannot be."""
    known = labels()
    most, swept = most_clients(known), shapes_of(known)
    for row in rows:
        if row["mode"] != "agg":
            continue
        tensor, data, expert, repaired = labelled_degrees(row)
        what = served_as(row)
        if isinstance(what, str):
            yield what
        elif tensor > 8 and expert == 1:
            yield "devices of a disaggregated run in all, filed as one system"
        else:
            concurrency = clients(row) or str(whole(row["batch_size"]) * data)
            if float(concurrency) > most.get(load_key(row, what, "")[:-1], float("inf")):
                yield "more clients than any version of its sweep ran"
                continue
            load = load_key(row, what, concurrency)
            for options in (swept.get(load, ()), swept.get(load[:-1], ())):
                tensor, data, expert, repaired = as_swept((tensor, data, expert), repaired, options)
            key = (*load, str(tensor * data), str(expert), str(data > 1))
            found = known.get((*key, image_of(row["silicon_data_source"]))) or known.get((*key, ""), [])
            yield served(row, what, (tensor, data, expert), float(concurrency), found, repaired)


def decided(rows: Iterable[Served | str]) -> Iterator[Served | str]:
    """Yield rows, those of which the sweep ran both ways with a decision where the sample has two: the faster one drafts, the slower does not."""
    listed = list(rows)
    alike: dict[tuple[object, ...], list[float]] = {}
    for row in listed:
        if isinstance(row, Served) and row.speculative == "either":
            alike.setdefault(row.labels, []).append(row.tpot_s)
    for row in listed:
        if isinstance(row, Served) and row.speculative == "either":
            fastest, slowest = min(alike[row.labels]), max(alike[row.labels])
            if slowest > TWICE * fastest and row.tpot_s in (fastest, slowest):
                yield replace(row, speculative="mtp" if row.tpot_s == fastest else "none")
                continue
        yield row


TWICE = 1.1
"""How far apart two times of the same labels are that cannot be the same thing, measured twice [-]."""


def disaggregated(rows: list[Row]) -> Iterator[Served | str]:
    """Yield every disaggregated row as what one of its decode workers served, or the reason why that is not known."""
    known = labels()
    for row in rows:
        if row["mode"] != "disagg":
            continue
        what = served_as(row)
        if isinstance(what, str):
            yield what
            continue
        pools = [labelled_degrees(row, f"{pool}_") for pool in ("prefill", "decode")]
        key = load_key(row, what, clients(row)), *(str(tensor * data) for tensor, data, _, _ in pools)
        found = known.get((*key[0], *key[1:], image_of(row["silicon_data_source"])), [])
        if row["decode_num_workers"]:
            found = [entry for entry in found if float(entry["d_nw"]) == float(row["decode_num_workers"])]
        shapes = {(entry["d_nw"], entry["d_tp"], entry["d_ep"], entry["d_dp"]) for entry in found}
        tensor, data, expert, _ = pools[0]
        prompts_by = (float(row["prefill_num_workers"] or 1), tensor, data, expert)
        if len(shapes) == 1:
            entry = found[0]
            data = int(entry["p_tp"]) if entry["p_dp"] == "True" else 1
            prompts_by = (float(entry["p_nw"]), int(entry["p_tp"]) // data, data, int(entry["p_ep"]))
            workers, devices, expert, apart = next(iter(shapes))
            data = int(devices) if apart == "True" else 1
            shape, repaired = (int(devices) // data, data, int(expert)), ""
        elif row["decode_num_workers"]:
            workers, (*shape, repaired) = row["decode_num_workers"], pools[1]
        else:
            yield "several sweeps with different workers" if shapes else "workers not in the sample, and no sweep matches"
            continue
        together = clients(row)
        of_worker = float(together) / float(workers) if together else float(row["decode_batch_size"]) * shape[1]
        yield replace(served(row, what, shape, of_worker, found, repaired), workers=float(workers), prompts_by=prompts_by)


def clients(row: Row) -> str:
    """Return the clients that a row's source names, or nothing."""
    named = re.search(r"silicon_concurrency=(\d+)", row["silicon_data_source"])
    return named[1] if named else ""


def load_key(row: Row, what: Mapping[str, str], concurrency: str) -> tuple[str, ...]:
    """Return what a row shares with entries of the sweep files, besides degrees and image."""
    machine = row["system"].removesuffix("_sxm")
    return row["mode"], what["prefix"], machine, row["backend"], what["precision"], row["isl"], row["osl"], concurrency


def served_as(row: Row) -> dict[str, str] | str:
    """Return machine, model and formats of a row, or why it has none."""
    machine = MACHINES.get(row["system"])
    family = next((name for name in CHECKPOINTS if name in row["model_path"]), None)
    if machine is None or family is None:
        return f"no machine or model named {row['system']}, {row['model_path']}"
    precision = row["precision"] or "bf16"
    if precision not in CHECKPOINTS[family]:
        return f"{family} in {precision} is not known"
    kv = cache_format(machine, row["backend"], family, precision)
    return {"machine": machine, "family": family, "precision": precision, "kv": kv, "prefix": PREFIXES.get(family, "")}


def cache_format(machine: str, engine: str, family: str, precision: str) -> str:
    """Return the format of the cache."""
    set_by_scripts = precision == "fp8" and family in ("Llama-3.1-70B", "Qwen3.5-397B")
    quantized = precision != "bf16" and engine == "trtllm" and family != "gpt-oss-120b"
    return "fp8" if machine in BLACKWELL or quantized or set_by_scripts else "bf16"


def later() -> list[Served]:
    """Return what InferenceX published of later versions than the sample has, numbered by their lines in ``served_later.csv``."""
    with LATER.open(encoding="utf-8") as file:
        return [of_later(line, row) for line, row in enumerate(csv.DictReader(file), start=1)]


def of_later(line: int, row: Row) -> Served:
    """Return a row of later versions as what was served."""
    machine, engine, family, precision = (row[name] for name in ("machine", "engine", "family", "precision"))
    model, weights = CHECKPOINTS[family][precision]
    return Served(
        line=line,
        apart=False,
        machine=machine,
        engine=engine,
        version=row["version"],
        family=family,
        model=model,
        precision=precision,
        weights=weights,
        kv=cache_format(machine, engine, family, precision),
        tensor=int(row["tensor"]),
        data=1,
        expert=int(row["expert"]),
        isl=0.9 * float(row["isl"]),
        osl=0.9 * float(row["osl"]),
        drawn=True,
        concurrency=float(row["concurrency"]),
        speculative="none",
        repaired="",
        ttft_s=float(row["ttft_ms"]) * 1e-3,
        tpot_s=float(row["tpot_ms"]) * 1e-3,
    )


def served(row: Row, what: Mapping[str, str], shape: Sequence[int], concurrency: float, found: Sequence[Row], repaired: str) -> Served:
    """Return a row as what was served."""
    model, weights = CHECKPOINTS[what["family"]][what["precision"]]
    tensor, data, expert = shape
    drawn = re.match(DRAWN, row["silicon_data_source"]) is not None
    share = 0.9 if drawn else 1.0
    ways = {entry["spec"] for entry in found}
    return Served(
        line=int(row["line"]),
        apart=row["mode"] == "disagg",
        machine=what["machine"],
        engine=row["backend"],
        version=row["backend_version"],
        family=what["family"],
        model=model,
        precision=what["precision"],
        weights=weights,
        kv=what["kv"],
        tensor=tensor,
        data=data,
        expert=expert if what["family"] not in DENSE else 1,
        isl=share * float(row["isl"]),
        osl=share * float(row["osl"]),
        drawn=drawn,
        concurrency=concurrency,
        speculative="either" if len(ways) > 1 else next(iter(ways), "unknown"),
        repaired=repaired,
        ttft_s=float(row["silicon_ttft_ms"]) * 1e-3,
        tpot_s=float(row["silicon_tpot_ms"]) * 1e-3,
        tagged="gtl_" in row["silicon_data_source"],
    )
