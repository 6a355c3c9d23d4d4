"""Curves from a logit to one that is calibrated, fitted to labels, in NumPy.

Both kinds rise strictly, so they keep the order of examples: an AUC stays as it is.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tfrs_dlrm.metrics.exact import Floats, as_columns, log_losses, sigmoid

Method = Literal["platt", "isotonic"]
# In logits. Nearer blocks are joined, or a curve would be so steep that rounding of logits shows in probabilities.
_LEAST_DISTANCE = 0.05


@dataclasses.dataclass(frozen=True)
class Curve:
    """A rising function of a logit, made of lines: values[i] + slopes[i] * (logit - starts[i]) from starts[i] on.

    The first line also holds below its start, and the last one has no end.

    Attributes:
      starts: of the lines, ascending.
      values: at the starts.
      slopes: of the lines.
    """

    starts: tuple[float, ...] = (0.0,)
    values: tuple[float, ...] = (0.0,)
    slopes: tuple[float, ...] = (1.0,)

    def __call__(self, logits: ArrayLike) -> Floats:
        """Returns calibrated logits, float64 of the same shape."""
        z = np.asarray(logits, np.float64)
        starts, values, slopes = map(np.array, (self.starts, self.values, self.slopes))
        line = np.maximum(np.searchsorted(starts, z, side="right") - 1, 0)
        return np.asarray(values[line] + slopes[line] * (z - starts[line]), np.float64)


class Blocks(NamedTuple):
    """Examples of neighbouring logits that share a probability; arrays [blocks], in the order of the logits.

    Attributes:
      center: their weighted mean logit.
      rate: their weighted mean label.
      weight: their total weight.
    """

    center: Floats
    rate: Floats
    weight: Floats


def fit_curve(method: Method, labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None) -> Curve:
    """Fits a curve; see `platt` and `isotonic`.

    Raises:
      ValueError: a class has no weight, or, for `platt`, higher logits have fewer positives.
    """
    return (platt if method == "platt" else isotonic)(labels, logits, weights)


def platt(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None) -> Curve:
    """Fits a line by the log loss: a logistic regression on the logit.

    Labels are drawn towards each other by as much as one example of each class weighs, so that there is a line for
    separable classes, too (Platt 1999, "Probabilistic Outputs for Support Vector Machines", section 2.2).

    Raises:
      ValueError: a class has no weight, or higher logits have fewer positives.
    """
    y, z, w = _columns(labels, logits, weights)
    positive = float(w @ y)
    targets = np.where(y > 0, (positive + 1) / (positive + 2), 1 / (float(w.sum()) - positive + 2))
    inputs, line = np.stack([z, np.ones_like(z)]), np.array([1.0, 0.0])
    for _ in range(100):  # Newton's method, of a convex function
        p = sigmoid(line @ inputs)
        curvature = (inputs * (w * p * (1 - p))) @ inputs.T + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, inputs @ (w * (p - targets)))
        loss, factor = float(w @ log_losses(targets, line @ inputs)), 1.0
        while factor > 1e-6 and float(w @ log_losses(targets, (line - factor * step) @ inputs)) > loss:
            factor /= 2
        line = line - factor * step
        if np.abs(step).max() < 1e-9:
            break
    slope, intercept = map(float, line)
    if slope <= 0:
        raise ValueError(f"higher logits have fewer positives (slope {slope:.3g}); calibrate a model that ranks")
    return Curve((0.0,), (intercept,), (slope,))


def isotonic(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None) -> Curve:
    """Fits rising probabilities by isotonic regression, and joins the centers of its blocks by lines in the logit.

    Steps of isotonic regression make ties; lines between the centers do not (Oron and Flournoy 2017, "Centered Isotonic
    Regression", arXiv 1701.05964). Beyond the outermost centers the slope is 1. Rates of 0 and 1 become those of half
    an example more.

    Raises:
      ValueError: a class has no weight.
    """
    blocks = _apart(isotonic_blocks(*_columns(labels, logits, weights)))
    values = np.log(rates := _inside(blocks)) - np.log1p(-rates)
    slopes = np.diff(values) / np.diff(blocks.center)
    starts = [blocks.center[0], *blocks.center]
    return Curve(tuple(map(float, starts)), (float(values[0]), *map(float, values)), (1.0, *map(float, slopes), 1.0))


def isotonic_blocks(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None) -> Blocks:
    """Returns the blocks of isotonic regression, whose rates rise strictly, by pooling adjacent violators."""
    y, z, w = as_columns(labels, logits, weights)
    order = np.argsort(z[w > 0], kind="stable")
    y, z, w = y[w > 0][order], z[w > 0][order], w[w > 0][order]
    first = np.flatnonzero(np.diff(z, prepend=-np.inf) > 0)  # equal logits are one example
    columns = [np.add.reduceat(x, first) if len(first) else x for x in (w, w * y, w * z)]
    stack: list[tuple[float, float, float]] = []  # weight, positives, weighted logit
    for block in zip(*(column.tolist() for column in columns), strict=True):
        while stack and stack[-1][1] * block[0] >= block[1] * stack[-1][0]:
            block = tuple(a + b for a, b in zip(stack.pop(), block, strict=True))
        stack.append(block)
    weight, positives, logit = np.array(stack, np.float64).reshape(-1, 3).T
    return Blocks(logit / weight, positives / weight, weight)


def _columns(labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    y, z, w = as_columns(labels, logits, weights)
    positive, total = float(w @ y), float(w.sum())
    if not 0 < positive < total:
        raise ValueError(f"positives weigh {positive:g} of {total:g}; a calibration needs both classes")
    return y, z, w


def _apart(blocks: Blocks) -> Blocks:
    """Joins blocks whose centers are near."""
    joined: list[tuple[float, float, float]] = []
    for center, rate, weight in zip(*(x.tolist() for x in blocks), strict=True):
        block = (center, rate, weight)
        while joined and block[0] - joined[-1][0] < _LEAST_DISTANCE:
            (c, r, w), (center, rate, weight) = joined.pop(), block
            total = w + weight
            block = ((c * w + center * weight) / total, (r * w + rate * weight) / total, total)
        joined.append(block)
    return Blocks(*np.array(joined, np.float64).T)


def _inside(blocks: Blocks) -> Floats:
    """Returns the rates, of which the first may be 0 and the last 1, within these bounds and still rising."""
    rates = blocks.rate.copy()
    if rates[0] == 0:
        least = 0.5 / (blocks.weight[0] + 1)
        rates[0] = min(least, rates[1] / 2) if len(rates) > 1 else least
    if rates[-1] == 1:
        least = 0.5 / (blocks.weight[-1] + 1)
        rates[-1] = 1 - (min(least, (1 - rates[-2]) / 2) if len(rates) > 1 else least)
    return rates
