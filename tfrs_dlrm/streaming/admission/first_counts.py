"""The counts with which the prepared values of a table begin."""

from __future__ import annotations

import os

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfrs_dlrm.data.preparing.kept_counts import counts_path
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.schema import Schema


def counted_rows(data_dir: str, schema: Schema) -> float:
    """Returns how many rows the counts of prepared data are of.

    If the data extend earlier ones, these are rows of them all, each as much as its counts still weigh. A feature with
    one value counts each of them once; without such a feature, it is the number of training rows.

    Args:
      data_dir: the prepared directory.
      schema: of the data.
    """
    lists = {f.table for f in schema.categorical if f.multi_valued}
    one_valued = [f.table for f in schema.categorical if f.encoding == "vocabulary" and f.table not in lists]
    for table in one_valued:
        if os.path.isfile(path := counts_path(data_dir, table)):
            return float(pc.sum(pq.read_table(path, columns=["count"])["count"]).as_py()) / one_valued.count(table)
    return PreparedManifest.load(data_dir).rows("train")


def first_counts(data_dir: str, table: str, values: int, rows: float, half_life: int) -> np.ndarray:
    """Returns the counts of rows 1, 2, ..., float64 [values]; 0 for data that keep no counts.

    They are what the counts would be, in the mean, if the rows that were counted had come along the stream in any
    order: a value that is p times a row has p * (1 - 2^(-N / h)) / (1 - 2^(-1 / h)) after N rows with half-life h.

    Args:
      data_dir: the prepared directory.
      table: the name of the table.
      values: how many have a row.
      rows: from `counted_rows`.
      half_life: in rows.
    """
    path = counts_path(data_dir, table)
    if not os.path.isfile(path):
        return np.zeros(values)
    counts = pq.read_table(path, columns=["count"])["count"].slice(0, values).to_numpy().astype(np.float64)
    return np.asarray(counts / rows * (1 - 0.5 ** (rows / half_life)) / (1 - 0.5 ** (1 / half_life)))
