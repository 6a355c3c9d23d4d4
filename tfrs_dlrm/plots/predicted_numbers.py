"""Figures of the predictions of a regression."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tfrs_dlrm.metrics.exact import Floats
from tfrs_dlrm.plots.figure import BLUE, GREY, dress, new_figure, new_panel, say_undefined
from tfrs_dlrm.plots.reliability import draw_calibration
from tfrs_dlrm.plots.scored import Scored

_BARS = 60


def regression(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None, title: str = "") -> Figure:
    """Draws `prediction_density`, `calibration` and `error_distribution` side by side, in 1500 x 500 pixels.

    Args:
      labels: finite numbers, [N].
      predictions: predicted numbers, [N].
      weights: [N]; None is 1 for all.
      title: above the panels.

    Raises:
      ValueError: as `tfrs_dlrm.metrics.evaluate_predictions`.
    """
    examples = Scored.of(labels, predictions, weights, binary=False)
    figure = new_figure(15, 5, title)
    left, middle, right = figure.subplots(1, 3)
    _draw_pairs(left, examples)
    draw_calibration(middle, examples)
    _draw_errors(right, examples)
    return figure


def prediction_density(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None) -> Figure:
    """Draws labels against predictions, darker where more examples are.

    The outermost thousandth of both is left out. The arguments are those of `regression`.
    """
    figure, axes = new_panel()
    _draw_pairs(axes, Scored.of(labels, predictions, weights, binary=False))
    return figure


def error_distribution(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None) -> Figure:
    """Draws the distribution of the errors, without the outermost thousandth; RMSE and MAE are in the legend.

    The arguments are those of `regression`.
    """
    figure, axes = new_panel()
    _draw_errors(axes, Scored.of(labels, predictions, weights, binary=False))
    return figure


def _draw_pairs(axes: Axes, examples: Scored) -> None:
    dress(axes, "Labels and predictions", "prediction", "label")
    if not len(examples.labels):
        return say_undefined(axes, "no examples")
    columns = (examples.model, examples.labels)
    edges = [_edges(values) for values in columns]
    counts, _, _ = np.histogram2d(*columns, edges, weights=examples.weights)
    axes.pcolormesh(*edges, np.sqrt(counts.T), cmap="Blues", rasterized=True)
    low, high = max(e[0] for e in edges), min(e[-1] for e in edges)
    if low < high:
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle=":")


def _draw_errors(axes: Axes, examples: Scored) -> None:
    dress(axes, "Errors", "prediction - label", "density")
    if not len(examples.labels):
        return say_undefined(axes, "no examples")
    found, w = examples.model - examples.labels, examples.weights
    heights, edges = np.histogram(found, _edges(found), weights=w, density=True)
    rmse, mae = np.sqrt(np.average(found**2, weights=w)), np.average(np.abs(found), weights=w)
    axes.stairs(heights, edges, fill=True, color=BLUE, alpha=0.35, label=f"RMSE {rmse:.4g}, MAE {mae:.4g}")
    axes.axvline(0, color=GREY, linewidth=1, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _edges(values: Floats) -> Floats:
    low, high = np.quantile(values, [0.0005, 0.9995])
    margin = (high - low) / _BARS if high > low else max(0.5, abs(low) * 1e-3)
    return np.linspace(low - margin, high + margin, _BARS + 1)
