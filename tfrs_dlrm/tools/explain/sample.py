"""Some examples of a prepared set in memory, whose features can be exchanged among them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split, encoded_schema
from tfrs_dlrm.data.reading.columns import Columns, assemble
from tfrs_dlrm.data.reading.row_groups import open_row_groups
from tfrs_dlrm.embeddings.ids import Features
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import SCHEMA_FILE, Schema


@dataclasses.dataclass(frozen=True)
class Sample:
    """Encoded examples.

    Attributes:
      schema: of the data.
      table: a row for each, see `encoded_schema`.
      label: which of the schema's labels they are looked at for; it is known of all of them.
    """

    schema: Schema
    table: pa.Table
    label: int = 0

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def labels(self) -> np.ndarray:
        """Float32 [N]."""
        return self.table[self.schema.label_columns[self.label]].to_numpy()

    @property
    def weights(self) -> np.ndarray | None:
        """Float32 [N], or None where the examples have none."""
        return self.table["weight"].to_numpy() if self.schema.weight else None

    def first(self, examples: int) -> Sample:
        """The first examples of it, which are in no order."""
        return dataclasses.replace(self, table=self.table.slice(0, examples))

    def exchanged(self, features: Sequence[str], donors: np.ndarray) -> Sample:
        """The same examples, but example i has the values of some features that example `donors[i]` has.

        All that belongs to a feature goes along: the indicator of a number, all values of an example and their weights.
        """
        table = self.table
        for feature in features:
            for name in columns_of(self.schema, feature):
                column = self.table[name].take(pa.array(donors))
                table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
        return dataclasses.replace(self, table=table)

    def features(self, first: int, last: int) -> Features:
        """What a model takes, of examples `first` to `last`."""
        columns = Columns.of(self.table.slice(first, last - first), self.schema).arrays()
        return assemble(self.schema, [tf.constant(c) for c in columns], sort_ids=False)[0]


def columns_of(schema: Schema, feature: str) -> list[str]:
    """The columns of `encoded_schema` that belong to a feature."""
    for dense in schema.dense:
        if dense.name == feature:
            return [feature, f"{feature}_missing"] if dense.indicator else [feature]
    f = next(f for f in schema.categorical if f.name == feature)
    return [feature, f.weights_name] if f.weights else [feature]


def draw(directory: str, split: Split, examples: int, seed: int = 0, label: int = 0) -> Sample:
    """Examples of a split at random, without replacement and in random order; all of them where there are no more.

    Those of which the label is not known are left out.

    Args:
      directory: what `prepare` wrote.
      split: `train` or `eval`.
      examples: how many.
      seed: of the choice.
      label: its position in the schema.

    Raises:
      FileNotFoundError: no prepared data there.
      ValueError: an empty split, a damaged shard, or no example of which the label is known.
    """
    schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
    known = _known(directory, split, schema, label)
    rng = np.random.default_rng(seed)
    chosen = known[np.sort(rng.choice(len(known), min(examples, len(known)), replace=False))]
    parts, begin = [], 0
    for file, i in open_row_groups(directory, split):
        end = begin + file.metadata.row_group(i).num_rows
        first, last = np.searchsorted(chosen, [begin, end])
        if first < last:
            group = file.read_row_group(i, columns=encoded_schema(schema).names)
            parts.append(group.take(pa.array(chosen[first:last] - begin)))
        begin = end
    table = pa.concat_tables(parts).take(pa.array(rng.permutation(len(chosen))))
    return Sample(schema, table.combine_chunks(), label)


def _known(directory: str, split: Split, schema: Schema, label: int) -> np.ndarray:
    """The numbers of the examples of which a label is known, in their order."""
    if label == 0:  # of all
        return np.arange(PreparedManifest.load(directory).rows(split))
    name = schema.label_columns[label]
    columns = [file.read_row_group(i, columns=[name])[name].to_numpy() for file, i in open_row_groups(directory, split)]
    known = np.flatnonzero(np.isfinite(np.concatenate(columns)))
    if not len(known):
        raise ValueError(f"{directory}: label {schema.labels[label].name!r} is known of no example of the {split} set")
    return known


def scores(
    model: RankingModel, sample: Sample, batch_size: int, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """What a model says of the label of the examples, float64 [N]: logits or, of a regression, predicted numbers.

    Args:
      model: the trained model.
      sample: the examples.
      batch_size: how many are scored at a time.
      progress: called with the number of examples, once they are scored.

    Raises:
      FloatingPointError: a score is NaN or infinite.
    """
    begins = range(0, len(sample), batch_size)
    parts = [model.scores(sample.features(b, min(b + batch_size, len(sample)))).numpy() for b in begins]
    out = np.concatenate(parts).reshape(len(sample), -1)[:, sample.label].astype(np.float64)
    if not np.isfinite(out).all():
        raise FloatingPointError(f"{np.count_nonzero(~np.isfinite(out))} of {len(out)} scores are not finite")
    if progress:
        progress(len(out))
    return out
