"""Calibrates the checkpoint of a run: fits curves to a part of the evaluation rows, and measures them on the others."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.encoding.row_names import categorical_feature
from tfrs_dlrm.data.preparing.manifest import PreparedManifest, prepared_fingerprint
from tfrs_dlrm.data.reading.row_groups import looked_up
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.metrics.calibrators import Curve, Method, fit_curve
from tfrs_dlrm.metrics.exact import Floats, binned_means, sigmoid
from tfrs_dlrm.models.calibration import Calibration
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.training.evaluation import Scores, score
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.inputs import evaluation_dataset
from tfrs_dlrm.training.run_calibration import RunCalibration
from tfrs_dlrm.training.workdir import Which, Workdir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEWEST_OF_A_CLASS = 20
_BINS = 20


@dataclasses.dataclass(frozen=True)
class CalibrationOptions:
    """How to calibrate.

    Attributes:
      method: `platt`, a line through the logits, for which hundreds of clicks are enough; or `isotonic`, a rising curve
        of many lines, for thousands.
      by: a feature with one value: frequent values of it get curves of their own.
      min_examples: how many fitted rows such a value has at least, 20 of each class among them. All other rows
        share the curve that is fitted to all.
      label: the name of a label; by default the first.
      share: of the evaluation rows to fit on; the others measure the result.
      seed: of the draw of these rows.
    """

    method: Method = "platt"
    by: str = ""
    min_examples: int = 1000
    label: str = ""
    share: float = 0.5
    seed: int = 0

    def check(self) -> None:
        """Raises a ValueError if a field is out of its range."""
        if self.method not in ("platt", "isotonic"):
            raise ValueError(f"method={self.method!r} is neither 'platt' nor 'isotonic'")
        if not 0 < self.share < 1:
            raise ValueError(f"share={self.share}: a share between 0 and 1 is needed, since the other rows measure")
        if self.min_examples < 1:
            raise ValueError(f"min_examples={self.min_examples}: at least 1 is needed")


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """A calibration, and what it does to rows that it was not fitted on.

    Attributes:
      found: the calibration of the run.
      values: how many values of the feature `by` those rows have.
      labels: of the rows, [N].
      before: their logits, [N].
      after: their calibrated logits, [N].
      weights: of the rows, or None.
    """

    found: RunCalibration
    values: int
    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray
    weights: np.ndarray | None

    def figure(self) -> Figure:
        """Draws the calibration after and before."""
        from tfrs_dlrm.plots import calibration as calibration_figure

        before = {"before": sigmoid(self.before.astype(np.float64))}
        after = sigmoid(self.after.astype(np.float64))
        return calibration_figure(self.labels, after, self.weights, before, name="calibrated")


@checked
def calibrate(
    workdir: str,
    options: CalibrationOptions = CalibrationOptions(),
    data: str = "",
    which: Which = "best",
    progress: Callable[[int], None] | None = None,
) -> Calibrated:
    """Fits a calibration; nothing is written.

    Args:
      workdir: the directory of the run.
      options: how.
      data: a prepared directory with evaluation rows; by default the one that the run trained on.
      which: the `best` checkpoint or the `latest`.
      progress: as in `score`.

    Raises:
      FileNotFoundError: the run, its checkpoint or the data do not exist.
      ValueError: the data have another schema or vocabulary than the checkpoint, or no evaluation rows; the label is no
        classification; the feature does not exist or has several values; or the rows to fit have too few of a class.
    """
    options.check()
    home = Workdir(workdir)
    schema = home.schema()
    number = schema.label_number(options.label)
    _check_label_and_feature(schema, number, options.by)
    name = data or home.config().data.path
    data = local_copy(name)
    manifest = PreparedManifest.load(data)
    home.check_data(data)
    manifest.shards("eval")  # raises if there are none
    model, config, checkpoint = load_run(workdir, which, calibrated=False)
    scores = score(model, evaluation_dataset(data, config.train.eval_batch_size), progress).of_label(number)
    rows = _rows(data, options.by)
    if scores.examples is not None and rows is not None:
        rows = rows[scores.examples]
    found = RunCalibration(
        Calibration(options.method, (Curve(),), number),
        *(os.path.basename(checkpoint), name, prepared_fingerprint(data), options.share, options.seed, {}),
    )
    fitted = found.fitted(manifest.rows("eval"))
    fitted = fitted if scores.examples is None else fitted[scores.examples]
    curves, own = _curves(options, scores.where(fitted), None if rows is None else rows[fitted])
    calibration = Calibration(options.method, curves, number, options.by, own)
    others = scores.where(~fitted)
    rest = None if rows is None else rows[~fitted]
    single = tf.constant(others.logits, tf.float32)
    after = calibration(single, None if rest is None else tf.constant(rest)).numpy()
    metrics = {"before": _metrics(others, others.logits), "after": _metrics(others, after)}
    found = dataclasses.replace(found, calibration=calibration, metrics=metrics)
    values = 0 if rest is None else len(np.unique(rest))
    return Calibrated(found, values, others.labels, others.logits, after, others.weights)


def _check_label_and_feature(schema: Schema, number: int, by: str) -> None:
    label = schema.labels[number]
    if label.task != "classification":
        raise ValueError(f"label {label.name or label.column!r} is a number; only probabilities are calibrated")
    if by and categorical_feature(schema, by).multi_valued:
        names = ", ".join(f.name for f in schema.one_hot)
        raise ValueError(f"by={by!r}: an example has several values of it; choose a feature with one: {names}")


def _rows(data: str, feature: str) -> np.ndarray | None:
    """Returns the row of the feature's table of each evaluation row, int [N]."""
    return np.concatenate([rows for rows, _ in looked_up(data, "eval", feature)]) if feature else None


def _curves(
    options: CalibrationOptions, scores: Scores, rows: np.ndarray | None
) -> tuple[tuple[Curve, ...], tuple[int, ...]]:
    """Returns the curve of all rows, then those of the values with enough; and these values."""
    few = _few(scores.labels)
    if few < _FEWEST_OF_A_CLASS:
        raise ValueError(
            f"{len(scores.labels):,} rows to fit on have {few} of a class; at least {_FEWEST_OF_A_CLASS} are needed:"
            " give a larger share, or prepare more evaluation rows"
        )
    curves = [fit_curve(options.method, scores.labels, scores.logits, scores.weights)]
    own: list[int] = []
    values, counts = np.unique([] if rows is None else rows, return_counts=True)
    for value in values[counts >= options.min_examples].astype(np.int64).tolist():
        group = scores.where(rows == value)
        if _few(group.labels) >= _FEWEST_OF_A_CLASS:
            try:
                curves.append(fit_curve(options.method, group.labels, group.logits, group.weights))
            except ValueError:  # the model does not rank this group
                continue
            own.append(value)
    return tuple(curves), tuple(own)


def _few(labels: np.ndarray) -> int:
    """Returns the number of rows of the rarer class."""
    positives = int(labels.sum())
    return min(positives, len(labels) - positives)


def _metrics(scores: Scores, logits: np.ndarray) -> dict[str, float]:
    """Returns the metrics of a label, and a calibration error by bins of equally many examples.

    Bins of equal width, those of `expected_calibration_error`, hold nearly all rows in one if clicks are rare.
    """
    found = scores.task.evaluate(scores.labels, logits, scores.weights)
    p: Floats = sigmoid(np.asarray(logits, np.float64))
    weights = np.ones(len(p)) if scores.weights is None else scores.weights.astype(np.float64)
    edges = np.unique(np.quantile(p, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = binned_means(scores.labels.astype(np.float64), p, weights, edges)
    distance = np.abs(bins.prediction_mean - bins.label_mean)
    return found | {"calibration_error_of_equal_bins": float(distance @ bins.weight / bins.weight.sum())}
