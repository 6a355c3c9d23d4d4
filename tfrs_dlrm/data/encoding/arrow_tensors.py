"""Converts Arrow arrays of raw values to tensors for the encoder."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from tfrs_dlrm.data.raw.parsing import MISSING_INT


def to_tensor(array: pa.Array) -> tf.Tensor | tf.RaggedTensor:
    """Converts strings, numbers, or lists of them to a tensor; null becomes "", MISSING_INT, NaN or an empty list.

    Vectors, which are lists of a fixed size without nulls, become float32 [N, size].
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_fixed_size_list(array.type):
        return tf.constant(array.flatten().to_numpy().reshape(-1, array.type.list_size))
    if pa.types.is_list(array.type):
        array = pc.if_else(pc.is_null(array), pa.scalar([], array.type), array)
        splits = np.concatenate([[0], np.cumsum(pc.list_value_length(array).to_numpy(zero_copy_only=False))])
        return tf.RaggedTensor.from_row_splits(to_tensor(array.flatten()), splits.astype(np.int64))
    if pa.types.is_string(array.type):
        values = pc.fill_null(array, "").cast(pa.binary()).to_numpy(zero_copy_only=False)
        return tf.constant(values, tf.string) if len(values) else tf.zeros([0], tf.string)
    missing = MISSING_INT if pa.types.is_integer(array.type) else np.nan
    return tf.constant(pc.fill_null(array, missing).to_numpy(zero_copy_only=False))
