"""The training loss: the losses of all labels, the share of a replica, and the metrics that report them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.metrics import OutOfRangeIds
from tfrs_dlrm.models.tasks import Tasks
from tfrs_dlrm.models.user_metrics import check_names, metrics_by_label, takes_scores
from tfrs_dlrm.schema import Schema


class LabelLosses:
    """The loss of a batch, summed over labels, and the metrics that each batch updates.

        loss = sum over examples and labels (weight * loss_weight of the label * loss) / B + regularization losses

    As in Keras, B counts examples whatever their weights, so that a weight means the same in every batch.

    If `prepare` dropped negatives of the first label, training batches lack rows, and others do not. Then, in training,
    the scores of the first label are those among the kept rows. A further label has no such constant, so each positive
    row of the first label weighs `keep_negatives`, which restores the shares of the full log.

    This is a plain object on purpose: checkpoints do not follow it, and a restored model may have other metrics.

    Args:
      schema: of the model.
      tasks: the tasks of its labels.
      losses: a `tfrs.tasks.Ranking` per label.
      metrics: see `metrics_by_label`; None for the default metrics of every label.

    Attributes:
      given: the metrics made of `metrics`, a list per label, or None.

    Raises:
      ValueError: a metric is unknown, or two have one name.
    """

    def __init__(
        self,
        schema: Schema,
        tasks: Tasks,
        losses: Sequence[keras.layers.Layer],
        metrics: Any,
    ) -> None:
        self._tasks, self._loss_weights, self._losses = tasks.all, tasks.loss_weights, losses
        self._keep_negatives = schema.label.keep_negatives
        self._mean = keras.metrics.Mean(name="loss")
        self.given = None if metrics is None else metrics_by_label(metrics, schema, tasks)
        defaults = zip(tasks.all, tasks.suffixes, strict=True)
        self._label_metrics = self.given or [task.metrics(suffix) for task, suffix in defaults]
        self.out_of_range = OutOfRangeIds([f.name for f in schema.categorical])
        check_names(self.metrics)
        for metric in self.metrics:  # every epoch begins with zeros, so Keras' files leave them out
            metric.save_own_variables = metric.load_own_variables = lambda store: None

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The mean loss, the metrics of the labels, and the count of out-of-range ids."""
        return [self._mean, *itertools.chain.from_iterable(self._label_metrics), self.out_of_range]

    def __call__(
        self,
        labels: tf.Tensor,
        scores: tf.Tensor,
        weights: tf.Tensor | None,
        regularization: Sequence[tf.Tensor],
        out_of_range: tf.Tensor,
        training: bool = False,
    ) -> tf.Tensor:
        """Returns this replica's share of the loss, and updates the metrics. The shares add up to the global loss.

        Args:
          labels: [B], or [B, L] for L labels.
          scores: logits or predicted numbers, of the same shape.
          weights: [B] of any number type, or None.
          regularization: the regularization losses of layers.
          out_of_range: the number of ids outside their tables, per categorical feature.
          training: whether the examples are training rows, of which negatives may have been dropped.
        """
        examples = tf.cast(tf.shape(scores)[0], tf.float32)
        columns = len(self._tasks)
        labels, scores = tf.reshape(labels, [-1, columns]), tf.reshape(scores, [-1, columns])
        weights = None if weights is None else tf.reshape(tf.cast(weights, tf.float32), [-1, 1])
        total = sum(
            self._label_loss(i, labels[:, i : i + 1], *self._as_drawn(i, labels, scores, weights, training))
            for i in range(columns)
        )
        added = sum(tf.cast(term, tf.float32) for term in regularization)
        # At the end of an epoch, a replica may have no examples.
        loss = tf.math.divide_no_nan(total, examples) + added
        self._mean.update_state(loss, sample_weight=examples)
        self.out_of_range.update_state(out_of_range)
        return _replica_share(loss, total, examples, added)

    def _as_drawn(
        self, number: int, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor | None, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns scores and weights [B, 1] of a label, as they fit rows of which negatives may have been dropped."""
        scores = scores[:, number : number + 1]
        if not training or self._keep_negatives == 1:
            return scores, weights
        if not number:
            return self._tasks[0].on_kept_rows(scores), weights
        drawn = tf.where(labels[:, :1] > 0, self._keep_negatives, 1.0)
        return scores, drawn if weights is None else weights * drawn

    def _label_loss(self, number: int, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
        """Returns the weighted sum of one label's losses, all inputs being [B, 1], and updates its metrics."""
        if number:  # labels other than the first may be missing, as NaN
            known = tf.math.is_finite(labels)
            labels = tf.where(known, labels, 0.0)
            known = tf.cast(known, tf.float32)
            weights = known if weights is None else weights * known
        task = self._tasks[number]
        # Mixed precision casts the first argument; scores and weights stay float32.
        loss = self._losses[number](*task.loss_arguments(labels, scores), sample_weight=weights, compute_metrics=False)
        for metric in self._label_metrics[number]:
            predictions = scores if takes_scores(metric) else task.served(scores)
            metric.update_state(labels, predictions, sample_weight=weights)
        weight = self._loss_weights[number]
        return loss if weight == 1.0 else weight * loss


def _replica_share(loss: tf.Tensor, total: tf.Tensor, examples: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
    """Returns a replica's share of the global loss.

    Args:
      loss: total / examples + added.
      total: the sum of the losses of the replica's examples.
      examples: the number of its examples, which may differ between replicas.
      added: the regularization losses.
    """
    strategy, replica = tf.distribute.get_strategy(), tf.distribute.get_replica_context()
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return loss
    if distribution_of(strategy).fixed_batches:
        return loss / replicas
    everywhere = replica.all_reduce(tf.distribute.ReduceOp.SUM, examples)
    return tf.math.divide_no_nan(total, everywhere) + added / replicas
