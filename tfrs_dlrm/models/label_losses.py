"""The training loss: the losses of all labels, the share of a replica, and the metrics that report them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.metrics import OutOfRangeIds
from tfrs_dlrm.models.label_tasks import Tasks
from tfrs_dlrm.models.list_losses import MixedLoss
from tfrs_dlrm.models.missing_labels import expected_labels, weights_of_known
from tfrs_dlrm.models.user_metrics import check_names, metrics_by_label, takes_scores
from tfrs_dlrm.schema import Schema

LossWeights = Literal["fixed", "uncertainty"]
# The largest logarithm of a learned variance: its loss counts between 1 / 55 and 55 times.
_MOST = 4.0


def make_log_variances(model: keras.Model, loss_weights: str) -> tf.Variable | None:
    """Makes the weight `log_variances` of a model, [labels], which begins at 0; None for fixed weights.

    `LabelLosses` bounds it.

    Raises:
      ValueError: `loss_weights` is unknown, or there is one label only, whose loss has nothing to be weighed against.
    """
    if loss_weights not in get_args(LossWeights):
        raise ValueError(f"loss_weights={loss_weights!r}: choose fixed or uncertainty")
    labels = len(model.schema.labels)
    if loss_weights == "fixed":
        return None
    if labels == 1:
        raise ValueError(
            f"loss_weights={loss_weights!r} is for several labels, and the schema has one,"
            f" {model.schema.label.column!r}; list others in more_labels, or choose fixed"
        )
    return model.add_weight("log_variances", [labels], tf.float32, "zeros")


class LabelLosses:
    """The loss of a batch, summed over labels, and the metrics that each batch updates.

        loss = sum over examples and labels (weight * loss_weight of the label * loss) / B + regularization losses

    With `log_variances` x, a number for each label, the model also learns how much each label counts (Kendall et al.
    2018, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics", arXiv 1705.07115).
    In the sum above, the loss of an example that has the label then is

        s / 2 + e^-s loss            for a classification
        s / 2 + e^-s loss / 2        for a regression            where s = 4 tanh(x / 4)

    At the minimum e^s is the mean loss of the examples that have the label, times 2 for a classification: labels that
    cannot be predicted well count less. How many examples have the label and its `loss_weight` do not move that
    minimum, so both count as with fixed weights. s is between -4 and 4: without bounds, the loss of a label that is
    predicted without error would count more and more, until e^-s overflows.

    As in Keras, B counts examples whatever their weights, so that a weight means the same in every batch.

    If `prepare` dropped negatives of the first label, training batches lack rows, and others do not. Then, in training,
    the scores of the first label are those among the kept rows. A further label has no such constant, so each positive
    row of the first label weighs `keep_negatives`, which restores the shares of the full log.

    Where a label that comes after another is missing and that one is 1, the loss is of what the model expects of it,
    and metrics weigh known rows of the batch more: see `tfrs_dlrm.models.missing_labels`.

    In training, the loss of the first label may be mixed with one of how the rows of each group are ranked.

    This is a plain object on purpose: checkpoints do not follow it, and a restored model may have other metrics.

    Args:
      schema: of the model.
      tasks: the tasks of its labels.
      losses: a `tfrs.tasks.Ranking` per label.
      metrics: see `metrics_by_label`; None for the default metrics of every label.
      log_variances: float32 [labels], the x above, trained with the model; None for fixed weights.
      mixed: mixes the loss of the first label with a list loss; None does not.

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
        log_variances: tf.Variable | None = None,
        mixed: MixedLoss | None = None,
    ) -> None:
        # As a function, so that no weight is tracked twice.
        self._log_variances = None if log_variances is None else lambda: log_variances
        self._label_tasks = tasks
        self._tasks, self._loss_weights, self._losses = tasks.all, tasks.loss_weights, losses
        self._mixed = mixed or MixedLoss(schema, "none", 1)
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
        groups: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns this replica's share of the loss, and updates the metrics. The shares add up to the global loss.

        Args:
          labels: [B], or [B, L] for L labels.
          scores: logits or predicted numbers, of the same shape.
          weights: [B] of any number type, or None.
          regularization: the regularization losses of layers.
          out_of_range: the number of ids outside their tables, per categorical feature.
          training: whether the examples are training rows, of which negatives may have been dropped.
          groups: whole numbers [B], for the list loss; None in evaluation.
        """
        examples = tf.cast(tf.shape(scores)[0], tf.float32)
        columns = len(self._tasks)
        labels, scores = tf.reshape(labels, [-1, columns]), tf.reshape(scores, [-1, columns])
        labels = self._label_tasks.over_all_rows(labels)
        weights = None if weights is None else tf.reshape(tf.cast(weights, tf.float32), [-1, 1])
        expected, drawn = self._expected(labels, scores), []
        for i in range(columns):
            drawn.append(self._as_drawn(i, labels, scores, weights, training))
            self._update_metrics(i, labels, *drawn[i])
        total = sum(self._label_loss(i, expected[:, i : i + 1], *drawn[i], groups) for i in range(columns))
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

    def _expected(self, labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Returns labels [B, L], see `expected_labels`."""
        earlier = self._label_tasks.earlier
        return expected_labels(labels, scores, earlier) if self._label_tasks.rates else labels

    def _update_metrics(self, number: int, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor | None) -> None:
        """Updates the metrics of one label. Labels are those of all, [B, L], and the others [B, 1]."""
        earlier = self._label_tasks.earlier
        if earlier[number] is not None:
            rows = tf.ones_like(labels[:, 0]) if weights is None else weights[:, 0]
            weights = weights_of_known(labels, rows, earlier)[:, number : number + 1]
        labels, weights = _known(number, labels[:, number : number + 1], weights)
        for metric in self._label_metrics[number]:
            predictions = scores if takes_scores(metric) else self._tasks[number].served(scores)
            metric.update_state(labels, predictions, sample_weight=weights)

    def _label_loss(
        self,
        number: int,
        labels: tf.Tensor,
        scores: tf.Tensor,
        weights: tf.Tensor | None,
        groups: tf.Tensor | None,
    ) -> tf.Tensor:
        """Returns the weighted sum of one label's losses. Inputs are [B, 1], groups [B]."""
        labels, weights = _known(number, labels, weights)
        task = self._tasks[number]
        # Mixed precision casts the first argument; scores and weights stay float32.
        loss = self._losses[number](*task.loss_arguments(labels, scores), sample_weight=weights, compute_metrics=False)
        if not number:
            loss = self._mixed(loss, groups, labels, scores, weights)
        if self._log_variances:
            examples = tf.cast(tf.shape(labels)[0], tf.float32) if weights is None else tf.reduce_sum(weights)
            loss = _likelihood(task.precision_factor * loss, examples, self._log_variances()[number])
        weight = self._loss_weights[number]
        return loss if weight == 1.0 else weight * loss


def _known(number: int, labels: tf.Tensor, weights: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Returns labels without NaN and weights that are 0 there, [B, 1]. The first label is never missing."""
    if not number:
        return labels, weights
    known = tf.math.is_finite(labels)
    labels, known = tf.where(known, labels, 0.0), tf.cast(known, tf.float32)
    return labels, known if weights is None else weights * known


def _likelihood(loss: tf.Tensor, examples: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """Returns the loss of a label, summed over examples, of which it learns how much it counts; all float32 [].

    Args:
      loss: the sum of weighted losses.
      examples: the sum of these weights.
      log_variance: unbounded.
    """
    bounded = _MOST * tf.tanh(log_variance / _MOST)
    return examples * bounded / 2 + tf.exp(-bounded) * loss


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
