"""Proposes which parts of a time are features, and finds how the time is written, for `infer_schema`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw.number_or_category import Certainty
from tfrs_dlrm.data.raw.sampled_column import SampledColumn
from tfrs_dlrm.data.raw.time_values import is_temporal, no_times, written_as
from tfrs_dlrm.data.raw.times import END_SECOND, FIRST_SECOND
from tfrs_dlrm.schema import EPOCHS, ISO8601, Time, TimePart

# Rows of fewer days say nothing of a day of the week.
_WEEK = 7
_PER_SECOND = {name: per_minute // 60 for name, per_minute in EPOCHS.items()}
_DATES = ("%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S", " %H:%M:%S.%f", ", %H:%M", ", %H:%M:%S")
_COMPACT = ("%H:%M", "%H:%M:%S", "%Y%m%d", "%y%m%d%H", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S")
# Each may be read as the other if no day is above 12.
_ALIKE = (("%m/%d/%Y", "%d/%m/%Y"), ("%d-%m-%Y", "%m-%d-%Y"))


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


def propose_time(column: SampledColumn, partial: bool) -> ProposedTime:
    """Proposes hour and weekday, as far as they differ between rows.

    Args:
      column: times; `column.time` is not None.
      partial: whether the log has more rows than these, which may be of other hours and days.
    """
    said = f"a time: {column.time}"
    written = _written(column)
    if written is None:
        more = "such as 2026-11-01 14:30, or say what it holds by other columns"
        return ProposedTime(None, f"{said}, left out; write it as ISO 8601 does, {more}", "sure")
    hours, days = _hours_and_days(*written)
    parts: list[TimePart] = ["hour"] if len(hours) > 1 or (partial and len(hours)) else []
    if len(days) >= _WEEK or (partial and len(days)):
        parts.append("weekday")
    covered = f"; the rows are of {len(days)} day{'s' * (len(days) > 1)}" if 0 < len(days) < _WEEK else ""
    if not parts:
        same = "it is always the same hour" if hours else "too few days for a weekday"
        return ProposedTime(None, f"{said}, left out: {same}{covered}", "likely")
    certainty: Certainty = "likely" if covered else "sure"
    doubt = ""
    for format_, other in (*_ALIKE, *(pair[::-1] for pair in _ALIKE)):
        if written[1].startswith(format_) and _fits(written[0], written[1].replace(format_, other)):
            doubt, certainty = f"; is it {format_} or {other}?", "guess"
    return ProposedTime(
        Time(tuple(parts), written[1]), f"{said}: {' and '.join(parts)} of UTC{covered}{doubt}", certainty
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
    for pair in _ALIKE:
        for one, other in (pair, pair[::-1]):
            if written[1].startswith(one) and _fits(written[0], written[1].replace(one, other)):
                formats = f"{written[1]} or {written[1].replace(one, other)}"
                raise ValueError(f"column {column.name!r}: its times may be {formats}; give one as time_format")
    return written[1]


def _written(column: SampledColumn) -> tuple[pa.Array, str] | None:
    """Returns the distinct times, as texts or int64, and their format; None if no format is known."""
    kind = column.values.type
    if pa.types.is_temporal(kind):
        if not is_temporal(kind):
            return None
        return written_as(pc.unique(column.values.drop_null()), Time(("hour",), ISO8601)), ISO8601
    whole = column.whole
    texts = column.texts if column.is_text else [str(n) for n in whole or ()]
    if whole is not None and "since 1970" in (column.time or ""):
        known = [n for n in whole if n not in (0, -1)]  # "never"
        for format_, per_second in _PER_SECOND.items():
            low, high = FIRST_SECOND * per_second, END_SECOND * per_second
            if known and low <= known[0] and known[-1] < high:
                return pa.array(known, pa.int64()), format_
    array = pa.array(texts, pa.string())
    return next(((array, format_) for format_ in _formats() if _fits(array, format_)), None)


def _formats() -> Iterator[str]:
    yield ISO8601
    yield from (date + clock for clock, date in itertools.product(_CLOCKS, _DATES))
    yield from _COMPACT


def _fits(texts: pa.Array, format_: str) -> bool:
    return not no_times(texts, Time(("hour",), format_)).any()


def _hours_and_days(times: pa.Array, format_: str) -> tuple[set[int], set[int]]:
    """Returns the hours of distinct times, and a number for each of their days; empty where the format says none."""
    if format_ in _PER_SECOND:
        minutes = times.to_numpy() // _PER_SECOND[format_] // 60
        return set(np.unique(minutes // 60 % 24).tolist()), set(np.unique(minutes // 1440).tolist())
    found = pc.extract_regex(times, f"^(?:{Time(('hour',), format_).pattern})$")
    names = [field.name for field in found.type]
    parts = {name: pc.struct_field(found, name) for name in names}
    hours = {int(h) for h in pc.unique(parts["H"]).to_pylist() if h} if "H" in parts else set()
    year = parts.get("Y", parts.get("y"))
    if year is None or "m" not in parts or "d" not in parts:
        return hours, set()
    dates = pc.unique(pc.binary_join_element_wise(year, parts["m"], parts["d"], "-")).to_pylist()
    return hours, set(range(len(dates)))
