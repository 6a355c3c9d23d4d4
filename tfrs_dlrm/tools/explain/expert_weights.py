"""Gates: how much each label takes from each expert."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from tfrs_dlrm.layers.gates import Gates
from tfrs_dlrm.layers.progressive_extraction import CustomizedGateControl
from tfrs_dlrm.models.label_tasks import label_name
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.tools.explain.sample import Sample


@dataclasses.dataclass(frozen=True)
class ExpertWeights:
    """The weights of the gates of one level of experts, over a sample.

    Attributes:
      level: from 1.
      labels: the names of the labels; at the end `<shared>` for the gate of shared experts of a level below the last.
      experts: of each of these, the names of the experts that its gate mixes, in the order of `mean`.
      mean: of each of these, the mean weight of each expert; they add up to 1.
      spread: of each of these, the standard deviation of each weight over the examples: 0 if the mix is always the
        same.
      examples: the number of examples.
    """

    level: int
    labels: list[str]
    experts: list[list[str]]
    mean: list[list[float]]
    spread: list[list[float]]
    examples: int

    def rows(self) -> dict[str, dict[str, float]]:
        """Returns the mean weight by label and name of the expert."""
        parts = zip(self.labels, self.experts, self.mean, strict=True)
        return {label: dict(zip(experts, mean, strict=True)) for label, experts, mean in parts}


def expert_weights(
    model: RankingModel, sample: Sample, batch_size: int = 8192, progress: Callable[[int], None] | None = None
) -> list[ExpertWeights]:
    """Measures the weights of all gates of a model.

    Args:
      model: a trained model; of one without experts the result is empty.
      sample: the examples.
      batch_size: examples per batch.
      progress: called with the number of examples, after each batch.

    Returns:
      A part for each level of experts.
    """
    gates = list(_gates(model))
    sums = [np.zeros((2, gate.tasks, gate.experts)) for _, gate, _ in gates]
    try:
        for total, (_, gate, _) in zip(sums, gates, strict=True):
            gate.watch = _adder(total)
        for begin in range(0, len(sample) if gates else 0, batch_size):
            end = min(begin + batch_size, len(sample))
            model(sample.features(begin, end))
            if progress:
                progress(end - begin)
    finally:
        for _, gate, _ in gates:
            gate.watch = None
    found: dict[int, ExpertWeights] = {}
    for total, (level, gate, experts) in zip(sums, gates, strict=True):
        mean = total[0] / len(sample)
        spread = np.sqrt(np.maximum(total[1] / len(sample) - mean**2, 0))
        labels = [label_name(x) for x in model.schema.labels] if gate.tasks > 1 else ["<shared>"]
        part = found.setdefault(level, ExpertWeights(level, [], [], [], [], len(sample)))
        part.labels.extend(labels)
        part.experts.extend(experts)
        part.mean.extend(mean.tolist())
        part.spread.extend(spread.tolist())
    return list(found.values())


def _adder(total: np.ndarray) -> Callable[[object], None]:
    def add(weights: object) -> None:
        values = np.asarray(weights, np.float64)
        total[0] += values.sum(axis=0)
        total[1] += np.square(values).sum(axis=0)

    return add


def _gates(model: RankingModel) -> Iterator[tuple[int, Gates, list[list[str]]]]:
    """Yields level, gates, and for each task the names of the experts, of all gates of a model."""
    labels = [label_name(x) for x in model.schema.labels]
    levels = [x for x in model.submodules if isinstance(x, CustomizedGateControl)]
    for number, level in enumerate(sorted(levels, key=lambda x: int(x.name.rpartition("_")[2])), 1):
        own = {label: [f"{label} {i + 1}" for i in range(level.task_experts)] for label in labels}
        shared = [f"shared {i + 1}" for i in range(level.shared.count)]
        yield number, level.gates, [[*own[label], *shared] for label in labels]
        if level.shared_gate is not None:
            yield number, level.shared_gate, [[*(x for names in own.values() for x in names), *shared]]
    mine = {id(gate) for level in levels for gate in (level.gates, level.shared_gate)}
    for gate in model.submodules:
        if isinstance(gate, Gates) and id(gate) not in mine:
            yield 1, gate, [[f"expert {i + 1}" for i in range(gate.experts)]] * gate.tasks
