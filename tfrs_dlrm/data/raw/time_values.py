"""Converts columns to times as their schema writes them, and finds the values that are none.

`data/encoding/time_parts.py` reads the same texts in TensorFlow, with the same regular expressions.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.schema import EPOCHS, ISO8601, MONTHS, Time

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAYS = np.array([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


def is_temporal(kind: pa.DataType) -> bool:
    """Whether the elements are dates or timestamps, which have parts whatever their format."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def written_as(array: pa.Array, time: Time) -> pa.Array:
    """Writes dates or timestamps, with or without a zone, as texts in UTC, or as whole numbers since 1970.

    Texts have the microseconds if their format says them, and in ISO 8601 if a time is no whole second.
    """
    if time.is_epoch:
        return _since_1970(array, EPOCHS[time.format] // 60)
    moments, micros = _since_1970(array, 1).cast(pa.timestamp("s")), _micros_of_second(array)
    fraction = pc.utf8_lpad(pa.array(micros).cast(pa.string()), 6, "0")
    if time.format == ISO8601:
        text = pc.replace_substring(moments.cast(pa.string()), " ", "T")
        return pc.binary_join_element_wise(text, fraction, ".") if micros.any() else text
    # Arrow knows no %f, and no zone of these.
    pieces = [pc.strftime(moments, piece) for piece in time.format.replace("%z", "+0000").split("%f")]
    return pc.binary_join_element_wise(pieces[0], fraction, pieces[1], "") if len(pieces) > 1 else pieces[0]


def _micros_of_second(array: pa.Array) -> np.ndarray:
    """Returns the microseconds of dates or timestamps after the last whole second, int64 [N]; 0 for null."""
    per_second = 1 if pa.types.is_date(array.type) else _PER_SECOND[array.type.unit]
    if per_second == 1:
        return np.zeros(len(array), np.int64)
    numbers = pc.fill_null(array.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    return np.asarray(np.mod(numbers, per_second) * 10**6 // per_second)


def _since_1970(array: pa.Array, per_second: int) -> pa.Array:
    """Returns the units since 1970 of dates or timestamps, int64, rounded down; `per_second` of them are a second."""
    if pa.types.is_date(array.type):
        return pc.multiply(array.cast(pa.date32()).cast(pa.int32()).cast(pa.int64()), 86400 * per_second)
    given = _PER_SECOND[array.type.unit]
    numbers = array.cast(pa.int64())
    values = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
    values = values * (per_second // given) if per_second > given else np.floor_divide(values, given // per_second)
    return pc.if_else(pc.is_valid(numbers), pa.array(values), pa.scalar(None, pa.int64()))


def no_times(text: pa.Array, time: Time) -> np.ndarray:
    """Returns which texts are no times of the format, bool [N]; null is none."""
    found = _parts(text, time)
    wrong = pc.is_null(found).to_numpy(zero_copy_only=False) & pc.is_valid(text).to_numpy(zero_copy_only=False)
    day, month = _field(found, "d"), _month(found)
    if day is None or month is None:
        return np.asarray(wrong)
    too_late = day > _DAYS[month - 1]
    year = _year(found)  # of two digits, leap years are as those of four: 2000 is one
    if year is not None:
        leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
        too_late |= (month == 2) & (day == 29) & ~leap
    return np.asarray(wrong | too_late)


def minutes_of(times: pa.Array, time: Time) -> np.ndarray:
    """Returns whole minutes since 1970 on the clock of the text, without its zone, int64 [N].

    Args:
      times: texts of the format, none of which `no_times` finds, or whole numbers of an epoch; without null.
      time: the format. A date that it does not say is 1970-01-01, and an hour that it does not say is 0.
    """
    if time.is_epoch:
        return np.asarray(times.to_numpy(zero_copy_only=False) // EPOCHS[time.format])
    found = _parts(times, time)
    year, month, day = _year(found), _month(found), _field(found, "d")
    months = (0 if year is None else 12 * (year - 1970)) + (0 if month is None else month - 1)
    dates = np.full(len(times), months).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days = dates + (0 if day is None else day - 1)
    hours, minutes = (_field(found, name) for name in ("H", "M"))
    twelfth = _field(found, "I")
    if twelfth is not None:
        afternoon = pc.equal(pc.ascii_lower(pc.struct_field(found, "p")), "pm").to_numpy(zero_copy_only=False)
        hours = twelfth % 12 + 12 * afternoon
    return np.asarray(days * 1440 + (0 if hours is None else hours * 60) + (0 if minutes is None else minutes))


def _parts(text: pa.Array, time: Time) -> pa.StructArray:
    """Returns the groups of the pattern, null where a text does not fit."""
    return pc.extract_regex(text, f"^(?:{time.pattern})$")


def _year(found: pa.StructArray) -> np.ndarray | None:
    two = _field(found, "y")
    return _field(found, "Y") if two is None else two + np.where(two < 69, 2000, 1900)


def _month(found: pa.StructArray) -> np.ndarray | None:
    name = next((name for name in "bB" if _has(found, name)), None)
    if name is None:
        return _field(found, "m")
    start = pc.utf8_slice_codeunits(pc.ascii_lower(pc.struct_field(found, name)), 0, 3)
    numbers = pc.add(pc.index_in(start, pa.array([month[:3] for month in MONTHS])), 1)
    return np.asarray(pc.fill_null(numbers, 1).to_numpy(zero_copy_only=False))


def _field(found: pa.StructArray, name: str) -> np.ndarray | None:
    """Returns the digits of a group, int64 [N]; 1 for null, 0 for an empty group; None without such a group."""
    if not _has(found, name):
        return None
    digits = pc.struct_field(found, name)
    digits = pc.if_else(pc.equal(digits, ""), "0", digits)
    return np.asarray(pc.fill_null(digits.cast(pa.int64()), 1).to_numpy(zero_copy_only=False))


def _has(found: pa.StructArray, name: str) -> bool:
    return found.type.get_field_index(name) >= 0
