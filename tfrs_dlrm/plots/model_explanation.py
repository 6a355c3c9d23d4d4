"""Figures of what a model has learned, from the parts of an `explanation.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.plots.figure import BLUE, GREY, VERMILION, dress, new_figure, say_undefined

_MOST_BARS, _MOST_TABLES, _COLUMNS = 60, 40, 5


def explanation(found: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws `importance`, `interactions`, `gates` and `tables`, each if it is there.

    Args:
      found: the content of an `explanation.json`, or `Explanation.to_dict()`.
    """
    figures: dict[str, Callable[[Any], Figure]] = {
        "importance": importance,
        "interactions": interactions,
        "gates": expert_weights,
        "tables": table_usage,
    }
    return {name: draw(found[name]) for name, draw in figures.items() if name in found}


def importance(found: Mapping[str, Any]) -> Figure:
    """Draws a bar per feature, the most important on top, with the spread over the permutations.

    Args:
      found: `importance` of an `explanation.json`, or `PermutationImportance.to_dict()`.
    """
    shown = found["features"][:_MOST_BARS]
    changes = [name.removesuffix("_spread") for name in shown[0] if name.endswith("_spread")]
    figure = new_figure(11, 1.5 + 0.24 * len(shown))
    panels = figure.subplots(1, max(1, len(changes)), sharey=True, squeeze=False)[0]
    left = panels[0]
    if not changes:
        say_undefined(left, "the examples define no metric")
    for axes, name in zip(panels, changes, strict=False):
        means, spreads = (np.array([f[key] for f in shown], np.float64) for key in (name, f"{name}_spread"))
        axes.barh(range(len(shown)), np.nan_to_num(means), xerr=np.nan_to_num(spreads), color=BLUE, ecolor=GREY)
        axes.axvline(0, color=GREY, linewidth=0.8)
        metric, _, change = name.rpartition("_")
        dress(axes, f"{change.capitalize()} in {title(metric)} (of {found[metric]:.4f})")
    left.set_yticks(range(len(shown)), [f["feature"] for f in shown])
    left.set_ylim(len(shown) - 0.4, -0.6)
    figure.suptitle(f"Permutation importance on {found['examples']:,} examples, {found['seeds']} permutations")
    return figure


def interactions(found: Mapping[str, Any]) -> Figure:
    """Draws a square per pair of features.

    Args:
      found: `interactions` of an `explanation.json`, or the fields of `Interactions`.
    """
    names = found["features"]
    side = max(5.0, 2.0 + 0.24 * len(names))
    figure = new_figure(side + 1.0, side)
    axes = figure.subplots()
    strength = np.ma.masked_invalid(np.array(found["strength"], np.float64))
    image = axes.imshow(strength, cmap="cividis", vmin=0)
    size = 10 if len(names) <= 20 else 8
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=f"mean |second difference of the {found['unit']}|", shrink=0.8)
    axes.set_title(f"Interaction of pairs of features, {found['examples']:,} examples")
    return figure


def expert_weights(levels: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws a bar per expert and label: the mean weight of the expert, with its spread over the examples.

    Args:
      levels: `gates` of an `explanation.json`, or the fields of each `ExpertWeights`.
    """
    most = max(len(level["labels"]) for level in levels)
    figure = new_figure(max(5.0, 3.2 * most), 0.8 + 2.4 * len(levels))
    panels = figure.subplots(len(levels), most, squeeze=False)
    for line, level in zip(panels, levels, strict=True):
        parts = zip(level["labels"], level["experts"], level["mean"], level["spread"], strict=True)
        for axes, (label, experts, mean, spread) in zip(line, parts, strict=False):
            axes.barh(range(len(experts)), mean, xerr=spread, color=BLUE, ecolor=GREY)
            axes.set_yticks(range(len(experts)), experts, fontsize=8)
            axes.set_ylim(len(experts) - 0.4, -0.6)
            axes.set_xlim(0, 1)
            dress(axes, label if len(levels) == 1 else f"{label}, level {level['level']}")
        for axes in line[len(level["labels"]) :]:
            axes.set_axis_off()
    figure.suptitle(f"Mean weights of experts, {levels[0]['examples']:,} examples")
    return figure


def table_usage(tables: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draws a histogram of the norms of the rows of each table, looked-up and dead rows apart.

    Args:
      tables: `tables` of an `explanation.json`: by table, `rows`, `dead` and `norms` (see `TableUsage`).
    """
    shown = dict(list(tables.items())[:_MOST_TABLES])
    columns = min(_COLUMNS, len(shown))
    lines = math.ceil(len(shown) / columns)
    figure = new_figure(3.2 * max(columns, 2), 0.7 + 2.1 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, usage) in zip(panels, shown.items(), strict=False):
        edges, used, dead = (np.asarray(usage["norms"][key]) for key in ("edges", "looked_up", "dead"))
        axes.stairs(used, edges, fill=True, color=BLUE, label="looked up")
        axes.stairs(used + dead, edges, baseline=used, fill=True, color=VERMILION, label="dead")
        axes.set_yscale("symlog", linthresh=1)
        dress(axes, f"{name}: {usage['rows']:,} rows, {usage['dead']:,} dead")
        axes.title.set_fontsize(9)
        axes.tick_params(labelsize=7)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2, frameon=False)
    figure.suptitle("Norms of the rows of the tables")
    return figure
