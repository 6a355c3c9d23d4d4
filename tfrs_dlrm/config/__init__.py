"""The description of a run, as dataclasses; a recipe in `configs/` returns a `RunConfig`."""

from tfrs_dlrm.config.models.base import ModelConfig
from tfrs_dlrm.config.models.dcn import DCNConfig
from tfrs_dlrm.config.models.deepfm import DeepFMConfig
from tfrs_dlrm.config.models.dlrm import DLRMConfig
from tfrs_dlrm.config.models.embedding_mlp import MLPConfig
from tfrs_dlrm.config.models.factorization_machine import FactorizationMachineConfig
from tfrs_dlrm.config.models.logistic_regression import LogisticRegressionConfig
from tfrs_dlrm.config.models.matrix_factorization import MatrixFactorizationConfig
from tfrs_dlrm.config.models.registry import MODELS, as_model, model_config
from tfrs_dlrm.config.models.wide_and_deep import WideAndDeepConfig
from tfrs_dlrm.config.run import (
    DENSE_OPTIMIZERS,
    EMBEDDING_OPTIMIZERS,
    MONITORS,
    DataConfig,
    OptimizerConfig,
    RunConfig,
    StreamConfig,
    TrainConfig,
)

__all__ = [
    "DENSE_OPTIMIZERS",
    "EMBEDDING_OPTIMIZERS",
    "MODELS",
    "MONITORS",
    "DCNConfig",
    "DLRMConfig",
    "DataConfig",
    "DeepFMConfig",
    "FactorizationMachineConfig",
    "LogisticRegressionConfig",
    "MLPConfig",
    "MatrixFactorizationConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "StreamConfig",
    "TrainConfig",
    "WideAndDeepConfig",
    "as_model",
    "model_config",
]
