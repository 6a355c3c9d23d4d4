"""Whether a copy of tables and slots fits beside them."""

from __future__ import annotations

import tensorflow as tf

from tfrs_dlrm.distribute.memory import available_memory


def available(host: str) -> int:
    """The bytes that programs on a host can still take; 0 where it does not say so.

    Args:
      host: a CPU by TensorFlow's name, perhaps of another machine.
    """

    def read(path: str) -> str:
        try:
            with tf.device(host):  # there the ops run, and read that machine's file
                if tf.size(tf.io.matching_files(path)):  # of one that is not there TensorFlow would print a warning
                    return tf.io.read_file(path).numpy().decode()
                return ""
        except tf.errors.OpError:
            return ""

    return available_memory(read) or 0
