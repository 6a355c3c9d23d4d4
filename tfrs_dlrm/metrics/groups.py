"""Metrics within groups of examples, say those of a device or of a user: exact, in NumPy.

One sort of the examples by (group, score) and sums over runs of equal ones: the time does not depend on how many groups
there are, and beside the examples it takes a few numbers for each group. As in `exact`, a metric that the examples of a
group do not define is nan. Those of clicks are here, those of predicted numbers in `regression`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tfrs_dlrm.metrics.exact import Floats, as_columns, sigmoid

G = TypeVar("G", bound="Groups")


@dataclasses.dataclass(frozen=True)
class Groups:
    """What each group is: arrays [groups], in ascending order of the groups.

    Attributes:
      group: int64, which group.
      examples: int64, its rows, whatever they weigh.
      weight: their total weight.
      label_mean: by weight, as all that follows; of clicks the base rate.
      prediction_mean: likewise; of clicks the mean probability.
    """

    group: NDArray[np.int64]
    examples: NDArray[np.int64]
    weight: Floats
    label_mean: Floats
    prediction_mean: Floats

    def largest(self: G, count: int) -> G:
        """The `count` groups with most examples, most first, ties by group."""
        return self.select(np.argsort(-self.examples, kind="stable")[:count])

    def select(self: G, which: NDArray[Any]) -> G:
        """The groups of those indices, or where a mask is true."""
        return type(self)(**{f.name: getattr(self, f.name)[which] for f in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True)
class GroupMetrics(Groups):
    """How good probabilities are within each group.

    Attributes:
      auc: as `exact_auc`; nan where only one class has weight.
      log_loss: as `log_loss`.
      normalized_entropy: log loss over that of always predicting the base rate of the group.
      calibration: prediction mean over label mean.
    """

    auc: Floats
    log_loss: Floats
    normalized_entropy: Floats
    calibration: Floats


@dataclasses.dataclass(frozen=True)
class GroupedAUC:
    """The mean AUC over groups, and over how many of them.

    Attributes:
      gauc: the mean of the AUC of the groups by their weight; without weights, by their examples (Zhou et al. 2018,
        "Deep Interest Network for Click-Through Rate Prediction", section 6.2). nan where no group has an AUC.
      groups: how many have an AUC.
      examples: theirs.
      groups_left_out: how many have none, because only one class has weight in them.
      examples_left_out: theirs.
    """

    gauc: float
    groups: int
    examples: int
    groups_left_out: int
    examples_left_out: int


def group_metrics(
    groups: ArrayLike, labels: ArrayLike, logits: ArrayLike, weights: ArrayLike | None = None
) -> GroupMetrics:
    """The metrics within each group.

    Args:
      groups: whole numbers [N]; examples with equal ones are a group.
      labels: 0 or 1, [N].
      logits: [N].
      weights: [N]; None is 1 for all.

    Raises:
      ValueError: as `exact_auc`, or groups are not one whole number per example.
    """
    by_group = ByGroup(groups, *as_columns(labels, logits, weights))
    y, z = by_group.labels, by_group.scores
    label_mean, prediction_mean = by_group.means(y), by_group.means(sigmoid(z))
    loss = by_group.means(np.logaddexp(0.0, z) - y * z)
    return GroupMetrics(
        group=by_group.group,
        examples=by_group.examples,
        weight=by_group.weight,
        label_mean=label_mean,
        prediction_mean=prediction_mean,
        auc=_aucs(y, z, by_group.weights, by_group.starts),
        log_loss=loss,
        normalized_entropy=_ratios(loss, _entropies(label_mean)),
        calibration=_ratios(prediction_mean, label_mean),
    )


class ByGroup:
    """Examples sorted by group and score, and what can be summed up of them.

    Args:
      groups: whole numbers [N]; examples with equal ones are a group.
      labels: [N]; these three as `as_columns` gives them.
      scores: [N].
      weights: [N].

    Attributes:
      labels: [N], sorted, as the next two are.
      scores: [N].
      weights: [N].
      starts: [groups], where each group begins among them.
      group: [groups]; this and the next two as in `Groups`.
      examples: [groups].
      weight: [groups].

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
        self.starts = _starts(g[1:] != g[:-1], len(g))
        self.group = g[self.starts].astype(np.int64)
        self.examples = np.diff(np.append(self.starts, len(g))).astype(np.int64)
        self.weight = _sums(self.weights, self.starts)

    def means(self, values: Floats) -> Floats:
        """The weighted mean in each group of one value for each of the sorted examples."""
        return _ratios(_sums(self.weights * values, self.starts), self.weight)


def grouped_auc(metrics: GroupMetrics) -> GroupedAUC:
    """GAUC: the AUC within a group, averaged over the groups by their weight.

    It says how well the examples of one user, say, are ranked among each other, which is all that a page of results for
    that user depends on; the AUC also counts pairs of different users.
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
    """Of examples sorted by group and score: the share of (negative, positive) pairs in order; a tie counts half.

    That is the rank sum of Mann and Whitney with midranks: a positive has below it the negatives of its group with
    smaller scores, and half of those with its own.
    """
    begins = np.zeros(len(z), bool)
    begins[starts] = True
    ties = _starts(begins[1:] | (z[1:] != z[:-1]), len(z))
    negatives, positives = _sums(w * (1.0 - y), ties), _sums(w * y, ties)
    first = np.searchsorted(ties, starts)  # the first tie of each group
    below = np.cumsum(negatives) - negatives
    below -= np.repeat(below[first], np.diff(np.append(first, len(ties))))
    pairs = _sums(positives * (below + negatives / 2.0), first)
    return _ratios(pairs, _sums(negatives, first) * _sums(positives, first))


def _starts(changes: NDArray[np.bool_], size: int) -> NDArray[np.intp]:
    """Where runs of equal elements begin, from whether each element but the first differs from the one before."""
    return np.append(0, np.flatnonzero(changes) + 1) if size else np.empty(0, np.intp)


def _sums(values: Floats, starts: NDArray[np.intp]) -> Floats:
    return np.add.reduceat(values, starts) if len(starts) else np.empty(0)


def _ratios(a: Floats, b: Floats) -> Floats:
    out = np.full(len(a), np.nan)
    return np.divide(a, b, out=out, where=b > 0.0)


def _entropies(rates: Floats) -> Floats:
    """Of one click each, in nats; nan for the rates of no examples."""
    out = np.where(np.isnan(rates), np.nan, 0.0)
    inside = (rates > 0.0) & (rates < 1.0)
    p = rates[inside]
    out[inside] = -p * np.log(p) - (1.0 - p) * np.log1p(-p)
    return out
