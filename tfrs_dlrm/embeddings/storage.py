"""The places of the rows of a table or slot: in one variable, in copies on several devices, or in shards.

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
    """A table, or a slot, whose rows are split among variables on several devices.

    It is no weight of a Keras layer: Keras optimizers cannot train it.

    Args:
      name: of the table or slot.
      variables: [rows, ...] each, in the order of the rows.
    """

    def __init__(self, name: str, variables: Sequence[tf.Variable]) -> None:
        self.name = name
        self.variables = tuple(variables)
        self.dtype = self.variables[0].dtype
        ends = [0]
        for v in self.variables:
            ends.append(ends[-1] + v.shape[0])
        self.boundaries = tuple(ends)  # variables[i] has rows boundaries[i] to boundaries[i + 1]
        self.shape = tf.TensorShape([ends[-1], *self.variables[0].shape[1:]])

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Reads rows int [n] on their devices; returns [n, ...] on the device of the caller. Differentiable."""
        if len(self.variables) == 1:
            return _gather(self.variables[0], rows)
        owner = tf.searchsorted(tf.constant(self.boundaries[1:], rows.dtype), rows, side="right")
        count = len(self.variables)
        positions = tf.dynamic_partition(tf.range(tf.size(rows)), owner, count)
        parts = tf.dynamic_partition(rows, owner, count)
        pairs = zip(self.variables, parts, self.boundaries, strict=False)
        found = [_gather(v, part - tf.cast(begin, rows.dtype)) for v, part, begin in pairs]
        values = tf.dynamic_stitch(positions, found)
        return tf.reshape(values, tf.concat([tf.shape(rows), tf.shape(values)[1:]], axis=0))

    def numpy(self) -> Any:
        """Returns all rows in one array."""
        return tf.concat([v.numpy() for v in self.variables], axis=0).numpy()

    def assign(self, values: Any) -> None:
        """Overwrites all rows."""
        for v, begin in zip(self.variables, self.boundaries, strict=False):
            v.assign(values[begin : begin + v.shape[0]])


TableVariable: TypeAlias = "tf.Variable | ShardedTable"


def _gather(variable: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    with tf.device(variable.device):
        return tf.gather(variable, rows)


_OTHER_CPUS = threading.Lock()


@contextlib.contextmanager
def _on(device: str) -> Iterator[None]:
    """Runs eager ops of several threads on a device.

    On logical CPUs other than the first, one thread runs at a time: otherwise ops of a thread sometimes get the inputs
    of another thread (TensorFlow 2.21: sums on CPU:1 in two threads, a few in 100,000).
    """
    spec = tf.DeviceSpec.from_string(device)
    other_cpu = spec.device_type == "CPU" and bool(spec.device_index)
    with _OTHER_CPUS if other_cpu else contextlib.nullcontext(), tf.device(device):
        yield


class TableShard(abc.ABC):
    """Rows `begin` to `end` of a table or slot, on one device or in copies on several.

    Attributes:
      begin: the first row.
      end: the row after the last.
      device: where `read` returns rows.
    """

    begin: int
    end: int
    device: str

    @abc.abstractmethod
    def read(self, first: int, last: int) -> tf.Tensor:
        """Returns a copy of rows `first` to `last` of the table, all of them in this shard; [last - first, ...]."""

    @abc.abstractmethod
    def write(self, first: int, values: tf.Tensor) -> None:
        """Overwrites the rows of the table from `first` on, in every copy."""

    def scatter(self, rows: np.ndarray, values: tf.Tensor) -> None:
        """Overwrites rows of the table, each of them in this shard and given once, in ascending order.

        This implementation writes one run of consecutive rows after the other.
        """
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        for begin, end in zip([0, *ends], [*ends, len(rows)], strict=True):
            self.write(int(rows[begin]), values[begin:end])


class VariableShard(TableShard):
    """A shard that is one variable, or equal copies on several devices.

    Args:
      begin: the first row.
      copies: [rows, ...] each.
    """

    def __init__(self, begin: int, copies: Sequence[tf.Variable]) -> None:
        self.begin, self.end = begin, begin + copies[0].shape[0]
        self.copies = tuple(copies)
        self.device = self.copies[0].device

    def read(self, first: int, last: int) -> tf.Tensor:
        """See `TableShard.read`."""
        # A gather: variables that scatter ops write to are copied on each whole read.
        with _on(self.device):
            return tf.gather(self.copies[0], tf.range(first - self.begin, last - self.begin))

    def write(self, first: int, values: tf.Tensor) -> None:
        """See `TableShard.write`."""
        begin = first - self.begin
        for copy in self.copies:
            with _on(copy.device):
                copy.scatter_update(tf.IndexedSlices(values, tf.range(begin, begin + values.shape[0])))

    def scatter(self, rows: np.ndarray, values: tf.Tensor) -> None:
        """See `TableShard.scatter`."""
        for copy in self.copies:
            with _on(copy.device):
                copy.scatter_update(tf.IndexedSlices(values, tf.constant(rows - self.begin)))


@dataclasses.dataclass(frozen=True)
class LogicalTable:
    """A whole table or slot, whatever holds its rows.

    Attributes:
      shape: [rows, dim], or [rows] for slots with one number per row.
      dtype: float32 or bfloat16.
      shards: in the order of the rows; together they hold each row once.
    """

    shape: tuple[int, ...]
    dtype: tf.DType
    shards: tuple[TableShard, ...]

    @classmethod
    def of(cls, rows: TableVariable) -> LogicalTable:
        """Describes a variable, a variable with copies, or a sharded table."""
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


def check_shapes(found: Mapping[str, Any], tables: Mapping[str, TableVariable]) -> None:
    """Checks that saved tables have the names and shapes of the tables of a model.

    Args:
      found: the shapes of the saved tables.
      tables: of the model.

    Raises:
      ValueError: a table is missing, unknown, or has another shape.
    """
    expected = {name: list(t.shape) for name, t in tables.items()}
    shapes = {name: [int(n) for n in shape] for name, shape in found.items()}
    differences = [
        f"table {name!r} has {_rows(shapes.get(name))} in the file and {_rows(expected.get(name))} in the model"
        for name in sorted(expected.keys() | shapes.keys())
        if shapes.get(name) != expected.get(name)
    ]
    if differences:
        raise ValueError(
            f"the weights are those of another schema: {'; '.join(differences)}. Load them into a model of the schema"
            " that they were saved with, or let td.warm_start match the rows of a run by their values. Nothing was"
            " overwritten"
        )


def _rows(shape: Sequence[int] | None) -> str:
    return "no rows" if shape is None else f"{shape[0]} rows of {shape[1]}"


def copies(variable: tf.Variable) -> tuple[tf.Variable, ...]:
    """Returns the copies that `tf.distribute` keeps of a variable on each device, or the variable itself."""
    return tuple(getattr(variable, "values", (variable,)))
