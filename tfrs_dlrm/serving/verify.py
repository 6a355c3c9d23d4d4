"""Whether an exported model says what the trained one says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.encoder import Encoder
from tfrs_dlrm.data.samples import to_tensors
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.serving.warmup import to_examples


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Of two models' probabilities on the same raw rows.

    Attributes:
      rows: rows of the log.
      odd_rows: rows made up of missing, unseen and malformed values.
      largest_difference: between two probabilities, over all rows, in one batch and one by one.
      tolerance: that it may have.
      inputs: all rows, the odd ones last.
      probabilities: float32, the training side's, of each row.
    """

    rows: int
    odd_rows: int
    largest_difference: float
    tolerance: float
    inputs: Sequence[Mapping[str, Any]] = dataclasses.field(repr=False)
    probabilities: np.ndarray = dataclasses.field(repr=False)


def compare(
    path: str, model: RankingModel, encoder: Encoder, samples: Sequence[Mapping[str, Any]], tolerance: float
) -> Comparison:
    """Loads the SavedModel at `path` and compares its scores with those of `model` behind `encoder`.

    Raises:
      ValueError: a probability differs by more than `tolerance`.
    """
    signatures = tf.saved_model.load(path).signatures
    serve = signatures["serving_default"]
    odd = odd_rows(encoder.schema, samples[0])
    raw = to_tensors([*samples, *odd], encoder.signature())
    expected = tf.sigmoid(model(encoder(raw), training=False)).numpy()
    together = serve(**raw)["probability"].numpy()
    some = [*range(min(8, len(samples))), *range(len(samples), len(expected))]
    alone = [serve(**{k: v[i : i + 1] for k, v in raw.items()})["probability"].numpy()[0] for i in some]
    examples = tf.constant([e.SerializeToString() for e in to_examples({k: v.numpy() for k, v in raw.items()})])
    parsed = {
        "serialized_examples": signatures["serialized_examples"](examples=examples)["probability"],
        "regress": signatures["regress"](inputs=examples)["outputs"],
        "classify": signatures["classify"](inputs=examples)["scores"][:, 1],
    }
    differences = np.concatenate(
        [np.abs(together - expected), np.abs(np.array(alone) - expected[some])]
        + [np.abs(scores.numpy() - expected) for scores in parsed.values()]
    )
    if not differences.max() <= tolerance:  # NaN fails too
        worst = int(np.argmax(np.nan_to_num(differences, nan=np.inf)))
        raise ValueError(
            f"{path}: the exported model differs from the trained one by {differences[worst]:.3g} in a probability,"
            f" more than {tolerance:g}; nothing was published"
        )
    return Comparison(len(samples), len(odd), float(differences.max()), tolerance, [*samples, *odd], expected)


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
