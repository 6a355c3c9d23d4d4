"""What a user may choose about an update."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfrs_dlrm.data.preparing.half_life import HalfLife, check_day
from tfrs_dlrm.data.preparing.job import BadRows


@dataclasses.dataclass(frozen=True)
class UpdateOptions:
    """The choices of an update.

    Attributes:
      eval_fraction: the share of the new rows on which the two models are compared, and which are not trained on.
      epochs: passes over the new training rows.
      learning_rate: of the MLPs; 0 is that of the run. It stays for later updates.
      embedding_learning_rate: of the tables; 0 is that of the run.
      tolerance: by how much, relatively, the log loss of the new model (of a regression, the RMSE) may be above that of
        the current model on the held-out rows.
      replay: how many training rows of earlier days are mixed in, as a share of the new ones.
      replay_days: of how many of the newest days before, whose prepared logs are kept for that.
      half_life: in which the counts of earlier days halve, see `prepare`.
      day: the date of the log, `YYYY-MM-DD`; empty if it is not known.
      bad_rows: how malformed rows are handled, `error` or `quarantine`.
      export: the directory of the served model's versions, on a disk or in an object store; empty exports nothing.
      keep_versions: how many of the newest versions stay in it; 0 deletes none.
    """

    eval_fraction: float = 0.1
    epochs: float = 1.0
    learning_rate: float = 0.0
    embedding_learning_rate: float = 0.0
    tolerance: float = 0.01
    replay: float = 0.0
    replay_days: int = 7
    half_life: str = ""
    day: str = ""
    bad_rows: BadRows = "error"
    export: str = ""
    keep_versions: int = 0

    def check(self) -> None:
        """Raises a ValueError that names a wrong choice."""
        if not 0 < self.eval_fraction < 1:
            raise ValueError(
                f"eval_fraction={self.eval_fraction}: the models are compared on this share of the new rows; give a"
                " number between 0 and 1, such as 0.1"
            )
        if not self.epochs > 0:
            raise ValueError(f"epochs={self.epochs}: give a number above 0, such as 1")
        for name in ("learning_rate", "embedding_learning_rate", "tolerance", "replay", "keep_versions"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: give 0 or more")
        if self.replay_days < 1:
            raise ValueError(f"replay_days={self.replay_days}: give 1 or more; replay=0 replays nothing")
        HalfLife.parse(self.half_life)
        check_day(self.day)

    def plain(self) -> dict[str, Any]:
        """Returns the choices as plain values."""
        return dataclasses.asdict(self)
