"""Checks that raw rows score as the encoded rows of prepared data."""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split
from tfrs_dlrm.schema import FeatureInput, Schema
from tfrs_dlrm.serving.verification.questions import check_encoded
from tfrs_dlrm.serving.verification.subject import Subject
from tfrs_dlrm.serving.verification.verification_report import Failed
from tfrs_dlrm.stores.files import read_json_lines

# As in data.raw.parsing and data.preparing.samples, which import TensorFlow.
_NO_VALUE = -1
_SAMPLES = "samples.jsonl"


def check(subject: Subject) -> str:
    """Compares `serving_default` on raw rows with `encoded` on the Parquet rows of the same examples."""
    directory = str(subject.data)
    then = "prepare the data again"
    samples = list(read_json_lines(os.path.join(directory, _SAMPLES), then))
    if not samples:
        raise Failed(f"{os.path.join(directory, _SAMPLES)} is empty; {then}")
    names = {f.name for f in subject.manifest.features}
    schema = Schema.load(os.path.join(directory, "schema.json"))
    only = [given for given in schema.inputs if given.training_only]
    requested = samples[0].keys() - {given.name for given in only}
    if requested != names:
        differ = ", ".join(sorted(requested ^ names))
        raise Failed(f"--data={directory} has other features than the bundle: {differ}; give what it was trained on")
    split, table = first_rows(directory, len(samples))
    encoded = encoded_inputs(table, schema)
    wanted = subject.saved_model.signatures["encoded"].inputs.keys()
    if encoded.keys() != wanted:
        differ = ", ".join(sorted(encoded.keys() ^ wanted))
        raise Failed(f"--data={directory} is encoded with other columns than the bundle's: {differ}")
    same = np.flatnonzero([all(_is_served(given, row[given.name]) for given in only) for row in samples])
    lacking = ", ".join(given.name for given in only)
    if not len(same):
        return f"{split} set: not compared, as none of {len(samples)} rows has the serving value of {lacking}"
    found = check_encoded(
        subject,
        subject.raw_inputs([samples[i] for i in same]),
        {name: array[same] for name, array in encoded.items()},
        lambda i: f"{_SAMPLES}, line {same[i] + 1} (if the bundle was trained on other data, give that as --data)",
    )
    return f"{split} set: {found}" + (f", which have the serving value of {lacking}" if only else "")


def _is_served(given: FeatureInput, value: Any) -> bool:
    """Whether a value of the log is the one that a model takes for requests, which lack it."""
    wanted = given.value_for_requests
    if given.dtype != "float32":
        return bool(value == wanted)
    return bool(np.array_equal(np.float32(np.nan if value is None else value), np.float32(wanted), equal_nan=True))


def encoded_inputs(table: pa.Table, schema: Schema) -> dict[str, np.ndarray]:
    """Converts encoded rows to inputs of the signature `encoded`; lists are padded with -1, their weights with 0."""
    inputs: dict[str, np.ndarray] = {}
    if schema.dense_width:
        inputs["dense"] = np.stack([_numbers(table, name, np.float32) for name in schema.dense_columns], axis=1)
    if schema.one_hot:
        inputs["ids"] = np.stack([_numbers(table, f.name, np.int32) for f in schema.one_hot], axis=1)
    for f in schema.multi_hot:
        inputs[f.name] = _padded(table.column(f.name).to_pylist(), np.int32, _NO_VALUE)
        if f.weights:
            inputs[f.weights_name] = _padded(table.column(f.weights_name).to_pylist(), np.float32, 0)
    return inputs


def first_rows(directory: str, count: int) -> tuple[Split, pa.Table]:
    """Returns the split of the samples, and its first encoded rows.

    Raises:
      Failed: the split has fewer rows.
      ValueError: a shard is missing or damaged.
    """
    manifest, tables = PreparedManifest.load(directory), list[pa.Table]()
    split: Split = "eval" if manifest.eval else "train"  # as `prepare` chooses the samples
    for shard in manifest.shards(split):
        path = os.path.join(directory, shard.path)
        try:
            tables.append(_head(path, count - sum(map(len, tables))))
        except (pa.ArrowException, OSError) as e:
            raise ValueError(f"{path}: cannot be read; prepare the data again: {' '.join(str(e).split())}") from e
        if sum(map(len, tables)) >= count:
            return split, pa.concat_tables(tables)
    raise Failed(f"{directory}: {split} has fewer rows than {_SAMPLES} has lines; prepare it again")


def _head(path: str, count: int) -> pa.Table:
    """Returns the first rows of a Parquet file, at most `count`."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        batches = file.iter_batches(batch_size=count)
        return pa.Table.from_batches(list(itertools.islice(batches, 1)), file.schema_arrow)


def _numbers(table: pa.Table, name: str, dtype: Any) -> np.ndarray:
    return table.column(name).to_numpy().astype(dtype)


def _padded(rows: list[list[Any]], dtype: Any, fill: Any) -> np.ndarray:
    array = np.full((len(rows), max(map(len, rows), default=0)), fill, dtype)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return array
