"""What `benchmarks/train.py --compare` says, by hand."""

import math
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def changes(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from training import changes

    return changes


def study(seconds, ours, peer="FBGEMM"):
    def variant(name, values):
        return {"peer": name, "optimizer": "sgd", "precision": "fp32", "seconds": values}

    variants = {"ours sgd fp32": variant("ours", ours), f"{peer} sgd fp32": variant(peer, seconds)}
    return {"groups": [{"workload": "paper", "name": "SGD", "variants": variants}]}


def test_a_change_is_the_ratio_of_ratios_and_its_noise_three_standard_errors(changes):
    # Rounds of two steps; medians of a round: 2 and 8 over 1 and 1. All steps: median of 1, 3, 8, 8 is 5.5.
    now = study([[1.0, 3.0], [8.0, 8.0]], [[1.0, 1.0], [1.0, 1.0]])
    then = study([[2.2, 2.2], [2.2, 2.2]], [[2.0, 2.0], [2.0, 2.0]])
    (found,) = changes.changes(now, then)
    assert (found.workload, found.variant) == ("paper", "FBGEMM sgd fp32")
    assert found.now == pytest.approx(5.5) and found.then == pytest.approx(1.1)
    assert found.relative == pytest.approx(4.0)
    # The logarithms of the rounds, log 2 and log 8, have the standard error log(4) / 2 = log 2; three are log 8.
    assert found.noise == pytest.approx(7.0)
    assert not found.beyond_noise  # 5 < 8


@pytest.mark.parametrize(("time", "mark"), [(2.0, "ours gained"), (0.5, "OURS LOST"), (1.0, "")])
def test_what_no_noise_explains_is_marked(changes, time, mark):
    steady = [[1.0], [1.0]]
    found = changes.changes(study([[time], [time]], steady), study(steady, steady))
    (row,) = changes.table(found, "2026-01-01").rows
    assert row == ["paper, FBGEMM sgd fp32", f"{time:.2f}x", "1.00x", f"{time - 1:+.0%}", "0%", mark]


def test_one_round_says_nothing_about_noise(changes):
    (found,) = changes.changes(study([[9.0]], [[1.0]]), study([[1.0]], [[1.0]]))
    assert found.noise is None and not found.beyond_noise and math.isclose(found.relative, 8.0)


def test_variants_that_one_run_lacks_or_lost_are_left_out(changes):
    steady = [[1.0], [1.0]]
    assert changes.changes(study(steady, steady), study(steady, steady, "PyTorch")) == []
    assert changes.changes(study(steady, []), study(steady, steady)) == []
