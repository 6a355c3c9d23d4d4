"""What a value is, however a log writes it: the one rule of whole numbers, booleans and text.

- A whole number is a number without a fraction in the range of int64: `24216`, `24216.0`, an integer column of any
  width, a float column (as pandas writes integers with gaps), a decimal column.
- A boolean is the number 1 or 0: `True`, `true`, `TRUE`, a bool column. So int64 features, numbers and labels need no
  rule of their own for it, and neither does a request.
- Text is what the file has, such as `007`. But a typed column has no text, and one value may have several. So the text
  of a whole number is its digits (`24216.0` is `24216`), that of another number the shortest, and that of a boolean is
  `true` or `false`, which JSON and SQL write.

Floats tell whole numbers apart only up to 2^53 (float32: 2^24, float16: 2^11). Larger ones are refused, since different
ids have become equal before we read them.

`typed_values.py` states the rule for Arrow arrays, and `data/encoding/text_values.py` for text in TensorFlow. Both use
the patterns below, which RE2 (Arrow, TensorFlow) and Python's `re` read alike.
"""

from __future__ import annotations

import re

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


def exact_up_to(bits: int) -> int:
    """Returns up to which whole number floats of 16, 32 or 64 bits tell all whole numbers apart."""
    return {16: 2**11, 32: 2**24}.get(bits, 2**53)


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
