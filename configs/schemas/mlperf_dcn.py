r"""Converts the arrays that MLPerf's scripts make from Criteo Terabyte to Parquet, for `configs/mlperf_dcn.py`.

    python configs/schemas/mlperf_dcn.py --arrays=multi_hot --output=parquet

`multi_hot` holds, for each day of 0 to 23, day_0_labels.npy, day_0_dense.npy, and the folder day_0_sparse_multi_hot
with 0.npy to 25.npy, the content of day_0_sparse_multi_hot.npz. Unpack it (`unzip -d day_0_sparse_multi_hot
day_0_sparse_multi_hot.npz`), so that the arrays need not fit into memory. The first half of day 23 becomes
valid.parquet, the second half test.parquet, as in the reference.
"""

import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import app, flags

_ARRAYS = flags.DEFINE_string("arrays", None, "The folder of the arrays.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The folder to write.", required=True)
_DAYS = flags.DEFINE_integer("days", 24, "How many there are; the last is for validation and test.", lower_bound=2)
_ROWS = 1 << 18  # at a time


def _tables(folder: str, day: int, begin: int = 0, end: int | None = None) -> Iterator[pa.Table]:
    """Rows `begin` to `end` of a day, in pieces."""
    labels = np.load(f"{folder}/day_{day}_labels.npy", mmap_mode="r")
    dense = np.load(f"{folder}/day_{day}_dense.npy", mmap_mode="r")
    ids = [np.load(f"{folder}/day_{day}_sparse_multi_hot/{i}.npy", mmap_mode="r") for i in range(26)]
    end = len(labels) if end is None else end
    for start in range(begin, end, _ROWS):
        rows = slice(start, min(start + _ROWS, end))
        columns = {"label": pa.array(labels[rows].reshape(-1))}
        columns |= {f"I{i + 1}": pa.array(np.ascontiguousarray(dense[rows, i])) for i in range(13)}
        for i, values in enumerate(ids):
            part = np.asarray(values[rows], np.int64)
            offsets = np.arange(len(part) + 1, dtype=np.int32) * part.shape[1]
            columns[f"C{i + 1}"] = pa.ListArray.from_arrays(offsets, part.reshape(-1))
        yield pa.table(columns)


def _write(path: str, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def main(argv: list[str]) -> None:
    """Writes all of it."""
    del argv
    os.makedirs(_OUTPUT.value, exist_ok=True)
    last = _DAYS.value - 1
    for day in range(last):
        _write(f"{_OUTPUT.value}/day_{day}.parquet", _tables(_ARRAYS.value, day))
    half = -(-len(np.load(f"{_ARRAYS.value}/day_{last}_labels.npy", mmap_mode="r")) // 2)
    _write(f"{_OUTPUT.value}/valid.parquet", _tables(_ARRAYS.value, last, 0, half))
    _write(f"{_OUTPUT.value}/test.parquet", _tables(_ARRAYS.value, last, half))


if __name__ == "__main__":
    app.run(main)
