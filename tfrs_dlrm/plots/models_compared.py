"""Figures of a comparison of models, from its `compare.json` and the `outcome.json` of its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.plots.figure import COLORS, dress, new_figure


def comparison(summary: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draws the quality of each model with two standard errors over its seeds, and quality against size.

    Args:
      summary: the content of `compare.json`: by model, `seeds`, `metrics`, the mean and spread of each, and `bytes`
        where they were measured. Models are compared by the first of the metrics.
    """
    figure = new_figure(14, 5.5)
    left, right = figure.subplots(1, 2)
    metric = str(next(iter(summary.values()))["metrics"][0])
    _draw_quality(left, summary, metric)
    _draw_sizes(right, summary, metric)
    return figure


def comparison_curves(outcomes: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the first two metrics on the evaluation set by step, with a band from worst to best seed of each model.

    Args:
      outcomes: the contents of `outcome.json` of all runs: `label`, `shown` and `curve` (see `Outcome`).
    """
    figure = new_figure(14, 5.5)
    for axes, metric in zip(figure.subplots(1, 2), outcomes[0]["shown"], strict=False):
        _draw_curves(axes, outcomes, metric)
    return figure


def _draw_quality(axes: Axes, summary: Mapping[str, Mapping[str, Any]], metric: str) -> None:
    dress(axes, f"{title(metric)}, mean and two standard errors over seeds", title(metric))
    for i, one in enumerate(summary.values()):
        bar = 2 * (one[f"{metric}_std"] or 0) / math.sqrt(len(one["seeds"]))
        axes.errorbar(one[f"{metric}_mean"], i, xerr=bar, fmt="o", color=COLORS[i % len(COLORS)], capsize=4)
    axes.set_yticks(range(len(summary)), list(summary))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)


def _draw_sizes(axes: Axes, summary: Mapping[str, Mapping[str, Any]], metric: str) -> None:
    dress(axes, "Quality against size", "megabytes", title(metric))
    sized = {label: one for label, one in summary.items() if "bytes" in one}
    for i, (label, one) in enumerate(sized.items()):
        x, y = one["bytes"] / 1e6, one[f"{metric}_mean"]
        axes.plot(x, y, "o", color=COLORS[i % len(COLORS)], markersize=8)
        axes.annotate(label, (x, y), textcoords="offset points", xytext=(7, 4))
    if sized:
        axes.set_xscale("log")
        axes.margins(x=0.25, y=0.15)
    axes.grid(alpha=0.3)


def _draw_curves(axes: Axes, outcomes: Sequence[Mapping[str, Any]], metric: str) -> None:
    name = title(metric)
    dress(axes, f"{name} on the whole evaluation set; bands from worst to best seed", "step", name)
    for i, label in enumerate(dict.fromkeys(o["label"] for o in outcomes)):
        runs = [{p["step"]: p[metric] for p in o["curve"]} for o in outcomes if o["label"] == label]
        steps = sorted(set.intersection(*(set(run) for run in runs)))
        values = np.array([[run[s] for s in steps] for run in runs])
        color = COLORS[i % len(COLORS)]
        axes.plot(steps, values.mean(axis=0), "o-", color=color, markersize=4, label=label)
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
