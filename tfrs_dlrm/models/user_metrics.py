"""The metrics that a user gives to `compile`: by name, as functions, and as Keras metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import tf_keras as keras

from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.metrics.keras_metrics import SumMetric
from tfrs_dlrm.models.label_tasks import Tasks, of_labels
from tfrs_dlrm.models.tasks import BinaryClassification, Task
from tfrs_dlrm.schema import Schema

# What Keras calls them depends on the shape of labels; ours are binary.
_BINARY = {
    "accuracy": keras.metrics.binary_accuracy,
    "acc": keras.metrics.binary_accuracy,
    "crossentropy": keras.metrics.binary_crossentropy,
    "ce": keras.metrics.binary_crossentropy,
}
# Of Keras' metrics that judge classes or probabilities.
_CLASSIFICATION = re.compile(
    "accuracy|crossentropy|auc|precision|recall|positives|negatives|hinge|iou|f1|fbeta|sensitivity|specificity|^kl|^kullback",
    re.IGNORECASE,
)


def metrics_by_label(given: Any, schema: Schema, tasks: Tasks) -> list[list[keras.metrics.Metric]]:
    """Makes the metrics of each label; call it in the strategy's scope.

    The names of further labels' metrics end in `_LABEL`, as those of their default metrics do.

    Args:
      given: a mapping by label name, or a list with a list per label, of what `make_metrics` takes; or what
        `make_metrics` takes itself, for the first label.
      schema: of the model.
      tasks: the tasks of its labels.

    Raises:
      ValueError: there is no such label, there are more or fewer lists than labels, or see `make_metrics`.
    """
    if isinstance(given, Mapping):
        per_label = of_labels("metrics", given, schema)
    elif isinstance(given, (list, tuple)) and given and all(isinstance(m, (list, tuple)) for m in given):
        per_label = list(given)
    else:
        per_label = [given, *([] for _ in tasks.more)]
    if len(per_label) != len(tasks.all):
        raise ValueError(f"metrics={given!r}: {len(per_label)} lists for {len(tasks.all)} labels; give one for each")
    made = [make_metrics([] if m is None else m, task) for m, task in zip(per_label, tasks.all, strict=True)]
    for metrics, suffix in zip(made, tasks.suffixes, strict=True):
        for metric in metrics:
            if not metric.name.endswith(suffix):  # it does if it was compiled before
                metric._name = metric.name + suffix
    return made


def make_metrics(given: Any, task: Task) -> list[keras.metrics.Metric]:
    """Makes the metrics of a label; call it in the strategy's scope.

    Args:
      given: a metric or a sequence of metrics, each a `keras.metrics.Metric`, a function of (label, prediction), or a
        name: of our metrics for the task in any case (`auc`, `rmse`), or of a Keras metric (`accuracy`, `Precision`).
      task: of the label.

    Raises:
      ValueError: a name is unknown or, for a regression, that of a metric of classifications, or a metric is none of
        these.
    """
    metrics = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    ours = {m.name: m for m in task.metrics()} if any(isinstance(m, str) for m in metrics) else {}
    return [_metric(m, ours, isinstance(task, BinaryClassification)) for m in metrics]


def check_names(metrics: Sequence[keras.metrics.Metric]) -> None:
    """Checks that the names of metrics, under which Keras reports them, differ.

    Raises:
      ValueError: two metrics have one name.
    """
    names = [m.name for m in metrics]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"metrics={names}: {', '.join(map(repr, twice))} stands for two metrics ('loss' and 'out_of_range' are"
            " always reported); give one of them another name, as in keras.metrics.AUC(name='other')"
        )


def takes_scores(metric: keras.metrics.Metric) -> bool:
    """Whether a metric is computed from logits, and not from probabilities.

    Ours are; Keras' metrics if they were made with `from_logits=True`.
    """
    return isinstance(metric, SumMetric) or bool(metric.get_config().get("from_logits", False))


def _metric(given: Any, ours: dict[str, keras.metrics.Metric], binary: bool) -> keras.metrics.Metric:
    if isinstance(given, keras.metrics.Metric):
        return given
    if isinstance(given, type):
        mend = f"give an object of it, such as {given.__name__}()" if issubclass(given, keras.metrics.Metric) else ""
        mend = mend or "give a keras.metrics.Metric, a function of (label, prediction), or a name"
        raise ValueError(f"metrics: {given.__name__} is a class; {mend}")
    if not isinstance(given, str):
        name = getattr(given, "__name__", "")
        if not callable(given) or not name:
            raise ValueError(
                f"metrics: {given!r} is not a metric; give a keras.metrics.Metric, a function of (label, prediction),"
                " or a name"
            )
        return keras.metrics.MeanMetricWrapper(given, name=name)
    if given.lower() in ours:
        return ours.pop(given.lower())
    if given.lower() in _BINARY and binary:
        return keras.metrics.MeanMetricWrapper(_BINARY[given.lower()], name=given)
    return _keras_metric(given, [*ours, *(_BINARY if binary else ())], binary)


def _keras_metric(name: str, known: Sequence[str], binary: bool) -> keras.metrics.Metric:
    keras_names = [n for n, value in vars(keras.metrics).items() if callable(value) and not n.startswith("_")]
    if not binary:
        others = {m.name for m in BinaryClassification().metrics()} | _BINARY.keys()
        if name.lower() in others or (name in keras_names and _CLASSIFICATION.search(name)):
            names = ", ".join(map(repr, known))
            raise ValueError(
                f"metrics: {name!r} judges a classification, and the label is a regression; known are {names}, and the"
                " names of Keras' metrics of numbers, such as 'MeanSquaredError'"
            )
        keras_names = [n for n in keras_names if not _CLASSIFICATION.search(n)]
    if name not in keras_names and name not in keras.utils.get_custom_objects():
        names = ", ".join(map(repr, known))
        raise ValueError(
            f"metrics: no metric is called {name!r};"
            f" {did_you_mean(name, [*known, *keras_names]) or f'known are {names}, and the names of Keras metrics'}"
        )
    try:
        found = keras.metrics.get(name)
    except (TypeError, ValueError) as e:
        raise ValueError(f"metrics: {name!r} needs arguments; give keras.metrics.{name}(...) itself: {e}") from e
    return found if isinstance(found, keras.metrics.Metric) else keras.metrics.MeanMetricWrapper(found, name=name)
