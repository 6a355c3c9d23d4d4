"""Keras layers that know nothing of schemas."""

from tfrs_dlrm.layers.dot_interaction import DotInteraction
from tfrs_dlrm.layers.mlp import MLP

__all__ = ["MLP", "DotInteraction"]
