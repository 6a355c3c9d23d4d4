"""Whether an exported model says what the trained one says."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.preparing.samples import to_tensors
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.serving.bundle.accuracy import Accuracy
from tfrs_dlrm.serving.bundle.model import ServingModel
from tfrs_dlrm.serving.bundle.tolerance import Tolerance
from tfrs_dlrm.serving.bundle.warmup import to_examples

_CANDIDATES = 16

# By name of a signature, what was found and what is expected.
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Of two models' probabilities (of a regression, predicted numbers) on the same raw rows.

    Attributes:
      rows: rows of the log.
      odd_rows: rows made up of missing, unseen and malformed values.
      largest_difference: between two of them, over all rows and signatures, in one batch and one by one.
      tolerances: that it may have, by the name of the output.
      inputs: all rows, the odd ones last.
      answers: the training side's, by the name of the output: float32, of each row.
      cost: of smaller tables; None where they are as trained.
    """

    rows: int
    odd_rows: int
    largest_difference: float
    tolerances: Mapping[str, Tolerance]
    inputs: Sequence[Mapping[str, Any]] = dataclasses.field(repr=False)
    answers: Mapping[str, np.ndarray] = dataclasses.field(repr=False)
    cost: Accuracy | None = None


def compare(
    path: str,
    model: RankingModel,
    serving: ServingModel,
    samples: Sequence[Mapping[str, Any]],
    tolerances: Mapping[str, Tolerance],
    roundings: Mapping[str, Tolerance],
) -> Comparison:
    """Loads the SavedModel at `path` and compares what all its signatures say with `model` behind the encoder.

    Args:
      path: of the SavedModel.
      model: in training.
      serving: what was saved.
      samples: rows of the log.
      tolerances: by the name of the output, how far an answer may be from that of `model`.
      roundings: how far those of `rank` may be from those of `serving_default`.

    Raises:
      ValueError: an answer differs by more.
    """
    signatures = tf.saved_model.load(path).signatures
    odd = odd_rows(serving.schema, samples[0])
    raw = to_tensors([*samples, *odd], serving.raw_signature())
    encoded = serving.encoder(raw)
    tasks = model.label_tasks
    expected = {k: v.numpy() for k, v in tasks.named(tasks.served(model(encoded, training=False))).items()}
    rows = len(samples) + len(odd)
    some = [*range(min(8, len(samples))), *range(len(samples), rows)]
    found = _answers(signatures, raw, serving.padded(encoded))
    alone = [signatures["serving_default"](**{k: v[i : i + 1] for k, v in raw.items()}) for i in some]
    pairs = {output: {n: (a[output].numpy(), wanted) for n, a in found.items()} for output, wanted in expected.items()}
    for output, wanted in expected.items():
        one_by_one = np.array([answers[output].numpy()[0] for answers in alone])
        pairs[output]["serving_default, rows one by one"] = one_by_one, wanted[some]
    pairs[tasks.outputs[0]] |= _of_the_first(signatures, raw, expected[tasks.outputs[0]])
    differences = [_checked(path, output, pairs[output], tolerances[output]) for output in expected]
    if serving.context:
        arrays, suffixes = {k: v.numpy() for k, v in raw.items()}, dict(zip(tasks.outputs, tasks.suffixes, strict=True))
        ranked = _ranking(signatures, arrays, serving.context_inputs, some, suffixes)
        differences += [_checked(path, output, ranked[output], roundings[output]) for output in expected]
    return Comparison(len(samples), len(odd), max(differences), tolerances, [*samples, *odd], expected)


def _checked(path: str, output: str, pairs: Pairs, tolerance: Tolerance) -> float:
    """The largest difference between what was found and what is expected; raises ValueError where it is too large."""
    for name, (found, expected) in pairs.items():
        if not tolerance.met(found, expected).all():
            raise ValueError(
                f"{path}: the exported model differs from the trained one by {np.abs(found - expected).max():.3g} in a"
                f" {output} of {name}, more than {tolerance}; nothing was published"
            )
    return max(float(np.abs(found - expected).max()) for found, expected in pairs.values())


def _answers(
    signatures: Mapping[str, Any], raw: Mapping[str, tf.Tensor], encoded: Mapping[str, tf.Tensor]
) -> dict[str, dict[str, tf.Tensor]]:
    """What the signatures say that take rows and have an output for each label."""
    return {
        "serving_default": signatures["serving_default"](**raw),
        "serialized_examples": signatures["serialized_examples"](examples=_examples(raw)),
        "encoded": signatures["encoded"](**encoded),
    }


def _of_the_first(signatures: Mapping[str, Any], raw: Mapping[str, tf.Tensor], expected: np.ndarray) -> Pairs:
    """What `regress` and `classify` say of rows, and what is expected."""
    examples = _examples(raw)
    found = {"regress": signatures["regress"](inputs=examples)["outputs"]}
    if "classify" in signatures:
        found["classify"] = signatures["classify"](inputs=examples)["scores"][:, 1]
    return {name: (scores.numpy(), expected) for name, scores in found.items()}


def _examples(raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return tf.constant([e.SerializeToString() for e in to_examples({k: v.numpy() for k, v in raw.items()})])


def _ranking(
    signatures: Mapping[str, Any],
    raw: Mapping[str, np.ndarray],
    context: Collection[str],
    rows: Sequence[int],
    suffixes: Mapping[str, str],
) -> dict[str, Pairs]:
    """By output, `rank` and `serving_default` on the same pairs, and `rank_top_k` and `rank`.

    The contexts are those of the first and the last of the rows, and each has all of them as candidates. What an output
    is called there ends in its suffix; candidates are ordered by the first.
    """
    contexts, candidates = [rows[0], rows[-1]], [*rows, *range(min(_CANDIDATES, rows[-1]))]
    shape = (len(contexts), len(candidates))
    pairs = {k: v[np.repeat(contexts, shape[1]) if k in context else candidates * 2] for k, v in raw.items()}
    expected = signatures["serving_default"](**{k: tf.constant(v) for k, v in pairs.items()})
    request = {
        k: tf.constant(raw[k][contexts] if k in context else v.reshape(*shape, *v.shape[1:])) for k, v in pairs.items()
    }
    ranked = {n: v.numpy() for n, v in signatures["rank"](**request).items()}
    k = min(7, len(candidates))
    best = {n: v.numpy() for n, v in signatures["rank_top_k"](**request, k=tf.constant([k, k])).items()}
    found: dict[str, Pairs] = {}
    for output, suffix in suffixes.items():
        scores = ranked[f"scores{suffix}"]
        chosen = np.take_along_axis(scores, best["indices"], axis=1)
        found[output] = {
            "rank": (scores, expected[output].numpy().reshape(shape)),
            "rank_top_k, by its indices": (chosen, best[f"scores{suffix}"]),
        }
        if not suffix:
            falling = -np.sort(-scores, axis=1)
            found[output] |= {
                "rank, in its order": (np.take_along_axis(scores, ranked["order"], axis=1), falling),
                "rank_top_k": (best["scores"], falling[:, :k]),
            }
    return found


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
