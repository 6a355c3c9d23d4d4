"""Parses the JSON of a request: fast, within bounds, and with the numbers that TF Serving takes.

TF Serving parses with RapidJSON, for which NaN and Infinity are numbers. orjson does not know these, and it makes
floats of integers beyond 64 bits without a word. Bodies with either are parsed by Python's own parser.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson

from tfrs_dlrm.serving.protocol import InvalidRequest

# Bytes of Python's objects, with their places in lists, per character that begins or separates values.
_OBJECT_BYTES = {b"{": 240, b"[": 96, b",": 32, b":": 64, b'"': 30}
_PART = 1 << 18  # bytes that are looked at in one go, while other threads wait
_LONG_INTEGER = 19  # digits; shorter integers fit 64 bits


def memory_of_values(body: bytes | bytearray) -> int:
    """Estimates the bytes that the values of a body take as Python's objects, from above and without parsing."""
    size = 2 * len(body)
    for start in range(0, len(body), _PART):
        size += sum(body.count(sign, start, start + _PART) * each for sign, each in _OBJECT_BYTES.items())
    return size


def parse(body: bytes | bytearray) -> dict[str, Any]:
    """Parses the body of a request, in which NaN and Infinity are numbers.

    Raises:
      InvalidRequest: the body is no JSON object.
    """
    return _object(_parse_with_python(body)) if has_long_digits(body) else parse_quickly(body)


def parse_quickly(body: bytes | bytearray) -> dict[str, Any]:
    """Parses the body of a request; integers beyond 64 bits may have become floats, unless `has_long_digits` is false.

    Raises:
      InvalidRequest: the body is no JSON object.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:  # Python's parser knows NaN, and names the place of an error
        parsed = _parse_with_python(body)
    return _object(parsed)


def _object(parsed: Any) -> dict[str, Any]:
    if not isinstance(parsed, dict):
        raise InvalidRequest("the body is no JSON object; one with 'instances' or 'inputs' is expected")
    return parsed


def _parse_with_python(body: bytes | bytearray) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as e:
        raise InvalidRequest(f"JSON Parse error: {e}") from e


def has_long_digits(body: bytes | bytearray) -> bool:
    """Returns whether a body has an integer that may have more than 64 bits: so many digits in a row."""
    codes = np.frombuffer(body, np.uint8)
    for start in range(0, len(codes), _PART):
        part = codes[start : start + _PART + _LONG_INTEGER]
        run, length = part - np.uint8(ord("0")) < 10, 1  # run[i]: the `length` bytes from i on are digits
        while length < _LONG_INTEGER:
            step = min(length, _LONG_INTEGER - length)
            run, length = run[:-step] & run[step:], length + step
        if run.any():
            return True
    return False


def shown(value: Any) -> str:
    """Returns the JSON of a value for a message: short, however long or deep the value is."""
    text = json.dumps(_shortened(value, 3))
    return text if len(text) <= 60 else text[:57] + "..."


def _shortened(value: Any, levels: int) -> Any:
    if isinstance(value, str):
        return value[:60]
    if isinstance(value, int) and abs(value) >> 200:  # Python refuses to write the longest
        return "an integer of more than 60 digits"
    if isinstance(value, list):
        return [_shortened(item, levels - 1) for item in value[:20]] if levels else ["..."]
    if isinstance(value, dict):
        some = [*value.items()][:20] if len(value) <= 1000 else []
        return {key[:60]: _shortened(item, levels - 1) for key, item in some} if levels and some else {}
    return value
