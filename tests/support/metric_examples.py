"""Labels, logits and weights to measure, and Keras metrics fed with them."""

import numpy as np

NAMES = ("auc", "log_loss", "normalized_entropy", "calibration", "expected_calibration_error")


def examples(size: int, mean: float = -2.0, deviation: float = 1.5, grid: bool = True):
    """Labels, miscalibrated logits and weights, some of them 0; all float32.

    On the grid, logits that differ fall into different bins of StreamingAUC, which is exact for them.
    """
    rng = np.random.default_rng(0)
    truth = rng.normal(mean, deviation, size)
    labels = rng.random(size) < 1 / (1 + np.exp(-truth))
    logits = 0.7 * truth + 0.3 + rng.normal(0, 0.5, size)
    if grid:
        logits = np.round(64 * logits) / 64 + 1 / 1024
    weights = rng.exponential(2.0, size) * (rng.random(size) > 0.1)
    return labels.astype(np.float32), logits.astype(np.float32), weights.astype(np.float32)


def update_all(measures, labels, logits, weights=None):
    for measure in measures:
        measure.update_state(labels, logits, sample_weight=weights)


def values(measures) -> dict[str, float]:
    return {m.name: float(m.result()) for m in measures}
