"""NDCG, MRR, MAP and recall within groups, against scikit-learn and plain NumPy."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from tfrs_dlrm.metrics import mean_ranking, ranking_metrics


def rows(levels, seed=0, size=3000):
    """Groups of 1 to about 20 rows; with few levels of the score there are many ties."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(-5, 400, size) * 3
    labels = rng.random(size) < 0.15
    return groups, labels.astype(float), np.round(rng.normal(size=size) + labels, levels)


@pytest.mark.parametrize("levels", [0, 1, 9])
@pytest.mark.parametrize("k", [1, 3, 10, 1000])
def test_equal_scikit_learn_and_numpy_in_each_group(levels, k):
    groups, labels, scores = rows(levels)
    found = ranking_metrics(groups, labels, scores, k=k)
    assert found.group.tolist() == sorted(set(groups.tolist()))
    for i, group in enumerate(found.group):
        y, z = labels[groups == group], scores[groups == group]
        assert found.examples[i] == len(y) and found.label_mean[i] == pytest.approx(y.mean())
        got = [x[i] for x in (found.ndcg, found.reciprocal_rank, found.average_precision, found.recall)]
        if not y.any():
            assert np.isnan(got).all()
            continue
        last = (z[None] >= z[:, None]).sum(axis=1)  # the last place of each row's ties
        above = (z[None] > z[:, None]).sum(axis=1)
        inside = np.clip((k - above) / (last - above), 0, 1)  # the share of orders in which a row is among the first k
        ndcg = ndcg_score([y], [z], k=k) if len(y) > 1 else 1.0  # which refuses a single row
        expected = [ndcg, 1 / last[y > 0].min(), average_precision_score(y, z), inside[y > 0].mean()]
        np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_means_count_each_group_once_and_name_what_they_leave_out():
    groups, labels, scores = [7, 7, 7, 2, 2, 9, 5], [0, 1, 1, 1, 0, 0, 1], [3.0, 2, 1, 1, 1, 5, 0]
    found = mean_ranking(ranking_metrics(groups, labels, scores, k=2), k=2)
    dcg = 1 / np.log2(3)
    of_seven, of_two = dcg / (1 + dcg), (1 + dcg) / 2
    assert found.ndcg == pytest.approx((of_seven + of_two + 1) / 3)
    assert found.mrr == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert found.map == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1 / 2 + 1) / 3)
    assert found.recall == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert (found.groups, found.examples, found.groups_left_out, found.examples_left_out) == (3, 6, 1, 1)


def test_rows_of_weight_zero_are_no_rows():
    groups, labels, scores = rows(1)
    weights = np.random.default_rng(1).choice([0.0, 0.5, 2.0], len(groups))
    kept = weights > 0
    weighted = ranking_metrics(groups, labels, scores, weights)
    plain = ranking_metrics(groups[kept], labels[kept], scores[kept])
    for name in ("group", "ndcg", "reciprocal_rank", "average_precision", "recall"):
        np.testing.assert_array_equal(getattr(weighted, name), getattr(plain, name))


def test_no_rows_and_wrong_arguments():
    empty = mean_ranking(ranking_metrics(np.array([], int), [], []))
    assert np.isnan([empty.ndcg, empty.mrr, empty.map, empty.recall]).all() and empty.groups == 0
    with pytest.raises(ValueError, match="k=0: at least 1 is needed"):
        ranking_metrics([1], [1], [0.5], k=0)
    with pytest.raises(ValueError, match="expected one whole number for each of 1 labels"):
        ranking_metrics([1.5], [1], [0.5])
