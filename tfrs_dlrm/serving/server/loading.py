"""Loads a version: its files are whole, they fit the memory, and its answers are the training side's."""

from __future__ import annotations

import os

from tfrs_dlrm.distribute.memory import available_memory
from tfrs_dlrm.serving.bundle.loaded_size import bytes_when_loaded, megabytes
from tfrs_dlrm.serving.bundle.manifest import MANIFEST, BundleManifest, read_manifest
from tfrs_dlrm.serving.bundle.warmup import replay_warmup
from tfrs_dlrm.serving.bundle.wholeness import check_whole
from tfrs_dlrm.serving.runtime.saved_model import RunError, SavedModel
from tfrs_dlrm.serving.server.resting import fingerprint
from tfrs_dlrm.serving.verification.questions import check_scores
from tfrs_dlrm.serving.verification.subject import Subject, read_reference
from tfrs_dlrm.serving.verification.verification_report import Failed


class NoRoomError(ValueError):
    """The memory left is too small for a version; it may fit later.

    Attributes:
      needed: the bytes that it takes.
    """

    def __init__(self, message: str, needed: int):
        super().__init__(message)
        self.needed = needed


def load(path: str, threads: int | None = None) -> tuple[SavedModel, BundleManifest | None]:
    """Loads the model of a version, replays its warmup requests, and compares its scores of the reference rows.

    Args:
      path: the directory of the version.
      threads: the size of each of TensorFlow's pools.

    Returns:
      The model, and its manifest; None for a SavedModel that is no bundle, of which no scores are known.

    Raises:
      NoRoomError: the memory left is too small.
      ValueError: a file is missing, cut or changed, the model cannot be loaded, a warmup record is broken, or a score
        is not the one that the training side gave.
    """
    before = fingerprint(path)
    manifest = read_manifest(path) if os.path.exists(os.path.join(path, MANIFEST)) else None
    _check_room(path)
    check_whole(path, manifest)
    try:
        model = SavedModel(path, threads)
    except RunError as e:
        raise ValueError(f"{path}: TensorFlow cannot load it: {e}") from e
    try:
        replay_warmup(model, path)
        if manifest is not None:
            _check_answers(path, model, manifest)
        if fingerprint(path) != before:
            raise ValueError(f"{path}: its files changed while it was loaded; it is loaded once they rest")
    except BaseException:
        model.close()
        raise
    return model, manifest


def has_room(needed: int) -> bool:
    """Returns whether so many bytes of memory are left, as far as the system says."""
    left = available_memory()
    return left is None or needed <= left


def _check_room(path: str) -> None:
    needed = bytes_when_loaded(path)
    if not has_room(needed):
        raise NoRoomError(
            f"{path}: it takes about {megabytes(needed)} of memory, and {megabytes(available_memory() or 0)} are left:"
            " give the server more memory (the old version stays until the new one answers, so both are in it for a"
            " while), or export with smaller tables (--tables=int8)",
            needed,
        )


def _check_answers(path: str, model: SavedModel, manifest: BundleManifest) -> None:
    subject = Subject(path, manifest=manifest, runtime=model)
    try:
        read_reference(subject)
        check_scores(subject)
    except (Failed, RunError) as e:
        raise ValueError(f"{path}: {e}") from e
