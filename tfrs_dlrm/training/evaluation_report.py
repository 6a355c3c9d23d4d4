"""Shows an evaluation: as a text table, a JSON file and a picture."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tfrs_dlrm.metrics import exact_auc, reliability, roc_curve
from tfrs_dlrm.metrics.exact import Floats, as_columns, sigmoid
from tfrs_dlrm.stores.files import write_json

__all__ = ["picture", "save_figure", "table", "title", "write_json"]

# Names and logits, the model first.
Scorers = Sequence[tuple[str, Floats]]

# The first is the model, the others what it is compared with. Okabe and Ito's colours, apart for the colour-blind too.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
_POSITIVE, _NEGATIVE, GREY = "#D55E00", "#7F8C99", "#8A8A8A"
_TITLES = {"auc": "AUC", "log_loss": "log loss", "normalized_entropy": "NE", "rmse": "RMSE", "mae": "MAE"}
_ROC_POINTS = 2000
_GROUPS = 20
_BARS = 60


def table(columns: Mapping[str, Mapping[str, float]], exponents: bool = True) -> str:
    """Lines up evaluations side by side: a row per metric, in order of first mention, and a column per evaluation.

                  this model   planted
        examples        1000      1000
        auc         0.801234  0.812345

    A metric that an evaluation lacks is `-`. No newline at the end.

    Args:
      columns: the metrics of each evaluation.
      exponents: whether numbers so small that six decimals say little are shown with one.
    """

    def cell(value: float) -> str:
        return _number(value) if exponents or abs(value) >= 1e-3 or not value else f"{value:.6f}"

    metrics = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [["", *columns]]
    for name in metrics:
        rows.append([name, *(cell(column[name]) if name in column else "-" for column in columns.values())])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]).rstrip())
    return "\n".join(lines)


def title(metric: str) -> str:
    """Returns the usual name of a metric."""
    return _TITLES.get(metric, metric)


def picture(
    path: str | os.PathLike[str],
    labels: ArrayLike,
    logits: ArrayLike,
    weights: ArrayLike | None = None,
    title: str = "",
    references: Mapping[str, ArrayLike] | None = None,
) -> None:
    """Draws one PNG of 1500 x 500 pixels; the file appears whole or not at all.

    Left: the ROC curve. Middle: observed against predicted click rate, in up to 20 groups of about as many examples
    each, with bars of two standard errors and, below, how the predictions are distributed; on logarithmic axes where
    all groups have clicks and their rates span a decade. Right: the distribution of the logits of each class, without
    the outermost thousandth. A panel that the data leaves undefined says so.

    Args:
      path: of the PNG; its folder exists.
      labels: 0 or 1, [N].
      logits: [N].
      weights: [N]; None is 1 for all.
      title: above the panels.
      references: logits [N] of other scorers of the same examples, drawn in the first two panels under their names.

    Raises:
      ValueError: as `tfrs_dlrm.metrics.exact_auc`.
    """
    y, z, w = as_columns(labels, logits, weights)
    others = [(name, as_columns(y, values, w)[1]) for name, values in (references or {}).items()]
    seen = w > 0
    y, w, scorers = y[seen], w[seen], [(name, values[seen]) for name, values in (("model", z), *others)]

    with panels(path, title) as (left, middle, right):
        _draw_roc(left, y, scorers, w)
        _draw_calibration(middle, y, scorers, w)
        _draw_scores(right, y, scorers[0][1], w)


@contextlib.contextmanager
def panels(path: str | os.PathLike[str], title: str) -> Iterator[Sequence[Axes]]:
    """Yields three panels side by side; at the end they are written to a PNG, which appears whole or not at all."""
    figure = Figure(figsize=(15, 5), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=14)
    yield figure.subplots(1, 3)
    save_figure(figure, path)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a PNG; the file appears whole or not at all."""
    temporary = f"{os.fspath(path)}.tmp"
    figure.savefig(temporary, format="png")
    os.replace(temporary, path)


# ---- text ------------------------------------------------------------------------------------------------------------


def _number(value: float) -> str:
    """Formats a metric: six decimals, none for counts, an exponent for very small or very large numbers."""
    if float(value).is_integer() and (isinstance(value, (int, np.integer)) or abs(value) >= 1000):
        return str(int(value))
    return f"{value:.3e}" if 0 < abs(value) < 1e-3 or 1e6 <= abs(value) < math.inf else f"{value:.6f}"


# ---- panels ----------------------------------------------------------------------------------------------------------


def _draw_roc(axes: Axes, y: Floats, scorers: Scorers, w: Floats) -> None:
    dress(axes, "ROC", "false positive rate", "true positive rate")
    if len(np.unique(y)) < 2:
        return say_undefined(axes, y)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    for i, (name, z) in enumerate(scorers):
        false_rate, true_rate = roc_curve(y, z, w)
        kept = np.unique(np.linspace(0, len(false_rate) - 1, _ROC_POINTS).astype(int))
        label = f"{name}: AUC {exact_auc(y, z, w):.4f}"
        axes.plot(false_rate[kept], true_rate[kept], color=COLORS[i % len(COLORS)], zorder=4 - i, label=label)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.legend(loc="lower right", frameon=False)


def _draw_calibration(axes: Axes, y: Floats, scorers: Scorers, w: Floats) -> None:
    dress(axes, "Calibration", "predicted click rate", "observed click rate")
    if len(y) == 0:
        return say_undefined(axes, y)
    curves = [(name, reliability(y, z, w, _group_edges(z))) for name, z in scorers]
    rates = np.concatenate([r for _, curve in curves for r in (curve.prediction_mean, curve.label_mean)])
    logarithmic = bool(rates.min() > 0 and rates.max() > 10 * rates.min())
    low, high = (rates.min() / 1.5, rates.max() * 1.5) if logarithmic else (0.0, rates.max() * 1.1 or 1.0)
    high = min(1.0, high)
    axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle=":")
    for i, (name, curve) in enumerate(curves):
        bars = 2 * np.sqrt(curve.label_mean * (1 - curve.label_mean) / curve.effective_examples)
        color = COLORS[i % len(COLORS)]
        x, r = curve.prediction_mean, curve.label_mean
        axes.errorbar(x, r, bars, fmt="o-", markersize=4, linewidth=1, color=color, zorder=4 - i, label=name)
    scale, margin = ("log", 0.0) if logarithmic else ("linear", 0.02)
    limits = (low - margin * high, high + margin * high)
    axes.set(xscale=scale, yscale=scale, xlim=limits, ylim=limits)
    edges = np.geomspace(low, high, _BARS + 1) if logarithmic else np.linspace(low, high, _BARS + 1)
    _draw_counts(axes, sigmoid(scorers[0][1]), w, edges, margin)
    axes.legend(loc="upper left", frameon=False)


def _group_edges(z: Floats) -> Floats:
    """Probabilities that split the examples into groups of about one size: 2 to 20, as many as leave 5 in each."""
    groups = min(_GROUPS, max(2, len(z) // 5))
    return np.unique(sigmoid(np.quantile(z, np.linspace(0, 1, groups + 1)[1:-1])))


def _draw_counts(axes: Axes, p: Floats, w: Floats, edges: Floats, margin: float) -> None:
    """Draws the distribution of the predictions, a `margin` of the height above the lower edge of the panel."""
    heights, _ = np.histogram(p, edges, weights=w)
    counts = axes.twinx()
    counts.stairs(heights, edges, fill=True, color=COLORS[0], alpha=0.18)
    top = 6 * heights.max()
    counts.set_ylim(-margin * top, (1 + margin) * top)
    counts.set_axis_off()


def _draw_scores(axes: Axes, y: Floats, z: Floats, w: Floats) -> None:
    dress(axes, "Scores by class", "logit", "density")
    if len(y) == 0:
        return say_undefined(axes, y)
    classes = (("negative", y == 0, _NEGATIVE), ("positive", y == 1, _POSITIVE))
    present = [z[members] for _, members, _ in classes if members.any()]
    low = min(np.quantile(scores, 0.0005, method="lower") for scores in present)
    high = max(np.quantile(scores, 0.9995, method="higher") for scores in present)
    margin = 0.0 if high - low > 1e-6 else 0.5
    bars = min(_BARS, 5 + len(z) // 5)
    edges = np.linspace(low - margin, high + margin, bars + 1)
    for name, members, color in classes:
        label = f"{name}: {members.sum():,}"
        heights = np.histogram(z[members], edges, weights=w[members], density=True)[0] if members.any() else [0] * bars
        axes.stairs(heights, edges, fill=True, color=color, alpha=0.35, label=label)
        axes.stairs(heights, edges, color=color, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def dress(axes: Axes, title: str, x: str, y: str) -> None:
    """Writes the title and the names of the axes, without a box."""
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)


def say_undefined(axes: Axes, y: Floats) -> None:
    """Says why a panel is empty."""
    what = "no examples" if len(y) == 0 else f"undefined: all {len(y):,} labels are {y[0]:.0f}"
    axes.text(0.5, 0.5, what, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=12)
    axes.set(xticks=[], yticks=[])
