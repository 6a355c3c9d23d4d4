"""Proposes a schema from the first rows of a log, for somebody who knows the data to read and correct."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw.frames import RawInputs, expand_inputs
from tfrs_dlrm.data.raw.sniffing import SampledColumn, read_first_rows
from tfrs_dlrm.schema import RESERVED_NAMES, CategoricalFeature, DenseFeature, Label, RawType, Schema, Task

_LABEL_NAMES = frozenset(
    {"label", "target", "y", "click", "clicked", "clicks", "isclick", "isclicked", "converted", "conversion"}
    | {"isconversion", "isconverted", "outcome", "response"}
)
_YES = frozenset({"yes", "y", "true", "t", "positive", "click", "clicked"})
_ID_NAMES = frozenset(
    {"id", "ids", "uid", "uuid", "guid", "user", "item", "code", "zip", "zipcode", "postcode", "hash", "key", "type"}
)
# Whole numbers are names if they have at most _FEW values, each of which occurs _OFTEN times on average.
_FEW, _OFTEN = 32, 10
# In vocabularies of more than _MANY values, values that occur less than _MIN_COUNT times share a row.
_MANY, _MIN_COUNT = 1000, 5
_SKEWED = 2.0
# Fewer rows do not show that the values of a column are unique.
_ENOUGH_ROWS = 50
_SEPARATORS = "|;,"

Feature = DenseFeature | CategoricalFeature


@dataclasses.dataclass(frozen=True)
class SchemaProposal:
    """A proposed schema and its reasons.

    Attributes:
      schema: the schema.
      notes: one line per column of the log, in order.
      rows: how many rows it was made of.
      files: of how many files or frames they are.
      all_files: how many files or frames there are.
    """

    schema: Schema
    notes: dict[str, str]
    rows: int = 0
    files: int = 1
    all_files: int = 1

    def kinds(self) -> dict[str, str]:
        """Returns the proposed role of each column of the log, in a word or two."""
        kinds = dict.fromkeys(self.notes, "left out") | {self.schema.label.column: "label"}
        kinds |= {f.column: f"dense, {f.transform}" for f in self.schema.dense}
        return kinds | {f.column: "multi-valued" if f.multi_valued else "categorical" for f in self.schema.categorical}


def infer_schema(
    data: RawInputs,
    *,
    label: str | None = None,
    columns: Sequence[str] = (),
    delimiter: str | None = None,
    rows: int = 100_000,
    task: Task = "classification",
) -> SchemaProposal:
    """Proposes a schema.

    Numbers become dense features: `log1p` if they are skewed and hardly ever negative, otherwise `standardize`, with
    an indicator if some are missing. Texts, ids and whole numbers of few values become vocabularies. List columns, and
    texts that join recurring values, become multi-valued features. Columns of one value or of unique values are left
    out.

    Args:
      data: what `prepare` takes: paths, directories and glob patterns of text and Parquet files, whose first rows are
        read; or data in memory: a pandas or polars DataFrame, a pyarrow Table, a DuckDB relation.
      label: the column of the label; by default the one with a usual name, such as "click", and two values. Of two
        texts the positive one is "yes" or "true", otherwise the rarer. Of two numbers it is the larger. More numbers
        get a threshold that at most half of the rows reach.
      columns: the names of the columns, for text files without a header line.
      delimiter: between the fields of text files; by default found in the first line.
      rows: how many rows to read.
      task: of the label; `regression` predicts the number itself, and needs `label`.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: the file is empty or damaged, has no header while no `columns` are given, or has no clear label.
    """
    inputs = expand_inputs(data, "data")
    path = str(inputs[0])
    first = read_first_rows(inputs, columns, delimiter, rows, label)
    first_rows = first.columns
    if task == "regression" and label is None:
        raise ValueError(f"{path}: any column of numbers may be what is to be predicted; give its name as label")
    if label in first.unusable:
        raise ValueError(f"{path}: column {label!r} cannot be the label: {first.unusable[label]}")
    if label is not None and label not in first_rows:
        more = f"; left out: {', '.join(first.unusable)}" if first.unusable else ""
        raise ValueError(f"{path}: no column {label!r} for the label; it has: {', '.join(first_rows)[:500]}{more}")
    name = _label_column(path, first_rows, label)
    proposed, note = _label(path, first_rows[name], task)
    notes: dict[str, str] = dict(first.unusable)
    features: list[Feature] = []
    taken = set(RESERVED_NAMES)
    for column in first_rows.values():
        if column.name == name:
            notes[column.name] = note
            continue
        feature, notes[column.name] = _feature(column, _feature_name(column.name, taken))
        if feature is not None:
            features.append(feature)
            taken |= {feature.name, f"{feature.name}_missing"}
    if not features:
        reasons = "; ".join(f"{column}: {reason}" for column, reason in notes.items() if column != name)
        raise ValueError(f"{path}: no column can be a feature ({reasons})"[:1000])
    schema = Schema(
        proposed,
        dense=tuple(f for f in features if isinstance(f, DenseFeature)),
        categorical=tuple(f for f in features if isinstance(f, CategoricalFeature)),
        text=first.text,
    )
    return SchemaProposal(schema, notes, first.rows, first.files, len(inputs))


# ---- the label -------------------------------------------------------------------------------------------------------


def _label_column(path: str, first_rows: dict[str, SampledColumn], given: str | None) -> str:
    if given is not None:
        return given
    two = [c.name for c in first_rows.values() if c.distinct == 2]
    named = [n for n in first_rows if re.sub(r"[^a-z]", "", n.lower()) in _LABEL_NAMES]
    found = [n for n in named if n in two or _is_zero_one(first_rows[n].numbers)]
    if len(found) == 1:
        return found[0]
    candidates = found or two or named
    what = f"it may be {', '.join(map(repr, candidates))}" if candidates else "no column holds two values"
    raise ValueError(f"{path}: it is unclear which column is the label; {what}. Give its name as label")


def _is_zero_one(numbers: np.ndarray | None) -> bool:
    return numbers is not None and len(numbers) > 0 and set(numbers) <= {0.0, 1.0}


def _label(path: str, column: SampledColumn, task: Task) -> tuple[Label, str]:
    none = f"; {column.missing:.1%} of the rows have none, which makes them bad rows" if column.missing else ""
    numbers = column.numbers
    none += "" if numbers is None else _infinite(column)
    if task == "regression":
        if numbers is None or not len(numbers):
            raise ValueError(
                f"{path}: column {column.name!r} cannot be predicted as a number; it does not hold numbers"
            )
        note = f"numbers from {numbers.min():g} to {numbers.max():g}, {numbers.mean():g} in the mean{none}"
        return Label(column.name, task=task), note
    if numbers is not None and _is_zero_one(numbers):
        return Label(column.name), f"0 or 1; {numbers.mean():.1%} are 1{none}"
    if numbers is not None and column.distinct >= 2:
        values, counts = np.unique(numbers, return_counts=True)
        above = counts[::-1].cumsum()[::-1] / counts.sum()
        threshold = values[int(np.argmax(above <= 0.5)) or -1]  # above[0] is 1, so index 0 means that none was found
        share = (numbers >= threshold).mean()
        return Label(column.name, threshold=float(threshold)), f"{threshold:g} or more is 1: {share:.1%}{none}"
    if column.distinct == 2:
        negative, positive = column.counts  # the rarer one is the second
        if str(negative).lower() in _YES and str(positive).lower() not in _YES:
            negative, positive = positive, negative
        share = column.counts[positive] / sum(column.counts.values())
        label = Label(column.name, positive=(str(positive),), negative=(str(negative),))
        return label, f"{positive!r} is 1, {negative!r} is 0; {share:.1%} are 1{none}"
    shown = ", ".join(repr(v) for v in list(column.counts)[:5]) if column.distinct else str(column.values.type)
    raise ValueError(
        f"{path}: column {column.name!r} cannot be the label; two values or numbers are needed, it holds: {shown}"
    )


# ---- the features ----------------------------------------------------------------------------------------------------


def _feature_name(column: str, taken: set[str]) -> str:
    """Makes an unused name of letters, digits and underscores: `capital-gain` becomes capital_gain."""
    base = re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_")
    base = base if re.match("[A-Za-z]", base) else f"c_{base}".rstrip("_")
    name, number = base, 2
    while {name, f"{name}_missing"} & taken:
        name, number = f"{base}_{number}", number + 1
    return name


def _feature(column: SampledColumn, name: str) -> tuple[Feature | None, str]:
    """Proposes a feature for a column, and says why; None leaves the column out."""
    missing = f", {max(column.missing, 0.001):.1%} missing" if column.missing else ""
    if column.values.null_count == len(column.values):
        return None, f"no value in {len(column.values):,} rows"
    if column.is_list:
        return _list(column, name, missing)
    kind, distinct = column.values.type, column.distinct
    present = len(column.values) - column.values.null_count
    if pa.types.is_temporal(kind) or distinct == 0:
        example = "the hour or the weekday" if pa.types.is_temporal(kind) else "its fields, or its text"
        return None, f"of type {kind}; numbers and texts are needed, such as {example}"
    if distinct == 1 and not missing:
        return None, f"always {str(next(iter(column.counts)))[:40]!r}"
    unique = distinct == len(column.values) >= _ENOUGH_ROWS
    if column.numbers is not None and not (column.is_whole and unique):
        if not column.is_whole or not _is_name(column, distinct, present):
            return _dense(column, name, column.numbers, missing)
        dtype: RawType = "int64" if column.numbers.min() >= 0 else "string"
        note = f"{distinct:,} whole numbers{missing}{_rare(distinct)}{_infinite(column) if dtype == 'int64' else ''}"
        return _vocabulary(name, column.name, distinct, dtype), note
    separator, parts = _separator(column)
    if separator:
        feature = dataclasses.replace(_vocabulary(name, column.name, parts, "string"), separator=separator)
        return feature, f"{parts:,} values joined by {separator!r}{missing}{_rare(parts)}"
    if unique or (distinct > 0.9 * present and present >= _ENOUGH_ROWS):
        return None, f"{distinct:,} values in {present:,} rows: an identifier, or free text"
    return _vocabulary(name, column.name, distinct, "string"), f"{distinct:,} values{missing}{_rare(distinct)}"


def _infinite(column: SampledColumn) -> str:
    """Says how many rows `prepare` refuses because the number is infinite."""
    then = "prepare stops at such rows, or sets them aside with bad_rows='quarantine'"
    return f"; infinite in {column.infinite:,} of {len(column.values):,} rows: {then}" if column.infinite else ""


def _is_name(column: SampledColumn, distinct: int, present: int) -> bool:
    """Whether whole numbers are names of things, by the column's name or because few values occur."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.name).lower()
    return re.split(r"[^a-z]+", words)[-1] in _ID_NAMES or (distinct <= _FEW and present >= _OFTEN * distinct)


def _vocabulary(name: str, column: str, distinct: int, dtype: RawType) -> CategoricalFeature:
    return CategoricalFeature(name, column, dtype=dtype, min_count=_MIN_COUNT if distinct > _MANY else 1)


def _rare(distinct: int) -> str:
    return f"; those seen less than {_MIN_COUNT} times share a row" if distinct > _MANY else ""


def _dense(column: SampledColumn, name: str, numbers: np.ndarray, missing: str) -> tuple[DenseFeature, str]:
    deviation = numbers.std()
    skewness = ((numbers - numbers.mean()) ** 3).mean() / deviation**3 if deviation else 0.0
    skewed = bool(skewness > _SKEWED and np.quantile(numbers, 0.25) >= 0)
    feature = DenseFeature(
        name,
        column.name,
        transform="log1p" if skewed else "standardize",
        fill_value=0.0 if skewed and not missing else "mean",
        indicator=bool(missing),
    )
    shape = ", skewed" if skewed else ""
    return feature, f"numbers from {numbers.min():g} to {numbers.max():g}{shape}{missing}{_infinite(column)}"


def _list(column: SampledColumn, name: str, missing: str) -> tuple[CategoricalFeature | None, str]:
    items = SampledColumn(column.name, pc.list_flatten(column.values))
    kind = items.values.type
    if not (items.is_text or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        return None, f"of type {column.values.type}; lists of texts or whole numbers are needed"
    distinct = items.distinct if len(items.values) else 0
    if distinct == 0:
        return None, f"no value in {len(column.values):,} rows"
    whole = pa.types.is_integer(kind) and items.numbers is not None and items.numbers.min() >= 0
    feature = _vocabulary(name, column.name, distinct, "int64" if whole else "string")
    return dataclasses.replace(feature, multi_valued=True), f"lists of {distinct:,} values{missing}{_rare(distinct)}"


def _separator(column: SampledColumn) -> tuple[str, int]:
    """Finds the separator of recurring values in the texts of a column, and the number of distinct values."""
    texts = [str(text) for text in column.counts] if column.is_text else []
    for separator in _SEPARATORS:
        joined = sum(n for text, n in column.counts.items() if separator in str(text))
        if not texts or joined < 0.05 * len(column.values):
            continue
        if separator == "," and all(re.fullmatch(r"-?[0-9]+(,[0-9]+)?", text) for text in texts):
            continue  # a decimal comma
        if all(text.count(separator) == text.count(f"{separator} ") for text in texts):
            separator += " "
        parts = [part for text in texts for part in text.split(separator)]
        distinct = len(set(parts))
        if distinct < len(texts) and 2 * distinct <= len(parts):
            return separator, distinct
    return "", 0
