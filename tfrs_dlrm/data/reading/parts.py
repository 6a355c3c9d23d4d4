"""Which part of a split an input pipeline reads, and in how many batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import tensorflow as tf


class RowChunk(Protocol):
    """What is read as a whole: a row group, a file of records."""

    @property
    def rows(self) -> int:
        """How many rows it has."""


P = TypeVar("P", bound=RowChunk)


@dataclasses.dataclass(frozen=True)
class PipelineShare(Generic[P]):
    """What one input pipeline reads.

    Attributes:
      pieces: of the split; every piece is in the part of one pipeline.
      batch_size: rows of one batch of this pipeline.
      batches: the batches of an epoch.
    """

    pieces: tuple[P, ...]
    batch_size: int
    batches: int

    @property
    def rows(self) -> int:
        """The rows of all pieces."""
        return sum(p.rows for p in self.pieces)


def pipeline_share(
    pieces: Sequence[P], context: tf.distribute.InputContext | None, batch_size: int, drop_remainder: bool, what: str
) -> PipelineShare[P]:
    """The part of the pipeline that `context` describes; without one, everything.

    Args:
      pieces: of the split.
      context: which input pipeline this is.
      batch_size: over all replicas together.
      drop_remainder: whether the last smaller batch is left out.
      what: the split and its pieces are, for messages.

    Raises:
      ValueError: more pipelines than pieces, or replicas that cannot share the batch.
    """
    context = context or tf.distribute.InputContext()
    size = context.get_per_replica_batch_size(batch_size)
    parts = _deal(pieces, context.num_input_pipelines)
    if min(map(len, parts)) == 0:
        raise ValueError(f"{what} cannot be shared by {len(parts)} input pipelines")
    own = parts[context.input_pipeline_id]
    if drop_remainder:
        # Replicas step together, so the part with the fewest rows sets the number of steps.
        batches = min(sum(p.rows for p in part) for part in parts) // size
    else:
        batches = -(-sum(p.rows for p in own) // size)
    return PipelineShare(tuple(own), size, batches)


def _deal(pieces: Sequence[P], pipelines: int) -> list[list[P]]:
    """Deals pieces out so that each pipeline has about equally many rows: the largest first, to the shortest."""
    if pipelines == 1:
        return [list(pieces)]
    parts: list[list[P]] = [[] for _ in range(pipelines)]
    totals = [0] * pipelines
    for i in sorted(range(len(pieces)), key=lambda i: (-pieces[i].rows, i)):
        shortest = totals.index(min(totals))
        parts[shortest].append(pieces[i])
        totals[shortest] += pieces[i].rows
    return parts
