"""A run whose probabilities are off says so at its end."""

import pytest

from tfrs_dlrm.training.calibration_note import calibration_note


def metrics(calibration: float, ones: float = 1000.0) -> dict[str, float]:
    return {"examples": 10 * ones, "label_mean": 0.1, "calibration": calibration}


@pytest.mark.parametrize("fine", [metrics(0.81), metrics(1.24), metrics(1.9, ones=8), metrics(0.55, ones=8), {}])
def test_says_nothing_within_the_limits_and_within_chance(fine):
    assert calibration_note(fine) == ""


@pytest.mark.parametrize(
    ("off", "words"),
    [
        (metrics(66.0), "predicts 66.00 times the 1s of the evaluation set"),
        (metrics(1.26), "predicts 1.26 times the 1s"),
        (metrics(0.79), "predicts only 0.79 of the 1s"),
        (metrics(2.5, ones=8), "predicts 2.50 times"),
    ],
)
def test_says_what_is_off(off, words):
    assert words in calibration_note(off) and "sum of predictions over the sum of labels" in calibration_note(off)
