"""Interactions: how strongly pairs of features affect a model together, beyond the effects of each."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.tools.explain.sample import Sample, score_sample


@dataclasses.dataclass(frozen=True)
class Interactions:
    """The strength of the interaction of all pairs of some features.

    Attributes:
      features: the names of the features.
      strength: float64 [F, F], symmetric, nan on the diagonal.
      spread: float64 [F, F], the standard deviation over the permutations; nan for a single one.
      examples: the number of examples.
      unit: the unit of the strength: `logit` or, for a regression, `prediction`.
    """

    features: tuple[str, ...]
    strength: np.ndarray
    spread: np.ndarray
    examples: int
    unit: str

    def pairs(self) -> list[tuple[str, str, float, float]]:
        """Returns both names, strength and spread of each pair, the strongest first."""
        pairs = itertools.combinations(range(len(self.features)), 2)
        found = [(self.features[i], self.features[j], self.strength[i, j], self.spread[i, j]) for i, j in pairs]
        return sorted(found, key=lambda pair: -pair[2])


def interactions(
    model: RankingModel,
    sample: Sample,
    features: Sequence[str],
    seeds: int = 3,
    batch_size: int = 8192,
    progress: Callable[[int], None] | None = None,
) -> Interactions:
    """Measures the mean of |f - f_i - f_j + f_ij| for each pair of features i, j.

    f is the logit of an example or, for a regression, the predicted number; f_i, f_j and f_ij have the value of i, of
    j, and of both from another example, the same for all three. If f is a sum of a function without i and a function
    without j, this second difference is 0 (compare Friedman and Popescu 2008, "Predictive Learning via Rule Ensembles",
    section 8.1). It is a property of the model, not of the log.

    Args:
      model: the trained model, of any kind.
      sample: the examples; F (F + 1) / 2 times as many are scored for each permutation.
      features: the names of the features.
      seeds: the number of permutations.
      batch_size: examples per batch.
      progress: called with the number of scored examples, after each pass.
    """

    def score(exchanged: Sample) -> np.ndarray:
        return score_sample(model, exchanged, batch_size, progress)

    count = len(features)
    strengths = np.full((seeds, count, count), np.nan)
    plain = score(sample)
    for seed in range(seeds):
        donors = np.random.default_rng(seed).permutation(len(sample))
        alone = [score(sample.exchanged([feature], donors)) for feature in features]
        for i, j in itertools.combinations(range(count), 2):
            both = score(sample.exchanged([features[i], features[j]], donors))
            strengths[seed, i, j] = strengths[seed, j, i] = np.abs(plain - alone[i] - alone[j] + both).mean()
    spread = strengths.std(0, ddof=1) if seeds > 1 else np.full((count, count), np.nan)
    unit = model.label_tasks.all[sample.label].unit
    return Interactions(tuple(features), strengths.mean(0), spread, len(sample), unit)
