"""Embedding tables behind two verbs, `lookup` and `update`, and the optimizers of their rows."""

from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.embeddings.updates import SGD, Adagrad, LazyAdam, RowOptimizer, RowWiseAdagrad

__all__ = ["SGD", "Adagrad", "EmbeddingTables", "LazyAdam", "RowOptimizer", "RowWiseAdagrad"]
