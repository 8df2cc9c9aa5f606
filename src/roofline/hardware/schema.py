"""The JSON schema of a spec file, for editors that complete and check TOML."""

import re
from typing import Any

from pydantic import BaseModel

from roofline.hardware import sections

_TABLES: dict[str, type[BaseModel]] = {
    name: table for name, table in vars(sections).items() if isinstance(table, type) and issubclass(table, BaseModel)
}
_PARAMETER = re.compile(r"^    ([a-z_][\w, ]*) : .*\n((?:        .*\n)+)", flags=re.MULTILINE)


def describe_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON schema with every key described in the words of its docstring."""
    schema = model.model_json_schema()
    for name, table in {model.__name__: schema, **schema["$defs"]}.items():
        owner = model if name == model.__name__ else _TABLES[name]
        words = {key: text for base in reversed(owner.__mro__) for key, text in _described(base.__doc__ or "").items()}
        table["description"] = (owner.__doc__ or "").partition("\n")[0]
        for key, entry in table["properties"].items():
            entry["description"] = words[key]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _described(doc: str) -> dict[str, str]:
    """Parameter names and their descriptions, from a numpydoc docstring."""
    found: dict[str, str] = {}
    for names, text in _PARAMETER.findall(doc):
        found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found
