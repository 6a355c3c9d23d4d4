"""The parts of a model in a checkpoint: tables and slots, which may be huge and shared out, and everything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfrs_dlrm.embeddings.storage import LogicalTable
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema


@dataclasses.dataclass(frozen=True)
class CheckpointContents:
    """The parts of a model that a checkpoint is made of, or restored to.

    Attributes:
      schema: of the tables.
      rows: the tables and slots by name: `tables/NAME`, `slots/TABLE/NAME`.
      dense: everything else.
      optimizers: whether slots and optimizers are included.
      strategy: under which the model was made.
      embeddings: of the model: on some hardware they have to be fetched before `rows` are read, and loaded after
        `rows` were written.
    """

    schema: Schema
    rows: dict[str, LogicalTable]
    dense: tf.train.Checkpoint
    optimizers: bool
    strategy: tf.distribute.Strategy
    embeddings: EmbeddingTables | TPUEmbeddingTables

    @classmethod
    def of(
        cls, model: RankingModel, extra: Mapping[str, Any] | None = None, optimizers: bool = True
    ) -> CheckpointContents:
        """Collects all parts of a model.

        Args:
          model: built.
          extra: what else to save with it, by name.
          optimizers: whether with its optimizers and their slots, where it is compiled.
        """
        row_optimizer: Any = getattr(model, "embedding_optimizer", None)
        optimizers = optimizers and row_optimizer is not None
        omitted: list[Any] = [model.embeddings]
        if optimizers:
            omitted.append(row_optimizer.slots)
        elif row_optimizer is not None:
            omitted += [row_optimizer, model.optimizer]
        # Tables and slots may be reachable by other ways as well.
        omitted += model.embeddings.tables.values()
        omitted += [s for slots in getattr(row_optimizer, "slots", {}).values() for s in slots.values()]
        rest = _without(model, {id(o) for o in omitted}, {})
        dense = tf.train.Checkpoint(model=rest, **(extra or {}))
        stored = model.embeddings.logical_tables(row_optimizer if optimizers else None)
        return cls(model.embeddings.schema, stored, dense, optimizers, model.distribute_strategy, model.embeddings)


def layers(model: RankingModel) -> tf.train.Checkpoint:
    """Returns a model without its tables and optimizers, in its place in a checkpoint."""
    return CheckpointContents.of(model, optimizers=False).dense


def _without(thing: Any, omitted: set[int], seen: dict[int, Any]) -> Any:
    """Returns a trackable object under the same names, without some of the objects below it."""
    if id(thing) in seen:
        return seen[id(thing)]
    if not any(id(o) in omitted for o in tf.train.TrackableView(thing).descendants()):
        return thing
    seen[id(thing)] = copy = tf.train.Checkpoint()
    for name, child in tf.train.TrackableView.children(thing).items():
        if id(child) not in omitted:
            setattr(copy, name, _without(child, omitted, seen))
    return copy
