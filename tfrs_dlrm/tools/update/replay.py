"""Rows of earlier days among those of a new one, so that a model does not forget what the new day lacks."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.preparing.lineage import lineage
from tfrs_dlrm.data.preparing.manifest import (
    MANIFEST_FILE,
    ChainLink,
    PreparedManifest,
    PreparedShard,
    encoded_schema,
    prepared_fingerprint,
)
from tfrs_dlrm.data.preparing.ordering import ROWS_PER_GROUP, shard_writer
from tfrs_dlrm.data.preparing.workspace import WORK_DIR
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import StoreError, local_copy
from tfrs_dlrm.stores.lock import LOCK_FILE

_SHARD = "train/replayed.parquet"


def days_to_replay(data: str, most: int) -> list[ChainLink]:
    """Returns the newest links before a prepared log whose data are still there as they were, the oldest first."""
    found: list[ChainLink] = []
    for link in reversed(PreparedManifest.load(data).chain):
        if len(found) < most and _is_there(link):
            found.insert(0, link)
    return found


def mix(data: str, links: Sequence[ChainLink], share: float, seed: int, output: str) -> int:
    """Writes a prepared directory with the rows of a log, and training rows of earlier days among them.

    An earlier row is encoded as its day's vocabulary says. Rows of tables that had another value on that day than now
    become the unseen value. A second call with equal arguments does nothing, and one after a kill begins anew; both
    leave the same bytes.

    Args:
      data: the prepared log.
      links: the earlier days, of `days_to_replay`.
      share: how many earlier rows, as a share of the log's training rows; each is drawn with the same chance.
      seed: of the draw.
      output: the directory to write.

    Returns:
      The number of earlier rows.
    """
    manifest = PreparedManifest.load(data)
    if not os.path.isfile(os.path.join(output, MANIFEST_FILE)):
        shutil.rmtree(output, ignore_errors=True)
        rows = _write(data, manifest, links, share, seed, output)
        shard = (PreparedShard(_SHARD, rows),) if rows else ()
        labels = {split: counts for split, counts in manifest.labels.items() if split != "train"}  # of the log alone
        dataclasses.replace(manifest, train=(*manifest.train, *shard), labels=labels).save(output)
    return PreparedManifest.load(output).rows("train") - manifest.rows("train")


def _write(
    data: str, manifest: PreparedManifest, links: Sequence[ChainLink], share: float, seed: int, output: str
) -> int:
    left_out = shutil.ignore_patterns(MANIFEST_FILE, WORK_DIR, LOCK_FILE)
    shutil.copytree(data, output, copy_function=_link, ignore=left_out)
    schema = Schema.load(os.path.join(data, SCHEMA_FILE))
    directories = [local_copy(link.name) for link in links]
    total = sum(PreparedManifest.load(directory).rows("train") for directory in directories)
    chance = min(1.0, share * manifest.rows("train") / max(1, total))
    rng, rows = np.random.default_rng(seed), 0
    with shard_writer(os.path.join(output, _SHARD), encoded_schema(schema)) as writer:
        for directory in directories:
            earlier = lineage(data, directory)
            known = earlier.known if earlier else {}
            for batch in _batches(directory, schema):
                drawn = batch.filter(pa.array(rng.random(batch.num_rows) < chance))
                if drawn.num_rows:
                    writer.write_table(_translated(drawn, schema, known), row_group_size=ROWS_PER_GROUP)
                    rows += drawn.num_rows
    if not rows:
        os.remove(os.path.join(output, _SHARD))
    return rows


def _batches(directory: str, schema: Schema) -> Iterator[pa.Table]:
    """Yields the training rows of a prepared directory, a row group at a time."""
    for shard in PreparedManifest.load(directory).train:
        with pq.ParquetFile(os.path.join(directory, shard.path), page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=encoded_schema(schema).names)


def _translated(table: pa.Table, schema: Schema, known: Mapping[str, np.ndarray]) -> pa.Table:
    """Puts row 0 in place of rows that have another value now; `known` is bool [rows] by table."""

    def now(rows: pa.Array, of: str) -> pa.Array:
        ids = rows.to_numpy(zero_copy_only=False)
        return pa.array(np.where(known[of][ids], ids, 0).astype(np.int32)) if of in known else rows

    for feature in schema.categorical:
        index = table.schema.get_field_index(feature.name)
        if index < 0 or feature.table not in known:
            continue
        column = table.column(index).combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        if feature.multi_valued:
            ends = pa.array(np.concatenate([[0], np.cumsum(column.value_lengths().to_numpy())]).astype(np.int32))
            column = pa.ListArray.from_arrays(ends, now(column.flatten(), feature.table))
        else:
            column = now(column, feature.table)
        table = table.set_column(index, table.schema.field(index), column.cast(table.schema.field(index).type))
    return table.cast(encoded_schema(schema))


def _is_there(link: ChainLink) -> bool:
    try:
        return prepared_fingerprint(local_copy(link.name)) == link.fingerprint
    except (FileNotFoundError, ValueError, StoreError):
        return False


def _link(source: str, target: str) -> None:
    """Gives a file a second name, or copies it where the file system has no such links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
