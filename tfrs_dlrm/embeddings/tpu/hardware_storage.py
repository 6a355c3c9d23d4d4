"""Tables and slots on TPU embedding hardware as logical tables; see `embeddings.storage`.

The hardware of v2 to v4 (V1) assigns ranges of rows to hosts, whose variables are copies of the tables on the chips.
SparseCores stack tables and assign single rows to cores, round robin, starting at another core for each table of a
stack.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfrs_dlrm.embeddings.storage import LogicalTable, TableShard, VariableShard


@dataclasses.dataclass(frozen=True)
class CoreLayout:
    """The positions of a table's rows in a stack on SparseCores.

    Attributes:
      rows: the number of rows of the table.
      dim: the dimension of the table; rows of the stack may be longer.
      cores: the number of all SparseCores.
      core_rows: rows of the stack on each core.
      offset: the first row of the table on each core.
      rotation: the core of row 0.
    """

    rows: int
    dim: int
    cores: int
    core_rows: int
    offset: int
    rotation: int

    def cores_and_rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the core of each of `rows`, int [n], and the row on that core."""
        return (rows + self.rotation) % self.cores, self.offset + rows // self.cores


class SparseCoreShard(TableShard):
    """A table, or a slot, spread over the SparseCores of several devices.

    Args:
      variables: the stack, a variable per device: [cores of a device * core_rows, padded dim].
      layout: the layout of the table.
    """

    def __init__(self, variables: Sequence[tf.Variable], layout: CoreLayout) -> None:
        self.begin, self.end = 0, layout.rows
        first = tf.DeviceSpec.from_string(variables[0].device)
        self.device = first.replace(device_type="CPU", device_index=0).to_string()
        self._variables = tuple(variables)
        self._layout = layout

    def read(self, first: int, last: int) -> tf.Tensor:
        """See `TableShard.read`."""
        parts, positions = [], []
        for variable, rows, where in self._by_device(np.arange(first, last)):
            with tf.device(variable.device):
                found = tf.gather(variable, rows)
            parts.append(found[: len(where), : self._layout.dim])
            positions.append(where)
        with tf.device(self.device):
            return tf.gather(tf.concat(parts, axis=0), np.argsort(np.concatenate(positions)))

    def write(self, first: int, values: tf.Tensor) -> None:
        """See `TableShard.write`."""
        self.scatter(np.arange(first, first + values.shape[0]), values)

    def scatter(self, rows: np.ndarray, values: tf.Tensor) -> None:
        """See `TableShard.scatter`."""
        for variable, padded_rows, where in self._by_device(rows):
            positions = np.full(len(padded_rows), where[-1])
            positions[: len(where)] = where
            with tf.device(variable.device):
                new = tf.gather(values, positions)
                if variable.shape[1] > self._layout.dim:
                    new = tf.concat([new, tf.gather(variable, padded_rows)[:, self._layout.dim :]], axis=1)
                variable.scatter_update(tf.IndexedSlices(new, padded_rows))

    def _by_device(self, rows: np.ndarray) -> list[tuple[tf.Variable, np.ndarray, np.ndarray]]:
        """Returns for each device its variable, its rows of `rows`, and the positions of these in `rows`.

        The rows of a device are padded with the last one, to a number that depends on the number of all rows: most
        calls then reuse one compiled gather or scatter.
        """
        layout = self._layout
        cores, rows_of_core = layout.cores_and_rows(rows)
        per_device = layout.cores // len(self._variables)
        local = (cores % per_device) * layout.core_rows + rows_of_core
        most = per_device * -(-len(rows) // layout.cores)
        found = []
        for i, variable in enumerate(self._variables):
            (positions,) = np.nonzero(cores // per_device == i)
            if positions.size:
                padded = np.full(max(most, positions.size), local[positions[-1]], np.int32)
                padded[: positions.size] = local[positions]
                found.append((variable, padded, positions))
        return found


class _ConvertedShard(TableShard):
    """A shard whose numbers on the hardware differ from the table or slot."""

    def __init__(self, shard: TableShard) -> None:
        self.begin, self.end, self.device = shard.begin, shard.end, shard.device
        self._shard = shard

    def read(self, first: int, last: int) -> tf.Tensor:
        """See `TableShard.read`."""
        return self._from_hardware(self._shard.read(first, last))

    def write(self, first: int, values: tf.Tensor) -> None:
        """See `TableShard.write`."""
        self._shard.write(first, self._to_hardware(values))

    def scatter(self, rows: np.ndarray, values: tf.Tensor) -> None:
        """See `TableShard.scatter`."""
        self._shard.scatter(rows, self._to_hardware(values))

    @abc.abstractmethod
    def _from_hardware(self, values: tf.Tensor) -> tf.Tensor: ...

    @abc.abstractmethod
    def _to_hardware(self, values: tf.Tensor) -> tf.Tensor: ...


class _PositiveShard(_ConvertedShard):
    """A slot in which a very small number stands for 0: the hardware divides by its root."""

    def __init__(self, shard: TableShard, smallest: float) -> None:
        super().__init__(shard)
        self._smallest = smallest

    def _from_hardware(self, values: tf.Tensor) -> tf.Tensor:
        return tf.where(values == self._smallest, 0.0, values)

    def _to_hardware(self, values: tf.Tensor) -> tf.Tensor:
        return tf.where(values == 0.0, self._smallest, values)


class _WideShard(_ConvertedShard):
    """A table that is not float32, on float32 hardware."""

    def __init__(self, shard: TableShard, dtype: tf.DType) -> None:
        super().__init__(shard)
        self._dtype = dtype

    def _from_hardware(self, values: tf.Tensor) -> tf.Tensor:
        return tf.cast(values, self._dtype)

    def _to_hardware(self, values: tf.Tensor) -> tf.Tensor:
        return tf.cast(values, tf.float32)


def on_hosts(variables: Sequence[tf.Variable]) -> list[TableShard]:
    """Returns the shards of a table or slot whose rows are assigned to hosts in ranges."""
    shards: list[TableShard] = []
    for variable in variables:
        shards.append(VariableShard(shards[-1].end if shards else 0, [variable]))
    return shards


def logical_table(
    shards: Sequence[TableShard], dim: int, dtype: tf.DType = tf.float32, smallest: float = 0.0
) -> LogicalTable:
    """Returns a table or slot of these shards, float32 on the hardware.

    Args:
      shards: all shards, in the order of the rows.
      dim: the dimension of the table.
      dtype: the dtype of the table; a bfloat16 table is rounded when read, not on the hardware.
      smallest: the number that stands for 0 on the hardware, if the hardware divides by its root; else 0.
    """
    if smallest:
        shards = [_PositiveShard(shard, smallest) for shard in shards]
    if dtype != tf.float32:
        shards = [_WideShard(shard, dtype) for shard in shards]
    return LogicalTable((shards[-1].end, dim), dtype, tuple(shards))
