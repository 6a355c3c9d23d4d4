"""Contestants on their data: prepared, with an evaluation set, and with what the data choose for each recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tfrs_dlrm.config import DataConfig, DataFacts, RunConfig, fitted
from tfrs_dlrm.data.preparing.on_demand import ensure_prepared
from tfrs_dlrm.stores import Progress
from tfrs_dlrm.tools.comparison.contestants import Contestant
from tfrs_dlrm.tools.comparison.trees import Recipe
from tfrs_dlrm.training.fitted import data_facts


def fitted_contestants(
    contestants: Sequence[Contestant[Any]], data: DataConfig, seed: int, progress: Progress | None = None
) -> list[Contestant[Any]]:
    """Returns the contestants with a value in every field, after preparing their data if these are missing.

    Args:
      contestants: of the same data.
      data: where they are, and their raw logs.
      seed: of the preparation.
      progress: called with the progress of the preparation.

    Raises:
      ValueError: the data have no evaluation set; and see `ensure_prepared`.
    """
    ensure_prepared(data, seed, progress)
    facts = data_facts(data.path)
    if not facts.eval_rows:
        raise ValueError(
            f"{data.path} has no evaluation set to compare models on; prepare with --eval_fraction or --eval_input"
        )
    return [Contestant(c.label, _of_prepared_data(_fitted(c.config, facts))) for c in contestants]


def _fitted(config: Any, facts: DataFacts) -> Any:
    return fitted(config, facts)[0] if isinstance(config, RunConfig) else config


def _of_prepared_data(config: Recipe) -> Recipe:
    """Drops the fields that draw or split data: a run would do so again with its seed, which may be another."""
    return dataclasses.replace(config, data=config.data.of_prepared(config.data.path))
