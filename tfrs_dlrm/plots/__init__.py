"""Pictures of training, evaluation, explanation, comparison and updates, as Matplotlib figures.

The functions take arrays, or what a program writes as JSON. They leave pyplot and its global state alone; a notebook
shows a figure that a cell ends with, and `figure.savefig` saves it in any format of Matplotlib.
"""

from tfrs_dlrm.plots.binary import classification, roc_curve, scores_by_class
from tfrs_dlrm.plots.by_group import groups
from tfrs_dlrm.plots.figure import save_figure, save_figures
from tfrs_dlrm.plots.log_columns import log_columns
from tfrs_dlrm.plots.model_explanation import explanation, importance, interactions, table_usage
from tfrs_dlrm.plots.models_compared import comparison, comparison_curves
from tfrs_dlrm.plots.predicted_numbers import error_distribution, prediction_density, regression
from tfrs_dlrm.plots.reliability import calibration
from tfrs_dlrm.plots.training_history import training_curves
from tfrs_dlrm.plots.updates_by_day import backtest, updates

__all__ = [
    "backtest",
    "calibration",
    "classification",
    "comparison",
    "comparison_curves",
    "error_distribution",
    "explanation",
    "groups",
    "importance",
    "interactions",
    "log_columns",
    "prediction_density",
    "regression",
    "roc_curve",
    "save_figure",
    "save_figures",
    "scores_by_class",
    "table_usage",
    "training_curves",
    "updates",
]
