"""The capacity that SparseCores need for the ids of a batch, measured on sample batches.

Every SparseCore reads the examples of its part of a batch and sends each id to the core that holds the row. The
compiled step fixes, per stack of tables, the capacity between two cores: pairs of example and id, and distinct ids. A
batch that needs more ends the run, with an error that names the table and the numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_dlrm.embeddings.tpu.hardware_storage import CoreLayout
from tfrs_dlrm.embeddings.tpu.host_batches import HardwareLookup

# A core's ids of a batch are the sum of many rare events: their standard deviation is about the root of the mean. Six
# of these above the mean occur once in 10^9 times. A run of a million steps on 32 cores has 10^9 such counts, and the
# margin is added to the observed maximum, not to the mean.
_DEVIATIONS = 6
# Lists of ids are padded to a multiple of this.
_PADDING = 8
_IDS_PER_SAMPLE = 64


@dataclasses.dataclass(frozen=True)
class IdCapacity:
    """The capacity that the ids of batches need on SparseCores.

    Attributes:
      ids: by name of the stack, the largest number of pairs of example and id from one core to another.
      unique_ids: by name of the stack, the largest number of distinct ids from one core to another.
      ids_per_sample: the largest number of ids per example of a stack, averaged over a chip, with padding.
    """

    ids: dict[str, int]
    unique_ids: dict[str, int]
    ids_per_sample: float

    def config(self) -> Any:
        """Returns the `SparseCoreEmbeddingConfig` with this capacity and a margin; it never drops ids."""
        per_sample = max(_IDS_PER_SAMPLE, _round_up(math.ceil(self.ids_per_sample * 1.25)))
        return tf.tpu.experimental.embedding.SparseCoreEmbeddingConfig(
            max_ids_per_chip_per_sample=per_sample,
            max_ids_per_table={stack: with_margin(n) for stack, n in self.ids.items()},
            max_unique_ids_per_table={stack: with_margin(n) for stack, n in self.unique_ids.items()},
            allow_id_dropping=False,
        )


class StackedTable(NamedTuple):
    """The stack of a table, and the layout of its rows in the stack."""

    stack: str
    layout: CoreLayout


def with_margin(most: int) -> int:
    """Adds six standard deviations to a maximum over some batches, and rounds up to a multiple of 8."""
    return max(_PADDING, _round_up(math.ceil(most + _DEVIATIONS * math.sqrt(most))))


def measure_capacity(
    batches: Iterable[Mapping[str, Any]],
    lookups: Sequence[HardwareLookup],
    tables: Mapping[str, StackedTable],
    cores_per_chip: int,
) -> IdCapacity:
    """Measures what batches of one chip need; counts as `TPUEmbeddingV2.compute_sparse_core_stats` does.

    Args:
      batches: batches of one chip, as `HostMap` makes them.
      lookups: the lookups of a batch.
      tables: the stack of each table.
      cores_per_chip: SparseCores of a chip.
    """
    stacks = dict.fromkeys(t.stack for t in tables.values())
    ids, unique_ids, per_sample = dict.fromkeys(stacks, 0), dict.fromkeys(stacks, 0), 0.0
    for batch in batches:
        for stack in stacks:
            of_stack = [x for x in lookups if tables[x.table].stack == stack]
            pairs, singles = _count_stack(batch, of_stack, tables, cores_per_chip)
            ids[stack] = max(ids[stack], int(pairs.max()))
            unique_ids[stack] = max(unique_ids[stack], int(singles.max()))
            padded = -(-pairs // _PADDING) * _PADDING
            per_sample = max(per_sample, int(padded.sum()) / sum(_samples(batch[x.key]) for x in of_stack))
    return IdCapacity(ids, unique_ids, per_sample)


def _count_stack(
    batch: Mapping[str, Any], lookups: Sequence[HardwareLookup], tables: Mapping[str, StackedTable], cores_per_chip: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns int [cores_per_chip, cores], twice: pairs, and distinct ids, from each core of the chip to each core."""
    cores = tables[lookups[0].table].layout.cores
    pairs, singles = np.zeros([2, cores_per_chip, cores], np.int64)
    for table in dict.fromkeys(x.table for x in lookups):
        layout = tables[table].layout
        senders, found, samples = [], [], []
        for number, lookup in enumerate(x for x in lookups if x.table == table):
            rows, sample = _rows_and_samples(batch[lookup.key])
            share = _samples(batch[lookup.key]) // cores_per_chip
            senders.append(sample // share)
            found.append(rows)
            samples.append(sample + (number << 40))
        sender, row = np.concatenate(senders), np.concatenate(found).astype(np.int64)
        for core in range(cores_per_chip):
            of_core = sender == core
            both = np.unique(np.stack([row[of_core], np.concatenate(samples)[of_core]]), axis=1)
            for counts, rows in ((pairs, both[0]), (singles, np.unique(both[0]))):
                targets, _ = layout.cores_and_rows(rows)
                counts[core] += np.bincount(targets, minlength=cores)
    return pairs, singles


def _rows_and_samples(values: Any) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(values, tf.RaggedTensor):
        return values.flat_values.numpy(), values.value_rowids().numpy().astype(np.int64)
    rows = np.asarray(values)
    return rows, np.arange(len(rows))


def _samples(values: Any) -> int:
    return int(values.nrows()) if isinstance(values, tf.RaggedTensor) else len(values)


def _round_up(n: int) -> int:
    return -(-n // _PADDING) * _PADDING
