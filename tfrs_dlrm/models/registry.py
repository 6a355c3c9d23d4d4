"""The models by the names that configurations have for them."""

from __future__ import annotations

from typing import Any

from tfrs_dlrm.config import ModelConfig
from tfrs_dlrm.models.dcn import DCN
from tfrs_dlrm.models.deepfm import DeepFM
from tfrs_dlrm.models.dlrm import DLRM
from tfrs_dlrm.models.embedding_mlp import EmbeddingMLP
from tfrs_dlrm.models.factorization_machine import FactorizationMachine
from tfrs_dlrm.models.logistic_regression import LogisticRegression
from tfrs_dlrm.models.matrix_factorization import MatrixFactorization
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.models.wide_and_deep import WideAndDeep
from tfrs_dlrm.schema import Schema

_MLP = ("top_mlp", "dropout", "batch_norm")
# Each model, and the fields of its configuration that it takes: arguments of its constructor by the same names.
REGISTRY: dict[str, tuple[type[RankingModel], tuple[str, ...]]] = {
    "dlrm": (DLRM, ("bottom_mlp", "self_interaction", "interaction", *_MLP)),
    "logistic_regression": (LogisticRegression, ()),
    "matrix_factorization": (MatrixFactorization, ("user", "item")),
    "factorization_machine": (FactorizationMachine, ()),
    "deepfm": (DeepFM, _MLP),
    "wide_and_deep": (WideAndDeep, _MLP),
    "mlp": (EmbeddingMLP, _MLP),
    "dcn": (DCN, ("cross_layers", "cross_rank", "cross_structure", "dense_mlp", *_MLP)),
}


def build_model(config: ModelConfig, schema: Schema, seed: int, embeddings: Any = None) -> RankingModel:
    """The model that a configuration names, not yet compiled.

    Args:
      config: its name and shape.
      schema: of the model, which is `config.schema` of that of the data.
      seed: of the initial weights.
      embeddings: the tables, where they were made already; see `RankingModel`.
    """
    model, fields = REGISTRY[config.name]
    return model(schema, seed=seed, embeddings=embeddings, **{name: getattr(config, name) for name in fields})
