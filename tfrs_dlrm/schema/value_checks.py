"""Checks of features that transform values: buckets, parts of times, and crosses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.schema.features import CategoricalFeature, Notation
from tfrs_dlrm.schema.validation import check_choice, check_notation

# Members of a cross.
_FEWEST, _MOST = 2, 3
_MOST_BUCKETS = 4096


def check_transformed(f: CategoricalFeature) -> None:
    """Checks buckets and parts of times."""
    where = f"feature {f.name!r}"
    if f.time is not None and f.encoding not in ("time", "buckets"):
        raise ValueError(f"{where}: encoding {f.encoding!r} with time; drop the encoding")
    if f.encoding == "time":
        _check_part(where, f)
    if f.encoding == "buckets":
        _check_buckets(where, f)
    elif f.buckets is not None or f.edges:
        raise ValueError(f"{where}: buckets and edges belong to encoding 'buckets', not {f.encoding!r}")
    elif f.notation != Notation():
        raise ValueError(f"{where}: decimal, thousands and unit belong to encoding 'buckets', not {f.encoding!r}")
    if f.encoding in ("time", "buckets"):
        if f.multi_valued:
            raise ValueError(f"{where}: encoding {f.encoding!r} takes one value; drop separator and multi_valued")
        if f.out_of_range not in ("oov", "error"):
            raise ValueError(
                f"{where}: out_of_range={f.out_of_range!r}; with encoding {f.encoding!r} a missing value has row 0"
                " ('oov'), or is refused ('error')"
            )


def _check_part(where: str, f: CategoricalFeature) -> None:
    if f.time is None:
        raise ValueError(f"{where}: encoding 'time' needs time, with one part")
    if len(f.time.parts) != 1 or f.time.parts[0] == "days":
        raise ValueError(
            f"{where}: encoding 'time' takes one part, and not 'days'; without an encoding, a time has several"
        )


def _check_buckets(where: str, f: CategoricalFeature) -> None:
    check_notation(where, f.notation)
    if f.time is not None and f.time.parts != ("days",):
        raise ValueError(f"{where}: only the part 'days' of a time has buckets; drop the encoding for the others")
    if (f.buckets is None) == (not f.edges):
        raise ValueError(f"{where}: encoding 'buckets' needs either buckets, such as 64 or 'log2', or edges")
    if isinstance(f.buckets, str):
        check_choice(where, "buckets", f.buckets, Literal["log2"])
    elif f.buckets is not None and not 2 <= f.buckets <= _MOST_BUCKETS:
        raise ValueError(f"{where}: buckets={f.buckets} is outside 2 to {_MOST_BUCKETS}")
    rising = all(a < b for a, b in zip(f.edges, f.edges[1:], strict=False))
    if not rising or not all(map(math.isfinite, f.edges)):
        raise ValueError(f"{where}: edges={list(f.edges)} are not finite and rising")


def check_cross(f: CategoricalFeature, known: Sequence[CategoricalFeature]) -> None:
    """Checks a cross against all categorical features and members."""
    if not f.cross:
        return
    where = f"feature {f.name!r}"
    if f.encoding not in ("hash", "vocabulary"):
        raise ValueError(f"{where}: encoding {f.encoding!r}; a cross is hashed ('hash') or counted ('vocabulary')")
    if not _FEWEST <= len(set(f.cross)) == len(f.cross) <= _MOST:
        raise ValueError(f"{where}: cross={list(f.cross)}; {_FEWEST} or {_MOST} different features are needed")
    if f.column or f.multi_valued or f.weights or f.time or f.input or f.out_of_range not in ("oov", "error"):
        raise ValueError(
            f"{where}: a cross has name, cross, encoding, min_count, max_size, out_of_range and table alone; its"
            " members have the rest"
        )
    by_name = {other.name: other for other in known}
    for name in f.cross:
        if name not in by_name:
            hint = did_you_mean(name, by_name) or f"the categorical features are {', '.join(by_name)}"
            raise ValueError(f"{where}: no categorical feature {name!r} to cross; {hint}")
        _check_member(where, f, by_name[name])


def _check_member(where: str, f: CategoricalFeature, member: CategoricalFeature) -> None:
    if member.cross:
        raise ValueError(f"{where}: {member.name!r} is a cross itself; name its members")
    if member.multi_valued:
        raise ValueError(f"{where}: {member.name!r} has several values; a cross takes one-valued features")
    counted = member.edges and (member.time is None or member.time.origin is not None)
    if f.encoding == "vocabulary" and member.encoding == "buckets" and not counted:
        raise ValueError(
            f"{where}: its combinations are counted before the edges of {member.name!r} are known; give"
            f" {member.name!r} edges{' and its time an origin' if member.time else ''}, or make the cross encoding"
            " 'hash'"
        )


def check_members(members: Sequence[CategoricalFeature], features: Sequence[CategoricalFeature]) -> None:
    """Checks that crosses read all members."""
    crossed = {name for f in features for name in f.cross}
    for member in members:
        if member.name not in crossed:
            raise ValueError(f"member {member.name!r}: no cross reads it; list it under categorical, or remove it")
