"""Metrics of clicks within groups of examples, say of a device or of a user: exact, in NumPy.

Examples are sorted once by (group, score), then summed over runs of equal ones: the time does not depend on the number
of groups, and each group takes a few numbers of memory. As in `exact`, a metric that the examples of a group do not
define is nan. `regression` has the metrics of predicted numbers.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfrs_dlrm.metrics.exact import Floats, as_columns, log_losses, sigmoid

G = TypeVar("G", bound="Groups")


@dataclasses.dataclass(frozen=True)
class Groups:
    """The size and the means of each group: arrays [groups], in ascending order of the groups.

    Attributes:
      group: int64, the number of the group.
      examples: int64, the number of its rows.
      weight: their total weight.
      label_mean: weighted; the base rate of clicks.
      prediction_mean: weighted; the mean probability of clicks.
    """

    group: NDArray[np.int64]
    examples: NDArray[np.int64]
    weight: Floats
    label_mean: Floats
    prediction_mean: Floats

    def largest(self: G, count: int) -> G:
        """Returns the `count` groups with most examples, most first, ties by group."""
        return self.select(np.argsort(-self.examples, kind="stable")[:count])

    def select(self: G, which: NDArray[Any]) -> G:
        """Returns the groups at these indices, or where a mask is true."""
        return type(self)(**{f.name: getattr(self, f.name)[which] for f in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True)
class GroupMetrics(Groups):
    """The quality of probabilities within each group.

    Attributes:
      auc: see `exact_auc`; nan if only one class has weight.
      log_loss: see `log_loss`.
      normalized_entropy: log loss over the log loss of always predicting the base rate of the group.
      calibration: prediction mean over label mean.
    """

    auc: Floats
    log_loss: Floats
    normalized_entropy: Floats
    calibration: Floats


@dataclasses.dataclass(frozen=True)
class GroupedAUC:
    """The mean AUC over groups, and how many groups have one.

    Attributes:
      gauc: the mean of the AUC of the groups by their weight; without weights, by their examples (Zhou et al. 2018,
        "Deep Interest Network for Click-Through Rate Prediction", section 6.2). nan if no group has an AUC.
      groups: how many groups have an AUC.
      examples: how many examples these groups have.
      groups_left_out: how many groups have no AUC, because only one class has weight in them.
      examples_left_out: how many examples the left-out groups have.
    """

    gauc: float
    groups: int
    examples: int
    groups_left_out: int
    examples_left_out: int


def group_metrics(
    groups: ArrayLike, labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None
) -> GroupMetrics:
    """Returns the metrics within each group.

    Args:
      groups: whole numbers [N]; examples with equal ones are a group.
      labels: 0 or 1, [N].
      logits: [N].
      weights: [N]; None is 1 for all.

    Raises:
      ValueError: see `exact_auc`; or groups are not one whole number per example.
    """
    grouped = GroupedExamples(groups, *as_columns(labels, logits, weights))
    y, z = grouped.labels, grouped.scores
    label_mean, prediction_mean = grouped.means(y), grouped.means(sigmoid(z))
    loss = grouped.means(log_losses(y, z))
    return GroupMetrics(
        group=grouped.group,
        examples=grouped.examples,
        weight=grouped.weight,
        label_mean=label_mean,
        prediction_mean=prediction_mean,
        auc=_aucs(y, z, grouped.weights, grouped.starts),
        log_loss=loss,
        normalized_entropy=ratios(loss, _entropies(label_mean)),
        calibration=ratios(prediction_mean, label_mean),
    )


class GroupedExamples:
    """Examples sorted by group and score, and their means per group.

    Args:
      groups: whole numbers [N]; examples with equal ones are a group.
      labels: [N]; labels, scores and weights as `as_columns` returns them.
      scores: [N].
      weights: [N].

    Attributes:
      labels: [N], sorted.
      scores: [N], sorted.
      weights: [N], sorted.
      starts: [groups], where each group begins among the sorted examples.
      group: [groups], see `Groups`.
      examples: [groups], see `Groups`.
      weight: [groups], see `Groups`.

    Raises:
      ValueError: groups are not one whole number per example.
    """

    def __init__(self, groups: ArrayLike, labels: Floats, scores: Floats, weights: Floats) -> None:
        g = np.asarray(groups)
        if g.shape != labels.shape or not np.issubdtype(g.dtype, np.integer):
            wanted = f"expected one whole number for each of {len(labels)} labels"
            raise ValueError(f"groups are {g.dtype} {list(g.shape)}; {wanted}")
        order = np.lexsort((scores, g))
        g, self.labels, self.scores, self.weights = g[order], labels[order], scores[order], weights[order]
        self.starts = run_starts(g[1:] != g[:-1], len(g))
        self.group = g[self.starts].astype(np.int64)
        self.examples = np.diff(np.append(self.starts, len(g))).astype(np.int64)
        self.weight = run_sums(self.weights, self.starts)

    def means(self, values: Floats) -> Floats:
        """Returns the weighted mean per group of a value per sorted example."""
        return ratios(run_sums(self.weights * values, self.starts), self.weight)


def grouped_auc(metrics: GroupMetrics) -> GroupedAUC:
    """Returns GAUC: the AUC within a group, averaged over the groups by their weight.

    If a group is a user, GAUC says how well the examples of each user are ranked, which decides the user's page of
    results; the AUC also counts pairs of different users.
    """
    kept = np.isfinite(metrics.auc)
    weight, examples = metrics.weight[kept], metrics.examples
    return GroupedAUC(
        gauc=float(np.average(metrics.auc[kept], weights=weight)) if kept.any() else float("nan"),
        groups=int(kept.sum()),
        examples=int(examples[kept].sum()),
        groups_left_out=int((~kept).sum()),
        examples_left_out=int(examples[~kept].sum()),
    )


def _aucs(y: Floats, z: Floats, w: Floats, starts: NDArray[np.intp]) -> Floats:
    """Returns the share of ordered (negative, positive) pairs per group; a tie counts half. Examples are sorted.

    It is the rank sum of Mann and Whitney with midranks: below a positive are the negatives of its group with smaller
    scores, and half of those with the same score.
    """
    begins = np.zeros(len(z), bool)
    begins[starts] = True
    ties = run_starts(begins[1:] | (z[1:] != z[:-1]), len(z))
    negatives, positives = run_sums(w * (1.0 - y), ties), run_sums(w * y, ties)
    first = np.searchsorted(ties, starts)  # the first tie of each group
    below = np.cumsum(negatives) - negatives
    below -= np.repeat(below[first], np.diff(np.append(first, len(ties))))
    pairs = run_sums(positives * (below + negatives / 2.0), first)
    return ratios(pairs, run_sums(negatives, first) * run_sums(positives, first))


def run_starts(changes: NDArray[np.bool_], size: int) -> NDArray[np.intp]:
    """Returns where runs of equal elements begin; `changes` says which elements differ from the one before."""
    return np.append(0, np.flatnonzero(changes) + 1) if size else np.empty(0, np.intp)


def run_sums(values: Floats, starts: NDArray[np.intp]) -> Floats:
    """Returns the sum of each run; `starts` says where they begin."""
    return np.add.reduceat(values, starts) if len(starts) else np.empty(0)


def ratios(a: Floats, b: Floats) -> Floats:
    """Returns a / b; nan where b is 0."""
    out = np.full(len(a), np.nan)
    return np.divide(a, b, out=out, where=b > 0.0)


def _entropies(rates: Floats) -> Floats:
    """Returns the entropy of a click at each rate, in nats; nan for a rate of nan."""
    out = np.where(np.isnan(rates), np.nan, 0.0)
    inside = (rates > 0.0) & (rates < 1.0)
    p = rates[inside]
    out[inside] = -p * np.log(p) - (1.0 - p) * np.log1p(-p)
    return out
