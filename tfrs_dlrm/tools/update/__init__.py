"""Updates the model of a run with the log of a day."""

from tfrs_dlrm.tools.update.options import UpdateOptions
from tfrs_dlrm.tools.update.records import UpdateRecord, read_updates
from tfrs_dlrm.tools.update.run import Updated, update
from tfrs_dlrm.tools.update.update_report import decision_line, scores_table, updates_table

__all__ = [
    "UpdateOptions",
    "UpdateRecord",
    "Updated",
    "decision_line",
    "read_updates",
    "scores_table",
    "update",
    "updates_table",
]
