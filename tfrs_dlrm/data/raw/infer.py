"""Proposes a schema from the first rows of a log, for somebody who knows the data to read and correct."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw.column_notes import infinite_note, notation_note
from tfrs_dlrm.data.raw.frames import RawInputs, expand_inputs
from tfrs_dlrm.data.raw.notations import looks_like_number, may_be_lists
from tfrs_dlrm.data.raw.proposed_label import label_column, propose_label
from tfrs_dlrm.data.raw.sampled_column import SampledColumn
from tfrs_dlrm.data.raw.sniffing import read_first_rows
from tfrs_dlrm.data.raw.values import MAX_INT64
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.schema import RESERVED_NAMES, CategoricalFeature, DenseFeature, RawType, Schema, Task

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


@checked
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
    if len(first_rows) == 1 and " " in (only := next(iter(first_rows))):
        raise ValueError(f"{path}: it has one column, {only[:80]!r}; if blanks separate columns, give delimiter=' '")
    if label in first.unusable:
        raise ValueError(f"{path}: column {label!r} cannot be the label: {first.unusable[label]}")
    if label is not None and label not in first_rows:
        more = f"; left out: {', '.join(first.unusable)}" if first.unusable else ""
        raise ValueError(f"{path}: no column {label!r} for the label; it has: {', '.join(first_rows)[:500]}{more}")
    name = label_column(path, first_rows, label)
    proposed, note = propose_label(path, first_rows[name], task)
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
    if distinct == 0 and not pa.types.is_temporal(kind):
        return None, f"of type {kind}; numbers and texts are needed, such as its fields, or its text"
    if distinct == 1 and not missing and not pa.types.is_temporal(kind):
        return None, f"always {str(next(iter(column.counts)))[:40]!r}"
    if column.time and not (column.numbers is not None and _has_name_of_id(column)):
        what = f"a time: {column.time}, left out; numbers or texts of it are needed, such as the hour or the weekday"
        return None, what
    separator, parts = _separator(column)
    if may_be_lists(column.texts, column.notation) and separator:
        return _joined(column, name, separator, parts, missing)
    if column.is_rounded and _has_name_of_id(column):
        return None, (
            "whole numbers that a float cannot tell apart: different ids may have become equal where the file was"
            " written; write them as integers or text"
        )
    unique = distinct == len(column.values) >= _ENOUGH_ROWS
    whole = column.whole
    if whole is None and column.numbers is not None:
        return _dense(column, name, missing)
    nearly_unique = column.is_large and distinct > 0.9 * present and present >= _ENOUGH_ROWS
    if whole is not None and not unique and not nearly_unique:
        return _whole(column, name, missing) if _is_name(column, present) else _dense(column, name, missing)
    if separator:
        return _joined(column, name, separator, parts, missing)
    if unique or (distinct > 0.9 * present and present >= _ENOUGH_ROWS):
        return None, f"{distinct:,} values in {present:,} rows: an identifier, or free text"
    alike = sum(map(looks_like_number, column.texts)) > 0.9 * max(1, len(column.texts))
    mixed = "; most look like numbers, but not all in one notation and unit" if alike else ""
    return _vocabulary(name, column.name, distinct, "string"), f"{distinct:,} values{missing}{_rare(distinct)}{mixed}"


def _joined(
    column: SampledColumn, name: str, separator: str, parts: int, missing: str
) -> tuple[CategoricalFeature, str]:
    """Proposes a vocabulary of the values that texts join."""
    feature = dataclasses.replace(_vocabulary(name, column.name, parts, "string"), separator=separator)
    return feature, f"{parts:,} values joined by {separator!r}{missing}{_rare(parts)}"


def _whole(column: SampledColumn, name: str, missing: str) -> tuple[CategoricalFeature, str]:
    """Proposes a vocabulary of whole numbers or booleans."""
    distinct = len(column.whole or ())
    if column.is_boolean:
        return _vocabulary(name, column.name, distinct, "int64"), f"true or false, read as 1 or 0{missing}"
    dtype: RawType = "int64" if column.fits_int64 else "string"
    beyond = " beyond int64, read as text" if max(column.whole or [0]) > MAX_INT64 else ""
    infinite = infinite_note(column) if dtype == "int64" else ""
    note = f"{distinct:,} whole numbers{beyond}{missing}{_rare(distinct)}{infinite}"
    return _vocabulary(name, column.name, distinct, dtype), note


def _is_name(column: SampledColumn, present: int) -> bool:
    """Whether whole numbers are names of things: by the column's name, by their size, or because few values occur."""
    few = column.distinct <= _FEW and present >= _OFTEN * column.distinct
    return column.is_boolean or column.is_large or few or _has_name_of_id(column)


def _has_name_of_id(column: SampledColumn) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.name).lower()
    return re.split(r"[^a-z]+", words)[-1] in _ID_NAMES


def _vocabulary(name: str, column: str, distinct: int, dtype: RawType) -> CategoricalFeature:
    return CategoricalFeature(name, column, dtype=dtype, min_count=_MIN_COUNT if distinct > _MANY else 1)


def _rare(distinct: int) -> str:
    return f"; those seen less than {_MIN_COUNT} times share a row" if distinct > _MANY else ""


def _dense(column: SampledColumn, name: str, missing: str) -> tuple[DenseFeature, str]:
    numbers = column.numbers if column.numbers is not None else np.zeros(1)
    deviation = numbers.std()
    skewness = ((numbers - numbers.mean()) ** 3).mean() / deviation**3 if deviation else 0.0
    skewed = bool(skewness > _SKEWED and np.quantile(numbers, 0.25) >= 0)
    feature = DenseFeature(
        name,
        column.name,
        transform="log1p" if skewed else "standardize",
        fill_value=0.0 if skewed and not missing else "mean",
        indicator=bool(missing),
        **dataclasses.asdict(column.notation),
    )
    shape = ", skewed" if skewed else ""
    span = f"numbers from {numbers.min():g} to {numbers.max():g}"
    return feature, f"{span}{notation_note(column)}{shape}{missing}{infinite_note(column)}"


def _list(column: SampledColumn, name: str, missing: str) -> tuple[CategoricalFeature | None, str]:
    items = SampledColumn(column.name, pc.list_flatten(column.values))
    kind = items.values.type
    if not (items.is_text or pa.types.is_large_string(kind) or items.whole is not None):
        return None, f"of type {column.values.type}; lists of texts or whole numbers are needed"
    distinct = items.distinct if len(items.values) else 0
    if distinct == 0:
        return None, f"no value in {len(column.values):,} rows"
    whole = items.whole is not None and not items.is_text and items.fits_int64
    feature = _vocabulary(name, column.name, distinct, "int64" if whole else "string")
    return dataclasses.replace(feature, multi_valued=True), f"lists of {distinct:,} values{missing}{_rare(distinct)}"


def _separator(column: SampledColumn) -> tuple[str, int]:
    """Finds the separator of recurring values in the texts of a column, and the number of distinct values."""
    texts = [str(text) for text in column.counts] if column.is_text else []
    for separator in _SEPARATORS:
        joined = sum(n for text, n in column.counts.items() if separator in str(text))
        if not texts or joined < 0.05 * len(column.values):
            continue
        if all(text.count(separator) == text.count(f"{separator} ") for text in texts):
            separator += " "
        parts = [part for text in texts for part in text.split(separator)]
        distinct = len(set(parts))
        if distinct < len(texts) and 2 * distinct <= len(parts):
            return separator, distinct
    return "", 0
