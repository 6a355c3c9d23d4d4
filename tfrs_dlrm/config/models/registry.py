"""All model configurations by name."""

import dataclasses
from typing import Any

from tfrs_dlrm.config.field_checks import check_choice
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
from tfrs_dlrm.config.models.shallow_models import (
    FactorizationMachineConfig,
    LogisticRegressionConfig,
    MatrixFactorizationConfig,
)

MODELS: dict[str, type[ModelConfig]] = {
    config.name: config
    for config in (
        DLRMConfig,
        LogisticRegressionConfig,
        MatrixFactorizationConfig,
        FactorizationMachineConfig,
        DeepFMConfig,
        WideAndDeepConfig,
        MLPConfig,
        DCNConfig,
        GDCNConfig,
        FinalMLPConfig,
        MaskNetConfig,
        AutoIntConfig,
        XDeepFMConfig,
        FinalNetConfig,
        DINConfig,
        BSTConfig,
    )
}


def model_config(name: str, **fields: Any) -> ModelConfig:
    """Makes the configuration of the model called `name`.

    Raises:
      ValueError: no model has that name.
    """
    check_choice("model.name", name, MODELS)
    return MODELS[name](**fields)


def as_model(config: ModelConfig, name: str) -> ModelConfig:
    """Returns the configuration of the model called `name`, with all fields that both models have.

    Raises:
      ValueError: no model has that name.
    """
    if name == config.name:
        return config
    default = model_config(name)
    default = default.with_embedding_dim(config.embedding_dim) if config.embedding_dim else default
    shared = {f.name for f in dataclasses.fields(config) if f.init} & {f.name for f in dataclasses.fields(default)}
    return dataclasses.replace(default, **{field: getattr(config, field) for field in shared})
