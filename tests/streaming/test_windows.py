import pytest

from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.reader import StreamError
from tfrs_dlrm.streaming.waiting import check_retained
from tfrs_dlrm.streaming.windows import StreamState, StreamWindow, WindowJournal, compose


def test_a_window_by_hand():
    # The second has 3, so that 4 each are left for the others.
    begins, ends = {0: 10, 1: 5, 2: 0}, {0: 100, 1: 8, 2: 50}
    assert compose(begins, ends, 11) == {0: (10, 14), 1: (5, 8), 2: (0, 4)}
    assert compose(begins, ends, 1000) == {0: (10, 100), 1: (5, 8), 2: (0, 50)}
    assert compose(begins, {0: 10, 1: 5, 2: 0}, 11) == {}


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
def test_windows_are_full_and_leave_nobody_out(rows):
    begins, ends, seen = dict.fromkeys(range(5), 0), {0: 3, 1: 0, 2: 50, 3: 7, 4: 1}, {p: 0 for p in range(5)}
    while left := sum(ends.values()) - sum(seen.values()):
        window = StreamWindow(1, compose(begins, ends, rows))
        assert window.size == min(rows, left)
        for p, (begin, end) in window.ranges.items():
            assert begin == begins[p] and begin < end <= ends[p]
            begins[p], seen[p] = end, seen[p] + end - begin
    assert begins == ends


def test_the_state_after_two_windows_by_hand():
    state = StreamState()
    state.advance(StreamWindow(1, {0: (0, 4), 2: (3, 5)}), step=2, rows=5, malformed=1)
    assert state.next_offsets() == {0: 4, 1: 0, 2: 5}
    state.advance(StreamWindow(2, {1: (0, 2), 3: (7, 8)}), step=2, rows=0, malformed=3)
    assert state.next_offsets() == {0: 4, 1: 2, 2: 5, 3: 8}
    counters = (state.windows, *(int(v) for v in (state.step, state.rows, state.malformed, state.malformed_in_a_row)))
    assert counters == (2, 2, 5, 4, 3)


def test_a_window_that_was_begun_is_begun_again(tmp_path):
    path = str(tmp_path / "windows.jsonl")
    journal = WindowJournal(path)
    journal.write(StreamWindow(1, {0: (0, 5), 2: (1, 3)}))
    journal.write(StreamWindow(2, {0: (5, 6)}))
    with open(path, "a") as f:
        f.write('{"window": 3, "ran')  # a kill in the middle
    again = WindowJournal(path)
    assert again.window(1, {0: 0, 1: 0, 2: 1}) == StreamWindow(1, {0: (0, 5), 2: (1, 3)})
    assert again.window(3, {0: 6}) is None
    with pytest.raises(
        StreamError, match="window 2 begins at offset 5 of partition 0, and the checkpoint resumes at 7"
    ):
        again.window(2, {0: 7})
    again.write(StreamWindow(3, {0: (6, 9)}))
    assert WindowJournal(path).window(3, {0: 6}) == StreamWindow(3, {0: (6, 9)})
    with open(path, "a") as f:
        f.write("[1]\n")
    with pytest.raises(ValueError, match=r"windows.jsonl: not the windows of a stream: b'\[1\]"):
        WindowJournal(path)


def test_rows_that_are_gone_are_an_error():
    address = StreamAddress.parse("kafka://a/t")
    check_retained(address, {0: 5, 1: 0}, {0: (5, 9), 1: (0, 0), 2: (3, 4)})
    with pytest.raises(
        StreamError, match="partition 1: 7 rows that were not trained on are gone: the checkpoint resumes at"
    ):
        check_retained(address, {0: 5, 1: 3}, {0: (5, 9), 1: (10, 20)})
    with pytest.raises(StreamError, match="resumes at offset 5, and the topic ends at 4; was it recreated"):
        check_retained(address, {0: 5}, {0: (0, 4)})
    with pytest.raises(StreamError, match="partition 1 does not exist any more"):
        check_retained(address, {0: 0, 1: 0}, {0: (0, 4)})
