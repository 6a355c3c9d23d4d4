"""Figures of the scores of a classification."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tfrs_dlrm import metrics
from tfrs_dlrm.metrics.exact import Floats, sigmoid
from tfrs_dlrm.plots.figure import COLORS, GREY, SLATE, VERMILION, dress, new_figure, new_panel, say_undefined
from tfrs_dlrm.plots.reliability import draw_calibration
from tfrs_dlrm.plots.scored import References, Scored

_ROC_POINTS, _BARS = 2000, 60


def classification(
    labels: ArrayLike,
    logits: ArrayLike,
    weights: ArrayLike | None = None,
    title: str = "",
    references: References | None = None,
) -> Figure:
    """Draws `roc_curve`, `calibration` and `scores_by_class` side by side, in 1500 x 500 pixels.

    A panel that the data leave undefined says so.

    Args:
      labels: 0 or 1, [N].
      logits: [N].
      weights: [N]; None is 1 for all.
      title: above the panels.
      references: logits [N] of other scorers of the same examples, by name; drawn in the first two panels.

    Raises:
      ValueError: as `tfrs_dlrm.metrics.exact_auc`.
    """
    examples = Scored.of(labels, logits, weights, references)
    figure = new_figure(15, 5, title)
    left, middle, right = figure.subplots(1, 3)
    _draw_roc(left, examples)
    draw_calibration(middle, examples.map(sigmoid))
    _draw_scores(right, examples, "logit")
    return figure


def roc_curve(
    labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None, references: References | None = None
) -> Figure:
    """Draws true against false positive rates, with the AUC in the legend.

    Args:
      labels: 0 or 1, [N].
      scores: logits or probabilities, [N].
      weights: [N]; None is 1 for all.
      references: scores [N] of other scorers of the same examples, by name.

    Raises:
      ValueError: as `tfrs_dlrm.metrics.exact_auc`.
    """
    figure, axes = new_panel()
    _draw_roc(axes, Scored.of(labels, scores, weights, references))
    return figure


def scores_by_class(
    labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None, name: str = "logit"
) -> Figure:
    """Draws the distribution of the scores of each class, without the outermost thousandth.

    Args:
      labels: 0 or 1, [N].
      scores: [N].
      weights: [N]; None is 1 for all.
      name: what the scores are.

    Raises:
      ValueError: as `tfrs_dlrm.metrics.exact_auc`.
    """
    figure, axes = new_panel()
    _draw_scores(axes, Scored.of(labels, scores, weights), name)
    return figure


def _draw_roc(axes: Axes, examples: Scored) -> None:
    dress(axes, "ROC", "false positive rate", "true positive rate")
    y, w = examples.labels, examples.weights
    if len(np.unique(y)) < 2:
        return say_undefined(axes, f"undefined: all {len(y):,} labels are {y[0]:.0f}" if len(y) else "no examples")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    for i, (name, z) in enumerate(examples.scorers.items()):
        false_rate, true_rate = metrics.roc_curve(y, z, w)
        kept = np.unique(np.linspace(0, len(false_rate) - 1, _ROC_POINTS).astype(int))
        label = f"{name}: AUC {metrics.exact_auc(y, z, w):.4f}"
        axes.plot(false_rate[kept], true_rate[kept], color=COLORS[i % len(COLORS)], zorder=4 - i, label=label)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.legend(loc="lower right", frameon=False)


def _draw_scores(axes: Axes, examples: Scored, name: str) -> None:
    dress(axes, "Scores by class", name, "density")
    y, z, w = examples.labels, examples.model, examples.weights
    if len(y) == 0:
        return say_undefined(axes, "no examples")
    classes = (("negative", y == 0, SLATE), ("positive", y == 1, VERMILION))
    edges = _edges([z[members] for _, members, _ in classes if members.any()], min(_BARS, 5 + len(z) // 5))
    for label, members, color in classes:
        heights = np.zeros(len(edges) - 1)
        if members.any():
            heights = np.histogram(z[members], edges, weights=w[members], density=True)[0]
        axes.stairs(heights, edges, fill=True, color=color, alpha=0.35, label=f"{label}: {members.sum():,}")
        axes.stairs(heights, edges, color=color, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _edges(present: list[Floats], bars: int) -> Floats:
    """Returns the edges of the bars, without the outermost thousandth of each class where that is a whole example."""
    low = min(np.quantile(scores, 0.0005, method="lower") for scores in present)
    high = max(np.quantile(scores, 0.9995, method="higher") for scores in present)
    margin = 0.0 if high - low > 1e-6 else 0.5
    return np.linspace(low - margin, high + margin, bars + 1)
