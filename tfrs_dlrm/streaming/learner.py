"""Evaluates a window of rows, then trains on it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfrs_dlrm.config import TrainConfig
from tfrs_dlrm.data.reading.columns import Columns, IdOrders, assemble, signature
from tfrs_dlrm.data.reading.windows import permutation
from tfrs_dlrm.metrics.defined import defined
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.models.tracing import as_written
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.training.evaluation import NonFiniteError, Scores


class Learner:
    """Evaluates and trains a compiled model on encoded rows, on one device.

    Args:
      model: compiled.
      schema: of the encoded rows.
      config: the batch sizes (the last batch of a window may be smaller), and the seed of the order in a window.

    Raises:
      ValueError: the model has a list loss: a stream scatters groups.
    """

    def __init__(self, model: RankingModel, schema: Schema, config: TrainConfig):
        if model.list_loss != "none":
            raise ValueError(
                f"list_loss={model.list_loss!r} needs batches of whole groups, which a stream does not give; leave out"
                " config.model.list_loss"
            )
        self._model, self._config = model, config
        self._orders = IdOrders(schema)
        strategy = model.distribute_strategy  # of one device, yet a step may ask for its replica

        # One trace each, whatever the size of a batch.
        @tf.function(input_signature=signature(schema, None, sort_ids=False))
        def logits(*arrays: tf.Tensor) -> tf.Tensor:
            features = assemble(schema, arrays, sort_ids=False)[0]
            return strategy.run(as_written(lambda x: model(x, training=False, logits=True), model), args=(features,))

        @tf.function(input_signature=signature(schema, None, sort_ids=True))
        def train_step(*arrays: tf.Tensor) -> dict[str, tf.Tensor]:
            return strategy.run(model.train_step, args=(assemble(schema, arrays, sort_ids=True),))

        self._logits, self._train_step, self._weighted = logits, train_step, schema.weighs_rows

    def evaluate(self, rows: Columns) -> dict[str, float]:
        """Returns the metrics of the model on rows that it has not seen, without those that they do not define.

        Raises:
          NonFiniteError: a score is NaN or infinite.
        """
        parts = [self._logits(*batch.arrays()).numpy() for batch in _batches(rows, self._config.eval_batch_size)]
        logits = np.concatenate(parts)
        bad = np.count_nonzero(~np.isfinite(logits))
        if bad:
            raise NonFiniteError(f"{bad} of {len(logits)} scores are not finite")
        weights = rows.matrices[1] if self._weighted else None
        return Scores.of(self._model.label_tasks, rows.matrices[0], logits, weights).metrics()

    def train(self, rows: Columns, window: int) -> tuple[int, dict[str, float]]:
        """Trains once on each row, in an order that the seed and the number of the window give.

        Returns:
          The steps, and the averages of the metrics over them.

        Raises:
          NonFiniteError: the loss became NaN or infinite.
        """
        self._model.reset_metrics()
        rows, steps, averages = rows.take(permutation(len(rows), self._config.seed, window)), 0, {}
        for batch in _batches(rows, self._config.batch_size):
            arrays = batch.arrays()
            averages = self._train_step(*arrays, *self._orders(arrays))
            steps += 1
        found = {name: float(value) for name, value in averages.items()}
        if not math.isfinite(found.get("loss", 0.0)):
            raise NonFiniteError(
                f"the loss is {found['loss']} in window {window}. Lower the learning rates, add warmup steps, or look"
                " for extreme dense values"
            )
        return steps, defined(found)


def _batches(rows: Columns, size: int) -> Iterator[Columns]:
    for begin in range(0, len(rows), size):
        yield rows.slice(begin, min(begin + size, len(rows)))
