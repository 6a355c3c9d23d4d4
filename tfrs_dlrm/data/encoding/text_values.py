"""The rule of `data/raw/values.py` for text, in TensorFlow operations: it is part of every exported graph."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import tensorflow as tf

from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.data.raw.values import FALSE, POINT_ZERO, TRUE, WHOLE

Words = tuple[Sequence[str], str]  # texts, and the one that replaces them


class Spelling(NamedTuple):
    """How texts of one value become one text: words that replace booleans, and whether `24216.0` becomes `24216`.

    Each costs operations in every served model, so lookups in a vocabulary leave out what cannot change them.
    """

    booleans: tuple[Words, ...]
    digits: bool


# As texts are counted and hashed.
CANONICAL = Spelling(((TRUE[1:], TRUE[0]), (FALSE[1:], FALSE[0])), digits=True)


def spelled(text: tf.Tensor, spelling: Spelling) -> tf.Tensor:
    """Replaces strings of any shape by the text of their value."""
    text = _replaced(text, spelling.booleans)
    return tf.strings.regex_replace(text, POINT_ZERO, r"\1") if spelling.digits else text


def without_point_zero(columns: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Turns `24216.0` into `24216` in several columns of strings [B].

    Almost no request has such text, and to look for it is faster than to replace it.
    """
    text = tf.stack(columns)
    found = tf.reduce_any(tf.strings.regex_full_match(text, POINT_ZERO))
    replaced = tf.cond(found, lambda: tf.strings.regex_replace(text, POINT_ZERO, r"\1"), lambda: text)
    return tf.unstack(replaced, num=len(columns))


def _replaced(text: tf.Tensor, words: Sequence[Words]) -> tf.Tensor:
    for others, word in words:
        text = tf.strings.regex_replace(text, f"^(?:{'|'.join(others)})$", word)
    return text


def has_digits(vocabulary_file: str) -> bool:
    """Whether a vocabulary has the digits of a whole number."""
    rest = b""
    with open(vocabulary_file, "rb") as file:
        while chunk := file.read(1 << 20):
            whole, _newline, rest = (rest + chunk).rpartition(b"\n")
            if re.search(rb"(?m)^-?[0-9]+$", whole):
                return True
    return False


def boolean_words(vocabulary: Collection[str], others: bool) -> tuple[Words, ...]:
    """Returns what replaces booleans by the words of a vocabulary; empty if it has none.

    A vocabulary of booleans alone may have 1 and 0 for them. Vocabularies of earlier versions may have `True`.

    Args:
      vocabulary: those of its values that may be booleans: `true`, `True`, `TRUE`, `1`, and likewise for false.
      others: whether it has more values than these.
    """
    words = []
    for spellings, digit in ((TRUE, "1"), (FALSE, "0")):
        known = [s for s in spellings if s in vocabulary] or ([digit] if digit in vocabulary and not others else [])
        same = [*spellings, *([] if others else [digit, f"{digit}.0"])]
        words += [([s for s in same if s not in vocabulary], known[0])] if known else []
    return tuple(words)


def to_int64(text: tf.Tensor) -> tf.Tensor:
    """Parses whole numbers and booleans; other text becomes MISSING_INT, since a serving request may hold anything."""
    text = _replaced(text, ((TRUE, "1"), (FALSE, "0")))
    whole = tf.where(tf.strings.regex_full_match(text, WHOLE), text, str(MISSING_INT))
    return tf.strings.to_number(tf.strings.regex_replace(whole, POINT_ZERO, r"\1"), tf.int64)


def whole_texts(text: tf.Tensor) -> tf.Tensor:
    """Turns whole numbers and booleans into their digits, and the missing one into ""; leaves other text as it is."""
    numbers = to_int64(text)
    is_missing = tf.strings.regex_full_match(text, rf"{MISSING_INT}(?:\.0*)?")
    return tf.where(numbers != MISSING_INT, tf.strings.as_string(numbers), tf.where(is_missing, "", text))
