"""The journal of an update: what has been done, in one file that is written before each step.

An update that was killed begins again with the step that the journal names. Every step can be done twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any

from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.stores.files import read_json, well_formed, write_json
from tfrs_dlrm.tools.update.options import UpdateOptions
from tfrs_dlrm.tools.update.places import UpdatePlaces
from tfrs_dlrm.tools.update.records import UpdateRecord
from tfrs_dlrm.training.workdir import UPDATE_JOURNAL

# In their order. From EXPORT on the new model is accepted, and from LEAVE on files of the run move.
PREPARE, SCORE, TRAIN, COMPARE, EXPORT, LEAVE, ENTER, RECORD, TIDY = STEPS = (
    "prepare",
    "score",
    "train",
    "compare",
    "export",
    "leave",
    "enter",
    "record",
    "tidy",
)


@dataclasses.dataclass
class Journal:
    """An update that has not ended.

    Attributes:
      step: the next one, of `STEPS`.
      record: what is known so far.
    """

    step: str
    record: UpdateRecord

    @classmethod
    def load(cls, workdir: str) -> Journal | None:
        """Reads the journal of a run; None if no update is unfinished.

        Raises:
          ValueError: the file is damaged.
        """
        path = os.path.join(workdir, UPDATE_JOURNAL)
        if not os.path.isfile(path):
            return None
        then = f"if {workdir} still holds a run (config.json), remove the file, and the update begins again"
        content = read_json(path, then)
        with well_formed(path, then):
            found = build(cls, content, "journal")
            STEPS.index(found.step)
            return found

    def save(self, workdir: str) -> None:
        """Writes the journal, whole or not at all."""
        os.makedirs(os.path.dirname(os.path.join(workdir, UPDATE_JOURNAL)), exist_ok=True)
        write_json(os.path.join(workdir, UPDATE_JOURNAL), dataclasses.asdict(self))

    def remove(self, workdir: str) -> None:
        """Ends the update."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(workdir, UPDATE_JOURNAL))

    @property
    def is_moving(self) -> bool:
        """Whether files of the run move: the model is accepted, and the log is needed no more."""
        return STEPS.index(self.step) >= STEPS.index(LEAVE)

    def check_same(
        self, workdir: str, inputs: tuple[str, ...], files: tuple[dict[str, Any], ...], options: UpdateOptions
    ) -> None:
        """Makes sure that a command continues this update. The log may have changed since it was prepared.

        Args:
          workdir: the directory of the run.
          inputs: the log, as it was given.
          files: the files of it, as they are now.
          options: the choices.

        Raises:
          ValueError: it has another log or other options; the message says how to end this update.
        """
        found, given = self.record.options, options.plain()
        changed = [f"{name}={found.get(name)!r}" for name in given if given[name] != found.get(name)]
        prepared = STEPS.index(self.step) > STEPS.index(PREPARE)
        same = self.record.is_of(files) or (prepared and self.record.inputs == inputs)
        if same and not changed:
            return
        what = f"with {', '.join(changed)}" if same else f"of {', '.join(file['path'] for file in self.record.files)}"
        give_up = f", or give it up: remove {os.path.join(workdir, UPDATE_JOURNAL)}"
        raise ValueError(
            f"{workdir}: update {self.record.update} {what} is unfinished; finish it with its own --input and flags"
            f"{give_up if STEPS.index(self.step) < STEPS.index(EXPORT) else ''}"
        )

    def places(self, workdir: str) -> UpdatePlaces:
        """Returns the directories of the update."""
        return UpdatePlaces(workdir, self.record.update)
