"""Metrics within groups: by hand, and against pandas and scikit-learn, group by group."""

import numpy as np
import pandas as pd
import pytest
from cases import matrix
from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error, roc_auc_score

from tfrs_dlrm.metrics import evaluate_scores, group_errors, group_metrics, grouped_auc


def examples(size: int, groups: int, seed: int = 0) -> pd.DataFrame:
    """Many ties, many groups of one class, groups of one example, and examples without weight."""
    rng = np.random.default_rng(seed)
    z = np.round(rng.normal(-1.5, 1.0, size), 1)
    return pd.DataFrame(
        {
            "group": rng.zipf(1.3, size) % groups - 5,
            "y": (rng.random(size) < 1 / (1 + np.exp(-z))).astype(int),
            "z": z.astype(np.float32),
            "w": rng.choice([0.0, 0.3, 1.0, 2.5], size).astype(np.float32),
        }
    )


def by_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    """One group after the other, with scikit-learn's metrics."""

    def of(part: pd.DataFrame) -> dict[str, float]:
        y, w, p = part.y, part.w.astype(float), 1 / (1 + np.exp(-part.z.astype(float)))
        row = {"examples": len(part), "weight": w.sum()}
        if w.sum() == 0:
            return row
        rate, mean = np.average(y, weights=w), np.average(p, weights=w)
        row |= {"label_mean": rate, "prediction_mean": mean, "log_loss": log_loss(y, p, sample_weight=w, labels=[0, 1])}
        if rate > 0:
            row["calibration"] = mean / rate
        if 0 < rate < 1:
            row["auc"] = roc_auc_score(y[w > 0], part.z[w > 0], sample_weight=w[w > 0])
            base = log_loss(y, np.full(len(y), rate), sample_weight=w)
            row["normalized_entropy"] = row["log_loss"] / base
        return row

    return pd.DataFrame({group: of(part) for group, part in frame.groupby("group")}).T


@pytest.mark.parametrize("weighted", matrix([False, True], fast=[True]))
def test_equals_pandas_and_scikit_learn(weighted):
    frame = examples(20_000, 900)
    if not weighted:
        frame["w"] = 1.0
    found = group_metrics(frame.group, frame.y, frame.z, frame.w if weighted else None)
    expected = by_pandas(frame)
    assert len(expected) > 300 and expected.auc.isna().sum() > 50 and expected.auc.notna().sum() > 100
    np.testing.assert_array_equal(found.group, expected.index)
    for name in expected:
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=1e-9, err_msg=name)
    mean = grouped_auc(found)
    kept = expected[expected.auc.notna()]
    assert mean.gauc == pytest.approx(np.average(kept.auc, weights=kept.weight), rel=1e-12)
    assert (mean.groups, mean.groups_left_out) == (len(kept), len(expected) - len(kept))
    assert (mean.examples, mean.examples_left_out) == (kept.examples.sum(), 20_000 - kept.examples.sum())


def test_ties_and_weights_by_hand():
    groups, labels, logits = [7, 7, 7, 7, 2, 2], [1, 0, 1, 0, 1, 1], [1.0, 1.0, 0.5, 0.0, 0.0, 9.0]
    plain = group_metrics(groups, labels, logits)
    # Group 7: the positives beat 1.5 and 1 of the 2 negatives.
    np.testing.assert_array_equal(plain.group, [2, 7])
    np.testing.assert_array_equal(plain.auc, [np.nan, 2.5 / 4])
    # With the negative that ties three times as heavy: 3/2 + 1 of 4, and 1 of 4.
    weighted = group_metrics(groups, labels, logits, [1, 3, 1, 1, 1, 1])
    assert weighted.auc[1] == 3.5 / 8
    assert grouped_auc(plain).gauc == 0.625 and grouped_auc(plain).groups_left_out == 1


def test_one_group_is_the_evaluation_of_all():
    frame = examples(5000, 10)
    found = group_metrics(np.zeros(5000, int), frame.y, frame.z, frame.w)
    expected = evaluate_scores(frame.y, frame.z, frame.w)
    for name in ("examples", "weight", "auc", "log_loss", "normalized_entropy", "calibration"):
        assert getattr(found, name)[0] == pytest.approx(expected[name], rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_errors_of_numbers_equal_pandas_and_scikit_learn(weighted):
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"group": rng.zipf(1.4, 5000) % 300, "y": rng.normal(-2, 30, 5000)})
    frame["z"] = (frame.y + rng.normal(frame.group % 7, 4)).astype(np.float32)
    frame["w"] = rng.choice([0.0, 0.3, 2.5], 5000) if weighted else 1.0
    found = group_errors(frame.group, frame.y, frame.z, frame.w if weighted else None)
    np.testing.assert_array_equal(found.group, np.unique(frame.group))
    for i, (group, part) in enumerate(frame.groupby("group")):
        assert (found.group[i], found.examples[i]) == (group, len(part))
        assert found.weight[i] == pytest.approx(part.w.sum())
        if part.w.sum() == 0:
            assert np.isnan([found.label_mean[i], found.prediction_mean[i], found.rmse[i], found.mae[i]]).all()
            continue
        y, z, w = part.y, part.z.astype(float), part.w
        assert found.label_mean[i] == pytest.approx(np.average(y, weights=w))
        assert found.prediction_mean[i] == pytest.approx(np.average(z, weights=w))
        assert found.rmse[i] == pytest.approx(np.sqrt(mean_squared_error(y, z, sample_weight=w)))
        assert found.mae[i] == pytest.approx(mean_absolute_error(y, z, sample_weight=w))
    assert type(found.largest(3)) is type(found) and len(found.largest(3).rmse) == 3
    with pytest.raises(ValueError, match="label of example 1 is inf; expected a finite number"):
        group_errors([1, 1], [0, np.inf], [0.0, 1.0])


def test_the_largest_groups_come_first():
    found = group_metrics([3, 1, 1, 2, 2, 2, 9], [0, 1] * 3 + [0], np.zeros(7))
    assert found.largest(3).group.tolist() == [2, 1, 3]
    assert found.largest(3).examples.tolist() == [3, 2, 1]


def test_nothing_and_nonsense():
    empty = group_metrics(np.zeros(0, int), [], [])
    assert len(empty.group) == 0 and np.isnan(grouped_auc(empty).gauc)
    with pytest.raises(ValueError, match=r"groups are float64 \[2\]; expected one whole number for each of 2 labels"):
        group_metrics([1.5, 2.0], [0, 1], [0.0, 1.0])
    with pytest.raises(ValueError, match=r"groups are int64 \[1\]"):
        group_metrics([1], [0, 1], [0.0, 1.0])
    with pytest.raises(ValueError, match=r"label of example 1 is 2\.0"):
        group_metrics([1, 1], [0, 2], [0.0, 1.0])
