"""Metrics of click and regression models: exact on arrays, per group, and as Keras metrics for `model.fit`."""

from tfrs_dlrm.metrics.exact import (
    Reliability,
    evaluate_scores,
    exact_auc,
    log_loss,
    reliability,
    roc_curve,
)
from tfrs_dlrm.metrics.groups import GroupedAUC, GroupMetrics, Groups, group_metrics, grouped_auc
from tfrs_dlrm.metrics.keras_metrics import (
    Calibration,
    ExpectedCalibrationError,
    LogLoss,
    NormalizedEntropy,
    OutOfRangeIds,
    StreamingAUC,
    default_metrics,
)
from tfrs_dlrm.metrics.ranking import MeanRanking, RankingMetrics, mean_ranking, ranking_metrics
from tfrs_dlrm.metrics.regression import (
    GroupErrors,
    MeanAbsoluteError,
    RootMeanSquaredError,
    evaluate_predictions,
    group_errors,
    regression_metrics,
)

__all__ = [
    "Calibration",
    "ExpectedCalibrationError",
    "GroupErrors",
    "GroupMetrics",
    "GroupedAUC",
    "Groups",
    "LogLoss",
    "MeanAbsoluteError",
    "MeanRanking",
    "NormalizedEntropy",
    "OutOfRangeIds",
    "RankingMetrics",
    "Reliability",
    "RootMeanSquaredError",
    "StreamingAUC",
    "default_metrics",
    "evaluate_predictions",
    "evaluate_scores",
    "exact_auc",
    "group_errors",
    "group_metrics",
    "grouped_auc",
    "log_loss",
    "mean_ranking",
    "ranking_metrics",
    "regression_metrics",
    "reliability",
    "roc_curve",
]
