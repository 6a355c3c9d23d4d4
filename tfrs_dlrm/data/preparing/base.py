"""The prepared data that a preparation extends: its vocabulary, counts, statistics and lineage."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

from tfrs_dlrm import schema as schema_lib
from tfrs_dlrm.data.encoding.checksums import encoder_fingerprint
from tfrs_dlrm.data.preparing.growing_schema import as_before, with_max_sizes
from tfrs_dlrm.data.preparing.half_life import HalfLife
from tfrs_dlrm.data.preparing.kept_counts import check_kept, counts_path, lineage_path
from tfrs_dlrm.data.preparing.manifest import ChainLink, PreparedManifest, prepared_fingerprint
from tfrs_dlrm.schema import SCHEMA_FILE, CategoricalFeature, Schema
from tfrs_dlrm.stores import local_copy


@dataclasses.dataclass(frozen=True)
class PreparedBase:
    """The base of a preparation, as it was found at the beginning.

    Attributes:
      name: the directory or address, as it was given.
      directory: its local copy.
      fingerprint: see `prepared_fingerprint`.
      schema: its schema.
      factor: what its counts are multiplied with.
      refresh: whether statistics are those of the new rows.
      chain: the links before this preparation, the oldest first; the base is the last of them.
      counts: the checksums of the files with counts and lineage, see `PreparedManifest`.
    """

    name: str
    directory: str
    fingerprint: str
    schema: Schema
    factor: float
    refresh: bool
    chain: tuple[ChainLink, ...]
    counts: dict[str, str]

    @classmethod
    def load(cls, name: str, half_life: HalfLife, refresh: bool, day: str) -> PreparedBase:
        """Reads the base.

        Args:
          name: a prepared directory, on a disk or in an object store.
          half_life: in which its counts halve.
          refresh: whether statistics are those of the new rows.
          day: of the new rows, `YYYY-MM-DD`; empty if it is not known.

        Raises:
          FileNotFoundError: there is no such directory, or its preparation did not finish.
          ValueError: one of its files is damaged; an earlier version prepared it, without counts; or its day is after
            `day`.
        """
        try:
            directory = local_copy(name)
            manifest = PreparedManifest.load(directory)
        except (FileNotFoundError, ValueError) as e:
            raise type(e)(f"base: {e}") from e
        if not manifest.counts:
            raise ValueError(
                f"base: {name} was prepared by an earlier version, which kept no counts of values; prepare it again,"
                " with the same arguments: its rows stay the same"
            )
        before = str(manifest.job.get("day") or "")
        if before and day and day < before:
            raise ValueError(f"base: day={day} is before {before}, the day of {name}; prepare days in their order")
        fingerprint = prepared_fingerprint(directory)
        schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
        link = ChainLink(name, fingerprint, encoder_fingerprint(directory), before, manifest.train_stamps())
        factor = half_life.factor(before, day)
        return cls(name, directory, fingerprint, schema, factor, refresh, (*manifest.chain, link), manifest.counts)

    @property
    def links(self) -> int:
        """How many links the chain has before this preparation, which is its number."""
        return len(self.chain)

    def value_count(self, table: str) -> int:
        """How many values of a table have a row."""
        return (self.schema.table(table).vocabulary_size or 1) - 1

    def counts_file(self, table: str) -> str:
        """Returns the path of the counts of a table; raises a ValueError if the file is not as it was written."""
        return self._checked(counts_path(self.directory, table))

    def lineage_file(self, table: str) -> str:
        """Returns the path of the lineage of a table, checked as `counts_file`; empty if the base is the first link."""
        return self._checked(lineage_path(self.directory, table)) if self.links > 1 else ""

    def _checked(self, path: str) -> str:
        name = os.path.relpath(path, self.directory)
        if name not in self.counts:
            raise ValueError(f"{path}: {self.name} has no such file; prepare it again")
        check_kept(path, self.counts[name])
        return path

    def schema_for(self, given: Schema) -> Schema:
        """Returns the schema of the next link: that of the base, with the `max_size` and text layout that are given.

        Raises:
          ValueError: the given schema differs in something else, has a smaller `max_size`, or a feature whose rows
            cannot stay.
        """
        units = dict(zip(self.schema.label_columns, ((x.mean, x.std) for x in self.schema.labels), strict=True))
        same = {column: units[column] for column in given.label_columns if column in units}
        if found := schema_lib.difference(self.schema, as_before(given, self.schema).with_units(same)):
            raise ValueError(
                f"base: the schema differs from that of {self.name}: {found}; only max_size may grow. Leave the schema"
                " out, which takes that of the base, or prepare without a base"
            )
        for old, new in zip(self.schema.categorical, given.categorical, strict=True):
            self._check_size(old, new)
        return dataclasses.replace(with_max_sizes(self.schema, given.categorical), text=given.text)

    def _check_size(self, old: CategoricalFeature, new: CategoricalFeature) -> None:
        if new.encoding != "vocabulary":
            return
        least = max(self.value_count(old.table), old.max_size or 0)
        if new.max_size is not None and new.max_size < least:
            raise ValueError(
                f"base: feature {new.name!r}: max_size={new.max_size} is below that of {self.name}; give at least"
                f" {least}, since its values keep their rows"
            )
        if new.out_of_range == "hash":
            raise ValueError(
                f"base: feature {new.name!r}: out_of_range='hash' gives unknown values rows that change when the table"
                " grows; prepare a first day with out_of_range='oov', or with encoding='hash', whose rows never change"
            )

    def check_new(self, stamps: Sequence[Any]) -> None:
        """Makes sure that no file or frame was counted before.

        Args:
          stamps: of the training files, see `PrepareJob.fingerprint`.

        Raises:
          ValueError: one is in the chain; the message says where.
        """
        seen = {_key(stamp): link.name for link in self.chain for stamp in link.files}
        for stamp in stamps:
            if (used := seen.get(_key(stamp))) is not None:
                what = stamp.get("path") or f"a frame of {stamp.get('rows')} rows"
                raise ValueError(
                    f"base: {what} was used already, in {used}; its rows would count twice. Leave it out, or give the"
                    " base from before"
                )


def _key(stamp: Any) -> str:
    return json.dumps(stamp, sort_keys=True)
