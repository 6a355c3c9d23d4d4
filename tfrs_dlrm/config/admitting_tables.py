"""Which tables give rows to new values, how many rows they have, and which cannot."""

from __future__ import annotations

from collections.abc import Mapping

from tfrs_dlrm.config.run import RunConfig
from tfrs_dlrm.schema import CategoricalFeature, Schema, Table


def admitting_tables(config: RunConfig, schema: Schema) -> dict[str, int]:
    """Returns for each table that admits new values how many values it has room for: its `max_size`.

    These are the tables that the model reads, with a vocabulary that has a `max_size`; empty if `stream.new_values` is
    `off`.

    Args:
      config: the run.
      schema: of the prepared data.

    Raises:
      ValueError: no table has a `max_size`, or one that has cannot give its rows to other values.
    """
    if config.stream.new_values == "off":
        return {}
    found: dict[str, int] = {}
    names = set(config.model.features(schema))
    for f in (f for f in schema.categorical if f.name in names):
        if f.encoding == "vocabulary" and f.max_size is not None:
            found[f.table] = f.max_size
    if not found:
        raise ValueError(
            f"config.stream.new_values='admit': no vocabulary of {config.data.path} that the model reads has a"
            ' max_size, which is the room of its table; set it in the schema, as in "max_size": 100000, and prepare the'
            " data again"
        )
    for f in schema.categorical:
        if f.table in found:
            _check_feature(f)
    tables = config.model.schema(with_room(schema, found)).tables
    homes = {t.stored_in for t in tables}
    for table in tables:
        if table.name in found:
            _check_table(table, table.name in homes)
    return found


def with_room(schema: Schema, tables: Mapping[str, int]) -> Schema:
    """Returns a schema in which each table of `admitting_tables` has rows for all values that it has room for."""
    return schema.with_vocabulary_sizes({name: room + 1 for name, room in tables.items()})


def _check_feature(f: CategoricalFeature) -> None:
    if f.serving_value is not None:
        raise ValueError(
            f"config.stream.new_values='admit': feature {f.name!r} has max_size={f.max_size} and"
            f" serving_value={f.serving_value!r}, which could lose its row to another value; prepare the data without"
            " its max_size"
        )
    if f.out_of_range == "oov":
        return
    why = {
        "hash": "its unknown values share rows with those of others, which would change",
        "error": "rows with an unknown value are malformed, so that none is ever seen often enough",
    }.get(f.out_of_range, "its unknown values have rows")
    raise ValueError(
        f"config.stream.new_values='admit': feature {f.name!r} has max_size={f.max_size} and"
        f" out_of_range={f.out_of_range!r}: {why}; prepare the data with out_of_range 'oov', or without max_size"
    )


def _check_table(table: Table, is_home: bool) -> None:
    if table.remainders is not None or table.stored_in or is_home:
        raise ValueError(
            f"config.stream.new_values='admit': table {table.name!r} is compressed, so that many values share each"
            " stored row, and none of them could begin anew; leave out model.compress_above, model.remainders and"
            " stored_in for it, or prepare the data without its max_size"
        )
    if not table.trainable:
        raise ValueError(
            f"config.stream.new_values='admit': table {table.name!r} is not trained, so that the rows of new values"
            " would stay random; set trainable, or prepare the data without its max_size"
        )
