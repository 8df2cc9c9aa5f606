"""Read configurations that somebody broke: ``python benchmarks/fuzz_configs.py --count 10000``.

Each run starts from a published configuration, changes one to three things in it, and reads it. What comes out is a model with
sensible numbers or one of the library's errors; anything else, and what took longer than a second, is printed with the seed that
makes it again.
``python benchmarks/fuzz_configs.py --seed 1234`` shows one run. A seed depends on the configurations there are to start from;
tests/test_fuzzed_configs.py takes a sample that starts from the catalogue alone.
"""

import argparse
import copy
import functools
import importlib.util
import json
import math
import random
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from roofline import Hardware, Model, RooflineError, decode_floor, prefill_floor

SLOW_S, HANGS_S = 1.0, 60.0
"""From when on the script calls a configuration slow, in seconds of this process, and from when on it breaks one off, by the clock."""

ODD = [
    None, True, False, 0, 1, 2, 3, 7, 64, 10**5, 2**31 - 1, 2**31, 2**63, 10**30, 10**400, -1, -64, 1.0, 0.5, -0.0, 1e-9, 1e300, math.nan, math.inf, -math.inf,
    "", "64", "none", "auto", "llama", "fp8", "full_attention", "M*-E", "x" * 999, "x" * 300_000, "\0", "é",
    [], [1], [0], [None], [[]], ["full_attention"], ["M", "x"], [1] * 100, [-1] * 61, ["x" * 999] * 99, {}, {"a": 1}, {"x" * 9999: 1}, {"": None}, {"0": {"0": {"0": []}}},
    (), (1, 2), b"x", 1j, {1, 2}, object(), print,
]  # fmt: skip
"""Values that no configuration means, JSON's and Python's."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one configuration."""

    seed: int
    base: str
    changes: tuple[str, ...]
    kind: str
    """``"model"``, ``"error"``, or what is wrong."""
    text: str
    seconds: float
    config: dict[str, Any]

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return self.kind in ("model", "error")

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.base}, {'; '.join(self.changes)}: {self.kind}: {self.text}"


# ------------------------------------------------------------------------------------------------------------ where it starts


def catalogue() -> dict[str, dict[str, Any]]:
    """Return the configurations of the catalogue."""
    files = [f for f in (resources.files("roofline") / "_models").iterdir() if f.name.endswith(".json")]
    return {f.name: json.loads(f.read_text(encoding="utf-8"))["config"] for f in sorted(files, key=lambda f: f.name)}


def shipped_folder() -> Path | None:
    """Return the folder of configurations in aiconfigurator-core, if that is installed."""
    spec = importlib.util.find_spec("aiconfigurator_core")
    return Path(spec.origin).parent / "model_configs" if spec and spec.origin else None


def configs_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the configurations in a folder, with the formats that a file beside one of them holds."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        if not file.name.endswith("hf_quant_config.json"):
            found[file.name] = json.loads(file.read_text(encoding="utf-8"))
            beside = file.with_name(file.name.removesuffix("config.json") + "hf_quant_config.json")
            if beside.is_file():
                found[file.name]["hf_quant_config"] = json.loads(beside.read_text(encoding="utf-8"))
    return found


def words_of_readers() -> set[str]:
    """Return what may be a key to some reader: every word in quotation marks in its source."""
    files = [f for f in (resources.files("roofline") / "huggingface").iterdir() if f.name.endswith(".py")]
    return {word for f in files for word in re.findall(r'"([a-z]\w+)"', f.read_text(encoding="utf-8"))}


# ---------------------------------------------------------------------------------------------------------------- what changes


def levels(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of a configuration with its path, itself first; a long list stands for its first objects."""
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        path, value = waiting.pop(0)
        if isinstance(value, dict):
            yield path, value
            waiting += [(f"{path}.{key}".lstrip("."), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[{i}]", inner) for i, inner in enumerate(value[:3]) if isinstance(inner, dict)]


class Mutator:
    """Changes configurations, with the others at hand for what to put in."""

    def __init__(self, configs: dict[str, dict[str, Any]]) -> None:
        self.configs = configs
        self.names = sorted(configs)
        every = [level for config in configs.values() for _, level in levels(config)]
        self.model_types = sorted({level["model_type"] for level in every if isinstance(level.get("model_type"), str)})
        self.quantized = [config["quantization_config"] for config in every if config.get("quantization_config")]
        self.keys: dict[str, Any] = {}
        for level in every:
            self.keys |= {key: value for key, value in level.items() if not isinstance(value, dict)}
        self.spellings = sorted({*self.keys, *words_of_readers()})

    def __call__(self, seed: int) -> tuple[str, dict[str, Any], tuple[str, ...]]:
        """Return the name of where it starts, a changed copy, and what was changed."""
        rng = random.Random(seed)
        base = rng.choice(self.names)
        config = copy.deepcopy(self.configs[base])
        return base, config, tuple(self._one(rng, config) for _ in range(rng.choice((1, 1, 1, 2, 2, 3))))

    def _one(self, rng: random.Random, config: dict[str, Any]) -> str:
        places = [(path, level) for path, level in levels(config) if level and not path.startswith(("vision_config", "audio_config"))]
        if not places:
            return "nothing left"
        # most of a configuration is on the level of the text model, and most of the reading of number formats in theirs
        text = [place for place in places if place[0] in ("", "text_config")]
        formats = [place for place in places if "quant" in place[0] or "compression" in place[0]]
        path, level = rng.choice((text and rng.random() < 0.65 and text) or (formats and rng.random() < 0.6 and formats) or places)
        key = rng.choice(sorted(level, key=str))
        change = rng.choices(list(self.CHANGES), weights=list(self.CHANGES.values()))[0]
        return f"{change.__name__.strip('_')} {path or 'top'}: {change(self, rng, config, level, key)}"

    def _drop(self, rng: random.Random, config: dict, level: dict, key: str) -> str:
        del level[key]
        return key

    def _odd(self, rng: random.Random, config: dict, level: dict, key: str) -> str:
        level[key] = rng.choice(ODD)
        return f"{key} = {str(level[key])[:30]}"

    def _scale(self, rng: random.Random, config: dict, level: dict, key: str) -> str:
        numbers = [k for k, v in level.items() if isinstance(v, int | float) and not isinstance(v, bool)]
        key = rng.choice(sorted(numbers, key=str)) if numbers else key
        if numbers:
            level[key] = rng.choice((-1, 0, 1, 2, 3, 7, 0.5, 1000, 10**6, 10**12)) * level[key] + rng.choice((-1, 0, 0, 1))
        return f"{key} = {str(level[key])[:30]}"

    def _swap(self, rng: random.Random, config: dict, level: dict, key: str) -> str:
        other = rng.choice(sorted(level, key=str))
        level[key], level[other] = level[other], level[key]
        return f"{key} and {other}"

    def _rename(self, rng: random.Random, config: dict, level: dict, key: str) -> str:
        text = str(key)
        at = rng.randrange(len(text) + 1)
        new = rng.choice(
            (text[:at] + text[at + 1 :], f"{text}_size", f"n_{text}", f"{text}s", text.upper(), text.replace("num_", "n_"), "")
        )
        level[new] = level.pop(key)
        return f"{key} to {new!r}"

    def _list(self, rng: random.Random, config: dict, level: dict, key: str) -> str:
        lists = [k for k, v in level.items() if isinstance(v, list)]
        if not lists:
            level[key] = [level[key]] * rng.choice((0, 1, 2, 61))
            return f"{key} in a list"
        key = rng.choice(sorted(lists, key=str))
        items, how = list(level[key]), rng.choice(("shorter", "longer", "shuffled", "item", "dropped", "once"))
        at = rng.randrange(len(items)) if items else 0
        if how == "item" and items:
            items[at] = rng.choice(ODD)
        elif how == "shuffled":
            rng.shuffle(items)
        else:
            items = {"shorter": items[:at], "longer": items + items[: at + 1], "dropped": items[:at] + items[at + 1 :]}.get(how, items[:1])
        level[key] = items
        return f"{key} {how}"

    def _wrap(self, rng: random.Random, config: dict, level: dict, key: str) -> str:
        level[key] = rng.choice(({"value": level[key]}, {key: level[key]}, [level[key]], (level[key],), str(level[key])))
        return f"{key} in a {type(level[key]).__name__}"

    def _text_config(self, rng: random.Random, config: dict, level: dict, key: str) -> str:
        other = self.configs[rng.choice(self.names)]
        inner = other.get("text_config", other)
        value, how = rng.choice(((inner, "another's"), (copy.deepcopy(config), "itself"), (rng.choice(ODD), "odd"), ({}, "empty")))
        config["text_config"] = copy.deepcopy(value) if how == "another's" else value
        return how

    def _flatten(self, rng: random.Random, config: dict, level: dict, key: str) -> str:
        inner = config.pop("text_config", None)
        config |= inner if isinstance(inner, dict) else {}
        return "text_config"

    def _quantize(self, rng: random.Random, config: dict, level: dict, key: str) -> str:
        target = config["text_config"] if isinstance(config.get("text_config"), dict) and rng.random() < 0.3 else config
        target["quantization_config"] = copy.deepcopy(rng.choice(self.quantized))
        return str(target["quantization_config"].get("quant_method"))

    def _graft(self, rng: random.Random, config: dict, level: dict, key: str) -> str:
        key = rng.choice(self.spellings)
        usual = key in self.keys and rng.random() < 0.7
        level[key] = copy.deepcopy(self.keys[key]) if usual else rng.choice(ODD)
        return f"{key} = {str(level[key])[:30]}"

    def _model_type(self, rng: random.Random, config: dict, level: dict, key: str) -> str:
        target = config["text_config"] if isinstance(config.get("text_config"), dict) and rng.random() < 0.5 else config
        target["model_type"] = rng.choice(self.model_types)
        return str(target["model_type"])

    CHANGES: dict[Callable[..., str], float] = {  # noqa: RUF012
        **dict.fromkeys((_drop, _odd), 5), **dict.fromkeys((_scale, _list, _graft), 3), **dict.fromkeys((_rename, _swap, _wrap), 2),
        **dict.fromkeys((_quantize, _model_type, _text_config, _flatten), 1),
    }  # fmt: skip
    """How often each change is taken, relative to the others."""


# ------------------------------------------------------------------------------------------------------------- what comes out


def wrong_numbers(config: dict[str, Any], machine: Hardware) -> list[str]:
    """Return what is wrong with the numbers of a configuration that can be read, if anything is."""
    model = Model.load(config)
    options: dict[str, Any] = {} if model.dtype else {"weights": "bf16"}
    if any(getattr(g.mixer, "visible", "") == "bidirectional" for g in model.layers):  # an encoder has no cache and decodes nothing
        floor_of = functools.partial(prefill_floor, model, machine, batch=2, prompt=100, logits="all", **options)
    else:
        floor_of = functools.partial(decode_floor, model, machine, batch=2, context=1000, **options)
    floor = floor_of()
    caches = any(g.mixer is not None and g.mixer.cache_elements_per_token for g in model.layers)
    numbers = {
        "parameters": (model.parameters, 1),
        "active parameters": (model.active_parameters, 1),
        "KV bytes per token": (model.kv_bytes_per_token(), 1e-9 if caches else 0),
        "state bytes": (model.state_bytes_per_sequence, 0),
        "floor": (floor.time_s, 1e-12),
        "roofline time": (floor.roofline_s, 1e-12),
        "FLOP": (floor.flops, 1),
        "weight bytes": (floor.weight_bytes, 1),
        "resident bytes": (floor.resident_bytes, 1),
    }
    if model.dtype:
        numbers["stored bytes"] = (model.stored_bytes(mtp=True), 1)
    if model.mtp_modules:
        numbers["floor with drafts"] = (floor_of(mtp=1).time_s, floor.time_s)
    wrong = [f"{name} is {number!r}" for name, (number, least) in numbers.items() if not (math.isfinite(number) and number >= least)]
    if model.active_parameters > model.parameters:
        wrong.append(f"{model.active_parameters} active of {model.parameters} parameters")
    if floor.time_s > floor.roofline_s * (1 + 1e-9):
        wrong.append(f"the floor, {floor.time_s} s, is above the roofline time, {floor.roofline_s} s")
    if not str(floor):
        wrong.append("no text")
    return wrong


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Break off what does not end, where the system has such an alarm; a list that grows without end, too."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def little_memory(size: int = 4 * 2**30) -> None:
    """Let this process fail rather than the machine, where something asks for very much memory."""
    with suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def outcome(mutator: Mutator, seed: int, machine: Hardware) -> Outcome:
    """Return what becomes of one changed configuration."""
    base, config, changes = mutator(seed)
    start = time.process_time()
    try:
        with stopped_after(HANGS_S):
            wrong = wrong_numbers(config, machine)
    except RooflineError as error:
        text = str(error)
        kind = "error" if 10 < len(text) < 800 else "an error without a usable message"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind, text = type(error).__name__, f"{str(error)[:200]} ({Path(last.filename).name}:{last.lineno})"
    else:
        kind, text = ("a nonsense number", "; ".join(wrong)) if wrong else ("model", "")
    return Outcome(seed, base, changes, kind, text, time.process_time() - start, config)


def main() -> None:
    """Run the seeds asked for, print what is wrong and how often each thing happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="configurations to read")
    parser.add_argument("--seed", type=int, help="only this one, shown whole")
    parser.add_argument("--configs", type=Path, action="append", default=[], help="a folder of further configurations to start from")
    arguments = parser.parse_args()
    configs = catalogue()
    for folder in (shipped_folder(), *arguments.configs):
        if folder is not None:
            configs |= {f"{folder.name}/{name}": config for name, config in configs_in(folder).items()}
    little_memory()
    mutator, machine = Mutator(configs), Hardware.load("h200-sxm")
    if arguments.seed is not None:
        one = outcome(mutator, arguments.seed, machine)
        print(json.dumps(one.config, indent=1, default=repr), one, sep="\n")
        return
    outcomes = []
    for seed in range(arguments.count):
        outcomes.append(outcome(mutator, seed, machine))
        if not outcomes[-1].good:
            print(outcomes[-1], flush=True)
        elif outcomes[-1].seconds > SLOW_S:
            print(f"{outcomes[-1]} ({outcomes[-1].seconds:.2f} s)", flush=True)
    print(f"{len(configs)} configurations, {len(outcomes)} changed ones: {dict(Counter(o.kind for o in outcomes))}")
    errors = Counter(re.sub(r"'[^']*'|\d+", "…", o.text.split(": ", 1)[-1])[:60] for o in outcomes if o.kind == "error")
    print(f"{len(errors)} kinds of error, most often: {errors.most_common(5)}")
    slowest = max(outcomes, key=lambda o: o.seconds)
    print(f"slowest: {slowest.seconds:.3f} s (seed {slowest.seed}); all: {sum(o.seconds for o in outcomes):.1f} s")
    sys.exit(slowest.seconds > SLOW_S or any(not o.good for o in outcomes))


if __name__ == "__main__":
    main()
