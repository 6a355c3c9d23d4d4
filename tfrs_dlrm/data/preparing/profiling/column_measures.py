"""Measures the columns of sampled rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from tfrs_dlrm.data.encoding.row_names import row_names
from tfrs_dlrm.data.preparing.profiling.column_profile import TOP, ColumnProfile, Distribution, Kind, TopValues
from tfrs_dlrm.data.preparing.profiling.row_sample import (
    DRAW,
    missing_column,
    number_column,
    number_features,
    value_features,
)
from tfrs_dlrm.data.preparing.profiling.single_column_auc import (
    FOLDS,
    category_auc,
    missing_auc,
    number_auc,
    values_auc,
)
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Schema

_STEPS = 256
_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_MISSING = -1  # as a code; rows of tables are 0 or more


@dataclasses.dataclass(frozen=True)
class Targets:
    """The labels of the sampled rows.

    Attributes:
      label: float64 [N].
      positive: bool [N]: 1, or above the median of a regression.
      folds: int64 [N], from 0 to `FOLDS` - 1.
      known: whether there are labels; a request log has none.
    """

    label: np.ndarray
    positive: np.ndarray
    folds: np.ndarray
    known: bool = True

    @classmethod
    def of(cls, sample: pa.Table, schema: Schema) -> Targets:
        """Returns the targets of a sample."""
        label = sample["label"].to_numpy().astype(np.float64)
        limit = np.median(label) if schema.label.task == "regression" and len(label) else 0.5
        folds = (sample[DRAW].to_numpy() * 2**53).astype(np.int64) % FOLDS
        return cls(label, label > limit, folds)


def measure_columns(
    sample: pa.Table,
    schema: Schema,
    directory: str,
    since: Mapping[str, np.ndarray],
    links: int = 1,
    labelled: bool = True,
) -> list[ColumnProfile]:
    """Measures every feature of a schema.

    Args:
      sample: rows of a `RowSampler`.
      schema: with the size of every table.
      directory: has the vocabularies, which name the values.
      since: by table, for a vocabulary that goes on from others: the link that gave each row to its value, int [rows].
      links: how many there are; the last may have given no row.
      labelled: whether the rows have labels; those of a request log have none.
    """
    targets = dataclasses.replace(Targets.of(sample, schema), known=labelled)
    found = {f.name: _number(f, sample, targets) for f in number_features(schema)}
    codes = {f.name: Codes.of(f, sample) for f in value_features(schema)}
    names = _names(schema, directory, codes)
    for f in value_features(schema):
        found[f.name] = _values(f, schema, codes[f.name], targets, names[f.table], since.get(f.table), links)
    order = [f.name for f in (*schema.dense, *schema.categorical)]
    return [found[name] for name in order if name in found]


def _number(f: DenseFeature | CategoricalFeature, sample: pa.Table, targets: Targets) -> ColumnProfile:
    numbers = sample[number_column(f.name)].to_numpy()
    missing = ~np.isfinite(numbers)
    values, counts = np.unique(numbers[~missing] + np.float32(0), return_counts=True)  # no -0.0
    kind: Kind = "days" if f.time else "vector" if isinstance(f, DenseFeature) and f.size is not None else "number"
    return ColumnProfile(
        f.name,
        f.column,
        kind,
        missing=_share(missing),
        distinct=len(values),
        among=int(counts.sum()),
        auc=_defined(number_auc, targets, numbers),
        missing_auc=_defined(missing_auc, targets, missing),
        quantiles=_quantiles(values, counts),
        distribution=_distribution(values, counts),
    )


def _quantiles(values: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Returns the least numbers that such shares of the rows are not above."""
    if not len(values):
        return {}
    until = np.cumsum(counts)
    ranks = [max(1, math.ceil(share * int(until[-1]))) for share in _QUANTILES]
    return {f"{q:g}": float(values[i]) for q, i in zip(_QUANTILES, np.searchsorted(until, ranks), strict=True)}


def _distribution(values: np.ndarray, counts: np.ndarray) -> Distribution:
    if len(values) > _STEPS:
        until = np.cumsum(counts)
        ranks = (np.arange(1, _STEPS + 1) * until[-1] + _STEPS - 1) // _STEPS
        kept = np.unique([0, *np.searchsorted(until, ranks), len(until) - 1])
        values, counts = values[kept], np.diff(until[kept], prepend=0)
    return Distribution(tuple(values.tolist()), tuple(counts.tolist()))


@dataclasses.dataclass(frozen=True)
class Codes:
    """The rows of a table that sampled rows look up.

    Attributes:
      of_rows: int [N] of one-valued features, `_MISSING` where there is no value; None of multi-valued ones.
      present: int [V], of all values that are not missing.
      splits: int [N + 1], of multi-valued features: where the values of each row begin, and the end.
    """

    of_rows: np.ndarray | None
    present: np.ndarray
    splits: np.ndarray

    @classmethod
    def of(cls, f: CategoricalFeature, sample: pa.Table) -> Codes:
        """Returns the codes of a feature."""
        if f.multi_valued:
            lists = sample[f.name].combine_chunks()
            splits = lists.offsets.to_numpy().astype(np.int64)
            return cls(None, lists.flatten().to_numpy(), splits - splits[0])
        missing = sample[missing_column(f.name)].to_numpy()
        rows = np.where(missing, _MISSING, sample[f.name].to_numpy())
        return cls(rows, rows[~missing], np.zeros(1, np.int64))

    @property
    def missing(self) -> np.ndarray:
        """Which rows have no value, bool [N]."""
        empty: np.ndarray = np.diff(self.splits) == 0 if self.of_rows is None else self.of_rows == _MISSING
        return empty

    def frequent(self, without_unknown: bool) -> tuple[np.ndarray, np.ndarray]:
        """Returns the most frequent rows of the table, ties by their number, and how often they are."""
        rows, counts = np.unique(self.present, return_counts=True)
        if without_unknown:
            rows, counts = rows[rows > 0], counts[rows > 0]
        order = np.lexsort((rows, -counts))[:TOP]
        return rows[order], counts[order]


def _names(schema: Schema, directory: str, codes: Mapping[str, Codes]) -> dict[str, Mapping[int, str]]:
    """Names the frequent values of each table; a vocabulary is read once."""
    wanted: dict[str, set[int]] = {}
    for f in value_features(schema):
        rows, _ = codes[f.name].frequent(_has_unknown(f))
        wanted.setdefault(f.table, set()).update(rows.tolist())
    return {table: row_names(schema, directory, table, rows) if rows else {} for table, rows in wanted.items()}


def _has_unknown(f: CategoricalFeature) -> bool:
    """Whether row 0 stands for all values that the vocabulary lacks."""
    return f.encoding == "vocabulary" and f.out_of_range != "hash"


def _values(
    f: CategoricalFeature,
    schema: Schema,
    codes: Codes,
    targets: Targets,
    names: Mapping[int, str],
    since: np.ndarray | None,
    links: int,
) -> ColumnProfile:
    rows, counts = codes.frequent(_has_unknown(f))
    unknown = codes.present == 0 if _has_unknown(f) else np.zeros(0, bool)
    known = codes.present[~unknown] if len(unknown) else codes.present
    kind: Kind = "cross" if f.cross else "time" if f.time else "values" if f.multi_valued else "category"
    return ColumnProfile(
        f.name,
        " x ".join(schema.value_feature(name).column for name in f.cross) or f.column,
        kind,
        missing=_share(codes.missing),
        distinct=len(np.unique(known)),
        among=len(known),
        auc=_value_auc(codes, targets),
        missing_auc=_defined(missing_auc, targets, codes.missing),
        top=TopValues(
            tuple(names[int(row)] for row in rows),
            tuple(counts.tolist()),
            tuple(_means(codes, rows, targets.label)) if targets.known else (),
            len(codes.present),
        ),
        out_of_vocabulary=_share(unknown) if _has_unknown(f) else None,
        since=_shares_by_link(codes.present, since, links) if since is not None and _has_unknown(f) else (),
    )


def _value_auc(codes: Codes, targets: Targets) -> float | None:
    if codes.of_rows is None:
        return _defined(values_auc, targets, codes.present, codes.splits, targets.folds)
    return _defined(category_auc, targets, codes.of_rows, targets.folds)


def _means(codes: Codes, rows: np.ndarray, labels: np.ndarray) -> list[float]:
    """Returns the mean label of the rows that have each value."""
    y = labels[~codes.missing] if codes.of_rows is not None else np.repeat(labels, np.diff(codes.splits))
    order, shown = np.argsort(rows), np.isin(codes.present, rows)
    where = order[np.searchsorted(rows[order], codes.present[shown])]
    sums, counts = np.bincount(where, y[shown], len(rows)), np.bincount(where, minlength=len(rows))
    means: list[float] = (sums / np.maximum(1, counts)).tolist()
    return means


def _shares_by_link(present: np.ndarray, since: np.ndarray, links: int) -> tuple[float, ...]:
    counts = np.bincount(since[present[present > 0]], minlength=links)
    return tuple((counts / max(1, len(present))).tolist())


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else 0.0


def _defined(measure: Callable[..., float], targets: Targets, *arguments: np.ndarray) -> float | None:
    """Returns an AUC; None if it is not defined."""
    if not targets.known:
        return None
    found = measure(targets.positive, *arguments)
    return None if math.isnan(found) else found
