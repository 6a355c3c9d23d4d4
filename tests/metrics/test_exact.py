"""Exact metrics on arrays: by hand, and against scikit-learn and NumPy."""

import tfrs_dlrm  # noqa: F401

# isort: split
import numpy as np
import pytest
import sklearn.metrics
from metric_examples import NAMES, examples, update_all, values

from tfrs_dlrm import metrics


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
