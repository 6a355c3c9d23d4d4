"""The labels of a schema together: their tasks, and the labels that come after another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.models.tasks import BinaryClassification, Task, task_of
from tfrs_dlrm.schema import Label, Schema
from tfrs_dlrm.schema.label_order import rate_name

# A smaller probability divides as this one.
_LEAST_PROBABILITY = 1e-37


class Tasks:
    """The tasks of all labels of a schema.

    Predictions are [B] for one label, and [B, L] for L labels.

    Of a label that comes `after` another, such as a purchase after a click, the output of `compute_logits` is the logit
    of its rate, the probability among the rows in which the earlier label is 1. Its probability among all rows is
    that times the probability of the earlier label, and this is what score, loss and metrics are of:

        P(purchase) = sigmoid(output of the click) * sigmoid(output of the purchase)

    So the rate is learned from all rows. From clicked rows alone, a model would learn it of the users and items that
    are clicked, and not of those that it is asked about (Ma et al. 2018, "Entire Space Multi-Task Model: An Effective
    Approach for Estimating Post-Click Conversion Rate", arXiv 1804.07931). If the log lacks purchases of some clicked
    rows, see `tfrs_dlrm.models.missing_labels`.

    Args:
      schema: of the model.

    Attributes:
      first: the task of `schema.label`.
      more: the tasks of `schema.more_labels`, by name.
      loss_weights: the factor of each label's loss.
      earlier: for each label the position of the one that it comes after, or None.
    """

    def __init__(self, schema: Schema) -> None:
        self.first = task_of(schema.label)
        self.more = {label.name: task_of(label) for label in schema.more_labels}
        self.loss_weights = [label.loss_weight for label in schema.labels]
        self.earlier, self._labels = schema.earlier_labels, schema.labels
        # By the position of a label that comes after another: that of the other, and the name of the rate.
        named = zip(self.earlier, schema.labels, strict=True)
        self._rates = {i: (x, f"_{rate_name(label)}") for i, (x, label) in enumerate(named) if x is not None}

    @property
    def all(self) -> tuple[Task, ...]:
        """The tasks in the order of the labels."""
        return (self.first, *self.more.values())

    @property
    def first_outputs(self) -> list[float]:
        """Where the outputs of `compute_logits` begin: see `Task.first_output`."""
        return [
            task.first_output if earlier is None else _first_output(label, self._labels[earlier])
            for task, label, earlier in zip(self.all, self._labels, self.earlier, strict=True)
        ]

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The endings of each label's metrics and outputs: empty for the first label, `_NAME` for others."""
        return ("", *(f"_{name}" for name in self.more))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the labels' answers in the signatures of an exported model."""
        return tuple(task.output + suffix for task, suffix in zip(self.all, self.suffixes, strict=True))

    @property
    def rates(self) -> dict[str, int]:
        """The names of the rates in these signatures, each with the position of its label."""
        return {self.all[i].output + suffix: i for i, (_, suffix) in self._rates.items()}

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics of a progress line."""
        return (*self.first.shown, *(f"{task.best}_{name}" for name, task in self.more.items()))

    def scores(self, outputs: tf.Tensor, calibrated: Callable[[int, tf.Tensor], tf.Tensor] | None = None) -> tf.Tensor:
        """Returns the scores of each label.

        Args:
          outputs: of `compute_logits`.
          calibrated: gives the scores [B] of a label, by its position, for those without calibration. Labels that come
            after a calibrated one are products with its calibrated probability, so that their rates stay the same.
        """
        found: list[tf.Tensor] = []
        for task, column, earlier in zip(self.all, self.columns(outputs), self.earlier, strict=True):
            scores = task.scores(column)
            scores = scores if earlier is None else _logit_of_both(found[earlier], scores)
            found.append(calibrated(len(found), scores) if calibrated else scores)
        return self._joined(found)

    def served(self, scores: tf.Tensor) -> tf.Tensor:
        """Applies `Task.served` to each label's column."""
        columns = zip(self.all, self.columns(scores), strict=True)
        return self._joined([task.served(column) for task, column in columns])

    def named(self, served: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns answers by the names of `outputs` and `rates`."""
        return dict(zip((*self.outputs, *self.rates), self.with_rates(served).values(), strict=True))

    def with_rates(self, served: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the answers for each label by `suffixes`, and the rates of those that come after another.

        Args:
          served: what `served` returns, [B] or [B, L].
        """
        columns = self.columns(served)
        rates = {suffix: _rate(columns[i], columns[before]) for i, (before, suffix) in self._rates.items()}
        return dict(zip(self.suffixes, columns, strict=True)) | rates

    def over_all_rows(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns labels [B, L] in which those that come after another are 0 where that one is, also if missing."""
        if not self._rates:
            return labels
        columns = tf.unstack(labels, axis=1)
        for i, earlier in enumerate(self.earlier):
            if earlier is not None:
                columns[i] = tf.where(columns[earlier] == 0, tf.zeros_like(columns[i]), columns[i])
        return tf.stack(columns, axis=1)

    def columns(self, values: tf.Tensor) -> list[tf.Tensor]:
        """Splits predictions into a tensor per label."""
        return tf.unstack(values, axis=-1) if self.more else [values]

    def _joined(self, columns: list[tf.Tensor]) -> tf.Tensor:
        return tf.stack(columns, axis=-1) if self.more else columns[0]


def _logit_of_both(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns the logit of the product of two probabilities that are given as logits, [B].

    (1 - p q) / (p q) = e^-a + e^-b + e^-(a + b), which takes no difference of numbers that are nearly equal.
    """
    terms = (-first, -second, -first - second)
    largest = tf.maximum(tf.maximum(terms[0], terms[1]), terms[2])
    return -largest - tf.math.log(tf.add_n([tf.exp(term - largest) for term in terms]))


def _rate(probability: tf.Tensor, earlier: tf.Tensor) -> tf.Tensor:
    """Returns the probability of a label among the rows with a 1 of the label before it, from those among all rows."""
    # The curve of a calibrated label may cross the probability of the label before it.
    return tf.minimum(probability / tf.maximum(earlier, _LEAST_PROBABILITY), 1.0)


def _first_output(label: Label, earlier: Label) -> float:
    """Returns where the output of a label begins that is learned among the rows with a 1 of the label before it."""
    share = min(label.mean / earlier.mean, 1.0) if earlier.mean else 0.0
    return BinaryClassification(share).first_output


def of_labels(argument: str, given: Mapping[str, Any], schema: Schema) -> list[Any]:
    """Returns what a mapping by label name gives each label of a schema; None for labels that it does not name.

    Raises:
      ValueError: the mapping names a label that the schema does not have; `argument` begins the message.
    """
    names = [label_name(label) for label in schema.labels]
    for name in given:
        if name not in names:
            mend = did_you_mean(str(name), names) or f"the labels are {names}"
            raise ValueError(f"{argument}: no label is called {name!r}; {mend}")
    return [given.get(name) for name in names]


def label_name(label: Label) -> str:
    """Returns the name of a label; the first label has that of its column, unless it is given another."""
    return label.name or label.column
