"""Logs of independent categorical fields whose labels are drawn from known logits.

The values of a field have effects that average to zero. Three kinds of logits:

main       a sum of one effect for each field
pairwise   and inner products of latent vectors of pairs of fields
crosses    and products of one effect of each of three fields, which no sum over pairs explains
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import study

FIELDS, VALUES, LATENT = 8, 4, 3
# Standard deviations of the parts of the logit.
STD = {"main": 1.0, "pairwise": 1.0, "crosses": 1.0}
TRIPLES = ((0, 1, 2), (3, 4, 5), (5, 6, 7))


def planted(log: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids [rows, FIELDS], labels, and the logit that they were drawn from."""
    rng = np.random.default_rng(seed)
    ids = drawn_ids(rng, rows)
    logits = drawn_logits(rng, log, ids)
    return ids, drawn_labels(rng, logits), logits


def drawn_ids(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Ids [rows, FIELDS], all values equally probable."""
    return rng.integers(0, VALUES, (rows, FIELDS))


def drawn_logits(rng: np.random.Generator, log: str, ids: np.ndarray) -> np.ndarray:
    """Draws the effects of all values, and returns the logit of each row."""
    logits = _scaled(sum(_centred(rng, 1)[ids[:, f], 0] for f in range(FIELDS)), STD["main"]) - 0.5
    latent = [_centred(rng, LATENT) for _ in range(FIELDS)]
    pairs = [latent[f][ids[:, f]] * latent[g][ids[:, g]] for f in range(FIELDS) for g in range(f)]
    triples = [np.prod([_centred(rng, 1)[ids[:, f], 0] for f in triple], axis=0) for triple in TRIPLES]
    if log != "main":
        logits += _scaled(np.sum(pairs, axis=(0, 2)), STD["pairwise"])
    if log == "crosses":
        logits += _scaled(np.sum(triples, axis=0), STD["crosses"])
    return logits


def drawn_labels(rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    """Labels of 0 and 1."""
    return (rng.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(int)


def _centred(rng: np.random.Generator, width: int) -> np.ndarray:
    """[VALUES, width] that average to zero over the values."""
    effects = rng.normal(size=(VALUES, width))
    return effects - effects.mean(axis=0)


def _scaled(part: np.ndarray, std: float) -> np.ndarray:
    return part * (std / part.std())


def prepare_log(
    directory: str, labels: Mapping[str, np.ndarray], ids: np.ndarray, rows: int, queries: np.ndarray | None = None
) -> str:
    """Writes and prepares a log, unless the directory has it: `rows` rows to train on, the others for evaluation.

    With `queries` [rows], the query is the group of a row.
    """
    import tfrs_dlrm as td

    columns = {**labels, **({} if queries is None else {"query": queries})}
    columns |= {f"f{i}": ids[:, i] for i in range(FIELDS)}
    first, *others = map(td.Label, labels)
    features = tuple(td.CategoricalFeature(f"f{i}", dtype="int64") for i in range(FIELDS))
    group = None if queries is None else "query"
    schema = td.Schema(first, more_labels=tuple(others), categorical=features, group=group)
    return study.prepared(directory, schema, columns, rows)
