"""Metrics of a binary classifier over arrays in memory: exact, in float64, in NumPy.

Labels are 0 or 1, scores and logits finite floats, weights finite and not negative; each is [N] or [N, 1], of any
dtype. Without weights, every example weighs 1. All functions raise ValueError for other arguments. A metric that the
data do not define (an AUC of one class, anything over a total weight of 0) is nan.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Bins of the expected calibration error, here and in `keras_metrics`.
CALIBRATION_BINS = 20
_EDGES = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)[1:-1]


class Reliability(NamedTuple):
    """Predictions and labels by bin of the prediction: arrays [bins], one entry per non-empty bin.

    Attributes:
      weight: total weight of the bin's examples.
      effective_examples: weight squared over the sum of squared weights: with equal weights, the number of examples.
      prediction_mean: their weighted mean prediction.
      label_mean: their weighted mean label: the share of positives.
      label_variance: the weighted variance of their labels.
    """

    weight: Floats
    effective_examples: Floats
    prediction_mean: Floats
    label_mean: Floats
    label_variance: Floats


def exact_auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Returns the probability that a positive outscores a negative, both drawn by weight; a tie counts half.

    Logits are the better scores: probabilities give the same AUC only while they differ, and a float32 sigmoid maps
    all logits above 17 to 1. Costs one sort. The result is nan if only one class has weight.
    """
    return _area(*_roc(*as_columns(labels, scores, weights)))


def roc_curve(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Returns false and true positive rates, from (0, 0) to (1, 1): a point per distinct score, highest first.

    Returns:
      Two float64 [distinct scores + 1]; the rate of a class that has no weight is nan.
    """
    false_positives, true_positives = _roc(*as_columns(labels, scores, weights))
    with np.errstate(invalid="ignore"):
        return false_positives / false_positives[-1], true_positives / true_positives[-1]


def log_loss(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Returns the weighted mean of log(1 + exp(logit)) - label * logit, in nats."""
    y, z, w = as_columns(labels, logits, weights)
    return _mean(log_losses(y, z), w)


def reliability(
    labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None, edges: ArrayLike | None = None
) -> Reliability:
    """Compares predicted and observed click rates in bins of probability.

    Args:
      labels: 0 or 1.
      logits: of the predictions.
      weights: of the examples.
      edges: ascending probabilities that separate the bins; one that equals an edge belongs to the bin above it. By
        default 0.05, 0.1, ... 0.95: 20 bins of equal width.
    """
    y, z, w = as_columns(labels, logits, weights)
    return binned_means(y, sigmoid(z), w, _EDGES if edges is None else np.asarray(edges, np.float64))


def evaluate_scores(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None) -> dict[str, float]:
    """Returns all metrics of a model over a set of examples.

    Returns:
      In this order:
      - `examples`: the number of rows; `weight`: their total weight.
      - `label_mean`: the base rate; `prediction_mean`: the mean probability. Both weighted.
      - `auc`: see `exact_auc`. `log_loss`: see `log_loss`.
      - `normalized_entropy`: log loss over that of always predicting the base rate; below 1 is better than that
        (He et al. 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook", section 3).
      - `calibration`: prediction mean over label mean (ibid.); 1 is best, above 1 is too many predicted clicks.
      - `expected_calibration_error`: the mean over examples of |prediction mean - label mean| of their bin, in 20 bins
        of probability of equal width (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2). If
        clicks are rare, most examples share the first bin, and it says little more than `calibration`.
    """
    y, z, w = as_columns(labels, logits, weights)
    probabilities = sigmoid(z)
    base_rate, prediction_mean, loss = _mean(y, w), _mean(probabilities, w), _mean(log_losses(y, z), w)
    bins = binned_means(y, probabilities, w, _EDGES)
    return {
        "examples": len(y),
        "weight": float(w.sum()),
        "label_mean": base_rate,
        "prediction_mean": prediction_mean,
        "auc": _area(*_roc(y, z, w)),
        "log_loss": loss,
        "normalized_entropy": _ratio(loss, _entropy(base_rate)),
        "calibration": _ratio(prediction_mean, base_rate),
        "expected_calibration_error": _mean(np.abs(bins.prediction_mean - bins.label_mean), bins.weight),
    }


def sigmoid(logits: Floats) -> Floats:
    """Returns probabilities in float64, without overflow or warnings."""
    return np.exp(-np.logaddexp(0.0, -logits))


def as_columns(
    labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None, binary: bool = True
) -> tuple[Floats, Floats, Floats]:
    """Returns the arguments as float64 [N]; labels that are not `binary` may be any finite numbers.

    Raises:
      ValueError: an argument is not as the module docstring says, or the lengths differ.
    """
    y, z = _column("labels", labels), _column("scores", scores)
    w = np.ones(len(y)) if weights is None else _column("weights", weights)
    if not len(y) == len(z) == len(w):
        raise ValueError(f"{len(y)} labels, {len(z)} scores and {len(w)} weights; give one of each per example")
    for name, column, allowed, wish in (
        ("label", y, (y == 0) | (y == 1) if binary else np.isfinite(y), "0 or 1" if binary else "a finite number"),
        ("score", z, np.isfinite(z), "a finite number; has the model diverged?"),
        ("weight", w, np.isfinite(w) & (w >= 0), "a finite number of at least 0"),
    ):
        if not allowed.all():
            row = int(np.argmin(allowed))
            raise ValueError(f"{name} of example {row} is {column[row]}; expected {wish}")
    return y, z, w


def _column(name: str, values: ArrayLike) -> Floats:
    array = np.asarray(values)
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise ValueError(f"{name} have shape {list(array.shape)}; expected [N] or [N, 1]")
    return array.reshape(-1).astype(np.float64)


def _roc(y: Floats, z: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Returns the weight of negatives and of positives at or above each distinct score, highest first, after a 0."""
    order = np.argsort(-z)
    y, z, w = y[order], z[order], w[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(z)), np.arange(len(z))[-1:])
    false_positives = np.cumsum(w * (1.0 - y))[last_of_ties]
    true_positives = np.cumsum(w * y)[last_of_ties]
    return np.append(0.0, false_positives), np.append(0.0, true_positives)


def _area(false_positives: Floats, true_positives: Floats) -> float:
    """Returns the area under the curve as a share of its box; a straight line across a tie counts it half."""
    heights = (true_positives[1:] + true_positives[:-1]) / 2.0
    return _ratio(float(np.diff(false_positives) @ heights), float(false_positives[-1] * true_positives[-1]))


def log_losses(y: Floats, z: Floats) -> Floats:
    """Returns log(1 + exp(logit)) - label * logit of each example."""
    return np.logaddexp(0.0, z) - y * z


def binned_means(y: Floats, predictions: Floats, w: Floats, edges: Floats) -> Reliability:
    """Compares labels and predictions of any kind in bins of the prediction, which ascending `edges` separate."""
    index = np.searchsorted(edges, predictions, side="right")

    def total(values: Floats) -> Floats:
        return np.bincount(index, values, len(edges) + 1).astype(np.float64)

    weight = total(w)
    kept = weight > 0
    divisor = np.where(kept, weight, 1.0)
    label_mean = total(w * y) / divisor
    columns = (
        weight,
        weight**2 / np.where(kept, total(w**2), 1.0),
        total(w * predictions) / divisor,
        label_mean,
        total(w * (y - label_mean[index]) ** 2) / divisor,
    )
    return Reliability(*(column[kept] for column in columns))


def _entropy(rate: float) -> float:
    """Returns the entropy of a click, in nats."""
    return float(-rate * np.log(rate) - (1.0 - rate) * np.log1p(-rate)) if 0.0 < rate < 1.0 else 0.0


def _mean(values: Floats, w: Floats) -> float:
    return _ratio(float((values * w).sum()), float(w.sum()))


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0.0 else np.nan
