"""What a run is told, as dataclasses; a recipe in `configs/` returns a `RunConfig`."""

from tfrs_dlrm.config.run import (
    DENSE_OPTIMIZERS,
    EMBEDDING_OPTIMIZERS,
    MODELS,
    MONITORS,
    DataConfig,
    ModelConfig,
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
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "StreamConfig",
    "TrainConfig",
]
