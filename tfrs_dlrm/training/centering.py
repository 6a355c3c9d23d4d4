"""Moves the last bias of a model so that its predictions average to the labels.

Each step of an optimizer moves all outputs together by what its batch happens to hold: with 30 clicks among 4,096 rows,
the probabilities of a good model go up and down by 10%, and a checkpoint keeps the last move. Where the likelihood is
greatest, predictions of the training rows average to their labels, which gives the bias without that noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.preparing.label_counts import LabelCounts, shares
from tfrs_dlrm.data.reading.dataset import dataset
from tfrs_dlrm.data.reading.labels import label_counts
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.training.evaluation import ScoredRows, Scores, score_rows

# A smaller move is rounding: a second call on the same weights changes nothing.
_LEAST = 1e-5


def center(model: RankingModel, directory: str, rows: int, batch_size: int, seed: int) -> np.ndarray:
    """Adds to `model.output_bias` what makes predictions average to the labels of the training set.

    The predictions are of rows drawn from all over the training set, and the mean label is that of all of its rows.
    With weights of examples, both are weighted means over the drawn rows.

    Args:
      model: the model; with several labels, each has its number.
      directory: what `prepare` wrote.
      rows: how many rows to draw.
      batch_size: examples per step, over all replicas together; it changes no result.
      seed: decides which rows are drawn.

    Returns:
      What was added, float64 [labels].

    Raises:
      NonFiniteError: a score is NaN or infinite.
      ValueError: the model has no such bias.
    """
    if model.output_bias is None:
        raise ValueError(f"{type(model).__name__} has no output_bias; leave train.center_rows at 0")
    scored = score_rows(model, _drawn_rows(directory, rows, batch_size, seed))
    moves = _moves(scored, model, label_counts(directory, "train"))
    if np.abs(moves).max() > _LEAST:
        bias = model.output_bias
        bias.assign_add(tf.constant(moves.reshape(bias.shape), bias.dtype))
    return moves


def _drawn_rows(directory: str, rows: int, batch_size: int, seed: int) -> tf.data.Dataset:
    """Returns the first batches of a shuffled epoch; each process has its part of them."""
    part = distribution_of().evaluation_part
    order: Any = {"shuffle": True, "seed": seed, "shuffle_rows": rows, "drop_remainder": False}
    return dataset(directory, batch_size, context=part, **order).take(-(-rows // batch_size))


def _moves(scored: ScoredRows, model: RankingModel, counts: Mapping[str, LabelCounts]) -> np.ndarray:
    """Returns what to add to the outputs of each label; 0 if none of the drawn rows has it."""
    tasks, schema = model.label_tasks, model.schema
    scores, share, moves = Scores.of(tasks, *scored), schema.label.keep_negatives, np.zeros(len(schema.labels))
    logits = scored.logits.reshape(len(scored.logits), -1).astype(np.float64)
    means = shares(schema, {column: (found.count, found.positives or 0) for column, found in counts.items()})
    log_probabilities: dict[int, np.ndarray] = {}  # of labels that others come after, once they have moved
    for i, (column, earlier) in enumerate(zip(schema.label_columns, tasks.earlier, strict=True)):
        mine = scores.of_label(i)
        if i and share < 1:  # positives of the first label are too many for the others
            first = scores.labels[mine.examples]
            stands_for = np.where(first > 0, share, 1.0)
            mine = dataclasses.replace(mine, weights=stands_for if mine.weights is None else mine.weights * stands_for)
        # Where the drawn rows alone can say it, the mean of the label is theirs.
        mean = None if schema.weight or (i and share < 1) else means.get(column, counts[column].mean_label)
        before, outputs = np.zeros(len(logits)), logits[:, i]
        if earlier is not None:
            before, outputs = log_probabilities[earlier], _logits_of_rate(outputs, logits[:, earlier])
        known = slice(None) if mine.examples is None else mine.examples
        moves[i] = _move(dataclasses.replace(mine, logits=outputs[known]), mean, np.exp(before[known]))
        if i in tasks.earlier:
            log_probabilities[i] = before - np.logaddexp(0, -(outputs + moves[i]))
    return moves


def _logits_of_rate(both: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """Returns the logits of p / q, from those of p and q."""
    logarithm = np.minimum(np.logaddexp(0, -earlier) - np.logaddexp(0, -both), -1e-9)
    return logarithm - np.log(-np.expm1(logarithm))


def _move(scores: Scores, mean: float | None, before: np.ndarray) -> float:
    """Returns what to add to the outputs of one label.

    Args:
      scores: of the label; for one that comes after another, the logits of its rate.
      mean: of the label in the training set; None for that of the scored rows.
      before: the probabilities of the label that it comes after, float64 [N]; ones if there is none.
    """
    weights = np.ones(len(before)) if scores.weights is None else scores.weights
    reached = float(np.sum(weights * before))
    if not reached:
        return 0.0
    wanted = float(np.average(scores.labels, weights=weights)) if mean is None else mean
    return scores.task.move_to_mean(scores.logits, wanted * float(weights.sum()) / reached, weights * before)
