"""Draws the explanation of a model, as PNG files."""

from __future__ import annotations

import math
import os

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfrs_dlrm.tools.explain.explanation import Explanation
from tfrs_dlrm.tools.explain.importance import PermutationImportance
from tfrs_dlrm.tools.explain.interactions import Interactions
from tfrs_dlrm.tools.explain.table_usage import TableUsage
from tfrs_dlrm.training import evaluation_report as report

# Okabe and Ito's blue and vermilion, and a grey: distinct for colour-blind readers too.
_BLUE, _RED, _GREY = "#0072B2", "#D55E00", "#8A8A8A"
_MOST_BARS, _MOST_TABLES, _COLUMNS = 60, 40, 5


def draw_pictures(found: Explanation, directory: str) -> list[str]:
    """Draws `importance.png`, `interactions.png` and `tables.png`, each if asked for; returns their paths.

    Each file appears whole or not at all.
    """
    figures = {}
    if found.importance:
        figures["importance"] = _importance(found.importance)
    if found.interactions:
        figures["interactions"] = _interactions(found.interactions)
    if found.tables:
        figures["tables"] = _tables(found.tables)
    paths = []
    for name, figure in figures.items():
        path = os.path.join(directory, f"{name}.png")
        report.save_figure(figure, path)
        paths.append(path)
    return paths


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _importance(found: PermutationImportance) -> Figure:
    """Draws a bar per feature, the most important on top, with the spread over the permutations."""
    shown = found.features[:_MOST_BARS]
    figure = _figure(11, 1.5 + 0.24 * len(shown))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, name in zip((left, right), found.features[0].worsening, strict=True):
        metric, _, change = name.rpartition("_")
        rows = [f.summary() for f in shown]
        means, spreads = (np.array([row[key] for row in rows]) for key in (name, f"{name}_spread"))
        axes.barh(range(len(shown)), np.nan_to_num(means), xerr=np.nan_to_num(spreads), color=_BLUE, ecolor=_GREY)
        axes.axvline(0, color=_GREY, linewidth=0.8)
        _dress(axes, f"{change.capitalize()} in {report.title(metric)} (of {found.metrics[metric]:.4f})")
    left.set_yticks(range(len(shown)), [f.feature for f in shown])
    left.set_ylim(len(shown) - 0.4, -0.6)
    figure.suptitle(f"Permutation importance on {found.examples:,} examples, {found.seeds} permutations")
    return figure


def _interactions(found: Interactions) -> Figure:
    """Draws a square per pair of features."""
    count = len(found.features)
    side = max(5.0, 2.0 + 0.24 * count)
    figure = _figure(side + 1.0, side)
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(found.strength), cmap="cividis", vmin=0)
    size = 10 if count <= 20 else 8
    axes.set_xticks(range(count), found.features, rotation=90, fontsize=size)
    axes.set_yticks(range(count), found.features, fontsize=size)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=f"mean |second difference of the {found.unit}|", shrink=0.8)
    axes.set_title(f"Interaction of pairs of features, {found.examples:,} examples")
    return figure


def _tables(found: list[TableUsage]) -> Figure:
    """Draws a histogram of norms per table."""
    shown = found[:_MOST_TABLES]
    columns = min(_COLUMNS, len(shown))
    lines = math.ceil(len(shown) / columns)
    figure = _figure(3.2 * max(columns, 2), 0.7 + 2.1 * lines)
    panels = np.atleast_1d(figure.subplots(lines, columns, squeeze=False).ravel())
    for axes, usage in zip(panels, shown, strict=False):
        bars = (("looked up", usage.used_norms, 0, _BLUE), ("dead", usage.dead_norms, usage.used_norms, _RED))
        for name, heights, base, color in bars:
            axes.stairs(base + heights, usage.edges, baseline=base, fill=True, color=color, label=name)
        axes.set_yscale("symlog", linthresh=1)
        _dress(axes, f"{usage.table}: {usage.rows:,} rows, {usage.dead_count:,} dead")
        axes.title.set_fontsize(9)
        axes.tick_params(labelsize=7)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2, frameon=False)
    figure.suptitle("Norms of the rows of the tables")
    return figure


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
