"""Labels that come after another one and are missing in some rows where that one is 1.

Where the earlier label is 0, the later one is known to be 0. If rows that have the earlier label and lack the later
one were only left out, most known rows would be those zeros, and the rate of the later label would be learned and
measured too low. Both functions take it that the later label is missing at random: in training among the rows of equal
features that have a 1 of the earlier label, in metrics among all rows that have it.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

Earlier = Sequence[int | None]


def expected_labels(labels: tf.Tensor, scores: tf.Tensor, earlier: Earlier) -> tf.Tensor:
    """Returns labels [B, L] in which a missing one that comes after another is what the model expects of it.

    That is its rate, the probability if the earlier label is 1, times the earlier label. It has no gradient. Training
    is then an expectation-maximization: where predictions no longer change, the rate is that of the known labels.

    Args:
      labels: float32 [B, L]; NaN is missing.
      scores: float32 [B, L], the logits of the probabilities among all rows.
      earlier: for each label the position of the one that it comes after, or None.
    """
    columns = tf.unstack(labels, axis=1)
    log_probabilities = tf.unstack(tf.math.log_sigmoid(tf.stop_gradient(scores)), axis=1)
    for i, before in enumerate(earlier):
        if before is not None:
            rate = tf.exp(tf.minimum(log_probabilities[i] - log_probabilities[before], 0.0))
            columns[i] = tf.where(tf.math.is_finite(columns[i]), columns[i], rate * columns[before])
    return tf.stack(columns, axis=1)


def weights_of_known(labels: tf.Tensor, weights: tf.Tensor, earlier: Earlier) -> tf.Tensor:
    """Returns the weights of rows for the metrics of each label, [B, L]; 0 where the label is missing.

    Of a label that comes after another, rows with a 1 of the earlier label also stand for those that lack the later
    one: together they weigh as much as all rows with that 1.

    Args:
      labels: [B, L] of a float type; NaN is missing.
      weights: of the rows, [B] of the same type.
      earlier: see `expected_labels`.
    """
    found: list[tf.Tensor] = []
    for column, before in zip(tf.unstack(labels, axis=1), earlier, strict=True):
        known = tf.math.is_finite(column)
        if before is None:
            found.append(tf.where(known, weights, tf.zeros_like(weights)))
            continue
        mine = tf.where(known, found[before], tf.zeros_like(weights))
        having = tf.cast(labels[:, before] == 1, labels.dtype)
        stands_for = tf.math.divide_no_nan(tf.reduce_sum(having * found[before]), tf.reduce_sum(having * mine))
        found.append(tf.where(having > 0, mine * stands_for, mine))
    return tf.stack(found, axis=1)
