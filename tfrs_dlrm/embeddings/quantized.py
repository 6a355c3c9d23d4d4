"""Tables of rows in fewer bits, for serving: they are read, never trained."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
import tensorflow as tf

Storage: TypeAlias = Literal["float32", "float16", "int8"]
STORAGES: tuple[str, ...] = get_args(Storage)

_CHUNK = 1 << 16  # rows converted at a time


class QuantizedRows(tf.Module, abc.ABC):
    """A quantized table that reads single rows."""

    @abc.abstractmethod
    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns rows int [n] as float32 [n, dim]."""

    @property
    def bytes(self) -> int:
        """The size of the variables."""
        return sum(v.shape.num_elements() * v.dtype.size for v in self.variables)


class HalfRows(QuantizedRows):
    """Rows of float16 numbers: 11 bits of mantissa, up to 65504."""

    def __init__(self, table: tf.Variable):
        super().__init__()
        self._values = _filled(table, tf.float16, table.shape[1], lambda rows: rows.astype(np.float16))

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """See `QuantizedRows.gather`."""
        return tf.cast(tf.gather(self._values, rows), tf.float32)


class ByteRows(QuantizedRows):
    """Rows of int8 numbers: 256 steps between the smallest and the largest number of the row.

    Row-wise and asymmetric, as in Guan et al. 2019, "Post-Training 4-bit Quantization on Embedding Tables" (arXiv
    1911.02079), section 3: a row takes dim bytes, and two float32 for the step and the middle.
    """

    def __init__(self, table: tf.Variable):
        super().__init__()
        self._values = _filled(table, tf.int8, table.shape[1], lambda rows: _quantized(rows)[0])
        self._ranges = _filled(table, tf.float32, 2, lambda rows: _quantized(rows)[1])

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """See `QuantizedRows.gather`."""
        ranges = tf.gather(self._ranges, rows)
        return tf.cast(tf.gather(self._values, rows), tf.float32) * ranges[:, :1] + ranges[:, 1:]


def quantized(table: tf.Variable, storage: Storage) -> tf.Variable | QuantizedRows:
    """Quantizes a table to `storage`. A bfloat16 table stays as it is for float16, which has the same size."""
    if storage == "int8":
        return ByteRows(table)
    return HalfRows(table) if storage == "float16" and table.dtype == tf.float32 else table


def stored_bytes(table: tf.Variable | QuantizedRows) -> int:
    """Returns the size of the rows."""
    return table.bytes if isinstance(table, QuantizedRows) else table.shape.num_elements() * table.dtype.size


def _quantized(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns int8 [n, dim], and float32 [n, 2]: the factor and the summand of each row."""
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    step = (high - low) / 255
    steps = np.rint((rows - low) / np.where(step > 0, step, 1))
    return (steps - 128).astype(np.int8), np.concatenate([step, low + 128 * step], axis=1)


def _filled(
    table: tf.Variable, dtype: tf.DType, width: int, convert: Callable[[np.ndarray], np.ndarray]
) -> tf.Variable:
    """Makes a variable of converted rows, some at a time, so that no second float32 table is in memory."""
    values = np.empty((table.shape[0], width), dtype.as_numpy_dtype)
    for begin in range(0, table.shape[0], _CHUNK):
        rows = tf.range(begin, min(begin + _CHUNK, table.shape[0]))
        values[begin : begin + _CHUNK] = convert(tf.cast(tf.gather(table, rows), tf.float32).numpy())
    return tf.Variable(values, trainable=False, dtype=dtype)
