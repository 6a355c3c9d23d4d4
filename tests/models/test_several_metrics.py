"""Metrics that a user gives each of several labels."""

import numpy as np
import pytest
import sklearn.metrics
import tf_keras as keras

import tfrs_dlrm as td

LABELS = (td.Label("clicked"), td.Label("cents", task="regression", name="spend"))
X = np.random.default_rng(0).normal(size=(200, 2)).astype("f")
Y = np.stack([X[:, 0] + X[:, 1] > 0, X[:, 1] * 2], axis=1).astype("f")


@keras.utils.register_keras_serializable(package="tests")
class Known(td.RankingModel):
    """Its logit and its predicted number are the dense features."""

    def compute_logits(self, dense, embeddings, training):
        return dense[:, : len(self.schema.labels)]


def make(labels=2):
    return Known(td.Schema(LABELS[0], (td.DenseFeature("a"), td.DenseFeature("b")), more_labels=LABELS[1:labels]))


def measured(model):
    y = Y[:, : len(model.schema.labels)]
    found = model.evaluate({"dense": X}, y, 200, verbose=0, return_dict=True)
    return {name: value for name, value in found.items() if name not in ("loss", "out_of_range")}


@pytest.mark.parametrize("suffix", [".keras", ""])
def test_each_label_has_its_metrics_also_when_loaded(suffix, tmp_path):
    auc, mse = sklearn.metrics.roc_auc_score(Y[:, 0], X[:, 0]), np.mean((Y[:, 1] - X[:, 1]) ** 2)
    both = {"auc": auc, "mse_spend": mse}
    numbers = keras.metrics.MeanSquaredError(name="mse")
    model = make()
    for metrics, expected in (
        ([["AUC"], ["mse"]], both),
        ({"spend": ["mse"]}, {"mse_spend": mse}),
        (["AUC"], {"auc": auc}),
        ({"spend": [numbers], "clicked": "AUC"}, both),
        ({"spend": [numbers], "clicked": "AUC"}, both),  # the same one again
    ):
        model.compile(metrics=metrics)
        assert measured(model) == pytest.approx(expected, rel=1e-3)
    model.fit({"dense": X}, Y, verbose=0)
    model.save(f"{tmp_path}/m{suffix}")
    loaded = keras.models.load_model(f"{tmp_path}/m{suffix}")
    assert measured(loaded) == pytest.approx(both, rel=1e-3)


def test_one_label_may_be_named():
    model = make(1)
    for metrics in ({"clicked": ["AUC"]}, [["AUC"]]):
        model.compile(metrics=metrics)
        assert measured(model).keys() == {"auc"}


def test_refuses():
    for metrics, text in (
        ({"spent": ["mse"]}, "metrics: no label is called 'spent'; did you mean 'spend'"),
        ({"x": ["mse"]}, r"the labels are \['clicked', 'spend'\]"),
        ([["AUC"]], "1 lists for 2 labels; give one for each"),
        ([["AUC"], ["AUC"]], "'AUC' judges a classification, and the label is a regression"),
    ):
        with pytest.raises(ValueError, match=text):
            make().compile(metrics=metrics)
