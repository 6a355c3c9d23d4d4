"""Puts the new run into the place of the current one, in steps that may be killed and done again."""

from __future__ import annotations

import os

from tfrs_dlrm.stores.files import to_disk
from tfrs_dlrm.stores.lock import LOCK_FILE
from tfrs_dlrm.training.run import RESULT_FILE
from tfrs_dlrm.training.run_calibration import CALIBRATION_FILE, CALIBRATION_PICTURE
from tfrs_dlrm.training.workdir import CONFIG_FILE, METRICS_FILE

_RUN = ("encoder", "checkpoints", "best", METRICS_FILE, RESULT_FILE, "tensorboard")
# What other programs wrote about the model, which is no longer true of the next.
_REPORTS = (
    CALIBRATION_FILE,
    CALIBRATION_PICTURE,
    "evaluation.json",
    "evaluation.png",
    "groups.json",
    "report.html",
    "explanation",
)


def leave(workdir: str, before: str) -> None:
    """Moves the current run away. First its configuration: from then on nothing takes the directory for a run."""
    os.makedirs(before, exist_ok=True)
    _move((CONFIG_FILE, *_RUN, *_REPORTS), workdir, before)


def enter(run: str, workdir: str) -> None:
    """Moves the new run to the place of the current one, the configuration last."""
    names = sorted(os.listdir(run)) if os.path.isdir(run) else []
    _move((*(name for name in names if name not in (CONFIG_FILE, LOCK_FILE)), CONFIG_FILE), run, workdir)


def _move(names: tuple[str, ...], source: str, target: str) -> None:
    for name in names:
        if os.path.lexists(os.path.join(source, name)):
            os.replace(os.path.join(source, name), os.path.join(target, name))
    for directory in (target, source):
        if os.path.isdir(directory):
            to_disk(directory, alone=True)
