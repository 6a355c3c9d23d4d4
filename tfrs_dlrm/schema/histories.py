"""Histories: features that list earlier values of another feature, such as the items that a user clicked before."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.schema.features import CategoricalFeature, Pooling

# What a history takes of the feature whose values it lists, where it says nothing itself.
_INHERITED = ("table", "encoding", "dtype", "min_count", "max_size", "out_of_range")
_DEFAULTS: Mapping[str, Any] = {f.name: f.default for f in dataclasses.fields(CategoricalFeature)}


def with_targets(features: Sequence[CategoricalFeature]) -> list[CategoricalFeature]:
    """Returns features, histories among them with the table, encoding and length that they may leave out."""
    known = {f.name: dataclasses.replace(f, table=f.table or f.name) for f in features}

    def filled(f: CategoricalFeature) -> CategoricalFeature:
        target, main = known.get(f.history_of), known.get(f.parallel_to)
        if target is not None and not target.history_of:
            missing = [name for name in _INHERITED if getattr(f, name) == _DEFAULTS[name]]
            f = dataclasses.replace(f, **{name: getattr(target, name) for name in missing})
        if main is not None and f.sequence_length is None:
            f = dataclasses.replace(f, sequence_length=main.sequence_length)
        if main is not None and main.pooling == "target_attention" and f.pooling == _DEFAULTS["pooling"]:
            f = dataclasses.replace(f, pooling=main.pooling)
        return f

    return [filled(f) if f.history_of else f for f in features]


def check_histories(features: Sequence[CategoricalFeature]) -> None:
    """Checks the histories among the categorical features of a schema.

    The feature whose values a history lists may be missing if the history says its table, as in the part of a schema
    that the candidates of a request share.

    Raises:
      ValueError: a history lacks something, or does not fit the features that it names.
    """
    known = {f.name: f for f in features}
    for f in features:
        where = f"feature {f.name!r}"
        if not f.history_of:
            for field in ("parallel_to", "pooling"):
                if getattr(f, field) != _DEFAULTS[field]:
                    value = getattr(f, field)
                    raise ValueError(f"{where}: {field}={value!r} is for histories; say history_of, or leave it out")
            continue
        _check_history(where, f)
        _check_target(where, f, known)
        if f.parallel_to:
            _check_parallel(where, f, known)


def _check_history(where: str, f: CategoricalFeature) -> None:
    if f.sequence_length is None:
        raise ValueError(f"{where}: a history needs sequence_length, how many of its last values count, such as 50")
    if f.weights is not None:
        raise ValueError(f"{where}: weights={f.weights!r}: the values of a history have no weights; leave it out")
    if f.pooling not in get_args(Pooling):
        raise ValueError(f"{where}: pooling={f.pooling!r} is not one of {', '.join(get_args(Pooling))}")
    if f.encoding not in ("vocabulary", "hash", "ids"):
        raise ValueError(
            f"{where}: history_of={f.history_of!r}, whose encoding is {f.encoding!r}; histories are of features with"
            " the encoding vocabulary, hash or ids"
        )


def _check_target(where: str, f: CategoricalFeature, known: Mapping[str, CategoricalFeature]) -> None:
    target = known.get(f.history_of)
    if target is None:
        if f.table == f.name:  # the schema did not name any
            hint = did_you_mean(f.history_of, known) or "name the feature whose earlier values it lists"
            raise ValueError(f"{where}: history_of={f.history_of!r} is no categorical feature; {hint}")
        return
    if target.multi_valued or target.cross:
        kind = "a cross" if target.cross else "a feature of several values"
        raise ValueError(f"{where}: history_of={f.history_of!r} is {kind}; name a feature with one value")
    if f.table != target.table:
        raise ValueError(
            f"{where}: table={f.table!r}, and {f.history_of!r}, whose earlier values it lists, has {target.table!r};"
            " leave out table"
        )


def _check_parallel(where: str, f: CategoricalFeature, known: Mapping[str, CategoricalFeature]) -> None:
    main = known.get(f.parallel_to)
    if main is None or main is f or not main.history_of or main.parallel_to:
        others = [x.name for x in known.values() if x.history_of and not x.parallel_to and x is not f]
        hint = f"choose among {', '.join(others)}" if others else "no other history can have such lists"
        raise ValueError(f"{where}: parallel_to={f.parallel_to!r} is no history with lists of its own; {hint}")
    if f.sequence_length != main.sequence_length:
        raise ValueError(
            f"{where}: sequence_length={f.sequence_length}, and {main.name!r}, to which it is parallel, has"
            f" {main.sequence_length}; leave it out"
        )
    if (f.pooling == "target_attention") != (main.pooling == "target_attention"):
        raise ValueError(
            f"{where}: pooling={f.pooling!r}, and {main.name!r}, to which it is parallel, has {main.pooling!r};"
            " attention weighs whole events, so both need it or neither; leave out pooling here"
        )


def parts_of_events(features: Sequence[CategoricalFeature]) -> dict[str, list[CategoricalFeature]]:
    """Returns, by the name of each history that is parallel to no other, this history and its parallel lists."""
    found: dict[str, list[CategoricalFeature]] = {f.name: [f] for f in features if f.history_of and not f.parallel_to}
    for f in features:
        if f.parallel_to:
            found[f.parallel_to].append(f)
    return found


def check_targets(model: str, features: Sequence[CategoricalFeature], histories: Collection[str]) -> None:
    """Checks that a schema has the features with which a model compares the events of histories.

    Args:
      model: its name, for the error.
      features: the categorical features of the schema.
      histories: the names of histories that are parallel to no other.

    Raises:
      ValueError: it lacks one.
    """
    known, parts = {f.name for f in features}, parts_of_events(features)
    for f in (f for name in histories for f in parts[name]):
        if f.history_of not in known:
            raise ValueError(
                f"feature {f.name!r}: {model} compares its events with {f.history_of!r}, which the schema lacks; add"
                " that feature, or leave out this one"
            )


def attended_histories(features: Sequence[CategoricalFeature], read: Collection[str] | None = None) -> list[str]:
    """Returns the names of the histories with `pooling="target_attention"` that are parallel to no other.

    Args:
      features: the categorical features of a schema.
      read: the features that the model reads; None for all.
    """
    return [
        f.name
        for f in features
        if f.pooling == "target_attention" and not f.parallel_to and (read is None or f.name in read)
    ]
