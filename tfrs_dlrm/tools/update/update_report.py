"""Updates as text."""

from __future__ import annotations

from collections.abc import Sequence

from tfrs_dlrm.messages.aligned import aligned
from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.tools.update.records import UpdateRecord
from tfrs_dlrm.training.evaluation_report import table


def scores_table(record: UpdateRecord) -> str:
    """Lines up the metrics of the models of an update: of all new rows, and of those held out for the comparison."""
    columns = {"all rows, before": record.before, "held out, current": record.current}
    return table(columns | ({"held out, new": record.candidate} if record.candidate else {}))


def updates_table(records: Sequence[UpdateRecord]) -> str:
    """Lines up updates, a row each: the metrics of the current model on all rows of the day, before it was trained."""
    metrics = [m for m in ("auc", "normalized_entropy", "rmse", "calibration") if any(m in r.before for r in records)]
    rows = [["update", "day", "rows", "new values", *(title(m) for m in metrics), "new model"]]
    for record in records:
        share = max(record.new_values.values(), default=0.0)
        cells = [f"{record.before[m]:.5f}" if m in record.before else "-" for m in metrics]
        count = record.rows["train"] + record.rows["eval"]
        rows.append([str(record.update), record.day, f"{count:,}", f"{share:.1%}", *cells, record.decision])
    return "\n".join(aligned(rows, left=(1, len(rows[0]) - 1)))  # these are texts; the others are numbers


def decision_line(record: UpdateRecord) -> str:
    """Says which model the run has now, and why."""
    if record.accepted:
        return f"The new model is the current one: {record.reason}."
    return f"The current model stays: of the new one, {record.reason}."
