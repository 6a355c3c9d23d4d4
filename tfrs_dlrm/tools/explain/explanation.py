"""The explanation of a model, as text and as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from tfrs_dlrm.data.encoding.row_names import row_names
from tfrs_dlrm.data.preparing.manifest import Split
from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.tools.explain.expert_weights import ExpertWeights
from tfrs_dlrm.tools.explain.importance import PermutationImportance
from tfrs_dlrm.tools.explain.interactions import Interactions
from tfrs_dlrm.tools.explain.neighbours import NearestRows
from tfrs_dlrm.tools.explain.table_usage import TableUsage
from tfrs_dlrm.training import evaluation_report


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The nearest rows of a table to one of its rows.

    Attributes:
      table: the name of the table.
      row: the row.
      nearest: the nearest rows.
      lookups: how often the training data look up each of these rows, and `row`.
    """

    table: str
    row: int
    nearest: NearestRows
    lookups: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The answers of `explain_run`.

    Attributes:
      checkpoint: the path of the checkpoint.
      data: the prepared directory.
      split: the rows of importance and interactions.
      label: the name of the label of importance and interactions; for the first label, its column.
      importance: None if it was not asked for.
      interactions: None if they were not asked for.
      gates: the weights of experts in each of their levels; empty if there are none, or they were not asked for.
      tables: in the order of the schema; empty if they were not asked for.
      neighbours: one per query.
      schema: the schema of the run.
      directory: the directory of the vocabularies.
    """

    checkpoint: str
    data: str
    split: Split
    label: str
    importance: PermutationImportance | None
    interactions: Interactions | None
    gates: list[ExpertWeights]
    tables: list[TableUsage]
    neighbours: list[Neighbours]
    schema: Schema
    directory: str

    def text(self, top: int) -> str:
        """Returns tables for a terminal, with at most `top` pairs of features."""
        parts = []
        if self.importance:
            parts.append(_importance_text(self.importance))
        if self.interactions:
            parts.append(_interactions_text(self.interactions, top))
        parts += [_gates_text(level) for level in self.gates]
        if self.tables:
            title = "Rows of the tables, and lookups by the training data:"
            parts.append(f"{title}\n\n{_table({usage.table: usage.summary() for usage in self.tables})}")
        parts += [self._neighbours_text(found) for found in self.neighbours]
        return "\n\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        out: dict[str, Any] = {name: getattr(self, name) for name in ("checkpoint", "data", "split", "label")}
        if self.importance:
            out["importance"] = self.importance.to_dict()
        if self.interactions:
            out["interactions"] = dataclasses.asdict(self.interactions)
        if self.gates:
            out["gates"] = [dataclasses.asdict(level) for level in self.gates]
        if self.tables:
            out["tables"] = {
                usage.table: usage.to_dict(self._names(usage.table, [*usage.most.tolist(), *usage.dead.tolist()]))
                for usage in self.tables
            }
        if self.neighbours:
            out["neighbours"] = [self._neighbours_dict(found) for found in self.neighbours]
        return out

    def _names(self, table: str, rows: Collection[int]) -> dict[int, str]:
        return row_names(self.schema, self.directory, table, rows)

    def _neighbours_text(self, found: Neighbours) -> str:
        names, nearest = self._names(found.table, list(found.lookups)), found.nearest
        pairs = zip(nearest.rows, nearest.values, strict=True)
        rows = {names[row]: {nearest.measure: value, "lookups": found.lookups[row]} for row, value in pairs}
        number = "" if nearest.number is None else f", number {nearest.number:.6f}"
        times = f"looked up {found.lookups[found.row]:,} times"
        return f"Nearest to {names[found.row]} in table {found.table}{number}, {times}:\n\n{_table(rows)}"

    def _neighbours_dict(self, found: Neighbours) -> dict[str, Any]:
        names, nearest = self._names(found.table, list(found.lookups)), found.nearest

        def of(row: int) -> dict[str, Any]:
            return {"value": names[row], "row": row, "lookups": found.lookups[row]}

        number = {} if nearest.number is None else {"number": nearest.number}
        pairs = zip(nearest.rows, nearest.values, strict=True)
        others = [of(row) | {nearest.measure: value} for row, value in pairs]
        return {"table": found.table} | of(found.row) | number | {"nearest": others}


def _importance_text(found: PermutationImportance) -> str:
    metrics = " and ".join(f"{title(name)} {value:.6f}" for name, value in found.metrics.items()) or "no metric"
    head = (
        f"Importance: what exchanging a feature's values among {found.examples:,} examples does to {metrics}\n(mean and"
        f" spread of {found.seeds} permutations):"
    )
    return f"{head}\n\n{_table({f.feature: f.summary() for f in found.features})}"


def _interactions_text(found: Interactions, top: int) -> str:
    pairs = found.pairs()
    which = f"the {top} strongest of {len(pairs):,} pairs" if len(pairs) > top else f"{len(pairs):,} pairs"
    title = f"Interactions, {which}: mean |second difference of the {found.unit}| over {found.examples:,} examples:"
    rows = {f"{a} x {b}": {"strength": strength, "spread": spread} for a, b, strength, spread in pairs[:top]}
    return f"{title}\n\n{_table(rows)}"


def _gates_text(found: ExpertWeights) -> str:
    title = f"Gates, level {found.level}: mean weight of each expert over {found.examples:,} examples:"
    return f"{title}\n\n{evaluation_report.table(found.rows())}"


def _table(rows: dict[str, dict[str, float]]) -> str:
    """Returns rows of equal columns as an aligned table."""
    columns = next(iter(rows.values()), {})
    return evaluation_report.table(
        {column: {name: row[column] for name, row in rows.items()} for column in columns}, False
    )
