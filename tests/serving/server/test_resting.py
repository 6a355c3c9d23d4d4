"""Looks at the files of versions; tests/serving/server/test_versions.py has what follows from them."""

import time

from tfrs_dlrm.serving.server.resting import Look, Resting


def test_looks_at_versions_that_are_gone_are_forgotten():
    resting, seen = Resting(), Look(("a",), time.time(), "saved_model.pb is missing", True)
    assert [resting.reached(number, seen) for number in (1, 2)] == [False, False]
    resting.keep({2})
    assert resting.reached(2, seen), "nothing changed since the last look"
    assert not resting.reached(1, seen), "it is new"
