"""What a value is, however a log writes it: the one rule of whole numbers, booleans and text.

- A whole number is a number without a fraction in the range of int64: `24216`, `24216.0`, an integer column of any
  width, a float column (as pandas writes integers with gaps), a decimal column.
- A boolean is the number 1 or 0: `True`, `true`, `TRUE`, a bool column. So int64 features, numbers and labels need no
  rule of their own for it, and neither does a request.
- Text is what the file has, such as `007`. But a typed column has no text, and one value may have several. So the text
  of a whole number is its digits (`24216.0` is `24216`), that of another number the shortest, and that of a boolean is
  `true` or `false`, which JSON and SQL write.

Floats tell whole numbers apart only up to 2^53 (float32: 2^24, float16: 2^11). Larger ones are refused, since different
ids have become equal before we read them. `data/encoding/text_values.py` states the rule for text as TensorFlow
operations, of the patterns below; RE2 (Arrow, TensorFlow) and Python's `re` read them alike.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MAX_INT64 = 2**63 - 1
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")


def _up_to(limit: int) -> str:
    """Returns a pattern of the digits of the numbers from 0 to `limit`, with leading zeros."""
    digits = str(limit)
    smaller = [rf"[0-9]{{1,{len(digits) - 1}}}"]
    for i, digit in enumerate(digits):
        least = 0 if i else 1
        if int(digit) > least:
            smaller.append(f"{digits[:i]}[{least}-{int(digit) - 1}][0-9]{{{len(digits) - i - 1}}}")
    return f"0*(?:{'|'.join([*smaller, digits])})"


# The text of a whole number, and its digits: first in the range of int64, then of any size.
WHOLE = rf"(?:{_up_to(MAX_INT64)}|-{_up_to(MAX_INT64 + 1)})(?:\.0*)?"
ANY_WHOLE = r"-?[0-9]+(?:\.0*)?"
# Replaced by the first group, the text of a whole number becomes its digits.
POINT_ZERO = r"^(-?[0-9]+)\.0*$"


def is_text(array: pa.Array) -> bool:
    """Whether the elements are strings or bytes."""
    t, types = array.type, pa.types
    kinds = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(kind(t) for kind in (*kinds, types.is_binary_view, types.is_fixed_size_binary))


def as_number(text: str | None) -> float | None:
    """Parses a number or boolean; None if the text is neither. Unlike Python, it refuses `1_000` and other digits."""
    if text in TRUE or text in FALSE:
        return float(text in TRUE)
    try:
        return float(text) if text and text.isascii() and "_" not in text else None
    except ValueError:
        return None


def as_whole(text: str) -> int | None:
    """Parses a whole number or boolean in the range of int64; None if the text is neither."""
    if text in TRUE or text in FALSE:
        return int(text in TRUE)
    return int(text.partition(".")[0]) if re.fullmatch(WHOLE, text) else None


def number_text(text: str) -> str:
    """Returns the text of a number in JSON, which is the one that `texts` gives a column of it."""
    if re.fullmatch(ANY_WHOLE, text):
        return text.partition(".")[0]
    number = float(text)
    return str(int(number)) if number.is_integer() and abs(number) <= 2**53 else repr(number)


def spelled_alike(word: str) -> tuple[str, ...]:
    """Returns the other texts of the value of a word: of a boolean those of 1 or 0, of a whole number with `.0`."""
    number = as_whole(word)
    if number is None or (word not in (*TRUE, *FALSE) and re.sub(POINT_ZERO, r"\1", word) != str(number)):
        return ()  # the 007 of a text is no 7
    booleans = {1: TRUE, 0: FALSE}.get(number, ())
    return (str(number), f"{number}.0", *booleans)


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


def exact_up_to(kind: pa.DataType) -> int:
    """Returns up to which whole number a float type tells all whole numbers apart."""
    return int({16: 2**11, 32: 2**24}.get(kind.bit_width, 2**53))


def _is_exact(numbers: pa.Array, kind: pa.DataType) -> pa.Array:
    """Whether float64 numbers, once of the type `kind`, are whole numbers that no rounding can have made of others."""
    return pc.and_(pc.equal(pc.round(numbers), numbers), pc.less_equal(pc.abs(numbers), float(exact_up_to(kind))))


def not_whole(value: object, kind: pa.DataType) -> str:
    """Says why `whole_numbers` or `texts` refuse a value of a column of type `kind`."""
    if isinstance(value, float) and value.is_integer():
        return (
            f"{value:.0f}, in a column of type {kind}, may be another whole number, rounded; floats are exact up to"
            f" {exact_up_to(kind)}: write integers or text"
        )
    shown = repr(value[:40]) if isinstance(value, str) else str(value)
    if re.fullmatch(ANY_WHOLE, str(value)):
        return f"{shown} is outside the range of int64; set dtype='string' to read its digits as text"
    return f"{shown} is not a whole number"


def _true(flags: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(flags, False).to_numpy(zero_copy_only=False), bool)


def _false(flags: pa.Array) -> np.ndarray:
    return ~np.asarray(pc.fill_null(flags, True).to_numpy(zero_copy_only=False), bool)
