"""Buckets of numbers: their edges, and the row of a number.

Edges rise, and numbers and edges are float32. Row 0 is a missing number, and row 1 + k a number that k edges are not
above: an edge belongs to the bucket above it. Numbers outside all edges are in the first or the last bucket.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# Of the largest edge of log2: 2**127 - 1, as float32 holds less than 2**128.
_LARGEST_POWER = 127


def merged_edges(edges: Sequence[float]) -> list[float]:
    """Returns edges as float32, equal ones once."""
    return [float(x) for x in np.unique(np.asarray(edges, np.float32))]


def log2_edges(largest: float) -> list[float]:
    """Returns 0, then 2^k - 1 for k = 1, 2, ... up to `largest`: the buckets are x < 0 and floor(log2(1 + x))."""
    powers = [2.0**k - 1 for k in range(1, _LARGEST_POWER + 1)]
    return merged_edges([0.0, *(edge for edge in powers if edge <= largest)])


def bucket_rows(values: tf.Tensor, edges: Sequence[float]) -> tf.Tensor:
    """Returns the row of each of float32 [N], int32 [N]. NaN and infinities are missing."""
    present = tf.math.is_finite(values)
    above = tf.raw_ops.Bucketize(input=tf.where(present, values, 0.0), boundaries=list(edges))
    return tf.where(present, above + 1, 0)


def bucket_name(row: int, edges: Sequence[float]) -> str:
    """Names a row of a table of buckets: `<missing>`, `< 0`, `[0, 1.5)`, `>= 10`."""
    if row == 0:
        return "<missing>"
    if not edges:
        return "any"
    if row == 1:
        return f"< {_shown(edges[0])}"
    if row > len(edges):
        return f">= {_shown(edges[-1])}"
    return f"[{_shown(edges[row - 2])}, {_shown(edges[row - 1])})"


def _shown(edge: float) -> str:
    """Prints a float32 with as few digits as tell it from others."""
    if edge and not 1e-5 <= abs(edge) < 1e12:
        return str(np.float32(edge))
    return np.format_float_positional(np.float32(edge), trim="-")
