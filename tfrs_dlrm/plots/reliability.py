"""The figure of calibration: labels against predictions, probabilities or numbers."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tfrs_dlrm.metrics.exact import Floats, binned_means
from tfrs_dlrm.plots.figure import BLUE, COLORS, GREY, dress, new_panel, say_undefined
from tfrs_dlrm.plots.scored import References, Scored

_GROUPS, _BARS = 20, 60


def calibration(
    labels: ArrayLike,
    predictions: ArrayLike,
    weights: ArrayLike | None = None,
    references: References | None = None,
    name: str = "model",
) -> Figure:
    """Draws mean labels against mean predictions, in up to 20 groups of about as many examples each.

    Bars are two standard errors. Below is the distribution of the predictions. The axes are logarithmic if all means
    are positive and span a decade.

    Args:
      labels: 0 or 1, or the numbers to predict, [N].
      predictions: probabilities, or predicted numbers, [N].
      weights: [N]; None is 1 for all.
      references: predictions [N] of others for the same examples, by name.
      name: what made `predictions`.

    Raises:
      ValueError: a number is not finite, a weight is negative, or the lengths differ.
    """
    figure, axes = new_panel()
    draw_calibration(axes, Scored.of(labels, predictions, weights, references, binary=False), name)
    return figure


def draw_calibration(axes: Axes, examples: Scored, model: str = "model") -> None:
    """Draws the panel of `calibration`."""
    dress(axes, "Calibration", "mean prediction", "mean label")
    y, w = examples.labels, examples.weights
    if len(y) == 0:
        return say_undefined(axes, "no examples")
    curves = {name: binned_means(y, p, w, _edges(p)) for name, p in examples.scorers.items()}
    means = np.concatenate([m for curve in curves.values() for m in (curve.prediction_mean, curve.label_mean)])
    rates = bool(np.isin(y, (0, 1)).all() and min(p.min() for p in examples.scorers.values()) >= 0)
    low, high, scale = _limits(means, rates)
    axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle=":")
    for i, (name, curve) in enumerate(curves.items()):
        bars = 2 * np.sqrt(curve.label_variance / curve.effective_examples)
        color, points = COLORS[i % len(COLORS)], (curve.prediction_mean, curve.label_mean)
        axes.errorbar(
            *points, bars, fmt="o-", markersize=4, linewidth=1, color=color, zorder=4 - i, label=name if i else model
        )
    margin = 0.02 if scale == "linear" else 0.0  # in the scale of the axes
    ends = (low - margin * (high - low), high + margin * (high - low))
    axes.set(xscale=scale, yscale=scale, xlim=ends, ylim=ends)
    edges = np.linspace(low, high, _BARS + 1) if scale == "linear" else np.geomspace(low, high, _BARS + 1)
    _draw_distribution(axes, examples.model, w, edges, margin)
    axes.legend(loc="upper left", frameon=False)


def _edges(p: Floats) -> Floats:
    """Predictions that split the examples into groups of about one size: 2 to 20, as many as leave 5 in each."""
    groups = min(_GROUPS, max(2, len(p) // 5))
    return np.unique(np.quantile(p, np.linspace(0, 1, groups + 1)[1:-1]))


def _limits(means: Floats, rates: bool) -> tuple[float, float, str]:
    """Returns the ends of both axes, and their scale; those of click rates begin at 0 and end at 1."""
    low, high = float(means.min()), float(means.max())
    if low > 0 and high > 10 * low:
        return low / 1.5, min(1.0, high * 1.5) if rates else high * 1.5, "log"
    if rates:
        return 0.0, min(1.0, high * 1.1 or 1.0), "linear"
    margin = 0.1 * (high - low) or max(0.5, 0.1 * abs(low))
    return low - margin, high + margin, "linear"


def _draw_distribution(axes: Axes, p: Floats, w: Floats, edges: Floats, margin: float) -> None:
    """Draws the distribution of the predictions, a `margin` of the height above the lower edge of the panel."""
    heights, _ = np.histogram(p, edges, weights=w)
    counts = axes.twinx()
    counts.stairs(heights, edges, fill=True, color=BLUE, alpha=0.18)
    top = 6 * (heights.max() or 1.0)
    counts.set_ylim(-margin * top, (1 + margin) * top)
    counts.set_axis_off()
