"""Finding and reading spec files, and telling the author of a broken one what is wrong, in one sentence per key."""

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from roofline.errors import SpecError, UnknownNameError, quoted
from roofline.names import normalize_name, unknown_name
from roofline.shipped import spec_folder
from roofline.units import show_bytes
from roofline.validation import parse_json, regular_file

SCHEMA_VERSION = 1
_VENDORS = re.compile(r"^(nvidia|amd|intel|google|aws|amazon)")


@cache
def spec_files() -> dict[str, Path]:
    """Return the shipped spec files by machine id, reading none of them."""
    found = {f.name.removesuffix(".toml"): f for f in spec_folder().iterdir() if f.name.endswith(".toml")}
    return dict(sorted(found.items()))


@cache
def _ids() -> dict[str, str]:
    return {normalize_name(i): i for i in spec_files()}


@cache
def _aliases() -> dict[str, tuple[str, str]]:
    """Official names and aliases by normalized form: the id, and the name as written. The only function that reads every file."""
    index: dict[str, tuple[str, str]] = {}
    for machine, file in spec_files().items():
        spec = read_spec(file)
        for name in (spec["name"], *spec.get("aliases", ())):
            owner = index.setdefault(normalize_name(name), (machine, name))[0]
            if owner != machine:
                raise SpecError(f"{file.name}: the name {name!r} is also a name of {owner}.")
    return index


def name_keys(name: str) -> tuple[str, str]:
    """Return the two keys a machine may be known under: the normalized name, and that without the vendor in front.

    Examples
    --------
    >>> name_keys("NVIDIA H100 PCIe")
    ('nvidiah100pcie', 'h100pcie')
    """
    key = normalize_name(name)
    return key, _VENDORS.sub("", key)


def known_name(name: str) -> str | None:
    """Return the id of the machine that has this id, official name or alias, None if there is none."""
    keys = name_keys(name)
    ids = next((_ids()[key] for key in keys if key in _ids()), None)
    return ids or next((_aliases()[key][0] for key in keys if key in _aliases()), None)


def without_memory(name: str) -> tuple[str, int]:
    """Split a name into that of a machine and the gigabytes of memory that it ends with, 0 where it names none.

    Examples
    --------
    >>> without_memory("RTX 4090 24GB"), without_memory("H100 SXM5 80GB HBM3"), without_memory("T4")
    (('RTX 4090', 24), ('H100 SXM5', 80), ('T4', 0))
    """
    found = _MEMORY.fullmatch(name.strip())
    return (found[1], int(found[2])) if found else (name, 0)


_MEMORY = re.compile(r"(.*\w)[\s_(,-]+(\d{1,4})\s*Gi?B\)?([\s_-]*(HBM|G?DDR)\w*)?", re.IGNORECASE)


def _with_memory(name: str) -> str | None:
    """Return the machine of a name that ends with its memory, None if there is none; raise if it has another memory.

    So many GB may be 10⁹ or 2³⁰ bytes each, and some of them may be kept from use.
    """
    stem, size = without_memory(name)
    machine = known_name(stem) if size else None
    has = 0.0 if machine is None else _capacity(machine)
    if machine is None or not has:
        return None
    if 0.97 * size * 10**9 <= has <= 1.01 * size * 2**30:
        return machine
    family = [machine, *namesakes("-".join(stem.lower().split()), machine)]
    sizes = [f"{i} has {show_bytes(bytes)}" for i in family if (bytes := _capacity(i))]
    raise UnknownNameError(
        f"unknown machine {quoted(name)}: {', '.join(sizes)}. A spec file of your own or Hardware.from_rates(...) describes any other machine."
    )


def _capacity(machine: str) -> float:
    """Return the memory of a shipped machine, as visible where that is known, 0 where nothing is [B]."""
    memory = read_spec(spec_files()[machine])["memory"]
    return float(memory.get("capacity_bytes") or memory.get("labelled_bytes") or 0)


def find_spec(name: str) -> str:
    """Return the id of the machine that a name means."""
    if (found := known_name(name) or _with_memory(name)) is not None:
        return found
    known = [*spec_files(), *(written for key, (_, written) in _aliases().items() if key not in _ids())]
    hint = "Hardware.list() lists all; a spec file of your own or Hardware.from_rates(...) describes any other machine"
    raise unknown_name("machine", name, known, hint=hint)


def namesakes(alias: str, machine: str) -> list[str]:
    """Return the other machines that an alias could have meant: those of which an id or alias contains all of its words.

    Examples
    --------
    >>> namesakes("h100", "h100-sxm")
    ['h100-nvl', 'h100-pcie']
    """
    words = set(alias.split("-"))
    named: dict[str, list[str]] = {i: [i] for i in spec_files()}
    for owner, written in _aliases().values():
        named[owner].append(written)
    return [i for i, names in named.items() if i != machine and any(words <= set(n.lower().split("-")) for n in names)]


def looks_like_path(name: str) -> bool:
    """Return whether a text names a file rather than a machine.

    Examples
    --------
    >>> looks_like_path("my-machine.toml"), looks_like_path("H100 SXM")
    (True, False)
    """
    return name.lower().endswith((".toml", ".json")) or "/" in name or "\\" in name


def _parse_toml(text: str) -> Any:
    if _DEEP_KEY.search(_STRING.sub('""', text)):
        raise ValueError("a key has a hundred parts or more, joined by dots; a hardware spec has tables of tables, no deeper")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid TOML: {error}") from None


# tomllib takes time and memory that grow with the square of the parts of a key
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')
_DEEP_KEY = re.compile(r'(?<![\w"-])[\w"-]+(?:[ \t]*\.[ \t]*[\w"-]+){100}')


def read_spec(file: Path) -> dict[str, Any]:
    """Read a spec file into plain data; TOML unless its name ends with ``.json``."""
    try:
        text = regular_file(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"{file}: cannot be read: {reason}.") from None
    try:
        data = parse_json(text) if file.name.lower().endswith(".json") else _parse_toml(text)
    except ValueError as error:
        raise SpecError(f"{file}: {str(error).rstrip('.?')}.") from None
    if not isinstance(data, dict):
        raise SpecError(f"{file}: a hardware spec is a table of keys, not {type(data).__name__}.")
    if {"environment", "classes", "rates"} <= data.keys():
        raise SpecError(
            f"{file}: this is a calibration record, not a hardware spec; Hardware.from_record(...) makes a machine of one, and "
            "Hardware.load(name).calibrated(...) joins it to a spec."
        )
    version = data.get("schema_version")
    if type(version) is int and version > SCHEMA_VERSION:
        raise SpecError(f"{file}: schema_version is {version}; this version of roofline reads up to {SCHEMA_VERSION}: upgrade roofline.")
    return data
