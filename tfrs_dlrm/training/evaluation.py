"""A model's scores on a whole evaluation set, and what they amount to."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.checkpoint import Which, Workdir
from tfrs_dlrm.data.dataset import dataset
from tfrs_dlrm.data.manifest import Manifest, Split
from tfrs_dlrm.data.ready import REFERENCE_FILE
from tfrs_dlrm.files import read_json
from tfrs_dlrm.metrics import evaluate_scores
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.training.factory import load_model


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model says of a set of examples.

    Attributes:
      labels: float32 [N].
      logits: float32 [N].
      weights: float32 [N], or None where the examples have none.
    """

    labels: np.ndarray
    logits: np.ndarray
    weights: np.ndarray | None

    def metrics(self) -> dict[str, float]:
        """See `tfrs_dlrm.metrics.evaluate_scores`; exact, in float64."""
        return evaluate_scores(self.labels, self.logits, self.weights)


class NonFiniteError(FloatingPointError):
    """A loss, a weight or a score became NaN or infinite."""


def score(model: RankingModel, data: tf.data.Dataset, progress: Callable[[int], None] | None = None) -> Scores:
    """Scores every example of a finite dataset, in its order.

    Args:
      model: what scores.
      data: batches of `(features, label[, weight])`, as `tfrs_dlrm.dataset(split="eval")` makes them.
      progress: called with the number of examples of each batch that is done.

    Raises:
      NonFiniteError: a score is NaN or infinite.
      ValueError: the dataset has no examples.
    """
    if not hasattr(model, "_score"):  # one trace for all evaluations of a model
        model._score = tf.function(lambda features: model(features, training=False), reduce_retracing=True)
    parts: list[tuple[np.ndarray, ...]] = []
    for features, *targets in data:
        parts.append((model._score(features).numpy(), *(t.numpy() for t in targets)))
        if progress:
            progress(len(parts[-1][0]))
    if not parts:
        raise ValueError("the evaluation set is empty")
    logits, labels, *weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    bad = np.count_nonzero(~np.isfinite(logits))
    if bad:
        raise NonFiniteError(f"{bad} of {len(logits)} scores are not finite")
    return Scores(labels, logits, weights[0] if weights else None)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The evaluation of one checkpoint.

    Attributes:
      scores: what the model says.
      checkpoint: its path.
      data: the prepared directory.
      reference: a name and the metrics of something to compare with, where the data come with one.
    """

    scores: Scores
    checkpoint: str
    data: str
    reference: dict[str, dict[str, float]]

    def columns(self) -> dict[str, dict[str, float]]:
        """Metrics by the name of what they measure."""
        return {"this model": self.scores.metrics(), **self.reference}

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"checkpoint": self.checkpoint, "data": self.data, "metrics": self.columns()}


def evaluate_run(
    workdir: str,
    data: str = "",
    split: Split = "eval",
    which: Which = "best",
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Scores a checkpoint of a run on a prepared set.

    Args:
      workdir: the directory of the run.
      data: a prepared directory; by default the one that the run trained on.
      split: which rows of it.
      which: the `best` checkpoint or the `latest`.
      progress: as in `score`.

    Raises:
      FileNotFoundError: there is no run, checkpoint or data.
      ValueError: the data have another schema or vocabulary than the checkpoint.
    """
    model, config, checkpoint = load_model(workdir, which)
    data = data or config.data.path
    Manifest.load(data)
    Workdir(workdir).check_data(data)
    scores = score(model, dataset(data, config.train.eval_batch_size, split=split, shuffle=False), progress)
    path = os.path.join(data, REFERENCE_FILE)
    reference = read_json(path) if split == "eval" and os.path.isfile(path) else {}
    return Evaluation(scores, checkpoint, data, reference)
