"""The AUC of one column alone: of a number by its value, of a category by the label rates of its values.

Label rates come from other rows than those that they score. Otherwise a value that occurs once would carry its own
label, and a column of many rare values would look like a leak.
"""

from __future__ import annotations

import numpy as np

FOLDS = 5
# A value's label rate counts as if so many more rows had the mean label.
SMOOTHING = 10.0


def number_auc(labels: np.ndarray, numbers: np.ndarray) -> float:
    """Returns the AUC of numbers, or of their negatives if that is higher; nan if one class has no number.

    Args:
      labels: bool [N].
      numbers: float [N]; NaN is skipped.
    """
    present = np.isfinite(numbers)
    _, cells = np.unique(numbers[present], return_inverse=True)
    found = _cell_auc(labels[present], cells)
    return max(found, 1 - found)


def missing_auc(labels: np.ndarray, missing: np.ndarray) -> float:
    """Returns the AUC of knowing whether a value is missing, in the better direction; nan if all or none are.

    Args:
      labels: bool [N].
      missing: bool [N].
    """
    if missing.all() or not missing.any():
        return float("nan")
    found = _cell_auc(labels, missing.astype(np.int64))
    return max(found, 1 - found)


def category_auc(labels: np.ndarray, codes: np.ndarray, folds: np.ndarray) -> float:
    """Returns the AUC of the label rates of values, each taken over the other folds.

    The AUC is measured within each fold, since rates of different folds do not compare, and averaged over pairs.

    Args:
      labels: bool [N].
      codes: int [N], the value of each row; a missing one is a value.
      folds: int [N], from 0 to `FOLDS` - 1.
    """
    values, cells = np.unique(codes, return_inverse=True)
    counts = _by_fold(cells, folds, len(values), np.ones(len(cells)))
    positives = _by_fold(cells, folds, len(values), labels.astype(np.float64))
    area = pairs = 0.0
    for fold in range(FOLDS):
        rates = _rates(positives.sum(0) - positives[fold], counts.sum(0) - counts[fold])
        here = counts[fold] > 0
        _, order = np.unique(rates[here], return_inverse=True)
        of_fold = np.bincount(order, positives[fold, here]), np.bincount(order, (counts - positives)[fold, here])
        area, pairs = area + _area(*of_fold), pairs + float(of_fold[0].sum() * of_fold[1].sum())
    return area / pairs if pairs else float("nan")


def values_auc(labels: np.ndarray, codes: np.ndarray, splits: np.ndarray, folds: np.ndarray) -> float:
    """Returns the AUC of a multi-valued column: a row's score is the mean of its values' label rates.

    Args:
      labels: bool [N].
      codes: int [V], the values of all rows.
      splits: int [N + 1], where the values of each row begin, and the end.
      folds: int [N].
    """
    values, cells = np.unique(codes, return_inverse=True)
    lengths = np.diff(splits)
    row = np.repeat(np.arange(len(labels)), lengths)
    counts = _by_fold(cells, folds[row], len(values), np.ones(len(cells)))
    positives = _by_fold(cells, folds[row], len(values), labels[row].astype(np.float64))
    area = pairs = 0.0
    for fold in range(FOLDS):
        here, others = folds == fold, folds != fold
        rates = _rates(positives.sum(0) - positives[fold], counts.sum(0) - counts[fold])
        sums = np.bincount(row, rates[cells], len(labels))
        prior = labels[others].mean() if others.any() else 0.0
        scores = np.where(lengths > 0, sums / np.maximum(lengths, 1), prior)[here]
        _, order = np.unique(scores, return_inverse=True)
        y = labels[here].astype(np.float64)
        of_fold = np.bincount(order, y), np.bincount(order, 1 - y)
        area, pairs = area + _area(*of_fold), pairs + float(of_fold[0].sum() * of_fold[1].sum())
    return area / pairs if pairs else float("nan")


def _by_fold(cells: np.ndarray, folds: np.ndarray, size: int, weights: np.ndarray) -> np.ndarray:
    return np.bincount(folds * size + cells, weights, FOLDS * size).reshape(FOLDS, size)


def _rates(positives: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns smoothed label rates."""
    prior = positives.sum() / max(1.0, counts.sum())
    rates: np.ndarray = (positives + SMOOTHING * prior) / (counts + SMOOTHING)
    return rates


def _cell_auc(labels: np.ndarray, cells: np.ndarray) -> float:
    """Returns the AUC of rows whose score is the number of their cell."""
    y = labels.astype(np.float64)
    positives, negatives = np.bincount(cells, y), np.bincount(cells, 1 - y)
    pairs = float(positives.sum() * negatives.sum())
    return _area(positives, negatives) / pairs if pairs else float("nan")


def _area(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Counts the pairs in which a positive is in a higher cell than a negative; a tie counts half."""
    below = np.cumsum(negatives) - negatives
    return float(positives @ (below + negatives / 2))
