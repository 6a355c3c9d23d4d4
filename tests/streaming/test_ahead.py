"""Windows are read ahead in their order, one at most, and an error waits for its turn."""

import threading

import pytest

from tfrs_dlrm.streaming.ahead import ReadAhead
from tfrs_dlrm.streaming.windows import StreamWindow


class Topic:
    """Windows of ten rows of one partition; the third has another partition too. `read` says when each was read."""

    def __init__(self, windows):
        self._windows, self.found, self.was_read = windows, [], [threading.Event() for _ in range(windows)]

    def find(self, number, begins):
        self.found.append((number, dict(begins)))
        more = {1: (5, 7)} if number == 3 else {}
        return StreamWindow(number, {0: (begins[0], begins[0] + 10)} | more) if number <= self._windows else None

    def read(self, window):
        self.was_read[window.number - 1].set()
        return f"rows of {window.number}"


def test_windows_come_in_order_and_one_is_read_ahead():
    topic = Topic(windows=4)
    with ReadAhead(0, {0: 100}, topic.find, topic.read, threading.Event()) as ahead:
        for number in range(1, 5):
            found = ahead.next()
            assert (found.window.number, found.rows) == (number, f"rows of {number}")
            if number < 4:
                assert topic.was_read[number].wait(10)
                # While this one is trained on, the next waits, and none behind it is touched.
                assert len(topic.found) == number + 1
        assert ahead.next() is None
    begins = [{0: 100}, {0: 110}, {0: 120}, {0: 130, 1: 7}, {0: 140, 1: 7}]
    assert topic.found == list(enumerate(begins, 1))


def test_an_error_is_raised_in_its_turn():
    topic = Topic(windows=4)
    threads = []

    def read(window):
        threads.append(threading.current_thread())
        if window.number == 2:
            topic.read(window)
            raise ValueError("window 2 is broken")
        return topic.read(window)

    with ReadAhead(0, {0: 0}, topic.find, read, threading.Event()) as ahead:
        assert ahead.next().rows == "rows of 1"
        assert topic.was_read[1].wait(10)  # the first may still be trained on
        with pytest.raises(ValueError, match="window 2 is broken"):
            ahead.next()
    assert len(topic.found) == 2 and threading.current_thread() not in threads


def test_the_end_stops_a_thread_that_waits_for_rows():
    closing = threading.Event()

    def find(number, begins):
        assert closing.wait(10)

    with pytest.raises(KeyboardInterrupt), ReadAhead(0, {0: 0}, find, Topic(0).read, closing) as ahead:
        assert not ahead.asked
        raise KeyboardInterrupt
    assert closing.is_set()
