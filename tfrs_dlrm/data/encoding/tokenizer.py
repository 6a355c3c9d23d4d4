"""Splits the fields of a log into single values: the first half of the encoder, which needs no vocabulary."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from tfrs_dlrm.data.encoding.arrow_tensors import to_tensor
from tfrs_dlrm.data.encoding.text_values import CANONICAL, Spelling, spelled, whole_texts
from tfrs_dlrm.data.encoding.time_parts import Minutes, read_micros, read_minutes
from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.data.raw.values import FALSE, POINT_ZERO, TRUE
from tfrs_dlrm.embeddings.value_lists import latest
from tfrs_dlrm.schema import CategoricalFeature, Schema, Time

# The text as which a missing value is counted, looked up and hashed. (A vocabulary file cannot hold an empty line.)
MISSING_TEXT = "<missing>"


class Tokenizer:
    """Splits fields into values, and normalizes values to the text that is counted, looked up and hashed."""

    def __init__(self, schema: Schema):
        self._schema = schema
        self._strip = schema.text.strip
        # The texts that stand for a missing value; a typed column has 999 where text has `999.0`.
        same = (re.sub(POINT_ZERO, r"\1", text) for text in schema.text.missing)
        self.missing = list(dict.fromkeys(["", *schema.text.missing, *same]))

    def text(self, values: tf.Tensor, spelling: Spelling = CANONICAL) -> tf.Tensor:
        """Normalizes string or int64 [N] to the strings that are counted, looked up and hashed.

        Text is stripped if the schema says so. Missing values become `MISSING_TEXT`. The text of a whole number becomes
        its digits, and that of a boolean `true` or `false`; see `data/raw/values.py`.
        """
        if values.dtype == tf.int64:
            return tf.where(values == MISSING_INT, MISSING_TEXT, tf.strings.as_string(values))
        text = self.spelled(values, spelling)
        return tf.where(self.is_missing(text), MISSING_TEXT, text)

    def texts(self, values: pa.Array) -> pa.Array:
        """Normalizes Arrow strings without null, or int64, to strings as `text` does.

        Most columns have no text that needs more than a look; as strings of TensorFlow they would take much longer.
        """
        if pa.types.is_string(values.type) and _is_spelled(values):
            return pc.if_else(pc.is_in(values, pa.array(self.missing, pa.string())), MISSING_TEXT, values)
        return pa.array(self.text(to_tensor(values)).numpy(), pa.binary()).cast(pa.string())

    def minutes(self, time: Time, values: tf.Tensor) -> Minutes:
        """Reads raw times, string or int64 [N]; a text that stands for a missing value is not known."""
        return read_minutes(self._present(values), time)

    def micros(self, time: Time, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads raw times as `minutes` does, to microseconds since 1970, int64 [N], and whether known, bool [N]."""
        return read_micros(self._present(values), time)

    def _present(self, values: tf.Tensor) -> tf.Tensor:
        """Strips texts, and empties those that stand for a missing value."""
        if values.dtype == tf.string:
            values = self.stripped(values)
            if len(self.missing) > 1:
                values = tf.where(self.is_missing(values), "", values)
        return values

    def stripped(self, values: tf.Tensor) -> tf.Tensor:
        """Strips strings of any shape if the schema says so."""
        return tf.strings.strip(values) if self._strip else values

    def spelled(self, values: tf.Tensor, spelling: Spelling) -> tf.Tensor:
        """Replaces strings of any shape, which it strips, by the text of their value."""
        return spelled(self.stripped(values), spelling)

    def is_missing(self, text: tf.Tensor) -> tf.Tensor:
        """Whether spelled strings of any shape stand for a missing value."""
        return functools.reduce(operator.or_, [text == missing for missing in self.missing])

    def list_inputs(self, feature: CategoricalFeature) -> tuple[str, ...]:
        """Returns the names of the inputs that decide which values of a multi-valued feature are encoded."""
        if feature.parallel_to:
            return feature.input_name, self._schema.value_feature(feature.parallel_to).input_name
        return (feature.input_name,)

    def lists(
        self, feature: CategoricalFeature, inputs: Mapping[str, tf.Tensor]
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor | None]:
        """Splits the values of a multi-valued feature, and their weights, to ragged [B, None], as they are encoded.

        Vocabularies count the same values. Missing values are dropped. A history has the last `sequence_length` of the
        present ones; a history that is parallel to another one has the values of the events of that, missing ones
        among them.

        Args:
          feature: the feature.
          inputs: the tensors of `list_inputs`, as in `Encoder.signature`, or ragged if they come from list columns.
            With the weights of the feature among them, these are returned too; else None.

        Raises:
          tf.errors.InvalidArgumentError: a row has not as many weights as values, or not as many values as the row of
            the history to which the feature is parallel.
        """
        if feature.parallel_to:
            return self._parallel_values(feature, inputs), None
        weights = inputs.get(feature.weights_name) if feature.weights else None
        values, weights = self._present_values(feature, inputs[feature.input_name], weights)
        return (latest(values, feature.sequence_length) if feature.history_of else values), weights

    def _present_values(
        self, feature: CategoricalFeature, raw: tf.Tensor, weights: tf.Tensor | None
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor | None]:
        """Splits values and their weights; drops missing values."""
        raw = self._split_lists(feature, raw)
        if weights is not None and feature.separator is not None:
            weights = _to_float(_split(weights, feature.separator))
        elif weights is not None and not isinstance(weights, tf.RaggedTensor):
            weights = tf.RaggedTensor.from_tensor(weights)
        if weights is not None:
            # `prepare` refuses such weights. In serving, the value counts nothing, so that the batch does not fail.
            weights = weights.with_values(tf.where(tf.math.is_finite(weights.values), weights.values, 0.0))
        present = self._is_present(raw.values)
        if weights is not None:
            same = tf.reduce_all(raw.row_lengths() == weights.row_lengths())
            check = tf.debugging.Assert(same, [f"feature '{feature.name}': not as many weights as values"])
            with tf.control_dependencies([check] if check is not None else []):
                weights = tf.ragged.boolean_mask(weights, raw.with_values(present))
        return tf.ragged.boolean_mask(raw, raw.with_values(present)), weights

    def _parallel_values(self, feature: CategoricalFeature, inputs: Mapping[str, tf.Tensor]) -> tf.RaggedTensor:
        """Splits a parallel history: a value, maybe a missing one, for each event of its main history."""
        main = self._schema.value_feature(feature.parallel_to)
        raw, events = (inputs[name] for name in self.list_inputs(feature))
        if all(f.separator is None and not isinstance(x, tf.RaggedTensor) for f, x in ((feature, raw), (main, events))):
            raw = _as_wide_as(raw, events)
        values, events = self._split_lists(feature, raw), self._split_lists(main, events)
        same = tf.reduce_all(values.row_lengths() == events.row_lengths())
        message = f"feature '{feature.name}': not as many values as '{main.name}', to which it is parallel"
        check = tf.debugging.Assert(same, [message])
        with tf.control_dependencies([check] if check is not None else []):
            present = values.with_values(self._is_present(events.values))
        return latest(tf.ragged.boolean_mask(values, present), feature.sequence_length)

    def _split_lists(self, feature: CategoricalFeature, raw: tf.Tensor) -> tf.RaggedTensor:
        """Splits the values of a multi-valued feature to ragged [B, None], missing ones among them."""
        if feature.separator is None:
            return raw if isinstance(raw, tf.RaggedTensor) else tf.RaggedTensor.from_tensor(raw)
        lists = _split(self._present(raw) if feature.history_of else raw, feature.separator)
        if feature.dtype != "int64":
            return lists
        return lists.with_values(whole_texts(self.stripped(lists.values)))

    def _is_present(self, values: tf.Tensor) -> tf.Tensor:
        return values != MISSING_INT if values.dtype == tf.int64 else self.text(values) != MISSING_TEXT


def _is_spelled(texts: pa.Array) -> bool:
    """Whether no string has white space or a point, or is a boolean to be replaced: the text of its value is itself."""
    _, offsets, data = texts.buffers()
    if data is None:
        return True
    begin, end = np.frombuffer(offsets, np.int32)[[texts.offset, texts.offset + len(texts)]]
    characters = np.frombuffer(data, np.uint8)[begin:end]
    if (characters <= ord(" ")).any() or (characters == ord(".")).any():
        return False
    return not pc.any(pc.is_in(texts, pa.array([*TRUE[1:], *FALSE[1:]]))).as_py()


def _split(text: tf.Tensor, separator: str) -> tf.RaggedTensor:
    """Splits [B] into ragged [B, None]; empty text holds no value, but `a||b` holds three."""
    parts = tf.strings.split(text, separator)
    return tf.ragged.boolean_mask(parts, parts.with_values(tf.repeat(text != "", parts.row_lengths())))


def _as_wide_as(values: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Pads or cuts [B, L] to the width of `other`, [B, M]; a request pads each list column by itself."""
    missing = tf.constant("" if values.dtype == tf.string else MISSING_INT, values.dtype)
    width = tf.shape(other)[1]
    extra = tf.fill([tf.shape(values)[0], tf.maximum(width - tf.shape(values)[1], 0)], missing)
    return tf.concat([values[:, :width], extra], axis=1)


def _to_float(text: tf.RaggedTensor) -> tf.RaggedTensor:
    """Parses numbers; other text becomes NaN, since a serving request may hold anything."""
    values = tf.strings.strip(text.values)
    number = tf.strings.regex_full_match(values, r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
    return text.with_values(tf.strings.to_number(tf.where(number, values, "nan"), tf.float32))
