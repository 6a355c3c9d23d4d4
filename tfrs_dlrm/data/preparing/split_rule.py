"""How a preparation splits a log by times or by groups of rows, and the columns that tell these.

The columns need not be features. Times are read as those of features are, so a log has one rule of times.
"""

from __future__ import annotations

import dataclasses
import datetime

from tfrs_dlrm.schema import ISO8601, CategoricalFeature, Schema, Time

_EPOCH = datetime.datetime(1970, 1, 1)


@dataclasses.dataclass(frozen=True)
class SplitRule:
    """How the rows of a log are split; without any field, by their place alone.

    Attributes:
      time: the column of times; empty without one.
      format: how the times are written, see `Time.format`.
      eval_after: rows from this time on are for evaluation, in microseconds since 1970; None splits in another way.
      keep_order: whether the training rows are written in the order of their times.
      split_by: the column of groups, such as users, whose rows stay together; empty without one.
    """

    time: str = ""
    format: str = ISO8601
    eval_after: int | None = None
    keep_order: bool = False
    split_by: str = ""

    def plain(self) -> dict[str, object] | None:
        """Returns plain values for a fingerprint; None without a rule."""
        if not self.time and not self.split_by:
            return None
        after = None if self.eval_after is None else written(self.eval_after)
        return {k: v for k, v in (dataclasses.asdict(self) | {"eval_after": after}).items() if v}

    @property
    def times(self) -> Time:
        """How the column of times is read."""
        return Time(("days",), self.format)


@dataclasses.dataclass(frozen=True)
class LogSchema:
    """What a preparation reads of a log: what its schema says, and the columns of its split rule.

    Attributes:
      schema: with a feature for each column that the schema does not read in this way.
      time: the input with the times; empty without a rule that needs them.
      group: the input with the groups; empty without one.
    """

    schema: Schema
    time: str = ""
    group: str = ""

    @classmethod
    def of(cls, schema: Schema, rule: SplitRule) -> LogSchema:
        """Adds the columns of a rule to a schema."""
        time = group = ""
        if rule.time:
            known = (i.name for i in schema.inputs if i.column == rule.time and i.time and i.time.format == rule.format)
            time = next(known, "")
            if not time:
                feature = CategoricalFeature(_free(schema, "split_time"), column=rule.time, time=rule.times)
                schema, time = _with(schema, feature), feature.name
        if rule.split_by:
            feature = CategoricalFeature(_free(schema, "split_by"), column=rule.split_by)
            schema, group = _with(schema, feature), feature.name
        return cls(schema, time, group)


def _free(schema: Schema, name: str) -> str:
    """Returns a name that nothing in the schema has."""
    taken = {i.name for i in schema.inputs} | {t.name for t in schema.tables} | set(schema.dense_columns)
    taken |= {f.name for f in (*schema.categorical, *schema.members)}
    while any(other.startswith(name) for other in taken):
        name += "_"
    return name


def _with(schema: Schema, feature: CategoricalFeature) -> Schema:
    return dataclasses.replace(schema, categorical=(*schema.categorical, feature))


def written(micros: int) -> str:
    """Writes microseconds since 1970 as ISO 8601 does; as a number if they are in no year from 1 to 9999."""
    try:
        return (_EPOCH + datetime.timedelta(microseconds=micros)).isoformat()
    except OverflowError:
        return f"{micros} microseconds since 1970"
