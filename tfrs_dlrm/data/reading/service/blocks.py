"""Some rows as bytes, for the way from an input worker to a trainer: Arrow's stream format, which holds no code."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tfrs_dlrm.data.reading.columns import Columns


def encode(columns: Columns) -> bytes:
    """The bytes of some rows."""
    arrays = [_column(m) for m in columns.matrices] + columns.lists
    batch = pa.record_batch(arrays, names=[str(i) for i in range(len(arrays))])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


def decode(data: bytes) -> Columns:
    """The rows that `encode` was given; they lie in `data` and are not to be written to.

    Raises:
      ValueError: it is not what `encode` makes.
    """
    try:
        with pa.ipc.open_stream(pa.py_buffer(data)) as stream:
            batch = stream.read_next_batch()
    except (pa.ArrowException, OSError, StopIteration) as e:
        raise ValueError(f"a block of {len(data)} bytes from an input worker cannot be read: {e}") from e
    lists = [c for c in batch.columns if pa.types.is_list(c.type)]
    return Columns([_matrix(c) for c in batch.columns if not pa.types.is_list(c.type)], lists)


def _column(matrix: np.ndarray) -> pa.Array:
    values = pa.array(np.ascontiguousarray(matrix).reshape(-1))
    return values if matrix.ndim == 1 else pa.FixedSizeListArray.from_arrays(values, matrix.shape[1])


def _matrix(column: pa.Array) -> np.ndarray:
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy()
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)
