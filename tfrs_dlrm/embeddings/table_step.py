"""How a train step looks up the tables of a model, and updates them."""

from __future__ import annotations

from typing import Any

from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer


class TableStep:
    """Looks up and updates by the two verbs of the tables.

    Args:
      tables: `EmbeddingTables` or `TPUEmbeddingTables`.
      optimizer: built for them.
    """

    def __init__(self, tables: Any, optimizer: RowOptimizer) -> None:
        self.tables, self.optimizer = tables, optimizer

    def lookup(self, ids: Any) -> Any:
        """Returns what a step differentiates by: the activations, or tensors of which `vectors` makes them.

        Args:
          ids: the result of `tables.prepare`.
        """
        return self.tables.lookup(ids)

    def vectors(self, found: Any) -> Any:
        """Returns the activations, as `tables.lookup` returns them; call this where a tape records."""
        return found

    def update(self, ids: Any, gradients: Any) -> None:
        """Takes a step of the optimizer; the gradients have the structure of the result of `lookup`."""
        self.tables.update(ids, gradients, self.optimizer)
