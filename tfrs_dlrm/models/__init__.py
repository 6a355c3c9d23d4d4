"""Ranking models."""

from tfrs_dlrm.models.auto_int import AutoInt
from tfrs_dlrm.models.bst import BST
from tfrs_dlrm.models.dcn import DCN
from tfrs_dlrm.models.deepfm import DeepFM
from tfrs_dlrm.models.din import DIN
from tfrs_dlrm.models.dlrm import DLRM
from tfrs_dlrm.models.embedding_mlp import EmbeddingMLP
from tfrs_dlrm.models.factorization_machine import FactorizationMachine
from tfrs_dlrm.models.final_mlp import FinalMLP
from tfrs_dlrm.models.final_net import FinalNet
from tfrs_dlrm.models.gdcn import GDCN
from tfrs_dlrm.models.logistic_regression import LogisticRegression
from tfrs_dlrm.models.mask_net import MaskNet
from tfrs_dlrm.models.matrix_factorization import MatrixFactorization
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.models.wide_and_deep import WideAndDeep
from tfrs_dlrm.models.xdeepfm import XDeepFM

__all__ = [
    "BST",
    "DCN",
    "DIN",
    "DLRM",
    "GDCN",
    "AutoInt",
    "DeepFM",
    "EmbeddingMLP",
    "FactorizationMachine",
    "FinalMLP",
    "FinalNet",
    "LogisticRegression",
    "MaskNet",
    "MatrixFactorization",
    "RankingModel",
    "WideAndDeep",
    "XDeepFM",
]
