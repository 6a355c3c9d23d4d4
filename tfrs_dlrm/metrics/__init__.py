"""How good a click model is: exact on arrays in memory (`exact`), streamed through `model.fit` (`streaming`)."""

from tfrs_dlrm.metrics.exact import (
    Reliability,
    evaluate_scores,
    exact_auc,
    log_loss,
    reliability,
    roc_curve,
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
    "LogLoss",
    "NormalizedEntropy",
    "OutOfRangeIds",
    "Reliability",
    "StreamingAUC",
    "default_metrics",
    "evaluate_scores",
    "exact_auc",
    "log_loss",
    "reliability",
    "roc_curve",
]
