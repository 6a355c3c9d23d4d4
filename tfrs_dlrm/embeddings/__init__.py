"""Embedding tables behind two verbs, `lookup` and `update`, and the optimizers of their rows."""

from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.embeddings.updates import FTRL, SGD, Adagrad, LazyAdam, PerTable, RowOptimizer, RowWiseAdagrad

__all__ = ["FTRL", "SGD", "Adagrad", "EmbeddingTables", "LazyAdam", "PerTable", "RowOptimizer", "RowWiseAdagrad"]
