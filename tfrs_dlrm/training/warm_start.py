"""A new model that begins where an old one ended, on a vocabulary that changed in between."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm import schema as schema_lib
from tfrs_dlrm.checkpoint.contents import layers
from tfrs_dlrm.checkpoint.manifest import CheckpointManifest
from tfrs_dlrm.checkpoint.restore import UNREADABLE
from tfrs_dlrm.checkpoint.save import DENSE
from tfrs_dlrm.checkpoint.table_rows import read_slice, slices
from tfrs_dlrm.data.encoding.statistics import read_statistics
from tfrs_dlrm.data.encoding.vocabulary import rows_by_value
from tfrs_dlrm.data.preparing.lineage import lineage
from tfrs_dlrm.embeddings.optimizers import ROW_OPTIMIZERS
from tfrs_dlrm.embeddings.storage import LogicalTable
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import SCHEMA_FILE, Schema, Table
from tfrs_dlrm.training.workdir import Which, Workdir


@dataclasses.dataclass(frozen=True)
class TableReport:
    """The rows of a table after a warm start: how many were `kept`, are `new`, or were `dropped`."""

    kept: int
    new: int
    dropped: int


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """The effects of a warm start.

    Attributes:
      checkpoint: where the weights are from.
      tables: by name of the table.
      notes: messages to the user.
    """

    checkpoint: str
    tables: dict[str, TableReport]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as text."""
        kept, new, dropped = (sum(getattr(t, n) for t in self.tables.values()) for n in ("kept", "new", "dropped"))
        rows = f"{kept:,} rows of tables kept, {new:,} new, {dropped:,} dropped"
        return [f"warm start from {self.checkpoint}: {rows}", *self.notes]


@checked
def warm_start(model: RankingModel, data_dir: str, workdir: str, which: Which = "best") -> WarmStart:
    """Takes over the weights and optimizer slots of a trained run.

    Rows of vocabulary tables are matched by value: a value that the old vocabulary has keeps its row and slots wherever
    it stands in the new one, and so does row 0. Other rows stay as they were initialized. If the new data go on from
    those of the run (see the `base` of `prepare`), rows are taken over by position instead, without a comparison of
    values; compressed tables are too, in which new values share rows with others. Tables of `ids` keep the rows that
    both have. All other weights are taken over as they are. Slots are, where the optimizer is of the same kind.
    Learning rates are the new model's, and steps are counted from 0, so that schedules start again.

    Args:
      model: compiled, for the vocabularies in `data_dir`.
      data_dir: the prepared directory that it will train on.
      workdir: the directory of the run to begin from.
      which: its `best` checkpoint or its `latest`.

    Raises:
      FileNotFoundError: the directory holds no run or no checkpoint.
      ValueError: the model is not compiled, or not for the data in `data_dir`; the two have other features, tables of
        another form, or a compressed table whose rows mean other values now. The model is as it was then.
    """
    if getattr(model, "embedding_optimizer", None) is None:
        raise ValueError("the model is not compiled; compile it before a warm start, which also takes over slots")
    home = Workdir(workdir)
    config = home.config()  # raises if the directory holds no run
    path = home.checkpoint(which)
    encoder_dir = home.encoder_of(path)
    old, new = home.schema(path), Schema.load(os.path.join(data_dir, SCHEMA_FILE))
    _check_features(old, new, workdir)
    _check_model(model, new, data_dir)
    before = config.model.schema(old)  # as the run stores its tables
    _check_homes(before, model.schema, workdir)
    checkpoint = _Checkpoint(path)
    # Everything is checked before anything is written: a refusal leaves the model as it was.
    stored = model.embeddings.logical_tables(model.embedding_optimizer)
    reports, copies, notes = {}, [], _label_notes(old, new) + _statistics_notes(new, encoder_dir, data_dir)
    found = lineage(data_dir, encoder_dir)
    for table in model.schema.tables:
        old_rows = before.table(table.name).vocabulary_size or 0
        grows = found is not None and table.name in found.known
        if found and grows:
            known = found.known[table.name]
            matches = np.where(known, np.arange(len(known)), -1).astype(np.int64)
        else:
            matches = _matches(table, model.schema, encoder_dir, data_dir, old_rows)
        kept = int(np.count_nonzero(matches >= 0))
        reports[table.name] = TableReport(kept, len(matches) - kept, old_rows - kept)
        kind = config.optimizer.per_table().get(table.name, config.optimizer.embedding)
        for part in table.parts:
            # The parts of a compressed table have other rows, which stay as they are.
            of_table = _first_rows(stored, table, part, grows, checkpoint) if table.remainders else matches
            of_part, same = _row_copies(model, stored, part, of_table, checkpoint, kind)
            copies += of_part
            if not same:
                notes.append(f"table {table.name!r} has another optimizer than before, whose slots start again")
    slots = _dense_slots(model, checkpoint, config.optimizer.dense)
    if slots is None:
        notes.append("the MLPs have another optimizer than before, whose slots start again")
    _restore_layers(model, path)
    for variable, key in slots or []:
        variable.assign(checkpoint.dense(key))
    for copy in copies:
        copy.write(checkpoint)
    model.embeddings.load()
    return WarmStart(path, reports, tuple(notes))


class _Checkpoint:
    """A checkpoint: its tables and slots, and the other variables of its model by their names below it."""

    def __init__(self, path: str):
        self.path, self.rows = path, CheckpointManifest.read(path).rows
        try:
            self._dense = tf.train.load_checkpoint(os.path.join(path, DENSE))
        except UNREADABLE as e:
            raise ValueError(f"{path}: damaged: {str(e)[:300]}") from e
        begin, end = "model/", "/.ATTRIBUTES/VARIABLE_VALUE"
        self.dense_shapes = {
            name.removeprefix(begin).removesuffix(end): tuple(shape)
            for name, shape in self._dense.get_variable_to_shape_map().items()
            if name.startswith(begin) and name.endswith(end)
        }

    def dense(self, name: str) -> np.ndarray:
        return self._dense.get_tensor(f"model/{name}/.ATTRIBUTES/VARIABLE_VALUE")


class _RowCopy(NamedTuple):
    """Rows of a table or slot to take over: `matches` as `_matches` gives them."""

    stored: LogicalTable
    name: str
    matches: np.ndarray

    def write(self, checkpoint: _Checkpoint) -> None:
        entry, matches = checkpoint.rows[self.name], self.matches
        kept = np.flatnonzero(matches >= 0)
        kept = kept[np.argsort(matches[kept], kind="stable")]  # in the order of the old rows
        old = matches[kept]
        for first, last in slices(entry):
            begin, end = np.searchsorted(old, [first, last])
            values = read_slice(os.path.abspath(checkpoint.path), entry, first, last)
            order = np.argsort(kept[begin:end])
            rows, source = kept[begin:end][order], old[begin:end][order] - first
            self.stored.scatter(rows, tf.cast(tf.gather(values, source), self.stored.dtype))


def _check_features(old: Schema, new: Schema, workdir: str) -> None:
    def comparable(schema: Schema) -> Schema:
        """Returns a schema without the fields that may change."""
        free = {f.table for f in schema.categorical if f.encoding in ("vocabulary", "ids", "buckets")}
        features = (dataclasses.replace(f, min_count=1, max_size=None) for f in schema.categorical)
        tables = (
            dataclasses.replace(
                t,
                vocabulary_size=schema_lib.MAX_ROWS if t.name in free else t.vocabulary_size,
                init_from="",
                trainable=True,
            )
            for t in schema.tables
        )
        units = dict.fromkeys(schema.label_columns, (0.0, 1.0))
        return dataclasses.replace(
            schema.with_units(units), categorical=tuple(features), tables=tuple(tables), text=schema_lib.TextFormat()
        )

    found = schema_lib.difference(comparable(old), comparable(new))
    if found:
        raise ValueError(f"{workdir}: a warm start needs the same features and tables; they differ in: {found}")


def _check_model(model: RankingModel, schema: Schema, data_dir: str) -> None:
    expected = {t.name: t.vocabulary_size for t in schema.tables}
    # A model that admits values of a stream has room for more.
    room = {f.table: f.max_size + 1 for f in schema.categorical if f.max_size is not None}
    # A model may add a table in which it stores others.
    homes = {t.stored_in for t in model.schema.tables}
    rows = {t.name: t.vocabulary_size for t in model.schema.tables if t.name in expected or t.name not in homes}
    if (
        any(rows.get(t) not in (n, room.get(t)) for t, n in expected.items())
        or rows.keys() != expected.keys()
        or [f.name for f in model.schema.categorical] != [f.name for f in schema.categorical]
    ):
        raise ValueError(f"the model is not of the data in {data_dir}: its tables have rows {rows}, theirs {expected}")


def _check_homes(old: Schema, new: Schema, workdir: str) -> None:
    """Makes sure that tables which other tables store are stored there as before, in as many rows."""
    names = {t.name for t in old.tables}
    for table in (t for t in new.tables if t.name in names):
        before, home = old.table(table.name).stored_in, table.stored_in
        if before != home:
            was, now = (f"stored in {x!r}" if x else "stored by itself" for x in (before, home))
            raise ValueError(f"{workdir}: table {table.name!r} was {was} and is {now} now; store it as that run does")
        rows = [schema.table(home).vocabulary_size for schema in (old, new) if home]
        if len(set(rows)) > 1:
            raise ValueError(
                f"table {table.name!r}: it is stored in {home!r}, which has {rows[1]} rows now and had {rows[0]}, so"
                f" the vectors of all values change; give {home!r} a fixed number of rows (its vocabulary_size, or"
                " model.shared_rows)"
            )


def _matches(table: Table, schema: Schema, old_dir: str, new_dir: str, old_rows: int) -> np.ndarray:
    """Returns, for each row of the new table, the old row of the same meaning or -1; int64."""
    rows = table.vocabulary_size or 0
    encoding = next((f.encoding for f in schema.categorical if f.table == table.name), "ids")
    if encoding == "vocabulary":
        matches = rows_by_value(table.name, new_dir, old_dir)
    else:
        matches = np.where(np.arange(rows) < old_rows, np.arange(rows), -1)
    compressed = table.remainders is not None or table.stored_in
    if compressed and (old_rows != rows or not np.array_equal(matches, np.arange(rows))):
        raise ValueError(
            f"table {table.name!r}: its vocabulary changed, and in a compressed table many values share each row, so"
            " rows cannot follow their values; prepare the new data on the old ones (base=), where rows stay, or use"
            " encoding 'hash'"
        )
    return matches.astype(np.int64)


def _first_rows(
    stored: Mapping[str, LogicalTable], table: Table, part: str, grows: bool, checkpoint: _Checkpoint
) -> np.ndarray:
    """Returns what `_matches` does, for a part of a compressed table.

    If the vocabulary `grows`, there are more quotients behind those of the run. The number of remainders stays: another
    one would make each row of other factors.
    """
    name = f"tables/{part}"
    rows, entry = stored[name].shape[0], checkpoint.rows.get(name)
    old_rows = entry.shape[0] if entry else 0
    quotient, _ = table.parts
    if old_rows > rows or (old_rows < rows and not (grows and part == quotient)):
        raise ValueError(
            f"{checkpoint.path}: holds {old_rows} rows of {name}, and the new model's is {rows}; store table"
            f" {table.name!r} as that run does (model.remainders and model.compress_above)"
        )
    return np.where(np.arange(rows) < old_rows, np.arange(rows), -1).astype(np.int64)


def _row_copies(
    model: RankingModel,
    stored: Mapping[str, LogicalTable],
    part: str,
    matches: np.ndarray,
    checkpoint: _Checkpoint,
    kind: str,
) -> tuple[list[_RowCopy], bool]:
    """Returns what to copy to a variable and its slots, and whether the optimizer is of the same kind.

    Only then are slots taken over: two optimizers may mean different things by one name.
    """
    optimizer = model.embedding_optimizer
    name = f"tables/{part}"
    table, entry = stored[name], checkpoint.rows.get(name)
    found = entry.shape if entry else ()
    if not found or found[1:] != table.shape[1:]:
        held = found or "nothing"
        raise ValueError(f"{checkpoint.path}: holds {held} for {name}, and the new model's is {table.shape}")
    copies = [_RowCopy(table, name, matches)]
    if type(optimizer.rule(part)) is not ROW_OPTIMIZERS.get(kind):
        return copies, False
    slots = [name for name in stored if name.startswith(f"slots/{part}/")]
    return copies + [_RowCopy(stored[slot], slot, matches) for slot in slots], True


def _dense_slots(model: RankingModel, checkpoint: _Checkpoint, kind: str) -> list[tuple[tf.Variable, str]] | None:
    """The slots of the MLPs' optimizer and their names in the checkpoint; None where it had others.

    Neither its learning rate nor its number of steps is taken over.
    """
    optimizer = model.optimizer
    if type(optimizer).__name__.lower() != kind or not isinstance(optimizer, keras.optimizers.Optimizer):
        return None
    slots = {f"optimizer/_variables/{i}": v for i, v in enumerate(optimizer.variables) if i}
    old = {name for name in checkpoint.dense_shapes if name.startswith("optimizer/_variables/")}
    if set(slots) != old or any(checkpoint.dense_shapes[name] != tuple(v.shape) for name, v in slots.items()):
        return None
    return [(v, name) for name, v in slots.items()]


def _restore_layers(model: RankingModel, path: str) -> None:
    """Restores all weights but the tables."""
    tables = {id(v) for v in model.embeddings.variables}
    variables = [v for v in model.variables if id(v) not in tables]
    before = [v.numpy() for v in variables]
    try:
        status = layers(model).read(os.path.join(path, DENSE))
        status.assert_existing_objects_matched().expect_partial()
    except UNREADABLE as e:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        raise ValueError(f"{path}: not of a model of this shape: {str(e)[:300]}") from e


def _label_notes(old: Schema, new: Schema) -> list[str]:
    return [
        f"label {now.column!r}: mean {before.mean:g} and standard deviation {before.std:g} became {now.mean:g} and"
        f" {now.std:g}, so predictions shift a little at first"
        for before, now in zip(old.labels, new.labels, strict=True)
        if (before.mean, before.std) != (now.mean, now.std)
    ]


def _statistics_notes(schema: Schema, old_dir: str, new_dir: str) -> list[str]:
    old, new = read_statistics(schema, old_dir), read_statistics(schema, new_dir)
    of_vector = {name: f.name for f in schema.dense if f.size is not None for name in f.numbers}
    pairs = [
        (name, getattr(old, kind)[name], now)
        for kind in ("dense", "transformed")
        for name, now in getattr(new, kind).items()
    ]
    notes = [
        f"feature {name!r}: mean {before.mean:g} and standard deviation {before.std:g} became {now.mean:g} and"
        f" {now.std:g}, so scores shift a little at first"
        for name, before, now in pairs
        if before != now and name not in of_vector
    ]
    changed = Counter(of_vector[name] for name, before, now in pairs if before != now and name in of_vector)
    notes += [
        f"feature {name!r}: mean or standard deviation of {count} of its numbers changed, so scores shift a little at"
        " first"
        for name, count in changed.items()
    ]
    notes += [
        f"feature {name!r}: the edges of its {len(edges) + 1} buckets moved ({len(old.edges[name]) + 1} before), and"
        " each bucket begins with the vector of that number, so scores shift a little at first"
        for name, edges in new.edges.items()
        if old.edges[name] != edges
    ]
    return notes + [
        f"feature {name!r}: its days count from another day, {origin - old.origins[name]:+d} days, so scores shift;"
        " give the origin in the schema to keep it"
        for name, origin in new.origins.items()
        if old.origins[name] != origin
    ]
