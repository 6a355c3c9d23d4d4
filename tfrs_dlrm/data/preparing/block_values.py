"""The distinct values of the inputs of a block: each is read, counted and encoded once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfrs_dlrm.data.encoding.arrow_tensors import to_tensor
from tfrs_dlrm.data.encoding.crosses import crossed
from tfrs_dlrm.data.encoding.time_parts import days_since
from tfrs_dlrm.data.encoding.value_reader import Value, ValueReader
from tfrs_dlrm.data.raw.typed_rows import TypedRows
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Schema


class BlockValues:
    """The distinct values of each input of typed rows, and where they are."""

    def __init__(self, schema: Schema, reader: ValueReader, rows: TypedRows):
        self._schema, self._reader, self._rows = schema, reader, rows
        self._inputs = {given.name: given for given in schema.inputs}
        self._distinct: dict[str, tuple[Value, np.ndarray]] = {}

    def of_input(self, name: str) -> tuple[Value, np.ndarray]:
        """Returns the distinct values of an input, and the position of each row's among them, int [N]."""
        if name not in self._distinct:
            values, indices = distinct(self._rows.inputs[name])
            self._distinct[name] = self._reader.read(self._inputs[name], values), indices
        return self._distinct[name]

    def of_feature(self, feature: CategoricalFeature) -> tuple[Value, np.ndarray]:
        """Returns the distinct values of a one-valued feature as `Encoder.rows` takes them, and their positions."""
        return self._crossed(feature) if feature.cross else self.of_input(feature.input_name)

    def numbers(self, feature: DenseFeature | CategoricalFeature) -> np.ndarray:
        """Returns the numbers that a feature transforms, float32 [N], NaN where missing; of a vector [N, size]."""
        if feature.time is None:
            array = self._rows.inputs[feature.input_name]
            if pa.types.is_fixed_size_list(array.type):
                return np.asarray(array.flatten().to_numpy().reshape(-1, array.type.list_size))
            return np.asarray(array.to_numpy(zero_copy_only=False))
        values, indices = self.of_input(feature.input_name)
        return np.asarray(self._reader.number(feature, values).numpy()[indices])

    def sketched(self, feature: DenseFeature | CategoricalFeature) -> np.ndarray:
        """Returns the numbers of a feature before it has an origin, float32 [N]: days count from 1970."""
        if feature.time is None:
            return self.numbers(feature)
        values, indices = self.of_input(feature.input_name)
        return np.asarray(days_since(values, 0).numpy()[indices])

    def dense(self, features: Iterable[DenseFeature]) -> np.ndarray:
        """Returns the numbers of dense features, float32 [N, W]; see `DenseFeature.numbers`."""
        numbers = map(self.numbers, features)
        columns = [x if x.ndim == 2 else x[:, np.newaxis] for x in numbers]
        return np.concatenate([np.zeros((len(self._rows), 0), np.float32), *columns], axis=1)

    def _crossed(self, feature: CategoricalFeature) -> tuple[tf.Tensor, np.ndarray]:
        texts, positions = [], []
        for name in feature.cross:
            member = self._schema.value_feature(name)
            values, indices = self.of_input(member.input_name)
            text, where = np.unique(self._reader.member_text(member, values).numpy(), return_inverse=True)
            texts.append(text)
            positions.append(where[indices])
        sizes = [max(1, len(text)) for text in texts]
        combinations, indices = np.unique(np.ravel_multi_index(positions, sizes), return_inverse=True)
        of_each = np.unravel_index(combinations, sizes)
        parts = [tf.constant(text[at], tf.string) for text, at in zip(texts, of_each, strict=True)]
        return crossed(parts), indices


def distinct(array: pa.Array) -> tuple[tf.Tensor, np.ndarray]:
    """Returns the values of `distinct_values` as a tensor, and the positions."""
    values, indices = distinct_values(array)
    return to_tensor(values), indices


def distinct_values(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Returns the distinct values of an array, and the position of each element among them.

    Values of a dictionary that do not occur may be among them.
    """
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode("encode")
    if len(encoded.dictionary) > len(encoded):
        encoded = encoded.dictionary_decode().dictionary_encode("encode")
    return encoded.dictionary, encoded.indices.to_numpy(zero_copy_only=False)


def with_distinct(rows: TypedRows) -> TypedRows:
    """Returns the rows with their strings as dictionaries, which are found once and stay when rows are selected."""
    inputs = {name: _encoded(array) if pa.types.is_string(array.type) else array for name, array in rows.inputs.items()}
    return dataclasses.replace(rows, inputs=inputs)


def _encoded(array: pa.Array) -> pa.DictionaryArray:
    encoded = array.dictionary_encode("encode")
    few = len(encoded.dictionary) <= 1 << 15
    return pa.DictionaryArray.from_arrays(encoded.indices.cast(pa.int16()), encoded.dictionary) if few else encoded


def list_tensors(names: Sequence[str], rows: TypedRows) -> tuple[dict[str, tf.Tensor], np.ndarray]:
    """Returns inputs as `Tokenizer.lists` takes them, and the position of each row's lists in them, int [N].

    The texts of a single input are distinct.
    """
    arrays = [rows.inputs[name] for name in names]
    if len(arrays) == 1 and not pa.types.is_list(arrays[0].type):
        found, indices = distinct(arrays[0])
        return {names[0]: found}, indices
    return {name: to_tensor(array) for name, array in zip(names, arrays, strict=True)}, np.arange(len(rows))
