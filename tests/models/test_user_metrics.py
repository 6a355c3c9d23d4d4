import numpy as np
import pytest
import sklearn.metrics
import tf_keras as keras
from metric_examples import examples

from tfrs_dlrm.metrics import LogLoss, StreamingAUC
from tfrs_dlrm.models import RankingModel
from tfrs_dlrm.schema import DenseFeature, Label, Schema

LABELS, LOGITS, WEIGHTS = examples(4000)


class Known(RankingModel):
    """Its logit, or its predicted number, is the dense feature."""

    def compute_logits(self, dense, embeddings, training):
        return dense


def measured(metrics, task="classification", weights=WEIGHTS):
    model = Known(Schema(Label("y", task=task), (DenseFeature("x"),)))
    model.compile(metrics=metrics)
    found = model.evaluate({"dense": LOGITS[:, None]}, LABELS, 1000, sample_weight=weights, verbose=0, return_dict=True)
    return {name: value for name, value in found.items() if name not in ("loss", "out_of_range")}


def test_keras_metrics_get_probabilities_or_the_logits_that_they_ask_for():
    found = measured(
        [
            "AUC",
            "accuracy",
            "Precision",
            keras.metrics.AUC(name="keras_auc"),
            keras.metrics.AUC(name="keras_auc_of_logits", from_logits=True),
            LogLoss(),
            keras.metrics.BinaryCrossentropy(),
            keras.metrics.BinaryCrossentropy("of_logits", from_logits=True),
            keras.metrics.mean_absolute_error,
        ]
    )
    probabilities = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    clicks = probabilities > 0.5
    auc = sklearn.metrics.roc_auc_score(LABELS, LOGITS, sample_weight=WEIGHTS)
    assert found["auc"] == pytest.approx(auc, abs=1e-5)
    assert found["keras_auc"] == pytest.approx(found["auc"], abs=1e-3)
    assert found["keras_auc_of_logits"] == pytest.approx(found["keras_auc"], abs=1e-6)
    accuracy = sklearn.metrics.accuracy_score(LABELS, clicks, sample_weight=WEIGHTS)
    assert found["accuracy"] == pytest.approx(accuracy, rel=1e-5)
    precision = sklearn.metrics.precision_score(LABELS, clicks, sample_weight=WEIGHTS)
    assert found["precision"] == pytest.approx(precision, rel=1e-5)
    loss = sklearn.metrics.log_loss(LABELS, probabilities, sample_weight=WEIGHTS)
    assert [found[n] for n in ("log_loss", "binary_crossentropy", "of_logits")] == pytest.approx([loss] * 3, rel=1e-5)
    error = np.average(np.abs(LABELS - probabilities), weights=WEIGHTS)
    assert found["mean_absolute_error"] == pytest.approx(error, rel=1e-5)


def test_metrics_of_numbers_get_numbers():
    found = measured(["rmse", "mse", keras.metrics.MeanAbsoluteError()], task="regression", weights=None)
    error = LOGITS - LABELS
    expected = {
        "rmse": np.sqrt(np.mean(error**2)),
        "mse": np.mean(error**2),
        "mean_absolute_error": np.mean(abs(error)),
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_one_metric_needs_no_list():
    for metric in ("auc", StreamingAUC()):
        assert measured(metric).keys() == {"auc"}
    assert measured([]) == {}


@pytest.mark.parametrize(
    ("metrics", "task", "text"),
    [
        (["acuracy"], "classification", "no metric is called 'acuracy'; did you mean 'accuracy'"),
        (["log_los"], "classification", "did you mean 'log_loss'"),
        (["recal"], "classification", r"did you mean 'Recall' or|did you mean 'Recall'"),
        (["xyzzy"], "classification", "known are 'auc', 'log_loss', .*, and the names of Keras metrics"),
        *(
            ([name], "regression", f"'{name}' judges a classification, and the label is a regression; known are 'rmse'")
            for name in ("auc", "AUC", "accuracy", "log_loss", "Precision", "binary_crossentropy", "F1Score")
        ),
        (["Acuracy"], "regression", "no metric is called 'Acuracy'; known are 'rmse', 'mae', and the names"),
        (["MeanIoU"], "classification", r"'MeanIoU' needs arguments; give keras.metrics.MeanIoU\(...\) itself"),
        (["auc", keras.metrics.AUC()], "classification", r"'auc' stands for two metrics .* keras.metrics.AUC\(name="),
        ([keras.metrics.Mean(name="loss")], "classification", "'loss' stands for two metrics"),
        ([3], "classification", "metrics: 3 is not a metric; give a keras.metrics.Metric"),
    ],
)
def test_refuses(metrics, task, text):
    with pytest.raises(ValueError, match=text):
        measured(metrics, task)
