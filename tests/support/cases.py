"""Cases of a test, few of which run in `make test`."""

from collections.abc import Iterable

import pytest


def matrix(values: Iterable, fast: Iterable) -> list:
    """The values for `parametrize`, tuples for several arguments; only the fast ones run in `make test`."""
    values, fast = list(values), list(fast)
    assert all(v in values for v in fast), fast
    each = {True: (), False: pytest.mark.matrix}
    return [pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=each[v in fast]) for v in values]
