"""The questions whose answers show that a bundle is the model that was exported.

An export asks them in TensorFlow's Python, and `verify` in TensorFlow's C++ runtime.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.serving.bundle.manifest import REFERENCE, BundleFeature
from tfrs_dlrm.serving.runtime.requests import to_examples
from tfrs_dlrm.serving.runtime.saved_model import RunError
from tfrs_dlrm.serving.verification.subject import Subject
from tfrs_dlrm.serving.verification.verification_report import Failed

_ALONE, _CANDIDATES = 16, 100
_TRAINED, _DEFAULT = "the training side's", "serving_default's"
_LARGEST = float(np.finfo(np.float32).max)


def check_scores(subject: Subject) -> str:
    """Compares the scores of all reference rows in one batch with the scores of the training side."""
    rows, found = subject.rows, subject.score(subject.rows.raw)

    def place(output: str, i: int) -> str:
        suffix = "" if output == subject.manifest.output else f", {output}"
        return f"{REFERENCE}, line {i + 1}{' (odd)' if rows.odd[i] else ''}{suffix}"

    return "; ".join(
        subject.compare(found[name], rows.answers[name], tolerance, _TRAINED, functools.partial(place, name))
        for name, tolerance in subject.manifest.tolerances.items()
    )


def check_batches(subject: Subject) -> str:
    """Compares rows scored alone, or in two halves, with the same rows in one batch."""
    raw, odd = subject.rows.raw, subject.rows.odd
    output, count = subject.manifest.output, len(odd)
    # The odd rows are the last, and the ones worth asking for alone.
    single = sorted({*range(min(_ALONE, count)), *np.flatnonzero(odd).tolist()[:_ALONE]})
    half = [slice(count // 2), slice(count // 2, None)] if count > 1 else []
    parts = [*half, *(slice(i, i + 1) for i in single)]
    found = np.concatenate([subject.score({k: v[part] for k, v in raw.items()})[output] for part in parts])
    places = [*range(count if half else 0), *single]
    return subject.compare(
        found,
        subject.score(raw)[output][places],
        subject.manifest.roundings[output],
        "those in one batch of all rows",
        lambda i: (
            f"row {places[i] + 1} of {REFERENCE} {'alone' if i >= len(found) - len(single) else 'in half a batch'}"
        ),
    )


def check_odd_values(subject: Subject) -> str:
    """Asks with each feature missing, and unseen: the answer is a finite score, or an error that names the feature."""
    output = subject.manifest.output
    low, high = (0.0, 1.0) if output == "probability" else (-_LARGEST, _LARGEST)
    scored, refused = 0, []
    for feature in subject.manifest.features:
        if feature.kind == "weights":  # changed together with the values that they weigh
            continue
        for kind, row in _odd_rows(subject, feature).items():
            try:
                score = subject.score(row)[output][0]
            except RunError as e:
                if e.code_name != "INVALID_ARGUMENT" or feature.name not in str(e):
                    raise Failed(f"feature {feature.name!r}, {kind}: {e.code_name}, and it is not named: {e}") from e
                refused.append(f"{kind} {feature.name!r}")
                continue
            if not low <= score <= high:  # NaN fails too
                raise Failed(
                    f"feature {feature.name!r}, {kind}: the score is {score}, which is no {output};"
                    " look for NaN in the weights, and export a checkpoint from before it"
                )
            scored += 1
    answers = "probabilities" if output == "probability" else "predictions"
    return f"{scored} {answers} of missing and unseen values; refused by name: {', '.join(refused) or 'none'}"


def check_examples(subject: Subject) -> str:
    """Compares `serialized_examples`, `regress` and `classify` with `serving_default`, on the reference rows."""
    raw, outputs, first = subject.rows.raw, subject.manifest.roundings, subject.manifest.output
    expected, count = subject.score(raw), len(subject.rows.odd)
    examples = np.empty(count, object)
    examples[:] = [example.SerializeToString() for example in to_examples(raw)]
    answers: dict[str, Mapping[str, np.ndarray]] = {}
    if "serialized_examples" in subject.signatures:
        answers["serialized_examples"] = subject.run("serialized_examples", {"examples": examples})
    if "regress" in subject.signatures:
        answers["regress"] = {first: subject.run("regress", {"inputs": examples})["outputs"]}
    if "classify" in subject.signatures:
        answers["classify"] = {first: _class_1(subject.run("classify", {"inputs": examples}), count)}
    for signature, found in answers.items():
        for name in outputs.keys() & found.keys():
            subject.compare(found[name], expected[name], outputs[name], _DEFAULT, _numbered(f"{signature}, row"))
    if not answers:
        return "the bundle has none of these signatures"
    return f"{', '.join(answers)}: {count} rows as serving_default"


def check_encoded(
    subject: Subject, raw: Mapping[str, np.ndarray], encoded: Mapping[str, np.ndarray], place: Callable[[int], str]
) -> str:
    """Compares `serving_default` on raw rows with `encoded` on the same rows."""
    scores, expected = subject.score(raw), subject.run("encoded", encoded)
    said = [
        subject.compare(scores[name], expected[name], rounding, "those of the encoded rows", place)
        for name, rounding in subject.manifest.roundings.items()
    ]
    return said[0]


def check_rank(subject: Subject) -> str:
    """Compares `rank` with `serving_default`, and `rank_top_k` with `rank`, in the contexts of two rows."""
    if "rank" not in subject.signatures:
        return "the bundle has no context features and does not rank"
    raw, odd, context = subject.rows.raw, subject.rows.odd, subject.manifest.context_inputs
    contexts = [0, len(odd) - 1]
    candidates = [*np.flatnonzero(~odd)[:_CANDIDATES].tolist(), *np.flatnonzero(odd).tolist()]
    count = len(candidates)
    request = {k: v[contexts] if k in context else np.stack([v[candidates]] * len(contexts)) for k, v in raw.items()}
    pairs = {k: v[np.repeat(contexts, count) if k in context else candidates * len(contexts)] for k, v in raw.items()}
    expected, ranked = subject.score(pairs), subject.run("rank", request)
    if ranked["scores"].shape != (len(contexts), count):
        raise Failed(f"rank: scores of shape {list(ranked['scores'].shape)}; {[len(contexts), count]} is expected")
    for name, suffix in subject.manifest.suffixes.items():
        found, rounding = ranked[f"scores{suffix}"].ravel(), subject.manifest.roundings[name]
        subject.compare(found, expected[name], rounding, _DEFAULT, _numbered("rank, candidate"))
    for scores, order in zip(ranked["scores"], ranked["order"], strict=True):
        _check_order("rank", scores, order, count)
    if "rank_top_k" in subject.signatures:
        _check_top_k(subject, request, ranked)
    return f"{count} candidates as serving_default scores them, best first"


def _check_top_k(subject: Subject, request: Mapping[str, np.ndarray], ranked: Mapping[str, np.ndarray]) -> None:
    contexts, count = ranked["scores"].shape
    k = min(10, count)
    best = subject.run("rank_top_k", {**request, "k": np.full(contexts, k, np.int32)})
    for context in range(contexts):
        scores, indices = ranked["scores"][context], best["indices"][context]
        _check_order("rank_top_k", scores, indices, k)
        falling = np.sort(scores)[::-1][:k]
        if not subject.manifest.roundings[subject.manifest.output].met(best["scores"][context], falling).all():
            difference = np.abs(best["scores"][context] - falling).max()
            raise Failed(f"rank_top_k: its scores are not the best {k} of rank: they differ by {difference:g}")
        for name, suffix in subject.manifest.suffixes.items():
            found, expected = best[f"scores{suffix}"][context], ranked[f"scores{suffix}"][context][indices]
            subject.compare(found, expected, subject.manifest.roundings[name], "rank's", _numbered("rank_top_k, place"))


def _check_order(signature: str, scores: np.ndarray, order: np.ndarray, count: int) -> None:
    if len(order) != count or len({*order.tolist()}) != count or order.min() < 0 or order.max() >= len(scores):
        raise Failed(f"{signature}: it names {order.tolist()[:20]}, which are not {count} different candidates")
    wrong = np.flatnonzero(np.diff(scores[order]) > 0)
    if len(wrong):
        raise Failed(
            f"{signature}: its order is not best first: place {wrong[0]} has the score {scores[order][wrong[0]]:.7g},"
            f" the next one {scores[order][wrong[0] + 1]:.7g}; export the model again"
        )


def _numbered(text: str) -> Callable[[int], str]:
    return lambda i: f"{text} {i + 1}"


def _class_1(answer: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """Returns the scores of class "1"."""
    if answer["classes"].shape != (count, 2) or (answer["classes"] != np.array([b"0", b"1"], object)).any():
        raise Failed('classify: its classes are not ["0", "1"] in each row; export the model again')
    sums = answer["scores"].sum(axis=1)
    if not np.abs(sums - 1).max() <= 1e-5:
        raise Failed(f"classify: scores of a row add up to {sums[np.argmax(np.abs(sums - 1))]}, not 1")
    return answer["scores"][:, 1]


def _odd_rows(subject: Subject, feature: BundleFeature) -> dict[str, dict[str, np.ndarray]]:
    """Returns copies of the first row with a feature missing, and with a value that was never seen."""
    row = {name: values[:1] for name, values in subject.rows.raw.items()}
    found = {}
    for kind, changed in _odd_values(feature).items():
        found[kind] = {
            name: _filled(v, changed[name], feature.size) if name in changed else v for name, v in row.items()
        }
    return found


def _odd_values(feature: BundleFeature) -> dict[str, dict[str, Any]]:
    """Returns a missing value and an unseen one of a feature, each with its weight, by name of the input."""
    if feature.dtype == "float32":
        return {"missing": {feature.name: np.nan}, "unseen": {feature.name: 1e6}}
    missing = b"" if feature.dtype == "string" else feature.missing
    unseen = b"\x00 never seen \n" if feature.dtype == "string" else 2**62
    weights = (0.0, 2.0) if feature.rank == 2 else (b"", b"2")
    return {
        kind: {feature.name: value, f"{feature.name}_weights": weight}
        for kind, value, weight in zip(("missing", "unseen"), (missing, unseen), weights, strict=True)
    }


def _filled(values: np.ndarray, value: Any, size: int | None) -> np.ndarray:
    """Returns one row of that value, with the type and rank of `values`, and as many values as a vector has."""
    filled = np.empty([1, size or 1][: values.ndim], values.dtype)
    filled[...] = value
    return filled


QUESTIONS: dict[str, Callable[[Subject], str]] = {
    "scores": check_scores,
    "batches": check_batches,
    "odd values": check_odd_values,
    "examples": check_examples,
    "rank": check_rank,
}
