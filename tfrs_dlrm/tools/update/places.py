"""Where an update keeps its files, in the directory of the run.

WORKDIR/
  config.json, encoder/, checkpoints/, best/, ...   the run with the current model
  updates.jsonl              a line per update
  updates/unfinished.json    the journal of an update that has not ended
  updates/0001/data/         the prepared log of update 1, the base of the next one if its model was accepted
  updates/0001/mixed/        the same with rows of earlier days, while the candidate trains
  updates/0001/run/          the run that trains the candidate, until it moves to WORKDIR or is removed
  updates/0001/before/       the run that the candidate replaces, while the files move
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Collection

from tfrs_dlrm.stores.files import remove_unfinished
from tfrs_dlrm.training.workdir import UPDATE_JOURNAL

UPDATES_FILE, UPDATES_PICTURE = "updates.jsonl", "updates.png"
UPDATES_DIR = os.path.dirname(UPDATE_JOURNAL)


class UpdatePlaces:
    """The directories of one update.

    Args:
      workdir: the directory of the run.
      number: of the update, from 1.
    """

    def __init__(self, workdir: str, number: int):
        self.home = os.path.join(workdir, UPDATES_DIR, f"{number:04d}")
        names = ("data", "mixed", "run", "before")
        self.data, self.mixed, self.run, self.before = (os.path.join(self.home, name) for name in names)

    def clear(self) -> None:
        """Removes everything of the update."""
        shutil.rmtree(self.home, ignore_errors=True)


def numbers_of_updates(workdir: str) -> list[int]:
    """Returns the numbers of the updates that have a directory."""
    home = os.path.join(workdir, UPDATES_DIR)
    names = os.listdir(home) if os.path.isdir(home) else []
    return [int(name) for name in names if name.isdecimal()]


def remove_leftovers(workdir: str) -> None:
    """Removes what a killed update left of files that it was writing. Call it with the lock of the directory."""
    remove_unfinished(os.path.join(workdir, UPDATES_DIR))
    for path in glob.glob(f"{glob.escape(os.path.join(workdir, UPDATES_FILE))}.*.tmp"):
        os.remove(path)


def remove_all_but(workdir: str, needed: Collection[str]) -> None:
    """Removes the prepared logs of updates that nothing needs, and all other files of updates.

    Args:
      workdir: the directory of the run.
      needed: prepared directories to keep.
    """
    kept, home = {os.path.realpath(path) for path in needed}, os.path.join(workdir, UPDATES_DIR)
    for name in sorted(os.listdir(home)):
        directory = os.path.join(home, name)
        if not name.isdecimal() or not os.path.isdir(directory):
            continue
        if os.path.realpath(os.path.join(directory, "data")) not in kept:
            shutil.rmtree(directory, ignore_errors=True)
            continue
        for inside in sorted(os.listdir(directory)):
            if inside != "data":
                shutil.rmtree(os.path.join(directory, inside), ignore_errors=True)
