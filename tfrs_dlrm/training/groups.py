"""The evaluation of a checkpoint within groups of examples: per value of a feature, and averaged over users."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfrs_dlrm.data.encoding.row_names import NO_VALUE, categorical_feature, encoding_of, missing_row, row_names
from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split
from tfrs_dlrm.data.reading.row_groups import looked_up
from tfrs_dlrm.metrics import (
    GroupedAUC,
    GroupMetrics,
    Groups,
    MeanRanking,
    grouped_auc,
    mean_ranking,
    ranking_metrics,
)
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.training.evaluation import Evaluation
from tfrs_dlrm.training.evaluation_report import table
from tfrs_dlrm.training.workdir import Workdir

# The group of the examples that have no value of a multi-valued feature.
_NONE = -1


@dataclasses.dataclass(frozen=True)
class GroupEvaluation:
    """The metrics within groups, as `Grouping.measure` found them.

    Attributes:
      checkpoint: its path.
      data: the prepared directory.
      split: which rows of it.
      label: its name; that of the first is its column.
      by_value: by feature, the metrics of each of its values; a group is a row of the feature's table, or -1 for none.
      gauc: by feature, the mean AUC within one of its values. Missing and unseen values form no group: their
        examples may be of many users.
      without_value: by feature of `gauc`, the examples left out for that.
      ranking: by feature, how well the rows of one of its values are ranked.
      ranking_without_value: by feature of `ranking`, the examples left out for that; rows of weight 0 do not count.
      schema: of the data.
      directory: has their vocabularies.
    """

    checkpoint: str
    data: str
    split: Split
    label: str
    by_value: dict[str, Groups]
    gauc: dict[str, GroupedAUC]
    without_value: dict[str, int]
    ranking: dict[str, MeanRanking]
    ranking_without_value: dict[str, int]
    schema: Schema
    directory: str

    def text(self, top: int) -> str:
        """Tables of the `top` largest groups of each feature, and lines of the averages."""
        parts = []
        of = f" for label {self.label}" if self.schema.more_labels else ""
        for feature, metrics in self.by_value.items():
            count, shown = len(metrics.group), metrics.largest(top)
            which = f"the {top} largest of {count:,} groups" if count > top else f"{count:,} groups"
            parts.append(f"By {feature}{of}, {which}:\n\n{table(self._columns(feature, shown))}")
        for feature, found in self.gauc.items():
            over = f"{found.groups:,} groups, {found.examples:,} examples"
            left_out = f"{found.groups_left_out:,} groups without both classes, {found.examples_left_out:,} examples"
            value = f"{found.gauc:.6f} over {over}" if found.groups else "none, no group has both classes"
            lines = self._left_out(feature, left_out, self.without_value)
            parts.append("\n".join([f"GAUC by {feature}{of}: {value}.", *lines]))
        for feature, ranked in self.ranking.items():
            over = f"{ranked.groups:,} groups, {ranked.examples:,} examples"
            left_out = f"{ranked.groups_left_out:,} groups without a 1, {ranked.examples_left_out:,} examples"
            k, head = ranked.k, f"Ranking by {feature}{of}"
            means = {f"NDCG@{k}": ranked.ndcg, "MRR": ranked.mrr, "MAP": ranked.map, f"recall@{k}": ranked.recall}
            values = ", ".join(f"{name} {value:.6f}" for name, value in means.items())
            line = f"{head}: {values}; means over {over}." if ranked.groups else f"{head}: none, no group has a 1."
            parts.append("\n".join([line, *self._left_out(feature, left_out, self.ranking_without_value)]))
        return "\n\n".join(parts)

    def _left_out(self, feature: str, groups: str, without_value: Mapping[str, int]) -> list[str]:
        lines = [f"Left out: {groups}; {without_value[feature]:,} examples of missing or unseen values."]
        if encoding_of(self.schema, categorical_feature(self.schema, feature).table) == "hash":
            lines.append(f"Values of {feature} are hashed: a group is a bucket, which may hold several values.")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: every group, in columns of equal length, the largest groups first."""
        by_value = {}
        for feature, metrics in self.by_value.items():
            ordered = metrics.largest(len(metrics.group))
            by_value[feature] = {"value": self._names(feature, ordered), "row": ordered.group} | _numbers(ordered)
        gauc = {
            feature: dataclasses.asdict(found) | {"examples_without_value": self.without_value[feature]}
            for feature, found in self.gauc.items()
        }
        ranking = {
            feature: dataclasses.asdict(found) | {"examples_without_value": self.ranking_without_value[feature]}
            for feature, found in self.ranking.items()
        }
        which = {"checkpoint": self.checkpoint, "data": self.data, "split": self.split, "label": self.label}
        return which | {"group_by": by_value, "gauc": gauc} | ({"ranking": ranking} if ranking else {})

    def _columns(self, feature: str, metrics: Groups) -> dict[str, dict[str, float]]:
        names = self._names(feature, metrics)
        return {name: dict(zip(names, values, strict=True)) for name, values in _numbers(metrics).items()}

    def _names(self, feature: str, metrics: Groups) -> list[str]:
        groups = metrics.group.tolist()
        table = categorical_feature(self.schema, feature).table
        names = row_names(self.schema, self.directory, table, [g for g in groups if g != _NONE])
        return [NO_VALUE if g == _NONE else names[g] for g in groups]


class Grouping:
    """The groups to measure. Mistakes of a user are found here, before examples are scored.

    Args:
      workdir: the directory of the run.
      group_by: names of categorical features, to measure each value of.
      gauc: names of categorical features, to average the AUC over the values of.
      label: the name of one; by default the first. Examples of which it is not known are in no group.
      ranking: names of categorical features, to average NDCG, MRR, MAP and recall over the values of.
      k: how many rows of a value NDCG and recall look at.

    Attributes:
      label: its position in the schema.

    Raises:
      FileNotFoundError: the directory holds no run.
      ValueError: a feature does not exist or is a number, or the label does not exist or has no AUC to average.
    """

    def __init__(
        self,
        workdir: str,
        group_by: Sequence[str] = (),
        gauc: Sequence[str] = (),
        label: str = "",
        ranking: Sequence[str] = (),
        k: int = 10,
    ) -> None:
        home = Workdir(workdir)
        home.config()  # raises if the directory holds no run
        schema = home.schema()
        self._group_by, self._gauc = tuple(dict.fromkeys(group_by)), tuple(dict.fromkeys(gauc))
        self._ranking, self._k = tuple(dict.fromkeys(ranking)), k
        for name in (*self._group_by, *self._gauc, *self._ranking):
            categorical_feature(schema, name)
        self.label = schema.label_number(label)
        self._label = label or schema.label.column
        for option, names, metric in (("gauc", gauc, "AUC"), ("ranking", ranking, "NDCG")):
            if names and schema.labels[self.label].task != "classification":
                raise ValueError(
                    f"{option}={','.join(names)}: label {self._label!r} is a number to predict, which has no {metric};"
                    " leave it out (group_by has the RMSE of each group)"
                )

    def measure(self, evaluation: Evaluation, split: Split) -> GroupEvaluation:
        """The metrics within the groups of an evaluation of the run.

        An example with several different values of a feature is in the group of each of them.

        Args:
          evaluation: of the rows of `split`, in their order.
          split: which those are.
        """
        directory = local_copy(evaluation.data)  # names its rows, of which the run may not know all
        schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
        by_value: dict[str, Groups] = {}
        gauc: dict[str, GroupedAUC] = {}
        without: dict[str, int] = {}
        unranked: dict[str, int] = {}
        ranking: dict[str, MeanRanking] = {}
        for name in dict.fromkeys((*self._group_by, *self._gauc)):
            metrics = self._metrics(evaluation, split, name)
            if name in self._group_by:
                by_value[name] = metrics
            if name in self._gauc and isinstance(metrics, GroupMetrics):
                known = _is_one_value(directory, schema, name, metrics.group)
                gauc[name] = grouped_auc(metrics.select(known))
                without[name] = int(metrics.examples[~known].sum())
        for name in self._ranking:
            ranked = ranking_metrics(*self._rows(evaluation, split, name), k=self._k)
            known = _is_one_value(directory, schema, name, ranked.group)
            ranking[name] = mean_ranking(ranked.select(known), self._k)
            unranked[name] = int(ranked.examples[~known].sum())
        which = (evaluation.checkpoint, evaluation.data, split, self._label)
        return GroupEvaluation(*which, by_value, gauc, without, ranking, unranked, schema, directory)

    def _metrics(self, evaluation: Evaluation, split: Split, feature: str) -> Groups:
        """Measures within the groups of one feature."""
        return evaluation.scores.of_label(self.label).task.by_group(*self._rows(evaluation, split, feature))

    def _rows(self, evaluation: Evaluation, split: Split, feature: str) -> tuple[Any, Any, Any, Any]:
        """Returns groups, labels, scores and weights of the examples of the groups of one feature."""
        scores = evaluation.scores.of_label(self.label)
        groups, examples = _groups(evaluation.data, split, feature)
        if scores.examples is not None:
            place = np.full(PreparedManifest.load(local_copy(evaluation.data)).rows(split), -1)
            place[scores.examples] = np.arange(len(scores.examples))
            known = place[examples] >= 0
            groups, examples = groups[known], place[examples][known]
        weights = None if scores.weights is None else scores.weights[examples]
        return groups, scores.labels[examples], scores.logits[examples], weights


def _is_one_value(directory: str, schema: Schema, feature: str, groups: np.ndarray) -> np.ndarray:
    """Marks the groups that are one value (or bucket), rather than all missing or all unknown values."""
    f = categorical_feature(schema, feature)
    if f.encoding != "vocabulary":
        return groups != _NONE
    return (groups > 0) & (groups != missing_row(directory, f.table))


def _groups(data: str, split: Split, feature: str) -> tuple[np.ndarray, np.ndarray | slice]:
    """The group of each example, or of each (example, value) of a multi-valued feature; and which example that is."""
    parts = list(looked_up(data, split, feature))
    rows = np.concatenate([rows for rows, _ in parts])
    if parts[0][1] is None:
        return rows, slice(None)
    counts = np.concatenate([count for _, count in parts])
    empty = np.flatnonzero(counts == 0)
    examples = np.concatenate([np.repeat(np.arange(len(counts)), counts), empty])
    rows = np.concatenate([rows, np.full(len(empty), _NONE)])
    # Each pair once: a value that an example has twice counts once.
    pairs = np.unique((examples << 32) + rows + 1)
    return (pairs & 0xFFFFFFFF) - 1, pairs >> 32


def _numbers(metrics: Groups) -> dict[str, np.ndarray]:
    """The columns of the table."""
    return {f.name: getattr(metrics, f.name) for f in dataclasses.fields(metrics) if f.name != "group"}
