"""Embedding tables on TPUs."""

from tfrs_dlrm.embeddings.tpu.engine import TPUEmbeddingTables

__all__ = ["TPUEmbeddingTables"]
