"""Our counts beside counts taken on the reference implementations; writes the table of docs/truth.md.

Usage: python benchmarks/truth_table.py [--write]

The counts in tests/data/truth come from Hugging Face's own code: `model.parameters()`, the tensors of its cache object and torch's
`FlopCounterMode`. A cell shows our figure where both agree to the last digit, and both figures where they do not.
"""

import csv
import json
from pathlib import Path

from pages import DOCS, markdown, publish
from roofline import Model, Step
from roofline.forward import Work, forward

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
TRUTH, TOWERS = DATA / "truth", DATA / "towers.csv"
HEADINGS = ("model", "parameters", "active", "KV bytes per token", "state bytes", "FLOP of linear layers", "FLOP of attention")
BESIDE = ("model", "text model", "tower and projector", "together", "of the checkpoint")
MISCOUNTED = {("minimax-text-01", point) for point in ("decode_b1_c1024", "decode_b4_c4096")}
"""Points whose mask the reference builds for one key: its cache of mixed layers reports the length of a recurrent one."""


def mixes(name: str) -> bool:
    """Whether an operator multiplies activations by each other or by a state, not by a weight."""
    return ".attention" in name or name.endswith((".indexer", ".state_update"))


def linear_flops(work: Work) -> int:
    """Matrix products with a weight."""
    return sum(op.flops for op in work.ops if op.kind == "contraction" and not mixes(op.name))


def attention_flops(work: Work) -> int:
    """Products between activations in softmax attention; an indexer's are counted apart in the truth file."""
    return sum(op.flops for op in work.ops if ".attention" in op.name)


def step_of(point: dict) -> Step:
    """The step of a counting point, all positions' logits included as the reference code computes them."""
    batch, new, cached = point["batch"], point["new_tokens_per_sequence"], point["cached_tokens_before"]
    return Step.of(count=batch, new=new, cached=cached, sampled=new)


def linear_truth(point: dict) -> int:
    """Linear layers, with MLA's kv_b passed once per new token where the reference re-expands the whole cache."""
    inside = point.get("linear_layers_kv_b_proj_for_new_token_only", point["linear_layers"])
    return inside + point["linear_outside_layers"] + point["lm_head"]


def agreement(pairs: list[tuple[str, float, float]]) -> str:
    """How many counting points agree exactly, and the first that does not."""
    wrong = [f"{name}: {ours:,} ≠ {theirs:,}" for name, ours, theirs in pairs if ours != theirs]
    return f"{len(pairs) - len(wrong)} of {len(pairs)} points equal" + (f"; {wrong[0]}" if wrong else "")


def cell(ours: float, theirs: float) -> str:
    """One figure where both agree, else both."""
    return f"{ours:,}" if ours == theirs else f"**{ours:,} ≠ {theirs:,}**"


def row(name: str, truth: dict) -> tuple[str, ...]:
    """One model's line of the table."""
    model = Model.load(truth["config"])
    linear, attention = [], []
    for label, point in truth["flops"].items():
        work = forward(model, step_of(point), weights="bf16")
        linear.append((label, linear_flops(work), linear_truth(point)))
        if "attention_unmasked" in point and not _latent_decode(point, model) and (name, label) not in MISCOUNTED:
            attention.append((label, attention_flops(work), point["attention_unmasked"]))
    cache = truth.get("kv_cache", {})
    kv = cache.get("bytes_per_token_logical", cache.get("bytes_per_token", 0))
    return (
        name,
        cell(model.parameters, truth["params"]["total"]),
        cell(model.active_parameters, truth["params"]["active_per_token"]),
        cell(model.kv_bytes_per_token("bf16"), kv),
        cell(model.state_bytes_per_sequence, cache.get("fixed_state_bytes_per_sequence", 0)),
        agreement(linear),
        agreement(attention) if attention else "none",
    )


def _latent_decode(point: dict, model: Model) -> bool:
    """Whether the reference expands a latent cache that we attend to in its absorbed form, which is cheaper."""
    latent = any(getattr(group.mixer, "kind", "") == "latent_attention" for group in model.layers)
    return latent and point["cached_tokens_before"] > 0


def with_tower(entry: dict[str, str]) -> tuple[str, ...]:
    """One line of the table of models with a tower."""
    model = Model.load(entry["model"])
    beside = model.tower_parameters or 0
    total = model.parameters + beside
    return entry["model"], f"{model.parameters:,}", f"{beside:,}", f"{total:,}", cell(int(entry["total"]), total)


def report() -> dict[str, str]:
    """Return the table."""
    rows = [row(file.stem, json.loads(file.read_text(encoding="utf-8"))) for file in sorted(TRUTH.glob("*.json"))]
    with TOWERS.open(encoding="utf-8", newline="") as file:
        towers = [with_tower(entry) for entry in csv.DictReader(file)]
    return {"truth": markdown(HEADINGS, rows), "towers": markdown(BESIDE, towers)}


if __name__ == "__main__":
    publish(report, DOCS / "truth.md", __doc__)
