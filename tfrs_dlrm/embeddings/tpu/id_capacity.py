"""How much room SparseCores need for the ids of a batch, found by counting in some batches.

Every SparseCore looks at the examples of its part of a batch and sends each id to the core that holds the row. For each
stack of tables the room for what one core sends another is fixed when the step is compiled: so many pairs of example
and id, and so many different ids. A batch that needs more ends the run, with an error that names table and numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_dlrm.embeddings.tpu.hardware_storage import CoreLayout
from tfrs_dlrm.embeddings.tpu.host_batches import Lookup

# What a core gets of a batch is the sum of many rare events, so its standard deviation is about the root of its mean.
# Six of them above the mean come up once in 10^9 times; a run of a million steps on 32 cores looks 10^9 times, and the
# room begins not at the mean, but at the most that was seen.
_DEVIATIONS = 6
# Lists of ids are padded to a multiple of this.
_PADDING = 8
_IDS_PER_SAMPLE = 64


@dataclasses.dataclass(frozen=True)
class Room:
    """What the ids of batches need on SparseCores.

    Attributes:
      ids: by name of a stack, the most pairs of example and id that one core sends another.
      unique_ids: likewise, the most different ids.
      ids_per_sample: the most ids of an example of a stack, on the average of a chip, padding included.
    """

    ids: dict[str, int]
    unique_ids: dict[str, int]
    ids_per_sample: float

    def config(self) -> Any:
        """The `SparseCoreEmbeddingConfig` with that much room and a margin; no id is ever dropped."""
        per_sample = max(_IDS_PER_SAMPLE, _round_up(math.ceil(self.ids_per_sample * 1.25)))
        return tf.tpu.experimental.embedding.SparseCoreEmbeddingConfig(
            max_ids_per_chip_per_sample=per_sample,
            max_ids_per_table={stack: with_margin(n) for stack, n in self.ids.items()},
            max_unique_ids_per_table={stack: with_margin(n) for stack, n in self.unique_ids.items()},
            allow_id_dropping=False,
        )


class InStack(NamedTuple):
    """Where a table is: the name of its stack, and its rows in there."""

    stack: str
    layout: CoreLayout


def with_margin(most: int) -> int:
    """Room for what at most came up in some batches: six standard deviations more, and a multiple of 8."""
    return max(_PADDING, _round_up(math.ceil(most + _DEVIATIONS * math.sqrt(most))))


def count(
    batches: Iterable[Mapping[str, Any]],
    lookups: Sequence[Lookup],
    tables: Mapping[str, InStack],
    cores_per_chip: int,
) -> Room:
    """The room that some batches of one chip need; the counts are those of `TPUEmbeddingV2.compute_sparse_core_stats`.

    Args:
      batches: for one chip each, as `HostMap` makes them.
      lookups: what is looked up in a batch.
      tables: where each table is.
      cores_per_chip: SparseCores of a chip.
    """
    stacks = dict.fromkeys(t.stack for t in tables.values())
    ids, unique_ids, per_sample = dict.fromkeys(stacks, 0), dict.fromkeys(stacks, 0), 0.0
    for batch in batches:
        for stack in stacks:
            own = [x for x in lookups if tables[x.table].stack == stack]
            pairs, singles = _count_stack(batch, own, tables, cores_per_chip)
            ids[stack] = max(ids[stack], int(pairs.max()))
            unique_ids[stack] = max(unique_ids[stack], int(singles.max()))
            padded = -(-pairs // _PADDING) * _PADDING
            per_sample = max(per_sample, int(padded.sum()) / sum(_samples(batch[x.key]) for x in own))
    return Room(ids, unique_ids, per_sample)


def _count_stack(
    batch: Mapping[str, Any], lookups: Sequence[Lookup], tables: Mapping[str, InStack], cores_per_chip: int
) -> tuple[np.ndarray, np.ndarray]:
    """Int [cores_per_chip, cores]: what each core of the chip sends each core, in pairs and in different ids."""
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
