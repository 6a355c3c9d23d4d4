"""Which rows new values get, by hand."""

import numpy as np
import pytest

from tfrs_dlrm.data.encoding.vocabulary_merge import assign_rows


@pytest.mark.parametrize(
    ("known", "new", "max_size", "rows"),
    [
        ([5, 2], [9, 1], None, [3, 4]),
        ([5, 2], [9, 8, 1], 3, [3, 2]),  # 9 has room; 8 takes the row of 2; 1 is below 5
        ([5, 2, 2], [3, 2], 3, [3]),  # of equal counts the last row is given up; 2 is not above 2
        ([1, 1, 1], [4, 3, 2, 2], 2, [3, 2, 1]),
        ([], [4, 3], 1, [1]),
        ([5, 2], [], 2, []),
    ],
)
def test_rows_by_hand(known, new, max_size, rows):
    found = assign_rows(np.array(known, np.float64), np.array(new, np.float64), max_size)
    assert found.dtype == np.int64 and found.tolist() == rows
