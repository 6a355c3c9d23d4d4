"""The Parquet files of a prepared directory, opened for reading."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq


@contextlib.contextmanager
def open_shard(path: str, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """The file, whose pages are checked against their checksums as they are read.

    Args:
      path: of the file.
      metadata: its footer, where that was read already.

    Raises:
      ValueError: it is missing or damaged; also if that comes out while it is in use.
    """
    try:
        with pq.ParquetFile(path, metadata=metadata, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as e:
        raise ValueError(f"{path}: cannot be read; prepare the data again: {e}") from e
