"""The profile of what a server was asked, measured as that of training rows is."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.blocks import BlockEncoder
from tfrs_dlrm.data.preparing.profiling.column_measures import measure_columns
from tfrs_dlrm.data.preparing.profiling.column_profile import Profile
from tfrs_dlrm.data.preparing.profiling.row_sample import SAMPLE_ROWS, RowSampler
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.data.raw.typed_rows import parse
from tfrs_dlrm.schema import SCHEMA_FILE, Label, Schema
from tfrs_dlrm.serving.request_logs.finished_logs import finished_logs
from tfrs_dlrm.serving.request_logs.log_tables import read_log

_LABEL = "log/label"  # requests have none


def request_profile(logs: Sequence[str], directory: str) -> Profile:
    """Measures the newest rows of request logs, up to `SAMPLE_ROWS` of them, without features that requests lack.

    Args:
      logs: paths, directories and glob patterns of files of a `RequestLog`; those in progress are left out.
      directory: a prepared directory, whose vocabularies give the values their rows.

    Raises:
      FileNotFoundError: a log does not exist, or no file is whole.
      ValueError: a log is broken, in an object store, or has other features; there is no row; or requests lack all
        features.
    """
    schema = _served(Schema.load(os.path.join(directory, SCHEMA_FILE)))
    encoder = Encoder(schema, directory)
    sampler, encode = RowSampler(encoder, 0, 1.0), BlockEncoder(encoder)
    parts: list[pa.Table] = []
    read = 0
    for block in _newest(finished_logs(logs), schema):
        rows = parse(block, schema)
        encoded = encode(block, rows)
        rows = rows.take(np.isin(rows.numbers, encoded.numbers))
        parts.append(sampler.columns(rows, encoded.table, np.zeros(len(rows))))
        read += len(rows)
    if not read:
        raise ValueError(f"{logs[0]}: the request logs hold no rows that the model takes; give the logs of its server")
    columns = measure_columns(pa.concat_tables(parts), schema, directory, since={}, labelled=False)
    return Profile(rows=read, sampled=read, positives=0, labels=(), columns=tuple(columns))


def _served(schema: Schema) -> Schema:
    """Returns the schema of the features whose values requests have."""
    features = [f.name for f in (*schema.dense, *schema.categorical)]
    asked = [name for name in features if not any(given.training_only for given in schema.inputs_of(name))]
    if not asked:
        raise ValueError("requests lack all features, which are training_only; leave the request log out")
    return dataclasses.replace(schema.select(asked), label=Label(_LABEL), more_labels=(), weight=None)


def _newest(files: Sequence[str], schema: Schema) -> Iterator[RawBlock]:
    """Yields the last `SAMPLE_ROWS` rows of request logs; the names of files rise with time, and so do their rows."""
    left = SAMPLE_ROWS
    for path in sorted(files, key=os.path.basename, reverse=True):
        if not left:
            return
        last, rows = collections.deque[pa.Table](), 0
        for table in read_log(path, schema):
            last.append(table)
            rows += table.num_rows
            while rows - last[0].num_rows >= left:
                rows -= last.popleft().num_rows
        if rows > left:
            last[0] = last[0].slice(rows - left)
            rows = left
        left -= rows
        for index, table in enumerate(last):
            table = table.append_column(_LABEL, pa.array(np.zeros(table.num_rows, np.float32)))
            yield RawBlock(path, index, 1, table.num_rows, table, schema.columns)
