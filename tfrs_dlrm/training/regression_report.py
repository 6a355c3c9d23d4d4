"""The picture of how predicted numbers compare with the labels."""

from __future__ import annotations

import os

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from tfrs_dlrm.metrics.exact import Floats, as_columns
from tfrs_dlrm.training.evaluation_report import COLORS, GREY, dress, panels, say_undefined

_GROUPS, _BARS = 20, 60


def regression_picture(
    path: str | os.PathLike[str],
    labels: ArrayLike,
    predictions: ArrayLike,
    weights: ArrayLike | None = None,
    title: str = "",
) -> None:
    """Draws one PNG of 1500 x 500 pixels; the file appears whole or not at all.

    Left: labels against predictions, darker where more examples are. Middle: the mean label of up to 20 groups of
    about as many examples each, by prediction, with bars of two standard errors. Right: the distribution of the errors.
    The outermost thousandth of labels, predictions and errors is left out of the first and the last.

    Args:
      path: of the PNG; its folder exists.
      labels: finite numbers, [N].
      predictions: float32 [N].
      weights: [N]; None is 1 for all.
      title: above the panels.

    Raises:
      ValueError: as `tfrs_dlrm.metrics.evaluate_predictions`.
    """
    y, z, w = as_columns(labels, predictions, weights, binary=False)
    seen = w > 0
    y, z, w = y[seen], z[seen], w[seen]
    with panels(path, title) as (left, middle, right):
        dress(left, "Labels and predictions", "prediction", "label")
        dress(middle, "Calibration", "mean prediction", "mean label")
        dress(right, "Errors", "prediction - label", "density")
        if len(y):
            _draw_pairs(left, y, z, w)
            _draw_groups(middle, y, z, w)
            _draw_errors(right, z - y, w)
        else:
            for axes in (left, middle, right):
                say_undefined(axes, y)


def _draw_pairs(axes: Axes, y: Floats, z: Floats, w: Floats) -> None:
    edges = [_edges(values) for values in (z, y)]
    counts, _, _ = np.histogram2d(z, y, edges, weights=w)
    axes.pcolormesh(*edges, np.sqrt(counts.T), cmap="Blues")
    low, high = max(e[0] for e in edges), min(e[-1] for e in edges)
    if low < high:
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle=":")


def _draw_groups(axes: Axes, y: Floats, z: Floats, w: Floats) -> None:
    groups = min(_GROUPS, max(2, len(z) // 5))
    index = np.searchsorted(np.unique(np.quantile(z, np.linspace(0, 1, groups + 1)[1:-1])), z, side="right")

    def total(values: Floats) -> Floats:
        return np.bincount(index, values).astype(np.float64)

    weight = total(w)
    kept = weight > 0
    weight = weight[kept]
    prediction, label, square = (total(w * values)[kept] / weight for values in (z, y, y * y))
    effective = weight**2 / total(w**2)[kept]
    bars = 2 * np.sqrt(np.maximum(0, square - label**2) / effective)
    ends = [min(prediction.min(), label.min()), max(prediction.max(), label.max())]
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle=":")
    axes.errorbar(prediction, label, bars, fmt="o-", markersize=4, linewidth=1, color=COLORS[0])


def _draw_errors(axes: Axes, errors: Floats, w: Floats) -> None:
    heights, edges = np.histogram(errors, _edges(errors), weights=w, density=True)
    rmse, mae = np.sqrt(np.average(errors**2, weights=w)), np.average(np.abs(errors), weights=w)
    axes.stairs(heights, edges, fill=True, color=COLORS[0], alpha=0.35, label=f"RMSE {rmse:.4g}, MAE {mae:.4g}")
    axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _edges(values: Floats) -> Floats:
    low, high = np.quantile(values, [0.0005, 0.9995])
    margin = (high - low) / _BARS if high > low else max(0.5, abs(low) * 1e-3)
    return np.linspace(low - margin, high + margin, _BARS + 1)
