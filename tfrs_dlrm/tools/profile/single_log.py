"""What is suspicious in one log: leaks, constants, and columns that number the rows."""

from __future__ import annotations

from collections.abc import Iterator

from tfrs_dlrm.data.preparing.profiling.column_profile import ColumnProfile, Profile
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.tools.profile.finding import Finding

LEAK = 0.99
_FEWEST_OF_A_CLASS = 10  # with fewer, an AUC is high by chance
_FEWEST_ROWS = 100
_REPEATED = 0.02
# If fewer values repeat than would by chance among so many, each row has its own.
_POPULATION = 2_500_000


def suspicious(profile: Profile, schema: Schema) -> Iterator[Finding]:
    """Yields what is suspicious in a log without another."""
    hashed = {f.name: schema.table_of(f).vocabulary_size or 0 for f in schema.categorical if f.encoding == "hash"}
    for column in profile.columns:
        yield from _leak(column, profile)
        if column.kind not in ("days", "time", "cross") and profile.sampled >= _FEWEST_ROWS:
            yield from _constant(column, profile)
            yield from _row_id(column, profile, hashed.get(column.name))


def _leak(column: ColumnProfile, profile: Profile) -> Iterator[Finding]:
    if min(profile.positives, profile.sampled - profile.positives) < _FEWEST_OF_A_CLASS:
        return
    advice = "leave the feature out, unless its value is known before the label is"
    if column.auc is not None and column.auc > LEAK:
        text = f"alone it has an AUC of {column.auc:.4f}: it may contain the label"
        yield Finding("leakage", column.name, column.auc, LEAK, text, advice)
    elif column.missing_auc is not None and column.missing_auc > LEAK:
        text = f"which rows lack it has an AUC of {column.missing_auc:.4f}: it may be filled in after the label"
        yield Finding("leakage", column.name, column.missing_auc, LEAK, text, advice)


def _constant(column: ColumnProfile, profile: Profile) -> Iterator[Finding]:
    if column.distinct > 1 or (column.distinct == 1 and column.missing > 0):
        return
    if column.kind == "vector" and column.distinct:  # of length 1, such as many embeddings
        return
    if column.out_of_vocabulary and not column.exact:  # several values may have no row
        return
    shown = [*column.top.values, *(f"{x:g}" for x in column.quantiles.values())][:1]
    text = f"all {profile.sampled:,} rows have the value {shown[0]}" if shown else "no row has a value"
    advice = "leave the feature out, or mend what writes the column: a model learns nothing from it"
    yield Finding("constant", column.name, column.distinct, 2, text, advice)


def _row_id(column: ColumnProfile, profile: Profile, hashed_to: int | None) -> Iterator[Finding]:
    n = column.among
    if n < _FEWEST_ROWS or column.kind in ("vector", "values"):
        return
    repeats = n - column.distinct
    allowed = min(_REPEATED * n, n * n / (2 * _POPULATION))
    if not column.exact:  # few of the repetitions of a log are in a sample
        allowed *= n / max(n, profile.rows)
    if hashed_to is not None:
        if n > hashed_to:
            return
        collisions = n - hashed_to * (1 - (1 - 1 / hashed_to) ** n)
        allowed += collisions + 3 * collisions**0.5
    if repeats > allowed or (column.kind == "number" and not _counts_up(column, profile)):
        return
    text = f"{column.distinct:,} of {n:,} values are distinct: it numbers the rows"
    advice = "leave the feature out: a value that never returns teaches a model nothing about other rows"
    yield Finding("row id", column.name, column.distinct / n, 1 - allowed / n, text, advice)


def _counts_up(column: ColumnProfile, profile: Profile) -> bool:
    """Whether the numbers are whole, and about as many as the rows."""
    values = column.distribution.values
    return all(x == round(x) for x in values) and values[-1] - values[0] <= 2 * profile.rows
