"""The files in the directory of a run, and how a run moves to another directory."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tfrs_dlrm.stores.files import to_disk
from tfrs_dlrm.stores.lock import LOCK_FILE
from tfrs_dlrm.training.run import RESULT_FILE
from tfrs_dlrm.training.run_calibration import CALIBRATION_FILE, CALIBRATION_PICTURE
from tfrs_dlrm.training.workdir import CONFIG_FILE, METRICS_FILE

EVALUATION_FILE, EVALUATION_PICTURE, GROUPS_FILE = "evaluation.json", "evaluation.png", "groups.json"
EXPLANATION_DIR, EXPLANATION_FILE = "explanation", "explanation.json"
REPORT_FILE = "report.html"

# The configuration is first: without it, nothing takes the directory for a run.
RUN_FILES = (CONFIG_FILE, "encoder", "checkpoints", "best", METRICS_FILE, RESULT_FILE, "tensorboard")
# What programs write about the model of a run.
REPORT_FILES = (
    CALIBRATION_FILE,
    CALIBRATION_PICTURE,
    EVALUATION_FILE,
    EVALUATION_PICTURE,
    GROUPS_FILE,
    REPORT_FILE,
    EXPLANATION_DIR,
)


def move_run(run: str, target: str) -> None:
    """Moves all files of a run but its lock; a second call finishes what an interrupted one began.

    The configuration moves last, so that the target is a whole run once it has one.

    Args:
      run: the directory of the run, which may be gone if an earlier call has moved it.
      target: a directory that is there.
    """
    names = sorted(os.listdir(run)) if os.path.isdir(run) else []
    move_files([*(name for name in names if name not in (CONFIG_FILE, LOCK_FILE)), CONFIG_FILE], run, target)


def move_files(names: Sequence[str], source: str, target: str) -> None:
    """Moves files and directories, in this order, as far as they are there; they are on disk when this returns."""
    for name in names:
        if os.path.lexists(os.path.join(source, name)):
            os.replace(os.path.join(source, name), os.path.join(target, name))
    for directory in (target, source):
        if os.path.isdir(directory):
            to_disk(directory, alone=True)
