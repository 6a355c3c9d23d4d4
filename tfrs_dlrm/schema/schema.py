"""The description of a log, made of the parts in `features`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.schema.features import CategoricalFeature, DenseFeature, Label, Table, TextFormat
from tfrs_dlrm.schema.plain import build, plain
from tfrs_dlrm.schema.validation import (
    check_categorical,
    check_dense,
    check_label,
    check_names,
    check_storage,
    check_table,
    check_text,
)
from tfrs_dlrm.stores.files import local_path, read_text

# Its name in a prepared directory.
SCHEMA_FILE = "schema.json"


@dataclasses.dataclass(frozen=True)
class Schema:
    """The description of a log; see the module docstring.

    Models learn `label` and, where there are some, `more_labels` at once; an example may lack any of the latter.

    Features whose table is not listed in `tables` get `Table(name)` with the defaults of `Table`. The order of `dense`
    and `categorical` is the order of the columns of an encoded batch.

    Raises:
      ValueError: naming the feature or table, what was given and what is allowed.
    """

    label: Label
    dense: tuple[DenseFeature, ...] = ()
    categorical: tuple[CategoricalFeature, ...] = ()
    tables: tuple[Table, ...] = ()
    weight: str | None = None
    text: TextFormat = TextFormat()  # noqa: RUF009 (frozen)
    more_labels: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        fill = dataclasses.replace
        object.__setattr__(self, "dense", tuple(fill(f, column=f.column or f.name) for f in self.dense))
        categorical = tuple(
            fill(
                f, column=f.column or f.name, table=f.table or f.name, multi_valued=f.multi_valued or bool(f.separator)
            )
            for f in self.categorical
        )
        object.__setattr__(self, "categorical", categorical)
        object.__setattr__(self, "more_labels", tuple(fill(x, name=x.name or x.column) for x in self.more_labels))
        listed = {t.name for t in self.tables}
        missing = dict.fromkeys(f.table for f in categorical if f.table not in listed)
        object.__setattr__(self, "tables", (*self.tables, *(Table(name) for name in missing)))
        self._check()

    def _check(self) -> None:
        """Checks every part, and that the parts fit together."""
        check_label(self.label, "label")
        for label in self.more_labels:
            check_label(label, f"label {label.name!r}")
        check_names([label.name for label in self.more_labels], "label")
        if not self.dense and not self.categorical:
            raise ValueError("the schema has no features; list some under dense or categorical")
        weights = [f.weights_name for f in self.multi_hot if f.weights]
        check_names([*self.dense_columns, *(f.name for f in self.categorical), *weights], "feature")
        check_names([t.name for t in self.tables], "table")
        for dense in self.dense:
            check_dense(dense)
        for table in self.tables:
            check_table(table, [f for f in self.categorical if f.table == table.name])
            check_storage(table, self.tables, self.categorical)
        for feature in self.categorical:
            check_categorical(feature, self.table_of(feature))
        check_text(self.text, self.columns, self.categorical)

    @property
    def labels(self) -> tuple[Label, ...]:
        """All labels, in the order of the columns of an encoded batch's label."""
        return (self.label, *self.more_labels)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """What encoded files call them: `label`, and `label/NAME` for each other."""
        return ("label", *(f"label/{label.name}" for label in self.more_labels))

    def label_number(self, name: str = "") -> int:
        """The position among `labels` of the one called `name`, or of the first where that is empty.

        The first goes by its column, unless another has that for its name.

        Raises:
          ValueError: there is none; it proposes others.
        """
        numbers = {self.label.column: 0} | {label.name: i for i, label in enumerate(self.more_labels, 1)}
        if name and name not in numbers:
            hint = did_you_mean(name, numbers) or f"choose among {', '.join(numbers)}"
            raise ValueError(f"no label {name!r}; {hint}")
        return numbers[name] if name else 0

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns of the log with the labels and the weight, each once."""
        columns = [*(label.column for label in self.labels), *([self.weight] if self.weight else [])]
        return tuple(dict.fromkeys(columns))

    @property
    def dense_columns(self) -> tuple[str, ...]:
        """The names of the floats of an encoded example: the feature's, then NAME_missing where it has an indicator."""
        return tuple(name for f in self.dense for name in ([f.name, f"{f.name}_missing"] if f.indicator else [f.name]))

    @property
    def dense_width(self) -> int:
        """Floats of an encoded example: one per dense feature, and one more for each with an indicator."""
        return len(self.dense_columns)

    @property
    def one_hot(self) -> tuple[CategoricalFeature, ...]:
        """The features with exactly one value, in the order of the columns of `ids`."""
        return tuple(f for f in self.categorical if not f.multi_valued)

    @property
    def multi_hot(self) -> tuple[CategoricalFeature, ...]:
        """The multi-valued features, in order."""
        return tuple(f for f in self.categorical if f.multi_valued)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the log that the schema reads, each once."""
        return tuple(dict.fromkeys([*self.targets, *self.feature_columns]))

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """The columns that features are made of (not label and weight), each once."""
        names = [f.column for f in self.dense]
        for f in self.categorical:
            names += [f.column, *([f.weights] if f.weights else [])]
        return tuple(dict.fromkeys(names))

    def table(self, name: str) -> Table:
        """The table called `name`.

        Raises:
          KeyError: there is none.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"no table {name!r} in the schema")

    def table_of(self, feature: CategoricalFeature) -> Table:
        """The table that `feature` looks up."""
        return self.table(feature.table)

    def select(self, names: Collection[str]) -> Schema:
        """The same schema with the named features only, in their order, and with the tables that those need."""
        categorical = tuple(f for f in self.categorical if f.name in names)
        used = {f.table for f in categorical}
        used |= {self.table(name).stored_in for name in used}
        return dataclasses.replace(
            self,
            dense=tuple(f for f in self.dense if f.name in names),
            categorical=categorical,
            tables=tuple(t for t in self.tables if t.name in used),
        )

    def with_vocabulary_sizes(self, sizes: Mapping[str, int]) -> Schema:
        """The same schema with the sizes of the named tables set."""
        tables = (dataclasses.replace(t, vocabulary_size=sizes.get(t.name, t.vocabulary_size)) for t in self.tables)
        return dataclasses.replace(self, tables=tuple(tables))

    def with_units(self, units: Mapping[str, tuple[float, float]]) -> Schema:
        """The same schema with mean and standard deviation of labels set, by their `label_columns`."""

        def changed(label: Label, column: str) -> Label:
            mean, std = units.get(column, (label.mean, label.std))
            return dataclasses.replace(label, mean=mean, std=std)

        first, *others = map(changed, self.labels, self.label_columns)
        return dataclasses.replace(self, label=first, more_labels=tuple(others))

    def with_dim(self, dim: int) -> Schema:
        """The same schema with every table of dimension `dim`, but for those that store the rows of others."""
        homes = {t.stored_in for t in self.tables}
        tables = (t if t.name in homes else dataclasses.replace(t, dim=dim) for t in self.tables)
        return dataclasses.replace(self, tables=tuple(tables))

    def with_mixed_dims(self, dim: int, temperature: float) -> Schema:
        """The same schema with smaller dimensions for larger tables, whose rows are looked up more rarely.

        The smallest table gets `dim`, and one with n times as many rows dim / n ** temperature, rounded to a power of
        2: the "popularity" rule of Ginart et al. 2019, "Mixed Dimension Embeddings" (arXiv 1909.11810), who use
        temperatures of 0.2 to 0.6. DLRM projects the vectors to one dimension.

        Args:
          dim: a power of 2.
          temperature: at least 0, which gives all tables `dim`.

        Raises:
          ValueError: an argument is none of these, or a table has no rows yet.
        """
        if dim < 1 or dim & (dim - 1) or temperature < 0:
            raise ValueError(f"dim={dim}, temperature={temperature}: a power of 2, and at least 0, are needed")
        used = {f.table for f in self.categorical}
        rows = {t.name: t.vocabulary_size for t in self.tables if t.name in used}
        missing = [name for name, n in rows.items() if n is None]
        if missing:
            raise ValueError(f"tables {missing} have no vocabulary_size yet; take the schema that `prepare` wrote")
        smallest = min(n for n in rows.values() if n is not None)

        def mixed(table: Table) -> Table:
            if table.name not in used or table.stored_in:
                return table
            exact = dim * (smallest / (table.vocabulary_size or 1)) ** temperature
            return dataclasses.replace(table, dim=max(1, 2 ** round(math.log2(exact))))

        return dataclasses.replace(self, tables=tuple(mixed(t) for t in self.tables))

    def to_json(self) -> str:
        """Indented JSON that `from_json` reads back to an equal schema; fields at their defaults are left out."""
        return json.dumps(plain(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """Reads `to_json`.

        Raises:
          ValueError: naming the field that is unknown, missing, of the wrong type or out of its range.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as e:
            raise ValueError(f"not valid JSON: {e}") from e
        return build(cls, data, "schema")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `to_json` to `path`; the file appears whole or not at all."""
        temporary = f"{local_path(os.fspath(path))}.tmp"
        with open(temporary, "w", encoding="utf-8") as f:
            f.write(self.to_json())
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Schema:
        """Reads a JSON file, on a disk or in an object store.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: as `from_json`, with the path in front.
        """
        try:
            text = read_text(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as e:
            raise FileNotFoundError(f"no schema at {os.fspath(path)}; tfrs-dlrm infer proposes one") from e
        try:
            return cls.from_json(text)
        except ValueError as e:
            raise ValueError(f"{os.fspath(path)}: {e}") from e


def difference(old: Schema, new: Schema) -> str:
    """The first few differences between two schemas in words; empty where they are equal."""

    def flat(schema: Schema) -> dict[str, Any]:
        out: dict[str, Any] = {"label": schema.label, "weight": schema.weight, "text": schema.text}
        out |= {f"label {label.name!r}": label for label in schema.more_labels}
        kinds: list[tuple[str, Sequence[Any]]] = [
            ("dense", schema.dense),
            ("categorical", schema.categorical),
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
