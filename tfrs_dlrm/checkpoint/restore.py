"""Reads a checkpoint into a model, under any strategy and number of devices."""

from __future__ import annotations

import os

import tensorflow as tf

from tfrs_dlrm.checkpoint.contents import CheckpointContents
from tfrs_dlrm.checkpoint.manifest import CheckpointManifest
from tfrs_dlrm.checkpoint.save import DENSE
from tfrs_dlrm.checkpoint.table_rows import local_cpu, read_rows
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.models.ranking import RankingModel

# What TensorFlow raises for checkpoints that are cut short, garbled, or of other objects,
UNREADABLE = (AssertionError, IndexError, ValueError, tf.errors.OpError)
# and what it raises for other reasons: another machine does not answer, or memory is full.
_NOT_ITS_FAULT = (tf.errors.AbortedError, tf.errors.ResourceExhaustedError, tf.errors.UnavailableError)


def restore_contents(contents: CheckpointContents, path: str) -> CheckpointManifest:
    """Overwrites the contents with a checkpoint and returns its manifest.

    Raises:
      FileNotFoundError: the path is no checkpoint.
      ValueError: the checkpoint is damaged, or of another schema, model or optimizer. The contents may then be half
        restored.
    """
    manifest = CheckpointManifest.read(path)
    try:
        manifest.check(contents.schema, contents.rows, whole=contents.optimizers)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    try:
        with contents.strategy.scope():
            options = tf.train.CheckpointOptions(experimental_io_device=local_cpu())
            status = contents.dense.read(os.path.join(path, DENSE), options)
            status.assert_existing_objects_matched().expect_partial()
        read_rows(os.path.abspath(path), manifest.rows, contents.rows)
        contents.embeddings.load()
    except _NOT_ITS_FAULT:
        raise
    except UNREADABLE as e:
        raise ValueError(f"{path}: damaged, or of another model: {str(e)[:500]}") from e
    return manifest


@checked
def restore_checkpoint(model: RankingModel, path: str) -> None:
    """Restores a checkpoint that `save_checkpoint` or a run wrote.

    If the model is compiled, its row optimizers must equal the checkpoint's and are restored with their slots.
    Otherwise only weights and tables are. The tables may be on any devices, shared out in any way.

    Args:
      model: of the same schema and layers.
      path: the directory of the checkpoint. In a run of several processes all of them read it.

    Raises:
      FileNotFoundError: the path is no checkpoint.
      ValueError: it is damaged, or of another schema, model or optimizer. The model may be half restored then.
    """
    model.build()
    restore_contents(CheckpointContents.of(model), path)
