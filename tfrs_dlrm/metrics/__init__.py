"""How good a model is: exact on arrays, by groups, and streamed through `model.fit`; of clicks, and of numbers."""

from tfrs_dlrm.metrics.exact import (
    Reliability,
    evaluate_scores,
    exact_auc,
    log_loss,
    reliability,
    roc_curve,
)
from tfrs_dlrm.metrics.groups import GroupedAUC, GroupMetrics, group_metrics, grouped_auc
from tfrs_dlrm.metrics.regression import (
    MeanAbsoluteError,
    RootMeanSquaredError,
    evaluate_predictions,
    regression_metrics,
)
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
    "MeanAbsoluteError",
    "NormalizedEntropy",
    "OutOfRangeIds",
    "Reliability",
    "RootMeanSquaredError",
    "StreamingAUC",
    "default_metrics",
    "evaluate_predictions",
    "evaluate_scores",
    "exact_auc",
    "group_metrics",
    "grouped_auc",
    "log_loss",
    "regression_metrics",
    "reliability",
    "roc_curve",
]
