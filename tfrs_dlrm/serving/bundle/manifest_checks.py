"""What the values of bundle.json must be: a damaged one is refused by the name of the value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

_Check = Callable[[Any], str]  # returns what is expected; empty if the value is fine


def check_content(content: Mapping[str, Any]) -> None:
    """Checks the object of a bundle.json; missing keys and null are fine where the manifest has a default.

    Raises:
      ValueError: a value is missing or of another kind; the message says where.
    """
    problem = _object(_MANIFEST)(content)
    if problem:
        raise ValueError(problem)


def _kind(types: type | tuple[type, ...], words: str) -> _Check:
    def check(value: Any) -> str:
        fits = isinstance(value, types) and (not isinstance(value, bool) or types is bool)
        return "" if fits else f" is {_shown(value)}; {words} is expected"

    return check


def _one_of(*values: Any) -> _Check:
    def check(value: Any) -> str:
        fits = any(value == v and type(value) is type(v) for v in values)
        return "" if fits else f" is {_shown(value)}; {' or '.join(map(repr, values))} is expected"

    return check


def _object(fields: Mapping[str, _Check], required: tuple[str, ...] = ()) -> _Check:
    """Checks the fields of an object; unknown ones are of a later version, and fine."""

    def check(value: Any) -> str:
        if not isinstance(value, Mapping):
            return f" is {_shown(value)}; an object is expected"
        for key in required:
            if value.get(key) is None:
                return f": {key!r} is missing"
        return _first((key, fields[key](v)) for key, v in value.items() if key in fields and v is not None)

    return check


def _by_name(entry: _Check) -> _Check:
    def check(value: Any) -> str:
        if not isinstance(value, Mapping):
            return f" is {_shown(value)}; an object is expected"
        return _first((key, entry(v)) for key, v in value.items())

    return check


def _list(entry: _Check, words: str) -> _Check:
    def check(value: Any) -> str:
        if not isinstance(value, list):
            return f" is {_shown(value)}; {words} is expected"
        return next((_placed(f"[{i}]", problem) for i, v in enumerate(value) if (problem := entry(v))), "")

    return check


def _first(found: Iterable[tuple[str, str]]) -> str:
    """Returns the first problem, after the name of its place."""
    return next((_placed(repr(key), problem) for key, problem in found if problem), "")


def _placed(place: str, problem: str) -> str:
    return f"{place}: {problem}" if problem.startswith("'") else place + problem


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + " ..."


_TEXT, _NUMBER = _kind(str, "text"), _kind((int, float), "a number")
_COUNT, _ANY_OBJECT = _kind(int, "a whole number"), _kind(dict, "an object")
_TASK = _one_of("classification", "regression")
_TENSORS = _by_name(_object({"dtype": _TEXT, "shape": _kind(list, "a list of sizes")}, ("dtype",)))
_FEATURE = {
    "name": _TEXT,
    "kind": _TEXT,
    "dtype": _one_of("float32", "int64", "string"),
    "rank": _one_of(1, 2),
    "separator": _TEXT,
    "time": _TEXT,
    "may_be_missing": _kind(bool, "true or false"),
    "context": _kind(bool, "true or false"),
    "size": _COUNT,
}
_SIGNATURE = {"method": _TEXT, "inputs": _TENSORS, "outputs": _TENSORS}
_FILE = {"bytes": _COUNT, "sha256": _TEXT, "crc32c": _TEXT}
_TOLERANCES = {"tolerance": _NUMBER, "rounding": _NUMBER, "tolerance_up_to": _NUMBER}
_MANIFEST = _TOLERANCES | {
    **dict.fromkeys(("name", "model", "created", "tensorflow", "checkpoint"), _TEXT),
    "tables": _ANY_OBJECT,
    "keep_negatives": _NUMBER,
    "calibration": _ANY_OBJECT,
    "task": _TASK,
    "context": _list(_TEXT, "a list of names"),
    "features": _list(_object(_FEATURE, ("name",)), "a list of objects"),
    "serving_values": _ANY_OBJECT,
    "signatures": _by_name(_object(_SIGNATURE, ("method", "inputs", "outputs"))),
    "more_outputs": _by_name(_object({"task": _TASK} | _TOLERANCES, ("task", "tolerance"))),
    "files": _by_name(_object(_FILE, ("bytes", "sha256"))),
}
