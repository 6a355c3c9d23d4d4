"""What the latest checkpoint of a run holds."""

import os

import numpy as np
import tensorflow as tf

from tfrs_dlrm.training.workdir import Workdir


def weights(workdir):
    """Tables, slots and dense weights, by name."""
    path = Workdir(str(workdir)).checkpoint("latest")
    out = {}
    for file in ("rows", "dense"):
        reader = tf.train.load_checkpoint(os.path.join(path, file))
        names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
        out |= {n: np.asarray(reader.get_tensor(n)) for n in names}
    return out
