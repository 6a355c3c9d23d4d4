"""The checkpoints of a run: the latest and the best, written during training."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from absl import logging

from tfrs_dlrm.checkpoint import directory
from tfrs_dlrm.checkpoint.contents import CheckpointContents
from tfrs_dlrm.checkpoint.restore import restore_contents
from tfrs_dlrm.checkpoint.save import CheckpointWriter
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.models.ranking import RankingModel


class Checkpoints:
    """The latest checkpoints of a run, and the best.

    Inside `with` a checkpoint that is still being written when the run ends, or fails, is written to its end.

    Args:
      model: compiled.
      latest: the directory of the latest.
      best: the directory of the best.
      keep: how many of the latest to keep.
      extra: what to save with the model, by name.
      asynchronous: whether to write in the background, from a copy, if memory allows it.
      on_whole: called whenever a checkpoint is whole, from the thread that wrote it.
      write_files: writes what else is to be in a checkpoint into its directory, before `save` returns.
    """

    def __init__(
        self,
        model: RankingModel,
        latest: str,
        best: str,
        keep: int,
        extra: Mapping[str, Any] | None = None,
        asynchronous: bool = True,
        on_whole: Callable[[], None] = lambda: None,
        write_files: Callable[[str], None] = lambda directory: None,
    ):
        self._contents = CheckpointContents.of(model, extra)
        self._latest, self._best, self._keep, self._asynchronous = latest, best, keep, asynchronous
        self._on_whole, self._write_files = on_whole, write_files
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: types.TracebackType | None) -> None:
        try:
            self.wait()
        except Exception as e:
            if error is None:
                raise
            logging.error("the checkpoint was not written: %s", e)

    def restore(self) -> str | None:
        """Restores the latest readable checkpoint and returns its path, or None without checkpoints.

        Logs a warning with the reason for each unreadable one.

        Raises:
          ValueError: none is readable.
        """
        distribution = distribution_of(self._contents.strategy)
        if distribution.is_chief:
            directory.tidy(self._latest)
            directory.tidy(self._best)
        distribution.wait_for_all()
        paths = directory.steps(self._latest).values()
        for path in paths:
            failed = False
            try:
                restore_contents(self._contents, path)
            except (ValueError, FileNotFoundError) as e:
                failed = True
                logging.warning("%s; trying the checkpoint before it", e)
            if not distribution.any_process(failed):
                return path
        if paths:
            raise ValueError(f"{self._latest}: no checkpoint can be read; see the warnings above")
        return None

    def save(self, step: int, best: bool = False) -> str:
        """Saves the model as it is now and returns the path that the checkpoint has once it is whole.

        Until then older checkpoints stay unchanged. Waits for the previous one first.

        Args:
          step: of the run.
          best: whether it is also the best so far.

        Raises:
          Exception: the previous one could not be written.
        """
        self.wait()
        saving = CheckpointWriter(self._contents, directory.step_path(self._latest, step), step, self._write_files)
        if saving.unfinished:
            if self._asynchronous and saving.snapshot():
                self._written = self._writer.submit(self._finish, saving, step, best)
            else:
                self._finish(saving, step, best)
        return saving.path

    def wait(self) -> None:
        """Waits until the last checkpoint saved is whole.

        Raises:
          Exception: it could not be written.
        """
        written, self._written = self._written, None
        if written:
            written.result()

    def _finish(self, saving: CheckpointWriter, step: int, best: bool) -> None:
        saving.finish()
        if best:
            # First: a run that is killed in between resumes before this step and saves it again.
            try:
                directory.publish_copy(saving.unfinished, directory.step_path(self._best, step))
            except BaseException:
                saving.discard()
                raise
        directory.publish(saving.unfinished, saving.path)
        # Checkpoints of later steps are from before the run went back to an earlier one.
        latest = directory.steps(self._latest)
        kept = [s for s in latest if s <= step][: self._keep]
        for s, path in latest.items():
            if s not in kept:
                directory.remove(path)
        for s, path in directory.steps(self._best).items() if best else ():
            if s != step:
                directory.remove(path)
        self._on_whole()
