"""Checkpoints without devices: saved under one strategy and number of devices, restored under any other.

    step-40/
      manifest.json     step and schema; shape, dtype, checksum of each table and slot; file sizes
      rows.*            tables and slots, each of them whole; `tf.train.load_checkpoint("step-40/rows")` reads it
      dense.*           everything else; an ordinary `tf.train.Checkpoint`

The modules, in order: `contents` (which parts of a model a checkpoint holds), `table_rows` and `checksum` (tables and
slots, in parts, from their devices to files and back), `save` and `restore`, `directory` (names that only whole
checkpoints have), `run_checkpoints` (the latest and the best of a run). `facebook_dlrm` and `state_dict` read those of
PyTorch.
"""

from tfrs_dlrm.checkpoint.facebook_dlrm import restore_facebook_dlrm
from tfrs_dlrm.checkpoint.restore import restore_checkpoint
from tfrs_dlrm.checkpoint.run_checkpoints import Checkpoints
from tfrs_dlrm.checkpoint.save import save_checkpoint

__all__ = ["Checkpoints", "restore_checkpoint", "restore_facebook_dlrm", "save_checkpoint"]
