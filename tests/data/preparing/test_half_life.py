"""Half-lives in days and in preparations."""

import pytest

from tfrs_dlrm.data.preparing.half_life import HalfLife, check_day


def test_the_factor_of_counts():
    assert HalfLife.parse(None).factor("", "") == 1
    assert HalfLife.parse("2").factor("", "") == HalfLife.parse(2).factor("", "") == pytest.approx(0.5**0.5)
    assert HalfLife.parse("7d").factor("2026-11-23", "2026-11-30") == 0.5
    assert HalfLife.parse("7d").factor("2026-02-28", "2026-03-14") == 0.25


def test_what_cannot_be_read():
    for text in ("7w", "-1", "0d", "d", "1e3"):
        with pytest.raises(ValueError, match=r"give days, such as 7d, or a number of preparations"):
            HalfLife.parse(text)
    with pytest.raises(ValueError, match=r"in days, and this preparation has no day; give --day=YYYY-MM-DD"):
        HalfLife.parse("7d").factor("2026-11-23", "")
    with pytest.raises(ValueError, match="give a number of preparations instead"):
        HalfLife.parse("7d").factor("", "2026-11-23")
    with pytest.raises(ValueError, match="day='2026-02-30' is no date; give YYYY-MM-DD"):
        check_day("2026-02-30")
