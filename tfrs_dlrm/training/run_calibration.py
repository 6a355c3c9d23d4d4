"""calibration.json: the calibration of a run's checkpoint, and which rows it was fitted on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any

import numpy as np

from tfrs_dlrm.data.preparing.manifest import prepared_fingerprint
from tfrs_dlrm.models.calibration import Calibration
from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.stores.files import finite, read_json, well_formed, write_json
from tfrs_dlrm.training.workdir import Which, Workdir

CALIBRATION_FILE, CALIBRATION_PICTURE = "calibration.json", "calibration.png"
_THEN = "run tfrs-dlrm calibrate again, or with --undo to go without"


@dataclasses.dataclass(frozen=True)
class RunCalibration:
    """The content of the file.

    Attributes:
      calibration: the curves.
      checkpoint: the name of the checkpoint, `step-N`.
      data: the prepared directory.
      fingerprint: of these data, see `prepared_fingerprint`.
      share: of the evaluation rows that it was fitted on.
      seed: of their draw.
      metrics: of the other evaluation rows, by `before` and `after`.
    """

    calibration: Calibration
    checkpoint: str
    data: str
    fingerprint: str
    share: float
    seed: int
    metrics: dict[str, dict[str, float]]

    def fitted(self, rows: int) -> np.ndarray:
        """Returns which of the evaluation rows it was fitted on, bool [rows]."""
        return np.random.default_rng(self.seed).random(rows) < self.share

    def is_of(self, data: str) -> bool:
        """Whether it was fitted on evaluation rows of a prepared directory."""
        return prepared_fingerprint(local_copy(data)) == self.fingerprint

    def check_checkpoint(self, home: Workdir, which: Which) -> None:
        """Makes sure that a checkpoint is the one that was calibrated.

        Raises:
          ValueError: it is another.
        """
        name = os.path.basename(home.checkpoint(which))
        if name != self.checkpoint:
            raise ValueError(
                f"{home.name}: {CALIBRATION_FILE} is of {self.checkpoint}, and the {which} checkpoint is {name};"
                f" {_THEN}"
            )

    def save(self, home: Workdir) -> None:
        """Writes the file, whole or not at all."""
        plain = finite(dataclasses.asdict(self) | {"calibration": self.calibration.to_dict()})
        write_json(home.file(CALIBRATION_FILE), plain)


def read_calibration(home: Workdir) -> RunCalibration | None:
    """Returns the calibration of a run; None without one.

    Raises:
      ValueError: the file is damaged.
    """
    path = home.file(CALIBRATION_FILE)
    if not os.path.isfile(path):
        return None
    content: Any = read_json(path, _THEN)
    with well_formed(path, _THEN):
        return build(RunCalibration, content, "calibration")


def remove_calibration(home: Workdir) -> bool:
    """Removes the calibration of a run, and its picture; returns whether there was one."""
    there = os.path.isfile(home.file(CALIBRATION_FILE))
    for name in (CALIBRATION_FILE, CALIBRATION_PICTURE):
        with contextlib.suppress(FileNotFoundError):
            os.remove(home.file(name))
    return there
