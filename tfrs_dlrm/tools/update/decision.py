"""Whether the new model of an update takes the place of the current one."""

from __future__ import annotations

from collections.abc import Mapping

from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.tools.update.records import ACCEPTED, REJECTED


def decide(current: Mapping[str, float], candidate: Mapping[str, float], tolerance: float) -> tuple[str, str]:
    """Compares two models by the first label's log loss, or by the RMSE of a regression, on the same rows.

    Args:
      current: the metrics of the current model.
      candidate: those of the new one.
      tolerance: the largest relative increase that is accepted.

    Returns:
      `accepted` or `rejected`, and the reason in words.
    """
    metric = "log_loss" if "log_loss" in current else "rmse"
    before, after = current[metric], candidate[metric]
    change = f"its {title(metric)} on the held-out rows is {after:.6f}, the current model's {before:.6f}"
    if before > 0:
        change += f" ({after / before - 1:+.2%})"
    if after <= before * (1 + tolerance):
        return ACCEPTED, change
    return REJECTED, f"{change}, more than the tolerance of {tolerance:.2%}"
