"""The runs of trials on the disk: an ordinary run each, in `WORKDIR/trials/LABEL`, until the best becomes `WORKDIR`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from tfrs_dlrm.tools.comparison.contestants import Contestant
from tfrs_dlrm.tools.search.trials import TRIALS_FILE
from tfrs_dlrm.training.run_files import move_run
from tfrs_dlrm.training.workdir import CONFIG_FILE

_DIRECTORY = "trials"


class TrialRuns:
    """The runs of the trials of a search.

    Args:
      workdir: the directory of the search, which becomes that of the best run.
    """

    def __init__(self, workdir: str):
        self._workdir = workdir

    def path(self, candidate: Contestant) -> str:
        """Returns the directory of a trial's run."""
        return os.path.join(self._workdir, _DIRECTORY, candidate.directory)

    def check(self, chosen: Contestant | None) -> None:
        """Makes sure that a run in the directory of the search is the run of the best trial.

        Args:
          chosen: the best; None if it is not chosen yet.

        Raises:
          ValueError: another run has been trained there.
        """
        name = self._workdir
        if not os.path.isfile(os.path.join(name, CONFIG_FILE)):
            return
        if not os.path.isfile(os.path.join(name, TRIALS_FILE)):
            raise ValueError(f"{name}: holds a run without trials; choose another --workdir, or remove this one")
        # The configuration is in one of the two directories, and moves last.
        if chosen is None or os.path.isfile(os.path.join(self.path(chosen), CONFIG_FILE)):
            raise ValueError(
                f"{name}: holds a run next to the trials of a search that has not finished; choose another --workdir,"
                f" or remove the run: everything in the directory but {TRIALS_FILE} and {_DIRECTORY}/"
            )

    def remove(self, candidates: Iterable[Contestant]) -> None:
        """Removes the runs of trials that have lost, whose tables may be large."""
        for candidate in candidates:
            shutil.rmtree(self.path(candidate), ignore_errors=True)

    def adopt(self, chosen: Contestant) -> None:
        """Moves the run of the best, and removes all others; a second call finishes what an interrupted one began."""
        move_run(self.path(chosen), self._workdir)
        shutil.rmtree(os.path.join(self._workdir, _DIRECTORY), ignore_errors=True)
