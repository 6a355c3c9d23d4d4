"""The parts of a schema: label, features, tables, and the layout of text files."""

from __future__ import annotations

import dataclasses
from typing import Literal

from tfrs_dlrm.messages.arguments import check_fields
from tfrs_dlrm.schema.times import Time

Transform = Literal["none", "log1p", "standardize"]
Encoding = Literal["vocabulary", "hash", "ids", "buckets", "time"]
OutOfRange = Literal["oov", "error", "clip", "hash"]
Combiner = Literal["sum", "mean", "sqrtn"]
Pooling = Literal["mean", "sum", "target_attention"]
Initializer = Literal["uniform", "normal", "zeros"]
RawType = Literal["string", "int64"]
StorageType = Literal["float32", "bfloat16"]
Task = Literal["classification", "regression"]


@dataclasses.dataclass(frozen=True)
class Notation:
    """How the numbers of a text column are written; the default is `1234.5`. Numbers in typed columns need none.

    Attributes:
      decimal: the character before the fraction.
      thousands: the character between groups of digits; empty for none.
      unit: a text before or after the number, which is dropped: `6.0%` is 6.0. A number may lack it.
    """

    decimal: str = "."
    thousands: str = ""
    unit: str = ""


class _WithNumbers:
    """What holds numbers that a text column may write in several ways."""

    decimal: str
    thousands: str
    unit: str

    @property
    def notation(self) -> Notation:
        """How its numbers are written."""
        return Notation(self.decimal, self.thousands, self.unit)


class _WithInput(_WithNumbers):
    """What reads a raw value."""

    name: str
    input: str

    @property
    def input_name(self) -> str:
        """The name of its raw value."""
        return self.input or self.name


@dataclasses.dataclass(frozen=True)
class Label(_WithNumbers):
    """The column of a log that a model predicts, and how.

    For the task `classification` a model predicts the probability of a 1. By default the column holds 0 or 1.
    `positive` and `negative` list the texts that mean 1 and 0; with `threshold`, a number of at least this value is a
    1. For the task `regression` a model predicts the number itself, such as a rating; any finite number is allowed. A
    row with another value is malformed.

    Attributes:
      column: the column of the log.
      positive: texts that mean 1. `True` also stands for `true` and for the values of a bool column.
      negative: texts that mean 0.
      threshold: a number of at least this is a 1.
      task: `classification` or `regression`.
      mean: the mean of the training labels, where predictions begin: of a `classification` the weighted share of 1s. 0
        is unknown. `prepare` and `fit_encoder` set it.
      std: `regression` only: the standard deviation of the training labels, the unit of the loss. `prepare` sets it.
      name: the name of a further label: letters, digits and underscores; by default the column. It ends the names of
        metrics and of an exported model's outputs.
      loss_weight: the factor of this label's loss in the sum over several labels.
      after: of a further label of a `classification`: the name of an earlier label without which this one is never 1,
        such as `clicked` of a purchase. It is then known, and 0, of all rows where that one is 0, also if it is missing
        there; a 1 there makes the row malformed. See `tfrs_dlrm.models.label_tasks.Tasks`. Of rows where the earlier
        label is 1, this one may be missing; see `tfrs_dlrm.models.missing_labels`. Its `mean` is that among all rows.
      decimal: how numbers are written in text, as in `DenseFeature`.
      thousands: how numbers are written in text, as in `DenseFeature`.
      unit: how numbers are written in text, as in `DenseFeature`.
      keep_negatives: the first label of a `classification` only: the share of the training rows with a 0 that `prepare`
        keeps, drawn at random. Models add its logarithm to their logits, so that probabilities are those of all rows.
    """

    column: str
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    threshold: float | None = None
    task: Task = "classification"
    mean: float = 0.0
    std: float = 1.0
    name: str = ""
    loss_weight: float = 1.0
    after: str = ""
    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    keep_negatives: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclasses.dataclass(frozen=True)
class DenseFeature(_WithInput):
    """A number, turned into one float (two with `indicator`), or with `size` a vector of numbers, such as an embedding.

    Each number of a vector is read, filled in and transformed as a single number is, with statistics of its own.

    Attributes:
      name: the feature's name: letters, digits and underscores.
      column: the column of the log; by default the name.
      transform: `none`; `log1p`, which is log(1 + max(x, 0)); `standardize`, (x - mean) / standard deviation with
        both taken from the training rows; or both, `["log1p", "standardize"]`, with the statistics of the logarithms.
      fill_value: replaces a missing number, in the units of the log: a number, `"mean"` of the training rows, or None,
        which makes the row malformed.
      indicator: adds a float, 1 where the number, or any number of a vector, is missing.
      decimal: in text, the character before the fraction: `,` for `15,73`.
      thousands: in text, the character between groups of digits, `,` for `2,247.14`, a blank for `2 247`; or empty.
      unit: in text, what stands before or after the number and is dropped: `$` for `$15.73`. With `%`, `6.0%` is 6.0.
        Numbers without it are read as well.
      time: the column holds times, and the number is its part `days`.
      input: the name of its raw value in requests; by default the name. Features that share an input read one value.
      training_only: requests lack the value, such as the position of an item on a page: an exported model has no such
        input, and computes with `serving_value`.
      serving_value: with `training_only`, the number for requests, in the log's units; of a time, as the log writes it.
        None is a missing value.
      size: how many numbers a vector has. The column is a list column, or text. A list of another length makes the row
        malformed; no list, or an empty one, is a vector whose numbers are all missing.
      separator: vectors only: the text between the numbers in one text field, by default a comma. Brackets around them,
        as in `[0.1, 0.2]`, and blanks are dropped.
      projected: vectors only: whether a trained matrix makes a vector of it that interacts, of the dimension of the
        tables' vectors. By default its numbers are inputs as all others are, such as of DLRM's bottom MLP.
    """

    name: str
    column: str = ""
    transform: Transform | tuple[Transform, ...] = "none"
    fill_value: float | Literal["mean"] | None = 0.0
    indicator: bool = False
    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    time: Time | None = None
    input: str = ""
    training_only: bool = False
    serving_value: float | str | None = None
    size: int | None = None
    separator: str | None = None
    projected: bool = False

    def __post_init__(self) -> None:
        _freeze(self, "transform")
        check_fields(self)

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The transforms that are not `none`, in order."""
        listed = self.transform if isinstance(self.transform, tuple) else (self.transform,)
        return tuple(t for t in listed if t != "none")

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of its numbers: `NAME`, or `NAME_0`, `NAME_1`, ... of a vector."""
        return (self.name,) if self.size is None else tuple(f"{self.name}_{i}" for i in range(self.size))

    @property
    def reads_number(self) -> bool:
        """Whether its raw value is one float32 number."""
        return self.time is None and self.size is None

    @property
    def encoded_columns(self) -> tuple[str, ...]:
        """The names of its floats in an encoded example: of its numbers, then of the indicator, if it has one."""
        return (*self.numbers, f"{self.name}_missing") if self.indicator else self.numbers


@dataclasses.dataclass(frozen=True)
class CategoricalFeature(_WithInput):
    """A value, or several, each turned into a row of an embedding table.

    Attributes:
      name: the feature's name: letters, digits and underscores. That of a cross may be left out.
      column: the column of the log; by default the name.
      encoding: `vocabulary`: rows 1, 2, ... by falling frequency in the training rows (ties by value), row 0 for
        all others; `hash`: a fingerprint of the text modulo the table's rows; `ids`: the numbers are the rows;
        `buckets`: a row for each interval of a number, row 0 for a missing one; `time`: a row for each value of a
        part of a time, row 0 for a missing one.
      dtype: the type in the log and in serving requests: `string` or `int64`, which also reads `24216.0` and, as 1 or
        0, booleans. The empty text (for int64: -1) is an ordinary value for `vocabulary` and `hash`, and out of range
        for `ids`.
      min_count: `vocabulary` only: rarer values share row 0.
      max_size: `vocabulary` only: at most this many values get separate rows.
      multi_valued: any number of values an example. Implied by `separator`; without one, the column is a list column.
      separator: the text between the values in one text field.
      weights: a column with one weight per value, in the same form. Multi-valued features only.
      out_of_range: the policy for values without a row: `oov` (row 0), `error`, `clip` (`ids` only: the nearest row)
        or `hash` (any row, by fingerprint). With `ids` and `oov`, unknown ids share row 0 with id 0, so number from 1.
      table: the table it looks up, by default the feature's name; features that name the same table share it.
      sequence_length: multi-valued features only: returns the vectors of this many first values, [B, sequence_length,
        dim], padded with zeros, instead of pooling them. The model's `compute_logits` must take sequences, which
        DLRM's does not. Of a history: how many of its last values count.
      buckets: `buckets` only: at most how many intervals, with equally many training rows; a number that has a whole
        share of them is alone in its interval.
        Or `log2`: a row for negative numbers, then one for each floor(log2(1 + x)) up to the largest training row.
      edges: `buckets` only: the rising edges themselves. An edge belongs to the interval above it: `(0, 10)` are three
        buckets, x < 0, 0 <= x < 10 and x >= 10. Numbers and edges are compared as float32.
      decimal: `buckets` only: how numbers are written in text, as in `DenseFeature`.
      thousands: `buckets` only: how numbers are written in text, as in `DenseFeature`.
      unit: `buckets` only: how numbers are written in text, as in `DenseFeature`.
      time: the column holds times. The schema makes a feature `NAME_PART` of each part. `days` are put into buckets.
      input: the name of its raw value in requests; by default the name. Features that share an input read one value:
        the parts of a time, and buckets beside a dense feature of the same column.
      training_only: as in `DenseFeature`; for features with one value. All features of a column need the same.
      serving_value: with `training_only`, the value for requests, as the log has it; None is a missing value.
      cross: two or three one-valued features, whose values together are its value. It reads no column. With
        `vocabulary`, frequent combinations get rows; with `hash`, all share the rows of its table.
      history_of: the feature of which this one lists earlier values, the latest last: `item` of `clicked_items`. It
        shares that feature's table and encoding, and needs `sequence_length`; older values are cut off. Every model
        takes a history, as one vector unless it reads the events themselves.
      parallel_to: histories only: the history whose events this one describes, such as the category of each clicked
        item. Both lists have a value for each event; a row whose lists differ in length is malformed. An event without
        a value in the list called here is dropped from both lists.
      pooling: histories only: what a model with one vector per feature makes of the events; 0 without events. `mean`,
        `sum`, or `target_attention`: a sum in which the vectors of the features that `history_of` names decide how much
        each event counts; see `tfrs_dlrm.layers.TargetAttention`. Parallel lists are then weighed by the same
        attention, which reads all parts of an event.
    """

    name: str = ""
    column: str = ""
    encoding: Encoding = "vocabulary"
    dtype: RawType = "string"
    min_count: int = 1
    max_size: int | None = None
    multi_valued: bool = False
    separator: str | None = None
    weights: str | None = None
    out_of_range: OutOfRange = "oov"
    table: str = ""
    sequence_length: int | None = None
    buckets: int | Literal["log2"] | None = None
    edges: tuple[float, ...] = ()
    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    time: Time | None = None
    input: str = ""
    training_only: bool = False
    serving_value: float | str | None = None
    cross: tuple[str, ...] = ()
    history_of: str = ""
    parallel_to: str = ""
    pooling: Pooling = "mean"

    def __post_init__(self) -> None:
        _freeze(self, "edges")
        _freeze(self, "cross")
        check_fields(self)

    @property
    def reads_number(self) -> bool:
        """Whether its raw value is a float32 number."""
        return self.encoding == "buckets" and self.time is None

    @property
    def whole_rows(self) -> bool:
        """Whether each of its vectors is one row of the table, neither pooled with others nor weighted."""
        return not self.multi_valued or (self.sequence_length is not None and not self.weights)

    @property
    def length_key(self) -> str:
        """The key of an optional entry of encoded batches: int32 [B], how many events of a history count."""
        return f"{self.name}/length"

    @property
    def weights_name(self) -> str:
        """The key of the weights in raw and in encoded batches."""
        return f"{self.name}_weights"


@dataclasses.dataclass(frozen=True)
class Table:
    """An embedding table of `vocabulary_size` x `dim` floats.

    Attributes:
      name: the table's name: letters, digits and underscores.
      dim: the dimension of its vectors. Models with linear weights store one more number in each row.
      vocabulary_size: the number of rows. For vocabularies leave it out; `prepare` sets it.
      combiner: pools the rows of a multi-valued feature: `sum`, `mean`, or `sqrtn` (the sum divided by the square root
        of the sum of squared weights).
      initializer: `uniform` in [-scale, scale], `normal` with standard deviation `scale`, or `zeros`.
      scale: in the units of the embedding; None is 1 / sqrt(vocabulary_size), as in the reference
        code of DLRM (arXiv 1906.00091).
      dtype: the type of the stored rows. `bfloat16` halves the memory. Updates are computed in float32 and rounded
        stochastically, so that steps below the precision of bfloat16 have an effect on average.
      remainders: stores the table as two: one of vocabulary_size / `remainders` quotients and one of `remainders`
        remainders. A row is the product of row // remainders of the first and row % remainders of the second (Shi et
        al. 2020, "Compositional Embeddings Using Complementary Partitions", arXiv 1909.02164).
      stored_in: stores the rows in another table, which may store many: row i is as many of its rows side by side as
        `dim` numbers take, cut to `dim`. They are chosen by hashing i and the name (Coleman et al. 2023, "Unified
        Embedding", arXiv 2305.12102).
      init_from: a file of vectors that rows begin with, such as embeddings of texts or images; see
        `tfrs_dlrm.init_rows`. Such a table keeps its `dim` whatever the `embedding_dim` of a run is.
      trainable: whether training changes the rows.
    """

    name: str
    dim: int = 16
    vocabulary_size: int | None = None
    combiner: Combiner = "mean"
    initializer: Initializer = "uniform"
    scale: float | None = None
    dtype: StorageType = "float32"
    remainders: int | None = None
    stored_in: str = ""
    init_from: str = ""
    trainable: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def order_key(self) -> str:
        """The key of an optional hint in encoded batches: int32 [n], the order that sorts the ids of this table.

        The n ids are those of all features that look up the table, feature by feature in the order of the schema, and
        example by example.
        """
        return f"order/{self.name}"

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the variables that hold the table's rows; empty if another table stores them."""
        if self.stored_in:
            return ()
        return (self.name,) if self.remainders is None else (f"{self.name}__quotient", f"{self.name}__remainder")


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """The layout of text files. Parquet uses only `missing` and `strip`.

    Attributes:
      columns: the names of all columns, in order, for files without a header line; empty for files with one.
      delimiter: the character between fields; None means a comma for .csv and a tab otherwise.
      quote: the character around fields, in the header and in rows; within a field it is doubled. Fields without it
        are read too. Empty means that fields have no quotes, None double quotes except between tabs.
      missing: texts that mean "no value", in dense and categorical columns; `999` also the number in a typed column.
        The empty text always does.
      strip: drops blanks around each value.
    """

    columns: tuple[str, ...] = ()
    delimiter: str | None = None
    quote: str | None = None
    missing: tuple[str, ...] = ()
    strip: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


def _freeze(instance: object, field: str) -> None:
    """Makes a tuple of a field that was given as a list, so that equal features are equal."""
    value = getattr(instance, field)
    if isinstance(value, list):
        object.__setattr__(instance, field, tuple(value))
