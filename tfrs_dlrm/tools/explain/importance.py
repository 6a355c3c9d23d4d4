"""Permutation importance: how much worse a model is when a feature tells it nothing about the example."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.tools.explain.sample import Sample, scores


@dataclasses.dataclass(frozen=True)
class Importance:
    """What exchanging the values of one feature among the examples does, for each of some permutations.

    Attributes:
      feature: its name.
      worsening: by `auc_drop` and `log_loss_rise` or, of a regression, `rmse_rise` and `mae_rise`, how much worse the
        metric is with exchanged values, float64 [seeds]. nan where it is not defined, as the AUC of equal labels.
    """

    feature: str
    worsening: dict[str, np.ndarray]

    def summary(self) -> dict[str, float]:
        """Means, and spreads: standard deviations over the permutations, nan where there is one only."""
        out: dict[str, float] = {}
        for name, values in self.worsening.items():
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
            out |= {name: float(np.mean(values)), f"{name}_spread": spread}
        return out

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"feature": self.feature} | {f"{n}s": values for n, values in self.worsening.items()} | self.summary()


@dataclasses.dataclass(frozen=True)
class Importances:
    """The importance of features to a model.

    Attributes:
      metrics: `auc` and `log_loss` or, of a regression, `rmse` and `mae`, with all features as they are.
      examples: how many were looked at.
      seeds: how many permutations.
      features: the first metric's largest mean worsening first.
    """

    metrics: dict[str, float]
    examples: int
    seeds: int
    features: tuple[Importance, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        found = {"examples": self.examples, "seeds": self.seeds}
        return self.metrics | found | {"features": [f.to_dict() for f in self.features]}


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
    labels, weights, task = sample.labels, sample.weights, model.label_tasks.all[sample.label]

    def measure(exchanged: Sample) -> dict[str, float]:
        return task.evaluate(labels, scores(model, exchanged, batch_size, progress), weights)

    plain = measure(sample)
    permutations = [np.random.default_rng(seed).permutation(len(sample)) for seed in range(seeds)]
    found = []
    for feature in features:
        changes = [task.worsening(plain, measure(sample.exchanged([feature], order))) for order in permutations]
        found.append(Importance(feature, {name: np.array([one[name] for one in changes]) for name in changes[0]}))
    found.sort(key=lambda f: [-np.nan_to_num(values.mean()) for values in f.worsening.values()])
    metrics = {name: plain[name] for name in (w.rpartition("_")[0] for w in found[0].worsening)} if found else {}
    return Importances(metrics, len(sample), seeds, tuple(found))
