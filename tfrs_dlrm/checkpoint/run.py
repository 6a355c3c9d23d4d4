"""The checkpoints of a run: the latest and the best, written while it goes on."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from absl import logging

from tfrs_dlrm.checkpoint import directory
from tfrs_dlrm.checkpoint.contents import Contents
from tfrs_dlrm.checkpoint.restore import restore
from tfrs_dlrm.checkpoint.save import Saving
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.models.ranking import RankingModel


class Checkpoints:
    """The latest checkpoints of a run, and the best.

    Inside `with` a checkpoint that is still being written when the run ends, or fails, is written to its end.

    Args:
      model: compiled.
      latest: the directory of the latest.
      best: that of the best.
      keep: how many of the latest to keep.
      beside: what to save with the model, by name.
      asynchronous: whether to write them behind the run's back, from a copy, where memory allows it.
      on_whole: called whenever one is whole, from whichever thread wrote it.
    """

    def __init__(
        self,
        model: RankingModel,
        latest: str,
        best: str,
        keep: int,
        beside: Mapping[str, Any] | None = None,
        asynchronous: bool = True,
        on_whole: Callable[[], None] = lambda: None,
    ):
        self._contents = Contents.of(model, beside)
        self._latest, self._best, self._keep, self._asynchronous = latest, best, keep, asynchronous
        self._on_whole = on_whole
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
        """Restores the latest that can be read and returns its path, or None where there is none.

        Each that cannot is named in a warning, which says why.

        Raises:
          ValueError: none of them can.
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
                restore(self._contents, path)
            except (ValueError, FileNotFoundError) as e:
                failed = True
                logging.warning("%s; trying the checkpoint before it", e)
            if not distribution.any_process(failed):
                return path
        if paths:
            raise ValueError(f"{self._latest}: none of the checkpoints in there can be read; see the warnings above")
        return None

    def save(self, step: int, best: bool = False) -> str:
        """Saves the model as it is now and returns the path that the checkpoint has once it is whole.

        Until then the former ones stay as they are. The one before it is waited for.

        Args:
          step: of the run.
          best: whether it is the best so far as well.

        Raises:
          Exception: whatever kept the one before it from being written.
        """
        self.wait()
        saving = Saving(self._contents, directory.step_path(self._latest, step), step)
        if saving.unfinished:
            if self._asynchronous and saving.snapshot():
                self._written = self._writer.submit(self._finish, saving, step, best)
            else:
                self._finish(saving, step, best)
        return saving.path

    def wait(self) -> None:
        """Waits until the last one saved is whole.

        Raises:
          Exception: whatever kept it from being written.
        """
        written, self._written = self._written, None
        if written:
            written.result()

    def _finish(self, saving: Saving, step: int, best: bool) -> None:
        saving.finish()
        if best:
            # First, since a run that is killed in between comes by here again, and would not if it went on from this.
            try:
                directory.publish_copy(saving.unfinished, directory.step_path(self._best, step))
            except BaseException:
                saving.discard()
                raise
        directory.publish(saving.unfinished, saving.path)
        # Those of later steps are from before the run went back to an earlier one.
        latest = directory.steps(self._latest)
        kept = [s for s in latest if s <= step][: self._keep]
        for s, path in latest.items():
            if s not in kept:
                directory.remove(path)
        for s, path in directory.steps(self._best).items() if best else ():
            if s != step:
                directory.remove(path)
        self._on_whole()
