"""Proposes what becomes of one column of a log, and says why, for `infer_schema`."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw.column_names import said_by_name
from tfrs_dlrm.data.raw.column_notes import infinite_note, notation_note
from tfrs_dlrm.data.raw.joined_values import find_separator
from tfrs_dlrm.data.raw.notations import looks_like_number, may_be_lists
from tfrs_dlrm.data.raw.number_evidence import label_evidence
from tfrs_dlrm.data.raw.number_or_category import ENOUGH_ROWS, Certainty, Decision, decide
from tfrs_dlrm.data.raw.proposed_time import propose_time
from tfrs_dlrm.data.raw.proposed_vector import FoundVector, lengths
from tfrs_dlrm.data.raw.sampled_column import SampledColumn
from tfrs_dlrm.data.raw.values import MAX_INT64
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, RawType, Transform

# In vocabularies of more than _MANY values, values that occur less than _MIN_COUNT times share a row.
_MANY, _MIN_COUNT = 1000, 5
_SKEWED = 2.0
# More negative numbers than this share are worth telling apart. More zeros than this share make the others stand more
# than ten deviations out, because the deviation of a share p is its square root.
_NEGATIVE, _ZEROS = 0.05, 0.99
# Intervals beside each number, since an MLP of few rows hardly learns steps and peaks; and where single values have
# labels of their own, by so many standard errors: docs/guides/defaults.md.
_BUCKETS, _MANY_BUCKETS, _OF_THEIR_OWN = 32, 256, 4.0

Feature = DenseFeature | CategoricalFeature


@dataclasses.dataclass(frozen=True)
class ProposedFeature:
    """What becomes of a column.

    Attributes:
      feature: the feature; None if the column is left out.
      note: why, in one line.
      certainty: how sure this is.
      buckets: of a number, into how many intervals to cut it, too.
    """

    feature: Feature | None
    note: str
    certainty: Certainty = "sure"
    buckets: int = _BUCKETS


def propose_feature(
    column: SampledColumn,
    name: str,
    labels: np.ndarray | None,
    vector: FoundVector | None = None,
    partial: bool = False,
) -> ProposedFeature:
    """Proposes a feature called `name` for a column.

    Args:
      column: the first rows.
      name: of the feature.
      labels: float64 [rows], 0 or 1, NaN where there is none; None if nothing is known of them.
      vector: what `find_vector` found.
      partial: whether the log has more rows than these.
    """
    missing = f", {max(column.missing, 0.001):.1%} missing" if column.missing else ""
    if column.values.null_count == len(column.values):
        return ProposedFeature(None, f"no value in {len(column.values):,} rows")
    if vector is not None:
        return _vector(column, name, missing, vector)
    if column.is_list:
        return _list(column, name, missing)
    kind, distinct = column.values.type, column.distinct
    if distinct == 0 and not pa.types.is_temporal(kind):
        return ProposedFeature(None, f"of type {kind}; numbers and texts are needed, such as its fields, or its text")
    if distinct == 1 and not missing and not pa.types.is_temporal(kind):
        return ProposedFeature(None, f"always {str(next(iter(column.counts)))[:40]!r}")
    named_id = said_by_name(column.name) == "id"
    if column.time and not (column.numbers is not None and named_id):
        found = propose_time(column, partial)
        feature = CategoricalFeature(name, column.name, time=found.time) if found.time else None
        return ProposedFeature(feature, found.note, found.certainty)
    if column.is_rounded and named_id:
        return ProposedFeature(
            None,
            "whole numbers that a float cannot tell apart: different ids may have become equal where the file was"
            " written; write them as integers or text",
        )
    separator, parts = find_separator(column)
    if separator and (column.numbers is None or may_be_lists(column.texts, column.notation)):
        return _joined(column, name, separator, parts, missing)
    if column.whole is not None:
        return _whole(column, name, missing, decide(column, labels), labels)
    return _text(column, name, missing) if column.numbers is None else _dense(column, name, missing)


def _joined(column: SampledColumn, name: str, separator: str, parts: int, missing: str) -> ProposedFeature:
    """Proposes a vocabulary of the values that texts join."""
    feature = dataclasses.replace(_vocabulary(name, column.name, parts, "string"), separator=separator)
    note = f"{parts:,} values joined by {separator!r}{missing}{_rare(parts)}"
    return ProposedFeature(feature, note, "likely" if separator == " " else "sure")


def _whole(
    column: SampledColumn, name: str, missing: str, decision: Decision, labels: np.ndarray | None
) -> ProposedFeature:
    """Proposes what becomes of whole numbers or booleans."""
    distinct = len(column.whole or ())
    if decision.kind == "once":
        note = f"{distinct:,} whole numbers in {len(column.values):,} rows: {decision.reason}"
        return ProposedFeature(None, note, decision.certainty)
    if decision.kind == "number":
        return _with_buckets(_dense(column, name, missing, decision), column, labels)
    if column.is_boolean:
        feature = _vocabulary(name, column.name, distinct, "int64")
        return ProposedFeature(feature, f"true or false, read as 1 or 0{missing}")
    dtype: RawType = "int64" if column.fits_int64 else "string"
    beyond = " beyond int64, read as text" if max(column.whole or [0]) > MAX_INT64 else ""
    infinite = infinite_note(column) if dtype == "int64" else ""
    note = f"{distinct:,} whole numbers{beyond}{missing}: {decision.reason}{_rare(distinct)}{infinite}"
    return ProposedFeature(_vocabulary(name, column.name, distinct, dtype), note, decision.certainty)


def _text(column: SampledColumn, name: str, missing: str) -> ProposedFeature:
    """Proposes a vocabulary of texts, unless they hardly ever come again."""
    distinct, present = column.distinct, len(column.values) - column.values.null_count
    if distinct > 0.9 * present and present >= ENOUGH_ROWS:
        return ProposedFeature(None, f"{distinct:,} values in {present:,} rows: an identifier, or free text", "likely")
    alike = sum(map(looks_like_number, column.texts)) > 0.9 * max(1, len(column.texts))
    mixed = "; most look like numbers, but not all in one notation and unit" if alike else ""
    note = f"{distinct:,} texts{missing}{_rare(distinct)}{mixed}"
    return ProposedFeature(_vocabulary(name, column.name, distinct, "string"), note, "guess" if mixed else "sure")


def _vocabulary(name: str, column: str, distinct: int, dtype: RawType) -> CategoricalFeature:
    return CategoricalFeature(name, column, dtype=dtype, min_count=_MIN_COUNT if distinct > _MANY else 1)


def _rare(distinct: int) -> str:
    return f"; those seen less than {_MIN_COUNT} times share a row" if distinct > _MANY else ""


def _dense(column: SampledColumn, name: str, missing: str, decision: Decision | None = None) -> ProposedFeature:
    numbers = column.numbers if column.numbers is not None else np.zeros(1)
    transform, shape = _transform(numbers)
    feature = DenseFeature(
        name,
        column.name,
        transform=transform,
        fill_value="mean" if missing or transform == "standardize" else 0.0,
        indicator=bool(missing),
        **dataclasses.asdict(column.notation),
    )
    same = "; only the indicator of missing ones tells rows apart" if numbers.min() == numbers.max() else ""
    span = f"numbers from {numbers.min():g} to {numbers.max():g}{notation_note(column)}{missing}{same}"
    fractions = "" if (numbers == np.round(numbers)).all() else "; with fractions"
    why = fractions if decision is None else f"; {decision.reason}"
    note = f"{span}{why}{shape}{infinite_note(column)}"
    return ProposedFeature(feature, note, "sure" if decision is None else decision.certainty)


def _with_buckets(number: ProposedFeature, column: SampledColumn, labels: np.ndarray | None) -> ProposedFeature:
    """Gives whole numbers more buckets if the label follows single values, as those of taxed amounts."""
    counted = column.value_counts()
    told = label_evidence(counted, labels) if labels is not None and len(counted.values) > _BUCKETS else None
    if told is None or told.category_sure < _OF_THEIR_OWN:
        return number
    note = f"{number.note}; {_MANY_BUCKETS} buckets because single values have labels of their own"
    return dataclasses.replace(number, note=note, buckets=_MANY_BUCKETS)


def _transform(numbers: np.ndarray) -> tuple[Transform | tuple[Transform, ...], str]:
    """Returns the transform of numbers, and why it is another than `standardize`."""
    deviation = numbers.std()
    skewness = ((numbers - numbers.mean()) ** 3).mean() / deviation**3 if deviation else 0.0
    if skewness <= _SKEWED:
        return "standardize", ""
    negative, zeros = np.mean(numbers < 0), np.mean(numbers == 0)
    if negative > _NEGATIVE:
        return "standardize", f"; no log1p, which would make the {negative:.1%} below 0 equal"
    below = "; those below 0 become 0" if negative else ""
    if zeros > _ZEROS:
        return (
            "log1p",
            f"; log1p because a few are far larger than most; not standardized because {zeros:.1%} are 0{below}",
        )
    return ("log1p", "standardize"), f"; log1p because a few are far larger than most{below}"


def _vector(column: SampledColumn, name: str, missing: str, vector: FoundVector) -> ProposedFeature:
    feature = DenseFeature(
        name,
        column.name,
        transform="standardize",
        fill_value="mean",
        indicator=bool(missing),
        size=vector.size,
        separator=vector.separator,
    )
    joined = f", joined by {vector.separator!r}" if vector.separator else ""
    return ProposedFeature(feature, f"vectors of {vector.size:,} numbers{joined}{missing}")


def _list(column: SampledColumn, name: str, missing: str) -> ProposedFeature:
    items = SampledColumn(column.name, pc.list_flatten(column.values))
    kind = items.values.type
    if not (items.is_text or pa.types.is_large_string(kind) or items.whole is not None):
        found = lengths(column.values)
        several = f", of {found[0]:,} to {found[-1]:,} values" if len(found) > 1 else ""
        needed = "lists of texts or whole numbers, or of numbers of one length, are needed"
        return ProposedFeature(None, f"of type {column.values.type}{several}; {needed}")
    distinct = items.distinct if len(items.values) else 0
    if distinct == 0:
        return ProposedFeature(None, f"no value in {len(column.values):,} rows")
    whole = items.whole is not None and not items.is_text and items.fits_int64
    feature = _vocabulary(name, column.name, distinct, "int64" if whole else "string")
    note = f"lists of {distinct:,} values{missing}{_rare(distinct)}"
    return ProposedFeature(dataclasses.replace(feature, multi_valued=True), note)
