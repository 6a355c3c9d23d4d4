"""Checks of the parts of a schema. Each error names the feature or table, its value, and the allowed values."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from tfrs_dlrm.schema.features import (
    CategoricalFeature,
    Combiner,
    DenseFeature,
    Encoding,
    Initializer,
    Label,
    Notation,
    OutOfRange,
    RawType,
    StorageType,
    Table,
    Task,
    TextFormat,
    Transform,
)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Keys of an encoded batch that no feature may have as its name.
RESERVED_NAMES = frozenset({"dense", "ids", "label", "weight"})
# The key of the groups, if the schema has any.
GROUP = "group"
MAX_ROWS = 2**31 - 1
# Numbers of one vector.
MAX_SIZE = 16384


def check_label(label: Label, where: str) -> None:
    """Checks a label; messages begin with `where`."""
    if not label.column:
        raise ValueError(f"{where}: column is empty; name the column that holds the label")
    check_choice(where, "task", label.task, Task)
    check_notation(where, label.notation)
    if label.threshold is not None and not math.isfinite(label.threshold):
        raise ValueError(f"{where}: threshold={label.threshold} is not finite")
    if label.threshold is not None and (label.positive or label.negative):
        raise ValueError(f"{where}: give either threshold or positive/negative values, not both")
    if bool(label.positive) != bool(label.negative):
        raise ValueError(f"{where}: positive and negative go together, so that any other value can be reported as bad")
    both = set(label.positive) & set(label.negative)
    if both:
        raise ValueError(f"{where}: {sorted(both)} are listed as positive and as negative")
    if label.task == "regression" and (label.threshold is not None or label.positive):
        raise ValueError(f"{where}: threshold, positive and negative make a 0 or 1; task 'regression' takes the number")
    if label.task == "classification" and label.std != 1.0:
        raise ValueError(f"{where}: std={label.std} belongs to task 'regression', not 'classification'; leave it out")
    if label.task == "classification" and not 0 <= label.mean <= 1:
        raise ValueError(f"{where}: mean={label.mean} is no share of 1s, from 0 to 1; leave it out, `prepare` sets it")
    if not math.isfinite(label.mean) or not 0 < label.std < math.inf:
        raise ValueError(f"{where}: mean={label.mean}, std={label.std}; finite numbers are needed, std above 0")
    if not 0 < label.keep_negatives <= 1:
        raise ValueError(f"{where}: keep_negatives={label.keep_negatives}; a share above 0 and at most 1 is needed")
    if label.task == "regression" and label.keep_negatives != 1:
        raise ValueError(
            f"{where}: keep_negatives={label.keep_negatives} drops rows with a 0, and task 'regression' has no"
            " negatives; leave it out"
        )
    if not 0 < label.loss_weight < math.inf:
        raise ValueError(f"{where}: loss_weight={label.loss_weight}; a positive number is needed")


def check_notation(where: str, notation: Notation) -> None:
    """Checks how numbers are written; messages begin with `where`."""
    decimal, thousands, unit = notation.decimal, notation.thousands, notation.unit
    for field, value in (("decimal", decimal), ("thousands", thousands)):
        if len(value) > 1 or value.isalnum() or value in ("+", "-"):
            raise ValueError(f"{where}: {field}={value!r} is not one character that no number has, such as ','")
    if not decimal or decimal == thousands or decimal.isspace():
        raise ValueError(f"{where}: decimal={decimal!r}, thousands={thousands!r}; two characters are needed")
    wrong = unit != unit.strip() or any(c.isdecimal() or c in "+-" for c in unit)
    if unit and (wrong or unit in (decimal, thousands, "e", "E")):
        raise ValueError(f"{where}: unit={unit!r}; a text without digits, signs, and blanks around it is needed")


def check_notations(notations: Sequence[tuple[str, Notation]]) -> None:
    """Checks that all (column, notation) of one column agree."""
    known: dict[str, Notation] = {}
    for column, notation in notations:
        if known.setdefault(column, notation) != notation:
            raise ValueError(
                f"column {column!r}: the features and labels that read it differ in decimal, thousands or unit; give"
                " all of them the same"
            )


def check_names(names: Sequence[str], kind: str) -> None:
    """Checks that names are well formed, not reserved, and unique."""
    counts = Counter(names)
    for name in counts:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{kind} {name!r}: names are letters, digits and underscores and start with a letter;"
                f" say name={re.sub(r'[^A-Za-z0-9_]', '_', name)!r} and give the log's name as column"
            )
        if name in RESERVED_NAMES:
            raise ValueError(f"{kind} {name!r}: {', '.join(sorted(RESERVED_NAMES))} are reserved; choose another")
        if counts[name] > 1:
            raise ValueError(f"{kind} {name!r} is listed {counts[name]} times")


def check_group(column: str | None, features: Sequence[str]) -> None:
    """Checks the column of groups, and that no feature has the name of its key in an encoded batch."""
    if column == "":
        raise ValueError("group='': name a column of the log, or leave it out")
    if column is not None and GROUP in features:
        raise ValueError(
            f"feature {GROUP!r}: with a group, here {column!r}, this is the key of the groups in a batch; give the"
            " feature another name, and the log's name as column"
        )


def check_choice(where: str, field: str, value: object, hint: object) -> None:
    """Checks that a field has one of the values of a Literal."""
    if value not in get_args(hint):
        raise ValueError(f"{where}: {field}={value!r} is not one of {', '.join(map(str, get_args(hint)))}")


def check_dense(f: DenseFeature) -> None:
    """Checks a dense feature."""
    where = f"feature {f.name!r}"
    listed = f.transform if isinstance(f.transform, tuple) else (f.transform,)
    for transform in listed:
        check_choice(where, "transform", transform, Transform)
    if len(listed) > 1 and listed != ("log1p", "standardize"):
        raise ValueError(
            f"{where}: transform={list(listed)}; a list is ['log1p', 'standardize'], in this order, or one transform"
        )
    if f.time is not None and f.time.parts != ("days",):
        raise ValueError(
            f"{where}: time parts {list(f.time.parts)}; a number is ['days'] alone: list the others under categorical"
        )
    if f.time is not None and f.time.origin is None and len(listed) > 1:
        raise ValueError(
            f"{where}: logarithms of days are standardized before their origin is known; give time an origin, such as"
            " 2026-01-01"
        )
    if isinstance(f.fill_value, str) and f.fill_value != "mean":
        raise ValueError(f"{where}: fill_value={f.fill_value!r} is neither a number, 'mean' nor null")
    if isinstance(f.fill_value, float) and not math.isfinite(f.fill_value):
        raise ValueError(f"{where}: fill_value={f.fill_value} is not finite")
    check_notation(where, f.notation)
    _check_vector(where, f)
    if f.fill_value is None and f.indicator:
        raise ValueError(f"{where}: indicator=true never sees a missing number, because fill_value=null refuses them")


def _check_vector(where: str, f: DenseFeature) -> None:
    if f.size is None:
        if f.separator is not None:
            raise ValueError(f"{where}: separator={f.separator!r} is between the numbers of a vector; give its size")
        if f.projected:
            raise ValueError(f"{where}: projected=true is for vectors; give its size, or drop projected")
        return
    if not 1 <= f.size <= MAX_SIZE:
        raise ValueError(f"{where}: size={f.size} is outside 1 to {MAX_SIZE}")
    if f.time is not None:
        raise ValueError(f"{where}: size={f.size} with time; a time is one number: drop size")
    if f.separator == "":
        raise ValueError(f"{where}: separator is empty; leave it out for a comma or a list column")
    if (f.separator or ",") in (f.decimal, f.thousands):
        raise ValueError(
            f"{where}: {f.separator or ','!r} is both between numbers and within them; give another separator, such"
            " as '|'"
        )


def check_table(t: Table, features: Sequence[CategoricalFeature]) -> None:
    """Checks a table and that the features that look it up agree."""
    where = f"table {t.name!r}"
    check_choice(where, "combiner", t.combiner, Combiner)
    check_choice(where, "initializer", t.initializer, Initializer)
    if t.dim < 1:
        raise ValueError(f"{where}: dim={t.dim}; at least 1 is needed")
    if t.vocabulary_size is not None and not 1 <= t.vocabulary_size <= MAX_ROWS:
        raise ValueError(f"{where}: vocabulary_size={t.vocabulary_size} is outside 1 to {MAX_ROWS}")
    if t.scale is not None and not 0 < t.scale < math.inf:
        raise ValueError(f"{where}: scale={t.scale}; a positive number is needed, or null for 1/sqrt(rows)")
    for f in features:
        if len(features) > 1 and f.encoding == "buckets":
            raise ValueError(f"{where}: feature {f.name!r} puts numbers into buckets; give it a table of its own")
    parts = {f.time.parts for f in features if f.time is not None}
    if len(parts) > 1:
        raise ValueError(f"{where}: its features are the parts {sorted(parts)} of times; give each part a table")
    for field in ("encoding", "dtype", "min_count", "max_size", "cross"):
        values = {getattr(f, field) for f in features}
        if len(values) > 1:
            names = ", ".join(repr(f.name) for f in features)
            raise ValueError(
                f"{where}: its features {names} differ in {field} ({sorted(map(str, values))}); they share rows"
            )


def check_storage(t: Table, tables: Sequence[Table], categorical: Sequence[CategoricalFeature]) -> None:
    """Checks the storage of a table's rows against all tables and features."""
    where = f"table {t.name!r}"
    if t.name.endswith(("__quotient", "__remainder")):
        raise ValueError(f"{where}: the endings __quotient and __remainder are those of parts of a table")
    stored = [other.name for other in tables if other.stored_in == t.name]
    users = [f.name for f in categorical if f.table == t.name]
    if not users and not stored:
        raise ValueError(f"{where}: no feature uses it; remove it or name it in a feature's table")
    check_choice(where, "dtype", t.dtype, StorageType)
    if t.remainders is not None:
        if t.stored_in:
            raise ValueError(f"{where}: remainders and stored_in are two ways to store it; choose one")
        if t.remainders < 2 or (t.vocabulary_size is not None and t.remainders >= t.vocabulary_size):
            raise ValueError(
                f"{where}: remainders={t.remainders}; at least 2 and less than"
                f" vocabulary_size={t.vocabulary_size} are needed"
            )
    if t.init_from and (t.stored_in or t.remainders is not None):
        raise ValueError(f"{where}: init_from gives each row a vector, and the rows of a compressed table share theirs")
    if t.stored_in and not t.trainable:
        raise ValueError(f"{where}: its rows are in table {t.stored_in!r}; set trainable there")
    if t.stored_in:
        store = next((other for other in tables if other.name == t.stored_in), None)
        if store is None:
            raise ValueError(f"{where}: stored_in={t.stored_in!r} is not among the tables; add it, with its rows")
        if store.remainders is not None or store.stored_in:
            raise ValueError(f"{where}: stored_in={t.stored_in!r} is compressed too; name a table that is not")
        for field in ("dtype", "initializer", "scale"):
            if getattr(t, field) != getattr(Table, field):
                raise ValueError(
                    f"{where}: {field} belongs to the table that stores the rows; set it in {store.name!r}"
                )
    if stored and t.vocabulary_size is None:
        raise ValueError(f"{where}: stores the rows of {', '.join(stored)}; set its rows")
    if stored and users:
        raise ValueError(f"{where}: stores the rows of {', '.join(stored)} and of features {users}; keep them apart")


def check_categorical(f: CategoricalFeature, table: Table) -> None:
    """Checks a categorical feature against its table."""
    where = f"feature {f.name!r}"
    check_choice(where, "encoding", f.encoding, Encoding)
    check_choice(where, "dtype", f.dtype, RawType)
    check_choice(where, "out_of_range", f.out_of_range, OutOfRange)
    if f.min_count < 1:
        raise ValueError(f"{where}: min_count={f.min_count}; at least 1 is needed")
    if f.max_size is not None and f.max_size < 1:
        raise ValueError(f"{where}: max_size={f.max_size}; at least 1 is needed, or null for no limit")
    if f.encoding != "vocabulary" and (f.min_count != 1 or f.max_size is not None):
        raise ValueError(f"{where}: min_count and max_size belong to encoding 'vocabulary', not {f.encoding!r}")
    if f.encoding in ("hash", "ids") and table.vocabulary_size is None:
        raise ValueError(
            f"{where}: encoding {f.encoding!r} needs the size of its table; set vocabulary_size of table {table.name!r}"
        )
    if f.encoding == "ids" and f.dtype != "int64":
        raise ValueError(f"{where}: encoding 'ids' reads numbers; set dtype='int64'")
    if f.out_of_range == "clip" and f.encoding != "ids":
        raise ValueError(f"{where}: out_of_range='clip' means the nearest id, which only encoding 'ids' has")
    if f.weights is not None and not f.multi_valued:
        raise ValueError(f"{where}: weights={f.weights!r} needs a multi-valued feature; set separator or multi_valued")
    if f.sequence_length is not None:
        if not f.multi_valued:
            raise ValueError(f"{where}: sequence_length needs a multi-valued feature; set separator or multi_valued")
        if f.sequence_length < 1:
            raise ValueError(f"{where}: sequence_length={f.sequence_length}; at least 1 is needed, or null to combine")
    if f.separator == "":
        raise ValueError(f"{where}: separator is empty; leave it out for a list column")


def check_text(text: TextFormat, categorical: Sequence[CategoricalFeature]) -> None:
    """Checks the layout of text files. Columns that `columns` does not list may be in the names of directories."""
    columns = text.columns
    if text.delimiter is not None and len(text.delimiter.encode()) != 1:
        raise ValueError(f"text: delimiter={text.delimiter!r}; one character is needed")
    if text.quote is not None and (len(text.quote.encode()) > 1 or text.quote in (text.delimiter or ",\t", "\n", "\r")):
        raise ValueError(f"text: quote={text.quote!r}; one character other than the delimiter is needed, or none")
    for name in columns:
        if columns.count(name) > 1:
            raise ValueError(f"text: column {name!r} is listed {columns.count(name)} times")
    for f in categorical:
        if f.multi_valued and f.separator is None and columns:
            raise ValueError(
                f"feature {f.name!r}: text files have no list columns; give the separator between its values"
            )
