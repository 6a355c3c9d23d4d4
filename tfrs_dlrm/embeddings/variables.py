"""The variables that hold the rows of tables: how they begin, and how their rows are read and written."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops  # no public name makes a variable past a strategy

from tfrs_dlrm.distribute.placement import Places, RowsOnDevice
from tfrs_dlrm.embeddings.storage import LogicalTable, ShardedTable, TableShard, TableVariable
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.schema import Table

# Rows are drawn so many numbers at a time: the temporary tensors of a large table would need its memory three times.
_NUMBERS_AT_A_TIME = 1 << 22


def make_variables(table: Table, seed: int, places: Places | None = None) -> dict[str, TableVariable]:
    """The variables of a table by name (`Table.parts`), with their initial values.

    Args:
      table: with its rows.
      seed: makes the values a function of (seed, name of the variable), wherever they are.
      places: for the names of variables that are to be shared out, on which device each range of rows goes. All others
        are made as the strategy in scope makes variables.

    Raises:
      ValueError: the table has no rows.
    """
    if table.vocabulary_size is None:
        raise ValueError(
            f"table {table.name!r} has no vocabulary_size yet; take the schema that `prepare` wrote, which has the"
            " sizes of all vocabularies, or set vocabulary_size"
        )
    return {part.name: _variable(part, (places or {}).get(part.name)) for part in _parts(table, seed)}


def initial_rows(table: Table, seed: int) -> dict[str, Callable[[int, int], Iterator[tuple[int, tf.Tensor]]]]:
    """For each variable of a table what gives the values that its rows, from one to another, begin with.

    They come some rows at a time, each time with the number of the first.
    """
    return {part.name: part.rows for part in _parts(table, seed)}


def like(rows: TableVariable, name: str, initial: float, per_row: bool) -> TableVariable:
    """A float32 slot of a table, where its rows are: a number for each of its numbers, or one for each row."""

    def fill(table: tf.Variable) -> Callable[[], tf.Tensor]:
        # A function, since a tensor would stay in memory beside the variable.
        return lambda: tf.fill(table.shape[:1] if per_row else table.shape, tf.constant(initial, tf.float32))

    if isinstance(rows, ShardedTable):
        shards = [variable_on(v.device, fill(v), f"{name}/{i}", trainable=False) for i, v in enumerate(rows.variables)]
        return ShardedTable(name, shards)
    return tf.Variable(fill(rows), trainable=False, name=name)


def variable_on(device: str, initial: Callable[[], tf.Tensor], name: str, trainable: bool) -> tf.Variable:
    """A variable on one device, whatever the strategy in scope would make of it."""
    strategy = tf.distribute.get_strategy()

    def creator(next_creator: Callable[..., tf.Variable], **kwargs: Any) -> tf.Variable:
        del next_creator  # the strategy's, which would make copies or choose a device of its own
        return resource_variable_ops.default_variable_creator_v2(None, **(kwargs | {"distribute_strategy": strategy}))

    with tf.variable_creator_scope(creator), tf.device(device):
        return tf.Variable(initial, trainable=trainable, name=name)


def read_rows(rows_of: TableVariable, rows: tf.Tensor | None) -> tf.Tensor:
    """Float32 [n, dim] (or [n]) of rows int [n], or of all rows; differentiable where they are those of a variable."""
    if rows is None:
        return tf.cast(tf.convert_to_tensor(rows_of), tf.float32)
    # A gather reads single rows of the variable. Any op that takes the whole table as a tensor would copy all of it:
    # variables that scatter ops write to are copied whenever they are read as a whole.
    found = tf.gather(rows_of, rows) if isinstance(rows_of, tf.Variable) else rows_of.gather(rows)
    return tf.cast(found, tf.float32)


def write_rows(variable: tf.Variable, rows: tf.Tensor | None, values: tf.Tensor, seed: tf.Tensor | None = None) -> None:
    """Overwrites rows int [n], each once, or all rows, with float32 [n, dim].

    Args:
      variable: float32 or bfloat16.
      rows: which.
      values: what with.
      seed: int [2], of the stochastic rounding to bfloat16; None rounds to nearest.
    """
    if rows is None:
        variable.assign(_stored(values, variable.dtype, seed), read_value=False)
        return
    # An assigning scatter copies memory: 8 times as fast on CPUs as one that adds or subtracts, which makes the
    # gather, the arithmetic and the scatter together twice as fast as the latter alone.
    variable.scatter_update(tf.IndexedSlices(_stored(values, variable.dtype, seed), rows))


def add_to_rows(
    variable: tf.Variable, rows: tf.Tensor, old: tf.Tensor, new: tf.Tensor, seed: tf.Tensor | None = None
) -> None:
    """Adds new - old, float32 [n, dim] each, to rows int [n], each once.

    Where several workers update a row at a time, each with what it read of it, this loses none of their updates.
    """
    new = tf.cast(_stored(new, variable.dtype, seed), tf.float32)
    variable.scatter_add(tf.IndexedSlices(tf.cast(new - old, variable.dtype), rows))


def _stored(values: tf.Tensor, dtype: tf.DType, seed: tf.Tensor | None) -> tf.Tensor:
    if dtype == tf.float32:
        return values
    return tf.cast(values, dtype) if seed is None else round_stochastically(values, seed)


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
    return all_rows_finite(LogicalTable.of(variable))


def all_rows_finite(rows: LogicalTable) -> bool:
    """Likewise for a table, looked at where its rows are."""
    for shard in rows.shards:
        step = _rows_at_a_time(list(rows.shape))
        for first in range(shard.begin, shard.end, step):
            with tf.device(shard.device):
                finite = tf.reduce_all(tf.math.is_finite(shard.read(first, min(first + step, shard.end))))
            if not finite:
                return False
    return True


@dataclasses.dataclass(frozen=True)
class _Part:
    """A variable that is to be: its size, its type, and how to draw rows `begin` to `begin + size`, chunk by chunk."""

    name: str
    shape: tuple[int, int]
    dtype: tf.DType
    draw: Callable[[int, int], tf.Tensor]
    step: int

    def rows(self, begin: int, end: int) -> Iterator[tuple[int, tf.Tensor]]:
        """Rows `begin` to `end`, some at a time, each with the number of the first."""
        for chunk in range(begin // self.step, -(-end // self.step)):
            start = chunk * self.step
            stop = min(start + self.step, self.shape[0])
            first, last = max(begin, start), min(end, stop)
            yield first, tf.cast(self.draw(chunk, stop - start)[first - start : last - start], self.dtype)


def _parts(table: Table, seed: int) -> list[_Part]:
    scale = 1 / math.sqrt(table.vocabulary_size or 1) if table.scale is None else table.scale
    dtype = tf.as_dtype(table.dtype)

    def plain(name: str, rows: int) -> _Part:
        step, key = _rows_at_a_time([rows, table.dim]), derive_seed(seed, f"tables/{name}")

        def draw(chunk: int, size: int) -> tf.Tensor:
            if table.initializer == "uniform":
                return _uniform([size, table.dim], scale, seed=[chunk, key])
            if table.initializer == "normal":
                return tf.random.stateless_normal([size, table.dim], [chunk, key], stddev=scale, alg="philox")
            return tf.zeros([size, table.dim])

        return _Part(name, (rows, table.dim), dtype, draw, step)

    rows = table.vocabulary_size or 0
    if table.remainders is None:
        return [plain(name, rows) for name in table.parts]
    quotient, remainder = table.parts

    def factors(chunk: int, size: int) -> tf.Tensor:
        # Around 1, so that the products begin at the scale of a plain table and still differ.
        return 1 + _uniform([size, table.dim], 0.5, seed=[chunk, derive_seed(seed, f"tables/{remainder}")])

    shape = (table.remainders, table.dim)
    return [plain(quotient, -(-rows // table.remainders)), _Part(remainder, shape, dtype, factors, shape[0])]


def _variable(part: _Part, places: Sequence[RowsOnDevice] | None) -> TableVariable:
    name = f"tables/{part.name}"
    if places is None:
        if part.shape[0] <= part.step:
            return tf.Variable(next(part.rows(0, part.shape[0]))[1], name=name)
        variable = tf.Variable(lambda: tf.zeros(part.shape, part.dtype), name=name)
        _fill(part, LogicalTable.of(variable).shards[0])
        return variable
    shards = []
    for i, (begin, end, device) in enumerate(places):
        zeros = functools.partial(tf.zeros, (end - begin, part.shape[1]), part.dtype)
        shards.append(variable_on(device, zeros, f"{name}/{i}", trainable=True))
    table = ShardedTable(name, shards)
    for shard in LogicalTable.of(table).shards:
        _fill(part, shard)
    return table


def _fill(part: _Part, shard: TableShard) -> None:
    # Drawn where they are to be: they may be on another machine.
    with tf.device(shard.device):
        for first, values in part.rows(shard.begin, shard.end):
            shard.write(first, values)


def _rows_at_a_time(shape: tf.TensorShape | list[int]) -> int:
    return max(1, _NUMBERS_AT_A_TIME // (shape[1] if len(shape) > 1 else 1))


def _uniform(shape: list[int], scale: float, seed: list[int]) -> tf.Tensor:
    # Philox by name, since the default generator differs between kinds of devices.
    return tf.random.stateless_uniform(shape, seed, -scale, scale, alg="philox")
