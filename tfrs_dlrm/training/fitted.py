"""Settings that a recipe leaves to the data, chosen for prepared data."""

from __future__ import annotations

import os

from tfrs_dlrm.config import Choice, DataFacts, RunConfig, fitted, left_to_data
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.reading.labels import label_counts
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import local_copy


def data_facts(data_dir: str) -> DataFacts:
    """Returns what the choices depend on.

    Args:
      data_dir: what `prepare` wrote.

    Raises:
      FileNotFoundError, ValueError: it is missing or damaged.
    """
    data_dir = local_copy(data_dir)
    manifest = PreparedManifest.load(data_dir)
    schema = Schema.load(os.path.join(data_dir, SCHEMA_FILE))
    counted = label_counts(data_dir, "eval").get(schema.label_columns[0]) if manifest.eval else None
    rarer = None
    if counted is not None and counted.positives is not None:
        rarer = min(counted.positives, counted.count - counted.positives)
    return DataFacts(manifest.rows("train"), manifest.rows("eval"), rarer)


def fitted_to_data(
    config: RunConfig, data_dir: str, begun: RunConfig | None = None
) -> tuple[RunConfig, tuple[Choice, ...]]:
    """Returns the configuration with a value in every field, and what was chosen; see `tfrs_dlrm.config.fitted`.

    Args:
      config: the recipe.
      data_dir: what `prepare` wrote.
      begun: the run that is resumed; None for a new run.
    """
    return fitted(config, data_facts(data_dir), begun) if left_to_data(config) else (config, ())
