import tfrs_dlrm  # noqa: F401

# isort: split
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras

from tfrs_dlrm import metrics
from tfrs_dlrm.distribute.strategies import make_strategy
from tfrs_dlrm.metrics import keras_metrics

NAMES = ("auc", "log_loss", "normalized_entropy", "calibration", "expected_calibration_error")


def examples(size: int, mean: float = -2.0, deviation: float = 1.5, grid: bool = True):
    """Labels, miscalibrated logits and weights, some of them 0; all float32.

    On the grid, logits that differ fall into different bins of StreamingAUC, which is exact for them.
    """
    rng = np.random.default_rng(0)
    truth = rng.normal(mean, deviation, size)
    labels = rng.random(size) < 1 / (1 + np.exp(-truth))
    logits = 0.7 * truth + 0.3 + rng.normal(0, 0.5, size)
    if grid:
        logits = np.round(64 * logits) / 64 + 1 / 1024
    weights = rng.exponential(2.0, size) * (rng.random(size) > 0.1)
    return labels.astype(np.float32), logits.astype(np.float32), weights.astype(np.float32)


def update_all(measures, labels, logits, weights=None):
    for measure in measures:
        measure.update_state(labels, logits, sample_weight=weights)


def values(measures) -> dict[str, float]:
    return {m.name: float(m.result()) for m in measures}


# ---- exact -----------------------------------------------------------------------------------------------------------


def test_exact_auc_by_hand():
    # Positives 4 and 2, negatives 3 and 1: three of four pairs are in order.
    assert metrics.exact_auc([1, 0, 1, 0], [4, 3, 2, 1]) == 0.75
    # The tie counts half; the other three pairs are won.
    assert metrics.exact_auc([1, 0, 1, 0], [4, 2, 2, 1]) == 0.875
    # The lost pair (2 against 3) has weight 1 * 3 of the total (1 + 2) * (3 + 1).
    assert metrics.exact_auc([[1], [0], [1], [0]], [4, 3, 2, 1], [2, 3, 1, 1]) == 0.75


def test_exact_auc_against_all_pairs_and_sklearn():
    labels, logits, weights = examples(600)
    logits = np.round(logits, 1)
    gap = logits[labels == 1][:, None] - logits[labels == 0][None, :]
    pair_weight = np.outer(weights[labels == 1].astype(np.float64), weights[labels == 0])
    by_pairs = (((gap > 0) + 0.5 * (gap == 0)) * pair_weight).sum() / pair_weight.sum()
    assert metrics.exact_auc(labels, logits, weights) == pytest.approx(by_pairs, abs=1e-14)
    assert by_pairs == pytest.approx(sklearn.metrics.roc_auc_score(labels, logits, sample_weight=weights), abs=1e-12)


def test_roc_curve_has_one_point_per_distinct_score():
    false_rate, true_rate = metrics.roc_curve([1, 0, 1, 0], [4, 2, 2, 1])
    np.testing.assert_array_equal(false_rate, [0, 0, 0.5, 1])
    np.testing.assert_array_equal(true_rate, [0, 0.5, 1, 1])


def test_log_loss_by_hand_and_far_from_zero():
    assert metrics.log_loss([1, 0], [0.0, 0.0]) == pytest.approx(np.log(2))
    # Three parts of log(4/3), one part of log(4): the probability is 1/4 both times.
    assert metrics.log_loss([0, 1], [-np.log(3)] * 2, [3, 1]) == pytest.approx(0.75 * np.log(4 / 3) + 0.25 * np.log(4))
    assert metrics.log_loss([1, 0, 1], [-1000.0, 1000.0, 1000.0]) == pytest.approx(2000 / 3)


def test_evaluate_scores_by_hand():
    # Probabilities 1/4, 1/4, 3/4, 3/4 with one click in each pair: half the predicted mean and half the observed.
    got = metrics.evaluate_scores([0, 1, 0, 1], np.log([1 / 3, 1 / 3, 3, 3]))
    loss = (np.log(4) + np.log(4 / 3)) / 2
    assert got == pytest.approx(
        {
            "examples": 4,
            "weight": 4,
            "label_mean": 0.5,
            "prediction_mean": 0.5,
            "auc": 0.5,
            "log_loss": loss,
            "normalized_entropy": loss / np.log(2),
            "calibration": 1,
            "expected_calibration_error": 0.25,
        }
    )
    assert list(got)[4:] == list(NAMES)


def test_evaluate_scores_against_sklearn_and_plain_numpy():
    labels, logits, weights = (a.astype(np.float64) for a in examples(5000))
    p = 1 / (1 + np.exp(-logits))
    base = np.average(labels, weights=weights)
    always_base = sklearn.metrics.log_loss(labels, np.full_like(p, base), sample_weight=weights)
    error = 0.0
    for low in np.arange(20) / 20:
        inside = (p >= low) & (p < low + 0.05)
        error += abs((weights * (p - labels))[inside].sum()) / weights.sum()
    loss = sklearn.metrics.log_loss(labels, p, sample_weight=weights)
    got = metrics.evaluate_scores(labels, logits, weights)
    assert got["examples"] == 5000
    assert got["weight"] == pytest.approx(weights.sum())
    assert got["log_loss"] == pytest.approx(loss, rel=1e-12)
    assert got["normalized_entropy"] == pytest.approx(loss / always_base, rel=1e-12)
    assert got["calibration"] == pytest.approx(np.average(p, weights=weights) / base, rel=1e-12)
    assert got["expected_calibration_error"] == pytest.approx(error, rel=1e-10)
    assert error > 0.02


def test_reliability_in_bins_of_one_s_own():
    got = metrics.reliability([1, 0, 1, 0], np.log([1, 1, 3, 3]), [1, 3, 2, 0], edges=[0.5, 0.6])
    np.testing.assert_allclose(got.weight, [4, 2])
    np.testing.assert_allclose(got.effective_examples, [16 / 10, 1])
    np.testing.assert_allclose(got.prediction_mean, [0.5, 0.75])
    np.testing.assert_allclose(got.label_mean, [0.25, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1], [0.0, np.nan]), "score of example 1 is nan; expected a finite number"),
        (([0, 1], [np.inf, 0.0]), "score of example 0 is inf"),
        (([0, 2], [0.0, 0.0]), "label of example 1 is 2.0; expected 0 or 1"),
        (([0, 1], [0.0, 0.0], [1, -1]), "weight of example 1 is -1.0; expected a finite number of at least 0"),
        (([0, 1], [0.0, 0.0], [np.nan, 1]), "weight of example 0 is nan"),
        (([0, 1], [0.0]), "2 labels, 1 scores and 2 weights"),
        (([0, 1], [[0.0, 0.0]]), r"scores have shape \[1, 2\]; expected \[N\] or \[N, 1\]"),
    ],
)
@pytest.mark.parametrize(
    "function", [metrics.exact_auc, metrics.log_loss, metrics.evaluate_scores, metrics.reliability]
)
def test_exact_refuses_what_it_cannot_measure(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


@pytest.mark.parametrize("labels", [np.zeros(1000), np.ones(1000)])
def test_one_class_leaves_what_it_does_not_define_nan(labels):
    logits = np.linspace(-1, 1, 1000)
    undefined = {"auc", "normalized_entropy"} | ({"calibration"} if not labels.any() else set())
    # Sums of weights depend on the order of addition: what that leaves must not pass for a second class.
    for weights in np.random.default_rng(0).exponential(size=(20, 1000)):
        got = metrics.evaluate_scores(labels, logits, weights)
        assert {name for name in got if np.isnan(got[name])} == undefined
    measures = metrics.default_metrics()
    update_all(measures, labels, logits, weights)
    assert {name for name, value in values(measures).items() if np.isnan(value)} == undefined


def test_no_weight_at_all_is_nan():
    for arguments in (([], []), ([0, 1], [0.0, 1.0], [0, 0])):
        got = metrics.evaluate_scores(*arguments)
        assert got["weight"] == 0
        assert all(np.isnan(got[name]) for name in NAMES)


# ---- streaming -------------------------------------------------------------------------------------------------------


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


# ---- ids -------------------------------------------------------------------------------------------------------------


def test_out_of_range_ids_are_counted_by_feature():
    metric = metrics.OutOfRangeIds(["a", "b", "c"])
    metric.update_state(tf.constant([1, 0, 2]))
    metric.update_state(tf.constant([4, 0, 0]))
    assert float(metric.result()) == 7 and metric.by_feature() == {"a": 5, "c": 2}
    again = metrics.OutOfRangeIds.from_config(metric.get_config())
    assert again.get_config() == metric.get_config() and again.by_feature() == {}
    metric.reset_state()
    assert float(metric.result()) == 0
