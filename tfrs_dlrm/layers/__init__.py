"""Keras layers that need no schema."""

from tfrs_dlrm.layers.auto_dis import AutoDis
from tfrs_dlrm.layers.behavior_transformer import BehaviorTransformer
from tfrs_dlrm.layers.bilinear_fusion import BilinearFusion
from tfrs_dlrm.layers.compressed_interaction import CompressedInteraction
from tfrs_dlrm.layers.cross_network import CrossNetwork
from tfrs_dlrm.layers.dot_interaction import DotInteraction
from tfrs_dlrm.layers.dropout import Dropout
from tfrs_dlrm.layers.factorization import Bias, DenseVectors
from tfrs_dlrm.layers.factorized_interaction import FactorizedInteraction, FactorizedMLP
from tfrs_dlrm.layers.feature_gate import FeatureGate
from tfrs_dlrm.layers.field_attention import FieldAttention
from tfrs_dlrm.layers.gated_cross_network import GatedCrossNetwork
from tfrs_dlrm.layers.gates import Gates
from tfrs_dlrm.layers.layer_norm import LayerNorm
from tfrs_dlrm.layers.mask_block import MaskBlock
from tfrs_dlrm.layers.mixture_of_experts import MixtureOfExperts
from tfrs_dlrm.layers.mlp import MLP
from tfrs_dlrm.layers.parallel_mlps import ParallelMLPs
from tfrs_dlrm.layers.progressive_extraction import CustomizedGateControl, ProgressiveExtraction
from tfrs_dlrm.layers.target_attention import TargetAttention
from tfrs_dlrm.layers.task_towers import TaskTowers

__all__ = [
    "MLP",
    "AutoDis",
    "BehaviorTransformer",
    "Bias",
    "BilinearFusion",
    "CompressedInteraction",
    "CrossNetwork",
    "CustomizedGateControl",
    "DenseVectors",
    "DotInteraction",
    "Dropout",
    "FactorizedInteraction",
    "FactorizedMLP",
    "FeatureGate",
    "FieldAttention",
    "GatedCrossNetwork",
    "Gates",
    "LayerNorm",
    "MaskBlock",
    "MixtureOfExperts",
    "ParallelMLPs",
    "ProgressiveExtraction",
    "TargetAttention",
    "TaskTowers",
]
