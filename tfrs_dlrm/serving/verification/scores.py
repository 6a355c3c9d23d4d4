"""Whether `serving_default` says what the trained model said, however it is asked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.serving.bundle.manifest import REFERENCE
from tfrs_dlrm.serving.bundle.tolerance import Tolerance
from tfrs_dlrm.serving.runtime.runtime import RunError
from tfrs_dlrm.serving.verification.subject import Subject
from tfrs_dlrm.serving.verification.verification_report import Failed

_ALONE = 16
_MOST = float(np.finfo(np.float32).max)


def check_reference(subject: Subject) -> str:
    """Compares the scores of all reference rows, asked for together, with those of the training side."""
    rows = subject.rows
    found = subject.answers(rows.raw)

    def place(output: str, i: int) -> str:
        of = "" if output == subject.output else f", {output}"
        return f"{REFERENCE}, line {i + 1}{' (odd)' if rows.odd[i] else ''}{of}"

    said = [
        compared(found[name], rows.answers[name], tolerance, "the training side's", functools.partial(place, name))
        for name, tolerance in subject.tolerances.items()
    ]
    return "; ".join(said)


def check_batches(subject: Subject) -> str:
    """Compares rows that are scored alone, or in two halves, with the same rows scored together."""
    raw, count = subject.rows.raw, len(subject.rows.odd)
    together = subject.score(raw)
    half = count // 2
    halves = [subject.score({k: v[part] for k, v in raw.items()}) for part in (slice(half), slice(half, None)) if half]
    # The odd rows are the last, and the ones worth asking for alone.
    some = sorted({*range(min(_ALONE, count)), *np.flatnonzero(subject.rows.odd).tolist()[:_ALONE]})
    alone = [subject.score({k: v[i : i + 1] for k, v in raw.items()})[0] for i in some]
    found = np.concatenate([*halves, np.array(alone, np.float32)])
    places = [*range(count if half else 0), *some]
    asked = ["in half a batch"] * (len(places) - len(some)) + ["alone"] * len(some)
    return compared(
        found,
        together[places],
        subject.rounding,
        "those in one batch of all rows",
        lambda i: f"row {places[i] + 1} of {REFERENCE} {asked[i]}",
    )


def check_values(subject: Subject) -> str:
    """Asks with each feature missing and with a value that was never seen: a proper score, or a refusal by name."""
    row = {name: values[:1] for name, values in subject.rows.raw.items()}
    output = subject.output
    low, high = (0.0, 1.0) if output == "probability" else (-_MOST, _MOST)
    scored, refused = 0, []
    for feature in subject.manifest["features"]:
        name = feature["name"]
        if feature["kind"] == "weights":  # a value and its weight are there or not, together
            continue
        for kind, (value, weight) in _values(feature).items():
            changed = {name: value, f"{name}_weights": weight}
            odd = {n: _filled(v, changed[n]) if n in changed else v for n, v in row.items()}
            try:
                score = subject.score(odd)
            except RunError as e:
                if e.code_name != "INVALID_ARGUMENT" or name not in str(e):
                    raise Failed(f"feature {name!r}, {kind}: {e.code_name}, and it is not named: {e}") from e
                refused.append(f"{kind} {name!r}")
                continue
            if not low <= score[0] <= high:  # NaN fails too
                raise Failed(
                    f"feature {name!r}, {kind}: the score is {score[0]}, which is no {output};"
                    " look for NaN in the weights, and export a checkpoint from before it"
                )
            scored += 1
    what = "probabilities" if output == "probability" else "predictions"
    return f"{scored} {what} of missing and unseen values; refused by name: {', '.join(refused) or 'none'}"


def _values(feature: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """A missing value and one that was never seen, each with a weight for it."""
    if feature["dtype"] == "float32":
        return {"missing": (np.nan, None), "unseen": (1e6, None)}
    unseen = b"\x00 never seen \n" if feature["dtype"] == "string" else 2**62
    missing = b"" if feature["dtype"] == "string" else feature["missing"]
    if feature["rank"] == 2:
        return {"missing": (missing, 0.0), "unseen": (unseen, 2.0)}
    return {"missing": (missing, b""), "unseen": (unseen, b"2")}


def _filled(values: np.ndarray, value: Any) -> np.ndarray:
    """One row of that value, of the type and rank of `values`."""
    filled = np.empty([1] * values.ndim, values.dtype)
    filled[...] = value
    return filled


def compared(
    found: np.ndarray, expected: np.ndarray, tolerance: Tolerance, whose: str, place: Callable[[int], str]
) -> str:
    """Says how far two arrays of scores are apart.

    Args:
      found: float32 [N].
      expected: float32 [N].
      tolerance: how far they may be.
      whose: what `expected` are, for the message.
      place: says of a row's number where it is from.

    Raises:
      Failed: they differ; the message names the worst row.
    """
    if found.shape != expected.shape:
        raise Failed(f"{list(found.shape)} scores for {len(expected)} rows; one a row is expected")
    with np.errstate(invalid="ignore"):  # infinite ones are reported below
        differences = np.abs(found.astype(np.float64) - expected)
    met = tolerance.met(found, expected)
    if not met.all():
        worst = int(np.argmax(np.where(met, -1.0, np.nan_to_num(differences, nan=np.inf))))
        count = int((~met).sum())
        advice = ": look for NaN in the weights" if np.isnan(found[worst]) else ""
        raise Failed(
            f"{count} of {len(expected)} scores differ from {whose} by more than {tolerance}; the worst is"
            f" {place(worst)}: {found[worst]:.7g} instead of {expected[worst]:.7g}{advice}."
            " The bundle is not the model that it was made of: export the model again"
        )
    return f"{len(expected)} scores within {differences.max():.1e} of {whose} (allowed: {tolerance})"
