"""What a log contains and how each of its columns becomes a number or the row of an embedding table.

A `Schema` is the one description that `prepare`, the encoder, the models and the exported SavedModel share. It is
plain data: JSON in (`Schema.load`) and JSON out (`Schema.save`). `tfrs_dlrm.infer_schema` proposes one from a file.

    schema = Schema(
        label=Label("clicked"),
        dense=(DenseFeature("price", transform="log1p"),),
        categorical=(CategoricalFeature("site", min_count=5), CategoricalFeature("tags", separator="|")),
    )
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Transform = Literal["none", "log1p", "standardize"]
Encoding = Literal["vocabulary", "hash", "ids"]
OutOfRange = Literal["oov", "error", "clip", "hash"]
Combiner = Literal["sum", "mean", "sqrtn"]
Initializer = Literal["uniform", "normal", "zeros"]
RawType = Literal["string", "int64"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Keys of an encoded batch beside the names of multi-valued features.
RESERVED_NAMES = frozenset({"dense", "ids", "label", "weight"})
MAX_ROWS = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Label:
    """Which column says what happened, and which of its values count as 1.

    Without further arguments the column holds 0 or 1. `positive` and `negative` list the texts that mean 1 and 0;
    `threshold` makes a number of at least this value a 1. Anything else in the column is a bad row.
    """

    column: str
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    threshold: float | None = None


@dataclasses.dataclass(frozen=True)
class DenseFeature:
    """A number, turned into one float (two with `indicator`).

    Attributes:
      name: the feature's name: letters, digits and underscores.
      column: the column of the log; by default the name.
      transform: `none`; `log1p`, which is log(1 + max(x, 0)); or `standardize`, (x - mean) / standard deviation with
        both taken from the training rows.
      fill_value: what stands in for a missing number, in the units of the log: a number, `"mean"` (of the training
        rows), or None where a missing number makes the row a bad one.
      indicator: adds a second float, 1 where the number is missing.
    """

    name: str
    column: str = ""
    transform: Transform = "none"
    fill_value: float | Literal["mean"] | None = 0.0
    indicator: bool = False


@dataclasses.dataclass(frozen=True)
class CategoricalFeature:
    """A value, or several, each turned into a row of an embedding table.

    Attributes:
      name: the feature's name: letters, digits and underscores.
      column: the column of the log; by default the name.
      encoding: `vocabulary`: rows 1, 2, ... by falling frequency in the training rows (ties by value), row 0 for
        all others; `hash`: a fingerprint of the text modulo the table's rows; `ids`: the numbers are the rows.
      dtype: what the log and the serving requests hold: `string` or `int64`. Empty (for int64: -1) is a value like
        any other for `vocabulary` and `hash`, and out of range for `ids`.
      min_count: `vocabulary` only: rarer values share row 0.
      max_size: `vocabulary` only: at most this many values get a row of their own.
      multi_valued: any number of values an example. Implied by `separator`; without one, the column is a list column.
      separator: what stands between the values in one text field.
      weights: a column with one weight per value, in the same form. Multi-valued features only.
      out_of_range: what becomes of values with no row: `oov` (row 0), `error`, `clip` (`ids` only: the nearest
        row) or `hash` (any row, by fingerprint). Under `ids` with `oov` row 0 is shared with id 0: number from 1.
      table: the table it looks up; features that name the same table share it. By default its own name.
    """

    name: str
    column: str = ""
    encoding: Encoding = "vocabulary"
    dtype: RawType = "string"
    min_count: int = 1
    max_size: int | None = None
    multi_valued: bool = False
    separator: str | None = None
    weights: str | None = None
    out_of_range: OutOfRange = "oov"
    table: str = ""

    @property
    def weights_name(self) -> str:
        """The key of the weights in raw and in encoded batches."""
        return f"{self.name}_weights"


@dataclasses.dataclass(frozen=True)
class Table:
    """An embedding table of `rows` x `dim` floats.

    Attributes:
      name: the table's name: letters, digits and underscores.
      dim: floats per row.
      rows: its size. Left out for vocabularies, where `prepare` sets it.
      combiner: how the rows of a multi-valued feature become one: `sum`, `mean`, or `sqrtn` (the sum divided by the
        square root of the sum of squared weights).
      initializer: `uniform` in [-scale, scale], `normal` with standard deviation `scale`, or `zeros`.
      scale: in the units of the embedding; None is 1 / sqrt(rows), as in the DLRM reference (arXiv 1906.00091, code).
    """

    name: str
    dim: int = 16
    rows: int | None = None
    combiner: Combiner = "mean"
    initializer: Initializer = "uniform"
    scale: float | None = None


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """How text files are laid out. Parquet needs none of it but `missing` and `strip`.

    Attributes:
      columns: the names of all columns, in order, for files without a header line; empty for files with one.
      delimiter: between fields; None takes it from the file name: a comma for .csv, a tab otherwise. Double quotes
        enclose a field, except between tabs, where they are characters like any other.
      missing: texts that mean "no value", in dense and categorical columns alike. Empty always does.
      strip: drops blanks around each value.
    """

    columns: tuple[str, ...] = ()
    delimiter: str | None = None
    missing: tuple[str, ...] = ()
    strip: bool = False


@dataclasses.dataclass(frozen=True)
class Schema:
    """The description of a log; see the module docstring.

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
    text: TextFormat = TextFormat()

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
        listed = {t.name for t in self.tables}
        missing = dict.fromkeys(f.table for f in categorical if f.table not in listed)
        object.__setattr__(self, "tables", (*self.tables, *(Table(name) for name in missing)))
        _check_schema(self)

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
        names = [self.label.column, *([self.weight] if self.weight else []), *self.feature_columns]
        return tuple(dict.fromkeys(names))

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

    def with_rows(self, rows: Mapping[str, int]) -> Schema:
        """The same schema with the sizes of the named tables set."""
        tables = tuple(dataclasses.replace(t, rows=rows.get(t.name, t.rows)) for t in self.tables)
        return dataclasses.replace(self, tables=tables)

    def with_dim(self, dim: int) -> Schema:
        """The same schema with every table of dimension `dim`."""
        return dataclasses.replace(self, tables=tuple(dataclasses.replace(t, dim=dim) for t in self.tables))

    def to_json(self) -> str:
        """Indented JSON that `from_json` reads back to an equal schema; fields at their defaults are left out."""
        return json.dumps(_plain(self), indent=2) + "\n"

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
        return _build(cls, data, "schema")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `to_json` to `path`; the file appears whole or not at all."""
        temporary = f"{os.fspath(path)}.tmp"
        with open(temporary, "w", encoding="utf-8") as f:
            f.write(self.to_json())
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Schema:
        """Reads a JSON file.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: as `from_json`, with the path in front.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f"no schema at {os.fspath(path)}; train/infer_schema.py proposes one")
        try:
            with open(path, encoding="utf-8") as f:
                return cls.from_json(f.read())
        except ValueError as e:
            raise ValueError(f"{os.fspath(path)}: {e}") from e


def difference(old: Schema, new: Schema) -> str:
    """The first few differences between two schemas in words; empty where they are equal."""

    def flat(schema: Schema) -> dict[str, Any]:
        out: dict[str, Any] = {"label": schema.label, "weight": schema.weight, "text": schema.text}
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


# ---- validation ------------------------------------------------------------------------------------------------------


def _check_schema(schema: Schema) -> None:
    if not schema.label.column:
        raise ValueError("label: column is empty; name the column that holds the label")
    if schema.label.threshold is not None and not math.isfinite(schema.label.threshold):
        raise ValueError(f"label: threshold={schema.label.threshold} is not finite")
    if schema.label.threshold is not None and (schema.label.positive or schema.label.negative):
        raise ValueError("label: give either threshold or positive/negative values, not both")
    if bool(schema.label.positive) != bool(schema.label.negative):
        raise ValueError("label: positive and negative go together, so that any other value can be reported as bad")
    both = set(schema.label.positive) & set(schema.label.negative)
    if both:
        raise ValueError(f"label: {sorted(both)} are listed as positive and as negative")
    if not schema.dense and not schema.categorical:
        raise ValueError("the schema has no features; list some under dense or categorical")
    weights = [f.weights_name for f in schema.multi_hot if f.weights]
    _check_names([*schema.dense_columns, *(f.name for f in schema.categorical), *weights], "feature")
    _check_names([t.name for t in schema.tables], "table")
    for dense in schema.dense:
        _check_dense(dense)
    for table in schema.tables:
        _check_table(table, [f for f in schema.categorical if f.table == table.name])
    for feature in schema.categorical:
        _check_categorical(feature, schema.table_of(feature))
    _check_text(schema)


def _check_names(names: Sequence[str], kind: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{kind} {name!r}: names are letters, digits and underscores and start with a letter;"
                f" say name={re.sub(r'[^A-Za-z0-9_]', '_', name)!r} and give the log's own name as column"
            )
        if name in RESERVED_NAMES:
            raise ValueError(f"{kind} {name!r}: {', '.join(sorted(RESERVED_NAMES))} are reserved; choose another")
        if names.count(name) > 1:
            raise ValueError(f"{kind} {name!r} is listed {names.count(name)} times")


def _check_choice(where: str, field: str, value: object, hint: object) -> None:
    if value not in get_args(hint):
        raise ValueError(f"{where}: {field}={value!r} is not one of {', '.join(map(str, get_args(hint)))}")


def _check_dense(f: DenseFeature) -> None:
    where = f"feature {f.name!r}"
    _check_choice(where, "transform", f.transform, Transform)
    if isinstance(f.fill_value, str) and f.fill_value != "mean":
        raise ValueError(f"{where}: fill_value={f.fill_value!r} is neither a number, 'mean' nor null")
    if isinstance(f.fill_value, float) and not math.isfinite(f.fill_value):
        raise ValueError(f"{where}: fill_value={f.fill_value} is not finite")
    if f.fill_value is None and f.indicator:
        raise ValueError(f"{where}: indicator=true never sees a missing number, because fill_value=null refuses them")


def _check_table(t: Table, features: Sequence[CategoricalFeature]) -> None:
    where = f"table {t.name!r}"
    _check_choice(where, "combiner", t.combiner, Combiner)
    _check_choice(where, "initializer", t.initializer, Initializer)
    if not features:
        raise ValueError(f"{where}: no feature uses it; remove it or name it in a feature's table")
    if t.dim < 1:
        raise ValueError(f"{where}: dim={t.dim}; at least 1 is needed")
    if t.rows is not None and not 1 <= t.rows <= MAX_ROWS:
        raise ValueError(f"{where}: rows={t.rows} is outside 1 to {MAX_ROWS}")
    if t.scale is not None and not 0 < t.scale < math.inf:
        raise ValueError(f"{where}: scale={t.scale}; a positive number is needed, or null for 1/sqrt(rows)")
    for field in ("encoding", "dtype", "min_count", "max_size"):
        values = {getattr(f, field) for f in features}
        if len(values) > 1:
            names = ", ".join(repr(f.name) for f in features)
            raise ValueError(
                f"{where}: its features {names} differ in {field} ({sorted(map(str, values))}); they share rows"
            )


def _check_categorical(f: CategoricalFeature, table: Table) -> None:
    where = f"feature {f.name!r}"
    _check_choice(where, "encoding", f.encoding, Encoding)
    _check_choice(where, "dtype", f.dtype, RawType)
    _check_choice(where, "out_of_range", f.out_of_range, OutOfRange)
    if f.min_count < 1:
        raise ValueError(f"{where}: min_count={f.min_count}; at least 1 is needed")
    if f.max_size is not None and f.max_size < 1:
        raise ValueError(f"{where}: max_size={f.max_size}; at least 1 is needed, or null for no limit")
    if f.encoding != "vocabulary" and (f.min_count != 1 or f.max_size is not None):
        raise ValueError(f"{where}: min_count and max_size belong to encoding 'vocabulary', not {f.encoding!r}")
    if f.encoding != "vocabulary" and table.rows is None:
        raise ValueError(
            f"{where}: encoding {f.encoding!r} needs the size of its table; set rows of table {table.name!r}"
        )
    if f.encoding == "ids" and f.dtype != "int64":
        raise ValueError(f"{where}: encoding 'ids' reads numbers; set dtype='int64'")
    if f.out_of_range == "clip" and f.encoding != "ids":
        raise ValueError(f"{where}: out_of_range='clip' means the nearest id, which only encoding 'ids' has")
    if f.weights is not None and not f.multi_valued:
        raise ValueError(f"{where}: weights={f.weights!r} needs a multi-valued feature; set separator or multi_valued")
    if f.separator == "":
        raise ValueError(f"{where}: separator is empty; leave it out for a list column")


def _check_text(schema: Schema) -> None:
    columns = schema.text.columns
    if schema.text.delimiter is not None and len(schema.text.delimiter.encode()) != 1:
        raise ValueError(f"text: delimiter={schema.text.delimiter!r}; one character is needed")
    for name in columns:
        if columns.count(name) > 1:
            raise ValueError(f"text: column {name!r} is listed {columns.count(name)} times")
    for name in schema.columns:
        if columns and name not in columns:
            raise ValueError(f"text: columns does not list {name!r}, which the schema reads")
    for f in schema.categorical:
        if f.multi_valued and f.separator is None and columns:
            raise ValueError(
                f"feature {f.name!r}: text files have no list columns; give the separator between its values"
            )


# ---- JSON ------------------------------------------------------------------------------------------------------------

T = TypeVar("T")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {f.name: _plain(v) for f, v in fields if f.default is dataclasses.MISSING or v != f.default}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def _build(cls: type[T], data: object, where: str) -> T:
    """Builds dataclass `cls` from JSON objects, checking names and types; `where` begins the messages."""
    if not isinstance(data, dict):
        raise ValueError(f"{where}: a JSON object is expected, got {json.dumps(data)}")
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in data:
        if name not in fields:
            raise ValueError(f"{where}: unknown field {name!r}; known are {', '.join(fields)}")
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and name not in data:
            raise ValueError(f"{where}: field {name!r} is missing")
    return cls(**{name: _value(hints[name], v, f"{where}.{name}") for name, v in data.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where}: a list is expected, got {json.dumps(value)}")
        return tuple(_value(get_args(hint)[0], v, f"{where}[{_item_name(v, i)}]") for i, v in enumerate(value))
    options = _options(hint)
    for option in options:
        if option is float and type(value) in (int, float):
            return float(value)
        if type(value) is option or (isinstance(option, str) and value == option):
            return value
    names = ["null" if o is type(None) else o.__name__ if isinstance(o, type) else json.dumps(o) for o in options]
    raise ValueError(f"{where}: {json.dumps(value)} is not {' or '.join(names)}")


def _options(hint: Any) -> list[Any]:
    """The types and literal values that a (nested) union or literal admits."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return [o for a in get_args(hint) for o in _options(a)]
    return [hint]


def _item_name(value: object, position: int) -> str:
    name = value.get("name") if isinstance(value, dict) else None
    return repr(name) if isinstance(name, str) else str(position)
