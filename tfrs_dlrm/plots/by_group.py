"""The figure of metrics within groups of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.plots.figure import BLUE, COLORS, SLATE, dress, new_figure

_LONGEST = 40  # characters of a value


def groups(columns: Mapping[str, Sequence[Any]], feature: str = "", top: int = 20) -> Figure:
    """Draws size, mean label, mean prediction, and AUC (of a regression, RMSE) of the groups with most examples.

    Args:
      columns: `value`, `examples`, `label_mean`, `prediction_mean`, and `auc` or `rmse`, of equal lengths: a feature of
        `group_by` in `groups.json`, the columns of `tfrs_dlrm.metrics.group_metrics` with names of groups, or a
        DataFrame. Metrics that a group does not define are None or nan.
      feature: the name of the feature, for the title.
      top: how many groups to draw.

    Raises:
      ValueError: there is no group.
    """
    examples = np.asarray(columns["examples"], np.int64)
    if not len(examples):
        raise ValueError("there are no groups to draw; give at least one")
    order = np.argsort(-examples, kind="stable")[:top]
    metric = "auc" if "auc" in columns else "rmse"
    numbers = {name: np.asarray(columns[name], np.float64)[order] for name in ("label_mean", "prediction_mean", metric)}
    figure = new_figure(12, 1.9 + 0.24 * len(order))
    sizes, means, quality = figure.subplots(1, 3, sharey=True)
    rows = np.arange(len(order))
    sizes.barh(rows, examples[order], color=SLATE)
    for color, name, label in ((COLORS[1], "label_mean", "label"), (BLUE, "prediction_mean", "prediction")):
        means.plot(numbers[name], rows, "o", color=color, label=label)
    quality.plot(numbers[metric], rows, "o", color=BLUE)
    dress(sizes, "Examples")
    dress(means, "Mean label and prediction")
    dress(quality, title(metric))
    figure.legend(*means.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    for axes in (sizes, means, quality):
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x", alpha=0.3)
    values = [str(value) for value in columns["value"]]
    names = [values[i] if len(values[i]) <= _LONGEST else f"{values[i][:_LONGEST]}..." for i in order]
    sizes.set_yticks(rows, names, parse_math=False)
    sizes.set_ylim(len(order) - 0.4, -0.6)
    of = f" of {len(examples):,}" if len(examples) > len(order) else ""
    figure.suptitle(f"{feature or 'Groups'}: {len(order):,}{of} values")
    return figure
