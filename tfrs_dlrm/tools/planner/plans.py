"""The plan of a run: its memory, traffic and time on given devices."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from tfrs_dlrm.config import DataConfig, OptimizerConfig, RunConfig, StreamConfig
from tfrs_dlrm.config.admitting_tables import admitting_tables, with_room
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.distribute.hardware import Device
from tfrs_dlrm.distribute.placement import Topology, place
from tfrs_dlrm.schema import CategoricalFeature, Schema
from tfrs_dlrm.stores.files import local_path, write_json
from tfrs_dlrm.tools.planner.costs import StepTime, step_flops, step_time
from tfrs_dlrm.tools.planner.memory import (
    DeviceMemory,
    StoredTable,
    device_memory,
    host_bytes,
    step_bytes,
    stored_tables,
)
from tfrs_dlrm.tools.planner.topologies import device_of, topology_text
from tfrs_dlrm.tools.planner.traffic import Flow, flows

# The share of a device's memory for a run; the runtime, libraries and errors of the step's estimate need the other.
USABLE = 0.9

# One of negative numbers, and one for each power of 2 that float32 holds.
_LOG2_BUCKETS = 129


@dataclasses.dataclass(frozen=True)
class Remedy:
    """A change to a run, the bytes that the fullest device needs after it, and whether the run then fits."""

    change: str
    need: int
    fits: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """The memory, traffic and time of a run.

    Attributes:
      schema: the schema of the data, with the final sizes of all tables.
      config: the run.
      topology: the devices.
      device: the data sheet of a device, completed by the topology.
      tables: the devices and the bytes of each variable.
      dense: the cost of the dense layers.
      memory: the memory of each device that holds tables.
      worker_memory: the estimated bytes of a step on a worker under `parameter_server`; else 0.
      host_memory: the bytes of tables and slots that each TPU host copies; else 0.
      flows: the bytes that a step moves.
      time: the time of a step.
      at_most: tables of unknown size, which the plan replaces by their `max_size`.
      notes: what to know about the plan, as sentences.
      remedies: changes that reduce memory, if the plan does not fit.
    """

    schema: Schema
    config: RunConfig
    topology: Topology
    device: Device
    tables: tuple[StoredTable, ...]
    dense: DenseCost
    memory: tuple[DeviceMemory, ...]
    worker_memory: int
    host_memory: int
    flows: tuple[Flow, ...]
    time: StepTime
    at_most: tuple[str, ...]
    notes: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()

    @property
    def optimizer(self) -> OptimizerConfig:
        """The optimizers of the run, with the one that `auto` stands for."""
        return self.config.optimizer.resolved(any(t.placed.kind == "tpu_embedding" for t in self.tables))

    @property
    def need(self) -> int:
        """The bytes on the fullest device."""
        return max(m.total for m in self.memory)

    @property
    def usable(self) -> int | None:
        """The bytes of a device for tables, weights and steps; None if its memory is unknown."""
        return None if self.topology.memory is None else int(self.topology.memory * USABLE)

    @property
    def fits(self) -> bool | None:
        """Whether the run fits on the fullest device; None if its memory is unknown."""
        return None if self.usable is None else self.need <= self.usable

    @property
    def bytes_imbalance(self) -> float:
        """The bytes of tables and slots on the fullest device, divided by the mean."""
        return _imbalance([m.tables + m.slots for m in self.memory])

    @property
    def lookups_imbalance(self) -> float:
        """The lookups on the busiest device, divided by the mean."""
        lookups = [0.0] * self.topology.devices
        for table in self.tables:
            for shard in table.placed.shards:
                lookups[shard.device] += shard.lookups
            if not table.placed.shards:
                lookups = [n + table.placed.lookups / len(lookups) for n in lookups]
        return _imbalance(lookups)

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as plain values for JSON; sizes are in bytes and times in seconds."""
        time = dataclasses.asdict(self.time) | {
            "bottleneck": self.time.bottleneck,
            "most_examples_per_second": self.time.most_examples_per_second,
            "examples_per_second_in_turn": self.time.examples_per_second_in_turn,
        }
        return {
            "config": self.config.to_dict(),
            "topology": dataclasses.asdict(self.topology) | {"name": topology_text(self.topology)},
            "device": dataclasses.asdict(self.device),
            "tables": [_table_dict(t) for t in self.tables],
            "dense": dataclasses.asdict(self.dense),
            "flops_per_device": step_flops(self.dense, self.config, self.topology),
            "memory": [dataclasses.asdict(m) | {"total": m.total} for m in self.memory],
            "worker_memory": self.worker_memory,
            "host_memory": self.host_memory,
            "usable": self.usable,
            "need": self.need,
            "fits": self.fits,
            "flows": [_flow_dict(f) for f in self.flows],
            "time": time,
            "bytes_imbalance": self.bytes_imbalance,
            "lookups_imbalance": self.lookups_imbalance,
            "at_most": list(self.at_most),
            "notes": list(self.notes),
            "remedies": [dataclasses.asdict(r) for r in self.remedies],
        }

    def save(self, path: str) -> None:
        """Writes `to_dict` as JSON."""
        os.makedirs(os.path.dirname(os.path.abspath(local_path(path))), exist_ok=True)
        write_json(path, self.to_dict())


def compute(schema: Schema, config: RunConfig, topology: Topology) -> Plan:
    """Computes a plan without notes and remedies; see `tfrs_dlrm.tools.planner.plan`."""
    dataclasses.replace(config, data=DataConfig(path="."), stream=StreamConfig()).check()
    schema, at_most = _sized(schema)
    schema = with_room(schema, admitting_tables(config, schema))
    of_model = config.model.schema(schema)
    device, dense = device_of(topology), config.model.dense_cost(of_model)
    tables = stored_tables(place(config.model.table_schema(of_model), topology), config.optimizer, device)
    moved = flows(tables, dense, of_model, config, topology, device)
    servers = topology.strategy == "parameter_server"
    return Plan(
        schema=schema,
        config=config,
        topology=topology,
        device=device,
        tables=tables,
        dense=dense,
        memory=device_memory(tables, dense, config, topology, device),
        worker_memory=step_bytes(dense, config, topology) if servers else 0,
        host_memory=host_bytes(tables, topology),
        flows=moved,
        time=step_time(moved, dense, config, topology, device),
        at_most=at_most,
    )


def _sized(schema: Schema) -> tuple[Schema, tuple[str, ...]]:
    """Returns the schema with unknown sizes replaced by the largest possible, and the names of their tables."""
    largest = {f.table: f.max_size + 1 for f in schema.categorical if f.max_size is not None}  # and row 0
    largest |= {f.table: _most_buckets(f) for f in schema.categorical if f.encoding == "buckets"}
    at_most = tuple(t.name for t in schema.tables if t.vocabulary_size is None and t.name in largest)
    missing = [t.name for t in schema.tables if t.vocabulary_size is None and t.name not in largest]
    if missing:
        raise ValueError(
            f"tables {', '.join(missing)} have no size yet: name data that `prepare` wrote in config.data.path, or set"
            " rows of the tables, or max_size of their features, in the schema"
        )
    return schema.with_vocabulary_sizes({name: largest[name] for name in at_most}), at_most


def _most_buckets(f: CategoricalFeature) -> int:
    """Returns the rows of a table of buckets if no edges are equal, with row 0."""
    if f.edges:
        return len(f.edges) + 2
    return 1 + (f.buckets if isinstance(f.buckets, int) else _LOG2_BUCKETS)


def _table_dict(table: StoredTable) -> dict[str, Any]:
    placed = dataclasses.asdict(table.placed)
    return placed | {
        "shards": list(placed["shards"]),
        "optimizer": table.optimizer,
        "bytes": table.bytes,
        "slots": table.slots,
        "row": table.row,
        "slots_row": table.slots_row,
        "most_on_a_device": table.most,
    }


def _flow_dict(flow: Flow) -> dict[str, Any]:
    return {
        "what": flow.what,
        "where": flow.where,
        "total": flow.total,
        "most_sent": max(flow.sent),
        "most_received": max(flow.received),
        "worker_sent": flow.worker_sent,
        "worker_received": flow.worker_received,
    }


def _imbalance(loads: list[float] | list[int]) -> float:
    total = sum(loads)
    return max(loads) * len(loads) / total if total else 1.0
