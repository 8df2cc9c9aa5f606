"""Every family that the installed transformers runs, read by us and counted on its class: ``python benchmarks/families.py --write``.

Each family is taken with the default configuration of its class and with a small varied one. Its reader, what reading its code gives
and what the class itself counts on tensors without data, or on small random ones, stand side by side: parameters, FLOP of products
with weights for each token of a prompt, bytes of cache for each token, and bytes of state for each sequence. ``--only llama`` shows
one family. Gemma-3n is built only where the package timm is installed beside transformers.
"""

import argparse
import contextlib
import functools
import gzip
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from families_configs import MAPPINGS, as_read, as_written, default, families, varied
from families_counted import build, of_class
from families_described import Counts, of_model
from fuzz_configs import little_memory
from pages import DOCS, comma_separated, markdown, put
from roofline import Model, RooflineError
from roofline.huggingface.registry import find_reader

LIMIT_S, LIMIT_BYTES = 400.0, 8 * 2**30
KINDS = ("default", "varied")
MOST_WEIGHTS, MOST_AGAIN, MOST_TRIED = 6 * 10**7, 5 * 10**8, 8
"""Of a module that runs on data, of one that does so where it cannot run without, and how many small configurations are tried in vain."""

EXPLAINED = {
    # family: which figures differ, and why that is right
    "cpmant": (
        "linear_flops state_bytes",
        "its class puts 32 positions of its own before every prompt, which are counted once per sequence",
    ),
    "encoder-decoder": ("linear_flops", "the pooler of its encoder runs on one row of a sequence, and nothing uses what it makes"),
    "ernie4_5_vl_moe": (
        "parameters",
        "the experts of images, which text never visits, are in its decoder; the reader names them and counts none",
    ),
    "longcat_flash": ("parameters linear_flops", "its class has weights for experts that only pass their input on; no checkpoint has them"),
    "zaya": (
        "linear_flops",
        "its class multiplies with an expert for tokens, too, that chose to skip theirs, and with one row more for a sequence",
    ),
    "nllb-moe": ("linear_flops", "its class takes the choice of two experts for their numbers, and runs the first two for every token"),
    "mistral3": ("parameters", "the inner level says whether embedding and head are one in published models; in its class, the outer one"),
}
EXPLAINED |= dict.fromkeys(
    ("big_bird", "layoutlm", "squeezebert"),
    ("linear_flops", "its class pools the first position, once for a sequence and not for each token"),
)
EXPLAINED["vision-encoder-decoder"] = (
    "linear_flops",
    "patches, one fewer than positions, are counted as other work than products, for no whole number of them makes a position",
)
EXPLAINED |= dict.fromkeys(
    ("canary", "cohere_asr"), ("linear_flops", "its class multiplies distances between positions with a matrix, which no token needs anew")
)
EXPLAINED |= dict.fromkeys(
    ("moonshine", "speech-encoder-decoder", "speecht5"),
    ("linear_flops", "the convolutions of its encoder work on more rows at the ends of a source, which no position needs"),
)
EXPLAINED |= dict.fromkeys(
    ("dots3_note", "dots3_note_text"),
    ("kv_bytes", "its class keeps an indexer's keys in 32 bits, which no cache does; they count in the format of the cache"),
)
EXPLAINED |= dict.fromkeys(
    ("llama4", "llama4_text"), ("linear_flops", "its class runs every expert on every token; those chosen are what a model needs")
)
EXPLAINED |= dict.fromkeys(
    (
        *("albert", "bert", "camembert", "data2vec-text", "ernie", "jina_embeddings_v3", "megatron-bert", "mpnet", "roberta"),
        *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"),
    ),
    ("parameters", "its class keeps the bias of a head that is not the embedding twice"),
)
"""Families whose class does what its model does not need: figures that differ there are shown, and are not wrong."""


@dataclass(slots=True)
class Row:
    """One family in one configuration."""

    mapping: str
    model_type: str
    kind: str
    built: str = ""
    """Why the class could not be built; empty if it was."""
    run: str = ""
    """Why it could not be run."""
    counted: dict[str, Any] = field(default_factory=dict)
    """Counts of the class, of the reader and of the code, by those names."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why the reader or the reading of the code refused."""
    config: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def counts(self, who: str) -> Counts:
        """What one of the three counted."""
        return Counts(**self.counted.get(who, {}))

    @property
    def explained(self) -> str:
        """Why figures differ that rightly do."""
        return EXPLAINED[self.model_type][1] if self._differ() != self.wrong else ""

    @property
    def wrong(self) -> tuple[str, ...]:
        """Which figures differ, and whose, without a known reason."""
        known = EXPLAINED.get(self.model_type, ("", ""))[0].split()
        return tuple(name for name in self._differ() if name.split(" ")[0].rstrip(":") not in known)

    def _differ(self) -> tuple[str, ...]:
        """Which figures differ, and whose."""
        truth, reader, code = map(self.counts, ("class", "reader", "code"))
        found = []
        for name in Counts.FIELDS:
            right = getattr(truth, name)
            values = {who: getattr(counts, name) for who, counts in (("reader", reader), ("code", code))}
            if right is None:
                if None not in values.values() and values["reader"] != values["code"]:
                    found.append(f"{name}: the two readings differ")
                continue
            found += [f"{name} of the {who}" for who, value in values.items() if value not in (None, right)]
        if self.mapping == "causal" and not truth.tower_parameters:
            found = [name for name in found if not name.startswith("tower")]  # the class is the text model alone
        return tuple(name for name in found if not self._whole(name))

    def _whole(self, name: str) -> bool:
        """Whether it is the code that counts the towers, which it does not tell apart, with the rest."""
        truth, code = self.counts("class"), self.counts("code")
        both = [(counts.parameters or 0) + (counts.tower_parameters or 0) for counts in (truth, code)]
        return name in ("parameters of the code", "tower_parameters of the code") and both[0] == both[1]

    @property
    def verdict(self) -> str:
        """What became of it."""
        if self.built:
            return "no class"
        if self.wrong:
            return "wrong"
        read = [who for who in ("reader", "code") if who in self.counted]
        return " and ".join(read) if read else "refused"


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, RooflineError) else f"{type(error).__name__}: {text}"


def _first_that_runs(config: dict[str, Any], automatic: str) -> tuple[dict[str, Any], Any, Counts, str]:
    """Return the most varied small configuration that its class builds and runs and its reader, if any, reads; the class, and its counts."""
    best, kept, failed, tried = (), None, "", 0
    for small in varied(config):
        try:
            written = as_written(as_read(small))
            module = build(as_read(small), automatic, "meta")
            size = sum(p.numel() for p in module.parameters())
            if size <= MOST_WEIGHTS:
                module = build(as_read(small), automatic, "cpu")  # where code may look at values
            counts, why = of_class(module)
            if why and MOST_WEIGHTS < size <= MOST_AGAIN:
                module = build(as_read(small), automatic, "cpu")
                counts, why = of_class(module)
        except Exception as error:
            failed = failed or _sentence(error)
            continue
        found, good = (written, module, counts, why), (not why, find_reader(config["model_type"]) is None or _readable(written))
        if all(good):
            return found
        if kept is None or good > best:
            best, kept = good, found
        tried += 1
        if tried == MOST_TRIED:
            break
    if kept is None:
        raise ValueError(failed or "no small configuration can be built")
    return kept


def _readable(config: dict[str, Any]) -> bool:
    try:
        Model.load(config)
    except RooflineError:
        return False
    return True


def count(row: Row) -> Row:
    """Fill in what the class of one family counts in one configuration."""
    automatic = MAPPINGS[row.mapping][1]
    try:
        row.config = default(row.model_type, row.mapping)
        if row.kind == "varied":
            row.config, module, counts, row.run = _first_that_runs(row.config, automatic)
        else:
            module = build(as_read(row.config), automatic, "meta")
            counts, row.run = of_class(module)
    except Exception as error:
        row.built = _sentence(error)
    else:
        row.counted["class"] = asdict(counts)
        row.config |= {"dtype": "bfloat16", "architectures": [type(module).__name__]}
    return row


def examine(row: Row) -> Row:
    """Fill in what becomes of one family in one configuration; what its class counts may be known already."""
    start = time.perf_counter()
    if not row.built and "class" not in row.counted:
        count(row)
    if not row.built:
        for who, read in ROUTES.items():
            try:
                row.counted[who] = asdict(of_model(read(row.config)))
            except Exception as error:
                row.refused[who] = _sentence(error)
    row.seconds = time.perf_counter() - start
    return row


ROUTES = {"reader": Model.load, "code": functools.partial(Model.load, read="code")}


def _child(row: Row, pipe: Any) -> None:
    little_memory(LIMIT_BYTES)
    with contextlib.redirect_stdout(None), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        pipe.send(examine(row))


def apart(row: Row) -> Row:
    """Examine in a process of its own, which may take neither the machine's memory nor its time."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(row, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(LIMIT_S) else replace(row, built=f"took more than {LIMIT_S:.0f} s")
    except EOFError:
        return replace(row, built="took the process down")
    finally:
        process.kill()
        process.join()


def cases(mappings: Iterable[str], only: Iterable[str] = (), known: Iterable[Row] = ()) -> list[Row]:
    """Return what there is to examine, with what its class is known to count."""
    wanted, before = set(only), {(row.mapping, row.model_type, row.kind): row for row in known}
    rows = [Row(m, t, kind) for m in mappings for t in families(m) if not wanted or t in wanted for kind in KINDS]
    return [before.get((row.mapping, row.model_type, row.kind), row) for row in rows]


def kept(file: Path) -> list[Row]:
    """Return what runs kept, the last of each case."""
    rows = [Row(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    return list({(row.mapping, row.model_type, row.kind): row for row in rows}.values())


def unread(rows: Iterable[Row]) -> list[Row]:
    """Return classes that could be built with their counts, and without what was made of their configurations."""
    return [replace(row, counted={k: v for k, v in row.counted.items() if k == "class"}, refused={}) for row in rows if not row.built]


def examine_all(rows: list[Row], workers: int, keep: Path | None = None) -> list[Row]:
    """Examine several at a time, say how far it is, and keep what was found line by line."""
    done = []
    with ThreadPoolExecutor(workers) as pool:
        for future in as_completed([pool.submit(apart, row) for row in rows]):
            row = future.result()
            done.append(row)
            progress = f"{len(done)}/{len(rows)} {row.mapping} {row.model_type} {row.kind}"
            print(f"{progress}: {row.verdict} {'; '.join(row.wrong)} ({row.seconds:.1f} s)", file=sys.stderr)
            if keep is not None:
                with keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(row), default=str) + "\n")
    return in_order(done)


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Sort as the tables are."""
    return sorted(rows, key=lambda row: (list(MAPPINGS).index(row.mapping), row.model_type, row.kind))


# ----------------------------------------------------------------------------------------------------------------- tables

PAGE = DOCS / "truth.md"
HEAD = (
    *("mapping", "model_type", "configuration", "verdict", "what differs, or why"),
    *(f"{name} of the {who}" for name in Counts.FIELDS for who in ("class", "reader", "code")),
    *("why the class was not built", "why it was not run", "why the reader refused", "why the code was refused"),
)


def line(row: Row) -> tuple[object, ...]:
    """One line of the long table."""
    figures = [getattr(row.counts(who), name) for name in Counts.FIELDS for who in ("class", "reader", "code")]
    shown = ["" if f is None else int(f) if f == int(f) else f for f in figures]
    why = (row.built, row.run, row.refused.get("reader", ""), row.refused.get("code", ""))
    return row.mapping, row.model_type, row.kind, row.verdict, "; ".join(row.wrong) or row.explained, *shown, *why


def equal(row: Row) -> bool:
    """Whether some route reads a configuration to the parameters of its class, and no route to others."""
    return bool({"reader", "code"} & set(row.counted)) and not any(name.startswith("parameters") for name in row.wrong)


def pinned(rows: list[Row]) -> bytes:
    """Return what tests hold the readers against: the small configurations that are read, with what their classes count."""
    lines = []
    for row in rows:
        if row.kind == "varied" and "reader" in row.counted and not any(name.endswith("reader") for name in row.wrong):
            known = [
                *EXPLAINED.get(row.model_type, ("", ""))[0].split(),
                "" if row.counts("class").tower_parameters else "tower_parameters",
            ]
            counts = {name: count for name, count in row.counted["class"].items() if count is not None and name not in known}
            config = {key: value for key, value in row.config.items() if key not in ("id2label", "label2id", "transformers_version")}
            line = {"mapping": row.mapping, "model_type": row.model_type, "class": counts, "config": config}
            lines.append(json.dumps(line, separators=(",", ":")) + "\n")
    return gzip.compress("".join(lines).encode(), mtime=0)


def summary(rows: list[Row]) -> str:
    """How many families of each mapping are read in each configuration, by whom, and whether what is read is right."""
    lines = []
    either = {(row.mapping, row.model_type) for row in rows if not row.built and equal(row)}
    for mapping, kind in dict.fromkeys((row.mapping, row.kind) for row in rows):
        of = [row for row in rows if (row.mapping, row.kind) == (mapping, kind)]
        built = [row for row in of if not row.built]
        asked = [who for who in ROUTES if any(who in row.counted or who in row.refused for row in built)]
        by_route = [sum(who in row.counted for row in built) if who in asked else "not asked" for who in ROUTES]
        right = sum(equal(row) for row in built), sum(equal(row) and not row.wrong for row in built)
        lines.append(
            (
                mapping,
                kind,
                len(of),
                len(built),
                *by_route,
                *right,
                sum(bool(row.wrong) for row in built),
                sum((mapping, row.model_type) in either for row in of),
            )
        )
    head = (
        "mapping",
        "configuration",
        "families",
        "class can be built",
        "reader",
        "code",
        "parameters equal",
        "all figures equal",
        "some figure differs",
        "parameters equal in one of both",
    )
    return markdown(head, lines)


def report(rows: list[Row]) -> dict[str, str]:
    """Return the tables."""
    return {"families": summary(rows), "families.csv": comma_separated(HEAD, [line(row) for row in rows])}


def main() -> None:
    """Examine the families asked for and write what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=(), help="these values of model_type")
    parser.add_argument("--mapping", nargs="+", default=tuple(MAPPINGS), choices=MAPPINGS, help="these mappings of transformers")
    parser.add_argument("--workers", type=int, default=2, help="how many at a time")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{PAGE.name} and docs/tables")
    parser.add_argument("--configuration", nargs="+", default=KINDS, choices=KINDS, help="which of the two")
    parser.add_argument("--keep", type=Path, help="a file to which everything that is found is added, a line of JSON for each")
    parser.add_argument("--counted", type=Path, help="such a file, whose counts of the classes are taken as they are")
    parser.add_argument("--tables", type=Path, help="such a file, of which the tables are made, and nothing is run")
    parser.add_argument("--pin", type=Path, help="a file for tests: what the classes of all that is read count")
    arguments = parser.parse_args()
    if arguments.tables:
        rows = in_order(kept(arguments.tables))
    else:
        import_what_all_need()
        known = unread(kept(arguments.counted)) if arguments.counted else ()
        wanted = [row for row in cases(arguments.mapping, arguments.only, known) if row.kind in arguments.configuration]
        rows = examine_all(wanted, arguments.workers, arguments.keep)
    if arguments.pin:
        arguments.pin.write_bytes(pinned(rows))
    put(report(rows), PAGE, onto_page=arguments.write)
    print(dict(Counter(row.verdict for row in rows)), file=sys.stderr)


def import_what_all_need() -> None:
    """Import before processes are forked what each of them would import."""
    import torch

    torch.set_num_threads(1)
    examine(Row("causal", "qwen3_moe", "varied"))


if __name__ == "__main__":
    main()
