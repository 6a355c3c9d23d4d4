"""Permutation importance: how much worse a model is if the values of a feature are exchanged among examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.tools.explain.sample import Sample, score_sample


@dataclasses.dataclass(frozen=True)
class FeatureImportance:
    """The importance of one feature, for each permutation.

    Attributes:
      feature: the name of the feature.
      worsening: how much worse each metric is with exchanged values, float64 [seeds], by `auc_drop` and `log_loss_rise`
        or, for a regression, `rmse_rise` and `mae_rise`. Metrics that the examples do not define, as the AUC of
        equal labels, are left out.
    """

    feature: str
    worsening: dict[str, np.ndarray]

    def summary(self) -> dict[str, float]:
        """Returns means, and spreads: standard deviations over the permutations, nan for a single one."""
        out: dict[str, float] = {}
        for name, values in self.worsening.items():
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
            out |= {name: float(np.mean(values)), f"{name}_spread": spread}
        return out

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return {"feature": self.feature} | {f"{n}s": values for n, values in self.worsening.items()} | self.summary()


@dataclasses.dataclass(frozen=True)
class PermutationImportance:
    """The importance of features to a model.

    Attributes:
      metrics: `auc` and `log_loss` or, for a regression, `rmse` and `mae`, without any exchange.
      examples: the number of examples.
      seeds: the number of permutations.
      features: the first metric's largest mean worsening first.
    """

    metrics: dict[str, float]
    examples: int
    seeds: int
    features: tuple[FeatureImportance, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        found = {"examples": self.examples, "seeds": self.seeds}
        return self.metrics | found | {"features": [f.to_dict() for f in self.features]}


def permutation_importance(
    model: RankingModel,
    sample: Sample,
    features: Sequence[str],
    seeds: int = 3,
    batch_size: int = 8192,
    progress: Callable[[int], None] | None = None,
) -> PermutationImportance:
    """Measures the importance of features to a model (Breiman 2001, "Random Forests", section 10).

    Information that several features share counts for none of them, as long as one can replace another.

    Args:
      model: the trained model.
      sample: the examples to measure on.
      features: the names of the features.
      seeds: the number of permutations.
      batch_size: examples per batch.
      progress: called with the number of scored examples, after each pass.
    """
    labels, weights, task = sample.labels, sample.weights, model.label_tasks.all[sample.label]

    def measure(exchanged: Sample) -> dict[str, float]:
        return task.evaluate(labels, score_sample(model, exchanged, batch_size, progress), weights)

    plain = measure(sample)
    permutations = [np.random.default_rng(seed).permutation(len(sample)) for seed in range(seeds)]
    found = []
    for feature in features:
        changes = [task.worsening(plain, measure(sample.exchanged([feature], order))) for order in permutations]
        found.append(
            FeatureImportance(feature, {name: np.array([one[name] for one in changes]) for name in changes[0]})
        )
    found.sort(key=lambda f: [-np.nan_to_num(values.mean()) for values in f.worsening.values()])
    metrics = {name: plain[name] for name in (w.rpartition("_")[0] for w in found[0].worsening)} if found else {}
    return PermutationImportance(metrics, len(sample), seeds, tuple(found))
