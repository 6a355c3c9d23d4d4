"""Decides which device holds which rows of which embedding table, for real runs and for the planner.

Large tables are shared out among the devices and small ones are copied to each, as far as the strategy can do either.
The result depends only on the sizes of the tables and the kind and number of devices, so that every process of a run
finds the same placement.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from tfrs_dlrm.distribute.hardware import TPUS
from tfrs_dlrm.schema import CategoricalFeature, Schema, StorageType, Table

STRATEGIES = ("one_device", "mirrored", "multi_worker", "parameter_server", "tpu")
# In bytes: smaller tables are copied to each device, or not split if it copies none. The gradients of a copied
# table go to all devices: with more rows than a device has examples in a step, that costs more than asking the device
# that has the rows. On TPUs they are as large as the table, summed over all chips and applied to every row.
REPLICATE_BELOW = {"mirrored": 1_000_000, "parameter_server": 4_000_000, "tpu": 1_000_000}
# A table stays whole where a device has room for it, which may end so much above an even share; of several such devices
# it goes to the one with the fewest lookups.
_SLACK = 1 / 8
# Values of a multi-valued feature in an example, where nothing is known about it.
VALUES = 10


@dataclasses.dataclass(frozen=True)
class Topology:
    """The devices of a run.

    Attributes:
      strategy: one of `STRATEGIES`.
      devices: how many can hold tables: the replicas of `mirrored` and `multi_worker`, the servers of
        `parameter_server`, the chips of `tpu`.
      memory: bytes of each of them; None where that is not known.
      chip: the kind of device; under `tpu` a key of `tfrs_dlrm.distribute.hardware.TPUS`, which decides the placement.
      workers: of `parameter_server`: how many compute.

    Raises:
      ValueError: naming what does not fit.
    """

    strategy: str
    devices: int = 1
    memory: int | None = None
    chip: str = ""
    workers: int = 1

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy {self.strategy!r} is unknown; choose one of {', '.join(STRATEGIES)}")
        if self.devices < 1 or self.workers < 1:
            raise ValueError(f"devices={self.devices}, workers={self.workers}; at least 1 of each is needed")
        if self.strategy == "one_device" and self.devices > 1:
            raise ValueError(f"devices={self.devices} under strategy one_device; use mirrored for several")
        if self.memory is not None and self.memory < 1:
            raise ValueError(f"memory={self.memory} bytes; a positive number is needed, or None where it is not known")
        if self.strategy == "tpu" and self.chip not in TPUS:
            raise ValueError(f"TPU chip {self.chip!r} is unknown; choose one of {', '.join(TPUS)}")
        if self.strategy != "parameter_server" and self.workers > 1:
            raise ValueError(f"workers={self.workers} belongs to strategy parameter_server, not {self.strategy}")


@dataclasses.dataclass(frozen=True)
class PlacedShard:
    """Rows `begin` to `end`, without the latter, on device number `device`.

    `lookups` is how many of them an example reads on average, if the k-th most frequent value of a vocabulary is about
    1 / k as frequent as the first (Zipf's law), and the rows of other tables are read equally often.
    """

    begin: int
    end: int
    device: int
    lookups: float


class RowsOnDevice(NamedTuple):
    """Rows `begin` to `end`, without the latter, on a device by name."""

    begin: int
    end: int
    device: str


# The tables that are shared out, by the names of their variables.
Places: TypeAlias = Mapping[str, Sequence[RowsOnDevice]]


@dataclasses.dataclass(frozen=True)
class PlacedTable:
    """One variable with rows of embeddings, and where they are.

    Attributes:
      name: of the variable; see `Table.parts`.
      rows: all of them.
      dim: numbers of a row.
      dtype: of the stored numbers.
      kind: `replicated`: whole on every device; `sharded`: see `shards`; `tpu_embedding`: spread over the memory of all
        chips by the embedding hardware.
      shards: of `sharded`: disjoint, in the order of their rows, all rows together. Else empty.
      lookups: how many rows an example reads on average; of multi-valued features, whose number of values the schema
        does not say, `VALUES`.
      why: in words.
    """

    name: str
    rows: int
    dim: int
    dtype: StorageType
    kind: Literal["replicated", "sharded", "tpu_embedding"]
    shards: tuple[PlacedShard, ...]
    lookups: float
    why: str

    @property
    def bytes(self) -> int:
        """The size of one copy of the rows."""
        return _bytes(self.rows, self.dim, self.dtype)


@dataclasses.dataclass(frozen=True)
class Placement:
    """The place of each table; in the order of the schema."""

    topology: Topology
    tables: tuple[PlacedTable, ...]

    @property
    def on_hardware(self) -> tuple[str, ...]:
        """The names of the tables on TPU embedding hardware."""
        return tuple(t.name for t in self.tables if t.kind == "tpu_embedding")

    def table(self, name: str) -> PlacedTable:
        """Returns the placement of the variable of that name.

        Raises:
          KeyError: no table has the name.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"no table {name!r} in the placement")


def place(schema: Schema, topology: Topology, replicate_below: int | None = None) -> Placement:
    """Decides where each variable of each table goes.

    Args:
      schema: with the final sizes and dimensions of all tables.
      topology: the devices.
      replicate_below: in bytes: smaller tables are replicated under `mirrored` and `tpu`, and kept whole, though not
        copied, under `parameter_server`. By default `REPLICATE_BELOW`.

    Raises:
      ValueError: a table has no rows.
    """
    variables = [v for t in schema.tables for v in _variables(t, schema)]
    small = REPLICATE_BELOW.get(topology.strategy, 0) if replicate_below is None else replicate_below
    if topology.strategy == "multi_worker":
        placed = {v.name: v.replicated("a copy on each worker: they share no tables") for v in variables}
    elif topology.strategy == "tpu":
        placed = {v.name: _on_tpu(v, topology.chip, small) for v in variables}
    elif topology.devices == 1:
        placed = {v.name: v.sharded([v.shard(0, v.rows, 0)], "the only device") for v in variables}
    else:
        copied = [v for v in variables if topology.strategy == "mirrored" and v.bytes < small]
        placed = {v.name: v.replicated(f"a copy on each device: below {size_text(small)}") for v in copied}
        noun = "server" if topology.strategy == "parameter_server" else "device"
        placed |= _share_out([v for v in variables if v.name not in placed], topology.devices, small, noun)
    return Placement(topology, tuple(placed[v.name] for v in variables))


def size_text(size: float) -> str:
    """Formats a number of bytes: three digits and a decimal unit."""
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}"


@dataclasses.dataclass(frozen=True)
class _Variable:
    """A variable to be placed.

    Attributes:
      skewed: how many values of a vocabulary each row stands for, in the order of falling frequency; 0 where all rows
        are looked up equally often.
      factor: whether its rows are multiplied with those of another.
    """

    name: str
    rows: int
    dim: int
    dtype: StorageType
    lookups: float
    skewed: int
    factor: bool

    @property
    def bytes(self) -> int:
        return _bytes(self.rows, self.dim, self.dtype)

    def shard(self, begin: int, end: int, device: int) -> PlacedShard:
        if not self.skewed:
            return PlacedShard(begin, end, device, self.lookups * (end - begin) / self.rows)

        def mass(rows: int) -> float:
            return math.log1p(rows * self.skewed)

        return PlacedShard(begin, end, device, self.lookups * (mass(end) - mass(begin)) / mass(self.rows))

    def replicated(self, why: str) -> PlacedTable:
        return PlacedTable(self.name, self.rows, self.dim, self.dtype, "replicated", (), self.lookups, why)

    def sharded(self, shards: Sequence[PlacedShard], why: str) -> PlacedTable:
        return PlacedTable(self.name, self.rows, self.dim, self.dtype, "sharded", tuple(shards), self.lookups, why)


def _bytes(rows: int, dim: int, dtype: str) -> int:
    return rows * dim * (2 if dtype == "bfloat16" else 4)


def _variables(table: Table, schema: Schema) -> list[_Variable]:
    """Returns the variables of `Table.parts`."""
    if not table.parts:
        return []
    if table.vocabulary_size is None:
        raise ValueError(
            f"table {table.name!r} has no vocabulary_size yet; take the schema that `prepare` wrote, or"
            " `td.fit_encoder(...).schema`, which have the sizes of all vocabularies, or set vocabulary_size"
        )
    users = [f for f in schema.categorical if table.name in (f.table, schema.table_of(f).stored_in)]
    lookups = float(sum(_values(f) * schema.pieces(schema.table_of(f)) for f in users))
    skewed = any(f.encoding == "vocabulary" and f.table == table.name for f in users)
    if table.remainders is None:
        return [_Variable(table.name, table.vocabulary_size, table.dim, table.dtype, lookups, int(skewed), False)]
    quotient, remainder = table.parts
    rows, factor = -(-table.vocabulary_size // table.remainders), table.remainders
    return [
        _Variable(quotient, rows, table.dim, table.dtype, lookups, factor * skewed, True),
        _Variable(remainder, factor, table.dim, table.dtype, lookups, 0, True),
    ]


def _values(feature: CategoricalFeature) -> int:
    return (feature.sequence_length or VALUES) if feature.multi_valued else 1


def _on_tpu(v: _Variable, chip: str, small: int) -> PlacedTable:
    hardware = TPUS[chip].embedding_hardware
    if not hardware:
        return v.replicated(f"a copy on each chip: {chip} has no embedding hardware")
    if v.factor:
        return v.replicated("a copy on each chip: embedding hardware looks up no factors")
    if v.bytes < small:
        return v.replicated(f"a copy on each chip: below {size_text(small)}")
    why = f"rows over all chips, by {hardware} embedding hardware"
    if v.dtype != "float32":
        why += f"; as float32, since its memory holds no {v.dtype}"
    return PlacedTable(v.name, v.rows, v.dim, "float32", "tpu_embedding", (), v.lookups, why)


def _share_out(variables: Sequence[_Variable], devices: int, small: int, noun: str) -> dict[str, PlacedTable]:
    """Spreads bytes and lookups over several devices."""
    fair = sum(v.bytes for v in variables) / devices
    sizes, lookups = [0] * devices, [0.0] * devices
    placed = {}

    def put(v: _Variable, begin: int, end: int, device: int) -> PlacedShard:
        shard = v.shard(begin, end, device)
        sizes[device] += _bytes(end - begin, v.dim, v.dtype)
        lookups[device] += shard.lookups
        return shard

    for v in sorted(variables, key=lambda v: -v.bytes):
        # Each part of a split table is one more gather and one more scatter in the step, so none is split that fits.
        room = [d for d in range(devices) if sizes[d] + v.bytes <= fair * (1 + _SLACK)]
        if not room and v.bytes >= small and v.rows > 1:
            # Of a vocabulary, the first rows get nearly all lookups: the range goes to the device that has fewest.
            order = sorted(range(devices), key=lambda d: (lookups[d], sizes[d], d))
            count = min(devices, v.rows)
            ends = [v.rows * (i + 1) // count for i in range(count)]
            shards = [put(v, begin, end, d) for begin, end, d in zip([0, *ends], ends, order, strict=False)]
            why = f"rows over {count} {noun}s: one has no room for all, at {size_text(fair)} each"
            placed[v.name] = v.sharded(shards, why)
            continue
        device = min(room or range(devices), key=lambda d: (lookups[d], sizes[d]) if room else (sizes[d], lookups[d]))
        placed[v.name] = v.sharded([put(v, 0, v.rows, device)], f"whole on one {noun}")
    return placed
