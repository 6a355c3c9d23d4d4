"""A trainer along a stream that counts, in its own weights, how often it was trained on each row.

python benchmarks/streams/stream_worker.py CONFIG.json WORKDIR

The schema has a feature `row`, the number of the row. Its vectors go into the model as zeros, whatever they are, and
get a gradient of -1 a row, whatever the loss is. Under SGD they are then the learning rate times the count. As they are
in the checkpoint with all other weights, they say what these have seen.
"""

import json
import sys

import numpy as np
import tensorflow as tf

from tfrs_dlrm.config import DLRMConfig, RunConfig
from tfrs_dlrm.models.dlrm import DLRM
from tfrs_dlrm.streaming.loop import train_on_stream

FEATURE = "row"


@tf.custom_gradient
def _counted(vectors: tf.Tensor):
    return tf.zeros_like(vectors), lambda upstream: -tf.ones_like(upstream)


class CountingDLRM(DLRM):
    """A DLRM with a feature `row` that it does not look at."""

    def compute_logits(self, dense, embeddings, training):
        names = [f.name for f in self.schema.categorical]
        seen = [_counted(v) if name == FEATURE else v for name, v in zip(names, embeddings, strict=True)]
        return super().compute_logits(dense, seen, training)


def count_rows() -> None:
    """Makes `dlrm` in configurations the one that counts; such a configuration needs embedding_per_table='row=sgd'."""
    DLRMConfig.keras_class = f"{__name__}:{CountingDLRM.__name__}"


def counts(checkpoint: str, learning_rate: float) -> np.ndarray:
    """How often the weights of a checkpoint were trained on each row, float64 [rows of the table]."""
    reader = tf.train.load_checkpoint(f"{checkpoint}/rows")
    (name,) = [n for n in reader.get_variable_to_shape_map() if n.startswith(f"tables/{FEATURE}")]
    vectors = reader.get_tensor(name).astype(np.float64) / learning_rate
    assert (vectors == vectors[:, :1]).all()
    return vectors[:, 0]


if __name__ == "__main__":
    count_rows()
    with open(sys.argv[1], encoding="utf-8") as f:
        config = RunConfig.from_dict(json.load(f))
    print(train_on_stream(config, sys.argv[2]))
