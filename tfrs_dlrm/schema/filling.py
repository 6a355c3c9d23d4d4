"""Fills in what a schema may leave out: columns, tables, the parts of times, and the names of shared inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tfrs_dlrm.schema.features import CategoricalFeature, DenseFeature, Notation
from tfrs_dlrm.schema.histories import with_targets
from tfrs_dlrm.schema.times import Time, TimePart

# The buckets of `days` in a time that does not say how many.
DAY_BUCKETS = 64


class Filled(NamedTuple):
    """The features of a schema."""

    dense: tuple[DenseFeature, ...]
    categorical: tuple[CategoricalFeature, ...]
    members: tuple[CategoricalFeature, ...]


def fill_in(
    dense: Iterable[DenseFeature], categorical: Iterable[CategoricalFeature], members: Iterable[CategoricalFeature]
) -> Filled:
    """Returns the features with all that they may leave out; filled in again, they stay as they are.

    A time becomes one feature per part, `NAME_PART`. Buckets take the input, and how numbers are written, of a dense
    feature of their column. Times of one column and format share an input. Histories take the table and the encoding of
    the feature whose earlier values they list.
    """
    numbers = tuple(dataclasses.replace(f, column=f.column or f.name) for f in dense)
    parts = [_complete(part) for f in categorical for part in _by_part(f)]
    only_crossed = [_complete(part) for f in members for part in _by_part(f)]
    numbers, values = _with_inputs(numbers, [*parts, *only_crossed])
    with_tables = [dataclasses.replace(f, table=f.table or f.name) for f in with_targets(values[: len(parts)])]
    return Filled(numbers, tuple(with_tables), values[len(parts) :])


def _complete(f: CategoricalFeature) -> CategoricalFeature:
    name = f.name or "_x_".join(f.cross)
    column = f.column if f.cross else f.column or name
    several = f.multi_valued or bool(f.separator) or bool(f.history_of)
    return dataclasses.replace(f, name=name, column=column, multi_valued=several)


def _by_part(f: CategoricalFeature) -> list[CategoricalFeature]:
    """Returns a feature for each part of a time; other features as they are."""
    time = f.time
    if time is None:
        return [f]
    typed = dataclasses.replace(f, dtype="int64" if time.is_epoch else "string")
    is_part = f.encoding != "vocabulary"  # the default
    return [typed] if is_part else [_part(typed, time, part) for part in time.parts]


def _part(f: CategoricalFeature, time: Time, part: TimePart) -> CategoricalFeature:
    """Returns the feature of one part of a time."""
    days = part == "days"
    given = f.buckets is not None or bool(f.edges)
    return dataclasses.replace(
        f,
        name=f"{f.name}_{part}",
        column=f.column or f.name,
        encoding="buckets" if days else "time",
        buckets=(f.buckets if given else DAY_BUCKETS) if days else None,
        edges=f.edges if days else (),
        time=dataclasses.replace(time, parts=(part,), origin=time.origin if days else None),
        table=f"{f.table}_{part}" if f.table else "",
        input=f.input or f.name,
    )


def _with_inputs(
    dense: Sequence[DenseFeature], categorical: Sequence[CategoricalFeature]
) -> tuple[tuple[DenseFeature, ...], tuple[CategoricalFeature, ...]]:
    """Names the inputs that features share."""
    times: dict[tuple[str, str], str] = {}  # by column and format
    numbers: dict[str, str] = {}  # by column
    written: dict[str, Notation] = {}
    every: list[DenseFeature | CategoricalFeature] = [*dense, *categorical]
    # Names that were given come first.
    for f in (*(f for f in every if f.input), *every):
        if f.time is not None:
            times.setdefault(_time_key(f.column, f.time), f.input_name)
        elif f.reads_number:
            numbers.setdefault(f.column, f.input_name)
    for number in dense:
        if number.reads_number:
            written.setdefault(number.column, number.notation)

    def named(f: CategoricalFeature) -> CategoricalFeature:
        if f.input or not (f.time or f.reads_number):
            return _own(f)
        name = times[_time_key(f.column, f.time)] if f.time is not None else numbers[f.column]
        plain = f.notation == Notation() and f.reads_number
        as_written = dataclasses.asdict(written.get(f.column, f.notation)) if plain else {}
        return _own(dataclasses.replace(f, input=name, **as_written))

    def of_time(f: DenseFeature) -> DenseFeature:
        return f if f.input or f.time is None else dataclasses.replace(f, input=times[_time_key(f.column, f.time)])

    return tuple(_own(of_time(f)) for f in dense), tuple(map(named, categorical))


def _time_key(column: str, time: Time) -> tuple[str, str]:
    return column, time.format


def _own(f: DenseFeature | CategoricalFeature):  # type: ignore[no-untyped-def]
    """Drops the name of an input that is that of the feature."""
    return dataclasses.replace(f, input="") if f.input == f.name else f
