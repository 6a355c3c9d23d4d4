"""The turns of workers of the training benchmark, with workers that only count."""

import itertools
import types
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class CountingWorker:
    """Answers losses with their number, and turns with the number of the turn."""

    def __init__(self):
        self._turns = itertools.count(1)

    def ready(self):
        pass

    def ask(self, command):
        name, steps = command.split()
        return [0.5] * int(steps) if name == "losses" else [float(next(self._turns))] * int(steps)

    def close(self):
        pass


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import studies
    from training import pool

    return pool, studies


def test_rounds_end_with_the_time_but_two_are_left_to_compare(benchmarks):
    pool, _ = benchmarks
    makers = {"ours": CountingWorker, "FBGEMM": CountingWorker}
    found = pool.take_turns(makers, losses=3, rounds=4, steps=2)
    assert found["ours"] == {"losses": [0.5] * 3, "seconds": [[1.0] * 2, [2.0] * 2, [3.0] * 2, [4.0] * 2]}
    late = pool.take_turns(makers, losses=3, rounds=4, steps=2, until=0.0)
    assert [len(late[name]["seconds"]) for name in makers] == [2, 2]


def test_each_group_has_an_equal_share_of_the_time_left(benchmarks, monkeypatch):
    _, studies = benchmarks
    monkeypatch.setattr(studies, "time", types.SimpleNamespace(perf_counter=lambda: 100.0))
    options = studies.Options([], rounds=5, steps=10, quick=False, brief=True, end=700.0)
    assert [options.end_of_one_of(groups) for groups in (3, 1)] == [300.0, 700.0]
    assert studies.Options([], rounds=5, steps=10, quick=False).end_of_one_of(3) is None
