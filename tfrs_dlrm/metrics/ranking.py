"""How well the rows of each group are ranked, say of a query or of a user: NDCG, MRR, MAP and recall, exact, in NumPy.

Rows are sorted once by (group, score), so the time does not depend on the number of groups. Rows with equal scores have
no order: NDCG and recall are means over all orders of them, as in scikit-learn's `ndcg_score`; MRR and MAP count each
at the last of their places, as its `average_precision_score` does.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from tfrs_dlrm.metrics.exact import Floats, as_columns
from tfrs_dlrm.metrics.groups import GroupedExamples, Groups, ratios, run_starts, run_sums


@dataclasses.dataclass(frozen=True)
class RankingMetrics(Groups):
    """How well the rows of each group are ranked; nan for a group without a click.

    Attributes:
      prediction_mean: the mean score, whatever its unit.
      ndcg: of the first k rows: the sum of 1 / log2(1 + place) over clicks, divided by that of the best order.
      reciprocal_rank: 1 / place of the first click, over all rows.
      average_precision: the mean over clicks of the share of clicks among the rows down to theirs.
      recall: the share of the clicks that are among the first k rows.
    """

    ndcg: Floats
    reciprocal_rank: Floats
    average_precision: Floats
    recall: Floats


@dataclasses.dataclass(frozen=True)
class MeanRanking:
    """The means over the groups that have a click; each group counts the same.

    Attributes:
      k: how many rows of a group NDCG and recall look at.
      ndcg: nan if no group has a click, as the others.
      mrr: the mean reciprocal rank.
      map: the mean average precision.
      recall: as in `RankingMetrics`.
      groups: how many groups have a click.
      examples: how many examples these groups have.
      groups_left_out: how many groups have none.
      examples_left_out: how many examples the left-out groups have.
    """

    k: int
    ndcg: float
    mrr: float
    map: float
    recall: float
    groups: int
    examples: int
    groups_left_out: int
    examples_left_out: int


def ranking_metrics(
    groups: ArrayLike, labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None, k: int = 10
) -> RankingMetrics:
    """Returns how well the rows of each group are ranked by their scores, the highest first.

    Args:
      groups: whole numbers [N]; rows with equal ones are a group.
      labels: 0 or 1, [N].
      scores: [N]; logits or probabilities.
      weights: [N]; rows of weight 0 do not count, and all others count the same. None is 1 for all.
      k: how many rows of a group NDCG and recall look at.

    Raises:
      ValueError: `k` is below 1; see `exact_auc`; or groups are not one whole number per example.
    """
    if k < 1:
        raise ValueError(f"k={k}: at least 1 is needed, the number of rows to look at")
    y, z, w = as_columns(labels, scores, weights)
    g, kept = np.asarray(groups), w > 0
    GroupedExamples(g, y, z, w)  # checks the groups
    rows = GroupedExamples(g[kept], y[kept], -z[kept], np.ones(int(kept.sum())))
    y, z, starts = rows.labels, rows.scores, rows.starts
    begins = np.zeros(len(y), bool)
    begins[starts] = True
    ties = run_starts(begins[1:] | (z[1:] != z[:-1]), len(y))
    sizes = np.diff(np.append(ties, len(y)))
    first = np.searchsorted(ties, starts)  # the first tie of each group
    of_tie = np.repeat(np.arange(len(starts)), np.diff(np.append(first, len(ties))))
    before = ties - starts[of_tie]  # how many rows of its group come before a tie
    clicks, total = run_sums(y, ties), run_sums(y, starts)

    discounts = np.append(0.0, np.cumsum(1.0 / np.log2(np.arange(2, min(k, len(y)) + 2))))  # of the first n rows
    ends, begun = np.minimum(before + sizes, len(discounts) - 1), np.minimum(before, len(discounts) - 1)
    gain = run_sums(clicks * (discounts[ends] - discounts[begun]) / sizes, first)
    best = discounts[np.minimum(total.astype(np.int64), len(discounts) - 1)] if len(total) else total
    precision = _within(np.cumsum(clicks), first, of_tie, clicks) / (before + sizes)
    hit = np.where(clicks > 0, 1.0 / (before + sizes), 0.0)
    return RankingMetrics(
        group=rows.group,
        examples=rows.examples,
        weight=rows.weight,
        label_mean=rows.means(y),
        prediction_mean=rows.means(-z),
        ndcg=ratios(gain, best),
        reciprocal_rank=ratios(np.maximum.reduceat(hit, first) if len(first) else hit, np.minimum(total, 1.0)),
        average_precision=ratios(run_sums(clicks * precision, first), total),
        recall=ratios(run_sums(clicks * np.clip(k - before, 0, sizes) / sizes, first), total),
    )


def mean_ranking(metrics: RankingMetrics, k: int = 10) -> MeanRanking:
    """Returns the means over the groups that have a click.

    Args:
      metrics: of the groups.
      k: with which they were measured.
    """
    kept = np.isfinite(metrics.ndcg)

    def mean(values: Floats) -> float:
        return float(values[kept].mean()) if kept.any() else float("nan")

    return MeanRanking(
        k=k,
        ndcg=mean(metrics.ndcg),
        mrr=mean(metrics.reciprocal_rank),
        map=mean(metrics.average_precision),
        recall=mean(metrics.recall),
        groups=int(kept.sum()),
        examples=int(metrics.examples[kept].sum()),
        groups_left_out=int((~kept).sum()),
        examples_left_out=int(metrics.examples[~kept].sum()),
    )


def _within(sums: Floats, first: np.ndarray, of_tie: np.ndarray, values: Floats) -> Floats:
    """Returns running sums over ties that begin anew in each group."""
    return sums - (sums[first] - values[first])[of_tie]
