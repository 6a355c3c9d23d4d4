"""When a window begins, with a clock and a topic that only this test moves."""

import pytest

from tfrs_dlrm.config import StreamConfig
from tfrs_dlrm.streaming import waiting
from tfrs_dlrm.streaming.waiting import Waiting


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now, asked = 0.0, 0

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds

    found = Clock()
    monkeypatch.setattr(waiting, "time", found)
    return found


def topic(clock, rows_per_s, last=1000.0, new_partition_at=1000.0):
    """One row is there from the begin; the second partition is made later."""

    def bounds():
        end = 1 + int(min(clock.now, last) * rows_per_s)
        return {0: (0, end)} | ({1: (3, 5)} if clock.now >= new_partition_at else {})

    return bounds


def make(clock, bounds, **config):
    seen = []
    return Waiting(
        StreamConfig(**{"window_rows": 10, "window_seconds": 60, **config}), bounds, lambda: False, seen.append
    ), seen


def test_a_window_is_full_or_late(clock):
    found, seen = make(clock, topic(clock, rows_per_s=2))
    assert found.ranges({0: 0}) == {0: (0, 10)} and clock.now == pytest.approx(4.6, abs=0.2)
    assert seen[0] == 1 and seen == sorted(seen)
    late, _ = make(clock, topic(clock, rows_per_s=0.1))
    assert late.ranges({0: 1}) == {0: (1, 8)} and clock.now == pytest.approx(70, abs=0.5)


def test_the_time_of_a_window_begins_with_its_first_row(clock):
    found, _ = make(clock, lambda: {0: (0, 3 if clock.now >= 100 else 0)})
    assert found.ranges({0: 0}) == {0: (0, 3)} and clock.now == pytest.approx(160, abs=0.5)


def test_it_ends_at_the_end_or_when_nothing_comes(clock):
    bounds = topic(clock, rows_per_s=5)
    clock.now = 3.0
    found, _ = make(clock, bounds, stop_at_end=True)  # with 16 rows
    clock.now = 50.0
    assert found.ranges({0: 0}) == {0: (0, 10)} and found.ranges({0: 10}) == {0: (10, 16)}
    assert found.ranges({0: 16}) == {} and found.reason == "the rows that the topic held at the start are done"
    assert clock.now == 50.0
    idle, _ = make(clock, topic(clock, 1, last=60), idle_seconds=20)
    assert idle.ranges({0: 61}) == {} and idle.reason == "no row came for 20 s"
    assert clock.now == pytest.approx(70, abs=0.5)


def test_a_partition_that_is_made_meanwhile_is_read_from_its_begin(clock):
    found, _ = make(clock, topic(clock, rows_per_s=1, new_partition_at=5), window_seconds=8)
    assert found.ranges({0: 0}) == {0: (0, 8), 1: (3, 5)}
