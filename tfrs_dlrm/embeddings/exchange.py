"""Exchange of row gradients between replicas, and the step on the rows, for each kind of strategy.

One device exchanges nothing. Replicas of one process send their gradients to the devices that hold the rows, where they
are combined once. Replicas of several processes each hold all tables; they gather each other's gradients and take the
same step. Workers of a parameter-server cluster do not wait for each other: each sends its gradients to the servers,
which add the resulting changes to the rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.chunked_gradient import ChunkedGradient
from tfrs_dlrm.embeddings.gradients import CombinedGradient, LookupGradient, RowGradient
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.storage import ShardedTable, TableVariable, copies

LookupGradients: TypeAlias = dict[str, list[LookupGradient]]


def update(
    tables: Mapping[str, TableVariable],
    optimizer: RowOptimizer,
    gradients: LookupGradients,
    batch_size: tf.Tensor,
    chunked: set[str],
    orders: Mapping[str, tf.Tensor],
) -> None:
    """Takes one step on the tables with the gradients of all replicas.

    Args:
      tables: by name.
      optimizer: built for them.
      gradients: the gradients of this replica by name of the table; the same names in every replica.
      batch_size: the examples of this replica.
      chunked: the tables with very many lookups, such as tables of multi-valued features.
      orders: permutations that sort the ids of some tables, see `Table.order_key`; for one replica.

    Raises:
      ValueError: the call is outside of the replicas of a strategy, or the optimizer was not built.
    """
    if optimizer.iterations is None:
        raise ValueError(f"{type(optimizer).__name__} has no slots; call build(tables) before the first step")
    strategy, replica = tf.distribute.get_strategy(), tf.distribute.get_replica_context()
    exchange = distribution_of(strategy).exchange
    if exchange == "send":
        _send(tables, optimizer, gradients, batch_size)
    elif strategy.num_replicas_in_sync == 1:
        for name, of_table in gradients.items():
            _step(tables[name], optimizer, name, of_table, batch_size, name in chunked, orders.get(name))
    elif replica is None:
        raise ValueError(f"{strategy.num_replicas_in_sync} replicas: call `update` in strategy.run, in each of them")
    elif exchange == "gather":
        _gather(replica, tables, optimizer, gradients, batch_size)
    elif exchange == "merge":
        replica.merge_call(_MergedStep(tables, optimizer, chunked), args=(gradients, batch_size))
    else:
        raise ValueError(f"the strategy's exchange={exchange!r} is unknown; choose merge, gather or send")
    optimizer.iterations.assign_add(1)


def _step(
    table: TableVariable,
    optimizer: RowOptimizer,
    name: str,
    gradients: Sequence[LookupGradient],
    batch_size: tf.Tensor,
    chunked: bool,
    order: tf.Tensor | None = None,
) -> None:
    """Takes a step on a table that only this process holds, on the devices of its rows."""

    def combine(variable: tf.Variable, gradients: Sequence[LookupGradient]) -> RowGradient:
        # On other devices, chunks only add kernel launches.
        if chunked and "CPU" in variable.device:
            return ChunkedGradient.of(gradients, batch_size, order)
        return CombinedGradient.of(gradients, batch_size)

    if not isinstance(table, ShardedTable):
        (variable,) = copies(table)
        optimizer.step(name, variable, _slots(optimizer, name, copies, 0), combine(variable, gradients))
        return
    parts = zip(*(_split_at_source(gradient, table.boundaries) for gradient in gradients), strict=True)
    for i, (variable, part) in enumerate(zip(table.variables, parts, strict=True)):
        with tf.device(variable.device):
            optimizer.step(name, variable, _slots(optimizer, name, _shards, i), combine(variable, part), salt=i)


def _split_at_source(gradient: LookupGradient, boundaries: Sequence[int]) -> list[LookupGradient]:
    """Splits a gradient on the device that computed it, so that each shard receives only its share."""
    with tf.device(gradient.values.device):
        return gradient.split(boundaries)


class _MergedStep:
    """Takes a step with the gradients of all replicas of this process; `merge_call` calls it."""

    def __init__(self, tables: Mapping[str, TableVariable], optimizer: RowOptimizer, chunked: set[str]):
        self._tables, self._optimizer, self._chunked = tables, optimizer, chunked

    def __call__(self, strategy: tf.distribute.Strategy, gradients: LookupGradients, batch_sizes: Any) -> None:
        def of_replica(i: int, per_replica: Any) -> Any:
            def local(x: Any) -> Any:
                results = strategy.experimental_local_results(x)
                return results[i] if len(results) > 1 else results[0]

            return tf.nest.map_structure(local, per_replica)

        replicas = range(strategy.num_replicas_in_sync)
        batch_size = tf.add_n([of_replica(i, batch_sizes) for i in replicas])
        for turn, (name, of_table) in enumerate(gradients.items()):
            table, all_gradients = self._tables[name], [g for i in replicas for g in of_replica(i, of_table)]
            if isinstance(table, ShardedTable):
                _step(table, self._optimizer, name, all_gradients, batch_size, name in self._chunked)
                continue
            variables = copies(table)
            # Combined on one device, a different one per table: sums in another order differ in the last bit, and the
            # copies must stay equal.
            with tf.device(variables[turn % len(variables)].device):
                gradient = CombinedGradient.of(all_gradients, batch_size)
            for i, variable in enumerate(variables):
                with tf.device(variable.device):
                    self._optimizer.step(name, variable, _slots(self._optimizer, name, copies, i), gradient)


def _gather(
    replica: tf.distribute.ReplicaContext,
    tables: Mapping[str, TableVariable],
    optimizer: RowOptimizer,
    gradients: LookupGradients,
    batch_size: tf.Tensor,
) -> None:
    """Takes the same step in every replica of every process, with the gradients of all of them."""
    batch_size = replica.all_reduce(tf.distribute.ReduceOp.SUM, batch_size)
    by_dim: dict[int, dict[str, CombinedGradient]] = {}
    for name, of_table in gradients.items():
        by_dim.setdefault(tables[name].shape[1], {})[name] = CombinedGradient.of(of_table, batch_size)
    for combined in by_dim.values():
        # One message for the rows of all tables, numbered one table after the other.
        sizes = [tables[name].shape[0] for name in combined]
        boundaries = [0, *itertools.accumulate(sizes)]
        numbered = zip(combined.values(), boundaries, strict=False)
        rows = tf.concat([tf.cast(g.rows, tf.int64) + begin for g, begin in numbered], axis=0)
        values = tf.concat([g.values for g in combined.values()], axis=0)
        counts = tf.concat([g.counts for g in combined.values()], axis=0)
        rows, values, counts = replica.all_gather([rows, values, counts], axis=0)
        # On the host, because GPUs add in any order: such sums differ in the last bit, and the copies must stay equal.
        with tf.device("CPU:0" if "GPU" in tables[next(iter(combined))].device else None):
            total = CombinedGradient.sum(rows, values, counts, batch_size)
        for name, gradient in zip(combined, total.split(boundaries), strict=True):
            variables = copies(tables[name])
            copy = int(tf.get_static_value(replica.replica_id_in_sync_group)) % len(variables)
            slots = _slots(optimizer, name, copies, copy)
            optimizer.step(name, variables[copy], slots, gradient)


def _send(
    tables: Mapping[str, TableVariable], optimizer: RowOptimizer, gradients: LookupGradients, batch_size: tf.Tensor
) -> None:
    """Takes this worker's step, on the servers that hold the rows."""
    for name, of_table in gradients.items():
        gradient, table = CombinedGradient.of(of_table, batch_size), tables[name]
        if not isinstance(table, ShardedTable):
            optimizer.step(name, table, optimizer.slots[name], gradient, others_write=True)
            continue
        for i, (variable, part) in enumerate(zip(table.variables, gradient.split(table.boundaries), strict=True)):
            with tf.device(variable.device):
                optimizer.step(name, variable, _slots(optimizer, name, _shards, i), part, others_write=True, salt=i)


def _shards(rows: TableVariable) -> tuple[tf.Variable, ...]:
    return rows.variables


def _slots(optimizer: RowOptimizer, name: str, of: Any, i: int) -> dict[str, tf.Variable]:
    """Returns the slots of the i-th copy, or shard, of a table."""
    return {slot: of(rows)[i] for slot, rows in optimizer.slots[name].items()}
