"""Makes a split rule of the arguments of `prepare`, and finds how the times of a log are written."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from tfrs_dlrm.data.encoding.time_parts import read_micros
from tfrs_dlrm.data.preparing.split_rule import SplitRule
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.frames import RawInput
from tfrs_dlrm.data.raw.no_rows import NoRowsError
from tfrs_dlrm.data.raw.parsing import ColumnParser
from tfrs_dlrm.data.raw.proposed_time import time_format as format_of
from tfrs_dlrm.data.raw.sampled_column import SampledColumn
from tfrs_dlrm.data.raw.time_values import is_temporal
from tfrs_dlrm.data.raw.typed_values import is_text
from tfrs_dlrm.schema import ISO8601, Schema, Time
from tfrs_dlrm.schema.times import check_time

_LOOK_ROWS = 10_000


def split_rule(
    schema: Schema,
    inputs: Sequence[RawInput],
    *,
    time: str | None,
    time_format: str | None,
    eval_after: str | None,
    keep_order: bool,
    split_by: str | None,
    eval_fraction: float,
    with_eval: bool,
) -> SplitRule:
    """Makes the rule of the arguments of `prepare`, whose names these are.

    Raises:
      ValueError: arguments do not fit together, `eval_after` is no time, or the format of the times is not known.
    """
    if eval_after is not None and (eval_fraction or with_eval or split_by):
        other = f"eval_fraction={eval_fraction}" if eval_fraction else f"split_by={split_by!r}" if split_by else ""
        raise ValueError(
            f"eval_after={eval_after!r} and {other or 'eval_inputs'} both say which rows are for evaluation; give one"
        )
    if split_by is not None and (with_eval or not eval_fraction):
        then = "leave it out" if with_eval else "give eval_fraction, such as 0.1"
        raise ValueError(f"split_by={split_by!r} draws the groups of eval_fraction; {then}")
    for name, given in (("eval_after", eval_after is not None), ("keep_order", keep_order)):
        if given and not time:
            raise ValueError(f"{name} needs the column of the times; give its name as time")
    if time and eval_after is None and not keep_order:
        raise ValueError(f"time={time!r} is for eval_after and keep_order; give one of them, or leave it out")
    if time_format is not None and not time:
        raise ValueError(f"time_format={time_format!r} belongs to time; give the column of the times as time")
    if schema.group and eval_fraction and not split_by:
        split_by = schema.group  # single rows would leave parts of groups in both sets
    after = None if eval_after is None else _moment(eval_after)
    if not time:
        return SplitRule(split_by=split_by or "")
    found = time_format or _known_format(schema, time) or _found_format(schema, inputs, time)
    check_time("time_format", Time(("days",), found))
    return SplitRule(time, found, after, keep_order, split_by or "")


def _moment(text: str) -> int:
    """Returns the microseconds since 1970 of a date or time in ISO 8601."""
    micros, known = read_micros(tf.constant([text.strip()]), Time(("days",), ISO8601))
    if not bool(known[0]):
        raise ValueError(f"eval_after={text!r} is no time; write it, in UTC, as 2026-11-25 or 2026-11-25T18:00")
    return int(micros[0])


def _known_format(schema: Schema, column: str) -> str | None:
    """Returns the format in which a feature reads the column."""
    return next((i.time.format for i in schema.inputs if i.column == column and i.time), None)


def _found_format(schema: Schema, inputs: Sequence[RawInput], column: str) -> str:
    """Finds the format of a column of times in the first rows of the first file or frame that has some."""
    reads = sources.reading((column,), schema.text)
    for source in inputs:
        try:
            block = next(iter(sources.blocks(source, reads)))
        except NoRowsError:  # others may have some
            continue
        parser = ColumnParser(block, reads)
        array = parser.arrays[column].slice(0, _LOOK_ROWS)
        if is_text(array):
            text = parser.stripped(column).slice(0, _LOOK_ROWS)
            array = pc.if_else(pc.is_in(text, parser.missing), pa.scalar(None, pa.string()), text)
        if array.null_count == len(array):
            continue
        if is_temporal(array.type):
            return ISO8601  # they have parts whatever the format
        try:
            return format_of(SampledColumn(column, array))
        except ValueError as e:
            raise ValueError(f"{block.path}: {e}") from None
    return ISO8601  # the passes say what is missing
