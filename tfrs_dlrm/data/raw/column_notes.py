"""What the notes of a proposed schema say of features and labels alike."""

from __future__ import annotations

import dataclasses

import pyarrow as pa

from tfrs_dlrm.data.raw.notations import plain_numbers
from tfrs_dlrm.data.raw.sampled_column import SampledColumn
from tfrs_dlrm.schema import Notation


def infinite_note(column: SampledColumn) -> str:
    """Says how many rows `prepare` refuses because the number is infinite."""
    then = "prepare stops at such rows, or sets them aside with bad_rows='quarantine'"
    return f"; infinite in {column.infinite:,} of {len(column.values):,} rows: {then}" if column.infinite else ""


def notation_note(column: SampledColumn) -> str:
    """Says how numbers in another notation are written, with an example."""
    if column.notation == Notation():
        return ""
    default = Notation()
    fields = dataclasses.asdict(column.notation).items()
    said = ", ".join(f"{field} {value!r}" for field, value in fields if value != getattr(default, field))
    example = max(column.texts, key=len)
    read = plain_numbers(pa.array([example]), column.notation)[0].as_py()
    return f" ({said}: {example!r} is {float(read):.15g})"
