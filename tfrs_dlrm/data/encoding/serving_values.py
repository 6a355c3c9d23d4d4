"""Values that requests lack: puts the serving value in their place, and checks that the encoder knows it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import tensorflow as tf

from tfrs_dlrm.data.encoding.value_reader import Value, ValueReader
from tfrs_dlrm.data.encoding.vocabulary import read_vocabulary
from tfrs_dlrm.schema import CategoricalFeature, FeatureInput, Schema

Rows = Callable[[CategoricalFeature, Value], tuple[tf.Tensor, tf.Tensor]]


def with_serving_values(raw: Mapping[str, tf.Tensor], schema: Schema) -> Mapping[str, tf.Tensor]:
    """Adds the inputs of training only that a batch lacks, each with its serving value in all rows."""
    inputs = schema.inputs
    lacking = [given for given in inputs if given.training_only and given.name not in raw]
    if not lacking:
        return raw
    first = next((raw[given.name] for given in inputs if given.name in raw), next(iter(raw.values())))
    count = first.nrows() if isinstance(first, tf.RaggedTensor) else tf.shape(first, tf.int64)[0]
    return {**raw, **{given.name: tf.fill([count], _value(given)) for given in lacking}}


def check_serving_values(schema: Schema, directory: str, reader: ValueReader, rows: Rows) -> None:
    """Checks that requests have an input, and that the encoder knows each serving value.

    The row of an unknown value was never trained, and all scores would depend on it.

    Args:
      schema: of the encoder.
      directory: with the vocabularies.
      reader: of the encoder.
      rows: `Encoder.rows`.

    Raises:
      ValueError: all features are `training_only`, or a value is no time of the feature's format or has no row.
    """
    inputs = {given.name: given for given in schema.inputs if given.training_only}
    if len(inputs) == len(schema.inputs):
        raise ValueError("all features are training_only; requests need one at least")
    values = {given.name: reader.read(given, _value(given)[None]) for given in inputs.values()}
    for given in inputs.values():
        if given.time is not None and given.serving_value is not None and not values[given.name].known[0]:
            raise ValueError(
                f"feature {given.features[0]!r}: serving_value={given.serving_value!r} is no time of the format"
                f" {given.time.format!r}; write it as the log does"
            )
    for f in schema.categorical:
        if f.cross or f.input_name not in inputs or rows(f, values[f.input_name])[1][0]:
            continue
        if f.serving_value is not None:
            raise ValueError(f"feature {f.name!r}: serving_value={f.serving_value!r} has no row; {_mend(f, directory)}")
        if f.out_of_range == "error":
            raise ValueError(
                f"feature {f.name!r}: training_only needs a serving_value, because out_of_range='error' refuses missing"
                f" values; {_mend(f, directory)}"
            )


def _value(given: FeatureInput) -> tf.Tensor:
    return tf.constant(given.value_for_requests, given.dtype)


def _mend(f: CategoricalFeature, directory: str) -> str:
    if f.encoding != "vocabulary":
        return "give a value that has one"
    frequent = ", ".join(map(repr, itertools.islice(read_vocabulary(directory, f.table), 3)))
    return f"give a value of the training rows: the most frequent are {frequent}"
