"""The usual names of metrics, for tables and figures."""

from __future__ import annotations

_TITLES = {
    "auc": "AUC",
    "log_loss": "log loss",
    "normalized_entropy": "NE",
    "ndcg": "NDCG@10",
    "rmse": "RMSE",
    "mae": "MAE",
}


def title(metric: str) -> str:
    """Returns the usual name of a metric, or the metric itself if it has none."""
    return _TITLES.get(metric, metric)
