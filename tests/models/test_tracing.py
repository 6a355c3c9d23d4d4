"""Which steps TensorFlow rewrites by AutoGraph: those with a user's code in them, whose `if` may be over tensors."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from family import SCHEMA, batch

import tfrs_dlrm as td


class Doubled(td.EmbeddingMLP):
    """A user's model, with an `if` over a tensor that is always true."""

    def compute_logits(self, dense, embeddings, training):
        logits = super().compute_logits(dense, embeddings, training)
        if tf.reduce_sum(tf.square(logits)) >= 0:
            logits *= 2
        return logits


def positives(labels, predictions):
    """A user's metric, likewise."""
    found = tf.reduce_mean(predictions)
    if found > 2:
        found = tf.constant(2.0)
    return found


def steps(model):
    """Two steps, an evaluation, scores and predictions, in graphs."""
    features, labels = batch(), tf.constant([0.0, 1, 0, 1, 1, 0])
    data = tf.data.Dataset.from_tensors((features, labels)).repeat(2)
    model.fit(data, verbose=0)
    scores = model.scores(features).numpy()
    predicted = model.predict(data, verbose=0)
    np.testing.assert_allclose(predicted, np.tile(1 / (1 + np.exp(-scores)), 2), rtol=1e-5)
    return model.evaluate(data, verbose=0, return_dict=True), scores


def test_code_of_a_user_may_branch_on_tensors():
    model = Doubled(SCHEMA, (3, 1))
    model.compile("sgd", td.SGD(0.1))
    plain = td.EmbeddingMLP(SCHEMA, (3, 1))
    plain.build()
    scores = steps(model)[1]
    plain.set_weights(model.get_weights())
    np.testing.assert_allclose(scores, 2 * plain.scores(batch()), rtol=1e-5)

    measured = td.EmbeddingMLP(SCHEMA, (3, 1))
    measured.compile("sgd", td.SGD(0.1), metrics=[positives])
    assert 0 < steps(measured)[0]["positives"] < 1


@pytest.mark.parametrize("metrics", [None, ["accuracy"], [keras.metrics.AUC(name="area")]])
def test_code_of_the_package_is_traced_as_it_is_written(metrics, monkeypatch):
    status = []
    plain = td.EmbeddingMLP.compute_logits

    def noted(self, dense, embeddings, training):
        status.append(tf.__internal__.autograph.control_status_ctx().status.name)
        return plain(self, dense, embeddings, training)

    model = td.EmbeddingMLP(SCHEMA, (3, 1))
    model.compile("sgd", "rowwise_adagrad", metrics=metrics)
    monkeypatch.setattr(td.EmbeddingMLP, "compute_logits", noted)
    steps(model)
    assert status and set(status) == {"DISABLED"}
