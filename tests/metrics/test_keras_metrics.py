"""Keras metrics: by hand, against the exact ones, and in model.fit on replicas."""

import tfrs_dlrm  # noqa: F401

# isort: split
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras
from metric_examples import NAMES, examples, update_all, values

from tfrs_dlrm import metrics
from tfrs_dlrm.distribute.strategies import make_strategy
from tfrs_dlrm.metrics import keras_metrics


def test_streaming_by_hand():
    measures = metrics.default_metrics()
    update_all(measures, [0, 1], np.log([1 / 3, 1 / 3]))
    update_all(measures, [0, 1], np.log([3.0, 3.0]))
    loss = (np.log(4) + np.log(4 / 3)) / 2
    expected = dict(zip(NAMES, (0.5, loss, loss / np.log(2), 1, 0.25), strict=True))
    assert values(measures) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("dtype", [tf.float64, tf.float32])
def test_unequal_weighted_batches_match_exact(monkeypatch, column, dtype):
    """float32 stands for a TPU, where the sums are of that type."""
    monkeypatch.setattr(keras_metrics, "_accumulator_dtype", lambda: dtype)
    labels, logits, weights = examples(5003)
    measures = metrics.default_metrics()
    assert all(v.dtype == dtype for m in measures for v in m.variables)
    for batch in np.split(np.arange(5003), [1, 2, 900, 905, 4000]):
        shape = (-1, 1) if column else (-1,)
        # Weights stay [B] against labels and logits [B, 1], which must not broadcast to [B, B].
        update_all(measures, labels[batch].astype(int).reshape(shape), logits[batch].reshape(shape), weights[batch])
    expected = {name: metrics.evaluate_scores(labels, logits, weights)[name] for name in NAMES}
    assert values(measures) == pytest.approx(expected, rel=2e-6)


def test_no_weight_is_weight_one_and_a_scalar_is_for_all():
    labels, logits, _ = examples(500)
    unweighted, scalar = metrics.default_metrics(), metrics.default_metrics()
    update_all(unweighted, labels, logits)
    update_all(scalar, labels, logits, 3.0)
    assert values(scalar) == pytest.approx(values(unweighted), rel=1e-6)
    expected = {name: metrics.evaluate_scores(labels, logits)[name] for name in NAMES}
    assert values(unweighted) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("mean", [0.0, -4.0, -7.0])
def test_streaming_auc_error(mean):
    labels, logits, weights = examples(1_000_000, mean=mean, deviation=1.0, grid=False)
    measure = metrics.StreamingAUC()
    measure.update_state(labels, logits, weights)
    assert float(measure.result()) == pytest.approx(metrics.exact_auc(labels, logits, weights), abs=2e-5)


def test_streaming_auc_beyond_its_bins_ties():
    measure = metrics.StreamingAUC()
    measure.update_state([1, 0, 1, 0], [1e30, 17.0, 0.0, -1e30])
    # The tie of 1e30 with 17 counts half, 0 loses to 17, and both positives beat the last.
    assert float(measure.result()) == pytest.approx(2.5 / 4)


def test_weightless_batches_change_nothing():
    labels, logits, weights = examples(300)
    measures = metrics.default_metrics()
    update_all(measures, labels, logits, np.zeros(300))
    assert all(np.isnan(value) for value in values(measures).values())
    update_all(measures, labels, logits, weights)
    before = values(measures)
    update_all(measures, 1 - labels, -logits, np.zeros(300))
    assert values(measures) == before


def test_nan_logits_are_not_hidden():
    measures = metrics.default_metrics()
    update_all(measures, [0, 1, 1], [0.0, 1.0, np.nan])
    assert all(np.isnan(value) for value in values(measures).values())


def test_sums_hold_a_billion_examples():
    measure = metrics.Calibration()
    keras.backend.set_value(measure.variables[0], [2.0**30, 2.0**30])
    for _ in range(1000):
        measure.update_state([1.0], [-30.0])
    # In float32, 2^30 + 1 is 2^30 and this would be 1.
    assert float(measure.result()) == pytest.approx(2**30 / (2**30 + 1000), abs=6e-8)


def test_reset_and_config_round_trip():
    labels, logits, weights = examples(400)
    measures = [metrics.StreamingAUC(bins=100, name="a"), metrics.ExpectedCalibrationError(bins=3, name="e")]
    measures += [metrics.LogLoss(name="l"), metrics.NormalizedEntropy(name="n"), metrics.Calibration(name="c")]
    update_all(measures, labels, logits, weights)
    copies = [keras.metrics.deserialize(keras.metrics.serialize(m)) for m in measures]
    update_all(copies, labels, logits, weights)
    assert values(copies) == values(measures)
    for m in measures:
        m.reset_state()
    update_all(measures, labels[:50], logits[:50])
    fresh = [type(m).from_config(m.get_config()) for m in measures]
    update_all(fresh, labels[:50], logits[:50])
    assert values(measures) == values(fresh)
    assert values(fresh) != values(copies)


def test_streaming_refuses():
    with pytest.raises(ValueError, match="bins=1; at least 2"):
        metrics.StreamingAUC(bins=1)
    with pytest.raises(ValueError, match="bins=0; at least 1"):
        metrics.ExpectedCalibrationError(bins=0)
    with pytest.raises(ValueError, match="metric 'log_loss': 2 values in y_true and 4 in y_pred"):
        metrics.LogLoss().update_state(tf.zeros([2]), tf.zeros([2, 2]))


def test_compiles_with_xla():
    labels, logits, weights = examples(512)
    measures = metrics.default_metrics()

    @tf.function(jit_compile=True)
    def step(y, z, w):
        update_all(measures, y, z, w)
        return [m.result() for m in measures]

    got = dict(zip(NAMES, (float(v) for v in step(labels, logits, weights)), strict=True))
    expected = {name: metrics.evaluate_scores(labels, logits, weights)[name] for name in NAMES}
    assert got == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_inside_a_ranking_task_under_bfloat16(policy):
    """The task's call casts its labels and, where it can, the variables that it reads."""
    labels, logits, weights = examples(2000)
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        measures = metrics.default_metrics()
        task = tfrs.tasks.Ranking(loss=keras.losses.BinaryCrossentropy(from_logits=True), metrics=measures)

        @tf.function
        def step(y, z, w):
            task(labels=y[:, None], predictions=z[:, None], sample_weight=w[:, None])

        for batch in np.split(np.arange(2000), [1, 700]):
            step(labels[batch], logits[batch], weights[batch])
        assert all(v.dtype == tf.float64 for m in measures for v in m.variables)
        assert all(m.result().dtype == tf.float32 for m in measures)
    finally:
        keras.mixed_precision.set_global_policy(before)
    expected = {name: metrics.evaluate_scores(labels, logits, weights)[name] for name in NAMES}
    assert values(measures) == pytest.approx(expected, rel=2e-6)


class Echo(tfrs.Model):
    """Its logit is its input plus a bias of 0."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = self.add_weight("bias", shape=())
        loss = keras.losses.BinaryCrossentropy(from_logits=True, reduction="sum")
        self.task = tfrs.tasks.Ranking(loss=loss, metrics=metrics.default_metrics())

    def call(self, features):
        return features + self.bias

    def compute_loss(self, inputs, training=False):
        # Keras's loss takes the mean over the last axis, before it looks at weights.
        logits, labels, weights = (column[:, None] for column in inputs)
        return self.task(labels=labels, predictions=self(logits), sample_weight=weights)


@pytest.mark.parametrize("strategy", [tf.distribute.get_strategy, lambda: make_strategy("mirrored", 2)])
def test_fit_and_evaluate_on_replicas_match_exact(strategy):
    """1003 examples in batches of 100: the replicas get 50 and 50, and of the last batch 2 and 1."""
    labels, logits, weights = examples(1003)
    data = tf.data.Dataset.from_tensor_slices((logits, labels, weights)).batch(100)
    with strategy().scope():
        model = Echo()
        model.bias.assign(0.0)
        # A learning rate of 0, so that every step of the epoch sees the same logits.
        model.compile(optimizer=keras.optimizers.SGD(0.0))
    fitted = model.fit(data, epochs=2, verbose=0).history
    evaluated = model.evaluate(data, return_dict=True, verbose=0)
    exact = metrics.evaluate_scores(labels, logits, weights)
    expected = pytest.approx({name: exact[name] for name in NAMES}, rel=2e-6)
    assert {name: evaluated[name] for name in NAMES} == expected
    for epoch in range(2):
        assert {name: fitted[name][epoch] for name in NAMES} == expected


def test_out_of_range_ids_are_counted_by_feature():
    metric = metrics.OutOfRangeIds(["a", "b", "c"])
    metric.update_state(tf.constant([1, 0, 2]))
    metric.update_state(tf.constant([4, 0, 0]))
    assert float(metric.result()) == 7 and metric.by_feature() == {"a": 5, "c": 2}
    again = metrics.OutOfRangeIds.from_config(metric.get_config())
    assert again.get_config() == metric.get_config() and again.by_feature() == {}
    metric.reset_state()
    assert float(metric.result()) == 0
