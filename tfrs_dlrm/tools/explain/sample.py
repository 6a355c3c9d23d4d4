"""A sample of prepared examples in memory, whose values can be exchanged among the examples."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split, encoded_schema
from tfrs_dlrm.data.reading.columns import Columns, assemble
from tfrs_dlrm.data.reading.labels import kept_share
from tfrs_dlrm.data.reading.row_groups import open_row_groups
from tfrs_dlrm.embeddings.ids import Features
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import SCHEMA_FILE, Schema


@dataclasses.dataclass(frozen=True)
class Sample:
    """Encoded examples.

    Attributes:
      schema: the schema of the data.
      table: a row per example, see `encoded_schema`.
      label: the index of a label of the schema; all examples have it.
      kept: the share of the examples with a first label of 0 that `prepare` kept.
    """

    schema: Schema
    table: pa.Table
    label: int = 0
    kept: float = 1.0

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def labels(self) -> np.ndarray:
        """The labels, float32 [N]."""
        return self.table[self.schema.label_columns[self.label]].to_numpy()

    @property
    def weights(self) -> np.ndarray | None:
        """The weights, float32 [N], or None if there are none. A kept negative weighs as many as it stands for."""
        weights = self.table["weight"].to_numpy() if self.schema.weight else None
        if self.kept == 1:
            return weights
        stands_for = np.where(self.table[self.schema.label_columns[0]].to_numpy() > 0, 1.0, 1 / self.kept)
        return (stands_for if weights is None else weights * stands_for).astype(np.float32)

    def first(self, examples: int) -> Sample:
        """Returns the first examples; the order is random."""
        return dataclasses.replace(self, table=self.table.slice(0, examples))

    def exchanged(self, features: Sequence[str], donors: np.ndarray) -> Sample:
        """Returns the same examples, with the values of some features of example i taken from example `donors[i]`.

        All columns of a feature move together: the indicator of a number, all values and their weights, and of a
        history those that are parallel to it.
        """
        table = self.table
        for feature in features:
            for name in columns_of(self.schema, feature):
                column = self.table[name].take(pa.array(donors))
                table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
        return dataclasses.replace(self, table=table)

    def features(self, first: int, last: int) -> Features:
        """Returns the inputs of a model for examples `first` to `last`."""
        columns = Columns.of(self.table.slice(first, last - first), self.schema).arrays()
        return assemble(self.schema, [tf.constant(c) for c in columns], sort_ids=False)[0]


def columns_of(schema: Schema, feature: str) -> list[str]:
    """Returns the columns of `encoded_schema` that belong to a feature."""
    for dense in schema.dense:
        if dense.name == feature:
            return list(dense.encoded_columns)
    f = next(f for f in schema.categorical if f.name == feature)
    if f.history_of:
        main = f.parallel_to or f.name
        return [x.name for x in schema.histories if main in (x.name, x.parallel_to)]
    return [feature, f.weights_name] if f.weights else [feature]


def draw_sample(directory: str, split: Split, examples: int, seed: int = 0, label: int = 0) -> Sample:
    """Draws examples of a split without replacement, in random order; all of them if the split has fewer.

    Examples without the label are left out.

    Args:
      directory: a prepared directory.
      split: `train` or `eval`.
      examples: how many examples to draw.
      seed: the seed of the draw.
      label: the index of the label in the schema.

    Raises:
      FileNotFoundError: the directory has no prepared data.
      ValueError: the split is empty, a shard is damaged, or no example has the label.
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
    return Sample(schema, table.combine_chunks(), label, kept_share(schema, split))


def _known(directory: str, split: Split, schema: Schema, label: int) -> np.ndarray:
    """Returns the numbers of the examples that have a label, in order."""
    if label == 0:  # all have it
        return np.arange(PreparedManifest.load(directory).rows(split))
    name = schema.label_columns[label]
    columns = [file.read_row_group(i, columns=[name])[name].to_numpy() for file, i in open_row_groups(directory, split)]
    known = np.flatnonzero(np.isfinite(np.concatenate(columns)))
    if not len(known):
        raise ValueError(f"{directory}: label {schema.labels[label].name!r} is known of no example of the {split} set")
    return known


def score_sample(
    model: RankingModel, sample: Sample, batch_size: int, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """Returns the scores of the sample's label, float64 [N]: logits or, for a regression, predicted numbers.

    Args:
      model: the trained model.
      sample: the examples.
      batch_size: examples per batch.
      progress: called with the number of examples when all are scored.

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
