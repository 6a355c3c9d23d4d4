"""Which rows of prepared data a model of an earlier link of their chain knows."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from tfrs_dlrm import schema as schema_lib
from tfrs_dlrm.data.encoding.checksums import encoder_fingerprint
from tfrs_dlrm.data.encoding.statistics import STATISTICS_FILE
from tfrs_dlrm.data.preparing.growing_schema import as_before
from tfrs_dlrm.data.preparing.kept_counts import LINEAGE_DIR, check_kept, read_since
from tfrs_dlrm.data.preparing.manifest import MANIFEST_FILE, PreparedManifest
from tfrs_dlrm.schema import SCHEMA_FILE, Schema


@dataclasses.dataclass(frozen=True)
class Lineage:
    """How prepared data extend earlier ones.

    Attributes:
      link: the earlier data's position in the chain.
      known: by table with a vocabulary, bool [rows]: whether a row has the value that it had in the earlier data. Row
        0, the unseen value, has.
      same_statistics: whether numbers are encoded alike.
    """

    link: int
    known: dict[str, np.ndarray]
    same_statistics: bool

    def rows(self) -> dict[str, np.ndarray]:
        """Returns, by table, the earlier row of each row, int32 [rows]; 0 where that had another value, or none."""
        return {
            table: np.where(known, np.arange(len(known)), 0).astype(np.int32) for table, known in self.known.items()
        }


def lineage(data_dir: str, encoder_dir: str) -> Lineage | None:
    """Finds in a local prepared directory the earlier link with the given vocabularies; None if there is none.

    Args:
      data_dir: the prepared directory.
      encoder_dir: the schema, vocabularies and statistics of the earlier data, such as `Workdir.encoder_dir`.

    Raises:
      ValueError: a file of the lineage is damaged.
    """
    if not os.path.isfile(os.path.join(data_dir, MANIFEST_FILE)):
        return None
    manifest = PreparedManifest.load(data_dir)
    if not manifest.chain:
        return None
    fingerprint = encoder_fingerprint(encoder_dir)
    links = [number for number, link in enumerate(manifest.chain) if link.encoder == fingerprint]
    if not links:
        return None
    for name, expected in manifest.counts.items():
        if name.startswith(f"{LINEAGE_DIR}/"):
            check_kept(os.path.join(data_dir, name), expected)
    schema = Schema.load(os.path.join(data_dir, SCHEMA_FILE))
    tables = dict.fromkeys(f.table for f in schema.categorical if f.encoding == "vocabulary")
    known = {t: read_since(data_dir, t, schema.table(t).vocabulary_size or 1) <= links[-1] for t in tables}
    return Lineage(links[-1], known, _statistics(data_dir) == _statistics(encoder_dir))


def check_scorable(schema: Schema, data_dir: str, found: Lineage, name: str) -> None:
    """Makes sure that a model of an earlier link can score the data.

    Args:
      schema: of the model.
      data_dir: the local prepared directory.
      found: its lineage.
      name: of the run, for messages.

    Raises:
      ValueError: the data have other statistics, or another schema but for what may grow.
    """
    advice = "prepare the log on its base without --refresh_statistics"
    if not found.same_statistics:
        raise ValueError(f"{data_dir}: the statistics of numbers were refreshed since the data of {name}; {advice}")
    grown = Schema.load(os.path.join(data_dir, SCHEMA_FILE))
    if difference := schema_lib.difference(schema, as_before(grown, schema)):
        raise ValueError(f"{data_dir}: another schema than the checkpoints in {name} have: {difference}; {advice}")


def _statistics(directory: str) -> bytes:
    with open(os.path.join(directory, STATISTICS_FILE), "rb") as f:
        return f.read()
