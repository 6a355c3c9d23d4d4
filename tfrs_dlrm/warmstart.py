"""A new model that begins where an old one ended, on a vocabulary that changed in between."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from tfrs_dlrm import schema as schema_lib
from tfrs_dlrm.checkpoint import UNREADABLE, Which, Workdir
from tfrs_dlrm.data.encoder import SCHEMA_FILE, dense_statistics, vocabulary_file
from tfrs_dlrm.embeddings.variables import write_rows
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema, Table

_ROWS_AT_A_TIME = 1 << 18


@dataclasses.dataclass(frozen=True)
class TableReport:
    """What became of the rows of a table: `kept` as they were, `new` ones initialized, old ones `dropped`."""

    kept: int
    new: int
    dropped: int


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """What `warm_start` did.

    Attributes:
      checkpoint: where the weights are from.
      tables: by name of the table.
      notes: what the user should know, in words.
    """

    checkpoint: str
    tables: dict[str, TableReport]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as text."""
        kept, new, dropped = (sum(getattr(t, n) for t in self.tables.values()) for n in ("kept", "new", "dropped"))
        rows = f"{kept:,} rows of tables kept, {new:,} new, {dropped:,} dropped"
        return [f"warm start from {self.checkpoint}: {rows}", *self.notes]


def warm_start(model: RankingModel, data_dir: str, workdir: str, which: Which = "best") -> WarmStart:
    """Takes over the weights and optimizer slots of a trained run.

    Rows of vocabulary tables are matched by value: a value that the old vocabulary has keeps its row and slots wherever
    it stands in the new one, and so does row 0. Other rows stay as they were initialized. Tables of `ids` keep the rows
    that both have. All other weights are taken over as they are. Steps are counted from 0 again, so that schedules of
    learning rates begin anew.

    Args:
      model: compiled, for the vocabularies in `data_dir`.
      data_dir: the prepared directory that it will train on.
      workdir: the directory of the run to begin from.
      which: its `best` checkpoint or its `latest`.

    Raises:
      FileNotFoundError: there is no run or no checkpoint.
      ValueError: the two have other features, tables of another form, or a compressed or hashed table whose rows mean
        other values now.
    """
    home = Workdir(workdir)
    home.config()  # says so where there is no run
    old, new = home.schema(), Schema.load(os.path.join(data_dir, SCHEMA_FILE))
    _check_features(old, new, workdir)
    path = home.checkpoint(which)
    try:
        reader = tf.train.load_checkpoint(path)
    except UNREADABLE as e:
        raise ValueError(f"{path}: damaged: {str(e)[:300]}") from e
    notes = _statistics_notes(new, home.encoder_dir, data_dir)
    notes += _take_over_dense(model, path, same_optimizer=_same_dense_optimizer(model, home))
    reports = {}
    for table in model.schema.tables:
        matches = _matches(table, model.schema, home.encoder_dir, data_dir, old.table(table.name).rows or 0)
        kept = int(np.count_nonzero(matches >= 0))
        reports[table.name] = TableReport(kept, len(matches) - kept, (old.table(table.name).rows or 0) - kept)
        for part in table.parts:
            # The parts of a compressed table have other rows; `_matches` made sure that they stay as they are.
            rows = matches if table.remainders is None else None
            notes += _take_over_rows(model, part, rows, reader, path)
    if model.embedding_optimizer is not None:
        model.embedding_optimizer.iterations.assign(0)
    return WarmStart(path, reports, tuple(dict.fromkeys(notes)))


def _check_features(old: Schema, new: Schema, workdir: str) -> None:
    def comparable(schema: Schema) -> Schema:
        """Without what may change."""
        free = {f.table for f in schema.categorical if f.encoding in ("vocabulary", "ids")}
        features = (dataclasses.replace(f, min_count=1, max_size=None) for f in schema.categorical)
        tables = (dataclasses.replace(t, rows=schema_lib.MAX_ROWS if t.name in free else t.rows) for t in schema.tables)
        return dataclasses.replace(
            schema, categorical=tuple(features), tables=tuple(tables), text=schema_lib.TextFormat()
        )

    found = schema_lib.difference(comparable(old), comparable(new))
    if found:
        raise ValueError(f"{workdir}: a warm start needs the same features and tables; they differ in: {found}")


def _matches(table: Table, schema: Schema, old_dir: str, new_dir: str, old_rows: int) -> np.ndarray:
    """For each row of the new table the row of the old one that means the same, -1 where there is none; int64."""
    rows = table.rows or 0
    encoding = next((f.encoding for f in schema.categorical if f.table == table.name), "ids")
    if encoding == "vocabulary":
        old, new = _values(old_dir, table.name), _values(new_dir, table.name)
        found = pc.index_in(new, value_set=old)
        matches = np.concatenate([[0], pc.fill_null(found, -2).to_numpy(zero_copy_only=False) + 1])
    else:
        matches = np.where(np.arange(rows) < old_rows, np.arange(rows), -1)
    compressed = table.remainders is not None or table.stored_in
    if compressed and (old_rows != rows or not np.array_equal(matches, np.arange(rows))):
        raise ValueError(
            f"table {table.name!r}: its vocabulary changed, and in a compressed table many values share each row, so"
            " rows cannot follow their values; use encoding 'hash', under which values keep their rows"
        )
    return matches.astype(np.int64)


def _values(directory: str, table: str) -> pa.Array:
    with open(vocabulary_file(directory, table), "rb") as f:
        return pa.array(f.read().split(b"\n")[:-1], pa.binary())


def _take_over_rows(
    model: RankingModel, name: str, matches: np.ndarray | None, reader: tf.train.CheckpointReader, path: str
) -> list[str]:
    """One variable and its slots; returns notes."""
    optimizer = model.embedding_optimizer
    variables = {f"model/embeddings/tables/{name}": model.embeddings.tables[name]}
    for slot, variable in (optimizer.slots.get(name, {}) if optimizer is not None else {}).items():
        variables[f"model/embedding_optimizer/slots/{name}/{slot}"] = variable
    notes = []
    for key, variable in variables.items():
        full = f"{key}/.ATTRIBUTES/VARIABLE_VALUE"
        if not reader.has_tensor(full):
            if "/slots/" not in key:
                raise ValueError(f"{path}: has no {key}; it is of another model")
            notes.append("the tables have another optimizer than before, whose slots begin anew")
            continue
        old = reader.get_tensor(full)
        if old.shape[1:] != tuple(variable.shape[1:]):
            raise ValueError(f"{path}: {key} has shape {list(old.shape)}, the new model's is {variable.shape}")
        rows = np.arange(len(old)) if matches is None else matches
        kept = np.flatnonzero(rows >= 0)
        for begin in range(0, len(kept), _ROWS_AT_A_TIME):
            some = kept[begin : begin + _ROWS_AT_A_TIME]
            write_rows(variable, tf.constant(some), tf.constant(old[rows[some]]))
    return notes


def _take_over_dense(model: RankingModel, path: str, same_optimizer: bool) -> list[str]:
    """All other weights, and the slots of their optimizer; returns notes."""
    skipped = {"embeddings", "embedding_optimizer", "optimizer"}
    layers = {name: child for name, child in model._trackable_children().items() if name not in skipped}
    try:
        holder = tf.train.Checkpoint(model=tf.train.Checkpoint(**layers))
        holder.read(path).assert_existing_objects_matched().expect_partial()
        if same_optimizer:
            rate = model.optimizer.learning_rate
            kept = rate.numpy() if isinstance(rate, tf.Variable) else None
            holder = tf.train.Checkpoint(model=tf.train.Checkpoint(optimizer=model.optimizer))
            holder.read(path).assert_existing_objects_matched().expect_partial()
            model.optimizer.iterations.assign(0)
            if kept is not None:
                rate.assign(kept)
    except UNREADABLE as e:
        raise ValueError(f"{path}: not of a model of this shape: {str(e)[:300]}") from e
    return [] if same_optimizer else ["the MLPs have another optimizer than before, whose slots begin anew"]


def _same_dense_optimizer(model: RankingModel, home: Workdir) -> bool:
    return type(model.optimizer).__name__.lower() == home.config().optimizer.dense


def _statistics_notes(schema: Schema, old_dir: str, new_dir: str) -> list[str]:
    old, new = dense_statistics(schema, old_dir), dense_statistics(schema, new_dir)
    return [
        f"feature {name!r}: mean {old[name].mean:g} and standard deviation {old[name].std:g} became {now.mean:g} and"
        f" {now.std:g}, so scores shift a little at first"
        for name, now in new.items()
        if old[name] != now
    ]
