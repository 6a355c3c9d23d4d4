"""Times in a log: how they are written, and which parts of them are features."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Sequence
from typing import Literal, get_args

from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.messages.arguments import check_fields

TimePart = Literal["hour", "weekday", "day", "month", "days"]
# The rows of a table: one for each value, and row 0 for a missing time.
PART_ROWS: dict[TimePart, int] = {"hour": 25, "weekday": 8, "day": 32, "month": 13}
ISO8601 = "iso8601"
# Units of an epoch in a minute.
EPOCHS = {
    "epoch_seconds": 60,
    "epoch_millis": 60 * 10**3,
    "epoch_micros": 60 * 10**6,
    "epoch_nanos": 60 * 10**9,
}
_MONTH, _DAY, _HOUR, _MINUTE = "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])", "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_ZONE = f" ?(?:Z|UTC|[+-]{_HOUR}(?::?{_MINUTE})?)"
MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
# In RE2. Each part stands at the same place in all texts.
_ISO_PATTERN = (
    f"(?P<Y>[0-9]{{4}})-(?P<m>{_MONTH})-(?P<d>{_DAY})"
    f"(?:[T ](?P<H>{_HOUR}):(?P<M>{_MINUTE})(?::{_MINUTE}(?:[.,][0-9]+)?)?(?:{_ZONE})?)?"
)
_FIXED = {
    "Y": "[0-9]{4}",
    "y": "[0-9]{2}",
    "m": _MONTH,
    "d": _DAY,
    "b": f"(?i:{'|'.join(name[:3] for name in MONTHS)})",
    "B": f"(?i:{'|'.join(MONTHS)})",
    "a": "(?i:mon|tue|wed|thu|fri|sat|sun)",
    "H": _HOUR,
    "I": _MONTH,
    "p": "(?i:am|pm)",
    "M": _MINUTE,
    "S": _MINUTE,
    "f": "[0-9]{1,9}",
    "z": f"(?:Z|[+-]{_HOUR}:?{_MINUTE})",
}
_WORDS = frozenset("bBapz")  # what is not only digits
# Without a digit beside it, a number may lack its leading zero.
_FREE = _FIXED | {
    "m": "(?:0?[1-9]|1[0-2])",
    "d": "(?:0?[1-9]|[12][0-9]|3[01])",
    "H": "(?:[01]?[0-9]|2[0-3])",
    "I": "(?:0?[1-9]|1[0-2])",
    "M": "[0-5]?[0-9]",
    "S": "[0-5]?[0-9]",
}
# Directives that say the same.
_ONE_OF = {"year": "Yy", "month": "mbB", "hour": "HI"}


@dataclasses.dataclass(frozen=True)
class Time:
    """How the times of a column are written, and which of their parts are features. All parts are those of UTC.

    Attributes:
      parts: `hour` (0 to 23), `weekday` (Monday is 1), `day` of the month, `month`, and `days` since `origin`.
      format: `iso8601`: `2026-03-01`, or date and time with `T` or a blank between them, with or without seconds and
        fractions, and with a zone: `Z`, `+01:00`, or none, which is UTC. `epoch_seconds`, `epoch_millis`,
        `epoch_micros` and `epoch_nanos`: whole numbers since 1970; -1 is a missing value. Or the parts of a text:
        `%Y` or `%y` (69 is 1969, 68 is 2068), `%m` or the English names `%b` (Nov) and `%B` (November), `%d`, `%H` or
        `%I` with `%p` (03 PM is 15), `%M`, `%S`, `%f`, `%a` (Sun), and the zone `%z` (`Z`, `+01:00`, `+0100`), such as
        `%y%m%d%H`, `%d.%m.%Y %H:%M`, `%m/%d/%Y %I:%M:%S %p`. Upper and lower case are the same. Timestamps and dates of
        typed columns are read too, whatever the format.
      origin: the date from which `days` count, such as `2026-01-01`; by default the earliest day of the training rows.
    """

    parts: tuple[TimePart, ...]
    format: str = ISO8601
    origin: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts) if isinstance(self.parts, list) else self.parts)
        check_fields(self)

    @property
    def is_epoch(self) -> bool:
        """Whether the times are whole numbers."""
        return self.format in EPOCHS

    @property
    def pattern(self) -> str:
        """The regular expression (RE2) of a whole text, with a named group for each directive."""
        return _ISO_PATTERN if self.format == ISO8601 else _directive_pattern(self.format)

    @property
    def directives(self) -> tuple[str, ...]:
        """The letters of the directives in the format, in order."""
        return ("Y", "m", "d", "H", "M") if self.format == ISO8601 else tuple(re.findall("%(.)", self.format))

    @property
    def width(self) -> int | None:
        """The number of digits of a text that is only digits; a number of fewer has zeros in front."""
        words = _WORDS | {"f"}
        if self.format == ISO8601 or self.is_epoch or words & set(self.directives) or re.sub("%.", "", self.format):
            return None
        return sum(4 if letter == "Y" else 2 for letter in self.directives)

    @property
    def origin_days(self) -> int | None:
        """The origin in days since 1970."""
        if self.origin is None:
            return None
        return (datetime.date.fromisoformat(self.origin) - datetime.date(1970, 1, 1)).days


def _directive_pattern(written: str) -> str:
    pieces = re.split("%(.)", written)  # literal, letter, literal, letter, ..., literal
    pattern = re.escape(pieces[0])
    only_digits = not any(pieces[::2])
    for i in range(1, len(pieces), 2):
        letter, before, after = pieces[i], pieces[i - 1], pieces[i + 1]
        first, last = i == 1, i + 2 == len(pieces)
        touching = [*([] if before or first else [pieces[i - 2]]), *([] if after or last else [pieces[i + 2]])]
        beside_digits = not _WORDS.issuperset(touching) or before[-1:].isdigit() or after[:1].isdigit()
        fixed = beside_digits and not (first and last)
        piece = (_FIXED if fixed else _FREE)[letter]
        if only_digits and first and letter != "Y":
            piece = _FREE[letter] if letter != "y" else "[0-9]{1,2}"  # a number has no zero in front
        pattern += f"(?P<{letter}>{piece})" + re.escape(after)
    return pattern


def check_time(where: str, time: Time) -> None:
    """Checks a `Time`; messages begin with `where`."""
    if not time.parts:
        raise ValueError(f"{where}: time has no parts; choose among {', '.join(get_args(TimePart))}")
    for part in time.parts:
        if part not in get_args(TimePart):
            raise ValueError(f"{where}: time part {part!r} is not one of {', '.join(get_args(TimePart))}")
        if time.parts.count(part) > 1:
            raise ValueError(f"{where}: time part {part!r} is listed {time.parts.count(part)} times")
    if time.format not in EPOCHS and time.format != ISO8601:
        _check_directives(where, time.format, time.directives)
    if unsaid := lacking(time.parts, time.format):
        raise ValueError(f"{where}: the time format {time.format!r} does not say the {' or the '.join(unsaid)}")
    if time.origin is not None:
        try:
            datetime.date.fromisoformat(time.origin)
        except ValueError as e:
            raise ValueError(f"{where}: the origin {time.origin!r} is no date such as 2026-01-01") from e


def _check_directives(where: str, written: str, directives: Sequence[str]) -> None:
    known = (ISO8601, *EPOCHS)
    if not directives:
        hint = did_you_mean(written, known) or f"choose among {', '.join(known)}, or write directives such as %Y-%m-%d"
        raise ValueError(f"{where}: no time format {written!r}; {hint}")
    for letter in directives:
        if letter not in _FIXED:
            raise ValueError(
                f"{where}: %{letter} in the time format {written!r} is not one of"
                f" {', '.join(f'%{known}' for known in _FIXED)}"
            )
        if directives.count(letter) > 1:
            raise ValueError(f"{where}: %{letter} stands {directives.count(letter)} times in {written!r}")
    for part, letters in _ONE_OF.items():
        several = [f"%{letter}" for letter in letters if letter in directives]
        if len(several) > 1:
            raise ValueError(f"{where}: {' and '.join(several)} are both in {written!r}; one {part} is needed")
    if ("I" in directives) != ("p" in directives):
        raise ValueError(
            f"{where}: %I and %p (AM or PM) belong together, and {written!r} has one of them; %H is an hour of 24"
        )
    if written.count("%") != len(directives):
        raise ValueError(f"{where}: a % without a letter in the time format {written!r}")


def lacking(parts: Sequence[TimePart], written: str) -> list[str]:
    """Returns what parts need and a format does not say: `year`, `month`, `day` or `hour`."""
    if written == ISO8601 or written in EPOCHS:
        return []
    date = ("year", "month", "day")
    needed = [need for part in parts for need in (date if part in ("weekday", "days") else (part,))]
    one_of, said = _ONE_OF | {"day": "d"}, set(re.findall("%(.)", written))
    return [need for need in dict.fromkeys(needed) if not set(one_of[need]) & said]
