"""Numbers in other notations, such as `2,247.14`, `15,73`, `$15.73` and `6.0%`: recognized, and read as a schema says.

A unit is a word that is dropped: `6.0%` is 6.0. Patterns are read by RE2 (Arrow) and by Python's `re`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw.values import FALSE, TRUE
from tfrs_dlrm.schema import Notation

_BLANKS = " \u00a0\u202f"  # also those that do not break, which French and Scandinavian programs write
_APOSTROPHES = "'\u2019"
_GROUPS = (",", ".", " ", "'", "_")
# What is taken for a unit. Other letters are not, or the ids u17 and u24 would be numbers.
_SYMBOLS = "%‰$€£¥₹₽₩₺₫₪₴₦₱฿¢"
_CODES = "USD|EUR|GBP|JPY|CHF|CNY|INR|RUB|BRL|AUD|CAD|SEK|NOK|DKK|PLN|CZK|HUF|TRY|KRW|MXN|ZAR"
_UNIT = rf"(?:[{_SYMBOLS}]|{_CODES}|R\$|US\$|kr\.?|zł|Kč|Rs\.?)"
_LOOSE = re.compile(
    rf"[+-]?(?P<before>{_UNIT})?\s*[+-]?(?P<body>[0-9.,](?:[0-9.,{_BLANKS}{_APOSTROPHES}_]*[0-9.])?(?:[eE][+-]?[0-9]+)?)"
    rf"\s*(?P<after>{_UNIT})?"
)


def _blank_or(character: str) -> str:
    """Returns a pattern of a separator, with the other characters that look like it."""
    return f"[{_BLANKS}]" if character == " " else f"[{_APOSTROPHES}]" if character == "'" else re.escape(character)


def number_pattern(notation: Notation) -> str:
    """Returns a pattern of all texts of a number. Groups have three digits, or two before the last as in 12,34,567."""
    digits, decimal = "[0-9]+", re.escape(notation.decimal)
    if notation.thousands:
        group = _blank_or(notation.thousands)
        digits = f"(?:[0-9]{{1,3}}(?:{group}[0-9]{{2,3}})*{group}[0-9]{{3}}|[0-9]+)"
    number = f"(?:{digits}(?:{decimal}[0-9]*)?|{decimal}[0-9]+)(?:[eE][+-]?[0-9]+)?"
    if not notation.unit:
        return f"[+-]?{number}"
    unit = re.escape(notation.unit)
    return f"(?:[+-]?(?:{unit})?[{_BLANKS}]*{number}|{unit}[{_BLANKS}]*[+-]?{number}|[+-]?{number}[{_BLANKS}]*{unit})"


def plain_numbers(text: pa.Array, notation: Notation) -> pa.Array:
    """Rewrites numbers as `1234.5`. Null and booleans stay, and other text that is no number becomes `?`."""
    if notation == Notation():
        return text
    fits = pc.match_substring_regex(text, f"^(?:{number_pattern(notation)})$")
    drop = "|".join(filter(None, [re.escape(notation.unit), f"[{_BLANKS}]", _blank_or(notation.thousands)]))
    plain = pc.replace_substring_regex(text, drop, "")
    if notation.decimal != ".":
        plain = pc.replace_substring(plain, notation.decimal, ".")
    return pc.if_else(fits, plain, pc.if_else(pc.is_in(text, pa.array([*TRUE, *FALSE])), text, pa.scalar("?")))


def in_notation(number: str, notation: Notation) -> str:
    """Rewrites a number of JSON, such as `1234.5`, in a notation."""
    return number.replace(".", notation.decimal)


def looks_like_number(text: str) -> bool:
    """Whether text has the characters of a number in some notation, and perhaps a known unit."""
    return any(c.isdecimal() for c in text) and _LOOSE.fullmatch(text) is not None


def recognize(texts: Collection[str]) -> Notation | None:
    """Finds the notation of texts that are all numbers; None if there is none, or if it is the usual one.

    `15,730` may be either number. It has thousands if all its like have three digits after the comma.
    """
    found = [_LOOSE.fullmatch(text) for text in texts]
    matches = [m for m in found if m is not None]
    if not matches or len(matches) < len(found):
        return None
    units = {m[name] for m in matches for name in ("before", "after") if m[name]}
    bodies = [m["body"] for m in matches]
    if len(units) > 1 or any(re.match("0[0-9]", body) for body in bodies):
        return None
    decimal, thousands = _separators(bodies)
    notation = Notation(decimal, thousands, units.pop() if units else "")
    fits = re.compile(number_pattern(notation))
    return notation if notation != Notation() and all(fits.fullmatch(text) for text in texts) else None


def _separators(bodies: Collection[str]) -> tuple[str, str]:
    """Returns what may be the decimal point and what separates thousands, by the characters of the texts."""
    characters = set("".join(bodies))
    points = [c for c in ",." if c in characters]
    group = next((g for g in _GROUPS[2:] if characters & set(_blank_or(g))), "")
    if group or len(points) == 2:
        options = [(d, group) for d in points or ["."]] if group else [(".", ","), (",", ".")]
        return next((o for o in options if _all_fit(bodies, Notation(*o))), (".", ""))
    if not points:
        return ".", ""
    (point,) = points
    other = "." if point == "," else ","
    if any(body.count(point) > 1 for body in bodies):
        return other, point
    if point == "," and all(re.fullmatch(r"[1-9][0-9]{0,2},[0-9]{3}", body) for body in bodies if "," in body):
        return other, point
    return point, ""


def _all_fit(bodies: Collection[str], notation: Notation) -> bool:
    fits = re.compile(number_pattern(notation))
    return all(fits.fullmatch(body) for body in bodies)


def may_be_lists(texts: Collection[str], notation: Notation) -> bool:
    """Whether numbers with thousands may be lists of ids of three digits, such as `101,205`."""
    groups = [re.split(_blank_or(notation.thousands), text) for text in texts] if notation.thousands == "," else []
    return bool(groups) and not notation.unit and all(re.fullmatch("[0-9]{3}", g) for parts in groups for g in parts)
