"""Checkpoints that know nothing of devices: saved under one strategy and number of them, restored under any other.

    step-40/
      manifest.json     step and schema; shape, dtype, checksum of each table and slot; sizes of the files
      rows.*            tables and slots, each of them whole; `tf.train.load_checkpoint("step-40/rows")` reads it
      dense.*           everything else; an ordinary `tf.train.Checkpoint`

The modules, in the order of what happens: `contents` (what of a model is in it), `rows` and `checksum` (tables and
slots, in parts, from their devices to files and back), `save` and `restore`, `directory` (names that only whole
checkpoints have), `run` (the latest and the best of a run).
"""

from tfrs_dlrm.checkpoint.restore import restore_checkpoint
from tfrs_dlrm.checkpoint.run import Checkpoints
from tfrs_dlrm.checkpoint.save import save_checkpoint

__all__ = ["Checkpoints", "restore_checkpoint", "save_checkpoint"]
