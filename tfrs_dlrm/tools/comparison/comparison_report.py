"""The report of a comparison: a table, and numbers for other programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfrs_dlrm.messages.aligned import aligned
from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.tools.comparison.cost import Cost
from tfrs_dlrm.tools.comparison.outcome import Outcome


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
    best, *rest = next(iter(found.values()))["metrics"]
    second, others = rest[:1], rest[1:]
    rows = [["", title(best), "", "vs first", "p", *(x for name in second for x in (title(name), ""))]]
    rows[0] += map(title, others)
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
                *(x for n in second for x in (f"{one[f'{n}_mean']:.5f}", _spread(one[f"{n}_std"]))),
                *(f"{one[f'{name}_mean']:.4f}" for name in others),
                f"{one['parameters']:,}" if "parameters" in one else "",
                f"{one['bytes'] / 1e6:.1f}" if "bytes" in one else "",
                f"{one['examples_per_second']:,.0f}" if "examples_per_second" in one else "",
                *(f"{latency[size]:.2f}" if size in latency else "" for size in ("1", "256")),
            ]
        )
    return "\n".join(aligned(rows))


def _compared(outcome: Outcome) -> float:
    return outcome.metrics[outcome.shown[0]]


def _p_value(differences: np.ndarray) -> float:
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    from scipy import stats  # slow to load

    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _spread(value: float | None) -> str:
    return "" if value is None else f"+-{value:.5f}"
