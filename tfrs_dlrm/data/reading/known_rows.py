"""Encoded batches for a model that knows only some of their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.schema import Schema


def only_known(schema: Schema, known: Mapping[str, np.ndarray]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Returns a function of the features of a batch that puts row 0, the unseen value, in place of unknown rows.

    Args:
      schema: of the batches.
      known: by table, bool [rows]; the rows of other tables stay.
    """
    masks = {name: tf.constant(mask) for name, mask in known.items() if not mask.all()}

    def of_table(rows: tf.Tensor, table: str) -> tf.Tensor:
        return tf.where(tf.gather(masks[table], rows), rows, 0) if table in masks else rows

    def change(features: dict[str, Any]) -> dict[str, Any]:
        changed = dict(features)
        if "ids" in features:
            columns = zip(tf.unstack(features["ids"], axis=1), schema.one_hot, strict=True)
            changed["ids"] = tf.stack([of_table(rows, f.table) for rows, f in columns], axis=1)
        for f in schema.multi_hot:
            values = features[f.name].flat_values
            changed[f.name] = features[f.name].with_flat_values(of_table(values, f.table))
        return changed

    return change
