"""The variables that hold the rows of tables: how they begin, and how their rows are read and written."""

from __future__ import annotations

import math

import tensorflow as tf

from tfrs_dlrm.schema import Table
from tfrs_dlrm.seeds import derive_seed

# Rows are drawn so many numbers at a time: the temporary tensors of a large table would need its memory three times.
_NUMBERS_AT_A_TIME = 1 << 22


def make_variables(table: Table, seed: int) -> dict[str, tf.Variable]:
    """The variables of a table by name (`Table.parts`), with their initial values.

    Raises:
      ValueError: the table has no rows.
    """
    if table.rows is None:
        raise ValueError(
            f"table {table.name!r} has no rows yet; take the schema that `prepare` wrote, where the sizes of the"
            " vocabularies are filled in, or set rows"
        )
    scale = 1 / math.sqrt(table.rows) if table.scale is None else table.scale
    if table.remainders is None:
        return {part: _variable(part, table, table.rows, scale, seed) for part in table.parts}
    quotient, remainder = table.parts
    quotients = -(-table.rows // table.remainders)
    first = _variable(quotient, table, quotients, scale, seed)
    # Factors around 1, so that the products begin at the scale of a plain table and still differ.
    uniform = _uniform([table.remainders, table.dim], 0.5, seed=[0, derive_seed(seed, f"tables/{remainder}")])
    second = tf.Variable(tf.cast(1 + uniform, table.dtype), name=f"tables/{remainder}")
    return {quotient: first, remainder: second}


def read_rows(variable: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    """Float32 [n, dim] (or [n]) of rows int [n]; differentiable."""
    # A gather reads single rows of the variable. Any op that takes the whole table as a tensor would copy all of it:
    # variables that scatter ops write to are copied whenever they are read as a whole.
    return tf.cast(tf.gather(variable, rows), tf.float32)


def write_rows(variable: tf.Variable, rows: tf.Tensor, values: tf.Tensor, seed: tf.Tensor | None = None) -> None:
    """Overwrites rows int [n], each once, with float32 [n, dim].

    Args:
      variable: float32 or bfloat16.
      rows: which.
      values: what with.
      seed: int [2], of the stochastic rounding to bfloat16; None rounds to nearest.
    """
    # An assigning scatter copies memory: 8 times as fast on CPUs as one that adds or subtracts, which makes the
    # gather, the arithmetic and the scatter together twice as fast as the latter alone.
    if variable.dtype == tf.bfloat16:
        values = tf.cast(values, tf.bfloat16) if seed is None else round_stochastically(values, seed)
    variable.scatter_update(tf.IndexedSlices(values, rows))


def round_stochastically(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Float32 to bfloat16, up or down with the probabilities that make the mean right.

    bfloat16 is the upper half of float32. Adding a uniform number to the lower half carries into the upper one with
    just that probability.
    """
    noise = tf.random.stateless_uniform(tf.shape(values), seed, 0, 1 << 16, tf.int32, alg="philox")
    bits = tf.bitcast(values, tf.int32) + noise
    rounded = tf.bitcast(tf.bitwise.bitwise_and(bits, -(1 << 16)), tf.float32)
    return tf.cast(tf.where(tf.math.is_finite(values), rounded, values), tf.bfloat16)


def all_finite(variable: tf.Variable) -> bool:
    """Whether a variable holds no NaN and nothing infinite; large ones are looked at in parts."""
    if variable.shape.num_elements() <= _NUMBERS_AT_A_TIME or variable.shape.rank == 0:
        return bool(tf.reduce_all(tf.math.is_finite(variable)))
    step = _rows_at_a_time(variable.shape)
    parts = (tf.range(i, min(i + step, variable.shape[0])) for i in range(0, variable.shape[0], step))
    return all(bool(tf.reduce_all(tf.math.is_finite(tf.gather(variable, rows)))) for rows in parts)


def _variable(name: str, table: Table, rows: int, scale: float, seed: int) -> tf.Variable:
    shape, key = [rows, table.dim], derive_seed(seed, f"tables/{name}")

    def values(chunk: int, size: int) -> tf.Tensor:
        if table.initializer == "uniform":
            drawn = _uniform([size, table.dim], scale, seed=[chunk, key])
        elif table.initializer == "normal":
            drawn = tf.random.stateless_normal([size, table.dim], [chunk, key], stddev=scale, alg="philox")
        else:
            drawn = tf.zeros([size, table.dim])
        return tf.cast(drawn, table.dtype)

    step = _rows_at_a_time(shape)
    if rows <= step:
        return tf.Variable(values(0, rows), name=f"tables/{name}")
    variable = tf.Variable(tf.zeros(shape, table.dtype), name=f"tables/{name}")
    if table.initializer != "zeros":
        for chunk, begin in enumerate(range(0, rows, step)):
            size = min(step, rows - begin)
            variable.scatter_update(tf.IndexedSlices(values(chunk, size), tf.range(begin, begin + size)))
    return variable


def _rows_at_a_time(shape: tf.TensorShape | list[int]) -> int:
    return max(1, _NUMBERS_AT_A_TIME // (shape[1] if len(shape) > 1 else 1))


def _uniform(shape: list[int], scale: float, seed: list[int]) -> tf.Tensor:
    # Philox by name, since the default generator differs between kinds of devices.
    return tf.random.stateless_uniform(shape, seed, -scale, scale, alg="philox")
