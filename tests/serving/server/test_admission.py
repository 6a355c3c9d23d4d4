"""Which requests are taken at once; what they take is given back, however they end."""

import pytest

from tfrs_dlrm.serving.protocol import Overloaded, TooLarge, Unavailable
from tfrs_dlrm.serving.server.admission import Admission


def test_memory_is_counted_and_given_back():
    admission = Admission(10, most_bytes=1000, most_request_bytes=50)
    with admission.call() as first, admission.call() as second:
        first.take(500)
        with second.holding(400):
            assert admission.memory == 900
            with pytest.raises(Overloaded, match="all requests take 900 bytes of memory and this one needs 200 more"):
                first.take(200)
        with pytest.raises(TooLarge, match=r"takes 1201 bytes of memory, larger than max \(1000\)"):
            first.take(701)
        assert admission.memory == 500
    assert admission.memory == admission.under_way == admission.calls == 0


def test_requests_that_are_still_arriving_leave_room_for_whole_ones():
    admission = Admission(1, 1000, 50)
    with admission.call(), admission.call() as whole:
        whole.begin()
        with pytest.raises(Overloaded, match="1 requests are under way"), admission.call():
            pass
    with pytest.raises(KeyError), admission.call() as failing:
        failing.begin()
        failing.take(10)
        raise KeyError
    assert admission.memory == admission.under_way == admission.calls == 0
    admission.closed = True
    with pytest.raises(Unavailable, match="is ending"), admission.call():
        pass
