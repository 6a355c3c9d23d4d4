"""The vocabularies of a checkpoint as files in it, from which evaluation, export and reports encode."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from tfrs_dlrm.checkpoint.directory import link
from tfrs_dlrm.data.encoding.checksums import SAMPLES_FILE, files_in, write_checksums
from tfrs_dlrm.data.encoding.statistics import STATISTICS_FILE
from tfrs_dlrm.data.encoding.vocabulary import VOCABULARY_DIR, vocabulary_file
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores.files import whole_file


def write_encoder(directory: str, data_dir: str, schema: Schema, vocabularies: Mapping[str, Sequence[bytes]]) -> None:
    """Writes the schema, vocabularies, statistics and samples that go with the weights of a checkpoint.

    Args:
      directory: is made.
      data_dir: the directory that the run began with; has all that does not change.
      schema: of the model. Tables that admit values may have more rows than values.
      vocabularies: by table that admits values, those of rows 1, 2, ...
    """
    os.makedirs(os.path.join(directory, VOCABULARY_DIR))
    same = [name for name in files_in(data_dir, VOCABULARY_DIR, ".txt") if _table(name) not in vocabularies]
    for name in (STATISTICS_FILE, SAMPLES_FILE, *same):
        link(os.path.join(data_dir, name), os.path.join(directory, name))
    schema.save(os.path.join(directory, SCHEMA_FILE))
    for table, values in vocabularies.items():
        with whole_file(vocabulary_file(directory, table), "wb") as f:
            f.writelines(value + b"\n" for value in values)
    write_checksums(directory)


def _table(vocabulary: str) -> str:
    return os.path.basename(vocabulary).removesuffix(".txt")
