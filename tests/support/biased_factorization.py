"""Biased matrix factorization in plain NumPy (Koren, Bell and Volinsky 2009), by alternating least squares."""

from __future__ import annotations

import numpy as np

Model = tuple[float, np.ndarray, np.ndarray]


def fit(
    users: np.ndarray, items: np.ndarray, ratings: np.ndarray, latent: int, l2: float, sweeps: int, seed: int = 0
) -> Model:
    """Minimizes the sum of (rating - mean - b_user - b_item - p_user . q_item)^2 and `l2` times all squares.

    Args:
      users: int [N].
      items: likewise.
      ratings: float64 [N].
      latent: the dimension of p and q.
      l2: of biases and vectors.
      sweeps: how often either side is solved for.

    Returns:
      The mean, and the rows [p, b] of users and [q, b] of items.
    """
    rng = np.random.default_rng(seed)
    mean = float(ratings.mean())
    sides = [rng.normal(0, 0.1, (ids.max() + 1, latent + 1)) for ids in (users, items)]
    sides[0][:, -1] = sides[1][:, -1] = 0
    for _ in range(sweeps):
        for mine, other, own, others in ((0, 1, users, items), (1, 0, items, users)):
            vectors = sides[other][others]
            inputs = np.column_stack([vectors[:, :-1], np.ones(len(vectors))])  # by p or q, and by the bias
            sides[mine] = _solved(own, inputs, ratings - mean - vectors[:, -1], len(sides[mine]), l2)
    return mean, sides[0], sides[1]


def predict(model: Model, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Ratings float64 [N]; who was not seen counts as zeros."""
    mean, p, q = model
    a, b = _rows(p, users), _rows(q, items)
    return mean + (a[:, :-1] * b[:, :-1]).sum(axis=1) + a[:, -1] + b[:, -1]


def _rows(table: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.where((ids < len(table))[:, None], table[np.minimum(ids, len(table) - 1)], 0.0)


def _solved(groups: np.ndarray, inputs: np.ndarray, targets: np.ndarray, count: int, l2: float) -> np.ndarray:
    """The ridge regression of each group."""
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups, minlength=count))
    out = np.zeros((count, inputs.shape[1]))
    for group, end in enumerate(ends):
        rows = order[ends[group - 1] if group else 0 : end]
        if len(rows):
            x = inputs[rows]
            out[group] = np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ targets[rows])
    return out
