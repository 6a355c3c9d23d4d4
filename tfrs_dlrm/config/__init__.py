"""The description of a run, as dataclasses; a recipe in `configs/` returns a `RunConfig`."""

from tfrs_dlrm.config.fitted import Choice, DataFacts, choice_lines, fitted
from tfrs_dlrm.config.models.base import ModelConfig
from tfrs_dlrm.config.models.deep_models import DCNConfig, DeepFMConfig, DLRMConfig, MLPConfig, WideAndDeepConfig
from tfrs_dlrm.config.models.later_models import (
    AutoIntConfig,
    BSTConfig,
    DINConfig,
    FinalMLPConfig,
    FinalNetConfig,
    GDCNConfig,
    MaskNetConfig,
    XDeepFMConfig,
)
from tfrs_dlrm.config.models.registry import MODELS, as_model, model_config
from tfrs_dlrm.config.models.shallow_models import (
    FactorizationMachineConfig,
    LogisticRegressionConfig,
    MatrixFactorizationConfig,
)
from tfrs_dlrm.config.recipes import load_recipe
from tfrs_dlrm.config.run import (
    ACCUMULATING,
    AUTO,
    DENSE_OPTIMIZERS,
    EMBEDDING_OPTIMIZERS,
    FROM_DATA,
    FROM_DATA_FIELDS,
    MONITORS,
    DataConfig,
    OptimizerConfig,
    RunConfig,
    StreamConfig,
    TrainConfig,
    automatic_row_optimizer,
    left_to_data,
    up_to_date,
    with_defaults,
)
from tfrs_dlrm.config.search import SearchConfig

__all__ = [
    "ACCUMULATING",
    "AUTO",
    "DENSE_OPTIMIZERS",
    "EMBEDDING_OPTIMIZERS",
    "FROM_DATA",
    "FROM_DATA_FIELDS",
    "MODELS",
    "MONITORS",
    "AutoIntConfig",
    "BSTConfig",
    "Choice",
    "DCNConfig",
    "DINConfig",
    "DLRMConfig",
    "DataConfig",
    "DataFacts",
    "DeepFMConfig",
    "FactorizationMachineConfig",
    "FinalMLPConfig",
    "FinalNetConfig",
    "GDCNConfig",
    "LogisticRegressionConfig",
    "MLPConfig",
    "MaskNetConfig",
    "MatrixFactorizationConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "SearchConfig",
    "StreamConfig",
    "TrainConfig",
    "WideAndDeepConfig",
    "XDeepFMConfig",
    "as_model",
    "automatic_row_optimizer",
    "choice_lines",
    "fitted",
    "left_to_data",
    "load_recipe",
    "model_config",
    "up_to_date",
    "with_defaults",
]
