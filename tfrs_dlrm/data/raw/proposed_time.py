"""Proposes which parts of a time are features, and finds how the time is written, for `infer_schema`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tfrs_dlrm.data.raw.number_or_category import Certainty
from tfrs_dlrm.data.raw.sampled_column import SampledColumn
from tfrs_dlrm.data.raw.time_values import is_temporal, minutes_of, no_times, written_as
from tfrs_dlrm.data.raw.times import END_SECOND, FIRST_SECOND
from tfrs_dlrm.schema import EPOCHS, ISO8601, Time, TimePart
from tfrs_dlrm.schema.times import lacking

# Rows of fewer days say nothing of a day of the week.
_WEEK = 7
# Rows of more days may show a trend, and of more than a year, what the months of a year are like.
_WEEKS, _YEAR = 28, 365
# Above this correlation of places and times, the rows are in the order of their times.
_ORDERED = 0.5
_DATES = (
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y-%m-%d",
    "%m/%d/%y",
    "%d/%m/%y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d%b%Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%b %d %Y",
    "%B %d %Y",
)
_CLOCKS_24 = (" %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S", " %H:%M:%S.%f", ", %H:%M", ", %H:%M:%S")
_CLOCKS_12 = (" %I:%M %p", " %I:%M:%S %p", " %I:%M%p", " %I:%M:%S%p", ", %I:%M %p", ", %I:%M:%S %p", " %I:%M:%S.%f %p")
_WHOLE = (
    "%d/%b/%Y:%H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Y",
)
_TIMES_OF_DAY = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p", "%I:%M:%S%p")
_COMPACT = ("%Y%m%d", "%y%m%d%H", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S")
# Each may be read as the other if no day is above 12.
_ALIKE = (("%m/%d/%Y", "%d/%m/%Y"), ("%d-%m-%Y", "%m-%d-%Y"), ("%m/%d/%y", "%d/%m/%y"))
# Few texts tell most formats apart; only what fits them is compared with all.
_SOME = 20


@dataclasses.dataclass(frozen=True)
class ProposedTime:
    """What becomes of a column of times.

    Attributes:
      time: the parts that are features, and the format; None if the column is left out.
      note: why, in one line.
      certainty: how sure this is.
    """

    time: Time | None
    note: str
    certainty: Certainty


class _Written(NamedTuple):
    """The distinct times of a column.

    Attributes:
      times: texts, or int64 since 1970.
      places: which of them each row has, int64 [rows that have one].
      format: of all of them.
      other: the format that reads all of them too, with day and month exchanged; empty if there is none.
      doubt: the question which of the two it is.
    """

    times: pa.Array
    places: np.ndarray
    format: str
    other: str = ""
    doubt: str = ""


def propose_time(column: SampledColumn, partial: bool) -> ProposedTime:
    """Proposes the parts that differ between rows, and that the rows of later days have, too.

    Hours and weekdays come again, and months after a year. Days since an origin never come again in a log that grows as
    time passes. They are proposed for dates that the rows are not in the order of, such as days of birth.

    Args:
      column: times; `column.time` is not None.
      partial: whether the log has more rows than these, which may be of other hours and days.
    """
    said = f"a time: {column.time}"
    written = _written(column)
    if written is None:
        more = "such as 2026-11-01 14:30, or say what it holds by other columns"
        return ProposedTime(None, f"{said}, left out; write it as ISO 8601 does, {more}", "sure")
    minutes = minutes_of(written.times, Time(("hour",), written.format))
    has_hour = bool((minutes % 1440).any())  # otherwise they are dates
    days = np.unique(minutes // 1440) if not lacking(("days",), written.format) else np.zeros(0, np.int64)
    parts: list[TimePart] = ["hour"] if has_hour and (partial or len(np.unique(minutes // 60 % 24)) > 1) else []
    if len(days) >= _WEEK or (partial and len(days)):
        parts.append("weekday")
    longer, why = _longer_parts(days, minutes[written.places])
    parts += longer
    covered = f"; the rows are of {len(days)} day{'s' * (len(days) > 1)}" if 0 < len(days) < _WEEK else ""
    if not parts:
        same = "it is always the same hour" if has_hour else "too few days for a weekday"
        return ProposedTime(None, f"{said}, left out: {same}{covered}", "likely")
    certainty: Certainty = "guess" if written.doubt else "likely" if covered or "days" in parts else "sure"
    listed = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
    note = f"{said}: {listed} of UTC{covered}{why}{written.doubt}"
    return ProposedTime(Time(tuple(parts), written.format), note, certainty)


def _longer_parts(days: np.ndarray, minutes: np.ndarray) -> tuple[list[TimePart], str]:
    """Decides on `month` and `days`, and says why.

    Args:
      days: the distinct days since 1970, int64 in order.
      minutes: since 1970, of each row in the order of the log.
    """
    span = int(days[-1] - days[0]) + 1 if len(days) else 0
    if span < _WEEKS:
        return [], ""
    months = np.unique(days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12)
    parts: list[TimePart] = ["month"] if span > _YEAR and len(months) == 12 else []
    if span > _YEAR and not (minutes % 1440).any() and _order(minutes) < _ORDERED:
        return [*parts, "days"], "; days since the first because the rows are not in its order"
    return (
        parts,
        f"; without {'days' if parts else 'month and days'}: those of later rows are not among its {span:,} days",
    )


def time_format(column: SampledColumn) -> str:
    """Returns the format in which a column of times is written.

    Raises:
      ValueError: it is none that is known, or may be one of two; the message ends with what to do.
    """
    written = _written(column) if column.time else None
    if written is None:
        shown = ", ".join(map(repr, list(column.counts)[:3])) or "no value"
        raise ValueError(
            f"column {column.name!r}: its first rows are in no time format that is known ({shown}); give time_format,"
            " such as %Y-%m-%d or epoch_seconds"
        )
    if written.other:
        formats = " or ".join(sorted((written.format, written.other), reverse=True))
        raise ValueError(f"column {column.name!r}: its times may be {formats}; give one as time_format")
    return written.format


def _order(minutes: np.ndarray) -> float:
    """Returns the correlation of times with their places, without its sign."""
    return abs(float(np.corrcoef(minutes, np.arange(len(minutes)))[0, 1]))


def _written(column: SampledColumn) -> _Written | None:
    """Returns the times of a column, and how they are written; None if no format is known."""
    kind = column.values.type
    encoded = column.values.drop_null().dictionary_encode()
    values, places = encoded.dictionary, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    if pa.types.is_temporal(kind):
        return _Written(written_as(values, Time(("hour",), ISO8601)), places, ISO8601) if is_temporal(kind) else None
    if "since 1970" in (column.time or ""):
        return _since_1970(values, places)
    texts = values if column.is_text else pa.array([str(int(v)) for v in values.to_pylist()], pa.string())
    some = texts[:_SOME]
    found = next((f for f in _formats() if _fits(some, f) and _fits(texts, f)), None)
    return None if found is None else _Written(texts, places, *_of_alike(texts, found))


def _since_1970(values: pa.Array, places: np.ndarray) -> _Written | None:
    """Returns numbers since 1970, whose fractions are dropped, without those that stand for "never"."""
    numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    known = np.isfinite(numbers) & (numbers != 0) & (numbers != -1)
    for format_, per_minute in EPOCHS.items():
        low, high = FIRST_SECOND * per_minute // 60, END_SECOND * per_minute // 60
        if known.any() and low <= numbers[known].min() and numbers[known].max() < high:
            times = pa.array(np.floor(numbers[known]).astype(np.int64))
            return _Written(times, (np.cumsum(known) - 1)[places][known[places]], format_)
    return None


def _read_otherwise(times: pa.Array, found: str) -> str | None:
    """Returns the format that exchanges day and month, if it reads all times, too."""
    for format_, other in (*_ALIKE, *(pair[::-1] for pair in _ALIKE)):
        if found.startswith(format_) and _fits(times, replaced := found.replace(format_, other)):
            return replaced
    return None


def _of_alike(texts: pa.Array, found: str) -> tuple[str, str, str]:
    """Returns the format of texts whose day may be their month: that of fewer days; the other one; and the question."""
    other = _read_otherwise(texts, found)
    if other is None:
        return found, "", ""
    # A log has rows of each day rather than of a day of each month.
    spans = {f: int(np.ptp(minutes_of(texts, Time(("days",), f)) // 1440)) + 1 for f in (found, other)}
    first, second = sorted(spans, key=lambda f: spans[f])
    said = [f"{f[:8]} of {spans[f]:,} day{'s' * (spans[f] > 1)}" for f in (first, second)]
    return first, second, f"; is it {' or '.join(said)}?"


def _formats() -> Iterator[str]:
    yield ISO8601
    yield from _DATES
    yield from (date + clock for clock, date in itertools.product((*_CLOCKS_24, *_CLOCKS_12), _DATES))
    yield from (*_WHOLE, *_TIMES_OF_DAY, *_COMPACT)


def _fits(texts: pa.Array, format_: str) -> bool:
    return not no_times(texts, Time(("hour",), format_)).any()
