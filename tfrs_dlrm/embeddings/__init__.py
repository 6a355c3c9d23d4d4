"""Embedding tables behind two verbs, `lookup` and `update`, and the optimizers of their rows."""

from tfrs_dlrm.embeddings.optimizers import FTRL, SGD, Adagrad, LazyAdam, RowWiseAdagrad
from tfrs_dlrm.embeddings.per_table_optimizer import PerTableOptimizer
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.tables import EmbeddingTables

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
