"""Moves the last bias of a model so that its predictions average to the labels.

Each step of an optimizer moves all outputs together by what its batch happens to hold: with 30 clicks among 4,096 rows,
the probabilities of a good model go up and down by 10%, and a checkpoint keeps the last move. Where the likelihood is
greatest, predictions of the training rows average to their labels, which gives the bias without that noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.preparing.label_counts import LabelCounts
from tfrs_dlrm.data.reading.dataset import dataset
from tfrs_dlrm.data.reading.labels import label_counts
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.training.evaluation import Scores, score

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
    scores = score(model, _drawn_rows(directory, rows, batch_size, seed))
    moves = np.array([_move(*part) for part in _by_label(scores, model.schema, label_counts(directory, "train"))])
    if np.abs(moves).max() > _LEAST:
        bias = model.output_bias
        bias.assign_add(tf.constant(moves.reshape(bias.shape), bias.dtype))
    return moves


def _drawn_rows(directory: str, rows: int, batch_size: int, seed: int) -> tf.data.Dataset:
    """Returns the first batches of a shuffled epoch; each process has its part of them."""
    part = distribution_of().evaluation_part
    order: Any = {"shuffle": True, "seed": seed, "shuffle_rows": rows, "drop_remainder": False}
    return dataset(directory, batch_size, context=part, **order).take(-(-rows // batch_size))


def _by_label(
    scores: Scores, schema: Schema, counts: Mapping[str, LabelCounts]
) -> Iterator[tuple[Scores, float | None]]:
    """Yields the scores of each label, and its mean in the training set; None where only the drawn rows can say it."""
    share = schema.label.keep_negatives
    for i, column in enumerate(schema.label_columns):
        mine = scores.of_label(i)
        if i and share < 1:  # positives of the first label are too many for the others
            first = scores.labels[mine.examples]
            stands_for = np.where(first > 0, share, 1.0)
            mine = dataclasses.replace(mine, weights=stands_for if mine.weights is None else mine.weights * stands_for)
        yield mine, None if schema.weight or (i and share < 1) else counts[column].mean_label


def _move(scores: Scores, mean: float | None) -> float:
    """Returns what to add to the outputs of one label; 0 if none of the drawn rows has it."""
    weights = scores.weights
    if not len(scores.labels) or (weights is not None and not weights.sum()):
        return 0.0
    wanted = float(np.average(scores.labels, weights=weights)) if mean is None else mean
    return scores.task.move_to_mean(scores.logits, wanted, weights)
