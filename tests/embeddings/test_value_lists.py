"""The lists of multi-valued features in their forms, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tfrs_dlrm.embeddings.value_lists import padded_sequences

IDS = [[-1, 3, 0, -1, 7], [4, 5, -1, 6, 7], [-1] * 5, [-1, -1, -1, -1, 2]]


@pytest.mark.parametrize("length", [1, 2, 5, 7])
@pytest.mark.parametrize("last", [True, False])
def test_padded_sequences(length, last):
    weights = np.arange(20, dtype=np.float32).reshape(4, 5)
    ids, placed = padded_sequences(tf.constant(IDS), tf.constant(weights), length, last)
    for i, row in enumerate(IDS):
        places = [k for k, value in enumerate(row) if value >= 0]
        places = places[-length:] if last else places[:length]
        padding = length - len(places)
        assert ids[i].numpy().tolist() == [row[k] for k in places] + [-1] * padding
        assert placed[i].numpy().tolist() == [weights[i, k] for k in places] + [0] * padding
    assert padded_sequences(tf.constant(IDS), None, length, last)[1] is None
