"""Divides a split among input pipelines: which part each reads, and in how many batches."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import tensorflow as tf


class RowChunk(Protocol):
    """Rows that one pipeline reads as a whole: a row group, or a file of records."""

    @property
    def rows(self) -> int:
        """The number of rows."""


class CuttableChunk(RowChunk, Protocol):
    """Rows of which one pipeline can read a part."""

    def part(self: C, begin: int, end: int) -> C:
        """Returns the rows from `begin` to before `end`."""


P = TypeVar("P", bound=RowChunk)
C = TypeVar("C", bound=CuttableChunk)


@dataclasses.dataclass(frozen=True)
class PipelineShare(Generic[P]):
    """The part of a split that one input pipeline reads.

    Attributes:
      chunks: row groups or files of the split; each belongs to one pipeline.
      batch_size: the rows of one batch of this pipeline.
      batches: the batches of an epoch.
    """

    chunks: tuple[P, ...]
    batch_size: int
    batches: int

    @property
    def rows(self) -> int:
        """The number of rows of all chunks."""
        return sum(p.rows for p in self.chunks)


def pipeline_share(
    chunks: Sequence[P], context: tf.distribute.InputContext | None, batch_size: int, drop_remainder: bool, what: str
) -> PipelineShare[P]:
    """Selects the share of an input pipeline.

    Args:
      chunks: all chunks of the split.
      context: the input pipeline; None means the only one.
      batch_size: summed over all replicas.
      drop_remainder: whether the last, smaller batch is dropped.
      what: describes the split in messages.

    Raises:
      ValueError: more pipelines than chunks, or the batch size is no multiple of the replicas.
    """
    context = context or tf.distribute.InputContext()
    size = context.get_per_replica_batch_size(batch_size)
    parts = _deal(chunks, context.num_input_pipelines)
    if min(map(len, parts)) == 0:
        raise ValueError(f"{what} cannot be shared by {len(parts)} input pipelines; use fewer")
    selected = parts[context.input_pipeline_id]
    if drop_remainder:
        # Replicas step together, so the part with the fewest rows sets the number of steps.
        batches = min(sum(p.rows for p in part) for part in parts) // size
    else:
        batches = -(-sum(p.rows for p in selected) // size)
    return PipelineShare(tuple(selected), size, batches)


def one_for_each(chunks: Sequence[C], context: tf.distribute.InputContext | None) -> list[C]:
    """Returns the chunks, each cut into parts of similar size if there are fewer chunks than input pipelines."""
    pipelines = 1 if context is None else context.num_input_pipelines
    if len(chunks) >= pipelines:
        return list(chunks)
    parts = []
    for chunk in chunks:
        ends = [chunk.rows * i // pipelines for i in range(pipelines + 1)]
        parts += [chunk.part(begin, end) for begin, end in itertools.pairwise(ends) if end > begin]
    return parts


def prefetched(data: tf.data.Dataset, tuned: bool = True) -> tf.data.Dataset:
    """Prefetches the batches of one input pipeline, which no strategy is to shard again.

    Args:
      data: the batches.
      tuned: whether TensorFlow tunes the pipeline while it runs. One that has nothing to tune is better left alone: an
        iterator that is destroyed waits for the thread that tunes, which sleeps for up to 20 seconds in an epoch of 40.
    """
    options = tf.data.Options()
    if not tuned:
        options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return data.prefetch(4).with_options(options)


def _deal(chunks: Sequence[P], pipelines: int) -> list[list[P]]:
    """Deals chunks out so that pipelines get similar numbers of rows: the largest first, to the smallest share."""
    if pipelines == 1:
        return [list(chunks)]
    parts: list[list[P]] = [[] for _ in range(pipelines)]
    totals = [0] * pipelines
    for i in sorted(range(len(chunks)), key=lambda i: (-chunks[i].rows, i)):
        shortest = totals.index(min(totals))
        parts[shortest].append(chunks[i])
        totals[shortest] += chunks[i].rows
    return parts
