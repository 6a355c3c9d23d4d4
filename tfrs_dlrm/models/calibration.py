"""The calibration of a trained model: curves that its logits go through, in the graph of the model and of a bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.metrics.calibrators import Curve, Method
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.schema.plain import build, plain


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Curves for the logits of one label.

    Attributes:
      method: how they were fitted.
      curves: the first for all examples, then one for each of `rows`.
      label: the position of the label in the schema.
      feature: a feature with one value, if some of its values have curves of their own.
      rows: these values: rows of the feature's table, ascending.
    """

    method: Method
    curves: tuple[Curve, ...]
    label: int = 0
    feature: str = ""
    rows: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return dict(plain(self))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """Reads the result of `to_dict`.

        Raises:
          ValueError: a field is missing, unknown or of a wrong type.
        """
        return build(cls, content, "calibration")

    def check(self, schema: Schema) -> None:
        """Makes sure that the calibration is of a model with this schema.

        Raises:
          ValueError: it is not.
        """
        labels = [label.task for label in schema.labels]
        names = [f.name for f in schema.one_hot]
        if not self.label < len(labels) or labels[self.label] != "classification":
            raise ValueError(f"the calibration is of label {self.label}, which is no classification of this model")
        if self.feature and self.feature not in names:
            raise ValueError(f"the calibration is by {self.feature!r}; the features with one value are {names}")
        if len(self.curves) != 1 + len(self.rows):
            raise ValueError(f"{len(self.curves)} curves for {len(self.rows)} values and all others")

    def rows_of(self, features: Mapping[str, Any], schema: Schema) -> tf.Tensor | None:
        """Returns the rows of `feature` in encoded features of a part of a schema, int [B]; None if it has none."""
        names = [f.name for f in schema.one_hot]
        return features["ids"][:, names.index(self.feature)] if self.feature in names else None

    def by_label(self, rows: tf.Tensor | None = None) -> Callable[[int, tf.Tensor], tf.Tensor]:
        """Returns a function of the position of a label and its scores [B], for `Tasks.scores`.

        Args:
          rows: as in `__call__`.
        """
        return lambda number, scores: self(scores, rows) if number == self.label else scores

    def __call__(self, logits: tf.Tensor, rows: tf.Tensor | None = None) -> tf.Tensor:
        """Returns calibrated scores of the label, float32 [B].

        Args:
          logits: its scores, float32 [B].
          rows: int [B], the rows of `feature`, if there is one.
        """
        starts = _padded([c.starts for c in self.curves], np.inf)
        values, slopes = (_padded([getattr(c, name) for c in self.curves], 0.0) for name in ("values", "slopes"))
        curve = self._curve(logits, rows)
        line = tf.reduce_sum(tf.cast(tf.gather(starts, curve) <= logits[:, tf.newaxis], tf.int32), axis=1)
        place = curve * starts.shape[1] + tf.maximum(line - 1, 0)
        start, value, slope = (tf.gather(x.reshape(-1), place) for x in (starts, values, slopes))
        return value + slope * (logits - start)

    def _curve(self, logits: tf.Tensor, rows: tf.Tensor | None) -> tf.Tensor:
        """Returns the curve of each example, int32 [B]."""
        if rows is None or not self.rows:
            return tf.zeros_like(logits, tf.int32)
        known = np.array(self.rows, np.int64)
        rows = tf.cast(rows, tf.int64)
        place = tf.minimum(tf.searchsorted(known, rows), len(known) - 1)
        return tf.where(tf.gather(known, place) == rows, place + 1, 0)


def _padded(columns: list[tuple[float, ...]], fill: float) -> np.ndarray:
    """Returns float32 [curves, lines]."""
    width = max(map(len, columns))
    return np.array([[*column, *[fill] * (width - len(column))] for column in columns], np.float32)
