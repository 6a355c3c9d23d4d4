"""How good a click model is: exact on arrays (`exact`, `groups`), streamed through `model.fit` (`streaming`)."""

from tfrs_dlrm.metrics.exact import (
    Reliability,
    evaluate_scores,
    exact_auc,
    log_loss,
    reliability,
    roc_curve,
)
from tfrs_dlrm.metrics.groups import GroupedAUC, GroupMetrics, group_metrics, grouped_auc
from tfrs_dlrm.metrics.streaming import (
    Calibration,
    ExpectedCalibrationError,
    LogLoss,
    NormalizedEntropy,
    OutOfRangeIds,
    StreamingAUC,
    default_metrics,
)

__all__ = [
    "Calibration",
    "ExpectedCalibrationError",
    "GroupMetrics",
    "GroupedAUC",
    "LogLoss",
    "NormalizedEntropy",
    "OutOfRangeIds",
    "Reliability",
    "StreamingAUC",
    "default_metrics",
    "evaluate_scores",
    "exact_auc",
    "group_metrics",
    "grouped_auc",
    "log_loss",
    "reliability",
    "roc_curve",
]
