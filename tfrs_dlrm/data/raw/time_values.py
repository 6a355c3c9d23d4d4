"""Converts columns to times as their schema writes them, and finds the values that are none.

`data/encoding/time_parts.py` reads the same texts in TensorFlow, with the same regular expressions.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.schema import EPOCHS, ISO8601, Time

_DAYS = np.array([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


def is_temporal(kind: pa.DataType) -> bool:
    """Whether the elements are dates or timestamps, which have parts whatever their format."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def written_as(array: pa.Array, time: Time) -> pa.Array:
    """Writes dates or timestamps, with or without a zone, as texts in UTC, or as whole numbers since 1970."""
    if time.is_epoch:
        return _since_1970(array, EPOCHS[time.format] // 60)
    moments = _since_1970(array, 1).cast(pa.timestamp("s"))
    if time.format == ISO8601:
        return pc.replace_substring(moments.cast(pa.string()), " ", "T")
    # Arrow knows no %f.
    return pc.strftime(moments, time.format.replace("%f", "0"))


def _since_1970(array: pa.Array, per_second: int) -> pa.Array:
    """Returns the units since 1970 of dates or timestamps, int64, rounded down; `per_second` of them are a second."""
    if pa.types.is_date(array.type):
        return pc.multiply(array.cast(pa.date32()).cast(pa.int32()).cast(pa.int64()), 86400 * per_second)
    given = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[array.type.unit]
    numbers = array.cast(pa.int64())
    values = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
    values = values * (per_second // given) if per_second > given else np.floor_divide(values, given // per_second)
    return pc.if_else(pc.is_valid(numbers), pa.array(values), pa.scalar(None, pa.int64()))


def no_times(text: pa.Array, time: Time) -> np.ndarray:
    """Returns which texts are no times of the format, bool [N]; null is none."""
    found = pc.extract_regex(text, f"^(?:{time.pattern})$")
    wrong = pc.is_null(found).to_numpy(zero_copy_only=False) & pc.is_valid(text).to_numpy(zero_copy_only=False)
    names = [field.name for field in found.type]
    if "d" not in names or "m" not in names:
        return np.asarray(wrong)
    day, month = (_numbers(pc.struct_field(found, name)) for name in ("d", "m"))
    too_late = day > _DAYS[month - 1]
    year_name = next((name for name in ("Y", "y") if name in names), None)
    if year_name is not None:
        year = _numbers(pc.struct_field(found, year_name))  # two digits are leap years as four are: 2000 is one
        leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0) | (year_name == "y"))
        too_late |= (month == 2) & (day == 29) & ~leap
    return np.asarray(wrong | too_late)


def _numbers(digits: pa.Array) -> np.ndarray:
    """Returns int64 [N], 1 for null."""
    return np.asarray(pc.fill_null(digits.cast(pa.int64()), 1).to_numpy(zero_copy_only=False))
