"""A train step on tables by the kernels: one operation looks up, and one updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.bags import Bags
from tfrs_dlrm.embeddings.ids import PreparedIds
from tfrs_dlrm.embeddings.kernels.library import find
from tfrs_dlrm.embeddings.optimizers import SGD, Adagrad, RowWiseAdagrad
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.storage import copies
from tfrs_dlrm.embeddings.table_step import TableStep
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.layers.side_by_side import split

_RULES: dict[type[RowOptimizer], str] = {SGD: "sgd", Adagrad: "adagrad", RowWiseAdagrad: "rowwise_adagrad"}


def make_table_step(tables: Any, optimizer: RowOptimizer) -> TableStep:
    """Returns how train steps treat the tables of a model: by the kernels, where they were built and apply.

    They apply on one device, a CPU, to `EmbeddingTables` and the optimizers SGD, Adagrad and RowWiseAdagrad without
    `l2` and `weight_decay`. Call this in the strategy's scope.

    Args:
      tables: `EmbeddingTables` or `TPUEmbeddingTables`.
      optimizer: built for them.
    """
    applies = (
        type(tables) is EmbeddingTables
        and type(optimizer) in _RULES
        and not optimizer.l2
        and not optimizer.weight_decay
        and distribution_of().only_one_device
        and any(_stored_plainly(tables, t.name) for t in tables.schema.tables)
    )
    kernels = find() if applies else None
    return TableStep(tables, optimizer) if kernels is None else KernelStep(tables, optimizer, kernels)


@dataclasses.dataclass(frozen=True)
class _Taken:
    """The features that the kernels treat.

    Attributes:
      indices: of the features among `schema.categorical`.
      names: of their tables, each once.
      table_of: for each feature, which of the tables it reads.
      dims: for each feature, how many numbers a vector has.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    table_of: tuple[int, ...]
    dims: tuple[int, ...]

    @property
    def columns(self) -> np.ndarray:
        """The first column of each feature among those of all vectors, side by side."""
        return np.cumsum([0, *self.dims[:-1]])


class KernelStep(TableStep):
    """Looks up and updates by the kernels what they can, and the rest by TensorFlow's operations.

    They cannot: tables that are compressed, stored in bfloat16 or not on a CPU, and tables that a feature with weights
    or a sequence looks up. Vectors come side by side in one tensor, which layers read without a copy; see
    `tfrs_dlrm.layers.side_by_side`. Rows and slots after a step are those of TensorFlow's operations, but for the order
    in which some numbers are added up.

    Args:
      tables: the tables.
      optimizer: of a class in `_RULES`.
      kernels: the result of `find`.
    """

    def __init__(self, tables: EmbeddingTables, optimizer: RowOptimizer, kernels: Any) -> None:
        super().__init__(tables, optimizer)
        self._kernels = kernels
        self._plain = {t.name for t in tables.schema.tables if _stored_plainly(tables, t.name)}
        # What `lookup` treated, for `vectors`, in the same trace.
        self._looked_up = _Taken((), (), (), ())

    def lookup(self, ids: PreparedIds) -> list[tf.Tensor]:
        """Returns the vectors side by side, [B, columns]; then the activations of the other features."""
        taken = self._looked_up = self._taken(ids.bags)
        if not taken.indices:
            return self.tables.lookup(ids)
        whole = self._kernels.tfrs_dlrm_lookup(
            tables=[self.tables.tables[name].handle for name in taken.names],
            **_lookups([ids.bags[i] for i in taken.indices]),
            T=tf.as_dtype(self.tables.compute_dtype),
            table_of=list(taken.table_of),
            columns=taken.columns.tolist(),
            width=sum(taken.dims),
        )
        others = [i for i in range(len(ids.bags)) if i not in taken.indices]
        return [whole, *self.tables.vectors_of(ids, others)]

    def vectors(self, found: list[tf.Tensor]) -> list[tf.Tensor]:
        """See `TableStep.vectors`."""
        taken = self._looked_up
        if not taken.indices:
            return found
        whole, *others = found
        of_taken, of_others = iter(split(whole, taken.dims)), iter(others)
        count = len(taken.indices) + len(others)
        return [next(of_taken) if i in taken.indices else next(of_others) for i in range(count)]

    def update(self, ids: PreparedIds, gradients: list[tf.Tensor | None]) -> None:
        """See `TableStep.update`."""
        taken = self._looked_up
        if not taken.indices:
            super().update(ids, gradients)
            return
        whole, *others = gradients
        if whole is not None:
            self._step(ids.bags, taken, whole)
        of_others = iter(others)
        rest = [None if i in taken.indices else next(of_others) for i in range(len(ids.bags))]
        super().update(ids, rest)  # it also counts the step

    def _step(self, bags: Sequence[Bags], taken: _Taken, gradient: tf.Tensor) -> None:
        schema = self.tables.schema
        trained = [k for k, i in enumerate(taken.indices) if schema.trains(schema.categorical[i])]
        if not trained:
            return
        names = list(dict.fromkeys(taken.names[taken.table_of[k]] for k in trained))
        slots = [self.optimizer.slots[name]["accumulator"].handle for name in names if self.optimizer.slots[name]]
        self._kernels.tfrs_dlrm_step(
            tables=[self.tables.tables[name].handle for name in names],
            slots=slots,
            **_lookups([bags[taken.indices[k]] for k in trained]),
            gradient=gradient,
            rate=self.optimizer.rate_at(tf.convert_to_tensor(self.optimizer.iterations)),
            table_of=[names.index(taken.names[taken.table_of[k]]) for k in trained],
            columns=[int(taken.columns[k]) for k in trained],
            width=sum(taken.dims),
            rule=_RULES[type(self.optimizer)],
            epsilon=getattr(self.optimizer, "epsilon", 0.0),
        )

    def _taken(self, bags: Sequence[Bags]) -> _Taken:
        """Returns the features of which no table is read in a way that the kernels do not know."""
        features = self.tables.schema.categorical
        refused = {f.table for f, b in zip(features, bags, strict=True) if not _known(b)}
        indices = [i for i, f in enumerate(features) if f.table in self._plain - refused]
        names = list(dict.fromkeys(features[i].table for i in indices))
        dims = [self.tables.schema.table_of(features[i]).dim for i in indices]
        return _Taken(tuple(indices), tuple(names), tuple(names.index(features[i].table) for i in indices), tuple(dims))


def _stored_plainly(tables: EmbeddingTables, name: str) -> bool:
    variable, table = tables.tables.get(name), tables.schema.table(name)
    return (
        isinstance(variable, tf.Variable)
        and copies(variable) == (variable,)
        and table.parts == (name,)
        and variable.dtype == tf.float32
        and "CPU" in variable.device
    )


def _known(bags: Bags) -> bool:
    one_form = bags.one_row_each or bags.splits is not None or bags.bag_of_row is None
    return one_form and bags.weights is None and bags.length is None


def _lookups(bags: Sequence[Bags]) -> dict[str, list[tf.Tensor]]:
    """Returns the inputs of the kernels that describe the lookups of some features."""
    rows, splits, scales = [], [], []
    for b in bags:
        rows.append(b.rows)
        if b.one_row_each:
            splits.append(tf.zeros([0], tf.int64))
        elif b.splits is not None:
            splits.append(b.splits)
        else:
            splits.append(tf.range(tf.cast(b.size, tf.int64) + 1) * tf.cast(b.hotness, tf.int64))
        scales.append(tf.zeros([0]) if b.scale is None else b.scale)
    return {"rows": rows, "splits": splits, "scales": scales}
