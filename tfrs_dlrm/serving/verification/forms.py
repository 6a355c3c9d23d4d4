"""Whether the other signatures agree with `serving_default`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfrs_dlrm.serving.bundle.warmup import rank_request, to_examples
from tfrs_dlrm.serving.verification.scores import compared
from tfrs_dlrm.serving.verification.subject import Subject
from tfrs_dlrm.serving.verification.verification_report import Failed

_MOST = 100


def check_examples(subject: Subject) -> str:
    """Asks `serialized_examples`, `regress` and `classify` for the reference rows as tf.Examples."""
    raw, signatures = subject.rows.raw, subject.model.signatures
    expected = subject.score(raw)
    examples = np.empty(len(expected), object)
    examples[:] = [example.SerializeToString() for example in to_examples(raw)]
    answers = {}
    if "serialized_examples" in signatures:
        answer = subject.model.run("serialized_examples", {"examples": examples})
        answers["serialized_examples"] = answer[subject.output]
    if "regress" in signatures:
        answers["regress"] = subject.model.run("regress", {"inputs": examples})["outputs"]
    if "classify" in signatures:
        answers["classify"] = _classified(subject.model.run("classify", {"inputs": examples}), len(expected))
    for name, found in answers.items():
        compared(found, expected, subject.rounding, "serving_default's", _rows_of(name))
    if not answers:
        return "none of these signatures is there"
    return f"{', '.join(answers)}: {len(expected)} rows as serving_default"


def _rows_of(signature: str) -> Callable[[int], str]:
    return lambda i: f"{signature}, row {i + 1}"


def _classified(answer: dict[str, np.ndarray], count: int) -> np.ndarray:
    """The scores of class "1"."""
    if answer["classes"].shape != (count, 2) or (answer["classes"] != np.array([b"0", b"1"], object)).any():
        raise Failed('classify: its classes are not ["0", "1"] in each row; export the model again')
    sums = answer["scores"].sum(axis=1)
    if not np.abs(sums - 1).max() <= 1e-5:
        raise Failed(f"classify: scores of a row add up to {sums[np.argmax(np.abs(sums - 1))]}, not 1")
    return answer["scores"][:, 1]


def check_rank(subject: Subject) -> str:
    """Asks `rank` and `rank_top_k` for candidates in the context of the first row."""
    raw, signatures = subject.rows.raw, subject.model.signatures
    if "rank" not in signatures:
        return "the bundle has no context features and does not rank"
    rows = {name: values[~subject.rows.odd][:_MOST] for name, values in raw.items()}
    context = subject.context
    request = rank_request(rows, context)
    repeated = {k: np.repeat(v[:1], len(v), axis=0) if k in context else v for k, v in rows.items()}
    expected, ranked = subject.score(repeated), subject.model.run("rank", request)
    if ranked["scores"].shape != (1, len(expected)):
        raise Failed(f"rank: scores of shape {list(ranked['scores'].shape)}; [1, {len(expected)}] is expected")
    compared(ranked["scores"][0], expected, subject.rounding, "serving_default's", lambda i: f"rank, candidate {i}")
    _check_order("rank", ranked["scores"][0], ranked["order"][0], len(expected))
    if "rank_top_k" in signatures:
        wanted = min(10, len(expected))
        best = subject.model.run("rank_top_k", {**request, "k": np.array([wanted], np.int32)})
        _check_order("rank_top_k", ranked["scores"][0], best["indices"][0], wanted)
        falling = np.sort(ranked["scores"][0])[::-1][:wanted]
        if not subject.rounding.met(best["scores"][0], falling).all():
            difference = np.abs(best["scores"][0] - falling)
            raise Failed(
                f"rank_top_k: its scores are not the best {wanted} of rank: they differ by {difference.max():g}"
            )
    return f"{len(expected)} candidates as serving_default scores them, best first"


def _check_order(signature: str, scores: np.ndarray, order: np.ndarray, count: int) -> None:
    if len(order) != count or len({*order.tolist()}) != count or order.min() < 0 or order.max() >= len(scores):
        raise Failed(f"{signature}: it names {order.tolist()[:20]}, which are not {count} different candidates")
    wrong = np.flatnonzero(np.diff(scores[order]) > 0)
    if len(wrong):
        raise Failed(
            f"{signature}: its order is not best first: place {wrong[0]} has the score {scores[order][wrong[0]]:.7g},"
            f" the next one {scores[order][wrong[0] + 1]:.7g}; export the model again"
        )
