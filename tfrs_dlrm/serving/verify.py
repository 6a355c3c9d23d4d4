"""Whether an exported model says what the trained one says."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.samples import to_tensors
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.serving.accuracy import Accuracy
from tfrs_dlrm.serving.model import ServingModel
from tfrs_dlrm.serving.warmup import to_examples

_CANDIDATES = 16


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Of two models' probabilities on the same raw rows.

    Attributes:
      rows: rows of the log.
      odd_rows: rows made up of missing, unseen and malformed values.
      largest_difference: between two probabilities, over all rows and signatures, in one batch and one by one.
      tolerance: that it may have.
      inputs: all rows, the odd ones last.
      probabilities: float32, the training side's, of each row.
      cost: of smaller tables; None where they are as trained.
    """

    rows: int
    odd_rows: int
    largest_difference: float
    tolerance: float
    inputs: Sequence[Mapping[str, Any]] = dataclasses.field(repr=False)
    probabilities: np.ndarray = dataclasses.field(repr=False)
    cost: Accuracy | None = None


def compare(
    path: str,
    model: RankingModel,
    serving: ServingModel,
    samples: Sequence[Mapping[str, Any]],
    tolerance: float,
    rounding: float,
) -> Comparison:
    """Loads the SavedModel at `path` and compares what all its signatures say with `model` behind the encoder.

    Args:
      path: of the SavedModel.
      model: in training.
      serving: what was saved.
      samples: rows of the log.
      tolerance: how far a probability may be from that of `model`.
      rounding: how far those of `rank` may be from those of `serving_default`.

    Raises:
      ValueError: a probability differs by more.
    """
    signatures = tf.saved_model.load(path).signatures
    odd = odd_rows(serving.schema, samples[0])
    raw = to_tensors([*samples, *odd], serving.raw_signature())
    encoded = serving.encoder(raw)
    expected = tf.sigmoid(model(encoded, training=False)).numpy()
    some = [*range(min(8, len(samples))), *range(len(samples), len(expected))]
    found = _scores(signatures, raw, serving.padded(encoded))
    differences = {name: np.abs(scores - expected) for name, scores in found.items()}
    alone = [signatures["serving_default"](**{k: v[i : i + 1] for k, v in raw.items()}) for i in some]
    differences["serving_default, rows one by one"] = np.abs(
        np.array([outputs["probability"].numpy()[0] for outputs in alone]) - expected[some]
    )
    allowed = dict.fromkeys(differences, tolerance)
    if serving.context:
        differences |= _ranking(signatures, {k: v.numpy() for k, v in raw.items()}, serving.context_inputs, some)
    for name, values in differences.items():
        if not values.max() <= allowed.get(name, rounding):  # NaN fails too
            raise ValueError(
                f"{path}: the exported model differs from the trained one by {values.max():.3g} in a probability of"
                f" {name}, more than {allowed.get(name, rounding):g}; nothing was published"
            )
    largest = max(float(values.max()) for values in differences.values())
    return Comparison(len(samples), len(odd), largest, tolerance, [*samples, *odd], expected)


def _scores(
    signatures: Mapping[str, Any], raw: Mapping[str, tf.Tensor], encoded: Mapping[str, tf.Tensor]
) -> dict[str, np.ndarray]:
    """What each signature that takes rows says of them."""
    examples = tf.constant([e.SerializeToString() for e in to_examples({k: v.numpy() for k, v in raw.items()})])
    found = {
        "serving_default": signatures["serving_default"](**raw)["probability"],
        "serialized_examples": signatures["serialized_examples"](examples=examples)["probability"],
        "regress": signatures["regress"](inputs=examples)["outputs"],
        "classify": signatures["classify"](inputs=examples)["scores"][:, 1],
        "encoded": signatures["encoded"](**encoded)["probability"],
    }
    return {name: scores.numpy() for name, scores in found.items()}


def _ranking(
    signatures: Mapping[str, Any], raw: Mapping[str, np.ndarray], context: Collection[str], rows: Sequence[int]
) -> dict[str, np.ndarray]:
    """Differences of `rank` from `serving_default` on the same pairs, and of `rank_top_k` from `rank`.

    The contexts are those of the first and the last of the rows, and each has all of them as candidates.
    """
    contexts, candidates = [rows[0], rows[-1]], [*rows, *range(min(_CANDIDATES, rows[-1]))]
    shape = (len(contexts), len(candidates))
    pairs = {k: v[np.repeat(contexts, shape[1]) if k in context else candidates * 2] for k, v in raw.items()}
    expected = signatures["serving_default"](**{k: tf.constant(v) for k, v in pairs.items()})["probability"]
    request = {
        k: tf.constant(raw[k][contexts] if k in context else v.reshape(*shape, *v.shape[1:])) for k, v in pairs.items()
    }
    ranked = {k: v.numpy() for k, v in signatures["rank"](**request).items()}
    scores, k = ranked["scores"], min(7, len(candidates))
    best = {n: v.numpy() for n, v in signatures["rank_top_k"](**request, k=tf.constant([k, k])).items()}
    falling = -np.sort(-scores, axis=1)
    return {
        "rank": np.abs(scores - expected.numpy().reshape(shape)),
        "rank, in its order": np.abs(np.take_along_axis(scores, ranked["order"], axis=1) - falling),
        "rank_top_k": np.abs(best["scores"] - falling[:, :k]),
        "rank_top_k, by its indices": np.abs(np.take_along_axis(scores, best["indices"], axis=1) - best["scores"]),
    }


def odd_rows(schema: Schema, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Copies of a row in which all values are missing, unseen, or no proper values at all.

    A feature that refuses such values (`out_of_range` of `error`, `fill_value` of None) keeps its own.
    """
    kinds: list[tuple[Any, str, int]] = [(None, "", -1), (1e6, "\0 never seen \n", 2**62), (float("-inf"), "\x80", -7)]
    rows = []
    for number, text, integer in kinds:
        odd = dict(row)
        odd |= {f.name: number for f in schema.dense if f.fill_value is not None}
        for f in schema.categorical:
            if f.out_of_range == "error":
                continue
            value: Any = integer if f.dtype == "int64" and f.separator is None else text
            is_list = f.multi_valued and f.separator is None
            odd[f.name] = [value] if is_list else value
            if f.weights:
                odd[f.weights_name] = [float("nan")] if is_list else "no number" if value else ""
        rows.append(odd)
    return rows
