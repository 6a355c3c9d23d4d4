"""The figure of the columns of a log, next to those of another log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tfrs_dlrm.plots.figure import BLUE, VERMILION, dress, new_figure, say_undefined

_COLUMNS, _BINS, _VALUES, _LONGEST = 4, 24, 8, 14


def log_columns(
    columns: Sequence[Mapping[str, Any]],
    before: Sequence[Mapping[str, Any]] = (),
    names: Sequence[str] = ("now", "before"),
) -> Figure:
    """Draws a panel per column: how numbers are distributed, or the shares of the most frequent values.

    Args:
      columns: entries of `columns` of a `profile.json`.
      before: those of another profile; a column that it has is drawn as a line, or as dots.
      names: what to call the two logs.

    Raises:
      ValueError: there are no columns.
    """
    if not columns:
        raise ValueError("no columns to draw; give some of those in profile.json")
    earlier = {column["name"]: column for column in before}
    wide = min(_COLUMNS, len(columns))
    high = math.ceil(len(columns) / wide)
    figure = new_figure(3.4 * wide, 2.5 * high + (0.3 if before else 0))
    panels = figure.subplots(high, wide, squeeze=False).ravel()
    for axes, column in zip(panels, columns, strict=False):
        old = earlier.get(column["name"])
        dress(axes, "")
        axes.set_title(column["name"], fontsize=10, parse_math=False)
        axes.tick_params(labelsize=8)
        draw = _numbers if column.get("quantiles") else _values
        draw(axes, column, old)
    for axes in panels[len(columns) :]:
        axes.set_axis_off()
    if before:
        handles = [Patch(color=BLUE, alpha=0.6), Line2D([], [], color=VERMILION, marker="o", markersize=4)]
        figure.legend(handles, names, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _numbers(axes: Axes, column: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    """Draws histograms between the first and the last percent."""
    both = [c for c in (column, old) if c and c.get("quantiles")]
    least, most = min(c["quantiles"]["0.01"] for c in both), max(c["quantiles"]["0.99"] for c in both)
    edges = np.linspace(least, most if most > least else least + 1, _BINS + 1)
    shares = [_shares(c, edges) for c in both]
    axes.stairs(shares[0], edges, fill=True, color=BLUE, alpha=0.6)
    for share in shares[1:]:
        axes.stairs(share, edges, color=VERMILION, linewidth=1.3)
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
    axes.locator_params(axis="both", nbins=4)


def _shares(column: Mapping[str, Any], edges: np.ndarray) -> np.ndarray:
    numbers, rows = column["distribution"]["values"], column["distribution"]["rows"]
    counts, _ = np.histogram(numbers, edges, weights=rows)
    shares: np.ndarray = counts / max(1, sum(rows))
    return shares


def _values(axes: Axes, column: Mapping[str, Any], old: Mapping[str, Any] | None) -> None:
    """Draws the shares of the most frequent values, with their label rates where they are known."""
    top = column.get("top", {})
    values = top.get("values", [])[:_VALUES]
    if not values:
        say_undefined(axes, "no values")
        return
    places = np.arange(len(values))
    shares = np.array(top["rows"][:_VALUES]) / max(1, top["among"])
    axes.barh(places, shares, color=BLUE, alpha=0.6)
    if old and old.get("top"):
        known = dict(zip(old["top"]["values"], old["top"]["rows"], strict=True))
        earlier = [known.get(value, 0) / max(1, old["top"]["among"]) for value in values]
        axes.plot(earlier, places, "o", color=VERMILION, markersize=4)
    shown = [v if len(v) <= _LONGEST else f"{v[:_LONGEST]}..." for v in values]
    axes.set_yticks(places, shown, parse_math=False)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.locator_params(axis="x", nbins=4)
