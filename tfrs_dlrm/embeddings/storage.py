"""Where the rows of a table or slot are: in one variable, in copies on several devices, or shared out among variables.

Checkpoints and other readers of whole tables use `LogicalTable`; what computes on rows uses variables.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf


class ShardedTable(tf.__internal__.tracking.AutoTrackable):
    """A table, or a slot, whose rows are shared out among variables on several devices.

    It is none of the weights of a Keras layer: no Keras optimizer could train it.

    Args:
      name: of the whole.
      variables: [rows, ...] each, in the order of their rows.
    """

    def __init__(self, name: str, variables: Sequence[tf.Variable]) -> None:
        self.name = name
        self.variables = tuple(variables)
        self.dtype = self.variables[0].dtype
        ends = [0]
        for v in self.variables:
            ends.append(ends[-1] + v.shape[0])
        self.boundaries = tuple(ends)  # those of variables[i] are boundaries[i] to boundaries[i + 1]
        self.shape = tf.TensorShape([ends[-1], *self.variables[0].shape[1:]])

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Rows int [n], read where they are; [n, ...] on the device of the caller. Differentiable."""
        if len(self.variables) == 1:
            return _gather(self.variables[0], rows)
        owner = tf.searchsorted(tf.constant(self.boundaries[1:], rows.dtype), rows, side="right")
        count = len(self.variables)
        places = tf.dynamic_partition(tf.range(tf.size(rows)), owner, count)
        parts = tf.dynamic_partition(rows, owner, count)
        pairs = zip(self.variables, parts, self.boundaries, strict=False)
        found = [_gather(v, part - tf.cast(begin, rows.dtype)) for v, part, begin in pairs]
        values = tf.dynamic_stitch(places, found)
        return tf.reshape(values, tf.concat([tf.shape(rows), tf.shape(values)[1:]], axis=0))

    def numpy(self) -> Any:
        """All rows in one array."""
        return tf.concat([v.numpy() for v in self.variables], axis=0).numpy()

    def assign(self, values: Any) -> None:
        """Overwrites all rows."""
        for v, begin in zip(self.variables, self.boundaries, strict=False):
            v.assign(values[begin : begin + v.shape[0]])


TableVariable: TypeAlias = "tf.Variable | ShardedTable"


def _gather(variable: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    with tf.device(variable.device):
        return tf.gather(variable, rows)


_SECOND_CPUS = threading.Lock()


@contextlib.contextmanager
def _on(device: str) -> Iterator[None]:
    """Where to run eager ops that several threads may run.

    On logical CPUs other than the first, ops of one thread now and then get the inputs of another's (TensorFlow 2.21:
    a sum of two tensors on CPU:1, in two threads, some times in 100,000), so there it is one thread at a time.
    """
    spec = tf.DeviceSpec.from_string(device)
    second = spec.device_type == "CPU" and bool(spec.device_index)
    with _SECOND_CPUS if second else contextlib.nullcontext(), tf.device(device):
        yield


class TableShard(abc.ABC):
    """Rows `begin` to `end` of a table or slot, on one device or in copies on several.

    Attributes:
      begin: the first row.
      end: the row after the last.
      device: where `read` gives them.
    """

    begin: int
    end: int
    device: str

    @abc.abstractmethod
    def read(self, first: int, last: int) -> tf.Tensor:
        """A copy of rows `first` to `last` of the whole, all of them in this shard; [last - first, ...]."""

    @abc.abstractmethod
    def write(self, first: int, values: tf.Tensor) -> None:
        """Overwrites the rows of the whole from `first` on, in every copy."""

    def scatter(self, rows: np.ndarray, values: tf.Tensor) -> None:
        """Overwrites rows of the whole, each of them in this shard and given once, in ascending order.

        A shard that can write them all at once does so; this writes one run of neighbours after the other.
        """
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        for begin, end in zip([0, *ends], [*ends, len(rows)], strict=True):
            self.write(int(rows[begin]), values[begin:end])


class VariableShard(TableShard):
    """A shard that is a variable, or equal variables on several devices.

    Args:
      begin: the first row.
      copies: [rows, ...] each.
    """

    def __init__(self, begin: int, copies: Sequence[tf.Variable]) -> None:
        self.begin, self.end = begin, begin + copies[0].shape[0]
        self.copies = tuple(copies)
        self.device = self.copies[0].device

    def read(self, first: int, last: int) -> tf.Tensor:
        """See `TableShard`."""
        # A gather, since a variable that was written to by scatters is copied whenever it is read as a whole.
        with _on(self.device):
            return tf.gather(self.copies[0], tf.range(first - self.begin, last - self.begin))

    def write(self, first: int, values: tf.Tensor) -> None:
        """See `TableShard`."""
        begin = first - self.begin
        for copy in self.copies:
            with _on(copy.device):
                copy.scatter_update(tf.IndexedSlices(values, tf.range(begin, begin + values.shape[0])))

    def scatter(self, rows: np.ndarray, values: tf.Tensor) -> None:
        """See `TableShard`."""
        for copy in self.copies:
            with _on(copy.device):
                copy.scatter_update(tf.IndexedSlices(values, tf.constant(rows - self.begin)))


@dataclasses.dataclass(frozen=True)
class LogicalTable:
    """A table or slot as a whole, wherever its rows are.

    Attributes:
      shape: [rows, dim], or [rows] for slots of one number a row.
      dtype: float32 or bfloat16.
      shards: in the order of their rows; together they hold each row once.
    """

    shape: tuple[int, ...]
    dtype: tf.DType
    shards: tuple[TableShard, ...]

    @classmethod
    def of(cls, rows: TableVariable) -> LogicalTable:
        """The storage of a variable, plain or with copies, or of a sharded table."""
        if isinstance(rows, ShardedTable):
            pairs = zip(rows.variables, rows.boundaries, strict=False)
            shards = tuple(VariableShard(begin, [v]) for v, begin in pairs)
        else:
            shards = (VariableShard(0, copies(rows)),)
        return cls(tuple(rows.shape), rows.dtype, shards)

    def scatter(self, rows: np.ndarray, values: tf.Tensor) -> None:
        """Overwrites rows int64 [n], each given once, in ascending order, with values [n, ...]."""
        for shard in self.shards:
            first, last = np.searchsorted(rows, [shard.begin, shard.end])
            if first < last:
                shard.scatter(rows[first:last], values[first:last])


def logical_tables(
    tables: Mapping[str, TableVariable], slots: Mapping[str, Mapping[str, TableVariable]]
) -> dict[str, LogicalTable]:
    """Returns tables as `tables/<table>`, and their slots as `slots/<table>/<slot>`."""
    found = {f"tables/{name}": LogicalTable.of(table) for name, table in tables.items()}
    for name, of_table in slots.items():
        found |= {f"slots/{name}/{slot}": LogicalTable.of(v) for slot, v in of_table.items()}
    return found


def copies(variable: tf.Variable) -> tuple[tf.Variable, ...]:
    """The variables behind one that `tf.distribute` keeps a copy of on each device; else the variable itself."""
    return tuple(getattr(variable, "values", (variable,)))
