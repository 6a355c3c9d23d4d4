"""Tables and slots as the embedding hardware of TPUs keeps them, read and written as wholes; see `embeddings.storage`.

The hardware of v2 to v4 (V1) deals out ranges of rows to the hosts, whose variables are a copy of what is on the
chips. SparseCores stack tables on each other and deal out single rows: those of a table go round the cores, beginning
with another core for each table of a stack.
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
    """Where the rows of a table are in a stack on SparseCores.

    Attributes:
      rows: of the table.
      dim: of the table; its rows in the stack may be longer.
      cores: SparseCores in all.
      core_rows: rows of the stack on each core.
      offset: the row of each core where the table begins.
      rotation: the core of row 0.
    """

    rows: int
    dim: int
    cores: int
    core_rows: int
    offset: int
    rotation: int

    def cores_and_rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The core of each of `rows`, int [n], and its row there."""
        return (rows + self.rotation) % self.cores, self.offset + rows // self.cores


class SparseCoreShard(TableShard):
    """A table, or a slot, spread over the SparseCores of several devices.

    Args:
      variables: of the stack: the rows of all cores of each device, [cores of a device * core_rows, padded dim].
      layout: of the table.
    """

    def __init__(self, variables: Sequence[tf.Variable], layout: CoreLayout) -> None:
        self.begin, self.end = 0, layout.rows
        first = tf.DeviceSpec.from_string(variables[0].device)
        self.device = first.replace(device_type="CPU", device_index=0).to_string()
        self._variables = tuple(variables)
        self._layout = layout

    def read(self, first: int, last: int) -> tf.Tensor:
        """See `TableShard`."""
        parts, places = [], []
        for variable, rows, place in self._by_device(np.arange(first, last)):
            with tf.device(variable.device):
                found = tf.gather(variable, rows)
            parts.append(found[: len(place), : self._layout.dim])
            places.append(place)
        with tf.device(self.device):
            return tf.gather(tf.concat(parts, axis=0), np.argsort(np.concatenate(places)))

    def write(self, first: int, values: tf.Tensor) -> None:
        """See `TableShard`."""
        self.scatter(np.arange(first, first + values.shape[0]), values)

    def scatter(self, rows: np.ndarray, values: tf.Tensor) -> None:
        """See `TableShard`."""
        for variable, own, place in self._by_device(rows):
            padded = np.full(len(own), place[-1])
            padded[: len(place)] = place
            with tf.device(variable.device):
                new = tf.gather(values, padded)
                if variable.shape[1] > self._layout.dim:
                    new = tf.concat([new, tf.gather(variable, own)[:, self._layout.dim :]], axis=1)
                variable.scatter_update(tf.IndexedSlices(new, own))

    def _by_device(self, rows: np.ndarray) -> list[tuple[tf.Variable, np.ndarray, np.ndarray]]:
        """For each device its variable, which rows of it are among `rows`, and where.

        The rows of a device are filled up with the last, to a number that follows from that of all: one compiled
        gather, or scatter, then does for most calls.
        """
        layout = self._layout
        cores, rows_of_core = layout.cores_and_rows(rows)
        per_device = layout.cores // len(self._variables)
        local = (cores % per_device) * layout.core_rows + rows_of_core
        most = per_device * -(-len(rows) // layout.cores)
        found = []
        for i, variable in enumerate(self._variables):
            (place,) = np.nonzero(cores // per_device == i)
            if place.size:
                own = np.full(max(most, place.size), local[place[-1]], np.int32)
                own[: place.size] = local[place]
                found.append((variable, own, place))
        return found


class _Wrapped(TableShard):
    """A shard whose numbers on the hardware are others than those of the table, or slot."""

    def __init__(self, shard: TableShard) -> None:
        self.begin, self.end, self.device = shard.begin, shard.end, shard.device
        self._shard = shard

    def read(self, first: int, last: int) -> tf.Tensor:
        """See `TableShard`."""
        return self._theirs_to_ours(self._shard.read(first, last))

    def write(self, first: int, values: tf.Tensor) -> None:
        """See `TableShard`."""
        self._shard.write(first, self._ours_to_theirs(values))

    def scatter(self, rows: np.ndarray, values: tf.Tensor) -> None:
        """See `TableShard`."""
        self._shard.scatter(rows, self._ours_to_theirs(values))

    @abc.abstractmethod
    def _theirs_to_ours(self, values: tf.Tensor) -> tf.Tensor: ...

    @abc.abstractmethod
    def _ours_to_theirs(self, values: tf.Tensor) -> tf.Tensor: ...


class _Positive(_Wrapped):
    """A slot in which a very small number stands for 0: the hardware divides by its root."""

    def __init__(self, shard: TableShard, smallest: float) -> None:
        super().__init__(shard)
        self._smallest = smallest

    def _theirs_to_ours(self, values: tf.Tensor) -> tf.Tensor:
        return tf.where(values == self._smallest, 0.0, values)

    def _ours_to_theirs(self, values: tf.Tensor) -> tf.Tensor:
        return tf.where(values == 0.0, self._smallest, values)


class _Wide(_Wrapped):
    """A table of another type than the float32 of the hardware."""

    def __init__(self, shard: TableShard, dtype: tf.DType) -> None:
        super().__init__(shard)
        self._dtype = dtype

    def _theirs_to_ours(self, values: tf.Tensor) -> tf.Tensor:
        return tf.cast(values, self._dtype)

    def _ours_to_theirs(self, values: tf.Tensor) -> tf.Tensor:
        return tf.cast(values, tf.float32)


def on_hosts(variables: Sequence[tf.Variable]) -> list[TableShard]:
    """The shards of a table, or slot, whose rows are dealt out to hosts in ranges."""
    shards: list[TableShard] = []
    for variable in variables:
        shards.append(VariableShard(shards[-1].end if shards else 0, [variable]))
    return shards


def logical_table(
    shards: Sequence[TableShard], dim: int, dtype: tf.DType = tf.float32, smallest: float = 0.0
) -> LogicalTable:
    """A table or slot of these shards, float32 on the hardware.

    Args:
      shards: all of them.
      dim: of the table.
      dtype: of the table; a bfloat16 one is rounded where it is read, not on the hardware.
      smallest: what stands for 0 on the hardware, where that divides by the root of the number; 0 for nothing.
    """
    if smallest:
        shards = [_Positive(shard, smallest) for shard in shards]
    if dtype != tf.float32:
        shards = [_Wide(shard, dtype) for shard in shards]
    return LogicalTable((shards[-1].end, dim), dtype, tuple(shards))
