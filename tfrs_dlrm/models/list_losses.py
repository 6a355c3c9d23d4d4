"""Losses of how the rows of each group are ranked, such as the rows of a query, a session or a user.

A group is all rows of a batch with one group id; they need not be neighbours. A row of weight w counts as w equal rows,
so a row of weight 0 does not count. A group without both a positive and a negative row has no order to learn, and no
loss. Shapes depend on B alone, as TPUs need it.

Both losses depend only on differences of scores within a group. So they teach nothing about the level of a group, such
as how often any result of a query is clicked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import tensorflow as tf

from tfrs_dlrm.embeddings.ids import Features
from tfrs_dlrm.schema import GROUP, Schema

ListLoss = Literal["none", "softmax", "pairwise_logistic"]
# Added to what is divided by, so that groups without a loss have finite gradients.
_TINY = 1e-30


def softmax_cross_entropy(
    groups: tf.Tensor, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns the sum over groups of the weight of a group's rows times its top-one cross entropy, float32 [].

        -sum_i p_i log(exp(s_i) / sum_j w_j exp(s_j))        with p_i = w_i y_i / sum_j w_j y_j

    It is the loss of ListNet (Cao et al. 2007, "Learning to Rank: From Pairwise Approach to Listwise Approach", ICML,
    section 4), with the labels divided by their sum in place of their softmax. Time and memory are O(B log B).

    Args:
      groups: whole numbers [B].
      labels: 0 or 1, [B].
      scores: float32 [B], logits.
      weights: float32 [B], at least 0; None is 1 for all.
    """
    rows, positive, negative = _split(labels, weights)
    groups = _numbered(groups)
    size = tf.shape(scores)[0]

    def sums(values: tf.Tensor) -> tf.Tensor:
        return tf.math.unsorted_segment_sum(values, groups, size)

    # In a sum of exponentials, only the distances to the highest score cannot overflow.
    counted = tf.where(rows > 0, tf.stop_gradient(scores), tf.float32.min)
    highest = tf.gather(tf.math.unsorted_segment_max(counted, groups, size), groups)
    shifted = tf.where(rows > 0, scores - highest, 0.0)
    normalizer = tf.math.log(tf.maximum(sums(rows * tf.exp(shifted)), _TINY))
    positives = sums(positive)
    # The mean over positives of log(sum_j w_j exp(s_j)) - s_i.
    loss = normalizer - tf.math.divide_no_nan(sums(positive * shifted), positives)
    counts = (positives > 0) & (sums(negative) > 0)
    return tf.reduce_sum(tf.where(counts, sums(rows) * loss, 0.0))


def pairwise_logistic(
    groups: tf.Tensor, labels: tf.Tensor, scores: tf.Tensor, weights: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns the sum over groups of the weight of a group's rows times the mean loss of its pairs, float32 [].

    A pair is a positive row i and a negative row j of the group. Its weight is w_i w_j and its loss is
    log(1 + exp(s_j - s_i)), that of RankNet (Burges et al. 2005, "Learning to Rank using Gradient Descent", ICML,
    section 3). Time and memory are O(B^2).

    Args:
      groups: whole numbers [B].
      labels: 0 or 1, [B].
      scores: float32 [B], logits.
      weights: float32 [B], at least 0; None is 1 for all.
    """
    rows, positive, negative = _split(labels, weights)
    # [B, B]: 1 if row and column are of one group.
    same = tf.cast(groups[:, tf.newaxis] == groups[tf.newaxis, :], tf.float32)
    weight, positives, negatives = (tf.linalg.matvec(same, x) for x in (rows, positive, negative))
    # Of each positive row: its weight, times the weight of its group, divided by that of the pairs of its group.
    scale = tf.math.divide_no_nan(positive * weight, positives * negatives)
    losses = tf.nn.softplus(scores[tf.newaxis, :] - scores[:, tf.newaxis])
    return tf.reduce_sum(scale * tf.linalg.matvec(same * losses, negative))


LIST_LOSSES: Mapping[str, Callable[..., tf.Tensor]] = {
    "softmax": softmax_cross_entropy,
    "pairwise_logistic": pairwise_logistic,
}


class MixedLoss:
    """The log loss of the first label, mixed with a list loss (Sculley 2010, "Combined Regression and Ranking", KDD).

        (1 - weight) * log loss + weight * list loss

    Both are sums over rows: the loss of a group counts as many times as the group has rows, as in a mean over rows.

    Args:
      schema: of the model.
      list_loss: `none`, `softmax` (`softmax_cross_entropy`) or `pairwise_logistic`.
      weight: above 0; 1 leaves the log loss out.

    Raises:
      ValueError: the loss is unknown, the weight is not in (0, 1], the schema has no group, or its first label is no
        classification.
    """

    def __init__(self, schema: Schema, list_loss: str, weight: float) -> None:
        if list_loss not in get_args(ListLoss):
            raise ValueError(f"list_loss={list_loss!r}: choose {', '.join(get_args(ListLoss))}")
        if not 0 < weight <= 1:
            raise ValueError(f"list_loss_weight={weight}: a number above 0 and at most 1 is needed")
        if list_loss != "none" and schema.label.task != "classification":
            raise ValueError(
                f"list_loss={list_loss!r} ranks rows of label 1 above those of label 0, and label"
                f" {schema.label.column!r} is a {schema.label.task}; give the label a threshold, or choose none"
            )
        if list_loss != "none" and not schema.group:
            raise ValueError(
                f"list_loss={list_loss!r}: the schema has no group; name the column of the queries, sessions or users"
                " whose rows are ranked, as group, or choose none"
            )
        self._loss, self._weight = LIST_LOSSES.get(list_loss), weight

    def groups_of(self, features: Features) -> tf.Tensor | None:
        """Returns the group ids of a training batch, [B]; None without a list loss.

        Raises:
          ValueError: the batch has none, or they are no whole numbers.
        """
        if self._loss is None:
            return None
        if GROUP not in features:
            raise ValueError(
                "the list loss needs features['group'], int64 [B], the group of each row of a training batch; found"
                f" {', '.join(map(repr, features))}"
            )
        groups = tf.convert_to_tensor(features[GROUP])
        if not groups.dtype.is_integer:
            raise ValueError(
                f"features['group'] of dtype {groups.dtype.name}; whole numbers are needed, one for each group: number"
                " the groups, such as with pandas.factorize"
            )
        return groups

    def __call__(
        self,
        log_loss: tf.Tensor,
        groups: tf.Tensor | None,
        labels: tf.Tensor,
        scores: tf.Tensor,
        weights: tf.Tensor | None,
    ) -> tf.Tensor:
        """Returns the mixed loss of a batch, float32 [].

        Args:
          log_loss: float32 [], summed over rows.
          groups: the result of `groups_of`; None in evaluation, which is by the log loss.
          labels: [B, 1].
          scores: float32 [B, 1].
          weights: float32 [B, 1], or None.
        """
        if self._loss is None or groups is None:
            return log_loss
        columns = (labels, scores) if weights is None else (labels, scores, weights)
        list_loss = self._loss(tf.reshape(groups, [-1]), *(tf.reshape(x, [-1]) for x in columns))
        return list_loss if self._weight == 1 else (1 - self._weight) * log_loss + self._weight * list_loss


def _split(labels: tf.Tensor, weights: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the weights [B] of all rows, those of the positive rows and of the negative rows, with 0 for others."""
    positive = tf.cast(labels > 0, tf.float32)
    rows = tf.ones_like(positive) if weights is None else tf.cast(weights, tf.float32)
    return rows, rows * positive, rows * (1 - positive)


def _numbered(groups: tf.Tensor) -> tf.Tensor:
    """Returns numbers below B in place of group ids, int32 [B]."""
    order = tf.argsort(groups)
    ordered = tf.gather(groups, order)
    begins = tf.concat([tf.zeros_like(order[:1]), tf.cast(ordered[1:] != ordered[:-1], tf.int32)], axis=0)
    return tf.gather(tf.cumsum(begins), tf.argsort(order))
