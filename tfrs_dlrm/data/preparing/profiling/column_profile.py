"""The content of `profile.json`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, Literal

from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.stores.files import finite, read_json, well_formed, write_text

PROFILE_FILE = "profile.json"
TOP = 100
Kind = Literal["number", "vector", "days", "category", "values", "time", "cross"]
_AGAIN = "prepare the data again, into another directory"
_NOTE = (
    "Shares, quantiles, top values and AUCs are those of `sampled` training rows, drawn at random by the seed of the"
    " preparation; labels, and `distinct` where `exact` is true, are those of all training rows. Negatives that were"
    " dropped are training rows here. Rows of weight 0 are left out of the sample."
)


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Rising numbers, and how many rows each stands for: its own and those since the number before."""

    values: tuple[float, ...] = ()
    rows: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class TopValues:
    """The most frequent values, up to `TOP`; values of a vocabulary that have no row are left out.

    Attributes:
      values: by falling frequency.
      rows: how often each is in the sampled rows.
      label_mean: the mean label of these rows.
      among: how many values the sampled rows have, the missing ones left out.
    """

    values: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    label_mean: tuple[float, ...] = ()
    among: int = 0


@dataclasses.dataclass(frozen=True)
class ColumnProfile:
    """A feature, as the log has it.

    Attributes:
      name: of the feature.
      column: of the log; of a cross its members.
      kind: `number`; `vector`, whose numbers are the Euclidean norms; `days` since 1970; `category`, one value a row;
        `values`, any number of values a row; `time`, a part of a time; `cross`.
      missing: the share of rows without a value.
      distinct: how many distinct values there are, without the missing one.
      among: among how many present values they were counted.
      exact: whether all training rows were counted, and not a sample of them.
      auc: of the column alone: of numbers in the better direction, without rows that lack one; of categories by the
        label rates of values in other rows. None if it is not defined.
      missing_auc: of knowing which rows lack a value.
      quantiles: of numbers, by share: `0` is the least and `1` the largest.
      distribution: of numbers, in at most about 256 steps.
      top: the most frequent values.
      out_of_vocabulary: of a vocabulary, the share of values that have no row.
      since: of a vocabulary that goes on from others, by link of the chain, the share of values that got their rows in
        it; with `out_of_vocabulary` they sum to 1.
      expected_new: of a vocabulary, the share of values of another log of the same kind that it would not know: that of
        values which would have no row if they had occurred once less (Good 1953).
    """

    name: str
    column: str
    kind: Kind
    missing: float
    distinct: int
    among: int
    exact: bool = False
    auc: float | None = None
    missing_auc: float | None = None
    quantiles: dict[str, float] = dataclasses.field(default_factory=dict)
    distribution: Distribution = Distribution()
    top: TopValues = TopValues()
    out_of_vocabulary: float | None = None
    since: tuple[float, ...] = ()
    expected_new: float | None = None

    @property
    def is_number(self) -> bool:
        """Whether it has quantiles."""
        return self.kind in ("number", "vector", "days")


@dataclasses.dataclass(frozen=True)
class LabelProfile:
    """A label: how many training rows have it, its mean (of 0 and 1 the share of 1s) and standard deviation."""

    column: str
    task: str
    rows: int
    mean: float
    std: float


@dataclasses.dataclass(frozen=True)
class Profile:
    """What is known of the columns of a log.

    Attributes:
      rows: how many training rows there are, with those that `Label.keep_negatives` dropped.
      sampled: how many of them were looked at.
      positives: of the sampled rows, how many count as positive for AUCs: those with a first label of 1, or in a
        regression above the median.
      labels: of all training rows.
      columns: the features, in the order of the schema.
      note: what is counted and what is sampled.
    """

    rows: int
    sampled: int
    positives: int
    labels: tuple[LabelProfile, ...]
    columns: tuple[ColumnProfile, ...]
    note: str = _NOTE

    def column(self, name: str) -> ColumnProfile | None:
        """Returns the profile of a feature; None if there is none."""
        return next((c for c in self.columns if c.name == name), None)

    def save(self, directory: str) -> None:
        """Writes DIRECTORY/profile.json, one column a line."""
        plain = rounded(finite(dataclasses.asdict(self)))
        columns = ",\n".join(f"    {json.dumps(_filled(column))}" for column in plain.pop("columns"))
        head = json.dumps(plain, indent=2).removesuffix("\n}")
        write_text(os.path.join(directory, PROFILE_FILE), f'{head},\n  "columns": [\n{columns}\n  ]\n}}\n')

    @classmethod
    def load(cls, directory: str) -> Profile:
        """Reads DIRECTORY/profile.json.

        Raises:
          FileNotFoundError: the directory has none.
          ValueError: the file is damaged.
        """
        path = os.path.join(local_copy(directory), PROFILE_FILE)
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"{directory}: no {PROFILE_FILE}: it is no prepared directory, or an earlier version prepared it;"
                f" {_AGAIN}"
            )
        content = read_json(path, _AGAIN)
        with well_formed(path, _AGAIN):
            return build(cls, content, "profile")


def _filled(column: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out what a kind of column does not have."""
    return {key: value for key, value in column.items() if value not in (None, [], {}) and not _is_empty(value)}


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict) and not any(value.values()) and all(isinstance(x, list) for x in value.values())


def rounded(data: Any) -> Any:
    """Rounds floats to seven digits, which float32 has."""
    if isinstance(data, dict):
        return {key: rounded(value) for key, value in data.items()}
    if isinstance(data, list):
        return [rounded(value) for value in data]
    return float(f"{data:.7g}") if isinstance(data, float) else data
