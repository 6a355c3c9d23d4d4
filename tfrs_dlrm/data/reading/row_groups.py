"""The row groups of prepared Parquet files: lists them, selects those of an input pipeline, and reads their rows."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from tfrs_dlrm.data.preparing.manifest import PreparedManifest, PreparedShard, Split, encoded_schema
from tfrs_dlrm.data.reading.columns import Columns, group_column
from tfrs_dlrm.data.reading.parts import PipelineShare, one_for_each, pipeline_share
from tfrs_dlrm.data.reading.windows import ShuffleWindows
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import local_copy


@dataclasses.dataclass(frozen=True)
class RowGroup:
    """Rows of a Parquet file, from `begin` to before `end` of row group number `index`."""

    path: str
    metadata: pq.FileMetaData
    index: int
    begin: int
    end: int

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.end - self.begin

    def part(self, begin: int, end: int) -> RowGroup:
        """Returns its rows from `begin` to before `end`."""
        return dataclasses.replace(self, begin=self.begin + begin, end=self.begin + end)

    def read(self, schema: Schema) -> Columns:
        """Reads the rows."""
        with open_shard(self.path, self.metadata) as file:
            table = file.read_row_group(self.index, columns=encoded_schema(schema).names)
            return Columns.of(table.slice(self.begin, self.rows), schema)


def share_of_split(
    directory: str, split: Split, context: tf.distribute.InputContext | None, batch_size: int, drop_remainder: bool
) -> PipelineShare[RowGroup]:
    """Selects the row groups of a split for an input pipeline; see `pipeline_share` for arguments and errors."""
    return _share(directory, split, _groups_of(directory, split), context, batch_size, drop_remainder)


def _share(
    directory: str,
    split: Split,
    groups: Sequence[RowGroup],
    context: tf.distribute.InputContext | None,
    batch_size: int,
    drop_remainder: bool,
) -> PipelineShare[RowGroup]:
    what = f"{directory}: {sum(g.rows for g in groups)} {split} rows"
    return pipeline_share(one_for_each(groups, context), context, batch_size, drop_remainder, what)


def reading_order(directory: str, split: Split, pipelines: int) -> np.ndarray:
    """Returns the numbers of the rows of a split, int64 [N], in the order of all input pipelines, one after the other.

    Each pipeline reads its part in order, without shuffling, up to the end.

    Raises:
      FileNotFoundError, ValueError: see `dataset`.
    """
    directory = local_copy(directory)
    groups, begins, rows = _groups_of(directory, split), dict[tuple[str, int], int](), 0
    for group in groups:
        begins[group.path, group.index] = rows
        rows += group.rows
    order = []
    for i in range(pipelines):
        share = _share(directory, split, groups, tf.distribute.InputContext(pipelines, i), 1, drop_remainder=False)
        order += [begins[x.path, x.index] + np.arange(x.begin, x.end) for x in share.chunks]
    return np.concatenate(order)


def _groups_of(directory: str, split: Split) -> list[RowGroup]:
    """Lists the row groups of a split, in the order of the log."""
    shards = PreparedManifest.load(directory).shards(split)
    return _list_row_groups(directory, shards, encoded_schema(Schema.load(os.path.join(directory, SCHEMA_FILE))))


def _list_row_groups(directory: str, shards: Sequence[PreparedShard], expected: pa.Schema) -> list[RowGroup]:
    groups = []
    for shard in shards:
        path = os.path.join(directory, shard.path)
        try:
            with pq.ParquetFile(path) as file:
                metadata, found = file.metadata, file.schema_arrow
        except FileNotFoundError as e:
            raise ValueError(f"{path}: the shard is listed in the manifest but missing; prepare the data again") from e
        except (pa.ArrowException, OSError) as e:
            raise ValueError(f"{path}: not a readable Parquet file; prepare the data again: {e}") from e
        if metadata.num_rows != shard.rows:
            raise ValueError(f"{path}: {metadata.num_rows} rows, {shard.rows} are expected; prepare the data again")
        for field in expected:
            if field.name not in found.names or found.field(field.name).type != field.type:
                has = found.field(field.name).type if field.name in found.names else "no such column"
                raise ValueError(f"{path}: column {field.name!r} should be {field.type} for this schema, it has: {has}")
        rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        groups += [RowGroup(path, metadata, i, 0, n) for i, n in enumerate(rows)]
    return groups


def shuffle_windows(
    schema: Schema, share: PipelineShare[RowGroup], seed: int | None, shuffle_rows: int, whole_groups: bool = False
) -> ShuffleWindows:
    """Makes the windows of an input pipeline."""
    groups = group_column(schema) if whole_groups else None
    return ShuffleWindows(share.chunks, lambda group: group.read(schema), seed, shuffle_rows, groups)


def windows_of(
    directory: str,
    split: Split,
    seed: int | None,
    shuffle_rows: int,
    pipelines: int = 1,
    pipeline: int = 0,
    whole_groups: bool = False,
) -> ShuffleWindows:
    """Makes the windows of `dataset` in another process, which is to read them.

    Args:
      directory: a prepared directory.
      split: `train` or `eval`.
      seed: of the order; None means the order of the log.
      shuffle_rows: how many rows are shuffled at a time.
      pipelines: the number of input pipelines.
      pipeline: the number of this pipeline.
      whole_groups: whether groups are shuffled, and not single rows.

    Raises:
      FileNotFoundError, ValueError: see `dataset`.
    """
    context = tf.distribute.InputContext(pipelines, pipeline, pipelines)
    directory = local_copy(directory)
    part = share_of_split(directory, split, context, pipelines, drop_remainder=False)
    schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
    return shuffle_windows(schema, part, seed, shuffle_rows, whole_groups)


@contextlib.contextmanager
def open_shard(path: str, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file; its pages are checked against their checksums when they are read.

    Args:
      path: the path of the file.
      metadata: its footer, if that was read already.

    Raises:
      ValueError: the file is missing or damaged, even if a later read finds it.
    """
    with _readable(path), pq.ParquetFile(path, metadata=metadata, page_checksum_verification=True) as file:
        yield file


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Names a file that is missing or damaged, in one line."""
    try:
        yield
    except (pa.ArrowException, OSError) as e:
        raise ValueError(f"{path}: cannot be read; prepare the data again: {' '.join(str(e).split())}") from e


class ShardFile:
    """An open shard, for readers outside of the `with` that opened it; its errors name the file, too."""

    def __init__(self, path: str, file: pq.ParquetFile) -> None:
        self._path, self._file, self.metadata = path, file, file.metadata

    def read_row_group(self, index: int, columns: Sequence[str]) -> pa.Table:
        """Reads columns of a row group.

        Raises:
          ValueError: the file is damaged.
        """
        with _readable(self._path):
            return self._file.read_row_group(index, columns=list(columns))


def open_row_groups(directory: str, split: Split) -> Iterator[tuple[ShardFile, int]]:
    """Yields, for each row group of a split in the order of the log, the open file and the group's number in it."""
    directory = local_copy(directory)
    for shard in PreparedManifest.load(directory).shards(split):
        path = os.path.join(directory, shard.path)
        with open_shard(path) as file:
            reader = ShardFile(path, file)
            for i in range(file.num_row_groups):
                yield reader, i


def looked_up(directory: str, split: Split, feature: str) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yields the table rows that a feature looks up, per row group of a split, in the order of the log.

    Args:
      directory: a prepared directory.
      split: `train` or `eval`.
      feature: the name of a categorical feature.

    Yields:
      Rows int32 [n], and how many of them each example has, int64 [B]; None if all have one.

    Raises:
      FileNotFoundError, ValueError: the directory holds no prepared data, the split is empty, or a shard is damaged.
    """
    for file, i in open_row_groups(directory, split):
        yield _flat(file.read_row_group(i, columns=[feature]).column(0).combine_chunks())


def _flat(column: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    if not pa.types.is_list(column.type):
        return column.to_numpy(), None
    return column.flatten().to_numpy(), np.diff(column.offsets.to_numpy()).astype(np.int64)
