"""Encoded batches for a model in whose tables values have other rows than in the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.schema import Schema


def with_model_rows(schema: Schema, rows: Mapping[str, np.ndarray]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Returns a function of the features of a batch that puts the model's rows in place of those of the data.

    Args:
      schema: of the batches.
      rows: by table, the model's row of each row of the data, int32 [rows]: 0, the unseen value, where the model does
        not know the value. The rows of other tables stay.
    """
    moved = {name: tf.constant(of) for name, of in rows.items() if not np.array_equal(of, np.arange(len(of)))}

    def of_table(found: tf.Tensor, table: str) -> tf.Tensor:
        return tf.gather(moved[table], found) if table in moved else found

    def change(features: dict[str, Any]) -> dict[str, Any]:
        changed = dict(features)
        if "ids" in features:
            columns = zip(tf.unstack(features["ids"], axis=1), schema.one_hot, strict=True)
            changed["ids"] = tf.stack([of_table(found, f.table) for found, f in columns], axis=1)
        for f in schema.multi_hot:
            values = features[f.name].flat_values
            changed[f.name] = features[f.name].with_flat_values(of_table(values, f.table))
        return changed

    return change
