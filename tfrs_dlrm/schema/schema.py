"""`Schema`, the description of a log, made of the parts in `features`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.messages.arguments import check_fields
from tfrs_dlrm.schema.features import CategoricalFeature, DenseFeature, Label, Notation, Table, TextFormat
from tfrs_dlrm.schema.filling import fill_in
from tfrs_dlrm.schema.histories import check_histories
from tfrs_dlrm.schema.inputs import FeatureInput, collect_inputs
from tfrs_dlrm.schema.label_order import check_after, rate_name
from tfrs_dlrm.schema.plain import build, plain
from tfrs_dlrm.schema.serving_values import check_serving_values
from tfrs_dlrm.schema.times import PART_ROWS, check_time
from tfrs_dlrm.schema.validation import (
    check_categorical,
    check_dense,
    check_group,
    check_label,
    check_names,
    check_notations,
    check_storage,
    check_table,
    check_text,
)
from tfrs_dlrm.schema.value_checks import check_cross, check_members, check_transformed
from tfrs_dlrm.stores.files import read_text, write_text

# The name of the schema in a prepared directory.
SCHEMA_FILE = "schema.json"


@dataclasses.dataclass(frozen=True)
class Schema:
    """The description of a log: which columns are labels and features, and how values become rows of tables.

    A model learns `label` and all of `more_labels` together; an example may lack any of `more_labels`.

    Features whose table is not listed in `tables` get `Table(name)` with the defaults of `Table`. The order of `dense`
    and `categorical` is the order of the columns of an encoded batch. A table that no feature uses is dropped, so
    that a feature can be taken out alone; it is refused if another feature's table is not listed: one may be misspelt.
    `members` are features that only crosses read: they have no table and no column in a batch.
    `group` is a column of the log, which need not be a feature, such as the query, session or user of a row. Models can
    be trained by how the rows of each group are ranked; exports do not ask for it.

    Raises:
      ValueError: a part is wrong; the message names the feature or table, its value, and the allowed values.
    """

    label: Label
    dense: tuple[DenseFeature, ...] = ()
    categorical: tuple[CategoricalFeature, ...] = ()
    tables: tuple[Table, ...] = ()
    weight: str | None = None
    text: TextFormat = TextFormat()  # noqa: RUF009 (frozen)
    more_labels: tuple[Label, ...] = ()
    members: tuple[CategoricalFeature, ...] = ()
    group: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_times()  # before their parts become features
        filled = fill_in(self.dense, self.categorical, self.members)
        for kind, features in filled._asdict().items():
            object.__setattr__(self, kind, features)
        more = tuple(dataclasses.replace(x, name=x.name or x.column) for x in self.more_labels)
        object.__setattr__(self, "more_labels", more)
        object.__setattr__(self, "tables", _without_unused(self.tables, {f.table for f in filled.categorical}))
        listed = {t.name for t in self.tables}
        missing = dict.fromkeys(f.table for f in filled.categorical if f.table not in listed)
        tables = (*self.tables, *(Table(name) for name in missing))
        rows = {f.table: PART_ROWS.get(f.time.parts[0]) for f in filled.categorical if f.time and f.encoding == "time"}
        sized = (dataclasses.replace(t, vocabulary_size=rows.get(t.name, t.vocabulary_size)) for t in tables)
        object.__setattr__(self, "tables", tuple(sized))
        self._check()

    def _check(self) -> None:
        """Checks each part, and that the parts fit together."""
        check_label(self.label, "label")
        for label in self.more_labels:
            check_label(label, f"label {label.name!r}")
            if label.keep_negatives != 1:
                raise ValueError(
                    f"label {label.name!r}: keep_negatives={label.keep_negatives}; only the first label decides which"
                    f" rows are kept: give it to label {self.label.column!r}, or put {label.name!r} first"
                )
        check_after(self.labels, self.earlier_labels)
        rates = [rate_name(label) for label in self.more_labels if label.after]
        check_names([*(label.name for label in self.more_labels), *rates], "label")
        if not self.dense and not self.categorical:
            raise ValueError("the schema has no features; list some under dense or categorical")
        weights = [f.weights_name for f in self.multi_hot if f.weights]
        values = [f.name for f in (*self.categorical, *self.members)]
        # A vector's name is that of none of its columns.
        vectors = [f.name for f in self.dense if f.size is not None]
        check_names([*vectors, *self.dense_columns, *values, *weights], "feature")
        check_group(self.group, values)
        check_names([t.name for t in self.tables], "table")
        for dense in self.dense:
            check_dense(dense)
        inputs = self.inputs
        check_names([given.name for given in inputs if given.name not in values], "input")
        check_notations(self._notations())
        check_histories(self.categorical)  # before what they take of other features
        for table in self.tables:
            check_table(table, [f for f in self.categorical if f.table == table.name])
            check_storage(table, self.tables, self.categorical)
        for feature in (*self.categorical, *self.members):
            check_transformed(feature)
            check_cross(feature, (*self.categorical, *self.members))
        for feature in self.categorical:
            check_categorical(feature, self.table_of(feature))
        check_members(self.members, self.categorical)
        check_serving_values((*self.dense, *self.categorical, *self.members), inputs)
        check_text(self.text, self.categorical)

    def _check_times(self) -> None:
        features: list[DenseFeature | CategoricalFeature] = [*self.dense, *self.categorical, *self.members]
        for f in features:
            if f.time is not None:
                check_time(f"feature {f.name!r}", f.time)

    @property
    def inputs(self) -> tuple[FeatureInput, ...]:
        """The raw values of an example: in the log, in requests, in samples; each once, whatever reads it."""
        return collect_inputs(self.dense, (*self.categorical, *self.members))

    def inputs_of(self, feature: str) -> tuple[FeatureInput, ...]:
        """Returns the inputs that a feature reads; a cross reads those of its members."""
        member_names = self.member_names(feature)
        return tuple(given for given in self.inputs if member_names & set(given.features))

    def member_names(self, feature: str) -> set[str]:
        """Returns the members of a cross; of another feature itself."""
        crosses = {f.name: set(f.cross) for f in self.categorical if f.cross}
        return crosses.get(feature, {feature})

    def value_feature(self, name: str) -> CategoricalFeature:
        """Returns the categorical feature or member called `name`.

        Raises:
          KeyError: there is none.
        """
        for f in (*self.categorical, *self.members):
            if f.name == name:
                return f
        raise KeyError(f"no categorical feature {name!r} in the schema")

    @property
    def labels(self) -> tuple[Label, ...]:
        """All labels, in the order of the columns of an encoded batch's label."""
        return (self.label, *self.more_labels)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The names of the labels in encoded files: `label` for the first, `label/NAME` for the others."""
        return ("label", *(f"label/{label.name}" for label in self.more_labels))

    @property
    def earlier_labels(self) -> tuple[int | None, ...]:
        """For each of `labels` the position of the label that it comes `after`; None if it comes after none."""
        numbers = {self.label.name or self.label.column: 0}
        numbers |= {label.name: i for i, label in enumerate(self.more_labels, 1)}
        return tuple(numbers.get(label.after) if label.after else None for label in self.labels)

    def label_number(self, name: str = "") -> int:
        """Returns the position of a label in `labels`; 0 if `name` is empty.

        The name of the first label is its column, unless another label has that name.

        Raises:
          ValueError: no label has that name; the message proposes others.
        """
        numbers = {self.label.column: 0} | {label.name: i for i, label in enumerate(self.more_labels, 1)}
        if name and name not in numbers:
            hint = did_you_mean(name, numbers) or f"choose among {', '.join(numbers)}"
            raise ValueError(f"no label {name!r}; {hint}")
        return numbers[name] if name else 0

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns of the log with the labels, the weight and the group, each once."""
        columns = [*(label.column for label in self.labels), self.weight, self.group]
        return tuple(dict.fromkeys(column for column in columns if column))

    @property
    def weighs_rows(self) -> bool:
        """Whether batches have weights: rows that fill up a batch of whole groups weigh 0."""
        return bool(self.weight or self.group)

    @property
    def dense_columns(self) -> tuple[str, ...]:
        """The names of an encoded example's floats; see `DenseFeature.encoded_columns`."""
        return tuple(name for f in self.dense for name in f.encoded_columns)

    @property
    def dense_width(self) -> int:
        """The number of floats of an encoded example: one per number of a dense feature, and one per indicator."""
        return len(self.dense_columns)

    @property
    def projected(self) -> tuple[DenseFeature, ...]:
        """The dense features that are projected to vectors, in order."""
        return tuple(f for f in self.dense if f.projected)

    @property
    def unprojected_width(self) -> int:
        """The number of floats of an encoded example that models read as numbers."""
        return self.dense_width - sum(len(f.encoded_columns) for f in self.projected)

    @property
    def one_hot(self) -> tuple[CategoricalFeature, ...]:
        """The features with exactly one value, in the order of the columns of `ids`."""
        return tuple(f for f in self.categorical if not f.multi_valued)

    @property
    def multi_hot(self) -> tuple[CategoricalFeature, ...]:
        """The multi-valued features, in order."""
        return tuple(f for f in self.categorical if f.multi_valued)

    @property
    def histories(self) -> tuple[CategoricalFeature, ...]:
        """The features that list earlier values of another one, in order."""
        return tuple(f for f in self.categorical if f.history_of)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the log that the schema reads, each once."""
        return tuple(dict.fromkeys([*self.targets, *self.feature_columns]))

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """The columns that features read, without labels, weight and group, each once."""
        return tuple(dict.fromkeys(given.column for given in self.inputs))

    @property
    def notations(self) -> dict[str, Notation]:
        """How the numbers of features and of labels are written, by column."""
        return dict(self._notations())

    def _notations(self) -> list[tuple[str, Notation]]:
        numbers = [*(f for f in self.dense if f.time is None)]
        buckets = [f for f in (*self.categorical, *self.members) if f.reads_number]
        return [(x.column, x.notation) for part in (numbers, buckets, self.labels) for x in part]

    def table(self, name: str) -> Table:
        """Returns the table called `name`.

        Raises:
          KeyError: no table has that name.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"no table {name!r} in the schema")

    def table_of(self, feature: CategoricalFeature) -> Table:
        """Returns the table that `feature` looks up."""
        return self.table(feature.table)

    def trains(self, feature: CategoricalFeature) -> bool:
        """Returns whether training changes the rows that `feature` looks up."""
        table = self.table_of(feature)
        return self.table(table.stored_in).trainable if table.stored_in else table.trainable

    def pieces(self, table: Table) -> int:
        """Returns how many rows of another table store a row of `table`; 1 if the table stores its rows."""
        return -(-table.dim // self.table(table.stored_in).dim) if table.stored_in else 1

    def select(self, names: Collection[str]) -> Schema:
        """Returns the schema with only the named features, in the schema's order, and the tables that they need.

        Members of crosses that are not named become `members`.
        """
        categorical = tuple(f for f in self.categorical if f.name in names)
        crossed = {name for f in categorical for name in f.cross} - {f.name for f in categorical}
        used = {f.table for f in categorical}
        used |= {self.table(name).stored_in for name in used}
        return dataclasses.replace(
            self,
            dense=tuple(f for f in self.dense if f.name in names),
            categorical=categorical,
            tables=tuple(t for t in self.tables if t.name in used),
            members=tuple(
                dataclasses.replace(f, table="") for f in (*self.categorical, *self.members) if f.name in crossed
            ),
        )

    def with_vocabulary_sizes(self, sizes: Mapping[str, int]) -> Schema:
        """Returns the schema with the sizes of the named tables set."""
        tables = (dataclasses.replace(t, vocabulary_size=sizes.get(t.name, t.vocabulary_size)) for t in self.tables)
        return dataclasses.replace(self, tables=tuple(tables))

    def with_units(self, units: Mapping[str, tuple[float, float]]) -> Schema:
        """Returns the schema with mean and standard deviation of labels set, by `label_columns`."""

        def changed(label: Label, column: str) -> Label:
            mean, std = units.get(column, (label.mean, label.std))
            return dataclasses.replace(label, mean=mean, std=std)

        first, *others = map(changed, self.labels, self.label_columns)
        return dataclasses.replace(self, label=first, more_labels=tuple(others))

    def with_keep_negatives(self, share: float) -> Schema:
        """Returns the schema with the share of negative training rows that `prepare` keeps."""
        return dataclasses.replace(self, label=dataclasses.replace(self.label, keep_negatives=share))

    def with_dim(self, dim: int) -> Schema:
        """Returns the schema with all tables of dimension `dim`.

        Tables that store the rows of others, and tables with `init_from`, keep theirs.
        """
        homes = {t.stored_in for t in self.tables} | {t.name for t in self.tables if t.init_from}
        tables = (t if t.name in homes else dataclasses.replace(t, dim=dim) for t in self.tables)
        return dataclasses.replace(self, tables=tuple(tables))

    def with_linear_weights(self, features: Collection[str] | None = None) -> Schema:
        """Returns the schema with rows of tables that end in a linear weight: `dim` of the tables is one larger.

        A table that stores the rows of such tables gets longer rows too, if the vectors fill its rows.

        Args:
          features: the features whose values have a linear weight; by default all. Tables that only other features look
            up get dimension 1.
        """
        used = {f.table for f in self.categorical if features is None or f.name in features}
        unused = {f.table for f in self.categorical} - used
        stored = {t.name: self.table(t.stored_in) for t in self.tables if t.name in used and t.stored_in}
        longer = used | {home.name for name, home in stored.items() if self.table(name).dim % home.dim == 0}
        dims = {t.name: t.dim + 1 if t.name in longer else 1 if t.name in unused else t.dim for t in self.tables}
        return dataclasses.replace(self, tables=tuple(dataclasses.replace(t, dim=dims[t.name]) for t in self.tables))

    def with_mixed_dims(self, dim: int, temperature: float) -> Schema:
        """Returns the schema with smaller dimensions for larger tables, whose rows are looked up more rarely.

        The smallest table gets `dim`. A table with n times as many rows gets dim / n ** temperature, rounded to a power
        of 2. This is the "popularity" rule of Ginart et al. 2019, "Mixed Dimension Embeddings" (arXiv 1909.11810), who
        use temperatures of 0.2 to 0.6. DLRM projects the vectors to one dimension.

        Args:
          dim: a power of 2.
          temperature: at least 0; 0 gives all tables `dim`.

        Raises:
          ValueError: an argument is out of its range, or a table has no `vocabulary_size` yet.
        """
        if dim < 1 or dim & (dim - 1) or temperature < 0:
            raise ValueError(f"dim={dim}, temperature={temperature}: a power of 2, and at least 0, are needed")
        used = {f.table for f in self.categorical}
        rows = {t.name: t.vocabulary_size for t in self.tables if t.name in used}
        missing = [name for name, n in rows.items() if n is None]
        if missing:
            raise ValueError(
                f"tables {missing} have no vocabulary_size yet; take the schema that `prepare` wrote, or"
                " `td.fit_encoder(...).schema`"
            )
        smallest = min(n for n in rows.values() if n is not None)

        def mixed(table: Table) -> Table:
            if table.name not in used or table.stored_in or table.init_from:
                return table
            exact = dim * (smallest / (table.vocabulary_size or 1)) ** temperature
            return dataclasses.replace(table, dim=max(1, 2 ** round(math.log2(exact))))

        return dataclasses.replace(self, tables=tuple(mixed(t) for t in self.tables))

    def to_json(self) -> str:
        """Returns indented JSON, which `from_json` reads, without the fields at their defaults."""
        return json.dumps(plain(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """Reads the result of `to_json`.

        Raises:
          ValueError: a field is unknown, missing, of the wrong type or out of its range; the message names it.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as e:
            raise ValueError(f"not valid JSON: {e}") from e
        return build(cls, data, "schema")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `to_json` to `path`; the file appears whole or not at all."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Schema:
        """Reads a JSON file, on a disk or in an object store.

        Raises:
          FileNotFoundError: the file does not exist.
          ValueError: see `from_json`; the message begins with the path.
        """
        try:
            text = read_text(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as e:
            raise FileNotFoundError(f"no schema at {os.fspath(path)}; tfrs-dlrm infer proposes one") from e
        try:
            return cls.from_json(text)
        except ValueError as e:
            raise ValueError(f"{os.fspath(path)}: {e}") from e


def _without_unused(tables: tuple[Table, ...], used: Collection[str]) -> tuple[Table, ...]:
    """Drops the tables that no feature uses, unless they say more than a name and may be another table misspelt."""
    unlisted = set(used) - {t.name for t in tables}
    needed = {*used, *(t.stored_in for t in tables if t.name in used)}
    return tuple(t for t in tables if t.name in needed or (unlisted and t != Table(t.name)))


def check_schema(model: str, given: Any) -> None:
    """Checks that the schema which a model or its tables got is one.

    Raises:
      ValueError: it is something else, such as an encoder.
    """
    if not isinstance(given, Schema):
        mend = "encoder.schema" if isinstance(getattr(given, "schema", None), Schema) else "a tfrs_dlrm.Schema"
        raise ValueError(f"{model}: the schema is of type {type(given).__name__}; give {mend}")


def difference(old: Schema, new: Schema) -> str:
    """Returns the first few differences between two schemas in words; empty if they are equal."""

    def meaning(label: Label) -> Label:
        """Returns the label without the share of 1s, which only initial weights depend on."""
        return dataclasses.replace(label, mean=0.0) if label.task == "classification" else label

    def flat(schema: Schema) -> dict[str, Any]:
        out: dict[str, Any] = {"label": meaning(schema.label), "weight": schema.weight, "text": schema.text}
        out["group"] = schema.group
        out |= {f"label {label.name!r}": meaning(label) for label in schema.more_labels}
        kinds: list[tuple[str, Sequence[Any]]] = [
            ("dense", schema.dense),
            ("categorical", schema.categorical),
            ("member", schema.members),
            ("table", schema.tables),
        ]
        for kind, items in kinds:
            for position, item in enumerate(items):
                out[f"{kind} {item.name!r} position"] = position
                for field in dataclasses.fields(item):
                    out[f"{kind} {item.name!r} {field.name}"] = getattr(item, field.name)
        return out

    a, b = flat(old), flat(new)
    lines = [f"{key}: {a.get(key)!r} != {b.get(key)!r}" for key in {**a, **b} if a.get(key) != b.get(key)]
    return "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
