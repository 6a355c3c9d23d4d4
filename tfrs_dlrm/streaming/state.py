"""What the weights have seen of a stream. It is in the checkpoint, so that the two can never disagree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf


class StreamState(tf.Module):
    """How far a run is; it is saved with the weights.

    Attributes:
      step: the train steps so far.
      window: the windows so far, so that the last one done has this number.
      rows: trained on so far.
      malformed: messages set aside so far.
      malformed_in_a_row: those since the last row that could be read, where whole windows were malformed.
      offsets: int64 [partitions], of each partition the offset of the first message that is not yet done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step = _counter()
        self.window = _counter()
        self.rows = _counter()
        self.malformed = _counter()
        self.malformed_in_a_row = _counter()
        # Topics may get further partitions.
        self.offsets = tf.Variable(np.zeros(0, np.int64), trainable=False, shape=tf.TensorShape([None]))

    def next_offsets(self) -> dict[int, int]:
        """`offsets` by partition."""
        return {partition: int(offset) for partition, offset in enumerate(self.offsets.numpy())}

    def set_offsets(self, offsets: Mapping[int, int]) -> None:
        """Sets those of all partitions, whose numbers are 0, 1, ..."""
        self.offsets.assign(np.array([offsets[p] for p in range(len(offsets))], np.int64))


def _counter() -> tf.Variable:
    return tf.Variable(0, dtype=tf.int64, trainable=False)
