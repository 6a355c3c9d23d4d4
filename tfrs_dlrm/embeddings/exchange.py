"""How the gradients of all replicas come to the rows: each way of training one model on several devices has its own.

On one device there is nothing to exchange. Replicas of one process hand their gradients over to the devices that hold
the rows, where they are combined once. Replicas of several processes each have all tables, gather each other's
gradients and take the same step. Workers of a parameter-server cluster do not wait for each other: each sends its
gradients to the servers, which add what follows from them to the rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.gradients import Combined, InParts, RowGradient, Use
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.storage import ShardedTable, TableVariable, copies

Uses: TypeAlias = dict[str, list[Use]]


def update(
    tables: Mapping[str, TableVariable],
    optimizer: RowOptimizer,
    uses: Uses,
    batch_size: tf.Tensor,
    in_parts: set[str],
    orders: Mapping[str, tf.Tensor],
) -> None:
    """One step on the tables with what this replica, and every other one, says of their rows.

    Args:
      tables: by name.
      optimizer: built for them.
      uses: of this replica, by name of the table; the same names in every replica.
      batch_size: the examples of this replica.
      in_parts: the tables that may be looked up very many times, as those of multi-valued features.
      orders: what sorts the ids of some tables, see `Table.order_key`; for one replica.

    Raises:
      ValueError: there are several replicas, and this is none of them; or the optimizer was not built.
    """
    if optimizer.iterations is None:
        raise ValueError(f"{type(optimizer).__name__} has no slots; call build(tables) before the first step")
    strategy, replica = tf.distribute.get_strategy(), tf.distribute.get_replica_context()
    exchange = distribution_of(strategy).exchange
    if exchange == "send":
        _send(tables, optimizer, uses, batch_size)
    elif strategy.num_replicas_in_sync == 1:
        for name, own in uses.items():
            _step(tables[name], optimizer, name, own, batch_size, name in in_parts, orders.get(name))
    elif replica is None:
        raise ValueError(f"{strategy.num_replicas_in_sync} replicas: call `update` in strategy.run, in each of them")
    elif exchange == "gather":
        _gather(replica, tables, optimizer, uses, batch_size)
    else:
        replica.merge_call(_Merge(tables, optimizer, in_parts), args=(uses, batch_size))
    optimizer.iterations.assign_add(1)


def _step(
    table: TableVariable,
    optimizer: RowOptimizer,
    name: str,
    uses: Sequence[Use],
    batch_size: tf.Tensor,
    in_parts: bool,
    order: tf.Tensor | None = None,
) -> None:
    """A step on a table that this process alone holds, on the devices of its rows."""

    def combine(variable: tf.Variable, uses: Sequence[Use]) -> RowGradient:
        # On other devices than CPUs parts would only be so many more launches.
        if in_parts and "CPU" in variable.device:
            return InParts.of(uses, batch_size, order)
        return Combined.of(uses, batch_size)

    if not isinstance(table, ShardedTable):
        (variable,) = copies(table)
        optimizer.step(name, variable, _slots(optimizer, name, copies, 0), combine(variable, uses))
        return
    parts = zip(*(_on_own_device(use, table.boundaries) for use in uses), strict=True)
    for i, (variable, part) in enumerate(zip(table.variables, parts, strict=True)):
        with tf.device(variable.device):
            optimizer.step(name, variable, _slots(optimizer, name, _shards, i), combine(variable, part), salt=i)


def _on_own_device(use: Use, boundaries: Sequence[int]) -> list[Use]:
    """`Use.split` where the use was made, so that each shard is sent its own share only."""
    with tf.device(use.values.device):
        return use.split(boundaries)


class _Merge:
    """What `merge_call` calls with the gradients of all replicas of this process."""

    def __init__(self, tables: Mapping[str, TableVariable], optimizer: RowOptimizer, in_parts: set[str]):
        self._tables, self._optimizer, self._in_parts = tables, optimizer, in_parts

    def __call__(self, strategy: tf.distribute.Strategy, uses: Uses, batch_sizes: Any) -> None:
        def of_replica(i: int, values: Any) -> Any:
            def local(x: Any) -> Any:
                results = strategy.experimental_local_results(x)
                return results[i] if len(results) > 1 else results[0]

            return tf.nest.map_structure(local, values)

        replicas = range(strategy.num_replicas_in_sync)
        batch_size = tf.add_n([of_replica(i, batch_sizes) for i in replicas])
        everyone = {name: [use for i in replicas for use in of_replica(i, own)] for name, own in uses.items()}
        for turn, (name, all_uses) in enumerate(everyone.items()):
            table = self._tables[name]
            if isinstance(table, ShardedTable):
                _step(table, self._optimizer, name, all_uses, batch_size, name in self._in_parts)
                continue
            variables = copies(table)
            # Combined once, in turn on each device, and not on each: floats that are added in another order differ in
            # the last bit, and the copies have to stay equal.
            with tf.device(variables[turn % len(variables)].device):
                gradient = Combined.of(all_uses, batch_size)
            for i, variable in enumerate(variables):
                with tf.device(variable.device):
                    self._optimizer.step(name, variable, _slots(self._optimizer, name, copies, i), gradient)


def _gather(
    replica: tf.distribute.ReplicaContext,
    tables: Mapping[str, TableVariable],
    optimizer: RowOptimizer,
    uses: Uses,
    batch_size: tf.Tensor,
) -> None:
    """The same step in every replica of every process, on what all of them have to say."""
    batch_size = replica.all_reduce(tf.distribute.ReduceOp.SUM, batch_size)
    by_dim: dict[int, dict[str, Combined]] = {}
    for name, own in uses.items():
        by_dim.setdefault(tables[name].shape[1], {})[name] = Combined.of(own, batch_size)
    for gradients in by_dim.values():
        # The rows of all tables in one message, numbered one table after the other.
        sizes = [tables[name].shape[0] for name in gradients]
        boundaries = [0, *itertools.accumulate(sizes)]
        numbered = zip(gradients.values(), boundaries, strict=False)
        rows = tf.concat([tf.cast(g.rows, tf.int64) + begin for g, begin in numbered], axis=0)
        values = tf.concat([g.values for g in gradients.values()], axis=0)
        counts = tf.concat([g.counts for g in gradients.values()], axis=0)
        rows, values, counts = replica.all_gather([rows, values, counts], axis=0)
        # On the host, since GPUs add in any order: floats that are added in another order differ in the last bit, and
        # the copies have to stay equal.
        with tf.device("CPU:0" if "GPU" in tables[next(iter(gradients))].device else None):
            everyone = Combined.sum(rows, values, counts, batch_size)
        for name, gradient in zip(gradients, everyone.split(boundaries), strict=True):
            variables = copies(tables[name])
            own_copy = int(tf.get_static_value(replica.replica_id_in_sync_group)) % len(variables)
            slots = _slots(optimizer, name, copies, own_copy)
            optimizer.step(name, variables[own_copy], slots, gradient)


def _send(tables: Mapping[str, TableVariable], optimizer: RowOptimizer, uses: Uses, batch_size: tf.Tensor) -> None:
    """This worker's step, computed on the servers that hold the rows."""
    for name, own in uses.items():
        gradient, table = Combined.of(own, batch_size), tables[name]
        if not isinstance(table, ShardedTable):
            optimizer.step(name, table, optimizer.slots[name], gradient, others_write=True)
            continue
        for i, (variable, part) in enumerate(zip(table.variables, gradient.split(table.boundaries), strict=True)):
            with tf.device(variable.device):
                optimizer.step(name, variable, _slots(optimizer, name, _shards, i), part, others_write=True, salt=i)


def _shards(rows: TableVariable) -> tuple[tf.Variable, ...]:
    return rows.variables


def _slots(optimizer: RowOptimizer, name: str, of: Any, i: int) -> dict[str, tf.Variable]:
    """The slots of the i-th copy, or shard, of a table."""
    return {slot: of(rows)[i] for slot, rows in optimizer.slots[name].items()}
