"""Figures of models that are updated each day, from `updates.jsonl` of a run and from `backtest.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.plots.figure import COLORS, SLATE, VERMILION, dress, new_figure, say_undefined

_METRICS = ("auc", "normalized_entropy", "rmse", "calibration")
# By key of a record, its line.
_LINES = {
    "before": ("current model, all rows of the day", "o-", COLORS[0]),
    "current": ("current model, held-out rows", "^:", SLATE),
    "candidate": ("new model, held-out rows", "s--", COLORS[2]),
}
_MOST_LABELS = 8


def updates(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws metrics of the models and the share of new values by day; days whose model was rejected have a cross.

    Args:
      records: the lines of `updates.jsonl`, at least one.
    """
    metrics = [m for m in _METRICS if any(m in record["before"] for record in records)]
    figure = new_figure(14, 3.6 * math.ceil((len(metrics) + 1) / 2))
    columns = 2 if metrics else 1
    all_axes = figure.subplots(math.ceil((len(metrics) + 1) / 2), columns, squeeze=False).ravel()
    for axes, metric in zip(all_axes, metrics, strict=False):
        _draw_metric(axes, records, metric)
    _draw_new_values(all_axes[len(metrics)], records)
    for axes in all_axes[: len(metrics) + 1]:
        _name_days(axes, records)
    for axes in all_axes[len(metrics) + 1 :]:
        axes.set_axis_off()
    return figure


def backtest(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws AUC and normalized entropy (of a regression, the RMSE) of each way to keep a model, by day.

    Args:
      results: the lines of `backtest.jsonl`, at least one.
    """
    ways = list(results[0]["metrics"])
    metrics = [m for m in _METRICS[:3] if any(m in r["metrics"][ways[0]] for r in results)] or ["log_loss"]
    figure = new_figure(14, 5)
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False).ravel(), metrics, strict=True):
        dress(axes, f"{title(metric)} on all rows of a day, before training on them")
        for way, color in zip(ways, COLORS, strict=False):
            values = [r["metrics"][way].get(metric, math.nan) for r in results]
            axes.plot(range(len(results)), values, "o-", color=color, markersize=4, label=way)
        axes.legend(frameon=False)
        _name_days(axes, results)
    return figure


def _draw_metric(axes: Axes, records: Sequence[Mapping[str, Any]], metric: str) -> None:
    dress(axes, title(metric))
    for key, (label, form, color) in _LINES.items():
        values = np.array([record[key].get(metric, math.nan) for record in records], np.float64)
        axes.plot(range(len(records)), values, form, color=color, markersize=4, linewidth=1.2, label=label)
    rejected = [i for i, record in enumerate(records) if record["decision"] == "rejected"]
    if rejected:
        wrong = [records[i]["candidate"].get(metric, math.nan) for i in rejected]
        axes.plot(rejected, wrong, "x", color=VERMILION, markersize=9, label="rejected")
    if metric == "calibration":
        axes.axhline(1.0, color=SLATE, linewidth=0.8)
    axes.legend(frameon=False, fontsize=8)


def _draw_new_values(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    dress(axes, "Share of values that have a row since the day")
    tables = list(dict.fromkeys(table for record in records for table in record["new_values"]))
    if not tables:
        say_undefined(axes, "no table has a vocabulary")
        return
    most = sorted(tables, key=lambda t: -max(r["new_values"].get(t, 0.0) for r in records))[: len(COLORS)]
    for table, color in zip(most, COLORS, strict=False):
        shares = [record["new_values"].get(table, math.nan) for record in records]
        axes.plot(range(len(records)), shares, "o-", color=color, markersize=4, linewidth=1.2, label=table)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.legend(frameon=False, fontsize=8)


def _name_days(axes: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    axes.grid(alpha=0.3)
    if not axes.lines:
        return
    step = math.ceil(len(records) / _MOST_LABELS)
    shown = range(0, len(records), step)
    axes.set_xticks(shown, [_shortened(records[i]["day"]) for i in shown], fontsize=8)


def _shortened(day: str, most: int = 16) -> str:
    return day if len(day) <= most else f"{day[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
