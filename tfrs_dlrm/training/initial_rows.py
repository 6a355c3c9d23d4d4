"""Rows of tables that begin with vectors from a file, such as embeddings of texts or images."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.encoding.raw_values import to_tensors
from tfrs_dlrm.embeddings.storage import LogicalTable
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import CategoricalFeature, Table
from tfrs_dlrm.stores import local_copy


@checked
def init_rows(model: RankingModel, encoder: Encoder | str) -> list[str]:
    """Writes the vectors of `Table.init_from` to the rows of the model's tables, and returns a line for each table.

    A file ends in `.parquet` or `.npy`. Parquet has a column of values, as the log has them, and a list column of
    vectors; a value of the file that has no row is passed over, and a row whose value the file lacks stays as it is.
    NumPy has float [rows, dim]: row i for row i, for features with `encoding` `ids`. The training programs call this at
    the beginning of a run.

    Args:
      model: new; on TPUs compiled.
      encoder: of the model's data, or the prepared directory.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a file has another form, or vectors of another dimension than the table. No table was changed then.
    """
    tables = [t for t in model.schema.tables if t.init_from]
    if not tables:
        return []
    encoder = Encoder.load(encoder) if isinstance(encoder, str) else encoder
    found = [(t, *_rows(t, encoder)) for t in tables]
    stored = model.embeddings.logical_tables()
    model.embeddings.fetch()
    for table, rows, vectors in found:
        _write(stored[f"tables/{table.name}"], rows, vectors)
    model.embeddings.load()
    return [
        f"table {t.name!r}: {len(rows):,} of {t.vocabulary_size:,} rows begin with vectors of {t.init_from}"
        + ("" if t.trainable else ", which training does not change")
        for t, rows, _ in found
    ]


def _rows(table: Table, encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows, int64 [n] in ascending order, that the file of a table has vectors for, float32 [n, dim]."""
    where = f"table {table.name!r}: init_from={table.init_from!r}"
    if not table.init_from.endswith((".npy", ".parquet")):
        raise ValueError(f"{where} ends neither in .npy nor in .parquet; write the vectors as one of these")
    path = local_copy(table.init_from)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{where}: there is no such file; paths are relative to the working directory")
    feature = next(f for f in encoder.schema.categorical if f.table == table.name)
    try:
        if path.endswith(".npy"):
            rows, vectors = _of_numpy(path, table, feature)
        else:
            rows, vectors = _of_parquet(path, feature, encoder)
    except (ValueError, OSError, pa.ArrowInvalid) as e:
        raise ValueError(f"{where}: {e}") from e
    if vectors.shape[1] != table.dim:
        raise ValueError(
            f"{where} has vectors of {vectors.shape[1]} numbers and the table of {table.dim}; set"
            f' "dim": {vectors.shape[1]} in the table'
        )
    if not np.isfinite(vectors).all():
        raise ValueError(f"{where} holds NaN or infinite numbers; leave such vectors out")
    return rows, vectors


def _of_numpy(path: str, table: Table, feature: CategoricalFeature) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.load(path, mmap_mode="r")
    if feature.encoding != "ids":
        raise ValueError(
            f"a .npy file has vectors by row, and rows of encoding {feature.encoding!r} are not known before the log is"
            " prepared; write a Parquet file with a column of values and one of vectors"
        )
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise ValueError(f"it holds {vectors.dtype} {list(vectors.shape)}; floats [rows, dim] are needed")
    if len(vectors) != table.vocabulary_size:
        raise ValueError(f"it has {len(vectors):,} rows and the table {table.vocabulary_size:,}; both have to be equal")
    return np.arange(len(vectors)), vectors.astype(np.float32)


def _of_parquet(path: str, feature: CategoricalFeature, encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = _columns(pq.read_table(path), feature)
    # A value of a multi-valued feature stands alone here.
    one_value = {"multi_valued": False, "separator": None, "weights": None, "sequence_length": None}
    no_history = {"history_of": "", "parallel_to": "", "pooling": "mean"}
    alone = dataclasses.replace(feature, **(one_value | no_history))  # type: ignore[arg-type]
    schema = dataclasses.replace(encoder.schema.select([feature.name]), categorical=(alone,))
    spec = tf.TensorSpec([None], tf.string if feature.dtype == "string" else tf.int64, feature.name)
    texts = to_tensors({feature.name: values}, schema, {feature.name: spec})[feature.name]
    rows, known = (x.numpy() for x in encoder.rows(alone, texts))
    places = np.flatnonzero(known)
    unique, first = np.unique(rows[places].astype(np.int64), return_index=True)
    return unique, vectors[places[first]]


def _columns(table: pa.Table, feature: CategoricalFeature) -> tuple[pa.Array, np.ndarray]:
    """Returns the column of values, and the vectors float32 [n, dim]."""

    def is_list(kind: pa.DataType) -> bool:
        return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)

    lists = [name for name in table.column_names if is_list(table.schema.field(name).type)]
    others = [name for name in table.column_names if name not in lists]
    named = [name for name in (feature.column, feature.name) if name in others] or others
    if len(lists) != 1 or not named or (len(others) > 1 and named is others):
        raise ValueError(
            f"its columns are {table.column_names}; a list column of vectors and a column {feature.column!r} of values"
            " are needed"
        )
    column = table[lists[0]].combine_chunks()
    lengths = np.unique(pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False))
    if len(lengths) != 1 or lengths[0] < 1:
        raise ValueError(f"the lists of {lists[0]!r} have {lengths.tolist()} numbers; all need the same number")
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return table[named[0]].combine_chunks(), flat.reshape(len(column), lengths[0])


def _write(stored: LogicalTable, rows: np.ndarray, vectors: np.ndarray) -> None:
    """Overwrites the first numbers of rows; a linear weight after the vector stays."""
    if stored.shape[1] > vectors.shape[1]:
        parts = [shard.read(shard.begin, shard.end)[:, vectors.shape[1] :] for shard in stored.shards]
        rest = np.concatenate([tf.cast(part, tf.float32) for part in parts])
        vectors = np.concatenate([vectors, rest[rows]], axis=1)
    stored.scatter(rows, tf.cast(vectors, stored.dtype))
