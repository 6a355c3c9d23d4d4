"""Ranking models."""

from tfrs_dlrm.models.dcn import DCN
from tfrs_dlrm.models.deepfm import DeepFM
from tfrs_dlrm.models.dlrm import DLRM
from tfrs_dlrm.models.embedding_mlp import EmbeddingMLP
from tfrs_dlrm.models.factorization_machine import FactorizationMachine
from tfrs_dlrm.models.logistic_regression import LogisticRegression
from tfrs_dlrm.models.matrix_factorization import MatrixFactorization
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.models.wide_and_deep import WideAndDeep

__all__ = [
    "DCN",
    "DLRM",
    "DeepFM",
    "EmbeddingMLP",
    "FactorizationMachine",
    "LogisticRegression",
    "MatrixFactorization",
    "RankingModel",
    "WideAndDeep",
]
