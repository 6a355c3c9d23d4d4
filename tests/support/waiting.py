"""Waiting for an event with a deadline that a busy machine keeps."""

import time
from collections.abc import Callable

SECONDS = 300


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Looks until `condition()` is true; after `SECONDS` the test fails, and the message says what did not happen."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{SECONDS} seconds passed without this: {what}"
        time.sleep(0.02)
