"""Recognizes columns of dates and times in text and in whole numbers, which a temporal column of Parquet would have."""

from __future__ import annotations

import re
from collections.abc import Collection

_CLOCK = r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]+)?)?(?: ?[AaPp][Mm])?"
_ZONE = r"(?: ?(?:Z|UTC|[+-][0-9]{2}:?(?:[0-9]{2})?))?"
_MONTH, _DAY = "(?:0?[1-9]|1[0-2])", "(?:0?[1-9]|[12][0-9]|3[01])"
_NAME = "(?i:(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*)"
_DAY_NAME = "(?i:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_YEAR = "(?:19|20)[0-9]{2}"
_DATE = "|".join(
    [
        *(f"{_YEAR}{s}{_MONTH}{s}{_DAY}" for s in ("-", "/", r"\.")),
        *(f"{_DAY}{s}{_MONTH}{s}{_YEAR}" for s in ("-", "/", r"\.")),
        *(f"{_MONTH}{s}{_DAY}{s}{_YEAR}" for s in ("-", "/")),
        f"{_MONTH}/{_DAY}/[0-9]{{2}}",
        f"{_DAY}/{_MONTH}/[0-9]{{2}}",
        f"{_DAY}[ -]?{_NAME},?[ -]?{_YEAR}",
        f"{_DAY}-{_NAME}-[0-9]{{2}}",
        f"{_NAME} {_DAY},? {_YEAR}",
    ]
)
# As web servers, mail and C write them.
_WHOLE = "|".join(
    [
        f"{_DAY}/{_NAME}/{_YEAR}:{_CLOCK}{_ZONE}",
        f"{_DAY_NAME}, {_DAY} {_NAME} {_YEAR} {_CLOCK}{_ZONE}",
        f"{_DAY_NAME} {_NAME} {_DAY} {_CLOCK}{_ZONE} {_YEAR}",
    ]
)
_KINDS = {
    "dates": f"(?:{_DATE})",
    "timestamps": f"(?:{_DATE})(?:T| |, )(?:{_CLOCK}){_ZONE}|{_WHOLE}",
    "times of day": _CLOCK,
}
_MM, _DD, _HH = "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])", "(?:[01][0-9]|2[0-3])"
# Digits whose month, day and hour are all possible.
_COMPACT = {
    "dates YYYYMMDD": f"{_YEAR}{_MM}{_DD}",
    "hours YYMMDDHH": f"[0-9]{{2}}{_MM}{_DD}{_HH}",
    "hours YYYYMMDDHH": f"{_YEAR}{_MM}{_DD}{_HH}",
    "minutes YYYYMMDDHHMM": f"{_YEAR}{_MM}{_DD}{_HH}[0-5][0-9]",
    "timestamps YYYYMMDDHHMMSS": f"{_YEAR}{_MM}{_DD}{_HH}[0-5][0-9][0-5][0-9]",
}
_EPOCHS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
# Seconds since 1970 of the years 2000 to 2039.
FIRST_SECOND, END_SECOND = 946_684_800, 2_208_988_800


def time_of_texts(texts: Collection[str]) -> str | None:
    """Says what dates or times texts are; None if one of them is something else."""
    return _matching(_KINDS | _COMPACT, texts)


def time_of_numbers(numbers: Collection[float]) -> str | None:
    """Says what dates or times numbers are: digits of a calendar, or seconds since 1970 in the years 2000 to 2039."""
    numbers = [n for n in numbers if n not in (0, -1)]  # "never"
    if not numbers:
        return None
    if all(n == int(n) for n in numbers):
        digits = [str(int(n)) for n in numbers]
        kind = _matching(_COMPACT, [d.zfill(8) if len(d) == 7 else d for d in digits])
        if kind:
            return kind
    for unit, per_second in _EPOCHS.items():
        if FIRST_SECOND * per_second <= min(numbers) and max(numbers) < END_SECOND * per_second:
            return f"{unit} since 1970"
    return None


def _matching(kinds: dict[str, str], texts: Collection[str]) -> str | None:
    for kind, pattern in kinds.items():
        fits = re.compile(pattern).fullmatch
        if texts and all(fits(text) for text in texts):
            return kind
    return None
