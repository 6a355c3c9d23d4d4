"""The pictures of one label in a report."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfrs_dlrm import plots
from tfrs_dlrm.metrics.exact import sigmoid
from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.models.tasks import Regression
from tfrs_dlrm.tools.report.markup import Html, picture, table
from tfrs_dlrm.training.evaluation import Scores
from tfrs_dlrm.training.groups import GroupEvaluation

_GROUPS = 12


def score_pictures(scores: Scores) -> list[Html]:
    """Draws the scores of a label: three pictures."""
    y, z, w = scores.labels, scores.logits, scores.weights
    metrics = scores.metrics()

    def shown(name: str, form: str = ".4f") -> str:
        return f"{metrics[name]:{form}}" if name in metrics else "undefined"

    if isinstance(scores.task, Regression):
        return [
            picture(plots.prediction_density(y, z, w), "Labels against predictions"),
            picture(plots.calibration(y, z, w), "Mean labels against mean predictions of groups of examples"),
            picture(plots.error_distribution(y, z, w), f"Distribution of the errors; RMSE {shown('rmse', '.4g')}"),
        ]
    p = sigmoid(z.astype(np.float64))
    return [
        picture(plots.roc_curve(y, z, w), f"ROC curve; AUC {shown('auc')}"),
        picture(plots.calibration(y, p, w), f"Calibration; {shown('calibration')} overall"),
        picture(plots.scores_by_class(y, z, w), "Distribution of the logits of positive and negative examples"),
    ]


def group_pictures(groups: GroupEvaluation) -> Iterator[Html]:
    """Yields a picture and a table per feature, of its most frequent values."""
    for feature, columns in groups.to_dict()["group_by"].items():
        count = len(columns["value"])
        if not count:  # no example has the label
            continue
        metric = "auc" if "auc" in columns else "rmse"
        yield picture(
            plots.groups(columns, feature, _GROUPS),
            f"Examples, mean label, mean prediction and {title(metric)} by {feature}, most frequent values first",
        )
        names = ("value", "examples", "label_mean", "prediction_mean", metric)
        which = f", the {_GROUPS} most frequent of {count:,} values" if count > _GROUPS else ""
        head = (feature, "examples", "mean label", "mean prediction", title(metric))
        yield table(f"By {feature}{which}.", head, zip(*([*columns[name]][:_GROUPS] for name in names), strict=True))
