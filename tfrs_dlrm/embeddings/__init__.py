"""Embedding tables behind two verbs, `lookup` and `update`, and the optimizers of their rows."""

from tfrs_dlrm.embeddings.optimizers import FTRL, SGD, Adagrad, LazyAdam, RowWiseAdagrad
from tfrs_dlrm.embeddings.per_table_optimizer import PerTableOptimizer
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.embeddings.updates import RowOptimizer

__all__ = [
    "FTRL",
    "SGD",
    "Adagrad",
    "EmbeddingTables",
    "LazyAdam",
    "PerTableOptimizer",
    "RowOptimizer",
    "RowWiseAdagrad",
]
