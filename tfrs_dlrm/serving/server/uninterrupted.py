"""Waits for work in a thread, which no caller can stop: what a request takes stays counted until its work is over."""

from __future__ import annotations

import asyncio
from typing import TypeVar

_Result = TypeVar("_Result")


async def uninterrupted(work: asyncio.Future[_Result]) -> _Result:
    """Returns the result of work, which a cancelled caller leaves to itself and waits for.

    Args:
      work: a future or task that nobody else waits for.

    Raises:
      asyncio.CancelledError: the caller was cancelled, perhaps several times; the work is over.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as e:
            cancelled = e
    if cancelled is None:
        return work.result()
    if not work.cancelled():
        work.exception()  # nobody hears of it; asyncio would log that it was never retrieved
    raise cancelled
