"""Columns that were split from one tensor, and are taken together again without a copy."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def split(whole: tf.Tensor, widths: Sequence[int]) -> list[tf.Tensor]:
    """Returns the parts [B, width] of a tensor [B, sum of the widths]; `whole_parts` knows them in the same graph."""
    return tf.split(whole, list(widths), axis=1)


def whole_parts(parts: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns tensors [B, n] with the same columns in the same order, as few as are known.

    Where all parts of a `split` follow each other in their order, the tensor that was split stands in their place.
    TensorFlow would copy them twice. Outside of graphs the parts are returned as they are.
    """
    found: list[tf.Tensor] = []
    begin = 0
    while begin < len(parts):
        every = _parts_of_split(parts[begin])
        run = parts[begin : begin + len(every)]
        if every and len(run) == len(every) and all(a is b for a, b in zip(run, every, strict=True)):
            found.append(parts[begin].op.inputs[0])
            begin += len(every)
        else:
            found.append(parts[begin])
            begin += 1
    return found


def _parts_of_split(part: tf.Tensor) -> list[tf.Tensor]:
    """Returns all columns of the tensor that a tensor was split from; empty if it was not, or along another axis."""
    if not tf.is_symbolic_tensor(part) or part.op.type != "SplitV":
        return []
    return list(part.op.outputs) if tf.get_static_value(part.op.inputs[2]) == 1 else []
