"""Texts of crosses: the texts of the members, each behind its length, so that no two combinations have one text."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def crossed(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Joins texts, strings [N] each: `14` and `abc` become `2:143:abc`; lengths count bytes."""
    pieces = (piece for part in parts for piece in (tf.strings.as_string(tf.strings.length(part)), ":", part))
    return tf.strings.join(list(pieces))


def members_of(text: str) -> list[str]:
    """Returns the texts of which `crossed` made a text."""
    rest, found = text.encode(), []
    while rest:
        length, _, rest = rest.partition(b":")
        found.append(rest[: int(length)].decode())
        rest = rest[int(length) :]
    return found
