"""The figure of how metrics changed while a model was trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.plots.figure import COLORS, dress, new_figure

if TYPE_CHECKING:
    import tf_keras as keras

_COLUMNS = 3
_RATES = "learning_rate"
# By line of a panel, its points: x and y.
Lines = dict[str, tuple[list[float], list[float]]]


def training_curves(
    history: keras.callbacks.History | Mapping[str, Sequence[float]] | Sequence[Mapping[str, Any]],
    metrics: Sequence[str] = (),
) -> Figure:
    """Draws a panel per metric, with a line for training and one for evaluation, and a panel of the learning rates.

    Args:
      history: what `model.fit` returns, or its `history`, or the lines of a run's `metrics.jsonl`.
      metrics: the metrics to draw; by default all that training reports.

    Raises:
      ValueError: the history has none of the metrics.
    """
    history = getattr(history, "history", history)
    if isinstance(history, Mapping):
        position, panels = "epoch", _of_fit(history)
    else:
        position, panels = "step", {}
        for record in history:
            _add(panels, record, record[position])
    trained = [name for name, lines in panels.items() if "train" in lines or name == _RATES]
    shown = [name for name in panels if name in (*metrics, _RATES)] if metrics else trained or list(panels)
    if not set(shown) - {_RATES}:
        raise ValueError(
            f"the history has none of {', '.join(metrics) or 'the metrics of training'}; it has"
            f" {', '.join(panels) or 'nothing'}"
        )
    return _drawn({name: panels[name] for name in shown}, position)


def _of_fit(history: Mapping[str, Sequence[float]]) -> dict[str, Lines]:
    """Sorts the columns of Keras' history by metric; `val_auc` is the evaluation of `auc`."""
    panels: dict[str, Lines] = {}
    for name, values in history.items():
        metric = name.removeprefix("val_")
        line = "eval" if name.startswith("val_") else "train"
        if name in ("lr", _RATES):
            metric, line = _RATES, "learning rate"
        panels.setdefault(metric, {})[line] = ([*range(1, len(values) + 1)], [*values])
    return panels


def _add(panels: dict[str, Lines], record: Mapping[str, Any], position: float) -> None:
    """Adds the numbers of one line of `metrics.jsonl`."""
    points = [
        (name, line, record.get(line, {}).get(name)) for line in ("train", "eval") for name in record.get(line, {})
    ]
    points += [(_RATES, line, rate) for line, rate in record.get(_RATES, {}).items()]
    for name, line, value in points:
        x, y = panels.setdefault(name, {}).setdefault(line, ([], []))
        x.append(position)
        y.append(math.nan if value is None else value)


def _drawn(panels: Mapping[str, Lines], position: str) -> Figure:
    columns = 2 if len(panels) == 4 else min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(4.5 * columns, 3.4 * rows)
    figure.set_layout_engine("constrained", h_pad=0.15)
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, lines) in zip(all_axes, panels.items(), strict=False):
        dress(axes, title(name).replace("_", " "), position)
        for color, (line, (x, y)) in zip(COLORS, lines.items(), strict=False):
            marker = "o-" if len(x) <= 50 else "-"
            axes.plot(x, np.asarray(y, np.float64), marker, markersize=3, linewidth=1.2, color=color, label=line)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    for axes in all_axes[len(panels) :]:
        axes.set_axis_off()
    return figure
