"""The bytes that a train step moves: between devices, and in the memory of each.

They are counted per device, to find the busiest, for the transfers of `embeddings.exchange`. Embedding hardware is
assumed to move the same bytes. Two simplifications overestimate: each value of a multi-valued feature counts as a
vector, and ids count as different up to the number of rows.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.distribute.hardware import Device
from tfrs_dlrm.distribute.placement import VALUES, Topology
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.tools.planner.memory import DENSE_SLOTS, StoredTable, examples_each

Where = Literal["link", "memory", "input"]
_ID = 4
_FLOAT = 4
_COUNT = 4  # the number of examples in a combined gradient
_PURPOSES: dict[str, Where] = {
    "ids": "link",
    "vectors": "link",
    "gradients of vectors": "link",
    "gradients of copied tables": "link",
    "dense weights and gradients": "link",
    "lookups": "memory",
    "updates": "memory",
    "dense half": "memory",
    "examples": "input",
}


@dataclasses.dataclass
class Flow:
    """The bytes that one step moves for one purpose.

    Attributes:
      what: the purpose.
      where: `link`: between devices; `memory`: read from and written to a device's memory; `input`: from the hosts.
      sent: bytes sent by each device that holds tables; for `memory`, all bytes read or written.
      received: bytes received by each device that holds tables.
      worker_sent: under `parameter_server`, bytes sent by the worker of the step.
      worker_received: under `parameter_server`, bytes received by the worker of the step.
    """

    what: str
    where: Where
    sent: list[float]
    received: list[float]
    worker_sent: float = 0.0
    worker_received: float = 0.0

    @property
    def total(self) -> float:
        """The bytes of the step, each counted once."""
        return max(sum(self.sent) + self.worker_sent, sum(self.received) + self.worker_received)


def flows(
    tables: tuple[StoredTable, ...],
    dense: DenseCost,
    schema: Schema,
    config: RunConfig,
    topology: Topology,
    device: Device,
) -> tuple[Flow, ...]:
    """Returns the flows of one step; under `parameter_server`, of one worker's step."""
    count = topology.devices
    step = _Step(topology, config.train.batch_size, examples_each(config, topology))
    out = {what: Flow(what, where, [0.0] * count, [0.0] * count) for what, where in _PURPOSES.items()}
    for turn, table in enumerate(tables):
        if table.placed.kind == "replicated":
            _copied(out, table, step, turn)
        else:
            _shared(out, table, step)
    _dense(out, dense, config, step, device)
    values = sum((f.sequence_length or VALUES) if f.multi_valued else 1 for f in schema.categorical)
    step.compute(out["examples"], received=step.examples * (_ID * values + _FLOAT * (schema.dense_width + 1)))
    return tuple(flow for flow in out.values() if flow.total)


@dataclasses.dataclass(frozen=True)
class _Step:
    """The devices, the examples of the step, and the examples per computing device or worker."""

    topology: Topology
    batch: int
    examples: float

    @property
    def servers(self) -> bool:
        return self.topology.strategy == "parameter_server"

    def compute(self, flow: Flow, sent: float = 0.0, received: float = 0.0) -> None:
        """Adds bytes to every computing device, or to the worker."""
        if self.servers:
            flow.worker_sent += sent
            flow.worker_received += received
            return
        for d in range(self.topology.devices):
            flow.sent[d] += sent
            flow.received[d] += received

    def exchange(self, flow: Flow, loads: list[float], size: float, to_owner: bool) -> None:
        """Adds the bytes of lookups between the computing devices and the owners of the rows.

        Args:
          flow: is changed.
          loads: lookups per example at each owner.
          size: bytes per lookup.
          to_owner: whether the bytes go to the owner or come from it.
        """
        total = sum(loads)
        for d, load in enumerate(loads):
            others = 1 if self.servers else self.topology.devices - 1
            at_owner = size * self.examples * others * load
            at_others = 0.0 if self.servers else size * self.examples * (total - load)
            flow.received[d] += at_owner if to_owner else at_others
            flow.sent[d] += at_others if to_owner else at_owner
        if self.servers:
            flow.worker_sent += size * self.examples * total * to_owner
            flow.worker_received += size * self.examples * total * (not to_owner)


def _shared(out: dict[str, Flow], table: StoredTable, step: _Step) -> None:
    """Adds the flows of a table whose rows are on one device each."""
    placed, devices = table.placed, step.topology.devices
    loads, touched = [0.0] * devices, [0.0] * devices
    if placed.kind == "tpu_embedding":
        loads = [placed.lookups / devices] * devices
        touched = [min(step.batch * placed.lookups, placed.rows) / devices] * devices
    for shard in placed.shards:
        loads[shard.device] += shard.lookups
        touched[shard.device] += min(step.batch * shard.lookups, shard.end - shard.begin)
    vector, lookups = _FLOAT * placed.dim, out["lookups"]
    step.exchange(out["ids"], loads, _ID, to_owner=True)
    step.exchange(out["vectors"], loads, table.row, to_owner=False)
    for d in range(devices):
        lookups.sent[d] += step.batch * loads[d] * table.row
        out["updates"].sent[d] += touched[d] * 2 * (table.row + table.slots_row)
    # The vector is written and read, its gradient written.
    step.compute(lookups, sent=3 * step.examples * placed.lookups * vector)
    if not step.servers:
        known = placed.kind == "tpu_embedding"  # which ids were looked up
        step.exchange(out["gradients of vectors"], loads, vector + _ID * (not known), to_owner=True)
        for d in range(devices):
            out["updates"].sent[d] += step.batch * loads[d] * vector
        return
    # The worker combines duplicates, and sends each row once.
    step.compute(out["updates"], sent=(step.batch * placed.lookups + sum(touched)) * vector)
    for d in range(devices):
        out["gradients of vectors"].received[d] += touched[d] * (vector + _ID + _COUNT)
        out["updates"].sent[d] += touched[d] * vector
    step.compute(out["gradients of vectors"], sent=sum(touched) * (vector + _ID + _COUNT))


def _copied(out: dict[str, Flow], table: StoredTable, step: _Step, turn: int) -> None:
    """Adds the flows of a table that every device copies, which `parameter_server` never does."""
    placed, devices = table.placed, step.topology.devices
    vector = _FLOAT * placed.dim
    lookups = step.examples * placed.lookups
    touched = min(step.batch * placed.lookups, float(placed.rows))
    gradients, updates = out["gradients of copied tables"], out["updates"]
    step.compute(out["lookups"], sent=lookups * (table.row + 3 * vector))
    if step.topology.strategy == "tpu":
        # A gradient as large as the table, summed over all chips and applied to every row.
        reduced = 2 * (devices - 1) / devices * vector * placed.rows
        step.compute(gradients, sent=reduced, received=reduced)
        step.compute(updates, sent=table.rows_on[0] * (2 * vector + 2 * (table.row + table.slots_row)))
        return
    step.compute(updates, sent=touched * 2 * (table.row + table.slots_row))
    if step.topology.strategy == "multi_worker":
        # Each worker combines the duplicates in its examples and sends the unique rows to all other workers.
        unique = min(lookups, float(placed.rows))
        between = (devices - 1) * unique * (vector + 2 * _ID + _COUNT)
        step.compute(gradients, sent=between, received=between)
        step.compute(updates, sent=(lookups + devices * unique) * vector)
        return
    # All devices send gradients to one device, another for each table, which combines them and updates all copies.
    to_one, back = lookups * (vector + _ID), touched * (vector + _ID + _COUNT)
    step.compute(updates, sent=touched * vector)
    updates.sent[turn % devices] += (step.batch * placed.lookups + touched) * vector
    for d in range(devices):
        combines = d == turn % devices
        gradients.sent[d] += (devices - 1) * back if combines else to_one
        gradients.received[d] += (devices - 1) * to_one if combines else back


def _dense(out: dict[str, Flow], dense: DenseCost, config: RunConfig, step: _Step, device: Device) -> None:
    weights, devices = _FLOAT * dense.weights, step.topology.devices
    number = 2 if config.train.precision == "bfloat16" else 4
    link, memory = out["dense weights and gradients"], out["dense half"]
    # Each activation is written once and read twice, its gradient written and read.
    activations = 5 * dense.activations * number * step.examples
    # Weights are read forward and backward, their gradients written and read.
    passes = 4 * weights
    # The optimizer reads and writes weights and slots.
    update = 2 * weights * (1 + DENSE_SLOTS[config.optimizer.dense])
    if step.servers:
        step.compute(link, sent=weights, received=weights)
        step.compute(memory, sent=activations + passes)
        for d in range(devices):
            link.sent[d] += weights / devices
            link.received[d] += weights / devices
            memory.sent[d] += update / devices
        return
    reduced = 2 * (devices - 1) / devices * weights
    step.compute(link, sent=reduced, received=reduced)
    step.compute(memory, sent=activations + device.replicas * (passes + update))
