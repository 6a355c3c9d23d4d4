"""Compares an encoder with rows that `prepare` encoded: what it learned of the log may have been damaged since.

An exported model is compared with the trained one behind the same encoder, which does not show that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.manifest import MANIFEST_FILE
from tfrs_dlrm.data.preparing.samples import SAMPLES_FILE, read_samples, to_tensors
from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.serving.verification.prepared_rows import encoded_inputs, first_rows
from tfrs_dlrm.serving.verification.verification_report import Failed


def check_encoder(encoder: Encoder, directory: str) -> None:
    """Encodes the samples of a prepared directory, and compares them with its Parquet rows.

    Args:
      encoder: of the directory, or of a run that was trained on it.
      directory: on a disk; without Parquet files, as in a run, nothing is compared.

    Raises:
      ValueError: a row is encoded otherwise; the message names its feature.
    """
    if not os.path.isfile(os.path.join(directory, MANIFEST_FILE)):
        return
    samples = read_samples(directory)
    found = encoder(to_tensors(samples, encoder.signature()))
    try:
        split, table = first_rows(directory, len(samples))
    except Failed as e:
        raise ValueError(str(e)) from e
    for name, expected in encoded_inputs(table, encoder.schema).items():
        values = _padded(found[name], expected)
        same = (
            np.isclose(values, expected, rtol=1e-5, atol=1e-6) if values.shape == expected.shape else np.zeros((1, 1))
        )
        if not same.all():
            row, column = np.argwhere(~same.astype(bool))[0].tolist()
            feature = _feature(encoder.schema, name, column)
            raise ValueError(
                f"{directory}: {SAMPLES_FILE}, line {row + 1}: feature {feature!r} is encoded otherwise than in the"
                f" {split} set, so vocabularies, statistics or samples were changed after the data were prepared:"
                " prepare them again, and train again if the run has the changed files"
            )


def _padded(values: Any, expected: np.ndarray) -> np.ndarray:
    if isinstance(values, tf.RaggedTensor):
        fill = 0.0 if expected.dtype == np.float32 else MISSING_INT
        values = values.to_tensor(fill, shape=[None, expected.shape[1]])
    array: np.ndarray = values.numpy()
    return array


def _feature(schema: Schema, name: str, column: int) -> str:
    of: Mapping[str, list[str]] = {"dense": list(schema.dense_columns), "ids": [f.name for f in schema.one_hot]}
    return of[name][column] if name in of else name
