"""Encodes raw values to ids and floats, in TensorFlow operations.

`prepare` runs this encoder offline, and the exported SavedModel and `raw_model` contain it. With one implementation, a
model sees the same inputs in training and in serving.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.data.encoding.checksums import check_files
from tfrs_dlrm.data.encoding.dense_encoding import dense_encoding, encode_dense
from tfrs_dlrm.data.encoding.raw_values import RawValues, conformed, is_tensors, to_tensors
from tfrs_dlrm.data.encoding.serving_values import check_serving_values, with_serving_values
from tfrs_dlrm.data.encoding.statistics import STATISTICS_FILE, read_statistics
from tfrs_dlrm.data.encoding.text_values import (
    Spelling,
    boolean_words,
    has_digits,
    spelled,
    to_int64,
    without_point_zero,
)
from tfrs_dlrm.data.encoding.time_parts import Minutes
from tfrs_dlrm.data.encoding.tokenizer import MISSING_TEXT, Tokenizer
from tfrs_dlrm.data.encoding.value_reader import Value, ValueReader
from tfrs_dlrm.data.encoding.vocabulary import VOCABULARY_DIR, read_vocabulary, vocabulary_file, write_vocabulary
from tfrs_dlrm.data.raw.values import FALSE, TRUE
from tfrs_dlrm.layers.hashing import fingerprint_rows
from tfrs_dlrm.messages.arguments import check_argument
from tfrs_dlrm.schema import SCHEMA_FILE, CategoricalFeature, Schema, check_schema
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.stores.files import write_json


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class Encoder(keras.layers.Layer):
    """A Keras layer that encodes batches of raw values: the first layer of a model of raw inputs.

        encoder = td.Encoder.load("data/clicks")
        specs = encoder.signature()
        raw = {name: keras.Input(s.shape[1:], dtype=s.dtype, name=name) for name, s in specs.items()}
        features = encoder(raw)  # or dataset.map(encoder), or encoder(frame)

    The layer has no weights. Its configuration holds the vocabularies, so a saved model needs no other file.

    Args:
      schema: a schema with all table sizes, as `prepare` writes it.
      directory: a prepared directory, which holds the vocabularies and statistics.
      name: of the layer.
      **kwargs: arguments of `keras.layers.Layer`.

    Raises:
      ValueError: a table size is not set, or differs from the size of the vocabulary.
      FileNotFoundError: a vocabulary or the statistics are missing.
    """

    def __init__(self, schema: Schema, directory: str, name: str = "encoder", **kwargs: Any):
        # No policy may round the numbers of the log.
        super().__init__(name=name, autocast=False, **kwargs)
        check_schema("Encoder", schema)
        check_argument("Encoder", "directory", directory, str)
        self.schema = schema
        self._directory = directory
        self._statistics = known = read_statistics(schema, directory)
        self._dense = {f.name: dense_encoding(f, known.dense, known.transformed) for f in schema.dense}
        self.tokenizer = Tokenizer(schema)
        self.reader = ValueReader(schema, self.tokenizer, known.edges, known.origins)
        self._lookups: dict[str, Lookup] = {}
        self._spellings: dict[str, Spelling] = {}
        # By table, the row of a missing value; None if looking up its text gives the same row.
        self._missing_rows: dict[str, int | None] = {}
        self._rows: dict[str, int] = {}
        for table in schema.tables:
            if table.vocabulary_size is None:
                raise ValueError(
                    f"table {table.name!r}: vocabulary_size is not set; prepare sets it, or give it in the schema"
                )
            self._rows[table.name] = table.vocabulary_size
            users = [f for f in schema.categorical if f.table == table.name]
            if users and users[0].encoding == "vocabulary":
                rows, room = table.vocabulary_size, (users[0].max_size or 0) + 1
                lookup = _lookup(directory, table.name, rows, has_room=rows == room)
                self.look_up_by(table.name, lookup, has_digits(vocabulary_file(directory, table.name)))
        check_serving_values(schema, directory, self.reader, self.rows)

    @classmethod
    def load(cls, directory: str) -> Encoder:
        """Loads the encoder of a prepared directory, which may be in an object store.

        Raises:
          FileNotFoundError: there is no such directory, or `prepare` did not write it.
          ValueError: one of its files is damaged.
        """
        check_argument("Encoder.load", "directory", directory, str)
        local = local_copy(directory)
        path = os.path.join(local, SCHEMA_FILE)
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"{directory} is no prepared directory (it has no {SCHEMA_FILE}); give the directory that prepare"
                " wrote, or an encoder, such as that of fit_encoder"
            )
        check_files(local)
        return cls(Schema.load(path), local)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, with the content of the directory in its place.

        Raises:
          FileNotFoundError: the directory is gone.
        """
        config: dict[str, Any] = super().get_config()
        return config | {
            "schema": json.loads(self.schema.to_json()),
            "statistics": self._statistics.plain(),
            "vocabularies": {name: "\n".join(read_vocabulary(self._directory, name)) for name in self._lookups},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Encoder:
        """Makes an encoder from `get_config`. Its vocabularies are temporary files, which are removed with it."""
        arguments = dict(config)
        schema = Schema.from_json(json.dumps(arguments.pop("schema")))
        directory = tempfile.mkdtemp(prefix="encoder-")
        os.makedirs(os.path.join(directory, VOCABULARY_DIR))
        statistics = arguments.pop("statistics")
        if any("mean" in found for found in statistics.values()):  # of dense features alone, as earlier versions have
            statistics = {"dense": statistics}
        write_json(os.path.join(directory, STATISTICS_FILE), statistics)
        for table, values in arguments.pop("vocabularies").items():
            write_vocabulary([values.split("\n")], schema.table(table), 1, vocabulary_file(directory, table))
        encoder = cls(schema, directory, **arguments)
        weakref.finalize(encoder, shutil.rmtree, directory, ignore_errors=True)
        return encoder

    def look_up_by(self, table: str, lookup: Lookup, digits: bool = True) -> None:
        """Sets how the texts of a vocabulary become lines; for rows outside of graphs, again when it has other values.

        Args:
          table: the name of a table with a vocabulary.
          lookup: from text to line.
          digits: whether a value may be a whole number.
        """
        self._lookups[table] = lookup
        if any(f.cross for f in self.schema.categorical if f.table == table):  # whose texts are as they are counted
            return
        missing = self.tokenizer.missing
        self._spellings[table] = _spelling(lookup, digits or any(re.fullmatch(r"-?[0-9]+", text) for text in missing))
        found = lookup.lookup(tf.constant([MISSING_TEXT, *missing])).numpy()
        self._missing_rows[table] = None if (found == found[0]).all() else 1 + int(found[0])

    def counted_texts(self, table: str, values: tf.Tensor) -> tf.Tensor:
        """Returns values, string or int64 [N], as `prepare` counts them, spelled as in the vocabulary: string [N]."""
        texts = self.tokenizer.text(values)
        return texts if values.dtype == tf.int64 else spelled(texts, self._spellings[table])

    def signature(self) -> dict[str, tf.TensorSpec]:
        """Returns the specs of the raw inputs by name; requests have those of `serving_signature`.

        Numbers are float32 [B], NaN where missing, and vectors float32 [B, size]. Categories and times are string or
        int64 [B], with several values joined by the schema's separator. List columns are [B, L], padded at the end with
        "" or -1, and their weights float32 [B, L].
        """
        return {
            given.name: tf.TensorSpec([None, given.size] if given.is_list else [None], given.dtype, given.name)
            for given in self.schema.inputs
        }

    def serving_signature(self) -> dict[str, tf.TensorSpec]:
        """Returns the specs of the raw inputs of requests: `signature` without the inputs that are `training_only`."""
        left_out = {given.name for given in self.schema.inputs if given.training_only}
        return {name: spec for name, spec in self.signature().items() if name not in left_out}

    def raw_inputs(self, data: RawValues) -> dict[str, tf.Tensor]:
        """Converts raw values in memory to tensors as `signature` describes them.

        Args:
          data: a DataFrame or Arrow table with the columns of the log, labels and `training_only` features not needed;
            or arrays by the names of `signature`. They are read as `prepare` reads them; NaN, None and pd.NA are
            missing values.

        Raises:
          BadRowError: a value cannot be read.
          ValueError: a column is missing, or its type cannot hold what the schema says.
        """
        return to_tensors(data, self.schema, self.signature())

    def __call__(self, raw: RawValues, *args: Any, **kwargs: Any) -> dict[str, tf.Tensor]:
        """Encodes raw values: tensors by the names of `signature`, or whatever `raw_inputs` takes; see `call`."""
        return super().__call__(raw if is_tensors(raw) else self.raw_inputs(raw), *args, **kwargs)

    def call(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Encodes a batch of raw values; see `encode` for results and errors.

        Args:
          raw: the values, by the names of `signature`, or of `serving_signature`. Other numeric dtypes are cast, and
            [B, 1] may stand for [B].

        Raises:
          ValueError: an input is missing, or of another kind.
        """
        needed = self.serving_signature()
        specs = {name: spec for name, spec in self.signature().items() if name in needed or name in raw}
        return self.encode(conformed(raw, specs))

    def encode(self, raw: Mapping[str, tf.Tensor], part: Schema | None = None) -> dict[str, tf.Tensor]:
        """Encodes a batch of raw values.

        Args:
          raw: the values, exactly as in `signature`; list columns may also be ragged. Inputs that are `training_only`
            and not in it have their `serving_value`.
          part: a schema with the features to encode (`Schema.select`); by default all.

        Returns:
          `dense`: float32 [B, schema.dense_width]; `ids`: int32 [B, F], the rows of the one-hot features; for each
          multi-valued feature its name: a RaggedTensor int32 [B, None] of rows; and `NAME_weights` for its weights.

        Raises:
          tf.errors.InvalidArgumentError: a value has no row and the feature's `out_of_range` is `error`, a feature
            does not have as many weights as values, or a history not as many values as the one to which it is parallel;
            the message names the feature.
        """
        schema = self.schema if part is None else part
        features: dict[str, tf.Tensor] = {}
        raw = with_serving_values(raw, schema)
        values = {given.name: self.reader.read(given, raw[given.name]) for given in schema.inputs}
        if schema.dense:
            features["dense"] = self.dense(self._numbers(values, schema), schema)
        if schema.one_hot:
            features["ids"] = self._one_hot(values, schema.one_hot)
        for f in schema.multi_hot:
            lists, weights = self.tokenizer.lists(f, raw)
            rows, known = self.rows(f, lists.values)
            with tf.control_dependencies(self._refuse_unknown(f, lists.values, known)):
                features[f.name] = lists.with_values(tf.identity(rows))
            if weights is not None:
                features[f.weights_name] = weights
        return features

    def dense(self, values: tf.Tensor, part: Schema | None = None) -> tf.Tensor:
        """Encodes raw numbers, float32 [B, W] of W `DenseFeature.numbers`, NaN where missing, to [B, dense_width].

        Infinities count as missing: a serving request may hold anything, and a score must not be NaN.
        """
        names = [f.name for f in (self.schema if part is None else part).dense]
        return encode_dense(values, [self._dense[name] for name in names])

    def _numbers(self, values: Mapping[str, Value], schema: Schema) -> tf.Tensor:
        """Returns the numbers of the dense features, float32 [B, W], of the values by input.

        Refuses missing numbers of features without a `fill_value`.
        """
        numbers, checks = [], []
        for f in schema.dense:
            each = self.reader.number(f, values[f.input_name])
            if f.size is not None:  # no runtime compares what it is fed with the shape of the signature
                each = tf.ensure_shape(each, [None, f.size], name=f"size_of_{f.name}")
            if f.fill_value is None:
                message = f"feature '{f.name}': a value is missing or not finite, and fill_value is null"
                checks.append(tf.debugging.Assert(tf.reduce_all(tf.math.is_finite(each)), [message]))
            numbers.append(each)
        with tf.control_dependencies([c for c in checks if c is not None]):
            if not any(f.size for f in schema.dense):
                return tf.stack(numbers, axis=1)
            return tf.concat([x if x.shape.rank == 2 else x[:, tf.newaxis] for x in numbers], axis=1)

    def rows(self, feature: CategoricalFeature, values: Value) -> tuple[tf.Tensor, tf.Tensor]:
        """Looks up the row of each value, int32 [N], and whether the value has a row, bool [N].

        Args:
          feature: the feature of the values.
          values: single values, string, int64 or float32 [N], times that were read, or the texts of a cross. Values
            without a row follow the feature's `out_of_range`; for `error` they get row 0, and the caller refuses them.
        """
        if feature.encoding in ("buckets", "time"):
            rows = self.reader.part_rows(feature, values)
            return rows, rows > 0 if feature.out_of_range == "error" else tf.ones_like(rows, tf.bool)
        table_rows = self._rows[feature.table]
        if feature.cross:
            if feature.encoding == "hash":
                return fingerprint_rows(values, table_rows), tf.ones_like(values, tf.bool)
            rows = tf.cast(self._lookups[feature.table].lookup(values), tf.int32) + 1
            return rows, rows > 0
        if feature.encoding == "ids":
            ids = values if values.dtype == tf.int64 else to_int64(self.tokenizer.stripped(values))
            known = (ids >= 0) & (ids < table_rows)
            rows = tf.cast(tf.clip_by_value(ids, 0, table_rows - 1), tf.int32)
            if feature.out_of_range == "clip":
                return rows, known
            if feature.out_of_range != "hash":
                return tf.where(known, rows, 0), known
            return tf.where(known, rows, fingerprint_rows(tf.strings.as_string(ids), table_rows)), known
        if feature.encoding == "hash":
            return fingerprint_rows(self.tokenizer.text(values), table_rows), tf.ones_like(values, tf.bool)
        text = self.tokenizer.text(values, self._spellings[feature.table])
        rows = tf.cast(self._lookups[feature.table].lookup(text), tf.int32) + 1  # 0 if it is not found
        known = rows > 0
        if feature.out_of_range == "hash":
            rows = tf.where(known, rows, fingerprint_rows(self.tokenizer.text(values), table_rows))
        return rows, known

    def _one_hot(self, values: Mapping[str, Value], features: Sequence[CategoricalFeature]) -> tf.Tensor:
        """Looks up the rows, int32 [B, F], of features with one value, of the values by input."""
        plain = [f for f in features if f.encoding == "vocabulary" and f.out_of_range == "oov" and not f.cross]
        plain = [f for f in plain if values[f.input_name].dtype == tf.string]
        columns: dict[str, tf.Tensor] = {}
        for f in features:
            if f not in plain:
                value = self.reader.crossed(f, values) if f.cross else values[f.input_name]
                rows, known = self.rows(f, value)
                with tf.control_dependencies(self._refuse_unknown(f, value, known)):
                    columns[f.name] = tf.identity(rows)
        if plain:
            rows = self._plain(values, plain)
            if not columns:
                return rows
            columns |= zip((f.name for f in plain), tf.unstack(rows, axis=1), strict=True)
        return tf.stack([columns[f.name] for f in features], axis=1)

    def _plain(self, raw: Mapping[str, tf.Tensor], features: Sequence[CategoricalFeature]) -> tf.Tensor:
        """Looks up the rows, int32 [B, F], of text in vocabularies.

        Equals `rows` of each feature. But the time of small batches depends on the number of operations. So common
        work is done once for all features, and missing values are replaced as numbers, not as text.
        """
        spellings = [self._spellings[f.table] for f in features]
        values = [
            self.tokenizer.spelled(raw[f.input_name], s._replace(digits=False))
            for f, s in zip(features, spellings, strict=True)
        ]
        with_digits = [i for i, s in enumerate(spellings) if s.digits]
        if with_digits:
            for i, column in zip(with_digits, without_point_zero([values[i] for i in with_digits]), strict=True):
                values[i] = column
        lines = [self._lookups[f.table].lookup(v) for f, v in zip(features, values, strict=True)]
        rows = tf.cast(tf.stack(lines, axis=1), tf.int32) + 1  # 0 if it is not found
        of_missing = np.array([self._missing_rows[f.table] or 0 for f in features], np.int32)
        apart = [self._missing_rows[f.table] is not None for f in features]
        if not any(apart):
            return rows
        never = tf.zeros_like(lines[0], tf.bool)
        missing = [self.tokenizer.is_missing(v) if a else never for v, a in zip(values, apart, strict=True)]
        return tf.where(tf.stack(missing, axis=1), of_missing, rows)

    def _refuse_unknown(self, feature: CategoricalFeature, values: Value, known: tf.Tensor) -> list[tf.Operation]:
        if feature.out_of_range != "error" or feature.encoding == "hash":
            return []
        message, shown = f"feature '{feature.name}': no row for value", values
        if isinstance(values, Minutes):
            message, shown = f"feature '{feature.name}': the value is no time, or missing", values.since_1970
        check = tf.debugging.Assert(tf.reduce_all(known), [message, tf.boolean_mask(shown, ~known)[:1]])
        return [check] if check is not None else []


class Lookup(Protocol):
    """The lines of texts in a vocabulary."""

    def lookup(self, texts: tf.Tensor) -> tf.Tensor:
        """Returns the lines of string [N], int64 [N], from 0; -1 without one."""

    def size(self) -> tf.Tensor:
        """Returns the number of lines."""


class _Lines(tf.lookup.TextFileInitializer):
    """The lines of a file with their numbers.

    A process keeps the tables of files under a name. In TensorFlow that is the path, so a directory that is prepared
    again would get the lines of the first time. Here it is the digest of the contents.
    """

    def __init__(self, path: str) -> None:
        index = tf.lookup.TextFileIndex
        super().__init__(path, tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
        digest = hashlib.blake2b(digest_size=16)
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        self._digest = digest.hexdigest()

    @property
    def _shared_name(self) -> str:
        return f"vocabulary_{self._digest}"


def free_vocabularies(directory: str) -> None:
    """Frees the vocabularies of a directory in memory; encoders of their values in this process work no longer.

    TensorFlow would keep them until the process ends, which is too long for one whose vocabularies change.
    """
    for name in os.listdir(os.path.join(directory, VOCABULARY_DIR)):
        lines = _Lines(os.path.join(directory, VOCABULARY_DIR, name))
        table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64, shared_name=lines._shared_name)
        tf.raw_ops.DestroyResourceOp(resource=table, ignore_lookup_error=True)


def _lookup(directory: str, table: str, rows: int, has_room: bool) -> tf.lookup.StaticHashTable:
    """Makes the table from text to its line number in the vocabulary, -1 if it is not found.

    If it `has_room`, as along a stream that admits new values, there may be more rows than values.
    """
    path = vocabulary_file(directory, table)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"table {table!r}: no vocabulary at {path}; is {directory} a prepared directory?")
    if os.path.getsize(path) == 0:
        raise ValueError(f"{path}: the vocabulary is empty")
    lookup = tf.lookup.StaticHashTable(_Lines(path), default_value=-1, name=f"vocabulary_{table}")
    size = int(lookup.size().numpy())
    if size + 1 != rows and not (has_room and size < rows):
        raise ValueError(f"{path}: {size} values, but table {table!r} has {rows} rows; prepare the data again")
    return lookup


def _spelling(lookup: Lookup, digits: bool) -> Spelling:
    """Finds what can change a lookup in a vocabulary, or make one of the missing texts of a value."""
    words = [*TRUE, "1", *FALSE, "0"]
    lines = lookup.lookup(tf.constant([*words, MISSING_TEXT])).numpy() >= 0
    known = {word for word, found in zip(words, lines, strict=False) if found}
    return Spelling(boolean_words(known, others=int(lookup.size()) > lines.sum()), digits)
