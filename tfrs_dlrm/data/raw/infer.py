"""Proposes a schema from the first rows of a log, for somebody who knows the data to read and correct."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from tfrs_dlrm.data.raw.frames import RawInputs, expand_inputs
from tfrs_dlrm.data.raw.number_or_category import Certainty
from tfrs_dlrm.data.raw.proposed_feature import Feature, propose_feature
from tfrs_dlrm.data.raw.proposed_label import label_certainty, label_column, labels_of, propose_label
from tfrs_dlrm.data.raw.proposed_vector import FoundVector, find_vector
from tfrs_dlrm.data.raw.sampled_column import SampledColumn
from tfrs_dlrm.data.raw.sniffing import read_first_rows
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.schema import RESERVED_NAMES, CategoricalFeature, DenseFeature, Schema, Task

_PARTS = ("hour", "weekday", "month", "days")
_BESIDE = ("missing", "bucket")


@dataclasses.dataclass(frozen=True)
class SchemaProposal:
    """A proposed schema and its reasons.

    Attributes:
      schema: the schema.
      notes: one line per column of the log, in order: why it became what it is.
      certainty: how sure that is, by column: `sure`, `likely` or `guess`. Look at the guesses first.
      rows: how many rows it was made of.
      files: of how many files or frames they are.
      all_files: how many files or frames there are.
    """

    schema: Schema
    notes: dict[str, str]
    certainty: dict[str, Certainty]
    rows: int = 0
    files: int = 1
    all_files: int = 1

    def kinds(self) -> dict[str, str]:
        """Returns the proposed role of each column of the log, in a word or two."""
        kinds = dict.fromkeys(self.notes, "left out") | {self.schema.label.column: "label"}
        kinds |= {f.column: _kind(f) for f in self.schema.dense}
        for f in self.schema.categorical:
            if f.encoding == "buckets" and f.time is None:
                kinds[f.column] += ", buckets"
                continue
            if f.time is None:
                kinds[f.column] = "multi-valued" if f.multi_valued else "categorical"
            else:
                said = kinds[f.column]
                parts = ", ".join(f.time.parts)
                kinds[f.column] = f"{said}, {parts}" if said.startswith("time") else f"time: {parts}"
        return kinds


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

    Numbers become dense features: standardized logarithms if they are skewed and hardly ever negative, logarithms if
    they are 0 in nearly all rows, otherwise `standardize`, with an indicator if some are missing. `NAME_bucket` gives
    each of them 32 buckets, or 256 if single values have labels of their own. Of times, the parts that come again
    become features. Texts and ids become vocabularies. Whole numbers may be either: that is decided by the column's
    name, by how often its values occur, and by whether the label follows their size or the single values. Lists of
    floats of one length, such as embeddings, become vectors. Other list columns, and texts that join recurring values,
    become multi-valued features. Columns of one value or of unique values are left out.

    Args:
      data: what `prepare` takes: paths, directories and glob patterns of text and Parquet files, whose first rows are
        read; or data in memory: a pandas or polars DataFrame, a pyarrow Table, a DuckDB relation.
      label: the column of the label; by default the only one of 0 and 1, or the one with a usual name, such as "click".
        Of two texts the positive one is "yes" or "true", otherwise the rarer. Of two numbers it is the larger. More
        numbers get a threshold that at most half of the rows reach.
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
    name, chosen = label_column(path, first_rows, label)
    proposed, note = propose_label(path, first_rows[name], task)
    labels = labels_of(first_rows[name], proposed)
    notes: dict[str, str] = dict(first.unusable)
    certainty: dict[str, Certainty] = dict.fromkeys(notes, "sure")
    features: list[Feature] = []
    buckets: dict[str, int] = {}
    taken = set(RESERVED_NAMES)
    for column in first_rows.values():
        if column.name == name:
            notes[name] = f"{note}; {chosen}" if chosen else note
            certainty[name] = label_certainty(proposed, label is not None, chosen)
            continue
        vector = find_vector(column)
        found = propose_feature(column, _feature_name(column, taken, vector), labels, vector, first.rows >= rows)
        notes[column.name], certainty[column.name] = found.note, found.certainty
        if found.feature is not None:
            features.append(found.feature)
            buckets[found.feature.name] = found.buckets
            taken |= _names(found.feature)
    if not features:
        reasons = "; ".join(f"{column}: {reason}" for column, reason in notes.items() if column != name)
        raise ValueError(f"{path}: no column can be a feature ({reasons})"[:1000])
    dense = tuple(f for f in features if isinstance(f, DenseFeature))
    cut = [_buckets(f, buckets[f.name]) for f in dense if f.size is None]
    categorical = [f for f in features if isinstance(f, CategoricalFeature)]
    schema = Schema(proposed, dense=dense, categorical=(*categorical, *cut), text=first.text)
    return SchemaProposal(schema, notes, certainty, first.rows, first.files, len(inputs))


def _kind(f: DenseFeature) -> str:
    kind = "dense" if f.size is None else f"vector of {f.size:,}"
    return f"{kind}, {' and '.join(f.transforms) or 'none'}"


def _buckets(number: DenseFeature, count: int) -> CategoricalFeature:
    """Returns the buckets of a number, which are read from the same column."""
    fields = ("decimal", "thousands", "unit", "time")
    return CategoricalFeature(
        f"{number.name}_bucket",
        number.column or number.name,
        encoding="buckets",
        buckets=count,
        **{field: getattr(number, field) for field in fields},
    )


def _feature_name(column: SampledColumn, taken: set[str], vector: FoundVector | None) -> str:
    """Makes an unused name of letters, digits and underscores: `capital-gain` becomes capital_gain."""
    base = re.sub(r"[^A-Za-z0-9]+", "_", column.name).strip("_")
    base = base if re.match("[A-Za-z]", base) else f"c_{base}".rstrip("_")
    name, number = base, 2
    more = (*_BESIDE, *(_PARTS if column.time else ()), *range(vector.size if vector else 0))
    while {name, *(f"{name}_{part}" for part in more)} & taken:
        name, number = f"{base}_{number}", number + 1
    return name


def _names(feature: Feature) -> set[str]:
    """Returns the names that a feature takes, also those of its indicator, buckets, numbers, and parts of its time."""
    more = feature.time.parts if feature.time is not None else _BESIDE
    numbers = feature.numbers if isinstance(feature, DenseFeature) else ()
    return {feature.name, *numbers, *(f"{feature.name}_{part}" for part in more)}
