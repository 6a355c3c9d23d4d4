"""The variables of tables and slots, and their initial values."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import resource_variable_ops  # no public API bypasses the strategy's creator

from tfrs_dlrm.distribute.placement import Places, RowsOnDevice
from tfrs_dlrm.embeddings.storage import LogicalTable, ShardedTable, TableShard, TableVariable
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.schema import Table

# Numbers drawn at a time: the temporary tensors of a whole large table would take three times its memory.
_NUMBERS_AT_A_TIME = 1 << 22


def make_variables(table: Table, seed: int, places: Places | None = None) -> dict[str, TableVariable]:
    """Makes the variables of a table by name (`Table.parts`), with their initial values.

    Args:
      table: with its vocabulary_size.
      seed: the values are a function of (seed, name of the variable), on all devices.
      places: the device of each range of rows, by name of the variables to shard. The strategy in scope makes all
        others.

    Raises:
      ValueError: the table has no rows.
    """
    if table.vocabulary_size is None:
        raise ValueError(
            f"table {table.name!r} has no vocabulary_size yet; take the schema that `prepare` wrote, or"
            " `td.fit_encoder(...).schema`, which have the sizes of all vocabularies, or set vocabulary_size"
        )
    return {part.name: _variable(part, (places or {}).get(part.name)) for part in _parts(table, seed)}


def initial_rows(table: Table, seed: int) -> dict[str, Callable[[int, int], Iterator[tuple[int, tf.Tensor]]]]:
    """Returns for each variable of a table a function (begin, end) that yields the initial values of these rows.

    It yields some rows at a time, with the number of the first.
    """
    return {part.name: part.rows for part in _parts(table, seed)}


def initial_values(table: Table, seed: int, rows: np.ndarray) -> tf.Tensor:
    """Returns the initial values of some rows of a table that is one variable.

    Args:
      table: neither compressed nor stored in another one.
      seed: of the tables.
      rows: int64 [n], ascending, at least one.
    """
    (part,) = _parts(table, seed)
    found = []
    # Only what is drawn together with one of the rows, however far they are apart.
    for together in np.split(rows, np.flatnonzero(np.diff(rows // part.step)) + 1):
        ((first, values),) = part.rows(int(together[0]), int(together[-1]) + 1)
        found.append(tf.gather(values, together - first))
    return tf.concat(found, axis=0)


def make_slot(rows: TableVariable, name: str, initial: float, per_row: bool) -> TableVariable:
    """Makes a float32 slot on the devices of a table's rows, with a number per number of the table or one per row."""

    def fill(table: tf.Variable) -> Callable[[], tf.Tensor]:
        # A function, because a tensor would stay in memory next to the variable.
        return lambda: tf.fill(table.shape[:1] if per_row else table.shape, tf.constant(initial, tf.float32))

    if isinstance(rows, ShardedTable):
        shards = [variable_on(v.device, fill(v), f"{name}/{i}", trainable=False) for i, v in enumerate(rows.variables)]
        return ShardedTable(name, shards)
    return tf.Variable(fill(rows), trainable=False, name=name)


def variable_on(device: str, initial: Callable[[], tf.Tensor], name: str, trainable: bool) -> tf.Variable:
    """Makes a variable on one device, bypassing the strategy in scope."""
    strategy = tf.distribute.get_strategy()

    def creator(next_creator: Callable[..., tf.Variable], **kwargs: Any) -> tf.Variable:
        del next_creator  # the strategy's, which would make copies or choose another device
        return resource_variable_ops.default_variable_creator_v2(None, **(kwargs | {"distribute_strategy": strategy}))

    with tf.variable_creator_scope(creator), tf.device(device):
        return tf.Variable(initial, trainable=trainable, name=name)


def all_finite(variable: tf.Variable) -> bool:
    """Whether a variable holds neither NaN nor infinity; large variables are read in parts."""
    if variable.shape.num_elements() <= _NUMBERS_AT_A_TIME or variable.shape.rank == 0:
        return bool(tf.reduce_all(tf.math.is_finite(variable)))
    return all_rows_finite(LogicalTable.of(variable))


def all_rows_finite(rows: LogicalTable) -> bool:
    """Whether a table holds neither NaN nor infinity, checked on the devices of its rows."""
    for shard in rows.shards:
        step = _rows_at_a_time(list(rows.shape))
        for first in range(shard.begin, shard.end, step):
            with tf.device(shard.device):
                finite = tf.reduce_all(tf.math.is_finite(shard.read(first, min(first + step, shard.end))))
            if not finite:
                return False
    return True


@dataclasses.dataclass(frozen=True)
class _NewVariable:
    """A variable to be made: its shape, its dtype, and a function (chunk, size) that draws `step` rows at a time."""

    name: str
    shape: tuple[int, int]
    dtype: tf.DType
    draw: Callable[[int, int], tf.Tensor]
    step: int

    def rows(self, begin: int, end: int) -> Iterator[tuple[int, tf.Tensor]]:
        """Yields rows `begin` to `end`, some at a time, with the number of the first."""
        for chunk in range(begin // self.step, -(-end // self.step)):
            start = chunk * self.step
            stop = min(start + self.step, self.shape[0])
            first, last = max(begin, start), min(end, stop)
            yield first, tf.cast(self.draw(chunk, stop - start)[first - start : last - start], self.dtype)


def _parts(table: Table, seed: int) -> list[_NewVariable]:
    scale = 1 / math.sqrt(table.vocabulary_size or 1) if table.scale is None else table.scale
    dtype = tf.as_dtype(table.dtype)

    def plain(name: str, rows: int) -> _NewVariable:
        step, key = _rows_at_a_time([rows, table.dim]), derive_seed(seed, f"tables/{name}")

        def draw(chunk: int, size: int) -> tf.Tensor:
            if table.initializer == "uniform":
                return _uniform([size, table.dim], scale, seed=[chunk, key])
            if table.initializer == "normal":
                return tf.random.stateless_normal([size, table.dim], [chunk, key], stddev=scale, alg="philox")
            return tf.zeros([size, table.dim])

        return _NewVariable(name, (rows, table.dim), dtype, draw, step)

    rows = table.vocabulary_size or 0
    if table.remainders is None:
        return [plain(name, rows) for name in table.parts]
    quotient, remainder = table.parts

    def factors(chunk: int, size: int) -> tf.Tensor:
        # Around 1, so that initial products have the scale of a plain table and still differ.
        return 1 + _uniform([size, table.dim], 0.5, seed=[chunk, derive_seed(seed, f"tables/{remainder}")])

    shape = (table.remainders, table.dim)
    return [plain(quotient, -(-rows // table.remainders)), _NewVariable(remainder, shape, dtype, factors, shape[0])]


def _variable(part: _NewVariable, places: Sequence[RowsOnDevice] | None) -> TableVariable:
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


def _fill(part: _NewVariable, shard: TableShard) -> None:
    # Drawn on the device of the rows, which may be on another machine.
    with tf.device(shard.device):
        for first, values in part.rows(shard.begin, shard.end):
            shard.write(first, values)


def _rows_at_a_time(shape: tf.TensorShape | list[int]) -> int:
    return max(1, _NUMBERS_AT_A_TIME // (shape[1] if len(shape) > 1 else 1))


def _uniform(shape: list[int], scale: float, seed: list[int]) -> tf.Tensor:
    # Philox by name, because the default generator differs between kinds of devices.
    return tf.random.stateless_uniform(shape, seed, -scale, scale, alg="philox")
