"""Spec files through pydantic: what is wrong with one, key by key, and the JSON schema for editors that complete and check TOML.

The shipped files are checked by the tests, so no machine that is loaded by name needs this module, which is slow to import.
"""

import re
from collections.abc import Callable, Mapping
from inspect import cleandoc
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, create_model

from roofline.description import NOT_EMPTY, Description, Number, parts_of
from roofline.errors import SpecError
from roofline.validation import describe_faults

_VALIDATORS: dict[Any, type[BaseModel]] = {}
_PARAMETER = re.compile(r"^([a-z_][\w, ]*) : .*\n((?:    .*\n)+)", flags=re.MULTILINE)


def check_spec(where: object, data: Mapping[str, Any], kind: type[Description]) -> None:
    """Raise SpecError if a spec file has faults: for each bad key what was given and what is allowed."""
    try:
        validator(kind).model_validate(data)
    except ValidationError as error:
        raise SpecError(describe_faults(where, error, validator(kind))) from None


def validator(kind: type[Description]) -> type[BaseModel]:
    """Return the pydantic model with the fields of a description."""
    if kind not in _VALIDATORS:
        _VALIDATORS[kind] = _build_validator(kind)
    return _VALIDATORS[kind]


def _build_validator(kind: type[Description]) -> type[BaseModel]:
    fields: dict[str, Any] = {name: (_typed(hint), kind._field_defaults.get(name, ...)) for name, hint in kind._fields.items()}
    for name, (hint, default) in fields.items():
        if isinstance(default, Description):
            fields[name] = (hint, validator(type(default))())
    # strict: a quoted number or a boolean is a mistake in the file, not something to convert in silence
    return create_model(kind.__name__, __config__=ConfigDict(frozen=True, extra="forbid", strict=True), __doc__=kind.__doc__, **fields)


def _typed(hint: Any) -> Any:
    """Return the type that pydantic validates for the type of a description's field."""
    if isinstance(hint, type) and issubclass(hint, Description):
        return validator(hint)
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(_typed(option) for option in get_args(hint))]  # noqa: UP007
    if get_origin(hint) is tuple:
        return Annotated[hint, Field(strict=False)]  # files have lists
    if get_origin(hint) is not Annotated:
        return hint
    kind, mark = get_args(hint)
    if mark is NOT_EMPTY:
        return Annotated[kind, Field(min_length=1)]
    bounds = (
        {"ge": mark.least, "le": mark.most} if mark.check is None else {"json_schema_extra": {"minimum": mark.least, "maximum": mark.most}}
    )
    marks = [Field(**bounds), BeforeValidator(_whole) if mark.exponents else None, AfterValidator(_checked(mark)) if mark.check else None]
    return Annotated[(kind, *(m for m in marks if m is not None))]


def _whole(value: Any) -> Any:
    """Let ``80e9`` stand for a whole number, which TOML reads as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _checked(mark: Number) -> Callable[[Any, ValidationInfo], Any]:
    return lambda value, info: value if mark.check is None else mark.check(info.field_name or "value", value)


def describe_schema(kind: type[Description]) -> dict[str, Any]:
    """Return the JSON schema of a description with every key described in the words of its docstring."""
    schema = validator(kind).model_json_schema()
    tables = {kind.__name__: schema, **schema["$defs"]}
    owners = {validator(owner).__name__: owner for owner in (kind, *_tables(kind))}
    for name, table in tables.items():
        words = {key: text for base in reversed(owners[name].__mro__) for key, text in _described(base.__doc__ or "").items()}
        table["description"] = (owners[name].__doc__ or "").partition("\n")[0]
        for key, entry in table["properties"].items():
            entry["description"] = words[key]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _tables(kind: type[Description]) -> list[type[Description]]:
    """Return the descriptions that stand in the fields of one, at any depth."""
    found = [table for hint in kind._fields.values() for table in parts_of(hint)]
    return [*found, *(inner for table in found for inner in _tables(table))]


def _described(doc: str) -> dict[str, str]:
    """Parameter names and their descriptions, from a numpydoc docstring."""
    found: dict[str, str] = {}
    for names, text in _PARAMETER.findall(cleandoc(doc) + "\n"):
        found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found
