"""Converts dataclasses to plain JSON values and back, and checks names and types."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def plain(value: Any) -> Any:
    """Returns dataclasses as dictionaries without the fields at their defaults, and tuples as lists."""
    if dataclasses.is_dataclass(value):
        fields = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: plain(v) for f, v in fields if f.default is dataclasses.MISSING or v != f.default}
    return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def build(cls: type[T], data: object, where: str) -> T:
    """Makes a dataclass from JSON objects, and checks names and types; messages begin with `where`.

    Fields may be plain values, dataclasses, tuples of one type and dictionaries with names as keys.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where}: a JSON object is expected, got {json.dumps(data)}")
    hints = _hints(cls)  # type: ignore[arg-type]
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in data:
        if name not in fields:
            raise ValueError(f"{where}: unknown field {name!r}; known are {', '.join(fields)}")
    for name, field in fields.items():
        if field.default is field.default_factory is dataclasses.MISSING and name not in data:
            raise ValueError(f"{where}: field {name!r} is missing")
    return cls(**{name: _value(hints[name], v, f"{where}.{name}") for name, v in data.items()})


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Returns the types of the fields. To resolve their names takes longer than to read a schema."""
    return get_type_hints(cls)


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    if hint is Any:
        return value
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: a JSON object is expected, got {json.dumps(value)}")
        return {name: _value(get_args(hint)[1], v, f"{where}.{name}") for name, v in value.items()}
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where}: a list is expected, got {json.dumps(value)}")
        return tuple(_value(get_args(hint)[0], v, f"{where}[{_item_name(v, i)}]") for i, v in enumerate(value))
    options = _options(hint)
    for option in options:
        if isinstance(value, dict) and dataclasses.is_dataclass(option):
            return build(option, value, where)  # type: ignore[arg-type]
        if isinstance(value, list) and get_origin(option) is tuple:
            return _value(option, value, where)
        if option is float and type(value) in (int, float):
            return float(value)
        if type(value) is option or (isinstance(option, str) and value == option):
            return value
    raise ValueError(f"{where}: {json.dumps(value)} is not {' or '.join(map(_option_name, options))}")


def _option_name(option: object) -> str:
    if option is type(None):
        return "null"
    if get_origin(option) is tuple:
        return "a list"
    if isinstance(option, type):
        return "a JSON object" if dataclasses.is_dataclass(option) else option.__name__
    return json.dumps(option)


def _options(hint: Any) -> list[Any]:
    """Returns the types and literal values that a (nested) union or literal allows."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return [o for a in get_args(hint) for o in _options(a)]
    return [hint]


def _item_name(value: object, position: int) -> str:
    name = value.get("name") if isinstance(value, dict) else None
    return repr(name) if isinstance(name, str) else str(position)
