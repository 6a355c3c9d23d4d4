"""The schema: the columns of a log, and how each becomes a number or the row of an embedding table.

A `Schema` is the one description that `prepare`, the encoder, the models and the exported SavedModel share. It is
plain data: JSON in (`Schema.load`) and JSON out (`Schema.save`). `tfrs_dlrm.infer_schema` proposes one from a file.

    schema = Schema(
        label=Label("clicked"),
        dense=(DenseFeature("price", transform="log1p"),),
        categorical=(CategoricalFeature("site", min_count=5), CategoricalFeature("tags", separator="|")),
    )
"""

from tfrs_dlrm.schema.derived import weights_only, with_remainders, with_shared_rows
from tfrs_dlrm.schema.features import (
    CategoricalFeature,
    Combiner,
    DenseFeature,
    Encoding,
    Initializer,
    Label,
    Notation,
    OutOfRange,
    Pooling,
    RawType,
    StorageType,
    Table,
    Task,
    TextFormat,
    Transform,
)
from tfrs_dlrm.schema.inputs import FeatureInput
from tfrs_dlrm.schema.schema import SCHEMA_FILE, Schema, check_schema, difference
from tfrs_dlrm.schema.times import EPOCHS, ISO8601, MONTHS, PART_ROWS, Time, TimePart
from tfrs_dlrm.schema.validation import GROUP, MAX_ROWS, RESERVED_NAMES

__all__ = [
    "EPOCHS",
    "GROUP",
    "ISO8601",
    "MAX_ROWS",
    "MONTHS",
    "PART_ROWS",
    "RESERVED_NAMES",
    "SCHEMA_FILE",
    "CategoricalFeature",
    "Combiner",
    "DenseFeature",
    "Encoding",
    "FeatureInput",
    "Initializer",
    "Label",
    "Notation",
    "OutOfRange",
    "Pooling",
    "RawType",
    "Schema",
    "StorageType",
    "Table",
    "Task",
    "TextFormat",
    "Time",
    "TimePart",
    "Transform",
    "check_schema",
    "difference",
    "weights_only",
    "with_remainders",
    "with_shared_rows",
]
