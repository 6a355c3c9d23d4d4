"""Keras layers that need no schema."""

from tfrs_dlrm.layers.auto_dis import AutoDis
from tfrs_dlrm.layers.cross_network import CrossNetwork
from tfrs_dlrm.layers.dot_interaction import DotInteraction
from tfrs_dlrm.layers.dropout import Dropout
from tfrs_dlrm.layers.factorization import Bias, DenseVectors
from tfrs_dlrm.layers.mlp import MLP

__all__ = ["MLP", "AutoDis", "Bias", "CrossNetwork", "DenseVectors", "DotInteraction", "Dropout"]
