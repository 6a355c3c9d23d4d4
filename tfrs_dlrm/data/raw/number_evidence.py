"""Evidence in the values of a column of whole numbers, and in the label, of numbers or of names of things.

Numbers differ by amounts: neighbours in value are about as frequent as each other, and have about the same labels.
Names have frequencies and labels of their own, and their digits look drawn.
"""

from __future__ import annotations

import dataclasses

import numpy as np

_FOLDS = 4
# Row counts that a value's own rate is worth less than its neighbours' at; the best of them is taken.
_SHRINKAGE = (5.0, 20.0, 80.0)
# Fewer rows of one class say nothing about single values.
_ENOUGH_LABELS = 20
_ROUND = ("0", "5", "9")


@dataclasses.dataclass(frozen=True)
class ValueCounts:
    """The distinct whole numbers of a column.

    Attributes:
      values: float64 [values], ascending.
      counts: int64 [values], how many rows have each.
      rows: int64 [rows], the position in `values` of each row; -1 where it is missing.
    """

    values: np.ndarray
    counts: np.ndarray
    rows: np.ndarray

    @property
    def present(self) -> int:
        """The number of rows with a value."""
        return int(self.counts.sum())

    def is_drawn_once(self) -> bool:
        """Whether rows with one value follow each other, and values only grow, as numbers of sessions do."""
        rows = self.rows[self.rows >= 0]
        return bool(len(rows)) and bool((np.diff(rows) >= 0).all())

    def is_drawn_down(self) -> bool:
        """Whether values only fall from row to row."""
        rows = self.rows[self.rows >= 0]
        return bool(len(rows)) and bool((np.diff(rows) <= 0).all())

    def is_falling(self) -> bool:
        """Whether small values are far denser than large ones: half of the rows in an eighth of the range.

        0 does not count.
        """
        values, counts = self.values[self.values != 0], self.counts[self.values != 0]
        middle = values[np.searchsorted(counts.cumsum(), counts.sum() / 2)]
        return bool(middle - values[0] < (values[-1] - values[0]) / 8)

    def is_count(self) -> bool:
        """Whether values from 0 or 1 on become rarer step by step until hardly a row has the largest, as counts do."""
        values, counts = self.values, self.counts
        if len(values) < 6 or values[0] not in (0, 1):
            return False
        body = counts.cumsum() <= 0.98 * self.present
        peak, end = int(counts.argmax()), int(body.sum()) + 1
        falls = counts[peak + 1 :] <= counts[peak:-1] + 3 * np.sqrt(counts[peak:-1]) + 1
        together = bool((np.diff(values[:end]) == 1).all())
        return together and bool(falls.all()) and peak <= len(values) / 3 and bool(counts[-1] < 0.01 * self.present)

    def is_peaked(self) -> bool:
        """Whether different values become more numerous, then rarer, as they grow; drawn ids do neither."""
        top = self.values[int(0.99 * len(self.values))] if len(self.values) else 0.0
        if len(self.values) < 200 or top <= self.values[0]:
            return False
        found = np.histogram(self.values, 12, (self.values[0], top))[0].astype(float)
        noise = 3 * np.sqrt(found.max())
        peak = int(found.argmax())
        rises = (np.diff(found[: peak + 1]) >= -noise).all() and (np.diff(found[peak:]) <= noise).all()
        return bool(0 < peak < 11 and rises and found[0] < 0.7 * found.max() and found[-1] < 0.3 * found.max())

    def is_even(self) -> bool:
        """Whether the values are spread evenly between the smallest and the largest, as drawn digits are."""
        low, high = self.values[0], self.values[-1]
        if high <= low:
            return False
        share = self.counts.cumsum() / self.present
        distance = np.abs(share - (self.values - low) / (high - low)).max()
        return bool(distance < max(0.03, 2.0 / np.sqrt(self.present)))

    def step(self) -> int:
        """Returns the largest number that all differences of values are multiples of; at least 1."""
        return max(1, int(np.gcd.reduce(np.diff(self.values).astype(np.int64))))

    def lumps(self) -> float:
        """Returns the share of the rows that have a value far more frequent than the values around it.

        The smallest and the largest value do not count, nor 0: many numbers have a limit, and are often none. Lumps at
        round numbers are rounding, and do not count either.
        """
        values, counts = self.values, self.counts.astype(float)
        if len(values) < 8:
            return 0.0
        step = self.step()
        around = np.maximum(_density(values / step, counts), _density(-values[::-1] / step, counts[::-1])[::-1])
        inner = np.ones(len(values), bool)
        inner[[0, -1]] = False
        inner &= values != 0
        lump = inner & (counts > 4 * around + 4)
        heavy = values[lump]
        rounded = sum(str(int(abs(v))).endswith(_ROUND) for v in heavy[:2000].tolist())
        if not len(heavy) or (len(heavy) > 3 and rounded > 0.6 * min(len(heavy), 2000)):
            return 0.0
        return float(counts[lump].sum() / max(1.0, counts[inner].sum()))


def _density(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the rows per step at the three values before each: their median count over their mean distance."""
    padded = np.concatenate([np.full(3, np.nan), counts])
    before = np.stack([padded[i : i + len(counts)] for i in range(3)])
    places = np.concatenate([np.full(3, values[0]), values])[: len(counts)]
    known = np.minimum(np.arange(len(counts)), 3)
    with np.errstate(all="ignore"):
        middle = np.where(known > 0, np.nanmedian(np.where(known > 0, before, 0.0), axis=0), 0.0)
        return np.where(known > 0, middle * known / np.maximum(values - places, 1.0), 0.0)


@dataclasses.dataclass(frozen=True)
class LabelEvidence:
    """How well numbers and categories tell labels of rows that they were not fitted to. Log losses are in nats.

    Attributes:
      constant: the log loss of the mean.
      number: that of a smooth curve of the number.
      category: that of a rate for each value, drawn to the curve.
      number_sure: by how many standard errors the curve is better than the mean.
      category_sure: by how many standard errors rates are better than the curve.
    """

    constant: float
    number: float
    category: float
    number_sure: float
    category_sure: float


def label_evidence(column: ValueCounts, labels: np.ndarray) -> LabelEvidence | None:
    """Compares a curve of the number with a rate for each value, on rows that neither was fitted to.

    Args:
      column: the numbers.
      labels: float64 [rows], 0 or 1, NaN where there is none.

    Returns:
      What they tell of the label; None if there are too few labels of one class.
    """
    used = (column.rows >= 0) & ~np.isnan(labels)
    rows, y = column.rows[used], labels[used]
    if min(y.sum(), len(y) - y.sum()) < _ENOUGH_LABELS or len(column.values) < 3:
        return None
    folds = np.random.default_rng(0).integers(0, _FOLDS, len(labels))[used]
    places, shape = folds * len(column.values) + rows, (_FOLDS, len(column.values))
    size = shape[0] * shape[1]
    n = np.bincount(places, minlength=size).reshape(shape).astype(float)
    ones = np.bincount(places, y, minlength=size).reshape(shape)
    basis = _basis(column)
    rates = np.empty((2 + len(_SHRINKAGE), *shape))
    for fold in range(_FOLDS):
        seen, seen_ones = n.sum(0) - n[fold], ones.sum(0) - ones[fold]
        rates[0, fold] = seen_ones.sum() / seen.sum()
        rates[1, fold] = curve = _curve(basis, seen, seen_ones)
        for i, weight in enumerate(_SHRINKAGE, 2):
            rates[i, fold] = (seen_ones + weight * curve) / (seen + weight)
    rates = rates.clip(1e-6, 1 - 1e-6)
    loss_one, loss_zero = -np.log(rates), -np.log1p(-rates)
    losses = ((loss_one * ones + loss_zero * (n - ones)).sum((1, 2))) / len(y)
    best = 2 + int(losses[2:].argmin())

    def sure(better: int, worse: int) -> float:
        one, zero = loss_one[worse] - loss_one[better], loss_zero[worse] - loss_zero[better]
        mean = losses[worse] - losses[better]
        square = (one**2 * ones + zero**2 * (n - ones)).sum() / len(y)
        return float(mean / np.sqrt(max(square - mean**2, 1e-18) / len(y)))

    constant, number, category = (float(losses[i]) for i in (0, 1, best))
    return LabelEvidence(constant, number, category, sure(1, 0), sure(best, 1))


def _basis(column: ValueCounts) -> np.ndarray:
    """Returns what the curve is made of, [values, terms]: powers of the rank, and with many values bends of it."""
    rank = (column.counts.cumsum() - column.counts / 2) / column.present
    terms = [np.ones_like(rank), rank - 0.5]
    many = len(column.values)
    if many >= 6:
        terms.append((rank - 0.5) ** 2)
    bends = (0.2, 0.4, 0.6, 0.8) if many >= 24 else (0.33, 0.67) if many >= 12 else ()
    terms += [np.maximum(rank - bend, 0.0) for bend in bends]
    return np.stack(terms, axis=1)


def _curve(basis: np.ndarray, n: np.ndarray, ones: np.ndarray) -> np.ndarray:
    """Fits a logistic regression by Newton's method, and returns the probability at each value."""
    weights = np.zeros(basis.shape[1])
    mean = ones.sum() / n.sum()
    weights[0] = np.log(mean / (1 - mean)) if 0 < mean < 1 else 0.0
    ridge = np.eye(len(weights))
    ridge[0, 0] = 1e-6
    for _ in range(8):
        p = 1 / (1 + np.exp(-(basis @ weights).clip(-30, 30)))
        gradient = basis.T @ (ones - n * p) - ridge @ weights
        hessian = (basis * (n * p * (1 - p))[:, None]).T @ basis + ridge
        weights = weights + np.linalg.solve(hessian, gradient)
    return 1 / (1 + np.exp(-(basis @ weights).clip(-30, 30)))
