"""All models by name."""

import dataclasses
from typing import Any

from tfrs_dlrm.config.field_checks import check_choice
from tfrs_dlrm.config.models.base import ModelConfig
from tfrs_dlrm.config.models.dcn import DCNConfig
from tfrs_dlrm.config.models.deepfm import DeepFMConfig
from tfrs_dlrm.config.models.dlrm import DLRMConfig
from tfrs_dlrm.config.models.embedding_mlp import MLPConfig
from tfrs_dlrm.config.models.factorization_machine import FactorizationMachineConfig
from tfrs_dlrm.config.models.logistic_regression import LogisticRegressionConfig
from tfrs_dlrm.config.models.matrix_factorization import MatrixFactorizationConfig
from tfrs_dlrm.config.models.wide_and_deep import WideAndDeepConfig

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
