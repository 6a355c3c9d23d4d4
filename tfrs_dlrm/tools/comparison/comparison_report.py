"""The report of a comparison: a table, numbers for other programs, and pictures."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

from tfrs_dlrm.tools.comparison.cost import Cost
from tfrs_dlrm.tools.comparison.outcome import Outcome
from tfrs_dlrm.training.evaluation_report import save_figure, title

_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7F8C99", "#000000")


def summary(outcomes: Sequence[Outcome], costs: Mapping[str, Cost]) -> dict[str, dict[str, Any]]:
    """Returns, by label, the mean and spread of each metric over the seeds, the change from the first label, the cost.

    The spread is the standard deviation; None for one seed. `difference` is the mean difference of the first metric
    (AUC, or RMSE for a regression) from the first label's. `p_value` is that of a paired t-test of these differences,
    seed by seed; None for the first label, and for one seed.
    """
    by_label: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_label.setdefault(outcome.label, []).append(outcome)
    first = next(iter(by_label.values()), [])
    found: dict[str, dict[str, Any]] = {}
    for label, runs in by_label.items():
        values = {name: np.array([r.metrics[name] for r in runs]) for name in runs[0].shown}
        differences = np.array([_compared(r) - _compared(f) for r, f in zip(runs, first, strict=True)])
        found[label] = {
            "seeds": [r.seed for r in runs],
            "metrics": list(values),
            **{f"{name}_mean": float(v.mean()) for name, v in values.items()},
            **{f"{name}_std": float(v.std(ddof=1)) if len(v) > 1 else None for name, v in values.items()},
            "difference": float(differences.mean()),
            "p_value": _p_value(differences) if runs is not first and len(runs) > 1 else None,
            "chosen": runs[0].chosen,
            **(dataclasses.asdict(costs[label]) if label in costs else {}),
        }
    return found


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a `summary` as aligned text, a row per label, without a newline at the end."""
    best, second, *others = next(iter(found.values()))["metrics"]
    rows = [["", title(best), "", "vs first", "p", title(second), "", *map(title, others)]]
    rows[0] += ["parameters", "MB", "examples/s", "ms, 1 row", "ms, 256"]
    for label, one in found.items():
        latency = one.get("latency_ms", {})
        rows.append(
            [
                label,
                f"{one[f'{best}_mean']:.5f}",
                _spread(one[f"{best}_std"]),
                f"{one['difference']:+.5f}",
                "" if one["p_value"] is None else f"{one['p_value']:.3f}",
                f"{one[f'{second}_mean']:.5f}",
                _spread(one[f"{second}_std"]),
                *(f"{one[f'{name}_mean']:.4f}" for name in others),
                f"{one['parameters']:,}" if "parameters" in one else "",
                f"{one['bytes'] / 1e6:.1f}" if "bytes" in one else "",
                f"{one['examples_per_second']:,.0f}" if "examples_per_second" in one else "",
                *(f"{latency[size]:.2f}" if size in latency else "" for size in ("1", "256")),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([label.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]) for label, *cells in rows]
    return "\n".join(line.rstrip() for line in lines)


def draw(outcomes: Sequence[Outcome], found: Mapping[str, Mapping[str, Any]], directory: str) -> list[str]:
    """Draws `quality.png` and `curves.png`; returns their paths."""
    paths = [os.path.join(directory, name) for name in ("quality.png", "curves.png")]
    figure, (left, right) = _figure()
    _draw_quality(left, found)
    _draw_sizes(right, found)
    save_figure(figure, paths[0])
    figure, axes = _figure()
    for panel, name in zip(axes, outcomes[0].shown, strict=False):
        _draw_curves(panel, outcomes, name)
    save_figure(figure, paths[1])
    return paths


def _compared(outcome: Outcome) -> float:
    return outcome.metrics[outcome.shown[0]]


def _p_value(differences: np.ndarray) -> float:
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _spread(value: float | None) -> str:
    return "" if value is None else f"+-{value:.5f}"


def _figure() -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(14, 5.5), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _draw_quality(panel: Axes, found: Mapping[str, Mapping[str, Any]]) -> None:
    metric = _best(found)
    labels = list(found)
    means = [one[f"{metric}_mean"] for one in found.values()]
    bars = [2 * (one[f"{metric}_std"] or 0) / math.sqrt(len(one["seeds"])) for one in found.values()]
    for i, (mean, bar) in enumerate(zip(means, bars, strict=True)):
        panel.errorbar(mean, i, xerr=bar, fmt="o", color=_COLORS[i % len(_COLORS)], capsize=4)
    panel.set_yticks(range(len(labels)), labels)
    panel.invert_yaxis()
    panel.set(title=f"{title(metric)}, mean and two standard errors over seeds", xlabel=title(metric))
    panel.grid(axis="x", alpha=0.3)


def _draw_sizes(panel: Axes, found: Mapping[str, Mapping[str, Any]]) -> None:
    metric = _best(found)
    panel.set(title="Quality against size", xlabel="megabytes", ylabel=title(metric))
    sized = {label: one for label, one in found.items() if "bytes" in one}
    for i, (label, one) in enumerate(sized.items()):
        x, y = one["bytes"] / 1e6, one[f"{metric}_mean"]
        panel.plot(x, y, "o", color=_COLORS[i % len(_COLORS)], markersize=8)
        panel.annotate(label, (x, y), textcoords="offset points", xytext=(7, 4))
    if sized:
        panel.set_xscale("log")
        panel.margins(x=0.25, y=0.15)
    panel.grid(alpha=0.3)


def _draw_curves(panel: Axes, outcomes: Sequence[Outcome], metric: str) -> None:
    labels = list(dict.fromkeys(o.label for o in outcomes))
    for i, label in enumerate(labels):
        runs = [{p["step"]: p[metric] for p in o.curve} for o in outcomes if o.label == label]
        steps = sorted(set.intersection(*(set(run) for run in runs)))
        values = np.array([[run[s] for s in steps] for run in runs])
        color = _COLORS[i % len(_COLORS)]
        panel.plot(steps, values.mean(axis=0), "o-", color=color, markersize=4, label=label)
        panel.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15)
    name = title(metric)
    panel.set(title=f"{name} on the whole evaluation set; bands from worst to best seed", xlabel="step", ylabel=name)
    panel.legend(frameon=False)
    panel.grid(alpha=0.3)


def _best(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the metric that models are compared by."""
    return str(next(iter(found.values()))["metrics"][0])
