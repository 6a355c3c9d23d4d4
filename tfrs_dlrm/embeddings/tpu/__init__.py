"""Embedding tables on TPUs."""

from tfrs_dlrm.embeddings.tpu.tpu_tables import TPUEmbeddingTables

__all__ = ["TPUEmbeddingTables"]
