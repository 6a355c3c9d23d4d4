"""The bytes of tables, slots and weights on each device."""

from __future__ import annotations

import dataclasses

from tfrs_dlrm.config import OptimizerConfig, RunConfig
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.distribute.hardware import TPUS, Device
from tfrs_dlrm.distribute.placement import PlacedTable, Placement, Topology

# The float32 slots of each row optimizer: numbers per number of a row, and numbers per row. A test compares them with
# `RowOptimizer.slot_types`, which needs TensorFlow.
ROW_SLOTS = {"rowwise_adagrad": (0, 1), "adagrad": (1, 0), "lazy_adam": (2, 0), "ftrl": (2, 0), "sgd": (0, 0)}
# The slots of the Keras optimizers: numbers per weight. SGD has a slot for the momentum even if it is 0.
DENSE_SLOTS = {"adagrad": 1, "adam": 2, "sgd": 1}
# In TPU embedding memory, rows are float32 and padded to a multiple of this many numbers: on SparseCore by TensorFlow's
# `sparse_core_layout.cc`, on V1 by assumption.
_TPU_ALIGNMENT = 8


@dataclasses.dataclass(frozen=True)
class StoredTable:
    """A placed table variable and its slots, in bytes.

    Attributes:
      placed: the variable and its devices.
      optimizer: the name of its row optimizer.
      row: the bytes of one stored row.
      slots_row: the bytes of the slots of one row.
      rows_on: the number of rows on each device, with padding and copies.
    """

    placed: PlacedTable
    optimizer: str
    row: int
    slots_row: int
    rows_on: tuple[int, ...]

    @property
    def most(self) -> int:
        """The bytes of rows and slots on the device with the most rows."""
        return max(self.rows_on) * (self.row + self.slots_row)

    @property
    def bytes(self) -> int:
        """The bytes of all rows, without copies."""
        return self.placed.rows * self.row

    @property
    def slots(self) -> int:
        """The bytes of the slots of all rows, without copies."""
        return self.placed.rows * self.slots_row


@dataclasses.dataclass(frozen=True)
class DeviceMemory:
    """The memory of one device, in bytes. Only `step` is estimated; small counters are not included.

    Attributes:
      tables: rows of tables.
      slots: slots of the row optimizers.
      dense_weights: weights of MLPs and projections.
      dense_slots: slots of the dense weights' optimizer.
      step: activations and gradients of one train step.
    """

    tables: int
    slots: int
    dense_weights: int
    dense_slots: int
    step: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.tables + self.slots + self.dense_weights + self.dense_slots + self.step


def table_name(variable: str) -> str:
    """Returns the name of the table that a variable is part of; see `Table.parts`."""
    return variable.removesuffix("__quotient").removesuffix("__remainder")


def stored_tables(placement: Placement, optimizer: OptimizerConfig, device: Device) -> tuple[StoredTable, ...]:
    """Returns the tables of a placement with their slots.

    Raises:
      ValueError: `optimizer.embedding_per_table` names an unknown table, or one whose rows another table stores.
    """
    optimizer = optimizer.resolved(bool(placement.on_hardware))
    per_table = optimizer.per_table()
    known = {t.name for t in placement.tables} | {table_name(t.name) for t in placement.tables}
    for name in per_table:
        if name not in known:
            raise ValueError(
                f"config.optimizer.embedding_per_table={optimizer.embedding_per_table!r}: table {name!r} stores no"
                f" rows; name one of {', '.join(t.name for t in placement.tables)}"
            )
    names = [
        per_table.get(t.name) or per_table.get(table_name(t.name)) or optimizer.embedding for t in placement.tables
    ]
    pairs = zip(placement.tables, names, strict=True)
    return tuple(_stored(table, name, placement.topology, device) for table, name in pairs)


def device_memory(
    tables: tuple[StoredTable, ...], dense: DenseCost, config: RunConfig, topology: Topology, device: Device
) -> tuple[DeviceMemory, ...]:
    """Returns the memory of each device that holds tables."""
    weights, slots = 4 * dense.weights, 4 * dense.weights * DENSE_SLOTS[config.optimizer.dense]
    if topology.strategy == "parameter_server":
        # Variables go to the servers in turn, almost evenly; activations are on the workers.
        weights, slots, step = -(-weights // topology.devices), -(-slots // topology.devices), 0
    else:
        weights, slots = weights * device.replicas, slots * device.replicas
        step = step_bytes(dense, config, topology)
        if topology.strategy == "tpu":
            # The gradient of one copied table at a time, as large as the table, and its new rows.
            copied = (t for t in tables if t.placed.kind == "replicated")
            step += max((2 * 4 * t.placed.dim * t.rows_on[0] for t in copied), default=0)
    return tuple(
        DeviceMemory(
            tables=sum(t.rows_on[d] * t.row for t in tables),
            slots=sum(t.rows_on[d] * t.slots_row for t in tables),
            dense_weights=weights,
            dense_slots=slots,
            step=step,
        )
        for d in range(topology.devices)
    )


def step_bytes(dense: DenseCost, config: RunConfig, topology: Topology) -> int:
    """Estimates the bytes of activations and gradients on a computing device or worker."""
    number = 2 if config.train.precision == "bfloat16" else 4
    examples = examples_each(config, topology)
    return round(2 * dense.activations * number * examples) + 4 * dense.weights


def examples_each(config: RunConfig, topology: Topology) -> float:
    """Returns the examples of a step per computing device; under `parameter_server`, a worker takes a whole batch."""
    replicas = 1 if topology.strategy == "parameter_server" else topology.devices
    return config.train.batch_size / replicas


def _stored(table: PlacedTable, optimizer: str, topology: Topology, device: Device) -> StoredTable:
    devices, dim, number = topology.devices, table.dim, 2 if table.dtype == "bfloat16" else 4
    rows_on = [0] * devices
    if table.kind == "tpu_embedding":
        dim = _up(dim, _TPU_ALIGNMENT)
        per_number, per_row = ROW_SLOTS["adagrad" if optimizer == "rowwise_adagrad" else optimizer]
        unit = device.sparse_cores * _TPU_ALIGNMENT * devices if device.sparse_cores else 1
        rows_on = [-(-_up(table.rows, unit) // devices)] * devices
        if optimizer == "rowwise_adagrad":
            why = f"{table.why}; by adagrad, not row-wise"
            table = dataclasses.replace(table, why=why)
    else:
        per_number, per_row = ROW_SLOTS[optimizer]
        if table.kind == "replicated":
            rows_on = [table.rows * device.replicas] * devices
        for shard in table.shards:
            rows_on[shard.device] += shard.end - shard.begin
    return StoredTable(table, optimizer, dim * number, 4 * (dim * per_number + per_row), tuple(rows_on))


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def host_bytes(tables: tuple[StoredTable, ...], topology: Topology) -> int:
    """Returns the bytes of tables and slots that V1 hardware copies to each host of a TPU slice; else 0."""
    if topology.strategy != "tpu" or TPUS[topology.chip].embedding_hardware != "V1":
        return 0
    hosts = -(-topology.devices // 4)
    return sum((t.bytes + t.slots) for t in tables if t.placed.kind == "tpu_embedding") // hosts
