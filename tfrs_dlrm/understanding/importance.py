"""Permutation importance: how much worse a model is when a feature tells it nothing about the example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfrs_dlrm.metrics import exact_auc, log_loss
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.understanding.sample import Sample, logits


@dataclasses.dataclass(frozen=True)
class Importance:
    """What exchanging the values of one feature among the examples does, for each of some permutations.

    Attributes:
      feature: its name.
      auc_drops: float64 [seeds], the AUC as it is less that with exchanged values; nan where all labels are equal.
      log_loss_rises: float64 [seeds], the log loss with exchanged values less that as it is.
    """

    feature: str
    auc_drops: np.ndarray
    log_loss_rises: np.ndarray

    def summary(self) -> dict[str, float]:
        """Means, and spreads: standard deviations over the permutations, nan where there is one only."""
        out: dict[str, float] = {}
        for name, values in (("auc_drop", self.auc_drops), ("log_loss_rise", self.log_loss_rises)):
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
            out |= {name: float(np.mean(values)), f"{name}_spread": spread}
        return out


@dataclasses.dataclass(frozen=True)
class Importances:
    """The importance of features to a model.

    Attributes:
      auc: with all features as they are.
      log_loss: likewise.
      examples: how many were looked at.
      seeds: how many permutations.
      features: the largest mean drop in AUC first.
    """

    auc: float
    log_loss: float
    examples: int
    seeds: int
    features: tuple[Importance, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        features = [dataclasses.asdict(f) | f.summary() for f in self.features]
        return dataclasses.asdict(self) | {"features": features}


def permutation_importance(
    model: RankingModel,
    sample: Sample,
    features: Sequence[str],
    seeds: int = 3,
    batch_size: int = 8192,
    progress: Callable[[int], None] | None = None,
) -> Importances:
    """The importance of features to a model (Breiman 2001, "Random Forests", section 10).

    What a feature has in common with others counts for neither of them as long as one can stand in for the other.

    Args:
      model: the trained model.
      sample: what it is measured on.
      features: names.
      seeds: how many permutations.
      batch_size: examples that are scored at a time.
      progress: called with the number of examples that were scored, each time some were.
    """
    labels, weights = sample.labels, sample.weights

    def measure(exchanged: Sample) -> np.ndarray:
        scores = logits(model, exchanged, batch_size, progress)
        return np.array([exact_auc(labels, scores, weights), log_loss(labels, scores, weights)])

    auc, loss = measure(sample)
    permutations = [np.random.default_rng(seed).permutation(len(sample)) for seed in range(seeds)]
    found = []
    for feature in features:
        measured = np.array([measure(sample.exchanged([feature], order)) for order in permutations])
        found.append(Importance(feature, auc - measured[:, 0], measured[:, 1] - loss))
    found.sort(key=lambda f: (-np.nan_to_num(f.auc_drops.mean()), -f.log_loss_rises.mean()))
    return Importances(float(auc), float(loss), len(sample), seeds, tuple(found))
