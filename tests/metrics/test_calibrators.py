"""Calibration curves against scikit-learn, and that they keep the order of examples."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.isotonic import IsotonicRegression

from tfrs_dlrm.metrics import evaluate_scores
from tfrs_dlrm.metrics.calibrators import Curve, fit_curve, isotonic_blocks
from tfrs_dlrm.metrics.exact import sigmoid


def examples(n=3000, seed=0):
    """Logits twice too steep and too high, some of them equal, and weights."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-2, 1, n)
    labels = (rng.random(n) < sigmoid(truth)).astype(np.float32)
    return labels, np.round(2 * truth + 1, 2), rng.choice([0.0, 0.5, 1.0, 2.0], n)


class AsGiven(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose score is its only feature."""

    classes_ = np.array([0, 1])

    def fit(self, x, y):
        return self

    def decision_function(self, x):
        return x[:, 0]


def test_platt_is_the_sigmoid_of_scikit_learn():
    labels, logits, weights = examples()
    everything = [(np.arange(len(labels)), np.arange(len(labels)))]  # fitted and calibrated on the same rows
    theirs = CalibratedClassifierCV(AsGiven(), method="sigmoid", cv=everything).fit(logits[:, None], labels, weights)
    found = sigmoid(fit_curve("platt", labels, logits, weights)(logits))
    np.testing.assert_allclose(found, theirs.predict_proba(logits[:, None])[:, 1], rtol=1e-4)
    separable = fit_curve("platt", [0, 0, 1, 1], [-2.0, -1.0, 1.0, 2.0])
    assert 0 < separable.slopes[0] < 10


def test_isotonic_has_the_probabilities_of_scikit_learn_at_the_centers():
    labels, logits, weights = examples()
    theirs = IsotonicRegression(out_of_bounds="clip").fit(logits, labels, weights)
    blocks = isotonic_blocks(labels, logits, weights)
    np.testing.assert_allclose(theirs.predict(blocks.center), blocks.rate, rtol=1e-6, atol=1e-9)
    assert blocks.weight.sum() == weights.sum() and (np.diff(blocks.rate) > 0).all()


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_better_on_other_rows_and_in_the_same_order(method):
    labels, logits, weights = examples(20_000)
    curve = fit_curve(method, labels, logits, weights)
    assert (np.diff(curve.starts) >= 0).all() and min(curve.slopes) > 0 and max(curve.slopes) < 100
    others, z, w = examples(20_000, seed=1)
    before, after = evaluate_scores(others, z, w), evaluate_scores(others, curve(z), w)
    assert after["auc"] == pytest.approx(before["auc"], abs=1e-12)
    assert after["log_loss"] < before["log_loss"] - 0.03
    assert abs(after["calibration"] - 1) < 0.05 < abs(before["calibration"] - 1)
    assert after["expected_calibration_error"] < 0.02 < before["expected_calibration_error"]
    assert (np.diff(curve(np.linspace(-40, 40, 999))) > 0).all()


def test_small_cases_by_hand():
    # 1 before 0 violates the order, and is pooled with it; a rate of 0 becomes half of one of two rows.
    curve = fit_curve("isotonic", [0, 1, 0, 1], [-3.0, -1.0, 1.0, 3.0])
    assert curve.starts == (-3.0, -3.0, 0.0, 3.0)
    np.testing.assert_allclose(sigmoid(np.array(curve.values)), [0.25, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(curve([-4, 0, 1.5, 5]), np.log([1 / 3, 1, 3**0.5, 3]) + [-1, 0, 0, 2])
    assert Curve()([1.5, -2]).tolist() == [1.5, -2]
    with pytest.raises(ValueError, match="positives weigh 2 of 2; a calibration needs both classes"):
        fit_curve("platt", [1, 1, 0], [0.0, 1.0, 2.0], [1, 1, 0])
    with pytest.raises(ValueError, match="higher logits have fewer positives"):
        fit_curve("platt", [1, 1, 0, 0, 1, 0], [0, 1, 2, 3, 4, 5])
