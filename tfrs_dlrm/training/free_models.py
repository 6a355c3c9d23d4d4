"""Gives the memory of models back, where one process makes many."""

from __future__ import annotations

import gc

import tensorflow as tf


def free_models() -> None:
    """Gives the memory of models back that nothing uses any more; their parts refer to each other."""
    if not tf.distribute.has_strategy():  # Keras would drop the graph that has the stack of scopes
        tf.keras.backend.clear_session()
    gc.collect()
