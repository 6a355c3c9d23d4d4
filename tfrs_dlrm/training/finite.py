"""Weights that are NaN or infinite, which must not get into a checkpoint."""

from __future__ import annotations

from tfrs_dlrm.embeddings.variables import all_finite, all_rows_finite
from tfrs_dlrm.models.ranking import RankingModel


def not_finite(model: RankingModel) -> str:
    """Which weights are not, in words; empty where all are. A ReLU can turn such into a loss that looks fine."""
    for variable in model.dense_variables:
        if not all_finite(variable):
            return f"the weights {variable.name} are not finite"
    model.embeddings.fetch()
    for name, table in model.embeddings.logical_tables().items():
        if not all_rows_finite(table):
            return f"the rows of {name} are not finite"
    return ""
