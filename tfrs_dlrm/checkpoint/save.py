"""Writes a checkpoint: everything at once, or the rows later from a copy."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from tfrs_dlrm.checkpoint import directory
from tfrs_dlrm.checkpoint.contents import CheckpointContents
from tfrs_dlrm.checkpoint.manifest import CheckpointManifest
from tfrs_dlrm.checkpoint.table_rows import AT_A_TIME, PartBatch, batches, local_cpu, write_rows
from tfrs_dlrm.distribute.memory import memory_of_host
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.variables import all_finite, all_rows_finite
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.stores.files import disk_full, local_path

DENSE, ROWS = "dense", "rows"


class CheckpointWriter:
    """A checkpoint that is being written, under a name that says so.

    The constructor writes everything but tables and slots, `snapshot` copies these if memory allows, and `finish`
    writes the copies, or else the present rows. If several processes each hold all of the model, all must make a
    writer, since some weights are summed over them; only the chief uses it further.

    Args:
      contents: of the model.
      path: the checkpoint.
      step: of the run.
      write_files: writes what else is to be in the checkpoint into its directory, as it is now.
    """

    def __init__(
        self,
        contents: CheckpointContents,
        path: str,
        step: int,
        write_files: Callable[[str], None] = lambda directory: None,
    ):
        self._contents, self._step = contents, step
        self.path, self.unfinished = path, ""
        self._batches: dict[str, list[PartBatch]] = {}
        self._at_a_time = AT_A_TIME
        options = tf.train.CheckpointOptions(experimental_io_device=local_cpu())
        with contents.strategy.scope():
            if not distribution_of(contents.strategy).is_chief:
                with tempfile.TemporaryDirectory() as thrown_away:
                    contents.dense.write(os.path.join(thrown_away, DENSE), options)
                return
            self.unfinished = directory.begin(os.path.abspath(path))  # other hosts may be in another directory
            try:
                contents.dense.write(os.path.join(self.unfinished, DENSE), options)
                write_files(self.unfinished)
            except BaseException:
                self.discard()
                raise
        contents.embeddings.fetch()
        self._batches = batches(contents.rows)

    def snapshot(self) -> bool:
        """Copies all rows and returns True, unless that would take more than half of the free memory of a host."""
        # One host after the other, since several may be on one machine.
        for host, some in self._batches.items():
            size, room = sum(part.bytes for batch in some for part in batch.parts), memory_of_host(host)
            if size > room / 2:
                logging.info(
                    "%s: tables and slots are %.1f GB, and %.1f GB of memory are left: they are written without a copy,"
                    " and training waits",
                    *(self.path, size / 1e9, room / 1e9),
                )
                return False
            for batch in some:
                batch.snapshot()
        return True

    def finish(self) -> None:
        """Writes the rows and the manifest; `directory.publish` then gives the checkpoint its name."""
        try:
            prefix = os.path.join(self.unfinished, ROWS)
            rows = write_rows(self._batches, self._contents.rows, prefix, self._at_a_time)
            files = directory.files_below(self.unfinished)
            CheckpointManifest(self._step, self._contents.schema, rows, files).write(self.unfinished)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Removes the files written so far: the disk may be full."""
        self._batches = {}
        shutil.rmtree(self.unfinished, ignore_errors=True)


@checked
def save_checkpoint(model: RankingModel, path: str) -> None:
    """Writes a whole model to a directory: weights, tables and, if it is compiled, optimizers and their slots.

    `restore_checkpoint` reads it under any strategy and any number of devices. Saving needs little additional memory,
    and the checkpoint has its name only once it is whole. In a run of several processes all of them call this.

    Args:
      model: built or compiled.
      path: the new directory, which all processes see.

    Raises:
      FileExistsError: the path exists.
      OSError: the disk is full.
    """
    distribution = distribution_of(model.distribute_strategy)
    if distribution.any_process(os.path.exists(local_path(path))):
        raise FileExistsError(f"{path}: already exists; choose another name, or remove it")
    model.build()
    with disk_full(path, "save again"):
        contents = CheckpointContents.of(model)
        step = int(model.embedding_optimizer.iterations.numpy()) if contents.optimizers else 0
        saving = CheckpointWriter(contents, path, step)
        if saving.unfinished:
            saving.finish()
            directory.publish(saving.unfinished, saving.path)
        distribution.wait_for_all()


def not_finite(model: RankingModel) -> str:
    """Names weights that are NaN or infinite, which no checkpoint should hold; empty if all are finite.

    A ReLU can turn such weights into a loss that looks fine.
    """
    for variable in model.dense_variables:
        if not all_finite(variable):
            return f"the weights {variable.name} are not finite"
    model.embeddings.fetch()
    for name, table in model.embeddings.logical_tables().items():
        if not all_rows_finite(table):
            return f"the rows of {name} are not finite"
    return ""
