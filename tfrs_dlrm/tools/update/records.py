"""updates.jsonl: a record of each update of a run."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.stores.files import well_formed
from tfrs_dlrm.tools.update.places import UPDATES_FILE
from tfrs_dlrm.training.run import RunRecords

ACCEPTED, REJECTED = "accepted", "rejected"


@dataclasses.dataclass
class UpdateRecord:
    """What an update found, and what it decided.

    Attributes:
      update: its number, from 1.
      day: the date of the log, or the name of its first file.
      inputs: the log, as it was given.
      files: path, size and time of modification of each file.
      options: see `UpdateOptions`.
      rows: how many rows are for training (`train`) and comparison (`eval`), how many were `bad`, and how many rows of
        earlier days were mixed in (`replayed`).
      new_values: by table with a vocabulary, the share of the log's values that have a row since this update.
      unseen_values: by table with a vocabulary, the share of the log's values that have no row, or are missing.
      before: the metrics of the current model on all new rows, before it was trained on any of them.
      current: its metrics on the rows for comparison.
      candidate: those of the new model; empty if its training diverged.
      decision: `accepted` or `rejected`; empty before it is made.
      reason: why, in words.
      version: the exported version; 0 for none.
    """

    update: int
    day: str
    inputs: tuple[str, ...]
    files: tuple[dict[str, Any], ...]
    options: dict[str, Any]
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    new_values: dict[str, float] = dataclasses.field(default_factory=dict)
    unseen_values: dict[str, float] = dataclasses.field(default_factory=dict)
    before: dict[str, float] = dataclasses.field(default_factory=dict)
    current: dict[str, float] = dataclasses.field(default_factory=dict)
    candidate: dict[str, float] = dataclasses.field(default_factory=dict)
    decision: str = ""
    reason: str = ""
    version: int = 0

    @property
    def accepted(self) -> bool:
        """Whether the new model is better, or not much worse."""
        return self.decision == ACCEPTED

    def is_of(self, files: tuple[dict[str, Any], ...]) -> bool:
        """Whether the update is of exactly these files, as they are now."""
        return {_key(f) for f in self.files} == {_key(f) for f in files}


def read_updates(workdir: str) -> list[UpdateRecord]:
    """Reads the records of a run, the oldest first; empty if it was never updated.

    Raises:
      ValueError: the file is damaged; the message names it.
    """
    path = os.path.join(workdir, UPDATES_FILE)
    with well_formed(path, "remove the damaged line, which only the history of updates needs"):
        return [build(UpdateRecord, record, "update") for record in _lines(workdir)]


def write_update(workdir: str, record: UpdateRecord) -> None:
    """Adds a record; a second call writes it once."""
    lines = _lines(workdir)
    lines.forget_after(record.update - 1)
    lines.append(dataclasses.asdict(record))


def _lines(workdir: str) -> RunRecords:
    return RunRecords(os.path.join(workdir, UPDATES_FILE), "update")


def _key(file: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(file.items()))
