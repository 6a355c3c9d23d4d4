"""Converts Arrow arrays to whole numbers and to text, by the rule of `values.py`."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw.values import ANY_WHOLE, FALSE, MAX_INT64, POINT_ZERO, TRUE, WHOLE, exact_up_to


def is_text(array: pa.Array) -> bool:
    """Whether the elements are strings or bytes."""
    t, types = array.type, pa.types
    kinds = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(kind(t) for kind in (*kinds, types.is_binary_view, types.is_fixed_size_binary))


def whole_numbers(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Converts text, numbers or booleans to whole numbers.

    Returns:
      int64 [N], null for null and for what is no whole number; and bool [N], which elements are not.

    Raises:
      ValueError: the type holds neither, such as timestamps or lists.
    """
    kind, types = array.type, pa.types
    if types.is_null(kind) or types.is_boolean(kind) or (types.is_integer(kind) and kind != pa.uint64()):
        return array.cast(pa.int64()), np.zeros(len(array), bool)
    if kind == pa.uint64():
        fits = pc.less_equal(array, pa.scalar(MAX_INT64, pa.uint64()))
    elif types.is_floating(kind):
        array = array.cast(pa.float64())
        fits = _is_exact(array, kind)
    elif types.is_decimal(kind) or is_text(array):
        return _whole_texts(array.cast(pa.string()))
    else:
        raise ValueError(f"a column of type {kind} cannot be read as int64")
    values = pc.if_else(fits, array, pa.scalar(None, array.type)).cast(pa.int64())
    return values, _false(fits)


def _whole_texts(text: pa.Array) -> tuple[pa.Array, np.ndarray]:
    whole = pc.match_substring_regex(text, f"^(?:{WHOLE})$")
    if pc.any(pc.invert(whole)).as_py():
        text = pc.if_else(pc.is_in(text, pa.array(TRUE)), "1", text)
        text = pc.if_else(pc.is_in(text, pa.array(FALSE)), "0", text)
        whole = pc.match_substring_regex(text, f"^(?:{WHOLE})$")
        text = pc.if_else(whole, text, pa.scalar(None, pa.string()))
    if pc.any(pc.match_substring(text, ".")).as_py():
        text = pc.replace_substring_regex(text, r"\..*", "")
    return text.cast(pa.int64()), _false(whole)


def texts(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Converts numbers, booleans, or another type that Arrow prints, to text.

    Returns:
      string [N], null for null and for floats that do not tell whole numbers apart; and bool [N], which are these.

    Raises:
      ValueError: the type has no text, such as lists.
    """
    kind, none = array.type, np.zeros(len(array), bool)
    if pa.types.is_decimal(kind):
        text = pc.replace_substring_regex(array.cast(pa.string()), POINT_ZERO, r"\1")
        return pc.replace_substring_regex(text, r"^(-?[0-9]*\.[0-9]*[1-9])0+$", r"\1"), none
    if not pa.types.is_floating(kind):
        try:
            return array.cast(pa.string()), none
        except pa.ArrowException as e:
            raise ValueError(f"a column of type {kind} cannot be read as string: {e}") from e
    numbers = array.cast(pa.float64())
    whole = pc.equal(pc.round(numbers), numbers)
    exact = pc.and_(_is_exact(numbers, kind), pc.is_valid(numbers))
    digits = pc.if_else(exact, numbers, pa.scalar(None, pa.float64())).cast(pa.int64()).cast(pa.string())
    rounded = pc.and_not(pc.and_(whole, pc.is_finite(numbers)), exact)
    return pc.if_else(rounded, pa.scalar(None, pa.string()), pc.coalesce(digits, array.cast(pa.string()))), _true(
        rounded
    )


def _is_exact(numbers: pa.Array, kind: pa.DataType) -> pa.Array:
    """Whether float64 numbers, once of the type `kind`, are whole numbers that no rounding can have made of others."""
    return pc.and_(
        pc.equal(pc.round(numbers), numbers), pc.less_equal(pc.abs(numbers), float(exact_up_to(kind.bit_width)))
    )


def not_whole(value: object, kind: pa.DataType) -> str:
    """Says why `whole_numbers` or `texts` refuse a value of a column of type `kind`."""
    if isinstance(value, float) and value.is_integer():
        return (
            f"{value:.0f}, in a column of type {kind}, may be another whole number, rounded; floats are exact up to"
            f" {exact_up_to(kind.bit_width)}: write integers or text"
        )
    shown = repr(value[:40]) if isinstance(value, str) else str(value)
    if re.fullmatch(ANY_WHOLE, str(value)):
        return f"{shown} is outside the range of int64; set dtype='string' to read its digits as text"
    return f"{shown} is not a whole number"


def _true(flags: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(flags, False).to_numpy(zero_copy_only=False), bool)


def _false(flags: pa.Array) -> np.ndarray:
    return ~np.asarray(pc.fill_null(flags, True).to_numpy(zero_copy_only=False), bool)
